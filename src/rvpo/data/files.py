"""From a path or hub id to raw rows with their places, whatever the format: which format a file has shows its content.

JSONL, JSON (a list of objects, or one object that holds such a list), CSV and TSV, each also compressed (gzip, bzip2,
zstd), parquet, a folder that ``save_to_disk`` wrote, a folder of parts, and a hub id ``org/name``.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from rvpo.data import generic
from rvpo.data.records import Place, Rows, shorten, source_error

STORAGES = ("jsonl", "json", "csv", "parquet", "dataset", "folder", "hub")
"""How rows can be stored; the values of ``layout`` that name a format and nothing else."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PARTS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
_PACKED = (".gz", ".gzip", ".bz2", ".zst", ".zstd")
_SUFFIXES = (*_PARTS, *_PACKED, ".txt", ".arrow", ".yaml", ".yml")
_SPLIT = re.compile(r"(train|test|val|valid|validation|eval|dev)(?=[-_.]|$)", re.IGNORECASE)
_LISTS = ("data", "rows", "examples", "instances", "items", "prompts", "questions", "train", "test")
_DAMAGED = (OSError, EOFError, zlib.error)  # what a damaged archive raises
_FORMATS = "JSONL (one object per line), a JSON list of objects, CSV, parquet, or rubrics in a file named .yaml"


def storage_of(path_or_id: str | Path) -> str:
    """Return one of :data:`STORAGES`, or ``yaml``.

    Raises:
        DataError: nothing of that name exists and it is no hub id, or the content has none of the formats.
    """
    path, source = Path(path_or_id), str(path_or_id)
    if path.is_dir():
        return _folder_storage(path)
    if not path.exists() and _HUB_ID.fullmatch(source) and not source.endswith(_SUFFIXES):
        return "hub"
    head = check_file(path)
    kind = _inner(path).suffix.lower()
    if kind in (".yaml", ".yml"):
        return "yaml"
    if head.startswith(b"PAR1"):
        return "parquet"
    if kind in (".csv", ".tsv"):
        return "csv"
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"[" or (first == b"{" and _is_one_object(path)):
        return "json"
    if first == b"{":
        return "jsonl"
    next_step = "convert the file, or give the right path"
    raise source_error(source, f"content that starts with {head[:40]!r}", _FORMATS, next_step)


def check_file(path: Path) -> bytes:
    """Return the first bytes of a file's content if it exists, has content and is not a stand-in for another."""
    source, expected = str(path), "a file with rows"
    if path.is_dir():
        raise source_error(source, "a folder", expected, "name one file in it, or use layout='dataset'")
    if not path.exists():
        raise source_error(source, "no such file", "a file, a folder or a hub id 'org/name'", "check the path")
    with opened(path) as file:
        head = file.read(4096)
    if not head.strip():
        raise source_error(source, "an empty file", expected, "check how the file was written")
    if head.startswith(b"version https://git-lfs"):
        raise source_error(source, "a Git LFS pointer", expected, "run `git lfs pull` where it was cloned")
    return head


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file's content: what is compressed with gzip, bzip2 or zstd is unpacked.

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


def open_rows(
    path_or_id: str | Path,
    storage: str,
    *,
    subset: str | None = None,
    split: str | None = None,
    columns: set[str] | None = None,
) -> Rows:
    """Yield the rows of a source.

    Args:
        path_or_id: file, folder or hub id.
        storage: one of :data:`STORAGES`.
        subset: configuration of a hub dataset.
        split: of a saved or hub dataset.
        columns: columns to read of a table; None reads all but pictures and other binary ones.

    Raises:
        DataError: see the readers.
    """
    path = Path(path_or_id)
    if storage == "hub":
        return generic.read_hub(str(path_or_id), subset=subset, split=split, columns=columns)
    if storage == "dataset":
        return generic.read_dataset(path, split=split, columns=columns)
    if storage == "folder":
        return _folder_rows(path, columns)
    check_file(path)
    if storage == "parquet":
        return generic.read_parquet(path, columns)
    return {"jsonl": read_jsonl, "json": read_json, "csv": read_csv}[storage](path)


def read_jsonl(path: Path) -> Rows:
    """Read one JSON object per line (UTF-8); blank lines hold no row and are passed over.

    Raises:
        DataError: a line is not UTF-8, not JSON, not an object, or repeats a key.
    """
    expected, index = "one JSON object a line, UTF-8, no key twice", 0
    with opened(path) as lines:  # bytes, so that a wrong encoding is found with its line
        for number, raw in enumerate(lines):
            if not raw.strip():
                continue
            place = Place(str(path), index, number + 1)
            try:
                row = generic.strict_json(raw.decode("utf-8-sig" if number == 0 else "utf-8"))
            except (ValueError, RecursionError) as error:
                next_step = "repair the line (one JSON list of RLLA records needs layout='rlla')"
                raise place.error(None, f"{shorten(raw)} ({error})", expected, next_step) from error
            if not isinstance(row, dict):
                next_step = "wrap the value in an object (a list of RLLA records needs layout='rlla')"
                raise place.error(None, f"{type(row).__name__} {shorten(row)}", expected, next_step)
            yield place, row
            index += 1


def read_json(path: Path) -> Rows:
    """Read a JSON list of objects, or one object that holds such a list under a name such as ``data``.

    Raises:
        DataError: the file is not JSON of this form.
    """
    source, expected = str(path), "a JSON list of objects"
    try:
        with opened(path) as file:
            data = generic.strict_json(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise source_error(source, f"no JSON ({error})", expected, "repair the file") from error
    if isinstance(data, dict):
        data = _list_within(source, data)
    if not isinstance(data, list):
        raise source_error(source, f"a JSON {type(data).__name__}", expected, "write the rows as a list")
    for index, row in enumerate(data):
        place = Place(source, index)
        if not isinstance(row, dict):
            raise place.error(None, f"{type(row).__name__} {shorten(row)}", "an object", "write each row as an object")
        yield place, row


def read_csv(path: Path) -> Rows:
    """Read a table with a header; cells are text, and an empty cell is null.

    The separator is a tab in ``.tsv``; else a semicolon where the header has one and no comma; else a comma.

    Raises:
        DataError: not UTF-8, a column name is blank or occurs twice, or a row has another number of cells.
    """
    source = str(path)
    with opened(path) as file:
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise source_error(source, str(error), "UTF-8", "convert the file to UTF-8") from error
    csv.field_size_limit(max(len(text), 131_072))
    first = text.partition("\n")[0]
    separator = ";" if ";" in first and "," not in first else ","
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in path.suffixes else separator)
    try:
        header = next(lines, [])
        if "" in header or len(set(header)) < len(header):
            raise source_error(source, f"the header {shorten(header)}", "each column named once", "repair the header")
        index = 0
        for cells in lines:
            if not cells:
                continue
            place = Place(source, index, lines.line_num)
            if len(cells) != len(header):
                expected = f"{len(header)} cells, as the header has"
                raise place.error(None, f"{len(cells)} cells", expected, "quote cells that hold a separator or a line")
            yield place, {name: cell if cell.strip() else None for name, cell in zip(header, cells, strict=True)}
            index += 1
    except csv.Error as error:
        raise source_error(source, f"line {lines.line_num}: {error}", "CSV", "repair the line") from error


# --- what a path is ---------------------------------------------------------------------------------------------------


def _inner(path: Path) -> Path:
    """Return the name that a compressed file has when unpacked."""
    return path.with_suffix("") if path.suffix.lower() in _PACKED else path


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


def _is_one_object(path: Path) -> bool:
    """Return whether a file that begins with ``{`` is one JSON document and not one object per line."""
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
    return rest_is_blank and isinstance(row, dict) and _row_lists(row) != []


def _row_lists(document: dict[str, Any]) -> list[str]:
    """Return the names under which a document may hold its rows."""
    return [
        name
        for name in _LISTS
        if isinstance(document.get(name), list) and document[name] and all(isinstance(r, dict) for r in document[name])
    ]


def _list_within(source: str, document: dict[str, Any]) -> Any:
    names = _row_lists(document)
    if len(names) != 1:
        seen = f"an object with the keys {shorten(list(document))}"
        raise source_error(source, seen, "a JSON list of objects", "write the rows as one list, or as JSONL")
    return document[names[0]]


def _folder_storage(path: Path) -> str:
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return "dataset"
    _parts(path)
    return "folder"


def _parts(folder: Path) -> list[Path]:
    """Return the files of a folder that is one table in parts."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and _inner(p).suffix.lower() in _PARTS)
    kinds = sorted({_inner(p).suffix.lower() for p in files})
    if len(kinds) != 1:
        seen = f"a folder with {sorted(child.name for child in folder.iterdir())[:6]}"
        expected = "a folder written by save_to_disk, or one of JSONL, parquet or CSV files of one kind"
        raise source_error(str(folder), seen, expected, "name one file in it")
    splits = {found[1].lower() for p in files if (found := _SPLIT.match(p.name))}
    if len(splits) > 1:
        seen = f"a folder with files of the splits {', '.join(sorted(splits))}"
        raise source_error(str(folder), seen, "the files of one split", "name one file, or move the split to a folder")
    return files


def _folder_rows(folder: Path, columns: set[str] | None) -> Rows:
    for path in _parts(folder):
        yield from open_rows(path, storage_of(path), columns=columns)
