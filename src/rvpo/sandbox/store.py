"""Store known outcomes in memory and, if a file is given, on disk, so that no test is run twice.

Processes may share the file, see :mod:`rvpo.database`. Missing outcomes are not stored. Programs and tests are not
stored either: a row is a digest and its outcome.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from rvpo.database import SharedDatabase
from rvpo.errors import ConfigError
from rvpo.forks import ForkedLock
from rvpo.sandbox.outcomes import Outcome

MAX_IN_MEMORY = 200_000  # outcomes in memory, of about 300 bytes each
_VERSION = 1
_AT_A_TIME = 500  # keys per statement

_TABLES = (
    "CREATE TABLE IF NOT EXISTS outcomes (key BLOB PRIMARY KEY, passed INTEGER NOT NULL, "
    "reason TEXT NOT NULL, detail TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID",
)


class _File(SharedDatabase):
    """Outcomes on disk."""

    def __init__(self, path: str) -> None:
        self._begin(path, _TABLES, _VERSION, "expected an SQLite file of outcomes", ConfigError)

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Outcome]:
        found = {}
        for start in range(0, len(keys), _AT_A_TIME):
            part = keys[start : start + _AT_A_TIME]
            marks = ",".join("?" * len(part))
            statement = f"SELECT key, passed, reason, detail, seconds FROM outcomes WHERE key IN ({marks})"  # noqa: S608
            with self._used() as db:
                rows = db.execute(statement, part).fetchall()
            for key, passed, reason, detail, seconds in rows:
                found[bytes(key)] = Outcome(bool(passed), str(reason), str(detail), float(seconds))
        return found

    def write(self, outcomes: Mapping[bytes, Outcome]) -> None:
        rows = [(key, int(bool(o.passed)), o.reason, o.detail, o.seconds) for key, o in outcomes.items()]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?)", rows)


class OutcomeStore:
    """Outcomes by the digest of program, test and settings."""

    def __init__(self, path: str | None = None) -> None:
        """Open or make the file.

        Args:
            path: path of the file; None keeps outcomes only in memory.

        Raises:
            ConfigError: the file cannot be used. Later methods raise it if the file cannot be read or written.
        """
        self._file = _File(path) if path else None
        self._memory: OrderedDict[bytes, Outcome] = OrderedDict()
        self._lock = ForkedLock()  # protects the memory

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Outcome]:
        """Return the known outcomes of some keys."""
        with self._lock:
            found = {key: self._memory[key] for key in keys if key in self._memory}
            for key in found:
                self._memory.move_to_end(key)
        missing = [key for key in keys if key not in found]
        if self._file is not None and missing:
            read = self._file.read(missing)
            self._remember(read)
            found |= read
        return found

    def put(self, outcomes: Mapping[bytes, Outcome]) -> None:
        """Keep outcomes, without missing ones."""
        known = {key: outcome for key, outcome in outcomes.items() if outcome.passed is not None}
        if not known:
            return
        self._remember(known)
        if self._file is not None:
            self._file.write(known)

    def _remember(self, outcomes: Mapping[bytes, Outcome]) -> None:
        with self._lock:
            self._memory.update(outcomes)
            while len(self._memory) > MAX_IN_MEMORY:
                self._memory.popitem(last=False)
