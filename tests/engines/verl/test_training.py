"""A real training on the CPU: Ray, FSDP2, rollout servers, reward workers, checkpoints; see rig/README.md.

It takes two minutes, so the tests look at the same one from many sides.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rig import rewards as task
from rig.run import GENERATIONS, PROMPTS, Run, TrainingFailedError, tensor, train
from typer.testing import CliRunner

import rvpo
from rvpo.cli.app import app
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run

TWO_CHANNELS = "+algorithm.rvpo.reward_keys=[vowels,brief]"
ANNEALED = [TWO_CHANNELS, "algorithm.adv_estimator=rvpo:k=linear(0.5,2)"]
STEPS, SAVED, KILLED = 30, 10, 13


@pytest.fixture(scope="module")
def annealed(folder: Path) -> Run:
    """RVPO with k from 0.5 to 2.0, killed after step 13 and resumed from the checkpoint of step 10."""
    arguments = [*ANNEALED, f"trainer.save_freq={SAVED}"]
    train(folder / "rvpo", *arguments, entry="rvpo.verl", steps=STEPS, kill_after=KILLED)
    return train(folder / "rvpo", *arguments, entry="rvpo.verl", steps=STEPS)


def test_both_channels_improve(annealed: Run):
    assert list(annealed.metrics) == list(range(1, STEPS + 1))
    for channel in ("vowels", "brief"):
        means = [annealed.metrics[step][f"rvpo/{channel}/mean"] for step in annealed.metrics]
        assert sum(means[-5:]) / 5 > sum(means[:5]) / 5 + 0.15, channel


def test_k_follows_the_trainers_steps_also_after_a_resumption(annealed: Run):
    schedule = rvpo.Linear(0.5, 2.0)
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
        rows = annealed.channels(step)
        columns = {name: [row for row in rows if row["reward_function"] == name] for name in ("vowels", "brief")}
        sessions = [row["session"] for row in columns["vowels"]]
        assert sessions == [row["session"] for row in columns["brief"]]
        assert len(sessions) == len(set(sessions)) == PROMPTS * GENERATIONS
        uids = [session.rpartition("_")[0] for session in sessions]
        groups = torch.tensor([uids.index(uid) for uid in uids])
        rewards = torch.stack([tensor([row["reward"] for row in rows]) for rows in columns.values()], 1)
        expected = rvpo.advantages(rewards, groups, rvpo.RVPO(metrics["rvpo/k"])).advantages
        trained = tensor([row["advantage"] for row in columns["vowels"]])
        torch.testing.assert_close(trained, expected, rtol=0, atol=1e-9)
        # What verl itself saw: it reports the extremes over all response tokens, in float32.
        assert metrics["critic/advantages/max"] == pytest.approx(expected.max().item(), abs=1e-5)
        assert metrics["critic/advantages/min"] == pytest.approx(expected.min().item(), abs=1e-5)


def test_the_record_tells_all_that_a_replay_and_a_diagnosis_need(annealed: Run):
    run = open_run(annealed.folder / "rollouts")
    assert (run.kind, run.channels, run.steps) == ("channels", ("vowels", "brief"), tuple(range(1, STEPS + 1)))
    again = replay(run, [])
    assert again.own == "rvpo:k=linear(0.5,2)"
    assert again.own_difference is not None
    assert again.own_difference < 1e-9
    for batch in run.batches(texts=True):
        assert batch.texts is not None
        assert batch.rewards[:, 0].tolist() == pytest.approx(
            [task.vowels(text, "") for text in batch.texts.completions]
        )
    found = diagnose(run)
    assert (found.completions, found.groups) == (STEPS * PROMPTS * GENERATIONS, STEPS * PROMPTS)
    assert {channel.verdict for channel in found.channels} == {"healthy"}


def test_logged_rewards_are_those_of_the_completions_that_verl_dumped(annealed: Run):
    for step, dumped in annealed.rollouts.items():
        of_session = {row["session"]: {} for row in annealed.channels(step)}
        for row in annealed.channels(step):
            of_session[row["session"]][row["reward_function"]] = row["reward"]
        for rollout in dumped:
            rewards = of_session[rollout["uid"].rpartition("_")[0]]
            assert rewards == pytest.approx(
                {"vowels": task.vowels(rollout["output"], ""), "brief": task.brief(rollout["output"], "")}
            )


CVAR = '''
"""A method of one's own: the mean of the worst channels of a completion."""


def cvar(z, p, *, alpha=0.5):
    worst = z.masked_fill(p == 0, float("inf")).sort(-1).values
    count = (alpha * (p > 0).sum(-1)).ceil().clamp(min=1).long()
    total = worst.cumsum(-1).gather(-1, count[:, None] - 1)[:, 0]
    return (total / count).where((p > 0).any(-1), 0.0)
'''


@pytest.fixture(scope="module")
def own(folder: Path) -> Run:
    """CVaR from a file in the folder in which the command is typed, for two steps."""
    (folder / "cvar/cwd").mkdir(parents=True)
    (folder / "cvar/cwd/my_rules.py").write_text(CVAR)
    method = "algorithm.adv_estimator=my_rules.py:cvar:alpha=0.25"
    return train(folder / "cvar", TWO_CHANNELS, method, entry="rvpo.verl", steps=2)


def test_a_method_of_ones_own_trains_and_is_in_the_record(own: Run):
    assert list(own.metrics) == [1, 2]
    run = open_run(own.folder / "rollouts")
    assert run.config is not None
    place = f"{own.folder}/cwd/my_rules.py:cvar"
    assert run.config.to_mapping()["method"] == {"name": place, "alpha": 0.25}
    z: dict[str, list[float | None]] = {"vowels": [], "brief": []}
    for row in own.channels(1):
        assert row["live"]
        z[row["reward_function"]].append(row["z"])
    lowest = torch.stack([tensor(column) for column in z.values()], 1).min(1).values  # a quarter of two channels: one
    logged = tensor([row["advantage"] for row in own.channels(1) if row["reward_function"] == "vowels"])
    expected = (lowest - lowest.mean()) / (lowest.std() + 1e-4 / 2)  # eps over the sum of the weights, as in TRL
    torch.testing.assert_close(logged, expected, rtol=0, atol=1e-6)


def test_replay_says_how_to_name_a_method_of_ones_own_and_then_gives_the_logged_advantages(own: Run):
    """From any folder: a record is data, so what it names is not imported unless the user says so."""
    rollouts, place = str(own.folder / "rollouts"), f"{own.folder}/cwd/my_rules.py:cvar"
    told = CliRunner().invoke(app, ["replay", rollouts])
    assert told.exit_code == 0, told.output
    assert f"--method{place}" in "".join(told.output.split())  # wherever the terminal breaks the line
    out = own.folder / "replay.json"
    named = CliRunner().invoke(app, ["replay", rollouts, "--method", f"{place}:alpha=0.25", "--json", str(out)])
    assert named.exit_code == 0, named.output
    found = json.loads(out.read_text())
    assert found["own"] == f"{place}:alpha=0.25"
    assert found["own_difference"] < 1e-6


def test_a_mistake_is_told_in_one_line_and_before_ray_starts(folder: Path):
    with pytest.raises(TrainingFailedError) as told:
        train(folder / "mistake", "algorithm.adv_estimator=rvpo", "+algorithm.rvpo.reward_key=[a]", entry="rvpo.verl")
    log = str(told.value)
    assert "error: algorithm.rvpo: unknown key 'reward_key' (did you mean 'reward_keys'?)" in log
    assert "Traceback" not in log
