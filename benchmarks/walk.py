"""Count the files that one step enters, and how often it changes from one file to another.

    python benchmarks/walk.py             # one line per walk
    python benchmarks/walk.py --show      # and the sequence of files

A reader who follows a step through the source opens these files and jumps so often. Counted are the calls of functions
of the package ``rvpo`` while a walk lasts, in all threads; a coroutine that goes on counts as a call. Three walks:

    two rewards    the second training step of RVPOTrainer with two reward functions and LIFT
    rubric         the same with a rubric, judged by rule, and one reward function; completions are logged
    diagnose       the diagnosis of the record that the rubric run left

A step is everything from ``on_step_begin`` to ``on_step_end``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback

import rvpo
from rvpo.judges import load_judge
from rvpo.rewards.rubric import RubricReward
from rvpo.trl import RVPOConfig, RVPOTrainer

PACKAGE = Path(rvpo.__file__).resolve().parent
STEP = 2  # the first one also does what is done once
PROMPTS = ["w3 w4", "w5 w6"] * 4


class Walk:
    """The files of the package whose functions are called, in order, while it is switched on."""

    def __init__(self) -> None:
        self.on = False
        self.files: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take an event of the profiler."""
        if self.on and event == "call" and frame.f_code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
            self.files.append(frame.f_code.co_filename)

    def watch(self, run: Callable[[], object]) -> None:
        """Run with the profiler in this thread and in those that start meanwhile."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            run()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def report(self, name: str, show: bool) -> None:
        """Print the counts, and the sequence of files if asked."""
        stays = [str(Path(file).relative_to(PACKAGE)) for file, _ in itertools.groupby(self.files)]
        print(
            f"{name:<12} {len(set(stays)):3} files, {max(len(stays) - 1, 0):4} changes of file, {len(self.files):5} calls"
        )
        if show:
            print("".join(f"    {stay}\n" for stay in stays))


class OneStep(TrainerCallback):
    """Switch a walk on for one training step."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.walk.on = state.global_step == STEP - 1

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.walk.on = False


def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of tokens with an even id."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def high(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """1 where the first token is in the upper half of the vocabulary."""
    return [float(ids[0] >= 16) for ids in completion_ids]


def rubric(row: int) -> str:
    """Return a rubric of two or three criteria that are decided by program."""
    criteria = [{"id": f"short{n}", "text": f"At most {n} words.", "rule": {"max_words": n}} for n in (2, 3, 4)]
    return json.dumps({"id": f"q{row}", "criteria": criteria[: 2 + row % 2]})


def tiny() -> tuple[Any, Any]:
    """Return a random Llama of two layers, and its tokenizer of 32 words."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, 32)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokenizer


def step(folder: str, rewards: list[Any], columns: dict[str, list[str]], log_completions: bool) -> Walk:
    """Train three steps with LIFT, and return the walk of the second."""
    walk, (model, tokenizer) = Walk(), tiny()
    args = RVPOConfig(
        output_dir=folder, method="lift", log_completions=log_completions, num_completions_to_print=0, max_steps=3,
        per_device_train_batch_size=8, num_generations=4, max_completion_length=6, logging_steps=1, save_strategy="no",
        report_to=[], disable_tqdm=True, use_cpu=True, bf16=False,
    )  # fmt: skip

    def train() -> None:
        trainer = RVPOTrainer(
            model,
            rewards,
            args,
            train_dataset=Dataset.from_dict({"prompt": PROMPTS, **columns}),
            processing_class=tokenizer,
            callbacks=[OneStep(walk)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    walk.watch(train)
    return walk


def diagnosis(folder: str) -> Walk:
    """Diagnose the record of a run, and return the walk."""
    try:
        from rvpo.diagnose.diagnose import diagnose
        from rvpo.logs.open import open_run
    except ImportError:  # before the rooms had these names
        from rvpo.reports.diagnose import diagnose
        from rvpo.reports.opening import open_run

    walk, run = Walk(), open_run(folder)
    walk.on = True
    walk.watch(lambda: diagnose(run))
    return walk


def main() -> None:
    """Walk, and print a line per walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the sequence of files, too")
    show = parser.parse_args().show
    logging.disable(logging.WARNING)
    disable_progress_bars()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        step(f"{folder}/rewards", [even, high], {}, log_completions=False).report("two rewards", show)
        rewards = [RubricReward(load_judge({"kind": "rule"})), even]
        columns = {"rubric": [rubric(row) for row in range(len(PROMPTS))]}
        step(f"{folder}/rubric", rewards, columns, log_completions=True).report("rubric", show)
        diagnosis(f"{folder}/rubric").report("diagnose", show)


if __name__ == "__main__":
    main()
