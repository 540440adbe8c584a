"""The verdict *diverging*: a trained reward rises while a monitor falls. Who is named, and when nothing is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rvpo.arrays.groups import Partition
from rvpo.cli.app import app
from rvpo.core import Channels
from rvpo.core.groups import Groups
from rvpo.diagnose.alarm import Alarm, Generation
from rvpo.diagnose.diverging import BLOCKS, MOST, Watch

P, G = 16, 8
IDS = np.arange(P).repeat(G)
GROUPS = Partition.of_ids(IDS)
NAMES = ("judge", "other", "monitor")


def generations(steps: int, kind: str, seed: int = 0) -> list[np.ndarray]:
    """Rewards (N, 3) of each step. From the middle on, what the judge prefers is worse in the monitor's eyes."""
    rng = np.random.default_rng(seed)
    rows, walk = [], np.zeros(3)
    for step in range(steps):
        late = max(0.0, step / steps - 0.5) * 2
        good, flattery = rng.normal(size=(2, P * G)) * 0.2
        hacked = late * (2 * flattery + 0.3) if kind == "hack" else 0.0
        judge = 0.5 + good + hacked + (0.1 * late if kind == "clean" else 0.0)
        monitor = 0.6 + good - hacked
        other = 0.4 + 0.2 * rng.normal(size=P * G) + 0.3 * late
        if kind == "walk":
            walk += rng.normal(size=3) * 0.02
        both_fall = -0.3 * late if kind == "both fall" else 0.0
        noise = 0.1 * rng.normal(size=P * G)
        rows.append(
            np.stack([judge + both_fall + walk[0], other + both_fall, monitor + noise + both_fall + walk[2]], 1)
        )
    return rows


def watched(rewards: list[np.ndarray], names: tuple[str, ...] = NAMES, weights: tuple[float, ...] = (1, 1, 0)) -> Watch:
    watch = Watch()
    for step, values in enumerate(rewards):
        watch.add(step, values, GROUPS, np.arange(len(names)), names, weights)
    return watch


@pytest.mark.parametrize("seed", range(3))
def test_a_judge_with_a_hole_is_named_and_its_innocent_neighbour_is_not(seed: int):
    watch = watched(generations(120, "hack", seed))
    assert set(watch.called) == {"judge"}
    seen = watch.called["judge"]
    assert seen.monitor == "monitor"
    assert 60 < seen.seen < 110
    assert seen.rise[1] > seen.rise[0]
    assert seen.fall[1] < seen.fall[0]
    assert seen.sure > 4
    assert seen.explained
    assert "while the monitor 'monitor' falls" in seen.sentence()


@pytest.mark.parametrize("kind", ["clean", "walk", "both fall"])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_said_of_a_run_without_a_hole(kind: str, seed: int):
    assert not watched(generations(100, kind, seed)).called


@pytest.mark.parametrize(
    ("names", "weights"),
    [(NAMES, (1, 1, 1)), (("judge", "other", "judge/shown_first"), (1, 1, 0)), (NAMES, (0, 0, 0))],
)
def test_without_a_monitor_there_is_nothing_to_diverge_from(names: tuple[str, ...], weights: tuple[float, ...]):
    watch = watched(generations(120, "hack"), names, weights)
    assert not watch.called


@pytest.mark.parametrize(
    "names",
    [("team/judge", "other", "team/monitor"), ("r/a", "r/b", "r/a_b"), ("judge", "x/other", "x/y/monitor")],
)
def test_rewards_with_slashes_in_their_names_are_monitors_all_the_same(names: tuple[str, ...]):
    watch = watched(generations(120, "hack"), names)
    assert {one.monitor for one in watch.called.values()} == {names[2]}


def test_criteria_of_a_trained_rubric_are_no_monitors():
    """Two labels of a rubric, whose criteria stand in other columns for other prompts."""
    watch = Watch()
    index = np.tile(np.repeat([[0, 1], [1, 0]], G, 0), (P // 2, 1))
    for step, values in enumerate(generations(8, "hack")):
        watch.add(step, values[:, 1:], GROUPS, index, ("r/a", "r/b"), index == 0)
    assert watch.monitors() == []


def test_weights_that_are_not_known_are_no_monitors():
    watch = Watch()
    for step, values in enumerate(generations(120, "hack")):
        watch.add(step, values, GROUPS, np.arange(3), NAMES, None)
    assert watch.monitors() == []
    assert not watch.called


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_a_fall_that_nothing_within_groups_explains_is_called_with_that_doubt(noise: float):
    rng, rewards = np.random.default_rng(0), []
    for step in range(60):
        level = np.array([0.3, 0.5, 0.7]) + step / 150 * np.array([1, 0, -1])
        rewards.append(level + noise * rng.normal(size=(P * G, 3)))
    [seen] = watched(rewards).called.values()
    assert (seen.channel, seen.monitor, seen.explained) == ("judge", "monitor", False)
    assert "not yet clear" in seen.sentence()


def test_a_monitor_of_one_completion_per_group_is_enough():
    rewards = generations(160, "hack")
    for values in rewards:
        values[np.arange(P * G) % G != 0, 2] = np.nan
    watch = watched(rewards)
    assert watch.called
    assert next(iter(watch.called.values())).agreed is None


def test_what_is_never_scored_raises_and_calls_nothing():
    rewards = generations(60, "hack")
    for values in rewards:
        values[:, 2] = np.nan
    assert not watched(rewards).called


def test_memory_stays_bounded_and_state_goes_on():
    rewards = generations(BLOCKS + 44, "hack")
    whole = watched(rewards)
    assert len(whole._steps) <= BLOCKS
    first = watched(rewards[:140])
    resumed = Watch()
    resumed.load_state(first.state())
    for step in range(140, len(rewards)):
        resumed.add(step, rewards[step], GROUPS, np.arange(3), NAMES, [1, 1, 0])
    assert resumed.called == whole.called
    old = Watch()
    old.load_state({})  # of a checkpoint from before there was a watch
    assert not old.called
    many = tuple(f"c{i}" for i in range(MOST + 6))
    old.add(0, np.random.default_rng(0).random((P * G, MOST + 6)), GROUPS, np.arange(len(many)), many, None)
    assert old._table.shape[1] == MOST


def test_the_alarm_of_a_training_calls_it_too():
    alarm, channels = Alarm(), Channels.columns(NAMES)
    calls = []
    for values in generations(100, "hack"):
        advantages = values[:, 0] - values[:, 0].reshape(P, G).mean(1).repeat(G)
        tensors = torch.tensor(values), torch.tensor(advantages), Groups.in_blocks(torch.tensor(IDS))
        calls += alarm.add(Generation(*tensors, channels, torch.tensor([1.0, 1.0, 0.0])))
    call = [call for call in calls if call.divergence is not None][-1]
    assert call.name == "judge"
    assert set(alarm.diverging) == {"judge", "other"}
    assert alarm.verdicts()["judge"].verdict == "diverging"
    again = Alarm()
    again.load_state(alarm.state())
    assert again.diverged == alarm.diverged


def test_diagnose_and_the_page_say_it_of_a_log(tmp_path: Path):
    rows = []
    for step, values in enumerate(generations(100, "hack")):
        for i, (judge, other, monitor) in enumerate(values.tolist()):
            rewards = {"judge": judge, "other": other, "monitor": monitor}
            rows.append(
                {"step": step, "prompt": f"p{i // G}", "completion": "x", **rewards, "advantage": judge + other}
            )
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)))
    data = tmp_path / "diagnosis.json"
    weights = ["--weights", "1,1,0"]
    columns = ["--rewards", "judge,other,monitor", "--group", "prompt", "--advantage", "advantage", "--step", "step"]
    done = CliRunner().invoke(app, ["diagnose", str(log), *columns, *weights, "--json", str(data)])
    assert done.exit_code == 0, done.output
    assert "1 of 3 channels is diverging from a monitor: judge." in " ".join(done.output.split())
    found = {channel["name"]: channel for channel in json.loads(data.read_text())["channels"]}
    assert found["judge"]["verdict"] == "diverging"
    assert found["judge"]["divergence"]["monitor"] == "monitor"
    assert found["other"]["verdict"] != "diverging"
