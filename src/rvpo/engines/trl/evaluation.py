"""Benchmarks during training: the best checkpoint, the last one, and how much was lost between them.

::

    {output_dir}/evals/{name}/
      step-000050/     a run of ``rvpo eval``, so that ``rvpo eval compare`` takes two of them
      history.json     means by step; best, last, and the drop between them
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from trl.models import unwrap_model_for_generation

from rvpo.errors import ConfigError, RVPOError
from rvpo.evals.items import Benchmark, Generation, Item, Key, Reply
from rvpo.evals.local import LocalPolicy
from rvpo.evals.models import Replied
from rvpo.evals.run import evaluate
from rvpo.files import write

logger = logging.getLogger(__name__)

PREFIX = "benchmark"  # of the logged metrics: benchmark/{name}/{metric}


class BenchmarkCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates the policy on small fixed sets before training, every so many steps, and at its end.

    ::

        trainer = RVPOTrainer(…)
        heldout = ToolCall("heldout.jsonl", limit=64)
        trainer.add_callback(BenchmarkCallback(trainer, {"heldout": heldout}, every=50))

    Works with every trainer of TRL. All processes generate, each a share of the items; the first one scores. Random
    numbers of the training are left as they are. Before training an error ends the run; later it is logged, and that
    evaluation is absent.
    """

    def __init__(
        self,
        trainer: Trainer,
        benchmarks: Mapping[str, Benchmark],
        *,
        every: int,
        generation: Mapping[str, Generation] | None = None,
        batch_size: int = 16,
        folder: Path | None = None,
    ) -> None:
        """Name what is evaluated.

        Args:
            trainer: whose model is evaluated.
            benchmarks: by the name under which they are logged.
            every: steps between two evaluations.
            generation: by the same names, where it is not the benchmark's own.
            batch_size: items generated together in each process.
            folder: of the records; None is ``evals`` in the trainer's ``output_dir``.

        Raises:
            ConfigError: a number below 1, or no benchmark.
        """
        for name, value in (("every", every), ("batch_size", batch_size)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} is {value!r}, allowed is a whole number of at least 1")
        if not benchmarks:
            raise ConfigError("benchmarks is empty, allowed is at least one: name it, or leave the callback out")
        self._trainer, self._benchmarks, self._every = trainer, dict(benchmarks), every
        self._generation, self._batch_size = dict(generation or {}), batch_size
        self._folder = folder or Path(trainer.args.output_dir) / "evals"

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate the start; a resumed run has done so."""
        if state.global_step == 0:
            self._evaluate(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate every so many steps."""
        if state.global_step % self._every == 0:
            self._evaluate(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate the end, and say what was best, last and lost."""
        if state.global_step % self._every != 0:
            self._evaluate(state.global_step)
        if state.is_world_process_zero:
            for name in self._benchmarks:
                logger.info("%s", told(name, self._history(name)))

    def _evaluate(self, step: int) -> None:
        for name, benchmark in self._benchmarks.items():
            try:
                self._one(name, benchmark, step)
            except RVPOError:
                if step == 0:
                    raise
                logger.exception("benchmark %s could not be evaluated at step %d; training goes on", name, step)

    def _one(self, name: str, benchmark: Benchmark, step: int) -> None:
        generation = self._generation.get(name, benchmark.generation)
        accelerator = self._trainer.accelerator
        items = benchmark.items()
        mine = items[accelerator.process_index :: accelerator.num_processes]
        with unwrap_model_for_generation(self._trainer.model_wrapped, accelerator) as model:
            policy = LocalPolicy(
                model, self._trainer.processing_class, name=f"step {step}", batch_size=self._batch_size
            )
            replied = asyncio.run(_collect(policy, mine, generation))
        gathered = gather_object(replied) if accelerator.num_processes > 1 else replied
        if accelerator.is_main_process:
            folder = self._folder / name / f"step-{step:06d}"
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped behind its checkpoint
            given = _Given(f"step {step}", {item.key: reply for item, reply in gathered})
            results = evaluate(benchmark, given, folder, generation=generation, quiet=True)
            self._history(name)
            self._log({f"{PREFIX}/{name}/{metric}": value["mean"] for metric, value in results["metrics"].items()})
        accelerator.wait_for_everyone()

    def _log(self, values: dict[str, float | None]) -> None:
        control = self._trainer.control
        due = control.should_log  # that of the step, which a log of ours would take for done
        # Not TRL's own log, which would empty the metrics of that step.
        Trainer.log(self._trainer, values)
        control.should_log = due

    def _history(self, name: str) -> dict[str, Any]:
        """Write and return the history of a benchmark, as its folders have it."""
        folder = self._folder / name
        steps = {}
        for path in sorted(folder.glob("step-*/results.json")):
            steps[int(path.parent.name.removeprefix("step-"))] = json.loads(path.read_text("utf-8"))
        history = summary(steps, self._benchmarks[name].primary)
        write(folder / "history.json", json.dumps(history, indent=1) + "\n")
        return history


class _Given:
    """Replies that are there already, as a policy."""

    def __init__(self, name: str, replies: Mapping[Key, Reply]) -> None:
        self._name, self._given = name, replies

    def identity(self) -> dict[str, Any]:
        return {"kind": "training", "name": self._name}

    async def replies(self, items: Sequence[Item], wanted: Set[Key], generation: Generation) -> AsyncIterator[Replied]:
        yield [(item, self._given[item.key]) for item in items if item.key in wanted]


async def _collect(policy: LocalPolicy, items: Sequence[Item], generation: Generation) -> Replied:
    wanted = frozenset(item.key for item in items)
    return [pair async for batch in policy.replies(items, wanted, generation) for pair in batch]


def summary(steps: Mapping[int, Mapping[str, Any]], primary: str) -> dict[str, Any]:
    """Return means by step, and the best and last step of the primary metric with the drop between them.

    Args:
        steps: step -> its ``results.json``.
        primary: metric; the highest mean is the best. Of several equal ones the first counts.
    """
    means = {
        step: {metric: value["mean"] for metric, value in results["metrics"].items()}
        for step, results in sorted(steps.items())
    }
    known = {step: values[primary] for step, values in means.items() if values.get(primary) is not None}
    history: dict[str, Any] = {"primary": primary, "steps": means}
    if known:
        best, last = max(known, key=lambda step: (known[step], -step)), max(known)
        drop = known[best] - known[last]
        history |= {
            "best": {"step": best, "mean": known[best]},
            "last": {"step": last, "mean": known[last]},
            "drop": drop,
        }
    return history


def told(name: str, history: Mapping[str, Any]) -> str:
    """Return a sentence on best, last and drop."""
    if "best" not in history:
        return f"{name}: no evaluation has a score"
    best, last = history["best"], history["last"]
    drop = (
        "the last is the best"
        if best["step"] == last["step"]
        else f"{history['drop']:.3f} lower (the best of several is partly luck: see rvpo eval compare)"
    )
    return (
        f"{name}: {history['primary']} best {best['mean']:.3f} at step {best['step']}, last {last['mean']:.3f} at step "
        f"{last['step']}, {drop}"
    )
