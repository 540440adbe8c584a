"""``python -m rvpo.verl``: verl's own entry point and config, with our estimators."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import hydra
import ray
from omegaconf import DictConfig, open_dict
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config
from verl.utils.device import auto_set_device

from rvpo.engines.verl.checks import check_checkpoint, check_pictures
from rvpo.engines.verl.config import read_options, rewards_of_ours
from rvpo.engines.verl.options import VerlOptions
from rvpo.engines.verl.rewards import check_rewards
from rvpo.engines.verl.spelling import ESTIMATORS, OPTION, quoted, spell_out
from rvpo.errors import RVPOError

# Ray wraps what it decorates; a subclass needs the class itself.
_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


class TaskRunner(_TaskRunner):  # type: ignore[misc]
    """verl's task runner, in the process in which the trainer runs."""

    def run(self, config: DictConfig) -> None:
        """Register our trainers. Choose one if the estimator is ours, and pass the number of workers to our rewards."""
        from rvpo.engines.verl import losses, trainer

        options = read_options(config)
        if options is not None:
            config.trainer.v1.trainer_mode = f"{trainer.PREFIX}{config.trainer.v1.trainer_mode}"
            agent = config.actor_rollout_ref.rollout.agent
            if not agent.get("agent_loop_manager_class"):
                with open_dict(config):
                    agent.agent_loop_manager_class = losses.MANAGER
        if rewards_of_ours(config):
            with open_dict(config):
                kwargs = config.reward.custom_reward_function.reward_kwargs
                kwargs.num_workers = config.reward.num_workers
                kwargs.run = run_folder(config)
                kwargs.judge_twice = options.judge_twice if options is not None else 0.0
        super().run(config)


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)  # type: ignore[untyped-decorator]
def _train(config: DictConfig) -> None:
    auto_set_device(config)
    try:
        if read_options(config) is not None:
            spell_out(config)
            check_checkpoint(config)
        check_pictures(config)
        check_rewards(rewards_of_ours(config), config.reward.num_workers, run_folder(config))
        validate_config(
            config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
        )
        run_ppo(config, task_runner_class=ray.remote(TaskRunner))
    except ray.exceptions.RayTaskError as error:  # from the trainer's process; its text is a whole traceback
        if isinstance(error.cause, RVPOError):
            sys.exit(f"error: {error.cause}")
        raise
    except RVPOError as error:
        sys.exit(f"error: {error}")


def run_folder(config: DictConfig) -> str:
    """Return the folder of the run's checkpoints, which identifies the run's verdicts in a shared cache."""
    return str(Path(config.trainer.default_local_dir).absolute())


def main() -> None:
    """Run verl with our estimators. The command line is verl's."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help())  # without verl's own config: its 900 lines would scroll our help away
    else:
        sys.argv[1:] = quoted(sys.argv[1:])
        _train()


def _help() -> str:
    """Return the help for the options that we add to verl's, as wide as the terminal."""
    wide = min(shutil.get_terminal_size((100, 24)).columns, 120)

    def described(option: str, text: str) -> str:
        return f"  {option}\n" + textwrap.fill(text, wide, initial_indent=" " * 6, subsequent_indent=" " * 6)

    method = (
        f"The method: {', '.join(ESTIMATORS)}, your own method such as my_rules.py:cvar, or one of verl's own "
        "estimators, such as grpo. Options of a method follow its name, for example"
    )
    return "\n".join(
        [
            "python -m rvpo.verl takes the overrides of python -m verl.trainer.main_ppo, and these:",
            described(OPTION, method),
            f"        {OPTION}=lift:kappa=3",
            f"        '{OPTION}=rvpo:k=linear(0.5,2)'",
            f"        '{OPTION}={{name: rvpo, k: \"linear(0.5,2)\"}}'",
            *(described(f"+algorithm.rvpo.{name}", text) for name, text in VerlOptions.help()),
            "Quote brackets, braces and parentheses for your shell: '+algorithm.rvpo.reward_keys=[a,b]'.",
            "--cfg job prints verl's own config with your overrides. --hydra-help prints Hydra's options.",
            "See docs/engines.md for more.",
        ]
    )
