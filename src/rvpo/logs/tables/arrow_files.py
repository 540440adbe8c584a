"""Read Parquet, Arrow and Feather files: their schema, single columns, and rows if columns are nested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from rvpo.errors import DataError
from rvpo.logs.tables.files import suffix_of
from rvpo.logs.tables.json_files import Record
from rvpo.logs.tables.store import ArrowPart

ROWS_AT_ONCE = 2_000  # for nested columns, which are converted in Python


def arrow_part(path: Path) -> ArrowPart:
    """Return the rows of a file.

    Raises:
        DataError: it is damaged.
    """
    return ArrowPart(path, partial(_opened, path))


def is_plain(schema: pa.Schema) -> bool:
    """Return whether all columns are scalars or chats, so that a row is one completion without nested parts."""
    return all(not pa.types.is_nested(field.type) or _is_chat(field.type) for field in schema)


def arrow_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a file as objects."""
    row = 0
    with _opened(path) as file:
        for batch in file.rows_of_all(ROWS_AT_ONCE):
            for record in batch.to_pylist(maps_as_pydicts="lossy"):
                yield f"{path}, row {row}", record
                row += 1


def _is_chat(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    names = {field.name for field in kind.value_type}
    return "role" in names or {"from", "value"} <= names


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        if suffix_of(path) in (".parquet", ".pq"):
            with pq.ParquetFile(path) as file:
                yield _Parquet(file)
        else:
            with pa.memory_map(str(path)) as source:
                yield _Arrow(_reader(source))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected a complete file. Write it again") from error


def _reader(source: Any) -> pa.Table:
    try:
        return pyarrow.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pyarrow.ipc.open_stream(source).read_all()


class _Parquet:
    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        self.rows = file.metadata.num_rows
        self.schema = file.schema_arrow

    def batches(self, name: str, size: int) -> Iterator[pa.Array]:
        index = self.schema.names.index(name)
        for group in range(self._file.num_row_groups):
            # By index, because a name with a dot would be read as a part of an object.
            yield from (batch.column(0) for batch in self._of_group(group, index, size))

    def _of_group(self, group: int, index: int, size: int) -> Iterator[pa.RecordBatch]:
        names = [self.schema.names[index]]
        for batch in self._file.iter_batches(size, row_groups=[group], columns=names):
            kept = [i for i, field in enumerate(batch.schema) if field.name == names[0]]
            yield batch.select(kept[:1])

    def rows_of_all(self, size: int) -> Iterator[pa.RecordBatch]:
        yield from self._file.iter_batches(size)


class _Arrow:
    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.rows = len(table)
        self.schema = table.schema

    def batches(self, name: str, size: int) -> Iterator[pa.Array]:
        for batch in self._table.select([name]).to_batches(size):
            yield batch.column(0)

    def rows_of_all(self, size: int) -> Iterator[pa.RecordBatch]:
        yield from self._table.to_batches(size)
