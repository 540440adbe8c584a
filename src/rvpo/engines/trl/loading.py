"""Turn a recipe's sections into TRL's arguments, a dataset, a tokenizer, a model and an adapter."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    ProcessorMixin,
)

from rvpo.core.methods.registry import METHODS
from rvpo.data import load_prompts
from rvpo.data.picture_columns import IMAGES
from rvpo.engines.trl.callables import callable_name
from rvpo.engines.trl.config import RVPOConfig
from rvpo.errors import ConfigError
from rvpo.evals.build import generation_of, load_benchmark
from rvpo.evals.items import Benchmark, Generation
from rvpo.extras import install_command, needs_extra
from rvpo.judges.build import with_cache
from rvpo.recipe import DataSection, EvalsSection, ModelSection, RewardSection
from rvpo.rewards.judged import JudgedReward
from rvpo.rewards.registry import FACTORIES, RewardFunction, load_reward, needed_arguments
from rvpo.text.suggest import did_you_mean

# Options of the trainer that another part of the recipe sets.
DECIDED_BY = {
    "trainer.method": "method",
    "trainer.structure": "structure",
    "trainer.monitor": "monitor",
    "trainer.output_dir": "output and name",
    "trainer.seed": "seed",
    "trainer.reward_weights": "rewards[].weight",
    "trainer.reward_ranges": "rewards[].range",
    "warm_start.trainer.output_dir": "warm_start.output",
}


def trl_arguments(cls: Any, options: dict[str, Any], own: dict[str, Any], where: str) -> Any:
    """Build TRL's arguments. If TRL refuses a value, the error names the section of the recipe."""
    allowed = {field.name: getattr(field.type, "__name__", str(field.type)) for field in dataclasses.fields(cls)}
    if unknown := sorted(set(options) - allowed.keys()):
        raise _unknown_option(cls, unknown[0], options[unknown[0]], where, list(allowed))
    if twice := sorted(set(options) & set(own)):
        option = f"{where}.{twice[0]}"
        raise ConfigError(f"{option} is decided by `{DECIDED_BY[option]}` of the recipe: set it there")
    for key, value in options.items():
        kind = allowed[key].removesuffix(" | None")
        refused = {"int": (str, float), "float": (str,), "bool": (str,)}.get(kind, ())
        if isinstance(value, refused):
            raise ConfigError(f"{where}.{key} is {value!r}; expected a value of type {kind}")
    # Transformers requires use_cpu if there is no accelerator.
    options = {"use_cpu": not torch.accelerator.is_available()} | options
    # YAML 1.1 reads the `no` of save_strategy: no as False.
    options |= {key: "no" for key, value in options.items() if value is False and key.endswith("_strategy")}
    try:
        return cls(**options, **own)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _unknown_option(cls: Any, name: str, value: Any, where: str, allowed: list[str]) -> ConfigError:
    option = f"{where}.{name} is not an option of {cls.__name__}"
    if cls is RVPOConfig:
        owners = [
            method for method, made in METHODS.items() if name in (field.name for field in dataclasses.fields(made))
        ]
        if owners:
            text = f"{owners[0]}:{name}={value}"
            return ConfigError(f"{option}, but of the method; expected it in `method`, such as method: {text}")
        if name == "judge_twice":
            return ConfigError(
                f"{option}; expected it in Python: RVPOTrainer(…, reliability=Reliability(twice={value})) of "
                "rvpo.step.trust. Drop it from the recipe"
            )
    theirs = next(base.__name__ for base in cls.__mro__ if base.__module__.startswith("trl."))
    hint = did_you_mean(name, allowed) or f". https://huggingface.co/docs/trl lists those of {theirs}"
    return ConfigError(f"{option}{hint}")


def load_data(section: DataSection) -> Any:
    """Return the section's prompts as a ``datasets.Dataset``."""
    options = section.model_dump()
    return load_prompts(options.pop("path"), **options)


def load_rewards(entries: Sequence[RewardSection], folder: Path) -> list[RewardFunction]:
    """Load the channels' functions.

    Args:
        entries: rewards of the recipe.
        folder: folder of the run. Judges without a cache of their own save verdicts there, so that a resumed run does
            not pay for them again.

    Raises:
        ConfigError: a reward cannot be loaded, or two would be logged under one name.
    """
    functions = []
    for entry in entries:
        options = dict(entry.options)
        if entry.function in FACTORIES and "judge" in options:
            options["judge"] = with_cache(options["judge"], folder / "judge.sqlite")
        if entry.function == "code":
            options.setdefault("cache", str(folder / "code.sqlite"))
        functions.append(load_reward(entry.function, options, entry.name))
    names = [callable_name(function) for function in functions]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"rewards.{i}: another channel is {name!r}, too: give this one another `name`")
    return functions


def check_columns(
    entries: Sequence[RewardSection], functions: Sequence[RewardFunction], columns: list[str], section: str
) -> None:
    """Raise ConfigError unless the section's data has all columns that the reward functions require."""
    for entry, function in zip(entries, functions, strict=True):
        for needed in needed_arguments(function):
            if needed not in entry.options and needed not in columns:
                raise ConfigError(
                    f"reward {entry.function!r} needs the column {needed!r}; the data has {columns}: add it to "
                    f"{section}.reference_columns"
                )


def check_judges(functions: Sequence[RewardFunction], datasets: Sequence[Any]) -> None:
    """Check all rubrics and references, and send each judge a small question, before anything slow begins.

    Raises:
        ConfigError: a judge cannot decide a criterion, or reads only text and the prompts have pictures.
        DataError: a rubric or reply is malformed.
        JudgeError: a judge does not work, such as a server that cannot be reached.
    """
    for function in functions:
        if isinstance(function, JudgedReward):
            for dataset in datasets:
                function.refuse_pictures(dataset.select(range(1))["prompt"])
                for column in function.needed_columns:
                    function.check_column(dataset[column])
            asyncio.run(function.check())
        elif (check := getattr(function, "check_column", None)) is not None:
            for dataset in datasets:
                for column in needed_arguments(function):
                    if column in dataset.column_names:
                        check(dataset[column])


def load_benchmarks(section: EvalsSection | None, folder: Path) -> tuple[dict[str, Benchmark], dict[str, Generation]]:
    """Return the benchmarks of a recipe's ``evals`` by name, and the generation settings of each.

    Raises:
        ConfigError: an option cannot work, or a package of the extra ``eval`` is absent.
        DataError: the data of one is absent or malformed.
    """
    benchmarks, generation = {}, {}
    for entry in section.benchmarks if section else ():
        name = entry.name or entry.benchmark
        with needs_extra("eval", "evaluations"):
            import rvpo.evals.run  # noqa: F401 - the callback needs it: fail here, before the run has a folder

            benchmarks[name] = load_benchmark(entry.benchmark, entry.options, folder / "evals" / name)
        generation[name] = generation_of(benchmarks[name], entry.generation)
        benchmarks[name].items()  # malformed data is found before the training
    return benchmarks, generation


def load_tokenizer(section: ModelSection) -> Any:
    """Return the model's tokenizer. It pads on the left, which generation needs.

    Raises:
        ConfigError: there is no tokenizer at ``model.path``.
    """
    gguf = {"gguf_file": section.gguf_file} if section.gguf_file else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(_local(section.path), padding_side="left", **gguf)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path is {section.path!r}, and transformers finds no tokenizer there; expected a folder with a "
            f"model and its tokenizer, or a hub id that can be reached. It said: {str(error).splitlines()[0]}"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_processor(section: ModelSection) -> Any:
    """Return the processor of a model that reads pictures and text. It pads on the left, which generation needs.

    Raises:
        ConfigError: there is no processor at ``model.path``, or only a tokenizer.
    """
    try:
        processor = AutoProcessor.from_pretrained(_local(section.path), padding_side="left")
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, ImportError) and "torchvision" in str(error).lower():
            raise ConfigError(
                f"the prompts have pictures, and the processor of model.path {section.path!r} reads them with "
                f"torchvision; expected a torchvision built for the installed torch: {install_command('vision')}"
            ) from error
        raise ConfigError(
            f"the prompts have pictures, and transformers finds no processor at model.path {section.path!r}; expected "
            "the folder or hub id of a vision-language model. For training on the text alone, set image_column: none "
            f"in the section data. It said: {(str(error).strip().splitlines() or [''])[0]}"
        ) from error
    if not isinstance(processor, ProcessorMixin):
        raise ConfigError(
            f"the prompts have pictures, but the model at {section.path!r} reads text alone ({type(processor).__name__}"
            "); expected a vision-language model, such as Qwen/Qwen2.5-VL-3B-Instruct. Name one in model.path, or set "
            "image_column: none in the section data"
        )
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def has_pictures(datasets: Sequence[Any], sections: Sequence[str]) -> bool:
    """Return whether the prompts have pictures.

    Raises:
        ConfigError: the prompts of one section have pictures, and those of another do not.
    """
    found = [IMAGES in dataset.column_names for dataset in datasets]
    if len(set(found)) > 1:
        having, lacking = sections[found.index(True)], sections[found.index(False)]
        raise ConfigError(
            f"the prompts of {having} have pictures, those of {lacking} do not; expected the same in both: set "
            f"{having}.image_column=none, or name the pictures in {lacking}.image_column"
        )
    return any(found)


def load_model(section: ModelSection, warm_started: Path | None, *, pictures: bool = False) -> Any:
    """Return the policy: the warm-started model if there is one, otherwise the model at ``model.path``.

    Raises:
        ConfigError: prompts have pictures, and the model reads only text.
    """
    dtype = getattr(torch, section.dtype)
    if pictures:
        try:
            return AutoModelForImageTextToText.from_pretrained(_local(section.path), dtype=dtype)
        except ValueError as error:
            raise ConfigError(
                f"model.path is {section.path!r}, which transformers does not load as a model of pictures and text: "
                f"{(str(error).strip().splitlines() or [''])[0][:300]}; expected a vision-language model"
            ) from error
    if warm_started is not None:
        return AutoModelForCausalLM.from_pretrained(str(warm_started), dtype=dtype)
    if section.gguf_file is None:
        return AutoModelForCausalLM.from_pretrained(_local(section.path), dtype=dtype)
    loaded = AutoModelForCausalLM.from_pretrained(_local(section.path), dtype=dtype, gguf_file=section.gguf_file)
    # The weights are dequantised, but the model is still marked as quantised, which trainers refuse. So copy the
    # weights to a plain model.
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


def load_peft(section: ModelSection) -> Any:
    """Return the adapter's ``peft.LoraConfig``, or None to train all weights.

    Raises:
        ConfigError: ``LoraConfig`` refuses one of the options.
    """
    if section.peft is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(task_type="CAUSAL_LM", **section.peft)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.peft: {error}") from error
