"""The runs of the RiskPO paper on verl: composed, built and validated by verl's own code; equal to those for TRL."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from rig.run import train
from rig.task import write_task
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from rvpo.core.methods.registry import build_method
from rvpo.engines.verl.config import read_options
from rvpo.engines.verl.rewards import read_rewards
from rvpo.engines.verl.spelling import read_method
from rvpo.recipe import load_data_sections, load_recipe

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "recipes" / "riskpo" / "verl"
RUNS = ("code", "easy-maths", "hard-maths", "multi-modal", "risk-seeking")


@cache  # composing takes a second
def composed(name: str, *overrides: str) -> DictConfig:
    """Compose as ``python -m rvpo.verl --config-dir recipes/riskpo/verl --config-name NAME`` does, and resolve."""
    with initialize_config_dir(str(FOLDER), version_base=None):
        config = compose(name, ["hydra.searchpath=[pkg://verl.trainer.config]", *overrides])
    OmegaConf.resolve(config)
    return config


@pytest.mark.parametrize("name", RUNS)
def test_verl_accepts_it(name: str, tiny_model_dir: Path):
    config = composed(name, f"actor_rollout_ref.model.path={tiny_model_dir}")
    with pytest.warns(UserWarning, match="Disabled critic"):
        assert not need_critic(config)
    assert not need_reference_policy(config)  # no KL
    validate_config(config, use_reference_policy=False, use_critic=False)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    assert config.data.train_batch_size % actor.ppo_mini_batch_size == 0
    assert actor.ppo_mini_batch_size * rollout.n % gpus == 0
    assert gpus % rollout.tensor_model_parallel_size == 0
    assert config.data.max_prompt_length + config.data.max_response_length <= actor.ppo_max_token_len_per_gpu
    built = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert (built.optim.lr, built.use_kl_loss, built.entropy_coeff) == (1e-6, False, 0)
    assert omega_conf_to_dataclass(config.actor_rollout_ref.rollout).n == rollout.n


@pytest.mark.parametrize("name", RUNS)
def test_it_is_the_run_of_the_recipe_for_trl(name: str):
    """Whose numbers are those of the released scripts, or our reading: ``tests/recipes/test_riskpo.py``."""
    theirs, config = load_recipe(FOLDER.parent / f"{name}.yaml"), composed(name)
    trainer, actor, rollout = theirs.trainer, config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert read_method(config) == build_method(theirs.method)
    assert config.actor_rollout_ref.model.path == theirs.model.path
    assert rollout.n == trainer["num_generations"]
    assert config.data.train_batch_size * rollout.n == trainer["generation_batch_size"]
    updates = config.data.train_batch_size // actor.ppo_mini_batch_size
    assert config.trainer.total_training_steps * updates == trainer["max_steps"]
    assert config.data.max_response_length == trainer["max_completion_length"]
    assert actor.optim.weight_decay == trainer["weight_decay"]
    ours = read_rewards(OmegaConf.to_container(config.reward.custom_reward_function.reward_kwargs))
    assert [entry.function for entry in ours] == [entry.function for entry in theirs.rewards]
    options = {key: value for entry in ours for key, value in entry.options.items() if key != "processes"}
    assert options == {key: value for entry in theirs.rewards for key, value in entry.options.items()}


@pytest.mark.parametrize("name", RUNS)
def test_the_commands_of_its_comments_can_be_typed(name: str):
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^#   (.*)$", text, re.MULTILINE)]
    controls = []
    for words in commands:
        if words[:2] == ["rvpo", "verl-data"]:
            assert load_data_sections(ROOT / words[2], words[3:-2])
            files = composed(name).data.train_files
            assert f"{words[-1]}/train.parquet" in ([files] if isinstance(files, str) else files)
        elif words[:3] == ["python", "-m", "rvpo.verl"]:
            assert ROOT / words[words.index("--config-dir") + 1] == FOLDER
            composed(words[words.index("--config-name") + 1])
        else:
            controls.append(read_options(composed("easy-maths" if name == "risk-seeking" else name, *words)))
    [control] = controls
    assert control is not None
    assert control.method == build_method("grpo")


TESTS = json.dumps({"input_output": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})})


def with_answers(folder: Path) -> list[str]:
    """Write the rig's task with answers and tests that rewards can read, and return the overrides that name it."""
    write_task(folder / "task")
    rows = pq.read_table(folder / "task" / "plain.parquet").to_pylist()
    for row in rows:
        row["reward_model"]["ground_truth"] = "1"
        row["extra_info"] |= {"prompt": json.dumps(row["prompt"]), "columns": TESTS}
    pq.write_table(pa.Table.from_pylist(rows), path := folder / "answers.parquet")
    return [f"data.train_files={path}", f"data.val_files={path}"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code", "easy-maths", "hard-maths", "risk-seeking"])
def test_it_runs_on_a_tiny_model(name: str, tmp_path: Path):
    reward = "reward.custom_reward_function"
    options: dict[str, Any] = {"entry": "rvpo.verl", "steps": 2}
    config = ["--config-dir", str(FOLDER), "--config-name", name]
    method = f"algorithm.adv_estimator={composed(name).algorithm.adv_estimator!r}".replace("'", '"')
    rewards = [f"{reward}.path=pkg://rvpo.engines.verl.rewards", f"{reward}.name=compute_score"]
    data = with_answers(tmp_path)
    run = train(tmp_path, *data, method, *rewards, *config, **options)  # flags last, or argparse stops at them
    assert list(run.metrics) == [1, 2]
    column = "code" if name == "code" else "math_reward"
    assert all(metrics[f"rvpo/{column}/missing"] == 0.0 for metrics in run.metrics.values())
    assert all(cell["reward"] == 0.0 for cell in run.channels(2))  # no reply has a box or a program
