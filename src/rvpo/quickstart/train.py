"""One run: load the warm-started model, train it with ``RVPOTrainer``, and evaluate it before and after."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, TrainerCallback

from rvpo.quickstart.cells import Contender, Settings
from rvpo.quickstart.model import load_checkpoint, make_tokenizer
from rvpo.quickstart.records import Job
from rvpo.quickstart.task import CHANNELS, REWARDS, draw_request
from rvpo.trl import DiagnosisCallback, RVPOConfig, RVPOTrainer

EVALUATION = 10_000  # added to the seed: evaluation and training draw different requests, the same for all methods


def train_contender(job: Job, on_step: Callable[[], None], folder: Path) -> dict[str, Any]:
    """Train one policy and return ``start``, ``curve``, ``end`` and ``seconds`` of a ``Record`` as plain data.

    The trainer's logs are kept in ``folder``, which ``rvpo diagnose`` reads. Files of an earlier run are removed first.
    """
    disable_progress_bars()
    model, tokenizer = load_checkpoint(job.cell.checkpoint), make_tokenizer()
    start = evaluate_contender(model, tokenizer, job.seed, job.settings)
    began = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    trainer = RVPOTrainer(
        model,
        reward_funcs=list(REWARDS),
        args=_arguments(job.contender, job.seed, job.settings, str(folder)),
        train_dataset=_requests(job.seed, job.settings.steps * job.settings.prompts),
        processing_class=tokenizer,
        callbacks=[_OnStep(on_step), DiagnosisCallback(summary=False)],  # a bar shows the progress
    )
    trainer.remove_callback(PrinterCallback)  # the logs are read below
    trainer.train()
    seconds = time.perf_counter() - began
    logs = [entry for entry in trainer.state.log_history if f"rvpo/{CHANNELS[0]}/mean" in entry]
    return {
        "start": start,
        "curve": {name: [entry[f"rvpo/{name}/mean"] for entry in logs] for name in CHANNELS},
        "end": evaluate_contender(model, tokenizer, job.seed, job.settings),
        "seconds": seconds,
    }


@torch.no_grad()
def evaluate_contender(model: Any, tokenizer: Any, seed: int, settings: Settings) -> dict[str, float]:
    """Sample one reply to each evaluation prompt and return every channel's rate."""
    rows = _requests(EVALUATION + seed, settings.evaluation_prompts)[:]
    inputs = tokenizer(rows["prompt"], return_tensors="pt")  # all prompts have the same length
    torch.manual_seed(EVALUATION + seed)
    model.eval()
    output = model.generate(
        input_ids=inputs.input_ids,
        attention_mask=inputs.attention_mask,
        do_sample=True,
        top_k=0,
        max_new_tokens=settings.max_completion_length,
    )
    replies = tokenizer.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    scores = {reward.__name__: reward(completions=replies, **rows) for reward in REWARDS}
    return {name: sum(values) / len(values) for name, values in scores.items()}


def _requests(seed: int, count: int) -> Any:
    rng = random.Random(seed)
    return Dataset.from_list([draw_request(rng).row() for _ in range(count)])


def _arguments(contender: Contender, seed: int, settings: Settings, folder: str) -> RVPOConfig:
    return RVPOConfig(
        output_dir=folder,
        method=contender.method,
        seed=seed,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.prompts * settings.generations,
        num_generations=settings.generations,
        max_completion_length=settings.max_completion_length,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        adam_beta2=settings.adam_beta2,
        beta=0.0,
        logging_steps=1,
        log_completions=True,
        num_completions_to_print=0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )


class _OnStep(TrainerCallback):  # type: ignore[misc]
    """Announce every finished step."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._on_step()
