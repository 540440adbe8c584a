"""Print what each method did to the channels of one SmolLM2 task, from the metrics of a sweep's runs.

    python benchmarks/smollm2_regimes/prompts.py data/smollm2-regimes
    python benchmarks/sweep.py benchmarks/smollm2_regimes/mostly-met.yaml --output runs/mostly-met --parallel 2 \
        --methods gdpo rvpo_k1 lift
    python benchmarks/sweep.py benchmarks/smollm2_regimes/rarely-met.yaml --output runs/rarely-met --parallel 2 \
        --methods gdpo rvpo_k1 lift
    python benchmarks/smollm2_regimes/table.py runs/mostly-met runs/rarely-met

The hard channel is a recipe's first. Last: mean of the last three training steps; held out: the same of one reply to each
of 48 prompts that training has not seen. Worst: the lowest channel (of the last steps' means; AUC: in each step, mean over
steps). Dip: how far the hard channel's three-step mean ever fell below the mean of the first step over all methods and
seeds, where no method has acted yet. Every cell is the mean over seeds, then each seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

WINDOW = 3

Means = Mapping[str, float]


def channels(record: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """Return the channels' means of one line of ``metrics.jsonl`` in the recipe's order; none where it has none."""
    parts = {key: key.split("/") for key in record}
    return {key[1]: record[whole] for whole, key in parts.items() if (key[0], key[-1]) == (f"{prefix}rvpo", "mean")}


def read(run: Path) -> tuple[Sequence[Means], Means]:
    """Return the means of each training step, and of the evaluation after the last one."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [found for record in records if (found := channels(record))]
    held_out = [found for record in records if (found := channels(record, "eval_"))]
    return steps, held_out[-1]


def over(steps: Sequence[Means]) -> Means:
    """Return each channel's mean over steps."""
    return {channel: mean(step[channel] for step in steps) for channel in steps[0]}


def summary(steps: Sequence[Means], held_out: Means, start: float) -> dict[str, float]:
    """Return the columns of the table for one run; ``start`` is the hard channel's mean before training."""
    hard, *others = steps[0]
    last = over(steps[-WINDOW:])
    windows = [over(steps[i : i + WINDOW])[hard] for i in range(len(steps) - WINDOW + 1)]
    return {
        "worst, last": min(last.values()),
        "worst, held out": min(held_out.values()),
        "worst, AUC": mean(min(step.values()) for step in steps),
        f"{hard}, last": last[hard],
        f"{hard}, held out": held_out[hard],
        f"{hard}, dip": max(0.0, start - min(windows)),
        "others, last": mean(last[channel] for channel in others),
        "others, held out": mean(held_out[channel] for channel in others),
    }


def main() -> None:
    """Print one table a sweep; unfinished runs are left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path, nargs="+", help="folders of runs named METHOD-SEED")
    for sweep in parser.parse_args().sweeps:
        runs = {path.parent.name: read(path.parent) for path in sorted(sweep.glob("*-*/model"))}
        first = over([steps[0] for steps, _ in runs.values()])
        start = first[next(iter(first))]
        print(f"\n**{sweep.name}**, first step, all runs: {', '.join(f'{k} {v:.2f}' for k, v in first.items())}\n")
        table: dict[str, list[dict[str, float]]] = {}
        for name, (steps, held_out) in runs.items():
            table.setdefault(name.rpartition("-")[0], []).append(summary(steps, held_out, start))
        columns = list(next(iter(table.values()))[0])
        print(f"| method | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}")
        for method, rows in table.items():
            cells = [[row[column] for row in rows] for column in columns]
            told = [f"{mean(cell):.2f} ({', '.join(f'{value:.2f}' for value in cell)})" for cell in cells]
            print(f"| {method} | {' | '.join(told)} |")


if __name__ == "__main__":
    main()
