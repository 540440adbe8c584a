"""Text that a policy could write never raises, and its rewards stay in their ranges."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvpo.rewards.toolcall import correctness_reward, format_reward, length_reward

TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<response>", "</response>"]
REFERENCE = (
    '<think> t </think>\n<tool_call>\n{"name": "f", "parameters": {"a": 1, "b": [2]}}\n'
    '{"name": "g", "parameters": {}}\n</tool_call>'
)
REFERENCES = [
    REFERENCE,
    "<think> t </think>",
    "<think> t </think>\n<response> r </response>",
    "<tool_call>{</tool_call>",
]


def check(reply: str, reference: str = REFERENCE) -> None:
    layout, correct, length = (f(reply, reference) for f in (format_reward, correctness_reward, length_reward))
    assert layout in (0.0, 1.0)
    assert correct is None or -3.0 <= correct <= 3.0
    assert length is not None
    assert 0.0 <= length <= 1.0
    assert [correct] == correctness_reward([[{"role": "assistant", "content": reply}]], [reference])


def block(text: str) -> str:
    return f"<think> t </think>\n<tool_call>\n{text}\n</tool_call>"


CALL = '{"name": "f", "parameters": {"a": %s, "b": [2]}}'

HOSTILE = {
    "nested lists": "[" * 10_000 + "]" * 10_000,
    "nested lists, open": "[" * 10_000,
    "nested objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "nested parameter": CALL % ("[" * 10_000 + "]" * 10_000),
    "nested below the bound": CALL % ("[" * 890 + "]" * 890),
    "digits": "7" * 3_000_000,
    "digits that fit": CALL % ("7" * 60_000),
    "decimals": CALL % ("0." + "7" * 60_000),
    "huge float": CALL % "-1e999999999",
    "constants": CALL % "[NaN, Infinity, -Infinity]",
    "lone surrogate": CALL % '"\ud800"',
    "escaped lone surrogate": CALL % r'"\ud800"',
    "surrogate name": '{"name": "\udfff", "parameters": {}}',
    "NUL": CALL % '"\0"',
    "only NUL": "\0" * 1000,
    "unhashable names": '{"name": ["f"], "parameters": {}}\n{"name": {"f": 1}, "parameters": {}}',
    "names of every type": "\n".join(
        f'{{"name": {n}, "parameters": {{}}}}' for n in ("null", "true", "1", "1.5", "NaN")
    ),
    "duplicated keys": '{"name": "f", "name": "f", "parameters": 1, "parameters": {"a": 1, "a": 2}}',
    "many calls": "\n".join([CALL % 1] * 5000),
    "many calls that fit": "\n".join([CALL % i for i in range(60)]),
    "many scalars": "1\n" * 30_000,
    "many keys": CALL % json.dumps({str(i): i for i in range(5000)}),
    "open quotes": '\\"' * 30_000,
    "open quotes, deep": "[" * 1000 + '\\"' * 30_000,
    "backslashes": '"' + "\\" * 60_000,
    "byte order mark": "\ufeff" + CALL % 1,
    "line separators": (CALL % 1) + "\u2028" + (CALL % 2),
    "tags": "".join(TAGS) * 20_000,
    "think ends": "</think>\n" * 100_000,
    "white space": "\u3000" * 500_000,
    "words": "w " * 500_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_families(text: str) -> None:
    for reply in (text, block(text), f"<think>{text}</think>", f"<think>{text}"):
        check(reply)
    check(block("{}"), block(text[:100_000]))  # the same as a reference
    check(block(text[:100_000]), block(text[:100_000]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["f", "g", 1, True]) | JSON
CALLS = st.one_of(
    st.fixed_dictionaries({"name": NAMES, "parameters": st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)}),
    st.fixed_dictionaries({"name": NAMES}, optional={"parameters": JSON}),
    JSON,
)
BLOCKS = st.lists(CALLS.map(json.dumps), min_size=1, max_size=4).map("\n".join).map(block)
ANY_TEXT = st.text(st.characters(), max_size=30)  # lone surrogates and NUL included
SOUP = st.lists(st.sampled_from([*TAGS, "\n", CALL % 1, "{", '"', "\ud800", "\0"]) | ANY_TEXT, max_size=12).map("".join)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reply=BLOCKS | SOUP | ANY_TEXT, reference=BLOCKS | SOUP | st.sampled_from(REFERENCES))
def test_any_text_is_in_range(reply: str, reference: str) -> None:
    check(reply, reference)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reply=BLOCKS)
def test_a_reference_scores_full_marks_on_itself(reply: str) -> None:
    # NaN included: containers compare identity first, and json makes one NaN object.
    assert correctness_reward(reply, reply) == 3.0
    assert format_reward(reply, reply) == 1.0


def test_seeded_edits_of_a_right_reply() -> None:
    rng = random.Random(0)
    pieces = [*TAGS, "\n", " ", "{", "}", "[", "]", '"', "\\", ",", ":", "0", "e", "\0", "\ud800", "\u2028", "name"]
    for _ in range(4000):
        text = REFERENCE
        for _ in range(rng.randint(1, 6)):
            start = rng.randrange(len(text) + 1)
            text = text[:start] + rng.choice(["", *pieces]) + text[start + rng.randint(0, 3) :]
        check(text, rng.choice(REFERENCES))
