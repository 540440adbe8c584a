"""Two things that every folder of results needs: files that are whole, and a word on what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; half surrogates, which no file takes, become question marks."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(text.encode("utf-8", "replace"))
    partial.replace(path)


def difference(before: Any, now: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Return the first field, however deep, in which two plain values differ, dotted, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        fields = {**now, **before}
        found = (difference(before.get(key), now.get(key), f"{where}.{key}".lstrip(".")) for key in fields)
        return next((difference for difference in found if difference), None)
    return None if before == now else (where, before, now)
