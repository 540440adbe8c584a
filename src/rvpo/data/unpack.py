"""Open files that may be compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from rvpo.data.records import source_error

PACKED = (".gz", ".gzip", ".bz2", ".zst", ".zstd")
"""Suffixes of compressed files."""

_DAMAGED = (OSError, EOFError, zlib.error)  # exceptions that a damaged archive raises


def inner(path: Path) -> Path:
    """Return the name of a compressed file after unpacking; the name of any other file unchanged."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the content of a file. Files compressed with gzip, bzip2 or zstd are unpacked.

    Raises:
        DataError: the archive is damaged, the file cannot be read, or zstd is not installed.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            yield _unpacked(path, file, magic)
    except _DAMAGED as error:
        raise source_error(str(path), str(error), "a file that can be read", "check the download") from error


def _unpacked(path: Path, file: IO[bytes], magic: bytes) -> IO[bytes]:
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic == b"\x28\xb5\x2f\xfd":
        try:
            import zstandard
        except ImportError as error:
            next_step = f"unpack it with `zstd -d {path.name}`, or pip install zstandard"
            raise source_error(
                str(path), "a file compressed with zstd", "one that can be unpacked", next_step
            ) from error
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file))
    return file
