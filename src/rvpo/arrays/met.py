"""Which completions meet a channel, in NumPy; :mod:`rvpo.core.met` and :mod:`rvpo.core.solved` define this."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpo.arrays.groups import Array, Bools, Ints, Partition
from rvpo.core.met import SAME
from rvpo.core.solved import powers

TABULATED = 128
"""Largest size of a group for which Pass@k is looked up in a table."""


@dataclass(frozen=True)
class Ends:
    """What the cells of a batch show of K channels.

    Attributes:
        low: (K,) lowest reward; inf without rewards.
        high: (K,) highest reward; -inf without rewards.
        between: (K,), whether a reward is neither the lowest nor the highest one.
        occurs: (K,), whether a cell of the channel applies.
    """

    low: Array
    high: Array
    between: Bools
    occurs: Bools


def ends_of(rewards: Array, index: Ints, applies: Bools, count: int) -> Ends:
    """Find the lowest and the highest reward of each channel, and whether there are rewards between them.

    Args:
        rewards: (N, M), NaN = missing.
        index: (M,) or (N, M), index of the channel of each cell.
        applies: (N, M), False where the column is not a channel of the row.
        count: K, number of channels.
    """
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    between, occurs = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    there = applies & ~np.isnan(rewards)
    if index.ndim == 1:
        np.minimum.at(low, index, np.where(there, rewards, np.inf).min(0))
        np.maximum.at(high, index, np.where(there, rewards, -np.inf).max(0))
        found = there & strictly_between(rewards, index, low, high)
        np.logical_or.at(between, index, found.any(0))
        np.logical_or.at(occurs, index, applies.any(0))
        return Ends(low, high, between, occurs)
    number, known = index[there], rewards[there]
    np.minimum.at(low, number, known)
    np.maximum.at(high, number, known)
    between[number[strictly_between(known, number, low, high)]] = True
    occurs[index[applies]] = True
    return Ends(low, high, between, occurs)


def strictly_between(rewards: Array, index: Ints, low: Array, high: Array) -> Bools:
    """Return which cells differ from the lowest and from the highest reward of their channel.

    Args:
        rewards: (C,) or (N, C) cells, NaN = missing.
        index: (C,), the channel of each, or of each column.
        low: (K,) lowest reward of each channel.
        high: (K,) highest reward.
    """
    first, last = low[index], high[index]
    with np.errstate(invalid="ignore"):
        near = SAME * np.maximum(np.maximum(np.abs(first), np.abs(last)), SAME)
        return (rewards - first > near) & (last - rewards > near)  # False for NaN


def on_the_line(lines: Array) -> Array:
    """Return the smallest rewards that reach their threshold, with a tolerance for rounding."""
    return lines - SAME * np.abs(lines)


def group_counters(rewards: Array, advantages: Array, groups: Partition, lines: Array) -> tuple[Bools, Bools, Bools]:
    """Return which groups count, and which are unexplored and suppressed, (P, M) each.

    See :func:`rvpo.core.met.group_counters`.

    Args:
        rewards: (N, M), NaN = missing or not a channel of the row.
        advantages: (N,); NaN counts as not positive.
        groups: the partition of the rows.
        lines: (M,) or (N, M) thresholds of the cells, NaN = unknown.
    """
    scored = ~np.isnan(rewards) & ~np.isnan(lines)
    meets = scored & (rewards >= on_the_line(lines))
    of_scored, of_met = groups.sum(scored), groups.sum(meets)
    of_raised = groups.sum(meets & (advantages > 0)[:, None])
    counted = of_scored > 0
    return counted, counted & (of_met == 0), (of_met > 0) & (of_met < of_scored) & (of_raised == 0)


@dataclass(frozen=True)
class Tally:
    """Completions of each question: ``scored`` (P, C) with a known result, ``met`` (P, C) of them that met it."""

    scored: Array
    met: Array

    def shares(self) -> tuple[Bools, Bools, Bools]:
        """Return which questions none, some and all completions solve, (P, C) each; False where none counts."""
        counted = self.scored > 0
        none, every = counted & (self.met == 0), counted & (self.met == self.scored)
        return none, counted & ~none & ~every, every


def tally(rewards: Array, groups: Partition, lines: Array, counting: Bools, outside: Bools | None = None) -> Tally:
    """Count completions by question: C = M + 1 columns, the last one for the question being solved.

    Args:
        rewards: (N, M), NaN = missing or not a channel of the row.
        groups: the partition of the rows, one question each.
        lines: (M,) or (N, M), the reward from which on a completion meets the channel of the cell; NaN = unknown.
        counting: (N, M), cells that a completion has to meet to solve its question.
        outside: (N, M), cells without a reward because the condition of a structure does not hold; None without such
            cells.
    """
    known = ~np.isnan(rewards) & ~np.isnan(lines)
    meets = known & (rewards >= on_the_line(lines))
    settled = known if outside is None else known | outside
    judged = np.all(settled | ~counting, 1) & np.any(counting, 1)
    solves = judged & np.all(meets | ~counting, 1)
    scored = groups.sum(np.concatenate([known, judged[:, None]], 1))
    return Tally(scored, groups.sum(np.concatenate([meets, solves[:, None]], 1)))


def counting_cells(
    applies: Bools, weights: Array, index: Ints, names: Sequence[str], trained: Collection[str]
) -> Bools:
    """Return the cells that a completion has to meet to solve its question, (N, M).

    See :func:`rvpo.core.solved.counting_cells`.

    Args:
        applies: (N, M), False where the column is not a channel of the row.
        weights: (M,) or (N, M) of the cells.
        index: (M,) or (N, M), number of the channel of each cell.
        names: K channels.
        trained: names of channels that count.
    """
    index = np.broadcast_to(index, applies.shape)
    weighted = np.broadcast_to(weights, applies.shape) > 0
    named = np.array([name in trained for name in names])
    silent = np.ones(len(names), dtype=bool)
    silent[index[weighted & applies]] = False
    found: Bools = applies & named[index] & (weighted | silent[index])
    return found


def pass_sums(found: Tally, size: int) -> Array:
    """Return Pass@k for K powers of two, 0 where n < k, and then whether n >= k, (2 K, P, C).

    Args:
        found: counts of questions.
        size: largest number of completions of a question.
    """
    if size <= TABULATED:
        return _pass_table(size)[:, found.scored.astype(np.int64), found.met.astype(np.int64)]
    return _pass_at(found.scored, found.met, powers(size))


def _pass_at(scored: NDArray[Any], met: NDArray[Any], ks: Sequence[int]) -> Array:
    """Return the same as :func:`pass_sums`, for n ``scored`` and c ``met`` of one shape."""
    missed, done = np.ones(scored.shape), 0
    values, known = [], []
    for k in ks:
        for i in range(done, k):
            # C(n - c, k) / C(n, k), factor by factor; 0 as soon as there are more draws than failures.
            missed = missed * np.maximum(scored - met - i, 0) / np.maximum(scored - i, 1)
        done = k
        known.append(scored >= k)
        values.append(np.where(known[-1], 1 - missed, 0.0))
    return np.concatenate([np.stack(values), np.stack(known).astype(np.float64)])


@lru_cache(maxsize=8)
def _pass_table(size: int) -> Array:
    """Return :func:`pass_sums` for all n and c up to ``size``, because the same few counts occur again and again."""
    n, c = np.meshgrid(np.arange(size + 1.0), np.arange(size + 1.0), indexing="ij")
    return _pass_at(n, np.minimum(c, n), powers(size))
