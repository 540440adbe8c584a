"""Read JSON as rows: one object per line, a list of objects, or one object that contains the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvpo.data import generic
from rvpo.data.find_rubrics import looks_like_one
from rvpo.data.records import Place, Rows, shorten, source_error
from rvpo.data.unpack import opened

_LISTS = ("data", "rows", "examples", "instances", "items", "prompts", "questions", "train", "test")


def read_jsonl(path: Path) -> Rows:
    """Read one JSON object per line (UTF-8). Blank lines are skipped.

    Raises:
        DataError: a line is not UTF-8, not JSON, not an object, or repeats a key.
    """
    expected, index = "one JSON object per line, in UTF-8, without repeated keys", 0
    with opened(path) as lines:  # bytes, so that an encoding error is reported with its line
        for number, raw in enumerate(lines):
            if not raw.strip():
                continue
            place = Place(str(path), index, number + 1)
            try:
                row = generic.strict_json(raw.decode("utf-8-sig" if number == 0 else "utf-8"))
            except (ValueError, RecursionError) as error:
                next_step = "repair the line (a JSON list of RLLA records needs layout='rlla')"
                raise place.error(None, f"{shorten(raw)} ({error})", expected, next_step) from error
            if not isinstance(row, dict):
                next_step = "wrap the value in an object (a list of RLLA records needs layout='rlla')"
                raise place.error(None, f"{type(row).__name__} {shorten(row)}", expected, next_step)
            yield place, row
            index += 1


def read_json(path: Path) -> Rows:
    """Read a JSON list of objects, or one object that contains such a list under a name such as ``data``.

    Raises:
        DataError: the file is not JSON, or has another form.
    """
    source, expected = str(path), "a JSON list of objects"
    try:
        with opened(path) as file:
            data = generic.strict_json(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise source_error(source, f"invalid JSON ({error})", expected, "repair the file") from error
    if isinstance(data, dict):
        data = _rows_within(source, data)
    if not isinstance(data, list):
        raise source_error(source, f"a JSON {type(data).__name__}", expected, "write the rows as a list")
    for index, row in enumerate(data):
        place = Place(source, index)
        if not isinstance(row, dict):
            raise place.error(None, f"{type(row).__name__} {shorten(row)}", "an object", "write each row as an object")
        yield place, row


def is_one_object(path: Path) -> bool:
    """Return whether a file that begins with ``{`` is one JSON document, rather than one object per line."""
    with opened(path) as file:
        first = file.readline()
        rest_is_blank = not file.readline().strip() and not file.read(1)
    try:
        row = json.loads(first.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        try:
            with opened(path) as file:
                json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return False
        return True
    return rest_is_blank and isinstance(row, dict) and (row_lists(row) != [] or is_keyed(row))


def is_keyed(document: Mapping[str, Any]) -> bool:
    """Return whether an object maps ids to rows: it has at least two objects with mostly the same fields."""
    fields = [value.keys() if isinstance(value, dict) else set() for value in document.values()]
    if len(fields) < 2:
        return False
    shared, all_of_them = set.intersection(*map(set, fields)), set().union(*fields)
    return len(shared) > 1 and 2 * len(shared) >= len(all_of_them)


def row_lists(document: Mapping[str, Any]) -> list[str]:
    """Return the keys of a document that may contain its rows."""
    return [
        name
        for name in _LISTS
        if isinstance(document.get(name), list) and document[name] and all(isinstance(r, dict) for r in document[name])
    ]


def _rows_within(source: str, document: dict[str, Any]) -> Any:
    """Return the rows in an object. Rows that are stored by id get a field ``id``."""
    names = row_lists(document)
    if len(names) == 1:
        return document[names[0]]
    if not names and is_keyed(document):
        return [{"id": key, **row} for key, row in document.items()]
    seen = f"an object with the keys {shorten(list(document))}"
    raise source_error(source, seen, "a JSON list of objects", _next_step(document, names))


def _next_step(document: Mapping[str, Any], names: list[str]) -> str:
    """Return how to write an object of another form as rows."""
    if len(names) > 1:
        return f"write the rows of one of {names} as JSONL"
    lists = [n for n, v in document.items() if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)]
    texts = [name for name, value in document.items() if isinstance(value, str) and not name.startswith("_")]
    rubric = next((name for name in lists if looks_like_one(name, document[name])), None)
    if rubric is not None:
        return f"write one row per prompt as JSONL, {{'prompt': …, {rubric!r}: […]}}: the criteria next to their prompt"
    if len(lists) == 1:
        fields = ", ".join(map(repr, dict.fromkeys([*texts[:3], *document[lists[0]][0]])))
        return f"write each entry of {lists[0]!r} as a row of JSONL, together with the fields it needs ({fields})"
    return "write one row per prompt as JSONL, {'prompt': …, 'answer': …}; this object does not contain a list of rows"
