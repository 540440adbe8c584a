"""What is run, within what limits, and what came of it: the seam between programs and whoever runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from rvpo.errors import ConfigError

REASONS = (
    "passed",
    "wrong_answer",  # the output of the program is not the expected one
    "assert",  # an assertion of the test does not hold
    "exception",  # the program, or the test that calls it, raises
    "syntax",  # the program cannot be compiled
    "timeout",  # more processor time, or more time in all, than the limits grant
    "memory",  # the program asks for more memory than the limits grant
    "output",  # it writes more than the limits grant
    "killed",  # it ended in the middle of a test: by a crash, a signal, or by itself
    "sandbox",  # it could not be run: nothing is known of the program
)
"""Why a test ended as it did."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test of one prompt.

    Attributes:
        name: of its channel, unique within the prompt.
        kind: ``call``: ``code`` runs after the program and uses its names; ``stdin``: the program reads ``stdin``, and
            what it prints is compared with ``expected``.
        code: Python with asserts, for ``call``.
        stdin: for ``stdin``.
        expected: what a right program prints, for ``stdin``; compared as :mod:`rvpo.sandbox.compare` says.
        close: whether numbers in the output need only be close, for ``stdin``; see :mod:`rvpo.sandbox.compare`.
        setup: Python that runs before the program and in its namespace, such as imports that a benchmark grants.
    """

    __test__ = False  # pytest: not a class of tests

    name: str
    kind: Literal["call", "stdin"]
    code: str = ""
    stdin: str = ""
    expected: str = ""
    setup: str = ""
    close: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What one test may use.

    Attributes:
        seconds: processor time of the program; a busy machine does not change a verdict.
        wall_seconds: time in all, for programs that sleep or wait; None is 5 s and twice ``seconds``. Time in which no
            core was free does not count, up to four times this limit; beyond that, a test is missing.
        memory_mb: address space of the program in MiB.
        processes: threads and processes of the program in all. 1 to 4096. New processes are refused in any case, as
            the benchmarks do; threads are not.
        file_mb: size of all files in MiB that the program writes, in memory.
        output_kb: what it may print in KiB; where a test expects more, up to twice what is expected.
    """

    seconds: float = 6.0
    wall_seconds: float | None = None
    memory_mb: int = 1024
    processes: int = 64
    file_mb: int = 16
    output_kb: int = 1024

    def __post_init__(self) -> None:
        """Raise ConfigError where a limit cannot work."""
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
                    f"limit {name} is {value!r}; expected {expected} from {lowest} to {highest}: correct it"
                )

    @property
    def wall(self) -> float:
        """Seconds in all that a test may take."""
        return 5.0 + 2.0 * self.seconds if self.wall_seconds is None else float(self.wall_seconds)

    def output_bytes(self, test: Test) -> int:
        """Return what a program may print in one test: no right one is ended by a limit below what is expected."""
        return max(self.output_kb * 1024, 2 * len(test.expected.encode("utf-8", "surrogatepass")))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one test.

    Attributes:
        passed: None where it could not be run: a failure of the sandbox, not of the program.
        reason: one of :data:`REASONS`; ``passed`` where it passed, ``sandbox`` where ``passed`` is None.
        detail: a short text with nothing in it that could steer a terminal.
        seconds: that the test took, without the start of the sandbox.
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
    """Whoever runs programs. Calls may come from several threads, event loops and forked processes."""

    def identity(self) -> dict[str, Any]:
        """Return what decides an outcome, as plain JSON for records."""
        ...

    async def run(self, program: str, tests: Sequence[Test], limits: Limits) -> list[Outcome]:
        """Run a program against tests, each in a process of its own; return one outcome per test, in order.

        Never raises for what a program does, nor for trouble of the sandbox: such a test has ``passed=None``.
        """
        ...
