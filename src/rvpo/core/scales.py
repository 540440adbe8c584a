"""The scale of each channel: declared by the user, or learned from the rewards that were seen.

A method that compares how far channels are met needs each reward on a scale from 0 to 1. A declared range is that
scale. For a reward without a declared range, the scale ``[low, high]`` is learned by these rules:

1. While all rewards of the channel lie in [0, 1], the scale is [0, 1].
2. One stray reward never moves the scale. Of 8 or more rewards, the lowest one and the highest one are set aside.
3. **Discrete** (at most 16 different values so far). The scale reaches from the lowest to the highest value. A value is
   left out if it is further away from the other values than 10 times their spread and is seen in under 5% of rewards.
4. **Continuous** (more values). The scale reaches from the 5% to the 95% quantile of the newest 512 rewards. An end of
   [0, 1] is kept where at most 10% of the rewards lie beyond it, unless most of the rewards lie outside of [0, 1].
5. The first 512 rewards of a channel may move its scale freely. After that, the scale only widens: a discrete one as
   new values recur, an end of a continuous one (to the quantile) as soon as over 10% of the rewards lie beyond it. So
   the scale follows rewards that keep rising, and a channel that is mastered stays at the top of its scale.
6. If all rewards of a channel are the same and lie outside of [0, 1], each counts as half attained.

A reward outside the scale, declared or learned, counts as the nearer end of the scale.

The state of a channel is stored by its name, as plain numbers. It depends on the rewards of a batch, not on their
order. Every process sees the rewards of all processes, so all processes have the same scales.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from rvpo.core.channels import Channels, Range, State
from rvpo.core.lazy import Tensor, torch
from rvpo.core.shards import WHOLE, Whole, channel_means

ASSUMED: Range = (0.0, 1.0)
"""Scale of a reward without a declared range, as long as its rewards fit."""

KEY = "scales"
"""Name of the scales in the state of a run."""

ENOUGH = 512  # rewards after which a learned scale only widens, and after which a range is judged
DISCRETE = 16  # largest number of different values of a discrete reward
FEW = 8  # with at least so many rewards, the lowest and the highest one are ignored
TAIL = 20  # one reward in 20 lies beyond each end of a continuous scale when it is set
OFTEN = 10  # if more than one reward in 10 lies beyond an end, the end moves
FAR = 10.0  # distance of an outlier in spreads of the common values
TABULATED = 4  # largest number of values that are counted in all channels at once, such as the two of binary rewards
NAMES = 1000  # number of channels that are remembered, those seen last


@dataclass(frozen=True)
class Scales:
    """The scales of the K channels of a batch.

    Attributes:
        frames: (K, 2) lowest and highest reward of each channel's scale, float64 on the CPU.
        shares: (N, M) attained share of each reward in [0, 1], NaN where it was not read.
        outside: (N, M) 1 where a reward lies outside its scale, else 0, NaN where it was not read.
        state: state for the next batch, by name of the channel, as plain data.
        shards: where the rows of the batch are.
    """

    frames: Tensor
    shares: Tensor
    outside: Tensor
    state: State
    shards: Whole = WHOLE

    @classmethod
    def of(cls, rewards: Tensor, weights: Tensor, channels: Channels, before: State, shards: Whole = WHOLE) -> Scales:
        """Update the scales with a batch, then put its rewards on them.

        Args:
            rewards: (N, M), NaN = missing.
            weights: (N, M), >= 0. A reward of weight 0 is not read.
            channels: channels of the cells, with their declared ranges.
            before: ``state`` after the last batch; empty at the start of a run.
            shards: where the rows of the batch are.
        """
        unread = weights == 0
        read = rewards.masked_fill(unread, torch.nan) if bool(unread.any()) else rewards
        batch = _Batch.of(read.detach(), channels)
        if not shards.is_whole:
            batch = _OfRanks(batch, channels, before, shards)
        frames, state = _after(batch, channels, before)
        if batch.lies_in(ASSUMED) and all(frame == ASSUMED for frame in frames):
            return cls(torch.tensor(frames, dtype=torch.float64), read, read.detach() * 0, state, shards)
        ends = torch.tensor(frames, dtype=torch.float64)
        low, high = ends.to(read)[channels.index].unbind(-1)  # (M,) or (N, M)
        shares = ((read - low) / (high - low)).clamp(0, 1)
        if any(first == last for first, last in frames):
            # All rewards that define such a scale are the same: they are neither at its bottom nor at its top.
            shares = shares.masked_fill((high <= low) & ~read.isnan(), 0.5)
        outside = ((read < low) | (read > high)).to(read.dtype).masked_fill(read.isnan(), torch.nan)
        return cls(ends, shares, outside, state, shards)

    def metrics(self, channels: Channels) -> dict[str, float]:
        """Return the metrics of each channel with a reward in this batch. Only learned scales log their ends."""
        means = channel_means(channels, self.shards, self.shares.detach(), self.outside.detach())
        attained, outside = (mean.tolist() for mean in means)
        frames: list[Range] = [(low, high) for low, high in self.frames.tolist()]
        return scale_metrics(channels, frames, attained, outside)


def scale_metrics(
    channels: Channels, frames: Sequence[Range], attained: Sequence[float], outside: Sequence[float]
) -> dict[str, float]:
    """Return the metrics of K channels.

    Args:
        channels: channels with names and declared ranges.
        frames: K scales.
        attained: K mean attained shares, NaN without a reward in the batch.
        outside: K shares of rewards outside of the scale.
    """
    found: dict[str, float] = {}
    for k, (name, declared, (low, high)) in enumerate(zip(channels.names, channels.ranges, frames, strict=True)):
        if math.isnan(attained[k]):
            continue
        found |= {f"{name}/attained": attained[k], f"{name}/outside": outside[k]}
        if declared is None:
            found |= {f"{name}/scale_low": low, f"{name}/scale_high": high}
    return found


def learned(
    rewards: Tensor,
    ends: Sequence[Sequence[float]],
    channels: Channels,
    before: State,
    number_of: Callable[[float], Sequence[int]],
) -> tuple[list[Range], State]:
    """Return the K scales and the state after a batch without missing rewards in which column k is channel k.

    Args:
        rewards: (N, K), of any floating dtype.
        ends: the K lowest and the K highest rewards.
        channels: channels with names and declared ranges.
        before: state before the batch, see :meth:`Scales.of`.
        number_of: function that counts how many rewards of each channel have a given value.
    """
    low, high = ends
    batch = _Batch([len(rewards)] * len(low), list(low), list(high), _Columns(rewards))
    known = set[float]()
    for name, declared, *seen in zip(channels.names, channels.ranges, batch.low, batch.high, strict=True):
        entry = before.get(name, {"values": []})
        if declared is None and "values" in entry:
            known |= {*seen, *(value for value, _ in entry["values"])}
    if len(known) <= TABULATED and all(is_exact(value, rewards.dtype) for value in known):
        batch.known = {value: number_of(value) for value in known}
    return _after(batch, channels, before)


def is_exact(value: float, dtype: torch.dtype) -> bool:
    """Return whether a dtype represents a value exactly, so that comparisons with it are not rounded."""
    return torch.tensor(value, dtype=dtype).item() == value


def is_learned(entry: Mapping[str, Any]) -> bool:
    """Return whether a remembered channel has no declared range and has had rewards outside of [0, 1]."""
    return "range" not in entry and not ASSUMED[0] <= entry["low"] <= entry["high"] <= ASSUMED[1]


def in_short(frame: tuple[float, float]) -> str:
    """Return a scale as text with four digits.

    >>> in_short((112.437, 1480.69))
    '[112.4, 1481]'
    """
    return "[{:.12g}, {:.12g}]".format(*(float(f"{end:.4g}") for end in frame))


def learned_scales(state: State) -> dict[str, Range]:
    """Return the scale of each channel for which :func:`is_learned`, from the state of a run."""
    found = {name: entry for name, entry in state.get(KEY, {}).items() if is_learned(entry)}
    return {name: tuple(entry.get("frame", ASSUMED)) for name, entry in found.items()}


class _Batch:
    """The rewards of a batch by channel, without the missing ones.

    Attributes:
        counts: K numbers of rewards.
        low: K lowest rewards, inf without rewards.
        high: K highest rewards, -inf without rewards.
        known: value -> K numbers of rewards with this value, for some values.
    """

    def __init__(self, counts: list[int], low: list[float], high: list[float], parts: Sequence[Tensor]) -> None:
        self.counts = counts
        # Adding 0 turns -0 into 0.
        self.low = [value + 0.0 for value in low]
        self.high = [value + 0.0 for value in high]
        self._parts = parts
        self.known: Mapping[float, Sequence[int]] = {}

    @classmethod
    def of(cls, rewards: Tensor, channels: Channels) -> _Batch:
        """Sort the rewards (N, M) by channel; NaN = missing."""
        x = rewards.cpu().double()  # a float32 reward is exact in double precision
        if channels.are_columns and len(x):
            counts, low, high, parts = _by_column(x)
        else:
            counts, low, high, parts = _by_cell(x, channels.index.expand(x.shape).cpu(), len(channels.names))
        return cls(counts, low.tolist(), high.tolist(), parts)

    def lies_in(self, frame: Range) -> bool:
        """Return whether no reward of any channel lies outside of ``frame``."""
        return min(self.low) >= frame[0] and max(self.high) <= frame[1]

    def outside(self, k: int, frame: Range) -> int:
        """Return how many rewards of a channel lie outside of ``frame``."""
        low, high = frame
        if low <= self.low[k] and self.high[k] <= high:
            return 0
        return int(((self._parts[k] < low) | (self._parts[k] > high)).sum())

    def few(self, k: int, guess: Sequence[float]) -> dict[float, int] | None:
        """Return the different rewards of a channel with the number of each; None if they are over ``DISCRETE``.

        Args:
            k: the channel.
            guess: values that it may have. If it has no others, nothing is sorted.
        """
        values = sorted({*guess, self.low[k], self.high[k]})
        if all(value in self.known for value in values):
            counts = [self.known[value][k] for value in values]
            if sum(counts) == self.counts[k]:
                return {value: count for value, count in zip(values, counts, strict=True) if count}
        part = self._parts[k]
        counts = (part == part.new_tensor(values)[:, None]).sum(1).tolist()
        if sum(counts) < self.counts[k]:
            if len(set(part[: 4 * DISCRETE].tolist())) > DISCRETE:
                return None
            different, numbers = torch.unique(part + 0.0, return_counts=True)
            if len(different) > DISCRETE:
                return None
            values, counts = different.tolist(), numbers.tolist()
        return {value: count for value, count in zip(values, counts, strict=True) if count}

    def newest(self, k: int, before: Sequence[Sequence[float]]) -> list[float]:
        """Return rewards of a channel in ascending order; if they are more than ``ENOUGH``, an even sample of them.

        Args:
            k: the channel.
            before: pairs (value, number) that were seen before this batch. They are included.
        """
        values = (self.all_of(k) + 0.0).sort().values
        until = torch.arange(1, len(values) + 1)
        if before:
            old, numbers = values.new_tensor(before).T
            values, order = torch.cat([old, values]).sort()
            until = torch.cat([numbers.long(), torch.ones_like(until)])[order].cumsum(0)
        total = int(until[-1])
        count = min(total, ENOUGH)
        places = (2 * torch.arange(count) + 1) * total // (2 * count)
        thinned: list[float] = values[torch.searchsorted(until, places, right=True)].tolist()
        return thinned

    def all_of(self, k: int) -> Tensor:
        """Return the rewards of a channel, (n,)."""
        return self._parts[k]


class _OfRanks(_Batch):
    """The rewards of a batch whose rows lie in several ranks.

    Numbers of rewards and their ends are sums and largest values. So are the numbers of the values of a discrete
    reward, as long as all of them are known or an end. Only a new value, and a continuous reward of which the scale is
    learned, make ranks exchange rewards: at most ``DISCRETE`` values, or all rewards of that channel.
    """

    def __init__(self, local: _Batch, channels: Channels, before: State, shards: Whole) -> None:
        beyond = [0 if r is None else local.outside(k, r) for k, r in enumerate(channels.ranges)]
        counts = [torch.tensor(numbers, dtype=torch.float64) for numbers in (local.counts, beyond)]
        ends = [torch.tensor(local.high, dtype=torch.float64), -torch.tensor(local.low, dtype=torch.float64)]
        (number, out), (high, low) = shards.combined(counts, ends)
        super().__init__([int(n) for n in number.tolist()], (-low).tolist(), high.tolist(), local._parts)
        self._shards = shards
        self._beyond = [int(n) for n in out.tolist()]
        self._few = self._different(channels, before)

    def outside(self, k: int, frame: Range) -> int:
        """Return how many rewards of a channel lie outside of its declared range."""
        return self._beyond[k]

    def few(self, k: int, guess: Sequence[float]) -> dict[float, int] | None:
        """See :meth:`_Batch.few`."""
        return self._few[k]

    def all_of(self, k: int) -> Tensor:
        """Return the rewards of a channel in all ranks."""
        return self._shards.joined(self._parts[k][:, None])[0][:, 0]

    def _different(self, channels: Channels, before: State) -> dict[int, dict[float, int] | None]:
        """Return the different values of each channel whose values are counted; None if they are too many."""
        guesses = {}
        for k, (name, declared) in enumerate(zip(channels.names, channels.ranges, strict=True)):
            entry = before.get(name, {"values": []})
            if "range" in entry:
                entry = {"values": []}
            if declared is None and self.counts[k] and "values" in entry:
                guesses[k] = sorted({*(value for value, _ in entry["values"]), self.low[k], self.high[k]})
        if not guesses:
            return {}
        numbers = [
            (self._parts[k] == torch.tensor(values, dtype=torch.float64)[:, None]).sum(1).double()
            for k, values in guesses.items()
        ]
        found: dict[int, dict[float, int] | None] = {}
        for (k, values), number in zip(guesses.items(), self._shards.sum(*numbers), strict=True):
            found[k] = {value: int(n) for value, n in zip(values, number.tolist(), strict=True) if n}
        new = [k for k in guesses if sum((found[k] or {}).values()) < self.counts[k]]
        if new:
            own = [_Batch.few(self, k, []) if len(self._parts[k]) else {} for k in new]
            told = self._shards.values_of_all([None if values is None else list(values.items()) for values in own])
            for i, k in enumerate(new):
                found[k] = _united([values[i] for values in told])
        return found


def _united(parts: Sequence[Sequence[tuple[float, int]] | None]) -> dict[float, int] | None:
    """Return the values that several ranks have seen, with their numbers; None if they are too many."""
    counts: dict[float, int] = {}
    for part in parts:
        if part is None:
            return None
        for value, number in part:
            counts[value] = counts.get(value, 0) + number
    return dict(sorted(counts.items())) if len(counts) <= DISCRETE else None


class _Columns(Sequence[Tensor]):
    """The columns of a matrix, converted to double precision on access."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    def __len__(self) -> int:
        return self._matrix.shape[1]

    def __getitem__(self, k: Any) -> Any:
        return self._matrix[:, k].cpu().double()


_Sorted = tuple[list[int], Tensor, Tensor, Sequence[Tensor]]
"""Number of rewards, lowest, highest and all rewards of each channel."""


def _by_column(x: Tensor) -> _Sorted:
    low, high = x.amin(0), x.amax(0)
    parts = x.unbind(1)
    if not bool(low.isnan().any()):  # nothing is missing
        return [len(x)] * x.shape[1], low, high, parts
    missing = x.isnan()
    there = [part[~gone] for part, gone in zip(parts, missing.unbind(1), strict=True)]
    low, high = x.masked_fill(missing, torch.inf).amin(0), x.masked_fill(missing, -torch.inf).amax(0)
    return [len(part) for part in there], low, high, there


def _by_cell(x: Tensor, index: Tensor, channels: int) -> _Sorted:
    there = ~x.isnan()
    index, order = index[there].sort()
    x = x[there][order]
    counts: list[int] = torch.bincount(index, minlength=channels).tolist()
    low, high = x.new_full((channels,), torch.inf), x.new_full((channels,), -torch.inf)
    low, high = low.scatter_reduce(0, index, x, "amin"), high.scatter_reduce(0, index, x, "amax")
    return counts, low, high, torch.split(x, counts)


def _after(batch: _Batch, channels: Channels, before: State) -> tuple[list[Range], State]:
    """Return the K scales and the state after a batch."""
    frames, state = [ASSUMED] * len(channels.names), dict(before)
    # By name, so that the state does not depend on the order in which a batch happens to have its channels.
    for k in sorted(range(len(channels.names)), key=channels.names.__getitem__):
        name, declared = channels.names[k], channels.ranges[k]
        entry = state.get(name)
        if entry is not None and entry.get("range") != (None if declared is None else list(declared)):
            entry = None  # the user has changed the declared range
        if batch.counts[k]:
            entry = _learned(entry, batch, k) if declared is None else _declared(entry, declared, batch, k)
            state.pop(name, None)
            if entry is not None:
                state[name] = entry  # at the end: seen last
        frames[k] = declared or tuple((entry or {}).get("frame", ASSUMED))
    for name in list(state)[: max(0, len(state) - NAMES)]:
        del state[name]
    return frames, state


def _declared(entry: Mapping[str, Any] | None, declared: Range, batch: _Batch, k: int) -> dict[str, Any] | None:
    """Count the rewards of a channel with a declared range, and those outside.

    Nothing is kept of a range [0, 1] that no reward has left: rubrics may have thousands of names.
    """
    outside = batch.outside(k, declared)
    if entry is None:
        if declared == ASSUMED and not outside:
            return None
        entry = {"seen": 0, "outside": 0, "low": math.inf, "high": -math.inf}
    return {
        "range": list(declared),
        "seen": entry["seen"] + batch.counts[k],
        "outside": entry["outside"] + outside,
        "low": min(entry["low"], batch.low[k]),
        "high": max(entry["high"], batch.high[k]),
    }


def _learned(entry: Mapping[str, Any] | None, batch: _Batch, k: int) -> dict[str, Any]:
    """Add the rewards of a channel without a declared range.

    ``values`` has each value with its number while they are few (discrete). ``recent`` has the newest batches once they
    are many (continuous) and not all in [0, 1]. ``frame`` is the scale once it is not [0, 1].
    """
    if entry is None:
        entry = {"seen": 0, "low": math.inf, "high": -math.inf, "values": []}
    new = {
        "seen": entry["seen"] + batch.counts[k],
        "low": min(entry["low"], batch.low[k]),
        "high": max(entry["high"], batch.high[k]),
    }
    frame: Range | None = tuple(entry["frame"]) if "frame" in entry else None
    settled = entry["seen"] >= ENOUGH
    before = entry.get("values", [])
    if "values" in entry:
        counts = dict(before)
        few = batch.few(k, list(counts))
        if few is not None and len({*counts, *few}) <= DISCRETE:
            values = sorted({*counts, *few})
            sample = _Sample(values, [counts.get(value, 0) + few.get(value, 0) for value in values])
            if is_learned(new):
                frame = _widest(frame if settled else None, _of_discrete(sample))
            return new | {"values": sample.pairs()} | ({} if frame is None else {"frame": list(frame)})
    if is_learned(new):
        recent = [*entry.get("recent", []), batch.newest(k, before)]
        while sum(map(len, recent)) - len(recent[0]) >= ENOUGH:
            recent.pop(0)
        newest = sorted(chain.from_iterable(recent))
        sample = _Sample(newest, [1] * len(newest))
        if settled and frame is not None and frame[0] < frame[1]:
            frame = sample.widened(frame)
        else:
            frame = _of_continuous(sample, min(new["seen"], ENOUGH), settled and frame is None)
        new["recent"] = recent
    return new | ({} if frame is None else {"frame": list(frame)})


class _Sample:
    """A sample of rewards: values in ascending order, and the number of each."""

    def __init__(self, values: Sequence[float], counts: Sequence[int]) -> None:
        self.values, self.counts = values, counts
        self._until = [0, *accumulate(counts)]
        self.total = self._until[-1]

    def at(self, place: int) -> float:
        """Return the reward at a place in ascending order, from 0 to ``total`` - 1."""
        return self.values[bisect_right(self._until, place) - 1]

    def ends(self, aside: int) -> Range:
        """Return the lowest and the highest reward if ``aside`` of them are left out at each end."""
        aside = min(aside, (self.total - 1) // 2)
        return self.at(aside), self.at(self.total - 1 - aside)

    def below(self, x: float) -> int:
        """Return the number of rewards below ``x``."""
        return self._until[bisect_left(self.values, x)]

    def above(self, x: float) -> int:
        """Return the number of rewards above ``x``."""
        return self.total - self._until[bisect_right(self.values, x)]

    def pairs(self) -> list[list[float]]:
        """Return each value and its number."""
        return [list(pair) for pair in zip(self.values, self.counts, strict=True)]

    def widened(self, frame: Range) -> Range:
        """Move an end of ``frame`` to the quantile of these rewards if too many of them lie beyond it."""
        low, high = self.ends(self.total // TAIL)
        many = self.total / OFTEN
        return low if self.below(frame[0]) > many else frame[0], high if self.above(frame[1]) > many else frame[1]


def _of_discrete(sample: _Sample) -> Range | None:
    """Return the scale of a discrete reward from all rewards so far; None if it is [0, 1]."""
    aside = 1 if sample.total >= FEW else 0
    low, high = sample.ends(aside)
    # The common values: all but the rarest 5% at each end, and what recurs in [0, 1].
    common = [*sample.ends(max(aside, sample.total // TAIL))]
    common += [v for v, n in zip(sample.values, sample.counts, strict=True) if _in_assumed(v, v) and n > aside]
    first, last = min(common), max(common)
    if first < last:
        spread = max(last - first, 1.0) if _in_assumed(first, last) else last - first
        near = [v for v in sample.values if max(low, first - FAR * spread) <= v <= min(high, last + FAR * spread)]
        low, high = near[0], near[-1]
    return None if _in_assumed(low, high) else (low, high)


def _of_continuous(sample: _Sample, seen: int, keeps: bool) -> Range | None:
    """Return the scale of a continuous reward from the newest rewards; None if it is [0, 1].

    Args:
        sample: the newest rewards, starting with the first batch that had one outside of [0, 1].
        seen: number of all rewards, at most ``ENOUGH``. Those before the sample were in [0, 1].
        keeps: whether [0, 1] was the scale for so long that now only its ends can move.
    """
    total = max(seen, sample.total)
    aside = max(1 if total >= FEW else 0, total // TAIL)
    low, high = sample.ends(aside)
    if low == high and total == sample.total:  # one common value, and rare others, which then define the scale
        low, high = sample.ends(1 if total >= FEW else 0)
        return None if _in_assumed(low, high) else (low, high)
    below, above = sample.below(ASSUMED[0]), sample.above(ASSUMED[1])
    if keeps or 2 * (below + above) <= total:
        low = low if below > total / OFTEN else ASSUMED[0]
        high = high if above > total / OFTEN else ASSUMED[1]
    return None if (low, high) == ASSUMED else (low, high)


def _in_assumed(low: float, high: float) -> bool:
    return ASSUMED[0] <= low and high <= ASSUMED[1]


def _widest(one: Range | None, other: Range | None) -> Range | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])
