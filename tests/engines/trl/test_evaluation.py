"""Benchmarks during training: what is recorded, that training is left alone, several processes, and what is told."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("trl")

import features
import pyarrow.parquet as pq
import torch
from test_run import metrics, write_inputs
from tiny_run import make_trainer, parameters, steps, two_processes

from rvpo.compare.benchmarks import compare_benchmarks
from rvpo.engines.trl.evaluation import described, summary
from rvpo.engines.trl.run import train_recipe
from rvpo.errors import ConfigError, EngineError, JudgeError
from rvpo.evals.items import Generation, Item, Reply, Scored
from rvpo.evals.local import LocalPolicy
from rvpo.recipe import load_recipe
from rvpo.trl import BenchmarkCallback

NOUNS = ["cat", "dog", "sun", "rain", "red"]


class Variety:
    """Share of different words in a reply; fails at a given call to score."""

    name, primary, generation = "variety", "different", Generation(max_tokens=6, temperature=1.0)

    def __init__(self, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.calls, self.fails_at, self.error = 0, fails_at, error or JudgeError("the judge is gone")

    def settings(self) -> dict[str, Any]:
        return {"nouns": NOUNS}

    def items(self) -> list[Item]:
        return [Item(noun, ({"role": "user", "content": f"what is the {noun}"},)) for noun in NOUNS]

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        self.calls += 1
        if self.calls == self.fails_at:
            raise self.error
        words = [(reply.text or "").split() for _, reply in replied]
        return [Scored({"different": len(set(said)) / max(len(said), 1)}) for said in words]

    def metrics(self, item: Item) -> Sequence[str]:
        return ("different",)

    def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
        return {}


def trained(model: Path, output: Path, benchmark: Any = None, every: int = 2, **options: Any) -> Any:
    trainer = make_trainer(model, output, **options)
    if benchmark is not None:
        trainer.add_callback(BenchmarkCallback(trainer, {"words": benchmark}, every=every, batch_size=2))
    trainer.train()
    return trainer


def history(output: Path) -> dict[str, Any]:
    return json.loads((output / "evals" / "words" / "history.json").read_text())


def test_start_every_second_step_and_end_are_evaluated(tiny_model_dir: Path, tmp_path: Path):
    trainer = trained(tiny_model_dir, tmp_path, Variety(), max_steps=3)
    folders = sorted((tmp_path / "evals" / "words").glob("step-*"))
    assert [folder.name for folder in folders] == ["step-000000", "step-000002", "step-000003"]
    words = history(tmp_path)
    means = {step: values["different"] for step, values in words["steps"].items()}
    assert list(means) == ["0", "2", "3"]
    for folder, mean in zip(folders, means.values(), strict=True):
        rows = pq.read_table(folder / "items.parquet").to_pylist()
        assert [row["id"] for row in rows] == NOUNS
        by_hand = [len(set(row["completion"].split())) / max(len(row["completion"].split()), 1) for row in rows]
        assert mean == pytest.approx(sum(by_hand) / len(by_hand))
    assert words["best"]["mean"] == max(means.values())
    assert words["last"] == {"step": 3, "mean": means["3"]}
    assert words["drop"] == pytest.approx(max(means.values()) - means["3"])
    logged = {
        entry["step"]: entry["benchmark/words/different"]
        for entry in trainer.state.log_history
        if "benchmark/words/different" in entry
    }
    assert logged == {int(step): mean for step, mean in means.items()}
    comparison = compare_benchmarks([folders[0], folders[2]])  # the folders are runs like any other
    assert comparison.rows


def test_training_is_as_without_it(tiny_model_dir: Path, tmp_path: Path):
    plain = trained(tiny_model_dir, tmp_path / "plain", max_steps=4)
    watched = trained(tiny_model_dir, tmp_path / "watched", Variety(), every=1, max_steps=4)
    assert torch.equal(parameters(plain), parameters(watched))
    assert steps(plain) == steps(watched)


@pytest.mark.parametrize(
    "error",
    [
        JudgeError("the judge is gone"),
        OSError(28, "No space left on device"),
        sqlite3.OperationalError("database or disk is full"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_evaluation_that_fails_does_not_end_the_training(
    error: Exception, tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    trained(tiny_model_dir, tmp_path, Variety(2, error), every=1, max_steps=2)
    assert list(history(tmp_path)["steps"]) == ["0", "2"]
    assert "could not be evaluated at step 1; training goes on" in caplog.text
    with pytest.raises(type(error)):  # before training nothing is lost by stopping
        trained(tiny_model_dir, tmp_path / "again", Variety(1, error))


def test_an_interrupt_ends_the_training(tiny_model_dir: Path, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        trained(tiny_model_dir, tmp_path, Variety(2, KeyboardInterrupt()), every=1, max_steps=2)


def test_gradient_checkpointing_is_on_again_after_an_error(tiny_model_dir: Path, tmp_path: Path):
    kwargs = {"use_reentrant": True, "preserve_rng_state": False}
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": kwargs}
    trainer = make_trainer(tiny_model_dir, tmp_path, max_steps=2, **options)
    trainer.add_callback(BenchmarkCallback(trainer, {"words": Variety()}, every=1))
    during = []

    def generate(policy: LocalPolicy, *_: Any) -> list[Reply]:
        during.append(trainer.model.is_gradient_checkpointing)
        if len(during) > 1:
            raise RuntimeError("CUDA error")
        return [Reply("a word")] * len(NOUNS)

    enabled = mock.Mock(wraps=trainer.model.gradient_checkpointing_enable)
    trainer.model.gradient_checkpointing_enable = enabled
    with mock.patch.object(LocalPolicy, "_generate", generate):
        trainer.train()
    assert during == [False, False, False]
    assert trainer.model.is_gradient_checkpointing
    calls = enabled.call_args_list
    if features.SWITCHES_CHECKPOINTING_ON_WITHOUT_OPTIONS:
        calls = [call for call in calls if call != mock.call()]
    assert calls
    assert all(kwargs in (*call.args, *call.kwargs.values()) for call in calls)


def test_what_an_earlier_training_left_ahead_is_removed(tiny_model_dir: Path, tmp_path: Path):
    words = tmp_path / "evals" / "words"
    trained(tiny_model_dir, tmp_path, Variety(), max_steps=6, save_strategy="steps", save_steps=2)
    (words / "step-notes").mkdir()  # not ours
    resumed = make_trainer(tiny_model_dir, tmp_path, max_steps=3)
    resumed.add_callback(BenchmarkCallback(resumed, {"words": Variety()}, every=2))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert list(history(tmp_path)["steps"]) == ["0", "2", "3"]
    trained(tiny_model_dir, tmp_path, Variety(fails_at=2), every=1, max_steps=1)
    assert list(history(tmp_path)["steps"]) == ["0"]
    assert [path.name for path in sorted(words.glob("step-*"))] == ["step-000000", "step-000001", "step-notes"]
    assert not (words / "step-000001" / "results.json").exists()
    with pytest.raises(JudgeError):
        trained(tiny_model_dir, tmp_path, Variety(fails_at=1))
    assert history(tmp_path)["steps"] == {}


@pytest.mark.parametrize("sharded", ["DeepSpeed ZeRO-3", "FSDP"])
def test_a_sharded_model_is_refused(
    sharded: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trainer = make_trainer(tiny_model_dir, tmp_path)
    state = trainer.accelerator.state
    if sharded == "FSDP":
        monkeypatch.setattr(state, "fsdp_plugin", SimpleNamespace(fsdp_version=2), raising=False)
    else:
        monkeypatch.setattr(type(state), "deepspeed_plugin", SimpleNamespace(zero_stage=3))
    with pytest.raises(ConfigError, match=f"{sharded}.*; expected the whole model .* rvpo eval"):
        BenchmarkCallback(trainer, {"words": Variety()}, every=1)
    monkeypatch.undo()
    monkeypatch.setattr(type(state), "deepspeed_plugin", SimpleNamespace(zero_stage=2))
    BenchmarkCallback(trainer, {"words": Variety()}, every=1)


def test_a_recipe_evaluates_and_logs(tiny_model_dir: Path, tmp_path: Path):
    recipe = write_inputs(tmp_path, tiny_model_dir)
    section = (
        "evals={every: 2, batch_size: 4, benchmarks: [{benchmark: toolcall, name: heldout, "
        f"options: {{path: {tmp_path}/prompts.jsonl, limit: 3}}, generation: {{max_tokens: 6}}}}]}}"
    )
    folder = train_recipe(load_recipe(recipe, [section]))
    lines = [line for line in metrics(folder) if "benchmark/heldout/format" in line]
    assert [line["step"] for line in lines] == [0, 2, 4]
    results = json.loads((folder / "evals" / "heldout" / "step-000004" / "results.json").read_text())
    assert results["items"] == 3
    assert results["generation"]["max_tokens"] == 6
    assert results["model"] == {"kind": "training", "name": "step 4"}


def test_a_recipe_samples_problems_several_times(tiny_model_dir: Path, tmp_path: Path):
    pytest.importorskip("math_verify")
    recipe = write_inputs(tmp_path, tiny_model_dir)
    row = {"problem": "what is the cat", "answer": "2"}
    (tmp_path / "math.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"problem": "what is the dog"}))
    task = {"task_id": 11, "text": "what is the sun", "test_list": ["assert sun() == 1"]}
    (tmp_path / "code.jsonl").write_text(json.dumps(task))
    chosen = "samples: 3, k: [1, 2]"
    small = "generation: {max_tokens: 6, temperature: 1.0}"
    section = (
        f"evals={{every: 4, batch_size: 4, benchmarks: [{{benchmark: math, {small}, options: {{path: "
        f"{tmp_path}/math.jsonl, instruction: '', {chosen}}}}}, {{benchmark: code, {small}, options: {{path: "
        f"{tmp_path}/code.jsonl, sandbox: unsafe-subprocess, {chosen}}}}}]}}"
    )
    folder = train_recipe(load_recipe(recipe, [section]))
    for name in ("math", "code"):
        lines = [line for line in metrics(folder) if f"benchmark/{name}/avg@3" in line]
        assert [line["step"] for line in lines] == [0, 4]
        assert all(line[f"benchmark/{name}/pass@2"] is not None for line in lines)
        assert len(json.loads((folder / "evals" / name / "history.json").read_text())["steps"]) == 2
        rows = pq.read_table(folder / "evals" / name / "step-000004" / "items.parquet").to_pylist()
        assert len({row["completion"] for row in rows if row["id"] == rows[0]["id"]}) > 1  # samples differ


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{every: 0, benchmarks: [{benchmark: toolcall}]}", r"evals\.every"),
        ("{every: 2, benchmarks: []}", r"evals\.benchmarks"),
        ("{every: 2, benchmarks: [{benchmark: mmlu}]}", r"evals\.benchmarks\.0\.benchmark"),
        ("{every: 2, benchmarks: [{benchmark: gpqa}, {benchmark: gpqa}]}", "another is also 'gpqa'"),
        ("{every: 2, benchmarks: [{benchmark: toolcall, options: {paht: x}}]}", "paht|path"),
        ("{every: 2, benchmarks: [{benchmark: toolcall, options: {path: P}, generation: {tokens: 2}}]}", "'tokens'"),
    ],
)
def test_sections_that_cannot_work_are_refused_before_training(
    section: str, told: str, tiny_model_dir: Path, tmp_path: Path
):
    recipe = write_inputs(tmp_path, tiny_model_dir)
    section = section.replace("P}", f"{tmp_path}/prompts.jsonl}}")
    with pytest.raises(ConfigError, match=told):
        train_recipe(load_recipe(recipe, [f"evals={section}"]))
    assert not (tmp_path / "runs" / "whole").exists()


def test_options_of_the_callback_are_checked(tiny_model_dir: Path, tmp_path: Path):
    trainer = make_trainer(tiny_model_dir, tmp_path)
    with pytest.raises(ConfigError, match="every is 0"):
        BenchmarkCallback(trainer, {"words": Variety()}, every=0)
    with pytest.raises(ConfigError, match="benchmarks is empty"):
        BenchmarkCallback(trainer, {}, every=1)


@pytest.mark.xdist_group("processes")
def test_two_processes_share_the_items_and_their_errors(tiny_model_dir: Path, tmp_path: Path):
    two_processes(__file__, str(tiny_model_dir), str(tmp_path))  # where an error is not shared, this hangs
    rows = pq.read_table(tmp_path / "evals" / "words" / "step-000003" / "items.parquet").to_pylist()
    assert [row["id"] for row in rows] == NOUNS
    assert all(row["completion"] is not None for row in rows)
    assert list(history(tmp_path)["steps"]) == ["0", "3"]
    first, second = (json.loads((tmp_path / f"result_{rank}.json").read_text()) for rank in range(2))
    assert (first["asked"], second["asked"]) == (sorted(NOUNS[::2]), sorted(NOUNS[1::2]))
    assert first["said"] == [
        "benchmark words could not be evaluated at step 1; training goes on: JudgeError: the judge is gone",
        "benchmark words could not be evaluated at step 2; training goes on: EngineError: an evaluation failed in "
        "process 1: RuntimeError: CUDA error",
        "JudgeError: the judge is gone",
    ]
    assert second["said"] == ["EngineError: an evaluation failed in process 0: JudgeError: the judge is gone"]


def result(mean: float | None) -> dict[str, Any]:
    return {"metrics": {"different": {"mean": mean}}}


def test_the_summary_names_best_last_and_drop():
    history = summary({0: result(0.2), 100: result(0.8), 50: result(0.8), 150: result(0.5)}, "different")
    assert list(history["steps"]) == [0, 50, 100, 150]
    assert (history["best"], history["last"]) == ({"step": 50, "mean": 0.8}, {"step": 150, "mean": 0.5})
    assert history["drop"] == pytest.approx(0.3)
    assert "best 0.800 at step 50, last 0.500 at step 150, 0.300 lower" in described("words", history)
    assert "nothing lost" in described("words", summary({0: result(0.2), 9: result(0.3)}, "different"))
    assert described("words", summary({0: result(None)}, "different")) == "words: no evaluation has a score"


def two_trainings(model: Path, output: Path) -> None:
    """One of two processes: the judge fails at step 1, process 1 at step 2; then the judge fails before a training."""
    rank, generate = int(os.environ["RANK"]), LocalPolicy._generate
    asked, said = set(), []

    def torn(policy: LocalPolicy, batch: Sequence[Item], *arguments: Any) -> list[Reply]:
        asked.update(item.id for item in batch)
        if rank == 1 and policy._name == "step 2":
            raise RuntimeError("CUDA error")
        return generate(policy, batch, *arguments)

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                said.append(f"{record.getMessage()}: {record.exc_info[0].__name__}: {record.exc_info[1]}")

    logging.getLogger("rvpo").addHandler(Said())
    options = {"per_device_train_batch_size": 4, "every": 1}
    with mock.patch.object(LocalPolicy, "_generate", torn):
        trained(model, output, Variety(fails_at=2), max_steps=3, **options)
        try:
            trained(model, output / "again", Variety(fails_at=1), **options)
        except (EngineError, JudgeError) as error:
            said.append(f"{type(error).__name__}: {error}")
    (output / f"result_{rank}.json").write_text(json.dumps({"asked": sorted(asked), "said": said}))


if __name__ == "__main__":
    two_trainings(Path(sys.argv[1]), Path(sys.argv[2]))
