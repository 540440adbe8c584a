"""Tools for folders of results: atomic writes, differences between plain values, and digests of files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin", "*.gguf")
_DECIDES = ("*.json", "*.jinja", "*.txt", "*.model")  # config, tokenizer, chat template
_OF_TRAINING = ("trainer_state.json", "rvpo_state.json", "warm_start.json")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file completely or not at all: ``with whole(path) as partial: ...`` writes to the path ``partial``.

    The folder of ``path`` is created. After the block, the partial file next to ``path`` is flushed to the disk and
    replaces ``path`` in one step. If the block raises, the partial file is removed and ``path`` does not change. A
    killed process may leave the partial file; the next write replaces it.

    A stream, such as ``/dev/stdout`` or ``/dev/null``, is written itself: a file in its place would break the system.
    """
    if is_stream(path):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk, so that they survive a power cut.

    Raises:
        OSError: the disk could not store it. Folders that cannot be flushed, as on some network disks, raise nothing.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows cannot open a folder
        return
    opened = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        if is_folder:
            with suppress(OSError):
                os.fsync(opened)
        else:
            os.fsync(opened)
    finally:
        os.close(opened)


def flush_tree(folder: Path) -> None:
    """Call :func:`flush` for all files below a folder, and then for the folders, the innermost first."""
    inside = sorted(folder.rglob("*"))
    for path in inside:
        if path.is_file():
            flush(path)
    for path in reversed(inside):
        if path.is_dir():
            flush(path)
    flush(folder)


def write(path: Path, text: str) -> None:
    """Write a text file completely or not at all, as UTF-8."""
    mode = "a" if is_stream(path) else "w"  # a stream may be a file that already has the printed text
    with whole(path) as partial, partial.open(mode, encoding="utf-8", newline="") as file:
        file.write(sound(text))


def is_stream(path: Path) -> bool:
    """Return whether a path is a device, a pipe or a standard stream, and not a file that can be replaced."""
    if str(path) in ("/dev/stdout", "/dev/stderr") or path.parent == Path("/dev/fd"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def sound(text: str) -> str:
    """Replace lone surrogates by question marks: JSON may contain them, UTF-8 cannot encode them."""
    return text.encode("utf-8", "replace").decode()


def digest(values: Any) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def difference(before: Any, now: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Return the first field in which two nested plain values differ, as a dotted name, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        fields = {**now, **before}
        found = (difference(before.get(key), now.get(key), f"{where}.{key}".lstrip(".")) for key in fields)
        return next((difference for difference in found if difference), None)
    return None if before == now else (where, before, now)


def model_digest(folder: Path) -> str:
    """Return the SHA-256 of a model's files: its weights, config, tokenizer and chat template.

    Raises:
        ConfigError: the folder does not contain weights, or one of the files cannot be read.
    """
    weights = [path for pattern in _WEIGHTS for path in folder.glob(pattern)]
    if not weights:
        names = sorted(path.name for path in folder.iterdir())[:6]
        raise ConfigError(
            f"{folder} has {names}, but no weights; expected a folder with a model or an adapter: name the folder "
            "of a checkpoint, or the run's model/"
        )
    paths = {*weights, *(path for pattern in _DECIDES for path in folder.glob(pattern))}
    whole = hashlib.sha256()
    for path in sorted(path for path in paths if path.name not in _OF_TRAINING):
        try:
            with path.open("rb") as file:
                whole.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; expected a file that can be read: fix the file") from error
    return whole.hexdigest()


_ADVICE = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the quota of the disk is used up: make room",
    errno.EFBIG: "a file may not grow so large (ulimit -f, or the disk's limit): raise the limit",
    errno.EROFS: "the disk is read-only: choose a folder that can be written",
    errno.EACCES: "access is denied: check the owner and the rights of the folder",
    errno.EPERM: "access is denied: check the owner and the rights of the folder",
    errno.EMFILE: "too many files are open (ulimit -n): raise the limit",
    errno.ENFILE: "too many files are open on this machine: close some programs",
    errno.EIO: "the disk fails, or limits what is written: check it (and ulimit -f)",
    errno.ESTALE: "the network disk has lost the file: check the disk",
}
# Libraries that write from C++ or Rust report errors as text: torch.save, safetensors, Arrow, SQLite.
_TOLD = re.compile(
    r"os error (\d+)|errno (\d+)|\[Errno (\d+)\]|(PytorchStreamWriter failed|unexpected pos \d+|iostream error)"
    r"|(database or disk is full|No space left on device)|(File too large)|(readonly database|Read-only file system)"
    r"|(disk I/O error)",
    re.IGNORECASE,
)


_LIBRARIES = ("builtins", "safetensors", "safetensors_rust", "tokenizers", "pyarrow", "sqlite3", "torch")
"""Only texts of these errors are read. Others may quote text that a policy wrote."""


def disk_trouble(error: BaseException) -> str | None:
    """Return one line about a disk that is full, read-only or limited, and what to do; None for any other error.

    The causes of the error are checked, too.
    """
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        if (number := _number(found)) in _ADVICE:
            place = getattr(found, "filename", None)
            advice = _ADVICE[number]
            return f"{place}: {advice}, and run the command again" if place else f"{advice}, and run the command again"
        found = found.__cause__ or found.__context__
    return None


def _number(error: BaseException) -> int:
    """Return the system's number of an error, also if a library reports it as text; 0 without a number."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if type(error).__module__.split(".")[0] not in _LIBRARIES:
        return 0
    match = _TOLD.search(str(error))
    if match is None:
        return 0
    first, second, third, torch_s, full, large, read_only, broken = match.groups()
    if number := first or second or third:
        return int(number)
    if read_only or broken:
        return errno.EROFS if read_only else errno.EIO
    return errno.EFBIG if large else errno.ENOSPC if torch_s or full else 0
