"""Replaces the two functions in which ms-swift turns rewards into advantages. Three trainers import them by name.

They are replaced in the module that defines them and in the module of every trainer that is loaded already. A module
that is loaded later imports the replacement. The functions get only rewards, so the trainer is found through the call:
it is the ``self`` of the method that calls them. If there is another caller, or a function has other parameters, then
ms-swift has changed. That raises an error; rvpo never falls back to plain GRPO.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch import Tensor

from rvpo.engines.swift.adapter import Adapter, adapter_of
from rvpo.errors import EngineError, RewardError
from rvpo.step.options import AggregationOptions

TESTED = "4.6"
HOME = "swift.rl_core.advantage"
GROUPED, BY_REQUEST = "compute_advantages", "compute_advantages_dynamic"
USERS = (
    "swift.rlhf_trainers.grpo_trainer",
    "swift.megatron.trainers.grpo_trainer",
    "swift.ray.megatron.grpo_trainer",
)
_COMMON = ("advantage_estimator", "scale_rewards", "kl_in_reward", "beta", "kl_values")
PARAMETERS = {
    GROUPED: ("rewards_per_func", "reward_weights", "num_generations", *_COMMON),
    BY_REQUEST: ("rewards_per_func", "reward_weights", "prompt_ids", "request_ids", *_COMMON),
}


def moved(what: str) -> EngineError:
    """Return the error for a version of ms-swift whose functions differ from the tested version."""
    try:
        version = importlib.metadata.version("ms-swift")
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return EngineError(
        f"ms-swift {version}: {what}; expected its functions as in ms-swift {TESTED}, or rvpo would be ignored. "
        f"Install ms-swift {TESTED}, or leave rvpo.swift.use out of --external_plugins"
    )


def check() -> None:
    """Check that both functions are as in the tested version, in the module of every loaded trainer.

    Raises:
        EngineError: a function does not exist, has other parameters, or was replaced by other code.
    """
    home, loaded = _modules()
    for name, parameters in PARAMETERS.items():
        function = getattr(home, name, None)
        if function is None:
            raise moved(f"{HOME} has no function {name}")
        if (seen := tuple(inspect.signature(function).parameters)) != parameters:
            raise moved(f"{HOME}.{name} has the parameters {', '.join(seen)}")
        for module in loaded:
            if getattr(module, name, function) is not function:
                raise moved(f"{module.__name__}.{name} is not that of {HOME}, because something else has replaced it")
    if missing := [name for name in (GROUPED, BY_REQUEST) if not hasattr(sys.modules[USERS[0]], name)]:
        raise moved(f"{USERS[0]} does not import {missing[0]}")


def install(options: AggregationOptions) -> None:
    """Replace both functions, for every trainer. Call :func:`check` first."""
    home, loaded = _modules()
    for name, replacement in ((GROUPED, _grouped(options)), (BY_REQUEST, _by_request(options))):
        for module in (home, *loaded):
            if hasattr(module, name):
                setattr(module, name, replacement)


def _modules() -> tuple[ModuleType, list[ModuleType]]:
    """Return the module that defines the functions, and the trainers' modules that are loaded already."""
    return importlib.import_module(HOME), [sys.modules[name] for name in USERS if name in sys.modules]


def _grouped(options: AggregationOptions) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the replacement of ``compute_advantages``, whose rows are blocks of G completions per prompt."""

    def compute_advantages(
        rewards_per_func: Tensor,
        reward_weights: Tensor,
        num_generations: int,
        advantage_estimator: str = "grpo",
        scale_rewards: str = "group",
        kl_in_reward: bool = False,
        beta: float = 0.0,
        kl_values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        adapter = _caller(options, GROUPED)
        adapter.check_settings(advantage_estimator, scale_rewards, kl_in_reward, beta)
        advantages = adapter.advantages(rewards_per_func, reward_weights, num_generations=num_generations)
        return advantages, _total(rewards_per_func, reward_weights)

    return compute_advantages


def _by_request(options: AggregationOptions) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the replacement of ``compute_advantages_dynamic``, in which rows may be turns of one completion."""

    def compute_advantages_dynamic(
        rewards_per_func: Tensor,
        reward_weights: Tensor,
        prompt_ids: Sequence[str],
        request_ids: Sequence[str],
        advantage_estimator: str = "grpo",
        scale_rewards: str = "group",
        kl_in_reward: bool = False,
        beta: float = 0.0,
        kl_values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        adapter = _caller(options, BY_REQUEST)
        adapter.check_settings(advantage_estimator, scale_rewards, kl_in_reward, beta)
        last = {request: row for row, request in enumerate(request_ids)}  # a completion's last turn, as in ms-swift
        _check_turns(rewards_per_func, request_ids, last)
        rows = sorted(last.values())
        groups = [prompt_ids[row] for row in rows]
        of_completions = adapter.advantages(rewards_per_func[rows], reward_weights, groups=groups)
        place = {request_ids[row]: i for i, row in enumerate(rows)}
        advantages = of_completions[[place[request] for request in request_ids]]
        return advantages, _total(rewards_per_func, reward_weights)

    return compute_advantages_dynamic


def _caller(options: AggregationOptions, name: str) -> Adapter:
    """Return the adapter of the trainer whose method has called the function that calls this one."""
    frame = sys._getframe(2)
    trainer = frame.f_locals.get("self")
    if trainer is None or not hasattr(trainer, "reward_func_names"):
        raise moved(f"{name} is called by {frame.f_code.co_qualname}, which is not a method of a GRPO trainer")
    return adapter_of(trainer, options)


def _check_turns(rewards: Tensor, request_ids: Sequence[str], last: dict[str, int]) -> None:
    """Refuse turns of one completion with different rewards, because it is not known which of them count.

    Raises:
        RewardError: two rows of a request differ.
    """
    of_last = rewards[[last[request] for request in request_ids]]
    same = torch.isclose(rewards, of_last, rtol=0, atol=1e-6, equal_nan=True).all(1)
    if bool(same.all()):
        return
    row = int((~same).nonzero()[0])
    raise RewardError(
        f"the turns of request {request_ids[row]!r} have the rewards {rewards[row].tolist()} and "
        f"{of_last[row].tolist()}; expected the same for all turns of a completion, because each completion gets one "
        "advantage. Score the whole trajectory"
    )


def _total(rewards: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum (N,), which ms-swift logs as ``reward`` but no longer trains on."""
    return (rewards * weights.unsqueeze(0)).nansum(1)
