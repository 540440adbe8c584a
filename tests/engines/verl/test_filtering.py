"""The metric by which verl's own filter keeps groups that a wanted channel ranks."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from verl.trainer.ppo.v1 import replay_buffer

from rvpo.engines.verl.filtering import METRIC, group_signal
from rvpo.engines.verl.rewards import compute_score


def dropped(groups: list[list[dict[str, Any]]], wanted: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return which groups verl's replay buffer filters out."""
    infos = {}
    for g, group in enumerate(groups):
        infos |= {f"{g}_{i}": {METRIC: group_signal(rewards, wanted)} for i, rewards in enumerate(group)}
    buffer = object.__new__(replay_buffer.ReplayBuffer)
    buffer.filter_groups_metric = METRIC
    buffer.finished_keys = {"train": {str(g) for g in range(len(groups))}}
    buffer.partitions = {"train": {key: {} for key in infos}}
    buffer._dapo_classification_cache = defaultdict(dict)

    def fetched(keys: list[str], **_: Any) -> dict[str, Any]:
        return {"extra_fields": [{"reward_extra_info": infos[key]} for key in keys]}

    monkeypatch.setattr(replay_buffer.tq, "kv_batch_get", fetched)
    return buffer._dapo_filtered_keys("train")[0]


GROUPS = [
    [{"right": 1.0, "short": 0.1}, {"right": 0.0, "short": 0.3}, {"right": 1.0, "short": 0.1}],
    [{"right": 0.1, "short": 0.9}] * 3,
    [{"right": 1.0, "short": 0.0}, {"right": 0.0, "short": 1.0}] * 2,  # the sum is 1 for all
    [{"right": 1.0, "short": 0.2}, {"right": 1.0, "short": 0.8}],
    [{"right": None, "short": 0.2}, {"right": None, "short": 0.8}],
    [{"right": 0.5, "short": 0.2}, {"right": 0.5 + 1e-12, "short": 0.2}],
]


@pytest.mark.parametrize(
    ("wanted", "out"),
    [(["right"], {"1", "3", "4", "5"}), (["short"], {"1", "5"}), (None, {"1", "5"}), (["right", "short"], {"1", "5"})],
)
def test_verl_drops_groups_that_no_wanted_channel_ranks(wanted, out, monkeypatch):
    assert dropped(GROUPS, wanted, monkeypatch) == out


@pytest.mark.parametrize("size", [2, 3, 7, 64, 4096])
def test_equal_numbers_have_no_deviation(size: int):
    for j in range(50):
        assert float(np.std([group_signal({"a": j / 7})] * size)) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 0.0}, {"a": -0.0}, True),
        ({"a": None}, {"a": float("nan")}, True),
        ({"a": None}, {"a": 0.0}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"r": {"x": 1, "y": 0}}, {"r": {"y": 0, "x": 1}}, True),
        ({"r": {"x": 1, "y": 0}}, {"r": {"x": 0, "y": 1}}, False),
        ({"a": True}, {"a": 1.0}, True),
        ({"\ud800": 1.0}, {"\ud800": 1.0}, True),
    ],
)
def test_which_rewards_are_the_same(one, other, same):
    assert (group_signal(one) == group_signal(other)) is same


def test_our_reward_function_returns_it(tmp_path: Path):
    own = """
def words(completions, **_):
    return [float(len(completion[0]["content"].split())) for completion in completions]

def polite(completions, **_):
    return [float("please" in completion[0]["content"]) for completion in completions]
"""
    (tmp_path / "own.py").write_text(own, encoding="utf-8")
    entries = [{"function": f"{tmp_path}/own.py:{name}"} for name in ("words", "polite")]
    info = {"prompt": json.dumps("Hello"), "columns": "{}"}

    def scored(text: str, **kwargs: Any) -> Any:
        return asyncio.run(compute_score("data", text, "", info, rewards=entries, **kwargs))

    assert METRIC not in scored("some words")
    short, long = (scored(text, wanted=["polite"])[METRIC] for text in ("some words", "some words " * 50))
    assert short == long != scored("some words, please", wanted=["polite"])[METRIC]
    failed = [scored("some words", wanted=["nothing"])[METRIC] for _ in range(3)]
    assert len(set(failed)) == 3  # so that the group is kept, and the error comes to the trainer
