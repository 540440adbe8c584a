"""A vision-language model of 98,000 random weights, questions on pictures in verl's format, and parts that read them.

The task: say which of eight colours the picture has, as ``\\boxed{i}``, which is one token. All questions are the same
text, so only the picture says what is right. The reward is ours for mathematics.

verl and transformers read pictures by ``qwen-vl-utils`` and ``torchvision``. Where these are not installed,
:class:`Pictures` and :class:`Qwen2VLProcessor` do the same with Pillow: the rest of verl does not notice.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers
from verl.utils.dataset.rl_dataset import RLHFDataset

COLOURS = 8
SPECIAL = ["<eos>", "<unk>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
PICTURE, VIDEO = "<|image_pad|>", "<|video_pad|>"
WORDS = ["\n", "system", "user", "assistant", "what", "is", "it", *(f"\\boxed{{{i}}}" for i in range(COLOURS))]
VOCABULARY = [*SPECIAL, PICTURE, VIDEO, *WORDS]
SIDE = 28  # of the smallest picture: one token
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} "
    "{% if m['content'] is string %}{{ m['content'] }} {% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|> <|image_pad|> <|vision_end|> {% else %}{{ part['text'] }} "
    "{% endif %}{% endfor %}{% endif %}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


def is_whole() -> bool:
    """Return whether verl can read pictures by itself."""
    return all(map(find_spec, ("qwen_vl_utils", "torchvision")))


def write_task(folder: Path) -> None:
    """Write ``folder/model`` and ``folder/pictures.parquet``, as ``rvpo verl-data`` writes Geometry3K."""
    from rvpo.data import load_prompts
    from rvpo.engines.verl.data import write_parquet
    from tiny_vision_model import write_geometry

    folder.mkdir(parents=True, exist_ok=True)
    _write_model(folder / "model")
    data = load_prompts(write_geometry(folder / "geometry.parquet", rows=COLOURS))
    write_parquet(data, folder / "pictures.parquet", data_source="geometry", split="train")


def _write_model(folder: Path) -> None:
    import tokenizers
    import torch

    number = {token: i for i, token in enumerate(VOCABULARY)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(number, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "removed")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<eos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[*SPECIAL[2:], PICTURE, VIDEO],
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    text = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 0,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
    }
    config = transformers.Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=number[PICTURE],
        video_token_id=number[VIDEO],
        vision_start_token_id=number["<|vision_start|>"],
        vision_end_token_id=number["<|vision_end|>"],
        tie_word_embeddings=False,
        eos_token_id=0,
        pad_token_id=0,
    )
    transformers.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sizes = {"shortest_edge": SIDE * SIDE, "longest_edge": 4 * SIDE * SIDE}
    pixels = {"patch_size": 14, "merge_size": 2, "size": sizes, "image_processor_type": "Qwen2VLImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    videos = {"patch_size": 14, "merge_size": 2, "size": sizes, "video_processor_type": "Qwen2VLVideoProcessor"}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))


class Qwen2VLProcessor(transformers.Qwen2VLProcessor):
    """Of pictures alone, by Pillow. verl goes by the name of the class."""

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None) -> None:
        self.image_token, self.video_token = PICTURE, VIDEO
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([PICTURE, VIDEO])
        transformers.ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, path: str, **_: Any) -> Qwen2VLProcessor:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        return cls(Qwen2VLImageProcessorPil.from_pretrained(path), tokenizer, tokenizer.chat_template)


class Pictures(RLHFDataset):
    """verl's data set, which takes the pictures out of the messages as they are."""

    @classmethod
    def _process_multi_modal_info(cls, messages: list[dict[str, Any]], *_: Any, **__: Any) -> Any:
        parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
        return [part["image"].convert("RGB") for part in parts if part["type"] == "image"] or None, None, None


def register() -> None:
    """Let ``AutoProcessor`` find the processor without torchvision, if it is not installed."""
    if not is_whole():
        transformers.AutoProcessor.register(transformers.Qwen2VLConfig, Qwen2VLProcessor, exist_ok=True)
