"""A clock for rate limits and retries that is turned by waiting, so that tests need not wait."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from rvpo.net import limits


def turn_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let waits of ``rvpo.net.limits`` take no time but move its clock; return a list of the waits, in seconds."""
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: clock.now, time=time.time, now=0.0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds
        await asyncio.sleep(0)

    monkeypatch.setattr(limits, "time", clock)
    monkeypatch.setattr(limits, "sleep", sleep)
    return slept
