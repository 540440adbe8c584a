"""The pictures of TRL's prompts: each picture is saved once in the run's folder, and the record has its digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from accelerate.utils import gather_object

from rvpo.logs.schema import PICTURES
from rvpo.pictures import FOLDER, in_messages
from rvpo.pictures import recorded as recorded_picture


def keep_out_of_completions(trainer: Any) -> None:
    """Let a policy of pictures and text generate no picture token, as newer versions of TRL do.

    TRL 1.6 to 1.14 end with an error when the policy samples one, because no picture belongs to it.
    """
    config = getattr(trainer, "generation_config", None)
    token = getattr(trainer.model.config, "image_token_id", None)
    if config is None or token is None or config.suppress_tokens is not None:
        return
    config.suppress_tokens = [token]
    trainer.generation_kwargs["suppress_tokens"] = [token]


def columns_of(trainer: Any) -> dict[str, pa.DataType]:
    """Return the extra columns of a trainer's record: empty for a model that reads only text."""
    return PICTURES if getattr(trainer, "_is_vlm", False) else {}


def recorded(trainer: Any, inputs: Sequence[Mapping[str, Any]]) -> list[list[str | None]] | None:
    """Save the pictures of a batch in the run's folder, and return their digests. Collective.

    Args:
        trainer: trainer of the run.
        inputs: inputs of TRL's ``_generate_and_score_completions`` in this process.

    Returns:
        One list per completion of all processes: digests in order, None for a picture that is not a Pillow image (a
        path, an array). None if nothing is recorded.
    """
    if not trainer.log_completions or not columns_of(trainer):
        return None
    folder = Path(trainer.args.output_dir) / FOLDER
    found: list[list[str | None]] = gather_object([_digests(example, folder) for example in inputs])
    return found


def _digests(example: Mapping[str, Any], folder: Path) -> list[str | None]:
    return [recorded_picture(picture, folder) for picture in pictures_of(example)]


def pictures_of(example: Mapping[str, Any]) -> list[Any]:
    """Return the pictures of a row from where TRL reads them: a column, or the parts of its messages."""
    if "images" in example or "image" in example:
        held = example["images"] if "images" in example else example["image"]
        return list(held) if isinstance(held, list | tuple) else [] if held is None else [held]
    return in_messages(example.get("prompt"))
