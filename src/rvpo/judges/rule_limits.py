"""Limit the work of one verdict of a rule, because the policy that is rewarded writes the completion.

Each verdict gets one :class:`Work`. Every operation that can take more than linear time uses some of it, and raises
``TimeoutError`` when it is used up. Steps are counted, so that a busy machine does not change verdicts. Only operations
that cannot be counted are limited by time.
"""

from __future__ import annotations

import time

import regex

MAX_STEPS = 20_000  # applications of one keyword of a schema to one value; 20 to 40 microseconds each
CPU_SECONDS = 2.0  # CPU time of all steps together; a step takes longer for a long value
_STEPS_PER_LOOK = 16  # steps between two looks at the clock
_SEARCHES = 4  # the last search has 64 times the time limit, for a process with that many busy threads


class Work:
    """The work that is left for one verdict."""

    def __init__(self, regex_seconds: float) -> None:
        """Start with all of the work.

        Args:
            regex_seconds: CPU time limit for all searches of patterns together, in seconds.
        """
        self._regex_seconds = regex_seconds
        self._steps = MAX_STEPS
        self._cpu_end = time.thread_time() + CPU_SECONDS

    def step(self) -> None:
        """Use one step.

        Raises:
            TimeoutError: no step is left.
        """
        self._steps -= 1
        if self._steps < 0:
            raise TimeoutError(f"more than {MAX_STEPS} steps")
        if self._steps % _STEPS_PER_LOOK == 0 and time.thread_time() > self._cpu_end:
            raise TimeoutError(f"more than {CPU_SECONDS:g} s")

    def found(self, pattern: regex.Pattern[str], text: str) -> bool:
        """Return whether a text contains a pattern.

        Raises:
            TimeoutError: the search does not end in the time that is left.
        """
        if self._regex_seconds <= 0:
            raise TimeoutError("no time left for patterns")
        patience = self._regex_seconds
        for _ in range(_SEARCHES):
            start = time.thread_time()
            try:
                # concurrent: other threads run while it searches
                found = pattern.search(text, timeout=patience, concurrent=True) is not None
            except TimeoutError:
                # The engine counts the time of all threads. If other threads used it up, the search is repeated.
                if time.thread_time() - start >= 0.8 * self._regex_seconds:
                    break
                patience *= 4
            else:
                self._regex_seconds -= time.thread_time() - start
                return found
        self._regex_seconds = 0.0
        raise TimeoutError("patterns take too long")
