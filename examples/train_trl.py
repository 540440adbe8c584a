"""Train with TRL: GRPOTrainer and GRPOConfig become RVPOTrainer and RVPOConfig, and a method is named.

The model is random and tiny, so this runs on a CPU in under a minute. Needs the extra trl.
Run it with: python examples/train_trl.py OUTPUT_FOLDER
"""

import sys
from pathlib import Path

from datasets import Dataset

import tiny_model
from rvpo.trl import RVPOConfig, RVPOTrainer

PROMPTS = ["hello", "the cat is", "one two", "is it rain"]


def polite(completions: list[str], **_: object) -> list[float]:
    """Whether a completion thanks or asks."""
    return [float("thanks" in text or "please" in text) for text in completions]


def short(completions: list[str], **_: object) -> list[float | None]:
    """One at one word, 0 at twelve words and more. A completion without words cannot be scored."""
    return [max(0.0, 1 - len(text.split()) / 12) if text.split() else None for text in completions]


def main(output: Path) -> None:
    """Train a few steps, and keep a log that `rvpo diagnose` reads."""
    model, tokenizer = tiny_model.make()
    trainer = RVPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs={"polite": polite, "short": short},
        args=RVPOConfig(
            output_dir=str(output),
            method="lift",  # the recommended one; without a name it is the paper's, rvpo
            num_generations=8,
            per_device_train_batch_size=16,
            max_completion_length=12,
            max_steps=12,
            learning_rate=3e-3,
            log_completions=True,
            report_to="none",
            use_cpu=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 16}),
    )
    trainer.train()
    for name in ("polite", "short"):
        means = [line[f"rvpo/{name}/mean"] for line in trainer.state.log_history if f"rvpo/{name}/mean" in line]
        print(f"{name}: mean reward {means[0]:.2f} at first, {means[-1]:.2f} at the end")
    print(f"next: rvpo diagnose {output}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example"))
