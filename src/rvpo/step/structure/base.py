"""Base class of structures, and what they change: the channels of a batch before a method sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rvpo.core.channels import Channels, Range, owner_of
from rvpo.core.checks import require_number
from rvpo.core.lazy import Tensor, torch
from rvpo.core.shards import WHOLE, Whole
from rvpo.errors import ConfigError
from rvpo.step.structure.writing import spell_structure
from rvpo.text.suggest import did_you_mean

NEAR = 1e-6
"""A share that is smaller than a threshold by at most this much reaches it: 0.7 in single precision is below 0.7."""

HOLDS, UNKNOWN = "holds", "unknown"
"""Last parts of metric names: shares of completions in which a condition holds, and in which it is unknown."""


@dataclass(frozen=True)
class Layout:
    """N completions on M columns. Structures change it one after the other.

    Attributes:
        rewards: (N, M) rewards as scored, for the logs; NaN = missing.
        entered: (N, M) rewards that enter the aggregation; NaN = missing or outside.
        weights: (N, M) weights >= 0.
        applies: (N, M) bool, False where the column is not a channel of the row.
        outside: (N, M) bool, cells that are left out of their group's normalisation; see :func:`rvpo.core.compute`.
        channels: the channels of the cells.
        cells: name -> (N, M) bool, cells of a reward function, a rubric, a label, or a channel that a structure made.
        made: name of a channel that a structure made -> its column.
        before: (N, M) weights before any structure.
        watched: (N, M) bool, cells that are only monitored: no structure reads them.
        metrics: metrics of structures for this batch, by name.
        shards: where the rows of the batch are.
    """

    rewards: Tensor
    entered: Tensor
    weights: Tensor
    applies: Tensor
    outside: Tensor
    channels: Channels
    cells: Mapping[str, Tensor]
    made: Mapping[str, int]
    before: Tensor
    watched: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    shards: Whole = WHOLE

    def find(self, name: str) -> tuple[Tensor, bool]:
        """Return the cells (N, M) of a channel that an option names, and whether it is a cost (``-name``)."""
        nowhere, read = torch.zeros_like(self.applies), self.applies & ~self.watched
        if name not in self.cells and name.startswith("-"):
            return self.cells.get(name[1:], nowhere) & read, True
        return self.cells.get(name, nowhere) & read, False

    def ends(self, cells: Tensor, what: str) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest reward of each cell, (M,) or (N, M) each, NaN without a declared range.

        Args:
            cells: (N, M) bool, cells whose range is needed.
            what: the structure that needs it, for the message.

        Raises:
            ConfigError: one of them has no declared range.
        """
        pairs = [limits or (math.nan, math.nan) for limits in self.channels.ranges]
        table = torch.tensor(pairs, dtype=_wide(self.entered), device=self.entered.device)
        low, high = table[self.channels.index].unbind(-1)
        if bool((bad := cells & low.isnan()).any()):
            row, column = bad.nonzero()[0].tolist()
            raise needs_range(what, self.channels.names[int(self.channels.index.expand(cells.shape)[row, column])])
        return low, high

    def shares(self, name: str, what: str) -> tuple[Tensor, Tensor]:
        """Return the attained shares (N, M) in [0, 1] of a channel, NaN where missing, and its cells (N, M).

        The share of a cost is replaced by 1 - share. A reward beyond its range counts as the end of the range.
        """
        cells, is_cost = self.find(name)
        low, high = self.ends(cells, what)
        shares = ((self.entered.to(low) - low) / (high - low)).clamp(0, 1)
        return (1 - shares if is_cost else shares).masked_fill(~cells, torch.nan), cells

    def condition(self, name: str, threshold: float, what: str) -> Tensor:
        """Return whether a channel reaches a threshold, (N,): 1 is yes, 0 is no, NaN is unknown.

        If it has several cells in a row (the criteria of a rubric), all of them must reach it. One cell that does not
        is enough for a 0, even if others are missing. A row without this channel has a 1.
        """
        shares, cells = self.shares(name, what)
        fails = (cells & (shares < threshold - NEAR)).any(-1)
        unknown = (cells & shares.isnan()).any(-1) & ~fails
        return (~fails).to(shares).masked_fill(unknown, torch.nan)

    def told(self, what: str, name: str, condition: Tensor) -> dict[str, float]:
        """Return the metrics, with those of a condition added: shares of the rows that have the channel."""
        has = self.find(name)[0].any(-1)
        of = condition[has]
        holds, gone, count = map(float, self.shards.sum((of == 1).sum(), of.isnan().sum(), torch.tensor(len(of))))
        known, unknown = (holds / count, gone / count) if count else (math.nan, math.nan)
        return {**self.metrics, f"{what}/{HOLDS}": known, f"{what}/{UNKNOWN}": unknown}


@dataclass(frozen=True)
class Known:
    """Channels known at the start of a run. Structures are checked against it one after the other.

    Attributes:
        names: names of reward functions, and of channels that structures make.
        ranges: declared range by name, also of labels of rubrics; None without a declared range.
        weights: weight by name.
        monitored: names of channels that must not decide anything.
        replaced: name -> the structure that replaces it.
        conditional: name -> the structure that makes it count in only some completions.
    """

    names: Sequence[str]
    ranges: Mapping[str, Range | None]
    weights: Mapping[str, float]
    monitored: Sequence[str] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)
    conditional: Mapping[str, str] = field(default_factory=dict)

    def named(self, given: str, what: str) -> str:
        """Return the channel that an option names, without the sign of a cost.

        Raises:
            ConfigError: the channel does not exist, or is only monitored.
        """
        name = given
        if owner_of(given, self.names) is None and given.startswith("-"):
            name = given[1:]
        owner = owner_of(name, self.names)
        if owner is None:
            raise ConfigError(
                f"{what} names the channel {name!r}{did_you_mean(name, self.names)}; expected one of "
                f"{', '.join(self.names)}, or a label of a rubric, RUBRIC/LABEL"
            )
        # A rubric may have monitored labels. Layout.find leaves out their criteria.
        if any(_within(name, watched) for watched in self.monitored):
            raise ConfigError(
                f"{what} names the channel {name!r}, which is only monitored, but a structure would let it decide "
                f"advantages; expected a channel that is trained on. Take {name!r} out of monitor, or out of structure"
            )
        return name

    def need_range(self, name: str, what: str) -> None:
        """Refuse a channel without a declared range.

        Raises:
            ConfigError: the channel has no declared range.
        """
        if self.ranges.get(name) is None and self.ranges.get(owner_of(name, self.names) or "") is None:
            raise needs_range(what, name)

    def counts(self, name: str, what: str) -> None:
        """Refuse a channel that another structure has replaced.

        Raises:
            ConfigError: the channel has been replaced.
        """
        for replaced, by in self.replaced.items():
            if _within(name, replaced):
                raise ConfigError(
                    f"{what} names the channel {name!r}, which {by} has replaced, so that would have no effect; "
                    f"expected the channel that it made. Name that, or put {what} before {by}"
                )

    def counts_everywhere(self, name: str, what: str) -> None:
        """Refuse a channel that would be read in every completion, but counts in only some of them.

        Raises:
            ConfigError: another structure has made the channel conditional.
        """
        for conditional, by in self.conditional.items():
            if _within(name, conditional) or _within(conditional, name):
                raise ConfigError(
                    f"{what} reads the channel {name!r}, which counts only in some completions because of {by}; "
                    f"expected a channel that counts in all. Put {what} before {by}, or drop one of the two"
                )


@dataclass(frozen=True)
class Structure:
    """One change of the channels before the method. Derive from it with ``@dataclass(frozen=True)``."""

    name: ClassVar[str] = ""
    """Name in texts and mappings."""
    positional: ClassVar[str] = ""
    """Names of the options whose values come first in its text."""

    def check(self, known: Known) -> Known:
        """Check names and ranges, and return the known channels after this structure.

        Raises:
            ConfigError: a channel is unknown, or lacks the range that is needed.
        """
        raise NotImplementedError

    def apply(self, layout: Layout) -> Layout:
        """Return the layout with the change.

        Raises:
            ConfigError: a channel of this batch has no declared range, but one is needed.
        """
        raise NotImplementedError

    def __str__(self) -> str:
        """Return the structure as text."""
        return spell_structure(self)


def needs_range(what: str, name: str) -> ConfigError:
    """Return the error for a channel whose range is not declared."""
    return ConfigError(
        f"{what} needs the lowest and the highest reward of {name!r}, but no range is declared; expected one, because "
        f"a learned scale would change the condition during the run. Declare it: ranges={{{name!r}: (0, 1)}} of "
        f"rvpo.Aggregator, reward_ranges={{{name!r}: [0, 1]}} in an engine, `range: [0, 1]` in a recipe"
    )


def _within(name: str, other: str) -> bool:
    """Return whether a name equals another one, or is a label of it."""
    return name == other or name.startswith(f"{other}/")


def require_name(option: str, value: Any) -> None:
    """Raise ConfigError unless a value is the name of a channel."""
    if not isinstance(value, str) or not value.strip() or value.strip() in ("-",):
        raise ConfigError(
            f"{option} is {value!r}; expected the name of a channel, such as 'safe', or '-cost' for 1 - it"
        )


def require_threshold(option: str, value: Any) -> None:
    """Raise ConfigError unless a value is a share in (0, 1]."""
    require_number(option, value, 1, closed=True)
    if value == 0:
        raise ConfigError(f"{option} is 0, which every completion reaches; expected a share in (0, 1]. Set it to 1")


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64
