"""The tool-calling rewards on values worked by hand; the derivation stands at each.

With ``sim`` = shared / (a + b - shared): reward = 6 * score / maximum - 3, where score = sim(names) + for each wanted
call (sim(keys) + equal values of its best unused namesake) and maximum = 1 + for each wanted call (1 + its keys).
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import pytest

from rvpo.errors import RewardError
from rvpo.rewards import toolcall
from rvpo.rewards.toolcall import correctness_reward, format_reward, length_reward

ALL = [format_reward, correctness_reward, length_reward]


def block(*lines: str) -> str:
    return "<think> t </think>\n<tool_call>\n" + "\n".join(lines) + "\n</tool_call>"


def call(name: Any, **parameters: Any) -> str:
    return json.dumps({"name": name, "parameters": parameters})


# --- correctness ---------------------------------------------------------------------------------------------------

TWO = block(call("add", a=1, b=2), call("add", a=3, b=4))

WORKED = {
    "exact": (block(call("add", a=1)), block(call("add", a=1)), 3.0),
    "other key order is still equal": (block('{"parameters": {}, "name": "f"}'), block(call("f")), 3.0),
    "True == 1": (block(call("f", a=True)), block(call("f", a=1)), 3.0),
    # sim(names) = 0, no namesake; maximum = 1 + (1 + 1) = 3: 6 * 0 / 3 - 3.
    "wrong name": (block(call("sub", a=1)), block(call("add", a=1)), -3.0),
    # sim(names) = 1 / (1 + 2 - 1) = 1/2; add: sim(keys) = 1, 1 equal; score = 2.5 of 3: 5 - 3.
    "one call too many": (block(call("add", a=1), call("sub")), block(call("add", a=1)), 2.0),
    # The names as multisets: (add, add, sub) against (add, sub, sub) share 2: 2 / 4. The first add
    # earns 1 of 1, the second has no namesake left, sub earns 1 of 1: score = 2.5; maximum = 1 + 3 * 1 = 4: 3.75 - 3.
    "multiset of names": (
        block(call("add"), call("sub"), call("sub")),
        block(call("add"), call("add"), call("sub")),
        0.75,
    ),
    # sim(names) = 1; keys (a, b) against (b, c): 1/3; b equal: score = 1 + 1/3 + 1 = 7/3; maximum = 1 + 1 + 2 = 4.
    "partial parameters": (
        block(call("f", b=2, c=3)),
        block(call("f", a=1, b=2)),
        6.0 * (1.0 + (1 / 3 + 1)) / 4.0 - 3.0,
    ),
    # sim(names) = 1, sim(keys) = 1, no value equal: 2 of 3: 4 - 3.
    "wrong value": (block(call("f", a="1")), block(call("f", a=1)), 1.0),
    # Both without parameters differ only in a third field: 1 + 1 = 2 of 2.
    "no parameters, another field": (block('{"name": "f", "parameters": {}, "id": 1}'), block(call("f")), 3.0),
    # sim(names) = 1; keys () against (a): 0, so the namesake earns nothing: 1 of 3: 2 - 3.
    "parameters missing": (block(call("f")), block(call("f", a=1)), -1.0),
    # Order matters for equality only: names equal as lists, each call finds its twin: 1 + 3 + 3 of 7.
    "other order": (block(call("add", a=3, b=4), call("add", a=1, b=2)), TWO, 3.0),
    # Greedy, not optimal: wanted (a=1), (a=1, b=2); predicted (a=1, b=2), (a=1). The first wanted call compares
    # 1/2 + 1 with 1 + 1 and takes the second; the second takes the first: 1 + 2 + 3 of 6.
    "greedy takes the best": (
        block(call("f", a=1, b=2), call("f", a=1)),
        block(call("f", a=1), call("f", a=1, b=2)),
        3.0,
    ),
    # Wanted (a=1, b=2), (a=1); predicted (a=1), (b=2): the first wanted call ties at 1/2 + 1 and keeps the earlier, so
    # the second gets (b=2), worth 0: 1 + 1.5 of 6. The other assignment would score 1 + 1.5 + 2.
    "greedy is not optimal": (
        block(call("f", a=1), call("f", b=2)),
        block(call("f", a=1, b=2), call("f", a=1)),
        6.0 * 2.5 / 6.0 - 3.0,
    ),
    # Wanted (a=1), (b=1); predicted (b=1). sim(names) = 1 / 2. The first wanted call finds it worth 0, so it stays
    # unused and earns the second 2: 2.5 of 1 + 2 + 2.
    "a worthless match stays unused": (
        block(call("f", b=1)),
        block(call("f", a=1), call("f", b=1)),
        6.0 * 2.5 / 5.0 - 3.0,
    ),
    # A call without "parameters" costs only its name unless that name is wanted: 1/2 + 2 of 3.
    "lazy: unwanted name": (block(call("f", a=1), '{"name": "g"}'), block(call("f", a=1)), 2.0),
    "lazy: wanted name": (block(call("f", a=1), '{"name": "f"}'), block(call("f", a=1)), -3.0),
    "parameters no object": (block('{"name": "f", "parameters": [1]}'), block(call("f", a=1)), -3.0),
    "no name": (block('{"parameters": {}}'), block(call("f")), -3.0),
    "a list is no call": (block("[1]"), block(call("f")), -3.0),
    # Unhashable names that are equal lists need no counting: 1 + (sim of no keys = 1) of 2; unequal ones cannot be.
    "unhashable, equal": (block('{"name": ["f"], "parameters": {}, "x": 0}'), block(call(["f"])), 3.0),
    "unhashable, unequal": (block(call(["g"])), block(call(["f"])), -3.0),
    # NaN != NaN: sim(names) = 1, sim(keys) = 1/2, nothing equal: 1.5 of 3. Inside lists it is equal to itself, because
    # containers compare identity first.
    "NaN": (block(call("f", a=float("nan"), b=1)), block(call("f", a=float("nan"))), 6.0 * 1.5 / 3.0 - 3.0),
    "NaN in a list": (block(call("f", a=[float("nan")])), block(call("f", a=[float("nan")])), 3.0),
    "huge float is infinity": (
        block('{"name": "f", "parameters": {"a": 1e999}}'),
        block(call("f", a=float("inf"))),
        3.0,
    ),
    "the last duplicate key counts": (block('{"name": "g", "name": "f", "parameters": {}}'), block(call("f")), 3.0),
    "not JSON": (block("add(1)"), block(call("f")), -3.0),
    "one bad line": (block(call("f"), "x"), block(call("f")), -3.0),
    "empty line": (block(call("f"), "", call("f")), block(call("f")), -3.0),
    "nothing between the tags": (block(""), block(call("f")), -3.0),
    "no opening tag": (call("f") + "</tool_call>", block(call("f")), -3.0),
    "no closing tag": ("<tool_call>" + call("f"), block(call("f")), -3.0),
    # Only the first opening tag counts, up to the first closing tag or the second opening one.
    "tags need no order": ("</tool_call><tool_call>" + call("f"), block(call("f")), 3.0),
    "first block counts": (block(call("f")) + block(call("g")), block(call("f")), 3.0),
    "second opening tag": ("<tool_call>" + call("f") + "<tool_call> x </tool_call>", block(call("f")), 3.0),
    "reference without a call": (block(call("f")), "<think> t </think>", 0.0),
    "reference without a call, reply broken": ("<tool_call>", "<think> t </think>\n<response> r </response>", 0.0),
    # A reference that is JSON but no call can still be met exactly.
    "odd reference, met": (block("5"), block("5"), 3.0),
    "odd reference, unmet": (block("6"), block("5"), -3.0),
    # Its parameters need a length only, until a namesake is predicted: 0 of 1 + 1 + 2.
    "reference parameters a list": (block(call("g")), block('{"name": "f", "parameters": [1, 2]}'), -3.0),
}


@pytest.mark.parametrize(("reply", "reference", "expected"), WORKED.values(), ids=WORKED.keys())
def test_correctness_worked_by_hand(reply: str, reference: str, expected: float) -> None:
    assert correctness_reward(reply, reference) == expected


@pytest.mark.parametrize("line", ["f(1)", "", "{", "1" * 4301, "[" * 5000])
@pytest.mark.parametrize("reply", [block(call("f")), "", "<tool_call>"])
def test_an_unparsable_reference_is_missing_not_zero(line: str, reply: str) -> None:
    assert correctness_reward(reply, block(line)) is None
    assert correctness_reward([reply, "x"], [block(line), "no call"]) == [None, 0.0]


def test_a_reference_whose_thought_names_the_tag_is_missing() -> None:
    # The first opening tag counts, here the one inside the thought. Distilled references of RLLA hold such thoughts.
    reference = block(call("f")).replace(" t ", " I need <tool_call> tags. ")
    assert correctness_reward(reference, reference) is None


def test_limits_are_exact() -> None:
    reference = block(call("f"))
    calls = toolcall.MAX_CALLS
    # names 1 / calls, f 1 of 1: (1 / calls + 1) of 2.
    assert correctness_reward(block(*[call("f")] * calls), reference) == 6.0 * (1 / calls + 1) / 2.0 - 3.0
    assert correctness_reward(block(*[call("f")] * (calls + 1)), reference) == -3.0

    room = toolcall.MAX_BLOCK_CHARS - len(call("f", a=""))
    assert correctness_reward(block(call("f", a="x" * room)), block(call("f", a="x" * room))) == 3.0
    assert correctness_reward(block(call("f", a="x" * (room + 1))), reference) == -3.0
    # Only the block is limited: the thought may be longer than any call.
    assert correctness_reward("x" * 1_000_000 + reference, reference) == 3.0


def test_nesting_is_counted_outside_strings() -> None:
    depth = toolcall.MAX_NESTING
    assert not toolcall._too_deep("[" * depth + "]" * depth)
    assert toolcall._too_deep("[" * (depth + 1))
    assert not toolcall._too_deep("[" + "[]," * depth + "1]")
    assert not toolcall._too_deep(json.dumps("[" * 5000 + '"\\'))
    assert not toolcall._too_deep('"' + "[" * 5000)


def test_nesting_and_digits_stay_bounded_where_a_library_lifted_pythons_limits() -> None:
    recursion, digits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    try:
        sys.setrecursionlimit(1_000_000)
        sys.set_int_max_str_digits(0)
        assert correctness_reward(block("[" * 60_000), block("1")) == -3.0
        assert correctness_reward(block("-" + "1" * 4301), block("-" + "1" * 4301)) is None
        assert correctness_reward(block("-" + "1" * 4300), block("-" + "1" * 4300)) == 3.0
    finally:
        sys.setrecursionlimit(recursion)
        sys.set_int_max_str_digits(digits)


# --- format --------------------------------------------------------------------------------------------------------

THINK = "<think> t </think>"
RESPONSE = "<think> t </think>\n<response> r </response>"
CALL = "<think> t </think>\n<tool_call>\n{}\n</tool_call>"
BOTH = "<think> t </think>\n<tool_call>\n{}\n</tool_call>\n<response> r </response>"


@pytest.mark.parametrize("reference", [THINK, RESPONSE, CALL, BOTH])
@pytest.mark.parametrize("reply", [THINK, RESPONSE, CALL, BOTH])
def test_format_wants_the_layout_of_the_reference(reply: str, reference: str) -> None:
    assert format_reward(reply, reference) == float(reply == reference)


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        (f" \n{CALL}\n\n", CALL, 1.0),  # surrounding white space is no part of the reply
        ("x" + CALL, CALL, 0.0),
        (CALL + "x", CALL, 0.0),
        (CALL.replace("\n<tool", " <tool"), CALL, 0.0),
        ("<think></think>\n<tool_call>\n\n</tool_call>", CALL, 1.0),
        ("<think></think>\n<tool_call>\n</tool_call>", CALL, 0.0),  # one newline cannot be both
        (CALL.replace("{}", "<tool_call>"), CALL, 0.0),
        (CALL.replace(" t ", "</tool_call>"), CALL, 0.0),
        (CALL.replace(" t ", "<response></response></response>"), CALL, 1.0),  # tags the layout lacks are text
        (BOTH.replace(" r ", "</response>"), BOTH, 0.0),
        (BOTH.replace("</tool_call>\n", "</tool_call>"), BOTH, 0.0),
        # Think tags are not counted, wherever they stand.
        (RESPONSE.replace(" t ", "<think></think>"), RESPONSE, 1.0),
        (RESPONSE.replace(" r ", "</think>"), RESPONSE, 1.0),
        ("<think></think></think>", THINK, 1.0),
        ("<think>", THINK, 0.0),
        ("</think>", THINK, 0.0),
        (THINK, "no tags at all", 1.0),
        ("", "", 0.0),
    ],
)
def test_format_corners(reply: str, reference: str, expected: float) -> None:
    assert format_reward(reply, reference) == expected


# --- length --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("<think></think>", 0.0),
        ("<think> one </think>", 0.0),  # 1 / 512 = 0.00195
        ("<think> one two three </think>", 0.01),  # 3 / 512 = 0.00586
        (f"<think>{'w ' * 128}</think> and more words", 0.25),
        (f"<think>{'w ' * 509}</think>", 0.99),  # 0.99414
        (f"<think>{'w ' * 510}</think>", 1.0),  # 0.99609
        (f"<think>{'w ' * 5000}</think>", 1.0),
        (f"<think>{'w ' * 256}", 0.0),
        (f"{'w ' * 256}</think>", 0.0),
        (f"<think>a<think>{'w ' * 256}</think> b </think>", 0.5),  # from the last opening tag
        (f"</think><think>{'w ' * 256}", 0.5),  # the tags need no order
    ],
)
def test_length(reply: str, expected: float) -> None:
    assert length_reward(reply, "any reference") == expected


# --- one pair, or N as TRL passes them -------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", ALL)
def test_strings_chats_and_single_replies_agree(reward: Any) -> None:
    replies = [CALL, RESPONSE, "", f"\n{CALL} "]
    answers = [CALL, CALL, RESPONSE, CALL]
    expected = [reward(reply, answer) for reply, answer in zip(replies, answers, strict=True)]
    chats = [[{"role": "assistant", "content": reply}] for reply in replies]
    parts = [
        [{"role": "assistant", "content": [{"type": "text", "text": reply[:5]}, {"type": "text", "text": reply[5:]}]}]
        for reply in replies
    ]
    # TRL passes the other columns and its helpers by keyword.
    others = {"prompts": [""] * 4, "completion_ids": [[]] * 4, "trainer_state": None, "log_metric": print}
    for completions in (replies, chats, parts):
        assert reward(completions=completions, answer=answers, **others) == expected
    assert reward([], []) == []


def test_content_may_be_none_absent_or_hold_other_parts() -> None:
    image = {"type": "image"}
    completions = [
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "tool_calls": []}],
        [{"role": "assistant", "content": [image, {"type": "text", "text": CALL}]}],
        [{"role": "assistant", "content": CALL}, {"role": "tool", "content": "result"}],
    ]
    assert format_reward(completions, [CALL] * 4) == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("reward", ALL)
@pytest.mark.parametrize(
    ("completions", "answer", "message"),
    [
        (["a", "b"], ["x"], r"2 completions but 1 answers; pass one answer per completion"),
        ("a", ["x"], r"completions is str and answer list; pass two strings, or two lists of the same length"),
        (["a"], "x", r"completions is list and answer str"),
        (None, None, r"completions is NoneType and answer NoneType"),
        (["a"], [None], r"answer\[0\] is NoneType; pass the reference reply as a string"),
        (["a", 3], ["x", "x"], r"completions\[1\] is int 3; pass a string or a chat"),
        ([[]], ["x"], r"completions\[0\] is list \[\]; pass a string or a chat"),
        ([[{"content": 3}]], ["x"], r"completions\[0\] is list \[\{'content': 3\}\]"),
        ([[{"content": ["a"]}]], ["x"], r"completions\[0\] is list"),
    ],
)
def test_programming_errors_say_what_was_seen(reward: Any, completions: Any, answer: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        reward(completions, answer)


@pytest.mark.parametrize("reward", ALL)
def test_trl_can_call_it_by_keyword_and_name_the_channel(reward: Any) -> None:
    assert list(inspect.signature(reward).parameters) == ["completions", "answer", "_"]
    assert reward.__name__.endswith("_reward")
