"""A pool of threads that wait for one test each. Its size is the number of cores, for all event loops and threads.

Threads are used because they are not bound to an event loop, and a sandbox serves several loops. A forked process gets
its own pool.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rvpo.errors import ConfigError, DataError
from rvpo.forks import Forkable, ForkedLock
from rvpo.sandbox.analysis import needs_of
from rvpo.sandbox.outcomes import Limits, Outcome, Test


def cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


class PooledSandbox(Forkable):
    """Runs the tests of programs in a pool. Derived classes implement how one test is run."""

    name = "pooled"

    def __init__(self, workers: int | None) -> None:
        """Set the size of the pool. It is started on first use.

        Args:
            workers: number of tests at the same time; None is the number of cores.

        Raises:
            ConfigError: ``workers`` is not a whole number of at least 1.
        """
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise ConfigError(f"workers is {workers!r}; expected a whole number of at least 1, or None for the cores")
        self.workers = workers or cores()
        self._pool: ThreadPoolExecutor | None = None
        self._lock = ForkedLock()
        self._know_forks()

    def identity(self) -> dict[str, Any]:
        """Return everything that decides an outcome, as plain JSON."""
        raise NotImplementedError

    def run_one(self, program: str, test: Test, limits: Limits) -> Outcome:
        """Run one test, in a thread of the pool."""
        raise NotImplementedError

    async def run(self, program: str, tests: Sequence[Test], limits: Limits) -> list[Outcome]:
        """Run a program against tests; see :class:`rvpo.sandbox.Sandbox`.

        Raises:
            DataError: a test is not Python.
        """
        for test in tests:
            check_test(test)
        pool = self._started()
        futures = [asyncio.wrap_future(pool.submit(self.run_one, program, test, limits)) for test in tests]
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:
                future.cancel()

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="rvpo-sandbox")
            return self._pool

    def _in_child(self) -> None:
        self._pool = None


def check_test(test: Test) -> None:
    """Check that a test can be run.

    Raises:
        DataError: its kind is unknown, or it is not Python.
    """
    if test.kind == "call":
        needs_of(test.code)
    elif test.kind != "stdin":
        raise DataError(f"test {test.name!r} is of kind {test.kind!r}; expected 'call' or 'stdin'. Correct it")
