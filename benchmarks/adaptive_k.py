"""How well an adaptive k holds its target, and how far the measure of a fixed k wanders.

    python benchmarks/adaptive_k.py [--seeds 3] [--prompts 32]

Synthetic batches of P prompts x G completions x M channels, four kinds:

    binary      each channel has its own pass rate, 0.2 to 0.95, moved by the prompt
    graded      standard normal
    correlated  normal, all channels share half of their variance
    mixed       every other channel binary

A share of the (group, channel) pairs is live, the others are constant. First a grid: the error of the measure that one
batch's own k reaches, and the range of the measure under k = 1 and k = 2. Then a drift of 60 steps in which the live
share falls from 1 to 0.2 and the pass rates rise, with the smoothing on. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys

import torch
from torch import Tensor

from rvpo.core.aggregate import normalised
from rvpo.core.groups import Groups
from rvpo.core.methods.adaptive_k import AdaptiveK, measured, next_k, solve_k
from rvpo.core.normalize import group_zscore

KINDS = ("binary", "graded", "correlated", "mixed")
CHANNELS, LIVE, GENERATIONS = (2, 5, 10, 17), (0.2, 0.5, 1.0), (4, 8, 16)
FIXED = (1.0, 2.0)
STEPS = 60


def rewards(kind: str, prompts: int, g: int, m: int, draw: torch.Generator, easier: float = 0.0) -> Tensor:
    """Draw (P * G, M) rewards; ``easier`` raises the latent mean of binary channels, in its standard deviations."""
    latent = torch.randn(prompts, g, m, generator=draw, dtype=torch.float64)
    if kind == "correlated":
        latent = (latent + torch.randn(prompts, g, 1, generator=draw, dtype=torch.float64)) / math.sqrt(2)
    if kind in ("binary", "mixed"):
        # Latent means -0.84 to 1.64 are pass rates 0.2 to 0.95.
        level = torch.linspace(-0.84, 1.64, m, dtype=torch.float64) + easier
        prompt = 0.5 * torch.randn(prompts, 1, m, generator=draw, dtype=torch.float64)
        passed = (latent + level + prompt > 0).double()
        binary = torch.arange(m) % 2 == 0 if kind == "mixed" else torch.ones(m, dtype=torch.bool)
        latent = torch.where(binary, passed, latent)
    return latent.reshape(prompts * g, m)


def channels(kind: str, prompts: int, g: int, m: int, live: float, draw: torch.Generator, easier: float = 0.0):
    """Return z-scores and shares (N, M), as ``rvpo.core.compute`` aggregates them."""
    r = rewards(kind, prompts, g, m, draw, easier)
    groups = Groups.from_blocks(len(r), g, r.device)
    dead = torch.rand(prompts, m, generator=draw, dtype=torch.float64) >= live
    scores = group_zscore(r.masked_fill(groups.broadcast(dead), 0.0), groups, eps=1e-4, ddof=1, rtol=1e-6)
    return scores.z, normalised(scores.live.double())


def grid(measure: str, seeds: int, prompts: int) -> None:
    """Print, for every M and live share, tracking error and what fixed k give; pooled over kinds, G and seeds."""
    adaptive = AdaptiveK(measure=measure, horizon=1)
    print(f"\n**{measure}, target {adaptive.target}**; k without smoothing, over kinds, G and seeds\n")
    print("| M | live share | error: mean | max | at a bound | k: range | measure at k = 1: range | at k = 2: range |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    everything: dict[str, list[float]] = {"error": [], **{str(k): [] for k in FIXED}}
    for m, live in itertools.product(CHANNELS, LIVE):
        cell: dict[str, list[float]] = {"k": [], "error": [], **{str(k): [] for k in FIXED}}
        bounds = 0
        for kind, g, seed in itertools.product(KINDS, GENERATIONS, range(seeds)):
            z, p = channels(kind, prompts, g, m, live, torch.Generator().manual_seed(seed))
            k, _, reached = next_k(z, p, adaptive, None)
            if math.isnan(reached):
                continue
            bounds += solve_k(z, p, adaptive) in (adaptive.k_min, adaptive.k_max)
            cell["k"].append(k)
            cell["error"].append(abs(reached - adaptive.target))
            for fixed in FIXED:
                cell[str(fixed)].append(measured(z, p, fixed, measure))
        spans = [f"{min(cell[key]):.2f} to {max(cell[key]):.2f}" for key in ("k", *map(str, FIXED))]
        error = cell["error"]
        print(
            f"| {m} | {live} | {statistics.fmean(error):.4f} | {max(error):.4f} | {bounds} of {len(error)} | "
            + " | ".join(spans)
            + " |"
        )
        for key in everything:
            everything[key] += cell[key]
    wander = {k: [abs(v - adaptive.target) for v in everything[str(k)]] for k in FIXED}
    print(
        f"\nOver all {len(everything['error'])} batches, distance from the target, mean / largest: adaptive "
        f"{statistics.fmean(everything['error']):.4f} / {max(everything['error']):.4f}"
        + "".join(f", k = {k:g} {statistics.fmean(v):.3f} / {max(v):.3f}" for k, v in wander.items())
    )


def drift(measure: str, seeds: int, prompts: int, horizon: float) -> None:
    """Print the tracking error over a run whose live share falls and whose pass rates rise."""
    adaptive = AdaptiveK(measure=measure, horizon=horizon)
    print(f"\n**{measure}, drift over {STEPS} steps, horizon {horizon:g}**, binary channels, G = 8\n")
    print("| M | error: mean | max | k: first, last | largest step of k | k = 1: mean error | k = 2: mean error |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for m in CHANNELS:
        errors: list[float] = []
        path: list[list[float]] = []
        fixed: dict[float, list[float]] = {k: [] for k in FIXED}
        for seed in range(seeds):
            draw, state = torch.Generator().manual_seed(seed), None
            path.append([])
            for step in range(STEPS):
                done = step / (STEPS - 1)
                z, p = channels("binary", prompts, 8, m, 1 - 0.8 * done, draw, easier=0.8 * done)
                k, state, reached = next_k(z, p, adaptive, state)
                path[-1].append(k)
                if not math.isnan(reached):
                    errors.append(abs(reached - adaptive.target))
                    for value, seen in fixed.items():
                        seen.append(abs(measured(z, p, value, measure) - adaptive.target))
        largest = max(max(a / b, b / a) for ks in path for a, b in itertools.pairwise(ks))
        ends = [statistics.fmean(ks[i] for ks in path) for i in (0, -1)]
        print(
            f"| {m} | {statistics.fmean(errors):.3f} | {max(errors):.3f} | {ends[0]:.2f}, {ends[1]:.2f} | x {largest:.2f} | "
            + " | ".join(f"{statistics.fmean(seen):.3f}" for seen in fixed.values())
            + " |"
        )


def defaults(seeds: int, prompts: int) -> None:
    """Print what k = 1 gives at M = 5, G = 8 with all channels live: the source of the default targets."""
    print("**The measures at M = 5, G = 8, all channels live**, mean over seeds\n")
    print("| kind | effective, k = 0.5 | k = 1 | k = 2 | bottleneck, k = 0.5 | k = 1 | k = 2 |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for kind in KINDS:
        values = []
        for measure, k in itertools.product(("effective", "bottleneck"), (0.5, 1.0, 2.0)):
            batches = [channels(kind, prompts, 8, 5, 1.0, torch.Generator().manual_seed(s)) for s in range(seeds)]
            values.append(statistics.fmean(measured(z, p, k, measure) for z, p in batches))
        print(f"| {kind} | " + " | ".join(f"{v:.2f}" for v in values) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    defaults(args.seeds, args.prompts)
    for measure in ("effective", "bottleneck"):
        grid(measure, args.seeds, args.prompts)
    for measure, horizon in (
        ("effective", 1.0),
        ("effective", AdaptiveK().horizon),
        ("bottleneck", AdaptiveK().horizon),
    ):
        drift(measure, args.seeds, args.prompts, horizon)
    return 0


if __name__ == "__main__":
    sys.exit(main())
