"""Compare runs of one benchmark: is the difference signal, or noise?

Runs are paired by item. :mod:`rvpo.statistics` documents how the numbers are computed. What p means depends on what is
compared:

- **Runs** (one folder each): p is about these checkpoints. The sample is the items. So p says whether B answers such
  items better than A, not whether B's training method would do so with another training seed.
- **Groups** of two or more runs on both sides (training seeds of two methods): interval and p are over seeds *and*
  items, so they are about the methods. With two or three seeds, intervals are wide.
- A group on one side only: it is unknown how the other method varies with its seed. Scores are averaged over the runs
  of the group, and p is about these checkpoints again.

Items are tested as they were scored, unclipped, even if a benchmark clips its mean (HealthBench). Means are over the
paired items only. Items of a metric with weights are resampled within their categories, as in ``results.json``. If some
items of a category are not paired, the others represent them, so that the category keeps its share of the mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rvpo import statistics as st
from rvpo.compare.comparison import BenchmarkComparison, BenchmarkRow
from rvpo.compare.engine import CompareOptions, Sample, baseline_first, cannot_tell, judge_samples
from rvpo.compare.finished import FinishedRun, Scores, read_finished, require_comparable
from rvpo.compare.folders import named_folders, require_once
from rvpo.compare.foreign import is_foreign, read_foreign
from rvpo.errors import ConfigError, DataError
from rvpo.evals.items import family_of
from rvpo.files import difference

SMALLEST = 0.02
"""Default difference of interest: two points of an accuracy, which one to three thousand items can show. If a smaller
difference was observed, the verdict says how many items *this* difference would need, because no number of items can
show a difference near 0."""


def compare_benchmarks(
    runs: Sequence[str | Path],
    *,
    level: float = st.LEVEL,
    smallest: float = SMALLEST,
    resamples: int = st.RESAMPLES,
    seed: int = 0,
) -> BenchmarkComparison:
    """Compare runs of ``rvpo eval``, or results of other evaluators, each with the first.

    The test is McNemar's for unweighted 0/1 scores of two single runs that asked each item once. If both sides have
    several runs, it is :func:`~.statistics.over_seeds`, otherwise :func:`~.statistics.sign_flip`. Holm's adjustment is
    over all compared runs and over the metrics of a family: the primary metric by itself, metrics ``family:name`` by
    their family, and the rest.

    Args:
        runs: two or more of ``FOLDER``, ``NAME=FOLDER`` and ``NAME=FOLDER,FOLDER,…``. The last form is several training
            seeds of one method. For files and folders of lm-eval and BFCL, see :mod:`rvpo.compare.foreign`.
        level: confidence level of the intervals; the significance level of the tests is 1 - level.
        smallest: difference of interest, in units of the metric. If a smaller one was observed, the verdict says how
            many items *this* difference would need.
        resamples: number of resamples of bootstraps and permutations.
        seed: random seed of the resamples.

    Raises:
        ConfigError: there are fewer than two runs, a folder does not exist or is given twice, runs are of different
            benchmarks or settings, or an option is out of range.
        DataError: a run is not finished or not readable, or no item is scored in all runs.
    """
    options = CompareOptions(level, resamples, seed)
    if not smallest > 0:
        raise ConfigError(f"smallest is {smallest!r}; expected a number > 0. Use {SMALLEST}, for example")
    groups = _read_groups(runs)
    (baseline, first), *others = groups.items()
    samples = [
        _sample(metric, {baseline: first, name: group}, smallest, options)
        for name, group in others
        for metric in _metrics([*first, *group])
    ]
    if not any(sample.row.test for sample in samples):
        raise DataError(
            f"no item is scored both in {baseline!r} and in another run; expected common items. See `missing` in their "
            "items.parquet, and run `rvpo eval …` again: it asks again for missing scores"
        )
    judged = list(zip(samples, judge_samples(samples, options), strict=True))
    return BenchmarkComparison(
        benchmark=first[0].benchmark,
        primary=first[0].primary,
        level=level,
        baseline=baseline,
        folders={name: tuple(str(run.folder) for run in group) for name, group in groups.items()},
        rows={name: tuple(row for sample, row in judged if sample.names[1] == name) for name, _ in others},
        notes=tuple(_notes(groups, level)),
    )


def _read(path: Path) -> FinishedRun:
    """Read a run of ``rvpo eval``, or results of another evaluator with a score per item."""
    return read_foreign(path) if is_foreign(path) else read_finished(path)


def _read_groups(runs: Sequence[str | Path]) -> dict[str, list[FinishedRun]]:
    """Return a mapping from name to runs, in the given order."""
    named = [(paths[0].name if name is None else name, paths) for name, paths in map(named_folders, runs)]
    require_once([path for _, paths in named for path in paths])
    names = [name for name, _ in named]
    if len(set(names)) < len(names) or "" in names:
        raise ConfigError(f"names are {', '.join(map(repr, names))}; expected each name once. Use NAME=FOLDER")
    groups = baseline_first(
        {name: [_read(path) for path in paths] for name, paths in named},
        None,
        found=f"{len(named)} runs to compare",
        next_step="give FOLDER or NAME=FOLDER,FOLDER for each",
    )
    for name, group in groups.items():
        weights = [run.weights for run in group if run.weights]
        if len(set(weights)) < len(weights):
            raise ConfigError(
                f"two runs of {name} have the same weights; expected runs of different training seeds. Give each once"
            )
    first, *rest = [run for group in groups.values() for run in group]
    for run in rest:
        require_comparable(first, run)
    return groups


# --- samples -----------------------------------------------------------------------------------------------------


def _metrics(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the metrics of all runs: first the primary metric, then metrics without a family, then families."""
    names = {metric for run in runs for metric in run.metrics}
    return sorted(names, key=lambda metric: (metric != runs[0].primary, ":" in metric, _natural(metric)))


def _natural(metric: str) -> list[tuple[str, int]]:
    """Return a sort key that puts ``pass@2`` before ``pass@16``."""
    return [(text, int(number or 0)) for text, number in re.findall(r"([^0-9]*)([0-9]{0,18})", metric)]


def _sample(
    metric: str, sides: Mapping[str, Sequence[FinishedRun]], smallest: float, options: CompareOptions
) -> Sample[BenchmarkRow]:
    """Compare one metric of two sides (name -> runs) on the items that all runs have scored."""
    (name_a, a), (name_b, b) = sides.items()
    names, family = (name_a, name_b), _family(metric, a[0].primary)
    scores_a, scores_b = ([run.metrics.get(metric, Scores()) for run in group] for group in (a, b))
    every = [*scores_a, *scores_b]
    asked = len(set[str]().union(*(scores.asked for scores in every)))
    common = sorted(set[str].intersection(*(set(scores.values) for scores in every)))
    w, kinds, lost = _weights([*a, *b], metric, common)
    if not common or lost or (w is not None and not w.sum() > 0):
        nothing = st.Interval(None, None, None, len(common))
        which = f"item of category {', '.join(map(repr, lost))}" if lost else "item"
        verdict = cannot_tell(f"no {which} is scored in all runs")
        row = BenchmarkRow(metric, nothing, nothing, (), (), nothing, asked, verdict=verdict)
        return Sample(row, names, family, lambda *_: "")
    x, y = (np.array([[scores.values[i] for i in common] for scores in group]) for group in (scores_a, scores_b))
    binary = all(scores.binary for scores in every)
    differences, seed_variance = st.paired(y, x), 0.0
    if min(len(x), len(y), len(common)) > 1:
        found = st.over_seeds(y, x, weights=w, level=options.level)
        test, p, interval, seed_variance = "over_seeds", found.p, found.interval, found.seed_variance
    else:
        interval = st.difference_interval(differences, weights=w, strata=kinds, level=options.level, **options.drawn)
        if w is None and binary and len(x) == len(y) == 1 and all(scores.single for scores in every):
            test, p = "mcnemar", st.mcnemar(x[0], y[0])
        else:
            test, p = "sign_flip", st.sign_flip(differences, weights=w, **options.drawn)

    def mean(values: st.Array) -> st.Interval:
        if min(values.shape) > 1:
            return st.over_seeds(values, weights=w, level=options.level).interval
        weighed: dict[str, Any] = {"weights": None if w is None else w.tolist(), "strata": kinds}
        return st.mean_interval(values.mean(0), common, binary=binary, level=options.level, **weighed, **options.drawn)

    runs_a, runs_b = (tuple(np.average(values, axis=1, weights=w).tolist()) for values in (x, y))
    row = BenchmarkRow(metric, mean(x), mean(y), runs_a, runs_b, interval, asked, test, p)
    needed = partial(st.needed_items, differences, weights=w, seed_variance=seed_variance)
    return Sample(row, names, family, partial(_why_not, row, smallest, st.alike(differences), needed))


def _why_not(
    row: BenchmarkRow, smallest: float, alike: bool, needed_items: Callable[..., int | None], level: float, _: str
) -> str:
    """Return why a difference is not significant, and how many items would be needed."""
    observed, items = row.difference.mean or 0.0, row.difference.items
    if alike:
        return "every item has the same difference" if observed else "no item differs"
    of_interest = abs(observed) < smallest
    needed = needed_items(difference=smallest if of_interest else observed, level=level)
    # With few seeds, the quantiles of t cost more items than needed_items computes.
    if needed is None or (row.test == "over_seeds" and needed <= items):
        return "more training seeds would be needed"
    if of_interest and needed <= items:
        return f"a difference of {smallest:g} would probably have shown"
    about = max(needed, items + 1)  # the present number of items did not suffice
    digits = 10 ** max(0, len(str(about)) - 2)
    about = -(-about // digits) * digits  # rounded up to two digits
    which = f" for a difference of {smallest:g}" if of_interest else ""
    return f"about {about:,} items would be needed{which}"


def _family(metric: str, primary: str) -> str:
    """Return the family of a metric. No metric has an empty family, so ``:primary`` and ``:rest`` are free names."""
    return ":primary" if metric == primary else family_of(metric) or ":rest"


def _weights(
    runs: Sequence[FinishedRun], metric: str, common: Sequence[str]
) -> tuple[st.Array | None, list[str] | None, list[str]]:
    """Return weights and categories of the paired items, and the categories without paired items.

    Weights and categories are None if the metric has no weights.
    """
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


# --- notes -------------------------------------------------------------------------------------------------------


def _notes(groups: Mapping[str, Sequence[FinishedRun]], level: float) -> Iterator[str]:
    for name, group in groups.items():
        yield f"{name}: {', '.join(f'{run.model} ({run.folder})' for run in group)}"
    yield (
        f"[low, high]: {level:.0%} interval of each value by itself. p: two-sided, paired by item. Holm: p adjusted "
        "for all comparisons of the primary metric, of a family of metrics, or of the rest. Means are over the paired "
        "items."
    )
    if any(len(group) > 1 for group in groups.values()):
        yield "(…): mean of each run of a group."
    sizes = [len(group) for group in groups.values()]
    if sizes[0] > 1 and max(sizes[1:]) > 1:
        yield "If both sides have several runs, interval and p are over training seeds and items."
    if min(sizes[0], *sizes[1:]) == 1:
        yield (
            "If a side has one run, p is about these checkpoints, not about the methods that trained them. To compare "
            "methods, train with several seeds and give NAME=FOLDER,FOLDER,…"
        )
    first, *rest = [run for group in groups.values() for run in group]
    if any(len([metric for metric in run.metrics if family_of(metric) == "pass@"]) > 1 for run in (first, *rest)):
        yield "All pass@k form one family: p after Holm, over all k and comparisons, shows at which k runs differ."
    for run in (first, *rest):
        for warning in run.warnings:
            yield f"{run.folder}: {warning}"
    for run in rest:
        if differs := difference(first.generation, run.generation):
            key, ours, theirs = differs
            yield f"Generated differently: {key} is {ours!r} in {first.folder} and {theirs!r} in {run.folder}."
