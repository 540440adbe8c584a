"""Parquet files of a run, one per step: each is opened once, even if its columns are read several times.

A long run has thousands of small files, and opening a file takes longer than reading it. Small files are read whole and
stay in memory as long as all of them together are small. Of a larger file, only the requested columns are read. Files
are not mapped into memory, because the process would crash if a trainer overwrote a mapped file.

Files also stay in memory for the next reader, such as the next update of ``rvpo report --live``, unless they changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

SMALL = 4_000_000
"""Most bytes of a file that is read whole."""
HELD = 128_000_000
"""Most bytes of all files that stay in memory."""

_Stamp = tuple[int, int, int, int]
"""Values that change with a file's content: its inode number, its size, and the times of its last changes."""


class ParquetFiles:
    """Reads parquet files and caches them.

    A file is seen as it was when it was first opened, so that several passes over a run that still trains agree.
    """

    def __init__(self) -> None:
        """Begin with an empty cache."""
        self._open: dict[Path, pq.ParquetFile] = {}
        self._schemas: dict[Path, pa.Schema] = {}

    def schema(self, path: Path) -> pa.Schema:
        """Return the schema of a file, with its metadata.

        Raises:
            pa.ArrowException: it is not whole parquet.
            OSError: it cannot be read.
        """
        if path not in self._schemas:
            self._schemas[path] = self._opened(path).schema_arrow
        return self._schemas[path]

    def rows(self, path: Path) -> int:
        """Return the number of rows of a file. Raises as :meth:`schema`."""
        count: int = self._opened(path).metadata.num_rows
        return count

    def table(self, path: Path, columns: Iterable[str]) -> pa.Table:
        """Read columns of a file, each once, in the order in which they are named.

        Raises:
            pa.ArrowException: it is not whole parquet.
            OSError: it cannot be read.
            KeyError: it does not have one of the columns, or has it twice.
        """
        wanted: Sequence[str] = list(dict.fromkeys(columns))
        names = self.schema(path).names
        for name in wanted:
            if names.count(name) != 1:
                raise KeyError(name)
        # `read` also returns columns named `{wanted}.…`, as if they were parts of the wanted column.
        return self._opened(path).read(columns=wanted, use_threads=False).select(wanted)

    def _opened(self, path: Path) -> pq.ParquetFile:
        known = self._open.get(path)
        if known is not None:
            return known
        opened, stays = _STORE.opened(path)
        if stays:
            self._open[path] = opened
        return opened


class _Store:
    """The files in memory, shared by all readers of this process."""

    def __init__(self) -> None:
        self._files: dict[Path, tuple[_Stamp, pq.ParquetFile]] = {}
        self._held = 0

    def opened(self, path: Path) -> tuple[pq.ParquetFile, bool]:
        """Open a file; return it, and whether it is in memory and stays there."""
        path = path.absolute()
        stat = path.stat()
        stamp = stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        known = self._files.get(path)
        if known is not None and known[0] == stamp:
            return known[1], True
        if known is not None:
            del self._files[path]
            self._held -= known[0][1]
        if stat.st_size > SMALL:
            return pq.ParquetFile(path), False
        opened = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
        stays = self._held + stat.st_size <= HELD
        if stays:
            self._held += stat.st_size
            self._files[path] = stamp, opened
        return opened, stays


_STORE = _Store()


def numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a column of numbers or booleans as (N,) float64, null as NaN.

    Arrow's own conversion imports pandas, which takes half a second.
    """
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    if kind != pa.float64():
        column = column.cast(pa.float64(), safe=False)
    parts = [_part(chunk) for chunk in column.chunks]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0)


def _part(chunk: pa.Array) -> NDArray[np.float64]:
    validity, data = chunk.buffers()
    end = chunk.offset + len(chunk)
    if data is None or not len(chunk):
        return np.full(len(chunk), np.nan)
    values = np.frombuffer(data, np.float64, end)[chunk.offset :].copy()
    if chunk.null_count:
        valid = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[chunk.offset : end]
        values[valid == 0] = np.nan
    return values
