"""Files in which trainers log metrics by step: rvpo's ``metrics.jsonl`` and the states of transformers' trainer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rvpo.logs.run import COMPLETIONS
from rvpo.logs.schema import FOLDER

METRICS, STATE = "metrics.jsonl", "trainer_state.json"
_CHECKPOINT = "checkpoint-"


def folder_of_run(path: Path) -> Path:
    """Return the folder of a run, from its path or from the path of the logs in it."""
    folder = path.resolve()
    return folder.parent if folder.name in (FOLDER, COMPLETIONS) else folder


def states(folder: Path) -> list[Path]:
    """Return where a run may have states of its trainer, the newest first; each has the whole run up to its step."""
    numbered = [
        (int(number), entry)
        for entry in folder.glob(f"{_CHECKPOINT}*")
        if (number := entry.name.removeprefix(_CHECKPOINT)).isdecimal() and len(number) < 16
    ]
    return [folder / STATE, *(entry / STATE for _, entry in sorted(numbered, reverse=True))]


def rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the step and the metrics of each entry."""
    text = path.read_text("utf-8", errors="replace")
    whole = _parsed(text) if path.suffix == ".json" else None
    history = whole.get("log_history") if isinstance(whole, dict) else None
    entries = history if isinstance(history, list) else map(_parsed, text.split("\n"))
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        step, data = number_of(entry.get("step")), entry.get("data")
        if step is not None and step.is_integer():
            yield int(step), data if isinstance(data, dict) else entry


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def number_of(value: object) -> float | None:
    """Return a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
