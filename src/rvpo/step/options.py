"""``AggregationOptions``: the options, in any engine, for turning rewards into advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rvpo.core import AdvantageConfig, Method
from rvpo.core.channels import Range, check_ranges, owner_of
from rvpo.core.checks import require, require_number
from rvpo.core.config import MISSING_REWARDS
from rvpo.core.methods.registry import help_text
from rvpo.errors import ConfigError
from rvpo.step.aggregator import Aggregator
from rvpo.step.structure.spelling import build_structures
from rvpo.step.trust import Reliability
from rvpo.text.suggest import did_you_mean

MAPPINGS = ("method", "reward_ranges")
"""Options that can be mappings."""


def check_rubric_names(names: Sequence[str], rubrics: Sequence[str]) -> None:
    """Refuse a reward whose name could be a label of a rubric: both would be the same channel.

    Args:
        names: names of all reward functions.
        rubrics: names of those that are rubrics. Their labels have the channels ``{rubric}/{label}``.

    Raises:
        ConfigError: a reward has such a name.
    """
    for rubric in rubrics:
        if clash := [name for name in names if name.startswith(f"{rubric}/")]:
            raise ConfigError(
                f"a reward is called {clash[0]!r}, which is also the channel of a label of the rubric {rubric!r}; "
                f"expected a name that does not begin with '{rubric}/'. Rename one of them"
            )


@dataclass
class AggregationOptions:
    """The method and all other options between rewards and advantages. They have the same names in every engine.

    A method that compares how far channels are met (``lift``, ``lagrangian``, ``ctwa``, ``tchebycheff``,
    ``smooth_tchebycheff``) puts each reward on a scale. ``reward_ranges`` declares it, or an attribute ``reward_range``
    of the reward function. Otherwise the scale is [0, 1]. Once rewards lie outside of [0, 1], it is learned from them.
    """

    # It can also be an object. A command line passes a mapping as JSON text, because its parser cannot read mappings.
    method: dict[str, Any] | str | None = field(default="rvpo", metadata={"help": help_text()})
    reward_ranges: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Lowest and highest reward by channel, such as {'correctness': [-3, 3]}, for methods that compare "
            "channels on their scales. The range of a rubric is that of its scores; a label of it can have its own, "
            "such as {'rubric/tone': [1, 10]}. Without a range, the scale of a reward is [0, 1]. Once rewards lie "
            "outside of [0, 1], it is learned from them."
        },
    )
    structure: list[str] | None = field(
        default=None,
        metadata={
            "help": "Dependencies between rewards, applied in this order before the method: all_of(a,b) makes one "
            "channel of several, gate(safe) counts the others only where safe holds, only_where(style,correct) ranks "
            "style only among correct completions. See docs/structure.md."
        },
    )
    monitor: list[str] | None = field(
        default=None,
        metadata={"help": "Names of rewards that are scored, logged and diagnosed, but never decide an advantage."},
    )
    solved: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of rewards that a completion must meet to solve its question. Used only for the metrics "
            "rvpo/solved/... (shares solved by none, some and all completions, Pass@k). Default: all rewards that are "
            "trained on."
        },
    )
    missing_rewards: str = field(
        default="drop",
        metadata={"help": "Rewards of None or NaN: drop leaves the channel out for that completion, error stops."},
    )
    advantage_eps: float = field(default=1e-4, metadata={"help": "Added to every standard deviation, as in TRL."})
    advantage_ddof: int = field(
        default=1, metadata={"help": "1 for the sample standard deviation (as in TRL), 0 for the population's."}
    )

    wanted: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of channels, such as [correct]. Only groups that at least one of them ranks are trained on; "
            "completions of all other groups get advantage 0. A name may be a label of a rubric, rubric/tone. "
            "Default: all channels."
        },
    )

    def check_aggregation(self) -> None:
        """Check all values and combinations.

        Raises:
            ConfigError: a value or a combination cannot work.
        """
        if not isinstance(self.method, str | Mapping | Method) and not callable(self.method):
            raise ConfigError(f"method is {self.method!r}; expected a text, a mapping or an object")
        if not isinstance(self.reward_ranges or {}, Mapping):
            raise ConfigError(f"reward_ranges is {self.reward_ranges!r}; expected a mapping, or its JSON text")
        ranges: Mapping[str, Any] = self.reward_ranges or {}  # type: ignore[assignment]
        check_ranges(list(ranges.values()), len(ranges), list(ranges))
        # Check them under their names here: the core calls them eps, ddof and missing.
        require_number("advantage_eps", self.advantage_eps, math.inf)
        require("advantage_ddof", self.advantage_ddof, (0, 1))
        require("missing_rewards", self.missing_rewards, MISSING_REWARDS)
        # Convert them to texts: checkpoints and trackers store options as plain values.
        self.structure = [str(one) for one in build_structures(self.structure)] or None
        self.monitor = [self.monitor] if isinstance(self.monitor, str) else self.monitor
        self.solved = [self.solved] if isinstance(self.solved, str) else self.solved
        self.advantage_config()

    def advantage_config(self) -> AdvantageConfig:
        """Return a new config with the method and the numerical options. Engines build it once, with the aggregator."""
        return AdvantageConfig(
            method=self.method,  # type: ignore[arg-type]
            eps=self.advantage_eps,
            ddof=self.advantage_ddof,
            missing=self.missing_rewards,
            wanted=self._wanted(),
        )

    def _wanted(self) -> tuple[str, ...]:
        """Return the names. An empty list is refused, because then no group would be trained on."""
        if self.wanted is None:
            return ()
        if not isinstance(self.wanted, list | tuple) or not self.wanted:
            raise ConfigError(
                f"wanted is {self.wanted!r}; expected names of channels, such as [correct], or no such option"
            )
        return tuple(self.wanted)

    def aggregator(
        self,
        names: Sequence[str],
        own_ranges: Sequence[Range | None],
        weights: Mapping[str, Any] | Sequence[Any] | None,
        reliability: Reliability | None = None,
    ) -> Aggregator:
        """Return a new aggregator for a run.

        Args:
            names: names of the reward functions.
            own_ranges: ranges that the reward functions declare; ``reward_ranges`` takes precedence.
            weights: weights of the reward functions, in order or by name: numbers, or schedules over the training.
            reliability: how far each channel is trusted; None trusts all fully.

        Raises:
            ConfigError: an option names a reward that does not exist.
        """
        given: Mapping[str, Any] = self.reward_ranges or {}  # type: ignore[assignment]
        if unknown := [name for name in given if owner_of(name, names) is None]:
            raise ConfigError(
                f"reward_ranges names the channel {unknown[0]!r}{did_you_mean(unknown[0], names)}; expected one of "
                f"{', '.join(names)}"
            )
        return Aggregator(
            self.method,  # type: ignore[arg-type]
            names,
            ranges=dict(zip(names, own_ranges, strict=True)) | dict(given),
            weights=weights,
            eps=self.advantage_eps,
            ddof=self.advantage_ddof,
            missing=self.missing_rewards,
            wanted=self._wanted(),
            reliability=reliability,
            structure=self.structure,
            monitor=self.monitor,
            solved=self.solved,
        )
