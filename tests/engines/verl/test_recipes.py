"""The recipes for verl: each is composed, resolved, built and validated by verl's own code, and accepted by ours."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

import rvpo
from rvpo.core.methods.registry import build_method
from rvpo.engines.verl.config import read_options
from rvpo.engines.verl.rewards import read_rewards
from rvpo.engines.verl.spelling import read_method
from rvpo.judges.build import load_judge, with_processes
from rvpo.recipe import load_recipe

FOLDER = Path(__file__).parents[3] / "recipes" / "verl"
FAMILIES = ("rlla", "rar")
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in FAMILIES)
RLLA, RAR = ([name for name in SHIPPED if name.startswith(family)] for family in FAMILIES)


def composed(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose as ``python -m rvpo.verl --config-dir recipes/verl --config-name NAME`` does, and resolve."""
    with initialize_config_dir(str(FOLDER), version_base=None):
        config = compose(name, ["hydra.searchpath=[pkg://verl.trainer.config]", *overrides])
    OmegaConf.resolve(config)
    return config


def test_the_papers_runs_are_shipped():
    assert RLLA == ["rlla-qwen2.5-1.5b", "rlla-qwen2.5-3b"]
    assert RAR == ["rar-qwen2.5-14b", "rar-qwen2.5-3b", "rar-qwen2.5-7b"]


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("name", SHIPPED)
def test_verl_accepts_it(name: str, nodes: int):
    config = composed(name, ["+cluster=two_nodes"] * (nodes - 1))
    assert OmegaConf.missing_keys(config) == {"reward.reward_model.rollout.name"}  # of a reward model, which is off
    with pytest.warns(UserWarning, match="Disabled critic"):
        assert not need_critic(config)
    assert need_reference_policy(config)
    validate_config(config, use_reference_policy=True, use_critic=False)

    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    assert gpus == 8 * nodes
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert config.data.train_batch_size % actor.ppo_mini_batch_size == 0
    assert actor.ppo_mini_batch_size * rollout.n % gpus == 0
    assert config.trainer.n_gpus_per_node % rollout.tensor_model_parallel_size == 0
    assert config.data.max_prompt_length + config.data.max_response_length <= actor.ppo_max_token_len_per_gpu
    assert config.reward.num_workers % config.trainer.nnodes == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_verl_builds_its_configs_from_it(name: str, tiny_model_dir: Path):
    """As its workers do, which call the batch sizes of the reference policy otherwise."""
    config = composed(name, [f"actor_rollout_ref.model.path={tiny_model_dir}"]).actor_rollout_ref
    with open_dict(config.ref):
        config.ref.use_dynamic_bsz = config.ref.pop("log_prob_use_dynamic_bsz")
        for key in ("micro_batch_size", "micro_batch_size_per_gpu", "max_token_len_per_gpu"):
            config.ref[f"ppo_{key}"] = config.ref.pop(f"log_prob_{key}")
    actor, ref = omega_conf_to_dataclass(config.actor), omega_conf_to_dataclass(config.ref)
    assert actor.engine.strategy == ref.engine.strategy == "fsdp2"
    assert actor.optim.lr == config.actor.optim.lr
    assert (actor.use_kl_loss, actor.kl_loss_coef) == (True, 0.001)
    assert omega_conf_to_dataclass(config.rollout).n == actor.rollout_n == config.rollout.n
    assert omega_conf_to_dataclass(config.model).local_path == str(tiny_model_dir)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_the_papers(name: str):
    """Once more in numbers, as arXiv 2605.05750 and, for rubrics, 2507.17746 have them."""
    config = composed(name)
    actor, data = config.actor_rollout_ref.actor, config.data
    numbers = (data.train_batch_size, actor.ppo_mini_batch_size, config.actor_rollout_ref.rollout.n, actor.optim.lr)
    lengths = (data.max_prompt_length, data.max_response_length, config.trainer.total_training_steps)
    if name in RLLA:
        assert (numbers, lengths) == ((512, 128, 4, 1e-6), (2048, 1024, 100))
        assert config.trainer.total_epochs == 15
    else:
        assert (numbers, lengths) == ((96, 96, 16, 5e-6), (2048, 3072, 300))
        assert actor.optim.lr_warmup_steps == 30
    size = name.rpartition("-")[2]
    assert config.actor_rollout_ref.model.path == f"Qwen/Qwen2.5-{size.upper()}-Instruct"
    assert config.trainer.experiment_name.endswith(f"qwen2.5-{size}")


@pytest.mark.parametrize("name", SHIPPED)
def test_ours_accepts_it(name: str):
    options = read_options(composed(name))
    assert options is not None
    assert options.method == rvpo.RVPO(rvpo.Linear(0.5, 2.0), dead_channels="keep")
    assert [options.method.risk(progress) for progress in (0.0, 0.5, 1.0)] == [0.5, 1.25, 2.0]
    assert options.reward_keys == (["format_reward", "correctness_reward"] if name in RLLA else ["rubric"])


@pytest.mark.parametrize("name", SHIPPED)
def test_its_method_and_rewards_are_those_of_the_recipe_for_trl(name: str):
    theirs = load_recipe(FOLDER.parent / ("qwen2.5-1.5b-rlla.yaml" if name in RLLA else "qwen2.5-7b-rar-medicine.yaml"))
    config = composed(name)
    ours = read_rewards(OmegaConf.to_container(config.reward.custom_reward_function.reward_kwargs))
    assert [(entry.function, entry.weight) for entry in ours] == [
        (entry.function, entry.weight) for entry in theirs.rewards
    ]
    assert read_method(config) == build_method(theirs.method)
    if name in RAR:
        judge = {key: value for key, value in ours[0].options["judge"].items() if key != "cache"}
        assert judge == theirs.rewards[0].options["judge"]


@pytest.mark.parametrize("name", RAR)
def test_its_judge_can_be_built_by_every_worker(name: str, tmp_path: Path):
    config = composed(name, [f"judge.cache={tmp_path}/judge.sqlite", "judge.base_url=http://somewhere:1/v1"])
    [entry] = config.reward.custom_reward_function.reward_kwargs.rewards
    load_judge(with_processes(OmegaConf.to_container(entry.options.judge), config.reward.num_workers))
    assert (tmp_path / "judge.sqlite").exists()
    assert composed(name).judge.cache == f"/var/tmp/rvpo-{config.trainer.experiment_name}.sqlite"


def test_the_reward_function_is_found_by_verl():
    config = composed("rlla-qwen2.5-1.5b")
    reply = "<think> So. </think>"
    info = asyncio.run(get_custom_reward_fn(config)(data_source="d", solution_str=reply, ground_truth=reply))
    assert info == {"score": 1.0, "format_reward": 1.0, "correctness_reward": 0.0}


# --- what the comments of the recipes say -----------------------------------------------------------------------------


def commands(family: str, program: str) -> list[list[str]]:
    text = (FOLDER / f"{family}.yaml").read_text(encoding="utf-8")
    found = [shlex.split(line) for line in re.findall(rf"^#   ({program} .*)$", text, re.MULTILINE)]
    assert found
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_commands_in_the_comments_can_be_typed(family: str):
    for words in commands(family, "python -m rvpo.verl"):
        name, overrides = words[words.index("--config-name") + 1], words[words.index("--config-name") + 2 :]
        assert FOLDER.parents[1] / words[words.index("--config-dir") + 1] == FOLDER
        composed(name, overrides)
    for words in commands(family, "rvpo verl-data"):
        recipe, folder = load_recipe(FOLDER.parents[1] / words[2], words[3:-2]), words[-1]
        assert recipe.data.max_prompt_chars is None
        assert composed(family).data.train_files == f"{folder}/train.parquet"


@pytest.mark.parametrize(("name", "method"), [(SHIPPED[0], "gdpo"), (SHIPPED[0], "hard_min"), (RLLA[0], "gdpo")])
def test_baselines_are_overrides(name: str, method: str):
    options = read_options(composed(name, [f"algorithm.adv_estimator={method}"]))
    assert options is not None
    assert options.method == build_method(method)
