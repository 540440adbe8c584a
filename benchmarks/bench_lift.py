"""Cost of LIFT: a step beside the rule of before, its growth, and a run that meets ever new labels.

    python benchmarks/bench_lift.py [--repetitions 30] [--steps 500]

The first table times both rules in turns in one run, so that a busy machine slows both; medians are compared as a ratio.
The second one gives the time by completions, by channels, and the slope of its logarithm from four sizes each; the
third the largest memory of a call in a fresh process. The last one gives a rubric 32 new labels per step, and prints the
time of a step and the size of the state as JSON. Times are CPU seconds of the thread. Against TRL's formula LIFT is
timed by benchmarks/bench_advantages.py.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time

import torch
from bench_advantages import peak_memory

import rvpo
from rvpo.core.ragged import Family, Score

SHAPES = ((64, 4), (1024, 15), (8192, 17), (1024, 100))
GROWTH = {
    "completions, 17 channels": tuple((rows, 17) for rows in (8192, 16384, 32768, 65536)),
    "channels, 8192 completions": tuple((8192, columns) for columns in (8, 17, 34, 68)),
    "labels, 64 completions": tuple((64, columns) for columns in (62, 125, 250, 500)),
}
G = 8
LABELS = 32


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--steps", type=int, default=500, help="of the run with new labels")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| completions x channels | lift, ms | lift_z, ms | ratio |\n|---|--:|--:|--:|")
    for rows, channels in SHAPES:
        new, old = compared(rows, channels, args.repetitions)
        print(f"| {rows} x {channels} | {new:.2f} | {old:.2f} | {new / old:.2f} |")
    print("\n| growth by | ms | slope |\n|---|--:|--:|")
    for name, shapes in GROWTH.items():
        times = [milliseconds_of(*shape, max(3, args.repetitions // 4)) for shape in shapes]
        print(f"| {name} | {', '.join(f'{value:.1f}' for value in times)} | {slope(shapes, times):.2f} |")
    memory, _ = peak_memory(65536, 17, 0, ", method='lift', state={}")
    print(f"\nlargest memory of a call, 65536 x 17 in float32: {memory:.2f} times the rewards")
    print(f"\n| steps with {LABELS} new labels each | ms per step | state, MB |\n|---|--:|--:|")
    for first, milliseconds, size in labelled(args.steps):
        print(f"| {first} to {first + max(1, args.steps // 5) - 1} | {milliseconds:.1f} | {size / 1e6:.2f} |")


def compared(rows: int, channels: int, repetitions: int) -> tuple[float, float]:
    """Return the median time of a step of ``lift`` and of ``lift_z``, in milliseconds, taken in turns."""
    generator = torch.Generator().manual_seed(0)
    names = [f"c{j}" for j in range(channels)]
    rules = [rvpo.Aggregator(method, names) for method in ("lift", "lift_z")]
    times: list[list[float]] = [[], []]
    for _ in range(repetitions + 3):
        rewards = torch.rand(rows, channels, generator=generator, dtype=torch.float64)
        for rule, taken in zip(rules, times, strict=True):
            began = time.thread_time()
            rule(rewards, num_generations=G)
            taken.append((time.thread_time() - began) * 1e3)
    new, old = (statistics.median(taken[3:]) for taken in times)  # the first ones warm up
    return new, old


def milliseconds_of(rows: int, columns: int, repetitions: int) -> float:
    """Return the median CPU time of a step of a run, on one batch in float32."""
    rewards = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0))
    state: object = {}
    times = []
    for _ in range(repetitions + 2):
        began = time.thread_time()
        state = rvpo.advantages(rewards, num_generations=G, method="lift", state=state).state
        times.append((time.thread_time() - began) * 1e3)
    return statistics.median(times[2:])


def slope(shapes: tuple[tuple[int, int], ...], times: list[float]) -> float:
    """Return the slope of log time by log size, by least squares."""
    x = [math.log(rows * columns) for rows, columns in shapes]
    y = [math.log(value) for value in times]
    return statistics.linear_regression(x, y).slope


def labelled(steps: int) -> list[tuple[int, float, int]]:
    """Return first step, milliseconds per step and bytes of the state, for each fifth of a run."""
    generator = torch.Generator().manual_seed(0)
    rule = rvpo.Aggregator("lift", ["rubric"])
    found, part = [], max(1, steps // 5)
    for first in range(0, steps, part):
        times = []
        for step in range(first, first + part):
            rows = [
                [
                    Score(f"criterion {j}", value, labels=(f"label {step * LABELS + row // G * 4 + j}",))
                    for j, value in enumerate(torch.rand(4, generator=generator).tolist())
                ]
                for row in range(LABELS // 4 * G)
            ]
            totals = torch.zeros(len(rows), 1, dtype=torch.float64)  # replaced by the rubric's criteria
            began = time.thread_time()
            rule(totals, families=[Family("rubric", rows)], num_generations=G)
            times.append((time.thread_time() - began) * 1e3)
        found.append((first, statistics.median(times), len(json.dumps(rule.state_dict()))))
    return found


if __name__ == "__main__":
    main()
