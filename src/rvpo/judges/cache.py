"""Verdicts and spending on disk: what was paid for once is never asked again, whatever happens to the process.

One SQLite file in WAL mode, shared by any number of processes and threads. A verdict and the tokens it cost are
committed in one transaction before the verdict is used. ``kill -9`` of a process loses nothing that was committed, nor
can it damage the file; with ``synchronous=NORMAL`` a power failure may lose the last commits, but not damage it either.
Missing verdicts are never stored. Keys, headers and prompts are never stored: a row is a digest and its verdict.

A connection is closed before its process forks, because SQLite's locks do not survive that; parent and child each open
their own on the next use. A store in memory is copied to the child.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rvpo.errors import JudgeError
from rvpo.forks import Forkable
from rvpo.rewards.rubric.verdict import Verdict

_VERSION = 1  # of the tables; part of the file as user_version
_BUSY_SECONDS = 60.0  # how long one process waits for another's transaction, which takes microseconds

_TABLES = (
    """CREATE TABLE IF NOT EXISTS verdicts
       (key BLOB PRIMARY KEY, value REAL NOT NULL CHECK (value BETWEEN 0 AND 1), detail TEXT) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS spent
       (id INTEGER PRIMARY KEY CHECK (id = 1), calls INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER)""",
    "INSERT OR IGNORE INTO spent VALUES (1, 0, 0, 0)",
    f"PRAGMA user_version = {_VERSION}",
)


@dataclass(frozen=True, slots=True)
class Spent:
    """Everything that was ever paid for through one file."""

    calls: int
    prompt_tokens: int
    completion_tokens: int


class VerdictStore(Forkable):
    """The verdicts known so far, and the spending. In memory where ``path`` is None."""

    def __init__(self, path: str | None) -> None:
        """Open or make the file.

        Raises:
            JudgeError: the file cannot be opened or is no such store; later, it cannot be read or written.
        """
        self._path = path
        self._lock = threading.Lock()
        with self._explained():
            if path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._open: sqlite3.Connection | None = self._connect()
            self._prepare()
        self._know_forks()

    def get(self, key: bytes) -> Verdict | None:
        """Return the verdict stored under a key."""
        with self._explained(), self._lock:
            row = self._db.execute("SELECT value, detail FROM verdicts WHERE key = ?", (key,)).fetchone()
        return None if row is None else Verdict(row[0], None, row[1])

    def begin_call(self, max_calls: int | None, max_tokens: int | None) -> bool:
        """Count a call that is about to be made; False, and not counted, where the budget does not allow it."""
        allowed = (
            "(:calls IS NULL OR calls < :calls) AND (:tokens IS NULL OR prompt_tokens + completion_tokens < :tokens)"
        )
        with self._explained(), self._lock:
            statement = f"UPDATE spent SET calls = calls + 1 WHERE {allowed}"  # noqa: S608 - a constant
            return self._db.execute(statement, {"calls": max_calls, "tokens": max_tokens}).rowcount == 1

    def undo_call(self) -> None:
        """Take back a call that cost nothing."""
        with self._explained(), self._lock:
            self._db.execute("UPDATE spent SET calls = calls - 1")

    def end_call(self, verdicts: Mapping[bytes, Verdict], prompt_tokens: int, completion_tokens: int) -> None:
        """Store the verdicts of a call, none of them missing, and its tokens: all or nothing."""
        rows = [(key, verdict.value, verdict.detail) for key, verdict in verdicts.items()]
        with self._explained(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", rows)
                self._db.execute(
                    "UPDATE spent SET prompt_tokens = prompt_tokens + ?, completion_tokens = completion_tokens + ?",
                    (prompt_tokens, completion_tokens),
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def spent(self) -> Spent:
        """Return the spending of all processes that ever used this file."""
        with self._explained(), self._lock:
            return Spent(*self._db.execute("SELECT calls, prompt_tokens, completion_tokens FROM spent").fetchone())

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection of this process."""
        if self._open is None:
            self._open = self._connect()
            self._open.execute("PRAGMA synchronous = NORMAL")  # of a connection; WAL is of the file
        return self._open

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path or ":memory:", _BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def _before_fork(self) -> None:
        self._lock.acquire()  # no transaction is copied half-done
        if self._path and self._open is not None:
            connection, self._open = self._open, None
            with suppress(sqlite3.Error):
                connection.close()

    def _after_fork(self) -> None:
        self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()

    def _prepare(self) -> None:
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:  # SQLite does not wait here while another process does the same
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version != _VERSION and (version or tables):
            raise JudgeError(
                f"cache {self._path}: a database of version {version}, allowed is {_VERSION}: name another"
            )
        for statement in _TABLES:
            self._db.execute(statement)
        self._db.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            step = "free space, or name a file in a folder that can be written to"
            raise JudgeError(f"cache {self._path}: {error}; allowed is an SQLite file of a judge: {step}") from error
