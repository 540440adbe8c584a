"""The file that processes share: made by several at once, written after a failure, and used across forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rvpo.database import SharedDatabase
from rvpo.errors import ConfigError
from rvpo.sandbox.outcomes import Outcome
from rvpo.sandbox.store import OutcomeStore

PASSED = Outcome(True, "passed", "", 0.1)
OPENS = """
import sys
from rvpo.sandbox.outcomes import Outcome
from rvpo.sandbox.store import OutcomeStore
sys.stdin.readline()
for i in range(20):
    OutcomeStore(f"{sys.argv[1]}/{i}.sqlite").put({sys.argv[2].encode(): Outcome(True, "passed", "", 0.1)})
"""


class Words(SharedDatabase):
    def __init__(self, path: str | None) -> None:
        tables = ["CREATE TABLE IF NOT EXISTS words (word TEXT CHECK (word <> 'boom'))"]
        self._begin(path, tables, 3, "expected an SQLite file of words", ConfigError)

    def add(self, *words: str) -> None:
        with self._transaction() as db:
            db.executemany("INSERT INTO words VALUES (?)", [(word,) for word in words])

    def all(self) -> list[str]:
        with self._used() as db:
            return [word for (word,) in db.execute("SELECT word FROM words ORDER BY word")]


def test_several_processes_make_the_same_file_at_once(tmp_path: Path):
    command = [sys.executable, "-c", OPENS, str(tmp_path)]
    ready = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for name in "abc"]
    for process in ready:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in ready:
        assert process.communicate()[1] == b""
    for i in range(20):
        assert set(OutcomeStore(f"{tmp_path}/{i}.sqlite").get([b"a", b"b", b"c"])) == {b"a", b"b", b"c"}


@pytest.mark.parametrize("kept", ["file", "memory"])
def test_a_failed_write_leaves_nothing_and_the_next_one_works(tmp_path: Path, kept: str):
    words = Words(str(tmp_path / "x.sqlite") if kept == "file" else None)
    with pytest.raises(
        ConfigError, match=r"CHECK constraint.*; expected an SQLite file of words. Next step: free space"
    ):
        words.add("one", "boom")
    words.add("two")
    words.add("three")
    assert words.all() == ["three", "two"]


def test_a_failed_write_of_outcomes_is_not_the_last_one(tmp_path: Path):
    store = OutcomeStore(str(tmp_path / "x.sqlite"))
    assert store._file is not None
    with store._file._used() as db:
        db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON outcomes WHEN NEW.reason = 'boom' "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(ConfigError, match="disk full"):
        store.put({b"a": Outcome(False, "boom", "", 0.1)})
    store.put({b"b": PASSED})
    assert OutcomeStore(str(tmp_path / "x.sqlite")).get([b"a", b"b"]) == {b"b": PASSED}


def test_another_version_is_left_alone(tmp_path: Path):
    path = str(tmp_path / "x.sqlite")
    Words(path).add("one")
    with pytest.raises(ConfigError, match="a database of version 3; expected 1"):
        OutcomeStore(path)
    assert Words(path).all() == ["one"]
