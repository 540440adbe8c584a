"""Outcomes that are known already, in memory and, where a file is named, on disk: a test is not run twice.

The file is SQLite in WAL mode, which processes share. What could not be run is never stored. Programs and tests are not
stored either: a row is a digest with its outcome. A connection is closed before its process forks.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rvpo.errors import ConfigError
from rvpo.forks import Forkable
from rvpo.sandbox.outcomes import Outcome

MAX_IN_MEMORY = 200_000  # outcomes, of some 300 bytes each
_VERSION = 1
_BUSY_SECONDS = 60.0
_AT_A_TIME = 500  # keys in one statement


class OutcomeStore(Forkable):
    """Outcomes by the digest of what was run."""

    def __init__(self, path: str | None = None) -> None:
        """Open or make the file; None keeps outcomes in memory alone.

        Raises:
            ConfigError: the file cannot be used; later, it cannot be read or written.
        """
        self._path = path
        self._memory: OrderedDict[bytes, Outcome] = OrderedDict()
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        self._know_forks()
        if path:
            with self._explained():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                self._db()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Outcome]:
        """Return what is known of some keys."""
        with self._lock, self._explained():
            found = {key: self._memory[key] for key in keys if key in self._memory}
            for key in found:
                self._memory.move_to_end(key)
            missing = [key for key in keys if key not in found]
            if self._path and missing:
                read = self._read(missing)
                self._remember(read)
                found |= read
        return found

    def put(self, outcomes: Mapping[bytes, Outcome]) -> None:
        """Keep outcomes; those that could not be had are left out."""
        known = {key: outcome for key, outcome in outcomes.items() if outcome.passed is not None}
        if not known:
            return
        rows = [(key, int(bool(o.passed)), o.reason, o.detail, o.seconds) for key, o in known.items()]
        with self._lock, self._explained():
            self._remember(known)
            if self._path:
                db = self._db()
                db.execute("BEGIN IMMEDIATE")
                db.executemany("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?)", rows)
                db.execute("COMMIT")

    def _remember(self, outcomes: Mapping[bytes, Outcome]) -> None:
        self._memory.update(outcomes)
        while len(self._memory) > MAX_IN_MEMORY:
            self._memory.popitem(last=False)

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Outcome]:
        found = {}
        for start in range(0, len(keys), _AT_A_TIME):
            part = keys[start : start + _AT_A_TIME]
            marks = ",".join("?" * len(part))
            statement = f"SELECT key, passed, reason, detail, seconds FROM outcomes WHERE key IN ({marks})"  # noqa: S608
            for key, passed, reason, detail, seconds in self._db().execute(statement, part):
                found[bytes(key)] = Outcome(bool(passed), str(reason), str(detail), float(seconds))
        return found

    def _db(self) -> sqlite3.Connection:
        if self._open is None:
            db = sqlite3.connect(str(self._path), _BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version != _VERSION and (version or tables):
                raise ConfigError(f"cache {self._path}: a database of version {version}, not of outcomes: name another")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS outcomes (key BLOB PRIMARY KEY, passed INTEGER NOT NULL, "
                "reason TEXT NOT NULL, detail TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID"
            )
            db.execute(f"PRAGMA user_version = {_VERSION}")
            self._open = db
        return self._open

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            step = "free space, or name a file in a folder that can be written to"
            raise ConfigError(f"cache {self._path}: {error}; expected an SQLite file of outcomes: {step}") from error

    def _before_fork(self) -> None:
        self._lock.acquire()
        if self._open is not None:
            connection, self._open = self._open, None
            with suppress(sqlite3.Error):
                connection.close()

    def _after_fork(self) -> None:
        self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()
