"""Prompt records as verl's parquet files, which ``rvpo.engines.verl.rewards`` reads back.

A row of the file::

    data_source   text by which verl groups its validation metrics
    prompt        chat messages {role, content}
    reward_model  {style: "rule", ground_truth: the answer, or "" without an answer}
    extra_info    {index, split, prompt: JSON text of the chat, columns: JSON text of the other columns}
    images        [{bytes, path}], if prompts have pictures: one per <image> in the text of the chat

The reward functions read both JSON texts. The columns are one text for two reasons: Arrow gives every row of a nested
column the keys of all rows, filled up with null, and verl writes its own keys into ``extra_info``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rvpo.data.picture_columns import IMAGES, as_text
from rvpo.data.records import Place, shorten, undecoded
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

PICTURES = pa.field(IMAGES, pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})))
"""Another column if prompts have pictures."""

_OTHER_MEDIA = ("<video>", "<audio>")  # anywhere in a text, verl's reader replaces these by a video or a sound
_ROWS = 1000  # number of rows in memory at a time


def write_parquet(dataset: Dataset, path: Path, *, data_source: str, split: str) -> None:
    """Write prompt records for verl. The file is written completely or not at all.

    A text prompt becomes the user's message, because verl only reads chats.

    Args:
        dataset: dataset from :func:`rvpo.data.load_prompts`.
        path: path of the file; its folder is created.
        data_source: text by which verl groups its validation metrics.
        split: name of the split, such as ``train``.

    Raises:
        DataError: a column has a value that is not JSON data, or a text has a placeholder that verl reads as a video.
    """
    schema = SCHEMA.append(PICTURES) if IMAGES in dataset.column_names else SCHEMA
    if IMAGES in dataset.column_names:
        dataset = undecoded(dataset)
    with whole(path) as partial, pq.ParquetWriter(partial, schema) as file:
        rows = _rows(dataset, str(path), data_source, split)
        while batch := [row for _, row in zip(range(_ROWS), rows, strict=False)]:
            file.write_table(pa.Table.from_pylist(batch, schema=schema))


def _rows(dataset: Dataset, path: str, data_source: str, split: str) -> Iterator[dict[str, Any]]:
    for index, record in enumerate(dataset):
        prompt, answer = record.pop("prompt"), record.pop("answer", "")
        chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        pictures = {IMAGES: record.pop(IMAGES)} if IMAGES in record else {}
        written = _with_placeholders(Place(path, index), chat) if pictures else chat
        for name, value in record.items():
            _check_json(Place(path, index), name, value)
        yield {
            "data_source": data_source,
            "prompt": written,
            **pictures,
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {
                "index": index,
                "split": split,
                "prompt": json.dumps(chat, ensure_ascii=False),
                "columns": json.dumps(record, ensure_ascii=False),
            },
        }


def _with_placeholders(place: Place, chat: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the chat as texts with one placeholder per picture, at which verl's reader inserts the pictures."""
    written = as_text(chat)
    for message in written:
        if found := [mark for mark in _OTHER_MEDIA if mark in message["content"]]:
            seen = f"the text {found[0]}, where verl expects a {found[0].strip('<>')}"
            raise place.error("prompt", seen, "pictures and text", "change the text")
    return written


def _check_json(place: Place, name: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        allowed = "text, numbers, true, false, null, and lists and objects of them"
        raise place.error(name, f"{shorten(value)} ({error})", allowed, "store the value as text") from error
