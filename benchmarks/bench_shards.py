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

SIZE = 8
"""Completions per prompt."""
LATENCY, BANDWIDTH = 30e-6, 10e9
"""Of the model: seconds per message, and bytes per second and rank."""


def step_of(world: int, completions: int, channels: int, method: str, repeats: int) -> None:
    """Measure in one rank; rank 0 prints a line."""
    import torch
    import torch.distributed as dist

    import rvpo

    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    store = dist.FileStore(os.environ["STORE"], world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=10))
    names = [f"c{j}" for j in range(channels)]
    random = torch.Generator().manual_seed(rank)
    rows = completions // world // SIZE * SIZE
    rewards = torch.rand(rows, channels, generator=random)
    rewards[:, 0] = (rewards[:, 0] > 0.5).float()
    sharded = rvpo.Aggregator(method, names, process_group=dist.group.WORLD)
    gathered = rvpo.Aggregator(method, names)

    def by_sums() -> None:
        sharded(rewards, num_generations=SIZE)

    def by_gathering() -> None:
        every = [torch.empty_like(rewards) for _ in range(world)]
        dist.all_gather(every, rewards)
        gathered(torch.cat(every), num_generations=SIZE)

    def all_gather_alone() -> None:
        dist.all_gather([torch.empty_like(rewards) for _ in range(world)], rewards)

    found = []
    for work in (by_sums, by_gathering, all_gather_alone):
        work()
        times = []
        for _ in range(repeats):
            dist.barrier()
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        found.append(1e3 * statistics.median(times))
    before, exchanges = sharded.shards.bytes, sharded.shards.exchanges
    by_sums()
    sent, exchanges = sharded.shards.bytes - before, sharded.shards.exchanges - exchanges
    if rank == 0:
        of_gather = rewards.numel() * rewards.element_size() * (world - 1)
        of_sums = 2 * sent * (world - 1) // world
        print(
            f"| {world} | {rows * world:,} | {exchanges} | {of_sums:,} | {of_gather:,} | {found[0]:.1f} | {found[1]:.1f} "
            f"| {found[2]:.1f} |",
            flush=True,
        )
    dist.barrier()
    dist.destroy_process_group()


def measure(arguments: argparse.Namespace) -> None:
    """Start the ranks of each line."""
    print("| ranks | completions | exchanges | bytes per rank, sums | bytes per rank, gathered | ms, sums | ms, gathered |"
          " of it all-gather |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for world in arguments.ranks:
        for completions in arguments.completions:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--channels", str(arguments.channels), "--method", arguments.method]
                command += ["--one", str(world), str(completions), "--repeats", str(arguments.repeats)]
                running = [
                    subprocess.Popen(
                        command,
                        env=os.environ | {"RANK": str(rank), "STORE": str(Path(folder, "s")), "OMP_NUM_THREADS": "1"},
                    )
                    for rank in range(world)
                ]
                for process in running:
                    process.wait()


def model(channels: int) -> None:
    """Print the cost on paper: an all-reduce of n bytes over R ranks takes 2 a log2 R + 2 n (R - 1) / (R b).

    An all-gather of N x M numbers takes a log2 R + 4 N M (R - 1) / (R b). a is the latency, b the bandwidth. Sums: 20
    all-reduces of one packet (2 KiB) each, and what M^2 numbers take beyond a packet.
    """
    from rvpo.step.shards import HEAD, PACKET

    print(f"M = {channels}, latency {1e6 * LATENCY:.0f} us, bandwidth {BANDWIDTH / 1e9:.0f} GB/s")
    print("| ranks | completions | bytes per rank, sums | bytes per rank, gathered | ms, sums | ms, gathered |")
    print("|---|---|---|---|---|---|")
    exchanges = 20
    sent = 8 * (exchanges * PACKET + max(0, channels**2 + 5 * channels - (PACKET - HEAD)))
    for world in (1, 8, 64, 1000):
        for completions in (10**3, 10**4, 10**5, 10**6):
            if completions < world * SIZE:
                continue
            share, depth = (world - 1) / world, max(world - 1, 0).bit_length()
            by_sums = 2 * sent * share
            by_gather = 4 * completions * channels * share
            times = (exchanges * 2 * LATENCY * depth + by_sums / BANDWIDTH, LATENCY * depth + by_gather / BANDWIDTH)
            print(
                f"| {world:,} | {completions:,} | {by_sums:,.0f} | {by_gather:,.0f} | {1e3 * times[0]:.2f} "
                f"| {1e3 * times[1]:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--completions", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--channels", type=int, default=5)
    parser.add_argument("--method", default="lift")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", action="store_true", help="print the cost on paper and measure nothing")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        step_of(*arguments.one, arguments.channels, arguments.method, arguments.repeats)
    elif arguments.model:
        model(arguments.channels)
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
