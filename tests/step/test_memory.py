"""``rvpo_state.json``: written, read back, and read as older versions wrote it."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch

import rvpo
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
def test_a_state_of_before_goes_on(path: Path, tmp_path: Path):
    old = json.loads(path.read_text("utf-8"))
    (tmp_path / memory.FILE).write_text(json.dumps(old["rvpo_state.json"]))
    resumed, fresh = aggregator(old["method"]), aggregator(old["method"])
    memory.load_memory(resumed, tmp_path)
    for rewards, advantages in zip(old["rewards"], old["advantages"], strict=True):
        want = torch.tensor(advantages, dtype=torch.float64)
        assert (resumed(tensor(rewards), num_generations=4).advantages - want).abs().max() < 1e-12
    first = torch.tensor(old["advantages"][0], dtype=torch.float64)
    assert (fresh(tensor(old["rewards"][0]), num_generations=4).advantages - first).abs().max() > 1e-3


def test_there_is_a_file_only_where_something_is_remembered(tmp_path: Path):
    path = tmp_path / "checkpoint" / memory.FILE
    lift, gdpo = aggregator("lift"), aggregator("gdpo")
    memory.save_memory(lift, path.parent)
    assert not path.exists()
    lift(batch(0), num_generations=4)
    gdpo(batch(0), num_generations=4)
    memory.save_memory(lift, path.parent)
    assert json.loads(path.read_text())["method"] == "lift"
    memory.save_memory(gdpo, path.parent)  # in the folder of an older run
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
