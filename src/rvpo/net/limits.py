"""When the next call may start: one pace and one pause for all tasks, and how long to wait after a failure.

The arithmetic is a few lines that know no event loop, because a judge serves several of them; libraries for this bind
to one loop, or to a store of their own.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from rvpo.forks import ForkedLock

MAX_BACKOFF = 30.0  # seconds
MAX_RETRY_AFTER = 120.0  # seconds; a server that asks for more is asked again after this

_random = random.Random()  # the global one is a training's

sleep = asyncio.sleep  # a name of our own, so that tests can record what was slept without slowing the loop


class Pace:
    """Spreads calls evenly over time, and holds all of them while the server asks for a pause. Safe across threads."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Start without a pause.

        Args:
            requests_per_minute: None is no limit.
            tokens_per_minute: None is no limit.
        """
        self._per_request = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._requests_at = self._tokens_at = self._paused_until = 0.0
        self._lock = ForkedLock()

    async def start(self, tokens: int) -> None:
        """Wait for the turn of a call that may take so many tokens."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._requests_at, self._tokens_at)
            if self._per_request:
                self._requests_at = at + self._per_request
            if self._per_token:
                self._tokens_at = at + tokens * self._per_token
        if at > now:
            await sleep(at - now)
        while (pause := self._paused_until - time.monotonic()) > 0:
            await sleep(pause * (1.0 + _random.random() / 10))  # not all at the same moment

    def settle(self, estimated: int, used: int) -> None:
        """Correct the pace by what a call really took."""
        with self._lock:
            self._tokens_at += (used - estimated) * self._per_token

    def pause(self, seconds: float) -> None:
        """Start no call for so many seconds."""
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)


def backoff(attempt: int) -> float:
    """Return the seconds to wait after failed attempt 0, 1, …: exponential, with full jitter."""
    return _random.uniform(0.0, min(MAX_BACKOFF, 0.5 * 2.0 ** min(attempt, 10)))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in [0, 120] that a response's headers ask to wait; None where they do not say.

    They are ``retry-after-ms``, which is exact, or ``retry-after`` as a number of seconds or as a date.
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000.0
    elif (text := headers.get("retry-after")) and (seconds := _number(text)) is None:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return None if seconds is None else min(MAX_RETRY_AFTER, max(0.0, seconds))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
