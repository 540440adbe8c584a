"""verl's v1 trainers with advantages from ``rvpo.core``: registered as ``rvpo_sync`` and ``rvpo_colocate_async``."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig
from torch import Tensor
from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSync, register_trainer

from rvpo.engines.aggregator import Aggregator
from rvpo.engines.verl.estimator import handing_over, registered_name, whiten_by_token
from rvpo.engines.verl.options import BY_TOKEN, read_options
from rvpo.engines.verl.records import ChannelTable
from rvpo.engines.verl.rows import Sessions, read_channels
from rvpo.errors import EngineError, JudgeError
from rvpo.rewards.rubric.reward import too_many_missing

PREFIX = "rvpo_"
"""Before the names of verl's trainer modes, in its registry."""


class ChannelAdvantages:
    """Mixed into a trainer of verl's: the step from the rewards of a batch to its advantages.

    It logs what ``RVPOTrainer`` logs for TRL, under the same names (``rvpo/{name}/mean`` …), saves what a method
    remembers as ``rvpo_state.json`` in verl's checkpoints and, where ``trainer.rollout_data_dir`` is set, writes every
    channel of every completion into its folder ``channels``.
    """

    def __init__(self, config: DictConfig) -> None:
        """Give verl's trainer back its own mode, and check our options once more."""
        config.trainer.v1.trainer_mode = str(config.trainer.v1.trainer_mode).removeprefix(PREFIX)
        options = read_options(config)
        assert options is not None, "the task runner chooses this trainer for our estimators alone"
        config.algorithm.adv_estimator = registered_name(options.method)
        self._options, self._weights = options, options.weights()
        names = options.reward_keys
        self._aggregator = Aggregator(options, names, options.own_ranges or [None] * len(names))
        folder = config.trainer.get("rollout_data_dir")
        self._channels = ChannelTable(Path(folder) / "channels") if folder else None
        super().__init__(config)  # type: ignore[call-arg]

    def _compute_advantage(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        """Let verl do this step as ever, its estimator taking the advantages from here."""
        sessions = Sessions.read(batch.keys, batch.tags)
        rewards, families = read_channels(self._reward_infos(batch, sessions), self._aggregator.names)
        for family in families:
            if problem := too_many_missing(family.rows, self._options.max_missing):
                raise JudgeError(
                    f"{family.name!r}: {problem}. Stopped in step {self.global_steps}: mend the judge and start again, "
                    "verl resumes at its last checkpoint. What was judged and cached is not asked again"
                )
        # The estimator is asked once verl has settled which tokens count (rollout correction may mask some).
        with handing_over(partial(self._aggregate, sessions, rewards, families, metrics)):
            return super()._compute_advantage(batch, metrics)  # type: ignore[misc]

    def _reward_infos(self: Any, batch: Any, sessions: Sessions) -> list[dict[str, Any]]:
        """Fetch what the reward function returned for each session."""
        keys = [batch.keys[row] for row in sessions.final]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        # A list, an array or a stack of tensordict's, by TransferQueue's backend.
        infos = [fields.get("reward_extra_info") for fields in list(data["extra_fields"])]
        if lacking := [key for key, info in zip(keys, infos, strict=True) if not isinstance(info, dict)]:
            raise EngineError(
                f"rollout {lacking[0]!r} has no reward_extra_info, where verl puts what the reward function returned: "
                "a reward that the agent loop gives itself comes without its parts, so leave it to the reward function"
            )
        return infos

    def _aggregate(
        self: Any, sessions: Sessions, rewards: Tensor, families: list[Any], metrics: dict[str, Any], mask: Tensor
    ) -> Tensor:
        """Return the advantage of each row; ``mask`` (B, T) says which tokens count."""
        progress = (self.global_steps - 1) / max(self.total_training_steps - 1, 1)
        config = self._options.advantage_config(min(progress, 1.0))
        done = self._aggregator(rewards, families, config, weights=self._weights, groups=sessions.groups)
        advantages = done.result.advantages
        if self._options.whiten == BY_TOKEN:
            rows = whiten_by_token(
                sessions.spread(done.result.aggregated), sessions.spread(done.result.takes_part), mask.cpu()
            )
            advantages = rows[sessions.final]
        if self._channels is not None:
            names = self._aggregator.names
            self._channels.write(self.global_steps, names, self._weights, sessions, families, done, advantages)
        # What is undefined in this batch, such as the mean of a channel that was never scored, is left out.
        metrics.update({key: value for key, value in done.metrics.items() if not math.isnan(value)})
        return sessions.spread(advantages).to(mask.device)

    def _save_checkpoint(self: Any) -> None:
        # First, because verl's last act is to say that the checkpoint is complete.
        self._aggregator.memory.save(self._checkpoint_folder())
        super()._save_checkpoint()  # type: ignore[misc]

    def _load_checkpoint(self: Any) -> None:
        super()._load_checkpoint()  # type: ignore[misc]
        if self.global_steps:
            self._aggregator.memory.load(self._checkpoint_folder(resumed=True))

    def _checkpoint_folder(self: Any, resumed: bool = False) -> Path:
        trainer = self.config.trainer
        if resumed and trainer.resume_mode == "resume_path":
            return Path(trainer.resume_from_path)
        return Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"


@register_trainer(f"{PREFIX}sync")
class RVPOTrainerSync(ChannelAdvantages, PPOTrainerSync):  # type: ignore[misc]
    """Rollouts and updates take turns."""


@register_trainer(f"{PREFIX}colocate_async")
class RVPOTrainerColocateAsync(ChannelAdvantages, PPOTrainerColocateAsync):  # type: ignore[misc]
    """Long rollouts go on where the update interrupted them."""
