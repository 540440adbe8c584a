"""Is a trained reward being gamed? It rises while a monitor, which is not trained on, falls.

The curve of a judge with a loophole looks fine. A channel of weight 0, such as a second judge or a test that is run but
not rewarded, shows what the first judge misses. :class:`Watch` compares two adjacent stretches of the training, the
latest one and the one before it, for several lengths. A trained channel is **diverging** when over the same two
stretches its mean clearly rises and the mean of a monitor clearly falls: by ``SURE`` standard errors each, because
there are many looks.

Both can also happen by chance, so the fall needs further evidence. One of two facts is enough:

* The fall is larger than random drift of the policy explains.
* Both now clearly disagree within groups: the channel prefers the completions that the monitor rejects.
  Drift does not affect this comparison. The fall must then also have ``RELEVANT`` size. This evidence often comes
  earlier. (Less agreement than before is not enough, because noisy scores agree less as a policy improves.)

The error of a change has two parts. Groups differ: this is the usual error of a mean. And the policy drifts: even if
nothing pulls it, its mean moves from step to step, and over a long stretch this adds up. The size of these steps is
estimated from second differences of the means of blocks, which a straight trend does not affect. For a random walk
whose steps have variance s^2, the difference between the means of two adjacent stretches of w blocks has the variance
s^2 (2 w^2 + 1) / (3 w).

Not every channel that rises is the cause. The channel that is gamed no longer agrees with the monitor. Its correlation
with the monitor within groups has fallen most of all trained channels, or is most negative. Until this is clear by
``SURE`` standard errors, the rising channel that agrees least is named as a guess, and the sentence says so. Later
looks replace the guess with the cause.

A monitor is a channel whose weight is 0 in all rows. The parts of a reward that is trained as one number, such as the
single criteria of a rubric, are not monitors, because they share its judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvpo.arrays.groups import Array, Ints, Partition
from rvpo.diagnose.group_sums import pooled

SURE = 4.0
"""Standard errors of a rise and of a fall that are reported, as in the alarm for neglected rewards."""
USUAL = 1.96
"""The same for the rise of a channel that clearly disagrees with a monitor, while another channel clearly rises."""
SHORTEST = 8
"""Fewest blocks of a stretch: with fewer, drift of the policy cannot be distinguished from a trend."""
OPPOSED = 2.5
"""A correlation within groups that is this many standard errors below 0 shows the cause of a rise and a fall."""
RELEVANT = 0.2
"""Smallest fall of a monitor that matters, in standard deviations of its values within groups: a small effect."""
AVERAGED = 3
"""Blocks per mean when the drift of the policy is estimated."""
SHORTER = 0.7
"""Ratio of the lengths of a stretch and of the next longer one."""
FEWEST_GROUPS = 32
"""Fewest groups of a stretch on which a channel is scored."""
BLOCKS = 128
"""Most blocks of time that are kept; with more, pairs of blocks are merged."""
MOST = 64
"""Most channels that are compared: the first ones seen."""

_SUMS = ("groups", "mean", "square")  # sums over the means of groups


@dataclass(frozen=True, slots=True)
class Divergence:
    """A trained channel that rises while a monitor falls, when it was first seen.

    Attributes:
        channel: the trained channel.
        monitor: the monitor that falls.
        seen: generation (or step of a log) at which it was first seen.
        since: first generation (or step) of the later stretch.
        rise: mean of the trained channel before and after.
        fall: mean of the monitor before and after.
        sure: size of the monitor's fall in standard errors.
        agreed: correlation of both within groups, before and after; None if unknown.
        also: other trained channels that may be the cause, the likeliest first.
        explained: whether the trained channel clearly disagrees with the monitor; False: it is a guess.
    """

    channel: str
    monitor: str
    seen: int
    since: int
    rise: tuple[float, float]
    fall: tuple[float, float]
    sure: float
    agreed: tuple[float, float] | None = None
    also: tuple[str, ...] = ()
    explained: bool = True

    def sentence(self) -> str:
        """Return the sentence that describes the divergence, with its numbers."""
        text = (
            f"since step {self.since}, it rises from {self.rise[0]:.3g} to {self.rise[1]:.3g} while the monitor "
            f"{self.monitor!r} falls from {self.fall[0]:.3g} to {self.fall[1]:.3g} (by {self.sure:.1f} standard errors)"
        )
        if self.agreed is not None:
            text += f"; their correlation within groups went from {self.agreed[0]:+.2f} to {self.agreed[1]:+.2f}"
        if not self.explained:
            text += "; it is not yet clear that it is the cause, because both do not clearly disagree within groups"
        return text + (f"; other possible causes: {', '.join(self.also)}" if self.also else "")


@dataclass(frozen=True, slots=True)
class _Change:
    """Two adjacent stretches of ``width`` blocks; arrays over channels, (K,), NaN where unknown.

    Attributes:
        width: number of blocks in each stretch.
        before: mean in the earlier stretch.
        after: mean in the later stretch.
        by_sampling: their difference, in standard errors over groups.
        by_wandering: the same, in standard errors that also include the drift of the policy.
    """

    width: int
    before: Array
    after: Array
    by_sampling: Array
    by_wandering: Array


class Watch:
    """Looks at every generation, and keeps the first divergence of each trained channel.

    Attributes:
        called: name of a trained channel -> its first divergence.
        calling: trained channels that diverge now.
    """

    def __init__(self) -> None:
        """Begin a run."""
        self.called: dict[str, Divergence] = {}
        self.calling: set[str] = set()
        self._names: list[str] = []
        self._trained: set[str] = set()
        self._criteria: set[str] = set()  # channels that are criteria of a rubric, not columns
        self._span, self._in_last = 1, 0  # generations per block, and in the last block so far
        self._steps: list[int] = []  # first step of each block
        self._table = np.zeros((0, 0, len(_SUMS)))
        self._products = np.zeros((0, 0, 0))  # products of deviations within groups
        self._free = np.zeros((0, 0, 0))  # their degrees of freedom, where both channels are scored

    def add(
        self,
        step: int,
        rewards: ArrayLike,
        groups: Partition,
        channel: ArrayLike,
        names: tuple[str, ...],
        weights: ArrayLike | None,
        applies: ArrayLike | None = None,
    ) -> list[Divergence]:
        """Add a generation; return the divergences that are seen for the first time.

        Args:
            step: number of the generation.
            rewards: (N, M), NaN = missing.
            groups: the partition of the rows into groups.
            channel: (M,) or (N, M), index of the run's channel that each cell belongs to.
            names: names of the K channels of the run.
            weights: (M,) or (N, M); 0 = monitored. None: all channels are trained.
            applies: (N, M), False if the column is not a channel of the row; None: all apply.
        """
        values = np.asarray(rewards, dtype=np.float64)
        index = np.broadcast_to(np.asarray(channel), values.shape)
        here = np.ones(values.shape, dtype=bool) if applies is None else np.asarray(applies)
        counted = here if weights is None else here & (np.asarray(weights) > 0)
        self._trained |= {names[k] for k in np.unique(index[counted])}
        self._criteria |= _of_criteria(index, names)
        self._grow(names)
        self._begin(step)
        self._sum(np.where(here, values, np.nan), groups, index, names)
        found = self._look(step)
        self.calling = {one.channel for one in found}
        before = {one.monitor: one for one in self.called.values()}
        new = [one for one in found if one.monitor not in before or _is_better(one, before[one.monitor])]
        for one in new:
            guessed = before.get(one.monitor)
            if guessed is not None:
                self.called.pop(guessed.channel, None)
            self.called[one.channel] = one
        return [one for one in new if one.monitor not in before or one.channel != before[one.monitor].channel]

    def monitors(self) -> list[str]:
        """Return the channels that are only monitored, without the parts of a reward that is trained as a whole."""
        return [name for name in self._names if name not in self._trained and not self._is_part(name)]

    def _is_part(self, name: str) -> bool:
        """Return whether a channel belongs to the judge or the rubric of a trained reward.

        A slash in the name is not enough: ``team/judge`` and ``team/monitor`` may be two rewards.
        """
        if any(name.startswith(f"{owner}/") for owner in self._trained):
            return True
        rubrics = {one.partition("/")[0] for one in self._trained if "/" in one}
        return name in self._criteria and name.partition("/")[0] in rubrics

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays without Python objects, for ``numpy.savez``."""
        plain = {
            "called": [_plain(one) for one in self.called.values()],
            "calling": sorted(self.calling),
            "names": self._names,
            "trained": sorted(self._trained),
            "criteria": sorted(self._criteria),
            "span": [self._span, self._in_last],
            "steps": self._steps,
        }
        return {
            "watch": np.array(json.dumps(plain)),
            "watch_table": self._table,
            "watch_products": self._products,
            "watch_free": self._free,
        }

    def load_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from the arrays that :meth:`state` returned. Old checkpoints without a watch change nothing."""
        if "watch" not in arrays:
            return
        plain = json.loads(str(arrays["watch"]))
        self.called = {one["channel"]: _divergence(one) for one in plain["called"]}
        self.calling = set(plain["calling"])
        self._names, self._trained = plain["names"], set(plain["trained"])
        self._criteria = set(plain.get("criteria", ()))
        (self._span, self._in_last), self._steps = plain["span"], plain["steps"]
        self._table, self._products = arrays["watch_table"], arrays["watch_products"]
        self._free = arrays["watch_free"]

    # --- sums -----------------------------------------------------------------------------------------------------

    def _grow(self, names: tuple[str, ...]) -> None:
        """Make room for channels that were not seen before."""
        known = set(self._names)
        self._names += [name for name in names if name not in known][: MOST - len(self._names)]
        more = len(self._names) - self._table.shape[1]
        if more:
            self._table = np.pad(self._table, ((0, 0), (0, more), (0, 0)))
            self._products = np.pad(self._products, ((0, 0), (0, more), (0, more)))
            self._free = np.pad(self._free, ((0, 0), (0, more), (0, more)))

    def _begin(self, step: int) -> None:
        """Begin a block if the last one is full; merge pairs of blocks if there are too many."""
        if self._steps and self._in_last < self._span:
            self._in_last += 1
            return
        if len(self._steps) == BLOCKS:
            self._table = self._table[::2] + self._table[1::2]
            self._products = self._products[::2] + self._products[1::2]
            self._free = self._free[::2] + self._free[1::2]
            self._steps = self._steps[::2]
            self._span *= 2
        self._steps.append(step)
        self._in_last = 1
        self._table = np.pad(self._table, ((0, 1), (0, 0), (0, 0)))
        self._products = np.pad(self._products, ((0, 1), (0, 0), (0, 0)))
        self._free = np.pad(self._free, ((0, 1), (0, 0), (0, 0)))

    def _sum(self, rewards: Array, groups: Partition, index: Ints, names: tuple[str, ...]) -> None:
        """Add the groups of a generation to the last block."""
        count = len(names)
        scored = (~np.isnan(rewards)).astype(np.float64)
        # A channel with several columns, such as criteria with one label, counts with the mean of its cells.
        total, number = (pooled(x, index, count) for x in (np.nan_to_num(rewards, nan=0.0), scored))
        known = (number > 0).astype(np.float64)
        value = total / np.maximum(number, 1)
        cells = groups.sum(known)
        mean = groups.sum(value * known) / np.maximum(cells, 1)
        there = (cells > 0).astype(np.float64)
        deviation = (value - groups.broadcast(mean)) * known
        places = [k for k, name in enumerate(names) if name in set(self._names)]
        own = [self._names.index(names[k]) for k in places]
        sums = np.stack([there.sum(0), (mean * there).sum(0), (mean * mean * there).sum(0)], -1)
        self._table[-1, own] += sums[places]
        self._products[-1][np.ix_(own, own)] += (deviation.T @ deviation)[np.ix_(places, places)]
        moves = np.maximum(known - groups.broadcast(np.minimum(cells, 1) / np.maximum(cells, 1)) * known, 0)
        free = np.minimum(moves.T @ known, known.T @ moves)
        self._free[-1][np.ix_(own, own)] += free[np.ix_(places, places)]

    # --- looks ----------------------------------------------------------------------------------------------------

    def _look(self, step: int) -> list[Divergence]:
        """Return the divergences now: one per falling monitor, from the stretches that show it most clearly."""
        monitors = [self._names.index(name) for name in self.monitors()]
        trained = [j for j, name in enumerate(self._names) if name in self._trained]
        found: dict[str, Divergence] = {}
        width = len(self._steps) // 2 if monitors and trained else 0
        while width >= SHORTEST:
            change = self._change(width)
            for m in monitors:
                one = self._told(step, change, m, trained)
                known = None if one is None else found.get(one.monitor)
                if one is not None and (known is None or (one.explained, one.sure) > (known.explained, known.sure)):
                    found[one.monitor] = one
            width = int(width * SHORTER)
        return list(found.values())

    def _change(self, width: int) -> _Change:
        """Compare the latest stretch with the one before it."""
        n, s, q = np.moveaxis(self._table, -1, 0)
        late, early = slice(-width, None), slice(-2 * width, -width)
        means, errors = [], []
        with np.errstate(invalid="ignore", divide="ignore"):
            for stretch in (early, late):
                groups = n[stretch].sum(0)
                mean = s[stretch].sum(0) / groups
                variance = np.maximum(q[stretch].sum(0) / groups - mean**2, 0) / groups
                means.append(np.where(groups >= FEWEST_GROUPS, mean, np.nan))
                errors.append(variance)
            before, after = means
            sampled = errors[0] + errors[1]
            walked = self._walk() * (2 * width**2 + 1) / (3 * width)
            return _Change(
                width,
                before,
                after,
                by_sampling=(after - before) / np.sqrt(sampled),
                by_wandering=(after - before) / np.sqrt(sampled + walked),
            )

    def _walk(self) -> Array:
        """Return the variance of the steps between blocks that groups do not explain, (K,).

        It is estimated from second differences of means of ``L`` blocks. A random walk whose steps have variance s^2
        adds (L^2 + 1) / L s^2 to them. A larger ``L`` has smaller errors from groups, but bends of the trend affect it
        more.
        """
        sums = np.lib.stride_tricks.sliding_window_view(self._table, AVERAGED, 0).sum(-1)
        n, s, q = np.moveaxis(sums, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = s / n
            error = np.maximum(q / n - mean**2, 0) / np.maximum(n - 1, 1)
        first, middle, last = slice(None, -2 * AVERAGED), slice(AVERAGED, -AVERAGED), slice(2 * AVERAGED, None)
        second = mean[last] - 2 * mean[middle] + mean[first]
        explained = error[last] + 4 * error[middle] + error[first]
        known = ~np.isnan(second)
        excess = np.where(known, second**2 - explained, 0).sum(0) / np.maximum(known.sum(0), 1)
        found = np.maximum(excess, 0) * AVERAGED / (AVERAGED**2 + 1)
        return np.where(known.any(0), found, np.inf)

    def _told(self, step: int, change: _Change, m: int, trained: list[int]) -> Divergence | None:
        """Return the divergence of a monitor; None if it does not fall, nothing rises, or both may be drift."""
        if not change.by_sampling[m] < -SURE:
            return None
        once, of_once = self._agreement(slice(0, -change.width), m)
        now, of_now = self._agreement(slice(-change.width, None), m)
        with np.errstate(invalid="ignore", divide="ignore"):
            lost = np.fmin((now - once) / np.sqrt(of_once + of_now), now / np.sqrt(of_now))
        lost = np.nan_to_num(lost, nan=0.0, neginf=0.0, posinf=0.0)
        least = min(trained, key=lambda j: float(lost[j]))
        clear = bool(lost[least] < -SURE)
        opposed = bool(now[least] < -OPPOSED * np.sqrt(of_now[least]))
        wandering_aside = bool(change.by_wandering[m] < -SURE)
        if wandering_aside:
            z = change.by_wandering
        elif opposed and change.before[m] - change.after[m] > RELEVANT * self._spread(m):
            z = change.by_sampling
        else:
            return None
        rising = [j for j in trained if z[j] > SURE]
        # Some channel surely rises, so for the channel that clearly disagrees an ordinary interval is enough.
        candidates = {*rising, least} if clear and z[least] > USUAL else set(rising)
        if not rising or not (wandering_aside or least in candidates):
            return None
        likely = sorted(candidates, key=lambda j: (float(lost[j]), -float(z[j])))
        j = likely[0]
        return Divergence(
            channel=self._names[j],
            monitor=self._names[m],
            seen=step,
            since=self._steps[-change.width],
            rise=(float(change.before[j]), float(change.after[j])),
            fall=(float(change.before[m]), float(change.after[m])),
            sure=float(-z[m]),
            agreed=(float(once[j]), float(now[j])) if np.isfinite(once[j] + now[j]) else None,
            also=tuple([self._names[i] for i in likely[1:]]),
            explained=clear and j == least,
        )

    def _spread(self, m: int) -> float:
        """Return the standard deviation of a channel within groups, over the whole run; inf if unknown."""
        free = float(self._free[:, m, m].sum())
        return float(np.sqrt(self._products[:, m, m].sum() / free)) if free > 0 else np.inf

    def _agreement(self, blocks: slice, m: int) -> tuple[Array, Array]:
        """Return each channel's correlation with a monitor within groups, and its variance; (K,) each.

        NaN if either never varies. The variance uses the degrees of freedom as the number of pairs.
        """
        products, free = self._products[blocks].sum(0), self._free[blocks].sum(0)
        scale = np.sqrt(np.diag(products))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Array = products[m] / scale / scale[m]
            variance = (1 - found**2) ** 2 / np.maximum(free[m] - 1, 1)
        return np.where(free[m] > 0, found, np.nan), variance


def _of_criteria(index: Ints, names: tuple[str, ...]) -> set[str]:
    """Return the channels with cells in several columns, or in a shared column; ``index`` is (N, M)."""
    if not len(index):
        return set()
    first = index[0]
    alone = (index == first).all(0)
    columns = [int(k) for k in first[alone].tolist()]
    mixed = {int(k) for k in index[:, ~alone].flatten().tolist()}
    return {names[k] for k in {*columns, *mixed} if k in mixed or columns.count(k) > 1}


def _is_better(one: Divergence, known: Divergence) -> bool:
    """Return whether the cause is known now and was only a guess before."""
    return one.explained and not known.explained


def _plain(one: Divergence) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Divergence.__slots__}


def _divergence(plain: Mapping[str, Any]) -> Divergence:
    pairs = {name: plain[name] and tuple(plain[name]) for name in ("rise", "fall", "agreed")}
    pairs["also"] = tuple(plain["also"])
    return Divergence(**{**plain, **pairs})
