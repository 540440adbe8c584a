"""Find the rubrics in the rows of a file. A column that looks like a rubric but cannot be read is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rvpo.data.paths import ABSENT, lookup, plain
from rvpo.data.records import Place, Row, shorten

TEXT_KEYS = (
    "criterion",
    "requirement",
    "criterion_text",
    "criterion_description",
    "rubric_item",
    "rubric_text",
    "rubric",
    "item",
    "statement",
    "text",
    "description",
    "desc",
    "explanation",
)
"""Keys of a criterion's text, which is met or not. If a criterion has several of them, the judge reads all."""

WEIGHT_KEYS = ("points", "weight", "criterion_weight", "rubric_weight", "max_points", "max_score", "importance")
"""Keys of a criterion's weight, a number that may be stored as text. It is negative if meeting the criterion is bad."""

_MAX_DEPTH = 4
_WORD = re.compile(r"rubric|criteri|checklist", re.IGNORECASE)
_NAME = re.compile(
    r"(?:\w+_)?(?:rubrics?|criteria|criterions?|criterias|checklists?)(?:_(?:items?|list|json|full))?", re.IGNORECASE
)
_TEXT_NAME = re.compile(r"(?:\w+_)?(?:rubrics?|criteria|criterions|checklists?)", re.IGNORECASE)
_POINTS_ITEM = re.compile(r"^Points?: *([-+\d.]+), *Item: *(.+?)(?=^Points?: |\Z)", re.MULTILINE | re.DOTALL)


def find_rubrics(rows: Sequence[tuple[Place, Row]], chosen: str | None, raw: Sequence[str]) -> str | None:
    """Return the path of the rubrics, the same in all rows; None if no row has anything like a rubric.

    Args:
        rows: rows with their places.
        chosen: path that the user named; None searches for one.
        raw: columns that are read unchanged. They are not searched.

    Raises:
        DataError: two columns contain different rubrics, each row is a single criterion, or verl's style is ``rubric``
            without criteria.
    """
    if chosen is not None:
        if all(lookup(row, chosen) is ABSENT for _, row in rows):
            place, row = rows[0]
            next_step = f"name one of {shorten(sorted(row))} in rubric_keys"
            raise place.error(chosen, "no such field in any row", "the rubric that rubric_keys names", next_step)
        return chosen
    found: str | None = None
    for place, row in rows:
        _refuse_a_criterion_per_row(place, row, raw)
        path = _rubric_of(place, row, raw)
        if path is None or path == found:
            continue
        if found is not None:
            raise _ambiguous(place, found, path)
        found = path
    if found is None:
        _refuse_style_without_rubric(rows, raw)
    return found


def _refuse_style_without_rubric(rows: Sequence[tuple[Place, Row]], raw: Sequence[str]) -> None:
    """Refuse rows of verl that are scored by a rubric without criteria, such as a rubric as text in the answer."""
    for place, row in rows:
        if lookup(row, "reward_model.style") == "rubric" and not any(name.startswith("reward_model") for name in raw):
            next_step = (
                "write the criteria as reward_model.rubrics, or read the ground truth unchanged with "
                "reference_columns={'answer': 'reward_model.ground_truth'}"
            )
            raise place.error("reward_model", "style 'rubric' without criteria", "a list of criteria", next_step)


def _rubric_of(place: Place, row: Row, raw: Sequence[str]) -> str | None:
    distinct: dict[str, Any] = {}
    for path, value in sorted(_candidates(row, raw), key=lambda pair: (pair[0].count("."), pair[0])):
        if path.startswith("reward_model."):  # verl's own path is preferred to copies of the rubric
            distinct = {path: value, **{p: v for p, v in distinct.items() if v != value}}
        elif value not in distinct.values():
            distinct[path] = value
    filled = {path: value for path, value in distinct.items() if value and not _repeats(value, distinct)} or distinct
    if len(filled) > 1:
        raise _ambiguous(place, *list(filled)[:2])
    return next(iter(filled), None)


def _repeats(value: Any, others: Mapping[str, Any]) -> bool:
    """Return whether a list of texts repeats the criteria of another rubric, as ``rubric_list`` of RaR does."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return False
    lists = [other for other in others.values() if isinstance(other, list) and other is not value]
    texts = [{text for entry in other if isinstance(entry, dict) for text in entry.values() if isinstance(text, str)}
             for other in lists]  # fmt: skip
    return any(set(value) <= known for known in texts)


def _ambiguous(place: Place, one: str, other: str) -> Exception:
    next_step = f"choose with rubric_keys={{'rubric': '{one}'}} or rubric_keys={{'rubric': '{other}'}}"
    return place.error(
        other, f"a second rubric, besides {one!r}", "one rubric, under the same path in each row", next_step
    )


def _candidates(row: Mapping[str, Any], raw: Sequence[str], before: str = "", depth: int = 0) -> Iterator[Any]:
    """Yield path and value of everything that looks like a rubric."""
    for key, stored in row.items():
        path = f"{before}{key}"
        if path in raw or stored is None:
            continue
        value = plain(stored)
        if looks_like_one(str(key), value):
            yield path, value
            continue
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):  # open-instruct's ground_truth
            value = {"0": plain(value[0])}
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from _candidates(value, raw, f"{path}.", depth + 1)


def looks_like_one(key: str, value: Any) -> bool:
    """Return whether a value under a key has the name and form of a rubric."""
    if isinstance(value, str):
        return bool((_TEXT_NAME.fullmatch(key) and value.strip()) or points_and_items(value))
    if isinstance(value, dict):
        return bool(_NAME.fullmatch(key) and value)
    if not isinstance(value, list):
        return False
    if not value or all(isinstance(entry, str) for entry in value):
        return bool(_NAME.fullmatch(key))
    if not all(isinstance(entry, dict) for entry in value):
        return bool(_NAME.fullmatch(key)) and any(isinstance(entry, dict | str) for entry in value)
    if _WORD.search(key):
        return True
    return all(_has(entry, TEXT_KEYS) and _has(entry, WEIGHT_KEYS) for entry in value)


def points_and_items(text: str) -> list[Row]:
    """Return the criteria of a text with lines "Points: 1.5, Item: …" (FrontierScience); [] for any other text."""
    if not text.startswith("Point"):
        return []
    return [{"criterion": item.strip(), "points": points} for points, item in _POINTS_ITEM.findall(text)]


def _has(entry: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return any(entry.get(key) is not None for key in keys)


def _refuse_a_criterion_per_row(place: Place, row: Row, raw: Sequence[str]) -> None:
    for key in ("criterion", "rubric_item", "criterion_text", "criterion_description"):
        weighted = [name for name in WEIGHT_KEYS if row.get(name) is not None]
        if key not in raw and isinstance(row.get(key), str) and weighted:
            seen = f"one criterion per row, with its weight in {weighted[0]!r}"
            expected = "one row per prompt, with the list of its criteria"
            next_step = f"group the rows by prompt: one row with rubrics=[{{{key!r}: …, {weighted[0]!r}: …}}, …] each"
            raise place.error(key, seen, expected, next_step)
