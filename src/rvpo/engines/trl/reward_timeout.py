"""A limit on the time that a reward function takes.

An async function is cancelled at the limit, and the error names it. A sync function cannot be stopped safely: it may
hold a lock or be in the middle of a write. So a warning names it, and training keeps waiting. The same is true for an
async function that blocks its event loop, such as with ``time.sleep``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rvpo.errors import ConfigError, RewardError

DEFAULT_SECONDS = 1200.0
"""Below the 1800 s after which, by default, the other processes of a training give up waiting (``ddp_timeout``)."""
_GRACE_SECONDS = 5.0  # time for an event loop to cancel a call over its limit, before a warning says that it is blocked

T = TypeVar("T")
logger = logging.getLogger(__name__)


def check_reward_timeout(seconds: object) -> None:
    """Raise ConfigError unless a limit is None or a number of seconds above 0."""
    if seconds is None or (
        isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < math.inf
    ):
        return
    raise ConfigError(f"reward_timeout is {seconds!r}; expected seconds above 0, or None for no limit")


async def awaited_within(answer: Awaitable[T], name: str, seconds: float | None) -> T:
    """Await the coroutine of an async reward function, for at most this number of seconds.

    Args:
        answer: the coroutine or another awaitable.
        name: name of the function.
        seconds: limit; None sets no limit.

    Raises:
        RewardError: the time is over. The coroutine is cancelled, but not awaited, because it may ignore this.
    """
    task = asyncio.ensure_future(_without_exit(answer))
    try:
        with watched(name, None if seconds is None else seconds + _GRACE_SECONDS, "it blocks the event loop"):
            done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        result = task.result()
        if isinstance(result, _Exit):
            raise result.error
        return result
    task.add_done_callback(lambda late: late.cancelled() or late.exception())  # otherwise, Python warns
    task.cancel()
    raise RewardError(
        f"did not return within {seconds:g} s; expected an answer within reward_timeout. Set a timeout for its "
        "requests, or raise reward_timeout (None sets no limit)"
    )


@dataclass(frozen=True)
class _Exit:
    error: SystemExit


async def _without_exit(answer: Awaitable[T]) -> T | _Exit:
    """Await the answer. Return a SystemExit instead of raising it, because it would end the event loop of the task."""
    try:
        return await answer
    except SystemExit as error:
        return _Exit(error)


@contextmanager
def watched(name: str, seconds: float | None, why: str = "it is not async") -> Iterator[None]:
    """Warn once if the block takes longer than this number of seconds; None turns the warning off."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), _warn, (name, seconds, why))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _warn(name: str, seconds: float, why: str) -> None:
    logger.warning(
        "reward function %r has not returned for %g s; expected less than reward_timeout. It cannot be stopped, "
        "because %s, and training waits for it: set a timeout for its requests, or interrupt the training",
        name,
        seconds,
        why,
    )
