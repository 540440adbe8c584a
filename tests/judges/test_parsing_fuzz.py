"""The reader of answers is total: a verdict that the answer holds, or MalformedError, in bounded time."""

from __future__ import annotations

import contextlib
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rvpo.judges.parsing import MAX_ANSWER_CHARS, MalformedError, read_met, read_object

PIECES = st.sampled_from(
    ['{"criteria_met": true}', '{"criteria_met": false}', "{", "}", '"', "\\", '\\"', "[", "]", ":", ",", "\n", "```",
     "```json", "<think>", "</think>", '"criteria_met"', "true", "null", "1e999", "\\ud800", "\x00", "é", "word "]
)  # fmt: skip
ANSWERS = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join))


@settings(max_examples=1000, deadline=None)
@given(ANSWERS, ANSWERS)
def test_no_answer_and_no_completion_breaks_it(answer: str, completion: str):
    try:
        value = read_met(read_object(answer, ("criteria_met",), completion)["criteria_met"])
    except MalformedError:
        return
    assert value in (0.0, 1.0)
    assert '"criteria_met"' in answer, "a verdict that the judge did not write"


@settings(max_examples=300, deadline=None)
@given(ANSWERS, st.booleans())
def test_a_well_formed_answer_gives_its_own_verdict_whatever_it_explains(explanation: str, verdict: bool):
    answer = json.dumps({"explanation": explanation, "criteria_met": verdict})
    if explanation.count("</think>") or len(answer) > MAX_ANSWER_CHARS:
        return
    assert read_object(answer, ("criteria_met",), explanation)["criteria_met"] is verdict


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=6).map("".join))
@example('{"')
@example('{"{')
@example('{"a":')
@example('{"a":"\\')
@example("```")
@example("<think>")
def test_repetition_costs_no_more_than_length(piece: str):
    """An answer of the greatest length, made of anything repeated, is read in a bounded number of passes."""
    answer = (piece * (MAX_ANSWER_CHARS // len(piece) + 1))[:MAX_ANSWER_CHARS]
    with contextlib.suppress(MalformedError):
        read_object(answer, ("criteria_met",), "")
