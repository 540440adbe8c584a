"""verl's v1 trainers with advantages from ``rvpo.core``: registered as ``rvpo_sync`` and ``rvpo_colocate_async``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import transfer_queue as tq
from omegaconf import DictConfig
from torch import Tensor
from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSync, register_trainer
from verl.utils import hdfs_io

from rvpo.core.metrics import LOST_COMPLETIONS
from rvpo.core.metrics import PREFIX as PREFIX_OF_METRICS
from rvpo.core.ragged import Family
from rvpo.engines.verl import wire
from rvpo.engines.verl.config import read_options
from rvpo.engines.verl.estimator import handing_over
from rvpo.engines.verl.filtering import METRIC
from rvpo.engines.verl.judge_totals import JudgeTotals
from rvpo.engines.verl.last_step import save_last_step
from rvpo.engines.verl.losses import Asked, Losses, told, uids_of
from rvpo.engines.verl.rows import Seen, Sessions, read_again, read_channels, read_texts
from rvpo.engines.verl.spelling import register
from rvpo.errors import EngineError, JudgeError, RewardError, RVPOError
from rvpo.logs.schema import FOLDER
from rvpo.logs.writer import ChannelTable
from rvpo.rewards.rubric.reward import too_many_missing
from rvpo.step import memory
from rvpo.step.trust import Again

logger = logging.getLogger(__name__)

OWN_COLUMNS = {"session": pa.string(), "uid": pa.string()}
"""Columns of the record that only verl's runs have: ``session`` is ``{uid of the prompt}_{number}``, ``uid`` is that of
its last output, ``{session}_{number}``, as in verl's own dump. The dump may have padding rows, the record does not.
"""

PREFIX = "rvpo_"
"""Prefix of the names of our trainers in verl's registry."""

PATIENCE = 8
"""Batches for which a reward may be absent, as a rubric that few prompts have, before that counts as a mistake."""

EVICTED = "training/rollout_failure/evicted_samples"
"""verl's metric of prompts that it gave up because they failed."""


class ChannelAdvantages:
    """Mixin for a trainer of verl's: the step from the rewards of a batch to its advantages.

    It logs what ``RVPOTrainer`` logs for TRL, under the same names (``rvpo/{name}/mean`` …), saves what a method
    remembers as ``rvpo_state.json`` in verl's checkpoints and, where ``trainer.rollout_data_dir`` is set, writes every
    channel of every completion into its folder ``channels``.
    """

    def __init__(self, config: DictConfig) -> None:
        """Give verl's trainer back its own mode, and check our options once more."""
        config.trainer.v1.trainer_mode = str(config.trainer.v1.trainer_mode).removeprefix(PREFIX)
        options = read_options(config)
        assert options is not None, "the task runner chooses this trainer for our estimators alone"
        self._options, self._aggregator = options, options.build()
        register(config, self._aggregator.config.method)
        folder = config.trainer.get("rollout_data_dir")
        self._channels = ChannelTable(Path(folder) / FOLDER, OWN_COLUMNS) if folder else None
        self._warned = False
        self._seen = Seen(PATIENCE)
        self._judges = JudgeTotals()
        self._asked: Asked | None = None  # once training begins
        super().__init__(config)  # type: ignore[call-arg]

    def fit(self: Any, agent_loop_manager: Any) -> None:
        """Let verl train, and note for how many rollouts it asks."""
        n, batch = int(self.config.actor_rollout_ref.rollout.n), int(self.config.data.train_batch_size)
        self._asked = Asked(agent_loop_manager, n, batch)
        super().fit(self._asked)  # type: ignore[misc]

    def step(self: Any, metrics: dict[str, Any], timing_raw: dict[str, Any]) -> Any:
        """Let verl do a step; if it has no rollout left to train on, say why."""
        # In the other mode, the prompts that are under way are in the checkpoint.
        self._position = self.train_dataloader.state_dict() if self.trainer_mode == "sync" else None
        try:
            return super().step(metrics, timing_raw)  # type: ignore[misc]
        except RVPOError:
            raise
        except RuntimeError as error:
            cause = self._asked.cause() if "no materializable trajectories" in str(error) else None
            if cause is None:
                raise
            raise RewardError(
                f"all rollouts of step {self.global_steps} were lost, most of them by {cause}. Expected a reward "
                "function that returns None for what it cannot score. Correct it, or the agent loop, and start again"
            ) from error

    def _compute_advantage(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        """Let verl do this step with our advantages; if the rewards end the run, save the last finished step first."""
        try:
            return self._advantages(batch, metrics)
        except (JudgeError, RewardError) as error:
            saved = save_last_step(self, batch, self._position)
            raise type(error)(f"{error}. {saved}") from error

    def _advantages(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        """Read the rewards; verl's estimator takes the advantages from here."""
        sessions, infos = self._fetch(batch)
        groups, names, texts = sessions.groups.tolist(), self._aggregator.names, read_texts(infos)
        self._judges.note(texts)
        rewards, families = read_channels(infos, names, groups=groups, seen=self._seen, texts=texts)
        again = read_again(texts, names, families)
        for family in families:
            if problem := too_many_missing(family.rows, self._options.max_missing):
                raise JudgeError(
                    f"{family.name!r}: {problem}. Fix the judge: what was judged and cached is not asked again"
                )
        # The estimator is asked once verl has settled which tokens count (rollout correction may mask some).
        with handing_over(partial(self._aggregate, sessions, rewards, families, again, metrics)):
            return super()._compute_advantage(batch, metrics)  # type: ignore[misc]

    def _fetch(self: Any, batch: Any) -> tuple[Sessions, list[dict[str, Any]]]:
        """Fetch what the reward function returned for each session; prompts in the order of the data."""
        arrived = Sessions.read(batch.keys, batch.tags)
        data = tq.kv_batch_get(
            keys=arrived.keys, partition_id=batch.partition_id, select_fields=["index", "extra_fields"]
        )
        # By TransferQueue's backend, each is a list, an array or a stack of tensordict's.
        sessions = arrived.in_order_of([_number(index) for index in list(data["index"])])
        extra_fields = dict(zip(arrived.keys, list(data["extra_fields"]), strict=True))
        infos = [extra_fields[key].get("reward_extra_info") for key in sessions.keys]
        if lacking := [key for key, info in zip(sessions.keys, infos, strict=True) if not isinstance(info, dict)]:
            raise EngineError(
                f"rollout {lacking[0]!r} has no reward_extra_info, where verl puts what the reward function returned: "
                "an agent loop that scores itself has to return its parts there. Let it set "
                "output.extra_fields['reward_extra_info'] to a dict by name, or leave the reward to the reward function"
            )
        return sessions, infos

    def _val_metrics_update(
        self: Any, sources: Any, uids: Any, infos: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Raise if a reward function raised in a validation, too; else return verl's own metrics.

        verl leaves None out of its means, but not NaN.
        """
        if texts := [wire.parse(text) for text in infos.get(wire.KEY, []) if text is not None]:
            self._judges.note(texts)
        infos = {name: values for name, values in infos.items() if name != METRIC}  # a mean of it says nothing
        infos = {name: [None if _is_nan(value) else value for value in values] for name, values in infos.items()}
        if kwargs.get("expected_acc_counts"):
            counts = without_missing(kwargs["expected_acc_counts"], sources, uids, infos.get("acc", []))
            kwargs["expected_acc_counts"] = counts
        return super()._val_metrics_update(sources, uids, infos, *args, **kwargs)  # type: ignore[misc]

    def _validate(self: Any) -> Any:
        """Let verl validate, and say which rollouts are not in its means."""
        try:
            found = super()._validate()  # type: ignore[misc]
        except RVPOError:
            raise
        except Exception as error:
            if causes := self._asked.take_validation():
                raise RewardError(f"a validation failed after it lost rollouts: {told(causes)}") from error
            raise
        if causes := self._asked.take_validation():
            logger.warning(
                "The validation after step %d lost %d rollouts, which are not in its means: %s.",
                self.global_steps,
                causes.total(),
                told(causes),
            )
        return found

    def _compute_metrics(self: Any, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Leave out what is undefined: the mean of scores that are missing, for one."""
        done = super()._compute_metrics(batch, metrics, *args, **kwargs)  # type: ignore[misc]
        for name in [name for name, value in metrics.items() if _is_nan(value)]:
            del metrics[name]
        return done

    def _aggregate(
        self: Any,
        sessions: Sessions,
        rewards: Tensor,
        families: list[Family],
        again: Again | None,
        metrics: dict[str, Any],
        mask: Tensor,
    ) -> Tensor:
        """Return the advantage of each row; ``mask`` (B, T) says which tokens count."""
        progress = (self.global_steps - 1) / max(self.total_training_steps - 1, 1)
        done = self._aggregator(
            rewards,
            groups=sessions.groups,
            progress=min(progress, 1.0),
            tokens=sessions.total(mask.cpu().sum(1)),
            families=families,
            again=again,
        )
        if self._channels is not None:
            own = {"session": sessions.names, "uid": sessions.keys}
            self._channels.add(self.global_steps, done, extra=own)
        # What is undefined in this batch, such as the mean of a channel that was never scored, is left out.
        metrics.update({key: value for key, value in done.metrics.items() if not math.isnan(value)})
        metrics.update(self._judges.metrics())
        losses = self._asked.take(uids_of(sessions.names), int(metrics.get(EVICTED, 0)))
        metrics[f"{PREFIX_OF_METRICS}{LOST_COMPLETIONS}"] = float(losses.lost)
        self._warn_of(losses)
        return sessions.broadcast(done.advantages).to(mask.device)

    def _warn_of(self: Any, losses: Losses) -> None:
        """Say once that verl drops rollouts, and why."""
        if not losses.lost or self._warned:
            return
        self._warned = True
        logger.warning(
            "verl dropped %d of %d rollouts that were asked for until step %d, as it does where an agent loop or a "
            "reward function raises: %s. Return None for what cannot be scored. rvpo/lost/completions counts them; "
            "this warning is shown once.",
            losses.lost,
            losses.asked,
            self.global_steps,
            told(losses.causes) or "look for the traceback of an AgentLoopWorker in the log",
        )

    def _save_checkpoint(self: Any) -> None:
        # First, because verl's last act is to say that the checkpoint is complete.
        memory.save_memory(self._aggregator, self._checkpoint_folder())
        super()._save_checkpoint()  # type: ignore[misc]
        upload_memory(self._checkpoint_folder(), self.config.trainer.get("default_hdfs_dir"))

    def _load_checkpoint(self: Any) -> None:
        super()._load_checkpoint()  # type: ignore[misc]
        if self.global_steps:
            memory.load_memory(self._aggregator, self._checkpoint_folder(resumed=True))

    def _checkpoint_folder(self: Any, resumed: bool = False) -> Path:
        trainer = self.config.trainer
        if resumed and trainer.resume_mode == "resume_path":
            return Path(trainer.resume_from_path)
        return Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"


def upload_memory(folder: Path, remote: str | None) -> None:
    """Copy what is remembered next to what verl uploads of a checkpoint, ``{remote}/global_step_N/actor``."""
    if remote is None or not (folder / memory.FILE).exists():
        return
    target = f"{remote.rstrip('/')}/{folder.name}"
    hdfs_io.makedirs(target, exist_ok=True)
    if not hdfs_io.copy(str(folder / memory.FILE), f"{target}/{memory.FILE}"):
        logger.warning(
            "%s was not copied to %s: the checkpoint there lacks what the method remembers.", memory.FILE, target
        )


def _number(index: Any) -> int:
    """Return a row's number in the data; 0 if its ``extra_info.index`` is not a number, so that the order stays."""
    try:
        return int(index)
    except (TypeError, ValueError):
        return 0


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and math.isnan(value)


def without_missing(
    expected: Mapping[tuple[str, str], int], sources: Sequence[Any], uids: Sequence[Any], acc: Sequence[Any]
) -> dict[tuple[str, str], int]:
    """Take completions whose ``acc`` is missing out of what verl expects, as it fills up with zeros.

    Args:
        expected: (data source, uid) -> completions.
        sources: of each completion.
        uids: of each completion's prompt.
        acc: of each completion, None if missing; empty if the reward function returns no ``acc``.
    """
    counts = dict(expected)
    for source, uid, value in zip(sources, uids, acc, strict=False):
        if value is None and (key := (str(source), str(uid))) in counts:
            counts[key] -= 1
    return counts


@register_trainer(f"{PREFIX}sync")
class RVPOTrainerSync(ChannelAdvantages, PPOTrainerSync):  # type: ignore[misc]
    """Rollouts and updates take turns."""


@register_trainer(f"{PREFIX}colocate_async")
class RVPOTrainerColocateAsync(ChannelAdvantages, PPOTrainerColocateAsync):  # type: ignore[misc]
    """Long rollouts go on where the update interrupted them."""
