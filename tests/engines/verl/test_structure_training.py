"""Real trainings on the CPU with structures: two columns with a monitor, and rubrics; see rig/README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rig.run import GENERATIONS, PROMPTS, Run, rubrics, tensor, train

import rvpo
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run

GATED = [
    "algorithm.adv_estimator=gdpo",
    "+algorithm.rvpo.reward_keys=[vowels,brief,score]",
    "+algorithm.rvpo.reward_ranges={vowels:[0,1],brief:[0,1],score:[0,1]}",
    '+algorithm.rvpo.structure=["gate(brief,threshold=0.5,factor=0.25)"]',
    "+algorithm.rvpo.monitor=[score]",
]


@pytest.fixture(scope="module")
def gated(folder: Path) -> Run:
    """GDPO on vowels behind a soft gate; the mean of both is watched."""
    return train(folder / "gated", *GATED, entry="rvpo.verl", steps=4)


def columns(run: Run, step: int) -> tuple[dict[str, list[dict[str, Any]]], torch.Tensor]:
    rows = run.channels(step)
    names = ("vowels", "brief", "score")
    of_name = {name: [row for row in rows if row["reward_function"] == name] for name in names}
    return of_name, torch.tensor([row["group"] for row in of_name["vowels"]])


def test_a_gate_and_a_monitor_decide_what_is_trained(gated: Run):
    held = []
    for step in gated.metrics:
        of_name, groups = columns(gated, step)
        rewards = torch.stack([tensor([row["reward"] for row in rows]) for rows in of_name.values()], 1)
        assert len(rewards) == PROMPTS * GENERATIONS
        expected = rvpo.Aggregator(
            "gdpo",
            list(of_name),
            ranges=dict.fromkeys(of_name, (0.0, 1.0)),
            structure=["gate(brief,threshold=0.5,factor=0.25)"],
            monitor=["score"],
        )(rewards, groups=groups)
        trained = tensor([row["advantage"] for row in of_name["vowels"]])
        torch.testing.assert_close(trained, expected.advantages.double(), rtol=0, atol=1e-6)
        # By hand, from the definition: behind the gate a quarter counts.
        vowels, brief = rewards[:, 0], rewards[:, 1]
        counted = torch.where(brief >= 0.5, vowels, 0.25 * vowels)
        by_hand = rvpo.advantages(torch.stack([counted, brief], 1), groups, method="gdpo").advantages
        torch.testing.assert_close(trained, by_hand.double(), rtol=0, atol=1e-6)
        held.append((brief >= 0.5).double().mean().item())
    assert 0 < min(held) < 1, "the gate is neither always open nor always shut"


def test_the_record_of_a_structure_replays_and_is_diagnosed(gated: Run):
    run = open_run(gated.folder / "rollouts")
    assert run.structure
    again = replay(run, [])
    assert again.own_difference is not None
    assert again.own_difference < 1e-6
    assert {channel.name for channel in diagnose(run).channels} >= {"vowels", "brief", "score"}


@pytest.fixture(scope="module")
def joined(folder: Path) -> Run:
    """GDPO where the criteria of each prompt are one conjunction."""
    return train(
        folder / "joined",
        *rubrics(folder / "joined"),
        "algorithm.adv_estimator=gdpo",
        "+algorithm.rvpo.reward_keys=[channels]",
        "+algorithm.rvpo.reward_ranges={channels:[0,1]}",
        '+algorithm.rvpo.structure=["all_of(channels)"]',
        entry="rvpo.verl",
        steps=2,
    )


def test_the_criteria_of_each_prompt_are_joined(joined: Run):
    for step in joined.metrics:
        products: dict[int, float] = {}
        advantages: dict[int, float] = {}
        groups: dict[int, int] = {}
        weights: dict[int, float] = {}
        for row in joined.channels(step):
            if row["reward_function"] != "channels":
                continue  # the conjunction has a row of its own
            one = row["completion"]
            value = float("nan") if row["reward"] is None else row["reward"]
            products[one] = products.get(one, 1.0) * value
            heavy = row["criterion"] == "brief"
            weights[one] = max(weights.get(one, 0.0), 2.0 if heavy else 1.0)  # of the heaviest part
            advantages[one], groups[one] = row["advantage"], row["group"]
        order = sorted(products)
        assert len(order) == PROMPTS * GENERATIONS
        product = torch.tensor([[products[one]] for one in order], dtype=torch.float64)
        group = torch.tensor([groups[one] for one in order])
        weight = torch.tensor([[weights[one]] for one in order], dtype=torch.float64)
        expected = rvpo.advantages(product, group, method="gdpo", weights=weight).advantages.double()
        torch.testing.assert_close(tensor([advantages[one] for one in order]), expected, rtol=0, atol=1e-6)
