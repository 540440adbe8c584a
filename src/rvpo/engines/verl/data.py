"""Prompt records as verl's parquet files, which ``rvpo.engines.verl.rewards`` reads back.

A row of the file::

    data_source   text by which verl groups its validation metrics
    prompt        chat messages {role, content}
    reward_model  {style: "rule", ground_truth: the answer, or "" if there is none}
    extra_info    {index, split, prompt: JSON text of the chat, columns: JSON text of the other columns}
    images        [{bytes, path}], where prompts have pictures: one per <image> in the text of the chat

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
"""A further column where prompts have pictures."""

_OTHER_MEDIA = ("<video>", "<audio>")  # places of such in verl's reader, wherever they stand
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
        DataError: a value of a column that JSON cannot hold, or a text that verl's reader takes for a video.
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
    """Return the chat as texts with a placeholder per picture, from which verl's reader makes parts."""
    written = as_text(chat)
    for message in written:
        if found := [mark for mark in _OTHER_MEDIA if mark in message["content"]]:
            seen = f"the text {found[0]}, where verl expects a {found[0].strip('<>')}"
            raise place.error("prompt", seen, "pictures and text", "write the text otherwise")
    return written


def _check_json(place: Place, name: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        allowed = "text, numbers, true, false, null, and lists and objects of them"
        raise place.error(name, f"{shorten(value)} ({error})", allowed, "store the value as text") from error
