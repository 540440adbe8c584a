"""Rollouts that verl loses: counted against what was asked for, with the reason, and the end of a run that loses all.

verl drops a rollout whose agent loop or reward function raises: one of a prompt's rollouts, or all of them, and in
``colocate_async`` always the whole prompt, which is then asked for again. So what is missing does not show in a batch.
Here it is counted against what was handed to the agent loops::

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
"""What the task runner sets as ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``, if the user has not."""

OWN_NUMBER = "__rollout_n__"
"""Column of the data by which a prompt has a number of rollouts of its own, in verl."""

ALL_FAILED = 2
"""Batches of prompts in a row that may fail, while none succeeds, until the run ends."""

MOST_FAILED = 20
"""Batches of prompts that may fail in one step, whatever succeeds, until the run ends."""

_MOST = 600  # characters of a cause
# Packages whose functions only call the user's; a folder of the user's own may have such a name, too.
_PASSING_ON = (
    "python/ray/",
    *(f"{Path(str(package.__file__)).parent}/" for package in (ray, verl, asyncio, concurrent.futures)),
)

# Ray wraps what it decorates; a subclass needs the class itself.
_Worker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class AgentLoopWorker(_Worker):  # type: ignore[misc]
    """verl's worker, which also notes why a rollout was lost, and which rollouts are those of a validation."""

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
        """Let a score that is None be missing, and one of NumPy a number: verl's tensors take neither."""
        await super()._compute_score(outputs, kwargs)
        final = outputs[-1]
        info = final.extra_fields.get("reward_extra_info")
        if info is None:
            return
        final.reward_score = plain_score(final.reward_score)
        filtering = self.config.algorithm.get("filter_groups")
        if filtering and filtering.get("enable") and info.get(filtering.metric, 0) is None:
            # verl would fail on None. Of NaN, it keeps the group.
            info[filtering.metric] = float("nan")


class AgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """verl's manager with our workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build verl's, then choose the workers' class."""
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(AgentLoopWorker)


def plain_score(score: Any) -> float:
    """Return the score of a completion as a number, NaN where it is None.

    Raises:
        RewardError: it is not a number.
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
    """What was lost until a step.

    Attributes:
        lost: rollouts that were asked for and are not in the batch, nor still under way.
        asked: rollouts that were asked for, those of the batch and the lost ones.
        causes: text of an error -> how many rollouts it has cost.
    """

    lost: int
    asked: int
    causes: Counter[str]


class Asked:
    """Stands before verl's agent loop manager, and notes for how many rollouts of each prompt it is asked.

    Args:
        manager: verl's.
        rollouts: of a prompt, where its row has no :data:`OWN_NUMBER`.
        batch: prompts of a training step.
    """

    def __init__(self, manager: Any, rollouts: int, batch: int) -> None:
        """Begin a run."""
        self._manager, self._rollouts, self._batch = manager, rollouts, batch
        self._asked: dict[str, int] = {}
        self._own_numbers = False
        self._failed: dict[str, str] = {}  # uid -> cause, since the last step
        self._causes: Counter[str] = Counter()
        self._validation: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        """Return whatever else verl's manager has."""
        return getattr(self._manager, name)

    def generate_sequences(self, prompts: Any) -> Any:
        """Hand prompts on; verl asks for others in place of those that failed, so a run that only fails ends here.

        Raises:
            RewardError: all rollouts fail.
        """
        # Not get(): that of verl's batch returns a wrapper, which has no truth value.
        validate = prompts["validate"] if "validate" in prompts else False  # noqa: SIM401
        if not validate:
            self._end_if_hopeless()
            self._own_numbers = OWN_NUMBER in prompts
            self._asked |= rollouts_of(prompts, self._rollouts)
        return self._manager.generate_sequences(prompts)

    def take(self, present: Mapping[str, int], evicted: int = 0) -> Losses:
        """Return what was lost until the batch of a step.

        Args:
            present: uid of each prompt in the batch -> how many of its rollouts are there.
            evicted: prompts that verl says it gave up because they failed.
        """
        self._read_notes()
        waiting = set(_keys("train"))
        gone = [uid for uid in self._asked if uid not in present and uid not in waiting]
        failed = [uid for uid in gone if uid in self._failed]
        # Those without a note: an agent loop that returned nothing, or a manager of the user's own.
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
        """Return how many rollouts were asked for of a prompt that comes from a checkpoint, where no note of it is."""
        return count if self._own_numbers else self._rollouts

    def take_validation(self) -> Counter[str]:
        """Return why rollouts of a validation were lost, each cause with their number."""
        self._read_notes()
        found = self._validation.copy()
        self._validation.clear()
        return found

    def cause(self) -> str | None:
        """Return the most frequent reason for which rollouts were lost since the last step, if there is one."""
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
            f"by {cause}. Expected a reward function that returns None for what it cannot score. Correct it, or the "
            "agent loop, and start again"
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
    """Return for how many rollouts a batch of prompts asks, by uid.

    Args:
        prompts: with the column ``uid``, and ``__rollout_n__`` where rows have numbers of their own.
        rollouts: of a prompt without one.
    """
    uids = [str(uid) for uid in prompts["uid"]]
    if OWN_NUMBER not in prompts:
        return dict.fromkeys(uids, rollouts)
    return dict(zip(uids, map(int, prompts[OWN_NUMBER]), strict=True))


def told(causes: Mapping[str, int]) -> str:
    """Return causes as text, the most frequent first."""
    most = sorted(causes.items(), key=lambda pair: -pair[1])[:3]
    return "; ".join(f"{count} by {cause}" for cause, count in most)


def uids_of(names: Sequence[str]) -> Counter[str]:
    """Return how many sessions, ``{uid}_{number}``, each prompt has."""
    return Counter(name.rpartition("_")[0] for name in names)


def _keys(partition: str) -> dict[str, dict[str, Any]]:
    """Return keys and tags of a partition of TransferQueue, nothing if it does not exist."""
    found = tq.kv_list(partition) or {}
    return dict(found.get(partition) or {})
