"""Ways in which a file of a checkpoint can be damaged."""

from __future__ import annotations

import shutil
from pathlib import Path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def older(path: Path) -> None:
    """Put the file of the checkpoint before in its place: it is whole, but of another step."""
    shutil.copy(path.parent.parent / "checkpoint-2" / path.name, path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
