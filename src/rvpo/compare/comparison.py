"""What a comparison of training runs is made of; :mod:`rvpo.compare.trainings` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rvpo.statistics import Interval

MEASURES = ("auc", "last", "best", "drop")
"""What is tested, see :mod:`rvpo.compare.curves`; ``first`` is told only, as training has changed nothing yet."""

WORST = "worst channel"
"""How it is called where channels are; in rows it is None."""

Series = tuple[float | None, ...]
"""P points of a curve; None where nothing was scored."""


@dataclass(frozen=True, slots=True)
class Band:
    """A curve over runs: mean, lowest and highest run, and standard deviation (None for a single run)."""

    mean: Series
    low: Series
    high: Series
    std: Series


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """One run.

    Attributes:
        name: of its folder.
        path: of its logs.
        seed: of the training; None where nothing tells it.
        steps: how many it has, of which the comparison may use fewer.
        measures: channel -> first, best, last, auc and drop; None where it was not scored, here and below.
        worst: the same of the worst channel; None where the runs share no channel.
        curves: channel -> P smoothed shares.
        worst_curve: the same of the worst channel.
    """

    name: str
    path: str
    seed: int | None
    steps: int
    measures: Mapping[str, Mapping[str, float | None]]
    worst: Mapping[str, float | None] | None
    curves: Mapping[str, Series]
    worst_curve: Series | None

    def of(self, channel: str | None) -> Mapping[str, float | None]:
        """Return the measures of a channel, of the worst one for None."""
        return (self.worst or {}) if channel is None else self.measures[channel]


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one method: its name, the runs, and their curves together, by channel and of the worst channel."""

    name: str
    runs: tuple[RunNumbers, ...]
    curves: Mapping[str, Band]
    worst_curve: Band | None

    def bands(self) -> dict[str, Band]:
        """Return the curves by channel, that of the worst channel under ``WORST`` and first."""
        return ({} if self.worst_curve is None else {WORST: self.worst_curve}) | dict(self.curves)

    def values(self, channel: str | None, measure: str) -> list[float]:
        """Return a measure of all runs that have it."""
        found = (run.of(channel).get(measure) for run in self.runs)
        return [value for value in found if value is not None]


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one channel: a group B against the baseline A.

    Attributes:
        group: name of B.
        measure: one of ``MEASURES``.
        channel: its name; None for the worst channel.
        a: of those of A's runs that have it, in order; where paired, by seed.
        b: of B's.
        difference: of the means, B - A; its ``items`` are runs, or pairs.
        effect: Hedges' g.
        test: ``"paired"``, ``"unpaired"``, or ``""`` where a side has fewer than two runs.
        p: of B = A, two-sided.
        adjusted: ``p`` by Holm, over channels and groups within the measure; the worst channel is a family of its own.
        smallest: the smallest p that so many runs can give.
        verdict: in words.
    """

    group: str
    measure: str
    channel: str | None
    a: tuple[float, ...]
    b: tuple[float, ...]
    difference: Interval
    effect: Interval
    test: str = ""
    p: float | None = None
    adjusted: float | None = None
    smallest: float | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What :func:`rvpo.compare.trainings.compare` found. P points of curves.

    Attributes:
        baseline: name of A.
        level: of the intervals; 1 - level is that of the tests.
        window: steps that first, best and last are means of, and curves are smoothed by.
        first: step that is compared first.
        last: step that is compared last.
        count: how many steps are compared.
        steps: P of these, at which curves are given.
        scales: channel -> the rewards that count as 0 and 1; the channels of everything else.
        worst_of: channels that the worst one is looked for in: those that all runs have.
        groups: the baseline first.
        rows: by measure and group, the worst channel first.
        notes: what a reader has to know.
    """

    baseline: str
    level: float
    window: int
    first: int
    last: int
    count: int
    steps: tuple[int, ...]
    scales: Mapping[str, tuple[float, float]]
    worst_of: tuple[str, ...]
    groups: tuple[Group, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"schema": "rvpo.comparison/1", **asdict(self)}
