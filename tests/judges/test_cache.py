"""Verdicts on disk: shared by processes and threads, exact budgets, and no trace of what was asked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from rvpo.errors import JudgeError
from rvpo.judges.askers import new_name
from rvpo.judges.cache import LEASE, Spent, VerdictStore
from rvpo.rewards.rubric import Verdict

SRC = Path(__file__).parents[2] / "src"


def run(code: str, *args: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    return subprocess.Popen([sys.executable, "-c", code, *args], env=environment, stdout=subprocess.PIPE, text=True)


def test_verdicts_and_spending_survive_a_restart(tmp_path: Path):
    path = str(tmp_path / "cache.sqlite")
    store = VerdictStore(path)
    assert store.get(b"a") is None
    assert store.begin_call(None, None)
    store.end_call({b"a": Verdict(0.25, None, "so"), b"b": Verdict(1.0)}, 100, 7)
    again = VerdictStore(path)
    assert (again.get(b"a"), again.get(b"b"), again.get(b"c")) == (Verdict(0.25, None, "so"), Verdict(1.0), None)
    assert again.spent() == Spent(1, 100, 7)


def test_a_missing_verdict_cannot_be_stored(tmp_path: Path):
    store = VerdictStore(str(tmp_path / "cache.sqlite"))
    with pytest.raises(JudgeError, match="NOT NULL"):
        store.end_call({b"a": Verdict(1.0), b"b": Verdict.missing("timeout")}, 100, 7)
    assert store.get(b"a") is None, "all or nothing"
    assert store.spent() == Spent(0, 0, 0)


def test_budgets_hold_exactly_and_free_calls_are_given_back():
    store = VerdictStore(None)
    assert [store.begin_call(2, None) for _ in range(3)] == [True, True, False]
    store.undo_call()
    assert store.begin_call(2, None)
    store.end_call({}, 90, 10)
    assert not store.begin_call(None, 100)
    assert store.begin_call(None, 101)


def test_threads_and_processes_share_one_budget(tmp_path: Path):
    """Two processes of two threads race for 100 calls: exactly 100 are allowed, and every verdict is there."""
    path = str(tmp_path / "cache.sqlite")
    code = """
import sys, threading
from rvpo.judges.cache import VerdictStore
from rvpo.rewards.rubric import Verdict
store, name, won = VerdictStore(sys.argv[1]), sys.argv[2], []
def work(thread):
    while store.begin_call(100, None):
        key = f"{name}-{thread}-{len(won)}".encode()
        store.end_call({key: Verdict(1.0)}, 3, 2)
        won.append(key)
threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print(len(won))
"""
    processes = [run(code, path, str(i)) for i in range(2)]
    counts = [int(process.communicate(timeout=600)[0]) for process in processes]
    assert sum(counts) == 100
    assert VerdictStore(path).spent() == Spent(100, 300, 200)


def test_a_killed_writer_loses_nothing_that_it_had_stored(tmp_path: Path):
    path = str(tmp_path / "cache.sqlite")
    code = """
import itertools, sys
from rvpo.judges.cache import VerdictStore
from rvpo.rewards.rubric import Verdict
store = VerdictStore(sys.argv[1])
for i in itertools.count():
    assert store.begin_call(None, None)
    store.end_call({str(i).encode(): Verdict(1.0)}, 1, 1)
    print(i, flush=True)
"""
    process = run(code, path)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(50)][-1]
    process.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in process.stdout.read().split("\n")[:-1] if line)])
    process.wait()
    process.stdout.close()
    store = VerdictStore(path)
    assert all(store.get(str(i).encode()) == Verdict(1.0) for i in range(told + 1))
    assert store.spent().calls >= store.spent().prompt_tokens >= told + 1


def test_one_store_serves_many_threads():
    store, failures = VerdictStore(None), []

    def work(name: int) -> None:
        for i in range(50):
            key = f"{name}-{i}".encode()
            store.end_call({key: Verdict(0.5)}, 1, 0)
            if store.get(key) != Verdict(0.5):
                failures.append(key)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.spent().prompt_tokens == 400


def test_files_that_are_no_store_are_left_alone(tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("not a database, but long enough to be taken for the header of one, whatever that may be " * 20)
    with pytest.raises(JudgeError, match=r"File exists.*; expected an SQLite file of a judge"):
        VerdictStore(str(text / "cache.sqlite"))
    with pytest.raises(JudgeError, match="unable to open database file; expected an SQLite file of a judge"):
        VerdictStore(str(tmp_path))
    assert VerdictStore(str(tmp_path / "new" / "folder" / "cache.sqlite")).spent().calls == 0
    with pytest.raises(JudgeError, match="file is not a database"):
        VerdictStore(str(text))
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE precious (value)")
    with pytest.raises(JudgeError, match="a database of version 0; expected 1"):
        VerdictStore(str(other))
    with sqlite3.connect(other) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("precious",)]


@pytest.mark.parametrize("kept", ["file", "memory"])
def test_a_forked_process_has_its_own_connection(tmp_path: Path, kept: str) -> None:
    """In the middle of another thread's call, too: the fork waits for its end."""
    store = VerdictStore(str(tmp_path / "cache.sqlite") if kept == "file" else None)
    store.end_call({b"before": Verdict(0.5)}, 1, 1)
    connection = store._open
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), _use, (store,)) as pool:
        found = list(pool.map(_count, range(20)))
    assert found == [0.5] * 20
    assert store.spent().calls == (20 if kept == "file" else 0)
    assert (store._open is connection) == (kept == "memory")
    assert store.get(b"before") == Verdict(0.5)


_used: list[VerdictStore] = []


def _use(store: VerdictStore) -> None:
    _used[:] = [store]


def _count(number: int) -> float | None:
    assert _used[0].begin_call(None, None)
    _used[0].end_call({bytes([number]): Verdict(1.0)}, 1, 1)
    verdict = _used[0].get(b"before")
    return verdict.value if verdict else None


def test_a_question_is_claimed_by_one_asker_until_it_has_its_verdict(tmp_path: Path):
    path = str(tmp_path / "cache.sqlite")
    first, second, one, other = VerdictStore(path), VerdictStore(path), new_name(), new_name()
    assert first.claim([b"a", b"b"], one) == [b"a", b"b"]
    assert second.claim([b"a", b"b", b"c"], other) == [b"c"]
    first.end_call({b"a": Verdict(1.0)}, 1, 1)
    first.release([b"a", b"b"], one)
    assert second.claim([b"a", b"b"], other) == [b"b"], "a has its verdict"
    assert second.get(b"a") == Verdict(1.0)


def test_a_claim_that_is_renewed_while_another_asker_waits_for_the_file_holds(tmp_path: Path):
    path = str(tmp_path / "c.sqlite")
    first, second = VerdictStore(path), VerdictStore(path)
    one, other = new_name(), new_name()
    assert first.claim([b"a"], one) == [b"a"]
    got: list[list[bytes]] = []
    with first._transaction() as db:
        waiting = threading.Thread(target=lambda: got.append(second.claim([b"a"], other)))
        waiting.start()
        time.sleep(0.5)  # it waits for this transaction now
        db.execute("UPDATE askers SET seen = ? WHERE name = ?", (time.monotonic(), one))
    waiting.join()
    assert got == [[]]


def test_claims_of_a_process_that_has_ended_lapse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = str(tmp_path / "cache.sqlite")
    code = """
import os, signal, sys
from rvpo.judges.askers import new_name
from rvpo.judges.cache import VerdictStore
print(VerdictStore(sys.argv[1]).claim([b"a"], new_name()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, path).communicate(timeout=600)[0] == "[b'a']\n"
    store, here = VerdictStore(path), new_name()
    assert store.claim([b"a"], here) == [b"a"]
    # Of a process that cannot be seen from here, such as one of another container, the time alone tells.
    elsewhere = "another-host:0:1:0123456789abcdef"
    clock = [1000.0]
    monkeypatch.setattr("rvpo.judges.cache.time.monotonic", lambda: clock[0])
    assert store.claim([b"b"], elsewhere) == [b"b"]
    clock[0] += LEASE - 1
    store.renew(elsewhere)
    clock[0] += LEASE
    assert store.claim([b"b"], here) == []
    clock[0] += 1
    assert store.claim([b"b"], here) == [b"b"]
    clock[0] = 5.0  # the machine has started anew
    assert store.claim([b"b"], new_name()) == [b"b"]
