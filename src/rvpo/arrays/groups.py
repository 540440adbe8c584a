"""Groups of rows with the same prompt, and reductions over them, for NumPy arrays. See :mod:`rvpo.core.groups`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Partition:
    """The partition of N rows into P non-empty groups.

    Attributes:
        index: (N,) int64, the group of each row as 0 … P - 1.
        count: P, number of groups.
        block: G if the rows are P consecutive blocks of G rows (reductions are then plain views); otherwise None.
    """

    def __init__(self, index: Ints, count: int, block: int | None = None) -> None:
        """Take group numbers from 0 without gaps; :meth:`of_ids` makes them from any ids."""
        self.index, self.count, self.block = index, count, block

    @classmethod
    def of_ids(cls, ids: Ints) -> Partition:
        """Group rows by integer ids in any order; groups may differ in size."""
        size = _block_size(ids)
        if size is not None:
            return cls(np.repeat(np.arange(len(ids) // size), size), len(ids) // size, size)
        unique, index = np.unique(ids, return_inverse=True)
        return cls(index.reshape(-1).astype(np.int64), len(unique))

    @classmethod
    def of(cls, groups: Any) -> Partition:
        """Return a partition, also of a :class:`rvpo.core.groups.Groups`."""
        return groups if isinstance(groups, cls) else cls(np.asarray(groups.index), groups.count, groups.block)

    @classmethod
    def joined(cls, parts: Sequence[Partition]) -> Partition:
        """Return the groups of several batches, numbered in the order of the batches."""
        firsts = np.cumsum([0, *(part.count for part in parts)])
        index = np.concatenate([part.index + first for part, first in zip(parts, firsts, strict=False)])
        blocks = {part.block for part in parts}
        return cls(index, int(firsts[-1]), blocks.pop() if len(blocks) == 1 else None)

    @cached_property
    def sizes(self) -> Ints:
        """Number of rows of each group, (P,)."""
        return np.bincount(self.index, minlength=self.count)

    @property
    def size(self) -> int:
        """Number of rows of the largest group."""
        return self.block or int(self.sizes.max())

    @cached_property
    def order(self) -> Ints:
        """Order of rows that puts groups one after another, (N,); the order within a group does not change."""
        return np.argsort(self.index, kind="stable")

    @cached_property
    def starts(self) -> Ints:
        """Index in :attr:`order` at which each group begins, (P,)."""
        found: Ints = np.cumsum(self.sizes) - self.sizes
        return found

    @cached_property
    def first_rows(self) -> Ints:
        """First row of each group, (P,)."""
        return self.order[self.starts]

    def sum(self, x: NDArray[Any]) -> Array:
        """Sum rows (N, M) within groups -> (P, M)."""
        return self._reduced(x, np.add)

    def min(self, x: NDArray[Any]) -> Array:
        """Return the smallest value of each column within groups, (N, M) -> (P, M)."""
        return self._reduced(x, np.minimum)

    def max(self, x: NDArray[Any]) -> Array:
        """Return the largest value of each column within groups, (N, M) -> (P, M)."""
        return self._reduced(x, np.maximum)

    def _reduced(self, x: NDArray[Any], by: np.ufunc) -> Array:
        x = x.astype(np.float64, copy=False)
        found: Array
        if self.block is not None:
            found = by.reduce(x.reshape(self.count, self.block, -1), axis=1)
        else:
            found = by.reduceat(x[self.order], self.starts, axis=0)
        return found

    def broadcast(self, stat: NDArray[Any]) -> NDArray[Any]:
        """Give every row its group's value, (P, M) -> (N, M)."""
        if self.block is not None:
            return np.repeat(stat, self.block, axis=0)
        return stat[self.index]


def _block_size(ids: Ints) -> int | None:
    """Return the size of groups that are consecutive blocks of equal size; None for other ids (N,)."""
    rows = len(ids)
    changes = np.flatnonzero(ids[1:] != ids[:-1])
    size = rows if not len(changes) else int(changes[0]) + 1
    if not rows or rows % size:
        return None
    blocks = ids.reshape(-1, size)
    first = blocks[:, 0]
    if (blocks != first[:, None]).any() or len(np.unique(first)) < len(first):
        return None
    return size


def add_at(target: NDArray[np.float64], place: Ints, rows: NDArray[Any]) -> None:
    """Add rows (n, …) to the places (n,) of ``target`` (R, …), in place; a place may occur several times."""
    if not len(place):
        return
    if (place[1:] < place[:-1]).any():
        order = np.argsort(place, kind="stable")
        place, rows = place[order], rows[order]
    new = np.concatenate([[True], place[1:] != place[:-1]])
    if not new.all():
        starts = np.flatnonzero(new)
        place, rows = place[starts], np.add.reduceat(rows, starts, axis=0)
    target[place] += rows
