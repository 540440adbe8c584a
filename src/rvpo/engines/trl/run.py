"""Run a recipe with TRL: warm start, train, evaluate, and write all files of the run into one folder.

::

    {output}/{name}/
      recipe.yaml      the resolved recipe
      versions.json    packages and hardware
      metrics.jsonl    one JSON object per logging step (TRL's metrics and rvpo/…)
      pictures/        small copies of the prompts' pictures, each once, if prompts have pictures
      completions/     parquet: prompt, completion, one column per reward, advantage
      channels/        parquet: one row per completion and channel (logs/schema.py has the columns)
      judge.sqlite     verdicts of an endpoint judge, so that you never pay for one twice
      evals/           benchmarks during training, see engines/trl/evaluation.py
      checkpoint-N/    checkpoints, from which the run can be resumed
      warm_start/      the warm-started model, unless warm_start.output names a shared folder
      model/           the trained model and tokenizer; written last, so its presence means the run is done
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import set_seed

from rvpo import interrupts
from rvpo.engines.trl import checkpoints, peers, run_folder, warm_start
from rvpo.engines.trl import resume as resuming
from rvpo.engines.trl.callables import callable_name
from rvpo.engines.trl.config import RVPOConfig
from rvpo.engines.trl.last_step import save_last_step
from rvpo.engines.trl.loading import (
    check_columns,
    check_judges,
    has_pictures,
    load_benchmarks,
    load_data,
    load_model,
    load_peft,
    load_processor,
    load_rewards,
    load_tokenizer,
    trl_arguments,
)
from rvpo.engines.trl.logs import MetricsFile, show_short_lines
from rvpo.engines.trl.owner import owned
from rvpo.engines.trl.trainer import RVPOTrainer
from rvpo.errors import ConfigError, RVPOError
from rvpo.files import disk_trouble, flush, flush_tree
from rvpo.recipe import Recipe

logger = logging.getLogger(__name__)

# Options that a run folder needs and that are off in TRL by default. A recipe may override each of them.
TRAINER_DEFAULTS: dict[str, Any] = {
    "logging_steps": 1,
    "log_completions": True,
    "num_completions_to_print": 0,
    "report_to": "none",
    "save_steps": 50,
    "save_total_limit": 2,
}


def train_recipe(recipe: Recipe, *, resume: bool = False) -> Path:
    """Run a recipe and return its folder.

    Args:
        recipe: the recipe to run.
        resume: whether to resume from the newest complete checkpoint of the run's folder. Without a checkpoint, the run
            starts from the beginning. A finished run is not changed.

    Raises:
        ConfigError: the folder holds another run, another process trains into it, or the trainer's options cannot work.
        DataError: the data is malformed.
        JudgeError: a judge cannot work, or too many verdicts are missing; during training, a checkpoint is saved first.
        RewardError: a reward function fails; during training, a checkpoint is saved first.
        KeyboardInterrupt: after Ctrl-C. A checkpoint of the last finished step is saved, and the message names it.
    """
    with ExitStack() as ownership:
        try:
            return _train_recipe(recipe, resume, ownership)
        except RVPOError:
            raise
        except Exception as error:
            if (trouble := disk_trouble(error)) is not None:
                raise ConfigError(f"the run in {recipe.folder} stopped: {trouble} with --resume") from error
            if peers.is_memory(error):
                notes = "; ".join(getattr(error, "__notes__", []) or [f"there was no memory left ({error})"])
                raise ConfigError(f"the run in {recipe.folder} stopped: {notes}") from error
            raise


def _train_recipe(recipe: Recipe, resume: bool, ownership: ExitStack) -> Path:
    """Run a recipe. ``ownership`` locks the folder before the first file is written."""
    folder = recipe.folder
    resolved = recipe.model_dump()
    run_folder.check_free(folder, resolved, resume)
    finished = (folder / "model").exists()
    if finished:
        logger.info("%s is finished already", folder)
        return folder
    # Configs, rewards and data come first, so that their errors appear before a model is loaded.
    rewards = load_rewards(recipe.rewards, folder)
    names = [callable_name(function) for function in rewards]
    args = _config(recipe, names)
    args.aggregator(
        names, [getattr(f, "reward_range", None) for f in rewards], args.reward_weights
    )  # names are checked
    peft_config = load_peft(recipe.model)
    dataset, eval_dataset = load_data(recipe.data), load_data(recipe.eval_data) if recipe.eval_data else None
    check_columns(recipe.rewards, rewards, dataset.column_names, "data")
    if eval_dataset is not None:
        check_columns(recipe.rewards, rewards, eval_dataset.column_names, "eval_data")
    sft_args = warm_start.config(recipe)
    pictures = _has_pictures(recipe, dataset, eval_dataset)
    tokenizer = load_processor(recipe.model) if pictures else load_tokenizer(recipe.model)
    if sft_args:
        warm_start.is_made(recipe)
    if args.eval_strategy != "no" and not recipe.eval_data:
        raise ConfigError(
            f"trainer.eval_strategy is {args.eval_strategy.value!r}, but there is no eval_data: add the section, or "
            "set trainer.eval_strategy=no"
        )
    if recipe.eval_data and args.eval_strategy == "no":
        logger.warning("eval_data is not used: set trainer.eval_strategy=steps and trainer.eval_steps")
    benchmarks, generation = load_benchmarks(recipe.evals, folder)
    check_judges(rewards, [dataset] if eval_dataset is None else [dataset, eval_dataset])
    # All processes have checked the folder before the first one writes into it.
    args.distributed_state.wait_for_everyone()
    if args.process_index == 0:
        run_folder.make(folder)
        ownership.enter_context(owned(folder))
        run_folder.check_free(folder, resolved, resume)  # again: another run may have used the folder meanwhile
    checkpoint = resuming.newest_whole(folder, args.process_index == 0) if resume else None
    metrics = MetricsFile(folder / "metrics.jsonl", checkpoint)
    if args.process_index == 0:
        run_folder.claim(folder, resolved)
        metrics.cut()
    warmed = warm_start.warm_started(recipe, tokenizer, sft_args) if sft_args else None
    model = load_model(recipe.model, warmed, pictures=pictures)
    # After the warm start, which may exist already: so new adapters are the same in both cases.
    set_seed(recipe.seed)
    trainer = RVPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=[metrics],
    )
    if recipe.evals:
        from rvpo.engines.trl.evaluation import BenchmarkCallback  # the extra eval

        every, batch_size = recipe.evals.every, recipe.evals.batch_size
        callback = BenchmarkCallback(trainer, benchmarks, every=every, generation=generation, batch_size=batch_size)
        trainer.add_callback(callback)
    show_short_lines(trainer)
    try:
        _train(trainer, checkpoint, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_saved_at_interrupt(trainer, folder)) from None
    return folder


def _has_pictures(recipe: Recipe, dataset: Any, eval_dataset: Any) -> bool:
    """Return whether the prompts have pictures.

    Raises:
        ConfigError: a section of the recipe cannot work with them.
    """
    both = [dataset] if eval_dataset is None else [dataset, eval_dataset]
    found = has_pictures(both, ["data", "eval_data"])
    if found and recipe.warm_start:
        raise ConfigError(
            "warm_start is set, and the prompts have pictures; expected only one of the two, because the supervised "
            "start reads only text. Drop warm_start, and name a model in model.path that had a supervised start already"
        )
    if found and recipe.model.gguf_file:
        raise ConfigError(
            f"model.gguf_file is {recipe.model.gguf_file!r}, and the prompts have pictures; expected weights of "
            "transformers: drop gguf_file"
        )
    return found


def _train(trainer: RVPOTrainer, checkpoint: Path | None, folder: Path) -> None:
    """Train from a checkpoint or from the start, and save the model."""
    this: Any = trainer
    if checkpoint and checkpoints.is_last(checkpoint):
        # The run stopped while the model was written. Transformers would train one step too many.
        this._load_from_checkpoint(str(checkpoint))
    else:
        this._checked = checkpoint
        this.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    this.save_model(str(folder / "model.partial"))
    if this.is_world_process_zero():
        flush_tree(folder / "model.partial")
        (folder / "model.partial").rename(folder / "model")
        flush(folder)


def _saved_at_interrupt(trainer: Any, folder: Path) -> str:
    """Save a checkpoint of the last finished step if possible, and return a text that says how to resume."""
    go_on = "the same command with --resume continues from there"
    with interrupts.saving():
        # Saving needs all processes together, but an interrupt stops them at different places.
        if trainer.accelerator.num_processes == 1:
            saved = save_last_step(trainer)
            if saved.endswith("is saved"):
                return f"{saved}; {go_on}"
        else:
            saved = f"Stopped after step {trainer.state.global_step}"
        newest = checkpoints.newest_whole(folder, thorough=False)
    if newest is None:
        return f"{saved}; there is no checkpoint, so the same command with --resume begins again"
    return f"{saved}; the newest checkpoint is {newest}: {go_on}"


def _config(recipe: Recipe, names: Sequence[str]) -> RVPOConfig:
    own = {
        "output_dir": str(recipe.folder),
        "seed": recipe.seed,
        "reward_weights": [entry.weight for entry in recipe.rewards],
        "reward_ranges": _named(recipe, names, "range"),
        "method": recipe.method,
        "structure": recipe.structure or None,
        "monitor": recipe.monitor or None,
    }
    config: RVPOConfig = trl_arguments(RVPOConfig, TRAINER_DEFAULTS | recipe.trainer, own, "trainer")
    return config


def _named(recipe: Recipe, names: Sequence[str], option: str) -> dict[str, Any] | None:
    """Return an option of the rewards by channel, for the rewards that set it; None if no reward does."""
    given = {name: getattr(entry, option) for name, entry in zip(names, recipe.rewards, strict=True)}
    return {name: value for name, value in given.items() if value is not None} or None
