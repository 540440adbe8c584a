"""``ServerSandbox``: run programs on a server with Sandbox Fusion's ``POST /run_code``.

Request and answer have the form of bytedance/SandboxFusion (``sandbox/server/sandbox_api.py``). The request has
``code``, ``language``, ``stdin``, ``run_timeout``, ``compile_timeout`` and ``memory_limit_MB``. The answer has
``status`` (``Success``, ``Failed``, ``SandboxError``) and ``run_result``: ``status`` (``Finished``,
``TimeLimitExceeded``, ``Error``), ``stdout``, ``stderr``, ``return_code`` and ``execution_time``.

The server is responsible for isolation. It runs one process per test, so program and test share a process. A test with
asserts passes if a secret comes back at the end of the output. The secret is sent on standard input, and is read after
the program has been loaded. So a program that only ends, prints or exits does not know it. But a program that is
written against this code can get it. If the answer is not a well-formed answer of a finished run, the outcome is
missing after ``RETRIES`` further attempts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rvpo.errors import ConfigError
from rvpo.net import limits as waiting
from rvpo.net.failures import TooLongError, TransportError
from rvpo.net.http import Connection
from rvpo.net.loops import PerLoop
from rvpo.sandbox.compare import difference_of
from rvpo.sandbox.granted import reduced
from rvpo.sandbox.outcomes import Limits, Outcome, Test
from rvpo.sandbox.pool import check_test
from rvpo.text.quoting import escaped

logger = logging.getLogger(__name__)

RETRIES = 3
CONCURRENCY = 32  # default number of requests in flight
QUEUE_SECONDS = 60.0  # time for which a busy server may let a request wait
MAX_DETAIL_CHARS = 300

_DRIVER = """
import sys as _sys, json as _json
_program, _setup = _json.loads({sources})
_scope = {{"__name__": "builtins"}}
exec(compile(_setup, "<setup>", "exec"), _scope)
exec(compile(_program, "<program>", "exec"), _scope)
_test = _json.loads(_sys.__stdin__.readline())
try:
    exec(compile(_test["code"], "<test>", "exec"), _scope)
except AssertionError as _error:
    _sys.__stdout__.write("\\n" + _test["refused"])
    raise
_sys.__stdout__.write("\\n" + _test["secret"])
_sys.__stdout__.flush()
"""


# Setup and program are compiled separately, because a program may begin with `from __future__`.
_SCRIPT = """
import json as _json
_setup, _program = _json.loads({sources})
exec(compile(_setup, "<setup>", "exec"))
exec(compile(_program, "<program>", "exec"))
"""


@dataclass(slots=True, eq=False)
class _Lane:
    """Objects that belong to one event loop."""

    connection: Connection
    owner: AsyncGenerator[Connection]
    slots: asyncio.Semaphore


class ServerSandbox:
    """Runs programs on a server. Safe for event loops, threads and forked processes.

    Args:
        url: URL of the server, with or without ``/run_code``.
        workers: number of requests in flight; None is ``CONCURRENCY``.

    Raises:
        ConfigError: the URL is not the URL of a server.
    """

    def __init__(self, url: str, workers: int | None = None) -> None:
        """Keep the URL, without asking the server."""
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError(f"sandbox is {url!r}; expected the URL of a server, such as http://localhost:8080")
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise ConfigError(f"workers is {workers!r}; expected a whole number of at least 1, or None")
        self._url = url.rstrip("/").removesuffix("/run_code")
        self._workers = workers or CONCURRENCY
        self._lanes = PerLoop(self._open_lane)
        self._warned = False

    def identity(self) -> dict[str, Any]:
        """Return everything that decides an outcome, without the URL, because a server may move."""
        return {"kind": "sandbox-fusion", "driver": hashlib.sha256(f"{_SCRIPT}{_DRIVER}".encode()).hexdigest()[:16]}

    async def run(self, program: str, tests: Sequence[Test], limits: Limits) -> list[Outcome]:
        """Run a program against tests; see :class:`rvpo.sandbox.Sandbox`."""
        for test in tests:
            check_test(test)
        lane = await self._lanes.get()
        return list(await asyncio.gather(*(self._one(lane, program, test, limits) for test in tests)))

    async def _open_lane(self) -> _Lane:
        owner = _opened(self._url)
        return _Lane(await anext(owner), owner, asyncio.Semaphore(self._workers))

    async def _one(self, lane: _Lane, program: str, test: Test, limits: Limits) -> Outcome:
        secret, refused = secrets.token_hex(16), secrets.token_hex(16)
        body = _request(program, test, limits, secret, refused)
        failure = TransportError("connection", "not asked")
        for attempt in range(RETRIES + 1):
            try:
                async with lane.slots, asyncio.timeout(limits.wall + 10.0 + QUEUE_SECONDS):
                    response = await lane.connection.request("POST", "/run_code", body)
                if response.status != 200:
                    again = response.status in (408, 409, 425, 429) or response.status >= 500
                    wait = waiting.retry_after(response.headers)
                    raise TransportError("server", f"HTTP {response.status}: {response.text[:200]}", again, wait)
                return _read(response.text, test, limits, secret, refused)
            except TooLongError:  # caused by the program, because the rest of an answer is short
                return Outcome(False, "output", "more output than is read from a server")
            except TimeoutError:
                failure = TransportError("timeout", "no answer in time", again=True)
            except TransportError as error:
                failure = error
            if not failure.again or attempt == RETRIES:
                break
            await waiting.sleep(max(waiting.backoff(attempt), failure.wait or 0.0))
        if not self._warned:
            self._warned = True
            logger.warning(
                "sandbox %s: an outcome is missing (%s, warned once): %s", self._url, failure.reason, failure.detail
            )
        return Outcome.missing(escaped(f"{failure.reason}: {failure.detail}", MAX_DETAIL_CHARS))


async def _opened(url: str) -> AsyncGenerator[Connection]:
    """Yield a connection, and close it when the generator is closed. A loop closes its generators at its end."""
    connection = Connection(url, {"user-agent": "rvpo"}, 24 * 3600.0)  # each request has its own limit
    try:
        yield connection
    finally:
        await connection.close()


def _request(program: str, test: Test, limits: Limits, secret: str, refused: str) -> dict[str, Any]:
    setup = reduced(test.setup, program)
    body: dict[str, Any] = {
        "language": "python",
        "compile_timeout": limits.wall,
        "run_timeout": limits.wall,
        "memory_limit_MB": limits.memory_mb,
        "files": {},
        "fetch_files": [],
    }
    if test.kind == "stdin":
        return {**body, "code": _SCRIPT.format(sources=repr(json.dumps([setup, program]))), "stdin": test.stdin}
    asked = json.dumps({"code": test.code, "secret": secret, "refused": refused})
    return {**body, "code": _DRIVER.format(sources=repr(json.dumps([program, setup]))), "stdin": asked + "\n"}


def _read(text: str, test: Test, limits: Limits, secret: str, refused: str) -> Outcome:
    """Return the outcome in an answer of the server.

    Raises:
        TransportError: the answer contains no outcome, or the server failed.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        raise TransportError("malformed", "an answer that is not JSON", again=True) from None
    if not isinstance(answer, dict) or answer.get("status") not in ("Success", "Failed"):
        said = answer.get("message") if isinstance(answer, dict) else None
        raise TransportError("server", f"the sandbox failed: {str(said)[:200]}", again=True)
    result = answer.get("run_result")
    if not isinstance(result, dict):
        raise TransportError("malformed", "an answer without a run_result", again=True)
    took = result.get("execution_time")
    seconds = float(took) if isinstance(took, int | float) and not isinstance(took, bool) and took >= 0 else 0.0
    status, code = result.get("status"), result.get("return_code")
    if status == "TimeLimitExceeded":
        return Outcome(False, "timeout", "more than the wall-clock limit", seconds)
    output, complaint = result.get("stdout"), result.get("stderr")
    if status != "Finished" or type(code) is not int or not isinstance(output, str):
        raise TransportError("malformed", f"a run of status {str(status)[:40]!r}", again=True)
    detail = escaped(_last_line(complaint), MAX_DETAIL_CHARS)
    if len(output) > limits.output_bytes(test):
        return Outcome(False, "output", f"more than {limits.output_bytes(test)} characters of output", seconds)
    if test.kind == "stdin":
        return _printed(output, code, detail, seconds, test)
    if output.endswith(secret) and code == 0:
        return Outcome(True, "passed", "", seconds)
    if output.endswith(refused):
        return Outcome(False, "assert", detail, seconds)
    return Outcome(False, _reason(code, detail), detail, seconds)


def _printed(output: str, code: int, detail: str, seconds: float, test: Test) -> Outcome:
    if code != 0 and detail.partition(":")[0] != "SystemExit" and detail:
        return Outcome(False, _reason(code, detail), detail, seconds)
    difference = difference_of(output, test.expected, close=test.close)
    if difference is None:
        return Outcome(True, "passed", "", seconds)
    return Outcome(False, "wrong_answer", escaped(difference, MAX_DETAIL_CHARS), seconds)


def _reason(code: int, detail: str) -> str:
    name = detail.partition(":")[0]
    known = {"SyntaxError": "syntax", "IndentationError": "syntax", "MemoryError": "memory"}
    return known.get(name, "killed" if code < 0 or code >= 128 or code == 0 else "exception")


def _last_line(complaint: Any) -> str:
    lines = complaint.strip().splitlines() if isinstance(complaint, str) else []
    return str(lines[-1]) if lines else ""
