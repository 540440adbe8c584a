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
from rvpo.engines.verl import pictures, wire
from rvpo.engines.verl.config import read_options
from rvpo.engines.verl.estimator import handing_over
from rvpo.engines.verl.filtering import METRIC
from rvpo.engines.verl.judge_totals import JudgeTotals
from rvpo.engines.verl.last_step import save_last_step
from rvpo.engines.verl.losses import Asked, Losses, causes_text, uids_of
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
"""Columns of the record that only verl's runs have. ``session`` is ``{uid of the prompt}_{number}``. ``uid`` is the key
of its last output, ``{session}_{number}``, as in verl's own dump. The dump may have padding rows; the record does not.
"""

PREFIX = "rvpo_"
"""Prefix of the names of our trainers in verl's registry."""

PATIENCE = 8
"""Number of batches in which a reward may be absent before that is an error: few prompts may have a certain rubric."""

EVICTED = "training/rollout_failure/evicted_samples"
"""verl's metric with the number of prompts that it dropped because they failed."""


class ChannelAdvantages:
    """Mixin for verl's trainers: turns the rewards of a batch into advantages.

    It logs the same metrics as ``RVPOTrainer`` for TRL, under the same names (``rvpo/{name}/mean`` …). It saves the
    method's memory as ``rvpo_state.json`` in verl's checkpoints. If ``trainer.rollout_data_dir`` is set, it writes
    every channel of every completion into the folder ``channels`` there, and small copies of the prompts' pictures into
    the folder ``pictures``.
    """

    def __init__(self, config: DictConfig) -> None:
        """Set the mode back to the one that verl's trainer expects, and check our options again."""
        config.trainer.v1.trainer_mode = str(config.trainer.v1.trainer_mode).removeprefix(PREFIX)
        options = read_options(config)
        assert options is not None, "the task runner only chooses this trainer for our estimators"
        self._options, self._aggregator = options, options.build()
        register(config, self._aggregator.config.method)
        self._channels: ChannelTable | None = None  # set when training begins, as the next two
        self._pictures: list[list[str | None]] | None = None
        self._warned = False
        self._seen = Seen(PATIENCE)
        self._judges = JudgeTotals()
        self._asked: Asked | None = None
        super().__init__(config)  # type: ignore[call-arg]

    def fit(self: Any, agent_loop_manager: Any) -> None:
        """Let verl train, and record how many rollouts it requests."""
        n, batch = int(self.config.actor_rollout_ref.rollout.n), int(self.config.data.train_batch_size)
        self._asked = Asked(agent_loop_manager, n, batch)
        if folder := self.config.trainer.get("rollout_data_dir"):
            self._channels = ChannelTable(Path(folder) / FOLDER, OWN_COLUMNS | pictures.columns_of(self))
        super().fit(self._asked)  # type: ignore[misc]

    def step(self: Any, metrics: dict[str, Any], timing_raw: dict[str, Any]) -> Any:
        """Let verl do a step. If no rollout is left to train on, raise an error with the cause."""
        # In the other mode, the checkpoint has the prompts whose rollouts are still running.
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
                "function that returns None if it cannot score a completion. Correct it, or the agent loop, and start "
                "again"
            ) from error

    def _compute_advantage(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        """Let verl use our advantages in this step. If the rewards end the run, save the last finished step first."""
        try:
            return self._advantages(batch, metrics)
        except (JudgeError, RewardError) as error:
            saved = save_last_step(self, batch, self._position)
            raise type(error)(f"{error}. {saved}") from error

    def _advantages(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        """Read the rewards, and let our estimator get the advantages from them."""
        sessions, infos = self._fetch(batch)
        if self._channels is not None and pictures.columns_of(self):
            dump = Path(self.config.trainer.rollout_data_dir)
            self._pictures = pictures.record_pictures(sessions, batch.partition_id, dump)
        groups, names, texts = sessions.groups.tolist(), self._aggregator.names, read_texts(infos)
        self._judges.note(texts)
        rewards, families = read_channels(infos, names, groups=groups, seen=self._seen, texts=texts)
        again = read_again(texts, names, families)
        for family in families:
            if problem := too_many_missing(family.rows, self._options.max_missing):
                raise JudgeError(f"{family.name!r}: {problem}. Fix the judge. Cached verdicts are not asked for again")
        # verl calls the estimator after it has decided which tokens count (rollout correction may mask some).
        with handing_over(partial(self._aggregate, sessions, rewards, families, again, metrics)):
            return super()._compute_advantage(batch, metrics)  # type: ignore[misc]

    def _fetch(self: Any, batch: Any) -> tuple[Sessions, list[dict[str, Any]]]:
        """Fetch the results of the reward function for each session, with prompts in the order of the data."""
        arrived = Sessions.read(batch.keys, batch.tags)
        data = tq.kv_batch_get(
            keys=arrived.keys, partition_id=batch.partition_id, select_fields=["index", "extra_fields"]
        )
        # Depending on TransferQueue's backend, each is a list, an array or a stack of tensordict.
        sessions = arrived.in_order_of([_number(index) for index in list(data["index"])])
        extra_fields = dict(zip(arrived.keys, list(data["extra_fields"]), strict=True))
        infos = [extra_fields[key].get("reward_extra_info") for key in sessions.keys]
        if lacking := [key for key, info in zip(sessions.keys, infos, strict=True) if not isinstance(info, dict)]:
            raise EngineError(
                f"rollout {lacking[0]!r} has no reward_extra_info, in which verl puts the results of the reward "
                "function. If your agent loop computes the score, let it set "
                "output.extra_fields['reward_extra_info'] to a dict of rewards by name, or let the reward function "
                "compute the rewards"
            )
        return sessions, infos

    def _val_metrics_update(
        self: Any, sources: Any, uids: Any, infos: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Return verl's own metrics of a validation. Raise if a reward function raised.

        verl leaves None out of its means, but not NaN, so NaN is replaced by None.
        """
        if texts := [wire.parse(text) for text in infos.get(wire.KEY, []) if text is not None]:
            self._judges.note(texts)
        infos = {name: values for name, values in infos.items() if name != METRIC}  # its mean has no meaning
        infos = {name: [None if _is_nan(value) else value for value in values] for name, values in infos.items()}
        if kwargs.get("expected_acc_counts"):
            counts = without_missing(kwargs["expected_acc_counts"], sources, uids, infos.get("acc", []))
            kwargs["expected_acc_counts"] = counts
        return super()._val_metrics_update(sources, uids, infos, *args, **kwargs)  # type: ignore[misc]

    def _validate(self: Any) -> Any:
        """Let verl validate, and warn of rollouts that are not in its means."""
        try:
            found = super()._validate()  # type: ignore[misc]
        except RVPOError:
            raise
        except Exception as error:
            if causes := self._asked.take_validation():
                raise RewardError(f"a validation failed after it lost rollouts: {causes_text(causes)}") from error
            raise
        if causes := self._asked.take_validation():
            logger.warning(
                "The validation after step %d lost %d rollouts, which are not in its means: %s.",
                self.global_steps,
                causes.total(),
                causes_text(causes),
            )
        return found

    def _compute_metrics(self: Any, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Leave out undefined metrics, such as the mean of scores that are missing."""
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
        """Return the advantage of each row; ``mask`` (B, T) marks the tokens that count."""
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
            own: dict[str, Any] = {"session": sessions.names, "uid": sessions.keys}
            if self._pictures is not None:
                own["pictures"] = self._pictures
            self._channels.add(self.global_steps, done, extra=own)
        # Leave out metrics that are undefined in this batch, such as the mean of a channel that was never scored.
        metrics.update({key: value for key, value in done.metrics.items() if not math.isnan(value)})
        metrics.update(self._judges.metrics())
        losses = self._asked.take(uids_of(sessions.names), int(metrics.get(EVICTED, 0)))
        metrics[f"{PREFIX_OF_METRICS}{LOST_COMPLETIONS}"] = float(losses.lost)
        self._warn_of(losses)
        return sessions.broadcast(done.advantages).to(mask.device)

    def _warn_of(self: Any, losses: Losses) -> None:
        """Warn once that verl drops rollouts, and why."""
        if not losses.lost or self._warned:
            return
        self._warned = True
        logger.warning(
            "verl dropped %d of the %d rollouts that were requested until step %d, because an agent loop or a reward "
            "function raised: %s. Return None if a completion cannot be scored. rvpo/lost/completions counts them; "
            "this warning is shown once.",
            losses.lost,
            losses.asked,
            self.global_steps,
            causes_text(losses.causes) or "look for the traceback of an AgentLoopWorker in the log",
        )

    def _save_checkpoint(self: Any) -> None:
        # Save ours first, because verl marks the checkpoint as complete at the end.
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
    """Copy the method's memory next to verl's upload of a checkpoint, ``{remote}/global_step_N/actor``."""
    if remote is None or not (folder / memory.FILE).exists():
        return
    target = f"{remote.rstrip('/')}/{folder.name}"
    hdfs_io.makedirs(target, exist_ok=True)
    if not hdfs_io.copy(str(folder / memory.FILE), f"{target}/{memory.FILE}"):
        logger.warning(
            "%s was not copied to %s: the checkpoint there lacks the memory of the method.", memory.FILE, target
        )


def _number(index: Any) -> int:
    """Return a row's number in the data; 0 if ``extra_info.index`` is not a number, which keeps the order."""
    try:
        return int(index)
    except (TypeError, ValueError):
        return 0


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and math.isnan(value)


def without_missing(
    expected: Mapping[tuple[str, str], int], sources: Sequence[Any], uids: Sequence[Any], acc: Sequence[Any]
) -> dict[tuple[str, str], int]:
    """Subtract completions whose ``acc`` is missing from verl's expected counts, because verl fills up with zeros.

    Args:
        expected: (data source, uid) -> number of completions.
        sources: data source of each completion.
        uids: uid of each completion's prompt.
        acc: ``acc`` of each completion, None if missing; empty if the reward function does not return ``acc``.
    """
    counts = dict(expected)
    for source, uid, value in zip(sources, uids, acc, strict=False):
        if value is None and (key := (str(source), str(uid))) in counts:
            counts[key] -= 1
    return counts


@register_trainer(f"{PREFIX}sync")
class RVPOTrainerSync(ChannelAdvantages, PPOTrainerSync):  # type: ignore[misc]
    """Trainer in which rollouts and updates alternate."""


@register_trainer(f"{PREFIX}colocate_async")
class RVPOTrainerColocateAsync(ChannelAdvantages, PPOTrainerColocateAsync):  # type: ignore[misc]
    """Trainer in which long rollouts continue after the update that interrupted them."""
