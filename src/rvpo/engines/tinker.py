"""Tinker: any method in the cookbook's RL loop, after ``rvpo.tinker.install(config, …)`` in the script.

How it connects: ``tinker_cookbook.rl.train`` calls its ``compute_advantages`` by name, in the script's process. A
trajectory has one number as reward. The parts of that sum are metrics by name, of the trajectory's transitions and of
its group. These metrics are the rewards here. See docs/engines/tinker.md for details.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rvpo.engines.dicts.options import DictOptions
from rvpo.engines.dicts.rewards import RewardDicts
from rvpo.errors import ConfigError


class Advantages:
    """The function that replaces ``compute_advantages``.

    Attributes:
        run: the rewards of the run.
        metrics: metrics of the last batch that was trained on.
        printing: whether the cookbook calls this only to print a group, not to train on it.
    """

    def __init__(self, options: DictOptions) -> None:
        """Start a run."""
        self.run = RewardDicts(options)
        self.metrics: Mapping[str, float] = {}
        self.printing = False

    def __call__(self, trajectory_groups_P: Sequence[Any]) -> list[torch.Tensor]:  # noqa: N803 - called by name
        """Return one tensor (G,) per group.

        Raises:
            RewardError: metrics that cannot be aggregated, or a name that no sample has ever had.
        """
        sizes = [len(group.trajectories_G) for group in trajectory_groups_P]
        rows = [
            self._row(group, i) for group, size in zip(trajectory_groups_P, sizes, strict=True) for i in range(size)
        ]
        ids = [number for number, size in enumerate(sizes) for _ in range(size)]
        scored = self.run(rows, ids, learn=not self.printing)
        if not self.printing:
            self.metrics = scored.metrics
        return list(torch.split(torch.tensor(scored.advantages, dtype=torch.float32), sizes))

    def _row(self, group: Any, i: int) -> dict[str, Any]:
        """Return the rewards of a trajectory: the group's value if it has one, or the last transition's."""
        found: dict[str, Any] = {}
        for transition in group.trajectories_G[i].transitions:
            found.update(transition.metrics)
        found.update(group.metrics_G[i])
        return {name: found[name] for name in self.run.names if name in found}


def install(config: Any, **options: Any) -> None:
    """Replace the cookbook's advantages in this process. Call it once, before ``train.main(config)``.

    Args:
        config: the cookbook's config, which is checked and names the folder of the run.
        options: ``method``, ``reward_keys`` and all other options of a section ``rvpo``.

    Raises:
        ConfigError: options that cannot work, or a config that chooses groups by the total reward.
    """
    train: Any = importlib.import_module("tinker_cookbook.rl.train")
    checkpoints = importlib.import_module("tinker_cookbook.checkpoint_utils")
    if hasattr(train.compute_advantages, "run"):
        raise ConfigError(
            "rvpo.tinker.install was called before in this process; expected one call. Start another process"
        )
    if config.remove_constant_reward_groups:
        raise ConfigError(
            "remove_constant_reward_groups is True, which drops groups in which the total reward is constant, even if "
            "another reward ranks them; expected False"
        )
    advantages = Advantages(DictOptions.from_mapping(options, "rvpo.tinker.install"))
    folder = Path(config.log_path) / "rvpo"
    if (last := checkpoints.get_last_checkpoint(config.log_path)) is not None:
        advantages.run.load(folder / f"batch_{last.batch}")
    train.compute_advantages = advantages
    _wrap(train, checkpoints, advantages, folder)


def _wrap(train: Any, checkpoints: Any, advantages: Advantages, folder: Path) -> None:
    """Wrap the functions that print groups, log a batch and save checkpoints."""
    printed, prepared, saved = train.print_group, train.prepare_minibatch, checkpoints.save_checkpoint_async

    def print_group(*args: Any, **kwargs: Any) -> Any:
        advantages.printing = True
        try:
            return printed(*args, **kwargs)
        finally:
            advantages.printing = False

    async def prepare_minibatch(*args: Any, **kwargs: Any) -> Any:
        data, metrics = await prepared(*args, **kwargs)
        metrics.update(advantages.metrics)
        return data, metrics

    async def save_checkpoint_async(*args: Any, loop_state: dict[str, Any], **kwargs: Any) -> Any:
        advantages.run.save(folder / f"batch_{loop_state.get('batch')}")
        return await saved(*args, loop_state=loop_state, **kwargs)

    train.print_group, train.prepare_minibatch = print_group, prepare_minibatch
    checkpoints.save_checkpoint_async = save_checkpoint_async
