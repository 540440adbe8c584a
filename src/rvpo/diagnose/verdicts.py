"""The plain verdict on a channel, and the sentence that gave it.

Rules are tried in this order; a channel has the first that holds. Before all of them comes *diverging*, of a trained
channel that rises while a monitor falls (:mod:`rvpo.diagnose.diverging`)::

    dead        scored on under 1% of its completions, or constant in all but 5% of the groups: it teaches nothing
    saturated   95% of the completions of the last third have its highest reward: nothing left to gain
    noisy       half or more of its variance is noise: equal completions were scored differently (told from 20 such
                comparisons in 10 groups on)
    neglected   ignored: with all other channels held, it moves the used advantage less than a quarter as far as the
                average channel does, and the whole interval says so; or
                outvoted: the advantage follows it less than a quarter as far as if all live channels were independent
                and counted the same, correlation within groups < 0.25 / sqrt(live channels), interval included
    unclear     an interval holds its threshold, or there is none, as where it ranks fewer than eight groups
    healthy     all others

The two differ where channels are correlated. One that does not count at all still rises with those that are like it:
not outvoted, but ignored. One that counts in full and is opposed by ten others is not ignored, but outvoted.
1 / sqrt(m) is the correlation of the mean of m independent z-scores with each of them. The quarter is chosen, not
derived: benchmarks/reports/neglect.py says what it finds and what it mistakes.
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
WIDER = 4  # times, from which a spread within groups explains that a channel is ignored
OPPOSED = -0.05  # correlation within groups, from which a channel pulls the other way


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on a channel.

    Attributes:
        verdict: one of :data:`rvpo.diagnose.diagnosis.VERDICTS`.
        rule: sentence that gave the verdict, with its numbers.
        confidence: share of bootstrap resamples with the same verdict; None if it is unclear, which no resample can be.
        cause: of neglect; None for another verdict.
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
    told = []
    for j in range(len(names)):
        of = {statistic: column[j] for statistic, column in found.items()}
        verdict = tell(of, bool(best[j]))
        rule = sentence(verdict, of, monitored[j])
        why = None
        if verdict == "neglected":
            why = cause(j, names, of, monitored[j], spreads, correlations, sums_raw)
            if advised := advice(why):
                rule = f"{rule}; {advised}"
        share = None if drawn is None or verdict == "unclear" else float((drawn[:, j] == verdict).mean())
        told.append(Judged(verdict, rule, share, why))
    return told


def at_its_best(top: float, low: float, limits: Range | None) -> bool:
    """Tell whether the highest reward seen is the highest that there can be.

    A reward that nobody declared and that is always the same is taken to be at its best from 1 on.
    """
    if limits is not None:
        return top >= limits[1] - 0.05 * (limits[1] - limits[0])
    return top > low or top >= 1


def tell(found: Mapping[str, Estimate], at_best: bool, rules: Rules = RULES) -> str:
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
    """Return what decides whether a channel is ignored, and whether it is outvoted, each with its threshold."""
    return (found["pull"], rules.neglected), (found["correlation"], rules.neglected * (found["fair"].value or 0.0))


def each(values: Mapping[str, Array], at_best: NDArray[np.bool_], rules: Rules = RULES) -> NDArray[np.str_]:
    """Return the verdict that values alone would give, without regard to how sure they are; the shape of a value."""
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
    """Say what gave the verdict, with its numbers."""
    moved = _moved(found)
    if verdict == "dead" and (found["scored"].value or 0.0) < rules.never_scored:
        return f"scored on {percent(found['scored'])} of its completions"
    if verdict == "dead":
        return f"ranks {percent(found['live_groups'])} of the groups, under {rules.dead:.0%}{moved}"
    if verdict == "saturated":
        return f"{percent(found['ceiling'])} of the last third have the highest reward that was seen"
    if verdict == "noisy":
        noise = Estimate(*(None if x is None else 1 - x for x in _flipped(found["reliability"])))
        return f"{percent(noise)} of its variance is noise: equal completions were scored differently"
    (pull, least), (correlation, line) = _lines(found, rules)
    if pull.value is None or correlation.value is None:
        return "there are no advantages where it ranks"
    moves = f"it moves the advantage {times(pull)} as far as the average channel"
    follows = f"the advantage follows it by {interval(correlation)}, at least {line:.2f} would be a quarter of a share"
    if verdict == "unclear":
        unsure = moves if _low(pull) < least <= _high(pull) else follows
        return f"{unsure}: more groups that it ranks would tell{moved}"
    if verdict == "healthy":
        return f"{moves}{moved}"
    told = {
        "reversed": f"reversed: {moves}, downwards: if it is a cost, negate it",
        "ignored": f"ignored: {moves}{', its weight is 0' if monitored else ''}",
        "outvoted": f"outvoted: {follows}",
    }
    reasons = [told[kind] for kind in kinds_of_neglect(found, rules)]
    punished = f"{percent(found['punished'])} of improvements got the lower advantage"
    return f"{'; '.join(reasons)}; {punished}{_suppressed(found)}{moved}"


def kinds_of_neglect(found: Mapping[str, Estimate], rules: Rules = RULES) -> tuple[str, ...]:
    """Return in which ways a neglected channel is: ``"reversed"`` or ``"ignored"``, and ``"outvoted"``."""
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
    """Return how and why a neglected channel is neglected, as far as it can be seen.

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
    """Say what a neglected channel's neglect comes from, where that can be seen, and what there is against it."""
    if why.wider is not None and why.times_wider is not None:
        return (
            f"its spread within groups is {why.times_wider:.0f} times smaller than that of {why.wider!r}: raise its "
            "weight, or use a rule that puts rewards on one scale (gdpo, lift, rvpo)"
        )
    if why.opposed:
        told = ", ".join(f"{name!r} ({c:+.2f})" for name, c in why.opposed)
        return (
            f"opposed by {told}: raise its weight, or use a rule that lets none fall (lift) or guards the lowest (rvpo)"
        )
    return ""


def _suppressed(found: Mapping[str, Estimate]) -> str:
    """Say in how many groups those who meet the channel got no positive advantage, if there are any."""
    share = found.get("suppressed", Estimate(None))
    return f"; suppressed in {percent(share)} of the groups" if share.value else ""


def _moved(found: Mapping[str, Estimate]) -> str:
    """Say that the mean rises or falls, where it clearly does."""
    trend, early, late = found["trend"], found["early"].value, found["late"].value
    if trend.low is None or trend.high is None or early is None or late is None:
        return ""
    if trend.low > 0 and late > early:
        return f"; it rises from {early:.3g} to {late:.3g}"
    return f"; it falls from {early:.3g} to {late:.3g}" if trend.high < 0 and late < early else ""


def _flipped(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.value, estimate.high, estimate.low


def _high(estimate: Estimate) -> float:
    """Return the upper end; where there is none, nothing can be ruled out."""
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
