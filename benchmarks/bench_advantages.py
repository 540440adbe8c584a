"""Time ``rvpo.advantages`` next to the peers' formula and the memory floor, and its memory.

    python benchmarks/bench_advantages.py [--device cuda] [--repetitions 30] [--threads 1]

Prints Markdown tables. All columns of a row are measured in one run, in turns, so that a busy machine slows all of
them; the medians are compared as ratios. The peers' formula is our own restatement of TRL 1.16's
``normalize_then_sum`` (float32, no dead channels, no responsibilities, no masks); that it is TRL's formula is shown
by tests/engines/trl/test_against_trl.py, which runs TRL itself. So are "peers' grpo", its ``sum_then_normalize``, and
"peers' metrics", mean and standard deviation of each reward.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import rvpo

SHAPES = ((64, 4), (1024, 8), (8192, 17), (65536, 17))
MISSING = 0.02
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


def peers_grpo(rewards: Tensor, num_generations: int = G, eps: float = 1e-4) -> Tensor:
    """TRL's ``sum_then_normalize`` with equal weights, restated: (N, M) rewards -> (N,) advantages."""
    total = rewards.nansum(1)
    total[rewards.isnan().all(1)] = torch.nan
    grouped = total.view(-1, num_generations)
    mean = grouped.nanmean(1, keepdim=True)
    count = (~grouped.isnan()).sum(1, keepdim=True)
    std = (((grouped - mean) ** 2).nanmean(1, keepdim=True) * count / (count - 1)).sqrt()
    mean, std = (x.expand_as(grouped).reshape(-1) for x in (mean, std))
    return ((total - mean) / (std + eps)).nan_to_num(nan=0.0)


def peers_metrics(rewards: Tensor) -> list[float]:
    """TRL's metrics of the rewards, restated: mean and standard deviation of each column."""
    found = []
    for j in range(rewards.shape[1]):
        column = rewards[:, j]
        count = (~column.isnan()).sum()
        mean = column.nanmean()
        found += [mean.item(), (((column - mean) ** 2).nanmean() * count / (count - 1)).sqrt().item()]
    return found


def medians(contenders: dict[str, Callable[[], object]], repetitions: int, device: str) -> dict[str, float]:
    """Return the median seconds of each contender, all measured in turns, in a new order each time."""

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
    # A contender that runs after another of its kind finds its code in the processor's caches, so the order changes.
    shuffled, chance = list(contenders.items()), random.Random(0)
    for _ in range(repetitions):
        chance.shuffle(shuffled)
        for name, run in shuffled:
            times[name].append(seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def contenders(rewards: Tensor, ids: Tensor) -> dict[str, Callable[[], object]]:
    """Return what is timed on one batch. The three of lift are steps of a run: they go on from a first batch."""

    def step(rewards: Tensor, method: str) -> Callable[[], object]:
        state = rvpo.advantages(rewards, num_generations=G, method=method, state={}).state
        return lambda: rvpo.advantages(rewards, num_generations=G, method=method, state=state)

    holes = torch.rand(rewards.shape, generator=torch.Generator().manual_seed(1)).to(rewards.device) < MISSING
    missing = rewards.masked_fill(holes, torch.nan)
    logged = rvpo.advantages(rewards, num_generations=G)

    def metrics() -> object:
        vars(logged).pop("summary", None)
        return logged.metrics()

    return {
        "copy": rewards.clone,
        "peers": lambda: peers_formula(rewards),
        "peers' grpo": lambda: peers_grpo(rewards),
        "peers' metrics": lambda: peers_metrics(rewards),
        "grpo": lambda: rvpo.advantages(rewards, num_generations=G, method="grpo"),
        "rvpo, 2% missing": lambda: rvpo.advantages(missing, num_generations=G),
        "metrics": metrics,
        "gdpo": lambda: rvpo.advantages(rewards, num_generations=G, method="gdpo"),
        "rvpo": lambda: rvpo.advantages(rewards, num_generations=G),
        "rvpo, group ids": lambda: rvpo.advantages(rewards, ids),
        "lift": step(rewards, "lift"),
        "lift, binary": step((rewards > 0.5).to(rewards), "lift"),
        "lift_z": step(rewards, "lift_z"),
        "riskpo": lambda: rvpo.advantages(rewards, num_generations=G, method="riskpo", state={}),
    }


RATIOS = (
    ("gdpo", "peers"),
    ("rvpo", "peers"),
    ("rvpo, 2% missing", "peers"),
    ("rvpo, group ids", "peers"),
    ("grpo", "peers' grpo"),
    ("metrics", "peers' metrics"),
    ("lift", "peers"),
    ("lift", "lift_z"),
    ("rvpo", "copy"),
)
"""What is divided by what, both timed in the same run."""


def peak_memory(rows: int, channels: int, steps: int, options: str = "") -> tuple[float, float]:
    """Return the largest memory of a call, as a multiple of the rewards, and its growth over further steps in bytes.

    In a fresh interpreter. Linux counts the largest resident memory from the moment at which the counter is set back;
    otherwise what the imports needed would hide what the call needs. ``options`` are further arguments of the call.
    """
    code = (
        "import torch, rvpo\n"
        "torch.set_num_threads(1)\n"
        "def status(key):\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))\n"
        f"rvpo.advantages(torch.rand(8192, 17), num_generations=8{options})\n"
        f"rewards = torch.rand({rows}, {channels})\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = status('VmRSS')\n"
        f"out = rvpo.advantages(rewards, num_generations=8{options})\n"
        "once = status('VmHWM')\n"
        "for _ in range(5):\n"
        f"    out = rvpo.advantages(rewards, num_generations=8{options})\n"
        "held = status('VmRSS')\n"
        f"for _ in range({steps}):\n"
        f"    out = rvpo.advantages(rewards, num_generations=8{options})\n"
        "print((once - before) / (rewards.numel() * 4), status('VmRSS') - held)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    multiple, growth = map(float, done.stdout.split())
    return multiple, growth


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
    print("| N | M | " + " | ".join(f"{name} (ms)" for name in names) + " |")
    print("|" + "--:|" * (len(names) + 2))
    ratios = []
    for rows, channels in SHAPES:
        generator = torch.Generator().manual_seed(0)
        rewards = torch.rand(rows, channels, generator=generator).to(options.device)
        ids = torch.arange(rows // G).repeat_interleave(G)[torch.randperm(rows, generator=generator)]
        t = medians(contenders(rewards, ids.to(options.device)), options.repetitions, options.device)
        print(f"| {rows} | {channels} | " + " | ".join(f"{t[name] * 1e3:.3f}" for name in names) + " |")
        ratios.append(f"| {rows} | {channels} | " + " | ".join(f"{t[a] / t[b]:.2f}" for a, b in RATIOS) + " |")

    print("\n| N | M | " + " | ".join(f"{a} / {b}" for a, b in RATIOS) + " |")
    print("|" + "--:|" * (len(RATIOS) + 2))
    print("\n".join(ratios))
    multiple, growth = peak_memory(1_048_576, 17, steps=200)
    print(f"\nmemory of a call: {multiple:.2f} times the rewards; after 200 more: {growth / 1e6:+.1f} MB")

    print("\n| import | seconds |\n|---|--:|")
    for name, value in import_seconds(repetitions=5).items():
        print(f"| {name} | {value:.4f} |")


if __name__ == "__main__":
    main()
