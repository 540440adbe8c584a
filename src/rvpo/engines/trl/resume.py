"""Choose the checkpoint from which a training resumes. The first process chooses for all processes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from rvpo.engines.trl import checkpoints
from rvpo.errors import ConfigError

logger = logging.getLogger(__name__)


def newest_whole(folder: Path, is_first: bool) -> Path | None:
    """Return the newest complete checkpoint. All processes return the one that the first process finds. Collective."""
    found = checkpoints.newest_whole(folder) if is_first else None
    if found is not None:
        logger.info("resuming from %s", found)
    (chosen,) = broadcast_object_list([None if found is None else str(found)])
    return None if chosen is None else Path(chosen)


def checked(trainer: Any, resume: Any) -> Any:
    """Return a trainer's ``resume_from_checkpoint``; ``True`` becomes the newest complete checkpoint. Collective.

    Raises:
        ConfigError: the checkpoint is not complete, so the training would resume with another state; or no checkpoint
            of the folder is complete.
    """
    if not isinstance(resume, bool | str | Path) or resume is False:
        return resume
    folder = Path(trainer.args.output_dir)
    if resume is True:
        chosen = newest_whole(folder, trainer.is_world_process_zero())
        if chosen is None and any(folder.glob("checkpoint-*")):
            raise ConfigError(f"no checkpoint in {folder} is whole; expected one: remove them and start again")
        _warn_of_processes(trainer, chosen)
        return True if chosen is None else str(chosen)  # with True, transformers raises that there is no checkpoint
    path = Path(resume)
    reason = checkpoints.problem(path, but=checkpoints.MAY_BE_MISSING) if trainer.is_world_process_zero() else None
    (reason,) = broadcast_object_list([reason])
    if reason is not None:
        other = newest_whole(path.parent, trainer.is_world_process_zero())
        instead = f"resume from {other}, the newest that is whole" if other else "no other one is whole: start again"
        raise ConfigError(f"{path}: {reason}; expected a whole checkpoint: {instead}")
    _warn_of_processes(trainer, path)
    return resume


def _warn_of_processes(trainer: Any, checkpoint: Path | None) -> None:
    """Warn that a run cannot be exact if its random generators were saved by another number of processes."""
    saved, now = len(list(checkpoint.glob("rng_state*.pth"))) if checkpoint else 0, trainer.accelerator.num_processes
    if saved and saved != now and trainer.is_world_process_zero():
        logger.warning(
            "%s was saved by %d process(es), and %d resume from it: random numbers, and so completions, will differ "
            "from those of a run that was never stopped",
            checkpoint,
            saved,
            now,
        )
