"""The file in which the reward workers of a node share verdicts if a judge does not name a file."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from rvpo.errors import ConfigError


def verdicts_of(run: str) -> Path:
    """Return the file of a run on this machine's own disk, in a folder that only this user can read.

    Args:
        run: folder of the run's checkpoints, which identifies the run.

    Raises:
        ConfigError: the folder belongs to another user.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"rvpo-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise _refused(folder, str(error)) from error
    if folder.is_symlink() or (hasattr(os, "getuid") and found.st_uid != user):
        raise _refused(folder, "it belongs to another user")
    return folder / f"verdicts-{hashlib.blake2b(run.encode(), digest_size=8).hexdigest()}.sqlite"


def _refused(folder: Path, seen: str) -> ConfigError:
    return ConfigError(
        f"{folder} cannot hold the verdicts of a judge: {seen}; expected a folder of this user. Name another file: "
        "judge.cache, an absolute path on each node's own disk"
    )
