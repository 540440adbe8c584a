"""The warning about rarely met channels: its cost per step, next to one call per channel and to the whole step.

python benchmarks/bench_rare.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from rvpo import Advantages, Aggregator
from rvpo.core.metrics import rarely_met
from rvpo.step.rare import WINDOW, RecentRewards

ROUNDS = 40


def one_call_per_channel(recent: dict[str, Tensor], result: Advantages, names: Sequence[str]) -> list[str]:
    """Return the rarely met channels as the first version found them."""
    counts = (result.responsibilities != 0).any(0) | result.live.any(0)
    rare = []
    for j, name in enumerate(names):
        if bool(counts[j]):
            recent[name] = torch.cat([recent.get(name, result.rewards[:0, 0]), result.rewards[:, j]])[-WINDOW:]
            if rarely_met(recent[name][:, None])[0]:
                rare.append(name)
    return rare


def by_name(recent: RecentRewards, result: Advantages, names: Sequence[str]) -> list[str]:
    """Return the rarely met channels as the aggregator finds them."""
    recent.add(result.rewards, names, (result.responsibilities != 0).any(0) | result.live.any(0))
    return recent.rare(names)


def milliseconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def compare(n: int, m: int) -> str:
    """Return the figures of N completions on M channels."""
    names = [f"reward_{j}" for j in range(m)]
    aggregator, by_column = Aggregator("rvpo:k=2", names), RecentRewards()
    by_channel: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {"ours": [], "one call per channel": [], "whole step": []}
    for _ in range(ROUNDS):
        rewards = torch.rand(n, m)
        result = aggregator(rewards, num_generations=8).result
        times["ours"].append(milliseconds(partial(by_name, by_column, result, names)))
        times["one call per channel"].append(milliseconds(partial(one_call_per_channel, by_channel, result, names)))
        times["whole step"].append(milliseconds(partial(aggregator, rewards, num_generations=8)))
    return ",  ".join(f"{name} {statistics.fmean(each):.2f}" for name, each in times.items())


def main() -> None:
    torch.set_num_threads(1)
    print(f"CPU ms per step, means of {ROUNDS} interleaved calls")
    for n, m in ((64, 4), (1024, 8), (1024, 17)):
        print(f"{n:5} x {m:2}:  {compare(n, m)}")


if __name__ == "__main__":
    main()
