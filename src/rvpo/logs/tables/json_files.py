"""Read the records of JSON files: one object per line, arrays, an object with a list, W&B's and pandas' tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rvpo.errors import DataError
from rvpo.logs.tables.anchors import find_anchor, has_scores, is_chat
from rvpo.logs.tables.files import opened
from rvpo.logs.tables.layouts import PROMPTS
from rvpo.logs.tables.names import is_phase, of_role
from rvpo.text.quoting import quoted

Record = tuple[str, dict[str, Any]]
"""The place of an object, for messages, and the object."""
BOM = b"\xef\xbb\xbf"
STEPS = ("step", "global_step", "training_step", "iteration")
_KEY_OF_STEP = re.compile(
    r"(?:(?:global|train(?:ing)?)[_\- ]?)?(?:step|iteration|iter|rollout)?[_\- ]?(\d{1,15})", re.IGNORECASE
)


def json_records(path: Path, notes: list[str]) -> Iterator[Record]:
    """Yield the objects of a JSON file of any kind.

    Raises:
        DataError: a line or item is not JSON, not an object, or not UTF-8.
    """
    if _has_an_object_per_line(path):
        yield from _of_lines(path, notes)
    else:
        yield from _of_document(path)


def _has_an_object_per_line(path: Path) -> bool:
    """Return whether the first line is a whole object, and other lines follow or the file is a .jsonl file."""
    with opened(path) as file:
        first: bytes | None = None
        for line in file:
            line = line.removeprefix(BOM).strip()
            if line and first is not None:
                return True
            if line:
                if not line.startswith(b"{"):
                    return not line.startswith(b"[") or ".jsonl" in path.suffixes
                if not _is_whole(line) and ".jsonl" not in path.suffixes:
                    return False
                first = line
    return first is None or ".jsonl" in path.suffixes or not _is_container(path, first)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except RecursionError:
        return True
    except ValueError as error:
        return "Extra data" in str(error)
    return True


def _is_container(path: Path, line: bytes) -> bool:
    """Return whether a file's only line contains all rows."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and rows_of_object(path, value) is not None


def _of_lines(path: Path, notes: list[str]) -> Iterator[Record]:
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(BOM)
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = DECODER.decode(line.decode())
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    notes.append(f"{where} is not complete, so it is left out")
                    return  # still being written
                seen = f"{quoted(line[:60].decode('utf-8', 'replace'))} ({_reason(error)})"
                raise _error(where, seen, "Fix the line") from error
            if not isinstance(row, dict):
                raise _error(where, f"a {type(row).__name__}", "Wrap it in an object")
            yield where, row


def _error(where: str, seen: str, next_step: str) -> DataError:
    return DataError(f"{where}: {seen}; expected one JSON object per line, in UTF-8. {next_step}")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


class _TwiceError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; a key with two different values is an error, because one of them would be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        for key, value in pairs:
            if made[key] is not value and made[key] != value:
                raise _TwiceError(f"the key {quoted(key)} occurs twice with different values")
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _of_document(path: Path) -> Iterator[Record]:
    with opened(path) as file:
        content = file.read()
    try:
        text = content.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: {error}; expected UTF-8. Convert the file") from error
    start = _skip(text, 0, "")
    if text[start : start + 1] == "[":
        for index, value in enumerate(_items(path, text, start + 1)):
            yield _record(f"{path}, item {index}", value)
        return
    values = list(_items(path, text, start, end=""))
    if len(values) == 1 and isinstance(values[0], dict) and (rows := rows_of_object(path, values[0])) is not None:
        for index, value in enumerate(rows):
            yield _record(f"{path}, row {index}", value)
        return
    for index, value in enumerate(values):
        yield _record(f"{path}, item {index}", value)


def _record(where: str, value: Any) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a {type(value).__name__}; expected an object {{column: value}}. Wrap it in one")
    return where, value


def _items(path: Path, text: str, at: int, end: str = "]") -> Iterator[Any]:
    """Yield the values of a text one by one, so that a long list is never in memory as a whole."""
    while True:
        at = _skip(text, at, ",")
        if text[at : at + 1] == end:
            return
        try:
            value, at = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, at) + 1
            raise DataError(
                f"{path}, line {line}: {quoted(text[at : at + 60])} ({_reason(error)}); expected JSON. Fix the file"
            ) from error
        yield value


def _skip(text: str, at: int, signs: str) -> int:
    while at < len(text) and (text[at].isspace() or text[at] in signs):
        at += 1
    return at


def rows_of_object(path: Path, value: Mapping[str, Any]) -> Sequence[Any] | None:
    """Return the rows that one JSON object contains; None if it is itself a record."""
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(name, str) for name in columns):
        return [_zipped(f"{path}, row {index}", columns, row) for index, row in enumerate(data)]
    if "log_history" in value and isinstance(value["log_history"], list):
        return value["log_history"]  # a trainer's state; refused later, because it has means
    if find_anchor(value) is not None or any(_is_text(value.get(name)) for name in (*PROMPTS, "completion")):
        return None
    lists = {name: part for name, part in value.items() if isinstance(part, list) and not is_chat(part)}
    records = {n: part for n, part in lists.items() if part and all(isinstance(item, dict) for item in part)}
    if records:
        steps = {name: part for name, part in value.items() if name in STEPS and isinstance(part, int | str)}
        return [{**steps, **row} for row in _joined(records)]
    if len(lists) >= 2 and len(lists) == len(value) and len(set(map(len, lists.values()))) == 1:
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    return _of_objects(value)


def _joined(records: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Join the lists of an object that contain the same kind of rows; other lists are not rows.

    The key of a list becomes a column of its rows: the step, the phase (train, eval), the prompt or the run.
    """
    main = max(records.values(), key=lambda part: (has_scores(part[0]), len(part)))
    alike = {key: part for key, part in records.items() if 2 * len(part[0].keys() & main[0].keys()) >= len(main[0])}
    if len(alike) < 2:
        return main
    steps = {key: _KEY_OF_STEP.fullmatch(key) for key in alike}
    if any(is_phase(key) for key in alike):
        name = "split"
    elif all(steps.values()) and not of_role(main[0], "step"):
        return [{"step": int(match[1]), **row} for key, match in steps.items() if match for row in alike[key]]
    else:
        name = "run" if of_role(main[0], "group") else "prompt_id"
    return [{name: key, **row} for key, part in alike.items() for row in part]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or is_chat(value)


def _of_objects(value: Mapping[str, Any]) -> Sequence[Any] | None:
    """Return the rows of ``{column: {row: cell}}`` or ``{row: {column: cell}}``, as pandas and others write them."""
    parts = list(value.values())
    if len(parts) < 2 or not all(isinstance(part, dict) and part for part in parts):
        return None
    keys = list(parts[0])
    if any(list(part) != keys for part in parts):
        alike = sum(part.keys() == parts[0].keys() for part in parts)
        return [{"key": key, **part} for key, part in value.items()] if alike > len(parts) / 2 else None
    if all(key.isdecimal() for key in keys):
        return [{name: part[key] for name, part in value.items()} for key in keys]
    return [{"key": key, **part} for key, part in value.items()]


def _zipped(where: str, columns: Sequence[str], row: Any) -> Any:
    if isinstance(row, dict):
        return row
    if not isinstance(row, list) or len(row) != len(columns):
        found = len(row) if isinstance(row, list) else type(row).__name__
        raise DataError(f"{where}: {found} cells; expected {len(columns)}, one per column. Write the file again")
    return dict(zip(columns, row, strict=True))
