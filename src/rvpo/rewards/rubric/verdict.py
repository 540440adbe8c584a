"""The seam between rubrics and judges: what is asked, what is answered, and the protocol of whoever answers.

A verdict that could not be had is *missing*: ``value`` is None and ``reason`` says why. It is never 0 and never "not
met", which for a criterion with negative points would even be a gain.
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
    "connection",  # the server could not be reached, or hung up
    "rate_limit",  # still 429 after all retries
    "server",  # 5xx after all retries
    "rejected",  # the server refuses such a request: 400, 401, 404, …; a retry would not help
    "refused",  # the model declined to judge
    "malformed",  # an answer that holds no verdict, or not the complete set of ids
    "budget",  # the budget is used up, so the question was not asked
    "too_long",  # prompt and completion do not fit into the judge's context
    "rule",  # a rule that could not be evaluated on this text, such as a regex that takes too long
    "judge",  # the judge itself raised; see the log
    "no_reply",  # there was no other reply to compare a completion with
    "sandbox",  # a program that could not be run, which says nothing of it
)
"""Why a verdict may be missing; each has its own share in the metrics."""


@dataclass(frozen=True, slots=True)
class Question:
    """One completion with the criteria to be decided on it.

    Attributes:
        repeat: 0, or 1 where the same is asked a second time to learn how far the judge can be trusted: it must then
            be decided anew, and not be taken from a cache.
    """

    prompt: Prompt
    completion: str
    criteria: tuple[Criterion, ...]
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one criterion of a question.

    Attributes:
        value: degree in [0, 1] to which the criterion's text is met: 0 or 1, a probability, or a place on a scale.
            None where it is missing. It is *not* turned round for criteria whose polarity is bad.
        reason: one of :data:`REASONS` where ``value`` is None, else None.
        detail: the judge's explanation, or what went wrong.
    """

    value: float | None
    reason: str | None = None
    detail: str | None = None

    @classmethod
    def missing(cls, reason: str, detail: str | None = None) -> Verdict:
        """Return a verdict that could not be had."""
        return cls(None, reason, detail)


@runtime_checkable
class Judge(Protocol):
    """Whoever decides criteria. All judges of ``rvpo.judges`` follow it; so can yours."""

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        """Return one verdict for each criterion of each question, in order.

        A criterion that could not be decided is a missing verdict; judges raise only for mistakes of their caller.
        """
        ...

    async def check(self) -> None:
        """Ask something small. Raises JudgeError where this judge cannot work: no server, no such model, no key."""
        ...

    def usage(self) -> dict[str, float]:
        """Return totals since construction under fixed keys, such as ``calls``, ``prompt_tokens``, ``cost``."""
        ...
