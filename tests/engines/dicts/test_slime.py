"""slime's reward post-process: what its rollout manager would hand to the loss, resume, and what is refused."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dict_rewards import GROUPS, OPTIONS
from rvpo.engines.slime import PostProcess
from rvpo.errors import ConfigError, EngineError, RewardError

FILTER = "slime.rollout.filter_hub.dynamic_sampling_filters.check_reward_nonzero_std"


class Status(enum.Enum):
    COMPLETED = "completed"
    ABORTED = "aborted"


@dataclass
class StandIn:
    """The fields of slime.utils.types.Sample that matter here."""

    group_index: int | None = None
    index: int | None = None
    rollout_id: int | None = None
    reward: Any = None
    status: Any = Status.COMPLETED
    remove_sample: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def logged(engine: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What slime's tracking received."""
    seen: list[Any] = []
    engine("slime.rollout.sample_hooks", _current_rollout_id=None)
    engine("slime.observability.metric_utils", compute_rollout_step=lambda args, step: step)
    if engine(
        "slime.observability.logging_utils", log=lambda args, metrics, step_key: seen.append((metrics, step_key))
    ):
        monkeypatch.setattr(
            "slime.observability.logging_utils.log", lambda args, metrics, step_key: seen.append((metrics, step_key))
        )
    return seen


@pytest.fixture
def sample(engine: Callable[..., bool]) -> Any:
    if engine("slime.utils.types", Sample=StandIn):
        from slime.utils.types import Sample

        return Sample
    return StandIn


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Let slime be at a rollout."""
    return lambda step: monkeypatch.setattr("slime.rollout.sample_hooks._current_rollout_id", step)


def arguments(folder: Path | None = None, **changes: Any) -> SimpleNamespace:
    given = {
        "advantage_estimator": "grpo",
        "normalize_advantages": False,
        "reward_key": "score",
        "dynamic_sampling_filter_path": None,
        "num_rollout": 10,
        "load": None if folder is None else str(folder),
        "save": None if folder is None else str(folder),
        "wandb_always_use_train_step": False,
        "rvpo": OPTIONS,
    }
    return SimpleNamespace(**given | changes)


def samples(sample: Any, batch: Any) -> list[Any]:
    return [
        sample(group_index=40 + group, index=i, reward=row | {"score": float(i)})
        for i, (group, row) in enumerate(zip(GROUPS, batch, strict=True))
    ]


def test_advantages_reach_the_loss_and_a_resumed_run_goes_on(
    batches: Any, expected: Any, logged: list[Any], sample: Any, at: Any, tmp_path: Path
):
    for step in (0, 1):
        at(step)
        # A new process for every rollout, as after a crash.
        raw, advantages = PostProcess()(arguments(tmp_path), samples(sample, batches[step]))
        assert advantages == expected[step]
        assert raw == [float(i) for i in range(8)]
    metrics, key = logged[1]
    assert metrics[key] == 1
    assert metrics["rvpo/safe/missing"] == pytest.approx(1 / 8)
    assert sorted(path.name for path in (tmp_path / "rvpo").iterdir()) == ["rollout_0", "rollout_1"]


def test_one_process_remembers(batches: Any, expected: Any, logged: list[Any], sample: Any, at: Any):
    run = PostProcess()
    for step in (0, 1):
        at(step)
        assert run(arguments(), samples(sample, batches[step]))[1] == expected[step]


def test_async_training_goes_on_from_its_checkpoint_and_not_from_the_rollout_ahead(
    batches: Any, expected: Any, logged: list[Any], sample: Any, at: Any, tmp_path: Path
):
    """train_async.py has generated rollout 1 when it saves the checkpoint of rollout 0."""
    run = PostProcess()
    for step in (0, 1):
        at(step)
        run(arguments(tmp_path), samples(sample, batches[step]))
    at(1)
    assert PostProcess()(arguments(tmp_path), samples(sample, batches[1]))[1] == expected[1]


def test_a_state_of_another_method_is_refused(batches: Any, logged: Any, sample: Any, at: Any, tmp_path: Path):
    at(0)
    PostProcess()(arguments(tmp_path), samples(sample, batches[0]))
    at(1)
    with pytest.raises(ConfigError, match="what method 'lift' remembered"):
        PostProcess()(arguments(tmp_path, rvpo=OPTIONS | {"method": "ctwa"}), samples(sample, batches[1]))


def test_a_compact_rollout_counts_once(batches: Any, expected: Any, logged: Any, sample: Any, at: Any):
    """Several samples of one rollout, with one reward, next to a sample that has no rollout id."""
    at(0)
    batch = samples(sample, batches[0])
    for i, one in enumerate(batch[1:], start=1):
        one.rollout_id = i
    parts = [0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 7]
    assert PostProcess()(arguments(), [batch[i] for i in parts])[1] == [expected[0][i] for i in parts]


def test_an_aborted_sample_has_no_advantage(batches: Any, logged: Any, sample: Any, at: Any):
    at(0)
    batch = samples(sample, batches[0])
    batch[5].reward, batch[5].status = None, type(batch[5].status)("aborted")
    raw, advantages = PostProcess()(arguments(), batch)
    assert advantages[5] == 0.0
    assert math.isnan(raw[5])


def test_the_filter_looks_at_every_reward(batches: Any, logged: Any, sample: Any):
    keep = PostProcess().keep_ranked
    group = samples(sample, batches[0])[4:]  # tied in its sum
    assert keep(arguments(), group)
    assert keep(arguments(), [[one] for one in group])  # compact
    assert not keep(arguments(), [group[0]] * 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"advantage_estimator": "ppo"}, "--advantage-estimator is 'ppo', which changes advantages again"),
        ({"advantage_estimator": "reinforce_plus_plus"}, "expected one of grpo, gspo, cispo"),
        ({"advantage_estimator": "reinforce_plus_plus_baseline"}, "which changes advantages again"),
        ({"normalize_advantages": True}, "--normalize-advantages is set"),
        ({"reward_key": None}, "--reward-key is not set"),
        (
            {"dynamic_sampling_filter_path": FILTER},
            "expected rvpo.slime.keep_ranked",
        ),
        ({"rvpo": {"method": "lift"}}, "reward_keys"),
        ({"rvpo": None}, "RVPO_CONFIG is not set"),
        ({"num_rollout": None, "rvpo": OPTIONS | {"method": "rvpo:k=linear(0,2)"}}, "progress"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(
    batches: Any, logged: Any, sample: Any, at: Any, changes: Any, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RVPO_CONFIG", raising=False)
    at(0)
    with pytest.raises((ConfigError, RewardError), match=said):
        PostProcess()(arguments(**changes), samples(sample, batches[0]))


def test_samples_without_a_group_or_a_dict_are_refused(batches: Any, logged: Any, sample: Any, at: Any):
    at(0)
    batch = samples(sample, batches[0])
    batch[3].group_index = None
    with pytest.raises(RewardError, match=r"groups\[3\] is None"):
        PostProcess()(arguments(), batch)
    batch = samples(sample, batches[0])
    batch[3].reward["score"] = "high"
    with pytest.raises(RewardError, match="the reward dict has 'high' under --reward-key score"):
        PostProcess()(arguments(), batch)
    batch = samples(sample, batches[0])
    batch[3].reward = 1.0
    with pytest.raises(RewardError, match=r"rewards\[3\] is 1.0; expected a dict"):
        PostProcess()(arguments(), batch)


def test_an_older_slime_is_refused(batches: Any, logged: Any, sample: Any, at: Any):
    at(None)
    with pytest.raises(EngineError, match="slime does not say at which rollout it is"):
        PostProcess()(arguments(), samples(sample, batches[0]))


def test_the_public_names_are_those_that_slime_loads():
    from rvpo import slime

    assert slime.keep_ranked.__self__ is slime.post_process
