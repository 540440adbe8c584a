"""What a test costs: in our sandbox, in a bare process of ours, and in a bare Python.

    python benchmarks/code/throughput.py [--tests 200] [--workers 1]

Printed are tests per second on the wall, and processor seconds per test of the processes that were started, which a
busy machine changes less: 1 / that number is what one core does in a second.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Callable

from rvpo.sandbox import Limits, Sandbox, Test, open_sandbox

PROGRAM = "def f(x):\n    return x + {}\n"
SCRIPT = "print(int(input()) + {})\n"
CALL = Test("call", "call", "assert f(1) >= 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    executable = getattr(sys, "_base_executable", sys.executable)
    bare = [executable, "-I", "-S", "-c"]
    measure("python -I -S -c pass", options.tests, lambda n: _bare([*bare, "pass"], n))
    measure("python -I -S -c PROGRAM", options.tests, lambda n: _bare([*bare, PROGRAM.format(1) + CALL.code], n))
    for spec in ("unsafe-subprocess", "bubblewrap"):
        sandbox = open_sandbox(spec, workers=options.workers)
        measure(f"{spec}, a call", options.tests, lambda n, s=sandbox: asyncio.run(_calls(s, n)))
        measure(f"{spec}, a script", options.tests, lambda n, s=sandbox: asyncio.run(_scripts(s, n)))


def _bare(command: list[str], count: int) -> None:
    for _ in range(count):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


async def _calls(sandbox: Sandbox, count: int) -> None:
    runs = [sandbox.run(PROGRAM.format(i), [CALL], Limits()) for i in range(count)]
    assert all(outcome.passed for [outcome] in await asyncio.gather(*runs))


async def _scripts(sandbox: Sandbox, count: int) -> None:
    tests = [Test("t", "stdin", stdin="0\n", expected=str(i)) for i in range(count)]
    runs = [sandbox.run(SCRIPT.format(i), [tests[i]], Limits()) for i in range(count)]
    assert all(outcome.passed for [outcome] in await asyncio.gather(*runs))


def measure(name: str, count: int, run: Callable[[int], None]) -> None:
    run(3)
    before, began = _processor(), time.perf_counter()
    run(count)
    wall, used = time.perf_counter() - began, _processor() - before
    print(
        f"{name:32} {count / wall:7.1f} tests/s on the wall  {1000 * used / count:7.2f} ms of a core per test",
        flush=True,
    )


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
