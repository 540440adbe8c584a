"""Detects which process of a run hangs in a reward function, or has ended.

TRL gathers the rewards of all processes. If one process never arrives, the others wait for ``ddp_timeout`` (default:
half an hour), and then fail without naming the cause. So each process writes the names of its running reward functions
to the store of ``torch.distributed``. The first process reads those of all others, and the second process reads those
of the first. If a call has not changed for ``reward_timeout``, the run ends with an error that names the function.

There is no barrier here, so this code cannot make a process wait for ever.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

import torch
from torch import distributed

from rvpo.text.quoting import escaped

_GRACE_SECONDS = 10.0  # for the hanging process to end by itself: an async function is cancelled at the limit
_POLL_SECONDS = 2.0
_END_SECONDS = 10.0  # for the store to answer a running request
_GONE = re.compile(  # messages of gloo, NCCL and torch's store
    r"connection (?:was )?(?:closed|reset|refused)|broken pipe|failed to (?:recv|send)|(?:recv|send)\w* failed"
    r"|remote process (?:exited|has exited)|timed out waiting \d+ms|collective operation timeout|ncclRemoteError",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|cannot allocate memory", re.IGNORECASE)


class Calls:
    """The reward functions that are running in this process. With one process, this class does nothing."""

    def __init__(self, store: Any, process: int, processes: int, seconds: float | None) -> None:
        """Start to watch the other processes, if there are any.

        Args:
            store: a ``torch.distributed`` store of all processes; None for one process.
            process: number of this process.
            processes: number of all processes.
            seconds: limit of a call (``reward_timeout``); None turns watching off.
        """
        self._store: Any = store if seconds is not None and processes > 1 else None
        self._process, self._seconds = process, seconds or 0.0
        # One reader is enough, because all processes end with it. The second process reads the calls of the first.
        self._watched = range(1, processes) if process == 0 else range(1) if process == 1 else range(0)
        self._running: list[str] = []
        self._count = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None
        if self._store is not None and self._watched:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def end(self) -> None:
        """Stop watching.

        This waits for the thread: if Python ended while the thread uses torch's store, the process would be aborted.
        """
        self._ended.set()
        if self._watcher is not None:
            self._watcher.join(_END_SECONDS)

    @classmethod
    def of(cls, accelerator: Any, seconds: float | None) -> Calls:
        """Return the calls of a trainer's processes. The ones of an older trainer, with its limit, are ended."""
        global _newest, _trainers
        if _newest is not None:
            _newest.end()
        _trainers += 1
        store = None
        if accelerator.num_processes > 1 and distributed.is_initialized():
            with suppress(Exception):  # torch does not have a public name for this store
                c10d: Any = distributed.distributed_c10d
                # A clone has its own connection; with a shared one, threads would wait for each other.
                store = c10d.PrefixStore(f"rvpo/{_trainers}", c10d._get_default_store().clone())
                store.set_timeout(timedelta(seconds=60))
        _newest = cls(store, accelerator.process_index, accelerator.num_processes, seconds)
        return _newest

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Report to the other processes that a reward function is running in this one."""
        if self._store is None:
            yield
            return
        self._publish(lambda: self._running.append(name))
        try:
            yield
        finally:
            self._publish(lambda: self._running.remove(name))

    def _publish(self, change: Callable[[], object]) -> None:
        with self._lock:
            change()
            self._count += 1
            calls = f"{self._count} {' '.join(map(repr, self._running))}"
        with suppress(Exception):  # if the store's process has ended, the next collective call will report it
            self._store.set(f"calls/{self._process}", calls)

    def _watch(self) -> None:
        since: dict[int, tuple[str, float]] = {}
        while not self._ended.wait(min(_POLL_SECONDS, self._seconds)):
            try:
                published = {other: self._published(other) for other in self._watched}
            except Exception:  # the run has ended, or is ending
                return
            now = time.monotonic()
            for other, calls in published.items():
                if other not in since or since[other][0] != calls:
                    since[other] = (calls, now)
                _, _, names = calls.partition(" ")
                waited = now - since[other][1]
                # Not while a function is running in this process: then it is not waiting for another one.
                if names and waited > self._seconds + _GRACE_SECONDS and not self._running:
                    _end(other, names, waited, self._seconds)

    def _published(self, other: int) -> str:
        key = f"calls/{other}"
        return self._store.get(key).decode() if self._store.check([key]) else ""


@atexit.register
def _end_newest() -> None:
    if _newest is not None:
        _newest.end()


_newest: Calls | None = None
_trainers = 0  # number of trainers built in this process, the same in all processes; each trainer has its own keys


def _end(other: int, names: str, waited: float, limit: float) -> NoReturn:
    """End this process, and so the run: the thread that waits for the other process cannot be woken."""
    text = (
        f"process {other} has been in reward function {escaped(names)} for {waited:.0f} s; expected less than "
        f"reward_timeout ({limit:g} s). A function cannot be stopped from outside, so the run ends. Set a timeout for "
        "its requests, or raise reward_timeout, and resume the run from its newest checkpoint"
    )
    with suppress(Exception):  # printed directly, not logged: the process ends now
        sys.stdout.flush()
        print(f"error: {text}", file=sys.stderr, flush=True)
    os._exit(1)


def is_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def about_memory(process: int, processes: int, step: int) -> str:
    """Return a sentence: which process had no memory left, in which step, and what to do."""
    where = f"process {process} had" if processes > 1 else "there was"
    return (
        f"{where} no memory left in step {step + 1}: lower per_device_train_batch_size (and raise "
        "gradient_accumulation_steps with it) or max_completion_length, and resume the run from its newest checkpoint"
    )


def about_gone(error: BaseException, process: int, step: int) -> str | None:
    """Return one line if an error means that another process has ended; None for any other error."""
    if is_memory(error) or _GONE.search(str(error)) is None:
        return None
    said = escaped(str(error).strip().split("\n")[0], 200)
    return (
        f"process {process} lost another process of the run in step {step + 1} ({said}). That process was killed, "
        "ran out of memory or hangs. Its output, or the launcher's report, says why. Resume the run from its newest "
        "checkpoint"
    )
