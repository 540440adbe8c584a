"""Warnings about rewards that teach nothing, and about declared ranges that do not fit. Each is given once.

A reward is one channel: a reward function, or a label of a rubric. Only generations (batches) in which the channel
occurs are counted.

* **missing**: no completion got a reward for ``MISSING`` generations in a row.
* **constant**: all rewards were the same from the start, for ``FLAT`` generations.
* **top**: the same, and the reward is the best possible. It may be met, or the function gives it to everything.
* **lost**: rewards differed before. Now all are the same for ``FLAT`` generations, below the best. If a reward became
  constant at its best, it is learned, and there is no warning.
* **flat**: rewards differ between prompts, but never differed within a group, for ``FLAT`` generations from the start.
* **outside**, **wide**: rewards left their declared range, or use less than a tenth of it. Methods that use scales
  report this in :mod:`rvpo.step.scale_news`.

What was seen and reported is plain data by name of the channel. It is part of the checkpoint, so that a resumed run
does not repeat a warning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rvpo.core import Advantages, Channels, Method
from rvpo.core.channels import Range, State
from rvpo.core.met import Few, line_of, lines_by_cell, next_few, strictly_between
from rvpo.core.methods.lift import LIFT
from rvpo.core.methods.riskpo import RiskPO
from rvpo.core.scales import ENOUGH, KEY, in_short
from rvpo.core.shards import WHOLE, Whole
from rvpo.step.scale_news import HOW, MISFIT

FLAT = 20
"""A reward is reported after so many generations in a row in which it does not rank any group."""
FLAT_COMPLETIONS = 200
"""Smallest number of scored completions in these generations: small generations prove little."""
MISSING = 10
"""A reward is reported after so many generations in a row in which all its values are missing."""
MISSING_COMPLETIONS = 100
"""Smallest number of completions in these generations."""
SAME = 1e-6
"""Largest relative difference of rewards that count as the same."""
NEAR = 0.05
"""A reward is at its best within this share of its range from the top."""
FIRST = 64
"""Number of first rows that are checked for a third value before all rows are."""
MOST = 256
"""Largest number of channels that are remembered besides those of the current batch."""

KINDS = ("missing", "constant", "top", "lost", "flat", "outside", "wide")
"""Kinds of warnings. Each is given once per channel."""


@dataclass(frozen=True)
class Sight:
    """Statistics of one channel in a batch.

    Attributes:
        completions: number of its cells.
        scored: number of its cells with a reward.
        low: lowest reward; inf without rewards.
        high: highest reward; -inf without rewards.
        ranks: whether rewards differ within a group.
        outside: number of rewards outside the declared range.
        between: whether a reward is neither the lowest nor the highest one.
    """

    completions: int
    scored: int
    low: float
    high: float
    ranks: bool
    outside: int
    between: bool = False

    @property
    def values(self) -> tuple[float, float, bool]:
        """Lowest and highest reward, and whether there are others: arguments of :func:`rvpo.core.met.next_few`."""
        return self.low, self.high, self.between


def sights(result: Advantages, channels: Channels, shards: Whole = WHOLE) -> dict[str, Sight]:
    """Return the statistics of each channel that occurs in a batch.

    Args:
        result: result of the batch, (N, M).
        channels: the K channels, with the channel of each cell.
        shards: where the rows of the batch are; all ranks have the same channels.
    """
    if channels.are_columns and result.summary is not None:  # no reward is missing
        return _column_sights(result.rewards.detach(), result.summary.ranks.tolist(), channels)
    shape = result.applies.shape
    index = channels.index.expand(shape).cpu().flatten()
    applies, live = result.applies.cpu(), result.live.cpu()
    rewards = result.rewards.detach().cpu().double()
    scored = applies & ~rewards.isnan()
    ends = torch.tensor([limits or (-math.inf, math.inf) for limits in channels.ranges], dtype=torch.float64)
    beyond = scored.flatten() & ((rewards.flatten() < ends[index, 0]) | (rewards.flatten() > ends[index, 1]))

    def reduced(cells: Tensor, start: float, how: str) -> Tensor:
        filled = torch.full((len(channels.names),), start, dtype=torch.float64)
        return filled.scatter_reduce(0, index, cells.flatten().double(), how)

    (cells, known, ranks, out), (high, below) = shards.combined(
        [reduced(x, 0, "sum") for x in (applies, scored, live, beyond)],
        [
            reduced(rewards.masked_fill(~scored, -math.inf), -math.inf, "amax"),
            reduced((-rewards).masked_fill(~scored, -math.inf), -math.inf, "amax"),
        ],
    )
    low = -below
    inside = strictly_between(rewards.flatten(), index, low.tolist(), high.tolist())
    (between,) = shards.sum(reduced(inside, 0, "sum"))
    columns = (x.tolist() for x in (cells, known, low, high, ranks, out, between))
    rows = zip(channels.names, *columns, strict=True)
    return {
        name: Sight(int(cells), int(known), low, high, bool(ranks), int(out), bool(between))
        for name, cells, known, low, high, ranks, out, between in rows
        if cells
    }


def _column_sights(rewards: Tensor, ranks: Sequence[bool], channels: Channels) -> dict[str, Sight]:
    """Return the statistics of each column of a batch (N, M) without missing rewards."""
    lows, highs = (ends.double().tolist() for ends in (rewards.amin(0), rewards.amax(0)))
    # A column with many values shows that in the first rows. Only for the other columns, all rows are checked.
    between = _between(rewards[:FIRST], lows, highs)
    left = [j for j, is_found in enumerate(between) if not is_found] if len(rewards) > FIRST else []
    if left:
        parts = _between(rewards[:, left], [lows[j] for j in left], [highs[j] for j in left])
        for j, is_found in zip(left, parts, strict=True):
            between[j] = is_found
    found = {}
    for j, (name, limits, low, high) in enumerate(zip(channels.names, channels.ranges, lows, highs, strict=True)):
        column, out = rewards[:, j], 0
        if limits is not None and (low < limits[0] or high > limits[1]):
            exact = column.double()
            out = int(((exact < limits[0]) | (exact > limits[1])).sum())
        found[name] = Sight(len(rewards), len(rewards), low, high, ranks[j], out, between[j])
    return found


def _between(rewards: Tensor, low: Sequence[float], high: Sequence[float]) -> list[bool]:
    """Return per column (n, M) whether a reward is neither the lowest nor the highest one."""
    found: list[bool] = strictly_between(rewards.cpu().double(), torch.arange(len(low)), low, high).any(0).tolist()
    return found


def next_seen(before: State, shown: Mapping[str, Sight], ranges: Mapping[str, Range | None]) -> dict[str, Any]:
    """Return the state after a batch: name -> record, as plain data, the channels that were seen last at the end.

    Args:
        before: result of this function for the last batch; empty at the start of a run.
        shown: statistics of the batch, by name of the channel.
        ranges: declared range by name; None without a declared range.
    """
    after = {name: record for name, record in before.items() if name not in shown}
    for name in list(after)[: max(0, len(after) - MOST)]:
        del after[name]
    return {**after, **{name: _next_record(before.get(name, {}), shown[name], ranges.get(name)) for name in shown}}


def _next_record(old: Mapping[str, Any], sight: Sight, limits: Range | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "seen": old.get("seen", 0) + sight.scored,
        "ranked": bool(old.get("ranked", False) or sight.ranks),
        "said": list(old.get("said", ())),
    }
    if limits is not None:
        kept = old if old.get("range") == list(limits) else {}  # the user has changed the declared range
        record |= {"range": list(limits), "outside": kept.get("outside", 0) + sight.outside}
    if not sight.scored:
        record["missing"] = _longer(old.get("missing"), sight.completions)
        # A generation without rewards does not show whether rewards are constant.
        return record | {key: old[key] for key in ("ends", "few", "flat") if key in old}
    record["ends"] = _widened(old.get("ends"), sight)
    record["few"] = next_few(_few(old), *sight.values)
    if not sight.ranks:
        streak = old.get("flat")
        record["flat"] = _longer(streak, sight.scored) | {"ends": _widened(streak and streak["ends"], sight)}
    return record


def _few(old: Mapping[str, Any]) -> Few:
    """Return the values of a channel so far. Older states have only the lowest and the highest one."""
    if "few" in old or "ends" not in old:
        return old.get("few", [])  # type: ignore[no-any-return]
    low, high = old["ends"]
    return next_few([], low, high, between=False)


def lines_of(seen: State, channels: Channels) -> Tensor:
    """Return the smallest reward that meets the channel of each cell; see :mod:`rvpo.core.met`.

    Args:
        seen: result of :func:`next_seen` for this batch.
        channels: the K channels, with the channel of each cell.
    """
    lines = []
    for name, declared in zip(channels.names, channels.ranges, strict=True):
        record = seen.get(name, {})
        low, high = record.get("ends", (math.inf, -math.inf))
        lines.append(line_of(declared, record.get("few", []), low, high))
    return lines_by_cell(lines, channels.index)


def _longer(streak: Mapping[str, Any] | None, completions: int) -> dict[str, Any]:
    old = streak or {"generations": 0, "completions": 0}
    return {"generations": old["generations"] + 1, "completions": old["completions"] + completions}


def _widened(ends: Sequence[float] | None, sight: Sight) -> list[float]:
    return [sight.low, sight.high] if ends is None else [min(ends[0], sight.low), max(ends[1], sight.high)]


def news_of_rewards(seen: dict[str, Any], shown: Mapping[str, Sight], method: Method, state: State) -> list[str]:
    """Return the warnings after a batch, and note in ``seen`` that they were given.

    Args:
        seen: result of :func:`next_seen` for this batch.
        shown: statistics of the batch, by name of the channel.
        method: the method of the run.
        state: state of the method after the batch. If it has scales, the method reports wrong ranges itself.
    """
    said = []
    for name in shown:
        record = seen[name]
        for kind in _kinds(record, uses_scales=KEY in state):
            if kind not in record["said"]:
                record["said"].append(kind)
                if not (_is_lift(method) and _lift_says(kind, record)):
                    said.append(_SENTENCES[kind](name, record, method))
    return said


def _is_lift(method: Method) -> bool:
    return isinstance(method.score if isinstance(method, RiskPO) else method, LIFT)


def _lift_says(kind: str, record: Mapping[str, Any]) -> bool:
    """Return whether LIFT reports this itself, in :mod:`rvpo.step.lift_news`."""
    if kind == "top":  # without a range, a constant reward above 1 counts as half attained
        return "range" not in record and record["flat"]["ends"][1] > 1
    return kind in ("constant", "lost", "flat")


def _kinds(record: Mapping[str, Any], uses_scales: bool) -> list[str]:
    """Return the kinds of warnings that apply to a reward now."""
    found = []
    missing, flat = record.get("missing"), record.get("flat")
    if missing and missing["generations"] >= MISSING and missing["completions"] >= MISSING_COMPLETIONS:
        found.append("missing")
    if flat and flat["generations"] >= FLAT and flat["completions"] >= FLAT_COMPLETIONS:
        found += _without_rank(record, flat)
    if not uses_scales and "range" in record and "ends" in record:
        found += _misfit(record)
    return found


def _without_rank(record: Mapping[str, Any], flat: Mapping[str, Any]) -> list[str]:
    """Return the kinds of warnings for a reward that has not ranked a group for many generations."""
    if not _same(*flat["ends"]):
        # If it ranked a group before, equal rewards within groups may also mean that the policy has converged.
        return [] if record["ranked"] else ["flat"]
    at_best = _is_best(flat["ends"][1], record)
    if _same(*record["ends"]):
        return ["top" if at_best else "constant"]
    return [] if at_best else ["lost"]


def _is_best(value: float, record: Mapping[str, Any]) -> bool:
    """Return whether a constant reward is the best possible one.

    Without a declared range, the best is the highest reward so far. A reward that never changed counts as the best if
    it is at least 1, as in ``rvpo diagnose``.
    """
    if "range" in record:
        low, high = record["range"]
        return bool(value >= high - NEAR * (high - low))
    low, high = record["ends"]
    return bool(value >= 1 if _same(low, high) else value >= high - NEAR * (high - low))


def _misfit(record: Mapping[str, Any]) -> list[str]:
    (low, high), (lowest, highest) = record["range"], record["ends"]
    if record["outside"]:
        return ["outside"]
    is_wide = record["seen"] >= ENOUGH and 0 < MISFIT * (highest - lowest) < high - low
    return ["wide"] if is_wide else []


def _same(low: float, high: float) -> bool:
    return high - low <= SAME * max(abs(low), abs(high))


def _span(streak: Mapping[str, Any], which: str) -> str:
    return f"all {streak['completions']} completions of the {which} {streak['generations']} generations"


def _missing(name: str, record: Mapping[str, Any], method: Method) -> str:
    span = _span(record["missing"], "last" if record["seen"] else "first")
    return (
        f"{name!r} gave no reward (None or NaN) to {span}. It is left out of their advantages, so it teaches nothing. "
        "Check that its reward function returns a number for these completions. If it is meant for other data, remove "
        "it from the reward functions"
    )


def _constant(name: str, record: Mapping[str, Any], method: Method) -> str:
    flat = record["flat"]
    return (
        f"{name!r} gave the same reward, {flat['ends'][0]:.4g}, to {_span(flat, 'first')}. It ranks no completions, so "
        "it teaches nothing. Look at the reward function next to some completions. If it is right, warm-start the "
        "policy on examples that meet it, use easier prompts, or give partial credit for coming close"
    )


def _top(name: str, record: Mapping[str, Any], method: Method) -> str:
    flat = record["flat"]
    return (
        f"{name!r} gave the same high reward, {flat['ends'][0]:.4g}, to {_span(flat, 'first')}. Either the policy "
        "meets it already, then nothing is to be done, or the reward function gives it to everything. Try the function "
        "on a completion that should score low"
    )


def _lost(name: str, record: Mapping[str, Any], method: Method) -> str:
    flat = record["flat"]
    return (
        f"{name!r} gave the same reward, {flat['ends'][0]:.4g}, to {_span(flat, 'last')}, after rewards of up to "
        f"{record['ends'][1]:.4g}: the policy has stopped meeting it. A constant reward ranks no completions, so "
        "training cannot bring it back. Go on from an earlier checkpoint, with method='lift' or a higher weight for it"
    )


def _flat(name: str, record: Mapping[str, Any], method: Method) -> str:
    flat = record["flat"]
    return (
        f"{name!r} differs between prompts (from {flat['ends'][0]:.4g} to {flat['ends'][1]:.4g}), but not within any "
        f"group, on {_span(flat, 'first')}. It ranks no completions, so it teaches nothing. Check that its reward "
        "function looks at the completion, not only at the prompt. If it does, sample more completions per prompt "
        "(num_generations), or at a higher temperature"
    )


def _outside(name: str, record: Mapping[str, Any], method: Method) -> str:
    return (
        f"Rewards of {name!r} lie outside of its declared range {_declared(record)} (seen: {in_short(record['ends'])})."
        f" Method {method.name!r} trains without ranges, so nothing is cut off, but `rvpo diagnose` and methods such "
        f"as lift rely on them. Correct it: {HOW.format(name=name)}"
    )


def _wide(name: str, record: Mapping[str, Any], method: Method) -> str:
    return (
        f"The declared range {_declared(record)} of {name!r} is far wider than what was seen: its first "
        f"{record['seen']} rewards lie in {in_short(record['ends'])}. Method {method.name!r} trains without ranges, "
        "but `rvpo diagnose` and methods such as lift rely on them. If the rest cannot be reached, declare a narrower "
        f"one: {HOW.format(name=name)}"
    )


def _declared(record: Mapping[str, Any]) -> str:
    low, high = record["range"]
    return f"[{low:.12g}, {high:.12g}]"


_SENTENCES = {
    "missing": _missing,
    "constant": _constant,
    "top": _top,
    "lost": _lost,
    "flat": _flat,
    "outside": _outside,
    "wide": _wide,
}
