"""Rate limits: when the next call may start, and how long to wait after a failure. All tasks share pace and pauses.

The code is written here because a judge serves several event loops. Libraries for rate limits are bound to one loop, or
to a store of their own.
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
MAX_RETRY_AFTER = 120.0  # seconds; longer waits that a server asks for are cut to this

_random = random.Random()  # not the global generator, which belongs to the training

sleep = asyncio.sleep  # a separate name, so that tests can record the waits without slowing the loop


class Pace:
    """Spreads calls evenly over time, and stops all of them while the server asks for a pause. Thread-safe."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Start without a pause.

        Args:
            requests_per_minute: maximum number of requests per minute; None is unlimited.
            tokens_per_minute: maximum number of tokens per minute; None is unlimited.
        """
        self._per_request = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._requests_at = self._tokens_at = self._paused_until = 0.0
        self._lock = ForkedLock()

    async def start(self, tokens: int) -> None:
        """Wait until a call that may use this number of tokens can start."""
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
            await sleep(pause * (1.0 + _random.random() / 10))  # so that calls do not all start at the same moment

    def settle(self, estimated: int, used: int) -> None:
        """Correct the pace by the number of tokens that a call really used."""
        with self._lock:
            self._tokens_at += (used - estimated) * self._per_token

    def pause(self, seconds: float) -> None:
        """Start no call for this number of seconds."""
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)


def backoff(attempt: int) -> float:
    """Return the seconds to wait after failed attempt 0, 1, …: exponential backoff with full jitter."""
    return _random.uniform(0.0, min(MAX_BACKOFF, 0.5 * 2.0 ** min(attempt, 10)))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds, in [0, 120], that the headers of a response ask to wait; None if they do not say.

    The header is ``retry-after-ms``, which is exact, or ``retry-after``, a number of seconds or a date.

    Example:
        >>> retry_after({"retry-after": "1.5"}), retry_after({})
        (1.5, None)
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
