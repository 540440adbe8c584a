"""Real trainings on the CPU: Ray, FSDP2, rollout servers, reward workers, checkpoints; see rig/README.md.

Each training takes a minute, so the tests look at the same few from many sides.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from rig import rewards as task
from rig.run import GENERATIONS, PROMPTS, Run, TrainingFailedError, rubrics, train

import rvpo
from rvpo.core import AdvantageConfig, Channels, Schedule, compute

TWO_CHANNELS = "+algorithm.rvpo.reward_keys=[vowels,brief]"
ANNEALED = [TWO_CHANNELS, "algorithm.adv_estimator=rvpo", "+algorithm.rvpo={k: 0.5, k_schedule: linear, k_final: 2.0}"]
STEPS, SAVED, KILLED = 30, 10, 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("verl")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def annealed(folder: Path) -> Run:
    """RVPO with k from 0.5 to 2.0, killed after step 13 and resumed from the checkpoint of step 10."""
    arguments = [*ANNEALED, f"trainer.save_freq={SAVED}"]
    train(folder / "rvpo", *arguments, entry="rvpo.verl", steps=STEPS, kill_after=KILLED)
    return train(folder / "rvpo", *arguments, entry="rvpo.verl", steps=STEPS)


@pytest.fixture(scope="module")
def ragged(folder: Path) -> Run:
    """LIFT on rubrics of two to five criteria, two workers, asynchronous; killed after step 5, resumed from step 4."""
    ours = ["algorithm.adv_estimator=lift", "+algorithm.rvpo.reward_keys=[channels]"]
    arguments = [*rubrics(folder / "lift"), *ours, "trainer.save_freq=4"]
    options: dict[str, Any] = {"entry": "rvpo.verl", "workers": 2, "mode": "colocate_async", "steps": 12}
    train(folder / "lift", *arguments, kill_after=5, **options)
    return train(folder / "lift", *arguments, **options)


def table(run: Run, step: int) -> list[dict[str, Any]]:
    """Return every channel of every completion of a step, as our trainer wrote it."""
    return pq.read_table(run.folder / f"rollouts/channels/{step:06d}.parquet").to_pylist()


def tensor(values: list[Any]) -> torch.Tensor:
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)


def test_both_channels_improve(annealed: Run):
    assert list(annealed.metrics) == list(range(1, STEPS + 1))
    for channel in ("vowels", "brief"):
        means = [annealed.metrics[step][f"rvpo/{channel}/mean"] for step in annealed.metrics]
        assert sum(means[-5:]) / 5 > sum(means[:5]) / 5 + 0.15, channel


def test_k_follows_the_trainers_steps_also_after_a_resumption(annealed: Run):
    schedule = Schedule("linear", 0.5, 2.0)
    for step, metrics in annealed.metrics.items():
        assert metrics["rvpo/k"] == pytest.approx(schedule((step - 1) / (STEPS - 1))), step


def test_the_resumed_run_went_on_from_its_checkpoint(annealed: Run):
    first, second = sorted(annealed.folder.glob("metrics-*.jsonl"))
    steps = [[json.loads(line)["step"] for line in path.read_text().splitlines()] for path in (first, second)]
    assert steps[0][0] == 1
    assert steps[0][-1] >= KILLED
    assert steps[1] == list(range(SAVED + 1, STEPS + 1))


def test_advantages_in_verl_equal_rvpo_advantages_on_the_logged_rewards(annealed: Run):
    for step, metrics in annealed.metrics.items():
        rows = table(annealed, step)
        columns = {name: [row for row in rows if row["reward_function"] == name] for name in ("vowels", "brief")}
        sessions = [row["session"] for row in columns["vowels"]]
        assert sessions == [row["session"] for row in columns["brief"]]
        assert len(sessions) == len(set(sessions)) == PROMPTS * GENERATIONS
        uids = [session.rpartition("_")[0] for session in sessions]
        groups = torch.tensor([uids.index(uid) for uid in uids])
        rewards = torch.stack([tensor([row["reward"] for row in rows]) for rows in columns.values()], 1)
        expected = rvpo.advantages(rewards, groups, k=metrics["rvpo/k"]).advantages
        trained = tensor([row["advantage"] for row in columns["vowels"]])
        torch.testing.assert_close(trained, expected, rtol=0, atol=1e-9)
        # What verl itself saw: it reports the extremes over all response tokens, in float32.
        assert metrics["critic/advantages/max"] == pytest.approx(expected.max().item(), abs=1e-5)
        assert metrics["critic/advantages/min"] == pytest.approx(expected.min().item(), abs=1e-5)


def test_logged_rewards_are_those_of_the_completions_that_verl_dumped(annealed: Run):
    for step, dumped in annealed.rollouts.items():
        of_session = {row["session"]: {} for row in table(annealed, step)}
        for row in table(annealed, step):
            of_session[row["session"]][row["reward_function"]] = row["reward"]
        for rollout in dumped:
            rewards = of_session[rollout["uid"].rpartition("_")[0]]
            assert rewards == pytest.approx(
                {"vowels": task.vowels(rollout["output"], ""), "brief": task.brief(rollout["output"], "")}
            )


def test_ragged_rubrics_train_with_two_workers_asynchronously(ragged: Run):
    assert list(ragged.metrics) == list(range(1, 13))
    means = [metrics["rvpo/channels/mean"] for metrics in ragged.metrics.values()]
    assert sum(means[-3:]) > sum(means[:3]) + 0.1
    sizes = {len([row for row in table(ragged, 1) if row["completion"] == i]) for i in range(PROMPTS * GENERATIONS)}
    assert min(sizes) >= 2
    assert max(sizes) <= 5
    assert len(sizes) > 1, "rubrics of different length"


def test_what_lift_remembers_is_resumed(ragged: Run):
    """Replayed from the logged rewards alone, from step 1: the second run goes on with the state of the first."""
    saved = json.loads((ragged.folder / "checkpoints/global_step_4/rvpo_state.json").read_text())
    assert saved["method"] == "lift"
    config, state = AdvantageConfig("lift"), {}
    for step in ragged.metrics:
        rows = table(ragged, step)
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
        channels = Channels(("channels/word",), torch.zeros(shape, dtype=torch.int64), ((0.0, 1.0),))
        result = compute(
            values, config, groups=groups, weights=weights, applies=applies, channels=channels, state=state
        )
        state = result.state
        if step == 4:
            assert json.loads(json.dumps(state)) == saved["remembered"]
        trained = tensor([own[0]["advantage"] for own in cells.values()])
        torch.testing.assert_close(trained, result.advantages, rtol=0, atol=1e-9)


GDPO = ["algorithm.adv_estimator=gdpo", "+algorithm.gdpo_reward_keys=[vowels,brief]"]


@pytest.fixture(scope="module")
def drafts(folder: Path) -> Run:
    """Ours on the same command line, where every other rollout has two outputs: 48 rows, which verl pads to 64."""
    loop = "actor_rollout_ref.rollout.agent.default_agent_loop=drafting"
    return train(folder / "ours", *GDPO, loop, entry="rvpo.verl", steps=2)


def test_ours_works_on_the_same_command_line_and_counts_a_rollout_of_two_outputs_once(drafts: Run):
    for step, metrics in drafts.metrics.items():
        rows = [row for row in table(drafts, step) if row["reward_function"] == "vowels"]
        brief = [row for row in table(drafts, step) if row["reward_function"] == "brief"]
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


def test_a_mistake_is_told_in_one_line_and_before_ray_starts(folder: Path):
    with pytest.raises(TrainingFailedError) as told:
        train(folder / "mistake", "algorithm.adv_estimator=rvpo", "+algorithm.rvpo.reward_key=[a]", entry="rvpo.verl")
    log = str(told.value)
    assert "error: algorithm.rvpo: unknown key 'reward_key' (did you mean 'reward_keys'?)" in log
    assert "Traceback" not in log
