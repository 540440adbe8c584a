"""One process at a time writes into a run's folder."""

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
"""In the folder. The system frees the lock when its process ends, however it ends; the file itself may stay."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_SECONDS = 2.0  # a process that has just been killed may take a moment to be gone
_held: set[Path] = set()  # by this process


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder. A block inside of another one, for the same folder, adds nothing.

    Of a run of several processes, the first one owns the folder. The folder is created.

    Raises:
        ConfigError: another process that is alive owns the folder.
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
        logger.warning("%s lies on a disk without locks: see to it that one process at a time trains into it", folder)
        yield
        return
    _held.add(place)
    try:
        yield
    finally:
        _held.discard(place)
        lock.release()
