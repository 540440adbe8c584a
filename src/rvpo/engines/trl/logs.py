"""What a run prints and writes while it trains: ``metrics.jsonl``, a progress bar, one short line per step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from rvpo.engines.trl import checkpoints
from rvpo.files import write


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Append every log to ``metrics.jsonl``. On resume, lines logged after the checkpoint are removed."""

    def __init__(self, path: Path, checkpoint: Path | None) -> None:
        """Remember the checkpoint's step; None starts a new file."""
        self.path = path
        self.done = checkpoints.step(checkpoint) if checkpoint else 0

    def cut(self) -> None:
        """Keep the lines up to the checkpoint's step."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() and self.done else []
        kept = [line for line in lines if _step(line) <= self.done]
        write(self.path, "".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write one line. JSON does not have NaN and infinities, so undefined values are null."""
        if logs and state.is_world_process_zero:
            values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in logs.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | values) + "\n")


def _step(line: str) -> float:
    """Return the step of a line; infinity if the line was cut off, such as by a kill or a full disk."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf


class _Bar(ProgressCallback):  # type: ignore[misc]
    """The progress bar of transformers, with one short line per log: ``metrics.jsonl`` has all metrics."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.write(_short_line(state, logs))


class _Lines(TrainerCallback):  # type: ignore[misc]
    """The same lines if the bar is off (``disable_tqdm``)."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and state.is_world_process_zero:
            print(_short_line(state, logs), flush=True)


def show_short_lines(trainer: Any) -> None:
    """Print a line with each channel's mean, instead of transformers' whole log with about 45 keys per step."""
    for theirs, ours in ((ProgressCallback, _Bar), (PrinterCallback, _Lines)):
        if trainer.pop_callback(theirs) is not None:
            trainer.add_callback(ours())


def _short_line(state: Any, logs: dict[str, Any]) -> str:
    """Return a line with the mean of each reward function, or a few of TRL's values if a log has no channels."""
    means = {}
    for key, value in logs.items():
        parts = key.removeprefix("eval_").split("/")
        if len(parts) == 3 and parts[0] == "rvpo" and parts[2] == "mean":  # four parts: a category of a rubric
            means[parts[1]] = value
        elif len(parts) == 3 and parts[0] == "rvpo" and parts[2] == "missing" and value:
            means[f"{parts[1]} missing"] = value
        elif len(parts) == 3 and parts[0] == "rvpo" and parts[2] in ("neglected", "diverging") and value:
            means[f"{parts[1]} {parts[2]}"] = value
        elif len(parts) == 3 and parts[0] == "benchmark" and ":" not in parts[2]:  # with ":": an axis or a category
            means[f"{parts[1]}/{parts[2]}"] = value
    shown = means or {key: logs[key] for key in ("train_runtime", "train_loss", "loss", "eval_loss") if key in logs}
    where = "eval" if any(key.startswith("eval_") for key in logs) else "step"
    # None: nothing was scored
    values = "  ".join(f"{key} {'-' if value is None else format(value, '.4g')}" for key, value in shown.items())
    return f"{where} {state.global_step}/{state.max_steps}  {values}"
