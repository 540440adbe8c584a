"""What a world is: a policy whose replies can be listed, rewards, and how the rewards are observed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from policies import Policy
from torch import Tensor

Pairs = list[tuple[float, float] | None]
Schedule = Callable[[int], Tensor]
"""step -> (X, K, M), or (64, X, K, M) for a world of its own per seed (the seed modulo 64)."""


def exact(step: int, mean: Tensor, uniform: Tensor) -> Tensor:
    """Observe the expected reward without noise."""
    return mean


@dataclass(frozen=True)
class World:
    """One world.

    A channel is a column of the rewards; in a ragged rubric (``label``) it is a label, to which several columns of a
    context can belong. There are C channels.

    Attributes:
        name: unique name.
        kind: what is studied; see the table.
        split: "given" (the 17 of the first study), "design" or "confirm" (to be looked at only when a rule is fixed).
        policy: the policy.
        rewards: expected rewards of M columns by step, see :data:`Schedule`.
        start: seed -> parameters (D,).
        columns: M.
        note: one sentence for people.
        observe: (step, mean (R, N, M), uniform (R, N, M)) -> observed rewards (R, N, M).
        truth: attained shares in [0, 1] in truth, by step, where they differ from ``rewards``.
        ranges: declared (lowest, highest) per channel, None for [0, 1]; or None for all.
        counted: channels that count in the verdict; None for all.
        hard: channels that a user would know to be hard; some baselines are given them.
        weights: the user's weights of the C channels; None for 1 each.
        prompts: P, groups per batch.
        group: G, completions per group.
        steps: updates of a run.
        rates: learning rates.
        context_weights: step -> (X,) weights by which contexts are drawn; None for equal ones.
        applies: (X, M) bool, which columns exist in a context; None for all.
        label: (X, M) int64, the channel of a column in each context; None where columns are channels.
        labels: C, where ``label`` is given.
    """

    name: str
    kind: str
    split: str
    policy: Policy
    rewards: Schedule
    start: Callable[[int], Tensor]
    columns: int
    note: str
    observe: Callable[[int, Tensor, Tensor], Tensor] = exact
    truth: Schedule | None = None
    ranges: Pairs | None = None
    counted: list[int] | None = None
    hard: list[int] = field(default_factory=lambda: [0])
    weights: list[float] | None = None
    prompts: int = 8
    group: int = 8
    steps: int = 80
    rates: tuple[float, ...] = (0.02, 0.05, 0.12)
    context_weights: Callable[[int], Tensor] | None = None
    applies: Tensor | None = None
    label: Tensor | None = None
    labels: int = 0

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return self.labels or self.columns

    @property
    def batch(self) -> int:
        """N, completions per batch."""
        return self.prompts * self.group

    @property
    def counts(self) -> list[int]:
        """Channels that count in the verdict."""
        return list(range(self.channels)) if self.counted is None else self.counted

    def true_shares(self, step: int) -> Tensor:
        """Return the attained shares in truth, (X, K, M) or (64, X, K, M)."""
        return (self.truth or self.rewards)(step)

    def draw_weights(self, step: int) -> Tensor:
        """Return the probability (X,) of each context."""
        w = torch.ones(self.policy.contexts) if self.context_weights is None else self.context_weights(step)
        return w / w.sum()

    def cell_weights(self, contexts: Tensor) -> Tensor:
        """Return the user's weight of every cell, (M,) or, with labels, (N, M) for contexts (N,)."""
        w = torch.ones(self.channels) if self.weights is None else torch.tensor(self.weights)
        return w if self.label is None else w[self.label[contexts]]

    def attained(self, rewards: Tensor, contexts: Tensor) -> Tensor:
        """Scale observed rewards (N, M) to [0, 1] by the declared ranges; NaN where a column does not exist."""
        limits = torch.tensor([(0.0, 1.0) if pair is None else pair for pair in self.ranges or [None] * self.channels])
        low, high = (limits if self.label is None else limits[self.label[contexts]]).unbind(-1)
        return ((rewards - low) / (high - low)).clamp(0, 1)

    def expected(self, probabilities: Tensor, table: Tensor, draw_weights: Tensor) -> Tensor:
        """Return the expectation (R, C) of every channel.

        Args:
            probabilities: (R, X, K).
            table: (X, K, M), or (R, X, K, M) for a table per run.
            draw_weights: (X,) probability of each context.
        """
        letters = "rxkm" if table.ndim == 4 else "xkm"
        means = torch.einsum(f"rxk,{letters}->rxm", probabilities, table)
        if self.label is None or self.applies is None:
            return (means * draw_weights[None, :, None]).sum(1)
        share = self.applies.to(means) * draw_weights[:, None]
        belongs = torch.nn.functional.one_hot(self.label, self.labels).to(means) * share[..., None]
        return torch.einsum("rxm,xmc->rc", means, belongs) / belongs.sum((0, 1)).clamp(min=1e-9)

    def hide_absent(self, rewards: Tensor, contexts: Tensor) -> Tensor:
        """Set rewards (R, N, M) to NaN where the column does not exist in the context (R, N)."""
        return rewards if self.applies is None else rewards.masked_fill(~self.applies[contexts], math.nan)
