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
    assert config.algorithm.adv_estimator == "rvpo"
    assert config.trainer.v1.trainer_mode == "sync"
    assert issubclass(runner.__ray_metadata__.modified_class, command.TaskRunner)
    assert issubclass(command.TaskRunner, TaskRunnerV1.__ray_metadata__.modified_class)


def test_verls_own_estimators_pass(call: Any):
    [(config, _)] = call("algorithm.adv_estimator=grpo")
    assert config.algorithm.adv_estimator == "grpo"


def test_a_mistake_ends_before_ray_starts(call: Any):
    with pytest.raises(SystemExit) as told:
        call(*OURS, "+algorithm.rvpo.kk=1")
    assert str(told.value).startswith("error: algorithm.rvpo: unknown key 'kk' (did you mean 'k'?)")


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
    for name in ("+algorithm.rvpo.reward_keys", "+algorithm.rvpo.k_schedule", "grpo-multi", "lift", "none or token"):
        assert name in out


def test_without_verl_the_way_to_it_is_told():
    code = "import runpy, sys; sys.modules['hydra'] = None; runpy.run_module('rvpo.verl', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: python -m rvpo.verl needs the package hydra: pip")
