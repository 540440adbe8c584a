"""Apply structures and monitored channels to a batch, after it is read and before it is aggregated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rvpo.core.channels import Channels, Range, owner_of
from rvpo.core.lazy import Tensor, torch
from rvpo.core.ragged import ChannelScores
from rvpo.core.shards import WHOLE, Whole
from rvpo.errors import ConfigError
from rvpo.step.structure.base import Known, Layout, Structure
from rvpo.text.suggest import did_you_mean


@dataclass(frozen=True)
class Structures:
    """The structures and the monitored channels of a run.

    Attributes:
        parts: the structures, in the order of application.
        monitor: names of channels that are scored and logged, but decide nothing.
        conjunctions: names of the channels that ``parts`` make, with their weights if known.
        replaced: names of channels that these replace.
    """

    parts: tuple[Structure, ...]
    monitor: tuple[str, ...]
    conjunctions: Mapping[str, float]
    replaced: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        parts: Sequence[Structure],
        monitor: Sequence[str],
        names: Sequence[str],
        ranges: Mapping[str, Range | None],
        weights: Mapping[str, float],
        by_method: Sequence[str] = (),
    ) -> Structures:
        """Check structures against the channels of a run.

        Args:
            parts: the structures, in the order of application.
            monitor: checked names of monitored channels.
            names: names of the reward functions.
            ranges: declared ranges by name, also of labels of rubrics.
            weights: weights of the reward functions, 0 for monitored ones.
            by_method: channels that the method's options name.

        Raises:
            ConfigError: a structure cannot work with these channels.
        """
        known = Known(tuple(names), ranges, weights, monitor)
        for part in parts:
            known = part.check(known)
        for name in by_method:
            known.counts(name, "method")
        made = {name: known.weights[name] for name in known.names if name not in names}
        return cls(tuple(parts), tuple(monitor), made, tuple(known.replaced))

    def apply(
        self,
        values: Tensor,
        weights: Tensor | Sequence[float],
        applies: Tensor | None,
        channels: Channels,
        table: ChannelScores | None,
        shards: Whole = WHOLE,
    ) -> Layout:
        """Return the channels of a batch as they enter the aggregation.

        Args:
            values: (N, M) rewards, NaN = missing.
            weights: (M,) or (N, M) weights.
            applies: (N, M) bool, False where the column is not a channel of the row; None if all apply.
            channels: channels of the cells.
            table: channels of the rubrics; None without rubrics.
            shards: where the rows of the batch are.
        """
        whole = torch.ones_like(values, dtype=torch.bool) if applies is None else applies
        of_cells = torch.as_tensor(weights, dtype=values.dtype, device=values.device).expand(values.shape)
        cells = _columns(channels.names, whole) if table is None else dict(table.cells)
        nowhere = watched = torch.zeros_like(whole)
        for name in self.monitor:
            watched = watched | cells.get(name, nowhere)
        of_cells = of_cells.masked_fill(watched, 0.0)
        layout = Layout(values, values, of_cells, whole, nowhere, channels, cells, {}, of_cells, watched, shards=shards)
        for part in self.parts:
            layout = part.apply(layout)
        return layout

    def to_record(self) -> dict[str, list[str]]:
        """Return texts and names for the record of a run."""
        return {"structure": [str(part) for part in self.parts], "monitor": list(self.monitor)}


def checked_monitor(monitor: Sequence[str] | str | None, names: Sequence[str], named: Sequence[str]) -> tuple[str, ...]:
    """Return the names of monitored channels.

    Args:
        monitor: the option as given.
        names: names of the reward functions.
        named: channels that the method's options name.

    Raises:
        ConfigError: it is not a list of names, or names an unknown channel, one that the method needs, or all channels.
    """
    if isinstance(monitor, str):
        monitor = [monitor]
    if not isinstance(monitor or [], Sequence) or not all(isinstance(name, str) and name for name in monitor or []):
        raise ConfigError(f"monitor is {monitor!r}; expected a list of names, such as ['gold']")
    given = tuple(dict.fromkeys(monitor or []))
    if unknown := [name for name in given if owner_of(name, names) is None]:
        raise ConfigError(
            f"monitor names the channel {unknown[0]!r}{did_you_mean(unknown[0], names)}; expected one of "
            f"{', '.join(names)}, or a label of a rubric, RUBRIC/LABEL"
        )
    if relied := [name for name in named if name in given or owner_of(name, names) in given]:
        raise ConfigError(
            f"monitor names the channel {relied[0]!r}, which the method's options name, so they would have no effect; "
            "expected a channel that decides nothing. Drop it from one of the two"
        )
    if all(name in given for name in names):
        raise ConfigError(f"monitor is {list(given)}, which are all rewards; expected at least one to train on")
    return given


def _columns(names: Sequence[str], whole: Tensor) -> dict[str, Tensor]:
    """Return the cells of each column, by name of the column."""
    cells = {}
    for column, name in enumerate(names):
        mask = torch.zeros_like(whole)
        mask[:, column] = whole[:, column]
        cells[name] = mask
    return cells
