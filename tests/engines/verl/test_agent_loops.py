"""Agent loops of several turns in verl: a reward per turn as a channel, through real trainings on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rig.run import GENERATIONS, PROMPTS, Run, tensor, train

import rvpo
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run

LOOP = "actor_rollout_ref.rollout.agent.default_agent_loop"
TURNS = ", ".join(
    f"{{function: turns, name: {name}, options: {{combine: {combine}}}}}"
    for name, combine in (("both", "sum"), ("first", "1"), ("second", "2"))
)


def columns(run: Run, step: int) -> dict[str, dict[str, float | None]]:
    """Return the recorded rewards: name -> session -> reward."""
    found: dict[str, dict[str, float | None]] = {}
    for row in run.channels(step):
        found.setdefault(row["reward_function"], {})[row["session"]] = row["reward"]
    return found


def turns(run: Run) -> dict[str, list[float | None]]:
    return {event["session"]: event["rewards"] for event in run.events if event["event"] == "turns"}


def check_advantages(run: Run, step: int, names: list[str]) -> None:
    rows = run.channels(step)
    by_name = [[row for row in rows if row["reward_function"] == name] for name in names]
    rewards = torch.stack([tensor([row["reward"] for row in own]) for own in by_name], 1)
    groups = torch.tensor([row["group"] for row in by_name[0]])
    expected = rvpo.advantages(rewards, groups, method="gdpo").advantages
    trained = tensor([row["advantage"] for row in by_name[0]])
    torch.testing.assert_close(trained, expected, rtol=0, atol=1e-9)
    assert expected.abs().max() > 0


@pytest.fixture(scope="module")
def scored(folder: Path) -> Run:
    """Rewards of turns come with the rollout, and the reward function ``turns`` says what they come to."""
    return train(
        folder / "scored",
        f"{LOOP}=guessing",
        "algorithm.adv_estimator=gdpo",
        "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards",
        "reward.custom_reward_function.name=compute_score",
        f"+reward.custom_reward_function.reward_kwargs.rewards=[{TURNS}]",
        entry="rvpo.verl",
        steps=3,
    )


def test_the_reward_function_turns_reads_what_the_agent_loop_noted(scored: Run):
    noted = turns(scored)
    for step, metrics in scored.metrics.items():
        found = columns(scored, step)
        assert {len(column) for column in found.values()} == {PROMPTS * GENERATIONS}
        for session, (first, second) in ((name, noted[name]) for name in found["both"]):
            assert found["first"][session] == pytest.approx(first)
            assert found["second"][session] == pytest.approx(second)
            whole = None if first is None or second is None else first + second
            assert found["both"][session] == pytest.approx(whole)
        assert {"rvpo/both/mean", "rvpo/first/mean", "rvpo/second/mean"} <= metrics.keys()
        check_advantages(scored, step, ["both", "first", "second"])


def test_replay_and_diagnose_read_the_run(scored: Run):
    run = open_run(scored.folder / "rollouts")
    again = replay(run, [])
    assert again.own_difference is not None
    assert again.own_difference < 1e-9
    assert {channel.name for channel in diagnose(run).channels} == {"both", "first", "second"}


def test_an_agent_loop_that_scores_itself_hands_on_its_parts(folder: Path):
    run = train(
        folder / "scoring",
        f"{LOOP}=scoring",
        "algorithm.adv_estimator=gdpo",
        "+algorithm.rvpo.reward_keys=[first,second]",
        entry="rvpo.verl",
        steps=2,
    )
    noted = turns(run)
    for step in run.metrics:
        found = columns(run, step)
        for j, name in enumerate(("first", "second")):
            expected = {session: noted[session][j] for session in found[name]}
            assert found[name] == pytest.approx(expected)
        check_advantages(run, step, ["first", "second"])
