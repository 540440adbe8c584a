"""The completions that a checkpoint has generated but not yet trained on, as safetensors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

logger = logging.getLogger(__name__)

Buffer = list[dict[str, Any]]


def save_buffer(batches: Buffer, folder: Path, rank: int) -> None:
    """Write one process's buffered batches. Values are tensors, or plain JSON (None, numbers, lists of them)."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, Any] = {}
    for i, batch in enumerate(batches):
        for key, value in batch.items():
            if isinstance(value, torch.Tensor):
                # Copy: TRL puts the same tensor into several batches, which safetensors refuses.
                tensors[f"{i}/{key}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                plain[f"{i}/{key}"] = value
    try:
        metadata = {"batches": str(len(batches)), "plain": json.dumps(plain)}
    except TypeError as error:  # images and the like
        logger.warning("The buffered completions cannot be saved (%s): a resumed run generates them anew.", error)
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, _path(folder, rank), metadata)


def load_buffer(folder: Path, rank: int, device: torch.device) -> Buffer | None:
    """Read what :func:`save_buffer` wrote. Return None if the checkpoint has no buffered completions."""
    path = _path(folder, rank)
    if not path.exists():
        return None
    # Move to the device afterwards, because safetensors does not know accelerate's "cpu:0".
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key).to(device) for key in file.keys()}  # noqa: SIM118
    items = tensors | json.loads(metadata["plain"])
    batches: Buffer = [{} for _ in range(int(metadata["batches"]))]
    for name, value in items.items():
        i, key = name.split("/", 1)
        batches[int(i)][key] = value
    return batches


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rvpo_buffer_{rank}.safetensors"
