"""Run programs against tests for code rewards. Known outcomes come from a cache, and totals are counted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rvpo.errors import ConfigError, JudgeError
from rvpo.forks import ForkedLock
from rvpo.sandbox.outcomes import Limits, Outcome, Sandbox, Test
from rvpo.sandbox.store import OutcomeStore

logger = logging.getLogger(__name__)

TOTALS = ("programs", "without_program", "tests", "passed", "missing", "timeouts", "seconds", "cache_hits")
_VERSION = 2  # version of the keys of the cache, and of the rules that decide an outcome outside of the guest
NO_PROGRAM = Outcome(False, "no_program", "the reply contains no program")


class ProgramRunner:
    """Runs each program once in a sandbox, and counts. Safe for threads, event loops and forks."""

    reads_pictures = True
    """Prompts may have pictures, because tests do not need them."""

    def __init__(self, sandbox: Sandbox, limits: Limits, cache: str | None) -> None:
        """Open the cache.

        Raises:
            ConfigError: the sandbox lacks a method, or the cache cannot be used.
        """
        if not isinstance(sandbox, Sandbox):
            raise ConfigError(
                f"sandbox is a {type(sandbox).__name__}; expected a text, or an object with the methods of "
                "rvpo.sandbox.Sandbox. Add `run` and `identity` to your class"
            )
        self._sandbox, self._limits, self._store = sandbox, limits, OutcomeStore(cache)
        settings = [_VERSION, sandbox.identity(), asdict(limits)]
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()
        self._totals: Counter[str] = Counter()
        self._lock = ForkedLock()
        self._warned: set[str] = set()

    async def outcomes(
        self, tasks: Sequence[tuple[str | None, Sequence[Test]]], repeat: int = 0
    ) -> list[list[Outcome]]:
        """Return the outcome of each test of each program, in order. Equal tests of equal programs are run once.

        Args:
            tasks: programs with their tests. A program is None if the reply contains none.
            repeat: 1 runs tests with known outcomes again.
        """
        wanted: dict[str, dict[bytes, Test]] = {}
        keys: list[list[bytes]] = []
        for program, tests in tasks:
            own = [] if program is None else [self._key(program, test, repeat) for test in tests]
            keys.append(own)
            if program is not None:
                wanted.setdefault(program, {}).update(zip(own, tests, strict=True))
        known = self._store.get([key for tests in wanted.values() for key in tests])
        open_tests = {p: {k: t for k, t in tests.items() if k not in known} for p, tests in wanted.items()}
        ran = await asyncio.gather(*(self._run(p, tests) for p, tests in open_tests.items() if tests))
        found = {**known, **{key: outcome for part in ran for key, outcome in part.items()}}
        self._count(tasks, found, known)
        return [
            [NO_PROGRAM] * len(tests) if program is None else [found[key] for key in own]
            for (program, tests), own in zip(tasks, keys, strict=True)
        ]

    async def check(self) -> None:
        """Run one small program.

        Raises:
            JudgeError: the sandbox does not run it.
        """
        test = Test("check", "call", "assert f(1) == 2")
        [outcome] = await self._sandbox.run("def f(x):\n    return x + 1\n", [test], self._limits)
        if outcome.passed is not True:
            reason = f"{outcome.reason}: {outcome.detail}"
            raise JudgeError(
                f"the sandbox does not run a small program ({reason}); expected a sandbox that works. Start the "
                "server, or choose another sandbox"
            )

    def usage(self) -> dict[str, float]:
        """Return totals since construction, with the keys :data:`TOTALS`. ``seconds`` covers tests that were run."""
        with self._lock:
            return {name: float(self._totals[name]) for name in TOTALS}

    async def _run(self, program: str, tests: dict[bytes, Test]) -> dict[bytes, Outcome]:
        given = await self._sandbox.run(program, list(tests.values()), self._limits)
        outcomes = dict(zip(tests, given, strict=True))
        self._store.put(outcomes)
        for outcome in given:
            self._warn(outcome)
        return outcomes

    def _warn(self, outcome: Outcome) -> None:
        """Warn once about problems that the metrics alone do not explain."""
        if outcome.passed is None and "missing" not in self._warned:
            self._warned.add("missing")
            logger.warning("a test could not be run, so its outcome is missing (warned once): %s", outcome.detail)
        name = outcome.detail.partition("No module named ")[2]
        if name and "module" not in self._warned:
            self._warned.add("module")
            logger.warning(
                "a program fails because it imports %s, which the sandbox does not have (warned once). If programs may "
                "use the packages installed here, set the sandbox to 'bubblewrap:packages'",
                name[:80],
            )

    def _key(self, program: str, test: Test, repeat: int) -> bytes:
        # The name is left out: equal tests of two prompts have equal keys.
        asked = [program, test.kind, test.code, test.stdin, test.expected, test.setup, test.close, repeat]
        return hashlib.sha256(self._settings + json.dumps(asked).encode()).digest()

    def _count(
        self,
        tasks: Sequence[tuple[str | None, Sequence[Test]]],
        found: dict[bytes, Outcome],
        known: dict[bytes, Outcome],
    ) -> None:
        ran = [outcome for key, outcome in found.items() if key not in known]
        with self._lock:
            self._totals["programs"] += len(tasks)
            self._totals["without_program"] += sum(program is None for program, _ in tasks)
            self._totals["tests"] += len(ran)
            self._totals["cache_hits"] += len(known)
            self._totals["passed"] += sum(outcome.passed is True for outcome in ran)
            self._totals["missing"] += sum(outcome.passed is None for outcome in ran)
            self._totals["timeouts"] += sum(outcome.reason == "timeout" for outcome in ran)
            self._totals["seconds"] += sum(outcome.seconds for outcome in ran)  # type: ignore[assignment]
