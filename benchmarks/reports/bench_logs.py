"""What ``diagnose``, ``replay`` and ``report`` cost on a long run of small files, next to reading its columns.

    python benchmarks/reports/bench_logs.py --files 250 500 1000 2000

Each file has 48 completions of 6 questions on 6 rewards, as TRL logs them. "Arrow" reads the same columns by
``pyarrow.parquet.read_table``, once. The exponent is that of the cost against the number of files.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rvpo.core import AdvantageConfig
from rvpo.core.methods.registry import build_method
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import DEFAULT, replay
from rvpo.logs.open import open_run
from rvpo.page.report import build_report

ROWS, GROUP, REWARDS = 48, 8, 6


def write(folder: Path, files: int) -> Path:
    """Write the completions of a run with ``files`` steps."""
    rng = np.random.default_rng(0)
    (folder / "completions").mkdir(parents=True)
    for step in range(1, files + 1):
        rewards = rng.random((ROWS, REWARDS))
        rewards[:, 0] = rewards[:, 0] < 0.3 + 0.5 * step / files
        total = rewards.sum(1).reshape(-1, GROUP)
        advantages = (total - total.mean(1, keepdims=True)) / (total.std(1, ddof=1, keepdims=True) + 1e-4)
        table = {
            "step": [step] * ROWS,
            "prompt": [f"question {step} {i // GROUP} " + "why " * 20 for i in range(ROWS)],
            "completion": [f"answer {rng.integers(0, 20)} " + "because " * 40 for _ in range(ROWS)],
            **{f"reward_{j}": rewards[:, j] for j in range(REWARDS)},
            "advantage": advantages.ravel(),
        }
        pq.write_table(pa.table(table), folder / "completions" / f"completions_{step:05d}.parquet")
    return folder


def read_columns(folder: Path) -> None:
    """Read the columns as anybody would."""
    columns = ["prompt", "completion", *(f"reward_{j}" for j in range(REWARDS)), "advantage"]
    for path in sorted(folder.glob("completions/*.parquet")):
        pq.read_table(path, columns=columns)


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, nargs="+", default=[250, 500, 1000, 2000])
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = [AdvantageConfig(build_method(text)) for text in DEFAULT]
    tasks: dict[str, Callable[[Path], object]] = {
        "Arrow": read_columns,
        "diagnose": lambda folder: diagnose(open_run(folder)),
        "diagnose, the last tenth": lambda folder: diagnose(open_run(folder, steps=(round(0.9 * files), None))),
        "replay": lambda folder: replay(open_run(folder), methods),
        "report": lambda folder: build_report([open_run(folder)]),
    }
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for files in args.files:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), files)
            for name, task in tasks.items():
                found[name].append(seconds(lambda task=task, folder=folder: task(Path(folder))))
    print(f"{'CPU seconds':26}", *(f"{files:>8}" for files in args.files), "  exponent")
    for name, each in found.items():
        grown = math.log(args.files[-1] / args.files[0])
        exponent = f"{math.log(each[-1] / each[0]) / grown:.2f}" if grown else "-"
        print(f"{name:26}", *(f"{value:8.2f}" for value in each), f"{exponent:>10}")


if __name__ == "__main__":
    main()
