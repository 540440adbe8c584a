"""Warm start by supervised steps, then policy gradient, for all runs of a cell at once.

A run is a rule, a learning rate and a seed. Its prompts, its uniforms for sampling and the flips of its noise depend on
the seed and the step only: rules are compared on common random numbers, whatever else is stacked beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from cells import ROLLOUTS, Cell
from policy import Policy
from safetensors.torch import load_file, save_file
from task import EOS, PROMPT, TOPICS, VOCABULARY, Task, reply_mask
from torch import Tensor

Rule = Callable[[Tensor, int, int], Tensor]
"""rewards (N, M), step, steps -> advantages (N,); (R, N, M) -> (R, N) if the factory has ``batched = True``."""
Factory = Callable[[], Rule]
"""If it has ``judges_twice = True``, its rules also take ``again``: the rewards (N, M) as a second judgement sees them."""

POOL = 4096  # demonstrations of a warm start
EVALUATION = 256  # fresh prompts


class Adam:
    """Adam on theta (R, D) with a learning rate (R,) and a clipped gradient norm for every run of its own."""

    def __init__(self, theta: Tensor, lr: Tensor, betas: tuple[float, float] = (0.9, 0.99), clip: float = 1.0) -> None:
        self.theta, self.lr, self.betas, self.clip = theta, lr[:, None], betas, clip
        self.mean, self.square, self.steps = torch.zeros_like(theta), torch.zeros_like(theta), 0

    @torch.no_grad()
    def step(self, gradient: Tensor, scale: float = 1.0) -> None:
        """Descend along ``gradient`` (R, D), at ``scale`` times the learning rates."""
        gradient = gradient * (self.clip / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        self.steps += 1
        b1, b2 = self.betas
        self.mean.lerp_(gradient, 1 - b1)
        self.square.lerp_(gradient.square(), 1 - b2)
        root = (self.square / (1 - b2**self.steps)).sqrt_().add_(1e-8)
        self.theta -= scale * self.lr / (1 - b1**self.steps) * self.mean / root


def policy_of(cell: Cell) -> Policy:
    """Return the model of a cell."""
    return Policy(VOCABULARY, PROMPT + Task(cell).length)


def warm_start(cell: Cell, seeds: Sequence[int], folder: Path, steps: int = 300, lr: float = 1e-2) -> Tensor:
    """Return parameters (len(seeds), D) that imitate the cell's demonstrations, one file a seed kept in ``folder``."""
    paths = {seed: folder / f"{cell.habits}-{seed}.safetensors" for seed in seeds}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        for seed, theta in zip(missing, _imitate(cell, missing, steps, lr), strict=True):
            save_file({"theta": theta.clone()}, paths[seed])
    return torch.stack([load_file(path)["theta"] for path in paths.values()])


def _imitate(cell: Cell, seeds: Sequence[int], steps: int, lr: float, batch: int = 64) -> Tensor:
    task, policy = Task(cell), policy_of(cell)
    theta = torch.stack([policy.init(seed) for seed in seeds]).requires_grad_()
    optimizer = Adam(theta, torch.full((len(seeds),), lr))
    pools = [task.demonstrations(POOL, seed) for seed in seeds]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    order: list[Tensor] = []
    for step in range(steps):
        if not order:  # an epoch: every demonstration once
            shuffled = torch.stack([torch.randperm(POOL, generator=generator) for generator in generators])
            order = list(shuffled.split(batch, 1))
        rows = order.pop()
        topics = torch.stack([pool[0][row] for pool, row in zip(pools, rows, strict=True)])
        replies = torch.stack([pool[1][row] for pool, row in zip(pools, rows, strict=True)])
        log_probs = policy.log_probs(theta, task.prompt(topics), replies)
        loss = token_mean(-chosen(log_probs, replies), replies).sum()
        (gradient,) = torch.autograd.grad(loss, theta)
        optimizer.step(gradient, min(1.0, (step + 1) / 20) * (1 - step / steps))
    return theta.detach()


def reinforce(
    cell: Cell,
    params: Tensor,
    rules: Mapping[str, Factory],
    lrs: Sequence[float],
    seeds: Sequence[int],
    steps: int = 60,
    chunk: int = 32,
) -> list[dict[str, Any]]:
    """Train every rule x learning rate x seed and return one record a run.

    Args:
        cell: the regime.
        params: (len(seeds), D) warm-started parameters, a row a seed.
        rules: factories by name; each run gets a rule of its own, as it may keep state. See :data:`Rule`.
        lrs: learning rates.
        seeds: seeds of the runs.
        steps: updates of a run.
        chunk: runs that are stacked, which bounds memory and does not change a run.

    Returns:
        Records with ``cell``, ``rule``, ``lr``, ``seed``; true channel rates ``curve`` (steps, M) of the training
        batches, ``before`` (M,) and ``final`` (M,) on 256 fresh prompts; ``entropy_before`` and ``entropy`` in nats a
        token, ``length`` of the final replies in tokens without <eos>.
    """
    before = dict(zip(seeds, _evaluate(cell, params, seeds), strict=True))
    start = dict(zip(seeds, params, strict=True))
    runs = list(product(rules, lrs, seeds))
    records = []
    for first in range(0, len(runs), chunk):
        part = runs[first : first + chunk]
        theta = torch.stack([start[seed] for _, _, seed in part])
        curve = _train(cell, theta, rules, part, steps)
        after = _evaluate(cell, theta.detach(), [seed for _, _, seed in part])
        for i, (rule, lr, seed) in enumerate(part):
            records.append(
                {
                    "cell": cell.name,
                    "rule": rule,
                    "lr": lr,
                    "seed": seed,
                    "before": before[seed]["rates"],
                    "final": after[i]["rates"],
                    "entropy_before": before[seed]["entropy"],
                    "entropy": after[i]["entropy"],
                    "length": after[i]["length"],
                    "curve": [[round(rate, 4) for rate in rates] for rates in curve[:, i].tolist()],
                }
            )
    return records


def _train(
    cell: Cell, theta: Tensor, rules: Mapping[str, Factory], runs: Sequence[tuple[str, float, int]], steps: int
) -> Tensor:
    """Train theta (R, D) in place and return the true rates (steps, R, M)."""
    task, policy = Task(cell), policy_of(cell)
    optimizer = Adam(theta.requires_grad_(), torch.tensor([lr for _, lr, _ in runs]))
    advantages_of = list(_instances(rules, [rule for rule, _, _ in runs]))
    # A generator of its own: the other draws are the same with and without a second judgement.
    second = torch.Generator().manual_seed(2_000_000)
    draws = _draws(task, [seed for _, _, seed in runs], cell.prompts, cell.generations)
    curve = []
    for step in range(steps):
        topics, uniforms, flips = next(draws)
        prompts = task.prompt(topics)
        replies = policy.sample(theta, prompts, uniforms)
        rewards = task.rewards(topics, replies)
        curve.append(rewards.mean(1))
        observed, again = rewards.clone(), rewards.clone()
        observed[..., 0] = (rewards[..., 0] - (flips < cell.noise).float()).abs()
        if cell.noise:
            flipped = torch.rand(flips.shape, generator=second) < cell.noise
            again[..., 0] = (rewards[..., 0] - flipped.float()).abs()
        with torch.no_grad():
            advantages = torch.cat([rule(observed[rows], step, steps, again[rows]) for rows, rule in advantages_of])
        log_probs = chosen(policy.log_probs(theta, prompts, replies), replies)
        # One update a batch: the ratio to the sampling policy is 1, and clipping it has no effect.
        loss = token_mean(-advantages[..., None] * log_probs, replies).sum()
        (gradient,) = torch.autograd.grad(loss, theta)
        optimizer.step(gradient)
    return torch.stack(curve)


def _instances(rules: Mapping[str, Factory], names: Sequence[str]) -> Iterator[tuple[slice, Callable[..., Tensor]]]:
    """Yield slices of the runs and, for each, a rule (R, N, M) -> (R, N) that takes a second judgement as well."""
    i = 0
    while i < len(names):
        factory = rules[names[i]]
        batched = getattr(factory, "batched", False)
        count = names.count(names[i]) if batched else 1
        rule = factory()
        yield slice(i, i + count), _adapted(rule, batched, getattr(factory, "judges_twice", False))
        i += count


def _adapted(rule: Callable[..., Tensor], batched: bool, twice: bool) -> Callable[..., Tensor]:
    def adapted(rewards: Tensor, step: int, steps: int, again: Tensor) -> Tensor:
        judged = (rewards, again) if batched else (rewards[0], again[0])
        given = {"again": judged[1]} if twice else {}
        advantages = rule(judged[0], step, steps, **given)
        return advantages if batched else advantages[None]

    return adapted


def _draws(task: Task, seeds: Sequence[int], prompts: int, generations: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield topics (R, N), uniforms (R, N, T) and uniforms (R, N) for noise, from a generator for every seed."""
    rows = torch.tensor([sorted(set(seeds)).index(seed) for seed in seeds])
    generators = [torch.Generator().manual_seed(seed) for seed in sorted(set(seeds))]
    size = prompts * generations
    while True:
        topics = torch.stack([torch.randint(TOPICS, (prompts,), generator=g) for g in generators])
        uniforms = torch.stack([torch.rand(size, task.length, generator=g) for g in generators])
        flips = torch.stack([torch.rand(size, generator=g) for g in generators])
        yield topics.repeat_interleave(generations, 1)[rows], uniforms[rows], flips[rows]


@torch.no_grad()
def _evaluate(cell: Cell, theta: Tensor, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the true rates, the entropy and the length of theta (R, D) on fresh prompts."""
    task, policy = Task(cell), policy_of(cell)
    fresh = [seed + 1_000_000 for seed in seeds]
    draws = _draws(task, fresh, ROLLOUTS, 1)
    rates, entropies, lengths = [], [], []
    for _ in range(EVALUATION // ROLLOUTS):
        topics, uniforms, _ = next(draws)
        prompts = task.prompt(topics)
        replies = policy.sample(theta, prompts, uniforms)
        rates.append(task.rewards(topics, replies).mean(1))
        log_probs = policy.log_probs(theta, prompts, replies)
        entropies.append(token_mean(-(log_probs.exp() * log_probs).sum(-1), replies))
        lengths.append((reply_mask(replies) & (replies != EOS)).sum(-1).float().mean(1))
    means = [torch.stack(x).mean(0).tolist() for x in (rates, entropies, lengths)]
    return [{"rates": r, "entropy": e, "length": n} for r, e, n in zip(*means, strict=True)]


def chosen(log_probs: Tensor, replies: Tensor) -> Tensor:
    """Return the log-probability (R, B, T) of every token of replies, from log_probs (R, B, T, V)."""
    return log_probs.gather(-1, replies[..., None])[..., 0]


def token_mean(values: Tensor, replies: Tensor) -> Tensor:
    """Average values (R, B, T) over each run's tokens up to <eos>: (R,)."""
    mask = reply_mask(replies)
    return (values * mask).sum((1, 2)) / mask.sum((1, 2))
