"""Which rows of a batch vote, and what the reward function's answer means."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
import torch

import rvpo
from rvpo.core.ragged import Score
from rvpo.engines.verl.rows import Seen, Sessions, read_channels
from rvpo.errors import EngineError, RewardError

NO_TAG: dict[str, Any] = {}


def test_a_session_with_several_outputs_counts_once_and_its_last_output_speaks():
    keys = ["p_0_0", "p_1_1", "q_0_0", "p_1_0", "p_1_10", "q_1_0", "p_1_9"]
    sessions = Sessions.read(keys, [NO_TAG] * len(keys))
    assert sessions.names == ["p_0", "p_1", "q_0", "q_1"]
    assert [keys[row] for row in sessions.final] == ["p_0_0", "p_1_10", "q_0_0", "q_1_0"]
    assert sessions.groups.tolist() == [0, 0, 1, 1]
    assert sessions.of_row.tolist() == [0, 1, 2, 1, 1, 3, 1]
    assert sessions.broadcast(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [1, 2, 3, 2, 2, 4, 2]


def test_padding_never_votes():
    keys = ["pad9_0_0", "p_0_0", "pad9_1_0", "p_1_0"]
    tags = [{"is_padding": True}, {"is_padding": False}, {"is_padding": True}, {}]
    sessions = Sessions.read(keys, tags)
    assert sessions.names == ["p_0", "p_1"]
    assert sessions.of_row.tolist() == [-1, 0, -1, 1]
    assert sessions.broadcast(torch.tensor([5.0, 7.0])).tolist() == [0, 5, 0, 7]
    assert sessions.broadcast(torch.tensor([True, True])).tolist() == [False, True, False, True]
    with pytest.raises(EngineError, match="all of them are padding"):
        Sessions.read(keys[:1], tags[:1])


def test_rows_may_come_in_any_order():
    """verl reorders a batch by length: prompts then do not stand together."""
    keys = [f"uid-{prompt}_{session}_{output}" for prompt in range(3) for session in range(4) for output in range(2)]
    random.Random(0).shuffle(keys)
    sessions = Sessions.read(keys, [NO_TAG] * len(keys))
    for name, row in zip(sessions.names, sessions.final, strict=True):
        assert keys[row] == f"{name}_1"
    prompts = [name.rpartition("_")[0] for name in sessions.names]
    for i, a in enumerate(prompts):
        for j, b in enumerate(prompts):
            assert (sessions.groups[i] == sessions.groups[j]).item() == (a == b)
    for key, session in zip(keys, sessions.of_row.tolist(), strict=True):
        assert key.startswith(f"{sessions.names[session]}_")


def test_prompts_are_put_in_the_order_of_the_data_and_sessions_in_that_of_their_numbers():
    """They arrive as they are finished, the shortest first."""
    keys = ["b_2_0", "pad_0_0", "a_1_0", "b_0_1", "c_0_0", "a_0_0", "b_0_0", "c_1_0"]
    tags = [{"is_padding": key.startswith("pad")} for key in keys]
    arrived = Sessions.read(keys, tags)
    index = {"a": 7, "b": 3, "c": 3}  # c is a second dispatch of b's prompt
    sessions = arrived.in_order_of([index[name[0]] for name in arrived.names])
    assert sessions.names == ["b_0", "b_2", "c_0", "c_1", "a_0", "a_1"]
    assert (
        sessions.keys == [keys[row] for row in sessions.final] == ["b_0_1", "b_2_0", "c_0_0", "c_1_0", "a_0_0", "a_1_0"]
    )
    values = torch.arange(1.0, 7.0)
    for key, tag, value in zip(keys, tags, sessions.broadcast(values).tolist(), strict=True):
        name = key.rpartition("_")[0]
        assert value == (0.0 if tag["is_padding"] else values[sessions.names.index(name)].item())


def test_riskpo_does_not_depend_on_who_finished_first():
    generator = torch.Generator().manual_seed(0)
    keys = [f"p{prompt}_{session}_0" for prompt in range(10) for session in range(4)]
    value = dict(zip(keys, torch.rand(len(keys), 2, generator=generator).tolist(), strict=True))

    def advantages(order: list[str]) -> dict[str, float]:
        arrived = Sessions.read(order, [NO_TAG] * len(order))
        sessions = arrived.in_order_of([int(name[1 : name.index("_")]) for name in arrived.names])
        rewards = torch.tensor([value[key] for key in sessions.keys])
        result = rvpo.advantages(rewards, sessions.groups, method="riskpo", state={})
        return dict(zip(sessions.keys, result.advantages.tolist(), strict=True))

    shuffled = keys.copy()
    random.Random(1).shuffle(shuffled)
    assert advantages(shuffled) == pytest.approx(advantages(keys))


@pytest.mark.parametrize("key", ["p", "p_0", "p_0_x", "p_x_0", "_0_1", "p__1", ""])
def test_unknown_keys_are_refused(key: str):
    with pytest.raises(EngineError, match="expected uid_session_output"):
        Sessions.read([key], [NO_TAG])


def test_scalars_and_channels_of_their_own():
    rubric = [{"name": "a", "value": 1.0, "labels": ["tone"]}, {"name": "b", "value": None, "reason": "timeout"}]
    infos = [
        {"score": 3, "format": True, "length": 2.5, "rvpo": json.dumps({"rubric": rubric}), "acc": "text"},
        {"score": 3, "format": None, "length": math.nan, "rvpo": json.dumps({"rubric": []})},
    ]
    rewards, (family,) = read_channels(infos, ["length", "rubric", "format"])
    assert rewards.dtype == torch.float64
    assert rewards[0].tolist()[0::2] == [2.5, 1.0]
    assert rewards.isnan().tolist() == [[False, True, False], [True, True, True]]
    assert family.name == "rubric"
    assert family.rows == [
        [Score("a", 1.0, labels=("tone",)), Score("b", None, reason="timeout")],
        [],
    ]


def test_a_prompt_without_a_rubric_has_no_text():
    text = json.dumps({"rubric": [{"name": "a", "value": 0.0}]})
    _, (family,) = read_channels([{"rvpo": text}, {}], ["rubric"])
    assert [len(row) for row in family.rows] == [1, 0]


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"a": 1.0}, "returned a, but not the reward 'b'"),
        ({}, "returned nothing, but not the reward 'a'"),
        ({"a": "1.0", "b": 0}, "the reward 'a' is '1.0', a str"),
        ({"a": [1.0], "b": 0}, r"the reward 'a' is \[1.0\], a list"),
        ({"a": 1, "b": 10**400}, "the reward 'b' is 1000"),
        ({"a": 1, "b": 1, "rvpo": '{"c": []}'}, "channels of 'c', which is not one of the rewards a, b"),
        ({"a": 1, "b": 1, "rvpo": '{"b": []}'}, "returned 'b' as a number and with channels"),
        ({"a": 1, "b": 1, "rvpo": "[" * 100_000}, "expected JSON"),
    ],
)
def test_what_cannot_be_read_is_refused(info: dict[str, Any], told: str):
    with pytest.raises(RewardError, match=told):
        read_channels([info], ["a", "b"])


# --- numbers next to rubrics ------------------------------------------------------------------------------------------


def told(**criteria: float | None) -> str:
    return json.dumps({"q": [{"name": name, "value": value} for name, value in criteria.items()]})


@pytest.mark.parametrize("number", [0.5, 1, True])
@pytest.mark.parametrize("first", ["number", "rubric"])
def test_a_reward_is_a_number_or_a_rubric_and_neither_is_dropped(number: float, first: str):
    infos: list[dict[str, Any]] = [{"q": number}, {"rvpo": told(a=1.0)}]
    with pytest.raises(RewardError, match=r"for 'q', but a .* for another completion.*under a name of its own"):
        read_channels(infos if first == "number" else infos[::-1], ["q"])
    seen = Seen()  # also if they are in two batches
    one, other = infos if first == "number" else infos[::-1]
    read_channels([one], ["q"], seen=seen)
    with pytest.raises(RewardError, match=r"for 'q', but a .* for another completion"):
        read_channels([other], ["q"], seen=seen)


@pytest.mark.parametrize("nothing", [{}, {"q": None}, {"q": math.nan}, {"rvpo": "{}"}, {"rvpo": '{"q": []}'}])
def test_a_prompt_for_which_a_rubric_returns_nothing_has_no_channel_whatever_lies_next_to_it(nothing: dict[str, Any]):
    seen = Seen(patience=1)
    for infos in ([nothing, nothing], [{"rvpo": told(a=1.0)}, nothing], [nothing, nothing], [nothing, nothing]):
        rewards, families = read_channels(infos, ["q"], groups=[0, 1], seen=seen)
        if "q" in nothing and "q" not in seen.rubrics:
            continue  # None may as well be a number that could not be had
        (family,) = families
        assert family.rows[1] == []
        assert rewards.isnan().all()


def test_a_reward_that_never_comes_is_an_error_after_some_batches(caplog: pytest.LogCaptureFixture):
    seen = Seen(patience=2)
    for _ in range(2):
        read_channels([{"a": 1.0}], ["a", "q"], seen=seen)
    assert caplog.text.count("returned nothing for 'q'") == 1
    with pytest.raises(RewardError, match="returned a, but not the reward 'q'"):
        read_channels([{"a": 1.0}], ["a", "q"], seen=seen)


def test_a_number_that_came_before_must_come_again():
    seen = Seen(patience=9)
    read_channels([{"a": 1.0}], ["a"], seen=seen)
    with pytest.raises(RewardError, match="returned score, but not the reward 'a'"):
        read_channels([{"score": 1.0}], ["a"], seen=seen)


@pytest.mark.parametrize("nothing", [{}, {"q": None}, {"rvpo": '{"q": []}'}])
def test_a_completion_that_returns_nothing_misses_the_criteria_of_its_prompt(nothing: dict[str, Any]):
    infos = [{"rvpo": told(a=1.0, b=0.0)}, nothing, {"rvpo": told(c=1.0)}, {}]
    _, (family,) = read_channels(infos, ["q"], groups=[0, 0, 1, 2])
    assert [(score.channel, score.value, score.reason) for score in family.rows[1]] == [
        ("a", None, "absent"),
        ("b", None, "absent"),
    ]
    assert family.rows[3] == []


def test_none_beside_a_rubric_is_no_number():
    _, (family,) = read_channels([{"q": None, "rvpo": told(a=1.0)}], ["q"])
    assert family.rows == [[Score("a", 1.0)]]
