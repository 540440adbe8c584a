"""``AggregationOptions``: what a user of any engine says about the way from rewards to advantages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rvpo.core import AdaptiveK, AdvantageConfig, Schedule
from rvpo.core.channels import check_ranges
from rvpo.core.checks import build, require_number
from rvpo.errors import ConfigError

MAPPINGS = ("method_options", "reward_ranges", "reliability", "k_adaptive")
"""Options that are mappings."""

# The core's names for options that are called otherwise here, as its messages begin.
RENAMED = {
    "beta": "variance_beta",
    "eps": "advantage_eps",
    "ddof": "advantage_ddof",
    "missing": "missing_rewards",
    "schedule kind": "k_schedule",
    "schedule start": "k",
    "schedule end": "k_final",
    "a constant schedule has no end, but end": "k_final needs k_schedule linear or cosine, and k_final",
    "a linear schedule needs an end value of k": "k_schedule is 'linear', but k_final",
    "a cosine schedule needs an end value of k": "k_schedule is 'cosine', but k_final",
}


@dataclass
class AggregationOptions:
    """The method, its risk coefficient over training, and everything else between rewards and advantages.

    The options have the same names in every engine. They differ from those of :class:`rvpo.AdvantageConfig`, which
    tells their meaning, where an engine has an option of that name already: TRL's ``beta`` is its KL coefficient.

    A method that compares how far channels are met (``lift``, ``lagrangian``, ``ctwa``, ``tchebycheff``,
    ``smooth_tchebycheff``) needs the scale of each channel whose reward is not in [0, 1]: ``reward_ranges``, or an
    attribute ``reward_range`` of the reward function.
    """

    method: str = field(
        default="rvpo",
        metadata={
            "help": "How rewards become advantages: rvpo, rvpo_explicit, hard_min, gdpo, grpo, lift, tchebycheff, "
            "smooth_tchebycheff, lagrangian, ctwa or riskpo; their own options go into method_options."
        },
    )
    method_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Further options of the method as a mapping, such as {'kappa': 6.0} for lift."},
    )
    reward_ranges: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Lowest and highest value of channels by name, such as {'correctness': [-3, 3]}, for methods that "
            "compare channels on their scales; [0, 1] where not given."
        },
    )
    reliability: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Share in [0, 1] of a channel's variance that is no noise, by name, such as {'helpful': 0.6}: a "
            "noisy channel then decides less. 1 where not given."
        },
    )
    k: float | None = field(
        default=None,
        metadata={"help": "Risk coefficient of method rvpo (default 1.0); the start value when it is scheduled."},
    )
    k_schedule: str = field(
        default="constant",
        metadata={
            "help": "How k moves over training: constant, linear, cosine (the paper: linear, 0.5 to 2.0) or adaptive."
        },
    )
    k_adaptive: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Options of rvpo.AdaptiveK for k_schedule adaptive, such as {'target': 0.55}."},
    )
    k_final: float | None = field(
        default=None, metadata={"help": "k at the end of training, for the linear and cosine schedules."}
    )
    variance_beta: float | None = field(
        default=None, metadata={"help": "Variance penalty of method rvpo_explicit (default 0.5)."}
    )
    whiten: str | None = field(
        default=None,
        metadata={
            "help": "Whitening of the aggregate: batch, group or none. None picks the method's own: group for grpo and "
            "the two tchebycheffs, none for riskpo, else batch."
        },
    )
    dead_channels: str | None = field(
        default=None,
        metadata={
            "help": "Channels that are constant in a group: drop leaves them out of the aggregation, keep lets their z "
            "of 0 take part. None picks the method's own: drop for rvpo, rvpo_explicit and hard_min, else keep."
        },
    )
    missing_rewards: str = field(
        default="drop",
        metadata={"help": "Rewards of None or NaN: drop leaves that channel out for that completion, error stops."},
    )
    advantage_eps: float = field(default=1e-4, metadata={"help": "Added to every standard deviation, as in TRL."})
    advantage_ddof: int = field(
        default=1, metadata={"help": "1 for the sample standard deviation (as in TRL), 0 for the population's."}
    )

    def check_aggregation(self) -> None:
        """Refuse values and combinations that cannot work.

        Raises:
            ConfigError: one of them does not.
        """
        for option in MAPPINGS:
            if not isinstance(getattr(self, option) or {}, dict):
                raise ConfigError(f"{option} is {getattr(self, option)!r}, allowed is a mapping, or its JSON text")
        ranges = self.reward_ranges or {}
        check_ranges(list(ranges.values()), len(ranges))  # type: ignore[union-attr]
        for name, share in (self.reliability or {}).items():  # type: ignore[union-attr]
            require_number(f"reliability of {name!r}", share, 1, closed=True)
        try:
            self.refuse_unused("reliability", self.advantage_config(progress=0.0))
        except ConfigError as error:
            raise ConfigError(_in_our_words(str(error))) from error

    def refuse_unused(self, option: str, config: AdvantageConfig) -> None:
        """Raise ConfigError where an option is set that shrinks z-scores, and the method has none."""
        if getattr(self, option) and not config.rule.uses_z:
            raise ConfigError(
                f"{option} is set, but method {self.method!r} aggregates rewards, not z-scores: drop it, or use a "
                "method such as 'gdpo', 'rvpo' or 'lift'"
            )

    def advantage_config(self, progress: float) -> AdvantageConfig:
        """Return the aggregation at ``progress``, the share of training that is done."""
        return AdvantageConfig(
            method=self.method,
            k=self._k(progress),
            beta=self.variance_beta,
            eps=self.advantage_eps,
            ddof=self.advantage_ddof,
            whiten=self.whiten,
            dead_channels=self.dead_channels,
            missing=self.missing_rewards,
            options=self.method_options or {},  # type: ignore[arg-type]
        )

    def _k(self, progress: float) -> float | AdaptiveK | None:
        if self.method != "rvpo":
            scheduled: dict[str, Any] = {"k_final": self.k_final, "k_adaptive": self.k_adaptive}
            if self.k_schedule != "constant":
                scheduled["k_schedule"] = self.k_schedule
            for option, value in scheduled.items():
                if value is not None:
                    raise ConfigError(
                        f"{option} is {value!r}, but method {self.method!r} has no k: drop it, or use method 'rvpo'"
                    )
            return self.k  # refused by AdvantageConfig unless None
        if self.k_schedule == "adaptive":
            for option in ("k", "k_final"):
                if getattr(self, option) is not None:
                    raise ConfigError(
                        f"{option} is {getattr(self, option)!r}, but k_schedule is 'adaptive', by which k sets itself: "
                        "drop it, or set k_adaptive={'target': …}"
                    )
            return build(AdaptiveK, self.k_adaptive or {}, "k_adaptive")
        if self.k_adaptive is not None:
            raise ConfigError(
                f"k_adaptive is {self.k_adaptive!r}, but k_schedule is {self.k_schedule!r}: set k_schedule='adaptive'"
            )
        start = 1.0 if self.k is None else self.k
        return Schedule(self.k_schedule, start, self.k_final)(progress)


def _in_our_words(message: str) -> str:
    """Put this config's option names into a message of the core."""
    for theirs, ours in RENAMED.items():
        if message.startswith((f"{theirs} is ", f"{theirs}: ")):
            return ours + (" is None" if message[len(theirs)] == ":" else "") + message[len(theirs) :]
    return message
