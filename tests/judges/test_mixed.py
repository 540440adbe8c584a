"""The mixed judge: routing, order, parallel work, and a judge that raises."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from rvpo.errors import ConfigError, JudgeError
from rvpo.judges.mixed import MixedJudge
from rvpo.judges.rule import RuleJudge
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import Judge, Question, Verdict


class Fixed:
    """Answers ``value`` with the asked criterion's id as detail, or raises ``error``."""

    def __init__(self, value: float = 0.5, error: Exception | None = None) -> None:
        self.value, self.error = value, error
        self.asked: list[tuple[str, list[str]]] = []

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        self.asked += [
            (question.completion, [criterion.id for criterion in question.criteria]) for question in questions
        ]
        if self.error:
            raise self.error
        return [[Verdict(self.value, None, criterion.id) for criterion in question.criteria] for question in questions]

    async def check(self) -> None:
        if self.error:
            raise self.error

    def usage(self) -> dict[str, float]:
        return {"calls": float(len(self.asked))}


PLAIN = Criterion("plain", "t")
NAMED = Criterion("named", "t", judge="other")
RULE = Criterion("rule", "t", rule={"max_words": 2})
RULE_NAMED = Criterion("rule-named", "t", rule={"max_words": 2}, judge="main")
QUESTIONS = [Question("p", "one", (PLAIN, RULE, NAMED, RULE_NAMED)), Question("p", "one two three", (RULE, PLAIN))]


def test_each_criterion_goes_to_its_judge_and_the_order_is_kept() -> None:
    main, other = Fixed(0.25), Fixed(0.75)
    judge = MixedJudge({"main": main, "other": other, "rule": RuleJudge()}, default="main")
    assert isinstance(judge, Judge)
    verdicts = asyncio.run(judge.judge(QUESTIONS))
    assert [[verdict.value for verdict in row] for row in verdicts] == [[0.25, 1.0, 0.75, 0.25], [0.0, 0.25]]
    assert [verdict.detail for verdict in verdicts[0]] == ["plain", None, "named", "rule-named"]
    assert main.asked == [("one", ["plain", "rule-named"]), ("one two three", ["plain"])]  # one call for all questions
    assert other.asked == [("one", ["named"])]


@pytest.mark.parametrize("error", [RuntimeError("boom"), JudgeError("no server")])
def test_a_judge_that_raises_loses_only_its_own_verdicts(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    judge = MixedJudge({"main": Fixed(), "other": Fixed(error=error), "rule": RuleJudge()}, default="main")
    with caplog.at_level(logging.ERROR, "rvpo.judges.mixed"):
        for _ in range(3):
            verdicts = asyncio.run(judge.judge(QUESTIONS))
    assert [[verdict.value for verdict in row] for row in verdicts] == [[0.5, 1.0, None, 0.5], [0.0, 0.5]]
    assert verdicts[0][2].reason == "judge"
    assert [record.exc_info is not None for record in caplog.records] == [True]  # once, with its traceback


def test_a_judge_that_leaves_verdicts_out_has_none() -> None:
    class Short(Fixed):
        async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
            return [[] for _ in questions]

    verdicts = asyncio.run(MixedJudge({"main": Short()}, default="main").judge([Question("p", "c", (PLAIN,))]))
    assert verdicts[0][0].reason == "judge"


def test_the_judges_work_at_the_same_time() -> None:
    gate = asyncio.Barrier(2)

    class Meets(Fixed):
        async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
            await asyncio.wait_for(gate.wait(), timeout=600)  # passes only when both are asked
            return await super().judge(questions)

    judge = MixedJudge({"main": Meets(), "other": Meets()}, default="main")
    verdicts = asyncio.run(judge.judge([Question("p", "c", (PLAIN, NAMED))]))
    assert [verdict.value for verdict in verdicts[0]] == [0.5, 0.5]


def test_criteria_without_a_judge_are_mistakes() -> None:
    with pytest.raises(ConfigError, match="'named' goes to the judge 'other'; expected one of main, rule"):
        asyncio.run(MixedJudge({"main": Fixed(), "rule": RuleJudge()}, default="main").judge(QUESTIONS))
    with pytest.raises(ConfigError, match="'rule' goes to the judge 'rule'; expected one of main"):
        asyncio.run(MixedJudge({"main": Fixed()}).judge([Question("p", "c", (RULE,))]))
    with pytest.raises(ConfigError, match=r"'plain' has neither judge nor rule.*one of main"):
        asyncio.run(MixedJudge({"main": Fixed()}).judge([Question("p", "c", (PLAIN,))]))
    with pytest.raises(ConfigError, match="default is 'mian'; expected one of the judges main"):
        MixedJudge({"main": Fixed()}, default="mian")
    with pytest.raises(ConfigError, match="judges is empty"):
        MixedJudge({})
    bad_rule = Criterion("r", "t", rule={"max_wrods": 2})
    with pytest.raises(ConfigError, match="did you mean 'max_words'"):
        asyncio.run(MixedJudge({"rule": RuleJudge()}).judge([Question("p", "c", (bad_rule,))]))


def test_check_asks_all_judges() -> None:
    asyncio.run(MixedJudge({"main": Fixed(), "other": Fixed()}).check())
    with pytest.raises(JudgeError, match="no server"):
        asyncio.run(MixedJudge({"main": Fixed(), "other": Fixed(error=JudgeError("no server"))}).check())


def test_one_judge_beside_the_rules_keeps_plain_usage_keys() -> None:
    rule_keys = {f"rule/{key}" for key in RuleJudge().usage()}
    assert set(MixedJudge({"main": Fixed(), "rule": RuleJudge()}).usage()) == {"calls", *rule_keys}
    assert set(MixedJudge({"rule": RuleJudge()}).usage()) == rule_keys
    several = MixedJudge({"main": Fixed(), "other": Fixed(), "rule": RuleJudge()})
    assert set(several.usage()) == {"main/calls", "other/calls", *rule_keys}


def test_criteria_are_looked_at_before_training():
    mixed = MixedJudge({"rule": RuleJudge(), "model": Fixed()}, default="model")
    mixed.check_criteria((Criterion("a", "x"), Criterion("b", "y", rule={"max_words": 3})))
    with pytest.raises(ConfigError, match="max_wrods"):
        mixed.check_criteria((Criterion("b", "y", rule={"max_wrods": 3}),))
    with pytest.raises(ConfigError, match="goes to the judge 'strict'"):
        mixed.check_criteria((Criterion("b", "y", judge="strict"),))
    with pytest.raises(ConfigError, match="criterion 'b' has no rule"):
        mixed.check_criteria((Criterion("b", "y", judge="rule"),))
