"""Cost of a training step with RVPOTrainer against TRL's GRPOTrainer, same settings, in one run.

Both trainers hold a copy of one model, whose learning rate is 0 and whose completions have a fixed length, so that
every step does the same work. Blocks of steps alternate between them, so that a busy machine slows both alike. The
time inside our own code is also measured directly, because on a busy machine it is far below the noise of a step.

    python benchmarks/bench_trl_step.py
    python benchmarks/bench_trl_step.py --model path/to/SmolLM2-135M-Instruct --blocks 2 --steps 3
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from rvpo.trl import RVPOConfig, RVPOTrainer


class Clock(TrainerCallback):
    """Seconds from the end of one step to the end of the next: generation, rewards, update and logging."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.last: float | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.last = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = wait()
        if self.last is not None:
            self.steps.append(now - self.last)
        self.last = now


class TimedGRPO(GRPOTrainer):
    """Times TRL's share of generation and scoring."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        start = wait()
        output = super()._generate_and_score_completions(inputs)
        self.inner = wait() - start
        return output


class TimedRVPO(RVPOTrainer, TimedGRPO):
    """Times what RVPOTrainer adds to it: the advantages, the completions log and the metrics."""

    own: list[float]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        start = wait()
        output = super()._generate_and_score_completions(inputs)
        self.own.append(wait() - start - self.inner)
        return output


def wait() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def channels(count: int) -> list[Callable]:
    """Cheap rewards with values that differ: binary channels and graded ones in turn."""

    def channel(j: int) -> Callable:
        def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
            sums = [sum(ids) * (j + 3) % 11 for ids in completion_ids]
            return [float(s > 4) if j % 2 else s / 10 for s in sums]

        reward.__name__ = f"channel_{j}"
        return reward

    return [channel(j) for j in range(count)]


def tiny() -> tuple[Any, Any]:
    """A random 2-layer Llama of 0.1 M parameters: the least work a step can have, so the least favourable case."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, 64)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config), tokenizer


def load(folder: str | None) -> tuple[Any, Any]:
    if folder is None:
        return tiny()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tokenizer


def build(options: argparse.Namespace, folder: str, trainer: type, config: type, count: int, **own: Any) -> Any:
    model, tokenizer = load(options.model)
    words = [f"w{3 + i}" for i in range(options.prompt_words)] if options.model is None else ["word"]
    prompt = " ".join(words * (options.prompt_words // len(words)))
    built = trainer(
        model=model,
        reward_funcs=channels(count),
        args=config(
            output_dir=folder,
            max_steps=options.steps + 1,  # the first of a block starts the clock
            per_device_train_batch_size=options.prompts * options.generations,
            num_generations=options.generations,
            max_completion_length=options.tokens,
            generation_kwargs={"min_new_tokens": options.tokens},
            learning_rate=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            **own,
        ),
        train_dataset=Dataset.from_dict({"prompt": [prompt] * 64}),
        processing_class=tokenizer,
    )
    built.remove_callback(PrinterCallback)
    built.own = []
    built.clock = Clock()
    built.add_callback(built.clock)
    return built


def compare(options: argparse.Namespace, count: int) -> str:
    """Return the table's row for ``count`` channels."""
    with tempfile.TemporaryDirectory() as folder:
        theirs = build(options, folder, TimedGRPO, GRPOConfig, count, multi_objective_aggregation="normalize_then_sum")
        ours = build(options, folder, TimedRVPO, RVPOConfig, count, method="rvpo")
        blocks = []
        for block in range(options.blocks + 1):
            for trainer in (theirs, ours) if block % 2 else (ours, theirs):
                trainer.clock.steps.clear()
                trainer.train()
            if block:  # the first warms up
                blocks.append((list(theirs.clock.steps), list(ours.clock.steps)))
            else:
                ours.own.clear()
    base = statistics.median(step for steps, _ in blocks for step in steps)
    with_rvpo = statistics.median(step for _, steps in blocks for step in steps)
    ratios = [statistics.median(b) / statistics.median(a) for a, b in blocks]
    own = statistics.median(ours.own)
    return (
        f"| {count} | {options.prompts} x {options.generations} x {options.tokens} | {base * 1e3:.1f} | "
        f"{with_rvpo * 1e3:.1f} | {with_rvpo / base:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | "
        f"{own * 1e3:.2f} | {own / base:.2%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a causal language model (default: a random one, 0.1 M parameters)")
    parser.add_argument("--channels", type=int, nargs="+", default=[2, 17], help="numbers of rewards M (default: 2 17)")
    parser.add_argument("--prompts", type=int, default=4, help="prompts a step, P (default: 4)")
    parser.add_argument("--generations", type=int, default=8, help="completions a prompt, G (default: 8)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens a completion, T (default: 32)")
    parser.add_argument("--prompt-words", type=int, default=16, help="words a prompt (default: 16)")
    parser.add_argument("--blocks", type=int, default=6, help="pairs of blocks, after one to warm up (default: 6)")
    parser.add_argument("--steps", type=int, default=15, help="timed steps a block (default: 15)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model, _ = load(options.model)
    name = Path(options.model).name if options.model else "random tiny Llama"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {options.threads} threads"
    print(f"{name}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {device}\n")
    del model
    print("| M | P x G x T | GRPOTrainer, ms | RVPOTrainer, ms | ratio (blocks) | our own code, ms | share of step |")
    print("|---|---|---|---|---|---|---|")
    for count in options.channels:
        print(compare(options, count), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
