"""How cost grows: with completions, channels, labels, steps and files.

    python benchmarks/exponents.py

Each line has four sizes, the CPU time of each (the median of its repetitions, which are interleaved), and two exponents:
the slope of log time by log size over all four, and between the two largest, where fixed costs count least. An exponent
of 1 is linear, 0 does not depend on the size.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import rvpo
from rvpo.core.ragged import Family, Score

G = 8


def interleaved(actions: Sequence[Callable[[], object]], repetitions: int) -> list[float]:
    """Return the median CPU milliseconds of each action; the first round warms up."""
    times: list[list[float]] = [[] for _ in actions]
    for repetition in range(repetitions + 1):
        for action, taken in zip(actions, times, strict=True):
            began = time.process_time()
            action()
            if repetition:
                taken.append((time.process_time() - began) * 1e3)
    return [statistics.median(taken) for taken in times]


def batch(rows: int, columns: int) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(0))


def advantages(method: str, rows: int, columns: int) -> Callable[[], object]:
    """Return one step of a run after its first one."""
    rewards = batch(rows, columns)
    state = rvpo.advantages(rewards, num_generations=G, method=method, state={}).state
    return lambda: rvpo.advantages(rewards, num_generations=G, method=method, state=state)


def labelled(known: int, in_batch: int = 32) -> Callable[[], object]:
    """Return a step of LIFT with ``in_batch`` labels, after a run that has seen ``known`` of them."""
    rule = rvpo.Aggregator("lift", ["rubric"])
    totals = torch.zeros(in_batch // 4 * G, 1, dtype=torch.float64)  # replaced by the rubric's criteria

    def step(first: int) -> None:
        values = torch.rand(len(totals), 4, generator=torch.Generator().manual_seed(first)).tolist()
        rows = [
            [
                Score(f"criterion {j}", value, labels=(f"label {first + row // G * 4 + j}",))
                for j, value in enumerate(values[row])
            ]
            for row in range(len(totals))
        ]
        rule(totals, families=[Family("rubric", rows)], num_generations=G)

    for first in range(0, known, in_batch):
        step(first)
    return lambda: step(known - in_batch)


def diagnosis(files: int, folder: Path, rows: int = 64) -> Callable[[], object]:
    """Return a diagnosis of a run with one file of completions per step."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rvpo.diagnose.diagnose import diagnose
    from rvpo.logs.open import open_run

    run = folder / str(files) / "completions"
    run.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for step in range(files):
        rewards = rng.random((rows, 8)).round(3)
        table = {"step": [step] * rows, "prompt": [f"{step} {row // G}" for row in range(rows)]}
        table |= {"completion": [f"{step} {row}" for row in range(rows)]}
        table |= {f"reward_{j}": rewards[:, j] for j in range(8)} | {
            "advantage": rewards.sum(1) - rewards.sum(1).mean()
        }
        pq.write_table(pa.table(table), run / f"completions_{step:05d}.parquet")
    return lambda: diagnose(open_run(run.parent), texts=False)


def exponents(sizes: Sequence[int], times: Sequence[float]) -> tuple[float, float]:
    """Return the slope of log time by log size over all sizes, and over the last two."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in times]
    return statistics.linear_regression(x, y).slope, (y[-1] - y[-2]) / (x[-1] - x[-2])


def main() -> None:
    """Print a table in Markdown, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, help="also write the numbers to this file, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, columns = (16384, 32768, 65536, 131072), (16, 32, 64, 128)
    found = []
    print("| cost of | sizes | milliseconds | exponent | last two sizes |\n|---|---|---|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        cases: list[tuple[str, Sequence[int], Callable[[int], Callable[[], object]]]] = [
            *(
                (f"`{method}`, completions of 17 channels", rows, lambda n, method=method: advantages(method, n, 17))
                for method in ("grpo", "gdpo", "rvpo", "lift")
            ),
            *(
                (f"`{method}`, channels of 4,096 completions", columns, lambda m, method=method: advantages(method, 4096, m))
                for method in ("gdpo", "rvpo", "lift")
            ),
            ("`lift`, labels that the run has seen (32 in the batch)", (256, 512, 1024, 2048), labelled),
            ("`rvpo diagnose`, files of 64 completions", (100, 200, 400, 800), lambda n: diagnosis(n, Path(name))),
        ]  # fmt: skip
        for what, sizes, prepare in cases:
            times = interleaved([prepare(size) for size in sizes], args.repetitions)
            whole, end = exponents(sizes, times)
            found.append({"cost": what, "sizes": list(sizes), "milliseconds": times, "exponent": whole, "end": end})
            shown = " · ".join(f"{value:.3g}" for value in times)
            print(
                f"| {what} | {' · '.join(f'{size:,}' for size in sizes)} | {shown} | {whole:.2f} | {end:.2f} |",
                flush=True,
            )
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
