"""Reads and checks verl's config before anything starts: the estimator, its options, and contradicting settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from rvpo.core.checks import unknown_option
from rvpo.core.methods.base import Method
from rvpo.engines.verl.checks import check_ignored
from rvpo.engines.verl.filtering import METRIC
from rvpo.engines.verl.options import VerlOptions
from rvpo.engines.verl.rewards import TAKEN, plain_values, read_rewards, read_wanted
from rvpo.engines.verl.spelling import (
    ESTIMATORS,
    OPTION,
    REGISTERED,
    belongs_to_methods,
    read_method,
    written_now,
)
from rvpo.errors import ConfigError
from rvpo.recipe import RewardSection
from rvpo.rewards.judged import MAX_MISSING
from rvpo.rewards.registry import JUDGED, gives_channels

MODES = ("sync", "colocate_async")
"""Values of ``trainer.v1.trainer_mode`` that are supported."""

RESERVED = tuple(name for name in TAKEN if name not in ("score", "acc"))
"""Names that no reward function can use: verl or rvpo overwrites the values under these names."""

REWARDS_PATH = "pkg://rvpo.engines.verl.rewards"
"""``path`` of our own reward function. If it is used, only its ``rewards`` name the channels."""


def read_options(config: DictConfig) -> VerlOptions | None:
    """Read a whole verl config.

    Returns:
        The options, or None if ``algorithm.adv_estimator`` is one of verl's own estimators, which verl then runs.

    Raises:
        ConfigError: an option cannot work, or a setting of verl contradicts the estimator.
    """
    check_ignored(config)
    method, estimator = read_method(config), str(plain_values(config.algorithm.adv_estimator))
    given = plain_values(config.algorithm.get("rvpo")) or {}
    if not isinstance(given, dict):
        raise ConfigError(
            f"algorithm.rvpo is {given!r}; expected a mapping of options, such as +algorithm.rvpo.reward_keys=[a,b]"
        )
    if method is None:
        _check_without_us(config, estimator, given)
        return None
    _check_trainer(config, estimator)
    if estimator == REGISTERED:
        given = {key: value for key, value in given.items() if key != "method"}
    _check_names(method, given)
    named = _named_rewards(config, given)
    options = VerlOptions(
        method=method,  # type: ignore[arg-type]
        **{key: value for key, value in named.items() if value is not None} | given,
    )
    if not options.reward_keys:
        raise ConfigError(
            f"{OPTION} is {estimator!r}, but no reward is named; expected the keys that the reward function returns "
            "besides `score`, such as +algorithm.rvpo.reward_keys=[correctness,format]"
        )
    if taken := [key for key in options.reward_keys if key in RESERVED]:
        raise ConfigError(
            f"algorithm.rvpo.reward_keys names {taken[0]!r}, which verl uses for other values in its validations and "
            "dumps; expected another name. Return the reward under another key, such as 'correctness'"
        )
    _check_group_filter(config, options.reward_keys)
    _check_second_scores(config, options.judge_twice)
    options.build()
    return options


def rewards_of_ours(config: DictConfig) -> list[RewardSection]:
    """Return the rewards of rvpo's own reward function; empty if another one is used. See :func:`read_rewards`.

    Raises:
        ConfigError: the rewards cannot work, or the number of workers is not verl's.
    """
    function = config.reward.custom_reward_function
    if str(function.get("path")) != REWARDS_PATH:
        return []
    kwargs = plain_values(function.get("reward_kwargs")) or {}
    entries = read_rewards(kwargs)
    workers = config.reward.num_workers
    if kwargs.get("num_workers", workers) != workers:
        raise ConfigError(
            f"reward_kwargs.num_workers is {kwargs['num_workers']}, but reward.num_workers is {workers}; expected "
            "the same number. Drop it, or write ${reward.num_workers}"
        )
    return entries


def _check_names(method: Method, given: Mapping[str, Any]) -> None:
    """Refuse unknown options under ``algorithm.rvpo``, and say where to write them instead."""
    if "method" in given:
        raise ConfigError(
            f"algorithm.rvpo.method is {given['method']!r}, but {OPTION} chooses the method; expected it there, such "
            f"as {OPTION}=lift. Known methods: {', '.join(ESTIMATORS)}"
        )
    allowed = [name for name, _ in VerlOptions.help()]
    unknown = {str(key): value for key, value in given.items() if key not in allowed}
    if moved := {key: value for key, value in unknown.items() if belongs_to_methods(key)}:
        text = written_now(method, moved)
        raise ConfigError(
            f"algorithm.rvpo.{next(iter(moved))} is {next(iter(moved.values()))!r}, but options of a method follow its "
            f"name; expected '{OPTION}=\"{text}\"'. Drop {', '.join(f'algorithm.rvpo.{key}' for key in moved)}"
        )
    for key in unknown:
        raise unknown_option("algorithm.rvpo", key, allowed)


def _named_rewards(config: DictConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return names and weights from other places: the entries of our reward function, or verl's options for GDPO."""
    entries = rewards_of_ours(config)
    theirs = {key: plain_values(config.algorithm.get(f"gdpo_{key}")) for key in ("reward_keys", "reward_weights")}
    for key, value in theirs.items():
        if value is not None and (entries or "reward_keys" in given):
            where = "the entries of reward_kwargs.rewards" if entries else "algorithm.rvpo.reward_keys"
            raise ConfigError(
                f"algorithm.gdpo_{key} is {value!r}, but {where} names the rewards. Drop it, and name them there"
            )
    if not entries:
        return {"reward_keys": theirs["reward_keys"], "own_weights": theirs["reward_weights"]}
    if "reward_keys" in given:
        raise ConfigError(
            f"algorithm.rvpo.reward_keys is {given['reward_keys']!r}, but the rewards are named by the entries of "
            "reward_kwargs.rewards, with their weights and ranges. Drop it, and drop entries that you do not want"
        )
    # Use the lowest limit, because the trainer does not know which rubric a judge belongs to.
    allowed = [e.options.get("max_missing", MAX_MISSING) for e in entries if e.function in JUDGED]
    return {
        "reward_keys": [str(entry.name) for entry in entries],
        "own_weights": [entry.weight for entry in entries],
        "max_missing": min(allowed, default=None),
        "own_ranges": [entry.range for entry in entries],
    }


def _check_without_us(config: DictConfig, estimator: str, given: Mapping[str, Any]) -> None:
    """Refuse our options and rewards with one of verl's own estimators, which would ignore or misread them."""
    if given:
        raise ConfigError(
            f"algorithm.rvpo is set, but algorithm.adv_estimator is {estimator!r}, verl's own; expected a method of "
            f"rvpo ({', '.join(ESTIMATORS)}), or algorithm.rvpo dropped"
        )
    if rewards_of_ours(config):
        raise ConfigError(
            f"algorithm.adv_estimator is {estimator!r}, verl's own, which trains only on the score. The score of "
            "rvpo is NaN if nothing could be scored, which would spoil an update; use grpo-multi, GRPO on the sum of "
            "the rewards"
        )


def _check_group_filter(config: DictConfig, names: Sequence[str]) -> None:
    """Refuse a filter of groups by a value that our reward functions do not return as one number per completion."""
    groups, entries = config.algorithm.get("filter_groups") or {}, rewards_of_ours(config)
    enabled, metric = groups.get("enable"), groups.get("metric")
    kwargs = plain_values(config.reward.custom_reward_function.get("reward_kwargs")) or {}
    wanted = read_wanted(kwargs, entries) if entries else None
    if wanted and not (enabled and metric == METRIC):
        seen = f"metric is {metric!r}" if enabled else "enable is False"
        raise ConfigError(
            f"reward_kwargs.wanted is {wanted!r}, but algorithm.filter_groups.{seen}, so it has no effect; expected "
            f"algorithm.filter_groups.enable=True and metric={METRIC}. Set them, or drop wanted"
        )
    if not enabled:
        return
    if not metric:
        raise ConfigError(
            "algorithm.filter_groups.enable is True, but its metric is not set; expected 'reward' for the score, or "
            f"one of {', '.join(names)}"
        )
    if not entries:
        return  # the keys that another reward function returns are not known here
    channels = [e.name for e in entries if gives_channels(e.function, e.options)]
    filtered = [METRIC] if wanted else []
    if metric == METRIC and not filtered:
        raise ConfigError(
            f"algorithm.filter_groups.metric is {METRIC!r}, but reward_kwargs.wanted is not set; expected the names of "
            f"the rewards that must rank a group, such as reward_kwargs.wanted=[{names[0]}]"
        )
    known = ["reward", "score", *filtered, *(name for name in names if name not in channels)]
    if metric not in known:
        kind = ", a rubric whose criteria differ between prompts" if metric in channels else ""
        raise ConfigError(
            f"algorithm.filter_groups.metric is {metric!r}{kind}; expected a number that every completion has: "
            f"{', '.join(known)}"
        )


def _check_second_scores(config: DictConfig, share: float) -> None:
    """Refuse ``judge_twice`` if the reward function does not support it, or if workers and trainer differ in it."""
    kwargs = plain_values(config.reward.custom_reward_function.get("reward_kwargs")) or {}
    if not rewards_of_ours(config):
        if share:
            raise ConfigError(
                f"algorithm.rvpo.judge_twice is {share}, but only rvpo's own reward function scores completions twice; "
                f"expected reward.custom_reward_function.path={REWARDS_PATH}. Set it, or drop judge_twice"
            )
    elif (given := kwargs.get("judge_twice", share)) != share:
        raise ConfigError(
            f"reward_kwargs.judge_twice is {given}, but algorithm.rvpo.judge_twice is {share}; expected the same. Set "
            "only algorithm.rvpo.judge_twice: the reward workers get it from there"
        )


def _check_trainer(config: DictConfig, estimator: str) -> None:
    """Refuse settings of verl with which the estimator would not work as documented."""
    if (mode := str(config.trainer.v1.trainer_mode)) not in MODES:
        raise ConfigError(
            f"trainer.v1.trainer_mode is {mode!r}; expected {' or '.join(MODES)}. In separate_async, verl moves "
            "weights in ways that need accelerators, and rvpo has not been tested with it"
        )
    if config.algorithm.use_kl_in_reward:
        raise ConfigError(
            f"algorithm.use_kl_in_reward is True, but {estimator!r} ranks each reward by itself, and the KL penalty is "
            "not one of them, so it would have no effect; expected actor_rollout_ref.actor.use_kl_loss=True instead"
        )
    if not config.algorithm.get("norm_adv_by_std_in_grpo", True):
        raise ConfigError(
            f"algorithm.norm_adv_by_std_in_grpo is False, but {estimator!r} compares z-scores, which are divided by "
            "the standard deviation. Drop algorithm.norm_adv_by_std_in_grpo=False"
        )
    reward_model = config.reward.reward_model
    if reward_model.enable and not reward_model.enable_resource_pool:
        raise ConfigError(
            "reward.reward_model.enable is True without a resource pool. Then verl passes the parts of a reward in "
            "another way, which rvpo does not read. Set reward.reward_model.enable_resource_pool=True, and "
            "reward.custom_reward_function.path to a function that asks the model and returns its score under a name"
        )
    if reward_model.enable and not config.reward.custom_reward_function.get("path"):
        raise ConfigError(
            "reward.reward_model.enable is True without a reward function. Then verl passes only the model's score, "
            f"but {estimator!r} needs rewards by name. Set reward.custom_reward_function.path to a function that "
            "asks the model (verl passes it reward_router_address) and returns its score under a name"
        )
    if config.critic.get("enable"):
        raise ConfigError(
            f"critic.enable is True, but {estimator!r} compares the completions of a prompt and does not use a critic, "
            "which would be trained on advantages instead of returns. Drop critic.enable"
        )
    manager = config.reward.reward_manager
    if manager.source == "register" and manager.name == "limited":
        raise ConfigError(
            "reward.reward_manager.name is 'limited', which gives 0 to a completion that could not be scored in time; "
            "expected 'naive', the default. The judges of rvpo have their own limits"
        )
    overlong = plain_values((config.reward.get("reward_kwargs") or {}).get("overlong_buffer_cfg")) or {}
    logged = overlong.get("log") and "overlong_reward" in (plain_values(config.algorithm.get("rvpo")) or {}).get(
        "reward_keys", []
    )
    if manager.name == "dapo" and overlong.get("enable") and not logged:
        raise ConfigError(
            f"reward.reward_kwargs.overlong_buffer_cfg.enable is True, but its penalty goes into the score, which "
            f"{estimator!r} does not use. Set overlong_buffer_cfg.log=True and name overlong_reward in "
            "algorithm.rvpo.reward_keys"
        )
    steps = config.trainer.v1.get(str(config.trainer.v1.trainer_mode), {}).get("parameter_sync_step", 1)
    if steps != 1:
        raise ConfigError(f"parameter_sync_step is {steps}; expected 1. Several updates per step are not supported")
    if int(config.actor_rollout_ref.rollout.n) < 2:
        raise ConfigError(
            f"actor_rollout_ref.rollout.n is {config.actor_rollout_ref.rollout.n}, but {estimator!r} compares the "
            "completions of one prompt; expected 2 or more, such as 8"
        )
