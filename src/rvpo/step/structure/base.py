"""What a structure is, and what it changes: the channels of one batch before a method sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rvpo.core.channels import Channels, Range, owner_of
from rvpo.core.checks import require_number
from rvpo.core.lazy import Tensor, torch
from rvpo.errors import ConfigError
from rvpo.step.structure.writing import spell_structure
from rvpo.text.suggest import did_you_mean

NEAR = 1e-6
"""How far below a threshold a share may lie and still reach it: 0.7 in single precision is less than 0.7."""

HOLDS, UNKNOWN = "holds", "unknown"
"""Ends of the names of metrics: shares of the completions in which a condition holds, and is not known."""


@dataclass(frozen=True)
class Layout:
    """N completions on M columns, as structures change them one after the other.

    Attributes:
        rewards: (N, M) as scored, NaN = missing. For the logs.
        entered: (N, M) as they enter the aggregation, NaN = missing or outside.
        weights: (N, M), >= 0.
        applies: (N, M) bool, False where the column is no channel of the row.
        outside: (N, M) bool, cells that stand outside of their group's normalisation; see :func:`rvpo.core.compute`.
        channels: the channels that the cells belong to.
        cells: name -> (N, M) bool, the cells of a reward function, a rubric, a label of one, or a channel made here.
        made: name of a channel made here -> its column.
        before: (N, M) weights before any structure.
        watched: (N, M) bool, cells that are only monitored: no structure reads them.
        metrics: what structures say of this batch, by name.
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

    def find(self, name: str) -> tuple[Tensor, bool]:
        """Return the cells (N, M) of a channel as an option names it, and whether it is a cost (``-name``)."""
        nowhere, read = torch.zeros_like(self.applies), self.applies & ~self.watched
        if name not in self.cells and name.startswith("-"):
            return self.cells.get(name[1:], nowhere) & read, True
        return self.cells.get(name, nowhere) & read, False

    def ends(self, cells: Tensor, what: str) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest reward of each cell, (M,) or (N, M) each, NaN where not declared.

        Args:
            cells: (N, M) bool, those whose range is needed.
            what: who needs it, for the message.

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

        That of a cost is 1 - its share. A reward beyond its range counts as the end of the range.
        """
        cells, is_cost = self.find(name)
        low, high = self.ends(cells, what)
        shares = ((self.entered.to(low) - low) / (high - low)).clamp(0, 1)
        return (1 - shares if is_cost else shares).masked_fill(~cells, torch.nan), cells

    def condition(self, name: str, threshold: float, what: str) -> Tensor:
        """Return where a channel reaches a threshold, (N,): 1 it does, 0 it does not, NaN unknown.

        If it has several cells in a row (the criteria of a rubric), all have to reach it; one that does not is enough
        to know. It does where the row has no such channel.
        """
        shares, cells = self.shares(name, what)
        fails = (cells & (shares < threshold - NEAR)).any(-1)
        unknown = (cells & shares.isnan()).any(-1) & ~fails
        return (~fails).to(shares).masked_fill(unknown, torch.nan)

    def told(self, what: str, name: str, condition: Tensor) -> dict[str, float]:
        """Return the metrics with those of a condition: shares of the rows that have the channel."""
        has = self.find(name)[0].any(-1)
        of = condition[has]
        count = max(len(of), 1)
        known = float((of == 1).sum()) / count if len(of) else math.nan
        unknown = float(of.isnan().sum()) / count if len(of) else math.nan
        return {**self.metrics, f"{what}/{HOLDS}": known, f"{what}/{UNKNOWN}": unknown}


@dataclass(frozen=True)
class Known:
    """What is known of the channels when a run begins, as structures are checked one after the other.

    Attributes:
        names: reward functions, and channels that structures have made.
        ranges: declared range by name, also of labels of rubrics; None where nobody declared it.
        weights: by name.
        monitored: names of channels that must not decide anything.
        replaced: name -> the structure that has taken its place.
        conditional: name -> the structure by which it counts only in some completions.
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
            ConfigError: there is none, or it is only monitored.
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
        # A rubric may have monitored labels: their criteria are left out, see Layout.find.
        if any(_within(name, watched) for watched in self.monitored):
            raise ConfigError(
                f"{what} names the channel {name!r}, which is only monitored, but a structure would let it decide "
                f"advantages; expected a channel that is trained on. Take {name!r} out of monitor, or out of structure"
            )
        return name

    def need_range(self, name: str, what: str) -> None:
        """Refuse a channel without a declared range.

        Raises:
            ConfigError: it has none.
        """
        if self.ranges.get(name) is None and self.ranges.get(owner_of(name, self.names) or "") is None:
            raise needs_range(what, name)

    def counts(self, name: str, what: str) -> None:
        """Refuse a channel whose weight another structure has taken.

        Raises:
            ConfigError: it has been replaced.
        """
        for replaced, by in self.replaced.items():
            if _within(name, replaced):
                raise ConfigError(
                    f"{what} names the channel {name!r}, which {by} has replaced, so that would have no effect; "
                    f"expected the channel that it made. Name that, or put {what} in front of {by}"
                )

    def counts_everywhere(self, name: str, what: str) -> None:
        """Refuse a channel that is to be read in every completion, but counts in some alone.

        Raises:
            ConfigError: another structure has made it conditional.
        """
        for conditional, by in self.conditional.items():
            if _within(name, conditional) or _within(conditional, name):
                raise ConfigError(
                    f"{what} reads the channel {name!r}, which {by} lets count in some completions alone; expected a "
                    f"channel that counts in all. Put {what} in front of {by}, or drop one of the two"
                )


@dataclass(frozen=True)
class Structure:
    """One change of the channels before the method. Derive from it with ``@dataclass(frozen=True)``."""

    name: ClassVar[str] = ""
    """Name by which text and mappings know it."""
    positional: ClassVar[str] = ""
    """The option that takes what stands first in its text."""

    def check(self, known: Known) -> Known:
        """Refuse names and ranges that cannot work, and return what is known after it.

        Raises:
            ConfigError: an unknown channel, or one without the range that is needed.
        """
        raise NotImplementedError

    def apply(self, layout: Layout) -> Layout:
        """Return the layout with the change.

        Raises:
            ConfigError: a channel of this batch has no declared range, but one is needed.
        """
        raise NotImplementedError

    def __str__(self) -> str:
        """Return its text."""
        return spell_structure(self)


def needs_range(what: str, name: str) -> ConfigError:
    """Return the error for a channel whose range is not declared."""
    return ConfigError(
        f"{what} needs the lowest and the highest reward of {name!r}, but no range is declared; expected one, because "
        f"a learned scale would move what counts during the run. Declare it: ranges={{{name!r}: (0, 1)}} of "
        f"rvpo.Aggregator, reward_ranges={{{name!r}: [0, 1]}} in an engine, `range: [0, 1]` in a recipe"
    )


def _within(name: str, other: str) -> bool:
    """Whether a name is another one, or a label of it."""
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
