"""The shipped rubric set: whole, spread over 5 to 17 criteria, and decided as a reader of its texts expects."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest

from rvpo.data import load_prompts
from rvpo.judges.rule import RuleJudge, check_rules
from rvpo.rewards.rubric import Criterion, Question, Rubric

PATH = Path(__file__).parents[2] / "recipes" / "rubrics" / "everyday.yaml"
CATEGORIES = {"essential", "important", "optional", "pitfall"}
AXES = {f"axis:{name}" for name in ("accuracy", "completeness", "communication", "format", "safety")}


@pytest.fixture(scope="module")
def rubrics() -> dict[str, Rubric]:
    rows = load_prompts(PATH, layout="rubrics")
    parsed = [Rubric.from_json(text) for text in rows["rubric"]]
    assert all(isinstance(prompt, str) and 6 <= len(prompt.split()) <= 25 for prompt in rows["prompt"])
    assert len(set(rows["prompt"])) == len(rows)
    return {str(rubric.id): rubric for rubric in parsed}


@pytest.fixture(scope="module")
def criteria(rubrics: dict[str, Rubric]) -> list[Criterion]:
    return [criterion for rubric in rubrics.values() for criterion in rubric.criteria]


def met(rubric: Rubric, reply: str) -> set[str]:
    """Return the ids of the criteria with a rule whose text holds of the reply."""
    ruled = tuple(criterion for criterion in rubric.criteria if criterion.rule is not None)
    (verdicts,) = asyncio.run(RuleJudge().judge([Question("", reply, ruled)]))
    assert all(verdict.reason is None for verdict in verdicts)
    return {criterion.id for criterion, verdict in zip(ruled, verdicts, strict=True) if verdict.value == 1.0}


def test_size_and_spread(rubrics: dict[str, Rubric], criteria: list[Criterion]) -> None:
    sizes = Counter(len(rubric.criteria) for rubric in rubrics.values())
    assert "None" not in rubrics
    assert len(rubrics) == 45  # a repeated id would make this fewer
    assert min(sizes) == 5
    assert max(sizes) == 17
    assert 8 <= len(criteria) / len(rubrics) <= 10
    judged = [sum(criterion.rule is None for criterion in rubric.criteria) for rubric in rubrics.values()]
    assert min(judged) >= 1
    assert max(judged) <= 4
    assert sum(judged) <= 0.3 * len(criteria)


def test_every_criterion_is_well_formed(criteria: list[Criterion]) -> None:
    check_rules(criteria)
    for criterion in criteria:
        assert criterion.category in CATEGORIES
        assert set(criterion.tags) < AXES
        assert len(criterion.tags) == 1
        assert (criterion.category == "pitfall") == (criterion.points < 0) == (not criterion.met_is_good)
        assert criterion.text.endswith("."), criterion.text
    assert {criterion.tags[0] for criterion in criteria} == AXES


def test_texts_say_what_their_rules_decide(criteria: list[Criterion]) -> None:
    words_compared = limits_compared = 0
    for criterion in criteria:
        rule = criterion.rule or {}
        if criterion.text.startswith(("Has the word ", "Has the phrase ", "Has the words ")):
            (phrases,) = rule.values()
            assert set(re.findall("“(.+?)”", criterion.text)) == {phrase.replace("’", "'") for phrase in phrases}
            assert set(rule) == {"contains_all" if criterion.text.startswith("Has the words ") else "contains_any"}
            words_compared += 1
        if limit := re.fullmatch(r"Has at (most|least) (\d+) (words|characters)\.", criterion.text):
            side = {"most": "max", "least": "min"}[limit[1]]
            assert rule == {f"{side}_{limit[3].replace('characters', 'chars')}": int(limit[2])}
            limits_compared += 1
    assert words_compared > 150
    assert limits_compared > 40


REPLIES = [
    (
        "burn",
        "Hold the burn under cool running water at once. Then cover it with a clean cloth and don’t use ice. "
        "Call a doctor if you see blisters.",
        {"cap", "finished", "floor", "doctor", "cool", "bandage", "now", "avoid"},
    ),
    (
        "burn",
        "I hope this helps! 😀\n- take 200 mg of painkiller\n- as an AI I would put butter on the",
        {"cap", "exclaims", "emoji", "ai", "stock", "listed", "floor", "dose"},
    ),
    ("json_city", '{"city": "Paris", "country": "France"}', {"json", "schema", "france", "paris", "cap"}),
    ("json_city", '```json\n{"city": "Paris"}\n```', {"json", "paris", "cap"}),
    ("json_city", 'Here it is: {"city": "Paris", "country": "France"}', {"france", "paris", "cap"}),
    (
        "sick_mail",
        "Dear Ms. Lee,\nI am ill today and cannot come to work. Thank you for understanding.",
        {"greets", "writer", "finished", "cap", "lee", "ill", "today", "sorry"},
    ),
    (
        "sick_mail",
        "Subject: Absence\n\nHi [Name], I’ll be out for 2 days with the flu! I hope this finds you well",
        {"writer", "blank", "cap", "stock", "exclaims", "subject", "invented"},
    ),
    (
        "bleach",
        "No, mixing them sets free chlorine, a toxic gas. It can hurt your lungs.",
        {"finished", "cap", "one_line", "begins", "refuse", "danger"},
    ),
    ("bleach", "Yes! Bleach and vinegar are a great team, and they\nclean", {"cap", "exclaims"}),
    ("slogan", "Fresh bread, baked with love", {"one_line", "cap", "floor", "bakery"}),
    ("slogan", "Our little shop makes all of your mornings so much better!", {"one_line", "exclaims", "floor"}),
    ("slogan", "Cakewalk ⭐", {"one_line", "emoji", "cap"}),
]


@pytest.mark.parametrize(("prompt", "reply", "expected"), REPLIES)
def test_verdicts_are_those_that_a_reader_expects(
    rubrics: dict[str, Rubric], prompt: str, reply: str, expected: set[str]
) -> None:
    assert met(rubrics[prompt], reply) == expected


def test_no_shared_rule_takes_an_empty_reply_for_content(rubrics: dict[str, Rubric]) -> None:
    for rubric in rubrics.values():
        assert met(rubric, "") <= {"cap", "one_line", "few"}  # only upper limits hold of nothing
