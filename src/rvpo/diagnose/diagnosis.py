"""The parts of a diagnosis; :mod:`rvpo.diagnose.diagnose` makes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rvpo.diagnose.diverging import Divergence
from rvpo.logs.guess import Guess

if TYPE_CHECKING:  # this module reads logs and needs their extra; the alarm of a training does not
    from rvpo.diagnose.exploration import Exploration


def or_none(value: float) -> float | None:
    """Return a number, or None if it is not finite, because JSON cannot hold it."""
    return float(value) if math.isfinite(value) else None


def say(pull: float | None, correlation: float | None, fair: float | None) -> float | None:
    """Return the influence of a channel on the advantage, as a multiple of a fair share; None if unknown.

    It is the smaller of the two numbers that decide whether a channel is neglected: its pull, and the correlation of
    the advantage with it, divided by the fair correlation. So it is near 0 for a channel that does not move the
    advantage, even if it rises with channels that do. It is also near 0 for a channel that moves the advantage but is
    outvoted. Below 0, the advantage works against the channel.

    Args:
        pull: how far it moves the advantage; the average channel has 1.
        correlation: correlation of the advantage with the channel, within groups.
        fair: this correlation if all channels had equal influence.
    """
    if pull is None or correlation is None or not fair:
        return None
    return min(pull, correlation / fair)


VERDICTS = ("diverging", "neglected", "noisy", "unclear", "dead", "saturated", "healthy")
"""In order of how much attention they need."""

COPIED = 0.999  # correlation within groups from which channels are copies; logs may round them
FEWEST_TO_COMPARE = 20  # groups; in fewer, different rewards may order all completions alike by chance


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval from a bootstrap over groups; None if the logs do not give it."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """How and why a channel is neglected, as far as the logs show it. The page and the terminal put it into words.

    Attributes:
        kinds: those of ``"ignored"``, ``"reversed"`` and ``"outvoted"`` that hold.
        monitored: whether its weight is 0.
        wider: the channel that varies most within groups, if raw rewards may have been summed and it varies more than
            four times as much as this one; None otherwise.
        times_wider: how many times as much it varies; None without ``wider``.
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
        name: name of the channel.
        verdict: one of ``VERDICTS``.
        rule: the sentence that explains the verdict, with its numbers.
        confidence: share of bootstrap resamples with the same verdict, times the probability that the guesses it
            depends on are right; None if the verdict is unclear.
        mean: mean reward of the scored completions.
        trend: change of the mean from the first to the last step, from a straight-line fit.
        early: mean reward in the first third of the steps.
        late: mean reward in the last third.
        live: share of completions in whose group its rewards differ.
        dead: share of completions that it scores, but with the same reward in the whole group.
        missing: share of completions that it does not score.
        live_groups: share of the groups within which its rewards differ.
        correlation: correlation of the advantage that the run used with the channel, within groups, where it is live.
        fair: this correlation if all live channels were independent and had equal influence.
        pull: how far it moves the advantage while all other channels stay the same; the average channel has 1.
        punished: share of pairs in a group in which the completion with the higher reward got the lower advantage.
        responsibility: mean share of the decision under the soft minimum.
        bottleneck: share of completions on which it is the lowest channel.
        ceiling: share of the completions in the last third that have its highest reward.
        reliability: share of its variance within groups that is not noise, estimated from identical completions with
            different scores; None without identical completions.
        pairs: degrees of freedom of that estimate.
        cause: how and why it is neglected; None for any other verdict.
        divergence: the monitor that fell while it rose, and when; None for any other verdict.
        unexplored: share of the groups in which no completion meets it, see :mod:`rvpo.core.met`; None if that is
            not known, for example for a graded reward outside [0, 1] without a declared range.
        suppressed: share of the groups in which some completions meet it, but not all, and none of these got a
            positive advantage.
        faded: whether it moved the advantage in the first third of the run, and is ignored or reversed in the last.
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
    faded: bool = False

    @property
    def say(self) -> float | None:
        """Its influence on the advantage; see :func:`say`."""
        return say(self.pull.value, self.correlation.value, self.fair)

    @property
    def has_lost_influence(self) -> bool:
        """Whether it is healthy over the whole run, but lost its influence in it."""
        return self.verdict == "healthy" and self.faded


@dataclass(frozen=True, slots=True)
class Curves:
    """How channels changed over T points in time; a point may average several steps.

    Attributes:
        steps: T steps, each the last one that a point averages.
        mean: channel -> T mean rewards; None if nothing was scored, here and below.
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
    """The influence of each channel on the advantage over time, at B points, fewer than :class:`Curves` has.

    Attributes:
        steps: B steps, each the last one of a point.
        pull: channel -> B pulls; the average channel has 1; None if its rewards never differ, here and below.
        say: channel -> B influences, as multiples of a fair share, see :func:`say`.
    """

    steps: tuple[int, ...]
    pull: Mapping[str, tuple[float | None, ...]]
    say: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Which reward is being ignored.

    Attributes:
        run: name of the run.
        path: path of the logs.
        kind: kind of the logs, see :class:`rvpo.logs.run.Run`.
        method: the method whose advantages were used, in words.
        k: risk coefficient of the soft minimum for responsibilities.
        level: level of the intervals.
        completions: number of completions.
        groups: number of groups.
        steps: number of steps.
        channels: one diagnosis per channel, in the order of the run.
        correlations: (K, K) correlations of z-scores within groups, where both channels are live; None if never.
        curves: the channels over the steps.
        notes: facts that a reader has to know.
        influence: influence of the channels over the steps.
        guesses: what the logs do not say and was guessed; verdicts depend on it.
        pooled: channels that are several criteria of a completion, so the verdict is about all of them together.
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
    pooled: tuple[str, ...] = ()
    exploration: Exploration | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"schema": "rvpo.diagnosis/1", **asdict(self)}

    def copies(self) -> list[tuple[str, ...]]:
        """Return the channels that are copies of each other: within groups they order completions alike, at any scale.

        Channels that no method trained on are not counted, nor those with too few groups to exclude chance.
        """
        found: list[tuple[str, ...]] = []
        names = [channel.name for channel in self.channels if self._is_sure(channel)]
        index = {channel.name: j for j, channel in enumerate(self.channels)}
        while names:
            first, *rest = names
            row = self.correlations[index[first]]
            same = [name for name in rest if (c := row[index[name]]) is not None and c >= COPIED]
            names = [name for name in rest if name not in same]
            if same:
                found.append((first, *same))
        return found

    def _is_sure(self, channel: ChannelDiagnosis) -> bool:
        """Whether enough groups show how a channel that is trained on orders completions."""
        return bool(channel.pull.value) and (channel.live_groups.value or 0.0) * self.groups >= FEWEST_TO_COMPARE
