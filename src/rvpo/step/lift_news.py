"""Warnings about LIFT: problems that the rule cannot solve, and what the user can do. Each is given once.

They are derived from the state before and after a batch, so a resumed run does not repeat them.
:mod:`rvpo.core.lift_watch` decides what is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.core import Method
from rvpo.core import lift_watch as watch
from rvpo.core.channels import State
from rvpo.core.methods.lift import LIFT
from rvpo.core.methods.riskpo import RiskPO
from rvpo.core.running_mean import RunningMean

SHOWN = 6
"""Largest number of channels in a message."""


def news_of_lift(method: Method, before: State, after: State) -> list[str]:
    """Return the warnings after a batch; an empty list for methods other than LIFT.

    Args:
        method: the method of the run. LIFT may also be the score of RiskPO.
        before: state of the run before the batch.
        after: state of the run after the batch.
    """
    if isinstance(method, RiskPO):
        return news_of_lift(method.score, before.get("score", {}), after.get("score", {}))
    if not isinstance(method, LIFT):
        return []
    old, new = before.get("watch", {}).get("reported", {}), after.get("watch", {})
    said = []
    for kind, say in ((watch.EXCLUDE, _exclude), (watch.LEADS, _leads), (watch.FLAT, _flat)):
        if names := _fresh(old, new, kind):
            said.append(say(names, after, method))
    said += [_starts_below(name, after, method) for name in _fresh(old, new, watch.STARTS_BELOW)]
    said += [_below(name, after, method) for name in _fresh(old, new, watch.BELOW)]
    return said


def _fresh(old: Mapping[str, Sequence[str]], new: Mapping[str, Any], kind: str) -> list[str]:
    known = set(old.get(kind, ()))
    return [name for name in new.get("reported", {}).get(kind, ()) if name not in known]


def _attained(names: Sequence[str], after: State) -> dict[str, float]:
    shares = RunningMean.from_state(after.get("attained"), 1).mean(names)
    return dict(zip(names, shares.tolist(), strict=True))


def _listed(names: Sequence[str], notes: Mapping[str, str]) -> str:
    """Return ``'a' (note), 'b' (note)``, and the number of further names."""
    shown = [f"{name!r} ({notes[name]})" for name in names[:SHOWN]]
    more = len(names) - len(shown)
    if more:
        return ", ".join(shown) + f" and {more} more"
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def _exclude(names: Sequence[str], after: State, method: LIFT) -> str:
    shares = _attained(names, after)
    frontier = after["watch"]["frontier"]
    first = names[0]
    weights = ""
    if method.kappa > 0:
        above = " and ".join(f"{math.log(w) / method.kappa:.2f} for weight {w}" for w in (2, 3))
        weights = (
            f"(1) weights: a channel of weight w ends ln(w) / kappa of attained share above one of weight 1, {above} "
            f"(kappa={method.kappa:g}); "
        )
    notes = {name: f"attained {share:.2f}" for name, share in shares.items()}
    return (
        f"These channels seem to exclude each other: {_listed(names, notes)}. "
        f"For {frontier['low']} batches there was hardly any advantage that raises all of them "
        f"(rvpo/lift/frontier is {frontier['mean']:.2f} on average; 1 means that nothing opposes them). LIFT raises "
        f"the lowest of them at the cost of the others. If you want another balance, choose it: {weights}(2) a floor "
        f"for the channel that must not be traded, such as floors={{{first!r}: 0.8}}; or (3) drop one of them. "
        "This warning is shown once."
    )


def _leads(names: Sequence[str], after: State, method: LIFT) -> str:
    records = after["watch"]["channels"]
    notes = {
        name: f"attained {records[name]['level']:.2f}, {records[name]['leads']['start']:.2f} "
        f"{records[name]['leads']['batches']} batches ago"
        for name in names
    }
    one = len(names) == 1
    return (
        f"LIFT works most on {_listed(names, notes)}, but {'it does' if one else 'they do'} not rise. Either the "
        f"policy cannot meet {'it' if one else 'them'} yet, or the reward is noise or ends below 1. Look at the "
        f"rewards of {names[0]!r} next to the completions. If its judge may be noisy, judge a share of them twice, "
        "reliability=Reliability(twice=0.1), so that LIFT trusts it as far as its verdicts agree. If the rewards are "
        f"right, warm-start the policy on examples that meet it. Otherwise lower its weight, weights={{{names[0]!r}: "
        "0.3}, or declare the range that it can reach."
    )


def _flat(names: Sequence[str], after: State, method: LIFT) -> str:
    records = after["watch"]["channels"]
    notes = {}
    for name in names:
        (low, high), flat = records[name]["flat_range"], records[name]["flat"]
        if high < 1e-9:
            note = "never met, attained 0"
        elif high - low < 1e-9:
            note = f"always attained {low:.2f}"
        else:
            note = f"equal within each group, attained {low:.2f} to {high:.2f}"
        notes[name] = f"{note}, {flat['completions']} completions"
    one = len(names) == 1
    return (
        f"For {watch.STUCK} batches no group had different rewards of {_listed(names, notes)}: "
        f"{'this channel teaches' if one else 'these channels teach'} nothing, and LIFT cannot lift what is never "
        "sampled. Look at its rewards: if they are wrong, correct the reward function or its range. If they are right, "
        "warm-start the policy on examples that meet it, or give partial credit for coming close."
    )


def _starts_below(name: str, after: State, method: LIFT) -> str:
    (share,) = _attained([name], after).values()
    return (
        f"{name!r} starts below its floor: attained {share:.2f}, floor {method.floors[name]:g}. LIFT raises it to the "
        "floor first, and the other channels wait. If they should not wait, lower the floor."
    )


def _below(name: str, after: State, method: LIFT) -> str:
    records, floor = after["watch"]["channels"], method.floors[name]
    record = records[name]
    others = [
        other for other in sorted(method.floors) if other != name and "below" in records.get(other, {})
    ]  # below as well
    (share,) = _attained([name], after).values()
    kept = "keep" if record["kept"] else "reach"
    also = "".join(
        f" The floor of {other!r} is not met either (attained {level:.2f}, floor {method.floors[other]:g}): the floors "
        "may exclude each other. Lower one of them."
        for other, level in _attained(others[:1], after).items()
    )
    steps = "Use a smaller learning rate, or lower the floor" if record["kept"] else "It may be out of reach: lower it"
    return (
        f"LIFT cannot {kept} the floor {floor:g} of {name!r}: its attained share has been below it for "
        f"{record['below']['batches']} batches, although it is raised before all others, and is {share:.2f} now. "
        f"{steps}.{also}"
    )
