"""Give a forked process its own handles in place of those of its parent.

``datasets.map(num_proc=2)``, ``multiprocessing`` and ``os.fork`` copy a running process. The copy shares pipes, files
and database connections with the original. A lock that another thread held stays locked in the copy for ever. An object
with such handles registers itself here, and gets new ones in the forked process.

The registry has weak references, so it does not keep objects alive. A process that was started by ``spawn`` needs
nothing of this.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


class Forkable:
    """An object with handles that belong to one process. Derived classes call :meth:`_know_forks` when built."""

    def _know_forks(self) -> None:
        _HOLDERS.add(self)

    def _before_fork(self) -> None:
        """Prepare for the fork, in the parent: take a lock, close what two processes must not share."""

    def _after_fork(self) -> None:
        """Undo :meth:`_before_fork` in the parent."""

    def _in_child(self) -> None:
        """Replace what belongs to the parent, such as locks, in the child. Its only thread runs this."""


class ForkedLock(Forkable):
    """A lock that is open in a forked process: ``with lock: …``.

    A fork may copy the guarded data at any moment, so use it only for data that allow this, such as totals.
    """

    def __init__(self) -> None:
        """Make an open lock."""
        self._lock = threading.Lock()
        self._know_forks()

    def __enter__(self) -> None:
        """Wait for the lock and take it."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()


def disconnect(descriptor: int) -> None:
    """Redirect a file descriptor of the parent to nothing, so that the file object on it can be closed safely.

    Closing the descriptor itself would free its number for another file, which the old object would then close.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)


_HOLDERS: weakref.WeakSet[Forkable] = weakref.WeakSet()
_forking = threading.Lock()  # only one thread forks at a time
_prepared: list[Forkable] = []  # objects that the forking thread has prepared


def _prepare() -> None:
    _forking.acquire()
    _prepared[:] = list(_HOLDERS)
    for holder in _prepared:
        holder._before_fork()


def _release(step: Callable[[Forkable], None]) -> None:
    for holder in reversed(_prepared):
        step(holder)
    _prepared.clear()
    _forking.release()  # also in the child, whose only thread is the one that took the lock


if hasattr(os, "register_at_fork"):  # POSIX
    os.register_at_fork(
        before=_prepare,
        after_in_parent=lambda: _release(lambda holder: holder._after_fork()),
        after_in_child=lambda: _release(lambda holder: holder._in_child()),
    )
