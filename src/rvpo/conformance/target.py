"""What is checked: a batch, the answer of the function, and the function as a callable target.

Dimensions: N completions (rows), M channels (rewards), T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

TRAITS: Mapping[str, str] = {
    "levels": "reads the level of rewards on a declared scale, not only the differences within a group",
    "shared-weights": "weights the channels by statistics of all groups of the batch",
    "bundles": "scores completions of several groups together, by their place in the group",
    "spread-penalty": "subtracts the spread over channels, so that a better reward can lower the value",
    "filters": "leaves out completions on which the channels disagree",
    "adapts": "sets its risk coefficient by the whole batch",
    "missing-as-0": "counts a missing reward as 0, as TRL's sum of rewards does",
    "ordered": "takes the channels in the order in which they are listed, as a lexicographic rule does",
    "complete-only": "takes complete rewards only, and refuses missing ones",
}
"""What a function can declare about itself. A property that cannot hold for such a rule is then not applicable."""

STYLES = ("completions", "tokens", "method", "auto")
CHANNELS = ("many", "one", "auto")


class NotHereError(Exception):
    """The property does not apply to this batch or to this function. The message is the reason."""


class CallError(Exception):
    """The function under test raised, or returned something that is not an advantage. The message says which."""


@dataclass(frozen=True)
class Example:
    """A batch.

    Attributes:
        rewards: (N, M) floating point, NaN = missing.
        groups: (N,) int64 ids.
        lengths: (N,) int64, number of response tokens, at least 1. Only functions called by tokens see them.
        pad: number of padding columns after the longest response.
        k: risk coefficient of the call; None takes the function's own default.
    """

    rewards: Tensor
    groups: Tensor
    lengths: Tensor
    pad: int = 0
    k: float | None = None

    def rows(self, index: Tensor) -> Example:
        """Return the rows ``index`` (indices, or a mask) in that order."""
        return replace(self, rewards=self.rewards[index], groups=self.groups[index], lengths=self.lengths[index])

    def scored(self, rewards: Tensor) -> Example:
        """Return the same batch with other rewards."""
        return replace(self, rewards=rewards)

    def members(self) -> list[Tensor]:
        """Return the rows of each group as indices, groups by first appearance."""
        ids = list(dict.fromkeys(self.groups.tolist()))
        return [(self.groups == i).nonzero()[:, 0] for i in ids]

    @property
    def complete(self) -> bool:
        """Whether all rewards are present."""
        return not bool(self.rewards.isnan().any())


@dataclass(frozen=True)
class Answer:
    """What the function returned.

    Attributes:
        advantages: (N,) float64 on the CPU.
        dtype: dtype of the returned advantages.
        aggregated: (N,) float64, the rule's value before whitening, if the function returns it.
        modified: names of the arguments that the function changed in place.
        varies: whether the advantage differs between the response tokens of a completion.
    """

    advantages: Tensor
    dtype: torch.dtype
    aggregated: Tensor | None = None
    modified: tuple[str, ...] = ()
    varies: bool = False


@dataclass(frozen=True)
class Spec:
    """How another process builds the same target: plain data.

    Attributes:
        name: the name as the user wrote it, such as ``verl:gdpo``.
        style: see ``STYLES``.
        options: keyword arguments for the function.
        k_name: name of the option with the risk coefficient; None without one.
        channels: see ``CHANNELS``.
        traits: see ``TRAITS``.
    """

    name: str
    style: str = "completions"
    options: Mapping[str, Any] = field(default_factory=dict)
    k_name: str | None = None
    channels: str = "auto"
    traits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """A function under test.

    Attributes:
        name: the name as the user wrote it.
        answer: function that calls it on a batch. It raises :class:`CallError`.
        by_tokens: whether it sees response tokens.
        has_k: whether ``Example.k`` reaches it.
        one_channel: whether it takes one reward per completion.
        blocks: whether groups must have equal sizes and consecutive rows.
        gathers: whether it takes only the rows of its own process and gathers the others itself.
        traits: see ``TRAITS``.
        spec: how another process builds it; None if it cannot.
        called: how the function is called, if its parameters leave this open; empty otherwise.
    """

    name: str
    answer: Callable[[Example], Answer]
    by_tokens: bool = False
    has_k: bool = False
    one_channel: bool = False
    blocks: bool = False
    gathers: bool = False
    traits: frozenset[str] = frozenset()
    spec: Spec | None = None
    called: str = ""
