"""Print what each method did to the channels of the SmolLM2 tasks, from the metrics of the runs.

    python benchmarks/smollm2_regimes/prompts.py data/smollm2-regimes
    python benchmarks/sweep.py benchmarks/smollm2_regimes/mostly-met.yaml --output runs/mostly-met --parallel 2 \
        --methods gdpo rvpo_k1 lift
    python benchmarks/sweep.py benchmarks/smollm2_regimes/rarely-met.yaml --output runs/rarely-met --parallel 2 \
        --methods gdpo rvpo_k1 lift
    python benchmarks/smollm2_regimes/table.py runs/mostly-met runs/rarely-met --tested lift

The same for the runs of stacked.py. The hard channel is a recipe's first. Last: mean of the last three training steps;
held out: the same of one reply to each of 48 prompts that training has not seen. Worst: the lowest channel (of the last steps' means; AUC: in each step, mean over
steps). Dip: how far the hard channel's three-step mean ever fell below the mean of the first step over all methods and
seeds, where no method has acted yet. Every cell is the mean over seeds, then each seed.

Tests: a method against each other one, paired by task and seed, by flipping the signs of the differences, all of them for
up to 14 pairs; Holm's p over the other methods.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from rvpo.statistics import holm, sign_flip

WINDOW = 3
COMPARED = ("worst, held out", "worst, AUC", "others, held out")
"""Columns that are tested."""

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


def show(sweep: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Print a task's table and return its columns by method and seed; unfinished runs are left out."""
    runs = {path.parent.name: read(path.parent) for path in sorted(sweep.glob("*-*/model"))}
    first = over([steps[0] for steps, _ in runs.values()])
    start = first[next(iter(first))]
    print(f"\n**{sweep.name}**, first step, all runs: {', '.join(f'{k} {v:.2f}' for k, v in first.items())}\n")
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, (steps, held_out) in runs.items():
        method, _, seed = name.rpartition("-")
        table.setdefault(method, {})[seed] = summary(steps, held_out, start)
    columns = list(next(iter(next(iter(table.values())).values())))
    print(f"| method | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}")
    for method, rows in table.items():
        cells = [[row[column] for row in rows.values()] for column in columns]
        told = [f"{mean(cell):.2f} ({', '.join(f'{value:.2f}' for value in cell)})" for cell in cells]
        print(f"| {method} | {' | '.join(told)} |")
    return table


def test(tables: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]], method: str) -> None:
    """Print a method's differences from each other one, over the pairs of task and seed that both have."""
    others = sorted({name for table in tables for name in table} - {method})
    print("\n| column | pairs | difference | higher | lower | p | p, Holm |\n|---|---|--:|--:|--:|--:|--:|")
    for column in COMPARED:
        differences = {
            other: [
                table[method][seed][column] - table[other][seed][column]
                for table in tables
                for seed in table.get(method, {})
                if seed in table.get(other, {})
            ]
            for other in others
        }
        differences = {other: found for other, found in differences.items() if found}
        pvalues = [sign_flip(found) for found in differences.values()]
        for (other, found), p, adjusted in zip(differences.items(), pvalues, holm(pvalues), strict=True):
            higher, lower = sum(d > 0 for d in found), sum(d < 0 for d in found)
            pair = f"{method} - {other} ({len(found)})"
            print(f"| {column} | {pair} | {mean(found):+.3f} | {higher} | {lower} | {p:.4f} | {adjusted:.4f} |")


def main() -> None:
    """Print one table a task, and the tests that are asked for over all tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path, nargs="+", help="folders of runs named METHOD-SEED, one a task")
    parser.add_argument("--tested", nargs="*", default=[], metavar="METHOD", help="test it against each other method")
    args = parser.parse_args()
    tables = [show(sweep) for sweep in args.sweeps if any(sweep.glob("*-*/model"))]
    for method in args.tested:
        test(tables, method)


if __name__ == "__main__":
    main()
