"""Writing ``channels/``: what a step costs, next to the same file written cell by cell from Python lists.

    python benchmarks/bench_record.py

The lists are how the writer worked at first; both files hold the same table, which is checked.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rvpo import Aggregated, Aggregator
from rvpo.files import whole
from rvpo.logs.schema import SCHEMA
from rvpo.logs.writer import ChannelTable

N, G, ROUNDS = 1024, 8, 15


def milliseconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def write_lists(path: Path, done: Aggregated) -> None:
    """Write the record of a batch without rubrics, cell by cell."""
    result, names = done.result, list(done.importance)
    cells = [(i, column) for column in range(len(names)) for i in range(len(result.advantages))]
    rows, columns = ([cell[k] for cell in cells] for k in (0, 1))

    def take(x: Tensor) -> list:
        return x[rows, columns].tolist()

    def known(x: Tensor) -> list:
        return [value if scored else None for value, scored in zip(take(x), take(~result.missing), strict=True)]

    groups, advantages = result.groups.index.tolist(), result.advantages.tolist()
    values = {
        "step": [1 for _ in cells],
        "batch": [0 for _ in cells],
        "completion": rows,
        "group": [groups[i] for i in rows],
        "reward_function": [names[column] for column in columns],
        "channel": [names[column] for column in columns],
        **{name: [None for _ in cells] for name in ("criterion", "text", "reason", "detail", "tokens")},
        "labels": [[] for _ in cells],
        "weight": [done.importance[names[column]] for column in columns],
        "counts": take(done.weights),
        "reward": known(result.rewards),
        "live": take(result.live),
        "z": known(result.z),
        "responsibility": take(result.responsibilities),
        "advantage": [advantages[i] for i in rows],
    }
    with whole(path) as partial:
        pq.write_table(pa.table({name: values[name] for name in SCHEMA.names}, schema=SCHEMA), partial)


def main() -> None:
    torch.set_num_threads(1)
    print(f"CPU ms per step, N = {N}, medians of {ROUNDS} interleaved calls")
    for m in (1, 4, 17, 64):
        done = Aggregator("rvpo", [f"reward_{j}" for j in range(m)])(torch.rand(N, m), num_generations=G)
        with tempfile.TemporaryDirectory() as folder:
            path, lists = Path(folder) / "channels" / "000001.parquet", Path(folder) / "lists.parquet"
            times = []
            for _ in range(ROUNDS):
                ours = milliseconds(lambda path=path, done=done: ChannelTable(path.parent).add(1, done))
                times.append((ours, milliseconds(lambda lists=lists, done=done: write_lists(lists, done))))
            written, expected = (pq.read_table(file, partitioning=None) for file in (path, lists))
            assert written.replace_schema_metadata().equals(expected.replace_schema_metadata())
        own, by_lists = (statistics.median(side) for side in zip(*times, strict=True))
        print(f"M = {m:2}: ours {own:6.1f}   from Python lists {by_lists:6.1f}   ratio {own / by_lists:.2f}")


if __name__ == "__main__":
    main()
