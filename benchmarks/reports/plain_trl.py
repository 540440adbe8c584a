"""A GRPO run with TRL alone: nothing of rvpo is imported. `rvpo diagnose` then says which of its rewards was ignored.

    python benchmarks/reports/plain_trl.py --model models/SmolLM2-135M-Instruct --out runs/plain-trl --steps 30
    rvpo diagnose runs/plain-trl && rvpo report runs/plain-trl

SmolLM2-135M describes things in a sentence. Four rewards are summed, as TRL does: about 20 words (from -3 to 0), the
thing is named (0 or 1), one full stop at the end (0 or 1), and no comma, which somebody gave a weight of 0.1 inside the
function. docs/results/smollm2.md says how to make the model's folder.
"""

import argparse

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

THINGS = [
    "a cat",
    "a bridge",
    "the moon",
    "a violin",
    "rain",
    "a library",
    "an apple",
    "a train",
    "the sea",
    "a candle",
    "a garden",
    "snow",
    "a mountain",
    "a clock",
    "bread",
    "a river",
    "a lamp",
    "a horse",
    "tea",
    "a mirror",
    "the wind",
    "a map",
    "a kite",
    "a forest",
]


def words(completions, **_):
    return [max(-3.0, -abs(len(reply[0]["content"].split()) - 20) / 5) for reply in completions]


def named(completions, thing, **_):
    return [float(t.split()[-1] in reply[0]["content"].lower()) for reply, t in zip(completions, thing, strict=True)]


def full_stop(completions, **_):
    texts = [reply[0]["content"].strip() for reply in completions]
    return [float(text.endswith(".") and text.count(".") == 1) for text in texts]


def no_comma(completions, **_):
    return [0.1 * ("," not in reply[0]["content"]) for reply in completions]


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = [
        {"prompt": [{"role": "user", "content": f"Describe {t} in one short sentence."}], "thing": t} for t in THINGS
    ]
    GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype="float32"),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        reward_funcs=[words, named, full_stop, no_comma],
        train_dataset=Dataset.from_list(rows),
        args=GRPOConfig(
            output_dir=args.out,
            max_steps=args.steps,
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=40,
            learning_rate=2e-5,
            lr_scheduler_type="constant",
            logging_steps=1,
            log_completions=True,
            num_completions_to_print=0,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            seed=args.seed,
        ),
    ).train()


if __name__ == "__main__":
    main()
