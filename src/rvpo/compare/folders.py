"""Parse the runs on a command line: ``FOLDER``, ``NAME=FOLDER`` and ``NAME=FOLDER,FOLDER,…``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rvpo.errors import ConfigError


def named_folders(text: str | Path) -> tuple[str | None, list[Path]]:
    """Return the name and the folders of one argument. The name is None if the argument has none.

    Raises:
        ConfigError: the name is empty, or one of several folders is empty, as in ``NAME=a,``.

    Example:
        >>> named_folders("rvpo=runs/a,runs/b")
        ('rvpo', [PosixPath('runs/a'), PosixPath('runs/b')])
    """
    name, equals, folders = str(text).partition("=")
    if Path(text).exists() or not equals:  # the name of a folder may contain "="
        return None, [Path(text)]
    if not name:
        raise ConfigError(f"{text!r} has no name before =; expected NAME=FOLDER. Add a name")
    parts = folders.split(",")
    if "" in parts:
        raise ConfigError(
            f"{str(text)!r} has an empty folder; expected NAME=FOLDER,FOLDER. Drop the comma, or add the folder"
        )
    return name, [Path(part) for part in parts]


def refuse_evaluations(runs: Sequence[str]) -> None:
    """Refuse folders of ``rvpo eval``, because training runs are compared here.

    Raises:
        ConfigError: a folder is an evaluation, finished or not. The message has the command that compares evaluations.
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
        ConfigError: a folder is given twice.
    """
    every = [path.resolve() for path in paths]
    for path in every:
        if every.count(path) > 1:
            raise ConfigError(f"{path} is given twice; expected each run once. Remove one of them")
