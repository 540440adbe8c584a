"""The result of one batch, and all metrics that are logged: their names, their meanings, and how to compute them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from rvpo.core import aggregate
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.met import counters_of, group_counters, on_the_line
from rvpo.core.shards import WHOLE, OneGroup, Whole
from rvpo.core.solved import SolvedSums, solved_sums, tally, tally_of
from rvpo.core.summary import Met, Summary, standard_deviation
from rvpo.errors import RewardError

PREFIX = "rvpo/"
"""Prefix of all names that an engine logs."""

CHANNEL_METRICS = (
    "mean",
    "std",
    "live",
    "dead",
    "missing",
    "responsibility",
    "bottleneck",
    "advantage_corr",
)
"""Metrics per channel, in the order in which :func:`channel_metrics` computes them."""

WEIGHT = "weight"
MULTIPLIER = "multiplier"
NEED = "need"
GUARD = "guard"
FRONTIER = "lift/frontier"
TURN = "lift/turn"
EFFECTIVE = "lift/channels"
RELIABILITY = "reliability"
NEGLECTED = "neglected"
DIVERGING = "diverging"
JUDGE = "judge"
UNEXPLORED = "unexplored"
SUPPRESSED = "suppressed"
EFFECTIVE_CHANNELS = "effective_channels"
ADVANTAGE_STD = "advantage_std"
AGGREGATED_STD = "aggregated_std"
NO_SIGNAL_GROUPS = "no_signal/groups"
NO_SIGNAL_COMPLETIONS = "no_signal/completions"
LOST_COMPLETIONS = "lost/completions"
UNWANTED_GROUPS = "unwanted/groups"
UNWANTED_COMPLETIONS = "unwanted/completions"
SKIPPED = "skipped/share"

CATALOGUE = {
    "rvpo/{channel}/mean": "mean raw reward over the scored completions",
    "rvpo/{channel}/std": "their standard deviation over the batch (ddof 1)",
    "rvpo/{channel}/live": "share of the completions that the channel applies to on which it ranks its group",
    "rvpo/{channel}/dead": "share on which it was scored, but is constant in the group",
    "rvpo/{channel}/missing": "share on which it was not scored; live + dead + missing = 1",
    "rvpo/{channel}/responsibility": "mean derivative of the value by its z where there is signal; ours sum to 1",
    "rvpo/{channel}/bottleneck": "share of completions with signal on which it has the lowest live z (ties share)",
    "rvpo/{channel}/advantage_corr": "correlation of the advantage with its z where live; near or below 0: ignored",
    "rvpo/{channel}/weight": "ctwa, lift: its weight, on average 1 (lift: need plus guard); dara, saw, …: its factor",
    "rvpo/{channel}/need": "lift: how much the channel counts because it is met less than others",
    "rvpo/{channel}/guard": "lift: how much it counts in addition, so that it does not fall",
    "rvpo/{channel}/multiplier": "lagrangian: the dual variable of the channel's threshold",
    "rvpo/{channel}/attained": "methods that compare how far channels are met: mean attained share in this batch",
    "rvpo/{channel}/outside": "the same: share of the scored completions outside the scale; they count as its end",
    "rvpo/{channel}/scale_low": "the same, without a declared range: lower end of the scale, 0 or learned",
    "rvpo/{channel}/scale_high": "the same: upper end of the scale, 1 or learned",
    "rvpo/{channel}/reliability": "share of the channel's variance that counts as signal, if Reliability is in use",
    "rvpo/{channel}/diverging": "TRL, with a monitored channel: 1 while the channel rises and a monitor falls, else 0",
    "rvpo/{channel}/neglected": "TRL: 1 while the channel is being neglected, by the rules of `rvpo diagnose`, else 0",
    "rvpo/{channel}/unexplored": "share of groups in which no completion meets it (rvpo.core.met says what that is)",
    "rvpo/{channel}/suppressed": "share in which some meet it, not all, and none of these has a positive advantage",
    "rvpo/{channel}/solved_some": "share of groups in which some completions meet it, not all: what can teach it",
    "rvpo/{channel}/solved_all": "share in which all do; with unexplored, these three sum to 1",
    "rvpo/{channel}/judge/{total}": "rubrics, code: totals of judge or sandbox, such as calls, tests, missing",
    "rvpo/{channel}/holds": "a gate or condition, by its text: share of the completions that meet it",
    "rvpo/{channel}/unknown": "the same: share in which it is missing, and so is what depends on it",
    "rvpo/solved/none": "share of groups in which no completion meets every channel that counts (option `solved`)",
    "rvpo/solved/some": "share in which some completions do, not all: what is left to learn from",
    "rvpo/solved/all": "share in which all do; none + some + all = 1",
    "rvpo/solved/pass@{k}": "unbiased probability that one of k completions of a group does; k = 1, 2, 4, …",
    "rvpo/solved/groups": "number of groups that these shares are of: with completions scored on all that counts",
    "rvpo/solved/pass_groups": "number of groups with enough such completions for the largest k",
    "rvpo/no_signal/groups": "share of groups in which no channel of positive weight ranks anything",
    "rvpo/no_signal/completions": "number of completions on which no channel of positive weight is live",
    "rvpo/advantage_std": "standard deviation of the advantages over the batch (ddof 1), those of 0 included",
    "rvpo/aggregated_std": "standard deviation of the method's value before whitening, over the completions that count",
    "rvpo/effective_channels": "how many channels decide a completion: mean 1 / sum r^2 of the responsibilities r",
    "rvpo/unwanted/groups": "with `wanted`: share of groups that only other channels rank; they are not trained on",
    "rvpo/unwanted/completions": "with `wanted`: number of completions in these groups",
    "rvpo/skipped/share": "TRL, with `skip_dead_groups`: share of a micro-batch left out of forward and backward",
    "rvpo/lift/frontier": "lift: 1 if nothing opposes the channels, 0 if no advantage raises all of them",
    "rvpo/lift/turn": "lift: cosine of the advantage with that of the needs alone; 1 if the guard changes nothing",
    "rvpo/lift/channels": "lift: effective number of channels, where copies of one channel count once",
    "rvpo/gd2po/kept": "gd2po: share of the completions that are not left out, mean over the completions",
    "rvpo/k": "rvpo: the risk coefficient of this batch",
    "rvpo/k_effective": "rvpo with an adaptive k: the measure that this k reached (target 0.55)",
    "rvpo/k_bottleneck": "the same for measure=bottleneck",
    "rvpo/riskpo/quantile_lower": "riskpo: tracked lower quantile of the papers' scores",
    "rvpo/riskpo/quantile_upper": "riskpo: tracked upper quantile",
    "rvpo/riskpo/lower_tail": "riskpo: share of papers below the lower quantile",
    "rvpo/riskpo/upper_tail": "riskpo: share of papers above the upper quantile",
    "rvpo/riskpo/flat_bundles": "riskpo: share of bundles whose papers are all equal",
    "rvpo/lost/completions": "verl: rollouts that verl dropped, as it does where a reward function raises",
}
"""All metrics that are logged. ``{channel}`` is a reward function, or ``function/label`` of a rubric."""


def in_catalogue(key: str) -> bool:
    """Return whether a logged key is one of :data:`CATALOGUE`."""
    patterns = (
        re.escape(name).replace(r"\{channel\}", ".+").replace(r"\{total\}", ".+").replace(r"\{k\}", r"\d+")
        for name in CATALOGUE
    )
    return any(re.fullmatch(pattern, key) for pattern in patterns)


class Later(Protocol):
    """An object that computes attributes of :class:`Advantages` when they are read."""

    def __call__(self, name: str) -> Any:
        """Return an attribute."""

    def summary(self, advantages: Tensor) -> Summary | None:
        """Return the metrics without computing attributes; None if that needs them."""

    def met(self, ends: Tensor, counting: Tensor, advantages: Tensor) -> Met | None:
        """Return how many completions of each group meet the channels; None if that needs the attributes."""


@dataclass(frozen=True)
class Advantages:
    """Result of :func:`rvpo.advantages`. Tensors are on the device and in the dtype of the rewards.

    Attributes:
        advantages: (N,) advantages for the policy gradient; 0 for rows without signal.
        aggregated: (N,) the method's value before whitening (for ``"grpo"`` the weighted sum of raw rewards).
        z: (N, M) group z-scores; 0 where dead, NaN where missing.
        responsibilities: (N, M) derivative of ``aggregated`` with respect to ``z``. For ``"grpo"``, ``"lift"`` and the
            Tchebycheff methods it is scaled: rows sum to 1 over the channels that take part, or are all 0 without any.
            For a function it is not scaled.
        live: (N, M) bool, True where the channel is scored and ranks its group.
        missing: (N, M) bool, True where the reward was NaN although the channel applies.
        applies: (N, M) bool, False where the column is not a channel of that completion's prompt (padding).
        signal: (N,) bool, True where at least one channel of positive weight is live.
        takes_part: (N,) bool, True for the rows that the whitening counts.
        rewards: (N, M) the rewards as given.
        groups: the partition of rows into groups.
        state: state for the next batch, for methods that follow the run, including the scales of the channels if the
            method compares how far they are met. It is plain data or tensors (:func:`rvpo.core.state.plain` makes it
            JSON), and empty for other methods.
        method_metrics: metrics of the method for this batch, such as its weights.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[3.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [-3.0, 0.0]])
        >>> out = rvpo.advantages(rewards, num_generations=4, method="gdpo")
        >>> out.z[0], out.signal.tolist()
        (tensor([ 1.1618, -0.8659]), [True, True, True, True])
        >>> out.metrics(["correct", "format"])["correct/mean"]
        0.0
    """

    advantages: Tensor
    aggregated: Tensor
    z: Tensor
    responsibilities: Tensor
    live: Tensor
    missing: Tensor
    applies: Tensor
    signal: Tensor
    takes_part: Tensor
    rewards: Tensor
    groups: Groups
    state: Mapping[str, Any] = field(default_factory=dict)
    method_metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def with_later(cls, later: Later, **known: Any) -> Advantages:
        """Build a result with attributes that are computed when they are first read.

        Args:
            later: object that computes an attribute by its name.
            **known: all other attributes.
        """
        made = object.__new__(cls)
        vars(made).update(state={}, _later=later)
        vars(made).update(known)
        return made

    def __getattr__(self, name: str) -> Any:
        """Compute an attribute on first use."""
        later = vars(self).get("_later")
        if later is None or name not in self.__dataclass_fields__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = vars(self)[name] = later(name)
        return value

    @cached_property
    def summary(self) -> Summary | None:
        """Metrics of the batch, computed in one pass; None if they must be computed from the attributes."""
        later = vars(self).get("_later")
        return None if later is None else later.summary(self.advantages.detach())

    def met(self, lines: Tensor, counting: Tensor) -> Met | None:
        """Return how many completions of each group meet the channels, if blocks allow to count them; otherwise None.

        Args:
            lines: see :func:`counter_metrics`.
            counting: see :func:`counter_metrics`.
        """
        later = vars(self).get("_later")
        if later is None or lines.ndim != 1 or counting.ndim != 1:
            return None
        device = self.rewards.device
        ends = on_the_line(lines.double()).to(device)
        return later.met(ends, counting.to(device), self.advantages.detach())  # type: ignore[no-any-return]

    def metrics(
        self, channels: Sequence[str] | Mapping[str, Tensor] | None = None, shards: Whole = WHOLE
    ) -> dict[str, float]:
        """Return diagnostics as a flat dict, see :func:`channel_metrics`."""
        return channel_metrics(self, channels, shards)


def channel_metrics(
    result: Advantages, channels: Sequence[str] | Mapping[str, Tensor] | None = None, shards: Whole = WHOLE
) -> dict[str, float]:
    """Summarise a batch as a flat dict of floats.

    Keys: ``{name}/{metric}`` for each channel and each of ``CHANNEL_METRICS``, ``no_signal/groups`` (share of groups in
    which no channel of positive weight ranks anything), ``no_signal/completions`` (their number of completions),
    ``advantage_std`` and ``aggregated_std`` (see :func:`spreads`). A value that is undefined in this batch, such as the
    mean of a channel that was never scored, is NaN.

    Args:
        result: what :func:`rvpo.advantages` returned.
        channels: M names, one per column; None numbers them from 0. If columns differ between prompts, a mapping
            name -> (N, M) bool pools the cells of each name, for example of one rubric category. Its responsibility and
            bottleneck are then those of all its cells together.
        shards: where the rows of the batch are. All ranks have the same names.

    Raises:
        RewardError: the number of names is not M.
    """
    columns = result.rewards.shape[1]
    if not isinstance(channels, Mapping):
        channels = [str(j) for j in range(columns)] if channels is None else list(channels)
        if len(channels) != columns:
            raise RewardError(
                f"{len(channels)} channel names for {columns} channels: pass one name per channel, in order"
            )
    summary = None if isinstance(channels, Mapping) else result.summary
    if summary is not None:
        keys = [f"{name}/{metric}" for name in channels for metric in CHANNEL_METRICS]
        metrics = dict(zip(keys, summary.columns.T.flatten().tolist(), strict=True))
        metrics[NO_SIGNAL_GROUPS] = 1 - summary.groups
        metrics[NO_SIGNAL_COMPLETIONS] = float(len(result.rewards) - summary.rows)
        return metrics | spreads(result, summary.aggregated_std)
    z = result.z.to(torch.float32 if result.z.device.type == "mps" else torch.float64).detach()
    counted = result.signal[:, None].to(z.dtype)
    bottleneck = bottlenecks(result).to(z.dtype) * counted
    responsibility = result.responsibilities.detach() * counted
    rewards, advantages = result.rewards.detach().to(z.dtype), result.advantages.detach().to(z.dtype)[:, None]

    def cells_of(take: Callable[[Tensor], Tensor]) -> _Cells:
        """Return the cells that ``take`` lays out as columns."""
        live, missing, applies = take(result.live), take(result.missing), take(result.applies)
        scored = applies & ~missing
        known = scored & ~take(rewards).isnan()  # a cell outside of the normalisation need not have a reward
        states = torch.stack([live, scored & ~live, missing, applies])
        deciding = torch.stack([take(responsibility), take(bottleneck)])
        return _Cells(take(rewards), known, states, deciding, take(advantages.expand_as(z)), take(z), live)

    if isinstance(channels, Mapping):
        parts = [cells_of(lambda x, mask=mask: x[mask][:, None]) for mask in channels.values()]  # type: ignore[misc]
    else:
        parts = [cells_of(lambda x: x)]
    of_groups = result.groups.max(counted).sum()
    numbers = (result.signal.sum(), of_groups, torch.tensor(result.groups.count), torch.tensor(len(z)))
    *firsts, signal, with_signal, groups, completions = shards.sum(*(part.sums() for part in parts), *numbers)
    seconds = shards.sum(*(part.squares(first) for part, first in zip(parts, firsts, strict=True)))
    tables = [part.metrics(first, second, signal) for part, first, second in zip(parts, firsts, seconds, strict=True)]
    columns_of_all = torch.cat(tables, 1).T.tolist() if tables else []  # empty: no prompt has a rubric
    values = dict(zip(channels, columns_of_all, strict=True))
    metrics = {
        f"{name}/{metric}": value
        for name, row in values.items()
        for metric, value in zip(CHANNEL_METRICS, row, strict=True)
    }
    metrics[NO_SIGNAL_GROUPS] = 1 - with_signal.item() / int(groups)
    metrics[NO_SIGNAL_COMPLETIONS] = float(completions - signal)
    return metrics | spreads(result, shards=shards)


def spreads(result: Advantages, aggregated: float | None = None, shards: Whole = WHOLE) -> dict[str, float]:
    """Return the standard deviation of the advantages, and that of the method's value before whitening.

    Whitening brings the advantages to about 1 whatever the method, so the second number is the one to compare between
    methods. It counts only the completions that whitening counts.

    Args:
        result: what :func:`rvpo.advantages` returned.
        aggregated: the second number, if it is known.
        shards: where the rows of the batch are.

    Returns:
        ``advantage_std`` and ``aggregated_std``, both with ddof 1; NaN for fewer than two completions.
    """
    counted = result.advantages.detach()
    if aggregated is not None:
        return {ADVANTAGE_STD: standard_deviation(counted), AGGREGATED_STD: aggregated}
    parts = [counted, result.aggregated.detach()[result.takes_part]]
    found = [standard_deviation(part) for part in parts] if shards.is_whole else _deviations_of_ranks(parts, shards)
    return dict(zip((ADVANTAGE_STD, AGGREGATED_STD), found, strict=True))


def _deviations_of_ranks(parts: Sequence[Tensor], shards: Whole) -> list[float]:
    """Return :func:`standard_deviation` of vectors (n,) over all ranks, in two exchanges for all of them."""
    wide = torch.float32 if parts[0].device.type == "mps" else torch.float64
    parts = [part.to(wide) for part in parts]
    sums = shards.sum(*(torch.stack([part.sum(), part.new_tensor(len(part))]) for part in parts))
    squares = shards.sum(
        *((part - total / count).square().sum() for part, (total, count) in zip(parts, sums, strict=True))
    )
    return [
        float((square / (count - 1)).sqrt()) if count > 1 else torch.nan
        for square, (_, count) in zip(squares, sums, strict=True)
    ]


@dataclass(frozen=True)
class _Cells:
    """The cells of C channels, laid out as columns: what :func:`channel_metrics` sums, in two passes.

    Attributes:
        rewards: (n, C).
        known: (n, C) bool, which have a reward.
        states: (4, n, C) bool: live, dead, missing, and which cells there are.
        deciding: (2, n, C) responsibilities and bottlenecks.
        advantages: (n, C).
        z: (n, C).
        live: (n, C) bool.
    """

    rewards: Tensor
    known: Tensor
    states: Tensor
    deciding: Tensor
    advantages: Tensor
    z: Tensor
    live: Tensor

    def sums(self) -> Tensor:
        """Return numbers and sums of the cells, (10, C)."""
        wide = self.z.dtype
        return torch.cat(
            [
                self.states.to(wide).sum(1),
                self.deciding.sum(1).to(wide),
                torch.stack(
                    [
                        self.known.to(wide).sum(0),
                        self.rewards.masked_fill(~self.known, 0.0).sum(0),
                        self.advantages.masked_fill(~self.live, 0.0).sum(0),
                        self.z.masked_fill(~self.live, 0.0).sum(0),
                    ]
                ),
            ]
        )

    def squares(self, sums: Tensor) -> Tensor:
        """Return sums around the means: squared rewards, products of advantage and z, and the squares of both."""
        live, *_, number, reward, advantage, z = sums
        deviation = (self.rewards - reward / number).masked_fill(~self.known, 0.0)
        da, dz = (
            (x - total / live).masked_fill(~self.live, 0.0) for x, total in ((self.advantages, advantage), (self.z, z))
        )
        return torch.stack([x.sum(0) for x in (deviation.square(), da * dz, da.square(), dz.square())])

    def metrics(self, sums: Tensor, squares: Tensor, signal: Tensor) -> Tensor:
        """Return one row per metric and one column per channel.

        Args:
            sums: what :meth:`sums` returned, over all ranks.
            squares: what :meth:`squares` returned, over all ranks.
            signal: number of completions with a signal.
        """
        number, (deviation, product, a, z) = sums[6], squares
        rows = [
            sums[7] / number,
            (deviation / (number - 1).clamp(min=0)).sqrt(),
            *(sums[:3] / sums[3]),
            *(sums[4:6] / signal),
            product / (a * z).sqrt(),
        ]
        return torch.stack(rows)


def counter_metrics(
    result: Advantages,
    channels: Sequence[str] | Mapping[str, Tensor],
    lines: Tensor,
    counting: Tensor,
    outside: Tensor | None = None,
    shards: Whole = WHOLE,
) -> dict[str, float]:
    """Return each channel's unexplored and suppressed groups, the solved shares, and ``effective_channels``.

    If a name pools several columns, such as the criteria of a rubric, each column of a group counts as one group.

    Args:
        result: result of :func:`rvpo.advantages`.
        channels: names as in :func:`channel_metrics`.
        lines: (M,) or (N, M), the smallest reward that meets the cell's channel, NaN = unknown; see
            :mod:`rvpo.core.met`.
        counting: (M,) or (N, M) bool, cells that a completion must meet to solve its question; see
            :mod:`rvpo.core.solved`.
        outside: (N, M) bool, cells that a structure left out of their group's normalisation; None without such cells.
        shards: where the rows of the batch are. All ranks have the same names.
    """
    wide = torch.float32 if result.rewards.device.type == "mps" else torch.float64
    met = result.met(lines, counting) if outside is None and not isinstance(channels, Mapping) else None
    if met is None:
        rewards = result.rewards.detach().to(wide).masked_fill(~result.applies, torch.nan)
        found = group_counters(rewards, result.advantages.detach(), result.groups, lines)
        counted = tally(rewards, result.groups, lines, counting, outside)
    else:
        known, size = ~lines.to(met.met.device).isnan(), result.groups.size
        found = counters_of(met.met, met.raised, known, size)
        counted = tally_of(met.met, met.solves, known, counting.to(known.device), size)
    tables = torch.stack([found.unexplored, found.suppressed, found.counted]).to(wide)
    names: Sequence[str] | Mapping[str, Tensor] = channels
    if isinstance(channels, Mapping):
        names = owned = {name: result.groups.max(mask.to(wide)) for name, mask in channels.items()}
        own = [(tables * mask).sum((1, 2)) for mask in owned.values()]
    else:
        own = list(tables.sum(1).T)
    whole = result.summary
    numbers = effective_channels(result) if whole is None else torch.zeros(0)
    of_solved = solved_sums(counted, result.groups.size, names, shards)
    *sums, effective, deciding, solved, by_name = shards.sum(
        *own, numbers.sum(), torch.tensor(len(numbers)), of_solved.questions, of_solved.by_name
    )
    metrics: dict[str, float] = {}
    for name, total in zip(channels, sums, strict=True):
        unexplored, suppressed, _ = (total / total[2]).tolist()
        metrics |= {f"{name}/{UNEXPLORED}": unexplored, f"{name}/{SUPPRESSED}": suppressed}
    metrics |= SolvedSums(of_solved.ks, solved, by_name).metrics(list(names))
    if whole is not None:
        return metrics | {EFFECTIVE_CHANNELS: whole.effective}
    return metrics | {EFFECTIVE_CHANNELS: effective.item() / int(deciding) if deciding > 0 else torch.nan}


def effective_channels(result: Advantages) -> Tensor:
    """Return how many channels decide each completion that any channel decides.

    It is the participation ratio (sum |r|)^2 / sum r^2 of the responsibilities r of its live channels: m if m of them
    count equally, 1 if one decides. A channel that is constant in the group decides nothing there. This number
    describes the rule. The number of directions in the rewards themselves, a property of their correlations, is
    different.
    """
    r = (result.responsibilities.detach().abs() * result.live)[result.signal]
    r = r[r.sum(1) > 0]
    r = r / r.amax(1, keepdim=True)  # so that the square of a tiny share is not 0
    return r.sum(1).square() / r.square().sum(1)


def bottlenecks(result: Advantages) -> Tensor:
    """Return (N, M) which live channel of a completion is lowest. Rows sum to 1, or to 0 without any; ties share."""
    z = result.z.detach().masked_fill(~result.live, 0.0)
    return aggregate.hard_min(z, result.live.to(z.dtype))[1]


def rarely_met(rewards: Tensor, below: float = 0.3, shards: Whole = WHOLE) -> Tensor:
    """Return which channels are rarely met, so that a soft minimum suppresses them instead of guarding them.

    A completion meets a channel if its reward is above the middle of the channel's range; at the middle it half meets
    it. For a binary channel met with probability p, a success has z = sqrt((1-p)/p) and a failure only
    z = -sqrt(p/(1-p)). While p is small, failures change the minimum little and successes never do.

    Args:
        rewards: (N, M), NaN = missing. More completions make the result more certain.
        below: largest share that counts as rare.
        shards: where the rows are.

    Returns:
        (M,) bool, True where the share of scored completions that meet the channel lies below ``below`` by three
        standard errors. Channels that are constant, or scored on fewer than 32 completions, are False.
    """
    scored = ~rewards.isnan()
    everything = OneGroup(rewards, shards)
    low, high = everything.ends(rewards.masked_fill(~scored, torch.inf), rewards.masked_fill(~scored, -torch.inf))
    low, high = low[0], high[0]
    middle = (low + high) / 2
    met = ((rewards > middle).to(rewards.dtype) + 0.5 * (rewards == middle)).masked_fill(~scored, 0.0).sum(0)
    met, n = shards.sum(met, scored.sum(0))
    share = met / n
    error = (share * (1 - share) / n).sqrt()
    return (n >= 32) & (low < high) & (share + 3 * error < below)
