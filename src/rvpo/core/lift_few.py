"""LIFT's decision for few channels in plain Python, which is done before tensor operations have been called for it.

:meth:`rvpo.core.methods.lift.LIFT.decide` is the specification, with the functions that it calls and the running means;
the same names stand for the same here. A matrix is a list of K rows. What is rare (channels of which the state knows
nothing, reliabilities below 1) is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import Any

import torch

from rvpo.core.channels import State
from rvpo.core.lift_watch import ALIKE, Sight, next_watch
from rvpo.core.methods.lift import (
    CANCELLED,
    KERNEL,
    LEAST_BATCHES,
    LETTING_GO,
    LIFT,
    QUICK,
    RIDGE,
    SHARPEST,
    SMALL,
    TAU,
    TINY,
    Decided,
    Shown,
    Weighed,
    floors_kept,
)
from rvpo.core.nonnegative import least_nonnegative_few

MOST = 8
"""Number of channels up to which this is quicker."""

Vector = list[float]
Matrix = list[Vector]


def decide_few(method: LIFT, shown: Shown, state: State) -> Decided | None:
    """Return what ``method.decide(shown, state)`` does; None where that has to.

    Args:
        method: with its options.
        shown: of a batch in which every channel is scored on every completion.
        state: that of the last batch; empty at the start of a run.
    """
    names, count = shown.names, len(shown.names)
    known_names = [tuple(state[key]["names"]) for key in ("attained", "moments") if key in state]
    is_known = all(found == names for found in known_names) and len(known_names) in (0, 2)
    if count > MOST or not shown.takes_part or not is_known:
        return None
    weights, completions, means = shown.weights.tolist(), shown.completions.tolist(), shown.attained.tolist()
    if min(weights) <= 0 or min(shown.trusted.tolist()) < 1 or min(completions) < 1:
        return None
    # What the run remembers, with this batch in it.
    horizon = [method.memory / n for n in completions]
    attained = _Mean(state.get("attained"), count, pairs=False)
    moments = _Mean(state.get("moments"), count, pairs=True)
    attained.update([means], [1 / max(h / QUICK, 1.0) for h in horizon])
    moments.update(shown.moments.tolist(), [1 / max(h, LEAST_BATCHES) for h in horizon])
    (a,), q = attained.mean(), moments.mean()
    # Who counts for how much.
    alive = [k for k in range(count) if q[k][k] > TINY]
    if not alive:
        return None
    floors = [method.floors.get(name, math.nan) for name in names]
    known = [max(n * batches, 1.0) for n, batches in zip(shown.free.tolist(), moments.batches(), strict=True)]
    of_alive = ([x[k] for k in alive] for x in (a, weights, floors, known))
    weighed = _weigh(method, [[q[k][j] for j in alive] for k in alive], *of_alive)
    factors = [0.0] * count
    for k, factor in zip(alive, weighed.total.tolist(), strict=True):
        factors[k] = factor
    watch = next_watch(state.get("watch"), _sights(method, shown, a, floors, alive, weighed), weighed.frontier)
    new = {"attained": attained.to_state(names), "moments": moments.to_state(names), "watch": watch}
    return Decided(torch.tensor(factors, dtype=torch.float64), new, weighed, tuple(names[k] for k in alive))


class _Mean:
    """A :class:`rvpo.core.running_mean.RunningMean` whose K names are all in the batch.

    Args:
        state: tensors or lists; None at the start of a run.
        count: K.
        pairs: whether it is of pairs of channels, K rows of numbers, and not of channels, one row.
    """

    def __init__(self, state: State | None, count: int, *, pairs: bool) -> None:
        self._pairs, self._new = pairs, Vector()
        self._total: Matrix = [[0.0] * count for _ in range(count if pairs else 1)]
        self._weight = [0.0] * count
        if state is not None:
            total, weight = (torch.as_tensor(state[key], dtype=torch.float64) for key in ("total", "weight"))
            self._total, self._weight = total.reshape(-1, count).tolist(), weight.tolist()

    def update(self, value: Matrix, new: Vector) -> None:
        """Take in a batch, of which each channel counts ``new``."""
        keep = [1 - n for n in new]
        self._total = [
            [k * before + n * x for k, before, n, x in zip(of_old, was, of_new, row, strict=True)]
            for of_old, was, of_new, row in zip(self._scales(keep), self._total, self._scales(new), value, strict=True)
        ]
        self._weight = [k * before + n for k, before, n in zip(keep, self._weight, new, strict=True)]
        self._new = new

    def mean(self) -> Matrix:
        """Return the mean."""
        scales = self._scales(self._weight)
        return [
            [x / w for x, w in zip(row, scale, strict=True)] for row, scale in zip(self._total, scales, strict=True)
        ]

    def batches(self) -> Vector:
        """Return how many batches the mean of each channel is worth."""
        return [weight * (2 / n - 1) / (2 - weight) for n, weight in zip(self._new, self._weight, strict=True)]

    def to_state(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return a state as that of the running mean."""
        total = torch.tensor(self._total if self._pairs else self._total[0], dtype=torch.float64)
        weight = torch.tensor(self._weight, dtype=torch.float64)
        return {"names": names, "total": total, "weight": weight, "absent": (0,) * len(names)}

    def _scales(self, x: Vector) -> Matrix:
        """Return scales of channels as those of pairs of them, where it is of pairs."""
        return [[math.sqrt(a * b) for b in x] for a in x] if self._pairs else [x]


def _weigh(method: LIFT, q: Matrix, attained: Vector, weights: Vector, floors: Vector, known: Vector) -> Weighed:
    """Return lambda, mu and what led to them, where all channels are trusted."""
    spread = [math.sqrt(row[k]) for k, row in enumerate(q)]
    c = [[x / b / a for x, b in zip(row, spread, strict=True)] for row, a in zip(q, spread, strict=True)]
    for k, row in enumerate(c):
        row[k] = 1.0
    copies = _likeness(c)
    own = [max(share, 1e-3) for share in _balanced(copies, [SMALL] * len(c))]
    certain = _shrunk(c, copies, own, known)
    y = _balanced(certain, [SMALL / share for share in own])
    total, channels = sum(y), sum(own)
    t, opposed = min(1.0, total**-0.5), [x / total for x in y]
    phi = min(1.0, channels * t * t)
    power = min(SHARPEST, 1 / math.sqrt(max(phi, TINY)))
    exponent = [(power - 1) * math.log(w) - method.kappa * power * a for w, a in zip(weights, attained, strict=True)]
    most = max(exponent)
    need = [share * math.exp(x - most) * s for share, x, s in zip(own, exponent, spread, strict=True)]
    size = max(_size_of(c, need), CANCELLED * sum(need), TINY)
    need = [x / size for x in need]  # at unit spread
    guard = [0.0] * len(need)
    if method.margin != -1:
        frontier = (1 - phi) ** LETTING_GO
        excluded = [min(channels * x, 1.0) ** LETTING_GO for x in _times(_likeness(certain), opposed)]
        traded = [frontier * x for x in excluded]
        ridge = [(RIDGE + LETTING_GO * x / max(1 - x, TINY)) / share for x, share in zip(traded, own, strict=True)]
        guard = _guards(c, need, method.margin * t, ridge)
    added = [n + g for n, g in zip(need, guard, strict=True)]
    columns = [[x / s for x, s in zip(v, spread, strict=True)] for v in (need, guard)]
    of_need, of_guard, spreads, of_c, shares = (
        torch.tensor(x, dtype=torch.float64) for x in (*columns, spread, c, opposed)
    )
    if not all(map(math.isnan, floors)):
        of_added, levels, ends = (torch.tensor(x, dtype=torch.float64) for x in (added, attained, floors))
        of_guard = of_guard + floors_kept(of_c, of_added, levels, ends) / spreads
    return Weighed(of_need, of_guard, of_c, spreads, phi, channels, shares)


def _guards(c: Matrix, need: Vector, margin: float, ridge: Vector) -> Vector:
    size = _size_of(c, need)
    mu = least_nonnegative_few(_ridged(c, ridge), [x - margin * size for x in _times(c, need)])
    share = min(1.0, TAU * size / max(_size_of(c, mu), TINY))
    return [x * share for x in mu]


def _shrunk(c: Matrix, copies: Matrix, own: Vector, known: Vector) -> Matrix:
    error = explained = 0.0
    for k, row in enumerate(c):
        for j, x in enumerate(row):
            pair, square = own[k] * own[j] * (1 - copies[k][j]), x * x
            explained += pair * square
            error += pair * ((1 - square) * (1 - square) / math.sqrt(known[k] * known[j]))
    delta = min(1.0, error / max(explained, TINY))
    return [
        [(1 - delta) * x + delta * like for x, like in zip(row, likes, strict=True)]
        for row, likes in zip(c, copies, strict=True)
    ]


def _likeness(c: Matrix) -> Matrix:
    return [[math.exp(-KERNEL * (1 - x)) for x in row] for row in c]


def _balanced(q: Matrix, ridge: Vector) -> Vector:
    return least_nonnegative_few(_ridged(q, ridge), [-1.0] * len(q))


def _ridged(q: Matrix, ridge: Vector) -> Matrix:
    """Add to the diagonal."""
    return [[*row[:k], row[k] + ridge[k], *row[k + 1 :]] for k, row in enumerate(q)]


def _times(c: Matrix, v: Vector) -> Vector:
    return [sum(map(mul, row, v)) for row in c]


def _size_of(c: Matrix, v: Vector) -> float:
    return math.sqrt(max(sum(map(mul, v, _times(c, v))), 0.0))


def _sights(
    method: LIFT, shown: Shown, attained: Vector, floors: Vector, alive: Sequence[int], weighed: Weighed
) -> dict[str, Sight]:
    """Return what :mod:`rvpo.core.lift_watch` looks at, by name."""
    needs, shares = weighed.need.tolist(), weighed.opposed.tolist()
    most = max(needs)
    need = {k: x / most for k, x in zip(alive, needs, strict=True)}
    rows = zip(alive, weighed.correlations.tolist(), strict=True)
    opposed = {k: sum(nu for x, nu in zip(row, shares, strict=True) if x > ALIKE) for k, row in rows}
    columns = zip(
        shown.names, attained, shown.attained.tolist(), shown.completions.tolist(), shown.ranks.tolist(), floors
    )
    return {
        name: Sight(
            a,
            mean,
            int(n),
            ranks,
            need.get(k),
            opposed.get(k),
            None if math.isnan(floor) else floor,
            math.sqrt(max(a * (1 - a) / max(n, method.memory / QUICK), 0.0)),
        )
        for k, (name, a, mean, n, ranks, floor) in enumerate(columns)
    }
