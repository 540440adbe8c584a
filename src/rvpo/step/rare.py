"""Find channels that a soft minimum suppresses because they are rarely met, over the rollouts of many steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from rvpo.core.metrics import rarely_met
from rvpo.core.shards import WHOLE, Whole

WINDOW = 1024
"""Number of latest rewards of a channel that are examined."""
EVERY = 4
"""Batches between two checks, after the first ``WINDOW`` completions: a rarely met channel stays so for many steps."""


class RecentRewards:
    """The latest rewards of each channel, from batches in which it counted."""

    def __init__(self) -> None:
        """Start without rewards."""
        self._columns: Tensor | None = None  # (WINDOW, M), NaN until there are enough rewards
        self._pooled: dict[str, Tensor] = {}
        self._waiting: list[tuple[Tensor, Tensor]] = []  # rewards and which columns count
        self._completions = self._batches = 0

    def add(
        self,
        rewards: Tensor,
        shown: Sequence[str] | Mapping[str, Tensor],
        counts: Tensor | None,
        completions: int | None = None,
    ) -> None:
        """Add a batch.

        Args:
            rewards: (N, M) rewards of the batch.
            shown: M names, one per column, or name -> (N, M) bool, the cells of a channel.
            counts: (M,) bool, columns that rank a group or count in an aggregate. None for cells, which always count.
            completions: number of rows over all ranks, so that all of them check at the same time; None means N.
        """
        self._completions += len(rewards) if completions is None else completions
        self._batches += 1
        if isinstance(shown, Mapping):
            for name, cells in shown.items():
                before = self._pooled.get(name, rewards[:0, 0])
                self._pooled[name] = torch.cat([before, rewards[cells]])[-WINDOW:]
            return
        assert counts is not None
        self._waiting.append((rewards[-WINDOW:].clone(), counts))
        if len(self._waiting) == EVERY:
            self._of_columns()

    def rare(self, shown: Sequence[str] | Mapping[str, Tensor], shards: Whole = WHOLE) -> list[str]:
        """Return the channels of the last batch that are rarely met so far.

        See :func:`rvpo.core.metrics.rarely_met`. The check runs once per ``EVERY`` batches; in between it is empty.

        Args:
            shown: names or cells of the last batch, as in :meth:`add`.
            shards: where the rows of the batches are. Each rank remembers its own latest rewards.
        """
        if self._completions > WINDOW and self._batches % EVERY:
            return []
        table = self._of_names(shown) if isinstance(shown, Mapping) else self._of_columns()
        return [name for name, is_rare in zip(shown, rarely_met(table, shards=shards).tolist(), strict=True) if is_rare]

    def _of_names(self, names: Iterable[str]) -> Tensor:
        """Return the latest rewards, one column per name, filled up with NaN."""
        return torch.nn.utils.rnn.pad_sequence([self._pooled[name] for name in names], padding_value=torch.nan)

    def _of_columns(self) -> Tensor:
        """Return the latest rewards of the columns. Columns that do not count in a batch do not change."""
        table = self._columns
        for rewards, counts in self._waiting:
            if table is None or table.shape[1:] != rewards.shape[1:]:
                table = rewards.new_full((WINDOW, rewards.shape[1]), torch.nan)
            table = torch.where(counts, torch.cat([table[len(rewards) :], rewards]), table)
        assert table is not None  # a batch was added
        self._columns, self._waiting = table, []
        return table
