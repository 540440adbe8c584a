"""The cookbook's loop with our advantages: its own module and types where they can be imported, else stand-ins."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rvpo.engines import tinker
from rvpo.errors import ConfigError, RewardError

OPTIONS: dict[str, Any] = {
    "method": "lift",
    "reward_keys": ["correct", "safe"],
    "reward_ranges": {"correct": [-3, 3]},
    "reward_weights": {"correct": 2.0},
}


@dataclass
class StandInTransition:
    metrics: dict[str, float]


@dataclass
class StandInTrajectory:
    transitions: list[Any]


@dataclass
class StandInGroup:
    trajectories_G: list[Any]  # noqa: N815 - the cookbook's name
    final_rewards_G: list[float]  # noqa: N815
    metrics_G: list[dict[str, float]] = field(default_factory=list)  # noqa: N815


@pytest.fixture
def cookbook(engine: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The modules that are patched, with a loop around them; ``records`` are the checkpoints of the run."""
    records: list[Any] = []

    async def save(*args: Any, loop_state: Any, **kwargs: Any) -> dict[str, str]:
        records.append(SimpleNamespace(batch=loop_state["batch"]))
        return {}

    async def prepare(builders: Any, groups: Any, *args: Any, **kwargs: Any) -> Any:
        train = sys.modules["tinker_cookbook.rl.train"]
        for group in groups[:2]:
            train.print_group(group, None)
        return train.compute_advantages(groups), {"own": 1.0}

    def print_group(group: Any, tokenizer: Any) -> None:
        sys.modules["tinker_cookbook.rl.train"].compute_advantages([group])

    parts = {"compute_advantages": None, "print_group": print_group, "prepare_minibatch": prepare}
    engine("tinker_cookbook.rl.train", **parts)
    engine("tinker_cookbook.checkpoint_utils", save_checkpoint_async=save, get_last_checkpoint=lambda path: None)
    # Around the cookbook's own, too: the service and the tokenizer are not there.
    train, checkpoints = sys.modules["tinker_cookbook.rl.train"], sys.modules["tinker_cookbook.checkpoint_utils"]

    def restart() -> None:
        for name, value in parts.items():
            monkeypatch.setattr(train, name, value)
        monkeypatch.setattr(checkpoints, "save_checkpoint_async", save)
        monkeypatch.setattr(checkpoints, "get_last_checkpoint", lambda path: records[-1] if records else None)

    restart()
    config = SimpleNamespace(log_path=str(tmp_path), remove_constant_reward_groups=False)
    return SimpleNamespace(train=train, checkpoints=checkpoints, config=config, restart=restart, records=records)


def groups(batch: Any) -> list[Any]:
    """Parts in the metrics of the last transition, of an earlier one, or of the group."""
    try:
        import tinker as service
        from tinker_cookbook.completers import TokensWithLogprobs
        from tinker_cookbook.rl.types import Trajectory, TrajectoryGroup, Transition
    except ImportError:
        one, many, group_of = StandInTransition, StandInTrajectory, StandInGroup
    else:
        empty = service.ModelInput.from_ints([])

        def one(metrics: Any) -> Any:  # type: ignore[misc]
            action = TokensWithLogprobs(tokens=[1], maybe_logprobs=[0.0])
            return Transition(ob=empty, ac=action, reward=0.0, episode_done=False, metrics=metrics)

        def many(transitions: Any) -> Any:  # type: ignore[misc]
            return Trajectory(transitions=transitions, final_ob=empty)

        group_of = TrajectoryGroup
    found = []
    for start in (0, 4):
        # A metric cannot be None in the cookbook's logs: what was not scored is absent.
        rows = [{k: v for k, v in row.items() if v is not None} for row in batch[start : start + 4]]
        own = [{k: row.pop(k) for k in list(row) if k == "safe" and i % 2} for i, row in enumerate(rows)]
        trajectories = [
            many(transitions=[one(metrics={"safe": 0.3} if "safe" in row else {}), one(metrics=row)]) for row in rows
        ]
        found.append(group_of(trajectories_G=trajectories, final_rewards_G=[0.0] * 4, metrics_G=own))
    return found


def train_on(cookbook: Any, batch: Any) -> tuple[list[float], dict[str, float]]:
    advantages, metrics = asyncio.run(cookbook.train.prepare_minibatch([], groups(batch)))
    assert all(isinstance(a, torch.Tensor) and a.shape == (4,) for a in advantages)
    return torch.cat(advantages).tolist(), metrics


def test_advantages_metrics_and_resume(batches: Any, expected: Any, cookbook: Any):
    """Groups are printed before they are trained on, which must teach the method nothing."""
    for i, (batch, numbers) in enumerate(zip(batches, expected, strict=True)):
        cookbook.restart()  # a new process for each
        tinker.install(cookbook.config, **OPTIONS)
        found, metrics = train_on(cookbook, batch)
        assert found == pytest.approx(numbers, abs=1e-6)
        assert metrics["rvpo/safe/missing"] > 0
        assert metrics["own"] == 1.0
        asyncio.run(cookbook.checkpoints.save_checkpoint_async(training_client=None, loop_state={"batch": i + 1}))
    assert [record.batch for record in cookbook.records] == [1, 2]


def test_a_resumed_run_takes_the_memory_of_its_checkpoint(batches: Any, expected: Any, cookbook: Any):
    tinker.install(cookbook.config, **OPTIONS)
    train_on(cookbook, batches[0])
    asyncio.run(cookbook.checkpoints.save_checkpoint_async(loop_state={"batch": 1}))
    train_on(cookbook, batches[1])  # and then it crashes
    cookbook.restart()
    tinker.install(cookbook.config, **OPTIONS)
    assert train_on(cookbook, batches[1])[0] == pytest.approx(expected[1], abs=1e-6)


def test_what_would_be_silently_wrong_is_refused(batches: Any, cookbook: Any):
    cookbook.config.remove_constant_reward_groups = True
    with pytest.raises(ConfigError, match="remove_constant_reward_groups is True"):
        tinker.install(cookbook.config, **OPTIONS)
    cookbook.config.remove_constant_reward_groups = False
    with pytest.raises(ConfigError, match="unknown key 'keys'"):
        tinker.install(cookbook.config, **OPTIONS, keys=[])
    tinker.install(cookbook.config, **OPTIONS | {"reward_keys": ["correct", "save"]})
    with pytest.raises(RewardError, match="no sample has the reward 'save'"):
        train_on(cookbook, batches[0])
    with pytest.raises(ConfigError, match="was called before in this process"):
        tinker.install(cookbook.config, **OPTIONS)


def test_a_state_of_another_method_is_refused(batches: Any, cookbook: Any):
    tinker.install(cookbook.config, **OPTIONS)
    train_on(cookbook, batches[0])
    asyncio.run(cookbook.checkpoints.save_checkpoint_async(loop_state={"batch": 1}))
    cookbook.restart()
    with pytest.raises(ConfigError, match="what method 'lift' remembered"):
        tinker.install(cookbook.config, **OPTIONS | {"method": "ctwa"})
