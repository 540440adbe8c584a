"""The pictures of verl's prompts: each is saved once next to verl's dump, and the record has its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import transfer_queue as tq

from rvpo.engines.verl.rows import Sessions
from rvpo.logs.schema import PICTURES
from rvpo.pictures import FOLDER, in_messages, recorded


def columns_of(trainer: Any) -> dict[str, pa.DataType]:
    """Return the extra columns of a trainer's record: empty for a model that reads only text."""
    return PICTURES if trainer.processor is not None else {}


def record_pictures(sessions: Sessions, partition: str, dump: Path) -> list[list[str | None]]:
    """Save the pictures of a batch in a folder next to verl's dump, and return their digests.

    verl keeps the prompt with its pictures for every rollout. One rollout of each prompt is read.

    Args:
        sessions: sessions of the batch.
        partition: partition of TransferQueue that has the batch.
        dump: folder of verl's dump.

    Returns:
        One list per session: digests in order, None for a picture that is not a Pillow image.
    """
    groups = sessions.groups.tolist()
    first = dict(zip(reversed(groups), reversed(sessions.keys), strict=True))  # the first session of a prompt wins
    data = tq.kv_batch_get(keys=list(first.values()), partition_id=partition, select_fields=["raw_prompt"])
    prompts = zip(first, list(data["raw_prompt"]), strict=True)
    found = {
        group: [recorded(picture, dump / FOLDER) for picture in in_messages(_plain(prompt))]
        for group, prompt in prompts
    }
    return [found[group] for group in groups]


def _plain(prompt: Any) -> Any:
    """Return the chat as a list. Depending on TransferQueue's backend, it is wrapped."""
    prompt = getattr(prompt, "data", prompt)
    return prompt.tolist() if hasattr(prompt, "tolist") else prompt
