"""Store verdicts and spending on disk, so that you never pay twice for a verdict, whatever happens to the process.

The store is one SQLite file, shared by any number of processes and threads; see :mod:`rvpo.database`. A verdict and the
tokens that it cost are committed in one transaction before the verdict is used. Missing verdicts are not stored. Keys,
headers and prompts are never stored: a row is a digest and its verdict.

A process claims a question in the file before it asks, and no other process asks the same question meanwhile. The
claims of a process that has ended lapse: at once if that can be seen, otherwise if they were not renewed for
:data:`LEASE` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rvpo.database import SharedDatabase
from rvpo.errors import JudgeError
from rvpo.judges.askers import has_ended
from rvpo.rewards.rubric.verdict import Verdict

_VERSION = 1  # version of the tables
_TABLES = (
    """CREATE TABLE IF NOT EXISTS verdicts
       (key BLOB PRIMARY KEY, value REAL NOT NULL CHECK (value BETWEEN 0 AND 1), detail TEXT) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS spent
       (id INTEGER PRIMARY KEY CHECK (id = 1), calls INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER)""",
    "INSERT OR IGNORE INTO spent VALUES (1, 0, 0, 0)",
    "CREATE TABLE IF NOT EXISTS askers (name TEXT PRIMARY KEY, seen REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS claims (key BLOB PRIMARY KEY, asker TEXT NOT NULL) WITHOUT ROWID",
)

LEASE = 30.0
"""Seconds after which a claim that is not renewed lapses."""

RENEWAL = 5.0
"""Seconds between two renewals."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Everything that was ever paid for through one file: calls, prompt tokens and completion tokens."""

    calls: int
    prompt_tokens: int
    completion_tokens: int


class VerdictStore(SharedDatabase):
    """The known verdicts, and the spending. They are kept only in memory if ``path`` is None."""

    def __init__(self, path: str | None) -> None:
        """Open or make the file.

        Raises:
            JudgeError: the file cannot be opened or is not such a store. Later methods raise it if the file cannot be
                read or written.
        """
        self._begin(path, _TABLES, _VERSION, "expected an SQLite file of a judge", JudgeError)

    def _in_child(self) -> None:
        super()._in_child()
        if self._path is None:  # a copy, to which the parent writes no answer that a claim could wait for
            with self._transaction() as db:
                db.execute("DELETE FROM claims")
                db.execute("DELETE FROM askers")

    def get(self, key: bytes) -> Verdict | None:
        """Return the verdict that is stored under a key; None if absent."""
        with self._used() as db:
            row = db.execute("SELECT value, detail FROM verdicts WHERE key = ?", (key,)).fetchone()
        return None if row is None else Verdict(row[0], None, row[1])

    def claim(self, keys: Iterable[bytes], asker: str) -> list[bytes]:
        """Return those keys that ``asker`` is to ask now: nobody else does, and their verdicts are not known.

        Args:
            keys: of verdicts that are wanted.
            asker: a name of :func:`rvpo.judges.askers.new_name`. It renews its claims and releases them.
        """
        unknown = "SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM verdicts WHERE key = ?1)"
        statement = f"INSERT OR IGNORE INTO claims {unknown}"
        with self._transaction() as db:
            # One clock for all processes of a machine, which restarts with it. It is read after the wait for the
            # transactions of others, because their claims are newer than that wait, and not from another start.
            now = time.monotonic()
            db.execute("INSERT OR REPLACE INTO askers VALUES (?, ?)", (asker, now))
            for name, seen in db.execute("SELECT name, seen FROM askers").fetchall():
                if not now - LEASE <= seen <= now or has_ended(name):
                    db.execute("DELETE FROM claims WHERE asker = ?", (name,))
                    db.execute("DELETE FROM askers WHERE name = ?", (name,))
            return [key for key in keys if db.execute(statement, (key, asker)).rowcount == 1]

    def renew(self, asker: str) -> None:
        """Keep the claims of an asker from lapsing."""
        with self._used() as db:
            db.execute("UPDATE askers SET seen = ? WHERE name = ?", (time.monotonic(), asker))

    def release(self, keys: Iterable[bytes], asker: str) -> None:
        """Let others ask for these keys."""
        with self._transaction() as db:
            db.executemany("DELETE FROM claims WHERE key = ? AND asker = ?", [(key, asker) for key in keys])

    def begin_call(self, max_calls: int | None, max_tokens: int | None) -> bool:
        """Count a call before it is made. Return False, without counting it, if the budget does not allow it."""
        allowed = (
            "(:calls IS NULL OR calls < :calls) AND (:tokens IS NULL OR prompt_tokens + completion_tokens < :tokens)"
        )
        with self._used() as db:
            statement = f"UPDATE spent SET calls = calls + 1 WHERE {allowed}"  # noqa: S608 - a constant
            return db.execute(statement, {"calls": max_calls, "tokens": max_tokens}).rowcount == 1

    def undo_call(self) -> None:
        """Remove a call that cost nothing from the count."""
        with self._used() as db:
            db.execute("UPDATE spent SET calls = calls - 1")

    def end_call(self, verdicts: Mapping[bytes, Verdict], prompt_tokens: int, completion_tokens: int) -> None:
        """Store the verdicts of a call, none of them missing, and its tokens, in one transaction."""
        rows = [(key, verdict.value, verdict.detail) for key, verdict in verdicts.items()]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", rows)
            db.execute(
                "UPDATE spent SET prompt_tokens = prompt_tokens + ?, completion_tokens = completion_tokens + ?",
                (prompt_tokens, completion_tokens),
            )

    def spent(self) -> Spent:
        """Return the spending of all processes that ever used this file."""
        with self._used() as db:
            return Spent(*db.execute("SELECT calls, prompt_tokens, completion_tokens FROM spent").fetchone())
