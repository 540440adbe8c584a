"""Checks at the place where TRL turns rewards into advantages: RVPO's advantages are trained on, or training stops.

TRL does not have a hook, so classes before and after ours in the method resolution order (MRO) override the same
private methods. Three checks make sure that training never silently uses other advantages than those that we computed:

- :func:`outermost` reads the final result of a method: with the overrides of all classes, and of the trainer object.
- :func:`check_untouched` compares the advantages that arrive from TRL with those that TRL computes from the rewards. If
  they differ, a class after ours in the MRO has changed them, and replacing them would undo its work.
- :func:`check_order` refuses classes in which our methods would never be called.

If another version of TRL has changed this place, it is detected at the start or in the first batch, whatever its
version number is: :func:`check_seam` looks for the methods, and :func:`check_received` compares the advantages that the
loss gets with those that were computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import trl
from torch import Tensor
from trl import GRPOTrainer

from rvpo.engines.trl.config import NORMALISED, SUM
from rvpo.errors import ConfigError, EngineError

GENERATE, REWARDS, PREPARE = "_generate_and_score_completions", "_calculate_rewards", "_prepare_inputs"
_METHODS = {
    GENERATE: ("self", "inputs"),
    REWARDS: ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    PREPARE: ("self", "generation_batch"),
}
"""Methods of TRL's trainer that ours override, with their parameters."""
EPS = 1e-4
"""Constant that TRL adds to standard deviations."""
ROUNDING = 1e-4
"""Relative width up to which rewards count as equal, because they may differ only by rounding."""
CLOSE = 1e-3
"""Largest relative difference to TRL's advantages: TRL's versions sum in another order, in single precision."""


@contextmanager
def outermost(trainer: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Within the context, ``around`` wraps the trainer's method ``name``, including all overrides.

    The wrapper is set on the object, because a class before ours in the MRO may change the result of our method.
    """
    of_object = vars(trainer).get(name)
    setattr(trainer, name, around(getattr(trainer, name)))
    try:
        yield
    finally:
        if of_object is None:
            delattr(trainer, name)
        else:
            setattr(trainer, name, of_object)


def check_order(cls: type, mixin: type) -> None:
    """Refuse a class in which ``mixin`` comes after TRL's trainer in the MRO, because it would never be called.

    Raises:
        ConfigError: the order is wrong; the message has the right order.
    """
    order = cls.__mro__
    if GRPOTrainer in order and order.index(GRPOTrainer) < order.index(mixin):
        bases = ", ".join(base.__name__ for base in cls.__bases__)
        raise ConfigError(
            f"class {cls.__name__}({bases}) has {mixin.__name__} after GRPOTrainer, which would never call it and "
            f"train plain GRPO. Put it in front: class {cls.__name__}({mixin.__name__}, …)"
        )


def check_import_order() -> None:
    """Refuse a trainer that was replaced in TRL after rvpo had imported it, as Unsloth does when it is imported.

    Raises:
        ConfigError: the order of imports is wrong; the message has the right order.
    """
    now = trl.GRPOTrainer
    if now is GRPOTrainer:
        return
    who = "unsloth" if "unsloth" in now.__module__.lower() or "unsloth" in now.__name__.lower() else now.__module__
    raise ConfigError(
        f"trl.GRPOTrainer is {now.__module__}.{now.__name__}, which has replaced TRL's own after rvpo.trl was "
        f"imported, so RVPOTrainer would not use it; expected {who} to be imported first. Put `import {who}` above "
        "all other imports of the script"
    )


def check_seam() -> None:
    """Refuse a version of TRL whose trainer does not have the methods and parameters that ours override.

    Raises:
        EngineError: a method is missing or has other parameters.
    """
    for name, parameters in _METHODS.items():
        method = getattr(GRPOTrainer, name, None)
        if method is None:
            raise _moved(f"has no method {name}")
        seen = tuple(inspect.signature(method).parameters)
        takes_any = any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(method).parameters.values())
        if not takes_any and seen[: len(parameters)] != parameters:
            raise _moved(f"{name} has the parameters {', '.join(seen)}")


def check_received(inputs: Any, made: Tensor) -> None:
    """Refuse a batch whose loss gets other advantages than those that were computed for it.

    Args:
        inputs: inputs of TRL's loss.
        made: advantages of this process's completions, after all classes have changed them.

    Raises:
        EngineError: TRL computes advantages a second time, or passes them to the loss in another way.
    """
    received = inputs.get("advantages") if isinstance(inputs, dict) else None
    if not isinstance(received, Tensor):
        raise _moved("hands its loss a batch without advantages")
    if not bool(torch.isin(received.to(made), made).all()):
        raise _moved(
            "(or a class in front of it) hands the loss other advantages than those that were computed from this "
            f"batch's rewards. Change advantages only in {GENERATE}, not later"
        )


def _moved(what: str) -> EngineError:
    """Return the error for a version of TRL that differs from the tested ones."""
    return EngineError(
        f"GRPOTrainer of TRL {trl.__version__} {what}; expected it as in the versions in docs/engines.md. Otherwise, "
        "RVPO's advantages would not be trained on. Install one of them: pip install -c constraints.txt -e '.[trl]'"
    )


def check_trainer(trainer: Any, mixin: type) -> None:
    """Refuse a class that does not derive from GRPOTrainer.

    Raises:
        ConfigError: it derives from another trainer, which the message names.
    """
    check_import_order()
    if isinstance(trainer, GRPOTrainer):
        return
    bases = [base.__name__ for base in type(trainer).__mro__ if base.__name__.endswith("Trainer")]
    bases = [name for name in bases if name not in ("RVPOTrainer", "Trainer", "_BaseTrainer")]
    seen = bases[-1] if bases else "no trainer"
    raise ConfigError(
        f"{mixin.__name__} is in front of {seen}; expected trl.GRPOTrainer or a subclass of it. Only this trainer "
        "compares the completions of a prompt by one advantage each. Use rvpo.trl.RVPOTrainer. For other trainers, "
        "compute advantages with rvpo.Aggregator"
    )


def check_untouched(trainer: Any, local: Tensor, rewards: Tensor, num_generations: int) -> None:
    """Raise an error unless the advantages from TRL are those that TRL computes from these rewards.

    Args:
        trainer: the trainer, whose classes the error names.
        local: (n,) advantages of this process's completions.
        rewards: (N, M) rewards of all processes, NaN = missing.
        num_generations: number of completions per prompt.

    Raises:
        EngineError: another class has changed them.
    """
    start = trainer.accelerator.process_index * local.shape[0]
    part = slice(start, start + local.shape[0])
    expected = _advantages_of_trl(trainer, rewards, num_generations)[part].to(local)
    if local.shape == expected.shape:
        comparable = _beyond_rounding(trainer, rewards, num_generations)[part].to(local.device)
        difference = (local - expected).abs() * comparable
        if not bool((difference > CLOSE * expected.abs().clamp(min=1)).any()):
            return
        seen = f"differ by up to {float(difference.max()):.3g}"
    else:
        seen = f"have shape {tuple(local.shape)} instead of {tuple(expected.shape)}"
    names = _classes_after_ours(trainer)
    who = f"class {names[0]}, which comes after RVPOMixin," if names else "a function set on GRPOTrainer"
    raise EngineError(
        f"{who} returns other advantages than TRL computes from the rewards (they {seen}), and RVPOMixin would replace "
        f"them. To change rewards, override {REWARDS}. To change RVPO's advantages, use a subclass: class "
        f"Mine(RVPOTrainer) with a {GENERATE} that calls super() and then changes output['advantages']"
    )


def _classes_after_ours(trainer: Any) -> list[str]:
    """Return the classes between ours and TRL's trainer in the MRO that override the generation."""
    order = type(trainer).__mro__
    mixin = next(i for i, cls in enumerate(order) if cls.__name__ == "RVPOMixin")
    between = order[mixin + 1 : order.index(GRPOTrainer)]
    return [cls.__name__ for cls in between if GENERATE in vars(cls)]


def _advantages_of_trl(trainer: Any, rewards: Tensor, num_generations: int) -> Tensor:
    """Return the advantages (N,) that TRL's formulas give for rewards (N, M), to check that these were used."""
    weights = trainer.reward_weights.to(rewards)
    unscored = rewards.isnan().all(1)
    groups = rewards.view(-1, num_generations, rewards.shape[1])
    if getattr(trainer, "multi_objective_aggregation", SUM) == NORMALISED:
        z = (groups - groups.nanmean(1, keepdim=True)) / (_deviation(groups, 1) + EPS)
        total = (z.view_as(rewards) * weights).nansum(1).masked_fill(unscored, torch.nan)
        advantages = (total - total.nanmean()) / (_deviation(total, 0) + EPS)
    else:
        total = (rewards * weights).nansum(1).masked_fill(unscored, torch.nan)
        of_group = total.view(-1, num_generations)
        advantages = of_group - of_group.nanmean(1, keepdim=True)
        if trainer.scale_rewards != "none":
            whole = trainer.scale_rewards == "batch"
            advantages = advantages / ((_deviation(total, 0) if whole else _deviation(of_group, 1)) + EPS)
        advantages = advantages.flatten()
    found: Tensor = advantages.nan_to_num(nan=0.0)
    return found


def _beyond_rounding(trainer: Any, rewards: Tensor, num_generations: int) -> Tensor:
    """Return for each row (N,) whether its advantage is more than rounding, which TRL magnifies for equal rewards."""
    weighted = (rewards * trainer.reward_weights.to(rewards)).nan_to_num(nan=0.0)
    if getattr(trainer, "multi_objective_aggregation", SUM) == NORMALISED:
        groups = weighted.view(-1, num_generations, weighted.shape[1])
        wide = groups.amax(1) - groups.amin(1) > ROUNDING * groups.abs().amax(1)
        every: Tensor = wide.all().expand(len(rewards))
        return every  # every row is divided by the deviation of all rows
    divided_by_group = trainer.scale_rewards == "group"
    shape = (-1, num_generations) if divided_by_group else (1, -1)
    total, size = weighted.sum(1).view(shape), weighted.abs().sum(1).view(shape)
    differ: Tensor = total.amax(1) - total.amin(1) > ROUNDING * size.amax(1)
    return differ.repeat_interleave(total.shape[1])


def _deviation(x: Tensor, dim: int) -> Tensor:
    """Return the sample standard deviation of the values that are not NaN along ``dim``; 0 for one value, as in TRL."""
    count = (~x.isnan()).sum(dim, keepdim=True)
    squares = (x - x.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()
