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
import math
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.state import AcceleratorState
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    set_seed,
)
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
    _check_free(folder, resolved, resume)
    # Configs, rewards and data first: what can fail at once should neither wait for a model nor leave a folder.
    args = _config(recipe)
    rewards = [load_reward(entry.function, entry.options) for entry in recipe.rewards]
    dataset, eval_dataset = _load(recipe.data), _load(recipe.eval_data) if recipe.eval_data else None
    warm_start = _config_warm_start(recipe)
    tokenizer = _tokenizer(recipe.model)
    if warm_start:
        _is_made(recipe)
    if recipe.eval_data and args.eval_strategy == "no":
        logger.warning("eval_data is not used: set trainer.eval_strategy=steps and trainer.eval_steps")
    # Every process has looked before the first one writes.
    args.distributed_state.wait_for_everyone()
    checkpoint = _last_checkpoint(folder) if resume else None
    metrics = MetricsFile(folder / "metrics.jsonl", checkpoint)
    if args.process_index == 0:
        _claim(folder, resolved)
        metrics.cut()
    model = _model(recipe.model, _warm_started(recipe, tokenizer, warm_start) if warm_start else None)
    # After the warm start, which may have been made before: new adapters are the same either way.
    set_seed(recipe.seed)
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
    _show_short_lines(trainer)
    if checkpoint and _is_last(checkpoint):
        # Stopped while the model was written. Transformers would train a step too many.
        trainer._load_from_checkpoint(str(checkpoint))
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(folder / "model.partial"))
    if trainer.is_world_process_zero():
        (folder / "model.partial").rename(folder / "model")
    return folder


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Append every log to ``metrics.jsonl``; a resumed run first drops what lies behind its checkpoint."""

    def __init__(self, path: Path, checkpoint: Path | None) -> None:
        """Remember the checkpoint's step; None starts anew."""
        self.path = path
        self.done = _step(checkpoint) if checkpoint else 0

    def cut(self) -> None:
        """Keep the lines up to the checkpoint's step."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() and self.done else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.done]
        _write(self.path, "".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write one line. NaN and infinities are no JSON, so undefined values are null."""
        if logs and state.is_world_process_zero:
            values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in logs.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | values) + "\n")


class _Bar(ProgressCallback):  # type: ignore[misc]
    """The progress bar of transformers, with a short line a log: ``metrics.jsonl`` has all of it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.write(_short_line(state, logs))


class _Lines(TrainerCallback):  # type: ignore[misc]
    """The same lines where the bar is off (``disable_tqdm``)."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and state.is_world_process_zero:
            print(_short_line(state, logs), flush=True)


def _show_short_lines(trainer: Any) -> None:
    for theirs, ours in ((ProgressCallback, _Bar), (PrinterCallback, _Lines)):
        if trainer.pop_callback(theirs) is not None:
            trainer.add_callback(ours())


def _short_line(state: Any, logs: dict[str, Any]) -> str:
    """Return the mean of each channel, or of TRL's own few values where a log has no channels."""
    suffix = "/mean"
    shown = {
        key.removeprefix("eval_").removeprefix("rvpo/").removesuffix(suffix): value
        for key, value in logs.items()
        if key.removeprefix("eval_").startswith("rvpo/") and key.endswith(suffix)
    } or {key: value for key, value in logs.items() if key in ("train_runtime", "train_loss", "loss", "eval_loss")}
    where = "eval" if any(key.startswith("eval_") for key in logs) else "step"
    values = "  ".join(f"{key} {value:.4g}" for key, value in shown.items())
    return f"{where} {state.global_step}/{state.max_steps}  {values}"


def _check_free(folder: Path, resolved: dict[str, Any], resume: bool) -> None:
    """Raise ConfigError unless the folder is free, or holds this very run and may be resumed."""
    path = folder / "recipe.yaml"
    if not path.exists():
        return
    if not resume:
        raise ConfigError(f"{folder} holds an unfinished run: pass --resume, choose another name, or remove it")
    before = yaml.safe_load(path.read_text("utf-8"))
    if changed := _difference(before, resolved):
        raise ConfigError(
            f"{folder} was started with another {changed[0]} ({changed[1]!r}, now {changed[2]!r}): resume with the "
            "same recipe and overrides, or choose another name"
        )


def _difference(before: Any, now: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Return the first field, however deep, in which two recipes differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        fields = {**now, **before}
        found = (_difference(before.get(key), now.get(key), f"{where}.{key}".lstrip(".")) for key in fields)
        return next((difference for difference in found if difference), None)
    return None if before == now else (where, before, now)


def _claim(folder: Path, resolved: dict[str, Any]) -> None:
    """Create the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "recipe.yaml", yaml.safe_dump(resolved, sort_keys=False))
    _write(folder / "versions.json", json.dumps(versions(), indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)


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
    own = {"output_dir": str(_beside_warm_start(recipe, "work"))}
    return _arguments(SFTConfig, defaults | recipe.warm_start.trainer, own, "warm_start.trainer")


def _arguments(cls: Any, options: dict[str, Any], own: dict[str, Any], where: str) -> Any:
    """Build TRL's arguments; what it refuses is told with the recipe's section."""
    allowed = {field.name: getattr(field.type, "__name__", str(field.type)) for field in dataclasses.fields(cls)}
    unknown = sorted(set(options) - allowed.keys())
    if unknown:
        close = difflib.get_close_matches(unknown[0], allowed, n=1)
        hint = f": did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{where}.{unknown[0]} is no option of {cls.__name__}{hint}")
    twice = sorted(set(options) & set(own))
    if twice:
        raise ConfigError(f"{where}.{twice[0]} is decided by another section of the recipe: set it there")
    for key, value in options.items():
        if isinstance(value, str) and allowed[key] in ("int", "float", "bool"):
            raise ConfigError(f"{where}.{key} is {value!r}, allowed is a value of type {allowed[key]}")
    # Transformers insists on use_cpu where there is nothing else to use.
    options = {"use_cpu": not torch.accelerator.is_available()} | options
    # YAML 1.1 reads the `no` of save_strategy: no as False.
    options |= {key: "no" for key, value in options.items() if value is False and key.endswith("_strategy")}
    try:
        return cls(**options, **own)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _load(section: DataSection) -> Any:
    options = section.model_dump()
    return load_prompts(options.pop("path"), **options)


def _tokenizer(section: ModelSection) -> Any:
    gguf = {"gguf_file": section.gguf_file} if section.gguf_file else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(_local(section.path), padding_side="left", **gguf)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path is {section.path!r}, and transformers finds no tokenizer there; allowed are a folder with a "
            f"model and its tokenizer, or a hub id that can be reached. It said: {str(error).splitlines()[0]}"
        ) from error
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


def _beside_warm_start(recipe: Recipe, purpose: str) -> Path:
    """Return a folder of this run's own beside the warm start: several runs may make the same one at once."""
    folder = _warm_start_folder(recipe)
    return folder.with_name(f"{folder.name}.{recipe.name}.{purpose}")


def _warm_start_settings(recipe: Recipe) -> dict[str, Any]:
    assert recipe.warm_start is not None
    return {
        "model": recipe.model.model_dump(exclude={"peft", "dtype"}),
        **recipe.warm_start.model_dump(exclude={"output"}),
    }


def _is_made(recipe: Recipe) -> bool:
    """Return whether the warm start is there.

    Raises:
        ConfigError: its folder holds something else.
    """
    folder = _warm_start_folder(recipe)
    record = folder / "warm_start.json"
    if not record.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is no warm start of ours: choose another warm_start.output, or remove it")
        return False
    if changed := _difference(json.loads(record.read_text("utf-8")), _warm_start_settings(recipe)):
        raise ConfigError(
            f"{folder} was made with another {changed[0]} ({changed[1]!r}, now {changed[2]!r}): choose another "
            "warm_start.output, or remove the folder"
        )
    return True


def _warm_started(recipe: Recipe, tokenizer: Any, args: SFTConfig) -> Path:
    """Train the supervised start, or take the one that the same settings have made already."""
    assert recipe.warm_start is not None
    folder = _warm_start_folder(recipe)
    if _is_made(recipe):
        return folder
    logger.info("warm start: supervised training into %s", folder)
    # In float32 whatever the policy's dtype: small supervised updates are lost in half precision.
    model = _model(recipe.model.model_copy(update={"dtype": "float32"}), None)
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=render_sft(_load(recipe.warm_start.data)), processing_class=tokenizer
    )
    trainer.train()
    partial = _beside_warm_start(recipe, "partial")
    trainer.save_model(str(partial))
    if trainer.is_world_process_zero():
        _write(partial / "warm_start.json", json.dumps(_warm_start_settings(recipe), indent=2) + "\n")
        try:
            partial.rename(folder)
        except OSError:
            if not _is_made(recipe):
                raise
            shutil.rmtree(partial)  # another run has made the same one meanwhile
        shutil.rmtree(args.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    # Accelerate keeps one mixed precision a process; the policy may train in another one.
    AcceleratorState._reset_state()
    return folder


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _is_last(checkpoint: Path) -> bool:
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; one cut off while being written is passed over."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    for path in sorted(found, key=_step, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            logger.warning("%s is incomplete and passed over", path)
        else:
            return path
    return None
