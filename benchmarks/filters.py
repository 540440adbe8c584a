"""What group filters do to a training: work that is left out, and the worst channel, on the quickstart's task.

    python benchmarks/filters.py --output runs/filters               # goes on where it was stopped
    python benchmarks/filters.py --output runs/filters --seeds 4 --parallel 2

Four trainings from the quickstart's second start (the format is rarely met), with the same seeds: as it is; with
``skip_dead_groups``; with ``wanted``, which trains only on groups that the format ranks; and with both. The same number
of completions is generated in all: a group is known to be without signal only after its rewards. Backward work is the
share of completions that went through the loss.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as pq

from rvpo.quickstart import train
from rvpo.quickstart.cells import RARELY_MET, Contender, Settings
from rvpo.quickstart.records import Job
from rvpo.text.tables import markdown
from rvpo.trl import RVPOConfig

HARD = "strict_format"
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "skip_dead_groups": {"skip_dead_groups": True},
    "wanted": {"wanted": [HARD]},
    "wanted, skip_dead_groups": {"wanted": [HARD], "skip_dead_groups": True},
}


def with_advantage(folder: Path) -> float:
    """Return the share of a run's completions whose advantage is not 0, by the tables that TRL logged."""
    tables = [pq.read_table(path, columns=["advantage"]) for path in sorted(folder.glob("completions/*.parquet"))]
    advantages = [value for table in tables for value in table["advantage"].to_pylist()]
    return sum(value != 0 for value in advantages) / len(advantages)


def trained(method: str, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train once and return what it cost and what came out."""
    train.RVPOConfig = partial(RVPOConfig, **FILTERS[name])  # of this process, which trains once
    place = folder / f"{method}-{name.replace(', ', '+')}-{seed}"
    job = Job(RARELY_MET, Contender(method, method), seed, Settings())
    found = train.train_contender(job, lambda: None, place)
    return {"method": method, "filter": name, "seed": seed, **found}


def row_of(runs: list[dict[str, Any]], shares: list[float]) -> list[str]:
    """Return a row of the table for the seeds of one method and filter; ``shares`` are those with an advantage."""
    worst = [min(run["end"].values()) for run in runs]
    hard = [mean(run["curve"][HARD]) for run in runs]
    lowest = [min(mean(values) for values in run["curve"].values()) for run in runs]
    cells = [f"{mean(values):.2f} ({' '.join(f'{value:.2f}' for value in values)})" for values in (hard, lowest, worst)]
    share = mean(shares)
    kept = share if "skip_dead_groups" in FILTERS[runs[0]["filter"]] else 1.0
    seconds = mean(run["seconds"] for run in runs)
    return [runs[0]["method"], runs[0]["filter"], f"{share:.0%}", f"{kept:.0%}", f"{seconds:.0f}", *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["gdpo", "lift"])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--parallel", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    wanted = [(method, name, seed) for seed in range(args.seeds) for method in args.methods for name in FILTERS]
    places = {one: args.output / f"{one[0]}-{one[1].replace(', ', '+')}-{one[2]}.json" for one in wanted}
    missing = [one for one in wanted if not places[one].exists()]
    with ProcessPoolExecutor(args.parallel, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = {one: pool.submit(trained, *one, args.output) for one in missing}
        for one, run in waiting.items():
            places[one].write_text(json.dumps(run.result()), encoding="utf-8")
            print(*one, flush=True)
    runs = {one: json.loads(places[one].read_text("utf-8")) for one in wanted}
    measured = ["format in training", "worst in training", "worst at the end"]
    head = ["method", "filter", "with an advantage", "in the loss", "seconds", *measured]
    rows = []
    for method in args.methods:
        for name in FILTERS:
            cells = [(method, name, seed) for seed in range(args.seeds)]
            shares = [with_advantage(places[cell].with_suffix("")) for cell in cells]
            rows.append(row_of([runs[cell] for cell in cells], shares))
    print("\n".join(markdown([head, *rows])))


if __name__ == "__main__":
    main()
