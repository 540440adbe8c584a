"""SkyRL: any method through a trainer class, ``class Trainer(RVPOMixin, RayPPOTrainer)``.

How it connects: SkyRL's registry of estimators passes one number per completion. Its trainer has more: the
environment's metrics by name of each completion (``env_metrics``), which are the rewards here. So we override methods
of the trainer: one reads these metrics, one replaces the advantages, and two keep the memory in SkyRL's checkpoints.
See docs/engines/skyrl.md for details.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rvpo.engines.dicts.options import DictOptions
from rvpo.engines.dicts.rewards import RewardDicts
from rvpo.errors import ConfigError, EngineError


class RVPOMixin:
    """A base class to put before ``RayPPOTrainer`` or a subclass of it.

    Attributes:
        rvpo: the options, set in the class; None reads them from the file that ``RVPO_CONFIG`` names.
    """

    rvpo: Mapping[str, Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build SkyRL's trainer, and start a run.

        Raises:
            ConfigError: invalid options, or settings of SkyRL that would change the advantages.
        """
        super().__init__(*args, **kwargs)
        self._check()
        options = DictOptions.from_environment() if self.rvpo is None else DictOptions.from_mapping(self.rvpo)
        self._run = RewardDicts(options, with_progress=True)
        self._rows: tuple[list[Any], list[Any]] | None = None

    def postprocess_generator_output(self, generator_output: Any, uids: list[str], *args: Any, **kwargs: Any) -> Any:
        """Keep the environment's metrics of the rows that SkyRL trains on, in the order of the rows.

        Raises:
            EngineError: the generator returned no such metrics.
        """
        done = super().postprocess_generator_output(generator_output, uids, *args, **kwargs)  # type: ignore[misc]
        output, names = done
        metrics = output.get("env_metrics")
        if metrics is None or len(metrics) != len(names):
            seen = "none" if metrics is None else len(metrics)
            raise EngineError(
                f"the generator returned env_metrics for {seen} of {len(names)} completions; expected one dict each: "
                "let get_metrics() of the environment return the rewards by name"
            )
        self._rows = (list(metrics), list(names))
        return done

    def compute_advantages_and_returns(self, data: Any) -> Any:
        """Replace the advantages that SkyRL computed from the total rewards.

        Raises:
            EngineError: the rows are not the generated rows.
            RewardError: rewards that cannot be aggregated.
        """
        data = super().compute_advantages_and_returns(data)  # type: ignore[misc]
        if self._rows is None:
            raise EngineError(
                "SkyRL computes advantages before postprocess_generator_output; expected it after: update it"
            )
        (metrics, uids), self._rows = self._rows, None
        padding = data.metadata.get("pad_size", 0)
        if len(data["advantages"]) - padding != len(uids):
            raise EngineError(
                f"SkyRL's batch has {len(data['advantages'])} rows with {padding} of padding, but {len(uids)} "
                "completions were generated; expected the same. See docs/engines/skyrl.md"
            )
        last = data.metadata.get("is_last_step") or [True] * len(uids)
        counted = [i for i in range(len(uids)) if last[i]]
        scored = self._run([metrics[i] for i in counted], [uids[i] for i in counted], progress=_share(self))
        per_row, trajectory = [], 0
        for i in range(len(uids)):  # the rows of a trajectory follow each other; its last step is its last row
            per_row.append(scored.advantages[trajectory])
            trajectory += bool(last[i])
        values = torch.tensor(per_row + [0.0] * padding, dtype=torch.float32)
        data["advantages"] = values[:, None] * data["response_mask"].to(values.dtype)
        self.all_metrics.update(scored.metrics)  # type: ignore[attr-defined]
        return data

    def save_checkpoints(self) -> Any:
        """Write the method's memory into the checkpoint's folder, and then SkyRL's own files."""
        root, step = self.cfg.trainer.ckpt_path, self.global_step  # type: ignore[attr-defined]
        self._run.save(Path(root) / f"global_step_{step}")
        return super().save_checkpoints()  # type: ignore[misc]

    def load_checkpoints(self) -> Any:
        """Load SkyRL's checkpoint, and the method's memory from the same folder."""
        step, path = super().load_checkpoints()  # type: ignore[misc]
        if path is not None:
            self._run.load(Path(path))
        return step, path

    def _check(self) -> None:
        cfg = self.cfg  # type: ignore[attr-defined]
        algorithm, generator = cfg.trainer.algorithm, cfg.generator
        if algorithm.advantage_estimator != "grpo":
            raise ConfigError(
                f"trainer.algorithm.advantage_estimator is {algorithm.advantage_estimator!r}; expected 'grpo', whose "
                "advantages, one per completion, are replaced"
            )
        changes = {
            "trainer.algorithm.advantage_batch_normalize": algorithm.advantage_batch_normalize,
            "trainer.algorithm.use_kl_in_reward": algorithm.use_kl_in_reward,
            "trainer.algorithm.zero_variance_filter": algorithm.zero_variance_filter,
            "trainer.algorithm.dynamic_sampling.type": algorithm.dynamic_sampling.type,
            "generator.merge_stepwise_output": generator.merge_stepwise_output,
        }
        if found := [name for name, value in changes.items() if value]:
            raise ConfigError(
                f"{found[0]} is {changes[found[0]]!r}, which changes advantages, or chooses completions by the total "
                "reward only; expected false or null"
            )
        if "://" in str(cfg.trainer.ckpt_path):
            raise ConfigError(
                f"trainer.ckpt_path is {cfg.trainer.ckpt_path}; expected a folder of a file system, because the "
                "method's memory is saved there"
            )


def _share(trainer: Any) -> float:
    return float(min(1.0, trainer.global_step / max(1, trainer.total_training_steps)))
