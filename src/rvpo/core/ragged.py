"""Pad channels that differ from prompt to prompt into one matrix. Only this module does that.

A rubric may give one prompt 5 channels and the next one 17. So a column has a meaning only within a group. ``applies``
shows whether it exists for a row, so padding is neither a missing reward nor a channel::

    prompt a, 2 criteria  ->  | 1  0  .  |      applies | 1 1 0 |
    prompt b, 3 criteria  ->  | 0  1  1  |              | 1 1 1 |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rvpo.core.channels import Channels, Range
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.errors import RewardError


@dataclass(frozen=True, slots=True)
class Score:
    """One completion on one channel of its prompt.

    Attributes:
        channel: name, unique among the channels of the prompt.
        value: the reward, or None if it is missing.
        weight: importance, >= 0; 0 is monitored and does not take part.
        labels: names under which metrics pool it, such as a category.
        reason: why it is missing.
        judge: name of the judge that decided it, if there are several.
        text: text of the criterion, for the records only. ``detail`` is the judge's explanation.
    """

    channel: str
    value: float | None
    weight: float = 1.0
    labels: tuple[str, ...] = ()
    reason: str | None = None
    judge: str | None = None
    text: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class ChannelScores:
    """Input of ``rvpo.core.compute`` for N completions and M columns.

    Attributes:
        values: (N, M) rewards, NaN where missing or without a channel.
        weights: (N, M) weights.
        applies: (N, M) bool, False where there is no channel.
        cells: name -> (N, M) bool, the cells that a metric of that name pools.
        first_column: name of a family -> the column of its first channel.
        channels: channels of the run for the cells: a function, or the first label of a score (or its family, without
            labels), because a criterion of one prompt may never occur again.
    """

    values: Tensor
    weights: Tensor
    applies: Tensor
    cells: Mapping[str, Tensor]
    first_column: Mapping[str, int]
    channels: Channels


@dataclass(frozen=True)
class Shape:
    """What a family looks like in the rows of all ranks, so that all of them lay out the same columns.

    Attributes:
        width: number of channels of the longest row.
        labels: the different labels of its scores, by first appearance.
    """

    width: int
    labels: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Family:
    """The channels that one reward function gives each completion.

    Attributes:
        name: name of the reward function. Its channels are pooled under it, and under ``{name}/{label}``.
        rows: N lists of scores, of different lengths. Within a group all have the same channels.
        only_monitored: whether the function's own scalar is the channel, and these scores do not take part.
        shape: shape of the rows of all ranks; None if all rows are here.
    """

    name: str
    rows: Sequence[Sequence[Score]]
    only_monitored: bool = False
    shape: Shape | None = None


def assemble(
    rewards: Tensor,
    names: Sequence[str],
    families: Sequence[Family],
    *,
    num_generations: int | None = None,
    groups: Tensor | None = None,
    weights: Tensor | Sequence[float] | None = None,
    ranges: Sequence[Range | None] | None = None,
    label_ranges: Mapping[str, Range] | None = None,
) -> ChannelScores:
    """Join ordinary channels and families into one matrix.

    Args:
        rewards: (N, F) one column per reward function. The column of a family is replaced by its channels, unless they
            are only monitored.
        names: F names of the reward functions.
        families: the reward functions that have their own channels.
        num_generations: G, for rows in blocks of G; or use ``groups``.
        groups: (N,) integer group ids in any order.
        weights: (F,) importance of the functions. A family's weight multiplies the weights of its scores. None: all 1.
        ranges: (F,) lowest and highest reward of the functions. A family's range is the range of its scores. None
            without a declared range: the scale is then learned, as for any other reward.
        label_ranges: name of a family's channel, ``{family}/{label}`` -> its own range, which takes precedence.

    Raises:
        RewardError: a family is not a column or has another number of rows, the rows of a group have different
            channels, or a label's channel has the name of another reward.
    """
    rows = rewards.shape[0]
    partition = Groups.of(rows, groups, num_generations, rewards.device).index.tolist()
    for family in families:
        _check(family, rows, names, partition)
    function_weights = torch.ones(len(names)) if weights is None else torch.as_tensor(weights)
    weight_of = dict(zip(names, function_weights.tolist(), strict=True))
    replaced = {family.name for family in families if not family.only_monitored}
    kept = [j for j, name in enumerate(names) if name not in replaced]
    range_of = dict(zip(names, ranges or [None] * len(names), strict=True))
    layout = _Layout(rewards, label_ranges or {})
    layout.add_functions(
        [names[j] for j in kept],
        rewards[:, kept],
        function_weights.to(rewards)[kept],
        [range_of[names[j]] for j in kept],
    )
    for family in families:
        # Scores that are only monitored may have another scale than the function's own number.
        factor, limits = (0.0, None) if family.only_monitored else (weight_of[family.name], range_of[family.name])
        layout.add_family(family, factor, limits)
    if layout.width == 0:
        layout.add_nothing(names[0])
    return layout.finished()


class _Layout:
    """The matrix under construction. It grows by blocks of columns."""

    def __init__(self, rewards: Tensor, label_ranges: Mapping[str, Range]) -> None:
        self._like, self._rows = rewards, rewards.shape[0]
        self._label_ranges = label_ranges
        self.width = 0
        self._values: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._applies: list[Tensor] = []
        self._index: list[Tensor] = []
        self._cells: dict[str, list[tuple[int, int]]] = {}  # name -> the cells that a metric of that name pools
        self._first_column: dict[str, int] = {}
        self._number_of: dict[str, int] = {}  # name of a channel of the run -> its number, in order of appearance
        self._ranges: list[Range | None] = []
        self._owner_of: dict[str, str] = {}  # name of a channel or metric -> the reward function that it belongs to

    def add_functions(
        self, names: Sequence[str], values: Tensor, weights: Tensor, ranges: Sequence[Range | None]
    ) -> None:
        """Add reward functions with one channel each, (N, F)."""
        numbers = [self._number(name, limits, name) for name, limits in zip(names, ranges, strict=True)]
        for column, name in enumerate(names):
            self._cells[name] = [(row, column) for row in range(self._rows)]
        self._append(
            values,
            weights.expand(self._rows, -1),
            torch.ones_like(values, dtype=torch.bool),
            torch.tensor(numbers, dtype=torch.int64).expand(self._rows, -1),
        )

    def add_family(self, family: Family, factor: float, limits: Range | None) -> None:
        """Add one column per place in the longest row of a family."""
        self._first_column[family.name] = self.width
        everything = f"{family.name}/criteria" if family.only_monitored else family.name
        width = max((len(row) for row in family.rows), default=0)
        if family.shape is not None:
            width = family.shape.width
            for labels in family.shape.labels:
                self._number_of_score(Score("", None, labels=labels), family.name, everything, limits)
                self._name_pools(family.name, everything, labels)
        shape = self._rows, width
        values, weights = self._like.new_full(shape, torch.nan), self._like.new_zeros(shape)
        applies, index = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.int64)
        for i, row in enumerate(family.rows):
            if not row:
                continue
            length = len(row)
            scored = [math.nan if score.value is None else score.value for score in row]
            values[i, :length] = values.new_tensor(scored)
            weights[i, :length] = weights.new_tensor([factor * score.weight for score in row])
            applies[i, :length] = True
            numbers = [self._number_of_score(score, family.name, everything, limits) for score in row]
            index[i, :length] = torch.tensor(numbers)
            self._pool(family.name, everything, i, row)
        self._append(values, weights, applies.to(self._like.device), index)

    def add_nothing(self, name: str) -> None:
        """Add a column that applies to no row, if no prompt of this batch has a rubric: a matrix must not be empty."""
        self._number(name, None, name)
        column = self._like[:, :1]
        nowhere = torch.zeros_like(column, dtype=torch.bool)
        self._append(column, torch.zeros_like(column), nowhere, torch.zeros(self._rows, 1, dtype=torch.int64))

    def finished(self) -> ChannelScores:
        """Return the whole matrix."""
        device, shape = self._like.device, (self._rows, self.width)
        return ChannelScores(
            torch.cat(self._values, 1),
            torch.cat(self._weights, 1),
            torch.cat(self._applies, 1),
            {name: _mask(cells, shape, device) for name, cells in self._cells.items()},
            self._first_column,
            Channels(tuple(self._number_of), torch.cat(self._index, 1).to(device), tuple(self._ranges)),
        )

    def _append(self, values: Tensor, weights: Tensor, applies: Tensor, index: Tensor) -> None:
        self._values.append(values)
        self._weights.append(weights)
        self._applies.append(applies)
        self._index.append(index)
        self.width += values.shape[1]

    def _number_of_score(self, score: Score, family: str, everything: str, limits: Range | None) -> int:
        """Return the number of the run's channel for a score: its first label, or its family without labels."""
        name = f"{everything}/{score.labels[0]}" if score.labels else everything
        return self._number(name, self._label_ranges.get(name, limits), family)

    def _number(self, name: str, limits: Range | None, owner: str) -> int:
        """Return the number of a channel of the run, adding it if it is new."""
        self._claim(name, owner)
        if name not in self._number_of:
            self._number_of[name] = len(self._number_of)
            self._ranges.append(limits)
        return self._number_of[name]

    def _claim(self, name: str, owner: str) -> None:
        """Refuse a name that another reward function has, because their numbers would be merged.

        Raises:
            RewardError: another reward function has the name.
        """
        other = self._owner_of.setdefault(name, owner)
        if other != owner:
            family = owner if name.startswith(f"{owner}/") else other
            label, rest = name.removeprefix(f"{family}/"), other if family == owner else owner
            raise RewardError(
                f"rubric {family!r} has the label {label!r}, so its channel is {name!r}, which is also a name of the "
                f"reward {rest!r}; expected a unique name per channel. Rename the label or the reward"
            )

    def _pool(self, family: str, everything: str, row: int, scores: Sequence[Score]) -> None:
        """Record under which names metrics pool the cells of a row."""
        for column, score in enumerate(scores, self.width):
            for label in self._name_pools(family, everything, score.labels):
                self._cells[label].append((row, column))

    def _name_pools(self, family: str, everything: str, labels: Sequence[str]) -> list[str]:
        """Return under which names metrics pool a score with these labels, adding those that are new."""
        names = [everything, *(f"{family}/{label}" for label in labels)]
        for name in names:
            self._claim(name, family)
            self._cells.setdefault(name, [])
        return names


def _mask(cells: list[tuple[int, int]], shape: tuple[int, int], device: torch.device) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    if cells:
        mask[tuple(torch.tensor(cells).T)] = True
    return mask.to(device)


def _check(family: Family, rows: int, names: Sequence[str], groups: Sequence[int]) -> None:
    if family.name not in names:
        raise RewardError(f"family {family.name!r} is not a reward function; expected one of {', '.join(names)}")
    if len(family.rows) != rows:
        raise RewardError(f"{family.name!r} has scores for {len(family.rows)} completions; expected {rows}")
    first: dict[int, tuple[int, list[str]]] = {}
    for i, (group, row) in enumerate(zip(groups, family.rows, strict=True)):
        channels = [score.channel for score in row]
        j, expected = first.setdefault(group, (i, channels))
        if channels != expected:
            raise RewardError(
                f"{family.name!r}: completions {j} and {i} answer one prompt, but have different channels: a rubric "
                "belongs to the prompt, so give each row of the data its own"
            )
