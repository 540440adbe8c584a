"""Several samples of an item: Pass@k with missing samples, and votes."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb

import pytest

from rvpo.errors import ConfigError
from rvpo.evals.items import Item, Scored
from rvpo.evals.samples import Sampling, notes_on_answers, notes_on_samples, with_pass_at
from rvpo.evals.votes import majority


def rows(outcomes: dict[str, list[float | None]]) -> list[tuple[Item, Scored]]:
    return [
        (Item(id, (), epoch), Scored({"right": value}, {} if value is not None else {"right": "reply: timeout"}))
        for id, values in outcomes.items()
        for epoch, value in enumerate(values)
    ]


def test_pass_at_k_stands_in_the_first_row_of_each_item_whatever_the_order_of_rows():
    made = rows({"a": [1, 0, 0, 0], "b": [0, 0, 0, 0], "c": [1, 1, 1, 0]})
    random.Random(0).shuffle(made)
    found = with_pass_at(made, "right", (1, 2, 4))
    assert sorted(found) == [("a", 0), ("b", 0), ("c", 0)]
    for id, c in (("a", 1), ("b", 0), ("c", 3)):
        scores = found[id, 0].scores
        assert scores == {
            "right": float(c > 0),
            **{f"pass@{k}": pytest.approx(float(1 - Fraction(comb(4 - c, k), comb(4, k)))) for k in (1, 2, 4)},
        }


def test_missing_samples_are_never_wrong_and_too_few_leave_the_item_out():
    made = rows({"a": [None, 1, 0, None], "b": [None] * 4, "c": [0, 0, 0, 0]})
    found = with_pass_at(made, "right", (1, 2, 4))
    assert found["a", 0].scores == {"right": None, "pass@1": 0.5, "pass@2": 1.0, "pass@4": None}
    assert found["a", 0].reasons["pass@4"] == "2 of 4 samples are scored"
    assert set(found["b", 0].scores.values()) == {None}
    assert found["c", 0].scores["pass@4"] == 0.0
    few, left_out = notes_on_samples(made, "right", (1, 2, 4))
    assert few.startswith("2 of 3 items have fewer than 4 scored samples (the fewest: 0)")
    assert left_out.endswith("1 of pass@1, 1 of pass@2, 2 of pass@4")
    assert notes_on_samples(rows({"a": [1, 0]}), "right", (1, 2)) == []


def test_replies_without_an_answer_are_told_where_they_are_most():
    few = [(Item("a", (), i), Scored({"answered": float(i < 2)})) for i in range(5)]
    assert notes_on_answers(few, "answered", "say nothing") == ["3 of 5 replies say nothing, and count as wrong"]
    assert notes_on_answers(few[:4], "answered", "say nothing") == []
    assert notes_on_answers([(few[0][0], Scored({"answered": None}))], "answered", "say nothing") == []


def test_the_k_of_pass_at_k():
    assert Sampling.of(16, None).ks == (1, 2, 4, 8, 16)
    assert Sampling.of(10, None).ks == (1, 2, 4, 8, 10)
    assert Sampling.of(1, None).ks == (1,)
    assert Sampling.of(8, [8, 1, 8]).ks == (1, 8)
    assert Sampling.of(8, 3).ks == (3,)


@pytest.mark.parametrize(
    ("samples", "k", "said"),
    [
        (4, [1, 8], "k is 8, but each item has 4 samples"),
        (0, None, "samples is 0"),
        (True, None, "samples is True"),
        (4, [0], "k is 0"),
        (4, [1.5], "k is 1.5"),
        (4, [], "k is empty"),
        (4, ["2"], "k is '2'"),
    ],
)
def test_samples_and_k_that_cannot_work(samples: int, k: list[int], said: str):
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        Sampling.of(samples, k)


def same_number(a: str, b: str) -> bool | None:
    """Stands for Math-Verify: "?…" cannot be read, "!" cannot be compared."""
    return None if "!" in (a, b) else not a.startswith("?") and not b.startswith("?") and Fraction(a) == Fraction(b)


@pytest.mark.parametrize(
    ("answers", "right", "value", "tied", "votes"),
    [
        (["2", "4/2", "3"], [1, 1, 0], 1.0, 1, 3),  # equal answers written differently
        (["3", "6/2", "9/3", "2", "2"], [0, 0, 0, 1, 1], 0.0, 1, 5),
        (["3", "6/2", "2", "4/2"], [0, 0, 1, 1], 0.5, 2, 4),
        (["3", "5", "2"], [0, 0, 1], 1 / 3, 3, 3),
        (["3", "5"], [0, 0], 0.0, 2, 2),
        ([None, None, "2"], [0, 0, 1], 1.0, 1, 1),  # who has no answer does not vote
        ([None, None], [0, 0], 0.0, 0, 0),
        (["?", "?", "2"], [0, 0, 1], 0.0, 1, 3),  # unreadable answers are equal where their texts are
        (["?a", "?b", "2", "2"], [0, 0, 1, 1], 1.0, 1, 4),
    ],
)
def test_votes(answers: list[str | None], right: list[int], value: float, tied: int, votes: int):
    for order in (1, -1):
        vote = majority(answers[::order], [bool(one) for one in right[::order]], same_number)
        assert vote is not None
        assert (vote.value, vote.tied, vote.votes) == (pytest.approx(value), tied, votes)


def test_a_vote_whose_answers_could_not_be_compared_is_missing():
    assert majority(["3", "!"], [False, False], same_number) is None


def test_unreadable_answers_are_compared_once_each():
    asked = []

    def never(a: str, b: str) -> bool:
        asked.append((a, b))
        return False

    majority([f"?{i}" for i in range(64)], [False] * 64, never)
    assert len(asked) == 64
