"""Counts the rollouts that verl loses, with their reasons, and ends a run that loses all of them.

verl drops a rollout whose agent loop or reward function raises: one of a prompt's rollouts, or all of them. In
``colocate_async``, it always drops the whole prompt, and requests another one. So a batch does not show the losses.
Here, the rollouts of a batch are compared with those that were requested from the agent loops::

    trainer --generate_sequences--> Asked (notes uid -> rollouts) --> AgentLoopManager --> AgentLoopWorker
       ^                                                                                        | raises
       +------------------------ the partition LOST of TransferQueue <--------------------------+
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq
import verl
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from rvpo.engines.verl.rewards import VALIDATION
from rvpo.errors import RewardError

logger = logging.getLogger(__name__)

LOST = "rvpo_lost"
"""Partition of TransferQueue for notes on rollouts that raised: key ``{uid}_{session}``, tag ``{cause, validate}``."""

MANAGER = "rvpo.engines.verl.losses.AgentLoopManager"
"""Class that the task runner sets as ``actor_rollout_ref.rollout.agent.agent_loop_manager_class`` if it is not set."""

OWN_NUMBER = "__rollout_n__"
"""verl's column of the data with the number of rollouts of each prompt."""

ALL_FAILED = 2
"""The run ends after this number of batches of prompts in a row fails completely."""

MOST_FAILED = 20
"""The run ends after this number of batches of prompts fails in one step, even if others succeed."""

_MOST = 600  # largest number of characters of a cause
# Packages whose functions only call the user's. Full paths are used, because a user's folder may have such a name.
_PASSING_ON = (
    "python/ray/",
    *(f"{Path(str(package.__file__)).parent}/" for package in (ray, verl, asyncio, concurrent.futures)),
)

# Ray wraps what it decorates; a subclass needs the class itself.
_Worker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class AgentLoopWorker(_Worker):  # type: ignore[misc]
    """verl's worker. It also records why a rollout was lost, and marks the rollouts of a validation."""

    async def _run_agent_loop(self, sampling_params: Any, trajectory: Any, **kwargs: Any) -> Any:
        if trajectory["validate"]:
            kwargs["extra_info"] = {**(kwargs.get("extra_info") or {}), VALIDATION: True}
        try:
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)
        except Exception as error:
            tag = {"cause": cause_of(error), "validate": bool(trajectory["validate"])}
            await tq.async_kv_put(key=f"{kwargs['uid']}_{kwargs['session_id']}", partition_id=LOST, tag=tag)
            raise

    async def _compute_score(self, outputs: Any, kwargs: Any) -> None:
        """Replace a score of None by NaN, and a NumPy score by a number: verl's tensors do not accept these."""
        await super()._compute_score(outputs, kwargs)
        final = outputs[-1]
        info = final.extra_fields.get("reward_extra_info")
        if info is None:
            return
        final.reward_score = plain_score(final.reward_score)
        filtering = self.config.algorithm.get("filter_groups")
        if filtering and filtering.get("enable") and info.get(filtering.metric, 0) is None:
            # verl would fail on None. With NaN, it keeps the group.
            info[filtering.metric] = float("nan")


class AgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """verl's manager with our workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build verl's manager, then set the class of its workers."""
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(AgentLoopWorker)


def plain_score(score: Any) -> float:
    """Return the score of a completion as a number, NaN if it is None.

    Raises:
        RewardError: the score is not a number.
    """
    if score is None:
        return float("nan")
    try:
        if not isinstance(score, str | bytes):
            return float(score)
    except (TypeError, ValueError):
        pass
    raise RewardError(
        f"the reward function returned the score {score!r}, a {type(score).__name__}; expected a number, or None if "
        "the completion could not be scored"
    )


def cause_of(error: BaseException) -> str:
    """Return an error in one line, with the function in which it was raised.

    Example:
        >>> try:
        ...     int("x")
        ... except ValueError as error:
        ...     cause_of(error)
        "ValueError: invalid literal for int() with base 10: 'x' (in <module>)"
    """
    original, frames = error, [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, ray.exceptions.RayTaskError):  # of another process: its traceback is a text
        original = error.cause or error
        frames = re.findall(r'File "([^"]*)", line \d+, in (\S+)', str(error))
    theirs = [name for file, name in frames if not file.startswith(_PASSING_ON)]
    if not theirs:
        where = ""
    elif theirs[0] == theirs[-1]:
        where = f" (in {theirs[0]})"
    else:
        where = f" (in {theirs[0]}, from {theirs[-1]})"
    return f"{type(original).__name__}: {original}"[:_MOST] + where


@dataclass(frozen=True)
class Losses:
    """The rollouts that were lost until a step.

    Attributes:
        lost: number of requested rollouts that are neither in the batch nor still running.
        asked: number of requested rollouts: those of the batch and the lost ones.
        causes: text of an error -> number of rollouts that were lost by it.
    """

    lost: int
    asked: int
    causes: Counter[str]


class Asked:
    """Wraps verl's agent loop manager, and records how many rollouts of each prompt are requested.

    Args:
        manager: verl's manager.
        rollouts: number of rollouts of a prompt whose row does not have :data:`OWN_NUMBER`.
        batch: number of prompts per training step.
    """

    def __init__(self, manager: Any, rollouts: int, batch: int) -> None:
        """Start a run."""
        self._manager, self._rollouts, self._batch = manager, rollouts, batch
        self._asked: dict[str, int] = {}
        self._own_numbers = False
        self._failed: dict[str, str] = {}  # uid -> cause, since the last step
        self._causes: Counter[str] = Counter()
        self._validation: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of verl's manager."""
        return getattr(self._manager, name)

    def generate_sequences(self, prompts: Any) -> Any:
        """Pass prompts to verl's manager. verl replaces prompts that failed, so end a run in which all fail.

        Raises:
            RewardError: all rollouts fail.
        """
        # Not get(): for verl's batch it returns a wrapper, which does not have a truth value.
        validate = prompts["validate"] if "validate" in prompts else False  # noqa: SIM401
        if not validate:
            self._end_if_hopeless()
            self._own_numbers = OWN_NUMBER in prompts
            self._asked |= rollouts_of(prompts, self._rollouts)
        return self._manager.generate_sequences(prompts)

    def take(self, present: Mapping[str, int], evicted: int = 0) -> Losses:
        """Return the losses until the batch of a step, and start counting again.

        Args:
            present: uid of each prompt in the batch -> number of its rollouts in the batch.
            evicted: number of prompts that verl dropped because they failed.
        """
        self._read_notes()
        waiting = set(_keys("train"))
        gone = [uid for uid in self._asked if uid not in present and uid not in waiting]
        failed = [uid for uid in gone if uid in self._failed]
        # Losses without a note: an agent loop returned nothing, or the user's own manager is used.
        unnoted = max(0, self._batch - len(present) + evicted - len(failed))
        partly = sum(max(0, self._asked.get(uid, self._of_restored(count)) - count) for uid, count in present.items())
        lost = sum(self._asked[uid] for uid in failed) + unnoted * self._rollouts + partly
        causes = self._causes.copy()
        self._causes.clear()
        for uid in (*gone, *present):
            self._asked.pop(uid, None)
            self._failed.pop(uid, None)
        return Losses(lost, lost + sum(present.values()), causes)

    def _of_restored(self, count: int) -> int:
        """Return the number of requested rollouts for a prompt from a checkpoint, for which there is no note."""
        return count if self._own_numbers else self._rollouts

    def take_validation(self) -> Counter[str]:
        """Return the causes by which rollouts of a validation were lost, with the number of rollouts of each."""
        self._read_notes()
        found = self._validation.copy()
        self._validation.clear()
        return found

    def cause(self) -> str | None:
        """Return the most frequent cause by which rollouts were lost since the last step, or None."""
        self._read_notes()
        return next((text for text, _ in self._causes.most_common(1)), None)

    def _end_if_hopeless(self) -> None:
        self._read_notes()
        failed = len(self._failed)
        if failed < ALL_FAILED * self._batch:
            return
        finished = any(tag.get("status") == "finished" for tag in _keys("train").values())
        if finished and failed < MOST_FAILED * self._batch:
            return
        (cause, count), *_ = Counter(self._failed.values()).most_common(1)
        raise RewardError(
            f"since the last step {failed} prompts failed{'' if finished else ' and none succeeded'}, {count} of them "
            f"by {cause}. Expected a reward function that returns None if it cannot score a completion. Correct it, or "
            "the agent loop, and start again"
        )

    def _read_notes(self) -> None:
        notes = _keys(LOST)
        if not notes:
            return
        tq.kv_clear(keys=list(notes), partition_id=LOST)
        for key, tag in notes.items():
            if tag["validate"]:
                self._validation[tag["cause"]] += 1
            else:
                self._causes[tag["cause"]] += 1
                self._failed[key.rpartition("_")[0]] = tag["cause"]


def rollouts_of(prompts: Any, rollouts: int) -> dict[str, int]:
    """Return the number of rollouts that a batch of prompts requests, by uid.

    Args:
        prompts: batch with the column ``uid``, and optionally ``__rollout_n__`` with a number for each row.
        rollouts: number of rollouts of a prompt without ``__rollout_n__``.
    """
    uids = [str(uid) for uid in prompts["uid"]]
    if OWN_NUMBER not in prompts:
        return dict.fromkeys(uids, rollouts)
    return dict(zip(uids, map(int, prompts[OWN_NUMBER]), strict=True))


def causes_text(causes: Mapping[str, int]) -> str:
    """Return causes as text, the most frequent first."""
    most = sorted(causes.items(), key=lambda pair: -pair[1])[:3]
    return "; ".join(f"{count} by {cause}" for cause, count in most)


def uids_of(names: Sequence[str]) -> Counter[str]:
    """Return the number of sessions, ``{uid}_{number}``, of each prompt."""
    return Counter(name.rpartition("_")[0] for name in names)


def _keys(partition: str) -> dict[str, dict[str, Any]]:
    """Return keys and tags of a partition of TransferQueue, empty if it does not exist."""
    found = tq.kv_list(partition) or {}
    return dict(found.get(partition) or {})
