"""NeMo RL's estimator and the launcher's ``install``, against its own modules or stand-ins with the same functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dict_rewards import OPTIONS
from rvpo.engines import nemo_rl
from rvpo.engines.dicts.options import DictOptions
from rvpo.errors import ConfigError, EngineError, RewardError

MODULES = ("nemo_rl.algorithms.grpo", "nemo_rl.algorithms.grpo_sync")


class Manager:
    """As nemo_rl.utils.checkpoint.CheckpointManager."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.root = Path(config["checkpoint_dir"])

    def init_tmp_checkpoint(self, step: int, training_info: Any, run_config: Any = None) -> str:
        folder = self.root / f"step_{step}"
        folder.mkdir(parents=True)
        return str(folder)

    def get_latest_checkpoint_path(self) -> str | None:
        return max(map(str, self.root.glob("step_*")), default=None)


def create(master_config: Any) -> Any:
    """As grpo._create_advantage_estimator for a name that it does not know."""
    if master_config.grpo.adv_estimator.name != "grpo":
        raise ValueError(f"Invalid adv_estimator name: {master_config.grpo.adv_estimator.name}")
    return "grpo's own"


def columns_of(component_dicts: list[Any]) -> dict[str, torch.Tensor]:
    """As nemo_gym.build_reward_component_columns: 0 for what a sample lacks."""
    names = sorted({name for components in component_dicts for name in components or {}})
    return {f"reward/{n}": torch.tensor([(c or {}).get(n, 0.0) for c in component_dicts]) for n in names}


@pytest.fixture
def installed(engine: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Install into stand-ins; return what the logging next to advantages received."""
    logged: list[Any] = []
    for module in MODULES:
        engine(
            module,
            _create_advantage_estimator=create,
            _log_mixed_rewards_and_advantages_information=lambda **kwargs: logged.append(kwargs),
        )
    engine("nemo_rl.utils.checkpoint", CheckpointManager=type("CheckpointManager", (Manager,), dict(vars(Manager))))
    engine("nemo_rl.environments.nemo_gym", build_reward_component_columns=columns_of)
    monkeypatch.setattr(nemo_rl, "_running", [])
    nemo_rl.install()
    nemo_rl.install()  # a second time changes nothing
    return logged


def config(folder: Path, name: str = "rvpo", **grpo: Any) -> Any:
    off = SimpleNamespace(enabled=False)
    options = {
        "adv_estimator": SimpleNamespace(name=name, rvpo=OPTIONS),
        "use_dynamic_sampling": False,
        "reward_scaling": off,
        "reward_shaping": off,
        "async_grpo": off,
    }
    return SimpleNamespace(
        grpo=SimpleNamespace(**options | grpo),
        env={"should_use_nemo_gym": True},
        data_plane=None,
        checkpointing={"checkpoint_dir": str(folder)},
    )


def columns(batch: Any) -> dict[str, torch.Tensor]:
    nan = float("nan")
    numbers = {n: [nan if row.get(n) is None else row[n] for row in batch] for n in ("correct", "safe")}
    return {f"reward/{name}": torch.tensor(values) for name, values in numbers.items()}


PROMPTS = torch.tensor([[5, 6, 0]] * 4 + [[5, 6, 7]] * 4)
MASK = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0]] * 8)


def advantages(estimator: Any, batch: Any) -> torch.Tensor:
    found = estimator.compute_advantage(
        prompt_ids=PROMPTS,
        rewards=torch.zeros(8),
        mask=MASK,
        repeated_batch=columns(batch) | {"total_reward": torch.zeros(8)},
        logprobs_policy=None,
        logprobs_reference=None,
    )
    assert found.shape == MASK.shape
    assert torch.equal(found, found[:, :1].expand(8, 5))
    return found[:, 0]


def test_advantages_metrics_and_resume(batches: Any, expected: Any, installed: list[Any], tmp_path: Path):
    import sys

    grpo, checkpoint = sys.modules["nemo_rl.algorithms.grpo"], sys.modules["nemo_rl.utils.checkpoint"]
    sent: list[Any] = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step, prefix: sent.append((metrics, step, prefix)))
    for step in (0, 1):  # a new process for each
        nemo_rl._running.clear()
        estimator = grpo._create_advantage_estimator(config(tmp_path))
        assert advantages(estimator, batches[step]).tolist() == pytest.approx(expected[step], abs=1e-6)
        grpo._log_mixed_rewards_and_advantages_information(logger=logger, total_steps=step, metrics={})
        assert sent[step][0]["rvpo/safe/missing"] > 0
        assert sent[step][1:] == (step + 1, "train")
        folder = checkpoint.CheckpointManager({"checkpoint_dir": tmp_path}).init_tmp_checkpoint(step + 1, {})
        assert (Path(folder) / "rvpo_state.json").exists()
    assert [one["total_steps"] for one in installed] == [0, 1], "NeMo RL's own logging runs, too"


def test_a_component_that_a_sample_lacks_is_missing(installed: Any, tmp_path: Path):
    import sys

    gym = sys.modules["nemo_rl.environments.nemo_gym"]
    lacking = [{"correct": 1.0, "safe": 0.0}, {"correct": 0.0}, None]
    assert gym.build_reward_component_columns(lacking)["reward/safe"].tolist() == [0.0, 0.0, 0.0], "not ours"
    sys.modules["nemo_rl.algorithms.grpo"]._create_advantage_estimator(config(tmp_path))
    found = gym.build_reward_component_columns(lacking)
    assert torch.isnan(found["reward/safe"]).tolist() == [False, True, True]
    assert torch.isnan(found["reward/correct"]).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dynamic_sampling": True}, "grpo.use_dynamic_sampling is true"),
        ({"reward_scaling": SimpleNamespace(enabled=True)}, "grpo.reward_scaling.enabled is true"),
        ({"reward_shaping": SimpleNamespace(enabled=True)}, "grpo.reward_shaping.enabled is true"),
        ({"adv_estimator": SimpleNamespace(name="rvpo")}, "grpo.adv_estimator.rvpo is None; expected a mapping"),
        ({"adv_estimator": SimpleNamespace(name="grpo", rvpo=OPTIONS)}, "has a section rvpo, but name is 'grpo'"),
        ({"adv_estimator": SimpleNamespace(name="rvpo", rvpo=OPTIONS | {"method": "rvpo:k=linear(0,2)"})}, "progress"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(installed: Any, tmp_path: Path, changes: Any, said: str):
    import sys

    with pytest.raises((ConfigError, RewardError), match=said):
        sys.modules["nemo_rl.algorithms.grpo"]._create_advantage_estimator(config(tmp_path, **changes))


def test_other_estimators_stay(installed: Any, tmp_path: Path):
    import sys

    plain = SimpleNamespace(name="grpo")
    for module in MODULES:
        assert sys.modules[module]._create_advantage_estimator(config(tmp_path, adv_estimator=plain)) == "grpo's own"
    sys.modules["nemo_rl.algorithms.grpo"]._log_mixed_rewards_and_advantages_information(total_steps=0)
    assert len(installed) == 1


def test_zeros_that_cannot_be_told_from_missing_are_said(installed: Any, tmp_path: Path, caplog: Any):
    import sys

    on = SimpleNamespace(enabled=True)
    sys.modules["nemo_rl.algorithms.grpo"]._create_advantage_estimator(config(tmp_path, async_grpo=on))
    assert "Let every verifier return every reward" in caplog.text


def test_a_batch_without_columns_is_refused(batches: Any):
    estimator = nemo_rl.RVPOAdvantageEstimator(DictOptions.from_mapping(OPTIONS))
    with pytest.raises(RewardError, match="the batch has no column reward/"):
        estimator.compute_advantage(PROMPTS, torch.zeros(8), MASK, {"total_reward": torch.zeros(8)})
    with pytest.raises(RewardError, match="no sample has the reward 'correct'"):
        estimator.compute_advantage(PROMPTS, torch.zeros(8), MASK, {"reward/format": torch.zeros(8)})


def test_a_version_that_has_moved_is_refused(engine: Callable[..., bool]):
    for module in (*MODULES, "nemo_rl.utils.checkpoint", "nemo_rl.environments.nemo_gym"):
        if engine(module):
            pytest.skip("NeMo RL is installed")
    with pytest.raises(EngineError, match=r"nemo_rl.algorithms.grpo has no _create_advantage_estimator"):
        nemo_rl.install()
