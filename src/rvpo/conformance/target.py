"""What is checked: a batch, what the function answered to it, and a function that can be called.

Dimensions as everywhere: N completions (rows), M channels (rewards), T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

TRAITS: Mapping[str, str] = {
    "levels": "reads how high rewards are on a declared scale, not only how the completions of a group differ",
    "shared-weights": "weighs the channels by what it sees in all groups of the batch",
    "bundles": "scores completions of several groups together, by their place in the group",
    "spread-penalty": "subtracts the spread over channels, so that a better reward can lower the value",
    "filters": "leaves out completions on which the channels disagree",
    "adapts": "sets its risk coefficient by the whole batch",
    "missing-as-0": "counts a missing reward as 0, as TRL's sum of rewards does",
    "complete-only": "takes complete rewards only, and refuses missing ones",
}
"""What a function can declare of itself. A property that cannot hold for such a rule is then not applicable."""

STYLES = ("completions", "tokens", "auto")
CHANNELS = ("many", "one", "auto")


class NotHereError(Exception):
    """The property says nothing on this batch, or about this function; the message is the reason."""


class CallError(Exception):
    """The function under test raised, or returned what is no advantage; the message says which."""


@dataclass(frozen=True)
class Example:
    """A batch.

    Attributes:
        rewards: (N, M) floating point, NaN = missing.
        groups: (N,) int64 ids.
        lengths: (N,) int64, response tokens of each completion, from 1 on. Only functions by tokens see them.
        pad: columns of padding behind the longest response.
        k: the risk coefficient to call with; None leaves the function's own default.
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
        """Whether no reward is missing."""
        return not bool(self.rewards.isnan().any())


@dataclass(frozen=True)
class Answer:
    """What the function returned.

    Attributes:
        advantages: (N,) float64 on the CPU.
        dtype: of what was returned.
        aggregated: (N,) float64, the rule's value before whitening, where the function hands it out.
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
        name: what the user wrote, such as ``verl:gdpo``.
        style: see ``STYLES``.
        options: keyword arguments for the function.
        k_name: the name of its risk coefficient among them, None where it has none.
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
    """A function that can be called.

    Attributes:
        name: what the user wrote.
        answer: calls it. Raises :class:`CallError`.
        by_tokens: whether it sees response tokens.
        has_k: whether ``Example.k`` reaches it.
        one_channel: whether it takes one reward a completion.
        blocks: whether groups must be of equal size, in consecutive rows.
        gathers: whether it takes each process's own rows and gathers the others itself.
        traits: see ``TRAITS``.
        spec: how another process builds it; None where it cannot.
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
