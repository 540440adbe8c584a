"""Count the questions of a finished run that none, some and all of their completions solve, and Pass@k, over its steps.

:mod:`rvpo.core.solved` defines these. The threshold from which on a completion meets a channel can depend on later
batches of the run, so batches are counted in a second pass, when :class:`Lines` has seen all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpo.arrays.groups import Array, Ints, Partition
from rvpo.arrays.met import Tally, counting_cells, ends_of, pass_sums, tally
from rvpo.core.channels import Range
from rvpo.core.met import Few, line_of, next_few
from rvpo.core.solved import SHARES, is_named, powers
from rvpo.diagnose.joining import Joined, joined
from rvpo.logs.run import LoggedBatch, Run

GROUPS, SCORED = "groups", "scored"


@dataclass(frozen=True)
class Seen:
    """What one or more runs show of a channel: its lowest and highest reward, and its values while they are few."""

    low: float = np.inf
    high: float = -np.inf
    few: Few = field(default_factory=list)
    trained: bool = False

    def merged(self, other: Seen) -> Seen:
        """Return what both show together."""
        few = self.few
        for value in other.few or ():
            few = next_few(few, value, value, False)
        if other.few is None:
            few = None
        return Seen(min(self.low, other.low), max(self.high, other.high), few, self.trained or other.trained)


def seen_of(batch: LoggedBatch, run: Run) -> dict[str, Seen]:
    """Return what a batch shows of the channels in it."""
    applies, count = batch.present, len(run.channels)
    ends = ends_of(batch.rewards, batch.channel, applies, count)
    counted = applies if batch.weights is None else applies & (batch.weights > 0)
    trained = np.zeros(count, dtype=bool)
    trained[np.broadcast_to(batch.channel, counted.shape)[counted]] = True
    rows = zip(ends.low.tolist(), ends.high.tolist(), ends.between.tolist(), trained.tolist(), strict=True)
    return {
        run.channels[j]: Seen(low, high, next_few([], low, high, between), is_trained)
        for j, (low, high, between, is_trained) in enumerate(rows)
        if ends.occurs[j]
    }


class Lines:
    """The threshold of each channel, and which channels a completion has to meet to solve a question.

    Attributes:
        by_name: channel -> its threshold, NaN if unknown; a run may have further channels, which do not count.
        counting: channels that a completion has to meet, in order.
        unknown: those of them whose threshold is unknown; if there is any, no question is known to be solved.
    """

    def __init__(
        self, seen: Mapping[str, Seen], ranges: Mapping[str, Range | None], solved: Sequence[str] = ()
    ) -> None:
        """Determine the thresholds.

        Args:
            seen: what the logs show of each channel.
            ranges: declared ranges.
            solved: names of the channels to meet; empty: all channels that were trained on.
        """
        self.by_name = {name: line_of(ranges.get(name), of.few, of.low, of.high) for name, of in seen.items()}
        named = {name: is_named(name, solved, solved) if solved else of.trained for name, of in seen.items()}
        self.counting = tuple([name for name, counts in named.items() if counts])
        # A channel that was never scored has no threshold, so no question is known to be solved.
        self.unknown = tuple([name for name in self.counting if np.isnan(self.by_name[name])])

    def tally(self, batch: LoggedBatch, run: Run, groups: Partition) -> Tally:
        """Count the completions of a batch per question, see :func:`rvpo.core.solved.tally`."""
        applies = batch.present
        weights = np.ones(batch.rewards.shape[1]) if batch.weights is None else batch.weights
        lines = np.array([self.by_name.get(name, np.nan) for name in run.channels])[batch.channel]
        counting = counting_cells(applies, weights, batch.channel, run.channels, set(self.counting))
        return tally(np.where(applies, batch.rewards, np.nan), groups, lines, counting, batch.outside)


class QuestionSums:
    """Sums over questions, for T points in time and K + 1 columns: one per channel, and one for a solved question.

    Attributes:
        sums: ``"none"``, ``"some"``, ``"all"``, ``"groups"``, ``"scored"`` completions, and for each k ``"pass@k"``
            with its number of groups ``"of@k"`` -> (T, K + 1).
        ks: the k that occur, ascending.
        size: number of completions of the largest group.
    """

    def __init__(self, points: int, channels: int) -> None:
        """Begin with nothing counted."""
        self._shape = (points, channels + 1)
        self.sums: dict[str, Array] = {name: np.zeros(self._shape) for name in (*SHARES, GROUPS, SCORED)}
        self.ks: list[int] = []
        self.size = 0

    def add(self, points: Ints, found: Tally, groups: Partition, channel: Ints) -> None:
        """Count batches.

        Args:
            points: (P,) point in time of each group.
            found: counts of each group.
            groups: the partition into P groups.
            channel: (M,) or (N, M), index of the channel of each cell.
        """
        index = (points[:, None] * self._shape[1] + self._columns(groups, channel)).ravel()
        for name, cells in zip(SHARES, found.shares(), strict=True):
            self._count(name, index, cells)
        self._count(GROUPS, index, found.scored > 0)
        self._count(SCORED, index, found.scored)
        ks = powers(groups.size)
        self.size = max(self.size, groups.size)
        self.ks = sorted({*self.ks, *ks})
        names = [f"{what}@{k}" for what in ("pass", "of") for k in ks]
        for name, cells in zip(names, pass_sums(found, groups.size), strict=True):
            self._count(name, index, cells)

    def _columns(self, groups: Partition, channel: Ints) -> Ints:
        """Return the column for each entry of a tally, (P, M + 1)."""
        solved = self._shape[1] - 1
        if channel.ndim == 1:
            of_cells = np.broadcast_to(channel, (groups.count, len(channel)))
        else:  # all rows of a group have the channels of its first row
            of_cells = channel[groups.first_rows]
        return np.concatenate([of_cells, np.full((groups.count, 1), solved)], 1)

    def _count(self, name: str, index: Ints, cells: NDArray[Any]) -> None:
        table = self.sums.setdefault(name, np.zeros(self._shape))
        table += np.bincount(index, cells.ravel(), table.size).reshape(self._shape)

    def series(self, name: str, column: int) -> Array:
        """Return a share or Pass@k of a column over time, (T,); NaN if no question counts."""
        of = f"of@{name.removeprefix('pass@')}" if name.startswith("pass@") else GROUPS
        with np.errstate(invalid="ignore"):
            found: Array = self.sums[name][:, column] / self.sums[of][:, column]
        return found


def count_questions(
    run: Run,
    lines: Lines,
    point_of: Mapping[int, int],
    batches: Iterable[Joined] | None = None,
) -> QuestionSums:
    """Count the questions of a run.

    Args:
        run: logs of a run.
        lines: thresholds of its channels.
        point_of: step -> its point in time.
        batches: batches of the run, with the most likely groups; None: read the run.
    """
    found = QuestionSums(max(point_of.values()) + 1, len(run.channels))
    for one in joined(map(Joined.single, run.batches()) if batches is None else batches):
        points = np.array([point_of[step] for step in one.steps.tolist()])
        found.add(points, lines.tally(one.batch, run, one.groups), one.groups, one.batch.channel)
    return found


def merged(every: Iterable[Mapping[str, Seen]]) -> dict[str, Seen]:
    """Return what several runs together show of each channel."""
    found: dict[str, Seen] = {}
    for one in every:
        for name, seen in one.items():
            found[name] = found.get(name, Seen()).merged(seen)
    return found
