"""The verdict on a channel, and the sentence that explains it.

The rules are tried in this order, and the first rule that holds gives the verdict. *Diverging* comes before all of
them: a trained channel rises while a monitor falls (:mod:`rvpo.diagnose.diverging`)::

    dead        scored on less than 1% of its completions, or constant in more than 95% of the groups: it teaches
                nothing
    saturated   95% of the completions in the last third have its highest reward: nothing is left to gain
    noisy       at least half of its variance is noise: identical completions got different scores (needs at least 20
                such comparisons in 10 groups)
    neglected   ignored: with all other channels fixed, it moves the advantage that was used less than a quarter as far
                as the average channel, and the whole interval is below that threshold; or
                outvoted: the correlation of the advantage with it, within groups, is less than a quarter of what it
                would be if all live channels were independent and had equal influence: < 0.25 / sqrt(live channels),
                again with the whole interval
    unclear     the interval contains the threshold, or there is no interval, because the channel varies within fewer
                than eight groups
    healthy     all other channels

"Ignored" and "outvoted" differ when channels are correlated. A channel that has no influence still rises with
channels that are like it: it is ignored, but not outvoted. A channel with full influence that ten others oppose is
outvoted, but not ignored. 1 / sqrt(m) is the correlation of the mean of m independent z-scores with each of them. The
quarter was chosen, not derived: benchmarks/reports/neglect.py measures what it finds and what it gets wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rvpo.core.channels import Range
from rvpo.diagnose.diagnosis import Cause, Estimate

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rules:
    """Thresholds of the verdicts; see above."""

    never_scored: float = 0.01
    dead: float = 0.05
    saturated: float = 0.95
    noisy: float = 0.5
    neglected: float = 0.25


RULES = Rules()
WIDER = 4  # a spread within groups that is this many times smaller explains why a channel is ignored
OPPOSED = -0.05  # a channel with a lower correlation within groups pulls the other way


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on a channel.

    Attributes:
        verdict: one of :data:`rvpo.diagnose.diagnosis.VERDICTS`.
        rule: sentence that explains the verdict, with its numbers.
        confidence: share of bootstrap resamples with the same verdict; None for "unclear", because a single resample
            has no interval and so is never unclear.
        cause: cause of the neglect; None for any other verdict.
    """

    verdict: str
    rule: str
    confidence: float | None
    cause: Cause | None = None


def judged(
    names: Sequence[str],
    found: Mapping[str, Sequence[Estimate]],
    draws: Mapping[str, Array] | None,
    *,
    reached: Sequence[tuple[float, float, Range | None]],
    monitored: Sequence[bool],
    spreads: Array,
    correlations: Sequence[Sequence[float | None]],
    sums_raw: bool,
) -> list[Judged]:
    """Return the verdict on each of K channels.

    Args:
        names: K names.
        found: K estimates of each statistic.
        draws: (R, K) resamples of each statistic; None if there are too few groups.
        reached: lowest and highest reward that was seen, and the declared range.
        monitored: whether the weight of the channel is 0.
        spreads: (K,) standard deviations of rewards within groups.
        correlations: (K, K) between channels, within groups.
        sums_raw: whether raw rewards may have been summed.
    """
    best = np.array([at_its_best(top, low, limits) for low, top, limits in reached])
    drawn = None if draws is None else each(draws, best)
    verdicts = []
    for j in range(len(names)):
        of = {statistic: column[j] for statistic, column in found.items()}
        verdict = verdict_of(of, bool(best[j]))
        rule = sentence(verdict, of, monitored[j])
        why = None
        if verdict == "neglected":
            why = cause(j, names, of, monitored[j], spreads, correlations, sums_raw)
            if advised := advice(why):
                rule = f"{rule}; {advised}"
        share = None if drawn is None or verdict == "unclear" else float((drawn[:, j] == verdict).mean())
        verdicts.append(Judged(verdict, rule, share, why))
    return verdicts


def at_its_best(top: float, low: float, limits: Range | None) -> bool:
    """Return whether the highest reward seen is the highest possible reward.

    A constant reward without a declared range is treated as being at its best if it is at least 1.
    """
    if limits is not None:
        return top >= limits[1] - 0.05 * (limits[1] - limits[0])
    return top > low or top >= 1


def verdict_of(found: Mapping[str, Estimate], at_best: bool, rules: Rules = RULES) -> str:
    """Return the verdict."""
    point = {name: np.array([np.nan if e.value is None else e.value]) for name, e in found.items()}
    verdict = str(each(point, np.array([at_best]), rules)[0])
    if verdict == "noisy" and _high(found["reliability"]) >= rules.noisy:
        verdict = str(each(point | {"reliability": np.array([np.nan])}, np.array([at_best]), rules)[0])
    if verdict in ("neglected", "healthy"):
        lines = _lines(found, rules)
        if any(estimate.value is None for estimate, _ in lines):
            return "unclear"
        if any(_high(estimate) < line for estimate, line in lines):
            return "neglected"
        return "healthy" if all(_low(estimate) >= line for estimate, line in lines) else "unclear"
    return verdict


def _lines(found: Mapping[str, Estimate], rules: Rules) -> tuple[tuple[Estimate, float], tuple[Estimate, float]]:
    """Return the statistics that decide "ignored" and "outvoted", each with its threshold."""
    return (found["pull"], rules.neglected), (found["correlation"], rules.neglected * (found["fair"].value or 0.0))


def each(values: Mapping[str, Array], at_best: NDArray[np.bool_], rules: Rules = RULES) -> NDArray[np.str_]:
    """Return the verdicts that the values alone give, without their intervals, in the shape of the values."""
    with np.errstate(invalid="ignore"):
        never = ~(values["scored"] >= rules.never_scored)
        saturated = (values["ceiling"] >= rules.saturated) & at_best
        dead = ~(values["live_groups"] >= rules.dead)
        noisy = values["reliability"] < rules.noisy
        outvoted = values["correlation"] < rules.neglected * values["fair"]
        neglected = outvoted | (values["pull"] < rules.neglected)
    return np.select(
        [never, saturated, dead, noisy, neglected], ["dead", "saturated", "dead", "noisy", "neglected"], "healthy"
    )


def sentence(verdict: str, found: Mapping[str, Estimate], monitored: bool, rules: Rules = RULES) -> str:
    """Return the sentence that explains the verdict, with its numbers."""
    moved = _moved(found)
    if verdict == "dead" and (found["scored"].value or 0.0) < rules.never_scored:
        return f"scored on {percent(found['scored'])} of its completions"
    if verdict == "dead":
        varies = percent(found["live_groups"])
        return f"its rewards differ within only {varies} of the groups (threshold: {rules.dead:.0%}){moved}"
    if verdict == "saturated":
        return f"{percent(found['ceiling'])} of the completions in the last third have the highest reward seen"
    if verdict == "noisy":
        noise = Estimate(*(None if x is None else 1 - x for x in _flipped(found["reliability"])))
        return f"{percent(noise)} of its variance is noise: identical completions got different scores"
    (pull, least), (correlation, line) = _lines(found, rules)
    if pull.value is None or correlation.value is None:
        return "no advantages are known in the groups within which its rewards differ"
    moves = f"it moves the advantage {times(pull)} as far as the average channel"
    follows = f"its correlation with the advantage is {interval(correlation)}"
    quarter = f"threshold: {line:.2f}, a quarter of a fair share"
    if verdict == "unclear":
        unsure = f"{follows} ({quarter})"
        if _low(pull) < least <= _high(pull):
            unsure = f"{moves} (threshold: {least:.2f})"
        return f"{unsure}: more groups within which its rewards differ are needed to be sure{moved}"
    if verdict == "healthy":
        return f"{moves}{moved}"
    reason_of = {
        "reversed": f"reversed: {moves}: a higher reward lowers the advantage (if lower is better, negate the reward)",
        "ignored": f"ignored: {moves}{', because its weight is 0' if monitored else ''}",
        "outvoted": f"outvoted: {follows} ({quarter})",
    }
    reasons = [reason_of[kind] for kind in kinds_of_neglect(found, rules)]
    punished = f"in {percent(found['punished'])} of the pairs, the better completion got the lower advantage"
    return f"{'; '.join(reasons)}; {punished}{_suppressed(found)}{moved}"


def kinds_of_neglect(found: Mapping[str, Estimate], rules: Rules = RULES) -> tuple[str, ...]:
    """Return in which ways a channel is neglected: ``"reversed"`` or ``"ignored"``, and ``"outvoted"``."""
    (pull, least), (correlation, line) = _lines(found, rules)
    kinds = []
    if _high(pull) < -least:
        kinds.append("reversed")
    elif _high(pull) < least:
        kinds.append("ignored")
    if _high(correlation) < line:
        kinds.append("outvoted")
    return tuple(kinds)


def cause(
    j: int,
    names: Sequence[str],
    found: Mapping[str, Estimate],
    monitored: bool,
    spreads: Array,
    correlations: Sequence[Sequence[float | None]],
    sums_raw: bool,
) -> Cause:
    """Return how and why a neglected channel is neglected, as far as the logs show it.

    Args:
        j: which of the K channels.
        names: K names.
        found: its estimates.
        monitored: whether its weight is 0.
        spreads: (K,) standard deviations of rewards within groups.
        correlations: (K, K) between channels, within groups.
        sums_raw: whether raw rewards may have been summed.
    """
    kinds = kinds_of_neglect(found)
    widest = int(np.nanargmax(spreads)) if not np.isnan(spreads).all() else j
    wider = "ignored" in kinds and sums_raw and not monitored and spreads[widest] > WIDER * spreads[j] > 0
    opposed = sorted((c, names[i]) for i, c in enumerate(correlations[j]) if i != j and c is not None and c < OPPOSED)
    return Cause(
        kinds,
        monitored,
        names[widest] if wider else None,
        float(spreads[widest] / spreads[j]) if wider else None,
        tuple([(name, c) for c, name in opposed[:2]]) if "outvoted" in kinds else (),
    )


def advice(why: Cause) -> str:
    """Return the cause of a channel's neglect and a remedy, as text; empty if the cause is not known."""
    if why.wider is not None and why.times_wider is not None:
        return (
            f"its spread within groups is {why.times_wider:.0f} times smaller than that of {why.wider!r}: raise its "
            "weight, or use a method that puts all rewards on one scale (gdpo, lift, rvpo)"
        )
    if why.opposed:
        others = ", ".join(f"{name!r} ({c:+.2f})" for name, c in why.opposed)
        return (
            f"it is negatively correlated with {others}: raise its weight, or use a method that lets no reward fall "
            "(lift) or that puts most weight on the lowest reward (rvpo)"
        )
    return ""


def _suppressed(found: Mapping[str, Estimate]) -> str:
    """Return the share of groups in which no completion that meets the channel got a positive advantage, as text."""
    share = found.get("suppressed", Estimate(None))
    if not share.value:
        return ""
    return f"; in {percent(share)} of the groups, some completions meet it but none of them got a positive advantage"


def _moved(found: Mapping[str, Estimate]) -> str:
    """Return that the mean rises or falls, as text; empty if it does not clearly do so."""
    trend, early, late = found["trend"], found["early"].value, found["late"].value
    if trend.low is None or trend.high is None or early is None or late is None:
        return ""
    if trend.low > 0 and late > early:
        return f"; its mean rises from {early:.3g} to {late:.3g}"
    return f"; its mean falls from {early:.3g} to {late:.3g}" if trend.high < 0 and late < early else ""


def _flipped(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.value, estimate.high, estimate.low


def _high(estimate: Estimate) -> float:
    """Return the upper end of the interval; infinity without an interval, because nothing can be ruled out."""
    return np.inf if estimate.high is None else estimate.high


def _low(estimate: Estimate) -> float:
    return -np.inf if estimate.low is None else estimate.low


def times(estimate: Estimate) -> str:
    """Return a multiple with its interval."""
    if estimate.value is None:
        return "-"
    ends = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}{ends} times"


def interval(estimate: Estimate) -> str:
    """Return a correlation with its interval."""
    if estimate.value is None:
        return "-"
    ends = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return f"{estimate.value:+.2f}{ends}"


def percent(estimate: Estimate) -> str:
    """Return a share with its interval."""
    if estimate.value is None:
        return "-"
    low, high = estimate.low, estimate.high
    ends = "" if low is None or high is None or high - low < 5e-4 else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{estimate.value:.1%}{ends}"
