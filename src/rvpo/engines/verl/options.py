"""``algorithm.adv_estimator`` and ``algorithm.rvpo`` of a verl config, read and checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rvpo.core import AdvantageConfig
from rvpo.core.checks import require, require_number, unknown_option
from rvpo.core.config import METHODS
from rvpo.core.run_channels import Range
from rvpo.engines.options import AggregationOptions
from rvpo.engines.verl.rewards import read_rewards
from rvpo.errors import ConfigError
from rvpo.recipe import RewardSection

GRPO_NAMES = ("grpo-multi", "grpo_multi")
"""``algorithm.adv_estimator`` for GRPO on the weighted sum of the channels; plain ``grpo`` stays verl's own."""

ESTIMATORS: Mapping[str, str] = {
    **{method: method for method in METHODS if method != "grpo"},
    **dict.fromkeys(GRPO_NAMES, "grpo"),
}
"""``algorithm.adv_estimator`` -> method."""

MODES = ("sync", "colocate_async")
"""Values of ``trainer.v1.trainer_mode`` that are supported."""

BY_TOKEN = "token"  # noqa: S105 (a value of `whiten`)

REWARDS_PATH = "pkg://rvpo.engines.verl.rewards"
"""``path`` of our own reward function. Where it is used, the channels are named in its ``rewards``, and not twice."""


@dataclass
class VerlOptions(AggregationOptions):
    """What stands under ``algorithm.rvpo``: the options of every engine, and those that verl has no place for.

    Attributes:
        own_ranges: what the reward functions say of their lowest and highest reward, where they are ours.
    """

    reward_keys: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Names of the rewards among the keys that the reward function returns, or in its JSON text `rvpo`. "
            "Default: algorithm.gdpo_reward_keys, or the rewards of rvpo's own reward function."
        },
    )
    reward_weights: dict[str, float] | list[float] | None = field(
        default=None, metadata={"help": "Importance by name, or in the order of reward_keys; default: all the same."}
    )
    max_missing: float = field(
        default=0.25,
        metadata={"help": "Share of one judge's verdicts on a batch that may be missing before the run stops."},
    )
    own_ranges: Sequence[Range | None] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse values and combinations that cannot work.

        Raises:
            ConfigError: one of them does not.
        """
        if not isinstance(self.reward_keys, list) or not all(isinstance(key, str) for key in self.reward_keys):
            raise ConfigError(f"reward_keys is {self.reward_keys!r}, allowed is a list of names")
        if twice := [key for i, key in enumerate(self.reward_keys) if key in self.reward_keys[:i]]:
            raise ConfigError(f"reward_keys names {twice[0]!r} twice: {self.reward_keys}")
        require_number("max_missing", self.max_missing, 1, closed=True)
        if self.whiten == BY_TOKEN and (own := replace(self, whiten=None).advantage_config(0.0).whiten) != "batch":
            raise ConfigError(
                f"whiten is 'token', verl's whitening of the batch weighted by tokens, but method {self.method!r} "
                f"whitens by {own!r}: drop it"
            )
        self.check_aggregation()

    def advantage_config(self, progress: float) -> AdvantageConfig:
        """Return the aggregation at ``progress``; whitening by token comes after it, where tokens are known."""
        if self.whiten == BY_TOKEN:
            return replace(self, whiten="none").advantage_config(progress)
        return super().advantage_config(progress)

    @classmethod
    def help(cls) -> list[tuple[str, str]]:
        """Return the options that a user can set, each with its help text."""
        return [(f.name, f.metadata["help"]) for f in fields(cls) if f.name not in ("method", "own_ranges")]

    def weights(self) -> list[float]:
        """Return one weight a name of ``reward_keys``.

        Raises:
            ConfigError: a name is unknown or missing, or a weight is no finite number >= 0.
        """
        given = self.reward_weights
        if given is None:
            return [1.0] * len(self.reward_keys)
        if isinstance(given, list):
            if len(given) != len(self.reward_keys):
                raise ConfigError(
                    f"reward_weights has {len(given)} numbers for the {len(self.reward_keys)} rewards "
                    f"{', '.join(self.reward_keys)}: give one each, or a mapping by name"
                )
            given = dict(zip(self.reward_keys, given, strict=True))
        if not isinstance(given, dict):
            raise ConfigError(f"reward_weights is {given!r}, allowed is a list, or a mapping of names to numbers")
        if unknown := [name for name in given if name not in self.reward_keys]:
            raise unknown_option("reward_weights", unknown[0], self.reward_keys)
        for name, weight in given.items():
            require_number(f"reward_weights of {name!r}", weight, float("inf"))
        weights = [float(given.get(name, 1.0)) for name in self.reward_keys]
        if not any(weights):
            raise ConfigError(f"reward_weights are all 0 ({given!r}), allowed is at least one above 0")
        return weights


def read_options(config: DictConfig) -> VerlOptions | None:
    """Read a whole verl config.

    Returns:
        The options, or None where ``algorithm.adv_estimator`` is one of verl's own, which is then left to verl.

    Raises:
        ConfigError: an option that cannot work, or one of verl's that contradicts the estimator.
    """
    algorithm = config.algorithm
    estimator = str(algorithm.adv_estimator)
    given = OmegaConf.to_container(algorithm.get("rvpo") or OmegaConf.create(), resolve=True)
    assert isinstance(given, dict)
    if estimator not in ESTIMATORS:
        if given:
            raise ConfigError(
                f"algorithm.rvpo is set, but algorithm.adv_estimator is {estimator!r}, verl's own: drop "
                f"algorithm.rvpo, or use one of {', '.join(ESTIMATORS)}"
            )
        return None
    _check_trainer(config, estimator)
    allowed = [name for name, _ in VerlOptions.help()]
    if "method" in given:
        raise ConfigError(
            f"algorithm.rvpo.method is {given['method']!r}, but algorithm.adv_estimator chooses the method: set that "
            f"to one of {', '.join(ESTIMATORS)}"
        )
    if unknown := [str(key) for key in given if key not in allowed]:
        raise unknown_option("algorithm.rvpo", unknown[0], allowed)
    named, own_ranges = _named_rewards(config) if "reward_keys" not in given else ({}, None)
    if not named and "reward_keys" not in given:
        named = {
            "reward_keys": _plain(algorithm.get("gdpo_reward_keys")),
            "reward_weights": _plain(algorithm.get("gdpo_reward_weights")),
        }
    merged = {key: value for key, value in named.items() if value is not None} | given
    options = VerlOptions(method=ESTIMATORS[estimator], **merged)
    if not options.reward_keys:
        raise ConfigError(
            f"algorithm.adv_estimator is {estimator!r}, but no reward is named: list the keys that the reward function "
            "returns beside `score`, such as +algorithm.rvpo.reward_keys=[correctness,format]"
        )
    options.own_ranges = own_ranges
    options.weights()
    return options


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def rewards_of_ours(config: DictConfig) -> list[RewardSection]:
    """Return the rewards where rvpo's own reward function gives them, else none; see :func:`read_rewards`."""
    function = config.reward.custom_reward_function
    if str(function.get("path")) != REWARDS_PATH:
        return []
    return read_rewards(_plain(function.get("reward_kwargs")) or {})


def _named_rewards(config: DictConfig) -> tuple[dict[str, Any], list[Range | None] | None]:
    """Return names, weights and reliabilities of the rewards, and their ranges, where they are our own function's."""
    entries = rewards_of_ours(config)
    if not entries:
        return {}, None
    # The strictest, because verl's trainer does not know which of them a judge belongs to.
    allowed = [entry.options["max_missing"] for entry in entries if "max_missing" in entry.options]
    trusted = {str(entry.name): entry.reliability for entry in entries if entry.reliability is not None}
    return {
        "reward_keys": [str(entry.name) for entry in entries],
        "reward_weights": {str(entry.name): entry.weight for entry in entries},
        "reliability": trusted or None,
        "max_missing": min(allowed, default=None),
    }, [entry.range for entry in entries]


def _check_trainer(config: DictConfig, estimator: str) -> None:
    """Refuse settings of verl under which the estimator would not do what it says."""
    if not config.trainer.use_v1:
        raise ConfigError(
            "trainer.use_v1 is False, but rvpo works in verl's v1 trainer, which is the default: drop trainer.use_v1"
        )
    require("trainer.v1.trainer_mode", str(config.trainer.v1.trainer_mode), MODES)
    if config.algorithm.use_kl_in_reward:
        raise ConfigError(
            f"algorithm.use_kl_in_reward is True, but {estimator!r} ranks each reward by itself, and the KL penalty is "
            "none of them, so it would have no effect: use actor_rollout_ref.actor.use_kl_loss=True instead"
        )
    if not config.algorithm.get("norm_adv_by_std_in_grpo", True):
        raise ConfigError(
            f"algorithm.norm_adv_by_std_in_grpo is False, but {estimator!r} compares z-scores, which are divided by "
            "the standard deviation: drop it"
        )
    reward_model = config.reward.reward_model
    if reward_model.enable and not reward_model.enable_resource_pool:
        raise ConfigError(
            "reward.reward_model.enable is True without a resource pool, where verl hands on a reward's parts in "
            "another way, which rvpo does not read: set reward.reward_model.enable_resource_pool=True"
        )
    if int(config.actor_rollout_ref.rollout.n) < 2:
        raise ConfigError(
            f"actor_rollout_ref.rollout.n is {config.actor_rollout_ref.rollout.n}, but {estimator!r} compares the "
            "completions of one prompt: set it to 2 or more, such as 8"
        )
