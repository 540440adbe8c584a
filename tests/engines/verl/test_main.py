"""The command line: what it refuses before Ray starts, what it says of an error in the trainer's process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from ray.exceptions import RayTaskError
from verl.trainer.main_ppo import TaskRunnerV1

from rvpo.engines.verl import main as command
from rvpo.errors import JudgeError

OURS = ["algorithm.adv_estimator=rvpo", "+algorithm.rvpo.reward_keys=[a,b]", "actor_rollout_ref.rollout.n=4"]
# What verl's own validation wants to know of a run.
NEEDED = ["actor_rollout_ref.actor.use_dynamic_bsz=True", "trainer.n_gpus_per_node=1"]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a call of the command line up to the point where verl would start Ray; it returns what verl was given."""

    def run(*overrides: str, error: Exception | None = None) -> list[tuple[DictConfig, Any]]:
        given: list[tuple[DictConfig, Any]] = []

        def run_ppo(config: DictConfig, task_runner_class: Any) -> None:
            given.append((config, task_runner_class))
            if error is not None:
                raise error

        monkeypatch.setattr(command, "run_ppo", run_ppo)
        places = [f"hydra.run.dir={tmp_path}", "hydra.output_subdir=null"]
        monkeypatch.setattr(sys, "argv", ["rvpo.verl", *NEEDED, *overrides, *places])
        command.main()
        return given

    return run


def test_verl_gets_its_config_and_our_task_runner(call: Any):
    [(config, runner)] = call(*OURS)
    assert config.algorithm.adv_estimator == "rvpo:k=1"
    assert config.trainer.v1.trainer_mode == "sync"
    assert issubclass(runner.__ray_metadata__.modified_class, command.TaskRunner)
    assert issubclass(command.TaskRunner, TaskRunnerV1.__ray_metadata__.modified_class)


def test_verls_own_estimators_pass(call: Any):
    [(config, _)] = call("algorithm.adv_estimator=grpo")
    assert config.algorithm.adv_estimator == "grpo"


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("lift:kappa=3", "lift:kappa=3"),
        ("rvpo:k=linear(0.5,2),dead_channels=keep", "rvpo:k=linear(0.5,2),dead_channels=keep"),
        ('"rvpo:k=linear(0.5,2)"', "rvpo:k=linear(0.5,2)"),
        ("{name: rvpo, k: 'linear(0.5,2)'}", "rvpo:k=linear(0.5,2)"),
        ("gdpo:whiten=token", "gdpo:whiten=token"),
        ("grpo_multi", "grpo-multi"),
        ('lagrangian:thresholds={"a":0.9}', "lagrangian:thresholds={a:0.9}"),
    ],
)
def test_a_method_can_be_typed_as_its_text(call: Any, typed: str, text: str):
    """Hydra itself would stop at the equals sign of a text that has no quotes of its own."""
    [(config, _)] = call(*OURS[1:], f"algorithm.adv_estimator={typed}")
    assert config.algorithm.adv_estimator == text


def test_a_mistake_ends_before_ray_starts(call: Any):
    with pytest.raises(SystemExit) as told:
        call(*OURS, "+algorithm.rvpo.reward_weight=[1,2]")
    assert str(told.value).startswith(
        "error: algorithm.rvpo: unknown key 'reward_weight' (did you mean 'reward_weights'?)"
    )


def test_an_option_of_before_ends_with_how_it_is_written_now(call: Any):
    with pytest.raises(SystemExit) as told:
        call(*OURS, "+algorithm.rvpo.k=2.0")
    assert told.value.code == (
        "error: algorithm.rvpo.k is 2.0, but options of a method follow its name; expected "
        "'algorithm.adv_estimator=\"rvpo:k=2\"'. Drop algorithm.rvpo.k"
    )


def test_our_errors_in_the_trainers_process_are_told_in_a_line(call: Any):
    """As Ray hands them over: an error that passes for its cause, but whose text is the whole trace."""
    cause = JudgeError("3 of 4 verdicts are missing")
    error = RayTaskError("run", "a long trace", cause).as_instanceof_cause()
    assert isinstance(error, JudgeError)
    with pytest.raises(SystemExit) as told:
        call(*OURS, error=error)
    assert told.value.code == "error: 3 of 4 verdicts are missing"


def test_other_errors_keep_their_trace(call: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    error = RayTaskError("run", "a long trace", KeyError("x")).as_instanceof_cause()
    with pytest.raises(RayTaskError, match="a long trace"):
        call(*OURS, error=error)


def test_help_names_every_option_and_estimator(
    call: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["rvpo.verl", "--help"])
    command.main()
    out = capsys.readouterr().out
    for name in ("+algorithm.rvpo.reward_keys", "+algorithm.rvpo.max_missing", "grpo-multi", "my_rules.py:cvar"):
        assert name in out
    assert "'algorithm.adv_estimator=rvpo:k=linear(0.5,2)'" in out
    assert "+algorithm.rvpo.method" not in out


def test_without_verl_the_way_to_it_is_told():
    code = "import runpy, sys; sys.modules['hydra'] = None; runpy.run_module('rvpo.verl', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: python -m rvpo.verl needs the package hydra: pip")
