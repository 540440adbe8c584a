"""What a forked process does with handles of its parent.

``datasets.map(num_proc=2)``, ``multiprocessing`` and ``os.fork`` copy a process in the middle of its life. The copy
shares pipes, files and database connections with the original, and a lock that another thread held stays locked in it
for ever. An object with such handles registers itself here, and the fork gives each process its own.

Objects are kept by weak references: registering one does not keep it alive. A ``spawn``ed process needs nothing.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


class Forkable:
    """A holder of handles that know their process. Derived classes call :meth:`_know_forks` once, when built."""

    def _know_forks(self) -> None:
        _HOLDERS.add(self)

    def _before_fork(self) -> None:
        """Make ready for the copy, in the process that forks: take a lock, close what two must not share."""

    def _after_fork(self) -> None:
        """Undo that in the process that has forked."""

    def _in_child(self) -> None:
        """Replace what belongs to the parent, in the new process: locks above all. Its only thread runs this."""


class ForkedLock(Forkable):
    """A lock that the copy of a process finds open: ``with lock: …``.

    What it guards must be safe to copy half-done, such as totals.
    """

    def __init__(self) -> None:
        """Start open."""
        self._lock = threading.Lock()
        self._know_forks()

    def __enter__(self) -> None:
        """Wait for it."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Open it again."""
        self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()


def disconnect(descriptor: int) -> None:
    """Let a file descriptor of the parent point at nothing, so that the file object on it can be closed safely.

    Closing the number itself would free it for another file, which the old object would then close.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)


_HOLDERS: weakref.WeakSet[Forkable] = weakref.WeakSet()
_forking = threading.Lock()  # of several threads, one forks
_prepared: list[Forkable] = []  # what the thread that forks has made ready


def _prepare() -> None:
    _forking.acquire()
    _prepared[:] = list(_HOLDERS)
    for holder in _prepared:
        holder._before_fork()


def _release(step: Callable[[Forkable], None]) -> None:
    for holder in reversed(_prepared):
        step(holder)
    _prepared.clear()
    _forking.release()  # in the child, too, the thread that took it


if hasattr(os, "register_at_fork"):  # POSIX
    os.register_at_fork(
        before=_prepare,
        after_in_parent=lambda: _release(lambda holder: holder._after_fork()),
        after_in_child=lambda: _release(lambda holder: holder._in_child()),
    )
