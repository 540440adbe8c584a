"""Tiny vision-language models with processors, made here: nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_model import SPECIAL, WORDS

PICTURE = "<|image_pad|>"
VISION = ["<|vision_start|>", "<|vision_end|>", PICTURE, "<|video_pad|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> "
    "{% if message['content'] is string %}{{ message['content'] }} {% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %} PICTURE "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endif %}<|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
SIDE = 28
MODELS = ("llava", "qwen2_vl")


def tokenizer() -> Any:
    """Return the word-level tokenizer of the tiny language model, with a token for pictures."""
    import tokenizers
    import transformers

    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS + VISION)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[*SPECIAL[4:], *VISION],
        padding_side="left",
    )
    made.chat_template = CHAT_TEMPLATE.replace("PICTURE", PICTURE)
    return made


def processor(kind: str = "llava") -> Any:
    """Return a processor that needs neither the hub nor torchvision."""
    import transformers

    words = tokenizer()
    if kind == "qwen2_vl":
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        pixels = Qwen2VLImageProcessorPil(
            patch_size=14, merge_size=2, size={"shortest_edge": SIDE * SIDE, "longest_edge": 4 * SIDE * SIDE}
        )

        class WithoutVideos(transformers.Qwen2VLProcessor):
            """Of pictures alone: the one of videos needs torchvision."""

            def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str) -> None:
                self.image_token, self.video_token = PICTURE, "<|video_pad|>"
                self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([PICTURE, self.video_token])
                transformers.ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

        return WithoutVideos(pixels, words, words.chat_template)
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=False
    )
    return transformers.LlavaProcessor(
        pixels,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=words.chat_template,
        image_token=PICTURE,
        num_additional_image_tokens=1,
    )


def model(kind: str = "llava") -> Any:
    """Return a random 2-layer model; every call makes the same weights."""
    import torch
    import transformers

    words = tokenizer()
    text = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    picture = words.convert_tokens_to_ids(PICTURE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "qwen2_vl":
            rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
            config = transformers.Qwen2VLConfig(
                text_config=text | {"rope_parameters": rope},
                vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
                image_token_id=picture,
                video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
                vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
                vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
            )
            return transformers.Qwen2VLForConditionalGeneration(config)
        vision = transformers.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=14,
            projection_dim=32,
        )
        config = transformers.LlavaConfig(
            vision_config=vision, text_config=transformers.LlamaConfig(**text), image_token_id=picture
        )
        return transformers.LlavaForConditionalGeneration(config)


def save_tiny_vision_model(folder: Path) -> None:
    """Write the model and its processor, as ``AutoModelForImageTextToText`` and ``AutoProcessor`` load them."""
    model().save_pretrained(folder)
    processor().save_pretrained(folder)


def drawing(colour: Any, size: tuple[int, int] = (40, 30), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """Return the bytes of a picture of one colour."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, kind)
    return out.getvalue()


def write_geometry(path: Path, rows: int = 6, **further: Any) -> Path:
    """Write rows as Geometry3K has them: ``images`` (a list of ``{bytes, path}``), ``problem`` and ``answer``.

    All questions are the same text; the pictures differ.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = [
        {
            "images": [{"bytes": drawing((40 * i % 256, 90, 10 * i)), "path": None}],
            "problem": "<image>what is it",
            "answer": str(i),
            **further,
        }
        for i in range(rows)
    ]
    pq.write_table(pa.Table.from_pylist(table), path)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
