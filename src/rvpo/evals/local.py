"""``LocalPolicy``: replies of a model on this machine, through ``transformers``."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from rvpo.errors import ConfigError, ModelError
from rvpo.evals.items import Generation, Item, Key, Reply
from rvpo.evals.policy import Replied, seed_of
from rvpo.files import model_digest

_DTYPES = ("float32", "bfloat16", "float16")
_ADAPTER = "adapter_config.json"


class LocalPolicy:
    """A causal language model with its chat template.

    The items alone decide the batches, so a run that was stopped and continues makes the same batches, and the same
    replies to the last bit. All sampling parameters come from :class:`Generation`; the checkpoint's own
    ``generation_config.json`` decides only which tokens end a reply.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, batch_size: int = 16) -> None:
        """Use a model that is already loaded, for example one in training.

        Args:
            model: a causal language model of transformers or peft; its mode (training or not) is restored after use.
            tokenizer: the model's tokenizer, with a chat template.
            name: the model's name in the records.
            batch_size: number of items that are generated together.

        Raises:
            ConfigError: the tokenizer does not have a chat template.
        """
        self._name, self._batch_size = name, batch_size
        self._identity: dict[str, Any] = {"kind": "memory", "name": name}
        self._place: tuple[str, dict[str, Any]] | None = None
        self._set(model, tokenizer)

    @classmethod
    def at(
        cls,
        place: str,
        *,
        gguf_file: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 16,
    ) -> LocalPolicy:
        """Return a policy for a folder or hub id; its weights are loaded when the first reply is asked for.

        Raises:
            ConfigError: an option has a value that cannot work, or the folder does not hold a model.
        """
        if dtype is not None and dtype not in _DTYPES:
            raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(_DTYPES)}")
        policy = cls.__new__(cls)
        policy._name, policy._batch_size = place, batch_size
        device = _device(device)
        identity, revision = _identity(place, gguf_file)
        options = {"gguf_file": gguf_file, "dtype": dtype, "device": device, "revision": revision}
        policy._place = (place, options)
        dtype = dtype or ("auto" if device != "cpu" else "float32")
        kind = torch.device(device).type
        policy._identity = identity | {"dtype": dtype, "device": kind, "batch_size": batch_size}
        return policy

    def identity(self) -> dict[str, Any]:
        """Return name, digest of a folder's files or commit of a hub id, and the options that affect the replies."""
        return self._identity

    async def replies(self, items: Sequence[Item], wanted: Set[Key], generation: Generation) -> AsyncIterator[Replied]:
        """Yield one batch after another, the shortest prompts first; see :class:`rvpo.evals.policy.Policy`.

        If a prompt leaves no room for ``max_tokens`` in the model's context, its reply is missing (``too_long``).
        """
        if self._place is not None:
            place, options = self._place
            self._set(*_load(place, **options))
            self._place = None
        prompts = {item.key: self._tokens(item) for item in items}
        room = self._context - generation.max_tokens
        fitting = [item for item in items if len(prompts[item.key]) <= room]
        for item in items:
            if item.key in wanted and len(prompts[item.key]) > room:
                needed = f"{len(prompts[item.key])} tokens of the prompt and up to {generation.max_tokens} of the reply"
                yield [(item, Reply.missing("too_long", f"{needed}, in a context of {self._context}"))]
        fitting.sort(key=lambda item: (len(prompts[item.key]), item.key))
        for start in range(0, len(fitting), self._batch_size):
            batch = fitting[start : start + self._batch_size]
            if not any(item.key in wanted for item in batch):
                continue
            replies = self._generate(batch, [prompts[item.key] for item in batch], generation)
            yield [(item, reply) for item, reply in zip(batch, replies, strict=True) if item.key in wanted]

    def _set(self, model: Any, tokenizer: Any) -> None:
        if hasattr(tokenizer, "image_processor"):  # a vision-language model: benchmarks need only its text tokenizer
            template = tokenizer.chat_template
            tokenizer = copy.deepcopy(tokenizer.tokenizer)
            tokenizer.chat_template = tokenizer.chat_template or template
        if not tokenizer.chat_template:
            raise ConfigError(f"{self._name} has no chat template; expected a model with one. Choose another model")
        self._model, self._tokenizer = model, copy.deepcopy(tokenizer)
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        own = model.generation_config.eos_token_id
        ends = own if isinstance(own, list) else [own]
        self._ends = sorted({end for end in (*ends, self._tokenizer.eos_token_id) if end is not None})
        text_config = model.config.get_text_config()
        self._context = int(getattr(text_config, "max_position_embeddings", None) or 1 << 30)

    def _tokens(self, item: Item) -> list[int]:
        messages = [dict(message) for message in item.messages]
        tools = [dict(tool) for tool in item.tools] or None
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program of its own: it raises what it likes
            raise ModelError(
                f"the chat template of {self._name} cannot write item {item.id!r} ({type(error).__name__}: {error}): "
                "use another template, or leave out such items"
            ) from error
        if tools and item.tools[0]["function"]["name"] not in text:
            raise ConfigError(
                f"the chat template of {self._name} ignores tools; expected a template that shows them to the model. "
                "Use another prompting (--prompting rlla), or a model with its own tool format"
            )
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def _generate(self, batch: Sequence[Item], prompts: Sequence[list[int]], generation: Generation) -> list[Reply]:
        padded = self._tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt")
        inputs = {key: padded[key].to(self._model.device) for key in ("input_ids", "attention_mask")}
        sampling = {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
        config = GenerationConfig(
            max_new_tokens=generation.max_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id,
            do_sample=generation.temperature > 0,
            **(sampling if generation.temperature > 0 else {}),
        )
        with _undisturbed(self._model, seed_of(generation.seed, batch)):
            output = self._model.generate(**inputs, generation_config=config)
        new = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._reply(item, len(prompt), ids) for item, prompt, ids in zip(batch, prompts, new, strict=True)]

    def _reply(self, item: Item, prompt_tokens: int, ids: list[int]) -> Reply:
        end = next((i for i, token in enumerate(ids) if token in self._ends), None)
        said = ids if end is None else ids[:end]
        # In some models, the tags of a tool call are special tokens.
        text = self._tokenizer.decode(said, skip_special_tokens=not item.tools)
        finish = "length" if end is None else "stop"
        return Reply(text, finish=finish, prompt_tokens=prompt_tokens, completion_tokens=len(said))


@contextmanager
def _undisturbed(model: Any, seed: int) -> Iterator[None]:
    """Generate with our own seed and configuration; restore random state and model afterwards."""
    training, device = model.training, model.device
    # An adapter passes its configuration to its base model.
    parts = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]
    defaults = [part.generation_config for part in parts]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        model.eval()
        model.generation_config = GenerationConfig()  # else the checkpoint's would fill in what we do not set
        try:
            yield
        finally:
            for part, config in zip(parts, defaults, strict=True):
                part.generation_config = config
            model.train(training)


def _device(device: str | None) -> str:
    """Return the device's name; raise ConfigError if there is no such device."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        absent = torch.device(device).type == "cuda" and not torch.cuda.is_available()
    except RuntimeError as error:
        raise ConfigError(f"device is {device!r}; expected cpu, cuda, cuda:1, …: {error}") from error
    if absent:
        raise ConfigError(
            f"device is {device!r}, but PyTorch finds no GPU; expected a GPU that it can use. Install PyTorch's CUDA "
            "build, or use cpu"
        )
    return device


def _identity(place: str, gguf_file: str | None) -> tuple[dict[str, Any], str | None]:
    """Return what identifies a model, and the commit of a hub id."""
    folder = Path(place).expanduser()
    own: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    if not folder.is_dir():
        if folder.exists() or place.startswith((".", "/", "~")) or place.count("/") > 1:
            raise ConfigError(
                f"model is {place!r}, which is not a folder; expected a folder with a model or an adapter, a hub id "
                "'org/name', or http://host:port/v1#MODEL. Check the path"
            )
        commit = _commit(place, gguf_file)
        return {"kind": "hub", "name": place, "commit": commit, **own}, commit
    identity: dict[str, Any] = {"kind": "folder", "name": place, "sha256": model_digest(folder), **own}
    if (folder / _ADAPTER).exists():
        identity["base"] = _identity(_base(folder), None)[0]
    return identity, None


def _commit(repo: str, gguf_file: str | None) -> str:
    """Return the commit of a hub id: the newest one, or without a network the one in the cache."""
    from huggingface_hub import hf_hub_download

    said = ""
    for name in filter(None, (gguf_file, "config.json", _ADAPTER)):
        try:
            return Path(hf_hub_download(repo, name)).parent.name  # …/snapshots/{commit}/{name}
        except Exception as error:  # network: the client raises errors of several unrelated classes
            said = (str(error).splitlines() or [""])[0]
    raise ModelError(
        f"model {repo!r} was not found: there is no such folder, and the hub client says: {said}; expected a "
        "folder, or a hub id that can be downloaded. Check spelling, network and access rights"
    )


def _base(folder: Path) -> str:
    try:
        base = json.loads((folder / _ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
    except (KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise ConfigError(
            f"{folder / _ADAPTER} does not name a base model ({error!r}); expected base_model_name_or_path. Train the "
            "adapter again"
        ) from error
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{folder / _ADAPTER} names {base!r} as base model; expected a folder or a hub id. Add it")
    return base


def _load(
    place: str, *, gguf_file: str | None, dtype: str | None, device: str, revision: str | None
) -> tuple[Any, Any]:
    """Return model and tokenizer; raise ModelError if transformers cannot load them."""
    folder = Path(place).expanduser()
    adapter = (folder / _ADAPTER).exists()
    path = str(folder) if folder.is_dir() else place
    options = {key: value for key, value in (("gguf_file", gguf_file), ("revision", revision)) if value}
    transformers_logging.disable_progress_bar()  # the bar for reading weights; replies have their own bar
    weights = {"dtype": getattr(torch, dtype) if dtype else "auto" if device != "cpu" else torch.float32}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        if adapter:
            from peft import PeftModel

            base = AutoModelForCausalLM.from_pretrained(_base(folder), **weights)
            model = PeftModel.from_pretrained(base, path)  # not merged: merging in half precision would round
        else:
            model = AutoModelForCausalLM.from_pretrained(path, **weights, **options)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"model {place!r} cannot be loaded: {said}; expected a folder or a hub id of a causal language model "
            "with its tokenizer, or of an adapter whose base model can be loaded"
        ) from error
    return model.to(device).eval(), tokenizer
