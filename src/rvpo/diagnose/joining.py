"""Small batches of a run that are counted together: sums over groups do not depend on where a batch ends.

A step of a training has some dozens of completions, and each operation on so few takes as long as on thousands.
Batches are joined only if they agree in what is looked at for a whole batch: channels, weights and what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rvpo.arrays.groups import Array, Ints, Partition
from rvpo.logs.run import LoggedBatch, Run, Texts

CELLS = 60_000
"""Cells up to which batches are joined: they stay in the processor's cache."""
HELD = 8_000_000
"""Cells of a run whose batches are kept in memory."""
SIZE = 64
"""Completions of a group up to which batches are joined; of larger groups a batch draws partners at random."""


@dataclass(frozen=True)
class Joined:
    """Batches as one.

    Attributes:
        batch: all rows; its groups are numbered through, and its ``step`` is the first one.
        groups: the partition of the rows; P groups, in order of the batches.
        steps: (P,) int64, the step of each group.
        parts: the batches as they were.
    """

    batch: LoggedBatch
    groups: Partition
    steps: Ints
    parts: tuple[LoggedBatch, ...]

    @classmethod
    def single(cls, batch: LoggedBatch) -> Joined:
        """Return a batch on its own."""
        groups = Partition.of_ids(batch.groups)
        return cls(batch, groups, np.full(groups.count, batch.step), (batch,))


class Joiner:
    """Collects batches until there are enough of a kind."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: list[Joined] = []
        self._kind: object = None
        self._cells = 0

    def add(self, one: Joined) -> Iterator[Joined]:
        """Take in a batch; yield what is to be counted now, in order."""
        kind, cells = _kind(one), one.batch.rewards.size
        if self._waiting and (kind is None or kind != self._kind or self._cells + cells > CELLS):
            yield from self.rest()
        if kind is None:
            yield one
            return
        self._kind = kind
        self._waiting.append(one)
        self._cells += cells

    def rest(self) -> Iterator[Joined]:
        """Yield what is still waiting."""
        if self._waiting:
            waiting, self._waiting, self._cells = self._waiting, [], 0
            yield _joined(waiting)


def joined(batches: Iterable[Joined]) -> Iterator[Joined]:
    """Join the batches of a run, in order."""
    joiner = Joiner()
    for batch in batches:
        yield from joiner.add(batch)
    yield from joiner.rest()


def _kind(one: Joined) -> object:
    """Return what batches that are joined have in common; None for a batch that is counted on its own."""
    batch = one.batch
    own = (batch.applies, batch.reliability, batch.outside)
    if (
        batch.channel.ndim != 1
        or batch.rewards.size > CELLS
        or one.groups.size > SIZE
        or any(x is not None for x in own)
    ):
        return None
    weights = batch.weights
    if weights is not None and weights.ndim == 2:
        if not (weights == weights[:1]).all():
            return None
        weights = weights[0]
    known = batch.advantages is not None, batch.texts is not None
    return known, tuple(batch.channel.tolist()), None if weights is None else tuple(weights.tolist())


def _joined(waiting: Sequence[Joined]) -> Joined:
    if len(waiting) == 1:
        return waiting[0]
    first, batches = waiting[0].batch, [one.batch for one in waiting]
    groups = Partition.joined([one.groups for one in waiting])
    texts = [batch.texts for batch in batches if batch.texts is not None]
    weights = first.weights
    batch = replace(
        first,
        rewards=np.concatenate([batch.rewards for batch in batches]),
        groups=groups.index,
        advantages=_cat([batch.advantages for batch in batches]),
        weights=weights if weights is None or weights.ndim == 1 else weights[0],
        texts=Texts([], [text for some in texts for text in some.completions]) if texts else None,
        tokens=None,
        numbers=None,
        totals=None,
        groupings={},
        config=None,
        progress=None,
    )
    return Joined(
        batch,
        groups,
        np.concatenate([one.steps for one in waiting]),
        tuple(batches),
    )


def _cat(parts: Sequence[Array | None]) -> Array | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None


class Kept:
    """The batches of a run, without their texts, for a second look; logs too large for memory are read again."""

    def __init__(self, run: Run, regrouped: Callable[[LoggedBatch], LoggedBatch]) -> None:
        """Begin; ``regrouped`` gives a batch the groups that are most likely, where the logs do not have them."""
        self._run, self._regrouped = run, regrouped
        self._room = 0 if run.kind == "table" else HELD  # tables are in memory already
        self._batches: list[Joined] = []

    def add(self, batch: LoggedBatch) -> Joined:
        """Take in a batch and return it in the groups that are most likely, without texts."""
        one = Joined.single(replace(self._regrouped(batch), texts=None))
        self._room -= batch.rewards.size
        if self._room < 0:
            self._batches = []
        else:
            self._batches.append(one)
        return one

    def batches(self) -> Iterable[Joined]:
        """Return all batches of the run, in order."""
        if self._room >= 0:
            return self._batches
        return (Joined.single(self._regrouped(batch)) for batch in self._run.batches())
