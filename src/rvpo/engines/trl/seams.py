"""Where TRL makes advantages of rewards: what passes there is seen whole, or training stops.

TRL has no hook, so classes in front of ours and behind it override the same private methods. Three things keep us from
training on something else than what was computed, without a word:

- :func:`outermost` looks at what a method returns for everybody: with the overrides of all classes, and also one that
  was set on the trainer itself.
- :func:`check_untouched` compares the advantages that arrive from TRL with those that TRL makes of the rewards. If they
  differ, a class behind ours made them otherwise, and replacing them would undo its work.
- :func:`check_order` refuses classes of which ours would never be called.

That another version of TRL has moved the place shows at the start and in the first batch, whatever its number is:
:func:`check_seam` looks for the methods, and :func:`check_received` compares what the loss gets with what was made.
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
"""What of TRL's trainer ours override, with their parameters."""
EPS = 1e-4
"""TRL's, added to standard deviations."""
ROUNDING = 1e-4
"""Relative width up to which rewards may be equal but for rounding."""
CLOSE = 1e-3
"""Relative difference up to which advantages are TRL's: its versions sum in another order, in single precision."""


@contextmanager
def outermost(trainer: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Within the context, the trainer's method ``name`` is ``around`` of what it is for a caller.

    Set on the object, in front of all classes, because a class in front of ours may return something else than ours.
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
    """Refuse a class in which ``mixin`` stands behind TRL's trainer, which then never calls it.

    Raises:
        ConfigError: with the order that works.
    """
    order = cls.__mro__
    if GRPOTrainer in order and order.index(GRPOTrainer) < order.index(mixin):
        bases = ", ".join(base.__name__ for base in cls.__bases__)
        raise ConfigError(
            f"class {cls.__name__}({bases}) has {mixin.__name__} behind GRPOTrainer, which would never call it and "
            f"train plain GRPO. Put it in front: class {cls.__name__}({mixin.__name__}, …)"
        )


def check_import_order() -> None:
    """Refuse a trainer that was replaced in TRL after rvpo had imported it, as Unsloth does when it is imported.

    Raises:
        ConfigError: with the order that works.
    """
    now = trl.GRPOTrainer
    if now is GRPOTrainer:
        return
    who = "unsloth" if "unsloth" in now.__module__.lower() or "unsloth" in now.__name__.lower() else now.__module__
    raise ConfigError(
        f"trl.GRPOTrainer is {now.__module__}.{now.__name__}, which has replaced TRL's own after rvpo.trl was "
        f"imported, so RVPOTrainer would train past it; expected {who} to be imported first. Put `import {who}` above "
        "all other imports of the script"
    )


def check_seam() -> None:
    """Refuse a TRL whose trainer has not the methods and parameters that ours override.

    Raises:
        EngineError: naming what is gone.
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
    """Refuse a batch that is trained on with other advantages than those that were made for it.

    Args:
        inputs: of TRL's loss.
        made: advantages of this process's completions, as the last class left them.

    Raises:
        EngineError: TRL makes advantages of rewards a second time, or hands them on another way.
    """
    received = inputs.get("advantages") if isinstance(inputs, dict) else None
    if not isinstance(received, Tensor):
        raise _moved("hands its loss a batch without advantages")
    if not bool(torch.isin(received.to(made), made).all()):
        raise _moved(
            "(or a class in front of it) hands the loss other advantages than those that were made of this batch's "
            f"rewards: what changes them has to do so in {GENERATE}, not later"
        )


def _moved(what: str) -> EngineError:
    """Return the error for a TRL that is not the one that is known here."""
    return EngineError(
        f"GRPOTrainer of TRL {trl.__version__} {what}; expected it as in the versions that docs/engines.md names, or "
        "RVPO's advantages would not train. Install one of them: pip install -c constraints.txt -e '.[trl]'"
    )


def check_trainer(trainer: Any, mixin: type) -> None:
    """Refuse a class that does not train as GRPOTrainer does.

    Raises:
        ConfigError: naming the trainer that stands behind ``mixin``.
    """
    check_import_order()
    if isinstance(trainer, GRPOTrainer):
        return
    behind = [base.__name__ for base in type(trainer).__mro__ if base.__name__.endswith("Trainer")]
    behind = [name for name in behind if name not in ("RVPOTrainer", "Trainer", "_BaseTrainer")]
    seen = behind[-1] if behind else "no trainer"
    raise ConfigError(
        f"{mixin.__name__} stands in front of {seen}; expected trl.GRPOTrainer or a subclass of it, the only one that "
        "compares the completions of a prompt by one advantage each. Use rvpo.trl.RVPOTrainer. Other trainers can take "
        "advantages of rvpo.Aggregator"
    )


def check_untouched(trainer: Any, local: Tensor, rewards: Tensor, num_generations: int) -> None:
    """Raise unless the advantages that TRL's side returned are TRL's own for these rewards.

    Args:
        trainer: whose classes are named.
        local: (n,) advantages of this process's completions.
        rewards: (N, M) rewards of all processes, NaN = missing.
        num_generations: G.

    Raises:
        EngineError: another class has made them otherwise.
    """
    start = trainer.accelerator.process_index * local.shape[0]
    part = slice(start, start + local.shape[0])
    expected = _advantages_of_trl(trainer, rewards, num_generations)[part].to(local)
    if local.shape == expected.shape:
        told = _told(trainer, rewards, num_generations)[part].to(local.device)
        difference = (local - expected).abs() * told
        if not bool((difference > CLOSE * expected.abs().clamp(min=1)).any()):
            return
        seen = f"differ by up to {float(difference.max()):.3g}"
    else:
        seen = f"have shape {tuple(local.shape)} instead of {tuple(expected.shape)}"
    names = _behind(trainer)
    who = f"class {names[0]}, which stands behind RVPOMixin," if names else "a function set on GRPOTrainer"
    raise EngineError(
        f"{who} returns other advantages than TRL computes from the rewards (they {seen}), and RVPOMixin would replace "
        f"them. To change rewards, override {REWARDS}. To change RVPO's advantages, do it in front of it: class "
        f"Mine(RVPOTrainer) with a {GENERATE} that calls super() and then changes output['advantages']"
    )


def _behind(trainer: Any) -> list[str]:
    """Return the classes between ours and TRL's trainer that generate, TRL's own last part of the MRO left out."""
    order = type(trainer).__mro__
    mixin = next(i for i, cls in enumerate(order) if cls.__name__ == "RVPOMixin")
    between = order[mixin + 1 : order.index(GRPOTrainer)]
    return [cls.__name__ for cls in between if GENERATE in vars(cls)]


def _advantages_of_trl(trainer: Any, rewards: Tensor, num_generations: int) -> Tensor:
    """Return what TRL's formulas give for rewards (N, M), to tell whether it was they that were used, (N,)."""
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


def _told(trainer: Any, rewards: Tensor, num_generations: int) -> Tensor:
    """Return the rows (N,) bool whose advantages are more than rounding, which TRL magnifies if rewards are equal."""
    weighted = (rewards * trainer.reward_weights.to(rewards)).nan_to_num(nan=0.0)
    if getattr(trainer, "multi_objective_aggregation", SUM) == NORMALISED:
        groups = weighted.view(-1, num_generations, weighted.shape[1])
        wide = groups.amax(1) - groups.amin(1) > ROUNDING * groups.abs().amax(1)
        told: Tensor = wide.all().expand(len(rewards))
        return told  # every row is divided by the deviation of all
    divided_by_group = trainer.scale_rewards == "group"
    shape = (-1, num_generations) if divided_by_group else (1, -1)
    total, size = weighted.sum(1).view(shape), weighted.abs().sum(1).view(shape)
    tells: Tensor = total.amax(1) - total.amin(1) > ROUNDING * size.amax(1)
    return tells.repeat_interleave(total.shape[1])


def _deviation(x: Tensor, dim: int) -> Tensor:
    """Return the sample standard deviation of what is not NaN along ``dim``; 0 for a single value, as in TRL."""
    count = (~x.isnan()).sum(dim, keepdim=True)
    squares = (x - x.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()
