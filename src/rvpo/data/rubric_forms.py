"""Read the forms of a rubric: a list of objects or texts, lists by dimension, one object per name, or columns."""

from __future__ import annotations

import math
import re
from typing import Any

from rvpo.data.find_rubrics import TEXT_KEYS, WEIGHT_KEYS, points_and_items
from rvpo.data.paths import ABSENT, lookup, plain
from rvpo.data.pitfalls import REPAIR
from rvpo.data.records import Place, Row, shorten

DIMENSION_WEIGHTS = ("dimension_weight", "dimension_weights")
"""Columns with the weight of each dimension, for rubrics that list their criteria by dimension."""

_FORMS = "a list of criteria: objects with a text and a weight, or texts"

_LIST_KEYS = ("criteria", "criterions", "rubrics", "rubric", "checklist", "items")

_LEVEL = re.compile(r"(?:score|level|grade)?[ _]?\d+(?:[ _]?(?:points?|description))?", re.IGNORECASE)


def entries_of(place: Place, row: Row, path: str) -> list[Row] | None:
    """Return the criteria of a row's rubric as objects; None if the row has no rubric.

    Args:
        place: place of the row, for messages.
        row: row of the file.
        path: path of the rubric in the row.

    Raises:
        DataError: the form of the rubric is unknown.
    """
    value = lookup(row, path)
    value = None if value is ABSENT else plain(value)
    if value is None or value in ([], {}, ""):
        return None
    if isinstance(value, dict):
        value = _listed(place, path, value, row)
    if isinstance(value, str):
        value = points_and_items(value) or value
    if isinstance(value, str):
        seen = f"one text {shorten(value)}"
        next_step = (
            "write its criteria as a list of texts, or of objects with weights, or read the text unchanged with "
            f"reference_columns={{'my_text': {path!r}}}"
        )
        if value.lstrip()[:1] in ("[", "{"):
            seen, next_step = f"text that is not JSON, {shorten(value)}", "write it with json.dumps"
        raise place.error(path, seen, _FORMS, next_step)
    if not isinstance(value, list):
        raise place.error(path, f"{type(value).__name__} {shorten(value)}", _FORMS, REPAIR)
    entries = []
    for j, stored in enumerate(value):
        entry = {"text": stored} if isinstance(stored, str) and plain(stored) is stored else plain(stored)
        if not isinstance(entry, dict):
            raise place.error(f"{path}[{j}]", f"{type(entry).__name__} {shorten(entry)}", "an object or text", REPAIR)
        entries.append(entry)
    return entries


def _listed(place: Place, path: str, value: Row, row: Row) -> Any:
    """Return the criteria of an object: one criterion, a list in it, lists by dimension, or one criterion per key."""
    if any(isinstance(value.get(key), str) for key in TEXT_KEYS):
        return [value]
    value = {key: inner for key, inner in value.items() if inner is not None}  # Arrow adds the keys of other rows
    within = [key for key in _LIST_KEYS if isinstance(plain(value.get(key)), list)]
    if len(within) == 1:
        return plain(value[within[0]])
    if (columns := _columns(value)) is not None:
        return columns
    kinds = {type(inner) for inner in value.values()}
    if kinds == {list}:
        return _of_dimensions(place, path, value, row)
    if kinds == {dict}:
        return [{"id": key, **inner} for key, inner in value.items()]
    if kinds == {str} and not any(_LEVEL.fullmatch(key) for key in value):
        return [{"id": key, "text": inner} for key, inner in value.items()]
    if kinds and kinds <= {int, float} and not any(_LEVEL.fullmatch(key) for key in value):
        return [{"text": key, "weight": inner} for key, inner in value.items()]
    next_step = "write its criteria as a list (the levels of a grade are one criterion with a scale)"
    raise place.error(path, f"an object {shorten(value)}", _FORMS, next_step)


def _columns(value: Row) -> list[Row] | None:
    """Return the criteria of an object of columns, in which ``datasets`` stores lists of objects; None for others."""
    lists = {key: inner for key, inner in value.items() if isinstance(inner, list)}
    named = any(key in lists for key in (*TEXT_KEYS, "title", "name"))
    if not named or len(lists) < len(value) or len({len(inner) for inner in lists.values()}) != 1:
        return None
    rows = zip(*lists.values(), strict=True)
    return [dict(zip(lists, row, strict=True)) for row in rows]


def _of_dimensions(place: Place, path: str, value: Row, row: Row) -> list[Any]:
    """Return the criteria of all dimensions. Each weight is multiplied by the weight of its dimension."""
    named = [name for name in DIMENSION_WEIGHTS if isinstance(plain(row.get(name)), dict)]
    shares = plain(row[named[0]]) if named else {}
    listed = []
    for dimension, entries in value.items():
        share = 1.0
        if named:
            if dimension not in shares:
                next_step = "add the missing weights"
                expected = f"a weight for each of {list(value)}"
                raise place.error(named[0], f"no weight for {dimension!r}", expected, next_step)
            share = number(place, f"{named[0]}.{dimension}", shares[dimension])
        for j, entry in enumerate(entries):
            criterion = {"text": entry} if isinstance(entry, str) else entry
            if not isinstance(criterion, dict):
                raise place.error(f"{path}.{dimension}[{j}]", shorten(entry), "an object or text", REPAIR)
            weighed = {k: number(place, f"{path}.{dimension}[{j}].{k}", criterion[k]) * share
                       for k in WEIGHT_KEYS if criterion.get(k) is not None}  # fmt: skip
            listed.append({**criterion, **(weighed or ({"weight": share} if named else {})), "dimension": dimension})
    return listed


def number(place: Place, where: str, value: Any) -> float:
    """Return a finite number. It may be stored as text.

    Raises:
        DataError: the value is not a number.
    """
    if not isinstance(value, int | float | str) or not is_number(value):
        expected = "a number, or a number as text"
        raise place.error(where, f"{type(value).__name__} {shorten(value)}", expected, "write the weight as a number")
    return float(value)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number. It may be stored as text."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False
