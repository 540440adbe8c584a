"""Trust: estimate how reliable a noisy channel is, and reduce its influence accordingly.

:class:`rvpo.Aggregator` uses this module only through :class:`Reliability`, which is off by default.

**Model.** Within a group, a reward is a true value plus independent noise, R = T + E. The reliability of a channel is

    rho = var T / var R = 1 - var E / var R        in [0, 1], within groups

**Shrinking Z.** If T and E are normal, the best estimate of the truth is Kelley's regressed score (T. L. Kelley,
*Fundamentals of Statistics*, 1947), E[T | R] = mean + rho (R - mean). The observed z-score Z is in units of
sd R = sd T / sqrt(rho). The noise-free z-score is in units of sd T. In these units the same estimate is::

    Z' = rho (R - mean) / sd T = sqrt(rho) Z

To second order in k this is also the best estimate of the noise-free soft minimum A = m - (k/2) var(Z): for independent
channels E[m | R] is the mean of Z', and E[var | R] is the variance of Z' plus a term that is the same for all
completions, which whitening removes.

**Shrinking the share.** As rho -> 0, Z' -> 0 for every completion. A channel with Z = 0 that takes part in a minimum
caps the aggregate of completions that are good on all others. A channel whose spread is only noise is like a dead
channel, and must be dropped like one. The spread (standard deviation) of Z' is sqrt(rho): 1 for a reliable channel, 0
for a dead one. The share is scaled by it::

    p'_j proportional to p_j sqrt(rho_j)

so that rho = 1 changes nothing and rho = 0 drops the channel. Scaling only the share is not enough: the only live
channel has the share 1 for any reliability, and only Z' shows that there is little to learn. This exponent is chosen,
not derived. With one noisy channel of five it came within 0.001 of the best of six formulas for GDPO and k = 1 to 5
(correlation with the noise-free advantages, ``benchmarks/trust.py``). With four noisy channels of five, Z' without the
share was better by up to 0.013. A hard minimum ignores shares, so there a channel with 0 < rho << 1 still caps.

**Why not the whole posterior.** -1/k ln E[exp(-k T) | R] adds k^2 (1 - rho) / 2 to a channel's exponent: risk aversion
against the noise itself. It makes an unreliable channel a larger bottleneck, and more so for larger k.

**Estimating rho.** Two judgements of one completion differ only by noise: E[(X1 - X2)^2] = 2 var E. An error that both
judgements share (a biased judge, or a cached or greedy judge that is called twice) does not count as noise here: rho
measures repeatability, not truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rvpo.core import Advantages, Channels, Method
from rvpo.core.channels import owner_of
from rvpo.core.checks import require_number
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.normalize import GroupScores
from rvpo.core.ragged import ChannelScores, Family
from rvpo.core.shards import WHOLE, Whole
from rvpo.errors import ConfigError, RewardError

# Decayed sums, one per channel: half the squared differences of pairs and their number, squared deviations from the
# group mean and their degrees of freedom.
STATE = ("noise", "pairs", "spread", "dof")
TrustState = dict[str, list[float]]


@dataclass(frozen=True)
class Trust:
    """How reliabilities are estimated from completions that are judged twice.

    Attributes:
        horizon: number of steps over which evidence counts, >= 1. Each step the sums keep 1 - 1 / horizon of the past.
        prior: number of imaginary pairs without noise, >= 0. They keep rho near 1 until there is evidence. They do not
            decay.
        floor: lowest rho, in [0, 1).
    """

    horizon: float = 100.0
    prior: float = 20.0
    floor: float = 0.05

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        require_number("trust horizon", self.horizon, math.inf)
        require_number("trust prior", self.prior, math.inf)
        require_number("trust floor", self.floor, 1)
        if self.horizon < 1:
            raise ConfigError(f"trust horizon is {self.horizon!r}; expected a number of steps >= 1 (1: no memory)")


def shrink(z: Tensor, p: Tensor, reliability: Tensor | Sequence[float]) -> tuple[Tensor, Tensor]:
    """Shrink z-scores and channel shares by reliability.

    Args:
        z: (N, M) group z-scores.
        p: (N, M) channel shares; the sum of each row does not change.
        reliability: (M,) or (N, M), in [0, 1]. 1 changes nothing, to the last bit; 0 drops the channel.

    Returns:
        ``z`` and ``p``, both (N, M). A row in which all channels have reliability 0 has shares of 0: no signal.

    Raises:
        RewardError: the shapes do not fit, or a reliability is outside [0, 1].
    """
    rho = torch.as_tensor(reliability, dtype=z.dtype, device=z.device)
    if z.ndim != 2 or p.shape != z.shape or rho.shape not in (z.shape, z.shape[1:]):
        raise RewardError(
            f"z, p and reliability have shapes {tuple(z.shape)}, {tuple(p.shape)} and {tuple(rho.shape)}; expected "
            "(N, M), (N, M) and (M,) or (N, M): one reliability per channel"
        )
    if not bool(((rho >= 0) & (rho <= 1)).all()):
        bad = rho[~((rho >= 0) & (rho <= 1))][0].item()
        raise RewardError(f"reliability has the value {bad}; expected numbers in [0, 1]: use 1 where it is unknown")
    trust = rho.sqrt()
    shares = p * trust
    total = shares.sum(-1, keepdim=True)
    return z * trust, shares * (p.sum(-1, keepdim=True) / total.masked_fill(total == 0, 1.0))


def next_reliability(
    first: Tensor,
    second: Tensor,
    rewards: Tensor,
    groups: Groups,
    trust: Trust,
    state: Mapping[str, list[float]] | None,
    shards: Whole = WHOLE,
) -> tuple[Tensor, TrustState]:
    """Add the evidence of a batch and estimate the reliability of K channels that stay the same during training.

    ::

        rho = 1 - var E / var R       var E = sum of (x1 - x2)^2 / 2 over (pairs + prior),  clipped to [floor, 1]

    Both variances pool all groups, including constant ones. The pairs come from all groups, so leaving constant groups
    out of the spread only would bias rho upwards.

    Args:
        first: (n, K) first judgements of n completions, chosen at random by the caller; NaN = missing. n may be 0.
        second: (n, K) second judgements of the same completions, independent of the first: not from a cache.
        rewards: (N, K) all rewards of the batch that are used, each judged once; NaN = missing.
        groups: the groups of these N rows.
        trust: horizon, prior and floor.
        state: state that the last call returned; None before the first batch.
        shards: where the rows of the batch are.

    Returns:
        (K,) reliability in float64 on the CPU, and the new state: a mapping of lists that JSON can store.

    Raises:
        RewardError: the shapes do not fit, or a value is infinite.
        ConfigError: the state has another number of channels or other keys.
    """
    channels = rewards.shape[-1]
    if rewards.ndim != 2 or first.ndim != 2 or first.shape != second.shape or first.shape[1] != channels:
        raise RewardError(
            f"first, second and rewards have shapes {tuple(first.shape)}, {tuple(second.shape)} and "
            f"{tuple(rewards.shape)}; expected (n, K), (n, K) and (N, K): one row per completion judged twice"
        )
    if bool(first.isinf().any() | second.isinf().any() | rewards.isinf().any()):
        raise RewardError("a judgement is infinite; expected finite numbers, and NaN = missing: check the judge")
    first, second, rewards = (x.detach().cpu().double() for x in (first, second, rewards))
    half = (first - second).square() / 2
    new = {
        "noise": half.nansum(0),
        "pairs": (~half.isnan()).sum(0),
        **dict(zip(("spread", "dof"), _spread(rewards, groups), strict=True)),
    }
    new = dict(zip(new, shards.sum(*new.values()), strict=True))
    keep = 1 - 1 / trust.horizon
    old = _load(state, channels)
    sums = {key: keep * old[key] + new[key] for key in STATE}

    return _reliability(sums, trust), {key: value.tolist() for key, value in sums.items()}


@dataclass(frozen=True)
class Evidence:
    """Evidence of a run about the reliability of named channels, which need not be present in every batch.

    Attributes:
        names: K names.
        state: state of :func:`next_reliability` for these names; None before the first batch.
    """

    names: tuple[str, ...] = ()
    state: TrustState | None = None

    def update(
        self,
        rewards: Tensor,
        groups: Groups,
        channels: Channels,
        pairs: Mapping[str, Sequence[tuple[float, float]]],
        trust: Trust,
        shards: Whole = WHOLE,
    ) -> Evidence:
        """Add a batch.

        Args:
            rewards: (N, M) rewards, NaN = missing.
            groups: groups of these rows.
            channels: the channels, with the channel of each cell.
            pairs: name -> first and second judgements of the cells of that channel that were judged twice.
            trust: horizon, prior and floor.
            shards: where the rows of the batch are.
        """
        names = (*self.names, *(name for name in channels.names if name not in self.names))
        n, m = rewards.shape
        # Each cell of a row is ranked within its own column, so here a group is a pair of a group and a column.
        place = torch.tensor([names.index(name) for name in channels.names])[channels.index.cpu()].expand(n, m)
        spread = torch.full((n * m, len(names)), torch.nan, dtype=torch.float64)
        spread.scatter_(1, place.reshape(-1, 1), rewards.detach().cpu().double().reshape(-1, 1))
        cells = groups.index.cpu()[:, None] * m + torch.arange(m)
        longest = max(map(len, pairs.values()), default=0)
        judged = torch.full((2, longest, len(names)), torch.nan, dtype=torch.float64)
        for name, values in pairs.items():
            if values:
                judged[:, : len(values), names.index(name)] = torch.tensor(values, dtype=torch.float64).T
        grown = {key: [*values, *[0.0] * (len(names) - len(values))] for key, values in (self.state or {}).items()}
        groups = Groups(cells.flatten(), groups.count * m)
        _, state = next_reliability(judged[0], judged[1], spread, groups, trust, grown or None, shards)
        return Evidence(names, state)

    def reliability(self, names: Sequence[str], trust: Trust) -> dict[str, float]:
        """Return the estimates for those of ``names`` that the run has seen."""
        if self.state is None:
            return {}
        rho = _reliability(_load(self.state, len(self.names)), trust).tolist()
        return {name: value for name, value in zip(self.names, rho, strict=True) if name in names}

    def to_state(self) -> dict[str, object]:
        """Return plain data, empty before the first batch."""
        return {} if self.state is None else {"names": list(self.names), **self.state}

    @classmethod
    def from_state(cls, state: Mapping[str, list[Any]] | None) -> Evidence:
        """Undo :meth:`to_state`, to the last bit."""
        if not state:
            return cls()
        return cls(tuple(state["names"]), {key: state[key] for key in STATE})


def flip_reliability(rate: float, flip: float) -> float:
    """Return the reliability of a binary channel that is met with probability ``rate`` and misjudged with ``flip``.

    A judgement has the expectation e + (1 - 2e) T given the truth, so::

        rho = (1 - 2e)^2 q (1 - q) / (q' (1 - q'))       q' = e + (1 - 2e) q, the observed rate

    Args:
        rate: q in [0, 1], within a group.
        flip: e in [0, 0.5], the same for both verdicts.

    Raises:
        ConfigError: a probability is outside its range.
    """
    require_number("rate", rate, 1, closed=True)
    require_number("flip", flip, 0.5, closed=True)
    seen = flip + (1 - 2 * flip) * rate
    if seen in (0, 1):
        return 1.0
    return (1 - 2 * flip) ** 2 * rate * (1 - rate) / (seen * (1 - seen))


def _reliability(sums: Mapping[str, Tensor], trust: Trust) -> Tensor:
    noise = sums["noise"] / (sums["pairs"] + trust.prior).clamp(min=torch.finfo(torch.float64).tiny)
    observed = sums["spread"] / sums["dof"].clamp(min=torch.finfo(torch.float64).tiny)
    rho = 1 - noise / observed.masked_fill(observed == 0, torch.inf)
    return rho.clamp(min=trust.floor, max=1.0)


def _spread(rewards: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
    """Sum squared deviations from the group mean over all groups (K,), and their degrees of freedom (K,)."""
    groups = Groups(groups.index.cpu(), groups.count, groups.block)
    missing = rewards.isnan()
    scored = groups.sum((~missing).to(rewards.dtype))
    mean = groups.sum(rewards.masked_fill(missing, 0.0)) / scored.clamp(min=1)
    squares = (rewards - groups.broadcast(mean)).masked_fill(missing, 0.0).square()
    return squares.sum(0), (scored - 1).clamp(min=0).sum(0)


def _load(state: Mapping[str, list[float]] | None, channels: int) -> dict[str, Tensor]:
    """Return the sums of a state as (K,) tensors, zeros before the first batch."""
    if state is None:
        return {key: torch.zeros(channels, dtype=torch.float64) for key in STATE}
    seen = {key: len(value) for key, value in state.items()}
    if seen != dict.fromkeys(STATE, channels):
        raise ConfigError(
            f"trust state has the lists {seen}; expected {', '.join(STATE)} with {channels} values each: resume "
            "with the channels that it was saved with, or start anew with None"
        )
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in state.items()}


class Reliability:
    """Reliability of each channel for :class:`rvpo.Aggregator`, given or estimated.

    Attributes:
        given: name of a channel -> its reliability in [0, 1]. For a rubric, the name of a label or of the function.
        twice: share of completions that every reward function scores a second time. An engine does that.
        trust: how reliabilities are estimated from the completions that were scored twice.

    Raises:
        ConfigError: a share is outside [0, 1].

    Example:
        >>> import rvpo
        >>> from rvpo.step.trust import Reliability
        >>> agg = rvpo.Aggregator("gdpo", ["helpful", "safe"], reliability=Reliability({"helpful": 0.6}))
    """

    def __init__(
        self, given: Mapping[str, float] | None = None, *, twice: float = 0.0, trust: Trust | None = None
    ) -> None:
        """Start without evidence."""
        self.given, self.twice, self.trust = dict(given or {}), twice, trust or Trust()
        for name, share in self.given.items():
            require_number(f"reliability of {name!r}", share, 1, closed=True)
        require_number("reliability: twice", twice, 1, closed=True)
        self._evidence = Evidence()
        self._functions: tuple[str, ...] = ()

    def check(self, names: Sequence[str]) -> None:
        """Check the names of channels. A label of a rubric is accepted if its function exists.

        Args:
            names: names of the reward functions.

        Raises:
            ConfigError: ``given`` names a channel that does not exist.
        """
        if unknown := [name for name in self.given if owner_of(name, names) is None]:
            raise ConfigError(f"reliability names the channel {unknown[0]!r}; expected one of {', '.join(names)}")
        self._functions = tuple(names)

    def by_name(self, channels: Channels) -> dict[str, float]:
        """Return the reliability of each channel, or an empty mapping if all are trusted fully.

        A given value comes first: that of the channel, or for a rubric's label that of the function. Otherwise it is
        the estimate.
        """
        if not self.given and not self.twice:
            return {}
        known = self._evidence.reliability(channels.names, self.trust) if self.twice else {}
        given, functions = self.given, self._functions or channels.names
        owners = {name: owner_of(name, functions) or name for name in channels.names}
        return {name: given.get(name, given.get(owner, known.get(name, 1.0))) for name, owner in owners.items()}

    def cells(self, channels: Channels) -> Tensor | None:
        """Return the reliability of each cell, (M,) or (N, M) float64 on the CPU; None if all are trusted fully."""
        trusted = self.by_name(channels)
        if not trusted:
            return None
        return torch.tensor(list(trusted.values()), dtype=torch.float64)[channels.index.cpu()]

    def learn(
        self,
        result: Advantages,
        channels: Channels,
        pairs: Mapping[str, list[tuple[float, float]]],
        shards: Whole = WHOLE,
    ) -> None:
        """Add a batch and its completions that were judged twice."""
        if self.twice:
            self._evidence = self._evidence.update(result.rewards, result.groups, channels, pairs, self.trust, shards)

    def to_state(self) -> dict[str, object]:
        """Return the evidence as plain data, empty before the first batch."""
        return self._evidence.to_state()

    def load_state(self, state: Mapping[str, list[Any]] | None) -> None:
        """Undo :meth:`to_state`, to the last bit."""
        self._evidence = Evidence.from_state(state)


def shrinking(reliability: Tensor) -> Any:
    """Return a function for ``adjust`` of :func:`rvpo.core.compute` that shrinks z-scores and weights."""

    def adjust(scores: GroupScores, weights: Tensor) -> tuple[GroupScores, Tensor]:
        # A method uses only shares, and the eps of the whitening uses a row's total: `shrink` keeps both right.
        z, shrunk = shrink(scores.z.nan_to_num(nan=0.0), weights, reliability)
        return replace(scores, z=z.masked_fill(scores.missing, torch.nan)), shrunk

    return adjust


def trusting(method: Method, reliability: Tensor | None) -> dict[str, Any]:
    """Return arguments of :func:`rvpo.core.compute` that apply reliabilities; empty if all channels are trusted fully.

    A method that reads reliabilities gets them unchanged. For other methods of z-scores, z-scores and weights are
    shrunk. A method of rewards, such as GRPO, trusts all channels fully.
    """
    if reliability is None:
        return {}
    if method.uses_reliability:
        return {"reliability": reliability}
    return {"adjust": shrinking(reliability)} if method.uses_z else {}


@dataclass(frozen=True)
class Again:
    """Completions that were scored a second time.

    Attributes:
        rows: indices among the N completions of all processes.
        rewards: (len(rows), F) their second rewards.
        families: their second verdicts of rubrics.
    """

    rows: list[int]
    rewards: Tensor
    families: list[Family]

    def pairs(
        self, names: Sequence[str], rewards: Tensor, families: Sequence[Family], table: ChannelScores | None
    ) -> dict[str, list[tuple[float, float]]]:
        """Return both judgements per channel of the run. ``rewards`` (N, F) and ``families`` are the first ones."""
        replaced = {family.name for family in families if not family.only_monitored}
        firsts, seconds = rewards[self.rows].T.tolist(), self.rewards.T.tolist()
        pairs = {
            name: list(zip(first, second, strict=True))
            for name, first, second in zip(names, firsts, seconds, strict=True)
            if name not in replaced
        }
        for family, again in zip(families, self.families, strict=True):
            assert table is not None  # because there are families
            column = table.first_column[family.name]
            for row, scores in zip(self.rows, again.rows, strict=True):
                channels = table.channels.index[row].tolist()
                for j, (first, second) in enumerate(zip(family.rows[row], scores, strict=True), column):
                    values = tuple(math.nan if score.value is None else score.value for score in (first, second))
                    pairs.setdefault(table.channels.names[channels[j]], []).append(values)  # type: ignore[arg-type]
        return pairs
