"""The result of a comparison of training runs or of benchmark runs.

A row is one difference between a group B and the baseline A. Its verdict says in words what the p value means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rvpo.statistics import Interval

MEASURES = ("auc", "last", "best", "drop")
"""Measures that are tested, see :mod:`rvpo.compare.curves`. ``first`` is not: training has not changed anything yet."""

OF_EXPLORATION = ("auc", "last")
"""Measures that are tested for exploration. A share has no better direction, so it has no best step and no drop."""

WORST = "worst channel"
"""Name of the worst channel in tables and curves. In rows, it is None."""

Series = tuple[float | None, ...]
"""Points of a curve; None if nothing was scored."""


@dataclass(frozen=True, slots=True)
class Band:
    """A curve over runs: mean, lowest and highest run, and standard deviation (None for a single run)."""

    mean: Series
    low: Series
    high: Series
    std: Series


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """The numbers of one training run. Values are None if they were not scored.

    Attributes:
        name: name of the run's folder.
        path: path of the logs.
        seed: random seed of the training; None if unknown.
        steps: number of logged steps; the comparison may use fewer.
        measures: channel -> first, best, last, auc and drop.
        worst: these measures for the worst channel; None if the runs share no channel.
        curves: channel -> smoothed shares.
        worst_curve: smoothed shares of the worst channel.
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
        """Return the measures of a channel; None is the worst channel."""
        return (self.worst or {}) if channel is None else self.measures[channel]


@dataclass(frozen=True, slots=True)
class TrainingGroup:
    """Runs of one method.

    Attributes:
        name: name of the group.
        runs: numbers of each run.
        curves: channel -> curve over the runs.
        worst_curve: curve of the worst channel over the runs; None if the runs share no channel.
    """

    name: str
    runs: tuple[RunNumbers, ...]
    curves: Mapping[str, Band]
    worst_curve: Band | None

    def bands(self) -> dict[str, Band]:
        """Return the curves by channel. The curve of the worst channel is first, with the name ``WORST``."""
        return ({} if self.worst_curve is None else {WORST: self.worst_curve}) | dict(self.curves)

    def values(self, channel: str | None, measure: str) -> list[float]:
        """Return the values of a measure, one per run that has it."""
        found = (run.of(channel).get(measure) for run in self.runs)
        return [value for value in found if value is not None]


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One measure of one channel.

    Attributes:
        group: name of B.
        measure: one of ``MEASURES``.
        channel: name of the channel; None for the worst channel.
        a: values of the runs of A that have the measure; if paired, in order of their seeds.
        b: values of the runs of B.
        difference: difference of the means, B - A; its ``items`` are runs, or pairs.
        effect: Hedges' g.
        test: ``"paired"`` or ``"unpaired"``; ``""`` if a side has fewer than two runs.
        p: two-sided p value of "B = A".
        adjusted: ``p`` after Holm over all channels and groups within the measure. The worst channel is its own family.
        smallest: smallest p that this number of runs can give.
        verdict: verdict in words.
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
class TrainingComparison:
    """Result of :func:`rvpo.compare.trainings.compare_trainings`.

    Attributes:
        baseline: name of A.
        level: level of the intervals; the level of the tests is 1 - level.
        window: number of steps that are averaged for first, best and last, and for smoothed curves.
        first: first step that is compared.
        last: last step that is compared.
        count: number of steps that are compared.
        steps: compared steps at which curves have points.
        scales: channel -> the rewards that count as 0 and 1. Its keys are the channels of everything else.
        worst_of: channels that all runs have. The worst channel is one of them.
        groups: groups of runs, the baseline first.
        rows: rows by measure and group, the worst channel first.
        notes: sentences that a reader needs to know.
        exploration: rows on exploration. Their ``channel`` is a quantity such as ``"solved by none"``, ``"pass@8"`` or
            ``"entropy"``, see :mod:`rvpo.compare.exploration`.
        explored: the same groups of runs with these quantities in place of channels; empty without exploration.
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
    groups: tuple[TrainingGroup, ...]
    rows: tuple[TrainingRow, ...]
    notes: tuple[str, ...]
    exploration: tuple[TrainingRow, ...] = ()
    explored: tuple[TrainingGroup, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"schema": "rvpo.comparison/1", **asdict(self)}


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One metric.

    Attributes:
        metric: name of the metric.
        a: mean of A over the paired items. Its ``mean`` is None if no item is paired, in total or in a category of a
            weighted metric.
        b: mean of B.
        a_runs: mean of each run of A over the paired items.
        b_runs: mean of each run of B.
        difference: difference B - A.
        asked: number of items that have this metric in any of the runs; ``difference.items`` of them are paired.
        test: ``"mcnemar"``, ``"sign_flip"`` or ``"over_seeds"``; ``""`` if no item is paired.
        p: two-sided p value of "B = A"; None if no item is paired.
        adjusted: ``p`` after Holm over all groups and the family: the primary metric, a ``family:``, or the rest.
        verdict: verdict in words.
    """

    metric: str
    a: Interval
    b: Interval
    a_runs: tuple[float, ...]
    b_runs: tuple[float, ...]
    difference: Interval
    asked: int
    test: str = ""
    p: float | None = None
    adjusted: float | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class BenchmarkComparison:
    """Result of :func:`rvpo.compare.benchmarks.compare_benchmarks`.

    Attributes:
        benchmark: name of the benchmark of all runs.
        primary: its main metric, which is the first row.
        level: level of the intervals; the level of the tests is 1 - level.
        baseline: name of A.
        folders: name -> folders of its runs.
        rows: name of each other group -> one row per metric.
        notes: sentences that a reader needs to know.
    """

    benchmark: str
    primary: str
    level: float
    baseline: str
    folders: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, tuple[BenchmarkRow, ...]]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return asdict(self)
