"""What LIFT watches during a run, so that the user is warned of problems that the rule cannot solve.

Four things are watched, in batches (not in wall time); the numbers are calibrated on ``benchmarks/worlds``:

* **Channels that exclude each other.** The running mean of phi over ``AVERAGED`` batches is below ``EXCLUDED`` for
  ``PATIENCE`` batches in a row, and the channels concerned rose by less than ``RISE`` in these, on average. They are
  those whose share of nu, with that of their copies, is at least ``CONCERNED``.
* **A channel that leads the needs without rising.** Its need is at least half of the largest need for ``STUCK`` batches
  and ``STUCK_COMPLETIONS`` completions. In these its attained share rises by less than ``RISE``, and it is below
  ``MET``. Where phi is below ``2 * EXCLUDED``, it must not be opposed, because opposed channels cannot rise.
* **A channel that teaches nothing.** For ``STUCK`` batches it ranks no group and is not met.
* **Floors.** A channel is below its floor when it is first seen; it was above and is below for ``FALLEN`` batches in a
  row; or it was never above and has not risen, as above.

The state holds at most ``MOST`` names besides those of the current batch. What was reported is part of the state, so
that it is not reported again after a resume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.core.channels import State

AVERAGED = 20
"""Batches over which phi, nu and the attained shares that are compared are averaged."""
EXCLUDED = 0.25
"""Mean of phi below which channels exclude each other. In worlds where all channels can be met it is at least 0.4."""
CONCERNED = 0.1
"""Smallest share of nu of a channel that is one of those that exclude each other."""
ALIKE = 0.9
"""Smallest correlation of two channels that count as copies, which share nu."""
PATIENCE = 30
"""Number of batches until channels are reported to exclude each other."""
STUCK = 50
"""Number of batches until a channel is reported not to rise, or to teach nothing."""
STUCK_COMPLETIONS = 800
"""Smallest number of completions that show whether an attained share rises by ``RISE``."""
RISE = 0.03
"""Smallest rise of an attained share that counts as progress."""
MET = 0.9
"""Smallest attained share of a channel that counts as met."""
FALLEN = 10
"""Number of batches below its floor after which a channel is reported not to keep it."""
FIRST = 64
"""Smallest number of completions that show whether a channel starts below its floor."""
SETTLED = 160
"""Number of completions after which the mean attained share is the start of a comparison."""
MOST = 256
"""Largest number of names that are remembered."""
MOST_REPORTED = 20
"""Largest number of names that are reported per kind in a run."""

EXCLUDE, LEADS, FLAT, STARTS_BELOW, BELOW = "exclude", "leads", "flat", "starts_below", "below"
KINDS = (EXCLUDE, LEADS, FLAT, STARTS_BELOW, BELOW)
"""Kinds of reports."""


@dataclass(frozen=True)
class Sight:
    """Statistics of one channel in a batch.

    Attributes:
        attained: running attained share of the rule, in [0, 1], which follows the run faster than the watch.
        mean: mean attained share in this batch.
        completions: number of completions on which it was scored, > 0.
        ranks: whether it differs within a group.
        need: share of the largest need, in [0, 1]; None if the channel has no spread so far.
        opposed: share of nu, including that of its copies; None if the channel has no spread so far.
        floor: floor of the channel; None without one.
        error: standard error of ``attained``.
    """

    attained: float
    mean: float
    completions: int
    ranks: bool
    need: float | None
    opposed: float | None
    floor: float | None
    error: float


def next_watch(before: State | None, sights: Mapping[str, Sight], phi: float) -> dict[str, Any]:
    """Return the state of the watch after a batch, as plain data.

    Args:
        before: result of this function for the last batch; None or empty at the start of a run.
        sights: statistics of the batch, by name of the channel.
        phi: frontier measure of this batch, NaN if no channel has a spread.
    """
    before = before or {}
    frontier = _next_frontier(before.get("frontier", {}), phi)
    old: Mapping[str, Mapping[str, Any]] = before.get("channels", {})
    # The reference levels of progress are renewed once per PATIENCE batches.
    renewed = frontier["low"] % PATIENCE == 1
    new = {name: _next_channel(old.get(name, {}), sight, renewed) for name, sight in sights.items()}
    reported = {kind: list(before.get("reported", {}).get(kind, [])) for kind in KINDS}

    if not reported[EXCLUDE] and frontier["low"] and frontier["low"] % PATIENCE == 0:
        reported[EXCLUDE] = _excluding(new)
    for kind, is_so in ((LEADS, _leads), (FLAT, _is_flat), (STARTS_BELOW, _starts_below), (BELOW, _is_below)):
        found = [name for name in sorted(new) if name not in reported[kind] and is_so(new[name])]
        if kind == LEADS and frontier["mean"] < 2 * EXCLUDED:  # the channel may be opposed, and its judge correct
            found = [name for name in found if new[name]["opposed"] < CONCERNED]
        reported[kind] += found[: MOST_REPORTED - len(reported[kind])]
    for record in new.values():
        _begin_anew(record)
    return {"frontier": frontier, "channels": _remembered(old, new), "reported": reported}


def _next_frontier(old: Mapping[str, Any], phi: float) -> dict[str, Any]:
    """Return number of batches, mean phi, and the number of batches in a row in which it is low."""
    batches, mean, low = old.get("batches", 0), old.get("mean", 1.0), old.get("low", 0)
    if not math.isnan(phi):
        batches += 1
        mean += (phi - mean) / min(batches, AVERAGED)
        low = low + 1 if mean < EXCLUDED else 0
    return {"batches": batches, "mean": mean, "low": low}


def _next_channel(old: Mapping[str, Any], sight: Sight, renewed: bool) -> dict[str, Any]:
    """Return the record of a channel that is in the batch."""
    seen = old.get("seen", 0) + sight.completions
    batches = old.get("batches", 0) + 1
    level = old.get("level", 0.0)
    level += (sight.mean - level) / min(batches, AVERAGED)
    weighed = old.get("weighed", 0) + (sight.opposed is not None)
    opposed = old.get("opposed", 0.0)
    if sight.opposed is not None:
        opposed += (sight.opposed - opposed) / min(weighed, AVERAGED)
    record = {
        "absent": 0,
        "seen": seen,
        "weighed": weighed,
        "opposed": opposed,
        "batches": batches,
        "level": level,
        "mark": level if renewed or "mark" not in old else old["mark"],
    }
    settled = seen >= SETTLED
    if settled and sight.need is not None and sight.need >= 0.5:
        record["leads"] = _longer(old.get("leads"), sight.completions, level)
    if not sight.ranks:
        low, high = old.get("flat_range", (sight.mean, sight.mean))
        flat = old.get("flat", {"batches": 0, "completions": 0})
        record["flat"] = {"batches": flat["batches"] + 1, "completions": flat["completions"] + sight.completions}
        record["flat_range"] = [min(low, sight.mean), max(high, sight.mean)]
    if sight.floor is not None:
        # Record whether it was ever above its floor, and for how long it has been below.
        is_below = sight.attained < sight.floor - sight.error
        record["kept"] = bool(old.get("kept", False) or (sight.attained >= sight.floor + sight.error and seen >= FIRST))
        record["fresh"] = bool(old.get("seen", 0) < FIRST <= seen)
        if is_below:
            record["below"] = _longer(old.get("below"), sight.completions, level, anew=not record["kept"])
    return record


def _longer(old: Mapping[str, Any] | None, completions: int, level: float, anew: bool = True) -> dict[str, Any]:
    """Count a batch of a streak. ``start`` is the mean attained share at its beginning.

    With ``anew``, the streak begins again if the share falls, because a rise is expected from there.
    """
    if old is None or (anew and level < old["start"] - RISE):
        old = {"batches": 0, "completions": 0, "start": level}
    return {
        "batches": old["batches"] + 1,
        "completions": old["completions"] + completions,
        "start": old["start"],
    }


def _excluding(new: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return channels that exclude each other, the most opposed one first; empty if they rise nevertheless."""
    concerned = [name for name, record in new.items() if record["opposed"] >= CONCERNED]
    if len(concerned) < 2:
        return []
    total = sum(new[name]["opposed"] for name in concerned)
    rise = sum(new[name]["opposed"] * (new[name]["level"] - new[name]["mark"]) for name in concerned) / total
    if rise >= RISE:
        return []
    return sorted(concerned, key=lambda name: (-new[name]["opposed"], name))[:MOST_REPORTED]


def _is_long(streak: Mapping[str, Any]) -> bool:
    return int(streak["batches"]) >= STUCK and int(streak["completions"]) >= STUCK_COMPLETIONS


def _does_not_rise(record: Mapping[str, Any], key: str) -> bool:
    streak = record.get(key)
    return streak is not None and _is_long(streak) and bool(record["level"] - streak["start"] < RISE)


def _leads(record: Mapping[str, Any]) -> bool:
    # `_is_below` reports channels below their floor.
    return "below" not in record and record["level"] < MET and _does_not_rise(record, "leads")


def _is_flat(record: Mapping[str, Any]) -> bool:
    return "flat" in record and record["level"] < MET and int(record["flat"]["batches"]) >= STUCK


def _starts_below(record: Mapping[str, Any]) -> bool:
    return "below" in record and bool(record["fresh"]) and not record["kept"]


def _is_below(record: Mapping[str, Any]) -> bool:
    if "below" not in record:
        return False
    return int(record["below"]["batches"]) >= FALLEN if record["kept"] else _does_not_rise(record, "below")


def _begin_anew(record: dict[str, Any]) -> None:
    """Use the current level as the new reference, if a channel has risen."""
    for key in ("leads", "below"):
        streak = record.get(key)
        if streak is not None and _is_long(streak) and record["level"] - streak["start"] >= RISE:
            record[key] = {"batches": 0, "completions": 0, "start": record["level"]}


def _remembered(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, dict[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return the records of this batch and of absent channels, without those that were absent longest."""
    absent = [
        {**record, "absent": record["absent"] + 1, "name": name} for name, record in old.items() if name not in new
    ]
    absent.sort(key=lambda record: (record["absent"], record["name"]))
    kept: Sequence[dict[str, Any]] = absent[: max(MOST - len(new), 0)]
    return {**{record.pop("name"): record for record in kept}, **new}
