"""The conclusion of a replay: which method would have given a neglected channel more influence, and how much."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rvpo.diagnose.diagnosis import ChannelDiagnosis, Diagnosis, say
from rvpo.diagnose.replay import Replay, ReplayedMethod
from rvpo.diagnose.verdicts import RULES

RECOMMENDED = ("lift", "gdpo", "rvpo:k=1", "rvpo:k=2")
"""Methods that are proposed before others, in this order, if they give a channel enough influence."""

ENOUGH = 0.5  # of a fair share. Below a quarter is neglect, and a remedy should be clearly above that
CLEARLY = 0.05  # of a fair share: a method has to give at least this much more than the run's own method
NAMED = 4  # channels that a sentence names


@dataclass(frozen=True, slots=True)
class Best:
    """The method that is proposed for a channel.

    Attributes:
        method: the method as text.
        say: the channel's influence, as a multiple of a fair share.
    """

    method: str
    say: float

    @property
    def enough(self) -> bool:
        """Whether the channel would have enough influence."""
        return self.say >= ENOUGH


def say_under(rule: ReplayedMethod, channel: ChannelDiagnosis) -> float | None:
    """Return the influence of a channel under a rule, as :func:`rvpo.diagnose.diagnosis.say` defines it."""
    pull, influence = (rule.pull or {}).get(channel.name), (rule.influence or {}).get(channel.name)
    return say(pull, influence, channel.fair)


def best_methods(diagnosis: Diagnosis, replay: Replay | None) -> dict[str, Best | None]:
    """Return the method to propose for each neglected channel; None if no rule that was tried gives it more influence.

    The first choice is one method of :data:`RECOMMENDED` for the whole run: the one that helps the most neglected
    channels and harms the fewest others. A channel that it does not help gets the rule that helps this channel most.
    """
    neglected = [channel for channel in diagnosis.channels if channel.verdict == "neglected"]
    if replay is None:
        return {channel.name: None for channel in neglected}
    rules = {rule.method: rule for rule in replay.rules if rule.method != replay.own and not rule.problem}
    common = _common(neglected, diagnosis, [rules[name] for name in RECOMMENDED if name in rules])
    return {channel.name: _best(channel, common, rules.values()) for channel in neglected}


def _common(
    neglected: Sequence[ChannelDiagnosis], diagnosis: Diagnosis, rules: Sequence[ReplayedMethod]
) -> ReplayedMethod | None:
    """Return the rule with the most channels gained minus lost, the first of equal ones; None if none gains one."""

    def balance(rule: ReplayedMethod) -> int:
        return sum(_gain(channel, rule) >= ENOUGH for channel in neglected) - len(_lost(diagnosis, rule))

    helping = [rule for rule in rules if any(_gain(channel, rule) >= ENOUGH for channel in neglected)]
    return max(helping, key=balance, default=None)


def _gain(channel: ChannelDiagnosis, rule: ReplayedMethod) -> float:
    """Return the influence of a channel under a rule; -inf if that is not clearly more than in the run."""
    value = say_under(rule, channel)
    return value if value is not None and value > (channel.say or 0.0) + CLEARLY else -math.inf


def _best(channel: ChannelDiagnosis, common: ReplayedMethod | None, rules: Iterable[ReplayedMethod]) -> Best | None:
    if common is not None and (value := _gain(channel, common)) >= ENOUGH:
        return Best(common.method, value)
    most = max(rules, key=lambda rule: _gain(channel, rule), default=None)
    if most is None or (value := _gain(channel, most)) == -math.inf:
        return None
    return Best(most.method, value)


def _lost(diagnosis: Diagnosis, rule: ReplayedMethod) -> list[tuple[str, float]]:
    """Return the channels that are healthy now and would be neglected under a rule, with their influence there."""
    healthy = [channel for channel in diagnosis.channels if channel.verdict == "healthy"]
    found = [(channel.name, say_under(rule, channel)) for channel in healthy]
    return [(name, value) for name, value in found if value is not None and value < RULES.neglected]


def conclusion(diagnosis: Diagnosis, replay: Replay) -> str:
    """Return the conclusion of the replay, in one or two sentences."""
    neglected = [channel for channel in diagnosis.channels if channel.verdict == "neglected"]
    if not neglected:
        return "No channel is neglected in this run, so the replay does not propose another method."
    found = best_methods(diagnosis, replay)
    sentences = []
    for method in dict.fromkeys(best.method for best in found.values() if best and best.enough):
        helped = [c for c in neglected if (best := found[c.name]) and best.enough and best.method == method]
        sentences.append(f"Under {method}, {_gains(helped, found)}{_losses(diagnosis, replay, method)}.")
    if others := [c for c in neglected if not ((best := found[c.name]) and best.enough)]:
        enough = f"{_names(others)} enough influence{_most(others, found)}"
        sentences.append(f"None of the methods tried would have given {enough}.")
    return " ".join(sentences)


def share(value: float | None) -> str:
    """Return a multiple of a fair share as text."""
    return "an unknown share" if value is None else f"{value:.0%}"


def _gains(channels: list[ChannelDiagnosis], found: dict[str, Best | None]) -> str:
    parts: list[str] = []
    for channel in channels[:NAMED]:
        best = found[channel.name]
        assert best is not None  # these channels were helped
        more = " of a fair share of influence" if not parts else ""
        parts.append(f"{channel.name} would have had {share(best.say)}{more} (in this run: {share(channel.say)})")
    more = f", and {len(channels) - NAMED} more channels would have enough" if len(channels) > NAMED else ""
    return ", ".join(parts) + more


def _losses(diagnosis: Diagnosis, replay: Replay, method: str) -> str:
    """Name the channels that are healthy now and would be neglected under the method."""
    rule = next(rule for rule in replay.rules if rule.method == method)
    lost = [f"{name} ({share(value)})" for name, value in _lost(diagnosis, rule)]
    return f"; but {', '.join(lost[:NAMED])} would have had too little" if lost else ""


def _most(channels: list[ChannelDiagnosis], found: dict[str, Best | None]) -> str:
    known = [(best.say, channel.name, best.method) for channel in channels if (best := found[channel.name])]
    if not known:
        return ", or more than in this run"
    value, name, method = max(known)
    return f" (at most {share(value)} of a fair share, {name} under {method})"


def _names(channels: list[ChannelDiagnosis]) -> str:
    names = [channel.name for channel in channels[:NAMED]]
    more = len(channels) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
