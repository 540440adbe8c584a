"""Cost of a step of ``rvpo.Aggregator`` over several ranks: with a process group, and with gathered rewards.

Gathering is an all-gather of the rewards (N x M in single precision), after which each rank computes the whole batch.
With a process group, each rank computes its own rows and only sums travel. Ranks are gloo processes on this machine.

    python benchmarks/bench_shards.py --ranks 1 2 4 8 --completions 1000 10000 100000 --channels 5
    python benchmarks/bench_shards.py --model        # on paper: 1 to 1,000 ranks, 10^3 to 10^6 completions
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

SIZE = 8
"""Completions per prompt."""
LATENCY, BANDWIDTH = 30e-6, 10e9
"""Of the model: seconds per message, and bytes per second and rank."""
EXCHANGES = 21
"""Of the model: all-reduces of a step of LIFT, as measured."""
GENERAL, QUICK = 750e-9, 165e-9
"""Of the model: seconds that a step computes per reward, with all metrics, as measured on a busy machine."""
FIXED = 35e-3, 11e-3
"""Of the model: seconds that a step computes whatever its size, on both ways."""


def rank_of(rank: int, store: str, arguments: argparse.Namespace) -> None:
    """Be one of the ranks. The first ones of them are the ranks of each smaller world."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    most = max(arguments.ranks)
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, most), rank=rank, world_size=most, timeout=timedelta(minutes=10)
    )
    for world in arguments.ranks:
        group = dist.new_group(list(range(world)))
        for completions in arguments.completions:
            if rank < world:
                line = measured(group, rank, world, completions, arguments)
                if rank == 0:
                    print(line, flush=True)
            dist.barrier()
    dist.destroy_process_group()


def measured(group: Any, rank: int, world: int, completions: int, arguments: argparse.Namespace) -> str:
    """Return a line of the table."""
    import torch
    import torch.distributed as dist

    import rvpo

    names = [f"c{j}" for j in range(arguments.channels)]
    random = torch.Generator().manual_seed(rank)
    rows = completions // world // SIZE * SIZE
    rewards = torch.rand(rows, len(names), generator=random)
    rewards[:, 0] = (rewards[:, 0] > 0.5).float()
    sharded = rvpo.Aggregator(arguments.method, names, process_group=group)
    gathered = rvpo.Aggregator(arguments.method, names)

    def by_sums() -> None:
        sharded(rewards, num_generations=SIZE)

    def all_gather() -> torch.Tensor:
        every = [torch.empty_like(rewards) for _ in range(world)]
        dist.all_gather(every, rewards, group=group)
        return torch.cat(every)

    def by_gathering() -> None:
        gathered(all_gather(), num_generations=SIZE)

    found = []
    for work in (by_sums, by_gathering, all_gather):
        work()
        times, busy = [], []
        for _ in range(arguments.repeats):
            dist.barrier(group=group)
            start, begun = time.perf_counter(), time.process_time()
            work()
            times.append(time.perf_counter() - start)
            busy.append(time.process_time() - begun)
        found += [1e3 * statistics.median(times), 1e3 * statistics.median(busy)]
    sent, exchanges = sharded.shards.bytes, sharded.shards.exchanges
    by_sums()
    sent, exchanges = sharded.shards.bytes - sent, sharded.shards.exchanges - exchanges
    of_gather = rewards.numel() * rewards.element_size() * (world - 1)
    of_sums = 2 * sent * (world - 1) // world
    times_shown = " | ".join(f"{wall:.1f} ({busy:.1f})" for wall, busy in zip(found[::2], found[1::2], strict=True))
    return f"| {world} | {rows * world:,} | {exchanges} | {of_sums:,} | {of_gather:,} | {times_shown} |"


def measure(arguments: argparse.Namespace) -> None:
    """Start the ranks."""
    print("Bytes are those that a rank sends; ms are wall time and, in brackets, CPU time of rank 0, medians.")
    print(
        "| ranks | completions | exchanges | bytes, sums | bytes, gathered | ms, sums | ms, gathered | of it all-gather |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, *sys.argv, "--store", str(Path(folder, "store"))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        running = [
            subprocess.Popen([*own, "--rank", str(rank)], env=environment) for rank in range(max(arguments.ranks))
        ]
        for process in running:
            process.wait()


def model(channels: int) -> None:
    """Print the cost on paper.

    With a the latency of a message and b the bandwidth of a rank, an all-reduce of n bytes over R ranks takes
    2 a log2 R + 2 n (R - 1) / (R b), and an all-gather of N x M numbers a log2 R + 4 N M (R - 1) / (R b). A step by
    sums is ``EXCHANGES`` all-reduces of a packet, and of what M^2 numbers take beyond one. After that, a rank computes
    N / R rows on the general way by sums, and all N rows on the quick way if they are gathered.
    """
    from rvpo.step.shards import HEAD, PACKET

    sent = 8 * (EXCHANGES * PACKET + max(0, channels**2 + 5 * channels - (PACKET - HEAD)))
    print(
        f"M = {channels}, latency {1e6 * LATENCY:.0f} us, bandwidth {BANDWIDTH / 1e9:.2f} GB/s, per reward "
        f"{1e9 * GENERAL:.0f} ns and {1e3 * FIXED[0]:.0f} ms (general way), {1e9 * QUICK:.0f} ns and "
        f"{1e3 * FIXED[1]:.0f} ms (quick way)"
    )
    print(
        "| ranks | completions | bytes, sums | bytes, gathered | ms on the wire, sums | gathered | ms, sums | gathered |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for world in (1, 8, 64, 1000):
        for completions in (10**3, 10**4, 10**5, 10**6):
            if completions < world * SIZE:
                continue
            share, depth = (world - 1) / world, (world - 1).bit_length()
            by_sums, by_gather = 2 * sent * share, 4 * completions * channels * share
            wire = EXCHANGES * 2 * LATENCY * depth + by_sums / BANDWIDTH, LATENCY * depth + by_gather / BANDWIDTH
            own = GENERAL * completions * channels / world + FIXED[0], QUICK * completions * channels + FIXED[1]
            print(
                f"| {world:,} | {completions:,} | {by_sums:,.0f} | {by_gather:,.0f} | {1e3 * wire[0]:.1f} "
                f"| {1e3 * wire[1]:.1f} | {1e3 * (wire[0] + own[0]):.1f} | {1e3 * (wire[1] + own[1]):.1f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--completions", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--channels", type=int, default=5)
    parser.add_argument("--method", default="lift")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", action="store_true", help="print the cost on paper and measure nothing")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        rank_of(arguments.rank, arguments.store, arguments)
    elif arguments.model:
        model(arguments.channels)
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
