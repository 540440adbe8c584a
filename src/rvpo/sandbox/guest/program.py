"""The second process of a sandbox: the program itself. It shares only one pipe in each direction with the first."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import builtins
import ctypes
import os
import resource
import sys
from types import ModuleType

from . import kernel, wire
from .codec import dump
from .peer import EndedError, Peer

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any, NoReturn

SYNTAX, RAISED, MEMORY = 81, 82, 83
MB = 1 << 20


def run(task: dict[str, Any], library: ctypes.CDLL | None, reads: int, writes: int, output: int) -> NoReturn:
    """Become the program. Never returns."""
    code = RAISED
    try:
        null = os.open(os.devnull, os.O_RDWR)
        stdin = _file(task["stdin"]) if task["kind"] == "stdin" else null
        os.dup2(stdin, 0)
        os.dup2(output if task["kind"] == "stdin" else null, 1)
        os.dup2(null, 2)
        reads, writes = _moved(reads, 100), _moved(writes, 101)
        os.closerange(3, 100)
        os.closerange(102, 1 << 16)
        _limit(task)
        if library is not None:
            kernel.install(library, os.uname().machine)
        code = _script(task, writes) if task["kind"] == "stdin" else _module(task, reads, writes)
    except BaseException:
        code = RAISED
    finally:
        os._exit(code)


def _moved(descriptor: int, number: int) -> int:
    os.dup2(descriptor, number)
    return number


def _file(text: str) -> int:
    descriptor = os.memfd_create("stdin")
    view = memoryview(text.encode("utf-8", "surrogateescape"))
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _limit(task: dict[str, Any]) -> None:
    processor = max(1, -int(-task["cpu"] // 1))
    for what, most in (
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_AS, task["memory"]),
        (resource.RLIMIT_FSIZE, task["files"]),
        (resource.RLIMIT_NOFILE, 128),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_NPROC, task["processes"]),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _script(task: dict[str, Any], writes: int) -> int:
    """Run the program as a script, until its threads and its functions at exit have ended, as Python does."""
    import _sitebuiltins

    builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "Ctrl-D")
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    sys.argv = ["program.py"]
    code = 0
    try:
        if task["setup"]:
            exec(compile(task["setup"], "<setup>", "exec"), main.__dict__)  # noqa: S102
        exec(compile(task["program"], "<program>", "exec"), main.__dict__)  # noqa: S102
    except SystemExit:
        pass
    except BaseException as error:
        code = _report(writes, error)
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    sys.stdout.flush()
    return code


def _report(writes: int, error: BaseException) -> int:
    reason, code = _kind(error)
    try:
        text = f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        text = type(error).__name__
    wire.write(writes, dump({"reason": reason, "raised": text}))
    return code


def _kind(error: BaseException) -> tuple[str, int]:
    if isinstance(error, SyntaxError) and (error.filename or "").startswith("<"):
        return "syntax", SYNTAX
    if isinstance(error, MemoryError):
        return "memory", MEMORY
    return ("assert" if isinstance(error, AssertionError) else "exception"), RAISED


def _module(task: dict[str, Any], reads: int, writes: int) -> int:
    """Run the program as a module, and then answer the requests of the test."""
    scope: dict[str, Any] = {}
    absent = _prepare(task["setup"], scope)
    if absent is not None:
        return _report(writes, absent)
    wire.write(writes, dump({"prepared": True}))  # so that messages before this cannot come from the program
    try:
        exec(compile(task["program"], "<program>", "exec"), scope)  # noqa: S102
    except BaseException as error:
        return _report(writes, error)
    peer = Peer(reads, writes, scope)
    peer.tell({"loaded": True})
    if task["kind"] == "shared":
        return _test_itself(peer, scope, writes)
    try:  # noqa: SIM105 - contextlib takes longer to load than most programs
        peer.serve()
    except (wire.ClosedError, EndedError):
        pass
    return 0


def _prepare(setup: str, scope: dict[str, Any]) -> ModuleNotFoundError | None:
    """Run a setup. Return the error if a module is absent, else None.

    Other errors are ignored: a stub may have annotations that only the program imports.
    """
    try:
        exec(compile(setup, "<setup>", "exec"), scope)  # noqa: S102
    except ModuleNotFoundError as error:
        return error
    except Exception:
        return None
    return None


def _test_itself(peer: Peer, scope: dict[str, Any], writes: int) -> int:
    test = peer.hear()
    try:
        exec(compile(test["code"], "<test>", "exec"), scope)  # noqa: S102
    except BaseException as error:
        return _report(writes, error)
    peer.tell({"secret": test["secret"]})
    return 0
