"""The shared reader of reward dicts, and its options."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dict_rewards import GROUPS
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.engines.dicts.options import DictOptions
from rvpo.engines.dicts.rewards import RECORDED, RewardDicts
from rvpo.errors import ConfigError, RewardError
from rvpo.logs.open import open_run

OPTIONS: dict[str, Any] = {
    "method": "lift",
    "reward_keys": ["correct", "safe"],
    "reward_ranges": {"correct": [-3, 3]},
    "reward_weights": {"correct": 2.0},
}


def a_run(**changes: Any) -> RewardDicts:
    return RewardDicts(DictOptions.from_mapping(OPTIONS | changes))


def test_advantages_are_those_of_the_aggregator(batches: Any, expected: Any):
    run = a_run()
    for batch, advantages in zip(batches, expected, strict=True):
        assert run(batch, GROUPS).advantages == advantages


def test_order_and_kind_of_group_ids_do_not_matter(batches: Any, expected: Any):
    order = [5, 0, 7, 2, 4, 1, 6, 3]
    found = a_run()([batches[0][i] for i in order], [f"prompt {GROUPS[i]}" for i in order]).advantages
    assert found == pytest.approx([expected[0][i] for i in order], abs=1e-12)


def test_groups_of_unequal_size_and_of_one(batches: Any):
    scored = a_run()(batches[0][:6], [0, 0, 0, 1, 1, 2])
    assert scored.advantages[5] == 0.0
    assert all(math.isfinite(a) for a in scored.advantages)


def test_missing_stays_missing_and_is_counted(batches: Any):
    scored = a_run()(batches[0], GROUPS)
    assert torch.isnan(scored.result.result.rewards).tolist() == [
        [False, False], [False, False], [False, True], [False, True],
        [False, False], [False, False], [True, False], [False, False],
    ]  # fmt: skip
    assert scored.metrics["rvpo/safe/missing"] == pytest.approx(2 / 8)
    assert scored.metrics["rvpo/correct/missing"] == pytest.approx(1 / 8)


@pytest.mark.parametrize("kind", [torch.tensor, np.float32, np.array, float])
def test_scalars_of_any_library(batches: Any, expected: Any, kind: Any):
    batch = [{key: None if value is None else kind(value) for key, value in row.items()} for row in batches[0]]
    assert a_run()(batch, GROUPS, rollouts=range(8)).advantages == pytest.approx(expected[0], abs=1e-6)


@pytest.mark.parametrize("none", [None, {}, {"correct": None, "safe": math.nan}])
def test_a_sample_without_any_reward_is_missing(batches: Any, none: Any):
    scored = a_run()([*batches[0], none], [*GROUPS, 1])
    assert scored.advantages[8] == 0.0
    assert scored.metrics["rvpo/safe/missing"] == pytest.approx(3 / 9)


def test_parts_of_one_rollout_count_once(batches: Any, expected: Any):
    """Rollout 1 has three parts, which stand apart; its reward comes as numbers of different kinds."""
    parts = [0, 1, 2, 3, 4, 5, 6, 7, 1, 1]
    rows = [batches[0][i] for i in parts]
    rows[8] = {"correct": torch.tensor(-1.0), "safe": 1}
    found = a_run()(rows, [GROUPS[i] for i in parts], rollouts=parts).advantages
    assert found == [expected[0][i] for i in parts]


@pytest.mark.parametrize("other", [{"correct": -1.0, "safe": 0.0}, {"correct": -1.0}, None, {"safe": 1.0}])
def test_parts_of_one_rollout_that_differ_are_refused(batches: Any, other: Any):
    with pytest.raises(RewardError, match=r"rewards\[1\] and rewards\[8\] are parts of one rollout \(1\) and differ"):
        a_run()([*batches[0], other], [*GROUPS, 0], rollouts=[*range(8), 1])


def test_one_rollout_id_in_two_groups_is_two_rollouts(batches: Any, expected: Any):
    found = a_run()(batches[0], GROUPS, rollouts=[0, 1, 2, 3] * 2).advantages
    assert found == expected[0]


@pytest.mark.parametrize("value", ["0.5", [1.0, 2.0], object(), torch.zeros(2), math.inf])
def test_what_is_no_reward_is_refused(batches: Any, value: Any):
    batches[0][3]["safe"] = value
    with pytest.raises(RewardError, match="safe"):
        a_run()(batches[0], GROUPS)


@pytest.mark.parametrize("reward", [1.0, "correct", [("correct", 1.0)], torch.tensor(1.0)])
def test_a_sample_whose_reward_is_no_dict_is_refused(batches: Any, reward: Any):
    batches[0][2] = reward
    with pytest.raises(RewardError, match=r"rewards\[2\] is .*; expected a dict with a number for each of correct"):
        a_run()(batches[0], GROUPS)


def test_a_name_that_never_came_is_refused(batches: Any):
    with pytest.raises(RewardError, match=r"no sample has the reward 'corect' \(did you mean 'correct'\?\)"):
        a_run(reward_keys=["corect", "safe"], reward_ranges=None, reward_weights=None)(batches[0], GROUPS)


def test_a_name_that_stays_away_later_is_missing(batches: Any, caplog: pytest.LogCaptureFixture):
    run = a_run()
    run(batches[0], GROUPS)
    for row in batches[1]:
        row.pop("safe")
    assert run(batches[1], GROUPS).metrics["rvpo/safe/missing"] == 1.0
    assert "No sample of this batch has the reward 'safe': it is missing." in caplog.text


def test_an_outage_in_the_first_batch_is_missing(caplog: pytest.LogCaptureFixture):
    assert a_run()([None] * 8, GROUPS).advantages == [0.0] * 8
    assert "all of them count as missing" in caplog.text


def test_what_decides_nothing_is_said_once(batches: Any, expected: Any, caplog: pytest.LogCaptureFixture):
    run = a_run()
    for batch in batches:
        for row in batch:
            row |= {"score": 9.0, "style": 2.0}
    with caplog.at_level(logging.WARNING):
        found = [run(batch, GROUPS, other_keys=["score"]).advantages for batch in batches]
    assert found == expected
    assert caplog.text.count("also have style, which reward_keys does not name") == 1


def test_single_completions_are_said(batches: Any, caplog: pytest.LogCaptureFixture):
    assert a_run()(batches[0], range(8)).advantages == [0.0] * 8
    assert "Every one of the 8 groups of this batch has one completion" in caplog.text


def test_rubrics_pass_through():
    run = RewardDicts(DictOptions.from_mapping({"method": "gdpo", "reward_keys": ["rubric"]}))
    rows = [{"rubric": {"dose": 1, "tone": 0}}, {"rubric": {"dose": 0}}, {"rubric": None}]
    assert [round(a, 2) for a in run(rows, [0, 0, 0]).advantages] == [0.71, -0.71, 0.0]


def test_ranks_sees_every_channel(batches: Any):
    run = a_run()
    assert run.ranks(batches[0][4:])  # tied in its sum
    assert not run.ranks([{"correct": 1.0, "safe": 0.0}] * 4)
    assert not run.ranks([{"correct": 1.0}, None, {"correct": None}])
    assert run(batches[0], GROUPS).advantages == a_run()(batches[0], GROUPS).advantages, "a filter teaches nothing"


@pytest.mark.parametrize("weight", ["alternate(0,1)", "alternate(1,0)", "linear(0,1)", "linear(1,0)", "cosine(0,2)"])
def test_ranks_sees_a_channel_that_counts_at_another_time(weight: str):
    options = OPTIONS | {"method": "gdpo", "reward_weights": {"correct": weight}}
    run = RewardDicts(DictOptions.from_mapping(options), with_progress=True)
    assert run.ranks([{"correct": 3.0, "safe": 1.0}, {"correct": -1.0, "safe": 1.0}])
    assert not run.ranks([{"correct": 3.0, "safe": 1.0}] * 2)


def test_a_resumed_run_goes_on(batches: Any, expected: Any, tmp_path: Path):
    run = a_run()
    run(batches[0], GROUPS)
    run.save(tmp_path / "step")
    resumed = a_run()
    resumed.load(tmp_path / "step")
    assert resumed(batches[1], GROUPS).advantages == expected[1]


def test_states_that_do_not_fit_are_refused(batches: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = a_run()
    run(batches[0], GROUPS)
    run.save(tmp_path)
    with pytest.raises(ConfigError, match=r"rvpo_state.json: state is what method 'lift' remembered"):
        a_run(method="ctwa").load(tmp_path)
    with pytest.raises(ConfigError, match="in other units"):
        a_run(reward_ranges={"correct": [0, 1]}).load(tmp_path)
    file = tmp_path / "rvpo_state.json"
    for damage in (file.read_text()[:-9], "[]", "[" * 100_000, json.dumps({"method": "lift"})):
        file.write_text(damage)
        with pytest.raises(ConfigError, match=r"rvpo_state.json"):
            a_run().load(tmp_path)
    a_run().load(tmp_path / "nothing")
    assert "method 'lift' begins anew" in caplog.text


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (None, "rvpo is None; expected a mapping"),
        ({"method": "lift"}, r"rvpo.reward_keys is \[\]"),
        ({"reward_keys": ["a"]}, "rvpo has no method"),
        ({"method": "lift", "reward_keys": "correct"}, "rvpo.reward_keys is 'correct'"),
        ({"method": "lift", "reward_keys": ["a", "a"]}, "names has 'a' twice"),
        ({"method": "lift", "reward_keys": ["a"], "rewards": []}, "rvpo: unknown key 'rewards'"),
        ({"method": "lft", "reward_keys": ["a"]}, "did you mean 'lift'"),
        ({"method": "lift", "reward_keys": ["a"], "reward_weights": [1]}, r"reward_weights is \[1\]"),
        ({"method": "lift", "reward_keys": ["a"], "reward_weights": {"b": 1}}, "weights names the channel 'b'"),
        ({"method": "lift", "reward_keys": ["a"], "reward_ranges": {"b": [0, 1]}}, "reward_ranges names the channel"),
        ({"method": "lift", "reward_keys": ["a"], "structure": ["gate(b)"]}, "b"),
        ({"method": "rvpo:k=linear(0,2)", "reward_keys": ["a"]}, "progress"),
        ({"method": "gdpo:whiten=token", "reward_keys": ["a"]}, "tokens"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_generated(section: Any, said: str):
    with pytest.raises((ConfigError, RewardError), match=said):
        RewardDicts(DictOptions.from_mapping(section))


def test_an_engine_that_scores_one_group_cannot_whiten_a_batch():
    with pytest.raises(ConfigError, match=r"whiten=batch, but this engine scores one group .* lift:whiten=none"):
        RewardDicts(DictOptions.from_mapping(OPTIONS), one_group=True)
    RewardDicts(DictOptions.from_mapping(OPTIONS | {"method": "lift:whiten=none"}), one_group=True)


def test_options_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RVPO_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="RVPO_CONFIG is not set"):
        DictOptions.from_environment()
    file = tmp_path / "rvpo.yaml"
    monkeypatch.setenv("RVPO_CONFIG", str(file))
    for text in (None, "a: [", "method: lift", "rvpo: {method: lift, reward_keys: [a], reward_keys: [b]}"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigError, match=r"rvpo.yaml"):
            DictOptions.from_environment()
    file.write_text("rvpo: {method: lift, reward_keys: [a, b], reward_weights: {a: 2}}")
    assert DictOptions.from_environment().build().weights == [2, 1]


def test_a_run_is_recorded_and_goes_on_where_its_checkpoint_was(batches: Any, tmp_path: Path):
    records, saved = tmp_path / "run", tmp_path / "saved"
    run = a_run(records=str(records))
    run(batches[0], GROUPS)
    run(batches[1], GROUPS, learn=False)  # as a filter or a printed group
    run.save(saved)
    second = run(batches[1], GROUPS)
    run(batches[0], GROUPS)  # after the checkpoint, and lost
    resumed = a_run(records=str(records))
    resumed.load(saved)
    again = resumed(batches[1], GROUPS)
    assert again.advantages == second.advantages
    resumed(batches[0], GROUPS)
    assert sorted(path.name for path in (records / "channels").iterdir()) == [f"00000{n}.parquet" for n in (1, 2, 3)]
    rows = [
        row
        for row in pq.read_table(records / "channels" / "000002.parquet").to_pylist()
        if row["reward_function"] == "safe"
    ]
    assert [row["reward"] for row in rows] == [reward.get("safe") for reward in batches[1]]
    assert [row["advantage"] for row in rows] == second.advantages
    found = replay(open_run(records), [])
    assert found.own == "lift"
    assert found.own_difference is not None
    assert found.own_difference < 1e-9
    assert {channel.name for channel in diagnose(open_run(records)).channels} == {"correct", "safe"}


@pytest.mark.parametrize("records", ["", 1, ["a"]])
def test_records_are_a_folder(records: Any):
    with pytest.raises(ConfigError, match=r"rvpo\.records is .*; expected the path of a folder"):
        a_run(records=records)


def test_a_group_at_a_time_is_not_recorded(tmp_path: Path):
    options = DictOptions.from_mapping(OPTIONS | {"method": "gdpo:whiten=none", "records": str(tmp_path)})
    with pytest.raises(ConfigError, match="one group at a time"):
        RewardDicts(options, one_group=True)


@pytest.mark.parametrize("text", ["", "x", "-1", "null", "1.5"])
def test_a_damaged_number_of_records_is_refused(batches: Any, tmp_path: Path, text: str):
    run = a_run(records=str(tmp_path / "run"))
    run(batches[0], GROUPS)
    run.save(tmp_path)
    (tmp_path / RECORDED).write_text(text)
    with pytest.raises(ConfigError, match=r"[Rr]emove it"):
        run.load(tmp_path)
