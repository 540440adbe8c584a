"""A checkpoint of the last finished step, when rewards end the run in the middle of the next one.

It holds what verl's own checkpoint of that step would: a resumed run generates the batch again. In ``colocate_async``
the batch was generated over several steps and verl has given up its prompts, so the resumed run goes on with the next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import transfer_queue as tq

logger = logging.getLogger(__name__)


def save_last_step(trainer: Any, batch: Any, position: Mapping[str, Any] | None) -> str:
    """Save what a resumed run needs, and return what was saved and what to do next.

    Args:
        trainer: in the middle of a step, whose batch has not changed any weight.
        batch: of that step.
        position: where the data stood before that step, in mode ``sync``.
    """
    done = trainer.global_steps - 1
    if done < 1:
        return "Nothing was trained yet: start again"
    folder = Path(trainer.config.trainer.default_local_dir) / f"global_step_{done}"
    again = "the same command continues from there"
    if _latest(folder.parent) == done:
        return f"Stopped after step {done}, {folder} has it: {again}"
    try:
        with _as_before(trainer, done, position):
            if position is None:  # its prompts are gone already, and no trajectory may be left alone
                tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
                again += " with the next prompts"
            trainer._save_checkpoint()
    except Exception as error:  # the reason for which the run ends is the other one
        logger.exception("no checkpoint of step %d could be saved", done)
        return f"Stopped after step {done}, and no checkpoint could be saved ({type(error).__name__}: {error})"
    return f"Stopped after step {done}, {folder} is saved: {again}"


@contextmanager
def _as_before(trainer: Any, step: int, position: Mapping[str, Any] | None) -> Iterator[None]:
    """Let the trainer stand at the end of a step: what verl saves are its number of steps and its place in the data."""
    steps, data = trainer.global_steps, trainer.train_dataloader
    trainer.global_steps = step
    if position is not None:
        trainer.train_dataloader = SimpleNamespace(state_dict=lambda: position)
    try:
        yield
    finally:
        trainer.global_steps, trainer.train_dataloader = steps, data


def _latest(folder: Path) -> int | None:
    """Return the step of the checkpoint that a resumed run would take, None if there is none."""
    try:
        return int((folder / "latest_checkpointed_iteration.txt").read_text())
    except (OSError, ValueError):
        return None
