"""The protocol of a model under evaluation, and helpers for the classes that implement it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias, TypeVar

from rvpo.evals.items import Generation, Item, Key, Reply
from rvpo.files import digest

T = TypeVar("T")

Replied: TypeAlias = list[tuple[Item, Reply]]


class Policy(Protocol):
    """A model under evaluation."""

    def identity(self) -> dict[str, Any]:
        """Return what identifies this model, as plain JSON; ``name`` is for people.

        A run continues only if the identity is the same. The identity of a folder holds the digest of the weights.
        """
        ...

    def replies(self, items: Sequence[Item], wanted: Set[Key], generation: Generation) -> AsyncIterator[Replied]:
        """Yield replies to the ``wanted`` items as they arrive; a reply that failed is yielded as missing.

        Args:
            items: all items of the run, so that the batches do not depend on which items are wanted.
            wanted: keys of the items to reply to.
            generation: how the replies are generated.

        Raises:
            ModelError: the model cannot be loaded or asked.
        """
        ...


@asynccontextmanager
async def ended(replies: AsyncIterator[Replied]) -> AsyncGenerator[AsyncIterator[Replied]]:
    """Close a policy's replies at the end of a ``with`` block: no request may outlive its event loop."""
    try:
        yield replies
    finally:
        if isinstance(replies, AsyncGenerator):
            await replies.aclose()


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, even if an event loop is running already, as in a notebook.

    Unlike with ``asyncio.run``, Ctrl-C interrupts at once: a batch on a CPU may take many minutes.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _to_the_end(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_to_the_end, work).result()


def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(_end_tasks(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _end_tasks(tasks: Set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def seed_of(seed: int, items: Sequence[Item]) -> int:
    """Return a seed in [0, 2^31) for the items generated together: a function of the run's seed and their keys."""
    return int(digest([seed, [item.key for item in items]])[:8], 16) >> 1
