"""Read finished runs of ``rvpo eval`` from their folders."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from rvpo.errors import ConfigError, DataError
from rvpo.evals.run import STRATUM, VERSION
from rvpo.files import difference


@dataclass(slots=True)
class Scores:
    """One metric of one run.

    Attributes:
        values: id -> mean over the epochs that were scored.
        weights: id -> weight in the metric's mean. An id without a score may lack it.
        asked: ids of the items that have the metric, scored or not.
        binary: whether all scores are 0 or 1.
        single: whether no item has two scores.
        weighted: whether the benchmark gives weights.
    """

    values: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    binary: bool = True
    single: bool = True
    weighted: bool = False


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that ``rvpo eval`` has finished.

    Attributes:
        folder: folder of the run.
        benchmark: name of the benchmark.
        primary: the benchmark's main metric.
        model: name of the model.
        weights: digest of the model's weights; None if unknown.
        settings: settings of the benchmark.
        generation: how replies were generated.
        metrics: name -> scores.
        categories: id -> category; "" for items without one.
        warnings: reasons to trust the run's numbers less.
    """

    folder: Path
    benchmark: str
    primary: str
    model: str
    weights: str | None
    settings: Mapping[str, Any]
    generation: Mapping[str, Any]
    metrics: Mapping[str, Scores]
    categories: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def read_finished(folder: Path) -> FinishedRun:
    """Read the folder of a run.

    Raises:
        ConfigError: the folder does not exist.
        DataError: the run is not finished, or its files do not have the expected layout.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is not a folder; expected one that `rvpo eval` wrote, or NAME=FOLDER,FOLDER. Check the path"
        )
    results, items = folder / "results.json", folder / "items.parquet"
    for path in (results, items):
        if not path.is_file():
            raise DataError(
                f"{folder} has no {path.name}, so its run is not finished; expected a finished run. Run `rvpo eval …` "
                "again to finish it"
            )
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise DataError(
                f"{results} has version {found['version']!r}; expected {VERSION}. Evaluate into a new folder"
            )
        metrics, categories = _items(items)
        return FinishedRun(
            folder,
            found["benchmark"],
            found["primary"],
            found["model"]["name"],
            found["model"].get("sha256"),
            dict(found["settings"]),
            dict(found["generation"]),
            metrics,
            categories,
            tuple(map(str, found.get("warnings", ()))),
        )
    except (ValueError, RecursionError, KeyError, TypeError, pyarrow.ArrowException) as problem:
        raise DataError(
            f"{folder} does not have the layout of a run ({type(problem).__name__}: {problem}); expected the files "
            "that `rvpo eval …` writes. Run it again"
        ) from problem


def require_comparable(a: FinishedRun, b: FinishedRun) -> None:
    """Refuse runs whose scores are not comparable.

    Raises:
        ConfigError: the runs are of different benchmarks, or have different settings. The message names the first
            setting that differs.
    """
    if a.benchmark != b.benchmark:
        raise ConfigError(
            f"{a.folder} is a run of {a.benchmark!r} and {b.folder} of {b.benchmark!r}; expected one benchmark. "
            "Compare runs of the same benchmark"
        )
    if differs := difference(a.settings, b.settings):
        key, ours, theirs = differs
        raise ConfigError(
            f"{a.folder} and {b.folder} differ in the setting {key}: {ours!r} and {theirs!r}, so their scores are not "
            "comparable. Evaluate both with the same data, template and judge"
        )


def _items(path: Path) -> tuple[dict[str, Scores], dict[str, str]]:
    """Return two mappings: metric -> scores, and id -> category."""
    names = parquet.read_schema(path).names
    label = f"label/{STRATUM}"
    wanted = [name for name in names if name.startswith(("score/", "weight/")) or name == label]
    columns: dict[str, list[Any]] = parquet.read_table(path, columns=["id", "missing", *wanted]).to_pydict()
    ids = columns["id"]
    unscored = [json.loads(text or "{}") for text in columns["missing"]]
    metrics = {
        name[6:]: _pooled(name[6:], ids, columns[name], columns.get(f"weight/{name[6:]}"), unscored)
        for name in wanted
        if name.startswith("score/")
    }
    return metrics, {id_: kind or "" for id_, kind in zip(ids, columns.get(label, [""] * len(ids)), strict=True)}


def _pooled(
    metric: str,
    ids: Sequence[str],
    scores: Sequence[float | None],
    weights: Sequence[float | None] | None,
    unscored: Sequence[Mapping[str, str]],
) -> Scores:
    """Average the epochs of each item that were scored."""
    pooled = Scores(weighted=weights is not None)
    values: dict[str, list[float]] = {}
    known: dict[str, list[float]] = {}
    for i, (id_, score) in enumerate(zip(ids, scores, strict=True)):
        weight = None if weights is None else weights[i]
        if score is not None and not math.isnan(score):
            values.setdefault(id_, []).append(score)
            weight = 1.0 if weight is None else weight
            pooled.binary = pooled.binary and score in (0, 1)
            pooled.single = pooled.single and id_ not in pooled.asked
        elif metric not in unscored[i]:
            continue  # this item does not have the metric
        if weight is not None:
            known.setdefault(id_, []).append(weight)
        pooled.asked.add(id_)
    pooled.values, pooled.weights = (
        {id_: sum(numbers) / len(numbers) for id_, numbers in rows.items()} for rows in (values, known)
    )
    return pooled
