"""A model of 44,000 random weights, its tokenizer and its data in verl's format, made in a second without a download.

The task: write a short word of vowels. Tokens are letters. Rewards are in ``rewards.py``.
"""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

VOCABULARY = ["<eos>", "?", "=", *string.ascii_lowercase]
TEMPLATE = (  # ?abc=aeiou<eos>
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}?{{ m['content'] }}{% else %}={{ m['content'] }}<eos>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}={% endif %}"
)
CRITERIA = ["vowels", "brief", "varied", "opens_soft", "no_echo"]


def write_task(folder: Path, *, prompts: int = 256, seed: int = 0) -> None:
    """Write ``folder/model`` (Llama and tokenizer), ``folder/plain.parquet`` and ``folder/rubrics.parquet``."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(folder / "model", seed)
    rng = random.Random(seed)
    plain, rubrics = [], []
    for index in range(prompts):
        letters = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 6)))
        criteria = rng.sample(CRITERIA, rng.randint(2, 5))
        plain.append(_row(index, letters, "vowels-and-brief", []))
        rubrics.append(_row(index, letters, "rubric", criteria))
    _write_parquet(folder / "plain.parquet", plain)
    _write_parquet(folder / "rubrics.parquet", rubrics)


def _row(index: int, letters: str, source: str, criteria: list[str]) -> dict[str, object]:
    truth = json.dumps({"letters": letters, "criteria": criteria})
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": letters}],
        "ability": "words",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"index": index, "split": "train"},
    }


def _write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _write_model(folder: Path, seed: int) -> None:
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    words.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<eos>",  # the only token that decoding drops: any other would be a way to write an invisible letter
        eos_token="<eos>",
        chat_template=TEMPLATE,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            pad_token_id=0,
            eos_token_id=0,
            bos_token_id=None,
            tie_word_embeddings=False,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
