"""What a run prints and writes while it trains: ``metrics.jsonl``, a progress bar, a short line a step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from rvpo.engines.trl import checkpoints
from rvpo.files import write


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Append every log to ``metrics.jsonl``; a resumed run first drops what lies behind its checkpoint."""

    def __init__(self, path: Path, checkpoint: Path | None) -> None:
        """Remember the checkpoint's step; None starts anew."""
        self.path = path
        self.done = checkpoints.step(checkpoint) if checkpoint else 0

    def cut(self) -> None:
        """Keep the lines up to the checkpoint's step."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() and self.done else []
        kept = [line for line in lines if _step(line) <= self.done]
        write(self.path, "".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write one line. NaN and infinities are no JSON, so undefined values are null."""
        if logs and state.is_world_process_zero:
            values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in logs.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | values) + "\n")


def _step(line: str) -> float:
    """Return the step of a line; infinity where it was cut off, as by a kill or a full disk."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf


class _Bar(ProgressCallback):  # type: ignore[misc]
    """The progress bar of transformers, with a short line a log: ``metrics.jsonl`` has all of it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.write(_short_line(state, logs))


class _Lines(TrainerCallback):  # type: ignore[misc]
    """The same lines where the bar is off (``disable_tqdm``)."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and state.is_world_process_zero:
            print(_short_line(state, logs), flush=True)


def show_short_lines(trainer: Any) -> None:
    """Replace transformers' printing of whole logs, some 45 keys a step, by a line with each channel's mean."""
    for theirs, ours in ((ProgressCallback, _Bar), (PrinterCallback, _Lines)):
        if trainer.pop_callback(theirs) is not None:
            trainer.add_callback(ours())


def _short_line(state: Any, logs: dict[str, Any]) -> str:
    """Return the mean of each reward function, or of TRL's own few values where a log has no channels."""
    means = {}
    for key, value in logs.items():
        parts = key.removeprefix("eval_").split("/")
        if len(parts) == 3 and parts[0] == "rvpo" and parts[2] == "mean":  # four parts: a category of a rubric
            means[parts[1]] = value
        elif len(parts) == 3 and parts[0] == "rvpo" and parts[2] == "missing" and value:
            means[f"{parts[1]} missing"] = value
        elif len(parts) == 3 and parts[0] == "rvpo" and parts[2] in ("neglected", "diverging") and value:
            means[f"{parts[1]} {parts[2]}"] = value
        elif len(parts) == 3 and parts[0] == "benchmark" and ":" not in parts[2]:  # not axes, not categories
            means[f"{parts[1]}/{parts[2]}"] = value
    shown = means or {key: logs[key] for key in ("train_runtime", "train_loss", "loss", "eval_loss") if key in logs}
    where = "eval" if any(key.startswith("eval_") for key in logs) else "step"
    # None: nothing was scored
    values = "  ".join(f"{key} {'-' if value is None else format(value, '.4g')}" for key, value in shown.items())
    return f"{where} {state.global_step}/{state.max_steps}  {values}"
