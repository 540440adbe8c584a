"""A fast implementation for groups of one size, laid out so that sums over a group add whole rows of memory.

:mod:`rvpo.core.advantages` is the specification. It also computes batches for which this file is not exact enough. The
layout::

    rewards (N, M)  =  blocks (P, G, M)  --chunk of C groups-->  work (G, C, M)

In ``work`` the numbers of one group are ``C * M`` apart, so a sum over the group is G - 1 additions of rows of that
many numbers. A chunk stays in the processor's cache during all passes. They write in place, so nothing of size (N, M)
is allocated. If no reward of a chunk is missing, no masks are needed. The sums of squares show this: a missing or
infinite reward makes them NaN, and a constant group makes them exactly 0.

Masks are numbers, 1 or 0, wherever they have as many cells as the rewards: an operation on bool takes four to ten times
as long in torch.

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
LOG2E = math.log2(math.e)
"""exp(x) is 2 to the power of x times this. torch computes powers of 2 in half the time."""


@dataclass(frozen=True)
class Limits:
    """Where a dtype is exact enough: smallest range that may count as live, largest reward, largest exponent."""

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
        mean: (C, M) float64 mean of the group, 0 where nothing was scored.
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
        if rule.k == 0:
            value = self._scaled(self.scale * weights).sum(-1).double()  # the z of what is not present is 0
        else:
            value = self.odds(rule.k, present, weights).sum(-1).double()
        if present is None:
            return (value if rule.k == 0 else value.log_().mul_(-1 / rule.k)), None
        total = _weight_of(present, weights).double()
        takes_part = total > 0
        everybody = bool(takes_part.all())
        if not everybody:
            total.masked_fill_(~takes_part, 1.0)
        if rule.k:
            value = value / total
            value = (value if everybody else value.masked_fill_(~takes_part, 1.0)).log_().mul_(-1 / rule.k)
        elif not rule.sums:
            value = value / (total * weights if isinstance(weights, float) else total)
        return value, None if everybody else takes_part.expand_as(value)

    def scored(self, weights: Weights, takes_part: Tensor | None) -> tuple[float, int]:
        """Return the share of the weights that was scored, summed over the rows that take part, and their number.

        Args:
            weights: weights of the channels.
            takes_part: (G, C) bool; None if all rows do.
        """
        size, groups, _ = self.x.shape
        number = size * groups if takes_part is None else int(takes_part.sum())
        if self.there is None:
            return float(number), number
        if takes_part is None:
            assert isinstance(self.count, Tensor)
            return float((self.count.double().sum(0) * weights).sum()), number
        share = _weight_of(self.there, weights)[takes_part].double().sum()
        return float(share) * (weights if isinstance(weights, float) else 1.0), number

    def odds(self, k: float, present: Tensor | None, weights: Weights) -> Tensor:
        """Return w exp(-k z), (G, C, M), 0 where not present; without w if all weights are equal. ``x`` is used up."""
        odds = self._odds(k)
        if present is not None:
            odds.mul_(present)
        return odds if isinstance(weights, float) else odds.mul_(weights)

    def responsibilities(self, rule: Rule, weights: Weights) -> Tensor:
        """Return responsibilities, (G, C, M). Rows sum to 1, or to 0 if nothing takes part. ``x`` is used up."""
        if rule.k:
            return normalised(self.odds(rule.k, self.present(rule.drops), weights))
        if rule.k is None:  # in units of z a channel of a sum counts by its standard deviation
            pull, present = (self.std * weights).to(self.x.dtype), self.present(drops=True)
        else:
            pull, present = torch.ones_like(self.x[0]) * weights, self.present(rule.drops)
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
        return self._scaled(self.scale * (-k * LOG2E)).exp2_()

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
        trace: numbers that show whether rewards have changed: the squares of the chunks, a sum, or a copy of them.
        keeps_rewards: whether it is a copy of the rewards.
    """

    value: Tensor
    takes_part: Tensor | None
    weight: float
    has_holes: bool
    trace: list[Tensor]
    keeps_rewards: bool = False


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
        values, takes_part, trace = [], [], []
        has_holes, share, number = False, 0.0, 0
        for chunk in self.chunks():
            trace.append(chunk.squares)
            value, taking = chunk.aggregated(rule, self.weights)
            values.append(value)
            takes_part.append(taking)
            has_holes = has_holes or chunk.there is not None
            scored, rows = chunk.scored(self.weights, taking)
            share, number = share + scored, number + rows
        takes = _joined(takes_part, values)
        return Found(_whole(values), takes, share / number if number else 1.0, has_holes, trace)

    def _sums(self) -> Found:
        """Sum raw rewards, a missing one as 0. A sum over channels needs no work layout."""
        values, takes_part, has_holes = [], [], False
        weights = None if isinstance(self.weights, float) and self.weights == 1 else self.weights
        groups, size, channels = self.values.shape
        step = max(1, CELLS // (size * channels))
        for start in range(0, groups, step):
            rewards = self.values[start : start + step].to(self.dtype)
            value = (rewards if weights is None else rewards * weights).sum(-1)
            low, high = map(float, torch.aminmax(value))
            there = None
            if not math.isfinite(high - low):
                there = torch.eq(rewards, rewards, out=torch.empty_like(rewards)).amax(-1) > 0
                known = rewards.nan_to_num(0.0, posinf=torch.inf, neginf=-torch.inf)
                value = (known if weights is None else known.mul_(weights)).sum(-1)
                low, high = map(float, torch.aminmax(value))
                has_holes = True
            if not max(high, -low) < self.limits.range:  # also if it is not finite
                raise UnfitError
            values.append(value.T)
            takes_part.append(None if there is None or bool(there.all()) else there.T)
        value = _whole(values)
        return Found(value, _joined(takes_part, values), 1.0, has_holes, [value])

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
            UnfitError: a reward is infinite or too large.
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
        if groups * cells <= SMALL or self.values.device.type != "cpu":  # small enough for any cache, or on a GPU
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
        return Chunk(x, first.double().add_(offset), squares, len(x), std, scale, live, None)

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
        reach = max(highest, -lowest) + 2 * math.sqrt(most) if most >= 0 else math.nan  # NaN: a reward is missing
        if not reach < self.limits.range:
            return False, None
        return 2 * math.sqrt(least / size) > 1.001 * self.rtol * max(reach, self.eps), live

    def _with_care(self, x: Tensor, spare: Tensor | None) -> Chunk:
        """Return a chunk with missing rewards or nearly constant channels."""
        scored_cells = torch.eq(x, x, out=torch.empty_like(x))  # NaN is not equal to itself
        number = scored_cells.sum(0)
        there: Tensor | None = scored_cells
        count: int | Tensor = number
        if float(number.amin()) < len(x):
            low = torch.nan_to_num(x, torch.inf, torch.inf, -torch.inf, out=spare).amin(0)
            high = torch.nan_to_num(x, -torch.inf, torch.inf, -torch.inf, out=spare).amax(0)
            nothing = number == 0
            low.masked_fill_(nothing, 0.0)
            high.masked_fill_(nothing, 0.0)
            scored, free = number.clamp(min=1), (number - self.ddof).clamp_(min=1)
        else:
            there, count = None, len(x)
            scored, free = number, number - self.ddof
            low, high = x.amin(0), x.amax(0)
        lowest, highest = low.double(), high.double()
        ranges, largest = highest - lowest, torch.maximum(highest.abs(), lowest.abs())
        if not float(largest.amax()) < self.limits.range:
            raise UnfitError
        # The range is also 0 if fewer than two completions of the group were scored.
        live = ranges > largest.clamp_(min=self.eps).mul_(self.rtol)
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
        return Chunk(
            x, middle.double().add_(offset), squares, count, std, scale, None if bool(live.all()) else live, there
        )


def _weight_of(present: Tensor, weights: Weights) -> Tensor:
    """Return the weight of the present channels, (…); their number if all weights are equal."""
    return (present if isinstance(weights, float) else present * weights).sum(-1)


def _whole(parts: list[Tensor]) -> Tensor:
    """Join chunks (G, C) to (G, P)."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _joined(masks: list[Tensor | None], like: list[Tensor]) -> Tensor | None:
    """Join masks (G, C) to (G, P), where None is all True; None if all of them are."""
    if all(mask is None for mask in masks):
        return None
    known = zip(masks, like, strict=True)
    return _whole([torch.ones_like(other, dtype=torch.bool) if mask is None else mask for mask, other in known])
