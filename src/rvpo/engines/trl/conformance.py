"""TRL's own advantages for ``rvpo check``: a real GRPOTrainer with given rewards.

TRL does not have a function for advantages. So a trainer with a random model of a few hundred parameters generates two
tokens per completion, calls reward functions that return the given rewards, and returns the advantages that it computed
from them. TRL's formulas are not copied here.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from rvpo.conformance.target import Answer, CallError, Example, Spec, Target
from rvpo.core.checks import require
from rvpo.errors import ConfigError

AGGREGATION = {"grpo": "sum_then_normalize", "gdpo": "normalize_then_sum"}
WORDS = ("<pad>", "<bos>", "<eos>", "a", "b")
TOKENS = 2


def target(spec: Spec, name: str) -> Target:
    """Return TRL's aggregation ``name``; options of the spec are ``GRPOConfig``'s.

    Raises:
        ConfigError: TRL has no such aggregation, or its config refuses an option.
    """
    require("TRL's aggregation", name, tuple(AGGREGATION))
    if spec.style == "tokens" or spec.channels == "one" or spec.k_name is not None:
        raise ConfigError(
            f"{spec.name} takes many rewards per completion and has no k: drop --style tokens, --channels one and "
            "--k-name"
        )
    try:
        peer = Peer(name, dict(spec.options))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{spec.name}: TRL's GRPOConfig refuses the options {dict(spec.options)}: {error}") from error
    return Target(spec.name, peer.answer, blocks=True, gathers=True)


class Peer:
    """A trainer whose reward functions return given rewards."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        """Build the smallest trainer that works."""
        logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)  # it warns of rows without any reward
        self.rewards = torch.zeros(0, 0)
        self.folder = tempfile.TemporaryDirectory(prefix="rvpo-check-trl-")
        settings = {
            "output_dir": self.folder.name,
            "multi_objective_aggregation": AGGREGATION[name],
            "per_device_train_batch_size": 2,
            "num_generations": 2,
            "max_completion_length": TOKENS,
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
        }
        with _quiet():
            self.trainer = GRPOTrainer(
                model=_model(),
                processing_class=_tokenizer(),
                reward_funcs=[self._channel(0)],
                args=GRPOConfig(**settings | options),
                train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
            )
        self.trainer.model.train()

    def answer(self, example: Example) -> Answer:
        """Return the advantages of a batch in blocks; of this process's rows where there are several processes."""
        self.rewards = example.rewards.detach().clone()
        rows, channels = self.rewards.shape
        trainer = self.trainer
        trainer.num_generations = int(example.groups.bincount(minlength=1).max())
        trainer.reward_funcs = [self._channel(j) for j in range(channels)]
        trainer.reward_func_names = [f"channel_{j}" for j in range(channels)]
        trainer.reward_processing_classes = [None] * channels
        trainer.reward_weights = torch.ones(channels)
        try:
            with _quiet(), torch.random.fork_rng(devices=[]):
                scored = trainer._generate_and_score_completions([{"prompt": "a"} for _ in range(rows)])
        except Exception as error:
            raise CallError(f"{type(error).__name__}: {error}") from error
        advantages: Tensor = scored["advantages"]
        return Answer(advantages.detach().double(), advantages.dtype)

    def _channel(self, j: int) -> Callable[..., list[float | None]]:
        def reward(completions: list[str], **_: Any) -> list[float | None]:
            return [None if value != value else value for value in self.rewards[:, j].tolist()]

        reward.__name__ = f"channel_{j}"
        return reward


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings that TRL 1.16 calls functions which transformers 6 will remove: users cannot change that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
        yield


def _model() -> Any:
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def _tokenizer() -> Any:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, bos, eos, *_ = WORDS
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, bos_token=bos, eos_token=eos, padding_side="left"
    )
