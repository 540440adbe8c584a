"""The rule judge: each check on worked cases, refusals by name, and hostile text that neither raises nor hangs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpo.errors import ConfigError
from rvpo.judges import rule as rules
from rvpo.judges.rule import RuleJudge, check_rules
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import Judge, Question, Verdict


def decide(rule: dict[str, Any], text: str) -> Verdict:
    question = Question("p", text, (Criterion("c", "t", rule=rule),))
    return asyncio.run(RuleJudge().judge([question]))[0][0]


POEM = "Roses are red.\nViolets are blue!  Is sugar sweet? (Yes.)\n\n- - -\n"
SCHEMA = {
    "type": "object",
    "required": ["dose"],
    "properties": {"dose": {"type": "integer", "maximum": 10}, "tags": {"type": "array", "uniqueItems": True}},
}


@pytest.mark.parametrize(
    ("rule", "text", "met"),
    [
        ({"contains_any": ["cat", "dog"]}, "The CAT sat", True),
        ({"contains_any": "cat"}, "a category, a bobcat, cat_1", False),
        ({"contains_any": "cat"}, "(cat)", True),
        ({"contains_any": "call 911"}, "please call\n   911.", True),
        ({"contains_any": "C++"}, "uses C++17", True),  # an edge that is no letter or digit ends no word
        ({"contains_any": "Cat", "case_sensitive": True}, "cat", False),
        ({"contains_any": "STRASSE"}, "die Straße", True),
        ({"contains_all": ["cat", "dog"]}, "dog and cat", True),
        ({"contains_all": ["cat", "dog"]}, "dog and cow", False),
        ({"contains_none": ["cat", "dog"]}, "cow", True),
        ({"contains_none": ["cat", "dog"]}, "cow, dog", False),
        ({"regex": r"(?m)^Dose: \d+$"}, "x\nDose: 12\ny", True),
        ({"regex": "dose"}, "Dose", False),
        ({"regex": ["a", "b"]}, "a", False),
        ({"regex": r"(?=.*b)a"}, "acb", True),
        (
            {"min_words": 12, "max_words": 12},
            POEM.replace("(Yes.)", "(Yes it is.)"),
            True,
        ),  # 3 + 3 + 3 + 3; dashes are none
        ({"max_words": 9}, POEM, False),  # 10
        ({"min_sentences": 4, "max_sentences": 4}, POEM, True),
        ({"max_sentences": 1}, "Version 1.5 of a.b is here", True),
        ({"min_sentences": 2}, "Wait... what?!", True),
        ({"min_lines": 3, "max_lines": 3}, POEM, True),
        ({"min_chars": 3, "max_chars": 3}, "  abc\n", True),
        ({"max_chars": 2}, "abc", False),
        ({"min_words": 1}, "", False),
        ({"contains_any": "cat", "max_words": 2}, "cat dog cow", False),
        ({"json_schema": SCHEMA}, '{"dose": 3}', True),
        ({"json_schema": SCHEMA}, '```json\n{"dose": 3}\n```', True),
        ({"json_schema": SCHEMA}, 'Here: {"dose": 3}', False),
        ({"json_schema": SCHEMA}, '{"dose": 3.0}', True),  # draft 2020-12 calls 3.0 an integer
        ({"json_schema": SCHEMA}, '{"dose": 11}', False),
        ({"json_schema": SCHEMA}, '{"dose": 3, "tags": [1, 2]}', True),
        ({"json_schema": SCHEMA}, '{"dose": 3, "tags": [1, 1.0]}', False),
        ({"json_schema": SCHEMA}, '{"dose": NaN}', False),
        ({"json_schema": {"type": "string", "pattern": "^a+$"}}, '"aaa"', True),
        ({"json_schema": {"type": "string", "pattern": "^a+$"}}, '"aab"', False),
        ({"json_schema": {"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "null"}}}}, "[null, 1]", False),
    ],
)
def test_a_rule_is_met_where_every_check_holds(rule: dict[str, Any], text: str, met: bool) -> None:
    assert decide(rule, text).value == float(met)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"max_word": 3}, r"'dose'.*unknown check 'max_word' \(did you mean 'max_words'\?\); expected one of"),
        ({"max_words": -1}, r"max_words=-1.*whole number"),
        ({"max_words": True}, r"max_words=True"),
        ({"min_words": 5, "max_words": 4}, r"min_words=5, max_words=4.*no text can meet"),
        ({"contains_any": []}, r"contains_any=\[\].*text or a list"),
        ({"contains_any": ["a", " "]}, r"contains_any"),
        ({"contains_all": 3}, r"contains_all=3"),
        ({"case_sensitive": True}, r"at least one check"),
        ({"case_sensitive": "yes", "regex": "a"}, r"case_sensitive='yes'"),
        ({"regex": "(a"}, r"'dose'.*regex='\(a'.*expected a regular expression"),
        ({"json_schema": "object"}, r"json_schema='object'"),
        ({"json_schema": {"type": "objekt"}}, r"invalid json_schema.*objekt"),
        ({"json_schema": {"pattern": "(a"}}, r"invalid json_schema.*'\(a' is not a 'regex'"),
        ({"json_schema": {"patternProperties": {"a": {}}}}, r"patternProperties"),
        (
            {"json_schema": {"$ref": "https://example.com/schema"}},
            r"\$ref='https://example.com/schema'; expected a reference to a part of the schema",
        ),
        ({"json_schema": {"$ref": "#/$defs/gone"}}, r"expected a reference to a part of the schema"),
        ({"max_words": {1, 2}}, r"'dose'"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_by_name(rule: dict[str, Any], message: str) -> None:
    criteria = [
        Criterion("judged", "t"),
        Criterion("fine", "t", rule={"max_words": 3}),
        Criterion("dose", "t", rule=rule),
    ]
    check_rules(criteria[:2])
    with pytest.raises(ConfigError, match=message):
        check_rules(criteria)


def test_a_criterion_without_rule_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ConfigError, match="'tone' has no rule"):
        asyncio.run(RuleJudge().judge([Question("p", "c", (Criterion("tone", "t"),))]))


def test_order_totals_and_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "REGEX_SECONDS", 0.05)
    judge = RuleJudge()
    assert isinstance(judge, Judge)
    short, slow = Criterion("s", "t", rule={"max_words": 1}), Criterion("r", "t", rule={"regex": r"^(a|aa)+$"})
    asyncio.run(judge.check())
    questions = [
        Question("p", "one", (short, slow)),
        Question("p", "a" * 99 + "b", (slow, short)),
        Question("p", "", ()),
    ]
    verdicts = asyncio.run(judge.judge(questions))
    assert [[verdict.value for verdict in row] for row in verdicts] == [[1.0, 0.0], [None, 1.0], []]
    assert verdicts[1][0].reason == "rule"  # out of time is missing, not "not met"
    assert judge.usage() == {"verdicts": 3.0, "missing": 1.0, "missing/rule": 1.0}


def test_catastrophic_patterns_inside_a_schema_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "REGEX_SECONDS", 0.05)
    rule = {"json_schema": {"pattern": r"^(a|aa)+$"}}
    assert decide(rule, json.dumps("a" * 99 + "b")).reason == "rule"


LEAF = {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}
TREES = {
    "oneOf": {"oneOf": [LEAF, {"properties": {"next": {"$ref": "#"}}, "required": ["next"]}]},
    "anyOf in $defs": {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"anyOf": [LEAF, {"required": ["next"], "properties": {"next": {"$ref": "#/$defs/node"}}}]}},
    },
    "not not": {"required": ["next"], "properties": {"next": {"not": {"not": {"oneOf": [LEAF, {"$ref": "#"}]}}}}},
    "if": {"if": LEAF, "else": {"required": ["next"], "properties": {"next": {"anyOf": [LEAF, {"$ref": "#"}]}}}},
}


@pytest.mark.parametrize("schema", TREES.values(), ids=TREES)
def test_a_recursive_schema_takes_no_exponential_time(schema: dict[str, Any]) -> None:
    """2^40 steps where each level is evaluated twice."""
    chain = '{"next": ' * 40
    assert decide({"json_schema": schema}, chain + '{"value": 1}' + "}" * 40).value == 1.0
    assert decide({"json_schema": schema}, chain + '{"value": "one"}' + "}" * 40).value == 0.0


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"items": {"enum": [0, 1]}, "uniqueItems": False}, "[" + "0," * 30_000 + "0]"),
        ({"$ref": "#"}, "1"),
        ({"$dynamicRef": "#"}, "[1]"),
        ({"oneOf": [LEAF, {"properties": {"next": {"$ref": "#"}}}]}, '{"next": ' * 400 + "1" + "}" * 400),
        ({"items": {"pattern": r"^(a|aa)+$"}}, json.dumps(["a" * 99 + "b"] * 500)),
    ],
    ids=["many items", "endless", "endless dynamic", "deep", "many patterns"],
)
def test_too_much_work_is_missing(monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], text: str) -> None:
    monkeypatch.setattr(rules, "REGEX_SECONDS", 0.05)
    verdict = decide({"json_schema": schema}, text)
    assert (verdict.value, verdict.reason) == (None, "rule")


def test_a_completion_that_is_too_long_is_missing() -> None:
    assert decide({"max_words": 1}, "a" * (rules.MAX_CHARS + 1)).reason == "rule"


@pytest.mark.parametrize("marks", ["\u0323\u0307", "\u0344", "\uff9e\uff9f\u3099", "\u0f73\u0345"])
@pytest.mark.parametrize("rule", [{"contains_none": "a b"}, {"contains_any": "x", "case_sensitive": True}])
def test_combining_marks_take_linear_time(marks: str, rule: dict[str, Any]) -> None:
    """Sorting 150,000 of them takes minutes."""
    assert decide(rule, "a" + marks * (300_000 // len(marks)) + " x").value == 1.0


@pytest.mark.parametrize(
    ("phrase", "text", "value"),
    [
        ("a b a", "a " * 500_000, 0.0),
        ("a b a", "a " * 400_000 + "b a", 1.0),
        ("a", "a" * 1_000_000, 0.0),
        ("a", "a" * 900_000 + "\n a.", 1.0),
        ("!a", "!ab" * 300_000, 0.0),
    ],
)
def test_a_phrase_needs_no_time_limit(monkeypatch: pytest.MonkeyPatch, phrase: str, text: str, value: float) -> None:
    """A machine under load decides as a quiet one does."""
    monkeypatch.setattr(rules, "REGEX_SECONDS", 0.0)
    assert decide({"contains_any": phrase}, text).value == value


def test_few_combining_marks_are_letters() -> None:
    assert decide({"contains_any": "caf\u00e9"}, "a cafe\u0301!").value == 1.0
    assert decide({"contains_any": "cafe"}, "a cafe\u0301!").value == 0.0


RECURSIVE = {"items": {"$ref": "#"}, "uniqueItems": True, "multipleOf": 0.3}
RULES = [
    {"contains_none": "a b a", "min_sentences": 1, "max_lines": 3, "max_words": 10**9},
    {"json_schema": RECURSIVE},
    {"json_schema": SCHEMA},
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        "[" * 20_000 + "]" * 20_000,
        "9" * 50_000,
        "[1e308, -1e308, 1e999, 1e-999]",
        "[" + ",".join(f'{{"{i}": []}}' for i in range(5_000)) + "]",
        '{"dose": ' + "9" * 299 + "}",
        "." * 200_000,
        ".'" * 100_000,
        ("." * 50 + '"' * 50) * 2_000,
        "a " * 100_000,
        "a" + " " * 100_000,
        "```" * 30_000,
        "```\n```",
        "```",
        "\ud800\x00\u2028",
    ],
    ids=lambda text: repr(text)[:12],
)
def test_hostile_text_is_decided(rule: dict[str, Any], text: str) -> None:
    """Each takes milliseconds where the work is linear, and minutes where it is not."""
    assert decide(rule, text).value in (0.0, 1.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text() | json_values.map(json.dumps) | st.text(alphabet='.!?\n "`[]{}:,0123456789eE+-a', max_size=300),
    rule=st.sampled_from(
        [*RULES, {"regex": [r"\w+\.", "(?i)a.*b"]}, {"contains_all": ["a", "."], "case_sensitive": True}]
    ),
)
def test_any_text_gets_a_verdict(text: str, rule: dict[str, Any]) -> None:
    assert decide(rule, text).value in (0.0, 1.0)


@pytest.mark.parametrize("text", ["guaran\u200bteed", "\uff47uaranteed", "GUARANTEED", "guar\u00adanteed"])
def test_a_word_is_found_as_a_reader_sees_it(text: str) -> None:
    criterion = Criterion("c", "t", rule={"contains_none": "guaranteed"})
    [[verdict]] = asyncio.run(RuleJudge().judge([Question("p", f"It is {text}.", (criterion,))]))
    assert verdict.value == 0.0
