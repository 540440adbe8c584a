"""``Adapter``: turns the rewards of one trainer of ms-swift into advantages, metrics, records and saved state.

Three trainers compute advantages with the same functions. They differ in where they keep the values that a step needs;
the small functions at the end find these values. The code for Megatron's and Ray's trainers was written from their
source and has not been run with them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpo.errors import ConfigError, EngineError
from rvpo.logs.schema import FOLDER
from rvpo.logs.writer import ChannelTable
from rvpo.step import memory
from rvpo.step.aggregator import Aggregated, Aggregator
from rvpo.step.options import AggregationOptions

logger = logging.getLogger(__name__)

_KEY = "_rvpo_adapter"


def adapter_of(trainer: Any, options: AggregationOptions) -> Adapter:
    """Return a trainer's adapter. It is built on first use."""
    found: Adapter | None = getattr(trainer, _KEY, None)
    if found is None:
        found = Adapter(trainer, options)
        setattr(trainer, _KEY, found)
    return found


class Adapter:
    """Connects one trainer with ``rvpo.Aggregator``.

    Attributes:
        done: result of the latest batch; None before the first one.
        batches: number of batches that got advantages.
    """

    def __init__(self, trainer: Any, options: AggregationOptions) -> None:
        """Build the aggregator for the rewards of a trainer.

        Raises:
            ConfigError: two rewards share a name, or an option names a reward that does not exist.
        """
        self._trainer = trainer
        names = list(trainer.reward_func_names)
        if not names:
            raise ConfigError(
                "ms-swift trains without reward functions, only from a teacher; expected at least one reward. Pass "
                "--reward_funcs, or leave rvpo.swift.use out of --external_plugins"
            )
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise ConfigError(
                f"two reward functions are called {twice[0]!r} ({', '.join(names)}); expected different names: "
                "ms-swift takes the name of the function or of its class. Rename one"
            )
        own_ranges = [getattr(function, "reward_range", None) for function in getattr(trainer, "reward_funcs", [])]
        own_ranges += [None] * (len(names) - len(own_ranges))  # an environment's own reward comes last
        self._weights: Tensor = trainer.reward_weights.detach().cpu().clone()
        self.aggregator: Aggregator = options.aggregator(names, own_ranges, self._weights.tolist())
        self.aggregator.quiet = not _is_main(trainer)
        self._table = ChannelTable(Path(trainer.args.output_dir) / FOLDER)
        self.done: Aggregated | None = None
        self.batches = 0
        if self.aggregator.config.method.remembers and not hasattr(trainer, "_load_optimizer_and_scheduler"):
            logger.warning(
                "%s is not the trainer of `swift rlhf`: its checkpoints do not contain the memory of method %r. With "
                "this method, a resumed run begins anew.",
                type(trainer).__qualname__,
                self.aggregator.config.method.name,
            )
        if getattr(trainer.args, "dynamic_sample", False):
            logger.warning(
                "dynamic_sample is on: ms-swift draws new prompts if the SUM of the rewards is the same for all "
                "completions of a prompt, even if single rewards differ and could rank them."
            )

    def check_settings(self, estimator: str, scale: str | None, kl_in_reward: bool, beta: float) -> None:
        """Refuse settings of ms-swift that would be ignored, because the method decides them.

        Raises:
            ConfigError: there is such a setting; the message says what to set instead.
        """
        if estimator != "grpo":
            raise ConfigError(
                f"advantage_estimator is {estimator!r}; expected 'grpo', ms-swift's default, because the method of "
                "rvpo.swift.use computes the advantages. Drop --advantage_estimator"
            )
        if scale not in ("group", None):
            raise ConfigError(
                f"scale_rewards is {scale!r}; expected 'group', ms-swift's default. Drop --scale_rewards and write it "
                "into the method: rvpo.swift.use(method='grpo:whiten=batch'), 'grpo:whiten=none', or 'gdpo'"
            )
        if kl_in_reward and beta != 0:
            raise ConfigError(
                f"kl_in_reward is {kl_in_reward} with beta {beta}; expected kl_in_reward false, because a KL term "
                "does not belong to any single reward. If it is false, the loss has the KL term with the same beta"
            )

    def advantages(
        self,
        rewards: Tensor,
        weights: Tensor,
        *,
        num_generations: int | None = None,
        groups: Sequence[str] | None = None,
    ) -> Tensor:
        """Return the advantages (N,) of rewards (N, M), NaN = missing.

        Raises:
            ConfigError: the weights have changed since training began.
            RewardError: rewards that cannot be aggregated.
            EngineError: the number of rewards is not the number of reward functions.
        """
        names = self.aggregator.names
        if rewards.ndim != 2 or rewards.shape[1] != len(names):
            raise EngineError(
                f"ms-swift passes rewards of shape {tuple(rewards.shape)} for {len(names)} reward functions "
                f"({', '.join(names)}); expected one column per function. Install the version of ms-swift in "
                "docs/engines/ms-swift.md"
            )
        if not torch.equal(weights.detach().cpu(), self._weights):
            raise ConfigError(
                f"reward_weights are {weights.tolist()}, but training began with {self._weights.tolist()}; expected "
                "the same weights in all steps. Set --reward_weights once"
            )
        trained = _is_training(self._trainer)
        done = self.aggregator(
            rewards,
            num_generations=num_generations,
            groups=groups,
            progress=_progress(self._trainer),
            learn=trained,
        )
        self.done = done
        self.batches += 1
        if (metrics := getattr(self._trainer, "_metrics", None)) is not None:
            for key, value in done.metrics.items():
                metrics["train" if trained else "eval"][key].append(value)
        if getattr(self._trainer.args, "log_completions", False) and _is_main(self._trainer):
            self._table.add(_step(self._trainer) + trained, done, trained=trained)
        advantages: Tensor = done.advantages
        return advantages

    def save(self, folder: Path) -> None:
        """Write the method's memory into a checkpoint."""
        if _is_main(self._trainer):
            memory.save_memory(self.aggregator, folder)

    def load(self, folder: Path) -> None:
        """Load what :meth:`save` wrote. If the checkpoint does not have it, begin anew with a warning."""
        memory.load_memory(self.aggregator, folder)


def _is_main(trainer: Any) -> bool:
    """Whether this process writes the files that are the same for all processes."""
    accelerator = getattr(trainer, "accelerator", None)
    if accelerator is not None:
        return bool(accelerator.is_main_process)
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _is_training(trainer: Any) -> bool:
    """Whether the batch is trained on, and not an evaluation's."""
    models = getattr(trainer, "unwrapped_models", None)  # Megatron's
    model = models[0] if models else getattr(trainer, "model", None)
    return True if model is None else bool(model.training)  # Ray's driver has no model, and only trains


def _step(trainer: Any) -> int:
    """Return the number of finished steps."""
    state = getattr(trainer, "state", None)
    return int(getattr(state, "global_step", None) or getattr(state, "iteration", None) or 0)


def _progress(trainer: Any) -> float | None:
    """Return the share of training that is done: 0 at the first step, 1 at the last; None if it is not known."""
    steps = getattr(getattr(trainer, "state", None), "max_steps", None)
    if steps is None:  # Ray's driver; without progress, a schedule for k is refused
        return None
    return min(_step(trainer) / max(int(steps) - 1, 1), 1.0)
