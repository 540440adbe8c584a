"""Prompt records as verl's parquet files, which ``rvpo.engines.verl.rewards`` reads back.

A row of the file::

    data_source   text by which verl groups its validation metrics
    prompt        chat messages {role, content}
    reward_model  {style: "rule", ground_truth: the answer, or "" if there is none}
    extra_info    {index, split, prompt: JSON text of the chat, columns: JSON text of the other columns}

Both JSON texts are there for the reward functions. The columns are one text because Arrow gives every row of a nested
column the keys of all rows, filled up with null, and because verl writes keys of its own into ``extra_info``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rvpo.data.records import Place, shorten
from rvpo.files import whole

if TYPE_CHECKING:
    from datasets import Dataset

SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct(
            {"index": pa.int64(), "split": pa.string(), "prompt": pa.string(), "columns": pa.string()}
        ),
    }
)
"""Columns of the file."""

_ROWS = 1000  # held in memory at a time


def write_parquet(dataset: Dataset, path: Path, *, data_source: str, split: str) -> None:
    """Write prompt records for verl; the file appears whole or not at all.

    A text prompt becomes the user's message, as verl knows chats alone.

    Args:
        dataset: of :func:`rvpo.data.load_prompts`.
        path: place of the file; its folder is made.
        data_source: see the module's text.
        split: such as ``train``.

    Raises:
        DataError: a value of a column that JSON cannot hold.
    """
    with whole(path) as partial, pq.ParquetWriter(partial, SCHEMA) as file:
        rows = _rows(dataset, str(path), data_source, split)
        while batch := [row for _, row in zip(range(_ROWS), rows, strict=False)]:
            file.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))


def _rows(dataset: Dataset, path: str, data_source: str, split: str) -> Iterator[dict[str, Any]]:
    for index, record in enumerate(dataset):
        prompt, answer = record.pop("prompt"), record.pop("answer", "")
        chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        for name, value in record.items():
            _check_json(Place(path, index), name, value)
        yield {
            "data_source": data_source,
            "prompt": chat,
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {
                "index": index,
                "split": split,
                "prompt": json.dumps(chat, ensure_ascii=False),
                "columns": json.dumps(record, ensure_ascii=False),
            },
        }


def _check_json(place: Place, name: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        allowed = "text, numbers, true, false, null, and lists and objects of them"
        raise place.error(name, f"{shorten(value)} ({error})", allowed, "store the value as text") from error
