"""Time ``rvpo.advantages`` next to the peers' formula and the memory floor.

    python benchmarks/bench_advantages.py [--device cuda] [--repetitions 30] [--threads 2]

Prints a Markdown table. All columns of a row are measured in one run, in turns, so that a busy machine slows all of
them; the medians are compared as ratios. The peers' formula is our own restatement of TRL 1.16's
``normalize_then_sum`` (float32, no dead channels, no responsibilities, no masks); that it is TRL's formula is shown
by tests/engines/trl/test_against_trl.py, which runs TRL itself.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import rvpo

SHAPES = ((64, 4), (1024, 2), (8192, 17), (65536, 17))
G = 8


def peers_formula(rewards: Tensor, num_generations: int = G, eps: float = 1e-4) -> Tensor:
    """TRL's ``normalize_then_sum`` with equal weights, restated: (N, M) rewards -> (N,) advantages."""

    def nanstd(x: Tensor, dim: int) -> Tensor:
        count = (~x.isnan()).sum(dim, keepdim=True)
        variance = ((x - x.nanmean(dim, keepdim=True)) ** 2).nanmean(dim, keepdim=True)
        return (variance * count / (count - 1)).sqrt()

    grouped = rewards.view(-1, num_generations, rewards.shape[1])
    z = (grouped - grouped.nanmean(1, keepdim=True)) / (nanstd(grouped, 1) + eps)
    total = z.view(rewards.shape).nansum(1)
    total[rewards.isnan().all(1)] = torch.nan
    return ((total - total.nanmean()) / (nanstd(total, 0) + eps)).nan_to_num(nan=0.0)


def medians(contenders: dict[str, Callable[[], object]], repetitions: int, device: str) -> dict[str, float]:
    """Return the median seconds of each contender, all measured in turns."""

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for run in contenders.values():  # warm up: allocator, kernels
        for _ in range(3):
            seconds(run)
    times = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, run in contenders.items():
            times[name].append(seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def contenders(rewards: Tensor, ids: Tensor) -> dict[str, Callable[[], object]]:
    """Return what is timed on one batch. The three of lift are steps of a run: they go on from a first batch."""

    def step(rewards: Tensor, method: str) -> Callable[[], object]:
        state = rvpo.advantages(rewards, num_generations=G, method=method, state={}).state
        return lambda: rvpo.advantages(rewards, num_generations=G, method=method, state=state)

    return {
        "copy": rewards.clone,
        "peers": lambda: peers_formula(rewards),
        "gdpo": lambda: rvpo.advantages(rewards, num_generations=G, method="gdpo"),
        "rvpo": lambda: rvpo.advantages(rewards, num_generations=G),
        "rvpo, group ids": lambda: rvpo.advantages(rewards, ids),
        "lift": step(rewards, "lift"),
        "lift, binary": step((rewards > 0.5).to(rewards), "lift"),
        "lift_z": step(rewards, "lift_z"),
        "riskpo": lambda: rvpo.advantages(rewards, num_generations=G, method="riskpo", state={}),
    }


def import_seconds(repetitions: int) -> dict[str, float]:
    """Median seconds of imports in fresh interpreters, in turns; ``rvpo.advantages`` is timed after torch."""
    code = "import time; {before}; t = time.perf_counter(); {what}; print(time.perf_counter() - t)"
    imports = {
        "import torch": ("pass", "import torch"),
        "import rvpo": ("pass", "import rvpo"),
        "rvpo.advantages, torch loaded": ("import torch", "import rvpo; rvpo.advantages"),
    }
    times = {name: [] for name in imports}
    for _ in range(repetitions):
        for name, (before, what) in imports.items():
            command = [sys.executable, "-c", code.format(before=before, what=what)]
            times[name].append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--threads", type=int, default=None, help="torch threads; default: torch's own choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, {options.device} ({device}), {torch.get_num_threads()} threads, ", end="")
    print(f"float32, G = {G}, medians of {options.repetitions} interleaved repetitions\n")
    names = list(contenders(torch.zeros(G, 1), torch.zeros(G).long()))
    print(
        "| N | M | "
        + " | ".join(f"{name} (ms)" for name in names)
        + " | gdpo / peers | rvpo / peers | rvpo / copy | lift / rvpo | lift / lift_z | lift / gdpo |"
    )
    print("|" + "--:|" * (len(names) + 8))
    for rows, channels in SHAPES:
        generator = torch.Generator().manual_seed(0)
        rewards = torch.rand(rows, channels, generator=generator).to(options.device)
        ids = torch.arange(rows // G).repeat_interleave(G)[torch.randperm(rows, generator=generator)]
        t = medians(contenders(rewards, ids.to(options.device)), options.repetitions, options.device)
        ratios = [t["gdpo"] / t["peers"], t["rvpo"] / t["peers"], t["rvpo"] / t["copy"]]
        ratios += [t["lift"] / t[name] for name in ("rvpo", "lift_z", "gdpo")]
        cells = [f"{t[name] * 1e3:.3f}" for name in names] + [f"{ratio:.1f}" for ratio in ratios]
        print(f"| {rows} | {channels} | " + " | ".join(cells) + " |")

    print("\n| import | seconds |\n|---|--:|")
    for name, value in import_seconds(repetitions=5).items():
        print(f"| {name} | {value:.4f} |")


if __name__ == "__main__":
    main()
