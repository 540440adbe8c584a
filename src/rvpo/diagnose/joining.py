"""Join small batches of a run and count them together: sums over groups do not depend on where a batch ends.

A training step has some dozens of completions, and an operation on so few takes as long as on thousands. Batches are
joined only if they agree in everything that holds for a whole batch: channels, weights, and which values are logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rvpo.arrays.groups import Array, Ints, Partition
from rvpo.logs.run import LoggedBatch, Run, Texts

CELLS = 60_000
"""Most cells of joined batches, so that they stay in the processor's cache."""
HELD = 8_000_000
"""Most cells of a run whose batches are kept in memory."""
SIZE = 64
"""Largest group of batches that are joined; in larger groups, each batch draws pairs at random."""


@dataclass(frozen=True)
class Joined:
    """Batches as one.

    Attributes:
        batch: all rows, with new group numbers; its ``step`` is that of the first batch.
        groups: the partition of the rows into P groups, in order of the batches.
        steps: (P,) int64, the step of each group.
        parts: the original batches.
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
    """Collects batches of the same kind until there are enough cells."""

    def __init__(self) -> None:
        """Begin without batches."""
        self._waiting: list[Joined] = []
        self._kind: object = None
        self._cells = 0

    def add(self, one: Joined) -> Iterator[Joined]:
        """Add a batch; yield the batches to count now, in order."""
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
        """Yield the batches that are still waiting, as one."""
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
    """Return what joined batches must have in common; None for a batch that is counted on its own."""
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
    """The batches of a run, without their texts, for a second pass; logs too large for memory are read again."""

    def __init__(self, run: Run, regrouped: Callable[[LoggedBatch], LoggedBatch]) -> None:
        """Begin; ``regrouped`` gives a batch the most likely groups if the logs do not have them."""
        self._run, self._regrouped = run, regrouped
        self._room = 0 if run.kind == "table" else HELD  # tables are in memory already
        self._batches: list[Joined] = []

    def add(self, batch: LoggedBatch) -> Joined:
        """Add a batch and return it with the most likely groups, without texts."""
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
