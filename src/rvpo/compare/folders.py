"""What stands on a command line for runs to compare: ``FOLDER``, ``NAME=FOLDER`` and ``NAME=FOLDER,FOLDER,…``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rvpo.errors import ConfigError


def named_folders(text: str | Path) -> tuple[str | None, list[Path]]:
    """Return the name, None where there is none, and the folders.

    Raises:
        ConfigError: one of several folders is empty, as in ``NAME=a,``.
    """
    name, equals, folders = str(text).partition("=")
    if Path(text).exists() or not equals:  # a folder's own name may hold "="
        return None, [Path(text)]
    parts = folders.split(",")
    if "" in parts:
        raise ConfigError(
            f"{str(text)!r} names an empty folder, allowed is NAME=FOLDER,FOLDER: drop the comma, or name it"
        )
    return name, [Path(part) for part in parts]


def require_once(paths: Sequence[Path]) -> None:
    """Refuse folders that are given twice, also by different names.

    Raises:
        ConfigError: one is.
    """
    every = [path.resolve() for path in paths]
    for path in every:
        if every.count(path) > 1:
            raise ConfigError(f"{path} is given twice, allowed is once: a run says nothing beside itself")
