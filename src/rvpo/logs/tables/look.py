"""``look``: files of any format and layout as one table with one row per completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rvpo.errors import ConfigError, DataError
from rvpo.logs.tables.arrow_files import arrow_part, arrow_records, is_plain
from rvpo.logs.tables.cells import ABSENT, Cells, read_cells
from rvpo.logs.tables.columns import Column, Seen
from rvpo.logs.tables.csv_files import csv_records
from rvpo.logs.tables.files import ARROW, DELIMITED, suffix_of
from rvpo.logs.tables.flatten import MOST_COLUMNS, Flattening
from rvpo.logs.tables.json_files import Record, json_records
from rvpo.logs.tables.layouts import LINE, Layout
from rvpo.logs.tables.store import ArrowPart, Part, Store

ROWS_AT_ONCE = 10_000
ENOUGH_TEXT = 5_000  # cells with text and without one number, after which a column is one of text


@dataclass(frozen=True)
class Table:
    """Logs as a table with one row per completion.

    Attributes:
        path: what was looked at, for messages.
        rows: count of completions.
        columns: by their dotted names, in order of appearance.
        notes: what was done to the files, for people.
        weights: column of a reward -> its weight, where the logs hold it.
        format: trainer or layout that was recognised; empty where none was.
        group: column that tells groups apart by the layout alone; None where there is none.
        parts: cells, file by file.
    """

    path: Path
    rows: int
    columns: Mapping[str, Column]
    notes: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    format: str = ""
    group: str | None = None
    parts: Sequence[Part] = ()

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return columns: those of numbers and flags as float64, null where missing or odd, others as text.

        Raises:
            ConfigError: there is no such column.
            DataError: a file is damaged.
        """
        return pa.table(
            {name: self._numbers(name) if self._column(name).numeric else self._texts(name) for name in names}
        )

    def read_texts(self, names: Sequence[str]) -> pa.Table:
        """Return columns as text, as it was written: ids and prompts. Chats are JSON.

        Raises:
            ConfigError: there is no such column.
            DataError: a file is damaged.
        """
        return pa.table({name: self._texts(name) for name in names if self._column(name)})

    def where(self, row: int) -> str:
        """Return the file of a row and its number there, for messages."""
        start = 0
        current: Path | None = None
        before = 0
        for part in self.parts:
            if part.path != current:
                current, before = part.path, start
            if row < start + part.rows:
                return f"{part.path}, row {row - before}"
            start += part.rows
        return f"{self.path}, row {row}"

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            raise ConfigError(f"{self.path} has no column {name!r}; expected {', '.join(self.columns)}: name another")
        return self.columns[name]

    def _numbers(self, name: str) -> pa.ChunkedArray:
        values = np.concatenate([part.numbers(name) for part in self.parts]) if self.parts else np.zeros(0)
        return pa.chunked_array([pa.array(values, pa.float64(), from_pandas=True)])

    def _texts(self, name: str) -> pa.ChunkedArray:
        chunks = [chunk for part in self.parts for chunk in part.texts(name).chunks]
        return pa.chunked_array(chunks, pa.large_string())


def look(path: Path, paths: Sequence[Path]) -> Table:
    """Look at the files of a run.

    Args:
        path: what the user named, for messages.
        paths: the files.

    Raises:
        DataError: a file cannot be read, holds no completions, or holds a record that is not consistent.
    """
    reading = _Reading(path)
    for file in paths:
        reading.add_file(file)
    return reading.table(len(paths))


class _Reading:
    """The state of :func:`look`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout, self.flattening = Layout(), Flattening()
        self.seen: dict[str, Seen] = {}
        self.parts: list[Part] = []
        self.notes: list[str] = []
        self._store: Store | None = None

    def add_file(self, file: Path) -> None:
        before = {name: seen.rows - seen.absent for name, seen in self.seen.items()}
        if suffix_of(file) in ARROW:
            part = arrow_part(file)
            if is_plain(part.schema):
                self._add_columns(part)
            else:
                self._add_records(file, arrow_records(file))
        elif suffix_of(file) in DELIMITED:
            self._add_records(file, csv_records(file, self.notes))
        else:
            self._add_records(file, json_records(file, self.notes))
        for name, seen in self.seen.items():
            seen.files += seen.rows - seen.absent > before.get(name, 0)

    def _add_columns(self, part: ArrowPart) -> None:
        if not part.rows:
            return
        self.parts.append(part)
        for name in part.schema.names:
            seen, start = self._seen(name), 0
            for cells in part.cells(name):
                row = start + (cells.first_odd[0] if cells.first_odd else 0)
                seen.add(cells, f"{part.path}, row {row}")
                start += len(cells.numbers)
                if seen.odd > ENOUGH_TEXT and not seen.numbers:
                    seen.add(Cells(np.full(part.rows - start, np.nan), odd=part.rows - start))
                    break

    def _add_records(self, file: Path, records: Iterator[Record]) -> None:
        rows = self._rows(records)
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            self._add_chunk(file, chunk)

    def _rows(self, records: Iterator[Record]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for where, record in records:
            for row in self.layout.rows(record, where):
                yield where, self.flattening.flat(row)

    def _add_chunk(self, file: Path, chunk: list[tuple[str, Mapping[str, Any]]]) -> None:
        names = dict.fromkeys(name for _, row in chunk for name in row)
        self._store = self._store or Store()
        columns = {}
        for name in names:
            cells = read_cells([row.get(name, ABSENT) for _, row in chunk])
            columns[name] = cells
            self._seen(name).add(cells, chunk[cells.first_odd[0]][0] if cells.first_odd else "")
        self.parts.append(self._store.add(file, len(chunk), columns))

    def _seen(self, name: str) -> Seen:
        if name not in self.seen and len(self.seen) >= MOST_COLUMNS:
            raise DataError(
                f"{self.path} has more than {MOST_COLUMNS} columns; expected one per reward: remove objects with keys "
                "that differ from row to row"
            )
        return self.seen.setdefault(name, Seen(name))

    def table(self, files: int) -> Table:
        rows = sum(part.rows for part in self.parts)
        if not rows or not self.seen:
            raise DataError(f"{self.path} has no rows; expected one per completion: check how it was written")
        doubts = self._doubts()
        columns = {
            name: seen.column(rows, files, self._is_repeated(name), doubts.get(name, ""))
            for name, seen in self.seen.items()
        }
        group = LINE if self.layout.groups and self.layout.records == self.layout.unfolded > 0 else None
        weights = {name: weight for name, weight in self.flattening.weights.items() if weight is not None}
        return Table(self.path, rows, columns, tuple(self._notes(rows)), weights, "", group, self.parts)

    def _is_repeated(self, name: str) -> bool:
        return any(name == shared or name.startswith(f"{shared}.") for shared in self.layout.repeated)

    def _doubts(self) -> dict[str, str]:
        doubts = {}
        for name, (low, high) in self.flattening.lengths.items():
            if low != high:
                why = f"it is an item of lists of {low} to {high} numbers, whose order may differ from row to row"
                doubts.update({f"{name}.{index}": why for index in range(high)})
        return doubts

    def _notes(self, rows: int) -> Iterator[str]:
        yield from self.notes
        if self.layout.unfolded:
            yield f"{self.layout.records} records with lists became {rows} completions"
        for name, off in self.flattening.per_token.items():
            yield f"{name!r} has a number per token: read as the one that all tokens share" + (
                f"; in {off} rows they differ, and it is missing there" if off else ""
            )
