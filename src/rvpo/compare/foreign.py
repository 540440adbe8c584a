"""Read results of other evaluators, if they have a score per item. Other files are refused.

These are read: lm-eval's ``samples_*.jsonl`` (``--log_samples``); BFCL's score files, which list the failed items after
a header with the total; rows of other evaluators if item and score are clear (:mod:`rvpo.compare.foreign_items`).

These are recognised and refused with the reason: lm-eval's ``results_*.json`` and other files of means, BFCL's model
answers, and logs of Inspect. Anything else is refused, too.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rvpo.compare.finished import FinishedRun, Scores
from rvpo.compare.foreign_items import read_items
from rvpo.data.files import open_rows, storage_of
from rvpo.data.json_files import is_keyed, row_lists
from rvpo.data.records import Row, shorten
from rvpo.data.unpack import opened
from rvpo.errors import DataError
from rvpo.text.numbers import is_finite

_SAMPLES = "samples_*.json*"
_RESULTS = "results_*.json"
_BFCL = "BFCL_*_score.json"
_AS_ROWS = (
    "write its items as JSONL, one row each with `id` and `score` (a number, higher is better), and pass this file"
)
_NOT_SCORES = (
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash", "repeats",
)  # fmt: skip


def is_foreign(path: Path) -> bool:
    """Return whether a path may contain results of another evaluator, and is not a folder of ``rvpo eval``."""
    if path.is_file():
        return True
    if not path.is_dir() or (path / "items.parquet").exists():
        return False
    return any(_files(path, pattern) for pattern in (_SAMPLES, _RESULTS, _BFCL))


def read_foreign(path: Path) -> FinishedRun:
    """Read a file of another evaluator, or the folder with its files.

    Raises:
        DataError: the results have no score per item, or their layout is unknown.
    """
    if path.is_dir():
        for pattern, read in ((_SAMPLES, _samples), (_BFCL, _bfcl)):
            if files := _files(path, pattern):
                return read(path, files)
        _refuse_means(path, "lm-eval's results, which are means per task")
    name = path.name
    if re.fullmatch(r"BFCL_.*_score\.json(\.gz)?", name):
        return _bfcl(path, [path])
    if re.fullmatch(r"samples_.*\.jsonl?(\.gz)?", name):
        return _samples(path, [path])
    if path.suffix == ".eval":
        _refuse(path, "a log of Inspect", _AS_ROWS)
    return _by_content(path)


def _by_content(path: Path) -> FinishedRun:
    whole = _document(path)
    if isinstance(whole, Mapping):
        if isinstance(whole.get("results"), Mapping) and ("configs" in whole or "versions" in whole):
            _refuse_means(path, "lm-eval's results, which are means per task")
        if "eval" in whole and "version" in whole:
            _refuse(path, "a log of Inspect", _AS_ROWS)
        if storage_of(path) == "json" and not row_lists(whole) and not is_keyed(whole):
            _refuse(path, f"an object with {shorten(list(whole))}, and no list of scored items", _AS_ROWS)
    if _has_lines_of_lists(path):
        next_step = "run `bfcl evaluate`, and pass its score file"
        _refuse(path, "lines of JSON lists without scores, such as a model's answers for BFCL", next_step)
    rows = _rows(path)
    if "doc_id" in rows[0] and {"filtered_resps", "resps"} & rows[0].keys():
        return _samples(path, [path])
    if {"accuracy", "correct_count", "total_count"} <= rows[0].keys():
        return _bfcl(path, [path])
    if {"id", "result"} <= rows[0].keys():
        _refuse(path, "answers of a model for BFCL, without scores", "run `bfcl evaluate`, and pass its score file")
    return read_items(path, rows)


# --- lm-eval ----------------------------------------------------------------------------------------------------------


def _samples(path: Path, files: Sequence[Path]) -> FinishedRun:
    """Read lm-eval's samples. They have one row per item and filter, with the metrics next to the question."""
    metrics: dict[str, Scores] = {}
    categories: dict[str, str] = {}
    tasks = {_task_of(file): _rows(file) for file in _newest(files)}
    for task, rows in tasks.items():
        filters = {str(row.get("filter", "none")) for row in rows}
        for row in rows:
            if "doc_id" not in row:
                next_step = "pass lm-eval's samples, written with --log_samples"
                _refuse(path, f"a row with {shorten(sorted(row))}", next_step)
            # The digest of the question keeps different versions of a task from being paired.
            id_ = f"{task}:{row['doc_id']}:{str(row.get('doc_hash', ''))[:12]}"
            categories[id_] = task
            for name in _metrics(row):
                suffix = f",{row.get('filter')}" if len(filters) > 1 else ""
                family = name if len(tasks) == 1 else f"{name}:{task}"
                _add(metrics.setdefault(family + suffix, Scores()), path, id_, row[name])
    if not metrics:
        _refuse(path, "samples without a metric", "evaluate again with a task that scores each item")
    primary = next((name for name in metrics if name.startswith(("acc", "exact_match"))), next(iter(metrics)))
    settings = {"tasks": sorted(tasks)}
    benchmark = f"lm-eval: {', '.join(sorted(tasks))}"
    return FinishedRun(path, benchmark, primary, path.name, None, settings, {}, metrics, categories)


def _metrics(row: Row) -> list[str]:
    named = row.get("metrics")
    names = [name for name in named if isinstance(name, str) and name in row] if isinstance(named, list) else list(row)
    return [name for name in names if name not in _NOT_SCORES and _is_score(row[name])]


def _is_score(value: Any) -> bool:
    return isinstance(value, bool | int | float) and is_finite(value)


def _task_of(file: Path) -> str:
    stem = file.name.split(".json")[0].removeprefix("samples_")
    return re.sub(r"_\d{4}-\d\d-\d\dT.*$", "", stem)


def _newest(files: Sequence[Path]) -> list[Path]:
    """Return the files by task. Refuse a folder with the samples of several evaluations of a task."""
    by_task = {_task_of(file): file for file in sorted(files, key=lambda file: file.name)}
    if len(by_task) < len(files):
        seen = f"{len(files)} files of samples for {len(by_task)} tasks"
        _refuse(files[0].parent, seen, "pass the folder or file of one evaluation")
    return list(by_task.values())


# --- BFCL -------------------------------------------------------------------------------------------------------------


def _bfcl(path: Path, files: Sequence[Path]) -> FinishedRun:
    """Read BFCL's score files: a header with the numbers, then the items that failed. All other items passed."""
    scores = Scores()
    categories: dict[str, str] = {}
    for file in files:
        header, *failed = _rows(file)
        found = re.fullmatch(r"BFCL_v\d+_(.+)_score", file.name.split(".json")[0])
        category = found[1] if found else str(failed[0].get("test_category", "")) if failed else ""
        wrong = {str(row.get("id")) for row in failed if row.get("valid") is not True}
        total, correct = header.get("total_count"), header.get("correct_count")
        if type(total) is not int or type(correct) is not int or correct != total - len(wrong):
            seen = f"{len(wrong)} failed items after a header with {shorten(header)}"
            _refuse(file, seen, "pass a whole score file that `bfcl evaluate` wrote")
        for id_ in _ids(file, category, total, wrong):
            categories[id_] = category
            _add(scores, file, id_, id_ not in wrong)  # ids begin with their category
    settings = {"categories": sorted(set(categories.values()))}
    return FinishedRun(path, "bfcl", "accuracy", path.name, None, settings, {}, {"accuracy": scores}, categories)


def _ids(file: Path, category: str, total: int, wrong: set[str]) -> list[str]:
    """Return the ids of all items of a category. The score file does not list the items that passed."""
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or not spec.submodule_search_locations:
        next_step = "install bfcl-eval, which has the ids of the items that passed (docs/evals.md)"
        _refuse(file, "BFCL's scores, which list only the failed items", next_step)
    folder = Path(spec.submodule_search_locations[0]) / "data"
    data = folder / f"{file.name.split('_score')[0]}.json"
    if not data.is_file():  # a file that was renamed
        data = next(iter(sorted(folder.glob(f"BFCL_v*_{category}.json"))), data)
    ids = [str(row["id"]) for row in _rows(data) if "id" in row] if data.is_file() else []
    if len(ids) != total or not wrong <= set(ids):
        seen = f"scores of {total} items of {category!r}, but the installed bfcl-eval has {len(ids)} of them"
        _refuse(file, seen, "evaluate the whole category with the version of bfcl-eval that is installed here")
    return ids


# --- shared -----------------------------------------------------------------------------------------------------------


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


def _rows(path: Path) -> list[Row]:
    rows = [row for _, row in open_rows(path, storage_of(path))]
    if not rows:
        _refuse(path, "no rows", "pass a file with results")
    return rows


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None


def _has_lines_of_lists(path: Path) -> bool:
    with opened(path) as file:
        first, second = file.readline(), file.readline()
    try:
        return all(isinstance(json.loads(line), list) for line in (first, second))
    except (ValueError, RecursionError):
        return False


def _add(scores: Scores, path: Path, id_: str, value: float | bool) -> None:
    if id_ in scores.asked:
        _refuse(path, f"two scores of the item {id_!r}", "pass the file of one evaluation")
    scores.asked.add(id_)
    scores.values[id_] = float(value)
    scores.binary = scores.binary and float(value) in (0.0, 1.0)


def _refuse_means(path: Path, what: str) -> NoReturn:
    _refuse(path, what, "evaluate with --log_samples, and pass its samples_*.jsonl: a comparison needs scores per item")


def _refuse(path: Path, seen: str, next_step: str) -> NoReturn:
    raise DataError(f"{path}: saw {seen}; expected a score per item; next step: {next_step}")
