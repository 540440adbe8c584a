"""Further real trainings on the CPU: rubrics, two workers, asynchrony, rollouts of two outputs; see rig/README.md."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rig import rewards as task
from rig.run import GENERATIONS, PROMPTS, Run, rubrics, tensor, train

import rvpo
from rvpo.core import AdvantageConfig, Channels, compute
from rvpo.core.state import plain
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run


@pytest.fixture(scope="module")
def ragged(folder: Path) -> Run:
    """LIFT on rubrics of two to five criteria, two workers, asynchronous; killed after step 5, resumed from step 4."""
    ours = ["algorithm.adv_estimator=lift", "+algorithm.rvpo.reward_keys=[channels]"]
    arguments = [*rubrics(folder / "lift"), *ours, "trainer.save_freq=4"]
    options: dict[str, Any] = {"entry": "rvpo.verl", "workers": 2, "mode": "colocate_async", "steps": 12}
    train(folder / "lift", *arguments, kill_after=5, **options)
    return train(folder / "lift", *arguments, **options)


def test_ragged_rubrics_train_with_two_workers_asynchronously(ragged: Run):
    assert list(ragged.metrics) == list(range(1, 13))
    assert all(0 < metrics["rvpo/channels/mean"] < 1 for metrics in ragged.metrics.values())  # nightly: that it rises
    sizes = {len([row for row in ragged.channels(1) if row["completion"] == i]) for i in range(PROMPTS * GENERATIONS)}
    assert min(sizes) >= 2
    assert max(sizes) <= 5
    assert len(sizes) > 1, "rubrics of different length"


def equal_to_rounding(one: Any, other: Any) -> None:
    """Compare two JSON values. The trainer may add up the same rows in another order, so a last digit may differ."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            equal_to_rounding(value, other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for value, expected in zip(one, other, strict=True):
            equal_to_rounding(value, expected)
    else:
        assert one == (pytest.approx(other, rel=1e-12) if isinstance(one, float) else other)


def test_what_lift_remembers_is_resumed(ragged: Run):
    """Replayed from the logged rewards alone, from step 1: the second run goes on with the state of the first."""
    saved = json.loads((ragged.folder / "checkpoints/global_step_4/rvpo_state.json").read_text())
    assert saved["method"] == "lift"
    config, state = AdvantageConfig("lift"), {}
    for step in ragged.metrics:
        rows = ragged.channels(step)
        cells: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            cells.setdefault(row["completion"], []).append(row)
        width = max(map(len, cells.values()))
        shape = (len(cells), width)
        values, weights = torch.full(shape, math.nan, dtype=torch.float64), torch.zeros(shape)
        applies = torch.zeros(shape, dtype=torch.bool)
        for i, own in cells.items():
            values[i, : len(own)] = tensor([row["reward"] for row in own])
            weights[i, : len(own)] = tensor([row["weight"] for row in own])
            applies[i, : len(own)] = True
        groups = torch.tensor([own[0]["group"] for own in cells.values()])
        channels = Channels(("channels/word",), torch.zeros(shape, dtype=torch.int64), (None,))
        result = compute(
            values, config, groups=groups, weights=weights, applies=applies, channels=channels, state=state
        )
        state = result.state
        if step == 4:
            equal_to_rounding(json.loads(json.dumps(plain(state))), saved["remembered"])
        trained = tensor([own[0]["advantage"] for own in cells.values()])
        torch.testing.assert_close(trained, result.advantages, rtol=0, atol=1e-9)


def test_the_record_of_rubrics_replays(ragged: Run):
    again = replay(open_run(ragged.folder / "rollouts"), [])
    assert again.own == "lift"
    assert again.own_difference is not None
    assert again.own_difference < 1e-9


GDPO = ["algorithm.adv_estimator=gdpo", "+algorithm.gdpo_reward_keys=[vowels,brief]"]


@pytest.fixture(scope="module")
def drafts(folder: Path) -> Run:
    """Ours on the same command line, where every other rollout has two outputs: 48 rows, which verl pads to 64."""
    loop = "actor_rollout_ref.rollout.agent.default_agent_loop=drafting"
    return train(folder / "ours", *GDPO, loop, entry="rvpo.verl", steps=2)


def test_ours_works_on_the_same_command_line_and_counts_a_rollout_of_two_outputs_once(drafts: Run):
    for step, metrics in drafts.metrics.items():
        rows = [row for row in drafts.channels(step) if row["reward_function"] == "vowels"]
        brief = [row for row in drafts.channels(step) if row["reward_function"] == "brief"]
        assert len(rows) == PROMPTS * GENERATIONS
        rewards = torch.stack([tensor([row["reward"] for row in channel]) for channel in (rows, brief)], 1)
        groups = torch.tensor([row["group"] for row in rows])
        expected = rvpo.advantages(rewards, groups, method="gdpo").advantages
        torch.testing.assert_close(tensor([row["advantage"] for row in rows]), expected, rtol=0, atol=1e-9)
        of_session = {row["session"]: row for row in rows}
        outputs = drafts.rollouts[step]
        real = [output for output in outputs if not output["uid"].startswith("pad")]
        assert len(real) == PROMPTS * GENERATIONS * 3 // 2
        assert len(outputs) == PROMPTS * GENERATIONS * 2
        total = tokens = 0.0
        for output in real:
            session, _, index = output["uid"].rpartition("_")
            row = of_session[session]
            if index == "1" or int(session.rpartition("_")[2]) % 2 == 0:  # the reward is the last output's
                assert row["reward"] == pytest.approx(task.vowels(output["output"], ""))
            length = min(len(output["output"]) + 1, 12)  # a letter a token, and the end where there is room for it
            total, tokens = total + length * row["advantage"], tokens + length
        # verl's own average over the tokens of real rows: drafts have their session's advantage, padding has none.
        assert metrics["critic/advantages/mean"] == pytest.approx(total / tokens, abs=1e-6)
