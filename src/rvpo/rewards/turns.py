"""``TurnReward``: the rewards of single turns of a rollout as one reward per completion.

An environment or a tool may reward each turn. A method compares whole completions of a prompt, so somebody has to say
what a list of rewards means: their sum, the last one, or a channel for each turn. Nothing is chosen by itself. See
docs/environments.md.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rvpo.errors import ConfigError, DataError, RewardError

_RULES: Mapping[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
    "last": lambda values: values[-1],
}

SOURCE = "turn_rewards"
"""Where the rewards of the turns are, if nothing else is said."""


class TurnReward:
    """A reward function: one number per completion, made of one number per turn.

    Example:
        >>> reward = TurnReward("sum")
        >>> reward(completions=["x", "y"], turn_rewards=[[0.5, 1.0], [0.5, None]])
        [1.5, None]
    """

    def __init__(
        self, combine: str | int, source: str = SOURCE, name: str | None = None, optional: bool = False
    ) -> None:
        """Choose what the list of a rollout comes to.

        Args:
            combine: ``sum``, ``mean``, ``min``, ``max``, ``last``, or the number of a turn, from 1. A turn that could
                not be scored (None, NaN) makes the result missing if it takes part. A rollout without that turn, or
                without any, is missing as well; only the sum of no turns is 0.
            source: name of the list: a column, or what the engine puts among the columns (verl's ``tool_rewards``);
                else an attribute of each rollout's environment (TRL).
            name: of the channel; None is ``turn_{combine}``.
            optional: whether environments may lack the attribute; their rollouts are then missing.

        Raises:
            ConfigError: ``combine`` is something else.
        """
        a_turn = isinstance(combine, int) and not isinstance(combine, bool) and combine >= 1
        if not a_turn and combine not in _RULES:
            raise ConfigError(
                f"combine is {combine!r}; expected {', '.join(_RULES)}, or the number of a turn from 1: say what the "
                "rewards of several turns come to"
            )
        self.combine, self.source, self.optional = combine, source, optional
        self.__name__ = name or f"turn_{combine}"

    def __call__(
        self, completions: Sequence[Any], environments: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        """Return one reward per completion, None where it is missing.

        Raises:
            DataError: nothing has the rewards of the turns.
            RewardError: they are not a list of numbers.
        """
        if self.source in columns:
            return [self._combined(rewards, i) for i, rewards in enumerate(columns[self.source])]
        if environments is None:
            raise DataError(
                f"reward {self.__name__!r} looks for {self.source!r}, and neither a column nor an environment has it; "
                f"the columns are {sorted(columns)}. Correct `source`: an attribute of the environment (TRL), "
                "tool_rewards (verl's tools), or a key of extra_fields (an agent loop of your own)"
            )
        return [self._of_environment(environment, i) for i, environment in enumerate(environments)]

    def _of_environment(self, environment: Any, row: int) -> float | None:
        if not hasattr(environment, self.source):
            if self.optional:
                return None
            raise DataError(
                f"reward {self.__name__!r} looks for {self.source!r}, which the environment "
                f"{type(environment).__name__} does not have. Let reset() set it to [] and each turn append a number; "
                "set optional=True if only some environments have it"
            )
        return self._combined(getattr(environment, self.source), row)

    def _combined(self, rewards: Any, row: int) -> float | None:
        if rewards is None:
            return None
        if isinstance(rewards, str | bytes | Mapping) or not isinstance(rewards, Sequence):
            raise self._refused(reprlib.repr(rewards), row, "a list with a number per turn")
        values = [self._number(value, row) for value in rewards]
        if isinstance(self.combine, int):
            return values[self.combine - 1] if self.combine <= len(values) else None
        if not values:
            return 0.0 if self.combine == "sum" else None
        if self.combine == "last":
            return values[-1]
        known = [value for value in values if value is not None]
        return _RULES[self.combine](known) if len(known) == len(values) else None

    def _number(self, value: Any, row: int) -> float | None:
        if value is None:
            return None
        try:
            if not isinstance(value, str | bytes):
                number = float(value)
                return None if math.isnan(number) else number
        except (TypeError, ValueError, OverflowError):
            pass
        raise self._refused(f"a turn with {reprlib.repr(value)}", row, "a number per turn, or None if it has none")

    def _refused(self, seen: str, row: int, expected: str) -> RewardError:
        return RewardError(f"{self.source!r} of completion {row} is {seen}; expected {expected}")


def per_turn(turns: int, source: str = SOURCE, prefix: str = "turn", optional: bool = False) -> dict[str, TurnReward]:
    """Return a channel for each of the first turns, for ``reward_funcs``: ``turn_1``, ``turn_2``, …

    A rollout that ended before a turn is missing there: it is compared on the turns that it had.

    Args:
        turns: how many; later turns decide nothing.
        source: see :class:`TurnReward`.
        prefix: of the names.
        optional: see :class:`TurnReward`.

    Raises:
        ConfigError: ``turns`` is below 1.

    Example:
        >>> list(per_turn(2))
        ['turn_1', 'turn_2']
    """
    if isinstance(turns, bool) or not isinstance(turns, int) or turns < 1:
        raise ConfigError(f"turns is {turns!r}; expected a whole number of at least 1")
    names = {turn: f"{prefix}_{turn}" for turn in range(1, turns + 1)}
    return {name: TurnReward(turn, source, name, optional) for turn, name in names.items()}
