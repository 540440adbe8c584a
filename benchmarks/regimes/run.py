"""Train every rule in every regime, resuming what an earlier call left undone.

    python benchmarks/regimes/run.py --output runs/regimes --parallel 2        # all cells, the main rules
    python benchmarks/regimes/run.py --output runs/regimes --cells p0.25 --rules GDPO LIFT --seeds 100 101
    python benchmarks/regimes/run.py --output runs/regimes --methods "gdpo lift:kappa=3 my_rules.py:cvar"
    python benchmarks/regimes/table.py runs/regimes

A finished cell x rule is a file of records, one JSON object per run, so the same command goes on where it was cut off.
On two quiet cores about 35 minutes for all: 28 cells x 8 rules x 3 learning rates x 8 seeds, 0.7 s of a core per run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from itertools import product
from pathlib import Path
from urllib.parse import quote

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core per process

import torch
from cells import CELLS
from rules import MAIN, RULES, factory, named
from train import reinforce, warm_start

LEARNING_RATES = (1e-3, 2e-3, 4e-3)
SEEDS = tuple(range(100, 108))  # the task was tuned on seeds below 100


def main() -> None:
    """Make what is missing, cell by cell, so that a sweep that is cut off has whole cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/regimes"), help="folder of the records")
    parser.add_argument("--list", action="store_true", help="print the names of the cells and train nothing")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS), metavar="CELL")
    parser.add_argument("--rules", nargs="+", choices=list(RULES), metavar="RULE", help="default: the main eight")
    parser.add_argument("--methods", type=named, help="in place of --rules: 'gdpo lift:kappa=3 my_rules.py:cvar'")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--lrs", type=float, nargs="+", default=LEARNING_RATES, help="learning rates")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--parallel", type=int, default=1, help="processes, a core each")
    args = parser.parse_args()
    if args.list:
        print("\n".join(args.cells))
        return
    if args.rules and args.methods:
        parser.error("--rules and --methods are both given: drop one")
    rules = args.rules or args.methods or list(MAIN)
    (args.output / "records").mkdir(parents=True, exist_ok=True)
    settings = (args.output, tuple(args.seeds), tuple(args.lrs), args.steps)
    jobs = [(cell, rule, settings) for cell, rule in product(args.cells, rules) if not done(cell, rule, settings)]
    total, began = len(args.cells) * len(rules), time.perf_counter()
    print(f"{total - len(jobs)} of {total} cells x rules are done already", flush=True)
    with multiprocessing.get_context("spawn").Pool(args.parallel) as pool:
        # Warm starts first: several rules share one.
        warm = {CELLS[cell].habits: (cell, settings) for cell, _, _ in jobs}
        pool.map(make_warm_start, warm.values(), chunksize=1)
        for i, line in enumerate(pool.imap_unordered(run, jobs, chunksize=1), 1):
            print(f"[{i}/{len(jobs)}, {time.perf_counter() - began:.0f} s] {line}", flush=True)


def done(cell: str, rule: str, settings: tuple) -> bool:
    """Return whether a cell's rule has all its records."""
    output, seeds, lrs, _ = settings
    path = record_file(output, cell, rule)
    if not path.exists():
        return False
    have = {(record["lr"], record["seed"]) for record in map(json.loads, path.read_text().splitlines())}
    return have >= set(product(lrs, seeds))


def record_file(output: Path, cell: str, rule: str) -> Path:
    """Return the file of the records of a cell's rule."""
    return output / "records" / f"{cell}--{quote(rule.replace(' ', '_'), safe='=,')}.jsonl"


def make_warm_start(job: tuple) -> None:
    """Warm-start all seeds of a cell."""
    cell, (output, seeds, _, _) = job
    torch.set_num_threads(1)
    warm_start(CELLS[cell], seeds, output / "warm_starts")


def run(job: tuple) -> str:
    """Train one rule in one cell, at all learning rates and seeds."""
    name, rule, (output, seeds, lrs, steps) = job
    torch.set_num_threads(1)
    cell, began = CELLS[name], time.perf_counter()
    params = warm_start(cell, seeds, output / "warm_starts")
    records = reinforce(cell, params, {rule: factory(rule, cell.generations)}, lrs, seeds, steps)
    path = record_file(output, name, rule)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(record) + "\n" for record in records))
    partial.rename(path)
    return f"{name}, {rule}: {len(records)} runs in {time.perf_counter() - began:.0f} s"


if __name__ == "__main__":
    main()
