"""Run a recipe with TRL: warm start, train, evaluate, and leave a run folder that explains itself.

::

    {output}/{name}/
      recipe.yaml      the resolved recipe
      versions.json    packages and hardware
      metrics.jsonl    one JSON object a logging step (TRL's metrics and rvpo/…)
      completions/     parquet: prompt, completion, one column a reward, advantage
      checkpoint-N/    to resume from
      warm_start/      the warm-started model, unless warm_start.output names a shared folder
      model/           the trained model and tokenizer; written last, so its presence means the run is done
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from rvpo.data import load_prompts, render_sft
from rvpo.doctor import versions
from rvpo.engines.trl.config import RVPOConfig
from rvpo.engines.trl.trainer import RVPOTrainer
from rvpo.errors import ConfigError
from rvpo.recipe import DataSection, ModelSection, Recipe
from rvpo.rewards.registry import load_reward

logger = logging.getLogger(__name__)

# What a run folder needs that TRL leaves off by default; a recipe may override each.
TRAINER_DEFAULTS: dict[str, Any] = {
    "logging_steps": 1,
    "log_completions": True,
    "num_completions_to_print": 0,
    "report_to": "none",
    "save_steps": 50,
    "save_total_limit": 2,
}


def train(recipe: Recipe, *, resume: bool = False) -> Path:
    """Run a recipe and return its folder.

    Args:
        recipe: what to run.
        resume: go on from the newest complete checkpoint of the run's folder; a folder that holds none starts anew,
            and a finished run is left as it is.

    Raises:
        ConfigError: the folder holds another run, or the trainer's options cannot work.
        DataError: the data is malformed.
    """
    folder = recipe.folder
    if (folder / "model").exists():
        if resume:
            logger.info("%s is finished already", folder)
            return folder
        raise ConfigError(f"{folder} holds a finished run: choose another name (name=…), or remove the folder")
    resolved = recipe.model_dump()
    _claim(folder, resolved, resume)
    # Configs, rewards and data first: what can fail at once should not wait for a model or a warm start.
    args = _config(recipe)
    rewards = [load_reward(entry.function, entry.options) for entry in recipe.rewards]
    dataset, eval_dataset = _load(recipe.data), _load(recipe.eval_data) if recipe.eval_data else None
    warm_start = _config_warm_start(recipe)
    tokenizer = _tokenizer(recipe.model)
    set_seed(recipe.seed)
    model = _model(recipe.model, _warm_started(recipe, tokenizer, warm_start) if warm_start else None)
    checkpoint = _last_checkpoint(folder) if resume else None
    metrics = MetricsFile(folder / "metrics.jsonl", checkpoint)
    trainer = RVPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        peft_config=_peft(recipe.model),
        callbacks=[metrics],
    )
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(folder / "model.partial"))
    if trainer.is_world_process_zero():
        (folder / "model.partial").rename(folder / "model")
    return folder


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Append every log to ``metrics.jsonl``; a resumed run first drops what lies behind its checkpoint."""

    def __init__(self, path: Path, checkpoint: Path | None) -> None:
        """Keep the lines up to the checkpoint's step."""
        self.path = path
        done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        lines = path.read_text("utf-8").splitlines() if path.exists() and checkpoint else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= done]
        path.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write one line. NaN is no JSON, so undefined values are null."""
        if logs and state.is_world_process_zero:
            values = {k: None if isinstance(v, float) and v != v else v for k, v in logs.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | values) + "\n")


def _claim(folder: Path, resolved: dict[str, Any], resume: bool) -> None:
    """Create the run's folder, or check that what is there is this run."""
    path = folder / "recipe.yaml"
    if path.exists():
        if not resume:
            raise ConfigError(f"{folder} holds an unfinished run: pass --resume, choose another name, or remove it")
        before = yaml.safe_load(path.read_text("utf-8"))
        changed = [key for key in resolved if before.get(key) != resolved[key]]
        if changed:
            raise ConfigError(
                f"{folder} was started with another {changed[0]} ({before.get(changed[0])!r}, now "
                f"{resolved[changed[0]]!r}): resume with the same recipe and overrides, or choose another name"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(resolved, sort_keys=False), "utf-8")
    (folder / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n", "utf-8")


def _config(recipe: Recipe) -> RVPOConfig:
    own = {
        "output_dir": str(recipe.folder),
        "seed": recipe.seed,
        "reward_weights": [entry.weight for entry in recipe.rewards],
        **recipe.advantage_options(),
    }
    config: RVPOConfig = _arguments(RVPOConfig, TRAINER_DEFAULTS | recipe.trainer, own, "trainer")
    return config


def _config_warm_start(recipe: Recipe) -> SFTConfig | None:
    if recipe.warm_start is None:
        return None
    defaults = {"report_to": "none", "save_strategy": "no"}
    own = {"output_dir": str(_warm_start_folder(recipe).with_suffix(".work"))}
    return _arguments(SFTConfig, defaults | recipe.warm_start.trainer, own, "warm_start.trainer")


def _arguments(cls: Any, options: dict[str, Any], own: dict[str, Any], where: str) -> Any:
    """Build TRL's arguments; what it refuses is told with the recipe's section."""
    allowed = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(options) - allowed)
    if unknown:
        close = difflib.get_close_matches(unknown[0], allowed, n=1)
        hint = f": did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{where}.{unknown[0]} is no option of {cls.__name__}{hint}")
    twice = sorted(set(options) & set(own))
    if twice:
        raise ConfigError(f"{where}.{twice[0]} is decided by another section of the recipe: set it there")
    # Transformers insists on use_cpu where there is nothing else to use.
    options = {"use_cpu": not torch.accelerator.is_available()} | options
    try:
        return cls(**options, **own)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _load(section: DataSection) -> Any:
    options = section.model_dump()
    return load_prompts(options.pop("path"), **options)


def _tokenizer(section: ModelSection) -> Any:
    gguf = {"gguf_file": section.gguf_file} if section.gguf_file else {}
    tokenizer = AutoTokenizer.from_pretrained(_local(section.path), padding_side="left", **gguf)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _model(section: ModelSection, warm_started: Path | None) -> Any:
    dtype = getattr(torch, section.dtype)
    if warm_started is not None:
        return AutoModelForCausalLM.from_pretrained(str(warm_started), dtype=dtype)
    if section.gguf_file is None:
        return AutoModelForCausalLM.from_pretrained(_local(section.path), dtype=dtype)
    loaded = AutoModelForCausalLM.from_pretrained(_local(section.path), dtype=dtype, gguf_file=section.gguf_file)
    # Its weights are dequantised, but it still counts as quantised, which trainers refuse: move them to a plain model.
    config = type(loaded.config).from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    plain = type(loaded)(config).to(dtype)
    plain.load_state_dict(loaded.state_dict())
    return plain


def _local(path: str) -> str:
    """Expand ~ in a folder; a hub id stays as it is."""
    folder = Path(path).expanduser()
    return str(folder) if folder.exists() else path


def _peft(section: ModelSection) -> Any:
    if section.peft is None:
        return None
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", **section.peft)


def _warm_start_folder(recipe: Recipe) -> Path:
    shared = recipe.warm_start and recipe.warm_start.output
    return Path(shared).expanduser() if shared else recipe.folder / "warm_start"


def _warm_started(recipe: Recipe, tokenizer: Any, args: SFTConfig) -> Path:
    """Train the supervised start, or take the one that the same settings have made already."""
    assert recipe.warm_start is not None
    folder = _warm_start_folder(recipe)
    settings = {
        "model": recipe.model.model_dump(exclude={"peft", "dtype"}),
        **recipe.warm_start.model_dump(exclude={"output"}),
    }
    record = folder / "warm_start.json"
    if record.exists():
        if json.loads(record.read_text("utf-8")) != settings:
            raise ConfigError(
                f"{folder} was made with other settings than this recipe's warm_start: choose another "
                "warm_start.output, or remove the folder"
            )
        return folder
    logger.info("warm start: supervised training into %s", folder)
    # In float32 whatever the policy's dtype: small supervised updates are lost in half precision.
    model = _model(recipe.model.model_copy(update={"dtype": "float32"}), None)
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=render_sft(_load(recipe.warm_start.data)), processing_class=tokenizer
    )
    trainer.train()
    partial = folder.with_suffix(".partial")
    trainer.save_model(str(partial))
    if trainer.is_world_process_zero():
        (partial / record.name).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        partial.rename(folder)
        shutil.rmtree(args.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    # Accelerate keeps one mixed precision a process; the policy may train in another one.
    AcceleratorState._reset_state()
    return folder


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; one cut off while being written is passed over."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            logger.warning("%s is incomplete and passed over", path)
        else:
            return path
    return None
