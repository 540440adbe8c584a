"""The logs of a run from any trainer: batches of completions with their rewards on every channel.

A batch is a set of completions that were whitened together: those that one generation step logged. Folders are read
file by file, so that memory does not grow with the length of a run. For a table, the columns with numbers stay in
memory. :mod:`rvpo.logs.open` determines what a path contains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpo.core import AdvantageConfig
from rvpo.core.channels import Range, check_ranges
from rvpo.errors import ConfigError, DataError
from rvpo.logs.guess import Guess
from rvpo.logs.schema import FOLDER

COMPLETIONS = "completions"

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Bounds = tuple[int | None, int | None]
"""First and last step to read, both included; None: no bound."""


@dataclass(frozen=True)
class Texts:
    """The texts of a batch: ``prompts`` and ``completions``, N texts each, chats as JSON.

    ``pictures`` has the digests of each prompt's pictures, as N lists, with None for an unknown picture. It is empty
    if the run has no pictures.
    """

    prompts: Sequence[str]
    completions: Sequence[str]
    pictures: Sequence[Sequence[str | None]] = ()

    def rows(self, index: Sequence[int]) -> Texts:
        """Return the texts of some rows."""
        return Texts(
            [self.prompts[i] for i in index],
            [self.completions[i] for i in index],
            [self.pictures[i] for i in index] if self.pictures else (),
        )


@dataclass(frozen=True)
class LoggedBatch:
    """N completions on M columns that were whitened together. Other kinds of arrays are converted to NumPy arrays.

    Attributes:
        step: training step.
        rewards: (N, M) float64, NaN = missing.
        groups: (N,) int64, group of each row within this batch; rows of a group have the same prompt.
        channel: (M,) or (N, M) int64, index of the run's channel that a cell belongs to.
        advantages: (N,) float64, advantages that the run trained with; None if they were not logged.
        applies: (N, M) bool, False if the column is not a channel of the row; None: all apply.
        weights: (N, M) or (M,) importance; None if unknown.
        reliability: (N, M), how far a cell was trusted; None: fully.
        tokens: (N,) numbers of tokens with which the rows were whitened; None: without tokens.
        config: how the run aggregated this batch; None if unknown.
        progress: share of the training that was done; None if unknown.
        numbers: (N,) int64, indices of the completions in their step, which :attr:`Run.details` takes.
        texts: prompts and completions, if requested and logged.
        totals: (N,) logged sums of the rewards, from which advantages are computed if none were logged; otherwise None.
        groupings: size -> (N,) groups of that size, if the logs do not identify the groups. All of them are plausible,
            the likeliest first, and ``groups`` is one of them. Empty if the groups are known.
        outside: (N, M) bool, cells that a structure put outside their group's normalisation; None without such cells.
    """

    step: int
    rewards: Array
    groups: Ints
    channel: Ints
    advantages: Array | None = None
    applies: Bools | None = None
    weights: Array | None = None
    reliability: Array | None = None
    tokens: Ints | None = None
    config: AdvantageConfig | None = None
    progress: float | None = None
    numbers: Ints | None = None
    texts: Texts | None = None
    totals: Array | None = None
    groupings: Mapping[int, Ints] = field(default_factory=dict)
    outside: Bools | None = None

    def __post_init__(self) -> None:
        """Turn tensors and lists into arrays, in double precision."""
        for name in _ARRAYS:
            value = getattr(self, name)
            array = value if value is None else np.asarray(value)
            if array is not None and array.dtype.kind == "f":
                array = array.astype(np.float64, copy=False)
            if array is not value:
                object.__setattr__(self, name, array)

    @property
    def present(self) -> Bools:
        """Which columns are channels of a row, (N, M)."""
        return np.ones(self.rewards.shape, dtype=bool) if self.applies is None else self.applies

    def rows(self, index: Ints) -> LoggedBatch:
        """Return some of the completions. Pass whole groups, so that the results are meaningful."""
        index = np.asarray(index)

        def take(x: Any) -> Any:
            return x[index] if x is not None and x.shape[:1] == self.groups.shape and x.ndim else x

        texts = self.texts and self.texts.rows(index.tolist())
        return replace(
            self,
            rewards=self.rewards[index],
            groups=self.groups[index],
            channel=self.channel if self.channel.ndim == 1 else self.channel[index],
            advantages=take(self.advantages),
            applies=take(self.applies),
            weights=self.weights if self.weights is None or self.weights.ndim == 1 else self.weights[index],
            reliability=take(self.reliability),
            tokens=take(self.tokens),
            numbers=take(self.numbers),
            texts=texts,
            totals=take(self.totals),
            outside=take(self.outside),
            groupings={size: groups[index] for size, groups in self.groupings.items()},
        )


_ARRAYS = (
    *("rewards", "groups", "channel", "advantages", "applies", "weights"),
    *("reliability", "tokens", "numbers", "totals", "outside"),
)
"""Attributes of a batch that are arrays."""


@dataclass(frozen=True)
class Run:
    """The logs of one run.

    Attributes:
        path: path of the logs.
        kind: ``"channels"``, ``"completions"`` or ``"table"``.
        channels: K names, in the order of the indices in :attr:`LoggedBatch.channel`.
        steps: the logged steps, in order.
        read: function that yields the batches in order; its argument says whether to include texts.
        config: how the run aggregated at its last step; None if the logs do not say.
        ranges: channel -> declared lowest and highest reward; None if not declared.
        every_batch: whether no batch since the first step is missing, as far as the logs show.
        notes: how the logs were interpreted, for the reader.
        guesses: what was guessed about the logs; every result of the logs must show this at the top.
        details: function that returns what the logs say about each channel of a completion, from the step and the
            indices of completions; None if the logs contain no more than the batches.
        structure: structures that were applied before the method, as texts in order.
        monitor: names of channels that were only monitored, because the user chose so.
        solved: names of channels that a completion has to meet to solve its question; empty: all trained channels.
        pictures: folder with small copies of the prompts' pictures; None if the logs have none.
    """

    path: Path
    kind: str
    channels: tuple[str, ...]
    steps: tuple[int, ...]
    read: Callable[[bool], Iterator[LoggedBatch]]
    config: AdvantageConfig | None = None
    ranges: Mapping[str, Range | None] = field(default_factory=dict)
    every_batch: bool = True
    notes: tuple[str, ...] = ()
    guesses: tuple[Guess, ...] = ()
    details: Callable[[int, Sequence[int]], dict[int, list[dict[str, Any]]]] | None = None
    structure: tuple[str, ...] = ()
    monitor: tuple[str, ...] = ()
    solved: tuple[str, ...] = ()
    pictures: Path | None = None

    @property
    def name(self) -> str:
        """Name of the run's folder, not of the folder with logs inside it."""
        inner = self.path.name in (FOLDER, COMPLETIONS)
        return (self.path.resolve().parent if inner else self.path.resolve()).name

    def batches(self, texts: bool = False) -> Iterator[LoggedBatch]:
        """Yield the batches in order of their steps.

        Raises:
            DataError: a file is damaged, or a reward is infinite.
        """
        for batch in self.read(texts):
            if (infinite := np.isinf(batch.rewards)).any():
                row, column = np.argwhere(infinite)[0].tolist()
                name = self.channels[int(np.broadcast_to(batch.channel, batch.rewards.shape)[row, column])]
                raise DataError(
                    f"{self.path}, step {batch.step}, completion {row}: channel {name!r} has the reward "
                    f"{batch.rewards[row, column].item()}; expected finite numbers, and null or NaN for missing "
                    "rewards. Fix the reward function, or set these cells to null"
                )
            if batch.advantages is not None and (infinite := np.isinf(batch.advantages)).any():
                row = int(infinite.argmax())
                raise DataError(
                    f"{self.path}, step {batch.step}, completion {row}: the advantage is "
                    f"{batch.advantages[row].item()}; expected finite numbers, and null for missing ones. Fix the log"
                )
            yield batch

    def between(self, first: int | None, last: int | None) -> Run:
        """Return the part of the run from step ``first`` to step ``last``, both included.

        Raises:
            ConfigError: the run has no step between them.
        """
        kept = steps_between(self.path, self.steps, (first, last))
        if kept == self.steps:
            return self
        whole = self.read

        def read(texts: bool) -> Iterator[LoggedBatch]:
            until = takewhile(lambda batch: batch.step <= kept[-1], whole(texts))
            return (batch for batch in until if batch.step >= kept[0])

        whole_start = self.every_batch and kept[0] == self.steps[0]
        return replace(self, steps=kept, read=read, every_batch=whole_start)


def steps_between(path: Path, steps: Sequence[int], bounds: Bounds) -> tuple[int, ...]:
    """Return the steps between bounds, from the ordered steps of a run.

    Raises:
        ConfigError: no step is between the bounds.
    """
    first, last = bounds
    if first is None and last is None:
        return tuple(steps)
    low, high = (steps[0] if first is None else first), (steps[-1] if last is None else last)
    kept = tuple(step for step in steps if low <= step <= high)
    if not kept:
        raise ConfigError(
            f"steps {low} to {high} of {path} do not exist; expected steps from {steps[0]} to {steps[-1]}. Change "
            "--steps"
        )
    return kept


def with_weights(run: Run, weights: Sequence[float]) -> Run:
    """Return the run with weights of its channels, which its logs do not contain.

    Raises:
        ConfigError: the weights are not one finite number >= 0 per channel, or the logs already contain weights.
    """
    if run.kind == "channels":
        raise ConfigError(f"{run.path} already contains the weights of its channels. Omit --weights")
    if len(weights) != len(run.channels) or not all(0 <= w < float("inf") for w in weights) or not any(weights):
        raise ConfigError(
            f"--weights is {', '.join(format(w, 'g') for w in weights)}; expected a finite number >= 0 for each of "
            f"{', '.join(run.channels)}, in this order, and at least one above 0"
        )
    given, whole = np.array(weights, dtype=np.float64), run.read
    return replace(run, read=lambda texts: (replace(batch, weights=given) for batch in whole(texts)))


def with_ranges(run: Run, ranges: Mapping[str, Range]) -> Run:
    """Return the run with declared ranges of some channels, which its logs do not contain.

    Raises:
        ConfigError: a channel does not exist, or a range is not valid.
    """
    if unknown := [name for name in ranges if name not in run.channels]:
        raise ConfigError(f"--range names the channel {unknown[0]!r}; expected one of {', '.join(run.channels)}")
    check_ranges(list(ranges.values()), len(ranges))
    return replace(run, ranges={**run.ranges, **ranges})


def with_solved(run: Run, names: Sequence[str]) -> Run:
    """Return the run with the channels that a completion has to meet to solve its question.

    Raises:
        ConfigError: a name is neither a channel nor a rubric whose labels are channels.
    """
    known = {*run.channels, *(name.rpartition("/")[0] for name in run.channels)} - {""}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--solved names the channel {unknown[0]!r}; expected one of {', '.join(run.channels)}")
    return replace(run, solved=tuple(names))


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None: columns are found by their usual names.

    Attributes:
        rewards: columns of the rewards, one per channel.
        group: column that identifies the group of a row.
        advantage: column of the advantage that the run trained with.
        step: column of the training step.
        prompt: column of the prompt.
        completion: column of the completion.
        group_size: number of rows per group, for groups of consecutive rows, instead of ``group``.
    """

    rewards: tuple[str, ...] | None = None
    group: str | None = None
    advantage: str | None = None
    step: str | None = None
    prompt: str | None = None
    completion: str | None = None
    group_size: int | None = None
