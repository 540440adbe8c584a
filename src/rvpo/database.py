"""An SQLite file that processes and threads share. It survives forks and killed processes.

The file is in WAL mode. ``kill -9`` of a process neither loses committed data nor damages the file. With
``synchronous=NORMAL``, a power failure may lose the last commits, but does not damage the file. A connection is closed
before its process forks, because SQLite's locks do not survive a fork. Parent and child each open their own connection
on the next use. A database in memory is copied to the child.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rvpo.errors import RVPOError
from rvpo.forks import Forkable

_BUSY_SECONDS = 60.0  # how long one process waits for another's transaction, which takes microseconds


class SharedDatabase(Forkable):
    """A database file with its own tables, or a database in memory if there is no path. :meth:`_begin` makes it."""

    def _begin(
        self, path: str | None, tables: Sequence[str], version: int, expected: str, error: type[RVPOError]
    ) -> None:
        """Open or make the file.

        Args:
            path: path of the file; None keeps everything in memory.
            tables: SQL statements that create missing tables.
            version: version of the tables, stored in the file as ``user_version``.
            expected: part of error messages, such as "expected an SQLite file of outcomes".
            error: class of errors. Raised if the file cannot be opened, is of another kind, or cannot be used later.
        """
        self._path, self._tables, self._version = path, tables, version
        self._expected, self._error = expected, error
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        with self._used() as db:
            _write_ahead(db)
        with self._transaction() as db:  # one of several processes creates the tables
            self._make_tables(db)
        self._know_forks()

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection of this process to one thread at a time."""
        try:
            with self._lock:
                yield self._db
        except (sqlite3.Error, OSError) as error:
            step = "free space, or name a file in a folder that can be written to"
            raise self._error(f"cache {self._path}: {error}; {self._expected}. Next step: {step}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing. After a failure, such as a full disk, the connection can still be used."""
        with self._used() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors
                    db.execute("ROLLBACK")
                raise

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection of this process."""
        if self._open is None:
            self._open = self._connect()
        return self._open

    def _connect(self) -> sqlite3.Connection:
        if self._path:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(
            self._path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA synchronous = NORMAL")  # a setting of the connection; WAL is a setting of the file
        return db

    def _make_tables(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version != self._version and (version or tables):
            raise self._error(
                f"cache {self._path}: a database of version {version}; expected {self._version}. Name another file"
            )
        for statement in self._tables:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {self._version}")

    def _before_fork(self) -> None:
        self._lock.acquire()  # so that no unfinished transaction is copied
        if self._path and self._open is not None:
            connection, self._open = self._open, None
            with suppress(sqlite3.Error):
                connection.close()

    def _after_fork(self) -> None:
        self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()


def _write_ahead(db: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:  # SQLite does not wait here while another process does the same
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
