"""What worlds are made of: reward tables, starts, and ways to observe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from policies import LogLinear, StyleItems
from torch import Tensor
from world import Schedule

WITHOUT = [0.75, 0.7, 0.65, 0.6]
"""Rates of the items in replies without the style, where the habits conflict: the style costs items."""
GIVEN = [0.3, 0.3, 0.25, 0.2]
"""Rates of the items in replies with the style, likewise."""
FLAT = [0.6, 0.55, 0.5, 0.45]
"""Rates of the items where nothing conflicts."""
SLOW = (0.01, 0.025, 0.06)
"""Learning rates of worlds with small batches."""

Start = Callable[[int], Tensor]
Observe = Callable[[int, Tensor, Tensor], Tensor]


# Starts


def jitter(theta: Tensor, seed: int) -> Tensor:
    """Add noise of standard deviation .15 to parameters (D,)."""
    return theta + 0.15 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(500 + seed))


def jittered(theta: Tensor) -> Start:
    """Start from these parameters (D,) with some noise per seed."""
    return lambda seed: jitter(theta, seed)


def conflict_start(policy: StyleItems, style: float | Sequence[float]) -> Start:
    """Start with items that are met less often in replies with the style."""
    return jittered(policy.start(style, WITHOUT, GIVEN))


def flat_start(policy: StyleItems, style: float | Sequence[float]) -> Start:
    """Start with items that do not depend on the style."""
    return jittered(policy.start(style, FLAT, FLAT))


def two_styles_start(policy: StyleItems, styles: Sequence[float]) -> Start:
    """Start with items that are met less often with either of two styles."""
    theta = policy.start(styles, WITHOUT, GIVEN)
    theta[policy.effects(1)] = theta[policy.effects(0)]
    return jittered(theta)


# Rewards


def everywhere(columns: Tensor, contexts: int = 4) -> Schedule:
    """Use the rewards (K, M) in every context and step."""
    return always(columns[None].expand(contexts, *columns.shape).contiguous())


def always(table: Tensor) -> Schedule:
    """Use one table, (X, K, M) or one per seed, in every step."""
    return lambda step: table


def columns(*parts: Tensor) -> Tensor:
    """Join columns, each (K,) or (K, m), to (K, M)."""
    return torch.cat([part[:, None] if part.ndim == 1 else part for part in parts], 1).float()


def style_and_items(policy: StyleItems) -> Tensor:
    """Return one column per style and item bit, (K, M)."""
    return torch.cat([policy.style, policy.item], 1)


def budget(parts: int = 10) -> Tensor:
    """Return all ways to split a budget in three shares, (K, 3)."""
    ways = [(a, b, parts - a - b) for a in range(parts + 1) for b in range(parts + 1 - a)]
    return torch.tensor(ways).float() / parts


def budget_policy(contexts: int = 4) -> LogLinear:
    """Return a policy over the ways to split a budget of ten."""
    x = budget()[:, :2] * 4
    return LogLinear(torch.cat([x, x**2 / 4, x[:, :1] * x[:, 1:] / 2], 1), contexts)


def budget_start(seed: int) -> Tensor:
    """Start with most of the budget in the first share."""
    theta = torch.zeros(5 * 5)
    theta[0] = 1.2
    return jitter(theta, seed)


def random_tables(kind: str, contexts: int = 8, replies: int = 32, channels: int = 6) -> Tensor:
    """Return random rewards of 64 worlds, (64, X, K, M), with channels from easy to hard.

    Args:
        kind: "conflict" makes channels exclude each other, "aligned" makes them agree, "graded" is a conflict of graded
            rewards; the others are binary.
        contexts: X.
        replies: K.
        channels: M.
    """
    difficulty = torch.linspace(-0.8, 0.9, channels)

    def one(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(9000 + seed)
        normal = torch.randn(contexts, replies, channels, generator=generator)
        if kind == "aligned":
            normal = normal + torch.randn(contexts, replies, 1, generator=generator)
        else:
            normal = normal - 0.9 * normal.mean(-1, keepdim=True)
        if kind == "graded":
            return torch.sigmoid(1.5 * (normal - difficulty))
        return (normal > difficulty).float()

    return torch.stack([one(seed) for seed in range(64)])


# Observations


def sampled(step: int, mean: Tensor, uniform: Tensor) -> Tensor:
    """Observe 0 or 1 with the expected reward as probability."""
    return (uniform < mean).to(mean)


def standard_normal(uniform: Tensor) -> Tensor:
    """Turn uniforms into normal deviates."""
    return torch.erfinv((2 * uniform - 1).clamp(-0.9999, 0.9999)) * 2**0.5


def noisy(deviation: Sequence[float] | float) -> Observe:
    """Add normal noise of these standard deviations and clip to [0, 1]."""
    scale = torch.as_tensor(deviation)
    return lambda step, mean, uniform: (mean + scale * standard_normal(uniform)).clamp(0, 1)


def broken(broken_columns: Sequence[int], highest: float = 0.3) -> Observe:
    """Replace some columns by uniform noise in [0, highest]: judges that read low and mean nothing."""
    chosen = list(broken_columns)

    def observe(step: int, mean: Tensor, uniform: Tensor) -> Tensor:
        seen = mean.clone()
        seen[..., chosen] = uniform[..., chosen] * highest
        return seen

    return observe


def broken_binary(broken_columns: Sequence[int], rate: float) -> Observe:
    """Replace some columns by coin flips."""
    chosen = list(broken_columns)

    def observe(step: int, mean: Tensor, uniform: Tensor) -> Tensor:
        seen = mean.clone()
        seen[..., chosen] = (uniform[..., chosen] < rate).to(mean)
        return seen

    return observe


def flipped(rate: float) -> Observe:
    """Observe binary rewards wrongly at this rate."""
    return lambda step, mean, uniform: torch.where(uniform < rate, 1 - mean, mean)
