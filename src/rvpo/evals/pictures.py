"""Refuse problems with pictures: a benchmark that asks in text alone would not show the picture to the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rvpo.data.columns import spelled
from rvpo.data.generic import parquet_columns
from rvpo.data.picture_columns import other_medium
from rvpo.data.records import Place, Row, shorten, source_error

_PLACEHOLDER = re.compile(
    r"<\s*/?\s*(?:image|img|picture|figure)[\w\s.:/='\"-]{0,80}>|!\[[^\]]{0,200}\]\(|\\includegraphics\b"
)
_IMAGE = re.compile(r"image_?\d*|images|picture|pictures|figure")


def refuse_pictures(path: str | Path, storage: str, rows: Sequence[tuple[Place, Row]], prompts: Sequence[Any]) -> None:
    """Refuse problems with a picture in a column, or with a placeholder for one in their text.

    Args:
        path: the file, folder or hub id that the rows come from.
        storage: how it is stored, as :func:`rvpo.data.files.storage_of` returns it.
        rows: the rows with their places.
        prompts: the problem of each row, a text or a chat.

    Raises:
        DataError: a problem has a picture.
    """
    next_step = "evaluate the problems without pictures: a file or subset of text alone"
    for (place, row), prompt in zip(rows, prompts, strict=True):
        for name, value in row.items():
            if value is not None and value not in ("", [], {}) and _IMAGE.fullmatch(spelled(name)):
                seen = f"a picture next to the problem: {shorten(value)}"
                raise place.error(name, seen, "problems of text alone", next_step)
        texts = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
        if found := next((match for text in texts if (match := _PLACEHOLDER.search(text))), None):
            raise place.error(
                None, f"a placeholder for a picture: {shorten(found[0])}", "problems of text alone", next_step
            )
    # Binary columns are not read into the rows, so they have to be looked up in the file.
    unread = [name for name in parquet_columns(Path(path)) if name not in rows[0][1]] if storage == "parquet" else []
    for name in unread:
        column = pq.read_table(path, columns=[name])[name]
        if column.null_count < len(column):
            medium = other_medium(next(value for value in column.to_pylist() if value is not None)) or "pictures"
            raise source_error(str(path), f"{medium} in the column {name!r}", "problems of text alone", next_step)
