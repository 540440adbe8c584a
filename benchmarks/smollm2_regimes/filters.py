"""Print what group filters did to trainings of SmolLM2: completions generated and trained on, and the channels.

    python benchmarks/sweep.py benchmarks/smollm2_regimes/rarely-met.yaml --output runs/none --methods gdpo lift
    python benchmarks/sweep.py benchmarks/smollm2_regimes/rarely-met.yaml --output runs/wanted --methods gdpo lift \
        --set "trainer.wanted=[finished]" trainer.skip_dead_groups=true
    python benchmarks/smollm2_regimes/filters.py runs/none runs/wanted

Runs of a method and seed share prompts and the random numbers of the first step. In the loss: share of the completions
that went through the forward and backward pass. All other columns are as in ``table.py``: the mean over seeds, then
each seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

from table import over, read

from rvpo.text.tables import markdown

SKIPPED = "rvpo/skipped/share"


def in_the_loss(run: Path) -> float:
    """Return the share of a run's completions that went through the loss; without the filter, all of them."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    skipped = [record[SKIPPED] for record in records if SKIPPED in record]
    return 1 - mean(skipped) if skipped else 1.0


def row_of(name: str, method: str, runs: list[Path]) -> list[str]:
    """Return a row of the table for the seeds of a method."""
    columns: list[list[float]] = [[], [], [], []]
    for run in runs:
        steps, held_out = read(run)
        hard = next(iter(steps[0]))
        found = (in_the_loss(run), over(steps)[hard], min(over(steps).values()), min(held_out.values()))
        for column, value in zip(columns, found, strict=True):
            column.append(value)
    cells = [f"{mean(column):.2f} ({' '.join(f'{value:.2f}' for value in column)})" for column in columns]
    return [method, name, *cells]


def main() -> None:
    """Print one row per folder and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path, nargs="+", help="folders of runs named METHOD-SEED, one per filter")
    args = parser.parse_args()
    rows = []
    for sweep in args.sweeps:
        runs: dict[str, list[Path]] = {}
        for path in sorted(sweep.glob("*-*/model")):  # written at the end of a run
            runs.setdefault(path.parent.name.rpartition("-")[0], []).append(path.parent)
        rows += [row_of(sweep.name, method, found) for method, found in runs.items()]
    head = ["method", "filter", "in the loss", "hard channel in training", "worst in training", "worst held out"]
    print("\n".join(markdown([head, *rows])))


if __name__ == "__main__":
    main()
