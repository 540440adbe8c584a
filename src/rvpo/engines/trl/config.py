"""``RVPOConfig``: TRL's ``GRPOConfig`` plus the options of the aggregation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from rvpo.core import AdvantageConfig, Schedule
from rvpo.errors import ConfigError

# GRPOConfig options that choose TRL's own aggregation, which ours replaces, with the only value they may have here.
REPLACED = {"scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize"}


@dataclass
class RVPOConfig(GRPOConfig):  # type: ignore[misc]
    """Arguments of :class:`RVPOTrainer`: everything of ``trl.GRPOConfig``, and how rewards become advantages.

    ``reward_weights`` enters every method. ``beta`` stays TRL's KL coefficient; the variance penalty of
    ``"rvpo_explicit"`` is ``variance_beta``. See :class:`rvpo.AdvantageConfig` for the meaning of each option.

    Raises:
        ConfigError: for a value or combination that cannot work, and for the TRL options that this aggregation
            replaces (``scale_rewards``, ``multi_objective_aggregation``).
    """

    method: str = field(
        default="rvpo",
        metadata={"help": "Aggregation over channels: rvpo, rvpo_explicit, hard_min, gdpo or grpo."},
    )
    k: float | None = field(
        default=None,
        metadata={"help": "Risk coefficient of method rvpo (default 1.0); the start value when it is scheduled."},
    )
    k_schedule: str = field(
        default="constant",
        metadata={"help": "How k moves over training: constant, linear or cosine (the paper: linear, 0.5 to 2.0)."},
    )
    k_final: float | None = field(
        default=None, metadata={"help": "k at the end of training, for the linear and cosine schedules."}
    )
    variance_beta: float | None = field(
        default=None, metadata={"help": "Variance penalty of method rvpo_explicit (default 0.5)."}
    )
    whiten: str | None = field(
        default=None,
        metadata={"help": "Whitening of the aggregate: batch (default), group (default of grpo) or none."},
    )
    dead_channels: str | None = field(
        default=None,
        metadata={
            "help": "Channels that are constant in a group: drop leaves them out of the aggregation (default), keep "
            "lets their z of 0 take part (default of grpo and gdpo)."
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

    def __post_init__(self) -> None:
        """Check the options of both sides before anything is loaded."""
        super().__post_init__()
        for option, only in REPLACED.items():
            if getattr(self, option) != only:
                raise ConfigError(
                    f"{option} is {getattr(self, option)!r}, but RVPOTrainer replaces TRL's aggregation, so it would "
                    f"have no effect: drop it, and choose `method` ('gdpo' is TRL's normalize_then_sum, 'grpo' its "
                    "sum_then_normalize) and `whiten` instead"
                )
        if any(weight < 0 for weight in self.reward_weights or ()):
            raise ConfigError(
                f"reward_weights is {self.reward_weights}, allowed are numbers >= 0: negate the reward inside its "
                "reward function instead"
            )
        self.advantage_config(progress=0.0)

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
        )

    def _k(self, progress: float) -> float | None:
        if self.method != "rvpo":
            scheduled: dict[str, Any] = {"k_final": self.k_final}
            if self.k_schedule != "constant":
                scheduled["k_schedule"] = self.k_schedule
            for option, value in scheduled.items():
                if value is not None:
                    raise ConfigError(
                        f"{option} is {value!r}, but method {self.method!r} has no k: drop it, or use method 'rvpo'"
                    )
            return self.k  # refused by AdvantageConfig unless None
        start = 1.0 if self.k is None else self.k
        return Schedule(self.k_schedule, start, self.k_final)(progress)
