"""Tests, limits and outcomes: the interface between programs and sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from rvpo.errors import ConfigError

REASONS = (
    "passed",
    "wrong_answer",  # the output of the program is not the expected output
    "assert",  # an assertion of the test does not hold
    "exception",  # the program, or the test that calls it, raises an exception
    "syntax",  # the program cannot be compiled
    "timeout",  # the program exceeds the limit on CPU time or on wall-clock time
    "memory",  # the program exceeds the memory limit
    "output",  # the program writes more than the output limit
    "killed",  # the program ended in the middle of a test: by a crash, a signal, or by itself
    "sandbox",  # the test could not be run, so nothing is known about the program
)
"""Reasons for the end of a test."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test of one prompt.

    Attributes:
        name: name of its channel, unique within the prompt.
        kind: ``call``: ``code`` runs after the program and uses its names. ``stdin``: the program reads ``stdin``, and
            its output is compared with ``expected``.
        code: Python code with asserts, for ``call``.
        stdin: standard input of the program, for ``stdin``.
        expected: output of a right program, for ``stdin``; see :mod:`rvpo.sandbox.compare`.
        close: whether numbers in the output only need to be close, for ``stdin``; see :mod:`rvpo.sandbox.compare`.
        setup: Python code that runs before the program in its namespace, such as imports that a benchmark adds.
    """

    __test__ = False  # so that pytest does not collect it as a class of tests

    name: str
    kind: Literal["call", "stdin"]
    code: str = ""
    stdin: str = ""
    expected: str = ""
    setup: str = ""
    close: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one test.

    Attributes:
        seconds: CPU time of the program, in seconds. A busy machine does not change an outcome.
        wall_seconds: wall-clock time, in seconds, for programs that sleep or wait; None is 5 s plus twice ``seconds``.
            Time in which no core was free does not count, up to four times this limit. Beyond that, the outcome is
            missing.
        memory_mb: address space of the program, in MiB.
        processes: total number of threads and processes of the program, 1 to 4096. New processes are always refused,
            as in the benchmarks; new threads are not.
        file_mb: total size of the files that the program writes, in MiB. They are in memory.
        output_kb: size of the output, in KiB. If a test expects more, the limit is twice the expected output.
    """

    seconds: float = 6.0
    wall_seconds: float | None = None
    memory_mb: int = 1024
    processes: int = 64
    file_mb: int = 16
    output_kb: int = 1024

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ConfigError: a limit cannot work.
        """
        bounds = {
            "seconds": (0.05, 3600.0),
            "wall_seconds": (0.05, 10 * 3600.0),
            "memory_mb": (64, 1 << 20),
            "processes": (1, 4096),
            "file_mb": (1, 1 << 16),
            "output_kb": (1, 1 << 17),
        }
        for name, (lowest, highest) in bounds.items():
            value = getattr(self, name)
            if name == "wall_seconds" and value is None:
                continue
            kinds = (int, float) if name in ("seconds", "wall_seconds") else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not lowest <= value <= highest:
                expected = "a number" if float in kinds else "a whole number"
                raise ConfigError(
                    f"limit {name} is {value!r}; expected {expected} from {lowest} to {highest}. Correct it"
                )

    @property
    def wall(self) -> float:
        """Wall-clock limit of a test, in seconds."""
        return 5.0 + 2.0 * self.seconds if self.wall_seconds is None else float(self.wall_seconds)

    def output_bytes(self, test: Test) -> int:
        """Return the output limit of a test, in bytes. It is always larger than the expected output."""
        return max(self.output_kb * 1024, 2 * len(test.expected.encode("utf-8", "surrogatepass")))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one test.

    Attributes:
        passed: whether the test passed; None if it could not be run, which is a failure of the sandbox.
        reason: one of :data:`REASONS`; ``passed`` if it passed, ``sandbox`` if ``passed`` is None.
        detail: short explanation, without terminal control characters.
        seconds: duration of the test in seconds, without the start of the sandbox.
    """

    passed: bool | None
    reason: str
    detail: str = ""
    seconds: float = 0.0

    @classmethod
    def missing(cls, detail: str) -> Outcome:
        """Return the outcome of a test that could not be run."""
        return cls(None, "sandbox", detail)


@runtime_checkable
class Sandbox(Protocol):
    """Protocol of sandboxes. Calls may come from several threads, event loops and forked processes."""

    def identity(self) -> dict[str, Any]:
        """Return everything that decides an outcome, as plain JSON for records."""
        ...

    async def run(self, program: str, tests: Sequence[Test], limits: Limits) -> list[Outcome]:
        """Run a program against tests, each in its own process. Return one outcome per test, in order.

        Never raises because of a program or of a failure of the sandbox. If the sandbox fails, ``passed`` is None.
        """
        ...
