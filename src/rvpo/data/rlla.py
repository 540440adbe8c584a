"""RLLA, the tool-calling data of ToolRL (arXiv 2504.13958; repository qiancheng0/ToolRL), in both layouts.

The reference reply is the ``answer``: its tags decide which format is right, and the tool calls in it
are the ground truth of the correctness reward.
"""

from __future__ import annotations

from pathlib import Path

from rvpo.data.generic import read_parquet, strict_json
from rvpo.data.records import Place, Rows, require_field, require_text, shorten, source_error

PARQUET_COLUMNS = frozenset({"data_source", "prompt", "reward_model"})
"""The columns by which a parquet file is recognised as ToolRL's layout."""

_RECORD = "a JSON list of {'instruction': ..., 'input': ..., 'output': ...}"


def read_rlla_json(path: Path) -> Rows:
    """Read RLLA JSON: a list of ``{"instruction", "input", "output"}``, all text.

    Yields:
        Each record with two columns added: ``prompt`` (instruction as the system message, input as the
        user's message) and ``answer`` (the output).

    Raises:
        DataError: the file is not such a list, or a record lacks one of the three texts.
    """
    source = str(path)
    try:
        data = strict_json(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise source_error(source, f"no JSON ({error})", _RECORD, "repair the file") from error
    if not isinstance(data, list):
        next_step = "for one object a line use layout='jsonl'"
        raise source_error(source, f"a JSON {type(data).__name__}", _RECORD, next_step)
    for index, item in enumerate(data):
        place = Place(source, index)
        if not isinstance(item, dict):
            next_step = "write each record as an object"
            raise place.error(None, f"{type(item).__name__} {shorten(item)}", _RECORD, next_step)
        if not {"instruction", "input", "output"} & item.keys():
            next_step = "other data: write one object a line (JSONL) and use layout='jsonl'"
            raise place.error(None, f"an object with the fields {sorted(item)}", _RECORD, next_step)
        messages = [
            {"role": "system", "content": require_text(place, item, "instruction")},
            {"role": "user", "content": require_text(place, item, "input")},
        ]
        yield place, {**item, "prompt": messages, "answer": require_text(place, item, "output")}


def read_rlla_parquet(path: Path, columns: set[str]) -> Rows:
    """Read ToolRL's parquet layout: ``prompt`` (chat messages) and ``reward_model.ground_truth``.

    Args:
        path: The parquet file.
        columns: Further columns to keep, such as ``extra_info``.

    Yields:
        Each row with the column ``answer`` added (the ground truth).

    Raises:
        DataError: a column is absent, or ``reward_model`` holds no ground truth.
    """
    for place, row in read_parquet(path, {"prompt", "reward_model"} | (columns - {"answer"})):
        allowed = "{'ground_truth': <reference reply>, ...}"
        model = require_field(place, row, "reward_model", allowed)
        if not isinstance(model, dict):
            next_step = "convert the column, or use layout='parquet' with reference_columns"
            raise place.error("reward_model", f"{type(model).__name__} {shorten(model)}", allowed, next_step)
        answer = require_text(place, model, "ground_truth", "reward_model.ground_truth")
        yield place, {**row, "answer": answer}
