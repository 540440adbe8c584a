"""rLLM's estimator, called by rLLM's own function where it can be imported, and else as that function calls it."""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rvpo.engines import rllm
from rvpo.errors import ConfigError, EngineError, RewardError

OPTIONS: dict[str, Any] = {
    "method": "lift",
    "reward_keys": ["correct", "safe"],
    "reward_ranges": {"correct": [-3, 3]},
    "reward_weights": {"correct": 2.0},
}


class StandInEstimators(str, enum.Enum):  # noqa: UP042 - as rLLM has it: with the hash of its name, not of its value
    GRPO = "grpo"
    OTHER = "other"


@dataclass
class StandInTrajectory:
    signals: dict[str, float]
    reward: float = 0.0
    steps: list[Any] = field(default_factory=lambda: [SimpleNamespace(advantage=None), SimpleNamespace(advantage=None)])


@dataclass
class StandInGroup:
    trajectories: list[Any]
    group_id: str

    @property
    def group_role(self) -> str:
        return self.group_id.split(":")[1]


@pytest.fixture
def collect(engine: Callable[..., bool]) -> Callable[..., None]:
    """Return what computes the advantages of groups in rLLM, for an estimator called so in its config."""
    registry: dict[Any, Any] = {}
    own = engine(
        "rllm.trainer.algorithms.advantage",
        register_rllm_adv_estimator=lambda name: functools.partial(registry.__setitem__, name),
    )
    engine("rllm.trainer.algorithms.config", rLLMAdvantageEstimator=StandInEstimators)
    if own:
        from rllm.trainer.algorithms.advantage import collect_reward_and_advantage_from_trajectory_groups
        from rllm.trainer.algorithms.config import AlgorithmConfig, rLLMAdvantageEstimator

        def call(groups: list[Any], name: str = "rvpo") -> None:
            config = AlgorithmConfig(estimator=rLLMAdvantageEstimator(name))
            collect_reward_and_advantage_from_trajectory_groups(groups, config)

        return call

    def stand_in(groups: list[Any], name: str = "rvpo") -> None:
        for role in dict.fromkeys(group.group_role for group in groups):
            mine = [group for group in groups if group.group_role == role]
            rewards = [np.array([t.reward for t in group.trajectories]) for group in mine]
            advantages, _ = registry[StandInEstimators.OTHER](rewards=rewards, algorithm_config=None, traj_groups=mine)
            for group, numbers in zip(mine, advantages, strict=True):
                for trajectory, advantage in zip(group.trajectories, numbers, strict=True):
                    for step in trajectory.steps:
                        step.advantage = float(advantage)

    return stand_in


def groups(batch: Any, role: str = "solver", sizes: tuple[int, ...] = (4, 4)) -> list[Any]:
    try:
        from rllm.types import Step, Trajectory, TrajectoryGroup
    except ImportError:
        make, group_of = StandInTrajectory, StandInGroup
    else:

        def make(signals: Any) -> Any:  # type: ignore[misc]
            return Trajectory(signals=signals, reward=0.0, steps=[Step(), Step()])

        group_of = TrajectoryGroup
    rows, found = list(batch), []
    for i, size in enumerate(sizes):
        some, rows = rows[:size], rows[size:]
        # rLLM's signals are numbers: what could not be scored is NaN or absent.
        plain = [{k: float("nan") if v is None else v for k, v in row.items()} for row in some]
        found.append(group_of(trajectories=[make(signals=row) for row in plain], group_id=f"task{i}:{role}"))
    return found


def advantages(given: list[Any]) -> list[float]:
    steps = [[step.advantage for step in t.steps] for group in given for t in group.trajectories]
    assert all(one[0] == one[1] for one in steps)
    return [one[0] for one in steps]


def test_advantages_and_resume(batches: Any, expected: Any, collect: Any, tmp_path: Path):
    for batch, numbers in zip(batches, expected, strict=True):
        rllm.register(tmp_path, **OPTIONS)  # a new process for each
        given = groups(batch)
        collect(given)
        assert advantages(given) == numbers
    lines = [json.loads(line) for line in (tmp_path / "solver" / "metrics.jsonl").read_text().splitlines()]
    assert [line["rvpo/correct/missing"] for line in lines] == [1 / 8, 1 / 8]


def test_every_role_has_a_memory_of_its_own(batches: Any, expected: Any, collect: Any, tmp_path: Path):
    rllm.register(tmp_path, **OPTIONS)
    for batch, numbers in zip(batches, expected, strict=True):
        given = groups(batch) + groups(batch, "critic/2")
        collect(given)
        assert advantages(given) == [*numbers, *numbers]


def test_groups_of_unequal_size_and_no_signals(batches: Any, collect: Any, tmp_path: Path):
    rllm.register(tmp_path, **OPTIONS)
    given = groups([*batches[0][:7], {}], sizes=(3, 5))
    collect(given)
    assert advantages(given)[7] == 0.0
    assert any(advantages(given))


def test_who_computes_is_said(batches: Any, collect: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """rLLM's config has the same value for every name that it does not know."""
    rllm.register(tmp_path, **OPTIONS)
    collect(groups(batches[0]), "a name that is mistyped")
    assert "rvpo computes the advantages of role solver, with method lift" in caplog.text


def test_another_run_in_the_same_folder(batches: Any, collect: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rllm.register(tmp_path, **OPTIONS)
    collect(groups(batches[0]))
    rllm.register(tmp_path, **OPTIONS)
    collect(groups(batches[1]))
    assert "For a new run, name another folder" in caplog.text
    rllm.register(tmp_path, **OPTIONS | {"method": "ctwa"})
    with pytest.raises(ConfigError, match="what method 'lift' remembered"):
        collect(groups(batches[1]))


def test_what_would_be_silently_wrong_is_refused(batches: Any, collect: Any, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"rvpo.rllm.register: unknown key 'weights'"):
        rllm.register(tmp_path, **OPTIONS, weights={"correct": 2.0})
    with pytest.raises((ConfigError, RewardError), match="progress"):
        rllm.register(tmp_path, **OPTIONS | {"method": "rvpo:k=linear(0,2)"})
    rllm.register(tmp_path, **OPTIONS | {"reward_keys": ["correct", "save"]})
    with pytest.raises(RewardError, match="no sample has the reward 'save'"):
        collect(groups(batches[0]))
    estimator = rllm.Estimator(rllm.DictOptions.from_mapping(OPTIONS), tmp_path)
    with pytest.raises(EngineError, match="without traj_groups"):
        estimator([np.zeros(4)], None)
