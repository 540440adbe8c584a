"""Refuse pictures in columns that are not read: a model would be trained on prompts that it cannot answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rvpo.data.picture_columns import (
    AUTO,
    NAMES,
    NONE,
    OPTION,
    TEXT_ONLY,
    is_picture_value,
    other_medium,
    refuse_media,
    refuse_numbered,
)
from rvpo.data.records import Place, Row

_FILE = re.compile(r"data:image/\S+|\S+\.(png|jpe?g|webp|gif|bmp|tiff?)", re.IGNORECASE)
_PICTURE_WORD = re.compile(r"image|img|picture|photo|figure", re.IGNORECASE)


def check_unread(rows: Sequence[tuple[Place, Row]], read: Sequence[str], chosen: str) -> None:
    """Refuse rows whose pictures are in a column that is not read, because the prompts would lack them.

    Args:
        rows: rows with their places.
        read: columns that are read.
        chosen: option ``image_column``.

    Raises:
        DataError: most rows have a picture, or the name of its file, in such a column.
    """
    if chosen == AUTO and rows:
        refuse_media(rows[0][0].source, {name: kind for name, kind in _media(rows).items() if name not in read}, chosen)
    found = [] if chosen != AUTO else [name for name in _columns_of_pictures(rows) if name not in read]
    if not found:
        return
    for name in found:
        check_numbered(rows, name)
    expected = f"pictures in a column {NAMES[0]!r} or {NAMES[1]!r}"
    next_step = f"set {OPTION}: {found[0]}, {TEXT_ONLY}"
    raise rows[0][0].error(found[0], f"pictures in the columns {found}", expected, next_step)


def check_numbered(rows: Sequence[tuple[Place, Row]], column: str) -> None:
    """Refuse pictures that are spread over numbered columns, such as ``image_1`` to ``image_7``.

    Raises:
        DataError: another column with pictures has the same name except for its number.
    """
    names = dict.fromkeys(name for _, row in rows for name in row)
    holding = [name for name in names if any(_may_be_picture(name, row.get(name)) for _, row in rows)]
    refuse_numbered(rows[0][0].source, column, holding)


def has_pictures(row: tuple[Place, Row], chosen: str) -> bool:
    """Return whether a row has pictures in any column."""
    return chosen not in (AUTO, NONE) or (chosen == AUTO and bool(_columns_of_pictures([row])))


def _media(rows: Sequence[tuple[Place, Row]]) -> dict[str, str]:
    """Return the columns in which most rows have sound or video, with the medium."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    found = {}
    for name in names:
        kinds = [kind for _, row in rows if (kind := other_medium(row.get(name)))]
        if 2 * len(kinds) > len(rows):
            found[name] = kinds[0]
    return found


def _columns_of_pictures(rows: Sequence[tuple[Place, Row]]) -> list[str]:
    names = dict.fromkeys(name for _, row in rows for name in row)
    return [name for name in names if 2 * sum(_may_be_picture(name, row.get(name)) for _, row in rows) > len(rows)]


def _may_be_picture(name: str, value: Any) -> bool:
    """Return whether a value is a picture or names one. A URL counts only if the column's name suggests pictures."""
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, str):
        return is_picture_value(first)
    named = len(first) < 4096 or first.startswith("data:")
    believed = "://" not in first or _PICTURE_WORD.search(name) is not None
    return named and _FILE.fullmatch(first) is not None and believed
