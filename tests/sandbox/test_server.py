"""Programs run by a server: verdicts as in our own sandbox; whatever the server does wrong is missing."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("aiohttp")

from fusion_server import FusionServer, failed, response, status, text
from raw_server import ok
from rvpo.net import limits as waiting
from rvpo.sandbox import Limits, Outcome, Test, open_sandbox

LIMITS = Limits(seconds=1.0, wall_seconds=20.0, output_kb=64)
CALL = Test("t", "call", "assert f(1) == 2")
PRINTED = Test("t", "stdin", stdin="1\n", expected="2")


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nap(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(waiting, "sleep", nap)


def run(server: FusionServer, program: str, *tests: Test, limits: Limits = LIMITS) -> list[Outcome]:
    return asyncio.run(open_sandbox(server.url).run(program, tests, limits))


@pytest.mark.parametrize(
    ("program", "test", "reason"),
    [
        ("def f(x):\n    return x + 1", CALL, "passed"),
        ("def f(x):\n    return x", CALL, "assert"),
        ("def f(x):\n    return x +", CALL, "syntax"),
        ("def f(x):\n    return 1 / 0", CALL, "exception"),
        ("import sys\nsys.exit(0)", CALL, "killed"),
        ("import os\nos._exit(0)", CALL, "killed"),
        ("def f(x):\n    print('passed')\n    raise SystemExit(0)", CALL, "killed"),
        ("print(int(input()) + 1)", PRINTED, "passed"),
        ("print(3)", PRINTED, "wrong_answer"),
        ("print(2)\n1 / 0", PRINTED, "exception"),
        (
            "from __future__ import annotations\nprint(2)",
            Test("t", "stdin", expected="2", setup="import math"),
            "passed",
        ),
        ("print(2", Test("t", "stdin", expected="2", setup="import math"), "syntax"),
        ("print(ceil(1.5))", Test("t", "stdin", expected="2", setup="from math import *"), "passed"),
        ("print('2' * 100_000)", Test("t", "stdin", expected="2" * 100_000), "passed"),
        ("print('2' * 100_000)", PRINTED, "output"),
        ("print('2' * 10_000_000)", PRINTED, "output"),
    ],
)
def test_verdicts(program: str, test: Test, reason: str):
    with FusionServer() as server:
        [outcome] = run(server, program, test)
    assert outcome.reason == reason, outcome
    assert outcome.passed is (reason == "passed")


def test_a_program_that_takes_too_long_fails():
    with FusionServer() as server:
        [outcome] = run(server, "while True: pass", PRINTED, limits=Limits(seconds=0.5, wall_seconds=0.5))
    assert (outcome.passed, outcome.reason) == (False, "timeout")


FINISHED = response("Finished", 0, "2", "", 0.1)
FAULTS = {
    "hangs up": None,
    "no HTTP": b"hello\r\n\r\n",
    "not JSON": text("<html>"),
    "deep JSON": text("[" * 100_000),
    "a list": text("[]"),
    "an error of the sandbox": failed(),
    "HTTP 500": status(500),
    "HTTP 404": status(404),
    "no run_result": ok({"status": "Success", "run_result": None}),
    "an unknown status": ok({**FINISHED, "run_result": {**FINISHED["run_result"], "status": "Odd"}}),
    "an error of the run": ok({**FINISHED, "run_result": {**FINISHED["run_result"], "status": "Error"}}),
    "no output": ok({**FINISHED, "run_result": {**FINISHED["run_result"], "stdout": None}}),
    "a return code that is text": ok({**FINISHED, "run_result": {**FINISHED["run_result"], "return_code": "0"}}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_makes_verdicts_missing(fault: str):
    with FusionServer(dict.fromkeys(range(100), FAULTS[fault])) as server:
        [outcome] = run(server, "print(2)", PRINTED)
    assert (outcome.passed, outcome.reason) == (None, "sandbox"), outcome


def test_one_fault_is_asked_again():
    with FusionServer({0: status(503), 1: failed(), 2: None}) as server:
        [outcome] = run(server, "print(2)", PRINTED)
    assert outcome.passed is True


def test_nobody_there_is_missing():
    [outcome] = asyncio.run(open_sandbox("http://127.0.0.1:9").run("print(2)", [PRINTED], LIMITS))
    assert outcome.passed is None
