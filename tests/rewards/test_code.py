"""CodeReward: channels, groups, single rewards, what is missing, the cache and the totals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rvpo.errors import ConfigError, DataError, JudgeError
from rvpo.rewards.code import CodeReward
from rvpo.rewards.registry import gives_channels, load_reward, needed_arguments
from rvpo.sandbox import Limits, Outcome, Test

GOOD = "I add one.\n```python\ndef f(x):\n    return x + 1\n```\n"
HALF = "```python\ndef f(x):\n    return 2\n```"
TESTS = ["assert f(1) == 2", "assert f(2) == 3"]


class Told:
    """A sandbox that answers by a table of (word in the program, word in the test) and keeps what it was asked."""

    def __init__(self, **outcomes: bool | None) -> None:
        self.outcomes = outcomes
        self.asked: list[tuple[str, str]] = []

    def identity(self) -> dict[str, Any]:
        return {"kind": "told"}

    async def run(self, program: str, tests: Sequence[Test], limits: Limits) -> list[Outcome]:
        self.asked += [(program, test.code) for test in tests]
        found = []
        for test in tests:
            passed = next((value for word, value in self.outcomes.items() if word in test.code + program), True)
            found.append(Outcome(passed, "passed" if passed else "sandbox" if passed is None else "assert", "", 0.5))
        return found


def score(reward: CodeReward, completions: Sequence[Any], **columns: Any) -> list[float | None]:
    return asyncio.run(reward(["Write f."] * len(completions), completions, **columns))


def values(reward: CodeReward) -> list[list[float | None]]:
    return [[score.value for score in row] for row in reward.latest]


def test_every_test_is_a_channel_and_prompts_may_have_other_numbers():
    reward = CodeReward("mbpp", sandbox="unsafe-subprocess")
    totals = score(reward, [GOOD, HALF, "no", GOOD], test_list=[TESTS, TESTS, TESTS, TESTS[:1]], other=[1, 2, 3, 4])
    assert totals == [1.0, 0.5, 0.0, 1.0]
    assert values(reward) == [[1, 1], [1, 0], [0, 0], [1]]
    assert [score.channel for score in reward.latest[0]] == ["test_1", "test_2"]
    assert not reward.only_monitored
    assert reward.judge.usage() == {
        "programs": 4, "without_program": 1, "tests": 4, "passed": 3, "missing": 0, "timeouts": 0, "cache_hits": 0,
        "seconds": reward.judge.usage()["seconds"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("aggregation", "outcomes", "total"),
    [
        ("channels", {"f(1)": True, "f(2)": False}, 0.5),
        ("share", {"f(1)": None, "f(2)": False}, 0.0),
        ("share", {"f(1)": None, "f(2)": True}, 1.0),
        ("share", {"f(1)": None, "f(2)": None}, None),
        ("all_pass", {"f(1)": True, "f(2)": True}, 1.0),
        ("all_pass", {"f(1)": None, "f(2)": False}, 0.0),
        ("all_pass", {"f(1)": None, "f(2)": True}, None),
    ],
)
def test_single_rewards_and_what_is_missing(aggregation: str, outcomes: dict[str, bool | None], total: float | None):
    reward = CodeReward("mbpp", sandbox=Told(**outcomes), aggregation=aggregation)
    assert score(reward, [GOOD], test_list=[TESTS]) == [total]
    assert values(reward) == [[None if value is None else float(value) for value in outcomes.values()]]
    assert [score.reason for score in reward.latest[0]] == [
        "sandbox" if value is None else None for value in outcomes.values()
    ]
    assert reward.only_monitored is (aggregation != "channels")


def test_named_groups_are_channels():
    groups = {"easy": ["test_1"], "hard": ["challenge_*"]}
    reward = CodeReward("mbpp", sandbox=Told(**{"f(2)": False, "f(3)": None}), groups=groups)
    row = {"test_list": [TESTS], "challenge_test_list": [["assert f(3) == 4", "assert f(4) == 5"]]}
    assert score(reward, [GOOD], **row) == [pytest.approx(2 / 3)]
    [scores] = reward.latest
    assert [(s.channel, s.value, s.labels) for s in scores] == [
        ("easy", 1.0, ("easy",)), ("hard", 1.0, ("hard",)), ("other", 0.0, ("other",)),
    ]  # fmt: skip


def test_a_test_is_not_run_twice(tmp_path: Path):
    cache = str(tmp_path / "code.sqlite")
    first, second, third = Told(), Told(), Told()
    reward = CodeReward("mbpp", sandbox=first, cache=cache)
    score(reward, [GOOD, GOOD, GOOD], test_list=[TESTS] * 3)
    assert len(first.asked) == 2
    score(reward, [GOOD], test_list=[TESTS])
    assert len(first.asked) == 2
    assert reward.judge.usage()["cache_hits"] == 2
    again = CodeReward("mbpp", sandbox=second, cache=cache)
    assert score(again, [GOOD], test_list=[TESTS]) == [1.0]
    assert second.asked == []
    other = CodeReward("mbpp", sandbox=third, cache=cache, limits={"seconds": 1.0})
    score(other, [GOOD], test_list=[TESTS])
    assert len(third.asked) == 2


def test_what_could_not_be_run_is_asked_again(tmp_path: Path):
    sandbox = Told(f=None)
    reward = CodeReward("mbpp", sandbox=sandbox, cache=str(tmp_path / "code.sqlite"))
    assert score(reward, [GOOD], test_list=[TESTS]) == [None]
    sandbox.outcomes = {}
    assert score(reward, [GOOD], test_list=[TESTS]) == [1.0]


def test_a_damaged_cache_is_named(tmp_path: Path):
    path = tmp_path / "code.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"cache .*code\.sqlite.*expected an SQLite file"):
        CodeReward("mbpp", sandbox=Told(), cache=str(path))


def test_other_layouts_and_names_of_columns():
    reward = CodeReward("input_output", sandbox="unsafe-subprocess", columns={"input_output": "ground_truth"})
    truth = json.dumps({"inputs": ["1\n", "2\n"], "outputs": ["2\n", "3\n"]})
    reply = "```python\nprint(int(input()) + 1)\n```"
    chat = [{"role": "assistant", "content": reply}]
    assert score(reward, [reply, chat], ground_truth=[truth, truth]) == [1.0, 1.0]
    assert needed_arguments(reward) == ["ground_truth"]
    row = {
        "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 2\n",
        "entry_point": "f",
    }
    humaneval = CodeReward("humaneval", sandbox="unsafe-subprocess", split=True, completes_prompt=True)
    total, scores = asyncio.run(humaneval.score_row("def f(x):\n", "    return x + 1\n", row))
    assert total == 0.5
    assert [one.channel for one in scores] == ["test_1", "test_2"]


def test_data_without_tests_is_refused_before_training():
    reward = CodeReward("mbpp", sandbox=Told())
    with pytest.raises(DataError, match="needs the column 'test_list', but the data has"):
        score(reward, [GOOD], tests=[TESTS])
    for bad in (None, [], "f(1)", ["assert f("]):
        with pytest.raises(DataError, match="row 1, column 'test_list'"):
            reward.check_column([TESTS, bad])
    humaneval = CodeReward("humaneval", sandbox=Told())
    humaneval.check_column(["f", "g"])
    humaneval.check_column(["def check(candidate):\n    assert candidate(1)\n"])
    with pytest.raises(DataError, match="no function 'check'"):
        humaneval.check_column(["x = 1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "mpbb"}, "layout is 'mpbb'; expected one of humaneval"),
        ({"aggregation": "any"}, "aggregation is 'any'"),
        ({"columns": {"tests": "x"}}, "columns has the key 'tests'"),
        ({"columns": ["test_list"]}, "columns is"),
        ({"groups": {}}, "groups is"),
        ({"groups": {"a": "test_*"}}, "groups has 'a'"),
        ({"groups": {"other": ["x"]}}, "groups has 'other'"),
        ({"max_tests": 0}, "max_tests is 0"),
        ({"split": True}, "split is True"),
        ({"limits": {"second": 1}}, "limits has an unknown option 'second'"),
        ({"sandbox": "docker"}, "sandbox is 'docker'"),
        ({"sandbox": 3}, "sandbox is a int"),
        ({"processes": 0, "sandbox": "auto"}, "processes is 0"),
        ({"max_missing": 2}, "max_missing is 2"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        CodeReward(**{"layout": "mbpp", "sandbox": Told()} | options)


def test_in_a_recipe():
    options = {"layout": "mbpp", "sandbox": "unsafe-subprocess", "max_tests": 1}
    reward = load_reward("code", options, "unit_tests")
    assert isinstance(reward, CodeReward)
    assert reward.__name__ == "unit_tests"
    assert score(reward, [HALF], test_list=[TESTS]) == [1.0]
    assert gives_channels("code", options)
    assert not gives_channels("code", {**options, "aggregation": "share"})


def test_a_sandbox_that_runs_nothing_is_found_before_training():
    with pytest.raises(JudgeError, match="does not run a small program"):
        asyncio.run(CodeReward("mbpp", sandbox=Told(f=None)).check())
    asyncio.run(CodeReward("mbpp", sandbox="unsafe-subprocess").check())
