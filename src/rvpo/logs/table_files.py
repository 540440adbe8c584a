"""Files of a table: which columns they have, and some of these columns. See :mod:`rvpo.logs.read_tables`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rvpo.errors import DataError
from rvpo.logs.read_trl import text_of_cell

OBJECTS = ("rewards", "reward")
"""Objects whose parts are columns of their own, ``rewards.{name}``."""


@dataclass(frozen=True)
class Column:
    """A column of a table: whether it holds numbers, or nothing at all (then it may hold numbers, too)."""

    name: str
    numeric: bool
    empty: bool

    def together(self, other: Column) -> Column:
        """Return what two parts of one column are."""
        return Column(self.name, self.numeric and other.numeric, self.empty and other.empty)


def columns_in(path: Path) -> list[Column]:
    """Return the columns of a file; the parts of an object ``rewards`` are columns."""
    if path.suffix == ".jsonl":
        return _jsonl_columns(path)
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected whole parquet: write it again") from error
    found = []
    for field in schema:
        if field.name in OBJECTS and pa.types.is_struct(field.type):
            found += [_column(f"{field.name}.{part.name}", part.type) for part in field.type]
        else:
            found.append(_column(field.name, field.type))
    return found


def _column(name: str, kind: pa.DataType) -> Column:
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return Column(name, bool(number or pa.types.is_null(kind)), bool(pa.types.is_null(kind)))


def _jsonl_columns(path: Path) -> list[Column]:
    found: dict[str, Column] = {}
    for row in _json_rows(path):
        for name, value in _parts(row):
            column = Column(name, value is None or isinstance(value, int | float), value is None)
            found[name] = found.get(name, column).together(column)
    return list(found.values())


def _parts(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name in OBJECTS and isinstance(value, dict):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:  # bytes, so that a wrong encoding is found with its line
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return  # still being written
                raise _line_error(path, number, f"{line[:60]!r} ({error})", "repair the line") from error
            if not isinstance(row, dict):
                raise _line_error(path, number, f"a {type(row).__name__}", "wrap it in an object")
            yield row


def _line_error(path: Path, number: int, seen: str, next_step: str) -> DataError:
    return DataError(f"{path}, line {number}: {seen}; expected one JSON object a line, UTF-8: {next_step}")


def read_columns(path: Path, paths: Sequence[Path], names: Sequence[str]) -> pa.Table:
    """Read some columns of all files; a file that lacks one has nulls."""
    names = list(dict.fromkeys(names))
    try:
        tables = [_read_file(file, names) for file in paths]
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: the columns {', '.join(names)} cannot be read together ({error}); expected one kind of value a "
            "column: name others, or read the files one by one"
        ) from error


def _read_file(path: Path, names: Sequence[str]) -> pa.Table:
    if path.suffix == ".jsonl":
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for row in _json_rows(path):
            parts = dict(_parts(row))
            for name, values in columns.items():
                values.append(parts.get(name))
        return pa.table({name: _array(values) for name, values in columns.items()})
    schema = pq.read_schema(path)
    whole = {name: name if name in schema.names else name.partition(".")[0] for name in names}
    present = list(dict.fromkeys(outer for outer in whole.values() if outer in schema.names))
    table = pq.read_table(path, columns=present, partitioning=None)
    columns_read = {}
    for name, outer in whole.items():
        if outer not in table.column_names:
            columns_read[name] = pa.nulls(len(table))
        elif outer == name:
            columns_read[name] = table[name]
        else:
            struct = table[outer].combine_chunks()
            part = name.partition(".")[2]
            has = struct.type.get_field_index(part) >= 0
            columns_read[name] = struct.field(part) if has else pa.nulls(len(table))
    return pa.table(columns_read)


def _array(values: list[Any]) -> pa.Array:
    """Build a column; numbers of both kinds are one kind, and what no column can hold is kept as JSON."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds and kinds <= {int, float, bool} and kinds != {bool}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {str}:
        return pa.array(values, pa.string())
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else text_of_cell(value) for value in values], pa.string())
