"""A short training run on a tiny model: imported by the tests, and started as a script where a test needs a process.

::

    python tiny_run.py JOB.json          one process, or several under torchrun

The job holds ``model``, ``output`` (folders), ``options`` (of RVPOConfig) and optionally ``resume`` (bool),
``kill_at`` (the step in which the process kills itself), ``table`` (rewards: steps x N x M, null = missing),
``verdicts`` (the same for the criteria of rubrics of ``sizes`` criteria), ``endpoint`` (options of an EndpointJudge for
such rubrics) and ``twice`` (share of completions scored a second time)
and ``then_resume`` (options of a second run, which is also resumed from its checkpoint, in the same
processes), ``fails`` (``rank``, ``step`` and ``how`` of a reward function that fails; the result is what was
raised), and ``plain`` (options of a run of TRL's own GRPOTrainer with a DiagnosisCallback, on the same table).
"""

from __future__ import annotations

import atexit
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

import rvpo
from rvpo.rewards.rubric import Criterion, Question, Rubric, RubricReward, Verdict
from rvpo.step.trust import Reliability
from rvpo.trl import DiagnosisCallback, RVPOConfig, RVPOTrainer
from warm_python import WarmPython

P, G = 2, 4
N = P * G

# The environment of a process that runs this checkout on one CPU thread.
ON_CPU = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(rvpo.__file__).parents[1])}

# Where the modules of the tests lie, for a process that imports them.
PLACES = (Path(__file__).parents[2], Path(__file__).parent)

# Ways in which one process ends, or never does, without telling the others.
ENDS = ("hangs", "killed", "memory")

# Logged values that measure the machine, or the whole run rather than one step.
NOT_COMPARED = ("runtime", "per_second", "step_time", "train_loss", "total_flos", "num_tokens", "profiling")


def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of tokens with an even id: graded."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def high(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """First token in the upper half of the vocabulary: binary."""
    return [float(ids[0] >= 20) for ids in completion_ids]


def launched_twice(*arguments: str) -> str:
    """Run a script, or ``-m module``, as two processes (gloo) under torchrun, and return what they printed."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, *arguments], capture_output=True, text=True, timeout=900, check=False, env=os.environ | ON_CPU
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def warm_python() -> WarmPython:
    """Return a process that has imported what this module imports. It ends with the tests."""
    warm = WarmPython(["tiny_run"], [Path(rvpo.__file__).parents[1], *PLACES], ON_CPU)
    atexit.register(warm.end)
    return warm


def two_processes(*arguments: str) -> str:
    """Do the same as ``launched_twice`` in forks of ``warm_python``, which need not import TRL again.

    The processes meet at a store in this process, by the variables that torchrun sets.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "tests",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    done = warm_python().run(arguments, [shared | {"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(2)])
    assert [each.poll() for each in done] == [0, 0], [each.stderr for each in done]
    return "".join(each.stdout for each in done)


def read_verdicts(folder: Path, step: int) -> pd.DataFrame:
    """Return the rows of a step's record that are criteria of rubrics."""
    rows = pd.read_parquet(folder / "channels" / f"{step:06d}.parquet")
    return rows[rows.criterion.notna()].reset_index(drop=True)


def run_job_twice(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a job as two processes and return the result of each."""
    folder = Path(job["output"])
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    two_processes(__file__, str(path))
    return [json.loads((folder / f"result_{rank}.json").read_text()) for rank in range(2)]


def prompts(rows: int = 12) -> Dataset:
    return Dataset.from_dict({"prompt": [f"what is the {w}" for w in ("cat dog sun rain " * rows).split()[:rows]]})


def make_trainer(
    model: Path | Any,
    output: Path,
    rewards: list[Callable] | None = None,
    *,
    trainer: type = RVPOTrainer,
    config: type = RVPOConfig,
    dataset: Dataset | None = None,
    eval_dataset: Dataset | None = None,
    peft_config: Any = None,
    given: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Build a trainer with settings that make a step take a few milliseconds."""
    args = config(
        **{
            "output_dir": str(output),
            "max_steps": 3,
            "per_device_train_batch_size": N,
            "num_generations": G,
            "max_completion_length": 5,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "bf16": False,
            "num_completions_to_print": 0,
            "seed": 3,
        }
        | options
    )
    if isinstance(model, Path):
        tokenizer = AutoTokenizer.from_pretrained(model)
        model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    else:
        tokenizer = None
    return trainer(
        model=model,
        reward_funcs=rewards or [even, high],
        args=args,
        train_dataset=prompts() if dataset is None else dataset,
        eval_dataset=eval_dataset,
        peft_config=peft_config,
        **{"processing_class": tokenizer, **(given or {})},
    )


def steps(trainer: Any) -> dict[int, dict[str, Any]]:
    """Return what a trainer logged at each training step, without timings."""
    return {
        entry["step"]: {key: value for key, value in entry.items() if not any(word in key for word in NOT_COMPARED)}
        for entry in trainer.state.log_history
        if "loss" in entry
    }


def parameters(trainer: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).clone()


def from_table(table: list[list[list[float | None]]], rank: int) -> list[Callable]:
    """Reward functions that look up chosen rewards by step and row, whatever the model said."""

    def channel(j: int) -> Callable:
        def reward(completions: list, trainer_state: Any, **_: Any) -> list[float | None]:
            rows = table[trainer_state.global_step]
            start = rank * len(completions)
            return [row[j] for row in rows[start : start + len(completions)]]

        reward.__name__ = f"channel_{j}"
        return reward

    return [channel(j) for j in range(len(table[0][0]))]


def rubric_prompts(sizes: list[int]) -> Dataset:
    """Prompts with rubrics of these sizes; criterion 1 of each is a pitfall."""
    rubrics = [
        Rubric(
            tuple(
                Criterion(
                    f"c{j}",
                    f"criterion {j}",
                    points=-2.0 if j == 1 else 1.0 + j,
                    category="pitfall" if j == 1 else "essential",
                    tags=("axis:accuracy",) if j % 2 else ("axis:format",),
                )
                for j in range(size)
            )
        ).to_json()
        for size in sizes
    ]
    return prompts(len(sizes)).add_column("rubric", rubrics)


class Scripted:
    """A judge that says what a test chose, by generation, row and criterion, whatever the completion."""

    def __init__(self, table: list[list[list[float | None]]], rank: int = 0) -> None:
        self.table, self.rank, self.generation = table, rank, 0

    async def judge(self, questions: list[Question]) -> list[list[Verdict]]:
        rows = self.table[self.generation][self.rank * len(questions) :]
        self.generation += 1
        return [
            [
                Verdict.missing("timeout") if value is None else Verdict(value)
                for value, _ in zip(row, question.criteria, strict=False)
            ]
            for row, question in zip(rows, questions, strict=False)
        ]

    async def check(self) -> None:
        pass

    def usage(self) -> dict[str, float]:
        return {"calls": float(self.generation), "all/calls": 7.0}


def recording(seen: list[dict[str, list[float]]]) -> type[RVPOTrainer]:
    """Return a trainer class that notes each generation's advantages, of this process and of all."""

    class Recorder(RVPOTrainer):
        def _generate_and_score_completions(self, inputs: list) -> dict:
            output = super()._generate_and_score_completions(inputs)
            seen.append({"local": output["advantages"].tolist(), "all": list(self._logs["advantages"])})
            return output

    return Recorder


def failing(rank: int, fails: dict[str, Any]) -> Callable:
    """Return a reward function that fails in one process from one step on."""

    def odd(completions: list, trainer_state: Any, **_: Any) -> list:
        if rank != fails["rank"] or trainer_state.global_step != fails["step"]:
            return [0.5] * len(completions)
        if fails["how"] == "raises":
            raise ValueError("no luck")
        if fails["how"] == "hangs":
            time.sleep(3000)
        if fails["how"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return ["0.7" if fails["how"] == "text" else float("inf")] * len(completions)

    return odd


class WithoutMemory(TrainerCallback):
    """Finds no memory left in the middle of a step, in one process."""

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    on_pre_optimizer_step = on_substep_end


def collected_warnings() -> list[str]:
    """Return a list that what rvpo warns of is added to."""
    warned: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("rvpo").addHandler(handler)
    return warned


def main(job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", "0"))
    output = Path(job["output"])

    def fatal(completions: list, trainer_state: Any, **_: Any) -> list[None]:
        if trainer_state.global_step == job.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        return [None] * len(completions)

    rewards = from_table(job["table"], rank) if "table" in job else [even, high, fatal]
    if "fails" in job:
        rewards = [even, failing(rank, job["fails"])]
    dataset = None
    if "verdicts" in job:
        rewards.append(RubricReward(Scripted(job["verdicts"], rank), max_missing=1.0))
        dataset = rubric_prompts(job["sizes"])
    if "endpoint" in job:
        from rvpo.judges import EndpointJudge

        rewards = [even, RubricReward(EndpointJudge(**job["endpoint"]))]
        dataset = rubric_prompts(job["sizes"])
    warned = collected_warnings()
    seen: list[dict[str, list[float]]] = []
    given = {"reliability": Reliability(twice=job["twice"])} if "twice" in job else None
    trainer = make_trainer(
        Path(job["model"]), output, rewards, trainer=recording(seen), dataset=dataset, given=given, **job["options"]
    )
    if "fails" in job and job["fails"]["how"] == "memory" and rank == job["fails"]["rank"]:
        trainer.add_callback(WithoutMemory())
    try:
        trainer.train(resume_from_checkpoint=job.get("resume"))
    except Exception as error:
        if "fails" not in job or job["fails"]["how"] in ENDS:
            raise
        cause = error.__cause__ and type(error.__cause__).__name__
        result = {"raised": f"{type(error).__name__}: {error}", "cause": cause}
        (output / f"result_{rank}.json").write_text(json.dumps(result))
        return
    result = {
        "processes": trainer.accelerator.num_processes,
        "steps": steps(trainer),
        "advantages": seen,
        "parameters": parameters(trainer).tolist(),
    }
    if "plain" in job:
        plain = make_trainer(
            Path(job["model"]),
            output,
            from_table(job["table"], rank),
            trainer=GRPOTrainer,
            config=GRPOConfig,
            given={"callbacks": [DiagnosisCallback()]},
            **job["plain"],
        )
        plain.train()
        result["plain_steps"] = steps(plain)
    result["warnings"] = warned
    if "then_resume" in job:
        options = job["options"] | job["then_resume"]
        # Three prompts are one generation, so the checkpoint lies in the second epoch.
        whole = make_trainer(Path(job["model"]), output, dataset=prompts(3), **options)
        whole.train()
        checkpoint = output / f"checkpoint-{options['save_steps']}"
        resumed = make_trainer(Path(job["model"]), output, dataset=prompts(3), **options)
        resumed.train(resume_from_checkpoint=str(checkpoint))
        result |= {
            "resumed_from_buffer": (checkpoint / f"rvpo_buffer_{rank}.safetensors").exists(),
            "parameters_whole": parameters(whole).tolist(),
            "parameters_resumed": parameters(resumed).tolist(),
        }
    (output / f"result_{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
    if torch.distributed.is_initialized():
        # Else the interpreter may end while gloo's threads still run, and abort after all is done.
        torch.distributed.destroy_process_group()
