"""Read raw rows, with their places, from a path or hub id. The format of a file is found from its content.

Formats: JSONL, JSON (a list of objects, or one object with such a list or with one row per id), CSV and TSV, each plain
or compressed (gzip, bzip2, zstd); parquet; a folder that ``save_to_disk`` wrote; a folder of parts; a hub id
``org/name``.
"""

from __future__ import annotations

import re
from pathlib import Path

from rvpo.data import generic
from rvpo.data.csv_files import read_csv
from rvpo.data.json_files import is_one_object, read_json, read_jsonl
from rvpo.data.picture_columns import NONE
from rvpo.data.records import Rows, source_error
from rvpo.data.unpack import PACKED, inner, opened

STORAGES = ("jsonl", "json", "csv", "parquet", "dataset", "folder", "hub")
"""Storages of rows. These are also the values of ``layout`` that name only a format."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PARTS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
_SUFFIXES = (*_PARTS, *PACKED, ".txt", ".arrow", ".yaml", ".yml")
_SPLIT = re.compile(r"(train|test|val|valid|validation|eval|dev)(?=[-_.]|$)", re.IGNORECASE)
_FORMATS = "JSONL (one object per line), a JSON list of objects, CSV, parquet, or rubrics in a file named .yaml"


def storage_of(path_or_id: str | Path) -> str:
    """Return the storage of a source: one of :data:`STORAGES`, or ``yaml``.

    Raises:
        DataError: the path does not exist and is not a hub id, or the content has none of the formats.
    """
    path, source = Path(path_or_id), str(path_or_id)
    if path.is_dir():
        return _folder_storage(path)
    if not path.exists() and _HUB_ID.fullmatch(source) and not source.endswith(_SUFFIXES):
        return "hub"
    head = check_file(path)
    kind = inner(path).suffix.lower()
    if kind in (".yaml", ".yml"):
        return "yaml"
    if head.startswith(b"PAR1"):
        return "parquet"
    if kind in (".csv", ".tsv"):
        return "csv"
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"[" or (first == b"{" and is_one_object(path)):
        return "json"
    if first == b"{":
        return "jsonl"
    next_step = "convert the file, or correct the path"
    raise source_error(source, f"content that starts with {head[:40]!r}", _FORMATS, next_step)


def check_file(path: Path) -> bytes:
    """Return the first bytes of a file's content.

    Raises:
        DataError: the path is a folder or does not exist, or the file is empty or a Git LFS pointer.
    """
    source, expected = str(path), "a file with rows"
    if path.is_dir():
        raise source_error(source, "a folder", expected, "pass one file in it, or use layout='dataset'")
    if not path.exists():
        raise source_error(source, "no such file", "a file, a folder or a hub id 'org/name'", "check the path")
    with opened(path) as file:
        head = file.read(4096)
    if not head.strip():
        raise source_error(source, "an empty file", expected, "check how the file was written")
    if head.startswith(b"version https://git-lfs"):
        raise source_error(source, "a Git LFS pointer", expected, "run `git lfs pull` in the cloned repository")
    return head


def open_rows(
    path_or_id: str | Path,
    storage: str,
    *,
    subset: str | None = None,
    split: str | None = None,
    columns: set[str] | None = None,
    pictures: str = NONE,
) -> Rows:
    """Yield the rows of a source.

    Args:
        path_or_id: file, folder or hub id.
        storage: one of :data:`STORAGES`.
        subset: configuration of a hub dataset.
        split: split of a saved dataset or hub dataset.
        columns: columns of a table to read; None reads all but pictures and other binary columns.
        pictures: with ``columns=None``, the column of pictures to read, too: a name, ``auto`` or ``none``.

    Raises:
        DataError: the source cannot be read; see the readers of each format.
    """
    path = Path(path_or_id)
    if storage == "hub":
        return generic.read_hub(str(path_or_id), subset=subset, split=split, columns=columns, pictures=pictures)
    if storage == "dataset":
        return generic.read_dataset(path, split=split, columns=columns, pictures=pictures)
    if storage == "folder":
        return _folder_rows(path, columns, pictures)
    check_file(path)
    if storage == "parquet":
        return generic.read_parquet(path, columns, pictures)
    return {"jsonl": read_jsonl, "json": read_json, "csv": read_csv}[storage](path)


# --- folders ----------------------------------------------------------------------------------------------------------


def _folder_storage(path: Path) -> str:
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return "dataset"
    _parts(path)
    return "folder"


def _parts(folder: Path) -> list[Path]:
    """Return the files of a folder that contains one table in parts."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and inner(p).suffix.lower() in _PARTS)
    kinds = sorted({inner(p).suffix.lower() for p in files})
    if len(kinds) != 1:
        seen = f"a folder with {sorted(child.name for child in folder.iterdir())[:6]}"
        expected = "a folder written by save_to_disk, or a folder whose files are all JSONL, all parquet or all CSV"
        raise source_error(str(folder), seen, expected, "pass one file in it")
    splits = {found[1].lower() for p in files if (found := _SPLIT.match(p.name))}
    if len(splits) > 1:
        seen = f"a folder with files of the splits {', '.join(sorted(splits))}"
        next_step = "pass one file, or move the split to its own folder"
        raise source_error(str(folder), seen, "the files of one split", next_step)
    return files


def _folder_rows(folder: Path, columns: set[str] | None, pictures: str) -> Rows:
    for path in _parts(folder):
        yield from open_rows(path, storage_of(path), columns=columns, pictures=pictures)
