"""The first process of a sandbox: it starts the program in a second process, runs the test, and reports the outcome.

It reads two frames from standard input: the program with its limits, and the test. The second process is started before
the test is read, so the test is not in its memory. The second process cannot read, write, trace or signal this one. The
outcome is reported in one frame on standard output.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import os
import resource
import select
import sys
import time

from . import kernel, wire
from . import program as second
from .codec import MalformedError, dump, load
from .peer import EndedError, Peer, UnshareableError
from .scope import Scope

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any, NoReturn

GRACE = 10  # hundredths of a second for a process to end after its pipes have closed
HOST_BYTES = 1 << 30  # maximum size of a message from outside
SYNTAX, RAISED, MEMORY = second.SYNTAX, second.RAISED, second.MEMORY


class Watch:
    """The second process, and the report about it."""

    def __init__(self, report: int, task: dict[str, Any]) -> None:
        """Start the clock. The process is started elsewhere."""
        self.report, self.task = report, task
        self.pid = 0
        self.finishing = False
        self.began = time.monotonic()

    def finish(self, reason: str, detail: Any = "", output: bytes | None = None, wall: bool = False) -> NoReturn:
        """Report, and end the whole sandbox. The kernel ends all other processes in it."""
        message: dict[str, Any] = {
            "reason": reason,
            "detail": str(detail)[:300],
            "seconds": time.monotonic() - self.began,
        }
        self.finishing = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        if wall:
            message["wall"] = True
        if output is not None:
            message["output"] = output.decode("utf-8", "surrogateescape")
        try:
            wire.write(self.report, dump(message))
        finally:
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)
            os._exit(0)

    def on_alarm(self, *_: object) -> None:
        """Report a test that takes too long, even if this process is busy."""
        if self.finishing:
            return
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        self.finish("timeout", "no end within the wall-clock limit", wall=True)

    def ended(self, now: bool = False) -> tuple[str, str] | None:
        """Return reason and detail for a program that has ended; None if it ended normally.

        With ``now``, a program that still runs is killed. If something else ended it before, that is returned.
        """
        ended, status, used = os.wait4(self.pid, os.WNOHANG if now else 0)
        for _ in range(GRACE if now and not ended else 0):
            time.sleep(0.01)
            ended, status, used = os.wait4(self.pid, os.WNOHANG)
            if ended:
                break
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
            _, status, used = os.wait4(self.pid, 0)
        self.pid = 0
        processor = used.ru_utime + used.ru_stime
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU or (number == signal.SIGKILL and processor >= self.task["cpu"] - 0.5):
                return "timeout", f"more than {self.task['cpu']:g} s of CPU time"
            if number == signal.SIGKILL and ended and self.task["filter"]:  # the program cannot send this signal
                return "outside", f"ended from outside by signal {number}"
            if number == signal.SIGSYS:
                return "killed", "a system call of another architecture"
            return "killed", f"ended by signal {number}"
        code = os.WEXITSTATUS(status)
        return {0: None, SYNTAX: ("syntax", ""), RAISED: ("exception", ""), MEMORY: ("memory", "")}.get(
            code, ("killed", f"ended with exit code {code}")
        )


def main() -> None:
    """Run one test."""
    sys.path.pop(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    report = os.dup(1)
    task = load(wire.read(0, HOST_BYTES))
    sys.path += task["paths"]
    library = None
    if task["filter"]:
        library = kernel.libc()
        kernel.protect(library)
    wire.write(report, b"{}")  # reports that the sandbox itself has started
    watch = Watch(report, task)
    _bound_itself(task)
    ours, theirs = os.pipe(), os.pipe()
    output = os.pipe()
    watch.pid = os.fork()
    if watch.pid == 0:
        second.run(task, library, reads=ours[0], writes=theirs[1], output=output[1])
    if library is not None:  # the test of a dataset is trusted no more than a program
        kernel.install(library, os.uname().machine, kills=True)
    for descriptor in (ours[0], theirs[1], output[1]):
        os.close(descriptor)
    signal.signal(signal.SIGALRM, watch.on_alarm)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, task["wall"], 1.0)
    test = load(wire.read(0, HOST_BYTES))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    try:
        if task["kind"] == "stdin":
            os.close(ours[1])
            by_output(watch, output[0], theirs[0])
        elif task["kind"] == "shared":
            by_word(watch, Peer(theirs[0], ours[1]), test)
        else:
            by_call(watch, Peer(theirs[0], ours[1]), test)
    except (wire.ClosedError, EndedError, MalformedError) as error:
        watch.finish(*_why(watch, "killed", f"the program ended in the middle of the test: {error}"))


def _bound_itself(task: dict[str, Any]) -> None:
    """Limit the memory and files of this process, which runs the test and reads messages of the program."""
    most = 2 * task["memory"] + len(str(task)) * 8 + (256 << 20)
    for what, limit in ((resource.RLIMIT_AS, most), (resource.RLIMIT_FSIZE, task["files"])):
        hard = resource.getrlimit(what)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))


def _why(watch: Watch, reason: str, detail: str) -> tuple[str, str]:
    return watch.ended(now=True) or (reason, detail)


def by_output(watch: Watch, output: int, word: int) -> None:
    """Collect what the program prints until it has ended."""
    kept, most = bytearray(), watch.task["output"]
    while part := os.read(output, 1 << 16):
        kept += part
        if len(kept) > most:
            watch.finish("output", f"more than {most} bytes of output")
    end = watch.ended()
    if end is None:
        watch.finish("printed", output=bytes(kept))
    try:  # the reason is only for readers of the message
        said = load(wire.read(word, 1 << 12)).get("raised") if select.select([word], [], [], 0)[0] else ""
    except (wire.ClosedError, MalformedError):
        said = ""
    watch.finish(end[0], said or end[1])


def loaded(watch: Watch, peer: Peer) -> None:
    """Wait until the program has defined its names."""
    said = peer.hear()
    if "prepared" not in said:
        watch.finish("unusable", said.get("raised", ""))
    said = peer.hear()
    if "loaded" not in said:
        watch.finish(*_failure(said))


def _failure(said: dict[str, Any]) -> tuple[str, str]:
    reason = said.get("reason")
    known = reason if reason in ("syntax", "memory") else "exception"
    return str(known), str(said.get("raised", ""))


def by_call(watch: Watch, peer: Peer, test: dict[str, Any]) -> None:
    """Run the test in this process, which the program cannot access; see :mod:`peer`."""
    loaded(watch, peer)
    scope = Scope(peer, test["prefer"])
    try:
        exec(compile(test["code"], "<test>", "exec"), scope)  # noqa: S102 - a dataset's test, in the sandbox
    except EndedError:
        raise
    except UnshareableError:
        pass
    except BaseException as error:
        if not peer.unshareable:
            watch.finish(_reason(error), _said(error))
    if peer.unshareable:
        watch.finish("unshareable", peer.unshareable)
    peer.ping()
    if peer.ended:  # checked here, because the test may have caught the exception
        watch.finish(*_why(watch, "killed", peer.ended))
    watch.finish("passed")


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, AssertionError):
        return "assert"
    # This exact class comes from the test itself, because exceptions of the program get their own classes.
    return "unusable" if type(error) is ModuleNotFoundError else "exception"


def by_word(watch: Watch, peer: Peer, test: dict[str, Any]) -> None:
    """Let the program's own process run the test. It passes if the process then returns the secret of the test."""
    loaded(watch, peer)
    peer.tell({"code": test["code"], "secret": test["secret"]})
    said = peer.hear()
    if said.get("secret") == test["secret"]:
        end = watch.ended()
        watch.finish(*(end or ("passed", "")))
    reason, detail = said.get("reason"), said.get("raised", "")
    known = reason if reason in ("assert", "exception", "memory", "syntax") else "killed"
    watch.finish(str(known), detail)


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return type(error).__name__
