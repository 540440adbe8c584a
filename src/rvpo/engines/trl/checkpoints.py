"""Checkpoints: sealed when all of their files are on the disk, and checked before a run resumes from one.

If files of the optimizer, the schedule or the random generators are missing, transformers silently starts these anew.
So a checkpoint gets a manifest as its last file, with the sizes and checksums of the others. A checkpoint of an older
version or of plain TRL has no manifest; then its files are checked one by one.
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rvpo.files import flush, flush_tree, write

logger = logging.getLogger(__name__)

MANIFEST = "rvpo_manifest.json"
MAY_BE_MISSING = ("rvpo_state.json", "rvpo_alarm.npz")
"""The memory of the method and of the alarm. If a file is missing, its owner begins anew, with a warning."""
STATE = "trainer_state.json"
_VERSION = 1
_MIB = 2**20
# Transformers' file names for each state. DeepSpeed and FSDP write folders instead.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "*/adapter_model.*", "pytorch_model_fsdp_*")
_OPTIMIZER = ("optimizer.pt", "optimizer.bin", "optimizer_*", "rank*-of-*-optimizer.pt", "global_step*")
_NEEDED = {
    "weights": (*_WEIGHTS, "global_step*"),
    "optimizer state (optimizer.pt)": _OPTIMIZER,
    "state of the learning rate (scheduler.pt)": ("scheduler.pt", "global_step*"),
    "state of the random generators (rng_state.pth)": ("rng_state*.pth",),
}


def begin(folder: Path) -> None:
    """Mark a checkpoint as unfinished. An older folder at its path is removed, so that its files are not mixed in."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
    folder.mkdir(parents=True)
    write(folder / MANIFEST, json.dumps({"version": _VERSION, "complete": False}) + "\n")


def seal(folder: Path) -> None:
    """Flush all files of a checkpoint to the disk, and then write its manifest."""
    flush_tree(folder)
    _write_manifest(folder, {name: _sum(folder / name) for name in _names(folder)})


def extend(folder: Path) -> None:
    """Add files that came after :func:`seal`, such as those of callbacks, to the manifest."""
    manifest = _read(folder / MANIFEST)
    assert isinstance(manifest, dict)
    files = manifest["files"]
    if new := [name for name in _names(folder) if name not in files]:
        for name in new:
            flush(folder / name)
        flush(folder)
        _write_manifest(folder, files | {name: _sum(folder / name) for name in new})


def step(checkpoint: Path) -> int:
    """Return the training step of a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def is_last(checkpoint: Path) -> bool:
    """Return whether a complete checkpoint is the one of the last step."""
    state = json.loads((checkpoint / STATE).read_text("utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def newest_whole(folder: Path, *, thorough: bool = True) -> Path | None:
    """Return the newest complete checkpoint. A warning names each newer one that was passed over, and why.

    Args:
        folder: folder of the run.
        thorough: whether every file is read; if False, only names and sizes are checked, which is fast.
    """
    found = [path for path in folder.glob("checkpoint-*") if _is_step(path.name)]
    for path in sorted(found, key=step, reverse=True):
        if (reason := problem(path, thorough=thorough)) is None:
            return path
        logger.warning("%s is passed over: %s", path, reason)
    return None


def problem(folder: Path, *, thorough: bool = True, but: Collection[str] = ()) -> str | None:
    """Return why a run cannot resume exactly from a checkpoint, or None if it can.

    Args:
        folder: folder of the checkpoint.
        thorough: whether every file is read; if False, only names and sizes are checked.
        but: names of files that may be missing, because the code that reads them warns about it.
    """
    try:
        manifest = _read(folder / MANIFEST) if (folder / MANIFEST).exists() else None
        return _unsealed(folder, manifest, thorough, but) or _unfit(folder) or _unreadable(folder, manifest, thorough)
    except OSError as error:
        return f"{error.filename or folder} cannot be read ({error.strerror})"


def _unsealed(folder: Path, manifest: Any, thorough: bool, but: Collection[str]) -> str | None:
    """Compare a checkpoint with its manifest."""
    if manifest is None:
        return None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if isinstance(manifest, dict) and manifest.get("complete") is False:
        return "it is incomplete, cut off while it was written"
    if not isinstance(files, dict):
        return f"its {MANIFEST} is damaged"
    for name, wanted in files.items():
        path = folder / name
        if not path.exists() and name in but:
            continue
        if not path.is_file():
            return f"{name} is missing"
        if not isinstance(wanted, list) or len(wanted) != 2:
            return f"its {MANIFEST} is damaged"
        size = path.stat().st_size
        if size != wanted[0]:
            return f"{name} has {size} bytes; expected {wanted[0]}"
        if thorough and _sum(path) != wanted:
            return f"{name} is damaged: it is not what was written"
    return None


def _unfit(folder: Path) -> str | None:
    """Check that the files which a run needs to resume exist. This also works without a manifest."""
    state = _read(folder / STATE)
    if not isinstance(state, dict):
        return f"it is incomplete: {STATE} is missing or damaged"
    steps = [state.get(key) for key in ("global_step", "max_steps")]
    if not all(isinstance(value, int) for value in steps):
        return f"{STATE} is damaged: it has global_step {steps[0]!r} and max_steps {steps[1]!r}"
    if _is_step(folder.name) and steps[0] != step(folder):
        return f"{STATE} is that of step {steps[0]}"
    for what, patterns in _NEEDED.items():
        if not any(True for pattern in patterns for _ in folder.glob(pattern)):
            return f"it has no {what}"
    return None


def _unreadable(folder: Path, manifest: Any, thorough: bool) -> str | None:
    """Read the files of a checkpoint without a manifest: most formats have their own lengths and checksums."""
    if manifest is not None or not thorough:
        return None
    for path in sorted(folder.rglob("*")):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
            elif path.suffix in (".pt", ".pth", ".npz", ".bin"):
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:
                        return f"{path.name} is damaged"
            elif path.suffix == ".json" and _read(path) is None:
                return f"{path.name} is damaged"
        except (SafetensorError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError):
            return f"{path.name} is damaged"
    return None


def _read(path: Path) -> Any:
    """Return the content of a JSON file; None if the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _is_step(name: str) -> bool:
    number = name.removeprefix("checkpoint-")
    return name != number and number.isascii() and number.isdecimal()


def _names(folder: Path) -> list[str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".partial")
    return [path.relative_to(folder).as_posix() for path in paths if path.name != MANIFEST]


def _sum(path: Path) -> list[int]:
    """Return a file's size in bytes and its CRC-32, which is as fast to compute as the file is to read."""
    size = total = 0
    with path.open("rb") as file:
        while block := file.read(8 * _MIB):
            size, total = size + len(block), zlib.crc32(block, total)
    return [size, total]


def _write_manifest(folder: Path, files: dict[str, list[int]]) -> None:
    content = {"version": _VERSION, "complete": True, "files": files}
    write(folder / MANIFEST, json.dumps(content, indent=1) + "\n")
