"""The seam between pairwise rewards and judges: two replies to one prompt, and who of them is the better one.

It stands beside :mod:`rvpo.rewards.rubric.verdict`, whose :class:`Verdict` it shares. A judge that only knows criteria
would pass over the second reply without a word; so comparing is a method of its own, and a judge without it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rvpo.rewards.rubric.verdict import Prompt, Verdict


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies to a prompt, in the order in which the judge sees them.

    Attributes:
        prompt: what both answer.
        first: reply A.
        second: reply B.
        question: by what they are compared.
        repeat: 0, or 1 where the same is asked a second time, as in :class:`rvpo.rewards.rubric.Question`.
    """

    prompt: Prompt
    first: str
    second: str
    question: str
    repeat: int = 0


@runtime_checkable
class PairJudge(Protocol):
    """Whoever compares replies. ``EndpointJudge`` and ``LocalJudge`` follow it; so can yours."""

    async def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Return one verdict for each pair, in order: 1 where the first reply is better, 0 the second, 0.5 a tie.

        A pair that could not be decided is a missing verdict; judges raise only for mistakes of their caller.
        """
        ...

    def check_pairs(self) -> None:
        """Raise ConfigError where the options of this judge do not fit a comparison."""
        ...

    async def check(self) -> None:
        """Ask something small; see :class:`rvpo.rewards.rubric.Judge`."""
        ...

    def usage(self) -> dict[str, float]:
        """Return totals since construction; see :class:`rvpo.rewards.rubric.Judge`."""
        ...
