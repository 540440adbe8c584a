"""``VerlOptions``: the options of verl's users that set how rewards become advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rvpo.core.channels import Range
from rvpo.core.checks import require_number, unknown_option
from rvpo.core.weights import Weight, check_weights, read_weight
from rvpo.errors import ConfigError
from rvpo.rewards.judged import MAX_MISSING
from rvpo.step.aggregator import Aggregator
from rvpo.step.options import AggregationOptions
from rvpo.step.trust import Reliability


@dataclass
class VerlOptions(AggregationOptions):
    """The options under ``algorithm.rvpo``: those of every engine, and those that verl's config does not have.

    Attributes:
        own_ranges: lowest and highest reward that our reward functions declare. Not an option for users.
        own_weights: weights from the entries of our reward functions, or from verl's GDPO options. ``reward_weights``
            overrides them, name by name. Not an option for users.
    """

    reward_keys: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Names of the rewards among the keys that the reward function returns, or in its JSON text `rvpo`. "
            "Default: algorithm.gdpo_reward_keys, or the rewards of rvpo's own reward function."
        },
    )
    reward_weights: dict[str, Any] | list[Any] | None = field(
        default=None,
        metadata={
            "help": "Importance by name, or in the order of reward_keys. Each is a number, or a schedule over the "
            "training such as linear(0.2,1) or alternate(1,0). Default: all the same."
        },
    )
    max_missing: float = field(
        default=MAX_MISSING,
        metadata={"help": "Share of one judge's verdicts on a batch that may be missing before the run stops."},
    )
    reliability: dict[str, float] | None = field(
        default=None,
        metadata={"help": "How much a reward is trusted, by name, in [0, 1], such as {helpful: 0.6}. Default: 1."},
    )
    judge_twice: float = field(
        default=0.0,
        metadata={
            "help": "Share of the completions that rvpo's own reward function scores a second time, such as 0.1. The "
            "trust in each reward is estimated from these. The judge must sample: a greedy judge repeats its verdict."
        },
    )
    own_ranges: Sequence[Range | None] | None = None
    own_weights: Sequence[float | str] | None = None

    def __post_init__(self) -> None:
        """Refuse values and combinations that cannot work.

        Raises:
            ConfigError: there is such a value or combination.
        """
        if not isinstance(self.reward_keys, list) or not all(isinstance(key, str) for key in self.reward_keys):
            raise ConfigError(f"reward_keys is {self.reward_keys!r}; expected a list of names, such as [correct,safe]")
        if twice := [key for i, key in enumerate(self.reward_keys) if key in self.reward_keys[:i]]:
            raise ConfigError(f"reward_keys names {twice[0]!r} twice: {self.reward_keys}; expected each name once")
        require_number("max_missing", self.max_missing, 1, closed=True)
        require_number("judge_twice", self.judge_twice, 1, closed=True)
        if not isinstance(self.reliability or {}, dict):
            raise ConfigError(
                f"reliability is {self.reliability!r}; expected a mapping by name, such as {{helpful: 0.6}}"
            )
        self.check_aggregation()

    @classmethod
    def help(cls) -> list[tuple[str, str]]:
        """Return the options that a user can set, each with its help text. The method is not one of them."""
        return [(f.name, f.metadata["help"]) for f in fields(cls) if "help" in f.metadata and f.name != "method"]

    def build(self) -> Aggregator:
        """Return the aggregator of a new run.

        Raises:
            ConfigError: an option names a reward that does not exist.
        """
        names = self.reward_keys
        trusted = (
            Reliability(self.reliability, twice=self.judge_twice) if self.reliability or self.judge_twice else None
        )
        return self.aggregator(names, self.own_ranges or [None] * len(names), self.weights(), trusted)

    def weights(self) -> list[Weight]:
        """Return one weight per name of ``reward_keys``.

        Raises:
            ConfigError: a name is unknown or missing, or a weight is neither a finite number >= 0 nor a schedule.
        """
        given = self._by_name(self.own_weights) | self._by_name(self.reward_weights)
        weights = [read_weight(given.get(name, 1.0), name) for name in self.reward_keys]
        if weights:
            check_weights(weights, self.reward_keys, "reward_weights")
        return weights

    def _by_name(self, given: object) -> dict[str, Any]:
        if given is None:
            return {}
        if isinstance(given, list):
            if len(given) != len(self.reward_keys):
                raise ConfigError(
                    f"reward_weights has {len(given)} numbers for the {len(self.reward_keys)} rewards "
                    f"{', '.join(self.reward_keys)}; expected one per reward, or a mapping by name"
                )
            given = dict(zip(self.reward_keys, given, strict=True))
        if not isinstance(given, dict):
            raise ConfigError(f"reward_weights is {given!r}; expected a list, or a mapping of names to numbers")
        if unknown := [name for name in given if name not in self.reward_keys]:
            raise unknown_option("reward_weights", unknown[0], self.reward_keys)
        for name, weight in given.items():
            try:
                read_weight(weight, name)
            except ConfigError as error:  # put the name of the option into the message
                raise ConfigError(str(error).replace("weight of", "reward_weights of", 1)) from None
        return given
