"""Lock of a run's folder, so that only one process at a time writes into it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rvpo.errors import ConfigError

logger = logging.getLogger(__name__)

FILE = "run.lock"
"""Lock file in the folder. The system frees the lock when its process ends for any reason; the file may stay."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_SECONDS = 2.0  # time to wait: a process that has just been killed may need a moment to end
_held: set[Path] = set()  # folders that this process has locked


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes. A second block for the same folder, inside the first, has no effect.

    If a run has several processes, the first one owns the folder. The folder is created.

    Raises:
        ConfigError: another running process owns the folder.
        OSError: the folder cannot be written.
    """
    place = folder.resolve()
    if place in _held:
        yield
        return
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / FILE)
    try:
        lock.acquire(timeout=_SECONDS)
    except Timeout:
        raise ConfigError(
            f"another process trains into {folder}; expected one at a time: wait for it or stop it, or choose another "
            "folder (name=… of a recipe, output_dir of a script)"
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        logger.warning("%s is on a disk without locks: make sure that one process at a time trains into it", folder)
        yield
        return
    _held.add(place)
    try:
        yield
    finally:
        _held.discard(place)
        lock.release()
