"""Runs of one benchmark beside each other: is the difference signal, or noise?

Runs are paired by item; :mod:`rvpo.statistics` says how the numbers come about. What they speak of depends on
what is compared:

- **Runs** (a folder each): the p value speaks of these checkpoints. Its sample is the items: it says whether B answers
  such items better than A, not whether B's training method would do so with another training seed.
- **Groups** of two or more runs on both sides (training seeds of two methods): interval and p are over seeds *and*
  items, so they speak of the methods. With two or three seeds they are wide.
- A group on one side only: how the other method varies with its seed is unknown. Scores are averaged over the group's
  runs, and p speaks of these checkpoints again.

Tested are items as they were scored, unclipped, also where a benchmark clips its mean (HealthBench). Means are of the
paired items alone. Items of a metric with weights are resampled within their categories, as in ``results.json``; where
items of a category are not paired, the others stand for them, so that it keeps its share of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rvpo import statistics as st
from rvpo.compare.finished import FinishedRun, Scores, read_run, require_comparable
from rvpo.compare.folders import named_folders, require_once
from rvpo.errors import ConfigError, DataError
from rvpo.files import difference
from rvpo.text.tables import aligned, markdown, told_p

SMALLEST = 0.02
"""Two points of an accuracy: what one to three thousand items can tell. How many items would tell a difference smaller
than this is not worth asking; where one comes out at 0, no number would."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of B against the baseline A.

    Attributes:
        metric: its name.
        a: mean of A over the paired items; None where nothing is paired, of all items or of a category with weights.
        b: mean of B.
        a_runs: mean of each run of A over the paired items.
        b_runs: mean of each run of B.
        difference: B - A.
        asked: items that have this metric in any of the runs; ``difference.items`` of them are paired.
        test: ``"mcnemar"``, ``"sign_flip"`` or ``"over_seeds"``; ``""`` where nothing is paired.
        p: of B = A, two-sided; None where nothing is paired.
        adjusted: ``p`` by Holm within the family.
        verdict: in words.
    """

    metric: str
    a: st.Interval
    b: st.Interval
    a_runs: tuple[float, ...]
    b_runs: tuple[float, ...]
    difference: st.Interval
    asked: int
    test: str = ""
    p: float | None = None
    adjusted: float | None = None
    verdict: str = "cannot tell: no item is scored in all runs"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        benchmark: of all runs.
        primary: its main metric, the first row.
        level: of the intervals; 1 - level is that of the tests.
        baseline: name of A.
        folders: name -> folders of its runs.
        rows: name of each other one -> its metrics.
        notes: what a reader has to know.
    """

    benchmark: str
    primary: str
    level: float
    baseline: str
    folders: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, tuple[Row, ...]]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Return a table for each comparison, and the notes."""
        return self._render(markdown, "### ", "- ")

    def to_text(self) -> str:
        """Return the same for a terminal."""
        return self._render(aligned, "", "* ")

    def _render(self, lines: Callable[[list[list[str]]], list[str]], head: str, bullet: str) -> str:
        parts = []
        for name, rows in self.rows.items():
            table = [["metric", self.baseline, name, "difference", "p", "Holm", "paired on", "verdict"]]
            table += [_cells(row) for row in rows]
            parts += [f"{head}{self.benchmark}: {name} against {self.baseline}", "", *lines(table), ""]
        return "\n".join([*parts, *(bullet + note for note in self.notes)]) + "\n"


def compare(
    runs: Sequence[str | Path],
    *,
    level: float = st.LEVEL,
    smallest: float = SMALLEST,
    resamples: int = st.RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare runs of ``rvpo eval``, each against the first.

    p is McNemar's for 0/1 scores of two single runs, asked once and unweighted; that of :func:`~.statistics.over_seeds`
    where both sides have several runs; else that of :func:`~.statistics.sign_flip`. Holm's adjustment is over all
    compared runs and over the metrics of a family: the primary metric by itself, metrics ``family:name`` by their
    family, and the rest.

    Args:
        runs: two or more of ``FOLDER``, ``NAME=FOLDER`` and ``NAME=FOLDER,FOLDER,…``, which are several training seeds
            of one method.
        level: of the intervals; differences are told at 1 - level.
        smallest: difference of interest, in units of the metric. Where less was observed, the verdict tells how many
            items *this* difference would need.
        resamples: of bootstraps and permutations.
        seed: of these.

    Raises:
        ConfigError: fewer than two runs, a folder that does not exist or comes twice, or runs of different benchmarks
            or settings.
        DataError: a run that is not finished or not readable, or no item that all runs have scored.
    """
    if not 0 < level < 1 or not smallest > 0:
        raise ConfigError(f"level is {level!r} and smallest {smallest!r}, allowed is 0 < level < 1 and smallest > 0")
    groups = _groups(runs)
    (baseline, first), *others = groups.items()
    options = _Options(level, smallest, resamples, seed)
    drafts = {
        name: [_row(metric, first, group, options) for metric in _metrics([*first, *group])] for name, group in others
    }
    if not any(draft.row.test for rows in drafts.values() for draft in rows):
        raise DataError(
            f"no item is scored both in {baseline!r} and in another run: see `missing` in their items.parquet, and run "
            "`rvpo eval …` again, which asks again for what is missing"
        )
    return Comparison(
        first[0].benchmark,
        first[0].primary,
        level,
        baseline,
        {name: tuple(str(run.folder) for run in group) for name, group in groups.items()},
        _judged(drafts, first[0].primary, baseline, options),
        tuple(_notes(groups, options)),
    )


@dataclass(frozen=True, slots=True)
class _Options:
    level: float
    smallest: float
    resamples: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row before the adjustment for the others, and what its verdict needs."""

    row: Row
    differences: st.Array
    weights: st.Array | None
    seed_variance: float


def _groups(runs: Sequence[str | Path]) -> dict[str, list[FinishedRun]]:
    """Return name -> runs, in the order given."""
    named: list[tuple[str, list[Path]]] = []
    for text in runs:
        name, paths = named_folders(text)
        named.append((paths[0].name if name is None else name, paths))
    if len(named) < 2:
        raise ConfigError(
            f"{len(named)} runs to compare, allowed are two or more: give FOLDER or NAME=FOLDER,FOLDER for each"
        )
    require_once([path for _, paths in named for path in paths])
    names = [name for name, _ in named]
    if len(set(names)) < len(names) or "" in names:
        raise ConfigError(f"names are {', '.join(map(repr, names))}, allowed is each once: use NAME=FOLDER")
    groups = {name: [read_run(path) for path in paths] for name, paths in named}
    for name, group in groups.items():
        weights = [run.weights for run in group if run.weights]
        if len(set(weights)) < len(weights):
            raise ConfigError(f"{name} holds the same weights twice, allowed are training seeds: give each once")
    first, *rest = [run for group in groups.values() for run in group]
    for run in rest:
        require_comparable(first, run)
    return groups


# --- statistics --------------------------------------------------------------------------------------------------


def _metrics(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the metrics of any run: the primary, those without a family, families."""
    names = {metric for run in runs for metric in run.metrics}
    return sorted(names, key=lambda metric: (metric != runs[0].primary, ":" in metric, metric))


def _row(metric: str, a: Sequence[FinishedRun], b: Sequence[FinishedRun], options: _Options) -> _Draft:
    """Compare one metric on the items that all runs have scored."""
    scores_a, scores_b = ([run.metrics.get(metric, Scores()) for run in group] for group in (a, b))
    every = [*scores_a, *scores_b]
    asked = len(set[str]().union(*(scores.asked for scores in every)))
    common = sorted(set[str].intersection(*(set(scores.values) for scores in every)))
    w, kinds, lost = _weights([*a, *b], metric, common)
    if not common or lost or (w is not None and not w.sum() > 0):
        nothing = st.Interval(None, None, None, len(common))
        row = Row(metric, nothing, nothing, (), (), nothing, asked)
        if lost:
            named = ", ".join(map(repr, lost))
            row = replace(row, verdict=f"cannot tell: no item of category {named} is scored in all runs")
        return _Draft(row, np.zeros(0), None, 0.0)
    x, y = (np.array([[scores.values[i] for i in common] for scores in group]) for group in (scores_a, scores_b))
    binary = all(scores.binary for scores in every)
    drawn: dict[str, Any] = {"resamples": options.resamples, "seed": options.seed}

    differences = st.paired(y, x)
    seed_variance = 0.0
    if min(len(x), len(y), len(common)) > 1:
        found = st.over_seeds(y, x, weights=w, level=options.level)
        test, p, interval, seed_variance = "over_seeds", found.p, found.interval, found.seed_variance
    else:
        interval = st.difference_interval(differences, weights=w, strata=kinds, level=options.level, **drawn)
        if w is None and binary and len(x) == len(y) == 1 and all(scores.single for scores in every):
            test, p = "mcnemar", st.mcnemar(x[0], y[0])
        else:
            test, p = "sign_flip", st.sign_flip(differences, weights=w, **drawn)

    def mean(values: st.Array) -> st.Interval:
        if min(values.shape) > 1:
            return st.over_seeds(values, weights=w, level=options.level).interval
        weighed: dict[str, Any] = {"weights": None if w is None else w.tolist(), "strata": kinds}
        return st.mean_interval(values.mean(0), common, binary=binary, level=options.level, **weighed, **drawn)

    runs_a, runs_b = (tuple(np.average(values, axis=1, weights=w).tolist()) for values in (x, y))
    row = Row(metric, mean(x), mean(y), runs_a, runs_b, interval, asked, test, p)
    return _Draft(row, differences, w, seed_variance)


def _weights(
    runs: Sequence[FinishedRun], metric: str, common: Sequence[str]
) -> tuple[st.Array | None, list[str] | None, list[str]]:
    """Return weights and categories of the paired items, and the categories that have none; None without weights."""
    scores = [run.metrics[metric] for run in runs if metric in run.metrics]
    if not any(found.weighted for found in scores):
        return None, None, []
    asked = sorted(set[str]().union(*(found.asked for found in scores)))
    known = {id_: weight for found in reversed(scores) for id_, weight in found.weights.items()}
    kind = {id_: name for run in reversed(runs) for id_, name in run.categories.items()}
    kinds = [kind[id_] for id_ in common]
    present = set(common)
    w = st.rescaled(
        [known.get(id_, np.nan) for id_ in asked], [kind[id_] for id_ in asked], [id_ in present for id_ in asked]
    )
    return w, kinds, sorted({kind[id_] for id_ in asked} - set(kinds)) if w is None else []


def _judged(
    drafts: Mapping[str, Sequence[_Draft]], primary: str, baseline: str, options: _Options
) -> dict[str, tuple[Row, ...]]:
    """Adjust the p values family by family, and put into words what they say."""
    families: dict[str, list[tuple[str, int]]] = {}
    for name, rows in drafts.items():
        for i, draft in enumerate(rows):
            if draft.row.p is not None:
                metric = draft.row.metric
                # A metric has no empty family, so these two names are free.
                family = ":primary" if metric == primary else metric.split(":")[0] if ":" in metric else ":rest"
                families.setdefault(family, []).append((name, i))
    judged = {name: [draft.row for draft in rows] for name, rows in drafts.items()}
    for members in families.values():
        adjusted = st.holm([judged[name][i].p or 0.0 for name, i in members])
        for (name, i), p in zip(members, adjusted, strict=True):
            verdict = _verdict(drafts[name][i], p, len(members), (baseline, name), options)
            judged[name][i] = replace(judged[name][i], adjusted=p, verdict=verdict)
    return {name: tuple(rows) for name, rows in judged.items()}


def _verdict(draft: _Draft, adjusted: float, family: int, names: tuple[str, str], options: _Options) -> str:
    observed, items = draft.row.difference.mean or 0.0, len(draft.differences)
    if adjusted <= 1 - options.level:
        return f"{names[observed > 0]} higher"
    if st.alike(draft.differences):
        return "cannot tell: every item has the same difference" if observed else "cannot tell: no item differs"
    of_interest = abs(observed) < options.smallest
    needed = st.needed_items(
        draft.differences,
        options.smallest if of_interest else observed,
        weights=draft.weights,
        level=(1 - options.level) / family,
        seed_variance=draft.seed_variance,
    )
    # Few seeds cost more than needed_items knows: the quantiles of t.
    if needed is None or (draft.row.test == "over_seeds" and needed <= items):
        return "cannot tell: more training seeds would be needed"
    if of_interest and needed <= items:
        return f"cannot tell: a difference of {options.smallest:g} would probably have shown"
    about = max(needed, items + 1)  # these did not suffice
    digits = 10 ** max(0, len(str(about)) - 2)
    about = -(-about // digits) * digits
    which = f" for a difference of {options.smallest:g}" if of_interest else ""
    return f"cannot tell: about {about:,} items would be needed{which}"


# --- words -------------------------------------------------------------------------------------------------------


def _notes(groups: Mapping[str, Sequence[FinishedRun]], options: _Options) -> Iterator[str]:
    for name, group in groups.items():
        yield f"{name}: {', '.join(f'{run.model} ({run.folder})' for run in group)}"
    yield (
        f"[low, high]: {options.level:.0%} interval, each by itself. p: two-sided, paired by item; Holm: adjusted for "
        "all comparisons of the primary metric, of a family of metrics, or of the rest. Means are of the paired items."
    )
    if any(len(group) > 1 for group in groups.values()):
        yield "(…): mean of each run of a group."
    sizes = [len(group) for group in groups.values()]
    if sizes[0] > 1 and max(sizes[1:]) > 1:
        yield "Where both sides have several runs, interval and p are over training seeds and items."
    if min(sizes[0], *sizes[1:]) == 1:
        yield (
            "Where a side has one run, p speaks of these checkpoints, not of the methods that trained them: for those, "
            "train with several seeds and give NAME=FOLDER,FOLDER,…"
        )
    first, *rest = [run for group in groups.values() for run in group]
    for run in rest:
        if differs := difference(first.generation, run.generation):
            key, ours, theirs = differs
            yield f"Generated differently: {key} is {ours!r} in {first.folder} and {theirs!r} in {run.folder}."


def _cells(row: Row) -> list[str]:
    return [
        row.metric,
        _interval(row.a, row.a_runs),
        _interval(row.b, row.b_runs),
        _interval(row.difference, sign="+"),
        told_p(row.p),
        told_p(row.adjusted),
        f"{row.difference.items:,} of {row.asked:,}",
        row.verdict,
    ]


def _interval(interval: st.Interval, runs: Sequence[float] = (), sign: str = "") -> str:
    if interval.mean is None:
        return "-"
    text = f"{interval.mean:{sign}.3f}"
    if interval.low is not None and interval.high is not None:
        text += f" [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
    return text + (f" ({', '.join(f'{mean:.3f}' for mean in runs)})" if len(runs) > 1 else "")
