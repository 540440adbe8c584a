"""Get rollouts from trackers, ``wandb:ENTITY/PROJECT/RUN`` and ``trackio:PROJECT/RUN``, as local files.

W&B's client is imported only here, and only for such a name. trackio's database is read without its client.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, DataError, MissingExtraError
from rvpo.logs.tables.trackio_files import trackio_records
from rvpo.logs.tables.trainers import setting_of_unknown, trainer_of_metrics

WANDB, TRACKIO = "wandb:", "trackio:"
TABLE = ".table.json"
MOST_FILES = 20_000


def is_remote(path: Path | str) -> bool:
    """Return whether a path names a run of a tracker."""
    return str(path).startswith((WANDB, TRACKIO))


def files_of_remote(path: Path | str) -> list[Path]:
    """Return the tables of a tracker's run as files, which are removed when the program ends.

    Raises:
        ConfigError: the name is not complete, or there is no such run.
        MissingExtraError: W&B's client is not installed.
        DataError: the run has metrics per step only.
    """
    name = str(path)
    folder = Path(tempfile.mkdtemp(prefix="rvpo-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if name.startswith(WANDB):
        return _of_wandb(name.removeprefix(WANDB), folder)
    return [_of_trackio(name.removeprefix(TRACKIO), folder)]


def _of_wandb(name: str, folder: Path) -> list[Path]:
    parts = name.strip("/").split("/")
    if len(parts) != 3 or not all(parts):
        raise ConfigError(
            f"{WANDB}{name}; expected {WANDB}ENTITY/PROJECT/RUN, with the run's id from its page's address"
        )
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise MissingExtraError(
            f"{WANDB}{name} needs W&B's client ({error}). Run pip install wandb and wandb login, or export the run's "
            "table as CSV and pass that file"
        ) from error
    try:
        run = wandb.Api().run("/".join(parts))
        found = [file for file, _ in zip(run.files(), range(MOST_FILES), strict=False) if file.name.endswith(TABLE)]
        paths = [_downloaded(file, folder) for file in found]
        summary = list(run.summary.keys()) if not paths else []
    except Exception as error:  # the client lets errors of its own, of HTTP and of GraphQL through
        raise ConfigError(
            f"{WANDB}{name} cannot be read ({type(error).__name__}: {str(error)[:300]}); expected a run that your "
            "account may read. Check the name, the network, and wandb login"
        ) from error
    if not paths:
        trainer = trainer_of_metrics(summary)
        setting = f"{trainer.name}: {trainer.setting}" if trainer else setting_of_unknown()
        raise DataError(
            f"{WANDB}{name} has no tables, only metrics, one mean per step; expected a table with one row per "
            f"completion. Log rollouts ({setting})"
        )
    return paths


def _downloaded(file: Any, folder: Path) -> Path:
    """Download a file. Its name comes from a server, so check that its path stays in the folder."""
    path: Path = (folder / file.name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"the file {file.name!r} is outside of the run")
    file.download(root=str(folder), replace=True)
    return path


def _of_trackio(name: str, folder: Path) -> Path:
    project, _, run = name.strip("/").partition("/")
    safe = "".join(sign for sign in project if sign.isalnum() or sign in "-_")
    database = trackio_folder() / f"{safe}.db"
    if not safe or not database.is_file():
        raise ConfigError(
            f"{TRACKIO}{name}: {database} does not exist; expected {TRACKIO}PROJECT or {TRACKIO}PROJECT/RUN of a "
            "project on this machine. Set TRACKIO_DIR to the folder of its database, or pass the database itself"
        )
    path = folder / f"{safe}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _, row in trackio_records(database, run or None):
            file.write(json.dumps(row, ensure_ascii=True) + "\n")
    return path


def trackio_folder() -> Path:
    """Return the folder of trackio's databases."""
    if given := os.environ.get("TRACKIO_DIR"):
        return Path(given)
    cache = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return Path(cache) / "trackio"
