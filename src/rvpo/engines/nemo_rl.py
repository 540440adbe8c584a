"""NeMo RL: any method as ``grpo.adv_estimator.name: rvpo``, after ``rvpo.nemo_rl.install()`` in the launcher.

How it connects: NeMo RL chooses its estimator by name in one function. The estimator runs on the driver, a single
process, and gets the rewards of the batch as columns ``reward/<name>``. :func:`install` wraps that function, the
function that logs the advantages, and the one that begins a checkpoint. See docs/engines/nemo_rl.md for details.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpo.engines.dicts.options import SECTION, DictOptions
from rvpo.engines.dicts.rewards import RewardDicts
from rvpo.errors import ConfigError, EngineError, RewardError

logger = logging.getLogger(__name__)

NAME = "rvpo"
COLUMN = "reward/"
_running: list[RVPOAdvantageEstimator] = []
"""The estimator of this process's training, for its checkpoints."""


class RVPOAdvantageEstimator:
    """The estimator that NeMo RL calls once per step.

    Attributes:
        run: the rewards of the run.
        last_metrics: metrics of the last step.
    """

    def __init__(self, options: DictOptions) -> None:
        """Start a run."""
        self.run = RewardDicts(options)
        self.last_metrics: dict[str, float] = {}

    def compute_advantage(
        self, prompt_ids: Tensor, rewards: Tensor, mask: Tensor, repeated_batch: Mapping[str, Any], **_: Any
    ) -> Tensor:
        """Return advantages (B, S).

        Args:
            prompt_ids: (B, P) tokens; equal rows are one group.
            rewards: (B,) total rewards; not used.
            mask: (B, S) mask of the trained tokens; only its shape is used.
            repeated_batch: the batch, with the rewards (B,) in columns ``reward/<name>``.

        Raises:
            RewardError: rewards that cannot be aggregated, or a column that the batch has never had.
        """
        columns = {key.removeprefix(COLUMN): list(repeated_batch[key]) for key in repeated_batch if _is_reward(key)}
        if not columns:
            raise RewardError(
                f"the batch has no column {COLUMN}…; expected one per name of {', '.join(self.run.names)}. Let the "
                "environment return a dict of rewards. The single-controller trainer passes none: it is not supported"
            )
        rows = [{name: column[i] for name, column in columns.items()} for i in range(len(prompt_ids))]
        scored = self.run(rows, [tuple(row) for row in prompt_ids.tolist()])
        self.last_metrics = dict(scored.metrics)
        advantages = torch.tensor(scored.advantages, dtype=torch.float32, device=mask.device)
        return advantages[:, None].expand(mask.shape)


def _is_reward(key: object) -> bool:
    return isinstance(key, str) and key.startswith(COLUMN)


def install() -> None:
    """Register ``adv_estimator.name: rvpo`` in NeMo RL. Call it once, before NeMo RL's ``main``.

    Raises:
        EngineError: this version of NeMo RL lacks a function that must be wrapped.
    """
    grpo, checkpoint, gym = map(
        importlib.import_module,
        ("nemo_rl.algorithms.grpo", "nemo_rl.utils.checkpoint", "nemo_rl.environments.nemo_gym"),
    )
    trainers = [grpo, importlib.import_module("nemo_rl.algorithms.grpo_sync")]
    for module in trainers:
        _wrap(module, "_create_advantage_estimator", _create)
        _wrap(module, "_log_mixed_rewards_and_advantages_information", _log)
    _wrap(checkpoint.CheckpointManager, "init_tmp_checkpoint", _save)
    _wrap(gym, "build_reward_component_columns", _columns)


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    original = getattr(owner, name, None)
    if original is None:
        raise EngineError(
            f"{owner.__name__} has no {name}; expected NeMo RL of August 2026. See docs/engines/nemo_rl.md"
        )
    if hasattr(original, "rvpo"):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # a function, so that it can be a method
        return wrapper(original, *args, **kwargs)

    wrapped.rvpo = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)


def _create(original: Any, master_config: Any) -> Any:
    """Build our estimator if the config names it, and resume it from the last checkpoint."""
    chosen = master_config.grpo.adv_estimator
    section = getattr(chosen, SECTION, None)
    if chosen.name != NAME:
        if section is not None:
            raise ConfigError(
                f"grpo.adv_estimator has a section {SECTION}, but name is {chosen.name!r}; expected name: {NAME}"
            )
        return original(master_config)
    check(master_config)
    estimator = RVPOAdvantageEstimator(DictOptions.from_mapping(section, f"grpo.adv_estimator.{SECTION}"))
    manager = importlib.import_module("nemo_rl.utils.checkpoint").CheckpointManager(master_config.checkpointing)
    if (last := manager.get_latest_checkpoint_path()) is not None:
        estimator.run.load(Path(last))
    _running[:] = [estimator]
    return estimator


def check(master_config: Any) -> None:
    """Refuse options that change only the total reward, or drop groups by it; warn where NeMo RL fills in a 0.

    Raises:
        ConfigError: there is such an option.
    """
    grpo = master_config.grpo
    if grpo.use_dynamic_sampling:
        raise ConfigError(
            "grpo.use_dynamic_sampling is true, which drops groups in which the total reward is constant, even if "
            "another reward ranks them; expected false"
        )
    for option in ("reward_scaling", "reward_shaping"):
        if getattr(grpo, option).enabled:
            raise ConfigError(
                f"grpo.{option}.enabled is true, which changes only the total reward and no reward/<name>; expected "
                "false: change the rewards where they are computed"
            )
    asynchronous = grpo.async_grpo is not None and grpo.async_grpo.enabled
    elsewhere = asynchronous or (master_config.data_plane or {}).get("enabled", False)
    if elsewhere and master_config.env.get("should_use_nemo_gym"):
        logger.warning(
            "NeMo Gym with async_grpo or data_plane: if a verifier leaves a reward out, NeMo RL sets it to 0, in a "
            "process that rvpo does not reach. Let every verifier return every reward."
        )


def _log(original: Any, *args: Any, **kwargs: Any) -> Any:
    """Log the metrics of the step next to NeMo RL's own."""
    if _running:
        kwargs["logger"].log_metrics(_running[0].last_metrics, kwargs["total_steps"] + 1, prefix="train")
    return original(*args, **kwargs)


def _save(original: Any, *args: Any, **kwargs: Any) -> Any:
    """Write the method's memory into a checkpoint that NeMo RL has just begun."""
    folder = original(*args, **kwargs)
    if _running:
        _running[0].run.save(Path(folder))
    return folder


def _columns(original: Any, component_dicts: list[dict[str, float] | None]) -> dict[str, Any]:
    """Set a component that a sample lacks to NaN (missing), where NeMo RL fills in 0."""
    columns: dict[str, Any] = original(component_dicts)
    if not _running:
        return columns
    for key, column in columns.items():
        name = key.removeprefix(COLUMN)
        for i, components in enumerate(component_dicts):
            if components is None or name not in components:
                column[i] = float("nan")
    return columns
