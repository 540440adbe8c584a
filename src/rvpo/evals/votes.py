"""Majority of several samples: the answer that most of them give, where equal answers are written differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Equal = Callable[[str, str], bool | None]
"""Whether two answers are equal; None where that could not be found out."""


@dataclass(frozen=True, slots=True)
class Vote:
    """The outcome of a vote.

    Attributes:
        value: 1 if the winner is right, 0 if it is not or nobody votes. Of t answers with the most votes, a draw would
            choose each as often: 1/t where one of them is right.
        tied: how many answers have the most votes; 0 if nobody votes.
        votes: number of samples with an answer.
    """

    value: float
    tied: int
    votes: int


def majority(answers: Sequence[str | None], right: Sequence[bool], equal: Equal) -> Vote | None:
    """Return the vote of an item's samples; None where it could not be found out which answers are equal.

    All right answers are one answer. A wrong one counts with the first wrong answer that it equals; equality in this
    sense need not be transitive. An answer that is not even equal to itself, because it cannot be read or takes too
    long to compare, counts with those of the same text alone. So n samples cost at most n comparisons of unreadable
    answers, and n^2 / 2 of readable ones.

    Args:
        answers: of each sample; None abstains.
        right: whether each sample is right.
        equal: compares two answers.
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
    """Return the votes of different answers, of votes by text."""
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
