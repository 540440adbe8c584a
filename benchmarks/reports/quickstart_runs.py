"""The quickstart's runs with their records kept: real neglect of a format, to be diagnosed and compared.

    python benchmarks/reports/quickstart_runs.py --out runs/quickstart-records --seeds 5
    rvpo diagnose runs/quickstart-records/gdpo-1
    rvpo compare runs/quickstart-records
    rvpo report runs/quickstart-records

The same models, prompts, seeds and settings as `rvpo quickstart` from the start at which the format is mostly met, so
docs/results/quickstart.md has their outcomes. Finished runs are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import PrinterCallback

from rvpo.diagnose.diagnose import diagnose
from rvpo.logs.open import open_run
from rvpo.quickstart.cells import GDPO, LIFT, MOSTLY_MET, RVPO_K1, Settings
from rvpo.quickstart.model import load_checkpoint, make_tokenizer
from rvpo.quickstart.task import FORMAT, REWARDS
from rvpo.quickstart.train import _arguments, _requests
from rvpo.trl import RVPOTrainer


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    settings = Settings()
    for seed in range(args.seeds):
        for contender in (GDPO, RVPO_K1, LIFT):
            folder = args.out / f"{contender.method.partition(':')[0]}-{seed}"
            if len(list((folder / "channels").glob("0*.parquet"))) == settings.steps:
                continue
            config = _arguments(contender, seed, settings, str(folder))
            config.log_completions, config.num_completions_to_print = True, 0
            trainer = RVPOTrainer(
                load_checkpoint(MOSTLY_MET.checkpoint),
                reward_funcs=list(REWARDS),
                args=config,
                train_dataset=_requests(seed, settings.steps * settings.prompts),
                processing_class=make_tokenizer(),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            print(folder, flush=True)
    print_verdicts(args.out)


def print_verdicts(out: Path) -> None:
    """Say what a diagnosis of the first steps, and of all, says of the format, beside what became of it."""
    spans = (15, 30, Settings().steps)
    print(f"\n{'run':<10}{'format, last third':>20}" + "".join(f"{f'steps 1 to {span}':>34}" for span in spans))
    for folder in sorted(out.iterdir()):
        cells = []
        for span in spans:
            found = diagnose(open_run(folder).between(None, span), texts=False)
            channel = next(channel for channel in found.channels if channel.name == FORMAT)
            r = channel.correlation
            cells.append(f"{channel.verdict} {r.value:+.2f} [{r.low:+.2f}, {r.high:+.2f}]")
        print(f"{folder.name:<10}{channel.late:>20.2f}" + "".join(f"{cell:>34}" for cell in cells))


if __name__ == "__main__":
    main()
