"""Groups that no wanted channel ranks are not trained on: against loops, with rubrics, in the record."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

import rvpo
from reference import reference
from rvpo.core import AdvantageConfig
from rvpo.diagnose.replay import replay
from rvpo.errors import ConfigError
from rvpo.logs.open import open_run
from rvpo.logs.schema import FOLDER
from rvpo.logs.writer import ChannelTable


def drawn(seed: int) -> list[list[float]]:
    """Draw 8 groups of 4 on 3 channels, most of which are constant in a group."""
    rng = random.Random(seed)
    rows = []
    for _ in range(8):
        ranks = [rng.random() < 0.4 for _ in range(3)]
        rows += [[float(rng.random() < 0.5) if live else 0.5 for live in ranks] for _ in range(4)]
    return [[math.nan if rng.random() < 0.05 else x for x in row] for row in rows]


@pytest.mark.parametrize("wanted", [["a"], ["b", "c"], ["a", "b", "c"]])
@pytest.mark.parametrize("method", ["rvpo", "hard_min"])
def test_advantages_are_those_of_the_wanted_groups_alone(method: str, wanted: list[str]):
    for seed in range(3):
        rewards = drawn(seed)
        groups = [i // 4 for i in range(32)]
        kept = []
        for group in range(8):
            rows = [rewards[i] for i in range(32) if groups[i] == group]
            columns = [[row["abc".index(name)] for row in rows] for name in wanted]
            ranked = any(len({x for x in column if not math.isnan(x)}) > 1 for column in columns)
            kept += [i for i in range(32) if groups[i] == group and ranked]
        out = rvpo.Aggregator(method, ["a", "b", "c"], wanted=wanted)(
            torch.tensor(rewards, dtype=torch.float64), num_generations=4
        )
        want = reference([rewards[i] for i in kept], [groups[i] for i in kept], method)
        got = out.advantages.tolist()
        assert [got[i] for i in kept] == pytest.approx(want.advantages, abs=1e-9)
        assert all(got[i] == 0 for i in range(32) if i not in kept)
        lost = [i for i in range(32) if i not in kept and bool(out.result.signal[i])]
        assert out.metrics["rvpo/unwanted/completions"] == len(lost)
        assert out.metrics["rvpo/unwanted/groups"] == pytest.approx(len({groups[i] for i in lost}) / 8)


def test_a_rubric_and_its_labels(tmp_path: Path):
    # Prompt 1 is ranked by a criterion of the rubric, prompt 2 by length alone.
    rewards = [
        {"length": 0.5, "rubric": {"polite": 1}},
        {"length": 0.5, "rubric": {"polite": 0}},
        {"length": 0.1, "rubric": {"clear": 1}},
        {"length": 0.9, "rubric": {"clear": 1}},
    ]
    aggregator = rvpo.Aggregator("gdpo", ["length", "rubric"], wanted=["rubric"])
    out = aggregator(rewards, num_generations=2)
    assert out.advantages[2:] == [0, 0]
    assert out.advantages[0] == -out.advantages[1] > 0
    table = ChannelTable(tmp_path / FOLDER)
    table.add(1, out)
    run = open_run(tmp_path)
    assert run.config is not None
    assert run.config.wanted == ("rubric",)
    assert replay(run, []).own_difference == pytest.approx(0, abs=1e-6)
    for label in (["rubric/tone"], ["length", "rubric/tone"]):
        rvpo.Aggregator("gdpo", ["length", "rubric"], wanted=label)


@pytest.mark.parametrize("wanted", [["lenght"], ["tone"], ["length/x", "other"]])
def test_unknown_names_are_refused(wanted):
    with pytest.raises(ConfigError, match="wanted names the channel"):
        rvpo.Aggregator("gdpo", ["length", "rubric"], wanted=wanted)


@pytest.mark.parametrize("wanted", ["length", [1], {"length": 1}, [""]])
def test_other_kinds_are_refused(wanted):
    with pytest.raises(ConfigError, match=r"wanted is .*; expected a list of names"):
        rvpo.Aggregator("gdpo", ["length"], wanted=wanted)


def test_plain_values():
    config = AdvantageConfig("gdpo", wanted=("a",))
    assert AdvantageConfig.of_record(config.to_mapping()) == AdvantageConfig.from_mapping(config.to_mapping()) == config
    assert "wanted" not in AdvantageConfig("gdpo").to_mapping()
