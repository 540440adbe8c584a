"""Where the rows of a batch are: all of them in this process, or some of them in each of several ranks.

A computation within a group does not need other ranks. A computation over the batch uses one object, whose sums and
largest values are those of all ranks. :data:`WHOLE`, the default, has all rows and returns its arguments unchanged.
:class:`rvpo.step.shards.Shards` does the same for a process group.

All ranks must call the same methods in the same order. So a decision about which method to call must not depend on the
rows of one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rvpo.core.channels import Channels
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch

Parts = tuple[Tensor, ...]


class Whole:
    """All rows are here, so nothing is exchanged."""

    is_whole = True
    """Whether this process has all rows of the batch."""

    def sum(self, *parts: Tensor) -> Parts:
        """Return the sums of tensors over all ranks, each in its own shape, dtype and device."""
        return parts

    def combined(self, sums: Sequence[Tensor], largest: Sequence[Tensor]) -> tuple[Parts, Parts]:
        """Return sums over all ranks, and the largest values of all ranks, in one exchange."""
        return tuple(sums), tuple(largest)

    def joined(self, rows: Tensor) -> tuple[Tensor, slice]:
        """Return the rows of all ranks, (n, C) -> (N, C), in the order of the ranks, and the slice that is ours."""
        return rows, slice(None)

    def grouped(self, groups: Groups) -> Groups:
        """Return the groups of the rows of all ranks."""
        return groups

    def values_of_all(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in the order of the ranks. A value must be JSON data."""
        return [value]


WHOLE = Whole()


def channel_means(channels: Channels, shards: Whole, *cells: Tensor) -> Parts:
    """Return :meth:`Channels.mean` of matrices (n, M) over the rows of all ranks, (K,) each."""
    if shards.is_whole:
        return tuple(channels.mean(x) for x in cells)
    missing = [x.isnan() for x in cells]
    totals = [channels.total(x.masked_fill(gone, 0.0)) for x, gone in zip(cells, missing, strict=True)]
    counts = [channels.total((~gone).to(x.dtype)) for x, gone in zip(cells, missing, strict=True)]
    found = shards.sum(*totals, *counts)
    return tuple(total / count for total, count in zip(found[: len(cells)], found[len(cells) :], strict=True))


class OneGroup(Groups):
    """All rows of all ranks as one group, so that a normalisation within groups becomes one over the batch."""

    def __init__(self, rows: Tensor, shards: Whole) -> None:
        """Build the group from the rows of this rank.

        Args:
            rows: (n, …) any tensor with one row per completion.
            shards: the ranks that have the other rows.
        """
        super().__init__(torch.zeros(len(rows), dtype=torch.int64, device=rows.device), 1)
        vars(self)["_shards"] = shards

    def sum(self, x: Tensor) -> Tensor:
        """Sum rows (n, M) of all ranks -> (1, M)."""
        (total,) = vars(self)["_shards"].sum(x.sum(0, keepdim=True))
        return total  # type: ignore[no-any-return]

    def ends(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value of each column over all ranks, (n, M) -> (1, M) each."""
        # Every rank adds one row, so that a rank without rows also has values to compare.
        padded = [torch.cat([x, x.new_full((1, x.shape[1]), -torch.inf)]) for x in (-low, high)]
        _, (lowest, highest) = vars(self)["_shards"].combined([], [x.amax(0, keepdim=True) for x in padded])
        return -lowest, highest

    def broadcast(self, stat: Tensor) -> Tensor:
        """Give every row of this rank the value of the batch, (1, M) -> (n, M)."""
        return stat.expand(len(self.index), *stat.shape[1:])
