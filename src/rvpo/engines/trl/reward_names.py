"""Names of reward functions, which are the names of channels: given by the user, or the names of the functions."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.errors import ConfigError
from rvpo.rewards.judged import JudgedReward
from rvpo.step.options import check_rubric_names

NAME_THEM = "pass reward_funcs as a dict by name, or reward_names=[…]"


def named_rewards(reward_funcs: Any, reward_names: Sequence[str] | None) -> tuple[Any, list[str]]:
    """Return reward functions in a form that TRL accepts, and the name of each.

    Args:
        reward_funcs: one or a list of functions, models and folders of models, or a mapping of names to these.
        reward_names: names in order; None uses the keys of the mapping, or the functions' own names.

    Raises:
        ConfigError: the names are not unique texts, one per function.
    """
    if isinstance(reward_funcs, Mapping):
        if reward_names is not None:
            raise ConfigError(
                f"reward_names is {reward_names!r}, but reward_funcs names its functions; drop one of them"
            )
        reward_names, reward_funcs = list(reward_funcs), list(reward_funcs.values())
    if reward_funcs is None:
        return None, []
    functions = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
    names = [_own_name(function) for function in functions] if reward_names is None else list(reward_names)
    if len(names) != len(functions):
        raise ConfigError(
            f"reward_names has {len(names)} names for {len(functions)} reward functions; expected one each"
        )
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"the name of a reward is {name!r}; expected a text such as 'correct': {NAME_THEM}")
        if names.count(name) > 1:
            raise ConfigError(
                f"{names.count(name)} reward functions are named {name!r}, so their metrics and columns would "
                f"overwrite each other; expected a different name for each: {NAME_THEM}"
            )
    check_rubric_names(names, [name for name, f in zip(names, functions, strict=True) if isinstance(f, JudgedReward)])
    return functions, names


def _own_name(function: Any) -> str:
    """Return the name that TRL gives a reward: for a model, its folder's name; for a partial, its function's name."""
    if isinstance(function, str):
        return function.rstrip("/").split("/")[-1]
    config = getattr(function, "config", None)
    if config is not None and getattr(config, "_name_or_path", None):
        return str(config._name_or_path).rstrip("/").split("/")[-1]
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))
