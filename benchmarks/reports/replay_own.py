"""Train with each method, then replay its own method on the record: the largest difference to the logged advantages.

    python benchmarks/reports/replay_own.py --steps 12

The quickstart's model and its fifteen rewards, 8 prompts x 8 completions a step, through RVPOTrainer; GRPO also through
TRL's own trainer, whose completions/ are replayed.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import trl
from transformers import PrinterCallback

from rvpo.core.methods.registry import METHODS
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run
from rvpo.quickstart.cells import MOSTLY_MET, Contender, Settings
from rvpo.quickstart.model import load_checkpoint, make_tokenizer
from rvpo.quickstart.task import REWARDS
from rvpo.quickstart.train import _arguments, _requests
from rvpo.trl import RVPOTrainer

OPTIONS = {"lagrangian": f":thresholds={{{REWARDS[0].__name__}:0.9}}", "riskpo": ":bundle_size=4"}


def train(folder: Path, method: str, steps: int) -> None:
    settings = replace(Settings(), steps=steps)
    config = _arguments(Contender(method, method + OPTIONS.get(method, "")), 0, settings, str(folder))
    config.log_completions, config.num_completions_to_print = True, 0
    trainer = RVPOTrainer(
        load_checkpoint(MOSTLY_MET.checkpoint),
        reward_funcs=list(REWARDS),
        args=config,
        train_dataset=_requests(0, steps * settings.prompts),
        processing_class=make_tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def train_with_trl(folder: Path, steps: int) -> None:
    trainer = trl.GRPOTrainer(
        load_checkpoint(MOSTLY_MET.checkpoint),
        reward_funcs=list(REWARDS),
        args=trl.GRPOConfig(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=64,
            num_generations=8,
            max_completion_length=Settings().max_completion_length,
            learning_rate=5e-4,
            logging_steps=1,
            log_completions=True,
            num_completions_to_print=0,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=_requests(0, steps * 8),
        processing_class=make_tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    lines = [f"{'run':<22}{'replayed':<44}{'completions':>12}{'largest |A|':>12}{'difference':>12}"]
    with tempfile.TemporaryDirectory() as name:
        for method in (*METHODS, "TRL's GRPOTrainer"):
            folder = Path(name) / method
            if method in METHODS:
                train(folder, method, args.steps)
            else:
                train_with_trl(folder, args.steps)
            run = open_run(folder)
            again = replay(run, [])
            largest = max(float(np.abs(batch.advantages).max()) for batch in run.batches())
            lines.append(
                f"{method:<22}{(again.own or '-')[:42]:<44}{again.completions:>12}{largest:>12.2f}{again.own_difference:>12.1e}"
            )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
