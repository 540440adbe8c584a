"""What one step does to a channel that stands against the others, to first order, under any list of methods.

    python benchmarks/first_order.py gdpo rvpo:k=1 lift

One constructed batch: groups of 8 completions on seven binary channels, of which "format" stands against the six
others. Printed is the covariance within groups of the advantage, scaled to a standard deviation of 1, with the format:
the policy gradient raises the format where it is above 0. A method that remembers starts with this batch.

    python benchmarks/first_order.py --suppressed gdpo rvpo:k=1 rvpo:k=2 hard_min

prints instead the share of suppressed groups (rvpo.core.met) on eight partly opposed criteria, mean over the criteria.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rvpo
from rvpo.core import Channels
from rvpo.core.groups import Groups
from rvpo.core.met import group_counters
from rvpo.text.tables import markdown

SIZE = 8
DEFAULT = ("gdpo", "rvpo:k=1", "lift")
LEVELS = (0.9, 0.05)
OTHERS = (0.7,) * 6
"""Shares of completions that meet the six other channels."""
OPPOSED = 0.4
"""Share of the variance of a channel's latent score that it has in common with the others; the format has its negative.
"""


def opposed(level: float, groups: int, seed: int) -> Tensor:
    """Return binary rewards (N, 7): the format, met in a share ``level``, and six channels that it stands against."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(groups * SIZE, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(groups * SIZE, 1 + len(OTHERS), generator=generator, dtype=torch.float64)
    signs = torch.tensor([-1.0, *[1.0] * len(OTHERS)], dtype=torch.float64)
    return _met(OPPOSED**0.5 * common * signs + (1 - OPPOSED) ** 0.5 * own, [level, *OTHERS])


def partly_opposed(groups: int, seed: int) -> Tensor:
    """Return binary rewards (N, 8): two halves of criteria that stand against each other, from often to rarely met."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(groups * SIZE, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(groups * SIZE, 8, generator=generator, dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    return _met(0.5**0.5 * common * signs + 0.5**0.5 * own, [0.7, 0.7, 0.5, 0.5, 0.35, 0.35, 0.2, 0.2])


def _met(latent: Tensor, shares: list[float]) -> Tensor:
    """Return 1 where a standard normal score is among the given share of the highest, else 0."""
    lines = torch.special.ndtri(1 - torch.tensor(shares, dtype=torch.float64))
    return (latent > lines).double()


def advantages_of(method: str, rewards: Tensor) -> tuple[Tensor, rvpo.Advantages]:
    """Return advantages (N,) with a standard deviation of 1, and all of the result."""
    result = rvpo.advantages(rewards, num_generations=SIZE, method=method, state={}, ranges=[(0, 1)] * rewards.shape[1])
    return result.advantages / result.advantages.std(correction=0), result


def covariance(method: str, rewards: Tensor) -> float:
    """Return the covariance within groups of the scaled advantage with the first channel."""
    scaled, _ = advantages_of(method, rewards)
    a, first = scaled.view(-1, SIZE), rewards[:, 0].view(-1, SIZE)
    return float(((a - a.mean(1, keepdim=True)) * (first - first.mean(1, keepdim=True))).mean())


def suppressed(method: str, rewards: Tensor) -> float:
    """Return the share of groups in which a criterion is suppressed, mean over the criteria."""
    _, result = advantages_of(method, rewards)
    channels = Channels.columns([str(j) for j in range(rewards.shape[1])])
    lines = torch.full((len(channels.names),), 0.5, dtype=torch.float64)
    found = group_counters(rewards, result.advantages, Groups.from_blocks(len(rewards), SIZE, rewards.device), lines)
    return float(found.suppressed.double().mean())


def measured(methods: Sequence[str], groups: int | None, seeds: int, is_suppressed: bool) -> dict[str, Any]:
    """Return the numbers of a table: method -> one per seed, by row."""
    if is_suppressed:
        batches = [partly_opposed(groups or 4000, seed) for seed in range(seeds)]
        rows = {"suppressed": {method: [suppressed(method, batch) for batch in batches] for method in methods}}
        return {"of": "share of groups", "form": "{:.1%}", "rows": rows}
    rows = {}
    for level in LEVELS:
        batches = [opposed(level, groups or 2000, seed) for seed in range(seeds)]
        rows[f"met {level:.0%}"] = {method: [covariance(method, batch) for batch in batches] for method in methods}
    return {"of": "format", "form": "{:+.3f}", "rows": rows}


def table(found: dict[str, Any]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = []
    for name, values in found["rows"].items():
        lines.append([name, *(_of_seeds(numbers, found["form"]) for numbers in values.values())])
    return markdown([[found["of"], *next(iter(found["rows"].values()))], *lines])


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=DEFAULT, help="methods as text")
    parser.add_argument("--groups", type=int, help="number of groups; default 2000, with --suppressed 4000")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--suppressed", action="store_true")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    args = parser.parse_args()
    found = measured(args.methods, args.groups, args.seeds, args.suppressed)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(table(found)))


def _of_seeds(values: list[float], form: str) -> str:
    """Return the mean, and half the distance between the lowest and the highest seed."""
    return f"{form.format(statistics.fmean(values))} ± {form.format((max(values) - min(values)) / 2).lstrip('+')}"


if __name__ == "__main__":
    main()
