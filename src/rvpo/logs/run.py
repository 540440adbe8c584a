"""What the logs of a run are, whoever wrote them: batches of completions with their rewards on every channel.

A batch is what was whitened together: the completions that one generation step logged. Folders are read file by file,
so that the length of a run does not matter to memory; of a table, the columns with numbers are held.
:mod:`rvpo.logs.open` finds out what a path holds.
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
"""First and last step that are wanted, both included; None: no bound."""


@dataclass(frozen=True)
class Texts:
    """What was asked and answered: ``prompts`` and ``completions``, N texts each, chats as JSON.

    ``pictures`` are the digests of each prompt's pictures, N lists, None for one that is unknown; empty if there are
    none in the run.
    """

    prompts: Sequence[str]
    completions: Sequence[str]
    pictures: Sequence[Sequence[str | None]] = ()

    def rows(self, index: Sequence[int]) -> Texts:
        """Return some of them."""
        return Texts(
            [self.prompts[i] for i in index],
            [self.completions[i] for i in index],
            [self.pictures[i] for i in index] if self.pictures else (),
        )


@dataclass(frozen=True)
class LoggedBatch:
    """N completions on M columns that were whitened together. What is given as another kind of array becomes NumPy's.

    Attributes:
        step: of the training.
        rewards: (N, M) float64, NaN = missing.
        groups: (N,) int64, which rows answer one prompt, within this batch.
        channel: (M,) or (N, M) int64, the number of the run's channel that a cell belongs to.
        advantages: (N,) float64 that the run trained with; None where they were not logged.
        applies: (N, M) bool, False where the column is no channel of the row; None: all are.
        weights: (N, M) or (M,) importance; None where unknown.
        reliability: (N, M), how far a cell was trusted; None: fully.
        tokens: (N,) by which the rows were whitened; None: they were not.
        config: how the run aggregated this batch; None where unknown.
        progress: share of the training that was done; None where unknown.
        numbers: (N,) int64, of the completions in their step, by which :attr:`Run.details` knows them.
        texts: if they were asked for and logged.
        totals: (N,) sum of the rewards that was logged, from which advantages come where none were logged; else None.
        groupings: size -> (N,) groups of that size, where the logs do not say which rows answer one prompt; all of
            them are plausible, the likeliest first, and ``groups`` is one of them. Empty where the groups are known.
        outside: (N, M) bool, cells outside of their group's normalisation, by a structure; None: none are.
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
        """Return some of the completions, whole groups for results that mean something."""
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
        path: where they lie.
        kind: ``"channels"``, ``"completions"`` or ``"table"``.
        channels: K names, in order of the numbers in :attr:`Batch.channel`.
        steps: that are there, in order.
        read: yields the batches in order; its argument says whether with texts.
        config: how the run aggregated, as of its last step; None where the logs do not say.
        ranges: channel -> lowest and highest reward that was declared, None where nobody did.
        every_batch: whether no batch of the training is missing in between, as far as the logs tell.
        notes: what a reader has to know of how the logs were understood.
        guesses: what was guessed about the logs; it belongs in the headline of whatever is made of them.
        details: what the logs say of each channel of a completion, by step and numbers of completions; None where they
            say no more than the batches.
        structure: structures that were applied before the method, as texts in order.
        monitor: names of channels that were only monitored by the user's choice.
        solved: names of channels that a completion has to meet to solve its question; empty: all that were trained on.
        pictures: folder with small copies of the prompts' pictures; None where the logs have none.
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
        """The folder's name, of the run and not of the logs in it."""
        inner = self.path.name in (FOLDER, COMPLETIONS)
        return (self.path.resolve().parent if inner else self.path.resolve()).name

    def batches(self, texts: bool = False) -> Iterator[LoggedBatch]:
        """Yield the batches in order of their steps.

        Raises:
            DataError: a file is damaged, or a reward is no finite number.
        """
        for batch in self.read(texts):
            if (infinite := np.isinf(batch.rewards)).any():
                row, column = np.argwhere(infinite)[0].tolist()
                name = self.channels[int(np.broadcast_to(batch.channel, batch.rewards.shape)[row, column])]
                raise DataError(
                    f"{self.path}, step {batch.step}, completion {row}: channel {name!r} has the reward "
                    f"{batch.rewards[row, column].item()}; expected finite numbers, and null or NaN where it is "
                    "missing: fix the reward function, or set these to null"
                )
            if batch.advantages is not None and (infinite := np.isinf(batch.advantages)).any():
                row = int(infinite.argmax())
                raise DataError(
                    f"{self.path}, step {batch.step}, completion {row}: the advantage is "
                    f"{batch.advantages[row].item()}; expected finite numbers, and null where there is none: fix it"
                )
            yield batch

    def between(self, first: int | None, last: int | None) -> Run:
        """Return the part of the run from step ``first`` to step ``last``, both included.

        Raises:
            ConfigError: there is no step in between.
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
    """Return those of a run's steps, which are in order, that lie between bounds.

    Raises:
        ConfigError: none does.
    """
    first, last = bounds
    if first is None and last is None:
        return tuple(steps)
    low, high = (steps[0] if first is None else first), (steps[-1] if last is None else last)
    kept = tuple(step for step in steps if low <= step <= high)
    if not kept:
        raise ConfigError(
            f"steps {low} to {high} of {path} hold nothing; expected steps {steps[0]} to {steps[-1]}: choose others"
        )
    return kept


def with_weights(run: Run, weights: Sequence[float]) -> Run:
    """Return the run with the importance of its channels, which its logs do not tell.

    Raises:
        ConfigError: not one finite number >= 0 a channel, or the logs do tell.
    """
    if run.kind == "channels":
        raise ConfigError(f"{run.path} tells the weights of its channels: leave --weights out")
    if len(weights) != len(run.channels) or not all(0 <= w < float("inf") for w in weights) or not any(weights):
        raise ConfigError(
            f"--weights is {', '.join(format(w, 'g') for w in weights)}; expected a finite number >= 0 for each of "
            f"{', '.join(run.channels)}, in this order, at least one above 0"
        )
    given, whole = np.array(weights, dtype=np.float64), run.read
    return replace(run, read=lambda texts: (replace(batch, weights=given) for batch in whole(texts)))


def with_ranges(run: Run, ranges: Mapping[str, Range]) -> Run:
    """Return the run with the lowest and the highest reward of some channels, which its logs do not tell.

    Raises:
        ConfigError: no such channel, or no range.
    """
    if unknown := [name for name in ranges if name not in run.channels]:
        raise ConfigError(
            f"--range names the channel {unknown[0]!r}; expected {', '.join(run.channels)}: name one of them"
        )
    check_ranges(list(ranges.values()), len(ranges))
    return replace(run, ranges={**run.ranges, **ranges})


def with_solved(run: Run, names: Sequence[str]) -> Run:
    """Return the run with the channels that a completion has to meet to solve its question.

    Raises:
        ConfigError: a name is neither a channel nor a rubric whose labels are channels.
    """
    known = {*run.channels, *(name.rpartition("/")[0] for name in run.channels)} - {""}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"--solved names the channel {unknown[0]!r}; expected {', '.join(run.channels)}: name one of them"
        )
    return replace(run, solved=tuple(names))


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None: found by their usual names.

    Attributes:
        rewards: of the channels.
        group: which rows answer one prompt.
        advantage: that the run trained with.
        step: of the training.
        prompt: text.
        completion: text.
        group_size: rows lie in blocks of this many instead.
    """

    rewards: tuple[str, ...] | None = None
    group: str | None = None
    advantage: str | None = None
    step: str | None = None
    prompt: str | None = None
    completion: str | None = None
    group_size: int | None = None
