"""The fast path to LIFT's advantages, for batches in which each column is a channel and no reward is missing.

:mod:`rvpo.core.methods.lift` is the specification, and also computes the factors here. This file computes its input
fast: moments, means and ends of the channels, from chunks in the layout of :mod:`rvpo.core.blocks`, in double
precision. It passes over the rewards three times: for the lowest and highest of each group, which determine live
channels and scales; for the moments of the deviations; and, with the factors, for their sum. Nothing of size (N, M) is
stored.

All groups have one size, in any order. Each channel has one weight above 0. Any other batch is computed by
:func:`rvpo.core.advantages.compute` automatically, with the same result. Metrics are computed when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rvpo.core.aggregate import normalised
from rvpo.core.blocks import CELLS, SMALL, Found, Rule, UnfitError
from rvpo.core.channels import Channels, Range, State
from rvpo.core.checks import require_known
from rvpo.core.config import AdvantageConfig
from rvpo.core.fast import Fitting, Kept, channel_weights, in_blocks, is_plain, version_of
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, numpy, torch
from rvpo.core.lift_few import MOST, DecidedFew, ShownFew, decide_few
from rvpo.core.methods.lift import LEAST_DEVIATION, LIFT, Decided, Shown
from rvpo.core.metrics import Advantages
from rvpo.core.scales import ASSUMED, KEY, learned, scale_metrics
from rvpo.core.small import Array, SmallDeviations, in_work_layout, products
from rvpo.core.small import whitened as whitened_small
from rvpo.core.summary import Summary

CLEAR = 1e-6
"""Smallest range of attained shares in a group with which the channel certainly has deviations there."""
LARGEST = 1e75
"""Largest reward with which nothing overflows."""
RULE = Rule(None, drops=True, sums=True)
"""LIFT as a sum of rewards, whose responsibilities are proportional to weight and spread."""


def fast_lift(
    rewards: Tensor,
    config: AdvantageConfig,
    groups: Tensor | Groups | None,
    num_generations: int | None,
    weights: Tensor | Sequence[float] | None,
    channels: Channels | None,
    reliability: Tensor | None,
    state: State | None,
) -> Advantages | None:
    """Return the result of :func:`rvpo.core.advantages.compute`; None if ``compute`` itself must compute it.

    Args:
        rewards: see ``compute``, also for the others. They need not be checked before: ``compute`` reports errors.
        config: the method and its options.
        groups: see above.
        num_generations: see above.
        weights: see above.
        channels: see above.
        reliability: see above.
        state: see above.
    """
    method = config.method
    fits = type(method) is LIFT and config.dead_channels == "keep" and not config.wanted and config.whiten != "token"
    if not fits or not is_plain(rewards):
        return None
    columns = rewards.shape[1]
    channels = _numbered(columns) if channels is None else channels
    if len(channels.names) != columns or not channels.are_columns:
        return None
    if reliability is not None and (reliability.shape != (columns,) or reliability.requires_grad):
        return None
    with torch.no_grad():
        w = channel_weights(weights, rewards)
        found = None if w is None else in_blocks(rewards, groups, num_generations)
        if w is None or found is None:
            return None
        shares = torch.full((columns,), 1.0, dtype=torch.float64, device=rewards.device) * w
        fitting = Fitting(rewards, config, RULE, shares, *found, torch.float64)
        try:
            return _Step(fitting, channels, reliability).result(state or {})
        except UnfitError:
            return None


@lru_cache(maxsize=16)
def _numbered(count: int) -> Channels:
    """Return channels without names and ranges of their own."""
    return Channels.columns([str(j) for j in range(count)])


@dataclass(slots=True)
class Deviations:
    """How the rewards of a batch become deviations D, chunk by chunk.

    Attributes:
        low: (M,) float64, lower ends of the scales; None if all rewards equal their attained shares.
        width: (M,) float64, widths of the scales; None in the same case.
        live: (P, M) bool, whether a channel differs within a group; otherwise D = 0.
        masks: whether ``live`` must be applied, because D is not exactly 0 by itself.
    """

    low: Tensor | None
    width: Tensor | None
    live: Tensor
    masks: bool

    def of(self, values: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield groups, their mean attained shares (C, M), and D (G, C, M), which is valid until the next ones.

        Args:
            values: (P, G, M) rewards.
        """
        for part, x in chunks(values, torch.float64):
            self.scale(x)
            mean = x.mean(0)
            x.sub_(mean)
            torch.hardshrink(x, LEAST_DEVIATION, out=x)
            if self.masks:
                x.mul_(self.live[part])
            yield part, mean, x

    def scale(self, x: Tensor) -> Tensor:
        """Put rewards (…, M) on their scales, in place."""
        if self.low is None or self.width is None:
            return x
        return x.sub_(self.low).div_(self.width).clamp_(0, 1)


def chunks(values: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Yield groups, and a copy of their rewards in work layout, (G, C, M)."""
    groups, size, channels = values.shape
    layout, cells = values.transpose(0, 1), size * channels
    if groups * cells <= SMALL or values.device.type != "cpu":
        yield slice(0, groups), layout.to(dtype, copy=True, memory_format=torch.contiguous_format)
        return
    step = min(groups, max(1, CELLS // cells))
    work = torch.empty(step * cells, dtype=dtype)
    for start in range(0, groups, step):
        part = layout[:, start : start + step]
        yield slice(start, start + step), work[: part.numel()].view(part.shape).copy_(part)


def _extremes(values: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the lowest and the highest reward of each group and channel, (C, M) each; NaN where one is missing."""
    return [(x.amin(0), x.amax(0)) for _, x in chunks(values, _comparable(values))]


def _ends(extremes: list[tuple[Tensor, Tensor]]) -> list[list[float]]:
    """Return the lowest and the highest reward of each channel."""
    lows, highs = zip(*((low.amin(0), high.amax(0)) for low, high in extremes), strict=True)
    return [torch.stack(lows).amin(0).tolist(), torch.stack(highs).amax(0).tolist()]


def _number_of(value: float, values: Tensor) -> list[int]:
    """Return how many rewards of each channel are equal to a value."""
    found = torch.zeros((), dtype=torch.float64)
    for _, x in chunks(values, _comparable(values)):
        # A sum over the group is exact in any dtype.
        found = found + x.eq_(value).sum(0).double().sum(0)
    return [int(number) for number in found.tolist()]


def _comparable(values: Tensor) -> torch.dtype:
    """Return the narrowest dtype that represents all rewards and is fast."""
    return values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float32


@dataclass(slots=True)
class _Looked:
    """Statistics of the deviations of a batch.

    Attributes:
        groups: number of groups.
        size: G, the size of the groups.
        ranks: (M,) bool, whether a channel differs within any group.
        attained: (M,) float64, mean attained shares.
        products: (M, M) float64, mean of u u' over the completions that take part.
        means: (C, M) mean attained shares of the groups of each chunk.
        only: (G, P, M) the deviations, if they are a single chunk.
    """

    groups: int
    size: int
    ranks: Tensor
    attained: Tensor
    products: Tensor
    means: list[Tensor]
    only: Tensor | None


@dataclass(slots=True)
class _Step:
    """A step of a run.

    Attributes:
        fitting: the batch, with its weights.
        channels: names and ranges of the columns.
        reliability: (M,) reliabilities, or None.
    """

    fitting: Fitting
    channels: Channels
    reliability: Tensor | None

    def result(self, state: State) -> Advantages:
        """Compute the advantages.

        Raises:
            UnfitError: ``compute`` must compute it.
        """
        blocks = self.fitting.blocks()
        blocks.check(RULE)
        x = in_work_layout(blocks.values)
        return self._in_torch(blocks.values, state) if x is None else self._in_numpy(x, state)

    def _in_torch(self, values: Tensor, state: State) -> Advantages:
        """Compute the advantages of rewards (P, G, M)."""
        fitting = self.fitting
        extremes = _extremes(values)
        ends = _ends(extremes)
        frames, scales, remembered = self._scales(ends, state, lambda value: _number_of(value, values))
        deviations, takes_part = self._deviations(values, extremes, frames, ends)
        looked = self._looked(values, deviations, takes_part)
        decided = self._decided(looked, remembered)
        shares = self._shares()
        pull = shares * torch.as_tensor(decided.factors, dtype=torch.float64, device=shares.device)
        value = aggregated(deviations, values, pull) if looked.only is None else looked.only @ pull
        taking = None if bool(takes_part.all()) else takes_part.expand(values.shape[1], -1)
        found = Found(value, taking, 1.0, False, looked.means)
        whitened = fitting.rows(fitting.whitened(value, taking, fitting.config.eps), fitting.rewards.dtype)
        logged = _Logged(decided, self.channels, frames, looked.attained.tolist(), self._outside(frames, ends))
        return self._advantages(whitened, found, deviations, pull, logged, scales)

    def _in_numpy(self, x: Array, state: State) -> Advantages:
        """Compute the advantages of a small batch, (G, P, M)."""
        fitting, config = self.fitting, self.fitting.config
        size, groups, columns = x.shape
        low, high = numpy.minimum.reduce(x), numpy.maximum.reduce(x)
        ends = [numpy.minimum.reduce(low).tolist(), numpy.maximum.reduce(high).tolist()]
        frames, scales, remembered = self._scales(
            ends, state, lambda value: numpy.count_nonzero((x == value).reshape(-1, columns), axis=0).tolist()
        )
        of_scales = None
        if _is_scaled(frames, ends):
            of_scales = numpy.array(frames).T.copy()
            of_scales[1] -= of_scales[0]
        found = SmallDeviations.of(x, (low, high), of_scales, CLEAR, LEAST_DEVIATION, config)
        shares = self._shares().numpy()
        attained = numpy.add.reduce(found.means) / groups
        arrays = (found.live.any(0), attained, found.products(shares), found.means, found.d)
        ranks, mean, moments, means, d = map(torch.from_numpy, arrays)
        decided = self._decided(_Looked(groups, size, ranks, mean, moments, [means], d), remembered)
        pull = shares * decided.factors if isinstance(decided.factors, list) else shares * decided.factors.numpy()
        value = found.d @ pull
        takes_part = found.live.any(1)
        taking = None if takes_part.all() else takes_part
        rows = fitting.rows_small(whitened_small(value, taking, config.eps, config))
        first, width = (None, None) if of_scales is None else torch.from_numpy(of_scales)
        deviations = Deviations(first, width, torch.from_numpy(found.live), found.masks)
        logged = _Logged(decided, self.channels, frames, attained.tolist(), self._outside(frames, ends))
        aggregates = fitting.found_small(value, taking)
        return self._advantages(rows, aggregates, deviations, torch.from_numpy(pull), logged, scales)

    def _scales(
        self, ends: list[list[float]], state: State, number_of: Callable[[float], Sequence[int]]
    ) -> tuple[list[Range], State, State]:
        """Return the channels' scales, their state after the batch, and the other state before it.

        Args:
            ends: lowest and highest reward of each channel.
            state: state before the batch.
            number_of: see :func:`rvpo.core.scales.learned`.

        Raises:
            UnfitError: a reward is missing or too large.
        """
        if not all(-LARGEST < end < LARGEST for end in (*ends[0], *ends[1])):
            raise UnfitError
        method = self.fitting.config.method
        assert isinstance(method, LIFT)
        require_known("floors", method.floors, self.channels.names)
        remembered = dict(state)
        frames, scales = learned(self.fitting.rewards, ends, self.channels, remembered.pop(KEY, {}), number_of)
        return frames, scales, remembered

    def _advantages(
        self, rows: Tensor, found: Found, deviations: Deviations, pull: Tensor, logged: _Logged, scales: State
    ) -> Advantages:
        """Return the result.

        Args:
            rows: (N,) advantages.
            found: aggregates.
            deviations: how rewards become deviations.
            pull: (M,) factors of the deviations.
            logged: metrics.
            scales: state of the scales.
        """
        fitting = self.fitting
        # In units of rewards, as the rule has them.
        of_rewards = pull if deviations.width is None else pull / deviations.width
        of_rule = Fitting(
            fitting.rewards, fitting.config, RULE, of_rewards, fitting.groups, fitting.order, torch.float64
        )
        return Advantages.with_later(
            _KeptLift(of_rule, found, version_of(fitting.rewards), deviations, pull, logged),
            advantages=rows,
            rewards=fitting.rewards,
            groups=fitting.groups,
            state={**logged.decided.state, KEY: scales},
        )

    def _deviations(
        self, values: Tensor, extremes: list[tuple[Tensor, Tensor]], frames: list[Range], ends: list[list[float]]
    ) -> tuple[Deviations, Tensor]:
        """Return D, and a mask (P,) of the groups that take part.

        Raises:
            UnfitError: it is not clear whether a channel has deviations in a group.
        """
        config = self.fitting.config
        deviations = Deviations(None, None, torch.zeros(()), masks=False)
        if _is_scaled(frames, ends):
            first, last = torch.tensor(frames, dtype=torch.float64, device=values.device).unbind(-1)
            deviations.low, deviations.width = first, last - first
            if not bool((deviations.width > 0).all()):  # half attained, for any reward
                raise UnfitError
        found = []
        for of_chunk in extremes:
            low, high = (end.double() for end in of_chunk)
            ranges = high - low
            live = ranges > torch.maximum(high, -low).clamp_(min=config.eps).mul_(config.rtol)
            if deviations.low is not None:
                ranges = deviations.scale(high) - deviations.scale(low)
            differs = ranges > 0
            both = live.logical_and_(differs)
            if float(ranges.masked_fill_(~both, torch.inf).amin()) < CLEAR:
                raise UnfitError
            deviations.masks = deviations.masks or not torch.equal(both, differs)
            found.append(both)
        deviations.live = found[0] if len(found) == 1 else torch.cat(found)
        return deviations, deviations.live.any(1)

    def _shares(self) -> Tensor:
        """Return the weights as shares, (M,)."""
        weights = self.fitting.weights
        assert isinstance(weights, Tensor)
        return weights / self.fitting.total

    def _looked(self, values: Tensor, deviations: Deviations, takes_part: Tensor) -> _Looked:
        """Return the statistics of the deviations."""
        groups, size, columns = values.shape
        looked = _Looked(groups, size, deviations.live.any(0).cpu(), torch.zeros(()), torch.zeros(()), [], None)
        for part, mean, d in deviations.of(values):
            cells = d.view(-1, columns)
            looked.products = looked.products + products(cells)
            looked.attained = looked.attained + mean.sum(0)
            looked.means.append(mean)
            if part.stop == groups and part.start == 0:
                looked.only = d
        shares = self._shares()
        count = int(takes_part.sum()) * size
        looked.products = looked.products.mul_(torch.outer(shares, shares)).div_(max(count, 1)).cpu()
        looked.attained = looked.attained.div_(groups).cpu()
        return looked

    def _decided(self, looked: _Looked, state: State) -> Decided | DecidedFew:
        """Return the factors of the channels."""
        method = self.fitting.config.method
        names, weights = self.channels.names, self.fitting.weights
        assert isinstance(weights, Tensor)
        assert isinstance(method, LIFT)
        groups, size, columns = looked.groups, looked.size, len(names)
        takes_part = bool(looked.ranks.any())
        is_trusted = self.reliability is None or bool((self.reliability == 1).all())
        if columns <= MOST and takes_part and is_trusted:
            lists = (x.tolist() for x in (looked.attained, looked.products, looked.ranks, weights))
            few = decide_few(method, ShownFew(names, groups * size, groups, *lists), state)
            if few is not None:
                return few
        ones = torch.ones(columns, dtype=torch.float64)
        rho = ones if self.reliability is None else self.reliability.cpu().double()
        rows, free = ones * groups * size, ones * groups * (size - 1)
        of_batch = (looked.attained, looked.products, takes_part, looked.ranks)
        shown = Shown(names, rows, free, *of_batch, weights.cpu(), rho)
        return method.decide(shown, state)

    def _outside(self, frames: list[Range], ends: list[list[float]]) -> list[float]:
        """Return each channel's share of rewards outside of its scale."""
        rewards = self.fitting.rewards
        found = []
        for k, ((first, last), low, high) in enumerate(zip(frames, *ends, strict=True)):
            if first <= low and high <= last:
                found.append(0.0)
                continue
            column = rewards[:, k].double()
            found.append(float(((column < first) | (column > last)).double().mean()))
        return found


def _is_scaled(frames: list[Range], ends: list[list[float]]) -> bool:
    """Return whether a reward may differ from its attained share."""
    return any(frame != ASSUMED for frame in frames) or min(ends[0]) < ASSUMED[0] or max(ends[1]) > ASSUMED[1]


def aggregated(deviations: Deviations, values: Tensor, pull: Tensor) -> Tensor:
    """Return A = sum of ``pull`` (M,) times D, (G, P) float64, of rewards (P, G, M)."""
    is_plain = deviations.low is None and not deviations.masks and values.dtype == torch.float32
    if is_plain and values.device.type == "cpu":
        return _aggregated_plainly(values, pull)
    found = [d @ pull for _, _, d in deviations.of(values)]
    return found[0] if len(found) == 1 else torch.cat(found, 1)


def _aggregated_plainly(values: Tensor, pull: Tensor) -> Tensor:
    """Return the same where D is the reward minus its group's mean.

    The mean of sums is the sum of means. This changes digits that rewards of single precision do not have.
    """
    groups, size, channels = values.shape
    step = max(1, CELLS // (size * channels))
    work = torch.empty((step, size, channels), dtype=torch.float64)
    found = torch.empty((size, groups), dtype=torch.float64)
    for start in range(0, groups, step):
        part = values[start : start + step]
        sums = work[: len(part)].copy_(part).view(-1, channels).mv(pull).view(-1, size)
        found[:, start : start + step] = (sums - sums.mean(1, keepdim=True)).T
    return found


@dataclass(slots=True)
class _Logged:
    """Metrics of LIFT and the scales.

    Attributes:
        decided: factors of the batch.
        channels: channels of the batch.
        frames: K scales.
        attained: K mean attained shares.
        outside: K shares of rewards outside of their scale.
    """

    decided: Decided | DecidedFew
    channels: Channels
    frames: list[Range]
    attained: list[float]
    outside: list[float]

    def metrics(self) -> Mapping[str, float]:
        """Return the metrics by name."""
        scales = scale_metrics(self.channels, self.frames, self.attained, self.outside)
        return {**self.decided.metrics(), **scales}


@dataclass(slots=True)
class _KeptLift(Kept):
    """Computes the other attributes of a batch.

    Attributes:
        deviations: deviations of the batch.
        pull: (M,) factors of the deviations.
        logged: metrics.
    """

    deviations: Deviations
    pull: Tensor
    logged: _Logged

    def __call__(self, name: str) -> Any:
        """Return an attribute of :class:`Advantages`."""
        if name == "method_metrics":
            return self.logged.metrics()
        if name == "responsibilities":
            with torch.no_grad():
                return self._responsibilities()
        return Kept.__call__(self, name)

    def retraced(self) -> list[Tensor]:
        """Return the trace of the batch for its present rewards."""
        if self.found.keeps_rewards:
            return [self.batch.rewards]
        return [mean for _, mean, _ in self.deviations.of(self.batch.blocks().values)]

    def summary(self, advantages: Tensor) -> Summary | None:
        """Return the metrics of the batch; None if a reward is outside of its scale.

        Args:
            advantages: (N,) as they are now.
        """
        return None if any(self.logged.outside) else Kept.summary(self, advantages)

    def _responsibilities(self) -> Tensor:
        """Return responsibilities, (N, M): in units of z, a channel counts by its spread in the group."""
        rewards, values = self.batch.rewards, self.batch.blocks().values
        filled = torch.empty(values.shape, dtype=rewards.dtype, device=values.device)
        for part, _, d in self.deviations.of(values):
            spread = d.square_().sum(0).div_(len(d) - 1).sqrt_()
            filled[part] = normalised(spread.mul_(self.pull))[:, None]
        self.require_same("responsibilities", self.retraced())
        return self.batch.in_order(filled.flatten(0, 1))
