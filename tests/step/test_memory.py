"""``rvpo_state.json``: written, read back, and read as older versions wrote it."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch

import rvpo
from rvpo.errors import ConfigError
from rvpo.step import memory

NAMES = ["correct", "format", "safe"]
OLD = sorted((Path(__file__).parent / "version_1").glob("*.json"))


def aggregator(method: str) -> rvpo.Aggregator:
    return rvpo.Aggregator(method, NAMES, ranges={"correct": (-3, 3)}, weights=[2.0, 1.0, 1.0])


def batch(seed: int) -> torch.Tensor:
    return torch.rand(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensor(rows: list) -> torch.Tensor:
    return torch.tensor([[math.nan if x is None else x for x in row] for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_state_of_before_goes_on(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    old = json.loads(path.read_text("utf-8"))
    (tmp_path / memory.FILE).write_text(json.dumps(old["rvpo_state.json"]))
    method = old["method"].replace("lift:", "lift_z:")  # what lift is called now
    resumed, fresh = aggregator(method), aggregator(method)
    with caplog.at_level(logging.WARNING):
        memory.load_memory(resumed, tmp_path)
    assert not caplog.records
    for rewards, advantages in zip(old["rewards"], old["advantages"], strict=True):
        want = torch.tensor(advantages, dtype=torch.float64)
        assert (resumed(tensor(rewards), num_generations=4).advantages - want).abs().max() < 1e-12
    first = torch.tensor(old["advantages"][0], dtype=torch.float64)
    assert (fresh(tensor(old["rewards"][0]), num_generations=4).advantages - first).abs().max() > 1e-3


def test_there_is_a_file_only_where_a_batch_was_seen(tmp_path: Path):
    path = tmp_path / "checkpoint" / memory.FILE
    lift, gdpo, fresh = aggregator("lift"), aggregator("gdpo"), aggregator("gdpo")
    memory.save_memory(lift, path.parent)
    assert not path.exists()
    lift(batch(0), num_generations=4)
    gdpo(batch(0), num_generations=4)
    memory.save_memory(lift, path.parent)
    assert json.loads(path.read_text())["method"] == "lift"
    memory.save_memory(gdpo, path.parent)  # what was seen and said of the rewards
    assert json.loads(path.read_text())["method"] == "gdpo"
    memory.save_memory(fresh, path.parent)  # in the folder of an older run
    assert not path.exists()


def test_another_method_begins_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lift, ctwa = aggregator("lift"), aggregator("ctwa")
    lift(batch(0), num_generations=4)
    memory.save_memory(lift, tmp_path)
    with caplog.at_level(logging.WARNING):
        memory.load_memory(ctwa, tmp_path)
        memory.load_memory(ctwa, tmp_path / "none")
    assert "is what method 'lift' remembered; method 'ctwa' begins anew" in caplog.text
    assert "There is no" in caplog.text
    assert ctwa.state_dict()["remembered"] == {}


def old_lift(folder: Path) -> dict:
    """Write the checkpoint of an older lift, and return its state."""
    old = json.loads((Path(__file__).parent / "version_1" / "lift.json").read_text("utf-8"))["rvpo_state.json"]
    (folder / memory.FILE).write_text(json.dumps(old))
    return old


def test_the_new_lift_goes_on_with_the_attained_shares_of_the_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One warning says so, and how to go on with the old rule; correlations are those of a run that begins."""
    old = old_lift(tmp_path)
    agg, fresh = aggregator("lift"), aggregator("lift")
    with caplog.at_level(logging.WARNING):
        memory.load_memory(agg, tmp_path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "Set method='lift_z' to go on with the old rule exactly as it was" in said
    assert agg.state_dict()["remembered"] == {"attained": old["remembered"]["attained"]}
    agg(batch(0), num_generations=4)
    fresh(batch(0), num_generations=4)
    new, other = agg.state_dict()["remembered"], fresh.state_dict()["remembered"]
    assert new["moments"] == other["moments"]
    assert "covariance" not in new
    assert new["attained"]["weight"][0] > other["attained"]["weight"][0]
    with caplog.at_level(logging.WARNING):  # its own checkpoints go on without a word
        memory.save_memory(agg, tmp_path)
        memory.load_memory(aggregator("lift"), tmp_path)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("method", ["riskpo:score=lift", "riskpo:score=lift_z"])
def test_an_old_lift_inside_riskpo(tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture):
    old = aggregator("riskpo:score=lift_z")
    old(batch(0), num_generations=4)
    state = old.state_dict()  # which does not say what the score was
    agg = aggregator(method)
    with caplog.at_level(logging.WARNING):
        agg.load_state_dict(state)
    assert len(caplog.records) == (method == "riskpo:score=lift")
    if method == "riskpo:score=lift_z":
        assert torch.equal(agg(batch(1), num_generations=4).advantages, old(batch(1), num_generations=4).advantages)
    else:
        assert sorted(agg.state_dict()["remembered"]["score"]) == ["attained"]
        assert agg(batch(1), num_generations=4).advantages.isfinite().all()


def test_a_state_of_another_rule_is_not_taken_for_one_of_lift_z():
    new = aggregator("lift")
    new(batch(0), num_generations=4)
    with pytest.raises(ConfigError, match="state is what method 'lift' remembered; expected one of method"):
        aggregator("lift_z").load_state_dict(new.state_dict())


@pytest.mark.parametrize("ranges", [None, {"correct": (-3, 4)}, {"correct": (-3, 3), "safe": (0, 2)}])
def test_a_checkpoint_of_other_ranges_begins_anew_with_a_warning(
    ranges: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    before = aggregator("lift")
    before(batch(0), num_generations=4)
    memory.save_memory(before, tmp_path)
    resumed, fresh = (rvpo.Aggregator("lift", NAMES, ranges=ranges) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        memory.load_memory(resumed, tmp_path)
    assert "was" in caplog.text
    assert "state of method 'lift' is in units of the old ranges, so it begins anew" in caplog.text
    assert resumed.state_dict()["remembered"] == {}
    assert torch.equal(resumed(batch(1), num_generations=4).advantages, fresh(batch(1), num_generations=4).advantages)
