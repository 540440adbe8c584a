"""The column of a benchmark's file that identifies its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rvpo.data.records import Place, Row


def id_column(rows: Sequence[tuple[Place, Row]], names: Iterable[str]) -> str | None:
    """Return the first of the named columns whose values (integers or texts) all differ; None if there is none."""
    for name in names:
        values = [row.get(name) for _, row in rows]
        if all(_is_id(value) for value in values) and len({str(value) for value in values}) == len(values):
            return name
    return None


def _is_id(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and bool(value) and value.isprintable())
