"""Groups of rows that answer the same prompt, and reductions over them without a Python loop.

Dimensions in all of ``rvpo``: P prompts (groups), G completions per prompt, N completions in total (N = P * G if all
groups have the same size), M channels (rewards), T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rvpo.core.lazy import Tensor, torch
from rvpo.errors import RewardError


@dataclass(frozen=True)
class Groups:
    """The partition of N rows into P groups.

    Attributes:
        index: (N,) int64, the group of each row as 0 … P - 1.
        count: P, the number of groups.
        block: G if the rows form P consecutive blocks of G (reductions are then plain views), otherwise None.
    """

    index: Tensor
    count: int
    block: int | None = None

    @classmethod
    def of(cls, rows: int, ids: Tensor | None, num_generations: int | None, device: torch.device) -> Groups:
        """Group rows by ``ids`` or ``num_generations``, whichever is given.

        Raises:
            RewardError: both or neither are given, or they do not fit the rows.
        """
        if (ids is None) == (num_generations is None):
            seen = "neither" if ids is None else "both"
            raise RewardError(f"{seen} of groups and num_generations given: pass exactly one of them")
        if num_generations is not None:
            return cls.from_blocks(rows, num_generations, device)
        return cls.from_ids(torch.as_tensor(ids, device=device), rows)

    @classmethod
    def in_blocks(cls, ids: Tensor) -> Groups:
        """Group rows by integer id. If groups form blocks of one size, sums are plain views.

        Args:
            ids: (N,) integer group ids.
        """
        size = block_size(ids)
        return cls.from_blocks(len(ids), size, ids.device) if size else cls.from_ids(ids, len(ids))

    @classmethod
    def from_ids(cls, ids: Tensor, rows: int) -> Groups:
        """Group rows by integer id. Ids may come in any order and groups may differ in size.

        Raises:
            RewardError: when ``ids`` is not an integer tensor of shape (rows,).
        """
        if ids.ndim != 1 or ids.shape[0] != rows:
            raise RewardError(
                f"groups has shape {tuple(ids.shape)}, but rewards has {rows} rows: pass one integer group id "
                f"per row, shape ({rows},), or num_generations=G for rows in blocks of G"
            )
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise RewardError(
                f"groups has dtype {ids.dtype}, but group ids are integers: pass groups.long(), or map your "
                "prompt ids to integers first"
            )
        unique, index = torch.unique(ids, return_inverse=True)
        return cls(index, unique.numel())

    @classmethod
    def from_blocks(cls, rows: int, num_generations: int, device: torch.device) -> Groups:
        """Group rows that form consecutive blocks of ``num_generations``, as in TRL.

        Raises:
            RewardError: ``rows`` is not a multiple of ``num_generations``.
        """
        # True would be blocks of one completion, which nothing ranks.
        is_whole = hasattr(num_generations, "__index__") and not isinstance(num_generations, bool)
        if not is_whole or num_generations < 1 or rows % num_generations:
            raise RewardError(
                f"num_generations is {num_generations!r}, but {rows} rows cannot be cut into blocks of that size: "
                "pass a positive divisor of the number of rows, or explicit group ids as `groups`"
            )
        made = object.__new__(cls)
        vars(made).update(count=rows // num_generations, block=num_generations, _device=device)
        return made

    def __getattr__(self, name: str) -> Any:
        """Compute the group numbers of blocks on first use: most sums do not need them."""
        if name != "index" or "_device" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        numbers = torch.arange(self.count, device=vars(self)["_device"])
        index = vars(self)["index"] = numbers.repeat_interleave(vars(self)["block"])
        return index

    @property
    def size(self) -> int:
        """Number of rows of the largest group."""
        if self.block or not self.count:
            return self.block or 0
        return int(torch.bincount(self.index).max())

    def sum(self, x: Tensor) -> Tensor:
        """Sum rows (N, M) within groups -> (P, M)."""
        if self.block is not None:
            return x.reshape(self.count, self.block, -1).sum(1)
        return x.new_zeros(self.count, x.shape[1]).index_add(0, self.index, x)

    def min(self, x: Tensor) -> Tensor:
        """Return the smallest value of each column within groups, (N, M) -> (P, M)."""
        return self._extreme(x, "amin", torch.inf)

    def max(self, x: Tensor) -> Tensor:
        """Return the largest value of each column within groups, (N, M) -> (P, M)."""
        return self._extreme(x, "amax", -torch.inf)

    def ends(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest values of ``low`` and the largest of ``high`` within groups, (N, M) -> (P, M) each."""
        return self.min(low), self.max(high)

    def _extreme(self, x: Tensor, reduce: str, start: float) -> Tensor:
        if self.block is not None:
            blocks = x.reshape(self.count, self.block, -1)
            return blocks.amin(1) if reduce == "amin" else blocks.amax(1)
        target = x.new_full((self.count, x.shape[1]), start)
        return target.scatter_reduce(0, self.index[:, None].expand_as(x), x, reduce)

    def broadcast(self, stat: Tensor) -> Tensor:
        """Return the value of each row's group, (P, M) -> (N, M)."""
        if self.block is not None:
            return stat[:, None].expand(-1, self.block, *stat.shape[1:]).flatten(0, 1)
        return stat[self.index]


def block_size(ids: Tensor) -> int | None:
    """Return the size of groups that form blocks of one size; None for other groups.

    Args:
        ids: (N,) integer group ids.
    """
    rows = len(ids)
    changes = (ids[1:] != ids[:-1]).nonzero()[:, 0]
    size = rows if not len(changes) else int(changes[0]) + 1
    if not rows or rows % size:
        return None
    blocks = ids.view(-1, size)
    first = blocks[:, 0]
    if not bool((blocks == first[:, None]).all()) or len(set(first.tolist())) < len(first):
        return None
    return size
