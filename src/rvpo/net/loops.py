"""Objects that belong to one event loop, such as a client. Training has a loop for its rewards, a check has another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from rvpo.forks import Forkable, ForkedLock

T = TypeVar("T")


class PerLoop(Forkable, Generic[T]):
    """One value per event loop, made on the first request. Values of closed loops are dropped."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        """Keep the function that makes a value. It must not suspend, or two tasks of a loop could make two values."""
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, T] = {}
        self._of_parent: list[Any] = []  # kept, because closing them would write to connections shared with the parent
        self._lock = ForkedLock()
        self._know_forks()

    async def get(self) -> T:
        """Return the value of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for other in [other for other in self._values if other.is_closed()]:
                del self._values[other]
        if loop not in self._values:
            self._values[loop] = await self._make()
        return self._values[loop]

    def _in_child(self) -> None:
        self._of_parent.append(self._values)
        self._values = {}
