"""The cells of a table, by column, on disk instead of in memory.

Files with columns (parquet, Arrow) are read directly. Rows of other files are written to temporary parquet files while
they are read, so that only the requested columns are loaded, and texts only if they are requested.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rvpo.errors import DataError
from rvpo.logs import parquet_files
from rvpo.logs.tables.cells import Cells, read_cells, text_of

Numbers = npt.NDArray[np.float64]
Texts = list[str | None]
_NUMBER, _TEXT = "n:", "t:"


class Part(Protocol):
    """Rows of one file, or of a piece of it."""

    path: Path
    rows: int

    def numbers(self, name: str) -> Numbers:
        """Return (N,) float64, NaN where missing, text or absent."""

    def texts(self, name: str) -> pa.ChunkedArray:
        """Return N strings, null where missing."""


class Store:
    """Writes parts to a temporary folder, which is removed with this object."""

    def __init__(self) -> None:
        """Create the folder."""
        self._folder = tempfile.TemporaryDirectory(prefix="rvpo-logs-")
        self._count = 0

    def add(self, path: Path, rows: int, columns: dict[str, Cells]) -> StoredPart:
        """Write the cells of rows of the file ``path``.

        Raises:
            DataError: the disk is full.
        """
        arrays: dict[str, Any] = {}
        for name, cells in columns.items():
            if cells.texts is not None:
                arrays[_TEXT + name] = pa.array(cells.texts, pa.large_string())
            if len(cells.numbers) > cells.missing + cells.odd:
                arrays[_NUMBER + name] = pa.array(cells.numbers, pa.float64(), from_pandas=True)
        self._count += 1
        file = Path(self._folder.name) / f"{self._count}.parquet"
        try:
            pq.write_table(pa.table(arrays), file, compression="zstd")
        except OSError as error:
            raise DataError(
                f"{path}: its columns cannot be written to {file.parent} ({error}); expected free space there. Set "
                "TMPDIR to a folder on a larger disk"
            ) from error
        return StoredPart(self, path, rows, file, frozenset(arrays))


class StoredPart:
    """A part that a :class:`Store` has written."""

    def __init__(self, store: Store, path: Path, rows: int, file: Path, held: frozenset[str]) -> None:
        """Keep a reference to the store, so that it exists as long as its parts."""
        self.path, self.rows = path, rows
        self._store, self._file, self._held = store, file, held

    def numbers(self, name: str) -> Numbers:
        """Return (N,) float64, NaN where missing, text or absent."""
        column = self._column(_NUMBER + name)
        return np.full(self.rows, np.nan) if column is None else to_numpy(column)

    def texts(self, name: str) -> pa.ChunkedArray:
        """Return N strings, null where missing."""
        column = self._column(_TEXT + name)
        if column is not None and _NUMBER + name not in self._held:
            return column
        written = [None] * self.rows if column is None else column.to_pylist()
        return as_written(written, self.numbers(name))

    def _column(self, stored: str) -> pa.ChunkedArray | None:
        if stored not in self._held:
            return None
        return pq.read_table(self._file, columns=[stored], partitioning=None)[stored]


def to_numpy(column: pa.ChunkedArray) -> Numbers:
    """Return a column of float64 with NaN for null."""
    return parquet_files.numbers(column)


def as_written(written: Sequence[str | None], numbers: Numbers) -> pa.ChunkedArray:
    """Return texts; a cell that is only a number is converted to text: 5.0 to "5", because it may be an id."""
    texts = [_text(text, number) for text, number in zip(written, numbers.tolist(), strict=True)]
    return pa.chunked_array([pa.array(texts, pa.large_string())])


def _text(text: str | None, number: float) -> str | None:
    if text is not None or number != number:
        return text
    return str(int(number)) if number.is_integer() else repr(number)


class WithConstants:
    """A part with extra columns from the path of its file: one value for all rows."""

    def __init__(self, part: Part, constants: dict[str, int | str]) -> None:
        """Add columns to a part."""
        self.path, self.rows = part.path, part.rows
        self._part, self._constants = part, constants

    def numbers(self, name: str) -> Numbers:
        """Return (N,) float64, NaN where missing, text or absent."""
        if name not in self._constants:
            return self._part.numbers(name)
        value = self._constants[name]
        return np.full(self.rows, np.nan if isinstance(value, str) else float(value))

    def texts(self, name: str) -> pa.ChunkedArray:
        """Return N strings, null where missing."""
        if name not in self._constants:
            return self._part.texts(name)
        return pa.chunked_array([pa.array([str(self._constants[name])] * self.rows, pa.large_string())])


class ArrowPart:
    """The rows of a parquet or Arrow file with plain columns, read directly from the file."""

    def __init__(self, path: Path, open_file: Any) -> None:
        """Store the function that opens the file."""
        self.path = path
        self._open = open_file
        with open_file() as file:
            self.rows: int = file.rows
            self.schema: pa.Schema = file.schema

    def cells(self, name: str, batch: int = 50_000) -> Iterator[Cells]:
        """Yield the cells of a column in batches of rows."""
        with self._open() as file:
            for column in file.batches(name, batch):
                yield cells_of(column)

    def numbers(self, name: str) -> Numbers:
        """Return (N,) float64, NaN where missing, text or absent."""
        if name not in self.schema.names:
            return np.full(self.rows, np.nan)
        parts = [cells.numbers for cells in self.cells(name)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def texts(self, name: str) -> pa.ChunkedArray:
        """Return N strings, null where missing."""
        if name not in self.schema.names:
            return pa.chunked_array([pa.nulls(self.rows, pa.large_string())])
        with self._open() as file:
            parts = [_texts_of(column) for column in file.batches(name, 50_000)]
        return pa.chunked_array(parts, pa.large_string())


def cells_of(column: pa.Array) -> Cells:
    """Read an Arrow column; plain numbers are converted as a whole."""
    kind = column.type
    if pa.types.is_boolean(kind):
        numbers = to_numpy(pa.chunked_array([column.cast(pa.int8()).cast(pa.float64())]))
        return Cells(numbers, flags=len(column) - column.null_count, missing=column.null_count)
    if pa.types.is_floating(kind) or (pa.types.is_integer(kind)):
        numbers = to_numpy(pa.chunked_array([column.cast(pa.float64(), safe=False)]))
        return Cells(numbers, missing=int(np.isnan(numbers).sum()))
    if pa.types.is_null(kind):
        return Cells(np.full(len(column), np.nan), missing=len(column))
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    return read_cells(column.to_pylist())


def _texts_of(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.large_string())
    if pa.types.is_integer(kind):
        return column.cast(pa.string()).cast(pa.large_string())
    if pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return as_written([None] * len(column), cells_of(column).numbers).combine_chunks()
    return pa.array([None if cell is None else text_of(cell) for cell in column.to_pylist()], pa.large_string())
