"""How far the quadratic form of the soft minimum is from the soft minimum, and how much k matters, on logged batches.

    rvpo demo --out runs/demo
    python benchmarks/taylor.py runs/demo                       # any finished run that rvpo diagnose can read
    python benchmarks/taylor.py runs/demo --k 0.5 1 2 5 --json taylor.json

The first table compares A(k) = -(1/k) ln E[exp(-k Z)] with its second-order form m - (k/2) var(Z), which is the method
rvpo_explicit with beta = k/2. Both are computed by rvpo in float64. docs/algorithm.md derives the two bounds:

    |error| <= (k^2/6) max |third central moment of Z under the responsibilities at a risk between 0 and k|
    |error| <= k^2 R^3 / (36 sqrt(3)),      R: largest minus smallest z-score of the completion

The second table compares values of k with each other: the correlation of their advantages, and the share of groups in
which another completion is the best.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rvpo
from rvpo.core.groups import Groups
from rvpo.logs.open import open_run
from rvpo.logs.run import LoggedBatch
from rvpo.text.tables import markdown

LARGEST_MOMENT = 1 / (6 * math.sqrt(3))
"""Largest third central moment of a random variable on [0, 1]."""
LARGEST_CUMULANT = 1 / 8
"""Largest fourth cumulant, in absolute value, of a random variable on [0, 1]."""
POINTS = 64
"""Steps between risk 0 and k at which the third moment is computed."""
TIE = 1e-9
"""Values closer than this are ties."""


def soft_minimum(z: Tensor, p: Tensor, k: float) -> Tensor:
    """Return -(1/k) ln sum_j p_j exp(-k z_j), (N,), of z-scores (N, M) and shares (N, M); a share of 0 takes no part."""
    return torch.logsumexp(p.log() - k * z, -1) / -k


def quadratic(z: Tensor, p: Tensor, k: float) -> Tensor:
    """Return m - (k/2) var, (N,), the second-order form of :func:`soft_minimum`."""
    mean = (p * z).sum(-1)
    return mean - k / 2 * (p * (z - mean[:, None]).square()).sum(-1)


def third_moment(z: Tensor, p: Tensor, k: float) -> Tensor:
    """Return the third central moment of z, (N,), under the responsibilities at risk k."""
    r = torch.softmax(p.log() - k * z, -1)
    mean = (r * z).sum(-1)
    return (r * (z - mean[:, None]) ** 3).sum(-1)


def spread(z: Tensor, p: Tensor) -> Tensor:
    """Return the largest minus the smallest z-score that takes part, (N,)."""
    takes_part = p > 0
    high = z.masked_fill(~takes_part, -torch.inf).amax(-1)
    return high - z.masked_fill(~takes_part, torch.inf).amin(-1)


def bound_by_range(z: Tensor, p: Tensor, k: float) -> Tensor:
    """Return k^2 R^3 / (36 sqrt(3)), (N,)."""
    return k**2 / 6 * LARGEST_MOMENT * spread(z, p) ** 3


def bound_by_moment(z: Tensor, p: Tensor, k: float) -> Tensor:
    """Return (k^2/6) max |third moment|, (N,), over risks from 0 to k.

    The moment is computed at ``POINTS + 1`` risks. Between two of them it changes by at most the step times the fourth
    cumulant, so half of that is added, which makes this a bound and not an estimate.
    """
    moments = [third_moment(z, p, k * i / POINTS).abs() for i in range(POINTS + 1)]
    between = k / POINTS / 2 * LARGEST_CUMULANT * spread(z, p) ** 4
    return k**2 / 6 * (torch.stack(moments).amax(0) + between)


class Batch:
    """One logged batch, with its z-scores.

    Attributes:
        rewards: (N, M) float64.
        groups: partition of the completions.
        z: (N, M) z-scores of the completions with signal.
        p: (N, M) shares of the channels that take part.
    """

    def __init__(self, logged: LoggedBatch) -> None:
        self.rewards, self._logged = torch.as_tensor(logged.rewards).double(), logged
        found = self.aggregate("rvpo:k=1")
        self.groups: Groups = found.groups
        self._signal = found.takes_part
        weights = torch.ones_like(self.rewards)
        if logged.weights is not None:
            weights = weights * torch.as_tensor(logged.weights)
        p = weights * found.live
        self.z = found.z.masked_fill(~found.live, 0.0)[self._signal]
        self.p = (p / p.sum(-1, keepdim=True))[self._signal]

    def aggregate(self, method: str) -> rvpo.Advantages:
        """Return the result of a method on this batch."""
        logged = self._logged
        groups, weights, applies = (
            None if part is None else torch.as_tensor(part) for part in (logged.groups, logged.weights, logged.applies)
        )
        return rvpo.advantages(self.rewards, groups, method, weights, applies=applies)

    def advantages(self, method: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return value and advantage of the completions with signal, (n,) each, and their groups, (n,) int64."""
        found = self.aggregate(method)
        return found.aggregated[self._signal], found.advantages[self._signal], self.groups.index[self._signal]


def ranks(value: Tensor, group: Tensor) -> Tensor:
    """Return how many completions of the same group are lower, (n,)."""
    same = group[:, None] == group[None, :]
    return (same & (value[:, None] > value[None, :] + TIE)).sum(1)


def other_best(one: Tensor, other: Tensor, group: Tensor) -> tuple[int, int]:
    """Return in how many groups the best completions under two rules have none in common, and how many groups there are."""
    same = group[:, None] == group[None, :]
    best = [~(same & (value[None, :] > value[:, None] + TIE)).any(1) for value in (one, other)]
    shared = best[0] & best[1]
    numbers = group.unique()
    return sum(not bool(shared[group == number].any()) for number in numbers), len(numbers)


def taylor_table(batches: Sequence[Batch], ks: Sequence[float]) -> list[dict[str, float]]:
    """Return one line per k: errors, bounds, and what changes."""
    lines = []
    for k in ks:
        errors, moments, ranges, moved, turned = [], [], [], [], []
        for batch in batches:
            exact, advantage, group = batch.advantages(f"rvpo:k={k}")
            approximate, other, _ = batch.advantages(f"rvpo_explicit:beta={k / 2}")
            errors.append((exact - approximate).abs())
            moments.append(bound_by_moment(batch.z, batch.p, k))
            ranges.append(bound_by_range(batch.z, batch.p, k))
            moved.append(ranks(exact, group) != ranks(approximate, group))
            turned.append(advantage.sign() != other.sign())
        error, moment, width = torch.cat(errors), torch.cat(moments), torch.cat(ranges)
        lines.append(
            {
                "k": k,
                "completions": len(error),
                "mean_error": float(error.mean()),
                "largest_error": float(error.max()),
                "mean_bound_by_moment": float(moment.mean()),
                "mean_bound_by_range": float(width.mean()),
                "beyond_a_bound": float(((error > moment + TIE) | (error > width + TIE)).double().mean()),
                "another_rank": float(torch.cat(moved).double().mean()),
                "another_sign": float(torch.cat(turned).double().mean()),
            }
        )
    return lines


def sensitivity(batches: Sequence[Batch], ks: Sequence[float]) -> list[dict[str, float]]:
    """Return one line per pair of values of k: correlation of advantages, and share of groups with another best."""
    found = {k: [batch.advantages(f"rvpo:k={k}") for batch in batches] for k in ks}
    lines = []
    for i, one in enumerate(ks):
        for other in ks[i + 1 :]:
            pair = [torch.cat([advantage for _, advantage, _ in found[k]]) for k in (one, other)]
            changed = [
                other_best(a, b, group) for (a, _, group), (b, _, _) in zip(found[one], found[other], strict=True)
            ]
            lines.append(
                {
                    "k": one,
                    "other": other,
                    "correlation": float(torch.corrcoef(torch.stack(pair))[0, 1]),
                    "another_best": sum(count for count, _ in changed) / sum(groups for _, groups in changed),
                }
            )
    return lines


def tables(found: dict[str, Any]) -> list[str]:
    """Return both tables as lines of Markdown."""
    header = ["k", "mean error", "largest error", "mean bound, third moment", "mean bound, range", "another rank"]
    rows = [[*header, "another sign"]]
    for line in found["taylor"]:
        numbers = [line[key] for key in ("mean_error", "largest_error", "mean_bound_by_moment", "mean_bound_by_range")]
        shares = [f"{line[key]:.1%}" for key in ("another_rank", "another_sign")]
        rows.append([f"{line['k']:g}", *(f"{number:.3f}" for number in numbers), *shares])
    cells = {(line["k"], line["other"]): line for line in found["sensitivity"]}
    ks = [line["k"] for line in found["taylor"]]
    pairs = [["", *(f"k = {k:g}" for k in ks[1:])]]
    for k in ks[:-1]:
        row = [f"k = {k:g}"]
        for other in ks[1:]:
            line = cells.get((k, other))
            row.append("" if line is None else f"{line['correlation']:.3f}; {line['another_best']:.1%}")
        pairs.append(row)
    return [*markdown(rows), "", *markdown(pairs)]


def measured(path: Path, ks: Sequence[float]) -> dict[str, Any]:
    """Return the numbers of both tables for a run."""
    batches = [Batch(logged) for logged in open_run(path).batches()]
    batches = [batch for batch in batches if len(batch.z)]
    return {"run": path.name, "taylor": taylor_table(batches, ks), "sensitivity": sensitivity(batches, ks)}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run, as for rvpo diagnose")
    parser.add_argument("--k", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0, 5.0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    args = parser.parse_args()
    found = measured(args.run, args.k)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(tables(found)))


if __name__ == "__main__":
    main()
