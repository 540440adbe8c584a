"""Majority of several samples: the answer that most of them give. Equal answers may be written differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Equal = Callable[[str, str], bool | None]
"""Returns whether two answers are equal; None if the comparison failed."""


@dataclass(frozen=True, slots=True)
class Vote:
    """The outcome of a vote.

    Attributes:
        value: 1 if the winning answer is right; 0 if it is wrong, or if no sample states an answer. If t answers tie
            for the most votes and one of them is right, 1/t: the chance that a draw would pick it.
        tied: number of answers with the most votes; 0 if no sample states an answer.
        votes: number of samples with an answer.
    """

    value: float
    tied: int
    votes: int


def majority(answers: Sequence[str | None], right: Sequence[bool], equal: Equal) -> Vote | None:
    """Return the vote of an item's samples; None if a comparison of two answers failed.

    All right answers count as one answer. A wrong answer is counted with the first wrong answer that it equals; this
    equality need not be transitive. An answer may not even equal itself, because it cannot be read or takes too long
    to compare; then it is counted only with answers of the same text. So n samples cost at most n comparisons of
    unreadable answers, and n^2 / 2 of readable ones.

    Args:
        answers: the answer of each sample; None if the sample states no answer, and so does not vote.
        right: whether each sample is right.
        equal: compares two answers.

    Example:
        >>> majority(["1/2", "0.5", "3"], [False, False, True], lambda a, b: a == b or {a, b} == {"1/2", "0.5"})
        Vote(value=0.0, tied=1, votes=3)
    """
    counts: dict[str, int] = {}
    for answer, is_right in zip(answers, right, strict=True):
        if answer is not None and not is_right:
            counts[answer] = counts.get(answer, 0) + 1
    wrong = _pooled(counts, equal)
    if wrong is None:
        return None
    of_right = sum(is_right for answer, is_right in zip(answers, right, strict=True) if answer is not None)
    sizes = [*wrong, *([of_right] if of_right else [])]
    most = max(sizes, default=0)
    tied = sizes.count(most)
    return Vote(1.0 / tied if of_right and of_right == most else 0.0, tied, sum(sizes))


def _pooled(counts: dict[str, int], equal: Equal) -> list[int] | None:
    """Return the number of votes of each different answer, given the number of votes of each text."""
    readable: dict[str, int] = {}
    sizes = []
    for answer, votes in counts.items():
        itself = equal(answer, answer)
        if itself is None:
            return None
        if not itself:
            sizes.append(votes)
            continue
        for first in readable:
            same = equal(first, answer)
            if same is None:
                return None
            if same:
                readable[first] += votes
                break
        else:
            readable[answer] = votes
    return [*sizes, *readable.values()]
