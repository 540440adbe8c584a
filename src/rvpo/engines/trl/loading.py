"""From a recipe's sections to TRL's arguments, a dataset, a tokenizer, a model and an adapter."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rvpo.data import load_prompts
from rvpo.errors import ConfigError
from rvpo.recipe import DataSection, ModelSection


def trl_arguments(cls: Any, options: dict[str, Any], own: dict[str, Any], where: str) -> Any:
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


def load_data(section: DataSection) -> Any:
    """Return the section's prompts as a ``datasets.Dataset``."""
    options = section.model_dump()
    return load_prompts(options.pop("path"), **options)


def load_tokenizer(section: ModelSection) -> Any:
    """Return the model's tokenizer, padding on the left as generation needs it.

    Raises:
        ConfigError: there is none at ``model.path``.
    """
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


def load_model(section: ModelSection, warm_started: Path | None) -> Any:
    """Return the policy: the warm-started model if there is one, else the one at ``model.path``."""
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


def load_peft(section: ModelSection) -> Any:
    """Return the adapter's ``peft.LoraConfig``, or None to train all weights."""
    if section.peft is None:
        return None
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", **section.peft)
