"""Is a reward being neglected now? The sums of a diagnosis over the last generations, in constant memory.

``rvpo diagnose`` looks back at a whole run. After every generation, the alarm looks at the last ``GROUPS`` groups:

* Statistics, thresholds and sentences are those of ``diagnose`` (``group_sums``, ``estimates``, ``verdicts``).
* Intervals come from standard errors (``errors``), because a bootstrap would be too slow for every step.
* The alarm **calls** a reward when two conditions hold. First, its verdict is "neglected" with an interval of ``SURE``
  standard errors instead of about 2, because there are many looks, and its rewards differ within at least ``RANKED``
  groups. Second, the neglect costs something: the mean of the reward does not clearly rise and is not yet at its best.
* The alarm stops calling when the verdict with the usual interval changes, or when the cost is gone.

A reward of weight 0 is only monitored, because its user chose so. It is never called as neglected. If such a monitor
falls while a trained reward rises, the alarm calls the trained reward as *diverging*
(:mod:`rvpo.diagnose.diverging`), based on the whole run.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpo.arrays.groups import Array, Bools, Ints, Partition, add_at
from rvpo.arrays.met import ends_of
from rvpo.arrays.rules import Cells, Shares, soft_min
from rvpo.core import Channels
from rvpo.core.channels import Range
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor
from rvpo.diagnose import verdicts
from rvpo.diagnose.diagnosis import Estimate
from rvpo.diagnose.diverging import Divergence, Watch
from rvpo.diagnose.errors import correlation_errors, pulls_with_errors
from rvpo.diagnose.estimates import FEWEST, values
from rvpo.diagnose.group_sums import SLOT, SLOTS, by_channel, cell_sums, centred, rounding
from rvpo.diagnose.met_sums import COUNTED, MetLines, met_sums
from rvpo.errors import RewardError

GROUPS = 512
"""Number of groups in the window: the latest ones."""
OF_ONE = 128
"""Most groups of one generation in the window, so that the window covers several generations."""
SURE = 4.0
"""A reward is called when it is below its threshold by this many standard errors."""
USUAL = 1.96
"""The same for an ordinary verdict, as in ``rvpo diagnose``."""
RANKED = 32
"""A reward is called only if its rewards differ within at least this many groups."""
CLEAR = 2.0
"""Standard errors of a clear rise or fall of a mean."""
MET = 0.9
"""A reward is at its best if its mean is at least at this share of its range."""
MOST = 256
"""Most channels in the window: the first ones seen, as long as they occur."""

_KEPT = (
    *("cells", "scored", "live", "reward", "groups_scored", "groups_live", "az", "aa", "zz", "company"),
    *("punished", "compared", "within_ss", "within_dof", "late_top"),
    *COUNTED,  # at the end, because checkpoints of older versions do not have these columns
)
_EPS = 1e-12  # as in diagnose: z-scores without the eps of training


@dataclass(frozen=True)
class Generation:
    """The rewards of one generation, and the advantages that the trainer used.

    Attributes:
        rewards: (N, M), NaN = missing.
        advantages: (N,) advantages that the policy is trained with.
        groups: the partition of the rows into groups.
        channels: the channels of the run that the cells belong to.
        weights: (M,) or (N, M) importance; 0 = monitored.
        applies: (N, M) bool, False if the column is not a channel of the row; None: all apply.
    """

    rewards: Tensor
    advantages: Tensor
    groups: Groups
    channels: Channels
    weights: Tensor
    applies: Tensor | None = None


@dataclass(frozen=True)
class _Batch:
    """A :class:`Generation` as arrays, with the ``index`` of its channels, their ``names`` and their ``ranges``."""

    rewards: Array
    advantages: Array
    groups: Partition
    index: Ints
    names: tuple[str, ...]
    ranges: tuple[Range | None, ...]
    weights: Array
    applies: Bools | None

    @classmethod
    def of(cls, batch: Generation) -> _Batch:
        """Convert tensors from any device to arrays."""
        channels = batch.channels
        return cls(
            _array(batch.rewards).astype(np.float64, copy=False),
            _array(batch.advantages).astype(np.float64, copy=False),
            Partition.of_ids(_array(batch.groups.index)),
            _array(channels.index),
            channels.names,
            channels.ranges,
            _array(batch.weights).astype(np.float64, copy=False),
            None if batch.applies is None else _array(batch.applies),
        )

    def first_groups(self, count: int) -> _Batch:
        """Return the first ``count`` groups."""
        if self.groups.count <= count:
            return self
        rows = self.groups.index < count

        def taken(x: NDArray[Any]) -> NDArray[Any]:
            return x[rows] if x.ndim == 2 else x

        return replace(
            self,
            rewards=self.rewards[rows],
            advantages=self.advantages[rows],
            groups=Partition.of_ids(self.groups.index[rows]),
            index=taken(self.index),
            weights=taken(self.weights),
            applies=None if self.applies is None else self.applies[rows],
        )


def _array(x: Tensor | NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)


@dataclass(frozen=True)
class Call:
    """A reward that is neglected, or diverges from a monitor, when it is called for the first time.

    Attributes:
        name: name of the channel.
        rule: the sentence of the verdict, with its numbers and the cause of the neglect, if known.
        generation: number of generations before the call.
        divergence: the divergence from a monitor, if that is the reason; None: the reward is neglected.
    """

    name: str
    rule: str
    generation: int
    divergence: Divergence | None = None


@dataclass
class _Kept:
    """A generation in the window: names (K), z (n, K), a (n,), group (n,), table (P, K, len(_KEPT))."""

    names: tuple[str, ...]
    z: NDArray[np.float32]
    a: NDArray[np.float64]
    group: NDArray[np.int64]
    table: Array


@dataclass(frozen=True)
class _Look:
    """The statistics of the window: name of a statistic -> (K,), and the errors of those that have one."""

    names: tuple[str, ...]
    found: Mapping[str, Array]
    errors: Mapping[str, Array]
    best: list[bool]
    ranked: Array
    spreads: Array
    z: Array

    def below(self) -> NDArray[np.bool_]:
        """Return which channels may be neglected, (K,): those whose usual interval is below a threshold."""
        found, errors = self.found, self.errors
        line = verdicts.RULES.neglected
        with np.errstate(invalid="ignore"):
            ignored = found["pull"] + USUAL * errors["pull"] < line
            outvoted = found["correlation"] + USUAL * errors["correlation"] < line * found["fair"]
        return ignored | outvoted

    def estimates(self, j: int, sure: float) -> dict[str, Estimate]:
        """Return the statistics of a channel, with intervals of plus and minus ``sure`` standard errors."""
        return {name: self._estimate(name, j, sure) for name in (*self.found, "reliability")}

    def _estimate(self, name: str, j: int, sure: float) -> Estimate:
        if name not in self.found or not np.isfinite(self.found[name][j]):
            return Estimate(None)
        value = float(self.found[name][j])
        error = self.errors[name][j] if name in self.errors else np.nan
        if not np.isfinite(error) or self.ranked[j] < FEWEST:
            return Estimate(value)
        return Estimate(value, value - sure * float(error), value + sure * float(error))

    def costs(self, j: int) -> bool:
        """Return whether the neglect costs something: the mean falls, or it is below its best and does not rise."""
        trend, error = self.found["trend"][j], self.errors["trend"][j]
        if not np.isfinite(error):
            return True
        falls, rises = trend < -CLEAR * error, trend > CLEAR * error
        return bool(not rises and (falls or not self.found["met"][j]))


def wider(quantile: float, df: float) -> float:
    """Return Student's quantile from the normal one, by the first terms of its expansion in 1 / df, without SciPy.

    A standard error from few groups is itself uncertain. With 8 groups, the error of this is below 0.01.
    """
    if not df > 0:
        return quantile
    first = (quantile**3 + quantile) / 4
    second = (5 * quantile**5 + 16 * quantile**3 + 3 * quantile) / 96
    return quantile + first / df + second / df**2


class Alarm:
    """Looks at every generation of a training, and calls each reward that is being neglected.

    Example:
        >>> import torch
        >>> alarm = Alarm()
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 4, dtype=torch.float64).repeat(40, 1)
        >>> groups = Groups.in_blocks(torch.arange(40).repeat_interleave(8))
        >>> channels = Channels.columns(["speed", "style"])
        >>> calls = alarm.add(Generation(z, z[:, 0] - 0.5, groups, channels, torch.ones(2)))
        >>> [call.name for call in calls], alarm.calling
        (['style'], {'speed': False, 'style': True})

    Attributes:
        generations: number of generations seen.
        called: name -> generation after which the reward was first called.
        calling: name -> whether the reward is called now, for all trained channels in the window.
    """

    def __init__(self, *, sums_raw: bool = False) -> None:
        """Begin a run.

        Args:
            sums_raw: whether raw rewards are summed, as in GRPO, so that a reward with small numbers counts less.
        """
        self._sums_raw = sums_raw
        self.generations = 0
        self.called: dict[str, int] = {}
        self.calling: dict[str, bool] = {}
        self._window: deque[_Kept] = deque()
        self._top: dict[str, float] = {}
        self._low: dict[str, float] = {}
        self._ranges: dict[str, Range | None] = {}
        self._monitored: set[str] = set()  # channels whose weight is 0
        self._met = MetLines()
        self._watch = Watch()

    @property
    def diverged(self) -> Mapping[str, Divergence]:
        """Trained rewards that have been called as diverging, with what was seen first."""
        return self._watch.called

    @property
    def diverging(self) -> dict[str, bool]:
        """Name of a trained reward -> whether it is called as diverging now; empty if nothing is monitored."""
        if not self._watch.monitors():
            return {}
        return {name: name in self._watch.calling for name in self.calling}

    @property
    def groups(self) -> int:
        """Number of groups in the window."""
        return sum(len(kept.table) for kept in self._window)

    def add(self, batch: Generation) -> list[Call]:
        """Add a generation; return the rewards that are called for the first time.

        Raises:
            RewardError: rewards are infinite, or the groups do not fit them.
        """
        self.generations += 1
        now = _Batch.of(batch)
        if np.isinf(now.rewards).any():
            row, column = np.argwhere(np.isinf(now.rewards))[0].tolist()
            raise RewardError(
                f"rewards[{row}, {column}] is {now.rewards[row, column]}; expected a finite number, or NaN for a "
                "missing reward. Check the reward function of that channel"
            )
        diverged = self._watch.add(
            self.generations, now.rewards, now.groups, now.index, now.names, now.weights, now.applies
        )
        self._keep(now)
        look = self._look()
        fresh = []
        before, self.calling = self.calling, {}
        below = look.below()
        for j, name in enumerate(look.names):
            if name in self._monitored:
                continue
            self.calling[name] = bool(below[j]) and self._is_called(look, j, before.get(name, False))
            if self.calling[name] and name not in self.called:
                self.called[name] = self.generations
                fresh.append(Call(name, self._rule(look, j), self.generations))
        return [*fresh, *(Call(one.channel, one.sentence(), self.generations, one) for one in diverged)]

    def verdicts(self) -> dict[str, verdicts.Judged]:
        """Return the verdict on each channel over the groups in the window, without a confidence."""
        look = self._look()
        found = {}
        for j, name in enumerate(look.names):
            of = look.estimates(j, wider(USUAL, look.ranked[j] - 1))
            verdict = verdicts.verdict_of(of, look.best[j])
            found[name] = verdicts.Judged(verdict, verdicts.sentence(verdict, of, monitored=False), None)
            if name in self.diverged:
                found[name] = verdicts.Judged("diverging", self.diverged[name].sentence(), None)
        return found

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays without Python objects, for ``numpy.savez``."""
        plain = {
            "generations": self.generations,
            "called": self.called,
            "calling": self.calling,
            "top": self._top,
            "low": self._low,
            "ranges": self._ranges,
            "monitored": sorted(self._monitored),
            "few": self._met.few,
            "names": [kept.names for kept in self._window],
        }
        arrays: dict[str, NDArray[Any]] = {"plain": np.array(json.dumps(plain))}
        for i, kept in enumerate(self._window):
            arrays |= {f"{part}_{i}": getattr(kept, part) for part in ("z", "a", "group", "table")}
        return arrays | self._watch.state()

    def load_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from the arrays that :meth:`state` returned."""
        plain = json.loads(str(arrays["plain"]))
        self.generations, self.called, self.calling = (plain[key] for key in ("generations", "called", "calling"))
        self._top, self._low, self._monitored = plain["top"], plain["low"], set(plain["monitored"])
        self._ranges = {name: None if ends is None else tuple(ends) for name, ends in plain["ranges"].items()}
        self._watch.load_state(arrays)
        self._met = MetLines(plain.get("few"))
        self._window = deque()
        for i, names in enumerate(plain["names"]):
            z, a, group, table = (arrays[f"{part}_{i}"] for part in ("z", "a", "group", "table"))
            self._window.append(_Kept(tuple(names), z, a, group, _widened(table)))

    def _keep(self, batch: _Batch) -> None:
        """Add a generation to the window, and note which of its channels are only monitored."""
        batch = batch.first_groups(OF_ONE)
        groups, index, names = batch.groups, batch.index, batch.names
        result = soft_min(Cells(batch.rewards, groups, batch.weights, batch.applies), 1.0, eps=_EPS)
        cells = cell_sums(result, groups, batch.advantages, 0.5, single=False)
        cells["late_top"] = groups.sum(self._at_top(result, batch) & result.applies)
        cells |= self._met_cells(result, batch)
        known = ~np.isnan(batch.advantages)
        z, _ = by_channel(result.z, result.live, index, len(names))
        kept = _Kept(
            names,
            (z * known[:, None]).astype(np.float32),
            centred(batch.advantages, groups),
            groups.index,
            _by_name(cells, groups, index, len(names)),
        )
        self._window.append(self._bounded(kept))
        while self.groups > GROUPS and len(self._window) > 1:
            self._window.popleft()
        shape = batch.rewards.shape
        counts = set(np.broadcast_to(index, shape)[np.broadcast_to(batch.weights, shape) > 0].tolist())
        for k, name in enumerate(names):
            if k in counts:
                self._monitored.discard(name)
            else:
                self._monitored.add(name)

    def _met_cells(self, result: Shares, batch: _Batch) -> dict[str, Array]:
        """Count unexplored and suppressed groups; correct the counts of earlier groups if a new value changes them."""
        graded, binary, raised = self._met.look(result, batch.index, batch.names, batch.ranges)
        for kept in self._window:
            for name in raised:
                if name in kept.names:
                    sums = kept.table[:, kept.names.index(name)]
                    sums[:, _KEPT.index("unexplored_binary")] = sums[:, _KEPT.index("met_groups")]
        return met_sums(result, batch.groups, batch.advantages, graded, binary)

    def _at_top(self, result: Shares, batch: _Batch) -> Bools:
        """Update the lowest and highest rewards; return which are at the highest. Reset counts of an exceeded one."""
        ends = ends_of(result.rewards, batch.index, result.applies, len(batch.names))
        tops, lows = ends.high.tolist(), ends.low.tolist()
        for k, name in enumerate(batch.names):
            self._ranges[name] = batch.ranges[k]
            self._low[name] = min(self._low.get(name, np.inf), lows[k])
            before = self._top.get(name, -np.inf)
            self._top[name] = max(before, tops[k])
            same = float(rounding(np.array(before), np.array(self._low[name])))
            if self._top[name] > before + same and before > -np.inf:
                for kept in self._window:
                    if name in kept.names:
                        kept.table[:, kept.names.index(name), _KEPT.index("late_top")] = 0
        top, low = (np.array([ends[name] for name in batch.names])[batch.index] for ends in (self._top, self._low))
        found: Bools = result.rewards >= top - rounding(top, low)
        return found

    def _bounded(self, kept: _Kept) -> _Kept:
        """Drop channels beyond ``MOST``, and forget those that are no longer in the window."""
        known = dict.fromkeys(name for old in self._window for name in old.names)
        names = [*known, *(name for name in kept.names if name not in known)][:MOST]
        self._monitored.intersection_update(names)
        self._met.forget(names)
        for ends in (self._top, self._low, self._ranges):
            for name in [name for name in ends if name not in names]:
                del ends[name]
        if len(names) < MOST or set(kept.names) <= set(names):
            return kept
        columns = [k for k, name in enumerate(kept.names) if name in names]
        there = tuple(kept.names[k] for k in columns)
        return replace(kept, names=there, z=kept.z[:, columns], table=kept.table[:, columns])

    def _look(self) -> _Look:
        names = tuple(dict.fromkeys(name for kept in self._window for name in kept.names))
        parts = [_aligned(kept, names) for kept in self._window]
        firsts = np.cumsum([0, *(len(kept.table) for kept in self._window)])
        z = np.concatenate([z for z, _ in parts]).astype(float)
        a = np.concatenate([kept.a for kept in self._window])
        table = np.zeros((firsts[-1], len(names), len(SLOTS)))
        table[..., [SLOT[name] for name in _KEPT]] = np.concatenate([t for _, t in parts])
        group = np.concatenate([kept.group + first for kept, first in zip(self._window, firsts, strict=False)])
        order = np.argsort(group, kind="stable")
        low, top = (np.array([ends[name] for name in names]) for ends in (self._low, self._top))
        self._met.settle(table, names, [self._ranges[name] for name in names], low, top, SLOT)
        total = table.sum(0)
        late = table[len(table) - max(1, len(table) // 3) :]
        total[:, SLOT["late_scored"]] = late[..., SLOT["scored"]].sum(0)
        total[:, SLOT["late_top"]] = late[..., SLOT["late_top"]].sum(0)
        found = {name: value for name, value in values(total).items() if name in _READ}
        alive = total[:, SLOT["groups_live"]] >= verdicts.RULES.dead * total[:, SLOT["groups_scored"]]
        pull, pull_errors = pulls_with_errors(z[order], a[order], group[order], alive)
        before, after, trend_errors = _halves(table)
        limits = [self._ranges[name] or (low[j], top[j]) for j, name in enumerate(names)]
        with np.errstate(invalid="ignore", divide="ignore"):
            met = (after >= [first + MET * (last - first) for first, last in limits]).astype(float)
            spreads = np.sqrt(total[:, SLOT["within_ss"]] / total[:, SLOT["within_dof"]])
        return _Look(
            names,
            {**found, "pull": pull, "trend": after - before, "early": before, "late": after, "met": met},
            {"correlation": correlation_errors(table), "pull": pull_errors, "trend": trend_errors},
            [verdicts.at_its_best(top[j], low[j], self._ranges[name]) for j, name in enumerate(names)],
            total[:, SLOT["groups_live"]],
            spreads,
            z,
        )

    def _is_called(self, look: _Look, j: int, before: bool) -> bool:
        sure = USUAL if before else SURE
        enough = before or look.ranked[j] >= RANKED
        neglected = verdicts.verdict_of(look.estimates(j, sure), look.best[j]) == "neglected"
        return bool(enough and neglected and look.costs(j))

    def _rule(self, look: _Look, j: int) -> str:
        """Return the sentence of the verdict, with the cause of the neglect if it is known."""
        found = look.estimates(j, USUAL)
        rule = verdicts.sentence("neglected", found, monitored=False)
        products = look.z.T @ look.z
        scale = np.sqrt(np.diag(products))
        with np.errstate(invalid="ignore", divide="ignore"):
            table = products / scale / scale[:, None]
        known = [[c if np.isfinite(c) else None for c in row] for row in table.tolist()]
        why = verdicts.cause(j, look.names, found, False, look.spreads, known, self._sums_raw)
        advised = verdicts.advice(why)
        return f"{rule}; {advised}" if advised else rule


_READ = ("mean", "scored", "live_groups", "correlation", "fair", "punished", "ceiling", "unexplored", "suppressed")


def _widened(table: Array) -> Array:
    """Return the table of a generation with all columns; columns that an older version did not count are 0."""
    lacking = len(_KEPT) - table.shape[-1]
    return np.pad(table, ((0, 0), (0, 0), (0, lacking))) if lacking else table


def _by_name(cells: Mapping[str, Array], groups: Partition, index: Ints, count: int) -> Array:
    """Return the sums of each group by channel, (P, K, len(_KEPT)), from those by column (P, M)."""
    table = np.stack([cells[name] for name in _KEPT], -1)
    of = index if index.ndim == 1 else index[groups.first_rows]  # all rows of a group have the same channels
    place = np.arange(groups.count)[:, None] * count + of
    pooled = np.zeros((groups.count * count, len(_KEPT)))
    add_at(pooled, place.ravel(), table.reshape(-1, len(_KEPT)))
    return pooled.reshape(groups.count, count, len(_KEPT))


def _aligned(kept: _Kept, names: Sequence[str]) -> tuple[NDArray[np.float32], Array]:
    """Return z and table with one column per name; 0 for channels that the generation does not have."""
    if kept.names == names:
        return kept.z, kept.table
    places = [names.index(name) for name in kept.names]
    z = np.zeros((len(kept.z), len(names)), dtype=np.float32)
    table = np.zeros((len(kept.table), len(names), len(_KEPT)))
    z[:, places], table[:, places] = kept.z, kept.table
    return z, table


def _halves(table: Array) -> tuple[Array, Array, Array]:
    """Return the mean reward of both halves of the groups, (K,) each, and the error of their difference."""
    middle = len(table) // 2
    means, errors = [], []
    for half in (table[:middle], table[middle:]):
        scored, reward = half[..., SLOT["scored"]], half[..., SLOT["reward"]]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = reward.sum(0) / scored.sum(0)
            influence = (reward - scored * mean) / scored.sum(0)
        means.append(mean)
        errors.append((influence**2).sum(0))
    return means[0], means[1], np.sqrt(errors[0] + errors[1])
