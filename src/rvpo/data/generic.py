"""Read tables (parquet, saved ``datasets`` folders, hub datasets), and parse strict JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rvpo.data.picture_columns import (
    AUTO,
    NAMES,
    NONE,
    OPTION,
    is_picture_value,
    other_medium,
    refuse_media,
    refuse_numbered,
)
from rvpo.data.records import COLUMN_OPTIONS, Place, Rows, source_error
from rvpo.extras import install_command


def strict_json(text: str) -> Any:
    """Parse JSON strictly. Unlike ``json.loads``, repeated keys and NaN are errors.

    Raises:
        ValueError: the text is not JSON, repeats a key, or contains NaN or Infinity.
    """

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


def read_parquet(path: Path, columns: set[str] | None, pictures: str = NONE) -> Rows:
    """Read columns of one parquet file.

    Args:
        path: parquet file.
        columns: columns to read; None reads all but binary ones, and the chosen column of pictures.
        pictures: option ``image_column``.

    Raises:
        DataError: the file is not parquet or is damaged, or a column is absent.
    """
    source = str(path)
    if columns is None:
        columns = _plain_columns(path, pictures)
    require_columns(source, parquet_columns(path), columns)
    import pyarrow.parquet as pq  # a dependency of `datasets`; reads the file without a copy in the cache folder

    index = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=sorted(columns)):
                for row in batch.to_pylist():
                    yield Place(source, index), row
                    index += 1
    except (OSError, ValueError) as error:  # Arrow's errors for damaged pages derive from these
        raise source_error(source, f"{error} after row {index}", "intact parquet", "fetch it again") from error


def parquet_columns(path: Path) -> list[str]:
    """Return the column names of a parquet file.

    Raises:
        DataError: the file is not parquet.
    """
    _require_datasets(str(path))
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        next_step = "check the download, or set layout to the file's real layout"
        raise source_error(str(path), str(error), "a parquet file", next_step) from error


def _plain_columns(path: Path, pictures: str) -> set[str]:
    """Return the columns without bytes, which may be large, and the chosen column of pictures."""
    parquet_columns(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_binary(kind: Any) -> bool:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return is_binary(kind.value_type)
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    schema = pq.read_schema(path)
    binary = [field.name for field in schema if is_binary(field.type)]
    firsts = {name: _first_value(path, name) for name in binary} if pictures != NONE else {}
    refuse_media(str(path), {name: kind for name, value in firsts.items() if (kind := other_medium(value))}, pictures)
    known = {name for name, value in firsts.items() if value is UNREADABLE or is_picture_value(value)}
    return {name for name in schema.names if name not in binary} | chosen_pictures(str(path), known, binary, pictures)


UNREADABLE = object()
"""First value of a damaged column; the reader will report it."""


def _first_value(path: Path, name: str) -> Any:
    """Return the first value of a binary column that is not empty, None without one, or ``UNREADABLE``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1, columns=[name]):
                if (value := batch.column(name)[0].as_py()) not in (None, []):
                    return value
    except (pa.ArrowException, OSError, ValueError):
        return UNREADABLE
    return None


def chosen_pictures(source: str, known: Iterable[str], binary: Iterable[str], pictures: str) -> set[str]:
    """Return the binary columns of a table that are read as pictures.

    Args:
        source: name of the table, for messages.
        known: columns with pictures.
        binary: columns with bytes, pictures or not.
        pictures: option ``image_column``.

    Raises:
        DataError: the pictures are not under one of the usual names, or are in numbered columns.
    """
    if pictures == NONE:
        return set()
    for name in known if pictures == AUTO else [pictures]:
        refuse_numbered(source, name, binary)
    if pictures != AUTO:
        return {pictures} & set(binary)
    found = set(known) & set(NAMES)
    if known and not found:
        seen = f"pictures in the columns {sorted(known)}"
        next_step = f"set {OPTION}: {min(known)}, or {OPTION}: {NONE} if the prompts are whole without pictures"
        raise source_error(source, seen, f"pictures in a column {' or '.join(map(repr, NAMES))}", next_step)
    return found


def read_dataset(path: Path, *, split: str | None, columns: set[str] | None, pictures: str = NONE) -> Rows:
    """Read columns of a folder that ``save_to_disk`` wrote.

    Args:
        path: folder of the dataset.
        split: split to read; None if there is only one.
        columns: columns to read; None reads all but binary ones, and the chosen column of pictures.
        pictures: option ``image_column``.

    Raises:
        DataError: the folder is not a saved dataset, or the split or a column is absent.
    """
    datasets = _require_datasets(str(path))
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        next_step = "write it with Dataset.save_to_disk, or pass one file in the folder"
        raise source_error(str(path), str(error), "a folder written by save_to_disk", next_step) from error
    if not isinstance(loaded, dict) and split is not None:
        raise source_error(str(path), f"one dataset without splits and split={split!r}", "no split", "leave split out")
    yield from _read_table(loaded, str(path), split, columns, pictures)


def read_hub(
    repo_id: str, *, subset: str | None, split: str | None, columns: set[str] | None, pictures: str = NONE
) -> Rows:
    """Download ``org/name`` with ``datasets.load_dataset`` and read columns.

    Args:
        repo_id: hub id of the dataset.
        subset: configuration of the dataset.
        split: split to read; None if there is only one.
        columns: columns to read; None as in :func:`read_dataset`.
        pictures: option ``image_column``.

    Raises:
        DataError: the dataset cannot be loaded (network, name, subset, split), or a column is absent.
    """
    datasets = _require_datasets(repo_id)
    try:
        loaded = datasets.load_dataset(repo_id, name=subset, split=split)
    except Exception as error:  # network boundary: hub clients raise several unrelated classes of errors
        seen = f"no local file or folder of this name, and {type(error).__name__} from the hub: {error}"
        next_step = (
            "check the spelling, network, access rights, subset and split; "
            "if you are offline, download the dataset elsewhere and pass the path of its file"
        )
        raise source_error(repo_id, seen, "a hub dataset 'org/name' that can be reached", next_step) from error
    yield from _read_table(loaded, repo_id, split, columns, pictures)


def require_columns(source: str, seen: list[str], needed: set[str]) -> None:
    """Check that a table has all needed columns.

    Raises:
        DataError: a column is absent.
    """
    if absent := sorted(needed - set(seen)):
        seen_here = f"no column {', '.join(map(repr, absent))}"
        next_step = f"set the right layout, {COLUMN_OPTIONS}"
        raise source_error(source, seen_here, f"the columns {sorted(seen)}", next_step)


def _read_table(loaded: Any, source: str, split: str | None, columns: set[str] | None, pictures: str) -> Rows:
    if isinstance(loaded, dict):  # a DatasetDict; a single split needs no name
        names = sorted(loaded)
        chosen = names[0] if split is None and len(names) == 1 else split
        if chosen not in loaded:
            raise source_error(source, f"split={split!r}", f"one of the splits {names}", "set split")
        loaded = loaded[chosen]
    if columns is None:
        features = loaded.features
        binary = [name for name in features if _is_binary(features[name])]
        media = {name: kind for name in binary if (kind := _medium_of(features[name]))}
        others = [name for name in binary if name not in media and "Image(" not in str(features[name])]
        firsts = _first_row(loaded, others) if pictures != NONE else {}
        media |= {name: kind for name, value in firsts.items() if (kind := other_medium(value))}
        refuse_media(source, media, pictures)
        raw = {name for name, value in firsts.items() if is_picture_value(value)}
        known = {name for name in binary if "Image(" in str(features[name])} | raw
        columns = {name for name in features if name not in binary}
        columns |= (chosen := chosen_pictures(source, known, binary, pictures))
        for name in chosen - raw:
            loaded = loaded.cast_column(name, _undecoded(features[name]))
    require_columns(source, loaded.column_names, columns)
    # Only the chosen columns are read: decoding other pictures is slow and may fail.
    for index, row in enumerate(loaded.select_columns(sorted(columns))):
        yield Place(source, index), row


def _is_binary(feature: Any) -> bool:
    description = str(feature)
    return any(kind in description for kind in ("Image(", "Audio(", "Video(", "Pdf(", "binary"))


def _medium_of(feature: Any) -> str | None:
    description = str(feature)
    if "Audio(" in description:
        return "sound"
    return "video" if "Video(" in description else None


def _first_row(loaded: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the first values of columns of plain bytes."""
    return dict(loaded.select_columns(list(names))[0]) if names and len(loaded) else {}


def _undecoded(feature: Any) -> Any:
    """Return the feature of a column with pictures (or lists of them), changed to give bytes and paths."""
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    inner = getattr(feature, "feature", None)
    return feature if inner is None else type(feature)(_undecoded(inner))


def _require_datasets(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        next_step = install_command("trl")
        raise source_error(source, "no `datasets` library", "datasets >= 4.0", next_step) from error
    return datasets
