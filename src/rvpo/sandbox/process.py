"""Run one test in one process: send the task, and interpret the report."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from rvpo.sandbox.analysis import needs_of
from rvpo.sandbox.compare import difference_of
from rvpo.sandbox.conversation import MB, PATIENCE, talk
from rvpo.sandbox.granted import reduced
from rvpo.sandbox.outcomes import REASONS, Limits, Outcome, Test
from rvpo.text.quoting import escaped

TRIES = 3  # attempts at a test whose process was ended from outside
MAX_DETAIL_CHARS = 300


def run_test(
    command: Sequence[str], program: str, test: Test, limits: Limits, *, filtered: bool, paths: Sequence[str] = ()
) -> Outcome:
    """Run one test in its own process. Everything that happens becomes an outcome, never an exception.

    Args:
        command: command that starts the guest (:mod:`rvpo.sandbox.guest.main`).
        program: source code of the program.
        test: test to run.
        limits: limits of the test.
        filtered: whether the guest filters the system calls of the program.
        paths: folders with packages that programs and tests may import.
    """
    trouble, shared = "", False
    for _ in range(TRIES):
        try:
            frames, secret = _frames(program, test, limits, filtered, paths, shared)
            report = talk(command, frames, limits, limits.output_bytes(test))
        except Exception as error:
            return Outcome.missing(escaped(f"{type(error).__name__}: {error}", MAX_DETAIL_CHARS))
        message = report.message
        if message is not None and message.get("reason") == "unshareable" and not shared:
            shared = True
            continue
        if message is not None and message.get("reason") != "outside":
            return _outcome(message, test, secret)
        trouble = str(message.get("detail", "")) if message is not None else report.trouble
        if not report.started:
            break
    return Outcome.missing(escaped(trouble, MAX_DETAIL_CHARS))


def _frames(
    program: str, test: Test, limits: Limits, filtered: bool, paths: Sequence[str], shared: bool
) -> tuple[bytes, str]:
    secret = secrets.token_hex(16)
    task = {
        "program": program,
        "setup": reduced(test.setup, program),
        "kind": "stdin",
        "stdin": test.stdin,
        "cpu": limits.seconds,
        "wall": limits.wall * PATIENCE,
        "memory": limits.memory_mb * MB,
        "files": limits.file_mb * MB,
        "processes": limits.processes,
        "output": limits.output_bytes(test),
        "filter": filtered,
        "paths": list(paths),
    }
    asked: dict[str, Any] = {}
    if test.kind == "call":
        needs = needs_of(test.code)
        task["kind"] = "shared" if needs.shared or shared else "call"
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
