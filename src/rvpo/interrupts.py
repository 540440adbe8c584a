"""Ctrl-C and SIGTERM: a command ends at once, says what it kept, and never stops in the middle of what must be whole.

Three parts use this module. The command line wraps each command in :func:`handled`, which turns the first signal into
KeyboardInterrupt in the main thread. Code that must not be cut in half, such as an optimizer step with its log, runs
between :func:`hold` and :func:`release`: a signal that arrives there waits. Code that knows what an interrupt leaves
behind says so with :func:`says`.

After the first signal a command has :data:`SECONDS` to end. If something keeps it alive (a thread that waits for a
server, a batch of a local model), it is ended all the same. A second Ctrl-C ends it without waiting for that.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SECONDS = 1.5
"""How long a command may take to end after a signal, outside of :func:`saving`."""
_ONE_PRESS = 0.5
"""Signals that follow the first one within so many seconds belong to it: launchers often pass Ctrl-C on once more."""

_signals = (signal.SIGINT, signal.SIGTERM)
_held = False  # inside of what must be whole
_waiting = False  # a signal arrived there
_first: tuple[int, float] | None = None  # the first signal and its time
_saying: list[tuple[Callable[[], str], float]] = []
_watchdog: threading.Timer | None = None
_print: Callable[[str], None] = print
_told = False


@contextmanager
def handled(tell: Callable[[str], None]) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM in the block into KeyboardInterrupt, and end the process if that does not.

    Signals that the process ignores stay ignored, as of a command in the background of a script. SIGTERM keeps its
    default in one of several processes (``WORLD_SIZE`` above 1): such a process may wait inside a collective operation,
    where Python runs no handler, and its launcher must still be able to end it.

    Args:
        tell: prints one line, for the case in which the process has to be ended from another thread.
    """
    global _print
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    _print = tell
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    before = {number: signal.getsignal(number) for number in _signals}
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None) and not (several and number == signal.SIGTERM):
            signal.signal(number, _on_signal)
    try:
        yield
    finally:
        if _first is None:  # else a second signal must still end the process
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _first, _waiting
    now = time.monotonic()
    if _first is None:
        _first = number, now
        if _held:
            _waiting = True
            return
        _watch()
        raise KeyboardInterrupt
    if now - _first[1] > _ONE_PRESS:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def hold() -> None:
    """Let signals wait from here to :func:`release`. May be called twice; then one ``release`` ends both."""
    global _held
    _held = True


def release() -> None:
    """End what must be whole.

    Raises:
        KeyboardInterrupt: a signal has waited for it.
    """
    global _held, _waiting
    _held = False
    if _waiting:
        _waiting = False
        _watch()
        raise KeyboardInterrupt


def is_held() -> bool:
    """Return whether the process is between :func:`hold` and :func:`release`, where nothing can be saved."""
    return _held


def forget() -> None:
    """Leave :func:`hold` without raising: for code that has caught an exception from inside of it."""
    global _held
    _held = False


@contextmanager
def says(kept: Callable[[], str], seconds: float = SECONDS) -> Iterator[None]:
    """Name what an interrupt inside of the block leaves behind, and how to go on.

    Args:
        kept: returns it, such as ``"12 of 40 verdicts are saved; the same command continues"``.
        seconds: how long the block may take to end.
    """
    _saying.append((kept, seconds))
    try:
        yield
    except KeyboardInterrupt as interrupt:
        # The innermost block knows best. What it says travels with the exception.
        raise KeyboardInterrupt(_text(interrupt) or kept()) from None
    finally:
        _saying.remove((kept, seconds))


def said(interrupt: KeyboardInterrupt) -> str:
    """Return the line that tells of an interrupt."""
    return f"interrupted: {_text(interrupt) or 'nothing was changed; the same command starts again'}"


def exit_code() -> int:
    """Return 128 plus the number of the signal, as shells do: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_first[0] if _first else signal.SIGINT)


@contextmanager
def saving() -> Iterator[None]:
    """Suspend the time limit of an interrupted command while it saves; a second Ctrl-C still ends it."""
    _stop_watching()
    try:
        yield
    finally:
        if _first is not None:
            _watch(SECONDS)


def _text(interrupt: KeyboardInterrupt) -> str:
    return str(interrupt.args[0]) if interrupt.args and isinstance(interrupt.args[0], str) else ""


def _watch(seconds: float | None = None) -> None:
    """Begin the time within which the process has to end by itself; None is what the innermost block allows."""
    global _watchdog
    _stop_watching()
    _watchdog = threading.Timer(seconds or (_saying[-1][1] if _saying else SECONDS), _end)
    _watchdog.daemon = True
    _watchdog.start()


def _stop_watching() -> None:
    global _watchdog
    if _watchdog is not None:
        _watchdog.cancel()
    _watchdog = None


def end() -> None:
    """End the process after its line has been printed, if a signal was handled; else return.

    What is registered with ``atexit`` runs, for :data:`SECONDS` at most. The rest of Python's end is left out: it waits
    for threads, and taking apart what torch and its libraries hold can take many seconds on a busy machine.
    """
    global _told
    _told = True
    if _first is None:
        return
    _watch(SECONDS)
    with suppress(BaseException):
        atexit._run_exitfuncs()
    _leave()


def _end() -> None:
    """End the process from another thread; the main one is stuck."""
    with suppress(Exception):  # whatever `kept` raises must not keep the process alive
        if not _told:
            _print(said(KeyboardInterrupt(_saying[-1][0]() if _saying else "")))
    _leave()


def _leave() -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(exit_code())
