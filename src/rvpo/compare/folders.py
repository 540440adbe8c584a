"""Parses what a command line names as runs: ``FOLDER``, ``NAME=FOLDER`` and ``NAME=FOLDER,FOLDER,…``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rvpo.errors import ConfigError


def named_folders(text: str | Path) -> tuple[str | None, list[Path]]:
    """Return the name, None without one, and the folders.

    Raises:
        ConfigError: the name is empty, or one of several folders is, as in ``NAME=a,``.
    """
    name, equals, folders = str(text).partition("=")
    if Path(text).exists() or not equals:  # the name of a folder may contain "="
        return None, [Path(text)]
    if not name:
        raise ConfigError(f"{text!r} has no name before =, allowed is NAME=FOLDER: give one")
    parts = folders.split(",")
    if "" in parts:
        raise ConfigError(
            f"{str(text)!r} names an empty folder, allowed is NAME=FOLDER,FOLDER: drop the comma, or name it"
        )
    return name, [Path(part) for part in parts]


def refuse_evaluations(runs: Sequence[str]) -> None:
    """Refuse folders of ``rvpo eval`` where training runs are compared.

    Raises:
        ConfigError: one is, finished or not; the message has the command that compares them.
    """
    for path in (path for text in runs for path in named_folders(text)[1]):
        is_finished = (path / "results.json").is_file() and (path / "items.parquet").is_file()
        if is_finished or (path / "store.sqlite").is_file():
            raise ConfigError(
                f"{path} is an evaluation; expected training runs. Compare evaluations, and their Pass@k over k, with: "
                f"rvpo eval compare {shlex.join(runs)}"
            )


def require_once(paths: Sequence[Path]) -> None:
    """Refuse folders that are given twice, also under different names.

    Raises:
        ConfigError: one is.
    """
    every = [path.resolve() for path in paths]
    for path in every:
        if every.count(path) > 1:
            raise ConfigError(f"{path} is given twice, allowed is once: a run says nothing beside itself")
