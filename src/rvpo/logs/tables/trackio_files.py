"""Read rollouts from trackio's database: the tables that a trainer logged next to its metrics.

trackio has one SQLite file per project, with one row per step and run, and metrics as JSON. A logged table is an object
``{"_type": "trackio.table", "_value": [rows]}`` among the metrics.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rvpo.errors import DataError
from rvpo.logs.tables.json_files import Record

TABLE = "trackio.table"


def trackio_records(path: Path, run: str | None = None) -> Iterator[Record]:
    """Yield the rows of the tables that a run logged.

    Args:
        path: the database of a project.
        run: name of the run; None: the only one.

    Raises:
        DataError: it is not a database of trackio, or it has several runs or no tables.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            runs = [name for (name,) in database.execute("SELECT DISTINCT run_name FROM metrics ORDER BY run_name")]
            chosen = _chosen(path, runs, run)
            rows = database.execute("SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY id", (chosen,))
            found = 0
            for step, metrics in rows:
                for row in _tables(_loaded(path, metrics)):
                    found += 1
                    yield f"{path}, run {chosen}, step {step}", {"step": step, **row}
    except sqlite3.Error as error:
        raise DataError(
            f"{path} cannot be read ({error}); expected trackio's database of a project. Pass another file"
        ) from error
    if not found:
        raise DataError(
            f"{path}: run {chosen!r} logged only metrics, one mean per step; expected tables with one row per "
            "completion. Log rollouts, in TRL with log_completions=True"
        )


def _chosen(path: Path, runs: list[str], run: str | None) -> str:
    if run is None and len(runs) == 1:
        return runs[0]
    if run is None or run not in runs:
        seen = "contains several runs" if run is None else f"has no run {run!r}"
        raise DataError(
            f"{path} {seen}; expected one of {', '.join(runs[:20]) or 'none'}. Pass it as trackio:{path.stem}/RUN"
        )
    return run


def _loaded(path: Path, metrics: Any) -> dict[str, Any]:
    try:
        loaded = json.loads(metrics)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} has metrics that are not JSON ({error}); expected trackio's database") from error
    return loaded if isinstance(loaded, dict) else {}


def _tables(metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for value in metrics.values():
        if isinstance(value, dict) and value.get("_type") == TABLE and isinstance(value.get("_value"), list):
            yield from (row for row in value["_value"] if isinstance(row, dict))
