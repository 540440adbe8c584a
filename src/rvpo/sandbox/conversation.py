"""Communicate with the process of one test, with limits on bytes, time and threads. It is always ended as a whole."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.sandbox.outcomes import Limits

START_SECONDS = 60.0  # for the start of the sandbox, on a busy machine
END_SECONDS = 1.0  # for a process to end by itself after its report
LATE_SECONDS = 5.0  # after all limits, for a report that is being sent
LOOK_SECONDS = 0.2  # between two looks at the processes
PATIENCE = 4.0  # factor on the wall-clock limit for a program for which no core is free
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one process.

    Attributes:
        message: report of the process; None without a report.
        started: whether the sandbox had started when the process ended.
        trouble: message of the sandbox itself, or what happened to it.
        said: whether the message came from the process, which then ends.
    """

    message: dict[str, Any] | None
    started: bool
    trouble: str
    said: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """The load of the processes of one test.

    Attributes:
        threads: number of threads.
        waited: longest time, in seconds, for which one of them was ready to run while no core was free.
    """

    threads: int = 0
    waited: float = 0.0


def talk(command: Sequence[str], frames: bytes, limits: Limits, output_bytes: int) -> Report:
    """Start the process, write the task, and read until a report comes or a limit is reached.

    Args:
        command: command that starts the guest.
        frames: bytes to write to the process.
        limits: limits of the test.
        output_bytes: output limit of the program, in bytes.
    """
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
        report = _Conversation(process, frames, limits, output_bytes).report()
        if report.message is not None:  # the report is the last message, so the process ends by itself
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS if report.said else 0)
        return report
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
    """The exchange with one process."""

    def __init__(self, process: subprocess.Popen[bytes], frames: bytes, limits: Limits, output_bytes: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._limits = process, limits
        self._load, self._looked = Load(), time.monotonic()
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._unsent = memoryview(frames)
        self._said, self._complained = bytearray(), bytearray()
        self._most = output_bytes * 7 + MB  # a byte of output may be written as \\u1234

    def report(self) -> Report:
        """Write the task, and read until a report comes or a limit is reached."""
        self._began, started = time.monotonic(), False
        with selectors.DefaultSelector() as selector:
            for pipe, event in (
                (self._stdin, selectors.EVENT_WRITE),
                (self._stdout, selectors.EVENT_READ),
                (self._stderr, selectors.EVENT_READ),
            ):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, event)
            while selector.get_map():
                for key, _ in selector.select(LOOK_SECONDS):
                    self._move(selector, key.fileobj)
                frames = self._frames()
                if frames is None:
                    return Report(None, started, "a report that is too long")
                if frames and not started:
                    self._began, started = time.monotonic(), True
                if len(frames) > 1:
                    return self._checked(self._read(frames[1]))
                if ended := self._broken(started):
                    return ended
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LATE_SECONDS)
        said = self._complained.decode("utf-8", "replace").strip() or f"exit code {self._process.returncode}"
        return Report(None, started, f"the sandbox ended: {said}")

    def _broken(self, started: bool) -> Report | None:
        """Return the end of a test that breaks a limit which only the outside can see; None if it does not."""
        now = time.monotonic()
        took = now - self._began
        if not started:
            late = took > START_SECONDS
            return Report(None, False, f"the sandbox did not start within {START_SECONDS:g} s") if late else None
        if now < self._looked + LOOK_SECONDS:
            return None
        self._load, self._looked = look_below(self._process.pid), now
        # The kernel does not count root's threads. Three belong to bwrap, the test's process, and the program itself.
        if self._load.threads > self._limits.processes + 3:
            return _ended("killed", f"more than {self._limits.processes} threads")
        if took > self._limits.wall * PATIENCE + LATE_SECONDS:
            return _ended("timeout", "no report at the wall-clock limit")
        # Time in which no core was free does not count, because the program did not cause it.
        if took - self._load.waited > self._limits.wall + LOOK_SECONDS:
            return _ended("timeout", f"more than {self._limits.wall:g} s of wall-clock time")
        return None

    def _checked(self, report: Report) -> Report:
        """Replace a timeout that a busy machine caused, because the program had no core for most of its time."""
        message = report.message or {}
        if message.get("reason") == "timeout" and message.get("wall") and self._load.waited > self._limits.wall:
            detail = f"no core was free for {self._load.waited:.1f} s; use fewer workers"
            return _ended("outside", detail)
        return report

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
        """Return the complete frames so far; None if one is longer than the maximum."""
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
        known = message if isinstance(message, dict) else None
        return Report(known, True, "a report that is not an object", said=True)


def look_below(root: int) -> Load:
    """Return the load of a process and its descendants, from /proc; zeros if it is unknown."""
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


def _ended(reason: str, detail: str) -> Report:
    return Report({"reason": reason, "detail": detail}, True, "")
