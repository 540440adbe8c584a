"""A run that ends in the middle saves the last finished step first, and the resumed run is the uninterrupted one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

from tiny_run import N, even, high, make_trainer, parameters, prompts, steps

import rvpo
from rvpo import interrupts
from rvpo.engines.trl.last_step import save_last_step
from rvpo.errors import ConfigError, RewardError
from rvpo.trl import RVPOTrainer

MAX_STEPS = 5
STOPPED = 2  # finished steps when something fails
SPLIT = {"per_device_train_batch_size": N // 2, "gradient_accumulation_steps": 2}

# name: options, and batches of completions that were scored before
CYCLES: dict[str, dict[str, Any]] = {
    "lift": {"method": "lift"},
    "two iterations": {"num_iterations": 2},
    "a generation in the middle of a step": {"steps_per_generation": 3, **SPLIT},
    "two generations in a step": {"steps_per_generation": 1, **SPLIT},
}


class Late:
    """A reward that fails once, in the first batch that is scored after ``STOPPED`` steps or ``more`` batches later."""

    __name__ = "late"

    def __init__(self, failure: Callable[[int], Any], more: int = 0) -> None:
        self.failure, self.more, self.mended = failure, more, False

    def __call__(self, completions: list[Any], completion_ids: list[list[int]], trainer_state: Any, **_: Any) -> Any:
        if not self.mended and trainer_state.global_step >= STOPPED:
            self.more -= 1
            if self.more < 0:
                self.mended = True
                return self.failure(len(completions))
        return high(completion_ids)


def interrupted(count: int) -> Any:
    raise KeyboardInterrupt


def broken(count: int) -> Any:
    raise ConnectionError("gone")


FAILURES: dict[str, tuple[Callable[[int], Any], dict[str, Any], str]] = {
    "raises": (broken, {}, r"reward function 'late' raised ConnectionError: gone \(test_late_errors\.py, line \d+\)"),
    "infinite": (lambda n: [0.0, float("inf")] + [0.0] * (n - 2), {}, r"'late' returned inf for completion 1, '"),
    "missing": (
        lambda n: [None] + [0.0] * (n - 1),
        {"missing_rewards": "error"},
        r"'late' gave no reward \(None or NaN\) for completion 0, '.+' \(prompt 'what is the .+'\)",
    ),
    "texts": (lambda n: ["good"] * n, {}, r"'late' returned 'good' \(a str\) for completion 0, "),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_saves_the_last_step_and_names_function_and_row(tiny_model_dir: Path, tmp_path: Path, name: str):
    failure, options, message = FAILURES[name]
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, Late(failure)], max_steps=MAX_STEPS, **options)
    with pytest.raises(RewardError, match=message) as caught:
        trainer.train()
    checkpoint = tmp_path / f"checkpoint-{STOPPED}"
    assert f"Stopped after step {STOPPED}, {checkpoint} is saved: fix it and resume the run" in str(caught.value)
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == STOPPED
    assert isinstance(caught.value.__cause__, ConnectionError) == (name == "raises")


@pytest.mark.parametrize("failure", [broken, interrupted], ids=["error", "interrupt"])
@pytest.mark.parametrize("name", CYCLES)
def test_resumed_run_is_the_uninterrupted_one(
    tiny_model_dir: Path, tmp_path: Path, name: str, failure: Callable[[int], Any]
):
    """Wherever in a generation cycle it fell, and whatever the unfinished step had already done."""
    options = {"max_steps": MAX_STEPS, **CYCLES[name]}
    rows = prompts(12)
    whole = make_trainer(tiny_model_dir, tmp_path / "whole", dataset=rows, **options)
    whole.train()

    # Where a step has two generations, in the second of them: the method has learned from the first one already.
    late = Late(failure, more=1 if name == "two generations in a step" else 0)
    late.__name__ = "high"  # as in the other runs: what LIFT remembers goes by name
    stopped = make_trainer(tiny_model_dir, tmp_path / "stopped", [even, late], dataset=rows, **options)
    with pytest.raises((RewardError, KeyboardInterrupt)):
        stopped.train()
    assert late.mended
    assert save_last_step(stopped).endswith(" is saved")
    assert len(list((tmp_path / "stopped").glob("checkpoint-*"))) == 1

    resumed = make_trainer(tiny_model_dir, tmp_path / "stopped", dataset=rows, **options)
    resumed.train(resume_from_checkpoint=True)
    assert steps(resumed).keys() == steps(whole).keys()
    assert torch.equal(parameters(resumed), parameters(whole))


@dataclass(frozen=True)
class Fails(rvpo.GDPO):
    """A method that fails in the third batch."""

    how: str = "raises"

    def __call__(self, batch: Any, state: Any) -> Any:
        done = super().__call__(batch, state)
        seen = state.get("seen", 0)
        if seen == STOPPED:
            if self.how == "raises":
                raise IndexError("out of reach")
            return "nothing" if self.how == "returns" else rvpo.Outcome(done.aggregated * torch.nan, batch.z)
        return rvpo.Outcome(done.aggregated, done.responsibilities, state={"seen": seen + 1})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", r"method '.*Fails' raised IndexError: out of reach \(test_late_errors\.py, line \d+\)"),
        ("returns", r"method '.*Fails.*' returned a str; expected a rvpo\.Outcome"),
        ("nan", r"method '.*Fails.*' returned nan for row 0; expected finite numbers"),
    ],
)
def test_a_method_of_ones_own_that_fails(tiny_model_dir: Path, tmp_path: Path, how: str, message: str):
    trainer = make_trainer(tiny_model_dir, tmp_path, max_steps=MAX_STEPS, method=Fails(how=how))
    with pytest.raises(RewardError, match=rf"{message}.*checkpoint-{STOPPED} is saved"):
        trainer.train()
    assert json.loads((tmp_path / f"checkpoint-{STOPPED}" / "rvpo_state.json").read_text())["remembered"] == {
        "seen": STOPPED
    }


def test_an_override_that_raises(tiny_model_dir: Path, tmp_path: Path):
    class Mine(RVPOTrainer):
        def _calculate_rewards(self, *args: Any) -> torch.Tensor:
            rewards = super()._calculate_rewards(*args)
            if self.state.global_step == STOPPED:
                raise RewardError("not these")
            return rewards

    with pytest.raises(RewardError, match=rf"not these\. Stopped after step {STOPPED}, .* is saved"):
        make_trainer(tiny_model_dir, tmp_path, trainer=Mine, max_steps=MAX_STEPS).train()


def test_before_the_first_step(tiny_model_dir: Path, tmp_path: Path):
    def broken(**_: Any) -> list[float]:
        raise OSError("no file")

    message = r"'broken' raised OSError: no file .*nothing was trained yet: fix it and start again"
    with pytest.raises(RewardError, match=message):
        make_trainer(tiny_model_dir, tmp_path, [even, broken]).train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_in_an_evaluation_by_itself(tiny_model_dir: Path, tmp_path: Path):
    def broken(**_: Any) -> list[float]:
        raise OSError("no file")

    trainer = make_trainer(tiny_model_dir, tmp_path, [even, broken], eval_dataset=prompts(4))
    with pytest.raises(RewardError, match=r"'broken' raised OSError: no file \(test_late_errors\.py, line \d+\)$"):
        trainer.evaluate()


def test_in_an_evaluation_while_training(tiny_model_dir: Path, tmp_path: Path):
    class OfTraining:
        __name__ = "of_training"

        def __call__(self, completions: list[Any], **_: Any) -> Any:
            return None if not trainer.model.training else [0.5] * len(completions)

    evaluated = {"eval_strategy": "steps", "eval_steps": STOPPED, "per_device_eval_batch_size": 4}
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, OfTraining()], eval_dataset=prompts(4), **evaluated)
    with pytest.raises(RewardError, match=rf"'of_training' returned None .*checkpoint-{STOPPED} is saved"):
        trainer.train()


def test_a_checkpoint_that_cannot_be_saved_hides_nothing(tiny_model_dir: Path, tmp_path: Path, monkeypatch):
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, Late(broken)])

    def full(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(trainer, "_save_checkpoint", full)
    message = r"'late' raised ConnectionError: gone .*no checkpoint could be saved \(OSError: disk full\)"
    with pytest.raises(RewardError, match=message):
        trainer.train()


@pytest.mark.parametrize("place", ["on_optimizer_step", "on_step_end", "on_log"])
def test_an_interrupt_waits_until_a_step_is_whole(tiny_model_dir: Path, tmp_path: Path, place: str, monkeypatch):
    """As if a signal came while the weights change, or while the log of the step is written."""
    from transformers import TrainerCallback

    class Presses(TrainerCallback):
        def __init__(self) -> None:
            def press(args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == STOPPED - (place == "on_optimizer_step"):
                    if interrupts.is_held():
                        interrupts._waiting = True
                    else:
                        raise KeyboardInterrupt

            setattr(self, place, press)

    monkeypatch.setattr(interrupts, "_watch", lambda *_: None)
    trainer = make_trainer(tiny_model_dir, tmp_path, max_steps=MAX_STEPS, given={"callbacks": [Presses()]})
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not interrupts.is_held()
    assert save_last_step(trainer) == f"Stopped after step {STOPPED}, {tmp_path / f'checkpoint-{STOPPED}'} is saved"

    resumed = make_trainer(tiny_model_dir, tmp_path, max_steps=MAX_STEPS)
    resumed.train(resume_from_checkpoint=True)
    whole = make_trainer(tiny_model_dir, tmp_path / "whole", max_steps=MAX_STEPS)
    whole.train()
    assert torch.equal(parameters(resumed), parameters(whole))
    if place == "on_log":
        assert steps(resumed).keys() == steps(whole).keys()


def test_half_an_update_is_not_saved(tiny_model_dir: Path, tmp_path: Path):
    """Without the command line's handler Ctrl-C may fall anywhere."""
    from transformers import TrainerCallback

    class Presses(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == STOPPED:
                raise KeyboardInterrupt

    trainer = make_trainer(tiny_model_dir, tmp_path, given={"callbacks": [Presses()]})
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert "so no checkpoint could be saved" in save_last_step(trainer)
    assert not list(tmp_path.glob("checkpoint-*"))


# --- the metric of the best model -------------------------------------------------------------------------------------

EVALUATED = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "per_device_eval_batch_size": 4,
    "num_generations_eval": 2,
    "max_steps": 2,
}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("eval_rewards/evn/mean", "'eval_rewards/even/mean'"),
        ("rvpo/high/men", "'eval_rvpo/high/mean'"),
        ("reward_total", "'eval_reward'"),
        ("accuracy", "eval_"),
    ],
)
def test_a_best_metric_that_does_not_exist(tiny_model_dir: Path, tmp_path: Path, name: str, near: str):
    options = EVALUATED | {"metric_for_best_model": name}
    trainer = make_trainer(tiny_model_dir, tmp_path, eval_dataset=prompts(4), **options)
    with pytest.raises(
        ConfigError, match=f"metric_for_best_model is '{name}', but an evaluation does not log"
    ) as caught:
        trainer.train()
    told = str(caught.value)
    assert near in told
    assert told.count("'eval_") <= 8
    assert "checkpoint-1 is saved" in told


def test_a_schedule_that_follows_a_metric_that_does_not_exist(tiny_model_dir: Path, tmp_path: Path):
    options = EVALUATED | {"metric_for_best_model": "accuracy", "lr_scheduler_type": "reduce_lr_on_plateau"}
    trainer = make_trainer(tiny_model_dir, tmp_path, eval_dataset=prompts(4), **options)
    with pytest.raises(ConfigError, match=r"metric_for_best_model is 'accuracy'.*checkpoint-1 is saved"):
        trainer.train()


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_best_metric_without_a_value_is_never_the_best(tiny_model_dir: Path, tmp_path: Path, caplog, value: object):
    class Undefined(RVPOTrainer):
        def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
            super().log(logs, start_time)
            if "eval_loss" in logs:
                logs["eval_mine"] = value

    options = EVALUATED | {"metric_for_best_model": "mine", "greater_is_better": True, "max_steps": 3}
    trainer = make_trainer(tiny_model_dir, tmp_path, trainer=Undefined, eval_dataset=prompts(4), **options)
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        trainer.train()
    told = [record.getMessage() for record in caplog.records if "metric_for_best_model" in record.getMessage()]
    assert len(told) == 1
    assert f"metric_for_best_model is 'mine', whose value is {value} in the evaluation at step 1" in told[0]
    assert trainer.state.best_metric is None


def test_a_best_metric_that_exists_is_used(tiny_model_dir: Path, tmp_path: Path):
    name = "rvpo/even/mean"
    options = EVALUATED | {"metric_for_best_model": name, "greater_is_better": True}
    trainer = make_trainer(tiny_model_dir, tmp_path, eval_dataset=prompts(4), **options)
    trainer.train()
    seen = [entry[f"eval_{name}"] for entry in trainer.state.log_history if f"eval_{name}" in entry]
    assert trainer.state.best_metric == max(seen)
