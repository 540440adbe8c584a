"""One test in one process: start it, hand it the program and the test, read its report, end it."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.sandbox.analysis import needs_of
from rvpo.sandbox.compare import difference_of
from rvpo.sandbox.granted import reduced
from rvpo.sandbox.outcomes import REASONS, Limits, Outcome, Test
from rvpo.text.quoting import escaped

START_SECONDS = 30.0  # for the sandbox itself, on a busy machine
END_SECONDS = 5.0  # beyond the limit in all, for a report that is on its way
TRIES = 3  # of a test whose process was ended from outside
MAX_DETAIL_CHARS = 300
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """What came back from one process.

    Attributes:
        message: the report, None where there is none.
        started: whether the sandbox had been built when it ended.
        trouble: what the sandbox itself said, or what happened to it.
    """

    message: dict[str, Any] | None
    started: bool
    trouble: str


@dataclass(frozen=True, slots=True)
class Load:
    """What the processes of one test do.

    Attributes:
        threads: how many there are.
        waited: the most seconds that one of them was ready to run, and no core was free.
    """

    threads: int = 0
    waited: float = 0.0


def run_test(
    command: Sequence[str], program: str, test: Test, limits: Limits, *, filtered: bool, paths: Sequence[str] = ()
) -> Outcome:
    """Run one test in a process of its own. Total: whatever happens becomes an outcome.

    Args:
        command: that starts the guest (:mod:`rvpo.sandbox.guest.main`).
        program: the text of the program.
        test: what is asked of it.
        limits: what it may use.
        filtered: whether the guest restricts what the program may ask of the kernel.
        paths: folders with packages that programs and tests may import.
    """
    trouble = ""
    for _ in range(TRIES):
        try:
            frames, secret = _frames(program, test, limits, filtered, paths)
            report = _talk(command, frames, limits)
        except Exception as error:
            return Outcome.missing(escaped(f"{type(error).__name__}: {error}", MAX_DETAIL_CHARS))
        message = report.message
        if message is not None and message.get("reason") != "outside":
            return _outcome(message, test, secret)
        trouble = str(message.get("detail", "")) if message is not None else report.trouble
        if not report.started:
            break
    return Outcome.missing(escaped(trouble, MAX_DETAIL_CHARS))


def _frames(program: str, test: Test, limits: Limits, filtered: bool, paths: Sequence[str]) -> tuple[bytes, str]:
    secret = secrets.token_hex(16)
    task = {
        "program": program,
        "setup": reduced(test.setup, program),
        "kind": "stdin",
        "stdin": test.stdin,
        "cpu": limits.seconds,
        "wall": limits.wall,
        "memory": limits.memory_mb * MB,
        "files": limits.file_mb * MB,
        "processes": limits.processes,
        "output": limits.output_kb * 1024,
        "filter": filtered,
        "paths": list(paths),
    }
    asked: dict[str, Any] = {}
    if test.kind == "call":
        needs = needs_of(test.code)
        task["kind"] = "shared" if needs.shared else "call"
        asked = {"code": test.code, "prefer": needs.prefer, "secret": secret}
    return b"".join(len(data).to_bytes(4, "big") + data for data in map(_line, (task, asked))), secret


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def _outcome(message: dict[str, Any], test: Test, secret: str) -> Outcome:
    reason, seconds = message.get("reason"), message.get("seconds")
    took = float(seconds) if isinstance(seconds, int | float) else 0.0
    detail = escaped(str(message.get("detail", "")), MAX_DETAIL_CHARS)
    if reason == "printed" and test.kind == "stdin":
        if (difference := difference_of(str(message.get("output", "")), test.expected, close=test.close)) is None:
            return Outcome(True, "passed", "", took)
        return Outcome(False, "wrong_answer", escaped(difference, MAX_DETAIL_CHARS), took)
    if reason == "passed" and test.kind == "call":
        return Outcome(True, "passed", "", took)
    if reason in REASONS and reason not in ("passed", "sandbox"):
        return Outcome(False, reason, detail, took)
    if reason == "unusable":
        return Outcome.missing(f"the test cannot run in this sandbox: {detail}")
    return Outcome.missing(f"a report of {escaped(repr(reason), 80)}")


def _talk(command: Sequence[str], frames: bytes, limits: Limits) -> Report:
    """Start the process, write, and read until there is a report, or too much, or no more time."""
    process = subprocess.Popen(  # noqa: S603 - our own command, no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    )
    try:
        return _Conversation(process, frames, limits).report()
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        with suppress(OSError):
            pipe.close()


class _Conversation:
    """What is written to, and read from, one process."""

    def __init__(self, process: subprocess.Popen[bytes], frames: bytes, limits: Limits) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._limits = process, limits
        self._load, self._looked = Load(), time.monotonic()
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._unsent = memoryview(frames)
        self._said, self._complained = bytearray(), bytearray()
        self._most = limits.output_kb * 1024 * 7 + MB  # a byte of output may be written as \\u1234

    def report(self) -> Report:
        started = False
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            for pipe, event in (
                (self._stdin, selectors.EVENT_WRITE),
                (self._stdout, selectors.EVENT_READ),
                (self._stderr, selectors.EVENT_READ),
            ):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, event)
            while selector.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    return self._late(started)
                for key, _ in selector.select(min(left, 0.2)):
                    self._move(selector, key.fileobj)
                frames = self._frames()
                if frames is None:
                    return Report(None, started, "a report that is too long")
                if frames and not started:
                    started, deadline = True, time.monotonic() + self._limits.wall + END_SECONDS
                if len(frames) > 1:
                    return self._checked(self._read(frames[1]))
                if started and self._too_many():
                    detail = f"more than {self._limits.processes} threads"
                    return Report({"reason": "killed", "detail": detail}, True, "")
        self._process.wait()
        said = self._complained.decode("utf-8", "replace").strip() or f"exit code {self._process.returncode}"
        return Report(None, started, f"the sandbox ended: {said}")

    def _too_many(self) -> bool:
        """Look at the processes, every fifth of a second: the kernel does not count those of root."""
        if time.monotonic() < self._looked + 0.2:
            return False
        self._load, self._looked = look_below(self._process.pid), time.monotonic()
        return self._load.threads > self._limits.processes + 3  # bwrap, the first process of the sandbox, the program's

    def _checked(self, report: Report) -> Report:
        """Take back a verdict that a busy machine gave: a program that had no core for half of its time."""
        message = report.message or {}
        if message.get("reason") == "timeout" and message.get("wall") and self._load.waited > self._limits.wall / 2:
            detail = f"no core was free for {self._load.waited:.1f} of {self._limits.wall:g} s: use fewer workers"
            return Report({"reason": "outside", "detail": detail}, True, "")
        return report

    def _late(self, started: bool) -> Report:
        if started:
            return Report({"reason": "timeout", "detail": "no report at the limit in all"}, True, "")
        return Report(None, False, f"the sandbox did not start within {START_SECONDS:g} s")

    def _move(self, selector: selectors.BaseSelector, pipe: Any) -> None:
        try:
            if pipe is self._stdin:
                self._unsent = self._unsent[os.write(pipe.fileno(), self._unsent[: 1 << 16]) :]
                if not self._unsent:
                    selector.unregister(pipe)
                return
            part = os.read(pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            selector.unregister(pipe)
        elif pipe is self._stdout:
            self._said += part
        elif len(self._complained) < 4096:
            self._complained += part

    def _frames(self) -> list[bytes] | None:
        """Return the frames that have come whole; None where one is longer than anything that is sent."""
        found, at = [], 0
        while len(self._said) >= at + 4:
            length = int.from_bytes(self._said[at : at + 4], "big")
            if length > self._most:
                return None
            if len(self._said) < at + 4 + length:
                break
            found.append(bytes(self._said[at + 4 : at + 4 + length]))
            at += 4 + length
        return found

    def _read(self, frame: bytes) -> Report:
        try:
            message = json.loads(frame)
        except (ValueError, RecursionError):
            return Report(None, True, "a report that is not JSON")
        return Report(message if isinstance(message, dict) else None, True, "a report that is not an object")


def look_below(root: int) -> Load:
    """Return what the processes below one do, as /proc says; zeros where it does not."""
    threads, waited, left = 0, 0.0, [root]
    while left and threads < 1 << 16:
        pid = left.pop()
        with suppress(OSError, ValueError):
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            threads += len(tasks)
            for folder in tasks[:64]:
                left += [int(child) for child in (folder / "children").read_text().split()]
                waited = max(waited, int((folder / "schedstat").read_text().split()[1]) / 1e9)
    return Load(threads, waited)
