"""verl's config, read and checked before anything starts: the estimator, its options, and what contradicts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from rvpo.core.checks import unknown_option
from rvpo.core.methods.base import Method
from rvpo.core.methods.registry import METHODS, build_method, is_known, read_text, spell
from rvpo.engines.verl.options import VerlOptions
from rvpo.engines.verl.rewards import plain, read_rewards
from rvpo.errors import ConfigError
from rvpo.recipe import RewardSection
from rvpo.rewards.rubric.reward import MAX_MISSING
from rvpo.text.suggest import did_you_mean

GRPO_NAMES = ("grpo-multi", "grpo_multi")
"""``algorithm.adv_estimator`` for GRPO on the weighted sum of the channels; plain ``grpo`` stays verl's own."""

ESTIMATORS = tuple(GRPO_NAMES[0] if name == "grpo" else name for name in METHODS)
"""What ``algorithm.adv_estimator`` can be, with options as in any text of a method, and a method of one's own."""

REGISTERED = "rvpo:advantages"
"""Our one name among verl's estimators; what it does is decided by the trainer."""

MODES = ("sync", "colocate_async")
"""Values of ``trainer.v1.trainer_mode`` that are supported."""

REWARDS_PATH = "pkg://rvpo.engines.verl.rewards"
"""``path`` of our own reward function. Where it is used, the channels are named in its ``rewards``, and not twice."""


def method_of(config: DictConfig) -> Method | None:
    """Return the method that ``algorithm.adv_estimator`` stands for, as text or mapping; None for verl's own.

    Raises:
        ConfigError: it is neither, or an option of the method cannot work.
    """
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    given = plain(config.algorithm.adv_estimator)
    name = read_text(given)[0] if isinstance(given, str) else given.get("name") if isinstance(given, dict) else given
    if name in GRPO_NAMES:
        given = given.replace(name, "grpo", 1) if isinstance(given, str) else {**given, "name": "grpo"}
    elif isinstance(given, str) and (given == "grpo" or (given in ADV_ESTIMATOR_REGISTRY and given not in METHODS)):
        return None
    elif isinstance(given, str) and not is_known(str(name)) and ":" not in str(name):
        known = [*ESTIMATORS, *ADV_ESTIMATOR_REGISTRY]
        theirs = [key for key in ADV_ESTIMATOR_REGISTRY if key not in (*METHODS, REGISTERED) or key == "grpo"]
        raise ConfigError(
            f"algorithm.adv_estimator is {given!r}{did_you_mean(str(name), known)}; expected one of rvpo's "
            f"{', '.join(ESTIMATORS)}, a method of your own as file.py:name, or one of verl's own {', '.join(theirs)}"
        )
    return build_method(given)


def read_options(config: DictConfig) -> VerlOptions | None:
    """Read a whole verl config.

    Returns:
        The options, or None where ``algorithm.adv_estimator`` is one of verl's own, which is then left to verl.

    Raises:
        ConfigError: an option that cannot work, or one of verl's that contradicts the estimator.
    """
    method = method_of(config)
    estimator = str(plain(config.algorithm.adv_estimator)) if method is None else method.name
    given = plain(config.algorithm.get("rvpo")) or {}
    if not isinstance(given, dict):
        raise ConfigError(
            f"algorithm.rvpo is {given!r}; expected a mapping of options, such as +algorithm.rvpo.reward_keys=[a,b]"
        )
    if method is None:
        _check_without_us(config, estimator, given)
        return None
    _check_trainer(config, estimator)
    if "method" in given:
        raise ConfigError(
            f"algorithm.rvpo.method is {given['method']!r}, but algorithm.adv_estimator chooses the method; expected "
            f"it there, such as algorithm.adv_estimator=lift. Known are {', '.join(ESTIMATORS)}"
        )
    allowed = [name for name, _ in VerlOptions.help()]
    if unknown := [str(key) for key in given if key not in allowed]:
        raise unknown_option("algorithm.rvpo", unknown[0], allowed)
    named = _named_rewards(config, given)
    options = VerlOptions(
        method=method,  # type: ignore[arg-type]
        **{key: value for key, value in named.items() if value is not None} | given,
    )
    if not options.reward_keys:
        raise ConfigError(
            f"algorithm.adv_estimator is {estimator!r}, but no reward is named: list the keys that the reward function "
            "returns beside `score`, such as +algorithm.rvpo.reward_keys=[correctness,format]"
        )
    options.build()
    return options


def spell_out(config: DictConfig) -> None:
    """Write the method back as text, which verl's own config takes, whatever its spelling was."""
    if (method := method_of(config)) is not None:
        text = spell(method)
        config.algorithm.adv_estimator = text.replace("grpo", GRPO_NAMES[0], 1) if method.name == "grpo" else text


def rewards_of_ours(config: DictConfig) -> list[RewardSection]:
    """Return the rewards where rvpo's own reward function gives them, else none; see :func:`read_rewards`.

    Raises:
        ConfigError: they cannot work, or do not know how many workers share their judges.
    """
    function = config.reward.custom_reward_function
    if str(function.get("path")) != REWARDS_PATH:
        return []
    kwargs = plain(function.get("reward_kwargs")) or {}
    entries = read_rewards(kwargs)
    workers = config.reward.num_workers
    if kwargs.get("num_workers", workers) != workers:
        raise ConfigError(
            f"reward_kwargs.num_workers is {kwargs['num_workers']}, but reward.num_workers is {workers}: drop it, "
            "or write ${reward.num_workers}"
        )
    return entries


def _named_rewards(config: DictConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of the rewards elsewhere: in our own reward function's entries, or for verl's GDPO."""
    entries = rewards_of_ours(config)
    theirs = {key: plain(config.algorithm.get(f"gdpo_{key}")) for key in ("reward_keys", "reward_weights")}
    for key, value in theirs.items():
        if value is not None and (entries or "reward_keys" in given):
            where = "the entries of reward_kwargs.rewards" if entries else "algorithm.rvpo.reward_keys"
            raise ConfigError(
                f"algorithm.gdpo_{key} is {value!r}, but {where} names the rewards: drop it, or say the same there"
            )
    if not entries:
        return theirs
    if "reward_keys" in given:
        raise ConfigError(
            f"algorithm.rvpo.reward_keys is {given['reward_keys']!r}, but the rewards are named by the entries of "
            "reward_kwargs.rewards, with their weights and ranges: drop it, and drop entries that are not wanted"
        )
    # The strictest, because the trainer does not see which rubric a judge belongs to.
    allowed = [e.options.get("max_missing", MAX_MISSING) for e in entries if e.function == "rubric"]
    return {
        "reward_keys": [str(entry.name) for entry in entries],
        "reward_weights": {str(entry.name): entry.weight for entry in entries},
        "max_missing": min(allowed, default=None),
        "own_ranges": [entry.range for entry in entries],
    }


def _check_without_us(config: DictConfig, estimator: str, given: Mapping[str, Any]) -> None:
    """Refuse what has no meaning, or none that is meant, under one of verl's own estimators."""
    if given:
        raise ConfigError(
            f"algorithm.rvpo is set, but algorithm.adv_estimator is {estimator!r}, verl's own: drop algorithm.rvpo, or "
            f"use one of {', '.join(ESTIMATORS)}"
        )
    if rewards_of_ours(config):
        raise ConfigError(
            f"algorithm.adv_estimator is {estimator!r}, verl's own, which trains on the score alone, and ours is NaN "
            "where nothing could be scored, which would spoil an update: use grpo-multi, GRPO on the sum of the rewards"
        )


def _check_trainer(config: DictConfig, estimator: str) -> None:
    """Refuse settings of verl under which the estimator would not do what it says."""
    if not config.trainer.use_v1:
        raise ConfigError(
            "trainer.use_v1 is False, but rvpo works in verl's v1 trainer, which is the default: drop trainer.use_v1"
        )
    if (mode := str(config.trainer.v1.trainer_mode)) not in MODES:
        raise ConfigError(
            f"trainer.v1.trainer_mode is {mode!r}, allowed are {' and '.join(MODES)}; separate_async has not been tried"
        )
    if config.algorithm.use_kl_in_reward:
        raise ConfigError(
            f"algorithm.use_kl_in_reward is True, but {estimator!r} ranks each reward by itself, and the KL penalty is "
            "none of them, so it would have no effect: use actor_rollout_ref.actor.use_kl_loss=True instead"
        )
    if not config.algorithm.get("norm_adv_by_std_in_grpo", True):
        raise ConfigError(
            f"algorithm.norm_adv_by_std_in_grpo is False, but {estimator!r} compares z-scores, which are divided by "
            "the standard deviation: drop algorithm.norm_adv_by_std_in_grpo=False"
        )
    reward_model = config.reward.reward_model
    if reward_model.enable and not reward_model.enable_resource_pool:
        raise ConfigError(
            "reward.reward_model.enable is True without a resource pool, where verl hands on a reward's parts in "
            "another way, which rvpo does not read: set reward.reward_model.enable_resource_pool=True"
        )
    manager = config.reward.reward_manager
    if manager.source == "register" and manager.name == "limited":
        raise ConfigError(
            "reward.reward_manager.name is 'limited', which makes a completion that could not be scored in time a 0: "
            "use 'naive' (the default); the judges of rvpo keep limits of their own"
        )
    overlong = plain((config.reward.get("reward_kwargs") or {}).get("overlong_buffer_cfg")) or {}
    logged = overlong.get("log") and "overlong_reward" in (plain(config.algorithm.get("rvpo")) or {}).get(
        "reward_keys", []
    )
    if manager.name == "dapo" and overlong.get("enable") and not logged:
        raise ConfigError(
            f"reward.reward_kwargs.overlong_buffer_cfg.enable is True, but its penalty goes into the score, which "
            f"{estimator!r} does not look at: set overlong_buffer_cfg.log=True and name overlong_reward in "
            "algorithm.rvpo.reward_keys"
        )
    steps = config.trainer.v1.get(str(config.trainer.v1.trainer_mode), {}).get("parameter_sync_step", 1)
    if steps != 1:
        raise ConfigError(f"parameter_sync_step is {steps}, allowed is 1: several updates a step are not supported")
    if int(config.actor_rollout_ref.rollout.n) < 2:
        raise ConfigError(
            f"actor_rollout_ref.rollout.n is {config.actor_rollout_ref.rollout.n}, but {estimator!r} compares the "
            "completions of one prompt: set it to 2 or more, such as 8"
        )
