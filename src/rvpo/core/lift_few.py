"""LIFT's decision for few channels in plain Python, which is faster than calls of tensor operations.

:meth:`rvpo.core.methods.lift.LIFT.decide` is the specification, with the functions that it calls and the running means.
The same names have the same meaning here. A matrix is a list of K rows. Rare cases (channels that the state does not
have, reliabilities below 1) are left to ``decide``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

from rvpo.core.channels import State
from rvpo.core.lazy import Tensor, torch
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
    Weighed,
    floors_kept,
)
from rvpo.core.nonnegative import least_nonnegative_few

MOST = 20
"""Largest number of channels for which this is faster."""

Vector = list[float]
Matrix = list[Vector]


@dataclass(frozen=True, slots=True)
class ShownFew:
    """Statistics of a batch for K channels that are scored on all completions, all of which take part.

    Attributes:
        names: K names.
        completions: number of completions.
        groups: number of groups.
        attained: K mean attained shares.
        moments: (K, K) mean of u u' over the completions that take part.
        ranks: K flags, whether the channel differs within a group.
        weights: K weights of the user, > 0.
    """

    names: tuple[str, ...]
    completions: int
    groups: int
    attained: Vector
    moments: Matrix
    ranks: list[bool]
    weights: Vector


@dataclass(frozen=True, slots=True)
class WeighedFew:
    """Weights of K channels at unit spread; see :class:`Weighed`."""

    need: Vector
    guard: Vector
    correlations: Matrix
    spread: Vector
    frontier: float
    channels: float
    opposed: Vector

    def total(self) -> Vector:
        """Return lambda + mu, scaled so that A has size 1."""
        total = [n + g for n, g in zip(self.need, self.guard, strict=True)]
        size = _norm_of(self.correlations, total)
        return [x / s / size for x, s in zip(total, self.spread, strict=True)]

    def as_tensors(self) -> Weighed:
        """Return the same as tensors."""
        need, guard = ([x / s for x, s in zip(v, self.spread, strict=True)] for v in (self.need, self.guard))
        of_need, of_guard, c, spread, opposed = (
            torch.tensor(x, dtype=torch.float64) for x in (need, guard, self.correlations, self.spread, self.opposed)
        )
        return Weighed(of_need, of_guard, c, spread, self.frontier, self.channels, opposed)


@dataclass(frozen=True, slots=True)
class DecidedFew:
    """Factors of the channels of a batch, see :class:`rvpo.core.methods.lift.Decided`.

    Attributes:
        factors: K numbers.
        state: state for the next batch.
        weighed: values that led to the factors.
        names: names of the channels in ``weighed``.
    """

    factors: Vector
    state: State
    weighed: WeighedFew
    names: tuple[str, ...]

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name."""
        return self.weighed.as_tensors().metrics(self.names)


def decide_few(method: LIFT, shown: ShownFew, state: State) -> DecidedFew | None:
    """Return the result of ``method.decide``; None if ``decide`` itself is needed.

    Args:
        method: the method with its options.
        shown: statistics of the batch.
        state: state of the last batch; empty at the start of a run.
    """
    names, count, means = shown.names, len(shown.names), shown.attained
    for key in ("attained", "moments"):
        if key in state and tuple(state[key]["names"]) != names:
            return None
    # Running means, including this batch.
    horizon = method.memory / shown.completions
    attained = _Mean(state.get("attained"), count, pairs=False)
    moments = _Mean(state.get("moments"), count, pairs=True)
    attained.update([means], 1 / max(horizon / QUICK, 1.0))
    moments.update(shown.moments, 1 / max(horizon, LEAST_BATCHES))
    (a,), q = attained.mean(), moments.mean()
    # Weights of the channels.
    alive = [k for k in range(count) if q[k][k] > TINY]
    if not alive:
        return None
    floors = [method.floors.get(name, math.nan) for name in names]
    free = shown.completions - shown.groups
    known = [max(free * batches, 1.0) for batches in moments.batches()]
    of_alive = ([x[k] for k in alive] for x in (a, shown.weights, floors, known))
    weighed = _weigh(method, [[q[k][j] for j in alive] for k in alive], *of_alive)
    factors = [0.0] * count
    for k, factor in zip(alive, weighed.total(), strict=True):
        factors[k] = factor
    watch = next_watch(state.get("watch"), _sights(method, shown, a, floors, alive, weighed), weighed.frontier)
    new = {"attained": attained.to_state(names), "moments": moments.to_state(names), "watch": watch}
    return DecidedFew(factors, new, weighed, tuple(names[k] for k in alive))


class _Mean:
    """A :class:`rvpo.core.running_mean.RunningMean` whose K names are all in the batch.

    Args:
        state: tensors or lists; None at the start of a run.
        count: K, the number of channels.
        pairs: whether it is a mean of pairs of channels (K rows of numbers) or of channels (one row).
    """

    def __init__(self, state: State | None, count: int, *, pairs: bool) -> None:
        self._pairs, self._new = pairs, 1.0
        self._total: Matrix = [[0.0] * count for _ in range(count if pairs else 1)]
        self._weight = [0.0] * count
        if state is not None:
            numbers = (state[key] for key in ("total", "weight"))
            total, self._weight = (x.tolist() if isinstance(x, Tensor) else x for x in numbers)
            self._total = total if pairs else [total]

    def update(self, value: Matrix, new: float) -> None:
        """Add a batch with the weight ``new`` per channel."""
        keep = 1 - new
        self._total = [
            [keep * before + new * x for before, x in zip(was, row, strict=True)]
            for was, row in zip(self._total, value, strict=True)
        ]
        self._weight = [keep * before + new for before in self._weight]
        self._new = new

    def mean(self) -> Matrix:
        """Return the mean."""
        scales = self._scales(self._weight)
        return [
            [x / w for x, w in zip(row, scale, strict=True)] for row, scale in zip(self._total, scales, strict=True)
        ]

    def batches(self) -> Vector:
        """Return the effective number of batches in the mean of each channel."""
        return [weight * (2 / self._new - 1) / (2 - weight) for weight in self._weight]

    def to_state(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return a state in the form of the running mean's."""
        total = self._total if self._pairs else self._total[0]
        return {"names": names, "total": total, "weight": self._weight, "absent": (0,) * len(names)}

    def _scales(self, x: Vector) -> Matrix:
        """Return scales of channels; for a mean of pairs return the scales of pairs."""
        return [[math.sqrt(a * b) for b in x] for a in x] if self._pairs else [x]


def _weigh(method: LIFT, q: Matrix, attained: Vector, weights: Vector, floors: Vector, known: Vector) -> WeighedFew:
    """Return lambda, mu and the values for the metrics, if all channels are trusted fully."""
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
    size = _norm_of(c, need)
    need = [x / size for x in need]
    guard = [0.0] * len(need)
    if method.margin != -1:
        frontier = (1 - phi) ** LETTING_GO
        excluded = [min(channels * x, 1.0) ** LETTING_GO for x in _times(_likeness(certain), opposed)]
        let_go = [LETTING_GO * frontier * x / max(1 - frontier * x, TINY) for x in excluded]
        guard = _guards(c, need, method.margin * t, [(RIDGE + x) / share for x, share in zip(let_go, own, strict=True)])
    if not all(map(math.isnan, floors)):
        added = [n + g for n, g in zip(need, guard, strict=True)]
        kept = floors_kept(*(torch.tensor(x, dtype=torch.float64) for x in (c, added, attained, floors)))
        guard = [g + x for g, x in zip(guard, kept.tolist(), strict=True)]
    return WeighedFew(need, guard, c, spread, phi, channels, opposed)


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
    """Return the matrix with the ridge added to its diagonal."""
    return [[*row[:k], row[k] + ridge[k], *row[k + 1 :]] for k, row in enumerate(q)]


def _times(c: Matrix, v: Vector) -> Vector:
    return [sum(map(mul, row, v)) for row in c]


def _size_of(c: Matrix, v: Vector) -> float:
    return math.sqrt(max(sum(map(mul, v, _times(c, v))), 0.0))


def _norm_of(c: Matrix, v: Vector) -> float:
    return max(_size_of(c, v), CANCELLED * sum(v), TINY)


def _sights(
    method: LIFT, shown: ShownFew, attained: Vector, floors: Vector, alive: Sequence[int], weighed: WeighedFew
) -> dict[str, Sight]:
    """Return the input of :mod:`rvpo.core.lift_watch`, by name."""
    needs = [x / s for x, s in zip(weighed.need, weighed.spread, strict=True)]
    most, n = max(needs), shown.completions
    need = {k: x / most for k, x in zip(alive, needs, strict=True)}
    rows = zip(alive, weighed.correlations, strict=True)
    opposed = {k: sum(nu for x, nu in zip(row, weighed.opposed, strict=True) if x > ALIKE) for k, row in rows}
    columns = zip(shown.names, attained, shown.attained, shown.ranks, floors, strict=True)
    counted = max(n, method.memory / QUICK)
    return {
        name: Sight(
            a,
            mean,
            n,
            ranks,
            need.get(k),
            opposed.get(k),
            None if math.isnan(floor) else floor,
            math.sqrt(max(a * (1 - a) / counted, 0.0)),
        )
        for k, (name, a, mean, ranks, floor) in enumerate(columns)
    }
