"""``look``: read files of any format and layout as one table with one row per completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rvpo.errors import DataError
from rvpo.logs.tables.arrow_files import arrow_part, is_plain
from rvpo.logs.tables.cells import ABSENT, Cells, read_cells
from rvpo.logs.tables.columns import Column, Seen
from rvpo.logs.tables.files import ARROW, suffix_of
from rvpo.logs.tables.flatten import MOST_COLUMNS, Flattening
from rvpo.logs.tables.folders import parts_of_one, step_of
from rvpo.logs.tables.formats import records_of
from rvpo.logs.tables.history import is_history, refuse_history, step_name
from rvpo.logs.tables.json_files import Record
from rvpo.logs.tables.layouts import LINE, Layout
from rvpo.logs.tables.store import ArrowPart, Part, Store, WithConstants
from rvpo.logs.tables.table import Table
from rvpo.logs.tables.trainers import trainer_of_rows

ROWS_AT_ONCE = 10_000
ENOUGH_TEXT = 5_000  # a column with this many cells of text and no number is a column of text
STEP, FILE = "step", "file"
"""Columns that are added if the files lack them: the step from the name of the file, and the file."""


def look(path: Path, paths: Sequence[Path]) -> Table:
    """Look at the files of a run.

    Args:
        path: path that the user gave, for messages.
        paths: the files.

    Raises:
        DataError: a file cannot be read, or has no completions: metrics per step, a pickle, or no rows.
    """
    reading = _Reading(path)
    files = parts_of_one(paths, reading.notes)
    for file in files:
        reading.add_file(file, several=len(files) > 1)
    return reading.table(len(files))


class _Reading:
    """The state of :func:`look`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout, self.flattening = Layout(), Flattening()
        self.seen: dict[str, Seen] = {}
        self.parts: list[Part] = []
        self.notes: list[str] = []
        self.steps_of_files = 0
        self._store: Store | None = None

    def add_file(self, file: Path, several: bool) -> None:
        """Read a file: by column if it is a plain Arrow file, otherwise by record."""
        before = {name: seen.filled for name, seen in self.seen.items()}
        first = len(self.parts)
        part = arrow_part(file) if suffix_of(file) in ARROW else None
        if part is not None and is_plain(part.schema):
            self._add_columns(part)
        else:
            self._add_records(file, records_of(file, self.notes))
        there = {name for name, seen in self.seen.items() if seen.filled > before.get(name, 0)}
        for name in there:
            self.seen[name].files += 1
        self._add_constants(file, there, first, several)

    def _add_constants(self, file: Path, there: set[str], first: int, several: bool) -> None:
        constants: dict[str, int | str] = {}
        step = step_of(file, there)
        if step is not None and step_name({name: Column(name, "number") for name in there}) is None:
            constants[STEP] = step
            self.steps_of_files += 1
        if several and FILE not in there:
            constants[FILE] = str(file.relative_to(self.path)) if file.is_relative_to(self.path) else file.name
        if not constants:
            return
        self.parts[first:] = [WithConstants(part, constants) for part in self.parts[first:]]
        rows = sum(part.rows for part in self.parts[first:])
        for name, value in constants.items():
            seen = self._seen(name)
            seen.files += 1
            if isinstance(value, str):
                seen.add(Cells(np.full(rows, np.nan), odd=rows))
            else:
                seen.add(Cells(np.full(rows, float(value))))

    def _add_columns(self, part: ArrowPart) -> None:
        if not part.rows:
            return
        self.parts.append(part)
        for name in part.schema.names:
            seen, start, texts = self._seen(name), 0, 0
            for cells in part.cells(name):
                row = start + (cells.first_odd[0] if cells.first_odd else 0)
                seen.add(cells, f"{part.path}, row {row}")
                start, texts = start + len(cells.numbers), texts + cells.odd
                if texts > ENOUGH_TEXT and not seen.numbers:
                    seen.add(Cells(np.full(part.rows - start, np.nan), odd=part.rows - start))
                    break

    def _add_records(self, file: Path, records: Iterator[Record]) -> None:
        rows = self._rows(records)
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            self._add_chunk(file, chunk)

    def _rows(self, records: Iterator[Record]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for where, record in records:
            for row in self.layout.rows(record, where):
                yield where, self.flattening.flat(row)

    def _add_chunk(self, file: Path, chunk: list[tuple[str, Mapping[str, Any]]]) -> None:
        names = dict.fromkeys(name for _, row in chunk for name in row)
        self._store = self._store or Store()
        columns = {}
        for name in names:
            cells = read_cells([row.get(name, ABSENT) for _, row in chunk])
            columns[name] = cells
            self._seen(name).add(cells, chunk[cells.first_odd[0]][0] if cells.first_odd else "")
        self.parts.append(self._store.add(file, len(chunk), columns))

    def _seen(self, name: str) -> Seen:
        if name not in self.seen and len(self.seen) >= MOST_COLUMNS:
            raise DataError(
                f"{self.path} has more than {MOST_COLUMNS} columns; expected one column per reward. Remove objects "
                "whose keys differ from row to row"
            )
        return self.seen.setdefault(name, Seen(name))

    def table(self, files: int) -> Table:
        """Return the table.

        Raises:
            DataError: there are no rows, or only one row per step.
        """
        rows = sum(part.rows for part in self.parts)
        if not rows or not self.seen:
            raise DataError(f"{self.path} has no rows; expected one row per completion. Check how it was written")
        doubts = self._doubts()
        columns = {
            name: seen.column(rows, files, self.layout.is_repeated(name), doubts.get(name, ""))
            for name, seen in self.seen.items()
            if not self._is_kept_whole(name)
        }
        group = LINE if self.layout.is_grouped else None
        weights = {name: weight for name, weight in self.flattening.weights.items() if weight is not None}
        trainer = trainer_of_rows(columns)
        table = Table(
            self.path,
            rows,
            columns,
            tuple(self._notes(rows, files)),
            weights,
            trainer.name if trainer else "",
            group,
            self.parts,
            files,
        )
        self._refuse_metrics(table)
        return table

    def _refuse_metrics(self, table: Table) -> None:
        if self.layout.unfolded:
            return
        name = step_name({name: column for name, column in table.columns.items() if column.numeric})
        steps = None if name is None else np.concatenate([part.numbers(name) for part in table.parts])
        if is_history(table.columns, table.rows, steps):
            raise refuse_history(self.path, table.columns)

    def _is_kept_whole(self, name: str) -> bool:
        return any(name.startswith(f"{whole}.") for whole in self.flattening.kept_whole)

    def _doubts(self) -> dict[str, str]:
        doubts = {}
        for name, (low, high) in self.flattening.lengths.items():
            if low != high:
                why = f"it is an item of lists of {low} to {high} numbers, and their order may differ from row to row"
                doubts.update({f"{name}.{index}": why for index in range(high)})
        return doubts

    def _notes(self, rows: int, files: int) -> Iterator[str]:
        yield from self.notes
        if self.layout.unfolded:
            yield f"{self.layout.records} records with lists were unfolded into {rows} completions"
        if self.steps_of_files:
            yield f"the step is the number in the name of the file ({self.steps_of_files} of {files} files)"
        for name, off in self.flattening.per_token.items():
            differing = f"; in {off} rows they differ, so it is missing there" if off else ""
            yield f"{name!r} has one number per token; the number that all tokens share is used{differing}"
        for name in sorted(self.flattening.kept_whole):
            yield f"{name!r} has hundreds of different keys, which are not names of rewards, so it is read as text"
        for name, weight in self.flattening.weights.items():
            if weight is None:
                yield f"the weight of {name!r} is not used, because it differs from row to row"
