"""The rules that the worlds compare, by their method texts, and rules of your own.

A rule of your own is a factory ``make(world) -> f``, called once per run, where ``f(rewards, contexts)`` takes observed
rewards (N, M), NaN = absent, and context ids (N,), and returns advantages (N,). A function with a parameter ``step`` or
``steps`` is given these as well. With ``make.batched = True``, one ``f`` serves all runs: it takes (R, N, M) and (R, N)
and returns (R, N). A rule finds group size, ranges, weights and labels in the world.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from train import Step
from world import World

from rvpo.core import AdvantageConfig, Channels, compute
from rvpo.core.groups import Groups
from rvpo.core.methods.registry import build_method
from rvpo.core.normalize import group_zscore

Factory = Callable[[World], Callable[..., Tensor]]


@dataclass(frozen=True)
class Spec:
    """A method and what is done around it.

    Attributes:
        method: text, in which ``{hard}`` stands for the thresholds .9 of the channels known to be hard.
        hard_weight: the user's weight of the channels known to be hard is multiplied by this.
        product: the product of all channels' attained shares is the only channel.
    """

    method: str
    hard_weight: float = 1.0
    product: bool = False

    def text(self, world: World) -> str:
        """Return the method's text in a world."""
        return self.method.replace("{hard}", "{" + ",".join(f"{j}:0.9" for j in world.hard) + "}")


RULES: Mapping[str, Spec] = {
    "GRPO": Spec("grpo"),
    "GDPO": Spec("gdpo"),
    "GDPO, weight 3": Spec("gdpo", hard_weight=3.0),
    "RVPO k=1": Spec("rvpo:k=1"),
    "RVPO k=0.5 to 2": Spec("rvpo:k=linear(0.5,2)"),
    "RVPO adaptive k": Spec("rvpo:k=adaptive"),
    "product": Spec("grpo", product=True),
    "Tchebycheff": Spec("tchebycheff"),
    "smooth Tchebycheff": Spec("smooth_tchebycheff"),
    "Lagrangian 0.9": Spec("lagrangian:thresholds={hard}"),
    "CTWA": Spec("ctwa"),
    "LIFT of before": Spec("lift_z"),
    "LIFT": Spec("lift"),
}
"""Rules by a name for people."""


def step_of(rule: str | Spec | Factory, world: World, runs: int) -> Step:
    """Return the advantages of all runs of a rule.

    Args:
        rule: a name of :data:`RULES`, a method as text, a :class:`Spec`, or a factory of your own.
        world: the world.
        runs: R.
    """
    if isinstance(rule, str):
        rule = RULES.get(rule) or Spec(rule)
    if isinstance(rule, Spec):
        config = AdvantageConfig(build_method(rule.text(world)))
        return _carried(rule, config, world, runs) if config.method.remembers else _stacked(rule, config, world)
    return _own(rule, world, runs)


def channels_of(world: World, contexts: Tensor) -> Channels:
    """Return the named channels, "0", "1", …, of the rows with these contexts (N,)."""
    names = [str(j) for j in range(world.channels)]
    if world.label is None:
        return Channels.columns(names, world.ranges)
    return Channels(tuple(names), world.label[contexts], tuple(world.ranges or [None] * len(names)))


def _inputs(spec: Spec, world: World, rewards: Tensor, contexts: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Return what a method is given of rewards (N, M) and contexts (N,): rewards, and arguments of ``compute``."""
    applies = None if world.applies is None else world.applies[contexts]
    if spec.product:
        attained = world.attained(rewards, contexts)
        return attained.nan_to_num(nan=1.0).prod(-1, keepdim=True), {"num_generations": world.group}
    weights = world.cell_weights(contexts)
    if spec.hard_weight != 1:
        factor = torch.ones(world.channels)
        factor[world.hard] = spec.hard_weight
        weights = weights * (factor if world.label is None else factor[world.label[contexts]])
    given = {"weights": weights, "applies": applies, "channels": channels_of(world, contexts)}
    return rewards, {"num_generations": world.group, **given}


def _carried(spec: Spec, config: AdvantageConfig, world: World, runs: int) -> Step:
    """One call per run, which carries the method's state."""
    states: list[Any] = [{} for _ in range(runs)]

    def advance(rewards: Tensor, contexts: Tensor, step: int, steps: int) -> Tensor:
        advantages = []
        for i in range(runs):
            values, given = _inputs(spec, world, rewards[i], contexts[i])
            result = compute(values, config, state=states[i], progress=step / max(steps - 1, 1), **given)
            states[i] = result.state
            advantages.append(result.advantages)
        return torch.stack(advantages)

    return advance


def _stacked(spec: Spec, config: AdvantageConfig, world: World) -> Step:
    """All runs in one call. Groups lie within runs, so only the whitening is done again for each run."""

    def advance(rewards: Tensor, contexts: Tensor, step: int, steps: int) -> Tensor:
        runs, size = contexts.shape
        values, given = _inputs(spec, world, rewards.flatten(0, 1), contexts.flatten())
        # In float64, as the method sees it: whether a batch has a signal at all is decided by the last digits.
        result = compute(values.double(), config, progress=step / max(steps - 1, 1), **given)
        if config.whiten == "none":
            return result.advantages.to(rewards.dtype).view(runs, size)
        aggregated = result.aggregated
        if not config.method.sums_weights:  # eps is per unit of weight, for each run
            weights = torch.as_tensor(given.get("weights", torch.ones(1))).double().expand(values.shape)
            total = ((weights * (~result.missing & result.applies)).sum(-1) * result.takes_part).view(runs, size)
            mean = total.sum(1) / result.takes_part.view(runs, size).sum(1).clamp(min=1)
            aggregated = aggregated * mean.masked_fill(mean == 0, 1.0).repeat_interleave(size)
        counted = aggregated.masked_fill(~result.takes_part, torch.nan)[:, None]
        blocks = Groups.of(len(values), None, size if config.whiten == "batch" else world.group, values.device)
        z = group_zscore(counted, blocks, eps=config.eps, ddof=config.ddof, rtol=config.rtol).z
        return z.nan_to_num(nan=0.0).to(rewards.dtype).view(runs, size)

    return advance


def _own(make: Factory, world: World, runs: int) -> Step:
    """Rules of your own: one per run, or one for all."""
    batched = getattr(make, "batched", False)
    rules = [make(world) for _ in range(1 if batched else runs)]
    known = inspect.signature(rules[0]).parameters

    def advance(rewards: Tensor, contexts: Tensor, step: int, steps: int) -> Tensor:
        extra = {name: value for name, value in (("step", step), ("steps", steps)) if name in known}
        if batched:
            return rules[0](rewards, contexts, **extra).to(rewards.dtype)
        parts = [rule(rewards[i], contexts[i], **extra) for i, rule in enumerate(rules)]
        return torch.stack(parts).to(rewards.dtype)

    return advance
