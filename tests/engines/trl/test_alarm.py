"""The neglect alarm in training: for our trainer, for any GRPOTrainer, resumed, and where it cannot see anything."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")

from tiny_run import G, N, Scripted, even, from_table, make_trainer, prompts, rubric_prompts, run_job_twice, steps
from transformers import PrinterCallback, Trainer, TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from rvpo.core.metrics import in_catalogue
from rvpo.diagnose.alarm import RANKED
from rvpo.engines.trl.alarm import FILE
from rvpo.errors import EngineError
from rvpo.rewards.rubric import RubricReward
from rvpo.trl import DiagnosisCallback, RVPOConfig, RVPOTrainer

STEPS, GROUPS = 16, 8
ROWS = GROUPS * G
PLAIN = {"trainer": GRPOTrainer, "config": GRPOConfig}
CALLED = "'channel_1' is being neglected, seen at generation"


def table(neglected: bool = True, falls: float = 0.02, steps: int = STEPS) -> list[list[list[float]]]:
    """Rewards (steps, N, 3): two of a wide spread, and a third one with a fiftieth of it, which falls slowly."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(steps, ROWS, 3, generator=generator)
    if neglected:
        rewards[..., 1] = rewards[..., 1] / 50 - falls * torch.arange(steps)[:, None] / steps
    return rewards.tolist()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("rvpo")]


def neglected(trainer: Any, channel: str) -> list[float]:
    return [entry[f"rvpo/{channel}/neglected"] for entry in steps(trainer).values()]


def trained(model: Path, folder: Path, rewards: list[Callable], **options: Any) -> Any:
    trainer = make_trainer(
        model, folder, rewards, **({"max_steps": STEPS, "per_device_train_batch_size": ROWS} | options)
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


# --- what is called ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False], ids=["RVPOTrainer", "GRPOTrainer"])
def test_a_reward_on_a_small_scale_is_called_once(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, ours: bool
):
    options: dict[str, Any] = {"method": "grpo"} if ours else PLAIN | {"given": {"callbacks": [DiagnosisCallback()]}}
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        trainer = trained(tiny_model_dir, tmp_path, from_table(table(), 0), **options)
    (text,) = warnings(caplog)
    fired = int(text.removeprefix(CALLED).partition(":")[0])
    assert RANKED / GROUPS <= fired <= STEPS - 2
    assert text.startswith(f"{CALLED} {fired}: ignored: it moves the advantage")
    assert "its spread within groups is 5" in text  # 50 times smaller
    assert "What to do: train with method='lift'" in text if ours else "rvpo.trl.RVPOTrainer" in text
    assert neglected(trainer, "channel_1") == [0.0] * (fired - 1) + [1.0] * (STEPS - fired + 1)
    assert set(neglected(trainer, "channel_0") + neglected(trainer, "channel_2")) == {0.0}
    assert in_catalogue("rvpo/channel_1/neglected")


@pytest.mark.parametrize("method", ["gdpo", "rvpo", "lift"])
def test_rules_that_follow_every_reward_say_nothing(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
):
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        trainer = trained(tiny_model_dir, tmp_path, from_table(table(neglected=False), 0), method=method)
    assert not [text for text in warnings(caplog) if "neglected" in text]
    assert all(set(neglected(trainer, f"channel_{j}")) == {0.0} for j in range(3))


def test_a_reward_of_weight_0_is_monitored_and_not_called(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for number, options in enumerate(
        [{"method": "grpo"}, {"method": "gdpo"}, PLAIN | {"given": {"callbacks": [DiagnosisCallback()]}}]
    ):
        with caplog.at_level(logging.WARNING, logger="rvpo"):
            trainer = trained(
                tiny_model_dir, tmp_path / str(number), from_table(table(), 0), reward_weights=[1, 0, 1], **options
            )
        assert "rvpo/channel_1/neglected" not in steps(trainer)[STEPS]
    assert warnings(caplog) == []


@pytest.mark.parametrize("variant", ["scale_rewards none", "scale_rewards batch", "normalize_then_sum"])
def test_trls_variants_are_read_as_they_train(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, variant: str
):
    option, _, value = variant.partition(" ")
    options = {option: value} if value else {"multi_objective_aggregation": variant}
    given = {"callbacks": [DiagnosisCallback()]}
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        trainer = trained(tiny_model_dir, tmp_path, from_table(table(), 0), **PLAIN, given=given, **options)
    called = variant != "normalize_then_sum"  # which puts all rewards on one scale
    assert bool(warnings(caplog)) == called
    assert neglected(trainer, "channel_1")[-1] == float(called)


def test_the_advantages_that_a_subclass_really_trains_with_are_read(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """TRL's log has other advantages than this trainer uses, which ignore channel 2."""

    class Own(GRPOTrainer):
        def _calculate_rewards(self, *args: Any) -> torch.Tensor:
            self.own = super()._calculate_rewards(*args)
            return self.own

        def _generate_and_score_completions(self, inputs: list) -> dict:
            output = super()._generate_and_score_completions(inputs)
            used = self.own[:, :2].sum(1).view(-1, G)
            output["advantages"] = (used - used.mean(1, keepdim=True)).flatten()
            return output

    given = {"callbacks": [DiagnosisCallback()]}
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        trainer = trained(
            tiny_model_dir, tmp_path, from_table(table(False), 0), trainer=Own, config=GRPOConfig, given=given
        )
    (text,) = warnings(caplog)
    assert text.startswith("'channel_2' is being neglected")
    assert neglected(trainer, "channel_2")[-1] == 1.0


def test_a_plain_trainer_hears_of_constant_rewards_too(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rewards = torch.tensor(table(neglected=False, steps=20))
    rewards[..., 1] = 0.25
    rewards[..., 2] = torch.nan
    values = [[[None if x != x else x for x in row] for row in step] for step in rewards.tolist()]
    given = {"callbacks": [DiagnosisCallback()]}
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        trained(tiny_model_dir, tmp_path, from_table(values, 0), **PLAIN, given=given, max_steps=20)
    first, second = warnings(caplog)
    assert first.startswith("'channel_2' gave no reward (None or NaN) to all 320 completions of the first 10")
    assert second.startswith("'channel_1' gave the same reward, 0.25, to all 640 completions of the first 20")


# --- resumed, and on two processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False], ids=["RVPOTrainer", "GRPOTrainer"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["", "from another folder"])
def test_a_resumed_run_goes_on_and_repeats_nothing(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, ours: bool, elsewhere: bool
):
    def make(folder: Path, callback: DiagnosisCallback, **more: Any) -> Any:
        options = {"method": "grpo"} if ours else dict(PLAIN)
        options |= {"given": {"callbacks": [callback]}, "max_steps": STEPS, "per_device_train_batch_size": ROWS} | more
        return make_trainer(tiny_model_dir, folder, from_table(table(), 0), **options)

    whole = DiagnosisCallback()
    make(tmp_path / "run", whole, save_strategy="steps", save_steps=2).train()
    fired = whole.alarm.called["channel_1"]
    assert 2 < fired < STEPS - 2
    for step in (2, STEPS - 2):
        callback = DiagnosisCallback()
        checkpoint = tmp_path / "run" / f"checkpoint-{step}"
        assert (checkpoint / FILE).exists()
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="rvpo"):
            trainer = make(tmp_path / "other" if elsewhere else tmp_path / "run", callback)
            trainer.train(resume_from_checkpoint=str(checkpoint))
        assert len(warnings(caplog)) == (step < fired)  # it was said before the second checkpoint
        assert callback.alarm.called == whole.alarm.called == {"channel_1": fired}
        assert neglected(trainer, "channel_1")[-1] == 1.0
        for one, other in zip(callback.alarm.state().values(), whole.alarm.state().values(), strict=True):
            assert np.array_equal(one, other)


def test_a_checkpoint_without_the_file_begins_anew_with_a_warning(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    options: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "method": "grpo"}
    options["per_device_train_batch_size"] = ROWS
    make_trainer(tiny_model_dir, tmp_path, from_table(table(), 0), **options).train()
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / FILE).unlink()
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        make_trainer(tiny_model_dir, tmp_path, from_table(table(), 0), **options).train(str(checkpoint))
    assert f"There is no {checkpoint / FILE}: the watch for neglected rewards begins anew." in warnings(caplog)


def test_several_generations_and_iterations_per_step(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Each generation is seen once, whether a step has several of them, or several steps share one."""
    many = {"gradient_accumulation_steps": 2, "steps_per_generation": 1}
    for number, (options, generations) in enumerate([(many, 2 * 4), ({"num_iterations": 2}, 2), ({}, 4)]):
        for ours in (True, False):
            callback = DiagnosisCallback()
            kinds = {} if ours else PLAIN
            trained(
                tiny_model_dir,
                tmp_path / f"{number}{ours}",
                from_table(table(), 0),
                **kinds,
                given={"callbacks": [callback]},
                max_steps=4,
                dataset=prompts(2 * GROUPS),  # two generations per epoch
                **options,
            )
            assert callback.alarm.generations == generations


@pytest.mark.parametrize("ours", [True, False], ids=["RVPOTrainer", "GRPOTrainer"])
def test_evaluations_are_not_looked_at(tiny_model_dir: Path, tmp_path: Path, ours: bool):
    callback = DiagnosisCallback()
    evaluating = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": N}
    trained(
        tiny_model_dir,
        tmp_path,
        eval_dataset=prompts(2),
        rewards=from_table(table(), 0),
        max_steps=3,
        per_device_train_batch_size=N,
        given={"callbacks": [callback]},
        **evaluating,
        **({} if ours else PLAIN),
    )
    assert callback.alarm.generations == 3


@pytest.mark.xdist_group("processes")
def test_two_processes_see_all_rewards_and_one_speaks(tiny_model_dir: Path, tmp_path: Path):
    job = {
        "model": str(tiny_model_dir),
        "output": str(tmp_path),
        "table": table(),
        "options": {"max_steps": STEPS, "per_device_train_batch_size": ROWS // 2, "method": "grpo"},
        "plain": {"max_steps": STEPS, "per_device_train_batch_size": ROWS // 2},
    }
    results = run_job_twice(job)
    for kind in ("steps", "plain_steps"):
        logged = [[entry["rvpo/channel_1/neglected"] for entry in result[kind].values()] for result in results]
        assert logged[0] == logged[1] == sorted(logged[0])
        assert set(logged[0]) == {0.0, 1.0}
    assert [len(result["warnings"]) for result in results] == [2, 0]  # one of each trainer


# --- rubrics ----------------------------------------------------------------------------------------------------------


def test_labels_of_a_rubric_are_watched(tiny_model_dir: Path, tmp_path: Path):
    sizes = [2, 3] * 6
    generator = torch.Generator().manual_seed(1)
    verdicts = [(torch.rand(N, 3, generator=generator) < 0.5).double().tolist() for _ in range(3)]
    rewards = [even, RubricReward(Scripted(verdicts), max_missing=1.0)]
    trainer = make_trainer(tiny_model_dir, tmp_path, rewards, dataset=rubric_prompts(sizes), max_steps=3, method="gdpo")
    trainer.train()
    keys = [key for key in steps(trainer)[3] if key.endswith("/neglected")]
    assert "rvpo/even/neglected" in keys
    assert len(keys) > 2
    assert all(in_catalogue(key) for key in keys)


# --- what is printed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False], ids=["RVPOTrainer", "GRPOTrainer"])
@pytest.mark.parametrize("keeps", [True, False], ids=["with a record", "without a record"])
def test_start_and_end_say_what_is_kept_and_what_is_next(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture, ours: bool, keeps: bool
):
    options = {"method": "grpo"} if ours else PLAIN | {"given": {"callbacks": [DiagnosisCallback()]}}
    trained(tiny_model_dir, tmp_path, from_table(table(), 0), log_completions=keeps, **options)
    printed = capsys.readouterr().out
    assert printed.count("log_completions is off, so no record of the rewards is kept") == (not keeps)
    assert f"rvpo: the rewards of the last {GROUPS * STEPS} groups, after {STEPS} generations:" in printed
    assert "  channel_1: neglected (called as neglected at generation " in printed
    assert "  channel_0: healthy: it moves the advantage" in printed
    assert (f"Next: rvpo diagnose {tmp_path}\n" in printed) == keeps
    assert ("Next: train with log_completions=True" in printed) != keeps


def test_it_can_be_left_out_or_be_quiet(tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    trainer = make_trainer(tiny_model_dir, tmp_path, max_steps=2)
    trainer.remove_callback(DiagnosisCallback)
    trainer.train()
    assert not [key for key in steps(trainer)[2] if key.endswith("/neglected")]
    quiet = make_trainer(tiny_model_dir, tmp_path, max_steps=2, given={"callbacks": [DiagnosisCallback(summary=False)]})
    quiet.train()
    assert [key for key in steps(quiet)[2] if key.endswith("/neglected")]
    assert "rvpo:" not in capsys.readouterr().out


def test_of_two_callbacks_one_works(tiny_model_dir: Path, tmp_path: Path):
    for number, kinds in enumerate(({}, PLAIN, {"trainer": RVPOTrainer, "config": RVPOConfig})):
        first, second = DiagnosisCallback(), DiagnosisCallback()
        trainer = make_trainer(
            tiny_model_dir, tmp_path / str(number), max_steps=2, given={"callbacks": [first]}, **kinds
        )
        trainer.add_callback(second)
        trainer.train()
        assert (first.alarm.generations, second.alarm.generations) == (2, 0)


# --- where it cannot see ----------------------------------------------------------------------------------------------


def test_a_trainer_that_is_no_grpo_trainer_is_refused(tiny_model_dir: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM
    from trl import RLOOConfig, RLOOTrainer

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8
    plain = Trainer(model, arguments, train_dataset=rows, callbacks=[DiagnosisCallback()])
    rloo = make_trainer(
        tiny_model_dir, tmp_path, trainer=RLOOTrainer, config=RLOOConfig, given={"callbacks": [DiagnosisCallback()]}
    )
    for trainer, name in ((plain, "Trainer"), (rloo, "RLOOTrainer")):
        with pytest.raises(EngineError, match=f"watches a {name}; expected trl.GRPOTrainer or a subclass"):
            trainer.train()


def test_a_callback_that_finds_no_trainer_says_what_to_do(tiny_model_dir: Path, tmp_path: Path):
    trainer = make_trainer(tiny_model_dir, tmp_path, **PLAIN, max_steps=2)
    with pytest.raises(EngineError, match=r"pass it, as in trainer.add_callback\(DiagnosisCallback\(trainer\)\)"):
        DiagnosisCallback().on_train_begin(trainer.args, trainer.state, trainer.control)
    callback = DiagnosisCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    assert callback.alarm.generations == 2


def test_a_trainer_whose_scores_cannot_be_seen_is_refused(tiny_model_dir: Path, tmp_path: Path):
    class Unseen(GRPOTrainer):
        """Makes its batches without the method that is read."""

        def _prepare_inputs(self, inputs: Any) -> Any:
            del self.__dict__["_generate_and_score_completions"]
            made = super()._prepare_inputs(inputs)
            self._generate_and_score_completions = lambda *_: None
            return made

    class WithoutRewards(GRPOTrainer):
        def _calculate_rewards(self, *args: Any) -> torch.Tensor:
            return super()._calculate_rewards(*args)

        def _generate_and_score_completions(self, inputs: list) -> dict:
            output = super()._generate_and_score_completions(inputs)
            return output | {"advantages": output["advantages"][:-1]}

    class PerToken(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: list) -> dict:
            output = super()._generate_and_score_completions(inputs)
            return output | {"advantages": output["advantages"][:, None].expand_as(output["completion_ids"])}

    expected = {
        Unseen: "has seen no generation in 2 steps of Unseen",
        WithoutRewards: r"saw rewards of shape \(8, 2\) and advantages of shape \(7,\) of WithoutRewards",
        PerToken: r"saw rewards of shape \(8, 2\) and advantages of shape \(8, 5\) of PerToken",
    }
    for trainer, text in expected.items():
        given = {"callbacks": [DiagnosisCallback()]}
        made = make_trainer(tiny_model_dir, tmp_path, trainer=trainer, config=GRPOConfig, given=given)
        with pytest.raises(EngineError, match=text):
            made.train()
