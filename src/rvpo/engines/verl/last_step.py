"""Saves a checkpoint of the last finished step when rewards end the run in the middle of the next step.

It has the same content as verl's own checkpoint of that step, so a resumed run generates the batch again. In
``colocate_async``, the batch was generated over several steps and verl has dropped its prompts. Then the resumed run
continues with the next prompts.
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
    """Save the state that a resumed run needs. Return a text with what was saved and what to do next.

    Args:
        trainer: trainer in the middle of a step that has not changed any weight yet.
        batch: batch of that step.
        position: state of the data before that step, in mode ``sync``; None in other modes.
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
            if position is None:  # the prompts are dropped already, so remove their trajectories, too
                tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
                again += " with the next prompts"
            trainer._save_checkpoint()
    except Exception as error:  # must not hide the error that ends the run
        logger.exception("no checkpoint of step %d could be saved", done)
        return f"Stopped after step {done}, and no checkpoint could be saved ({type(error).__name__}: {error})"
    return f"Stopped after step {done}, {folder} is saved: {again}"


@contextmanager
def _as_before(trainer: Any, step: int, position: Mapping[str, Any] | None) -> Iterator[None]:
    """Within the context, the trainer has the number of steps and the position in the data as after ``step``."""
    steps, data = trainer.global_steps, trainer.train_dataloader
    trainer.global_steps = step
    if position is not None:
        trainer.train_dataloader = SimpleNamespace(state_dict=lambda: position)
    try:
        yield
    finally:
        trainer.global_steps, trainer.train_dataloader = steps, data


def _latest(folder: Path) -> int | None:
    """Return the step of the checkpoint from which a run would resume, None without a checkpoint."""
    try:
        return int((folder / "latest_checkpointed_iteration.txt").read_text())
    except (OSError, ValueError):
        return None
