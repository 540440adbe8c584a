"""Readers for tables (parquet, saved ``datasets`` folders, hub datasets), and strict JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from rvpo.data.records import COLUMN_OPTIONS, Place, Rows, source_error


def strict_json(text: str) -> Any:
    """Parse JSON; a repeated key or a NaN is an error here, where ``json.loads`` lets both pass."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise ValueError(f"the key {key!r} occurs twice")
                seen.add(key)
        return result

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)


def read_parquet(path: Path, columns: set[str] | None) -> Rows:
    """Read the named columns of one parquet file; None reads all but binary ones.

    Raises:
        DataError: the file is not parquet or is damaged, or a column is absent.
    """
    source = str(path)
    if columns is None:
        columns = _plain_columns(path)
    require_columns(source, parquet_columns(path), columns)
    import pyarrow.parquet as pq  # a dependency of `datasets`, and without its copy in the cache folder

    index = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=sorted(columns)):
                for row in batch.to_pylist():
                    yield Place(source, index), row
                    index += 1
    except (OSError, ValueError) as error:  # Arrow's families for damaged pages
        raise source_error(source, f"{error} after row {index}", "intact parquet", "fetch it again") from error


def parquet_columns(path: Path) -> list[str]:
    """Return the column names of a parquet file; raises DataError where it is none."""
    _require_datasets(str(path))
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        next_step = "check the download, or give the file's real layout"
        raise source_error(str(path), str(error), "a parquet file", next_step) from error


def _plain_columns(path: Path) -> set[str]:
    """Return the columns that hold no bytes: decoding pictures that nobody asked for is slow."""
    parquet_columns(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_binary(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    return {field.name for field in pq.read_schema(path) if not is_binary(field.type)}


def read_dataset(path: Path, *, split: str | None, columns: set[str] | None) -> Rows:
    """Read the named columns of a folder that ``save_to_disk`` wrote; None reads all but binary ones.

    Raises:
        DataError: the folder holds no saved dataset, the split or a column is absent.
    """
    datasets = _require_datasets(str(path))
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        next_step = "write it with Dataset.save_to_disk, or name one file in the folder"
        raise source_error(str(path), str(error), "a folder written by save_to_disk", next_step) from error
    if not isinstance(loaded, dict) and split is not None:
        raise source_error(str(path), f"one dataset without splits and split={split!r}", "no split", "leave split out")
    yield from _read_table(loaded, str(path), split, columns)


def read_hub(repo_id: str, *, subset: str | None, split: str | None, columns: set[str] | None) -> Rows:
    """Download ``org/name`` with ``datasets.load_dataset`` and read the named columns (None: all but binary ones).

    Raises:
        DataError: the dataset cannot be had (network, name, subset, split), or a column is absent.
    """
    datasets = _require_datasets(repo_id)
    try:
        loaded = datasets.load_dataset(repo_id, name=subset, split=split)
    except Exception as error:  # network boundary: hub clients raise errors of several unrelated families
        seen = f"no file or folder of this name here, and {type(error).__name__} from the hub: {error}"
        next_step = (
            "check the spelling, network, access rights, subset and split; "
            "offline, download the dataset elsewhere and give the path of its file"
        )
        raise source_error(repo_id, seen, "a hub dataset 'org/name' that can be reached", next_step) from error
    yield from _read_table(loaded, repo_id, split, columns)


def require_columns(source: str, seen: list[str], needed: set[str]) -> None:
    """Raise DataError unless a table has all the ``needed`` columns."""
    if absent := sorted(needed - set(seen)):
        seen_here = f"no column {', '.join(map(repr, absent))}"
        next_step = f"set the layout that the data have, {COLUMN_OPTIONS}"
        raise source_error(source, seen_here, f"the columns {sorted(seen)}", next_step)


def _read_table(loaded: Any, source: str, split: str | None, columns: set[str] | None) -> Rows:
    if isinstance(loaded, dict):  # a DatasetDict; one split alone needs no name
        names = sorted(loaded)
        chosen = names[0] if split is None and len(names) == 1 else split
        if chosen not in loaded:
            raise source_error(source, f"split={split!r}", f"one of the splits {names}", "set split")
        loaded = loaded[chosen]
    if columns is None:
        binary = ("Image", "Audio", "Video")
        kinds = {name: type(feature).__name__ for name, feature in loaded.features.items()}
        columns = {
            name for name, kind in kinds.items() if kind not in binary and "binary" not in str(loaded.features[name])
        }
    require_columns(source, loaded.column_names, columns)
    # Only the named columns are read: decoding a picture nobody asked for is slow and may fail.
    for index, row in enumerate(loaded.select_columns(sorted(columns))):
        yield Place(source, index), row


def _require_datasets(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        next_step = "pip install -c constraints.txt -e '.[trl]' in the clone"
        raise source_error(source, "no `datasets` library", "datasets >= 4.0", next_step) from error
    return datasets
