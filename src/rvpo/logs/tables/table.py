"""``Table``: the result of :func:`rvpo.logs.tables.look`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rvpo.errors import ConfigError
from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.store import Part


@dataclass(frozen=True)
class Table:
    """Logs as a table with one row per completion.

    Attributes:
        path: path of the logs, for messages.
        rows: count of completions.
        columns: dotted name -> column, in order of appearance.
        notes: how the files were read, for people.
        weights: column of a reward -> its weight, if the logs contain it.
        format: trainer whose layout was recognised; empty if unknown.
        group: column that identifies groups by the layout alone; None if absent.
        parts: cells, file by file.
        files: count of the files.
    """

    path: Path
    rows: int
    columns: Mapping[str, Column]
    notes: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    format: str = ""
    group: str | None = None
    parts: Sequence[Part] = ()
    files: int = 1

    def notes_on(self, names: Sequence[str]) -> Iterator[str]:
        """Yield notes on missing values in columns, with the reason; for columns that are treated as rewards."""
        for column in map(self._column, names):
            filled = column.numbers + column.odd
            if column.odd:
                counts = f"{column.odd} of {filled} cells of {column.name!r}"
                yield f"{counts} are not numbers, so they are missing ({column.odd_example})"
            if column.absent_files:
                yield f"{column.absent_files} of {self.files} files lack {column.name!r}, so it is missing there"
            elif column.absent:
                yield f"{column.absent} of {self.rows} rows lack {column.name!r}, so it is missing there"

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return columns: numbers and flags as float64 with null where missing or not a number, others as text.

        Raises:
            ConfigError: there is no such column.
            DataError: a file is damaged.
        """
        columns = {name: self._column(name) for name in names}
        return pa.table({name: self._read(column) for name, column in columns.items()})

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column of numbers or flags, (N,), NaN where missing or not a number.

        Raises:
            DataError: a file is damaged.
        """
        return np.concatenate([part.numbers(name) for part in self.parts])

    def read_texts(self, names: Sequence[str]) -> pa.Table:
        """Return columns as text, unchanged, such as ids and prompts. Chats are JSON.

        Raises:
            ConfigError: there is no such column.
            DataError: a file is damaged.
        """
        return pa.table({name: self._texts(self._column(name).name) for name in names})

    def where(self, row: int) -> str:
        """Return the file of a row, and its number among the completions of that file, for messages."""
        start, start_of_file = 0, 0
        current: Path | None = None
        for part in self.parts:
            if part.path != current:
                current, start_of_file = part.path, start
            if row < start + part.rows:
                return f"{part.path}, row {row - start_of_file}"
            start += part.rows
        return f"{self.path}, row {row}"

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            raise ConfigError(f"{self.path} has no column {name!r}; expected one of {', '.join(self.columns)}")
        return self.columns[name]

    def _read(self, column: Column) -> pa.ChunkedArray:
        if not column.numeric:
            return self._texts(column.name)
        return pa.chunked_array([pa.array(self.numbers(column.name), pa.float64(), from_pandas=True)])

    def _texts(self, name: str) -> pa.ChunkedArray:
        chunks = [chunk for part in self.parts for chunk in part.texts(name).chunks]
        return pa.chunked_array(chunks, pa.large_string())
