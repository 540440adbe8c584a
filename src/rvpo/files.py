"""What folders of results need: files that are whole, a word on what differs, and digests of what it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin", "*.gguf")
_DECIDES = ("*.json", "*.jinja", "*.txt", "*.model")  # config, tokenizer, chat template
_OF_TRAINING = ("trainer_state.json", "rvpo_state.json", "warm_start.json")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: ``with whole(path) as partial: ...`` writes to the path ``partial``.

    The folder of ``path`` is created. After the block, the partial file next to ``path`` replaces it in one step. If
    the block raises, the partial file is removed and ``path`` stays as it was. A killed process may leave the partial
    file; the next write replaces it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all, as UTF-8."""
    with whole(path) as partial:
        partial.write_text(sound(text), encoding="utf-8", newline="")


def sound(text: str) -> str:
    """Replace half surrogates, which JSON can carry into a text, but no encoding out of it, by question marks."""
    return text.encode("utf-8", "replace").decode()


def digest(values: Any) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def difference(before: Any, now: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Return the first field, however deep, in which two plain values differ, dotted, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        fields = {**now, **before}
        found = (difference(before.get(key), now.get(key), f"{where}.{key}".lstrip(".")) for key in fields)
        return next((difference for difference in found if difference), None)
    return None if before == now else (where, before, now)


def model_digest(folder: Path) -> str:
    """Return the SHA-256 of a model's files: its weights, and what decides how they are used.

    Raises:
        ConfigError: the folder holds no weights, or one of the files cannot be read.
    """
    weights = [path for pattern in _WEIGHTS for path in folder.glob(pattern)]
    if not weights:
        names = sorted(path.name for path in folder.iterdir())[:6]
        raise ConfigError(
            f"{folder} holds {names}, but no weights; allowed is a folder with a model or an adapter: name the folder "
            "of a checkpoint, or the run's model/"
        )
    paths = {*weights, *(path for pattern in _DECIDES for path in folder.glob(pattern))}
    whole = hashlib.sha256()
    for path in sorted(path for path in paths if path.name not in _OF_TRAINING):
        try:
            with path.open("rb") as file:
                whole.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; allowed is a file that can be read: repair it") from error
    return whole.hexdigest()
