"""``python -m rvpo.verl``: verl's own entry point and config, with our estimators."""

from __future__ import annotations

import sys
from typing import Any

import hydra
import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config
from verl.utils.device import auto_set_device

from rvpo.engines.verl.options import ESTIMATORS, VerlOptions, read_options, rewards_of_ours
from rvpo.engines.verl.rewards import check_judges
from rvpo.errors import RVPOError

# Ray wraps what it decorates; a subclass needs the class itself.
_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


class TaskRunner(_TaskRunner):  # type: ignore[misc]
    """verl's task runner, in the process in which the trainer runs."""

    def run(self, config: DictConfig) -> None:
        """Register our trainers there, and choose one of them where the estimator is ours."""
        from rvpo.engines.verl import trainer

        if read_options(config) is not None:
            config.trainer.v1.trainer_mode = f"{trainer.PREFIX}{config.trainer.v1.trainer_mode}"
        super().run(config)


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)  # type: ignore[untyped-decorator]
def _train(config: DictConfig) -> None:
    auto_set_device(config)
    try:
        read_options(config)
        check_judges(rewards_of_ours(config))
        validate_config(
            config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
        )
        run_ppo(config, task_runner_class=ray.remote(TaskRunner))
    except ray.exceptions.RayTaskError as error:  # of the trainer's process; it passes for its cause, whole traces told
        if isinstance(error.cause, RVPOError):
            sys.exit(f"error: {error.cause}")
        raise
    except RVPOError as error:
        sys.exit(f"error: {error}")


def main() -> None:
    """Run verl with our estimators; the command line is verl's."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help())
    _train()


def _help() -> str:
    """Return what we add to verl's options."""
    lines = [f"  +algorithm.rvpo.{name}\n      {help}" for name, help in VerlOptions.help()]
    return "\n".join(
        [
            "python -m rvpo.verl takes the overrides of python -m verl.trainer.main_ppo, and in addition",
            f"  algorithm.adv_estimator\n      {', '.join(ESTIMATORS)}",
            *lines,
            "What follows is hydra's help on verl's own config.",
            "",
        ]
    )
