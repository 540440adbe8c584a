"""What verl would ignore, or fail on late, is refused before Ray starts, with the place where it belongs."""

from __future__ import annotations

import copy
import functools
import sys
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from rvpo.engines.verl import checks
from rvpo.engines.verl.checks import check_checkpoint, check_pictures
from rvpo.engines.verl.config import read_options
from rvpo.errors import ConfigError
from tiny_vision_model import write_geometry

OURS = ["algorithm.adv_estimator=lift", "+algorithm.rvpo.reward_keys=[a,b]"]
PATH = "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards"
RUBRIC = "{function: rubric, name: r, options: {judge: {kind: rule}}}"
FORMAT = "{function: format, name: f}"
REWARDS = [PATH, f"+reward.custom_reward_function.reward_kwargs.rewards=[{RUBRIC},{FORMAT}]"]
FILTER = "algorithm.filter_groups.enable=True"
WANTED = "+reward.custom_reward_function.reward_kwargs.wanted"


@functools.cache
def composed(name: str) -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, ["actor_rollout_ref.rollout.n=4"])


def config(*overrides: str, name: str = "ppo_trainer") -> DictConfig:
    """Return verl's config with overrides. Composing it anew takes seconds."""
    given = OmegaConf.from_dotlist([override.lstrip("+") for override in overrides])
    base = copy.deepcopy(composed(name))
    OmegaConf.set_struct(base, False)
    return cast(DictConfig, OmegaConf.merge(base, given))


@pytest.mark.parametrize("estimator", [OURS, ["algorithm.adv_estimator=grpo"]])
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trainer.use_v1=False", "trainer.use_v1 is False.*main_ppo"),
        (
            "custom_reward_function.path=x.py",
            "custom_reward_function.path is 'x.py'.*reward.custom_reward_function.path=x",
        ),
        ("reward_model.reward_manager=dapo", "reward_model.reward_manager is 'dapo'.*reward.reward_manager.name=dapo"),
        ("reward_model.num_workers=3", "reward_model.num_workers is 3.*expected reward.num_workers=3"),
        ("reward_model.rollout.name=vllm", "expected reward.reward_model.rollout.name=vllm"),
        ("sandbox_fusion.url=http://x", "expected reward.sandbox_fusion.url=http://x"),
        (
            "trainer.default_hdfs_dir=hdfs://x",
            "default_hdfs_dir is 'hdfs://x', but verl 0.9.1 uploads nothing with .*default_local_dir",
        ),
    ],
)
def test_what_verl_ignores_is_refused_under_every_estimator(estimator: list[str], override: str, told: str):
    with pytest.raises(ConfigError, match=told):
        read_options(config(*estimator, override))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([*OURS[:1], "+algorithm.rvpo.reward_keys=[reward]"], "reward_keys names 'reward', which verl uses"),
        ([*OURS[:1], "+algorithm.rvpo.reward_keys=[a,uid]"], "reward_keys names 'uid'"),
        ([*OURS[:1], "+algorithm.gdpo_reward_keys=[pred,a]"], "reward_keys names 'pred'"),
        ([*OURS[:1], "+algorithm.rvpo.reward_keys=[rvpo]"], "reward_keys names 'rvpo'"),
        ([*OURS, "critic.enable=True"], "critic.enable is True, but 'lift' .* does not use a critic"),
        (
            [*OURS, "reward.reward_model.enable=True", "reward.reward_model.enable_resource_pool=True"],
            "without a reward function.*reward.custom_reward_function.path",
        ),
        (
            [*OURS[:1], *REWARDS, FILTER, "algorithm.filter_groups.metric=r"],
            "metric is 'r', a rubric.*reward, score, f",
        ),
        ([*OURS[:1], *REWARDS, FILTER, "algorithm.filter_groups.metric=acc"], "metric is 'acc'; expected.*score, f"),
        (
            [*OURS[:1], *REWARDS, FILTER, "algorithm.filter_groups.metric=rvpo_signal"],
            "metric is 'rvpo_signal', but reward_kwargs.wanted is not set",
        ),
        (
            [*OURS[:1], *REWARDS, f"{WANTED}=[f]", FILTER, "algorithm.filter_groups.metric=score"],
            r"wanted is \['f'\], but algorithm.filter_groups.metric is 'score', so it has no effect",
        ),
        ([*OURS[:1], *REWARDS, f"{WANTED}=[f]"], "algorithm.filter_groups.enable is False"),
        ([*OURS[:1], *REWARDS, f"{WANTED}=[g]"], "wanted is .*expected a list of names of rewards, of r, f"),
        (
            [*OURS, FILTER, "algorithm.filter_groups.metric=null"],
            "its metric is not set; expected 'reward' for the score, or one of a, b",
        ),
    ],
)
def test_what_would_fail_late_is_refused(overrides: list[str], told: str):
    with pytest.raises(ConfigError, match=told):
        read_options(config(*overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        [*OURS, "critic.enable=False"],
        [*OURS, FILTER, "algorithm.filter_groups.metric=a"],
        [*OURS[:1], *REWARDS, f"{WANTED}=[r,f]", FILTER, "algorithm.filter_groups.metric=rvpo_signal"],
        [*OURS, "+algorithm.rvpo.wanted=[a]", '+algorithm.rvpo.reward_weights={a: "linear(0,1)", b: 1}'],
        [*OURS[:1], "+algorithm.rvpo.reward_keys=[acc,score]"],
        [*OURS, "actor_rollout_ref.actor.use_kl_loss=True"],
    ],
)
def test_what_works_is_taken(overrides: list[str]):
    assert read_options(config(*overrides)) is not None


def test_megatrons_config_is_read_where_megatron_is_installed(monkeypatch: pytest.MonkeyPatch):
    given = config(*OURS, name="ppo_megatron_trainer")
    with pytest.raises(ConfigError, match=r"strategy is 'megatron'.* not installed here; expected fsdp2"):
        read_options(given)
    monkeypatch.setattr(checks, "find_spec", lambda name: name)
    options = read_options(given)
    assert options is not None
    assert options.reward_keys == ["a", "b"]


def checkpoint(folder: Path, processes: int) -> Path:
    actor = folder / "global_step_7/actor"
    actor.mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("7")
    for rank in range(processes):
        (actor / f"model_world_size_{processes}_rank_{rank}.pt").touch()
    return folder / "global_step_7"


@pytest.mark.parametrize(("saved", "now"), [(1, 2), (2, 1), (8, 16)])
@pytest.mark.parametrize("mode", ["auto", "resume_path"])
def test_a_checkpoint_of_another_number_of_processes_is_refused(saved: int, now: int, mode: str, tmp_path: Path):
    path = checkpoint(tmp_path, saved)
    settings = {"auto": [f"trainer.default_local_dir={tmp_path}"], "resume_path": [f"trainer.resume_from_path={path}"]}
    given = config(*OURS, f"trainer.n_gpus_per_node={now}", f"trainer.resume_mode={mode}", *settings[mode])
    with pytest.raises(ConfigError, match=rf"was saved by {saved} process\(es\), but .* is {now}; expected the same"):
        check_checkpoint(given)


@pytest.mark.parametrize("overrides", [["trainer.n_gpus_per_node=2"], ["trainer.resume_mode=disable"], []])
def test_a_checkpoint_that_fits_or_is_not_read_is_no_matter(overrides: list[str], tmp_path: Path):
    folder = tmp_path / "runs"
    if overrides:
        checkpoint(folder, 2)
    check_checkpoint(config(*OURS, f"trainer.default_local_dir={folder}", *overrides))


@pytest.fixture
def with_pictures(tmp_path: Path) -> Path:
    return write_geometry(tmp_path / "train.parquet", rows=2)


@pytest.mark.parametrize("option", ["train_files", "val_files"])
def test_pictures_that_verl_cannot_read_are_refused(option: str, with_pictures: Path, monkeypatch: pytest.MonkeyPatch):
    """verl itself would leave out every row, or go on without the model's processor."""
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as where it is not installed
    given = config(*OURS)
    given.data.train_files = given.data.val_files = str(with_pictures.parent / "none.parquet")
    check_pictures(given)
    given.data[option] = [str(with_pictures)]
    told = rf"data.{option} names .*train.parquet.*column 'images'.*torchvision.*pip install .*verl,vision\]'"
    with pytest.raises(ConfigError, match=told):
        check_pictures(given)
    given.data.custom_cls.path = "own.py"  # a data set of the user's own may need neither
    check_pictures(given)


def test_without_pictures_nothing_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    rows = [{"prompt": "a", "images": []}, {"prompt": "b", "images": None}]
    schema = pa.schema({"prompt": pa.string(), "images": pa.list_(pa.string())})
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"no parquet")
    given = config(*OURS)
    given.data.train_files = [str(tmp_path / "x.parquet"), str(tmp_path / "y.parquet"), "hdfs://x/y.parquet"]
    check_pictures(given)


def test_pictures_are_in_the_column_that_verl_reads(with_pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    given = config(*OURS)
    given.data.train_files, given.data.image_key = str(with_pictures), "photos"
    check_pictures(given)
