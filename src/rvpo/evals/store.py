"""The replies and scores of an evaluation so far, on disk: no reply and no score is paid for twice.

They are in one SQLite file in the run's folder, which only one process at a time may use. Replies and scores are
committed as they arrive, so ``kill -9`` loses only what had not arrived yet. Missing replies are never stored, so the
next call asks for them again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from rvpo.errors import ConfigError
from rvpo.evals.items import Item, Key, Reply, Scored
from rvpo.files import difference

_TABLES = """
CREATE TABLE IF NOT EXISTS claim (id INTEGER PRIMARY KEY CHECK (id = 1), value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS replies (id TEXT, epoch INTEGER, value TEXT NOT NULL, PRIMARY KEY (id, epoch));
CREATE TABLE IF NOT EXISTS scores (id TEXT, epoch INTEGER, value TEXT NOT NULL, PRIMARY KEY (id, epoch));
"""


class Store:
    """The replies and scores of one run; a context manager."""

    def __init__(self, path: Path) -> None:
        """Set the path of the file; the file is opened, or made, when the store is entered."""
        self.path = path
        self._lock = FileLock(path.with_suffix(".lock"))

    def __enter__(self) -> Store:
        """Lock the folder and open the file.

        Raises:
            ConfigError: another process is using the folder, or the file cannot be opened or is not such a store.
        """
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise ConfigError(
                    f"another process is using the folder {self.path.parent}; expected one process for each folder. "
                    "Wait for it, or choose another folder with --out"
                ) from None
            try:
                # One thread at a time uses it, but not always the same thread: in a notebook, work runs in a new one.
                self._db = sqlite3.connect(self.path, check_same_thread=False)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.executescript(_TABLES)
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file and unlock the folder."""
        self._db.close()
        self._lock.release()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, ValueError, TypeError, KeyError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"{self.path}: {error}; expected a store of `rvpo eval` on a disk with free space. Free some space, or "
                "choose another folder with --out"
            ) from error

    def claim(self, run: dict[str, Any]) -> None:
        """Record which run the folder belongs to, or check that it is this run. A folder without replies is free.

        Args:
            run: what identifies the run, as plain JSON: benchmark, model, settings, generation.

        Raises:
            ConfigError: the folder belongs to another run; the message names the first difference.
        """
        with self._explained(), self._db:
            self._db.execute("DELETE FROM claim WHERE NOT EXISTS (SELECT * FROM replies)")
            self._db.execute("INSERT OR IGNORE INTO claim VALUES (1, ?)", (json.dumps(run, sort_keys=True),))
        with self._explained():
            (text,) = self._db.execute("SELECT value FROM claim").fetchone()
            before, now = json.loads(text), json.loads(json.dumps(run))
        if where := difference(before, now):
            key, theirs, ours = where
            raise ConfigError(
                f"{self.path.parent} holds another run, with {key} = {_short(theirs)}; expected {_short(ours)}, as in "
                "this run. Choose another folder with --out, or remove this folder"
            )

    def replies(self) -> dict[Key, Reply]:
        """Return all replies so far."""
        found = {}
        with self._explained():
            for id_, epoch, text in self._db.execute("SELECT id, epoch, value FROM replies"):
                values = json.loads(text)
                values["calls"] = None if values["calls"] is None else tuple(values["calls"])
                found[id_, epoch] = Reply(**values)
        return found

    def add_replies(self, replied: Sequence[tuple[Item, Reply]]) -> None:
        """Store replies, all or none of them; missing replies are left out."""
        rows = [(*item.key, json.dumps(asdict(reply))) for item, reply in replied if reply.text is not None]
        with self._explained(), self._db:
            self._db.executemany("INSERT INTO replies VALUES (?, ?, ?)", rows)

    def scores(self) -> dict[Key, Scored]:
        """Return all complete scores so far."""
        with self._explained():
            rows = self._db.execute("SELECT id, epoch, value FROM scores")
            return {(id_, epoch): Scored(**json.loads(text)) for id_, epoch, text in rows}

    def add_scores(self, scored: Iterable[tuple[Item, Scored]]) -> None:
        """Store scores. If one score of an item is missing, none of the item are stored: the next call tries again."""
        rows = [(*item.key, json.dumps(asdict(scores))) for item, scores in scored if not scores.reasons]
        with self._explained(), self._db:
            self._db.executemany("INSERT INTO scores VALUES (?, ?, ?)", rows)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
