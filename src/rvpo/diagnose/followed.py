"""Apply a method to the batches of a finished run, one after the other, and count the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpo.arrays.groups import Array, Bools, Ints, Partition
from rvpo.core import AdvantageConfig, Advantages
from rvpo.core.channels import State
from rvpo.core.methods.recorded import Recorded
from rvpo.core.scales import learned_scales
from rvpo.diagnose.aggregating import aggregated
from rvpo.diagnose.estimates import pulls
from rvpo.diagnose.group_sums import SAME, by_channel, centred, pooled
from rvpo.diagnose.joining import CELLS, Joined, Joiner
from rvpo.diagnose.together import aggregated_together, is_local
from rvpo.diagnose.verdicts import RULES
from rvpo.errors import ConfigError, RewardError
from rvpo.logs.run import Run


@dataclass(frozen=True)
class _Step:
    """The result of a method on a batch.

    Attributes:
        result: result of the method, (N, M).
        groups: the partition of the rows.
        channel: (M,) or (N, M) index of the run's channel of each cell.
        used: (N,) advantages that the run used; None if unknown.
    """

    result: Advantages
    groups: Partition
    channel: Ints
    used: Array | None

    @property
    def advantages(self) -> Array:
        """Advantages of the method, (N,)."""
        return self.result.advantages.numpy()

    def joins(self, other: _Step) -> bool:
        """Whether both steps can be counted together."""
        if self.channel.ndim != 1 or (self.used is None) != (other.used is None):
            return False
        return np.array_equal(self.channel, other.channel)


@dataclass(frozen=True)
class _Whole:
    """Several steps as one. (N,): advantages of the method and of the run, signal. (N, M): all others."""

    groups: Partition
    channel: Ints
    advantages: Array
    used: Array | None
    signal: Bools
    z: Array
    live: Bools
    missing: Bools
    applies: Bools
    responsibilities: Array


@dataclass(frozen=True)
class Numbers:
    """The results of a method over a run with K channels.

    Attributes:
        flips: share of completions whose advantage has the opposite sign; None if nothing was compared.
        rank: mean rank correlation with the used advantages, within groups; None if no group has one.
        effective: mean number of channels that decide a completion; None if no channel does.
        influence: (K,) correlation of its advantages with the channel, within groups, NaN if unknown.
        responsibility: (K,) mean share of the decision, NaN if unknown.
        pull: (K,) how far the channel moves its advantages, NaN if unknown.
    """

    flips: float | None
    rank: float | None
    effective: float | None
    influence: Array
    responsibility: Array
    pull: Array


class Followed:
    """A method that is applied to the batches of a run in order.

    Attributes:
        config: the method.
        rows: number of completions so far.
        largest: largest difference between its advantages and those that the run used; None if none are known.
        extreme: largest advantage that the run used.
        problem: why it cannot be applied; None as long as it can.
        state: what the method remembers.
    """

    def __init__(self, run: Run, config: AdvantageConfig, *, own: bool = False, as_recorded: bool = False) -> None:
        """Begin.

        Args:
            run: logs of a run.
            config: the method.
            own: whether it is the run's own method. Others are compared with its advantages, so each batch is counted
                at once.
            as_recorded: whether to use the recorded config of each batch, if there is one.
        """
        self.config, self.rows = config, 0
        self._together = not (own or as_recorded) and is_local(config)
        self._joiner = Joiner()
        self._as_recorded = as_recorded
        self._waiting: list[_Step] = []
        self._waiting_cells = 0
        self.largest: float | None = None
        self.extreme = 0.0
        self.problem: str | None = None
        self._run = run
        self.state: State = {}
        self._flips = self._compared = self._rank = self._ranked = self._effective = self._signal = 0.0
        k = len(run.channels)
        self._influence: Array = np.zeros((k, 3))
        self._responsibility: Array = np.zeros((k, 2))
        self._products: Array = np.zeros((k, k + 1))
        self._ranked_rows: Array = np.zeros((k, 2))
        if isinstance(config.method, Recorded):
            self.problem = f"it {config.method.unavailable}"
        elif config.whiten == "token" and not as_recorded:
            self.problem = "it whitens over tokens, but the record of another method does not have their numbers"
        elif config.method.remembers and not run.every_batch:
            self.problem = "it remembers the run, but not every batch since the first step is logged"

    def follow(self, one: Joined, used: Array | None) -> Array | None:
        """Aggregate a batch, now or later together with others. Call :meth:`settle` after the last batch.

        Args:
            one: the batch.
            used: (N,) advantages that the run used; None if they are those of this method.

        Returns:
            The advantages (N,) for the run's own method; None for other methods, or once there is a problem.
        """
        self.rows += len(one.batch.groups)
        if self._together:
            if one.batch.advantages is not used:
                one = replace(one, batch=replace(one.batch, advantages=used))
            for joined in self._joiner.add(one):
                self._add_together(joined)
            return None
        result = self._result(one)
        if result is None:
            return None
        own = result.advantages.numpy()
        self._add(_Step(result, one.groups, one.batch.channel, own if used is None else used))
        return own

    def settle(self) -> None:
        """Count the batches that are still waiting."""
        for joined in self._joiner.rest():
            self._add_together(joined)
        self._count_waiting()

    def _add_together(self, joined: Joined) -> None:
        if self.problem:
            return
        try:
            result = aggregated_together(joined, self.config, self._run)
        except (RewardError, ConfigError) as error:
            self.problem = str(error)
            return
        self._add(_Step(result, joined.groups, joined.batch.channel, joined.batch.advantages))

    def _result(self, one: Joined) -> Advantages | None:
        """Aggregate a batch; None once there is a problem."""
        if self.problem:
            return None
        batch = one.batch
        config = self.config
        if self._as_recorded and batch.config is not None and not isinstance(batch.config.method, Recorded):
            config = batch.config
        try:
            result = aggregated(batch, config, self._run, self.state, one.groups)
        except (RewardError, ConfigError) as error:
            self.problem = str(error)
            return None
        self.state = result.state
        if not self._run.every_batch and (learned := learned_scales(self.state)):
            self.problem = (
                f"the scale of {next(iter(learned))!r} is learned over the run, but not every batch since the first "
                "step is logged. Declare its range with --range NAME=LOW:HIGH"
            )
            return None
        return result

    def _add(self, step: _Step) -> None:
        """Count the results on a batch, now or later together with others."""
        if self._waiting and (self._waiting_cells > CELLS or not step.joins(self._waiting[0])):
            self._count_waiting()
        self._waiting.append(step)
        self._waiting_cells += step.result.rewards.numel()

    def _count_waiting(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._waiting_cells = self._waiting, [], 0
            self._count(_joined(waiting))

    def _count(self, step: _Whole) -> None:
        if step.used is not None:
            self._against(step, step.used)
        z, live = np.where(step.live, step.z, 0.0), step.live.astype(np.float64)
        a = step.advantages[:, None] * live
        mean = step.groups.sum(a) / np.maximum(step.groups.sum(live), 1)
        a = (a - step.groups.broadcast(mean)) * live
        for slot, x in enumerate((a * z, a * a, z * z)):
            self._influence[:, slot] += self._by_channel(x, step.channel)
        self._regress(step)
        signal = step.signal[:, None]
        for slot, x in enumerate((step.responsibilities * signal, signal & step.applies)):
            self._responsibility[:, slot] += self._by_channel(x, step.channel)
        numbers = _effective_channels(step)
        self._effective += float(numbers.sum())
        self._signal += len(numbers)

    def _by_channel(self, x: NDArray[Any], channel: Ints) -> Array:
        """Sum the cells (N, M) of each channel, (K,)."""
        if channel.ndim == 1:
            x = x.sum(0)
        return np.asarray(np.bincount(channel.ravel(), x.ravel(), len(self._influence)), dtype=np.float64)

    def _regress(self, step: _Whole) -> None:
        """Add to the sums for the regression of the method's advantages on all channels, as in a diagnosis."""
        count = len(self._influence)
        z, live = by_channel(step.z, step.live, step.channel, count)
        both = np.concatenate([z, centred(step.advantages, step.groups)[:, None]], 1)
        self._products += z.T @ both
        there = pooled((step.applies & ~step.missing).astype(np.float64), step.channel, count)
        self._ranked_rows += np.stack([live.sum(0), (there > 0).sum(0)], 1)

    def _differ(self, ours: Array, used: Array) -> None:
        """Update the largest difference between the method's advantages and those that the run used."""
        known = ~np.isnan(used)
        if known.any():
            self.largest = max(self.largest or 0.0, float(np.abs(ours - used)[known].max()))
            self.extreme = max(self.extreme, float(np.abs(used[known]).max()))

    def _against(self, step: _Whole, used: Array) -> None:
        ours, known = step.advantages, ~np.isnan(used)
        self._differ(ours, used)
        both = known & (np.abs(ours) > SAME) & (np.abs(used) > SAME)
        self._flips += float((both & (np.sign(ours) != np.sign(used))).sum())
        self._compared += float(known.sum())
        correlation, groups = spearman(ours[known], used[known], step.groups.index[known])
        self._rank += correlation
        self._ranked += groups

    def numbers(self) -> Numbers:
        """Return the results over all batches."""
        az, aa, zz = self._influence.T
        with np.errstate(invalid="ignore", divide="ignore"):
            influence, responsibility = az / np.sqrt(aa * zz), self._responsibility[:, 0] / self._responsibility[:, 1]
        return Numbers(
            self._flips / self._compared if self._compared else None,
            self._rank / self._ranked if self._ranked else None,
            self._effective / self._signal if self._signal else None,
            influence,
            responsibility,
            self._pulls(),
        )

    def _pulls(self) -> Array:
        live, scored = self._ranked_rows.T
        return pulls(self._products, live >= RULES.dead * scored)


class Compared(Followed):
    """A method for which only the difference from the used advantages is counted."""

    def _add(self, step: _Step) -> None:
        if step.used is not None:
            self._differ(step.advantages, step.used)


def _joined(steps: Sequence[_Step]) -> _Whole:
    def whole(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(step.result, name).numpy() for step in steps])

    names = ("advantages", "signal", "z", "live", "missing", "applies", "responsibilities")
    used = [step.used for step in steps if step.used is not None]
    return _Whole(
        groups=Partition.joined([step.groups for step in steps]),
        channel=steps[0].channel,
        used=np.concatenate(used) if used else None,
        **{name: whole(name) for name in names},
    )


def _effective_channels(step: _Whole) -> Array:
    """Return how many channels decide each completion, as :func:`rvpo.core.metrics.effective_channels`."""
    r = (np.abs(step.responsibilities) * step.live)[step.signal]
    r = r[r.sum(1) > 0]
    r = r / r.max(1, keepdims=True)  # so that the square of a tiny share does not underflow to 0
    found: Array = r.sum(1) ** 2 / (r * r).sum(1)
    return found


def spearman(a: Array, b: Array, groups: Ints) -> tuple[float, int]:
    """Return the sum of the rank correlations of a and b (N,) within groups, and the number of groups that have one.

    Ties get their mean rank. Values that are equal in single precision are ties. A group in which either is constant
    has no rank correlation.
    """
    if not len(a):
        return 0.0, 0
    of = Partition.of_ids(groups)
    ranks = np.stack([_ranks(x, of) for x in (a, b)], 1)
    centred = ranks - of.broadcast(of.sum(ranks) / of.sizes[:, None])
    variance = of.sum(centred * centred)
    both = of.sum((centred[:, 0] * centred[:, 1])[:, None])[:, 0]
    there = (variance > 0).all(1)
    return float((both[there] / np.sqrt(variance[there].prod(1))).sum()), int(there.sum())


def _ranks(x: Array, groups: Partition) -> Array:
    """Return mean ranks within groups, (N,)."""
    rounded = np.round(x / SAME)
    order = np.lexsort((rounded, groups.index))
    value, group = rounded[order], groups.index[order]
    new = np.r_[True, (value[1:] != value[:-1]) | (group[1:] != group[:-1])]
    run = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    ends = np.r_[starts[1:], len(value)]
    ranks = np.empty(len(value))
    ranks[order] = ((starts + ends - 1) / 2)[run]
    return ranks
