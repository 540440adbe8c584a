"""The interface between rubrics and judges: questions, verdicts, and the protocol of judges.

If the judge returns no verdict, the verdict is *missing*: ``value`` is None and ``reason`` says why. It is never 0 and
never "not met", which would even be a gain for a criterion with negative points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from rvpo.rewards.rubric.criteria import Criterion

Prompt: TypeAlias = str | Sequence[Mapping[str, str]]
"""Plain text, or chat messages with ``role`` and ``content``."""

REASONS = (
    "timeout",  # no answer in time, after all retries
    "connection",  # the server could not be reached, or closed the connection
    "rate_limit",  # status 429 after all retries
    "server",  # status 5xx after all retries
    "rejected",  # the server rejects such a request (400, 401, 404, …), so a retry would not help
    "refused",  # the model declined to judge
    "malformed",  # the answer contains no verdict, or not all ids
    "budget",  # the budget is used up, so the question was not asked
    "too_long",  # prompt and completion do not fit into the judge's context
    "rule",  # a rule could not be evaluated on this text, for example because a regex takes too long
    "judge",  # the judge itself raised an exception; see the log
    "no_reply",  # a completion had no other reply to be compared with
    "sandbox",  # a program could not be run, so nothing is known about it
)
"""Reasons why a verdict is missing. Each has its own share in the metrics."""


@dataclass(frozen=True, slots=True)
class Question:
    """One completion with the criteria to be decided on it.

    Attributes:
        prompt: prompt, as text or chat.
        completion: text of the completion.
        criteria: criteria to decide.
        repeat: 0, or 1 if the same question is asked a second time to measure how reliable the judge is. It must then
            be decided again, and not be taken from a cache.
    """

    prompt: Prompt
    completion: str
    criteria: tuple[Criterion, ...]
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one criterion of a question.

    Attributes:
        value: degree in [0, 1] to which the criterion's text is met: 0 or 1, a probability, or a point on a scale. None
            if it is missing. It is *not* inverted for criteria whose polarity is bad.
        reason: one of :data:`REASONS` if ``value`` is None, else None.
        detail: explanation of the judge, or what went wrong.
    """

    value: float | None
    reason: str | None = None
    detail: str | None = None

    @classmethod
    def missing(cls, reason: str, detail: str | None = None) -> Verdict:
        """Return a missing verdict."""
        return cls(None, reason, detail)


@runtime_checkable
class Judge(Protocol):
    """Protocol of judges of criteria. All judges of ``rvpo.judges`` implement it, and yours can, too."""

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        """Return one verdict per criterion of each question, in order.

        If a criterion could not be decided, its verdict is missing. Judges raise only for mistakes of their caller.
        """
        ...

    async def check(self) -> None:
        """Ask a small question.

        Raises:
            JudgeError: this judge cannot work: the server, the model or the key is wrong or absent.
        """
        ...

    def usage(self) -> dict[str, float]:
        """Return totals since construction under fixed keys, such as ``calls``, ``prompt_tokens``, ``cost``."""
        ...
