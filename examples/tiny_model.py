"""A random two-layer Llama of 40 words, so that the examples download nothing. In your script, name a real model."""

from typing import Any

WORDS = [
    "thanks",
    "please",
    "hello",
    "yes",
    "no",
    "the",
    "is",
    "it",
    "one",
    "two",
    "three",
    "cat",
    "dog",
    "sun",
    "rain",
]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]


def make() -> tuple[Any, Any]:
    """Return the model and its tokenizer."""
    import tokenizers
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **shape, **special))
    return model, tokenizer
