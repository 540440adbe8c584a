"""Criteria and rubrics as plain data: what goes in comes back, and what cannot be meant is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvpo.errors import DataError
from rvpo.rewards.rubric import Criterion, Rubric
from rvpo.rewards.rubric.criteria import MAX_STEPS

LEAST = {"id": "a", "text": "Says hello."}
FULL = {
    "id": "dose",
    "text": "States the maximum daily dose.",
    "points": -5.0,
    "polarity": "good",
    "category": "essential",
    "tags": ["axis:accuracy", "level:example"],
    "rule": {"max_words": 80},
    "judge": "large",
    "scale": [1, 5],
}


def rubric(*criteria: dict[str, Any], **keys: object) -> Rubric:
    return Rubric.from_mapping({"criteria": list(criteria), **keys})


# --- plain data and JSON ----------------------------------------------------------------------------------------------


def test_every_field_is_read():
    (criterion,) = rubric(FULL, id="q1").criteria
    assert criterion == Criterion(
        id="dose",
        text="States the maximum daily dose.",
        points=-5.0,
        polarity="good",
        category="essential",
        tags=("axis:accuracy", "level:example"),
        rule={"max_words": 80},
        judge="large",
        scale=(1, 5),
    )
    assert criterion.labels == ("essential", "axis:accuracy", "level:example")


def test_defaults_and_the_list_alone():
    assert Rubric.from_mapping([LEAST]) == rubric(LEAST) == Rubric((Criterion("a", "Says hello."),))
    assert rubric(LEAST).criteria[0].points == 1.0
    assert rubric(LEAST).criteria[0].labels == ()


def test_json_holds_what_differs_from_the_default():
    assert json.loads(rubric(LEAST).to_json()) == {"criteria": [LEAST]}
    assert json.loads(rubric(FULL, id="q1").to_json()) == {"id": "q1", "criteria": [FULL]}
    assert "\n" not in rubric(LEAST | {"text": "one\ntwo"}).to_json()


def test_whole_numbers_become_ids():
    assert rubric(LEAST | {"id": 7}).criteria[0].id == "7"


criteria = st.fixed_dictionaries(
    {"text": st.text(min_size=1).filter(str.strip)},
    optional={
        "points": st.floats(allow_nan=False, allow_infinity=False).filter(bool),
        "polarity": st.sampled_from(["good", "bad"]),
        "category": st.text(min_size=1),
        "tags": st.lists(st.text(min_size=1)),
        "rule": st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), min_size=1),
        "judge": st.text(min_size=1),
        "scale": st.tuples(st.integers(), st.integers(1, MAX_STEPS)).map(lambda s: [s[0], s[0] + s[1]]),
    },
)


@given(st.lists(criteria, min_size=1, max_size=6), st.none() | st.text(min_size=1))
def test_json_round_trip(entries: list[dict[str, Any]], name: str | None):
    built = rubric(*({"id": f"c{i}"} | entry for i, entry in enumerate(entries)), id=name)
    assert Rubric.from_json(built.to_json()) == built


# --- polarity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "polarity", "reward_if_met"),
    [(2.0, None, 1.0), (-2.0, None, 0.0), (-1.0, "good", 1.0), (3.0, "bad", 0.0), (-1.0, "bad", 0.0)],
)
def test_polarity_follows_the_points_unless_it_is_given(points: float, polarity: str | None, reward_if_met: float):
    criterion = Criterion("a", "t", points, polarity)
    assert criterion.met_is_good == bool(reward_if_met)
    assert criterion.reward(1.0) == reward_if_met
    assert criterion.reward(0.0) == 1.0 - reward_if_met
    assert criterion.reward(0.25) == (0.25 if reward_if_met else 0.75)


# --- refusals ---------------------------------------------------------------------------------------------------------

MALFORMED = {
    "no mapping": ("text", "criterion 0 is 'text'; expected a mapping with the keys id, text"),
    "unknown key": (
        LEAST | {"pionts": 2},
        "criterion 0 has the unknown key 'pionts'; expected one of id, text, points",
    ),
    "key of others": (LEAST | {"weight": 2}, r"unknown key 'weight'; .* \('points' is rvpo's name for it\)"),
    "no id": ({"text": "t"}, "criterion 0: id is None"),
    "id of another type": (LEAST | {"id": True}, "criterion 0: id is True"),
    "blank text": (LEAST | {"text": " \n"}, r"criterion 0: text is ' \\n'; expected text that is not blank"),
    "points 0": (LEAST | {"points": 0}, r"criterion 0 \('a'\): points is 0; expected a finite number that is not 0"),
    "points NaN": (LEAST | {"points": float("nan")}, "points is nan"),
    "points infinite": (LEAST | {"points": float("inf")}, "points is inf"),
    "points true": (LEAST | {"points": True}, "points is True"),
    "points text": (LEAST | {"points": "5"}, "points is '5'"),
    "polarity": (LEAST | {"polarity": "positive"}, "polarity is 'positive'; expected 'good' or 'bad'"),
    "category empty": (LEAST | {"category": ""}, "category is ''; expected text"),
    "judge": (LEAST | {"judge": 3}, "judge is 3; expected text"),
    "tags text": (LEAST | {"tags": "axis:accuracy"}, "tags is 'axis:accuracy'; expected a list"),
    "tag empty": (LEAST | {"tags": [""]}, r"tags is \[''\]"),
    "rule": (LEAST | {"rule": {}}, r"rule is \{\}; expected a mapping such as"),
    "scale of three": (LEAST | {"scale": [1, 2, 3]}, r"scale is \[1, 2, 3\]; expected \[lowest, highest\]"),
    "scale too fine": (LEAST | {"scale": [0, 101]}, r"scale is \[0, 101\]; expected .* whole numbers that differ"),
    "text of half a surrogate": (LEAST | {"text": "a \ud800"}, "in valid Unicode"),
    "scale turned round": (LEAST | {"scale": [5, 1]}, r"scale is \[5, 1\]"),
    "scale of floats": (LEAST | {"scale": [0.0, 1.0]}, r"scale is \[0.0, 1.0\]"),
}


@pytest.mark.parametrize(("entry", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_criterion(entry: Any, message: str):
    with pytest.raises(DataError, match=message):
        rubric(entry)


def test_the_second_of_two_is_named():
    with pytest.raises(DataError, match=r"^criterion 1: id is None"):
        rubric(LEAST, {"text": "t"})
    with pytest.raises(DataError, match="criteria 0 and 2 both have the id 'a'; expected different ids"):
        rubric(LEAST, LEAST | {"id": "b"}, LEAST)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"criteria": []}, r"criteria is \[\]; expected a list of at least one criterion"),
        ({}, "criteria is None"),
        ("text", "rubric is 'text'; expected a mapping with the keys id, criteria"),
        ({"criteria": [LEAST], "name": "x"}, "rubric has the unknown key 'name'"),
        ({"criteria": [LEAST], "id": 3}, "rubric: id is 3; expected text or null"),
    ],
)
def test_malformed_rubric(values: object, message: str):
    with pytest.raises(DataError, match=message):
        Rubric.from_mapping(values)


@pytest.mark.parametrize("text", ["", "{", "nope"])
def test_text_that_is_no_json(text: str):
    with pytest.raises(DataError, match=r"is not JSON .*; expected what Rubric.to_json returns"):
        Rubric.from_json(text)


def test_long_values_are_cut_in_messages():
    with pytest.raises(DataError) as caught:
        rubric(LEAST | {"points": "9" * 500})
    assert len(str(caught.value)) < 200
