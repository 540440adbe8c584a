"""Policy gradient on a world, for all learning rates and seeds of one rule at once, and the oracles.

A run is a learning rate and a seed. Contexts, uniforms for sampling and uniforms for noise depend on the seed and the
step only, so all rules are compared on common random numbers. R is the number of runs, learning rates times seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from world import World

Step = Callable[[Tensor, Tensor, int, int], Tensor]
"""rewards (R, N, M) with NaN = absent, contexts (R, N), step, steps -> advantages (R, N)."""

KAPPAS = (6.0, 30.0)
"""Sharpness of the soft minima that two of the oracles ascend."""
ORACLES = (*(f"soft minimum, {kappa:g}" for kappa in KAPPAS), "tilt")
TABLES = 64  # of a world with a table per seed


@dataclass(frozen=True)
class Curves:
    """What was measured.

    Attributes:
        shares: (L, S, steps + 1, C) true attained shares in expectation, L learning rates and S seeds.
        entropy: (L, S) of the final policy, in nats per reply.
        divergence: (L, S) of the final policy from the first, KL in nats per reply.
    """

    shares: Tensor
    entropy: Tensor
    divergence: Tensor


class Adam:
    """Adam on theta (R, D) with a learning rate (R,) and a gradient norm clipped to 1 in each run."""

    def __init__(self, theta: Tensor, rates: Tensor) -> None:
        self.theta, self.rates = theta, rates[:, None]
        self.mean, self.square, self.steps = torch.zeros_like(theta), torch.zeros_like(theta), 0

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Descend along ``gradient`` (R, D)."""
        gradient = gradient * (1.0 / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        self.steps += 1
        self.mean.lerp_(gradient, 0.1)
        self.square.lerp_(gradient * gradient, 0.01)
        root = (self.square / (1 - 0.99**self.steps)).sqrt() + 1e-8
        self.theta -= self.rates * (self.mean / (1 - 0.9**self.steps)) / root


def train(
    world: World, step_of: Step, seeds: Sequence[int], rates: Sequence[float] | None = None, steps: int | None = None
) -> Curves:
    """Train one rule.

    Args:
        world: the world.
        step_of: advantages of all runs, see :data:`Step`.
        seeds: seeds of the runs.
        rates: learning rates; the world's own by default.
        steps: updates; the world's own by default.
    """
    rates, steps = rates or world.rates, steps or world.steps
    draws = _draws(world, seeds, len(rates), steps)
    replies = world.policy.replies
    seed_of = _tables_of(seeds, len(rates))

    def loss(step: int, log_probs: Tensor) -> Tensor:
        contexts, uniforms, noise = next(draws)
        cumulated = log_probs.detach().exp().cumsum(-1)
        cumulated = (cumulated / cumulated[..., -1:]).gather(1, contexts[..., None].expand(-1, -1, replies))
        chosen = torch.searchsorted(cumulated, uniforms).clamp(max=replies - 1).flatten(1)  # (R, N)
        rows = contexts.repeat_interleave(world.group, 1)
        table = world.rewards(step)
        mean = table[seed_of[:, None], rows, chosen] if table.ndim == 4 else table[rows, chosen]
        observed = world.hide_absent(world.observe(step, mean, noise), rows)
        with torch.no_grad():
            advantages = step_of(observed, rows, step, steps)
        log_prob = log_probs.flatten(1).gather(1, rows * replies + chosen)
        return -(advantages * log_prob).mean(1).sum()

    return _descend(world, loss, seeds, rates, steps, 1)[0]


def train_oracles(
    world: World, seeds: Sequence[int], rates: Sequence[float] | None = None, steps: int | None = None
) -> dict[str, Curves]:
    """Train the oracles, which know the exact gradients of the true attained shares of the counted channels."""
    rates, steps = rates or world.rates, steps or world.steps
    runs = len(rates) * len(seeds)
    tables = _tables_of(seeds, len(rates))
    counted = world.counts

    def loss(step: int, log_probs: Tensor) -> Tensor:
        draw_weights = world.draw_weights(step)
        table = world.true_shares(step)
        table = table[tables] if table.ndim == 4 else table
        total = torch.zeros(())
        for kappa, part in zip(KAPPAS, torch.split(log_probs, runs), strict=False):
            shares = world.expected(part.exp(), table, draw_weights)[:, counted]
            total = total + (torch.logsumexp(-kappa * shares, 1) / kappa).sum()
        part = log_probs[-runs:]
        return total - _tilt(world, part, table, draw_weights)

    return dict(zip(ORACLES, _descend(world, loss, seeds, rates, steps, len(ORACLES)), strict=True))


def _tilt(world: World, log_probs: Tensor, table: Tensor, draw_weights: Tensor) -> Tensor:
    """Return what the third oracle ascends: the policy tilted by z-scores over the population, weighed to the worst."""
    p = log_probs.detach().exp()
    worst = torch.zeros(len(p), world.channels)
    shares = world.expected(p, table, draw_weights)[:, world.counts]
    worst[:, world.counts] = torch.softmax(-KAPPAS[-1] * shares, 1)
    if world.label is None or world.applies is None:
        weights = worst[:, None, None]  # (R, 1, 1, M)
    else:
        weights = (worst[:, world.label] * world.applies)[:, :, None]  # (R, X, 1, M)
    mean = (p[..., None] * table).sum(2, keepdim=True)
    spread = (p[..., None] * (table - mean) ** 2).sum(2, keepdim=True).sqrt() + 1e-3
    advantages = ((table - mean) / spread * weights).sum(-1)  # (R, X, K)
    size = (p * advantages * advantages).mean(1, keepdim=True).sum(2, keepdim=True).sqrt() + 1e-9
    return (draw_weights[None, :, None] * p * advantages / size * log_probs).sum()


def _descend(
    world: World,
    loss: Callable[[int, Tensor], Tensor],
    seeds: Sequence[int],
    rates: Sequence[float],
    steps: int,
    copies: int,
) -> list[Curves]:
    """Descend a loss of log-probabilities (copies * R, X, K), and measure each copy."""
    size, count = (len(rates), len(seeds)), len(rates) * len(seeds)
    start = torch.stack([world.start(seed) for seed in seeds])
    theta = start[None, None].expand(copies, len(rates), -1, -1).reshape(copies * count, -1).clone().requires_grad_()
    rate = torch.tensor(rates)[None, :, None].expand(copies, *size).reshape(-1)
    tables = _tables_of(seeds, len(rates)).repeat(copies)
    optimizer, curve = Adam(theta, rate), []
    first = None
    for step in range(steps + 1):
        now = min(step, steps - 1)
        log_probs = world.policy(theta)
        probabilities = log_probs.detach().exp()
        first = log_probs.detach() if first is None else first
        truth = world.true_shares(now)
        truth = truth[tables] if truth.ndim == 4 else truth
        curve.append(world.expected(probabilities, truth, world.draw_weights(now)))
        if step < steps:
            (gradient,) = torch.autograd.grad(loss(step, log_probs), theta)
            optimizer.step(gradient)
    assert first is not None
    last, weights = log_probs.detach(), world.draw_weights(steps - 1)
    entropy = -((probabilities * last.clamp(min=-60)).sum(-1) * weights).sum(1).view(copies, *size)
    divergence = ((probabilities * (last - first)).sum(-1) * weights).sum(1).view(copies, *size)
    shares = torch.stack(curve, 1).view(copies, *size, steps + 1, -1)
    return [Curves(shares[i], entropy[i], divergence[i]) for i in range(copies)]


def _draws(world: World, seeds: Sequence[int], rates: int, steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield contexts (R, P), uniforms (R, P, G) for sampling and uniforms (R, N, M) for noise, step by step."""
    generators = [torch.Generator().manual_seed(10_000 + seed) for seed in seeds]
    p, g, n, m = world.prompts, world.group, world.batch, world.columns
    for step in range(steps):
        weights = world.draw_weights(step)
        drawn = [torch.stack([torch.multinomial(weights, p, replacement=True, generator=gen) for gen in generators])]
        drawn.append(torch.stack([torch.rand(p, g, generator=gen) for gen in generators]))
        drawn.append(torch.stack([torch.rand(n, m, generator=gen) for gen in generators]))
        contexts, uniforms, noise = (x.repeat(rates, *[1] * (x.ndim - 1)) for x in drawn)
        yield contexts, uniforms, noise


def _tables_of(seeds: Sequence[int], rates: int) -> Tensor:
    """Return which table (R,) a run has in a world with a table per seed."""
    return torch.tensor([seed % TABLES for seed in seeds]).repeat(rates)
