"""The policy's own greedy replies, with which pairwise rewards compare its samples.

They are generated before the reward functions are called. Each process generates one reply per different prompt of its
completions. TRL's own generation is used, with sampling off. It does not use the random generators, so a run samples
the same completions with and without greedy replies.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trl import GRPOTrainer

from rvpo.errors import ConfigError
from rvpo.rewards.pairwise import PairwiseReward

_GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "num_return_sequences": 1,
}


def prepare(trainer: Any, prompts: Sequence[Any]) -> None:
    """Give each reward function that needs them the greedy replies to ``prompts``, one per completion."""
    # Use the reward functions themselves, not the wrappers of guarded_calls.
    waiting = [
        reward for reward in trainer._rubrics.values() if isinstance(reward, PairwiseReward) and reward.needs_greedy
    ]
    if waiting:
        replies = greedy_replies(trainer, prompts)
        for reward in waiting:
            reward.greedy_replies = replies


def greedy_replies(trainer: Any, prompts: Sequence[Any]) -> list[str]:
    """Return the policy's greedy reply to each of N prompts, without special tokens."""
    keys = [json.dumps(prompt, sort_keys=True, default=str) for prompt in prompts]
    unique = dict(zip(keys, prompts, strict=True))
    prompt_ids, images, fields = trainer._tokenize_prompts(list(unique.values()))
    # Older versions of TRL do not know the parameter.
    known = inspect.signature(GRPOTrainer._generate_single_turn).parameters
    once = {"num_generations": 1} if "num_generations" in known else {}
    with _without_sampling(trainer):
        completion_ids, _ = trainer._generate_single_turn(prompt_ids, images, fields, **once)
    texts = trainer.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
    reply_to = dict(zip(unique, texts, strict=True))
    return [reply_to[key] for key in keys]


def refuse_impossible(trainer: Any) -> None:
    """Raise ConfigError if a reward needs greedy replies, and this trainer cannot generate them as it samples."""
    wanting = [name for name, reward in trainer._rubrics.items() if getattr(reward, "needs_greedy", False)]
    if not wanting:
        return
    seen = next((obstacle for obstacle, holds in _obstacles(trainer) if holds), None)
    if seen is not None:
        raise ConfigError(
            f"reward {wanting[0]!r} has against='greedy' and the trainer has {seen}; expected generation by "
            "transformers in one turn, with a model that is whole on each process: drop that option, write replies "
            "into a column (against='column'), or pass a function that returns them"
        )


def _obstacles(trainer: Any) -> list[tuple[str, bool]]:
    accelerator = trainer.accelerator
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return [
        ("use_vllm=True", bool(trainer.use_vllm)),
        ("continuous batching", bool(getattr(trainer, "use_transformers_continuous_batching", False))),
        ("tools or environments", bool(getattr(trainer, "tools", None) or getattr(trainer, "environments", None))),
        ("a rollout_func", getattr(trainer, "rollout_func", None) is not None),
        ("a model that reads images", bool(getattr(trainer, "_is_vlm", False))),
        ("FSDP", getattr(accelerator.state, "fsdp_plugin", None) is not None),
        ("DeepSpeed ZeRO stage 3", plugin is not None and getattr(plugin, "zero_stage", 0) == 3),
    ]


@contextmanager
def _without_sampling(trainer: Any) -> Iterator[None]:
    """Turn sampling off within the context, in both places from which TRL's generation reads it."""
    config, options = trainer.generation_config, trainer.generation_kwargs
    trainer.generation_config = copy.deepcopy(config)
    for name, value in _GREEDY.items():
        setattr(trainer.generation_config, name, value)
    trainer.generation_kwargs = {**(options or {}), **_GREEDY}
    try:
        yield
    finally:
        trainer.generation_config, trainer.generation_kwargs = config, options
