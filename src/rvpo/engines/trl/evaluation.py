"""Benchmarks during training: the best evaluation, the last one, and the drop between them.

::

    {output_dir}/evals/{name}/
      step-000050/     a run of ``rvpo eval``, so ``rvpo eval compare`` can compare two of them
      history.json     means by step; best, last, and the drop between them
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from trl.distributed import DistributedBackend
from trl.models.utils import disable_gradient_checkpointing

from rvpo.errors import ConfigError, EngineError
from rvpo.evals.items import Benchmark, Generation, Item, Key, Reply
from rvpo.evals.local import LocalPolicy
from rvpo.evals.policy import Replied, ended, wait_for
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

    Works with every trainer of TRL if each process has the whole model. All processes generate, each one a share of
    the items. The first process scores, and the others wait. They wait at most the trainer's ``ddp_timeout`` (default
    30 minutes), so raise it for a slow judge. The random numbers of the training do not change. Before training, an
    error of one process ends all of them. Later, an error is logged, and that evaluation is absent. If an earlier
    training in the same folder has left evaluations after the step from which this training starts, they are removed.
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
        """Choose the benchmarks.

        Args:
            trainer: the trainer whose model is evaluated.
            benchmarks: benchmarks by the name under which they are logged.
            every: number of steps between two evaluations.
            generation: settings by the same names, if they differ from the benchmark's own.
            batch_size: number of items generated together in each process.
            folder: folder of the records; None is ``evals`` in the trainer's ``output_dir``.

        Raises:
            ConfigError: a number is below 1, there is no benchmark, or the model is sharded over processes.
        """
        for name, value in (("every", every), ("batch_size", batch_size)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} is {value!r}; expected a whole number >= 1")
        if not benchmarks:
            raise ConfigError("benchmarks is empty; expected at least one. Name one, or leave the callback out")
        _check_whole(trainer)
        self._trainer, self._benchmarks, self._every = trainer, dict(benchmarks), every
        self._generation, self._batch_size = dict(generation or {}), batch_size
        self._folder = folder or Path(trainer.args.output_dir) / "evals"

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remove evaluations that an earlier training left after this step. At step 0, evaluate."""
        with _together():
            if state.is_world_process_zero:
                for name in self._benchmarks:
                    self._forget(name, state.global_step)
        if state.global_step == 0:
            self._evaluate(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate every so many steps."""
        if state.global_step % self._every == 0:
            self._evaluate(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate the last step, and log the best mean, the last one and the drop between them."""
        if state.global_step % self._every != 0:
            self._evaluate(state.global_step)
        if state.is_world_process_zero:
            for name in self._benchmarks:
                logger.info("%s", described(name, self._history(name)))

    def _evaluate(self, step: int) -> None:
        for name, benchmark in self._benchmarks.items():
            try:
                self._one(name, benchmark, step)
            except Exception:  # such as a full disk, no GPU memory or a failing judge, which must not end the training
                if step == 0:
                    raise
                if self._trainer.accelerator.is_main_process:
                    logger.exception("benchmark %s could not be evaluated at step %d; training goes on", name, step)

    def _one(self, name: str, benchmark: Benchmark, step: int) -> None:
        generation = self._generation.get(name, benchmark.generation)
        with _together():
            items = benchmark.items()
            if step == 0 and self._trainer.accelerator.is_main_process:
                many, most = len(items), generation.max_tokens
                logger.info("benchmark %s: %d replies of up to %d tokens at each evaluation", name, many, most)
            replied = self._replies(items, generation, f"step {step}")
        gathered = gather_object(replied)
        with _together():
            if self._trainer.accelerator.is_main_process:
                replies = {item.key: reply for item, reply in gathered}
                self._record(name, benchmark, step, replies, generation)

    def _replies(self, items: Sequence[Item], generation: Generation, name: str) -> Replied:
        """Return the replies to this process's share of the items."""
        trainer, accelerator = self._trainer, self._trainer.accelerator
        mine = items[accelerator.process_index :: accelerator.num_processes]
        model = accelerator.unwrap_model(trainer.model_wrapped)
        with disable_gradient_checkpointing(model, trainer.args.gradient_checkpointing_kwargs):
            policy = LocalPolicy(model, trainer.processing_class, name=name, batch_size=self._batch_size)
            return wait_for(_collect(policy, mine, generation))

    def _record(
        self, name: str, benchmark: Benchmark, step: int, replies: Mapping[Key, Reply], generation: Generation
    ) -> None:
        """Score the replies, and write and log the results."""
        folder = self._folder / name / f"step-{step:06d}"
        if folder.exists():  # from a run that stopped during this evaluation
            shutil.rmtree(folder)
        results = evaluate(benchmark, _Given(f"step {step}", replies), folder, generation=generation, quiet=True)
        self._write_history(name)
        self._log({f"{PREFIX}/{name}/{metric}": value["mean"] for metric, value in results["metrics"].items()})

    def _log(self, values: dict[str, float | None]) -> None:
        control = self._trainer.control
        should_log = control.should_log  # the step's own log must still happen, but our log resets the flag
        try:
            # Not TRL's own log, which would clear the metrics of the step.
            Trainer.log(self._trainer, values)
        finally:
            control.should_log = should_log

    def _forget(self, name: str, start: int) -> None:
        """Remove evaluations of the steps after ``start``, which the training has not reached yet."""
        ahead = [path for step, path in self._folders(name).items() if step > start or start == 0]
        for path in ahead:
            shutil.rmtree(path)
        if ahead:
            self._write_history(name)

    def _folders(self, name: str) -> dict[int, Path]:
        """Return the folders of a benchmark by step."""
        paths = sorted((self._folder / name).glob("step-*"))
        return {int(step): path for path in paths if (step := path.name.removeprefix("step-")).isdigit()}

    def _history(self, name: str) -> dict[str, Any]:
        """Return the history of a benchmark, read from its folders."""
        results = {step: path / "results.json" for step, path in self._folders(name).items()}
        steps = {step: json.loads(path.read_text("utf-8")) for step, path in results.items() if path.exists()}
        return summary(steps, self._benchmarks[name].primary)

    def _write_history(self, name: str) -> None:
        write(self._folder / name / "history.json", json.dumps(self._history(name), indent=1) + "\n")


def _check_whole(trainer: Trainer) -> None:
    backend = DistributedBackend(trainer.accelerator)
    if not (backend.is_zero3 or backend.is_fsdp):
        return
    # All processes must call a sharded model together, but they have different numbers of items.
    raise ConfigError(
        f"the model is sharded by {'DeepSpeed ZeRO-3' if backend.is_zero3 else 'FSDP'}, and there are benchmarks "
        "during training; expected the whole model on each process (one process, or DDP). Leave the benchmarks out, "
        "and evaluate the saved checkpoints with rvpo eval"
    )


@contextmanager
def _together() -> Iterator[None]:
    """Wait for all processes. If one failed, it raises its own error, and the others raise an EngineError."""
    try:
        yield
    except Exception as error:
        gather_object([f"{type(error).__name__}: {error}"])
        raise
    for process, failure in enumerate(gather_object([""])):
        if failure:
            raise EngineError(f"an evaluation failed in process {process}: {failure}")


class _Given:
    """A policy that returns existing replies."""

    def __init__(self, name: str, replies: Mapping[Key, Reply]) -> None:
        self._name, self._given = name, replies

    def identity(self) -> dict[str, Any]:
        return {"kind": "training", "name": self._name}

    async def replies(self, items: Sequence[Item], wanted: Set[Key], generation: Generation) -> AsyncIterator[Replied]:
        yield [(item, self._given[item.key]) for item in items if item.key in wanted]


async def _collect(policy: LocalPolicy, items: Sequence[Item], generation: Generation) -> Replied:
    wanted = frozenset(item.key for item in items)
    collected: Replied = []
    async with ended(policy.replies(items, wanted, generation)) as batches:
        async for batch in batches:
            collected += batch
    return collected


def summary(steps: Mapping[int, Mapping[str, Any]], primary: str) -> dict[str, Any]:
    """Return means by step, and the best and last step of the primary metric with the drop between them.

    Args:
        steps: step -> its ``results.json``.
        primary: name of the metric. The highest mean is the best; if several are equal, the first of them.
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


def described(name: str, history: Mapping[str, Any]) -> str:
    """Return a sentence about the best mean, the last one and the drop."""
    if "best" not in history:
        return f"{name}: no evaluation has a score"
    best, last = history["best"], history["last"]
    drop = (
        "nothing lost"
        if history["drop"] == 0
        else f"{history['drop']:.3f} lower (the best of several is partly luck: see rvpo eval compare)"
    )
    return (
        f"{name}: {history['primary']} best {best['mean']:.3f} at step {best['step']}, last {last['mean']:.3f} at step "
        f"{last['step']}, {drop}"
    )
