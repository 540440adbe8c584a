"""What the processes of a run know of each other: which of them hangs in a reward function, or is gone.

TRL gathers the rewards of all processes. If one of them never comes, the others wait for ``ddp_timeout`` (half an hour
by default), and then fail without saying what for. So each process writes the names of the reward functions that it is
in to the store that ``torch.distributed`` keeps anyway. One process reads them: the first one, and the second one reads
those of the first. A call that has not changed for ``reward_timeout`` ends the run with its name.

Nothing here is a barrier, so nothing new can wait for ever.
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

_GRACE_SECONDS = 10.0  # for the process that hangs to end by itself: an async function is cancelled at the limit
_POLL_SECONDS = 2.0
_END_SECONDS = 10.0  # for an answer of the store that is under way
_GONE = re.compile(  # in the words of gloo, NCCL and torch's store
    r"connection (?:was )?(?:closed|reset|refused)|broken pipe|failed to (?:recv|send)|(?:recv|send)\w* failed"
    r"|remote process (?:exited|has exited)|timed out waiting \d+ms|collective operation timeout|ncclRemoteError",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|cannot allocate memory", re.IGNORECASE)


class Calls:
    """The reward functions that this process is in. With one process it does nothing."""

    def __init__(self, store: Any, process: int, processes: int, seconds: float | None) -> None:
        """Begin to watch, where there is anything to watch.

        Args:
            store: a ``torch.distributed`` store of all processes; None for one process.
            process: number of this one.
            processes: how many there are.
            seconds: limit of a call (``reward_timeout``); None watches nothing.
        """
        self._store: Any = store if seconds is not None and processes > 1 else None
        self._process, self._seconds = process, seconds or 0.0
        # One reader is enough, because its end is the end of all. The first one's is the second one.
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
        """Watch no longer.

        The thread is waited for: where Python ends while it is inside of torch's store, the process would be aborted.
        """
        self._ended.set()
        if self._watcher is not None:
            self._watcher.join(_END_SECONDS)

    @classmethod
    def of(cls, accelerator: Any, seconds: float | None) -> Calls:
        """Return those of a trainer's processes; those of an older trainer, which has another limit, are ended."""
        global _newest, _trainers
        if _newest is not None:
            _newest.end()
        _trainers += 1
        store = None
        if accelerator.num_processes > 1 and distributed.is_initialized():
            with suppress(Exception):  # torch has no public name for it
                c10d: Any = distributed.distributed_c10d
                # A clone has a connection of its own: threads would wait for each other.
                store = c10d.PrefixStore(f"rvpo/{_trainers}", c10d._get_default_store().clone())
                store.set_timeout(timedelta(seconds=60))
        _newest = cls(store, accelerator.process_index, accelerator.num_processes, seconds)
        return _newest

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Tell the other processes that this one is in a reward function."""
        if self._store is None:
            yield
            return
        self._tell(lambda: self._running.append(name))
        try:
            yield
        finally:
            self._tell(lambda: self._running.remove(name))

    def _tell(self, change: Callable[[], object]) -> None:
        with self._lock:
            change()
            self._count += 1
            told = f"{self._count} {' '.join(map(repr, self._running))}"
        with suppress(Exception):  # the store is gone with its process: what is to be done next will fail, and say so
            self._store.set(f"calls/{self._process}", told)

    def _watch(self) -> None:
        since: dict[int, tuple[str, float]] = {}
        while not self._ended.wait(min(_POLL_SECONDS, self._seconds)):
            try:
                told = {other: self._told(other) for other in self._watched}
            except Exception:  # the run has ended, or is about to
                return
            now = time.monotonic()
            for other, calls in told.items():
                if other not in since or since[other][0] != calls:
                    since[other] = (calls, now)
                _, _, names = calls.partition(" ")
                waited = now - since[other][1]
                # Not while this process is in a call itself: it does not wait for anybody.
                if names and waited > self._seconds + _GRACE_SECONDS and not self._running:
                    _end(other, names, waited, self._seconds)

    def _told(self, other: int) -> str:
        key = f"calls/{other}"
        return self._store.get(key).decode() if self._store.check([key]) else ""


@atexit.register
def _end_newest() -> None:
    if _newest is not None:
        _newest.end()


_newest: Calls | None = None
_trainers = 0  # that were built in this process, as in the others; each has keys of its own


def _end(other: int, names: str, waited: float, limit: float) -> NoReturn:
    """End this process, and with it the run: the thread that waits for the other one cannot be woken."""
    text = (
        f"process {other} has been in reward function {escaped(names)} for {waited:.0f} s; expected less than "
        f"reward_timeout ({limit:g} s). A function cannot be stopped from outside, so the run ends: give its requests "
        "a timeout of their own, or raise reward_timeout, and resume the run from its newest checkpoint"
    )
    with suppress(Exception):  # past all loggers: it is the last that this process says
        sys.stdout.flush()
        print(f"error: {text}", file=sys.stderr, flush=True)
    os._exit(1)


def is_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, on the device or the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def about_memory(process: int, processes: int, step: int) -> str:
    """Return which process had no memory left, when, and what to do."""
    where = f"process {process} had" if processes > 1 else "there was"
    return (
        f"{where} no memory left in step {step + 1}: lower per_device_train_batch_size (and raise "
        "gradient_accumulation_steps with it) or max_completion_length, and resume the run from its newest checkpoint"
    )


def about_gone(error: BaseException, process: int, step: int) -> str | None:
    """Return one line where an error is that of a process whose partner is gone; None for any other error."""
    if is_memory(error) or _GONE.search(str(error)) is None:
        return None
    said = escaped(str(error).strip().split("\n")[0], 200)
    return (
        f"process {process} lost another process of the run in step {step + 1} ({said}). That one was killed, ran out "
        "of memory or hangs: what it printed, or the launcher's report, says why. Resume the run from its newest "
        "checkpoint"
    )
