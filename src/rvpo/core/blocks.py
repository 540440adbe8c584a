"""The equation page at speed: groups of one size, laid out so that every sum over a group adds whole rows of memory.

:mod:`rvpo.core.advantages` is the specification; what this file cannot compute as exactly is left to it. The layout::

    rewards (N, M)  =  blocks (P, G, M)  --chunk of C groups-->  work (G, C, M)

In ``work`` the numbers of one group lie ``C * M`` apart, so a sum over the group is G - 1 additions of rows of ``C * M``
numbers. A chunk stays in the processor's cache through all passes, which write in place, so nothing of size (N, M) is
allocated. Where no reward of a chunk is missing, there are no masks either: a missing reward makes ``high - low`` NaN.

**Precision.** float64 where the batch is small or not float32. A large float32 batch is computed in float32, where
that costs less than 1e-6: ranges must be far from overflow, and the aggregates must differ by ``SPREAD``, because
whitening divides their rounding by their deviation. Else it is computed again in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpo.core.aggregate import normalised
from rvpo.core.config import AdvantageConfig
from rvpo.core.methods.gdpo import GDPO
from rvpo.core.methods.grpo import GRPO
from rvpo.core.methods.rvpo import RVPO
from rvpo.core.schedules import Schedule

CELLS = 65536
"""Numbers of a chunk."""
LEAST_K = 0.25
"""For a smaller k the logarithm of the soft minimum needs the care of the equation page."""
LEAST_SHARE = 1e-6
"""A share of a channel below this could be lost in a sum."""


@dataclass(frozen=True)
class Limits:
    """What a dtype can hold without overflow: smallest range that may count as live, largest one, largest exponent."""

    live: float
    range: float
    exponent: float


LIMITS = {torch.float32: Limits(1e-15, 1e15, 30.0), torch.float64: Limits(1e-100, 1e150, 300.0)}


class UnfitError(Exception):
    """These rewards are left to the equation page."""


@dataclass(frozen=True)
class Rule:
    """How channels become one number.

    Attributes:
        k: of the soft minimum; 0 for the mean of z-scores; None for the sum of rewards.
        drops: whether a channel takes no part in groups that it does not rank.
        sums: whether the mean is a sum of what was scored, so that a missing reward counts as 0.
    """

    k: float | None
    drops: bool
    sums: bool = False


def rule_of(config: AdvantageConfig, progress: float | None) -> Rule | None:
    """Return the rule of a method; None for one that this file does not know."""
    method, drops = config.method, config.dead_channels == "drop"
    if type(method) is RVPO:
        if isinstance(method.k, Schedule) and progress is None:
            return None
        k = method.risk(progress)
        is_known = not method.remembers and (k == 0 or LEAST_K <= k < torch.inf)
        return Rule(k, drops) if is_known else None
    if type(method) is GDPO:
        return Rule(0.0, drops, method.unscored == "zero")
    if type(method) is GRPO and method.unscored == "zero":
        return Rule(None, drops, sums=True)
    return None


@dataclass(frozen=True)
class Chunk:
    """C groups of a batch, in work layout.

    Attributes:
        where: which groups.
        x: (G, C, M) deviations from the group's mean, 0 where missing; a rule writes into it.
        mean: (C, M) mean of the group, 0 where nothing was scored.
        squares: (C, M) sum of squared deviations.
        count: number of scored completions: G, or (C, M).
        std: (C, M) float64 standard deviation.
        live: (C, M) bool; None if all are.
        there: (G, C, M) 1 where scored, else 0; None if all are.
        scale: (C, M) float64 1 / (std + eps), 0 where not live.
    """

    where: slice
    x: Tensor
    mean: Tensor
    squares: Tensor
    count: int | Tensor
    std: Tensor
    live: Tensor | None
    there: Tensor | None
    scale: Tensor

    def present(self, drops: bool) -> Tensor | None:
        """Return which cells take part, (C, M) or (G, C, M), 1 or 0; None if all do."""
        live = self.live.to(self.x.dtype) if drops and self.live is not None else None
        if live is None or self.there is None:
            return self.there if live is None else live
        return self.there * live

    def aggregated(self, rule: Rule, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the aggregate (G, C), and who takes part, (C,) or (G, C) bool; None if all do. ``x`` is used up.

        Args:
            rule: not the sum of rewards.
            weights: (M,) > 0; for a mean they sum to 1.
        """
        present = self.present(rule.drops)
        total = None if present is None else (present * weights).sum(-1)
        takes_part = None if total is None else total > 0
        if rule.k == 0:
            value = self._scaled(self.scale * weights).sum(-1)  # the z of what is not present is 0
            return value if total is None or rule.sums else value / total.masked_fill(total == 0, 1.0), takes_part
        assert rule.k is not None
        value = self.odds(rule.k, present, weights).sum(-1)
        if total is not None and takes_part is not None:
            value = (value / total).masked_fill_(~takes_part.expand_as(value), 1.0)
        return value.double().log_().mul_(-1 / rule.k), takes_part

    def _scaled(self, scale: Tensor) -> Tensor:
        return self.x.mul_(scale.to(self.x.dtype))

    def responsibilities(self, rule: Rule, shares: Tensor) -> Tensor:
        """Return them, (G, C, M), rows summing to 1, or to 0 where nothing takes part. ``x`` is used up."""
        if rule.k is None:  # in units of z a channel of a sum counts by its standard deviation
            live = None if self.live is None else self.live.to(self.x.dtype)
            pull = (self.std * shares).to(self.x.dtype)
            pull = pull if live is None else pull * live
            pull = pull.expand_as(self.x) if self.there is None else pull * self.there
        else:
            present = self.present(rule.drops)
            if rule.k:
                pull = self.odds(rule.k, present, shares)
            else:
                pull = (shares if present is None else present * shares).expand_as(self.x)
        return normalised(pull)

    def z(self) -> Tensor:
        """Return z-scores (G, C, M), 0 where dead or missing. They take the place of ``x``."""
        return self._scaled(self.scale)

    def live_deviations(self) -> Tensor:
        """Return deviations (G, C, M), 0 where dead or missing. They take the place of ``x``."""
        # What rounding leaves of a group whose rewards are equal is no difference.
        return self.x if self.live is None else self.x.masked_fill_(~self.live, 0.0)

    def live_cells(self) -> Tensor:
        """Return which cells rank their group, (G, C, M) bool."""
        live = torch.ones_like(self.std, dtype=torch.bool) if self.live is None else self.live
        return live.expand_as(self.x) if self.there is None else live & (self.there > 0)

    def odds(self, k: float, present: Tensor | None, weights: Tensor) -> Tensor:
        """Return p exp(-k z), (G, C, M), up to a factor per row, 0 where not present. It takes the place of ``x``.

        |z| is below sqrt(G), so nothing overflows; see ``LIMITS``.
        """
        odds = self._scaled(self.scale * -k).exp_().mul_(weights)
        return odds if present is None else odds.mul_(present)


@dataclass(frozen=True)
class Found:
    """The aggregates of a batch.

    Attributes:
        value: (P, G) float64.
        takes_part: (P, G) bool; None if all rows do.
        weight: share of the weights that was scored, mean over the rows that take part; 1 if there are none.
        has_holes: whether a reward is missing.
        trace: what the rewards are known again by: (P, M) means of the groups, for a sum ``value``.
    """

    value: Tensor
    takes_part: Tensor | None
    weight: float
    has_holes: bool
    trace: Tensor


@dataclass(frozen=True)
class Blocks:
    """Rewards in blocks, with what their normalisation needs.

    Attributes:
        values: (P, G, M), NaN = missing.
        weights: (M,) > 0; for a mean they sum to 1.
        eps: added to standard deviations.
        ddof: 1 or 0.
        rtol: relative range up to which a channel is constant in its group.
        dtype: in which to compute.
    """

    values: Tensor
    weights: Tensor
    eps: float
    ddof: int
    rtol: float
    dtype: torch.dtype

    def check(self, rule: Rule) -> None:
        """Refuse a rule or options with which a number could overflow or vanish.

        Raises:
            UnfitError: it could.
        """
        limits = LIMITS[self.dtype]
        if self.eps * self.rtol < limits.live or (rule.k or 0.0) * self.values.shape[1] ** 0.5 > limits.exponent:
            raise UnfitError

    def aggregated(self, rule: Rule) -> Found:
        """Aggregate by a rule over z-scores.

        Raises:
            UnfitError: see :meth:`chunks`.
        """
        groups, size, channels = self.values.shape
        value = self.values.new_empty((groups, size), dtype=torch.float64)
        trace = self.values.new_empty((groups, channels), dtype=self.dtype)
        takes_part: Tensor | None = None
        scored: Tensor | None = None
        for chunk in self.chunks():
            trace[chunk.where] = chunk.mean
            if chunk.there is not None:
                scored = torch.ones_like(value) if scored is None else scored
                scored[chunk.where] = (chunk.there * self.weights).sum(-1).T
            found, taking = chunk.aggregated(rule, self.weights)
            value[chunk.where] = found.T
            if taking is not None:
                takes_part = torch.ones_like(value, dtype=torch.bool) if takes_part is None else takes_part
                takes_part[chunk.where] = taking.expand_as(found).T
        return Found(value, takes_part, _mean_share(scored, takes_part), scored is not None, trace)

    def sums(self, weights: Tensor) -> Found:
        """Sum raw rewards, a missing one as 0, in double precision.

        Args:
            weights: (M,) float64 as given.

        Raises:
            UnfitError: a reward is infinite, or the sum is.
        """
        groups, size, channels = self.values.shape
        value = self.values.new_empty((groups, size), dtype=torch.float64)
        step = min(groups, max(1, CELLS // (size * channels)))
        work = self.values.new_empty((step, size, channels), dtype=torch.float64)
        scored: Tensor | None = None
        for start in range(0, groups, step):
            where = slice(start, start + step)
            part = self.values[where]
            total = torch.sum(work[: len(part)].copy_(part).mul_(weights), -1, out=value[where])
            if bool(total.isfinite().all()):
                continue
            gone = part.isnan()
            torch.sum(work[: len(part)].copy_(part).masked_fill_(gone, 0.0).mul_(weights), -1, out=total)
            if not bool(total.isfinite().all()):
                raise UnfitError
            scored = torch.ones_like(value, dtype=torch.bool) if scored is None else scored
            scored[where] = ~gone.all(-1)
        takes_part = None if scored is None or bool(scored.all()) else scored
        return Found(value, takes_part, 1.0, scored is not None, value)

    def chunks(self) -> Iterator[Chunk]:
        """Yield all groups, some at a time. A chunk lives until the next one is asked for.

        Raises:
            UnfitError: a reward is infinite, or ranges are too large.
        """
        groups, size, channels = self.values.shape
        step = min(groups, max(1, CELLS // (size * channels)))
        work = self.values.new_empty((2, size * step * channels), dtype=self.dtype)
        for start in range(0, groups, step):
            where = slice(start, min(start + step, groups))
            shape = size, where.stop - start, channels
            x, spare = work[:, : shape[0] * shape[1] * channels].view(2, *shape).unbind(0)
            yield self._chunk(where, x.copy_(self.values[where].transpose(0, 1)), spare)

    def _chunk(self, where: slice, x: Tensor, spare: Tensor) -> Chunk:
        size = x.shape[0]
        largest = LIMITS[self.dtype].range
        low, high = x.amin(0), x.amax(0)
        there: Tensor | None = None
        count: int | Tensor = size
        lowest, highest = low.double(), high.double()
        ranges = highest - lowest
        if not float(ranges.amax()) < largest:  # too large, infinite, or NaN because a reward is missing
            there, low, high, count = _holes(x)
            lowest, highest = low.double(), high.double()
            ranges = highest - lowest
            if not float(ranges.amax()) < largest:
                raise UnfitError
        # A range of 0 is that of a group in which fewer than two completions were scored, too.
        live = ranges > torch.maximum(highest.abs(), lowest.abs()).clamp_(min=self.eps).mul_(self.rtol)
        some: Tensor | None = None if bool(live.all()) else live
        scored = count if isinstance(count, int) else count.clamp(min=1)
        # Around the middle of the group, so that large rewards that are close together keep all digits.
        middle = low.lerp_(high, 0.5)
        x.sub_(middle)
        offset = (x if there is None else x.nan_to_num_(0.0)).sum(0).div_(scored)
        x.sub_(offset)
        if there is not None:
            x.mul_(there)
        squares = torch.mul(x, x, out=spare).sum(0)
        free = size - self.ddof if isinstance(count, int) else (count - self.ddof).clamp_(min=1)
        std = squares.double().div_(free).sqrt_()
        scale = (std + self.eps).reciprocal_()
        if some is not None:
            scale.masked_fill_(~some, 0.0)
        return Chunk(where, x, middle + offset, squares, count, std, some, there, scale)


def _mean_share(scored: Tensor | None, takes_part: Tensor | None) -> float:
    """Return the share of the weights (P, G) that was scored, mean over the rows that take part."""
    if scored is None:
        return 1.0
    counted = scored if takes_part is None else scored[takes_part]
    return float(counted.double().mean()) if counted.numel() else 1.0


def _holes(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return where a chunk (G, C, M) is scored, and lowest and highest reward and number of scored ones, (C, M)."""
    gone = x.isnan()
    there = (~gone).to(x.dtype)
    count = there.sum(0)
    nothing = count == 0
    low, high = x.masked_fill(gone, torch.inf).amin(0), x.masked_fill(gone, -torch.inf).amax(0)
    return there, low.masked_fill_(nothing, 0.0), high.masked_fill_(nothing, 0.0), count
