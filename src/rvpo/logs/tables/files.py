"""Kinds of files, and their unpacked bytes, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from rvpo.errors import DataError

PACKED = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
JSON = (".jsonl", ".json", ".ndjson", ".jsonlines")
DELIMITED = (".csv", ".tsv")
ARROW = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
KNOWN = (*JSON, *DELIMITED, *ARROW)


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Return paths with 2 before 10."""
    return sorted(paths, key=lambda path: [_natural(part) for part in path.parts])


def suffix_of(path: Path) -> str:
    """Return the suffix that shows the kind of a file, without the suffix of a compressed file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def stem_of(path: Path) -> str:
    """Return the name without suffixes."""
    name = path.name
    for suffix in reversed(path.suffixes):
        if suffix.lower() in PACKED or suffix.lower() in KNOWN or suffix.lower() == ".table":
            name = name.removesuffix(suffix)
    return name


def _natural(text: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d{1,18})", text)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked. A failure is a DataError that names it."""
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        packed = "gzip" if start[:2] == b"\x1f\x8b" else "zstd" if start == b"\x28\xb5\x2f\xfd" else _bz2(start)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path} is UTF-16; expected UTF-8. Convert it (iconv -f UTF-16 -t UTF-8)")
        if packed is None:
            with path.open("rb") as plain:
                yield plain
        else:
            with pa.input_stream(str(path), compression=packed) as stream:
                yield _Lines(stream)  # type: ignore[misc]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}); expected a complete file. Write it again") from error


def _bz2(start: bytes) -> str | None:
    return "bz2" if start[:3] == b"BZh" else None


class _Lines:
    """The lines of a stream that has only ``read``."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return bytes(self._stream.read() if size < 0 else self._stream.read(size))

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while block := self._stream.read(1 << 20):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest
