"""Handles across ``os.fork``: locks are open in the child, whatever other threads of the parent held."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from tests.fault_server import FaultServer

from rvpo.forks import Forkable, ForkedLock, disconnect
from rvpo.judges.askers import new_name
from rvpo.judges.cache import VerdictStore
from rvpo.judges.endpoint import EndpointJudge
from rvpo.judges.usage import Usage
from rvpo.net.limits import Pace
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import Question

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def in_child(work: object) -> bool:
    """Whether a function ends without an error in a forked process. If it hangs, the child ends after ten minutes."""
    pid = os.fork()
    if pid == 0:
        threading.Timer(600, os._exit, (1,)).start()
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_lock_that_another_thread_holds_is_open_in_the_child() -> None:
    lock, usage, pace = ForkedLock(), Usage(None, None), Pace(None, None)

    def work() -> None:
        with lock:
            usage.add(calls=1)
            pace.pause(0.0)
        assert usage.totals()["calls"] == 1

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock, usage._lock, pace._lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        assert in_child(work)
        assert in_child(lambda: in_child(work) or os._exit(1))  # and in its own children
    finally:
        done.set()
        thread.join()
    assert usage.totals()["calls"] == 0


def test_a_judge_that_is_forked_in_the_middle_of_a_call_opens_its_own_connections() -> None:
    """As ``datasets.map(num_proc=2)`` does while another thread trains."""
    criterion = Criterion("c", "The reply is polite.")

    async def ask(judge: EndpointJudge, text: str) -> float | None:
        [[verdict]] = await judge.judge([Question("Hello?", text, (criterion,))])
        return verdict.value

    async def fork_at_work(judge: EndpointJudge) -> list[float | None]:
        await ask(judge, "opens the connection")
        server.hold = True
        asked = asyncio.create_task(ask(judge, "on its way"))
        while not server.in_flight:
            await asyncio.sleep(0.01)
        server.hold = False
        assert await asyncio.to_thread(in_child, lambda: asyncio.run(ask(judge, "on its way")) is not None or 1 / 0)
        return [await asked, await ask(judge, "after the fork")]

    with FaultServer() as server:
        judge = EndpointJudge(model=server.model, base_url=server.url, timeout=600.0)
        values = asyncio.run(fork_at_work(judge))
        assert None not in values
        assert judge.usage()["missing"] == 0


def test_what_is_gone_is_not_asked() -> None:
    class Holder(Forkable):
        def __init__(self) -> None:
            self.asked: list[str] = []
            self._know_forks()

        def _before_fork(self) -> None:
            self.asked.append("before")

        def _after_fork(self) -> None:
            self.asked.append("after")

    kept, gone = Holder(), Holder()
    asked = gone.asked
    del gone
    assert in_child(lambda: None)
    assert kept.asked == ["before", "after"]
    assert asked == []


def test_a_disconnected_file_can_be_closed() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as file:
        file.write("half a line")
        disconnect(writer)
    assert os.read(reader, 100) == b""  # nobody holds the writing end any more
    os.close(reader)


def test_claims_in_memory_are_not_those_of_a_forked_process():
    store = VerdictStore(None)
    assert store.claim([b"a"], new_name()) == [b"a"]
    assert in_child(lambda: store.claim([b"a"], new_name()) == [b"a"] or 1 / 0)
    assert store.claim([b"a"], new_name()) == []
