"""``RubricReward`` by itself: what it makes of a judge's answers, good and bad, and of chats."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from rvpo.core.ragged import Score
from rvpo.errors import ConfigError, DataError, JudgeError
from rvpo.judges import EndpointJudge, MixedJudge, RuleJudge
from rvpo.rewards.rubric import Criterion, Question, Rubric, RubricReward, Verdict
from rvpo.rewards.rubric.reward import too_many_missing
from rvpo.rewards.rubric.texts import chat, completion_text

RUBRIC = Rubric(
    (Criterion("a", "Is kind.", points=3.0, category="essential"), Criterion("b", "Is rude.", points=-1.0))
).to_json()


class Says:
    """Gives one answer to every criterion, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.questions = answer, []

    async def judge(self, questions: list[Question]) -> Any:
        self.questions += questions
        if isinstance(self.answer, Exception):
            raise self.answer
        return [[self.answer for _ in question.criteria] for question in questions]

    async def check(self) -> None: ...

    def usage(self) -> dict[str, float]:
        return {}


def ask(judge: Any, **options: Any) -> tuple[list[float | None], list[list[Score]]]:
    reward = RubricReward(judge, **options)
    return asyncio.run(reward(["p"], ["c"], rubric=[RUBRIC])), reward.latest


def test_scores_are_after_polarity_and_the_value_is_their_weighted_mean():
    values, [[kind, rude]] = ask(Says(Verdict(0.75)))
    assert (kind.value, rude.value) == (0.75, 0.25)
    assert values == [pytest.approx((3 * 0.75 + 1 * 0.25) / 4)]
    assert (kind.weight, rude.weight) == (1.0, 1.0)
    assert kind.labels == ("essential",)
    _, [[kind, rude]] = ask(Says(Verdict(1.0)), weighting="points")
    assert (kind.weight, rude.weight) == (1.5, 0.5)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Verdict.missing("timeout"), "timeout"),
        (Verdict(0.0, reason="refused"), "refused"),
        (Verdict(None), "judge"),
        (Verdict(math.nan), "malformed"),
        (Verdict(1.5), "malformed"),
        (Verdict(-0.1), "malformed"),
        (Verdict("1"), "malformed"),
        (None, "malformed"),
        (RuntimeError("boom"), "judge"),
        (JudgeError("disk is full"), "judge"),
    ],
)
def test_what_is_no_verdict_is_missing_never_a_reward(answer: Any, reason: str):
    values, [scores] = ask(Says(answer))
    assert values == [None]
    assert [(score.value, score.reason) for score in scores] == [(None, reason)] * 2


def test_a_score_remembers_nothing():
    """So calls may overlap; the call itself keeps its scores for the trainer."""
    reward = RubricReward(Says(Verdict(0.75)))
    called = asyncio.run(reward(["p"], ["c"], rubric=[RUBRIC]))
    kept = reward.latest
    totals, rows = asyncio.run(reward.score(["p", "q"], ["c", "d"], [RUBRIC, None]))
    assert (totals, rows) == ([*called, None], [*kept, []])
    assert reward.latest is kept


def test_the_cause_of_our_own_errors_is_told():
    _, [[score, _]] = ask(Says(JudgeError("disk is full")))
    assert score.detail == "disk is full"
    _, [[score, _]] = ask(MixedJudge({"model": Says(JudgeError("disk is full"))}, default="model"))
    assert score.detail == "model: disk is full"


def test_too_few_verdicts_are_missing():
    class Short(Says):
        async def judge(self, questions: list[Question]) -> list[list[Verdict]]:
            return [[Verdict(1.0)] for _ in questions]

    assert ask(Short(None))[0] == [None]


def test_a_mistake_in_the_rubric_is_an_error():
    with pytest.raises(ConfigError, match="no such rule"):
        ask(Says(ConfigError("no such rule")))


def test_half_surrogates_do_not_reach_the_tables():
    _, [[score, _]] = ask(Says(Verdict(1.0, detail="a \ud800")))
    assert score.detail == "a ?"


def test_the_implicit_score_is_one_question_about_all_criteria():
    judge = Says(Verdict(0.5))
    values, [[score]] = ask(judge, aggregation="implicit")
    assert values == [0.5]
    [criterion] = judge.questions[0].criteria
    assert criterion.scale == (1, 10)
    assert "- (+3 points if true) Is kind.\n- (-1 points if true) Is rude." in criterion.text
    assert score.channel == "overall"


def test_pitfalls_worded_as_avoided_are_told_to_the_implicit_judge():
    rubric = Rubric((Criterion("a", "Avoids slang.", points=-2.0, polarity="good"),)).to_json()
    judge = Says(Verdict(0.5))
    asyncio.run(RubricReward(judge, aggregation="implicit")(["p"], ["c"], rubric=[rubric]))
    assert "- (2 points if true) Avoids slang." in judge.questions[0].criteria[0].text


# --- when to stop -----------------------------------------------------------------------------------------------------


def scores(missing: int, had: int, judge: str | None = None) -> list[Score]:
    return [Score("a", None, reason="server", judge=judge)] * missing + [Score("a", 1.0, judge=judge)] * had


def test_rules_do_not_hide_a_dead_judge():
    """61 of 423 criteria are judged in the shipped set: over all of them the share could never reach 25%."""
    rows = [[*scores(2, 0), *scores(0, 20, "rule")], scores(0, 20, "rule")]
    message = too_many_missing(rows, 0.25)
    assert message is not None
    assert message.startswith("2 of 2 verdicts are missing (server 2); expected at most 25%")


@pytest.mark.parametrize(("missing", "had", "stops"), [(1, 3, False), (2, 3, True), (0, 0, False), (0, 4, False)])
def test_above_the_share_not_at_it(missing: int, had: int, stops: bool):
    assert (too_many_missing([scores(missing, had)], 0.25) is not None) == stops


# --- before training --------------------------------------------------------------------------------------------------


def test_a_single_judge_refuses_what_it_would_not_look_at():
    rubric = Rubric((Criterion("a", "Is short.", rule={"max_words": 3}),)).to_json()
    single = EndpointJudge(model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match=r"row 1, column 'rubric': criterion 'a' has a rule, .*load_judge"):
        RubricReward(single).check_rubrics([None, rubric])
    RubricReward(MixedJudge({"rule": RuleJudge(), "model": single}, default="model")).check_rubrics([rubric, RUBRIC])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([{"criteria": []}], "row 0, column 'rubric': rubric: {'criteria': .*is a dict; expected text"),
        (["{}"], "expected a list of at least one criterion"),
        ([RUBRIC, "x"], "row 1, column 'rubric': rubric: 'x' is not JSON"),
    ],
)
def test_malformed_rubrics_name_their_row(column: list, message: str):
    with pytest.raises(DataError, match=message):
        RubricReward(Says(None)).check_rubrics(column)


def test_a_category_without_weight_is_found():
    with pytest.raises(ConfigError, match=r"row 0, .*no weight for the category None of criterion 'b'"):
        RubricReward(Says(None), weighting={"essential": 1.0}).check_rubrics([RUBRIC])


def test_no_such_column():
    reward = RubricReward(Says(None))
    with pytest.raises(DataError, match=r"needs the column 'rubric', but the data has \['answer'\]"):
        asyncio.run(reward(["p"], ["c"], answer=["x"]))


# --- chats ------------------------------------------------------------------------------------------------------------

CALL = {"function": {"name": "look", "arguments": {"at": "é"}}}


def test_the_judge_sees_calls_and_no_tool_output_as_the_reply():
    completion = [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "TOOL RESULT"},
        {"role": "assistant", "content": [{"type": "text", "text": "Done."}, {"type": "image"}]},
    ]
    text = '[{"function": {"name": "look", "arguments": {"at": "é"}}}]\nDone.\n[image]'
    assert completion_text(completion) == text
    assert completion_text("plain") == "plain"


@pytest.mark.parametrize("message", [{}, {"role": None, "content": 3}, "text", {"content": [1, {"text": 2}]}, None])
def test_any_message_is_text(message: Any):
    [(role, text)] = chat([message])
    assert isinstance(role, str)
    assert isinstance(text, str)
