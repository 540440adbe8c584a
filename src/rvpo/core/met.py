"""Which completions meet a channel, and two early warnings derived from it: unexplored and suppressed groups.

For one channel and one group (CriPO, arXiv 2607.18082)::

    unexplored    no scored completion meets the channel: there is no success that could be reinforced
    suppressed    some meet it, some do not, and none of those that meet it has a positive advantage

A completion meets a channel when its reward is at or above the channel's **line**, the middle of its scale:

1. With a declared range, the line is the middle of the range: an attained share of 0.5.
2. Without one, and while the run has seen two different values of the channel (binary), only the higher one meets it.
3. Without one, with more values, or with one so far, the scale is [0, 1] if all of its rewards lie in it.
4. Otherwise the line is unknown, and everything derived from it is NaN: declare a range.

For a binary channel whose range is that of its two values, rules 1 and 2 agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rvpo.core.channels import Range
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch

SAME = 1e-6
"""Largest relative difference of rewards that count as one value."""

Few = list[float] | None
"""The different values of a channel in a run so far, in ascending order, at most two; None if there are more."""


def next_few(before: Few, low: float, high: float, between: bool) -> Few:
    """Return the values of a channel after a batch.

    Args:
        before: values before the batch; empty at the start of a run.
        low: lowest reward of the batch; inf without rewards.
        high: highest reward of the batch; -inf without rewards.
        between: whether a reward of the batch differs from both.
    """
    if before is None or between:
        return None
    values = list(before)
    for value in (low, high):
        if math.isfinite(value) and not any(_is_same(value, known) for known in values):
            values.append(value)
    return sorted(values) if len(values) <= 2 else None


def strictly_between(rewards: Tensor, index: Tensor, low: Sequence[float], high: Sequence[float]) -> Tensor:
    """Return a mask of the cells that differ from the lowest and from the highest reward of their channel.

    Args:
        rewards: (C,) or (n, C) cells, NaN = missing.
        index: (C,) int64, the channel of each cell, or of each column.
        low: (K,) lowest reward of each channel.
        high: (K,) highest reward of each channel.
    """
    first, last = (torch.tensor(list(ends), dtype=torch.float64)[index] for ends in (low, high))
    near = SAME * torch.maximum(first.abs(), last.abs()).clamp(min=SAME)
    return (rewards - first > near) & (last - rewards > near)  # False for NaN


def _is_same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME * max(abs(one), abs(other), SAME)


def graded_line(declared: Range | None, low: float, high: float) -> float:
    """Return the line of a channel by rules 1 and 3; NaN if its rewards (from low to high) leave [0, 1]."""
    if declared is not None:
        return (declared[0] + declared[1]) / 2
    return 0.5 if low >= 0 and high <= 1 else math.nan


def binary_line(few: Few) -> float:
    """Return the line of a channel by rule 2; NaN if the run has not seen exactly two values of it."""
    return (few[0] + few[1]) / 2 if few is not None and len(few) == 2 else math.nan


def line_of(declared: Range | None, few: Few, low: float, high: float) -> float:
    """Return the line of a channel by all rules, NaN if unknown.

    Args:
        declared: declared range of the channel; None without one.
        few: values of the channel in the run so far.
        low: lowest reward in the run so far.
        high: highest reward in the run so far.
    """
    binary = math.nan if declared is not None else binary_line(few)
    return graded_line(declared, low, high) if math.isnan(binary) else binary


@dataclass(frozen=True)
class GroupCounters:
    """Masks of groups and columns, (P, M) bool.

    Attributes:
        counted: the column is scored in the group, and its line is known.
        unexplored: it is counted, and no completion meets it.
        suppressed: it is counted, some completions meet it but not all, and none of those has a positive advantage.
    """

    counted: Tensor
    unexplored: Tensor
    suppressed: Tensor


def group_counters(rewards: Tensor, advantages: Tensor, groups: Groups, lines: Tensor) -> GroupCounters:
    """Find unexplored and suppressed groups of each column.

    Args:
        rewards: (N, M), NaN = missing or not a channel of the row.
        advantages: (N,); NaN counts as not positive.
        groups: the partition of the rows.
        lines: (M,) or (N, M) of the cells, equal within a group and column; NaN = unknown.
    """
    lines = lines.to(rewards).expand(rewards.shape)
    scored = ~rewards.isnan() & ~lines.isnan()
    meets = scored & (rewards >= on_the_line(lines))
    found = torch.cat([scored, meets, meets & (advantages > 0)[:, None]], 1).to(rewards.dtype)
    of_scored, of_met, of_raised = groups.sum(found).chunk(3, 1)
    counted = of_scored > 0
    return GroupCounters(counted, counted & (of_met == 0), (of_met > 0) & (of_met < of_scored) & (of_raised == 0))


def on_the_line(lines: Tensor) -> Tensor:
    """Return the smallest rewards that count as on their line, with a tolerance for rounding."""
    return lines - SAME * lines.abs()


def counters_of(met: Tensor, raised: Tensor, known: Tensor, size: int) -> GroupCounters:
    """Return the result of :func:`group_counters` for a batch without missing rewards.

    Args:
        met: (P, M), number of completions that meet the channel.
        raised: (P, M), number of these with a positive advantage.
        known: (M,) bool, whether the line of the channel is known.
        size: G, the size of the groups.
    """
    counted = known.expand_as(met)
    return GroupCounters(counted, counted & (met == 0), (met > 0) & (met < size) & (raised == 0))


def lines_by_cell(lines: Sequence[float], index: Tensor) -> Tensor:
    """Return the line of each cell's channel, (K,) -> the shape of ``index``, in double precision on the CPU."""
    return torch.tensor(list(lines), dtype=torch.float64)[index.cpu()]
