"""A fast implementation for groups of one size, laid out so that sums over a group add whole rows of memory.

:mod:`rvpo.core.advantages` is the specification. It also computes batches for which this file is not exact enough. The
layout::

    rewards (N, M)  =  blocks (P, G, M)  --chunk of C groups-->  work (G, C, M)

In ``work`` the numbers of one group are ``C * M`` apart, so a sum over the group is G - 1 additions of rows of that
many numbers. A chunk stays in the processor's cache during all passes. They write in place, so nothing of size (N, M)
is allocated. If no reward of a chunk is missing, no masks are needed. The sums of squares show this: a missing or
infinite reward makes them NaN, and a constant group makes them exactly 0.

**Precision.** A batch that is small or not float32 is computed in float64. A large float32 batch is computed in float32
if the error is below 1e-6: ranges must be far from overflow, and the aggregates must differ by ``SPREAD``, because
whitening divides their rounding errors by their deviation. Otherwise it is computed again in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rvpo.core.aggregate import normalised
from rvpo.core.lazy import Tensor, torch

CELLS = 65536
"""Largest number of values in a chunk."""
LEAST_SHARE = 1e-6
"""A share of a channel below this could be lost in a sum."""


SMALL = 16384
"""Up to so many values, the overhead of calls is larger than their work."""


@dataclass(frozen=True)
class Limits:
    """Where a dtype is exact enough: smallest range that may count as live, largest range, largest exponent."""

    live: float
    range: float
    exponent: float


FLOAT32 = Limits(1e-15, 1e15, 8.0)
FLOAT64 = Limits(1e-100, 1e100, 300.0)


Weights = Tensor | float
"""Weights of the channels, all above 0: (M,), or one number if they are equal. For a mean they sum to 1."""


class UnfitError(Exception):
    """These rewards must be computed by :mod:`rvpo.core.advantages`."""


@dataclass(frozen=True)
class Rule:
    """How channels become one number.

    Attributes:
        k: risk coefficient of the soft minimum; 0 for the mean of z-scores; None for the sum of rewards.
        drops: whether a channel is left out in groups that it does not rank.
        sums: whether the mean is a sum of what was scored, so that a missing reward counts as 0.
    """

    k: float | None
    drops: bool
    sums: bool = False


@dataclass(slots=True)
class Chunk:
    """C groups of a batch, in work layout.

    Attributes:
        x: (G, C, M) deviations from the group's mean, 0 where missing; a rule writes into it.
        mean: (C, M) mean of the group, 0 where nothing was scored.
        squares: (C, M) float64 sum of squared deviations.
        count: number of scored completions: G, or (C, M).
        std: (C, M) float64 standard deviation.
        scale: (C, M) float64 1 / (std + eps), 0 where not live.
        live: (C, M) bool; None if all are.
        there: (G, C, M) 1 where scored, otherwise 0; None if all are.
    """

    x: Tensor
    mean: Tensor
    squares: Tensor
    count: int | Tensor
    std: Tensor
    scale: Tensor
    live: Tensor | None
    there: Tensor | None

    def present(self, drops: bool) -> Tensor | None:
        """Return which cells take part, (C, M) or (G, C, M), 1 or 0; None if all do."""
        if self.live is None or not drops:
            return self.there
        live = self.live.to(self.x.dtype)
        return live if self.there is None else self.there * live

    def aggregated(self, rule: Rule, weights: Weights) -> tuple[Tensor, Tensor | None]:
        """Return the aggregate (G, C) float64, and which rows take part, as bool; None if all do. ``x`` is used up.

        Args:
            rule: a rule over z-scores.
            weights: weights of the channels.
        """
        assert rule.k is not None
        present = self.present(rule.drops)
        if present is None and rule.k and isinstance(weights, float):
            value = self._odds(rule.k).sum(-1).double()
            return value.log_().add_(math.log(weights)).mul_(-1 / rule.k), None
        value = self.weighed(rule.k, present, weights).sum(-1).double()
        if present is None:
            return (value if rule.k == 0 else value.log_().mul_(-1 / rule.k)), None
        total = (present * weights).sum(-1).double()
        takes_part = total > 0
        if rule.k == 0:
            return (value if rule.sums else value / total.masked_fill(~takes_part, 1.0)), takes_part.expand_as(value)
        value = (value / total).masked_fill_(~takes_part, 1.0)
        return value.log_().mul_(-1 / rule.k), takes_part.expand_as(value)

    def weighed(self, k: float, present: Tensor | None, weights: Weights) -> Tensor:
        """Return w z for k = 0, otherwise w exp(-k z), (G, C, M), 0 where not present. It overwrites ``x``."""
        if k == 0:
            return self._scaled(self.scale * weights)  # the z of what is not present is 0
        return self._odds(k).mul_(weights if present is None else present * weights)

    def responsibilities(self, rule: Rule, weights: Weights) -> Tensor:
        """Return responsibilities, (G, C, M). Rows sum to 1, or to 0 if nothing takes part. ``x`` is used up."""
        if rule.k:
            return normalised(self.weighed(rule.k, self.present(rule.drops), weights))
        if rule.k is None:  # in units of z a channel of a sum counts by its standard deviation
            pull, present = (self.std * weights).to(self.x.dtype), self.present(drops=True)
        else:
            pull, present = torch.ones_like(self.mean) * weights, self.present(rule.drops)
        return normalised(pull if present is None else pull * present).expand_as(self.x)

    def z(self) -> Tensor:
        """Return z-scores (G, C, M), 0 where dead or missing. They overwrite ``x``."""
        return self._scaled(self.scale)

    def live_deviations(self) -> Tensor:
        """Return deviations (G, C, M), 0 where dead or missing. They overwrite ``x``."""
        # If the rewards of a group are equal, a difference that is left is only rounding.
        return self.x if self.live is None else self.x.masked_fill_(~self.live, 0.0)

    def live_cells(self) -> Tensor:
        """Return which cells rank their group, (G, C, M) bool."""
        live = torch.ones_like(self.mean, dtype=torch.bool) if self.live is None else self.live
        return live.expand_as(self.x) if self.there is None else live & (self.there > 0)

    def _odds(self, k: float) -> Tensor:
        """Return exp(-k z). |z| is below sqrt(G), so nothing overflows; see :class:`Limits`."""
        return self._scaled(self.scale * -k).exp_()

    def _scaled(self, scale: Tensor) -> Tensor:
        return self.x.mul_(scale.to(self.x.dtype))


@dataclass(slots=True)
class Found:
    """The aggregates of a batch.

    Attributes:
        value: (G, P) float64.
        takes_part: (G, P) bool; None if all rows do.
        weight: share of the weights that was scored, mean over the rows that take part; 1 without such rows.
        has_holes: whether a reward is missing.
        trace: numbers that show whether rewards have changed: the squares of the chunks, or a sum itself.
    """

    value: Tensor
    takes_part: Tensor | None
    weight: float
    has_holes: bool
    trace: list[Tensor]


@dataclass(slots=True)
class Blocks:
    """Rewards in blocks, and the options of their normalisation.

    Attributes:
        values: (P, G, M) rewards, NaN = missing.
        weights: weights of the channels.
        eps: number added to standard deviations.
        ddof: 1 or 0.
        rtol: largest relative range of a channel that is constant in its group.
        dtype: dtype of the computation.
    """

    values: Tensor
    weights: Weights
    eps: float
    ddof: int
    rtol: float
    dtype: torch.dtype

    @property
    def limits(self) -> Limits:
        """Where the dtype is exact enough."""
        return FLOAT32 if self.dtype == torch.float32 else FLOAT64

    def check(self, rule: Rule) -> None:
        """Refuse a rule or options with which a number could overflow or underflow.

        Raises:
            UnfitError: a number could overflow or underflow.
        """
        limits = self.limits
        if self.eps * self.rtol < limits.live or (rule.k or 0.0) * self.values.shape[1] ** 0.5 > limits.exponent:
            raise UnfitError

    def aggregated(self, rule: Rule) -> Found:
        """Aggregate by a rule.

        Raises:
            UnfitError: see :meth:`chunks`; also if a sum is not finite.
        """
        if rule.k is None:
            return self._sums()
        values, takes_part, scored, trace = [], [], [], []
        for chunk in self.chunks():
            trace.append(chunk.squares)
            scored.append(None if chunk.there is None else (chunk.there * self.weights).sum(-1))
            value, taking = chunk.aggregated(rule, self.weights)
            values.append(value)
            takes_part.append(taking)
        takes, shares = _joined(takes_part, values, torch.bool), _joined(scored, values, self.dtype)
        return Found(_whole(values), takes, _mean_share(shares, takes), shares is not None, trace)

    def _sums(self) -> Found:
        """Sum raw rewards, a missing one as 0."""
        values, scored = [], []
        for x, _, spare in self._parts():
            is_plain = isinstance(self.weights, float) and self.weights == 1
            value = x.sum(-1) if is_plain else torch.mul(x, self.weights, out=spare).sum(-1)
            there = None
            if not bool(value.isfinite().all()):
                gone = x.isnan()
                value = torch.mul(x.masked_fill_(gone, 0.0), self.weights, out=spare).sum(-1)
                there = ~gone.all(-1)
            low, high = map(float, torch.aminmax(value))
            if not max(high, -low) < self.limits.range:  # also if it is not finite
                raise UnfitError
            values.append(value)
            scored.append(there)
        value, takes_part = _whole(values), _joined(scored, values, torch.bool)
        return Found(value, takes_part, 1.0, takes_part is not None, [value])

    def fill(self, out: Tensor, take: Callable[[Chunk], Tensor]) -> None:
        """Write the result of ``take`` for each chunk, (G, C, M), into ``out``, (P, G, M)."""
        layout, start = out.transpose(0, 1), 0
        for chunk in self.chunks():
            part = take(chunk)
            layout[:, start : start + part.shape[1]] = part
            start += part.shape[1]

    def chunks(self) -> Iterator[Chunk]:
        """Yield all groups, some at a time. A chunk lives until the next one is asked for.

        Raises:
            UnfitError: a reward is infinite, or ranges are too large.
        """
        has_holes = False
        for x, rewards, spare in self._parts():
            chunk = self._with_care(x, spare) if has_holes else self._chunk(x, rewards, spare)
            has_holes = chunk.there is not None  # if so, the next chunk most likely has holes, too
            yield chunk

    def _parts(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield rewards in work layout (G, C, M), as a copy and as they are, and room for as many numbers, or None."""
        groups, size, channels = self.values.shape
        layout, cells = self.values.transpose(0, 1), size * channels
        if groups * cells <= SMALL:  # fits into any cache, in any order
            yield layout.to(self.dtype, copy=True), layout, None
            return
        step = min(groups, max(1, CELLS // cells))
        work = torch.empty((2, step * cells), dtype=self.dtype, device=self.values.device)
        for start in range(0, groups, step):
            part = layout[:, start : start + step]
            x, spare = work[:, : part.numel()].view(2, *part.shape).unbind(0)
            yield x.copy_(part), part, spare

    def _chunk(self, x: Tensor, rewards: Tensor, spare: Tensor | None) -> Chunk:
        # Relative to one of its rewards, a group keeps all digits, and is exactly 0 if it is constant.
        first = x[0].clone()
        x.sub_(first)
        offset = x.mean(0)
        x.sub_(offset)
        squares = torch.mul(x, x, out=spare).sum(0).double()
        is_known, live = self._ranking(first, squares, len(x))
        if not is_known:
            return self._with_care(x.copy_(rewards), spare)
        std = squares.div(len(x) - self.ddof).sqrt_()
        scale = (std + self.eps).reciprocal_()
        if live is not None:
            scale.masked_fill_(~live, 0.0)
        return Chunk(x, first.add_(offset), squares, len(x), std, scale, live, None)

    def _ranking(self, first: Tensor, squares: Tensor, size: int) -> tuple[bool, Tensor | None]:
        """Return whether it is certain which channels rank which groups, and which do, (C, M) bool; None: all.

        A range is at least twice the deviation of the population, and at most twice the root of ``squares``.

        Args:
            first: (C, M) one reward of each group.
            squares: (C, M) sums of squared deviations; NaN where a reward is missing.
            size: G.
        """
        live = None
        least, most = map(float, torch.aminmax(squares))
        if least == 0:
            live = squares > 0
            least = float(squares.masked_fill(~live, torch.inf).amin())
        lowest, highest = map(float, torch.aminmax(first))
        if not most < self.limits.range**2:
            return False, None
        reach = max(highest, -lowest) + 2 * math.sqrt(most)
        return 2 * math.sqrt(least / size) > 1.001 * self.rtol * max(reach, self.eps), live

    def _with_care(self, x: Tensor, spare: Tensor | None) -> Chunk:
        """Return a chunk with missing rewards or nearly constant channels."""
        gone = x.isnan()
        there: Tensor | None = None
        count: int | Tensor = len(x)
        scored, free = count, count - self.ddof
        if bool(gone.any()):
            there = (~gone).to(x.dtype)
            count = there.sum(0)
            low, high = x.masked_fill(gone, torch.inf).amin(0), x.masked_fill(gone, -torch.inf).amax(0)
            low.masked_fill_(count == 0, 0.0)
            high.masked_fill_(count == 0, 0.0)
            scored, free = count.clamp(min=1), (count - self.ddof).clamp_(min=1)
        else:
            low, high = x.amin(0), x.amax(0)
        lowest, highest = low.double(), high.double()
        ranges = highest - lowest
        if not float(ranges.amax()) < self.limits.range:
            raise UnfitError
        # The range is also 0 if fewer than two completions of the group were scored.
        live = ranges > torch.maximum(highest.abs(), lowest.abs()).clamp_(min=self.eps).mul_(self.rtol)
        # Relative to the middle of the group, so that large rewards that are close together keep all digits.
        middle = low.lerp_(high, 0.5)
        x.sub_(middle)
        if there is not None:
            x.nan_to_num_(0.0)
        offset = x.sum(0).div_(scored)
        x.sub_(offset)
        if there is not None:
            x.mul_(there)
        squares = torch.mul(x, x, out=spare).sum(0).double()
        std = squares.div(free).sqrt_()
        scale = (std + self.eps).reciprocal_().masked_fill_(~live, 0.0)
        return Chunk(x, middle.add_(offset), squares, count, std, scale, None if bool(live.all()) else live, there)


def _whole(parts: list[Tensor]) -> Tensor:
    """Join chunks (G, C) to (G, P)."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _joined(parts: list[Tensor | None], like: list[Tensor], dtype: torch.dtype) -> Tensor | None:
    """Join chunks (G, C) to (G, P), where None is all ones; None if all of them are."""
    if all(part is None for part in parts):
        return None
    ones = [torch.ones_like(other, dtype=dtype) for other in like]
    return _whole([one if part is None else part for part, one in zip(parts, ones, strict=True)])


def _mean_share(scored: Tensor | None, takes_part: Tensor | None) -> float:
    """Return the share of the weights (G, P) that was scored, mean over the rows that take part."""
    if scored is None:
        return 1.0
    counted = scored if takes_part is None else scored[takes_part]
    return float(counted.double().mean()) if counted.numel() else 1.0
