"""Read scores of an unknown evaluator, if each of its rows has the id of an item and a score."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rvpo.compare.finished import FinishedRun, Scores
from rvpo.data.records import Row, shorten
from rvpo.errors import DataError

logger = logging.getLogger(__name__)

ITEM_COLUMNS = (
    "id", "item_id", "doc_id", "prompt_id", "question_id", "task_id", "session_id", "example_id", "sample_id",
    "problem_id", "instance_id", "uid", "key", "native_id", "prompt", "question", "problem",
)  # fmt: skip
"""Columns that may contain the id of the item. The first one whose values are all different is used."""

NUMBERS = ("score", "overall_score", "rating", "f1", "accuracy", "acc", "acc_norm")
"""Columns whose numbers are scores. Higher is better."""

FLAGS = (
    "correct", "is_correct", "exact_match", "em", "passed", "pass", "success", "resolved", "follow_all_instructions",
)  # fmt: skip
"""Columns that are scores if they contain true and false, or 1 and 0. Other values are answers."""

_WITHIN = ("metrics", "scores", "results")
_TEXTS = ("prompt", "question", "problem", "query", "instruction")
_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def read_items(path: Path, rows: Sequence[Row]) -> FinishedRun:
    """Read rows with one item each.

    Args:
        path: file that the rows are from, for messages.
        rows: one row per item.

    Raises:
        DataError: no column is the id of the item, or no column is a score. The message says which one is lacking.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    item = next((name for name in ITEM_COLUMNS if _is_unique(rows, name)), None)
    found = {name: values for name in (*NUMBERS, *FLAGS) if (values := _scores(rows, name)) is not None}
    if item is None or not found:
        raise _not_clear(path, rows, names, item, bool(found))
    # The digest of the question keeps items of different benchmarks from being paired by their numbers.
    ids = [f"{row[item] if item not in _TEXTS else ''}:{_digest(row)}" for row in rows]
    metrics = {name: _as_scores(ids, values) for name, values in found.items()}
    primary = next(iter(metrics))
    others = f"; also {', '.join(list(metrics)[1:])}" if len(metrics) > 1 else ""
    logger.warning("%s: item = %s; score = %s (higher is better)%s", path, item, primary, others)
    return FinishedRun(path, "items", primary, path.name, None, {"item": item}, {}, metrics, dict.fromkeys(ids, ""))


def _as_scores(ids: Sequence[str], values: Sequence[float | None]) -> Scores:
    scored = {id_: value for id_, value in zip(ids, values, strict=True) if value is not None}
    return Scores(values=scored, asked=set(ids), binary=all(value in (0.0, 1.0) for value in scored.values()))


def _is_unique(rows: Sequence[Row], name: str) -> bool:
    keys = [_key(row.get(name)) for row in rows]
    return None not in keys and len(set(keys)) == len(rows)


def _key(value: Any) -> str | None:
    """Return a key that identifies a value; None for blanks and decimals."""
    if value is None or value in ("", [], {}) or isinstance(value, bool | float):
        return None
    return json.dumps(value, sort_keys=True, default=str)


def _digest(row: Row) -> str:
    """Return a digest of the row's question; "" if the row has none."""
    text = next((row[name] for name in _TEXTS if row.get(name)), None)
    return "" if text is None else hashlib.sha256(str(_key(text)).encode("utf-8", "replace")).hexdigest()[:12]


def _scores(rows: Sequence[Row], name: str) -> list[float | None] | None:
    """Return one score per row, None if it is missing. Return None for a column that does not contain scores."""
    values = [_value(row, name) for row in rows]
    numbers = [None if value is None else _number(value) for value in values]
    if all(number is None for number in numbers) or any(
        number is None and value is not None for number, value in zip(numbers, values, strict=True)
    ):
        return None
    if name in FLAGS and any(number not in (None, 0.0, 1.0) for number in numbers):
        return None
    return [None if number is None or math.isnan(number) else number for number in numbers]


def _value(row: Row, name: str) -> Any:
    for group in _WITHIN:
        inner = row.get(group)
        if name not in row and isinstance(inner, Mapping) and name in inner:
            return inner[name]
    value = row.get(name)
    return None if isinstance(value, str) and not value.strip() else value


def _number(value: Any) -> float | None:
    """Return a value as a number, also from text; NaN if the text is NaN, None if it is not a number."""
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    if not isinstance(value, bool | int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isinf(number) else number


def _not_clear(path: Path, rows: Sequence[Row], names: Sequence[str], item: str | None, has_score: bool) -> DataError:
    lacking = []
    if item is None:
        twice = next((name for name in ITEM_COLUMNS if all(row.get(name) is not None for row in rows)), None)
        lacking.append("no id of the item" if twice is None else f"{twice!r} more than once with the same value")
    if not has_score:
        lacking.append("no score")
    return DataError(
        f"{path}: saw rows with {shorten(sorted(names), 200)}, and {' and '.join(lacking)}; expected a score per item, "
        "one row each; next step: rename the column with the item's id to `id`, and the column with its score (a "
        "number, or true and false; higher is better) to `score`, or pass a run of `rvpo eval`, lm-eval's samples or "
        "BFCL's scores"
    )
