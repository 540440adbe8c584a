"""Read RLLA, the tool-calling data of ToolRL (arXiv 2504.13958; repository qiancheng0/ToolRL), in both layouts.

The reference reply is the ``answer``. Its tags determine the right format, and its tool calls are the ground truth of
the correctness reward.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rvpo.data.generic import read_parquet
from rvpo.data.json_files import read_json
from rvpo.data.paths import plain
from rvpo.data.records import Place, Row, Rows, require_field, require_text, shorten

PARQUET_COLUMNS = frozenset({"data_source", "prompt", "reward_model"})
"""Columns that identify a parquet file as ToolRL's layout."""

_RECORD = "a JSON list of {'instruction': ..., 'input': ..., 'output': ...}"


def is_rlla(row: Row) -> bool:
    """Return whether a row is a record of RLLA. Its replies have tags, unlike those of instruction sets (Alpaca)."""
    output = row.get("output")
    if not {"instruction", "input", "output"} <= row.keys() or not isinstance(output, str):
        return False
    return any(tag in output for tag in ("<think>", "<tool_call>", "<response>"))


def is_rlla_parquet(row: Row) -> bool:
    """Return whether a row has ToolRL's parquet layout: the reply is in ``reward_model``, and rubrics are absent."""
    model = plain(row.get("reward_model"))
    if not row.keys() >= PARQUET_COLUMNS or "answer" in row:
        return False
    if not isinstance(model, dict):
        return True
    return model.keys() <= {"style", "ground_truth"} and model.get("style") != "rubric"


def read_rlla_json(path: Path) -> Rows:
    """Read RLLA JSON: a list of ``{"instruction", "input", "output"}`` whose values are text.

    Yields:
        Each record with two more columns: ``prompt`` (the instruction as the system message, the input as the user's
        message) and ``answer`` (the output).

    Raises:
        DataError: the file is not such a list, or a record lacks one of the three texts.
    """
    return convert(read_json(path), "rlla")


def read_rlla_parquet(path: Path, columns: set[str]) -> Rows:
    """Read ToolRL's parquet layout: ``prompt`` (chat messages) and ``reward_model.ground_truth``.

    Args:
        path: parquet file.
        columns: further columns to keep, such as ``extra_info``.

    Yields:
        Each row with one more column, ``answer`` (the ground truth).

    Raises:
        DataError: a column is absent, or ``reward_model`` has no ground truth.
    """
    return convert(read_parquet(path, {"prompt", "reward_model"} | (columns - {"answer"})), "rlla_parquet")


def convert(rows: Rows, layout: str) -> Rows:
    """Add the columns ``prompt`` and ``answer`` to rows of the layout ``rlla`` or ``rlla_parquet``."""
    for place, row in rows:
        yield place, _from_json(place, row) if layout == "rlla" else _from_parquet(place, row)


def _from_json(place: Place, item: Row) -> Row:
    if not {"instruction", "input", "output"} & item.keys():
        next_step = "for other data, leave layout out, or use layout='json'"
        raise place.error(None, f"an object with the fields {sorted(item)}", _RECORD, next_step)
    messages = [
        {"role": "system", "content": require_text(place, item, "instruction")},
        {"role": "user", "content": require_text(place, item, "input")},
    ]
    return {**item, "prompt": messages, "answer": require_text(place, item, "output")}


def _from_parquet(place: Place, row: Row) -> Row:
    expected = "{'ground_truth': <reference reply>, ...}"
    model: Any = plain(require_field(place, row, "reward_model", expected))
    if not isinstance(model, dict):
        next_step = "convert the column, or use layout='parquet' with reference_columns"
        raise place.error("reward_model", f"{type(model).__name__} {shorten(model)}", expected, next_step)
    return {**row, "answer": require_text(place, model, "ground_truth", "reward_model.ground_truth")}
