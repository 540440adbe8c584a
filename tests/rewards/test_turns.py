"""A reward per turn: what a list comes to, and what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from rvpo.errors import ConfigError, DataError, RewardError
from rvpo.rewards.registry import load_reward, needed_arguments
from rvpo.rewards.turns import TurnReward, per_turn

ROLLOUTS: list[list[float | None]] = [[0.5, 1.0, 0.25], [0.5], [], [1.0, None], [None, 2.0]]


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("sum", [1.75, 0.5, 0.0, None, None]),
        ("mean", [1.75 / 3, 0.5, None, None, None]),
        ("min", [0.25, 0.5, None, None, None]),
        ("max", [1.0, 0.5, None, None, None]),
        ("last", [0.25, 0.5, None, None, 2.0]),
        (1, [0.5, 0.5, None, 1.0, None]),
        (2, [1.0, None, None, None, 2.0]),
        (4, [None] * 5),
    ],
)
def test_a_list_comes_to_one_number_or_is_missing(combine: str | int, expected: list[float | None]):
    reward = TurnReward(combine, "tool_rewards")
    assert reward(completions=list("abcde"), tool_rewards=ROLLOUTS) == expected
    environments = [SimpleNamespace(tool_rewards=rewards) for rewards in ROLLOUTS]
    assert reward(completions=list("abcde"), environments=environments) == expected
    assert reward.__name__ == f"turn_{combine}"


def test_each_turn_is_a_channel():
    channels = per_turn(2, "tool_rewards", "step")
    found = {
        name: reward(completions=["a", "b"], tool_rewards=[[1.0], [0.0, math.nan]]) for name, reward in channels.items()
    }
    assert found == {"step_1": [1.0, 0.0], "step_2": [None, None]}
    assert [reward.__name__ for reward in channels.values()] == ["step_1", "step_2"]


@pytest.mark.parametrize("combine", ["", "first", 0, -1, True, None, 1.5])
def test_what_several_turns_come_to_is_said_by_the_user(combine: Any):
    with pytest.raises(ConfigError, match="expected sum, mean, min, max, last, or the number of a turn"):
        TurnReward(combine)


@pytest.mark.parametrize("turns", [0, True, "2", 1.0])
def test_the_number_of_turns_is_a_whole_number(turns: Any):
    with pytest.raises(ConfigError, match="turns is"):
        per_turn(turns)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (1.0, r"'turn_rewards' of completion 1 is 1.0; expected a list with a number per turn"),
        ("1.0", "expected a list"),
        ({"a": 1.0}, "expected a list"),
        ([0.5, "good"], r"is a turn with 'good'; expected a number per turn"),
        ([[0.5]], r"is a turn with \[0.5\]"),
    ],
)
def test_other_values_are_refused(rewards: Any, message: str):
    with pytest.raises(RewardError, match=message):
        TurnReward("sum")(completions=["a", "b"], turn_rewards=[[1.0], rewards])


def test_a_rollout_without_a_list_is_missing():
    assert TurnReward("sum")(completions=["a"], turn_rewards=[None]) == [None]


def test_a_name_that_nothing_has_is_refused():
    with pytest.raises(DataError, match="neither a column nor an environment has it; the columns are \\['answer'\\]"):
        TurnReward("sum", "rewrads")(completions=["a"], answer=["b"])
    environments = [SimpleNamespace(turn_rewards=[1.0]), SimpleNamespace()]
    with pytest.raises(DataError, match="SimpleNamespace does not have"):
        TurnReward("sum")(completions=["a", "b"], environments=environments)
    assert TurnReward("sum", optional=True)(completions=["a", "b"], environments=environments) == [1.0, None]


def test_a_recipe_and_verl_name_it():
    reward = load_reward("turns", {"combine": "sum", "source": "tool_rewards"}, "progress")
    assert reward.__name__ == "progress"
    assert needed_arguments(reward) == []
    with pytest.raises(ConfigError, match="cannot be built with these options"):
        load_reward("turns")
