"""Wrappers for the trainer of ``swift rlhf``. They save rvpo's state, and check that rvpo's advantages are trained on.

ms-swift's class does not have hooks for this. Each wrapper calls ms-swift's own method.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rvpo.engines.swift import seam
from rvpo.engines.swift.adapter import Adapter, adapter_of
from rvpo.errors import ConfigError
from rvpo.step.options import AggregationOptions

TRAINERS = "swift.rlhf_trainers.grpo_trainer"
ALL_TRAINERS = "swift.trainers.mixin"
_WRAPPED = ("__init__", "_postprocess_batch", "_save_checkpoint", "_load_optimizer_and_scheduler")


class _Called(TrainerCallback):  # type: ignore[misc]
    """Stops a training before its first update if rvpo has not computed the advantages of any batch."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._adapter.batches:
            raise seam.moved("a batch is trained on without a call of compute_advantages")


def install(options: AggregationOptions) -> None:
    """Wrap the methods of ms-swift's GRPO trainer.

    Raises:
        EngineError: one of them does not exist.
    """
    trainer = getattr(importlib.import_module(TRAINERS), "GRPOTrainer", None)
    every = getattr(importlib.import_module(ALL_TRAINERS), "SwiftMixin", None)
    if trainer is None or every is None:
        raise seam.moved(f"{TRAINERS} has no GRPOTrainer, or {ALL_TRAINERS} no SwiftMixin")
    if missing := [name for name in _WRAPPED if not hasattr(trainer, name)]:
        raise seam.moved(f"its GRPOTrainer has no method {missing[0]}")
    _wrap(every, "__init__", functools.partial(_only_grpo, trainer))
    _wrap(trainer, "__init__", functools.partial(_built, options))
    _wrap(trainer, "_postprocess_batch", functools.partial(_checked, options))
    _wrap(trainer, "_save_checkpoint", functools.partial(_saving, options))
    _wrap(trainer, "_load_optimizer_and_scheduler", functools.partial(_loading, options))


def _wrap(cls: type, name: str, around: Callable[..., Any]) -> None:
    """Replace a method by ``around(theirs, self, …)``, where ``theirs`` is ms-swift's method."""
    theirs = getattr(cls, name)

    @functools.wraps(theirs)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(theirs, self, *args, **kwargs)

    setattr(cls, name, method)


def _only_grpo(trainer: type, theirs: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
    """Refuse trainers of other algorithms, which would ignore the plug-in."""
    if not isinstance(self, trainer):
        raise ConfigError(
            f"rvpo.swift.use is in --external_plugins, but {type(self).__name__} trains, which does not use its "
            "method; expected `swift rlhf --rlhf_type grpo`. Set that, or leave the plug-in out"
        )
    theirs(self, *args, **kwargs)


def _built(options: AggregationOptions, theirs: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
    """Build the trainer and its adapter, so that invalid options fail before a completion is generated."""
    theirs(self, *args, **kwargs)
    adapter = adapter_of(self, options)
    adapter.check_settings(self.advantage_estimator, self.scale_rewards, self.kl_in_reward, self.beta)
    self.add_callback(_Called(adapter))


def _checked(
    options: AggregationOptions, theirs: Callable[..., Any], self: Any, samples: Any, encoded: Any, *rest: Any
) -> Any:
    """Let ms-swift distribute the advantages of a batch to its tokens, and check that they are rvpo's."""
    adapter = adapter_of(self, options)
    adapter.done = None
    result = theirs(self, samples, encoded, *rest)
    if adapter.done is None:
        raise seam.moved("its GRPOTrainer makes advantages without a call of compute_advantages")
    made = adapter.done.advantages
    if getattr(self, "_has_teacher", False):  # the tokens' advantages also have the teacher's part
        received = torch.stack([sample.advantages.to(made.device) for sample in samples])
    else:
        received = torch.cat([_of_tokens(batch["grpo_batch"]).to(made.device) for batch in encoded])
    if not bool(torch.isin(received, made.to(received)).all()):
        raise seam.moved("the advantages that reach the loss are not those of compute_advantages")
    return result


def _of_tokens(batch: Any) -> torch.Tensor:
    """Return the advantages of all trained tokens of a micro-batch, padded or packed."""
    advantages: torch.Tensor = batch.advantages
    return advantages[batch.completion_mask.bool()]


def _saving(options: AggregationOptions, theirs: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Write the method's state first: a checkpoint counts as complete after the files that ms-swift writes."""
    adapter_of(self, options).save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
    return theirs(self, *args, **kwargs)


def _loading(
    options: AggregationOptions, theirs: Callable[..., Any], self: Any, checkpoint: Any, *args: Any, **kwargs: Any
) -> Any:
    """Load the method's state on resume. With ``resume_only_model`` it begins anew, like the optimizer."""
    result = theirs(self, checkpoint, *args, **kwargs)
    if checkpoint is not None and not self.args.resume_only_model:
        adapter_of(self, options).load(Path(checkpoint))
    return result
