"""Ctrl-C and SIGTERM: a command stops soon, reports what it saved, and never stops inside an atomic block.

This module has three uses. The command line wraps each command in :func:`handled`, which turns the first signal into
KeyboardInterrupt in the main thread. Code that must not be interrupted halfway, such as an optimizer step with its log,
runs between :func:`hold` and :func:`release`: a signal that arrives there waits. Code that knows what is saved after an
interrupt says so with :func:`says`.

After the first signal a command has :data:`SECONDS` to end. If something keeps it alive (a thread that waits for a
server, a batch of a local model), the process is ended anyway. A second Ctrl-C ends it immediately.
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
"""Seconds that a command may take to end after a signal, outside of :func:`saving`."""
_ONE_PRESS = 0.5
"""Signals within so many seconds after the first one are ignored: launchers often send Ctrl-C a second time."""

_signals = (signal.SIGINT, signal.SIGTERM)
_held = False  # whether the process is between hold and release
_waiting = False  # whether a signal arrived there
_first: tuple[int, float] | None = None  # the first signal and its time
_saying: list[tuple[Callable[[], str], float]] = []
_watchdog: threading.Timer | None = None
_print: Callable[[str], None] = print
_reported = False


@contextmanager
def handled(print_line: Callable[[str], None]) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM in the block into KeyboardInterrupt. End the process if that does not.

    Signals that the process ignores stay ignored, as for a background command of a script. If there are several
    processes (``WORLD_SIZE`` above 1), SIGTERM keeps its default action: a process may wait inside a collective
    operation, where Python does not run handlers, and the launcher must still be able to end it.

    Args:
        print_line: function that prints a line, for the case in which the process has to be ended from another thread.
    """
    global _print
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    _print = print_line
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    before = {number: signal.getsignal(number) for number in _signals}
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None) and not (several and number == signal.SIGTERM):
            signal.signal(number, _on_signal)
    try:
        yield
    finally:
        if _first is None:  # otherwise a second signal must still be able to end the process
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
    """Make signals wait until :func:`release`. If called twice, one ``release`` ends both."""
    global _held
    _held = True


def release() -> None:
    """End the block that :func:`hold` began.

    Raises:
        KeyboardInterrupt: a signal arrived in the block.
    """
    global _held, _waiting
    _held = False
    if _waiting:
        _waiting = False
        _watch()
        raise KeyboardInterrupt


def is_held() -> bool:
    """Return whether the process is between :func:`hold` and :func:`release`, where it must not save."""
    return _held


def forget() -> None:
    """Leave :func:`hold` without raising, for code that has caught an exception from inside the block."""
    global _held
    _held = False


@contextmanager
def says(kept: Callable[[], str], seconds: float = SECONDS) -> Iterator[None]:
    """Set the message for an interrupt inside the block: what is saved, and how to continue.

    Args:
        kept: function that returns the message, such as ``"12 of 40 verdicts are saved; the same command continues"``.
        seconds: seconds that the block may take to end.
    """
    _saying.append((kept, seconds))
    try:
        yield
    except KeyboardInterrupt as interrupt:
        # The innermost block has the best message. It is attached to the exception.
        raise KeyboardInterrupt(_text(interrupt) or kept()) from None
    finally:
        _saying.remove((kept, seconds))


def said(interrupt: KeyboardInterrupt) -> str:
    """Return the line that reports an interrupt."""
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
    """Start the time limit within which the process must end by itself; None takes that of the innermost block."""
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
    """End the process after its message has been printed, if a signal was handled. Otherwise return.

    Functions registered with ``atexit`` run, for :data:`SECONDS` at most. The rest of Python's shutdown is skipped: it
    waits for threads, and freeing what torch and its libraries use can take many seconds on a busy machine.
    """
    global _reported
    _reported = True
    if _first is None:
        return
    _watch(SECONDS)
    with suppress(BaseException):
        atexit._run_exitfuncs()
    _leave()


def _end() -> None:
    """End the process from another thread, because the main thread does not respond."""
    with suppress(Exception):  # an error of `kept` must not keep the process alive
        if not _reported:
            _print(said(KeyboardInterrupt(_saying[-1][0]() if _saying else "")))
    _leave()


def _leave() -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(exit_code())
