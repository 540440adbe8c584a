"""A method that is led through the batches of a finished run, and what it did to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rvpo.core import AdvantageConfig, Advantages
from rvpo.core.channels import State
from rvpo.core.groups import Groups
from rvpo.core.methods.recorded import Recorded
from rvpo.core.metrics import effective_channels
from rvpo.core.scales import learned_scales
from rvpo.diagnose.estimates import pulls
from rvpo.diagnose.group_sums import SAME, by_channel, centred
from rvpo.diagnose.joining import CELLS, Joined, Joiner, groups_of_all
from rvpo.diagnose.sums import aggregated
from rvpo.diagnose.together import aggregated_together, is_local
from rvpo.diagnose.verdicts import RULES
from rvpo.errors import ConfigError, RewardError
from rvpo.logs.run import Run

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Step:
    """What a method made of a batch.

    Attributes:
        result: of the method, (N, M).
        channel: (M,) or (N, M) number of the run's channel of each cell.
        used: (N,) advantages that the run used; None where they are not known.
    """

    result: Advantages
    channel: Tensor
    used: Tensor | None

    def joins(self, other: _Step) -> bool:
        """Whether both can be counted as one."""
        if self.channel.ndim != 1 or (self.used is None) != (other.used is None):
            return False
        return torch.equal(self.channel, other.channel)


@dataclass(frozen=True)
class Numbers:
    """What a method did over a run; K channels.

    Attributes:
        flips: share of completions whose advantage has the opposite sign; None where nothing was compared.
        rank: mean rank correlation within groups with the used advantages; None where there is none.
        effective: mean number of channels that decide a completion; None where none does.
        influence: (K,) correlation within groups of its advantages with the channel, NaN where unknown.
        responsibility: (K,) mean share of the decision, NaN where unknown.
        pull: (K,) how far the channel moves its advantages, NaN where unknown.
    """

    flips: float | None
    rank: float | None
    effective: float | None
    influence: Array
    responsibility: Array
    pull: Array


class Followed:
    """A method on its way through a run.

    Attributes:
        config: the method.
        rows: completions so far.
        largest: largest difference of its advantages to those that the run used; None where none are known.
        extreme: largest advantage that the run used.
        problem: why it cannot be applied; None while it can.
        state: what the method remembers.
    """

    def __init__(self, run: Run, config: AdvantageConfig, *, own: bool = False, as_recorded: bool = False) -> None:
        """Begin.

        Args:
            run: logs of a run.
            config: the method.
            own: whether it is the run's own, whose advantages others are compared with: then each batch counts at once.
            as_recorded: whether the config of each batch is followed where it is recorded.
        """
        self.config, self.rows = config, 0
        self._together = not (own or as_recorded) and is_local(config)
        self._joiner = Joiner()
        self._as_recorded = as_recorded
        self._waiting: list[_Step] = []
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
            self.problem = "it whitens by tokens, which are not known for another method's record"
        elif config.method.remembers and not run.every_batch:
            self.problem = "it remembers the run, and not every batch since the first step is logged"

    def follow(self, one: Joined, used: Tensor | None) -> Tensor | None:
        """Aggregate a batch, perhaps later, together with others: :meth:`settle` ends it.

        Args:
            one: the batch.
            used: (N,) advantages that the run used; None where they are those of this method.

        Returns:
            The method's advantages of the run's own method (N,); None for others, or once there is a problem.
        """
        self.rows += len(one.batch.groups)
        if self._together:
            for joined in self._joiner.add(replace(one, batch=replace(one.batch, advantages=used))):
                self._add_together(joined)
            return None
        result = self._result(one)
        if result is None:
            return None
        self._add(_Step(result, one.batch.channel, result.advantages if used is None else used))
        return result.advantages

    def settle(self) -> None:
        """Count what is still waiting."""
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
        self._add(_Step(result, joined.batch.channel, joined.batch.advantages))

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
                f"the scale of {next(iter(learned))!r} is learned over the run, and not every batch since the first "
                "step is logged: declare its range with --range NAME=LOW:HIGH"
            )
            return None
        return result

    def _add(self, step: _Step) -> None:
        """Count what the rule did to a batch, perhaps later."""
        waiting = sum(each.result.z.numel() for each in self._waiting)
        if self._waiting and (waiting > CELLS or not step.joins(self._waiting[0])):
            self._count_waiting()
        self._waiting.append(step)

    def _count_waiting(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._count(_joined(waiting))

    def _count(self, step: _Step) -> None:
        result = step.result
        if step.used is not None:
            self._against(result, step.used)
        z, live = result.z.masked_fill(~result.live, 0.0), result.live.double()
        a = result.advantages[:, None] * live
        a = (a - result.groups.broadcast(result.groups.sum(a) / result.groups.sum(live).clamp(min=1))) * live
        channel = step.channel.expand(z.shape)
        for slot, x in enumerate((a * z, a * a, z * z)):
            np.add.at(self._influence[:, slot], channel.numpy(), x.numpy())
        self._regress(result, channel)
        r = result.responsibilities * result.signal[:, None]
        signal = result.signal[:, None].double() * result.applies
        for slot, x in enumerate((r, signal)):
            np.add.at(self._responsibility[:, slot], channel.numpy(), x.numpy())
        numbers = effective_channels(result)
        self._effective += float(numbers.sum())
        self._signal += len(numbers)

    def _regress(self, result: Advantages, channel: Tensor) -> None:
        """Add what the regression of the rule's advantages on all channels needs, as a diagnosis does."""
        z, live = by_channel(result, channel, len(self._run.channels))
        both = torch.cat([z, centred(result.advantages, result.groups)[:, None]], 1)
        self._products += (z.T @ both).numpy()
        there = torch.zeros_like(live).scatter_add(1, channel, (result.applies & ~result.missing).double())
        self._ranked_rows += torch.stack([live.sum(0), (there > 0).sum(0)], 1).numpy()

    def _differ(self, result: Advantages, used: Tensor) -> None:
        """Follow how far the rule's advantages are from those that the run used."""
        known = ~used.isnan()
        if bool(known.any()):
            self.largest = max(self.largest or 0.0, float((result.advantages - used)[known].abs().max()))
            self.extreme = max(self.extreme, float(used[known].abs().max()))

    def _against(self, result: Advantages, used: Tensor) -> None:
        ours, known = result.advantages, ~used.isnan()
        self._differ(result, used)
        both = known & (ours.abs() > SAME) & (used.abs() > SAME)
        self._flips += float((both & (ours.sign() != used.sign())).sum())
        self._compared += float(known.sum())
        correlation, groups = spearman(ours[known], used[known], result.groups.index[known])
        self._rank += correlation
        self._ranked += groups

    def numbers(self) -> Numbers:
        """Return what was counted."""
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
    """A method of which only the distance to the used advantages matters."""

    def _add(self, step: _Step) -> None:
        if step.used is not None:
            self._differ(step.result, step.used)


def _joined(steps: Sequence[_Step]) -> _Step:
    if len(steps) == 1:
        return steps[0]
    first, results = steps[0], [step.result for step in steps]
    names = [field.name for field in fields(Advantages) if isinstance(getattr(first.result, field.name), Tensor)]
    whole: dict[str, Any] = {name: torch.cat([getattr(result, name) for result in results]) for name in names}
    used = [step.used for step in steps if step.used is not None]
    groups = groups_of_all([result.groups for result in results])
    return _Step(replace(first.result, groups=groups, **whole), first.channel, torch.cat(used) if used else None)


def spearman(a: Tensor, b: Tensor, groups: Tensor) -> tuple[float, int]:
    """Return the sum of the rank correlations of a and b (N,) within groups, and the number of groups that have one.

    Ties have their mean rank; values nearer than single precision tells are ties. A group has none where either is
    constant.
    """
    if not len(a):
        return 0.0, 0
    of = Groups.from_ids(groups, len(groups))
    ranks = torch.stack([_ranks(x, of) for x in (a, b)], 1)
    size = of.sum(torch.ones_like(ranks))
    centred = ranks - of.broadcast(of.sum(ranks) / size)
    variance = of.sum(centred.square())
    both = of.sum((centred[:, 0] * centred[:, 1])[:, None])[:, 0]
    there = (variance > 0).all(1)
    return float((both / variance.prod(1).sqrt())[there].sum()), int(there.sum())


def _ranks(x: Tensor, groups: Groups) -> Tensor:
    """Return mean ranks within groups, (N,)."""
    rounded = (x.double() / SAME).round()
    order = np.lexsort((rounded.numpy(), groups.index.numpy()))
    value, group = rounded.numpy()[order], groups.index.numpy()[order]
    new = np.r_[True, (value[1:] != value[:-1]) | (group[1:] != group[:-1])]
    run = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    ends = np.r_[starts[1:], len(value)]
    ranks = np.empty(len(value))
    ranks[order] = ((starts + ends - 1) / 2)[run]
    return torch.from_numpy(ranks)
