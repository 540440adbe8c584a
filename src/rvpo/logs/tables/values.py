"""Read the columns of a table by name or by role: numbers, labels, texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rvpo.errors import ConfigError, DataError
from rvpo.logs.parquet_files import numbers
from rvpo.logs.tables import names as naming
from rvpo.logs.tables.groups import Labels
from rvpo.logs.tables.table import Table

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def given(table: Table, role: str, name: str | None) -> str | None:
    """Return the column that the user named for a role, or None.

    Raises:
        ConfigError: the table has no column of this name.
    """
    if name is not None and name not in table.columns:
        raise ConfigError(f"{table.path} has no column {name!r} (--{role}); expected one of {', '.join(table.columns)}")
    return name


def first_number(table: Table, role: str) -> str | None:
    """Return the first column of numbers whose name has a role; None without one."""
    names = naming.of_role(table.columns, role)
    return next((name for name in names if table.columns[name].numeric and not table.columns[name].doubt), None)


def numbers_of(table: Table, name: str) -> Array:
    """Return a column as numbers (rows,), NaN where it has none.

    Raises:
        DataError: the column contains text.
    """
    column = table.columns[name]
    if column.kind == "empty":
        return np.full(table.rows, np.nan)
    if not column.numeric:
        raise DataError(
            f"{table.path}, column {name!r} contains text; expected numbers, null if missing. Name another column"
        )
    return table.numbers(name)


def labels_of(table: Table, name: str, rows: Ints) -> Labels:
    """Return the labels of some rows; the code is -1 where a cell is null."""
    column = table.read_texts([name])[name].combine_chunks().dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    codes = np.nan_to_num(numbers(pa.chunked_array([column.indices])), nan=-1).astype(np.int64)[rows]
    return Labels(codes, column.dictionary)


def texts_of(table: Table, name: str | None) -> list[str | None] | None:
    """Return a column as texts, None without a column."""
    return None if name is None else table.read_texts([name])[name].to_pylist()


def group_candidates(table: Table) -> list[str]:
    """Return the columns that may identify groups, ids before texts."""
    names = naming.of_role(table.columns, "group")
    return [name for name in names if table.columns[name].kind != "empty"]
