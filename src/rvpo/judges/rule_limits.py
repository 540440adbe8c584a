"""How much work one verdict of a rule may take: a completion is written by the policy that is rewarded for it.

Each verdict gets one :class:`Work`. All that can take more than linear time draws on it, and ``TimeoutError`` ends what
has used it up. Steps are counted, so that a busy machine changes no verdict; time is for what cannot be counted.
"""

from __future__ import annotations

import time

import regex

MAX_STEPS = 20_000  # applications of one keyword of a schema to one value; 20 to 40 microseconds each
CPU_SECONDS = 2.0  # for all steps: one takes longer where a value is long
_STEPS_PER_LOOK = 16  # at the clock
_SEARCHES = 4  # the last one with 64 times the patience, for a process of that many busy threads


class Work:
    """What is left for one verdict."""

    def __init__(self, regex_seconds: float) -> None:
        """Start with everything.

        Args:
            regex_seconds: processor time for all searches of patterns together.
        """
        self._regex_seconds = regex_seconds
        self._steps = MAX_STEPS
        self._cpu_end = time.thread_time() + CPU_SECONDS

    def step(self) -> None:
        """Take one step. Raises TimeoutError where none is left."""
        self._steps -= 1
        if self._steps < 0:
            raise TimeoutError(f"more than {MAX_STEPS} steps")
        if self._steps % _STEPS_PER_LOOK == 0 and time.thread_time() > self._cpu_end:
            raise TimeoutError(f"more than {CPU_SECONDS:g} s")

    def found(self, pattern: regex.Pattern[str], text: str) -> bool:
        """Whether a text holds a pattern. Raises TimeoutError where the search does not end in the time left."""
        if self._regex_seconds <= 0:
            raise TimeoutError("no time left for patterns")
        patience = self._regex_seconds
        for _ in range(_SEARCHES):
            start = time.thread_time()
            try:
                # concurrent: other threads run while it searches
                found = pattern.search(text, timeout=patience, concurrent=True) is not None
            except TimeoutError:
                # The engine counts the time of all threads. Where others have used it up, it searches once more.
                if time.thread_time() - start >= 0.8 * self._regex_seconds:
                    break
                patience *= 4
            else:
                self._regex_seconds -= time.thread_time() - start
                return found
        self._regex_seconds = 0.0
        raise TimeoutError("patterns take too long")
