"""Channels that differ from prompt to prompt, padded to one matrix: here and nowhere else.

A rubric gives one prompt 5 channels and the next one 17. A column therefore means something only within a group; what
says whether it exists for a row at all is ``applies``, so padding is neither a missing reward nor a channel::

    prompt a, 2 criteria  ->  | 1  0  .  |      applies | 1 1 0 |
    prompt b, 3 criteria  ->  | 0  1  1  |              | 1 1 1 |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpo.core.channels import Channels, Range
from rvpo.core.groups import Groups
from rvpo.errors import RewardError


@dataclass(frozen=True, slots=True)
class Score:
    """One completion on one channel of its prompt.

    Attributes:
        channel: its name, unique among the channels of the prompt.
        value: the reward, or None where it could not be had.
        weight: importance, >= 0; 0 is monitored and takes no part.
        labels: names under which metrics pool it, such as a category.
        reason: why it is missing.
        judge: who decided it, where there are several.
        text: what the channel asks for, and ``detail``, what its judge said: for the records only.
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
    """What ``rvpo.core.compute`` takes, for N completions and M columns.

    Attributes:
        values: (N, M) rewards, NaN where missing and where no channel is.
        weights: (N, M).
        applies: (N, M) bool, False where no channel is.
        cells: name -> (N, M) bool, which cells a metric of that name pools.
        first_column: name of a family -> the column of its first channel.
        channels: the channels of the run that the cells belong to: a function, or the first label of a score (its
            family, where it has none), because a criterion of one prompt may never be seen again.
    """

    values: Tensor
    weights: Tensor
    applies: Tensor
    cells: Mapping[str, Tensor]
    first_column: Mapping[str, int]
    channels: Channels


@dataclass(frozen=True)
class Family:
    """The channels that one reward function gives each completion.

    Attributes:
        name: of the reward function; its channels are pooled under it, and under ``{name}/{label}``.
        rows: N lists of scores, of different length; within a group all have the same channels.
        only_monitored: the function's own scalar is the channel, and these scores take no part.
    """

    name: str
    rows: Sequence[Sequence[Score]]
    only_monitored: bool = False


def assemble(
    rewards: Tensor,
    names: Sequence[str],
    families: Sequence[Family],
    *,
    num_generations: int | None = None,
    groups: Tensor | None = None,
    weights: Tensor | Sequence[float] | None = None,
    ranges: Sequence[Range | None] | None = None,
) -> ChannelScores:
    """Lay ordinary channels and families side by side.

    Args:
        rewards: (N, F) one column a reward function; that of a family is replaced by its channels, unless they are
            only monitored.
        names: F names of the reward functions.
        families: those of them that have channels of their own.
        num_generations: G, for rows in blocks of G, or else ``groups``.
        groups: (N,) integer group ids in any order.
        weights: (F,) importance of the functions; a family's multiplies the weights of its scores. None: all 1.
        ranges: (F,) lowest and highest reward of the functions; scores of a family lie in [0, 1].

    Raises:
        RewardError: a family is no column or has another number of rows, or the rows of a group differ in channels.
    """
    partition = Groups.of(rewards.shape[0], groups, num_generations, rewards.device).index.tolist()
    function_weights = torch.ones(len(names)) if weights is None else torch.as_tensor(weights)
    weight_of = dict(zip(names, function_weights.tolist(), strict=True))
    for family in families:
        _check(family, rewards.shape[0], names, partition)
    replaced = {family.name for family in families if not family.only_monitored}
    kept = [j for j, name in enumerate(names) if name not in replaced]
    every = torch.ones_like(rewards, dtype=torch.bool)
    values = [rewards[:, kept]]
    all_weights = [function_weights.to(rewards)[kept].expand(rewards.shape[0], -1)]
    applies = [every[:, kept]]
    pooled: dict[str, list[tuple[int, int]]] = {
        names[j]: [(i, column) for i in range(rewards.shape[0])] for column, j in enumerate(kept)
    }
    first_column: dict[str, int] = {}
    run = [names[j] for j in kept]  # names of the run's channels, in order of appearance
    limits: list[Range | None] = [ranges[j] if ranges else None for j in kept]
    index = [torch.arange(len(kept)).expand(rewards.shape[0], -1)]
    column = len(kept)
    if not kept and not any(row for family in families for row in family.rows):
        # No prompt of this batch has a rubric: one column that applies to nobody keeps the matrix from being empty.
        every = every & False
        values, all_weights, applies, column = [rewards[:, :1]], [every[:, :1].to(rewards)], [every[:, :1]], 1
        run, limits, index = names[:1], [None], [torch.zeros(rewards.shape[0], 1, dtype=torch.int64)]  # type: ignore[assignment]
    for family in families:
        first_column[family.name] = column
        width = max((len(row) for row in family.rows), default=0)
        factor = 0.0 if family.only_monitored else weight_of[family.name]
        everything = f"{family.name}/criteria" if family.only_monitored else family.name
        for i, row in enumerate(family.rows):
            for j, score in enumerate(row):
                for label in (everything, *(f"{family.name}/{label}" for label in score.labels)):
                    pooled.setdefault(label, []).append((i, column + j))

        def padded(entries: list[list[float]], fill: float, width: int = width) -> Tensor:
            rows = [row + [fill] * (width - len(row)) for row in entries]
            return torch.tensor(rows, dtype=rewards.dtype, device=rewards.device).reshape(len(rows), width)

        belongs = [[_of_run(run, limits, everything, score) for score in row] for row in family.rows]
        index.append(padded(belongs, 0).long().cpu())  # type: ignore[arg-type]
        scored = [[torch.nan if score.value is None else score.value for score in row] for row in family.rows]
        values.append(padded(scored, torch.nan))
        all_weights.append(padded([[factor * score.weight for score in row] for row in family.rows], 0.0))
        applies.append(padded([[1.0] * len(row) for row in family.rows], 0.0).bool())
        column += width
    shape = (rewards.shape[0], column)
    return ChannelScores(
        torch.cat(values, 1),
        torch.cat(all_weights, 1),
        torch.cat(applies, 1),
        {name: _mask(pooled[name], shape, rewards.device) for name in pooled},
        first_column,
        Channels(tuple(run), torch.cat(index, 1).to(rewards.device), tuple(limits)),
    )


def _of_run(run: list[str], limits: list[Range | None], family: str, score: Score) -> int:
    """Return the number of the run's channel that a score belongs to, adding it where it is new."""
    name = f"{family}/{score.labels[0]}" if score.labels else family
    if name not in run:
        run.append(name)
        limits.append((0.0, 1.0))
    return run.index(name)


def _mask(cells: list[tuple[int, int]], shape: tuple[int, int], device: torch.device) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(torch.tensor(cells).T)] = True
    return mask.to(device)


def _check(family: Family, rows: int, names: Sequence[str], groups: Sequence[int]) -> None:
    if family.name not in names:
        raise RewardError(f"family {family.name!r} is no reward function; those are {', '.join(names)}")
    if len(family.rows) != rows:
        raise RewardError(f"{family.name!r} has scores for {len(family.rows)} completions, allowed are {rows}")
    first: dict[int, tuple[int, list[str]]] = {}
    for i, (group, row) in enumerate(zip(groups, family.rows, strict=True)):
        channels = [score.channel for score in row]
        j, expected = first.setdefault(group, (i, channels))
        if channels != expected:
            raise RewardError(
                f"{family.name!r}: completions {j} and {i} answer one prompt, but have other channels: a rubric "
                "belongs to the prompt, so give each row of the data its own"
            )
