"""Refuses settings that verl would ignore, or fail on late, before Ray starts. This is for all estimators."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig

from rvpo.engines.verl.rewards import plain_values
from rvpo.errors import ConfigError
from rvpo.extras import install_command

_MOVED = {
    "reward_model.num_workers": "reward.num_workers",
    "reward_model.reward_manager": "reward.reward_manager.name",
    "reward_model.reward_loop_source": "reward.reward_manager.source",
    "reward_model.reward_loop_module_path": "reward.reward_manager.module.path",
    "reward_model.reward_loop_class_name": "reward.reward_manager.module.name",
    "reward_model.model.path": "reward.reward_model.model_path",
}
"""Old paths of settings -> the paths that verl reads now. All other paths are now below ``reward``."""


def check_ignored(config: DictConfig) -> None:
    """Refuse settings that verl's v1 trainer silently ignores, for all estimators.

    Raises:
        ConfigError: such a setting is present.
    """
    if not config.trainer.use_v1:
        raise ConfigError(
            "trainer.use_v1 is False, but python -m rvpo.verl always runs verl's v1 trainer. Drop trainer.use_v1. For "
            "verl's legacy trainer with one of verl's own estimators, start python -m verl.trainer.main_ppo"
        )
    if str(config.actor_rollout_ref.actor.strategy) == "megatron" and find_spec("megatron") is None:
        raise ConfigError(
            "actor_rollout_ref.actor.strategy is 'megatron', as in verl's config ppo_megatron_trainer, but the package "
            "megatron is not installed here; expected fsdp2 (verl's config ppo_trainer), or megatron-core installed"
        )
    remote, strategy = config.trainer.get("default_hdfs_dir"), str(config.actor_rollout_ref.actor.strategy)
    if remote is not None and strategy != "megatron":
        raise ConfigError(
            f"trainer.default_hdfs_dir is {remote!r}, but verl 0.9.1 uploads nothing with actor.strategy {strategy!r}, "
            "and resumes only from trainer.default_local_dir; expected null. Mount the remote folder and name it as "
            "trainer.default_local_dir, or upload in your own class: trainer.checkpoint_callback_class"
        )
    for section in ("custom_reward_function", "reward_model", "sandbox_fusion"):
        for path, value in _leaves(section, plain_values(config.get(section)) or {}):
            raise ConfigError(
                f"{path} is {value!r}, but verl's v1 trainer does not read the section {section!r}; expected "
                f"{_MOVED.get(path, f'reward.{path}')}={value}. Write it there"
            )


def check_pictures(config: DictConfig) -> None:
    """Refuse prompts with pictures if the packages by which verl reads them cannot be imported.

    Without ``qwen-vl-utils``, verl's data set prints an error for each row and leaves it out. Without ``torchvision``,
    verl goes on without the model's processor. Files that are not parquet files of this machine are not looked at, and
    a data set of the user's own may read pictures in another way.

    Raises:
        ConfigError: a file has pictures, and a package cannot be imported.
    """
    data = config.data
    if (data.get("custom_cls") or {}).get("path"):
        return
    key = str(data.get("image_key") or "images")
    for option in ("train_files", "val_files"):
        files = plain_values(data.get(option)) or []
        for file in [files] if isinstance(files, str) else files:
            if not _has_pictures(Path(file), key):
                continue
            if problem := _picture_problem():
                raise ConfigError(
                    f"data.{option} names {file}, which has pictures (column {key!r}), but verl cannot read them "
                    f"here: {problem}. Expected qwen-vl-utils, and a torchvision built for the installed torch: "
                    f"{install_command('verl', 'vision')}"
                )
            return


def _picture_problem() -> str | None:
    """Return why verl cannot read pictures here; None if it can."""
    try:
        import_module("torchvision")  # also fails if it was built for another torch
        import_module("qwen_vl_utils")
    except (ImportError, RuntimeError, OSError) as error:
        return str(error)
    return None


def _has_pictures(file: Path, column: str) -> bool:
    """Return whether a row of a parquet file has a picture. Reading ends at the first one."""
    if file.suffix != ".parquet" or not file.is_file():
        return False
    try:
        table = pq.ParquetFile(file)
        if column not in table.schema_arrow.names:
            return False
        return any(cell for batch in table.iter_batches(16, columns=[column]) for cell in batch[column].to_pylist())
    except pa.ArrowException:
        return False  # verl says what is wrong with the file


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each value that is set below a section, with its path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    elif value is not None:
        yield path, value


def check_checkpoint(config: DictConfig) -> None:
    """Refuse to resume with another number of processes than the one that saved the checkpoint.

    Raises:
        ConfigError: the numbers differ.
    """
    trainer = config.trainer
    folder = _last_checkpoint(trainer)
    saved = (
        sorted({int(m[1]) for path in folder.glob("actor/*.pt") if (m := _SHARD.match(path.name))}) if folder else []
    )
    now = int(trainer.nnodes) * int(trainer.n_gpus_per_node)
    if saved and now not in saved:
        raise ConfigError(
            f"{folder} was saved by {saved[-1]} process(es), but trainer.nnodes * trainer.n_gpus_per_node is {now}; "
            "expected the same number, because every process loads its own part. Resume with that number, or begin a "
            "new run from the model alone: python -m verl.model_merger merge --backend fsdp --local_dir "
            f"{folder}/actor --target_dir MODEL, then actor_rollout_ref.model.path=MODEL and another "
            "trainer.default_local_dir"
        )


_SHARD = re.compile(r"model_world_size_(\d+)_rank_\d+\.pt")


def _last_checkpoint(trainer: DictConfig) -> Path | None:
    """Return the checkpoint from which verl would resume; None if it is not on this machine."""
    if trainer.resume_mode == "resume_path":
        return Path(str(trainer.resume_from_path))
    tracker = Path(trainer.default_local_dir) / "latest_checkpointed_iteration.txt"
    if trainer.resume_mode != "auto" or not tracker.exists():
        return None
    return tracker.parent / f"global_step_{tracker.read_text().strip()}"
