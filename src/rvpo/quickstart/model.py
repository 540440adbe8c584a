"""The built-in language model: a fresh two-layer Llama with a word-level tokenizer, 0.34M parameters, made in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rvpo.errors import DataError
from rvpo.quickstart.task import BOS, EOS, PAD, VOCABULARY

HEAD = "lm_head.weight"


def make_tokenizer() -> Any:
    """Return a tokenizer with one token per word of the task. Tool-call tags are plain words: decoding keeps them."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token=PAD))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, eos_token=EOS, bos_token=BOS, padding_side="left"
    )


def make_model(seed: int) -> Any:
    """Return a model with random weights that depend only on ``seed``. The global random state does not change."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=VOCABULARY.index(PAD),
        eos_token_id=VOCABULARY.index(EOS),
        bos_token_id=VOCABULARY.index(BOS),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float()


def save_checkpoint(model: Any, path: Path) -> None:
    """Write the weights as float16, 0.7 MB. The head is tied to the embedding and therefore not written."""
    weights = {key: value.detach().half() for key, value in model.state_dict().items() if key != HEAD}
    path.parent.mkdir(exist_ok=True)
    save_file(weights, path)
    path.chmod(0o644)  # safetensors makes the file readable for its owner only; other users of the package need it


def load_checkpoint(path: Path) -> Any:
    """Return a warm-started model in float32. ``python -m rvpo.quickstart.warm_start`` made its weights."""
    model = make_model(seed=0)
    weights = {key: value.float() for key, value in load_file(path).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {HEAD}:
        raise DataError(
            f"{path} does not fit the built-in model (missing {missing}, unexpected {unexpected}): make it again with "
            "`python -m rvpo.quickstart.warm_start`"
        )
    return model
