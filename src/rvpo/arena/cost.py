"""Cost of a rule in milliseconds per step. All rules are measured in the same process."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

import rvpo

COMPLETIONS, CHANNELS, GROUP = 512, 8, 8
ROUNDS = 15


def milliseconds(methods: Sequence[str]) -> dict[str, float]:
    """Return the median time of ``rvpo.Aggregator`` on a batch of 512 completions, 8 channels and groups of 8.

    It runs on one thread and includes metrics, as in a training step.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(methods)
    finally:
        torch.set_num_threads(threads)


def _measured(methods: Sequence[str]) -> dict[str, float]:
    torch.manual_seed(0)
    rewards = (torch.rand(COMPLETIONS, CHANNELS) < 0.4).float()
    names = [str(j) for j in range(CHANNELS)]
    aggregators = {method: rvpo.Aggregator(method, names) for method in methods}
    times: dict[str, list[float]] = {method: [] for method in methods}
    for number in range(ROUNDS):
        for method, aggregator in aggregators.items():
            aggregator.quiet = True
            start = time.perf_counter()
            aggregator(rewards, num_generations=GROUP, progress=number / ROUNDS)
            times[method].append(time.perf_counter() - start)
    return {method: 1000 * sorted(taken)[len(taken) // 2] for method, taken in times.items()}
