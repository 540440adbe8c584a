"""What a diagnosis is made of; :mod:`rvpo.diagnose.diagnose` makes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rvpo.diagnose.diverging import Divergence
from rvpo.logs.guess import Guess

if TYPE_CHECKING:  # it reads logs, and needs their extra; the alarm of a training does not
    from rvpo.diagnose.exploration import Exploration


def or_none(value: float) -> float | None:
    """Return a number, None where it is not finite: JSON has no others."""
    return float(value) if math.isfinite(value) else None


def say(pull: float | None, correlation: float | None, fair: float | None) -> float | None:
    """Return how far a channel gets its way, as a multiple of a fair share; None where it is not known.

    The smaller of the two numbers that decide whether it is neglected: its pull, and the correlation of the advantage
    with it over the fair one. So a channel that does not count has none, also if it rises with others that do, and
    neither has one that counts and is outvoted. Below 0, the advantage works against it.

    Args:
        pull: how far it moves the advantage, in units of the average channel's.
        correlation: within groups, of the advantage with the channel.
        fair: what that would be if all channels counted the same.
    """
    if pull is None or correlation is None or not fair:
        return None
    return min(pull, correlation / fair)


VERDICTS = ("diverging", "neglected", "noisy", "unclear", "dead", "saturated", "healthy")
"""In order of how much they want a look."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its bootstrap interval over groups; None where the logs do not say."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """How and why a channel is neglected, as far as the logs show; a page and a terminal put it into words.

    Attributes:
        kinds: of ``"ignored"``, ``"reversed"`` and ``"outvoted"``, those that hold.
        monitored: whether its weight is 0.
        wider: channel that varies most within groups, where raw rewards may have been summed and it varies more than
            four times as much; None otherwise.
        times_wider: how many times as much; None without ``wider``.
        opposed: up to two channels that pull the other way, the strongest first, with their correlations within groups.
    """

    kinds: tuple[str, ...]
    monitored: bool = False
    wider: str | None = None
    times_wider: float | None = None
    opposed: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelDiagnosis:
    """One channel of a run.

    Attributes:
        name: of the channel.
        verdict: one of ``VERDICTS``.
        rule: the sentence, with its numbers, that gave the verdict.
        confidence: share of bootstrap resamples that give the same verdict, times how often the guesses that it rests
            on are right; None where it is unclear.
        mean: reward over the scored completions.
        trend: change of the mean from the first to the last step, by a straight line.
        early: mean reward of the first third of the steps.
        late: of the last third.
        live: share of completions on which it ranks their group.
        dead: share on which it is scored and constant in the group.
        missing: share that is not scored.
        live_groups: share of the groups that it ranks.
        correlation: within groups, of the advantage that the run used with the channel, where it is live.
        fair: what that would be if all live channels were independent and counted the same.
        pull: how far it moves the used advantage while all other channels stay, in units of the average channel's.
        punished: of two completions of a group, how often the one that is better in it got the lower advantage.
        responsibility: mean share of the decision under the soft minimum.
        bottleneck: share of completions on which it is the lowest.
        ceiling: share of the completions of the last third that have its highest reward.
        reliability: share of its variance within groups that is no noise, from equal completions that were scored
            differently; None without such completions.
        pairs: degrees of freedom of that estimate.
        cause: how and why it is neglected; None for another verdict.
        divergence: the monitor that fell while it rose, and when; None for another verdict.
        unexplored: share of the groups in which no completion meets it, see :mod:`rvpo.core.met`; None where that is
            not known, as without a range for a graded reward outside of [0, 1].
        suppressed: share in which some completions meet it, not all, and none of those got a positive advantage.
    """

    name: str
    verdict: str
    rule: str
    confidence: float | None
    mean: Estimate
    trend: Estimate
    early: float | None
    late: float | None
    live: float | None
    dead: float | None
    missing: float | None
    live_groups: Estimate
    correlation: Estimate
    fair: float | None
    pull: Estimate
    punished: Estimate
    responsibility: Estimate
    bottleneck: Estimate
    ceiling: Estimate
    reliability: Estimate
    pairs: int
    cause: Cause | None = None
    divergence: Divergence | None = None
    unexplored: Estimate = Estimate(None)
    suppressed: Estimate = Estimate(None)

    @property
    def say(self) -> float | None:
        """How far it got its way; see :func:`say`."""
        return say(self.pull.value, self.correlation.value, self.fair)


@dataclass(frozen=True, slots=True)
class Curves:
    """How channels moved: T points in time, or fewer that average several.

    Attributes:
        steps: T steps (the last of those that a point averages).
        mean: channel -> T mean rewards; None where nothing was scored, here and below.
        responsibility: channel -> T mean responsibilities under the soft minimum.
        correlation: channel -> T correlations within groups of the used advantage with it.
        live: channel -> T shares of completions on which it is live.
        missing: channel -> T shares of completions on which it is missing.
    """

    steps: tuple[int, ...]
    mean: Mapping[str, tuple[float | None, ...]]
    responsibility: Mapping[str, tuple[float | None, ...]]
    correlation: Mapping[str, tuple[float | None, ...]]
    live: Mapping[str, tuple[float | None, ...]]
    missing: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class Influence:
    """What the advantage that was used made of each channel over time: B points, fewer than :class:`Curves` has.

    Attributes:
        steps: B last steps of each point.
        pull: channel -> B pulls, in units of the average channel's; None where it ranked nothing, here and below.
        say: channel -> B multiples of a fair share by which it got its way, see :func:`say`.
    """

    steps: tuple[int, ...]
    pull: Mapping[str, tuple[float | None, ...]]
    say: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Which reward is being ignored.

    Attributes:
        run: its name.
        path: of the logs.
        kind: of the logs, see :class:`rvpo.logs.run.Run`.
        method: whose advantages were used, in words.
        k: of the soft minimum for responsibilities.
        level: of the intervals.
        completions: how many.
        groups: how many.
        steps: how many.
        channels: one each, in order of the run.
        correlations: (K, K) within groups, between z-scores where both are live; None where they never are.
        curves: over the steps.
        notes: what a reader has to know.
        influence: of the channels over the steps.
        guesses: what the logs do not say and was guessed; verdicts rest on it.
        exploration: questions solved by none, some and all of their completions, Pass@k and entropy over the steps.
    """

    run: str
    path: str
    kind: str
    method: str
    k: float
    level: float
    completions: int
    groups: int
    steps: int
    channels: tuple[ChannelDiagnosis, ...]
    correlations: tuple[tuple[float | None, ...], ...]
    curves: Curves
    notes: tuple[str, ...]
    influence: Influence | None = None
    guesses: tuple[Guess, ...] = ()
    exploration: Exploration | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"schema": "rvpo.diagnosis/1", **asdict(self)}
