"""A tiny language model with a tokenizer, made here: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
VOCABULARY = (
    "hello goodbye please thanks yes no the a is it and or not what why how red green blue one two three four five "
    "cat dog sun rain call tool answer think"
)
WORDS = VOCABULARY.split()
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


def save_tiny_model(folder: Path) -> None:
    """Write a random 2-layer Llama and its word-level tokenizer, 40 words with a chat template.

    ``AutoModelForCausalLM`` and ``AutoTokenizer`` load it; every call makes the same weights.
    """
    import tokenizers
    import torch
    import transformers

    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[4:],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE

    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=vocabulary["<pad>"],
        bos_token_id=vocabulary["<bos>"],
        eos_token_id=vocabulary["<eos>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
