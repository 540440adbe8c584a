"""The interface between pairwise rewards and judges: which of two replies to a prompt is better?

It uses the :class:`Verdict` of :mod:`rvpo.rewards.rubric.verdict`. A judge that knows only criteria would silently
ignore the second reply. So comparing is a separate method, and a judge without it is refused.
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
        prompt: prompt of both replies.
        first: reply A.
        second: reply B.
        question: question that decides which reply is better.
        repeat: 0, or 1 if the same pair is judged a second time, as in :class:`rvpo.rewards.rubric.Question`.
    """

    prompt: Prompt
    first: str
    second: str
    question: str
    repeat: int = 0


@runtime_checkable
class PairJudge(Protocol):
    """Protocol of judges that compare replies. ``EndpointJudge`` and ``LocalJudge`` implement it. Yours can, too."""

    async def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Return one verdict per pair, in order: 1 if the first reply is better, 0 if the second is, 0.5 for a tie.

        If a pair could not be decided, its verdict is missing. Judges raise only for mistakes of their caller.
        """
        ...

    def check_pairs(self) -> None:
        """Check that the options of this judge allow comparisons.

        Raises:
            ConfigError: they do not.
        """
        ...

    async def check(self) -> None:
        """Ask a small question; see :class:`rvpo.rewards.rubric.Judge`."""
        ...

    def usage(self) -> dict[str, float]:
        """Return totals since construction; see :class:`rvpo.rewards.rubric.Judge`."""
        ...
