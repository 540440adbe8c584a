"""prime-rl's algorithm: groups one at a time, unscored rewards, memory in the orchestrator's checkpoints.

The types are stand-ins with the fields of verifiers' episodes and traces, unless prime-rl can be imported.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import rvpo
from rvpo.errors import ConfigError, RewardError

OPTIONS: dict[str, Any] = {"method": "lift:whiten=none", "reward_keys": ["correct", "safe"]}


@dataclass
class Reward:
    score: float
    weight: float = 1.0


@dataclass
class Trace:
    rewards: dict[str, Reward | None]
    agent: Any = field(default_factory=lambda: SimpleNamespace(name="solver", trainable=True))
    metrics: dict[str, float] = field(default_factory=dict)
    advantage: float | None = None

    def record_metrics(self, values: Any) -> None:
        self.metrics.update(values)


@dataclass
class Episode:
    traces: list[Trace]
    env: Any = field(default_factory=lambda: SimpleNamespace(name="hub/maths"))


class Algorithm:
    def __init__(self, config: Any, policy_pool: Any) -> None:
        self.policy_pool = policy_pool


class CheckpointManager:
    def __init__(self, root: Path, skip_progress: bool = False) -> None:
        self.root, self.config = root, SimpleNamespace(skip_progress=skip_progress)

    def get_ckpt_path(self, step: int) -> Path:
        return self.root / f"step_{step}" / "orchestrator"

    def save(self, progress: Any, train_source: Any, step: int) -> None:
        self.get_ckpt_path(step).mkdir(parents=True, exist_ok=True)

    def load(self, progress: Any, train_source: Any, step: int, path: Path | None = None) -> None:
        assert (path or self.get_ckpt_path(step)).is_dir()


def assign(trace: Trace, advantage: float) -> None:
    trace.advantage = advantage


@pytest.fixture
def process(
    engine: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[], Any]]:
    """Return a function that begins an orchestrator's process: our module, loaded and installed anew."""
    if engine("prime_rl.orchestrator.algo"):
        pytest.skip("prime-rl is installed: its own types need a policy pool")
    file = tmp_path / "rvpo.yaml"
    file.write_text(yaml.safe_dump({"rvpo": OPTIONS}))
    monkeypatch.setenv("RVPO_CONFIG", str(file))

    def begin() -> Any:
        manager = type("CheckpointManager", (), dict(vars(CheckpointManager)))
        engine("prime_rl.orchestrator.algo", ALGORITHM_CLASSES={}, assign_advantages=assign)
        engine(
            "prime_rl.orchestrator.algo.base",
            Algorithm=Algorithm,
            iter_trainable_traces=lambda episodes: ((e, t) for e in episodes for t in e.traces if t.agent.trainable),
        )
        engine("prime_rl.orchestrator.ckpt", CheckpointManager=manager)
        sys.modules.pop("rvpo.engines.prime_rl", None)
        module = importlib.import_module("rvpo.engines.prime_rl")
        module.install()
        module.install()  # a second time changes nothing
        return SimpleNamespace(
            algorithm=sys.modules["prime_rl.orchestrator.algo"].ALGORITHM_CLASSES["grpo"], manager=manager
        )

    yield begin
    sys.modules.pop("rvpo.engines.prime_rl", None)


def a_config(**changes: Any) -> Any:
    return SimpleNamespace(**{"length_penalty": None} | changes)


def episodes(rows: Any, env: str = "hub/maths") -> list[Episode]:
    return [
        Episode(
            [Trace({k: None if v is None else Reward(v) for k, v in row.items()} | {"turns": Reward(9.0, 0.0)})],
            SimpleNamespace(name=env),
        )
        for row in rows
    ]


def groups(batches: Any) -> list[Any]:
    return [batch[i : i + 4] for batch in batches for i in (0, 4)]


def score(algorithm: Any, group: list[Episode]) -> list[float | None]:
    asyncio.run(algorithm.score_group(group))
    return [trace.advantage for episode in group for trace in episode.traces]


def expected_of(rows: Any) -> list[list[float]]:
    agg = rvpo.Aggregator("lift:whiten=none", ["correct", "safe"])
    return [agg(group, num_generations=4).advantages for group in rows]


def test_every_group_has_the_aggregators_advantages(batches: Any, process: Any):
    algorithm = process().algorithm(a_config(), "pool")
    for group, advantages in zip(groups(batches), expected_of(groups(batches)), strict=True):
        given = episodes(group)
        assert score(algorithm, given) == advantages
        assert all("rvpo/safe/missing" in episode.traces[0].metrics for episode in given)
    assert algorithm.policy_pool == "pool"


def test_a_resumed_run_goes_on_for_each_environment(batches: Any, process: Any, tmp_path: Path):
    rows = groups(batches)
    expected = expected_of(rows)
    run = process()
    algorithms = {env: run.algorithm(a_config(), None) for env in ("hub/maths", "code")}
    for env, algorithm in algorithms.items():
        for group in rows[:2]:
            score(algorithm, episodes(group, env))
    run.manager(tmp_path).save(None, None, 3)
    # The second process sees only one of the environments before its checkpoint; the third sees the other again.
    run = process()
    run.manager(tmp_path).load(None, None, step=3)
    maths = run.algorithm(a_config(), None)
    assert score(maths, episodes(rows[2])) == expected[2]
    run.manager(tmp_path).save(None, None, step=4)
    run = process()
    run.manager(tmp_path).load(None, None, step=9, path=tmp_path / "step_4" / "orchestrator")
    assert score(run.algorithm(a_config(), None), episodes(rows[3])) == expected[3]
    assert score(run.algorithm(a_config(), None), episodes(rows[2], "code")) == expected[2]


def test_a_state_of_another_method_is_refused(batches: Any, process: Any, tmp_path: Path):
    run = process()
    score(run.algorithm(a_config(), None), episodes(groups(batches)[0]))
    run.manager(tmp_path).save(None, None, 1)
    (tmp_path / "rvpo.yaml").write_text(yaml.safe_dump({"rvpo": OPTIONS | {"method": "ctwa:whiten=none"}}))
    run = process()
    run.manager(tmp_path).load(None, None, step=1)
    with pytest.raises(ConfigError, match="what method 'lift' remembered"):
        score(run.algorithm(a_config(), None), episodes(groups(batches)[1]))


def test_a_run_that_skips_progress_begins_anew(batches: Any, process: Any, tmp_path: Path):
    run = process()
    score(run.algorithm(a_config(), None), episodes(groups(batches)[0]))
    run.manager(tmp_path).save(None, None, 1)
    run = process()
    run.manager(tmp_path, skip_progress=True).load(None, None, step=1)
    assert score(run.algorithm(a_config(), None), episodes(groups(batches)[1])) == expected_of([groups(batches)[1]])[0]


def test_agents_of_one_episode_are_not_compared(batches: Any, process: Any):
    first, second = groups(batches)[:2]
    both = [Episode([*a.traces, *b.traces]) for a, b in zip(episodes(first), episodes(second), strict=True)]
    for episode in both:
        episode.traces[1].agent = SimpleNamespace(name="critic", trainable=True)
        episode.traces.append(Trace({"correct": Reward(1.0)}, SimpleNamespace(name="judge", trainable=False)))
    score(process().algorithm(a_config(), None), both)
    rows = [row for pair in zip(first, second, strict=True) for row in pair]
    agg = rvpo.Aggregator("lift:whiten=none", ["correct", "safe"])
    assert [trace.advantage for e in both for trace in e.traces[:2]] == agg(rows, groups=[0, 1] * 4).advantages
    assert [e.traces[2].advantage for e in both] == [None] * 4


@pytest.mark.parametrize("method", ["lift", "gdpo", "rvpo", "grpo:whiten=batch"])
def test_whitening_over_a_batch_is_refused(process: Any, tmp_path: Path, method: str):
    (tmp_path / "rvpo.yaml").write_text(yaml.safe_dump({"rvpo": OPTIONS | {"method": method}}))
    with pytest.raises(ConfigError, match="this engine scores one group at a time"):
        process().algorithm(a_config(), None)


def test_what_would_be_ignored_is_refused(batches: Any, process: Any, tmp_path: Path):
    algorithm = process().algorithm
    with pytest.raises(ConfigError, match=r"algo.length_penalty is set"):
        algorithm(a_config(length_penalty="linear"), None)
    group = episodes(groups(batches)[0])
    group[1].traces[0].rewards["safe"] = Reward(1.0, 0.5)
    with pytest.raises(ConfigError, match=r"verifiers gives the reward 'safe' the weight 0.5"):
        score(algorithm(a_config(), None), group)
    (tmp_path / "rvpo.yaml").write_text(yaml.safe_dump({"rvpo": OPTIONS | {"reward_weights": {"safe": 0.5}}}))
    assert score(algorithm(a_config(), None), group)[0] is not None
    (tmp_path / "rvpo.yaml").write_text(yaml.safe_dump({"rvpo": OPTIONS | {"reward_keys": ["correct", "save"]}}))
    with pytest.raises(RewardError, match="no sample has the reward 'save'"):
        score(algorithm(a_config(), None), group)
