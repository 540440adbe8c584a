"""What ``skip_dead_groups`` of TRL's engine saves: seconds per micro-batch, by the share of groups without signal.

    python benchmarks/skip_dead_groups.py

One micro-batch of 32 completions (4 groups of 8, 64 tokens of prompt and 64 of completion) of a small random Qwen2,
forward and backward of TRL's loss: processor time of one thread, the least of several repetitions. The gradients with and without are compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rvpo.text.tables import markdown
from rvpo.trl import RVPOConfig, RVPOTrainer

GROUPS, SIZE, TOKENS, VOCABULARY = 4, 8, 64, 1024


def trainer_of(folder: str, loss_type: str) -> Any:
    """Return a trainer of a small model with random weights."""
    torch.manual_seed(0)
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>")
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=4, **sizes))
    args = RVPOConfig(
        folder, loss_type=loss_type, skip_dead_groups=True, per_device_train_batch_size=GROUPS * SIZE,
        num_generations=SIZE, report_to="none", bf16=False, use_cpu=not torch.accelerator.is_available(),
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": ["w2 w3"] * 64})
    rewards = {"zero": lambda completions, **_: [0.0] * len(completions)}
    return RVPOTrainer(model, rewards, args, train_dataset=data, processing_class=tokenizer)


def batch_of(dead: int, device: torch.device) -> dict[str, Any]:
    """Return a micro-batch of which ``dead`` groups have advantage 0."""
    generator = torch.Generator().manual_seed(1)
    rows = GROUPS * SIZE
    advantages = torch.randn(rows, generator=generator)
    advantages[: dead * SIZE] = 0
    ids = torch.randint(2, VOCABULARY, (2, rows, TOKENS), generator=generator)
    ones = torch.ones(rows, TOKENS, dtype=torch.int64)
    batch = {
        "prompt_ids": ids[0], "prompt_mask": ones, "completion_ids": ids[1], "completion_mask": ones,
        "advantages": advantages, "num_items_in_batch": torch.tensor(rows * TOKENS),
    }  # fmt: skip
    return {name: value.to(device) for name, value in batch.items()}


def measured(trainer: Any, batch: dict[str, Any], skip: bool, repetitions: int) -> tuple[float, torch.Tensor]:
    """Return the least seconds of a forward and backward, and the gradient."""
    trainer.args.skip_dead_groups = skip
    seconds = []
    for _ in range(repetitions):
        trainer.model.zero_grad()
        start = time.process_time()
        trainer._compute_loss(trainer.model, batch).backward()
        seconds.append(time.process_time() - start)
    return min(seconds), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss-type", default="dapo")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(folder, args.loss_type)
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        table = [
            ["groups without signal", "seconds", "with skip_dead_groups", "saved", "largest difference of gradients"]
        ]
        for dead in range(GROUPS + 1):
            batch = batch_of(dead, trainer.accelerator.device)
            whole, expected = measured(trainer, batch, False, args.repetitions)
            skipped, got = measured(trainer, batch, True, args.repetitions)
            off = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30)) if dead < GROUPS else 0.0
            row = [f"{dead / GROUPS:.0%}", f"{whole:.2f}", f"{skipped:.2f}", f"{1 - skipped / whole:.0%}", f"{off:.1g}"]
            table.append(row)
        print("\n".join(markdown(table)))


if __name__ == "__main__":
    main()
