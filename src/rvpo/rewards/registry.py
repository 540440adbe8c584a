"""Load a reward function from a recipe's entry: a built-in name, ``module:function`` or ``file.py:function``.

A class is built with the entry's options, and its instance is the function. A factory is called with the options, and
its result is the function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rvpo.errors import ConfigError
from rvpo.importing import is_object_spec, load_callable
from rvpo.text.suggest import did_you_mean

RewardFunction = Callable[..., Any]

BUILTIN: Mapping[str, str] = {
    "format": "rvpo.rewards.toolcall:format_reward",
    "correctness": "rvpo.rewards.toolcall:correctness_reward",
    "length": "rvpo.rewards.toolcall:length_reward",
    "math": "rvpo.rewards.math:math_reward",
    "rubric": "rvpo.judges.build_rewards:rubric_reward",
    "pairwise": "rvpo.judges.build_rewards:pairwise_reward",
    "code": "rvpo.rewards.code:CodeReward",
    "turns": "rvpo.rewards.turns:TurnReward",
}

JUDGED = ("rubric", "pairwise", "code")
"""Built-in names of rewards with verdicts, of which a share may be missing (``max_missing``)."""

FACTORIES = (*JUDGED, "turns")
"""Built-in names of factories: they are called once with the options, and return the reward function."""


def gives_channels(function: str, options: Mapping[str, Any]) -> bool:
    """Return whether a reward gives one channel per criterion or test of a prompt, instead of one number."""
    return function in ("rubric", "code") and options.get("aggregation") in (None, "channels")


# Arguments that an engine passes to every reward function. All others are columns of the data.
PASSED = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")


def load_reward(spec: str, options: Mapping[str, Any] | None = None, name: str | None = None) -> RewardFunction:
    """Load a reward function and bind its options.

    Args:
        spec: name in :data:`BUILTIN`, ``package.module:function``, or ``path/to/file.py:function``. The code that it
            names is imported, so name only code that you would run. A class is built with the options first.
        options: keyword arguments bound to the function, for example a threshold.
        name: name of the channel; None keeps the function's own name.

    Raises:
        ConfigError: the spec does not name a callable, the function does not take one of the options, or it has no
            ``**_`` for the arguments that it does not use.
    """
    function = find_reward(spec)
    options = dict(options or {})
    parameters = inspect.signature(function).parameters if options else {}
    if unknown := [key for key in options if key not in parameters]:
        raise ConfigError(f"reward {spec!r} has no option {unknown[0]!r}; it takes {', '.join(parameters)}")
    made = spec in FACTORIES or isinstance(function, type)
    if made:
        try:
            function = function(**options)
        except TypeError as error:
            raise ConfigError(f"reward {spec!r} cannot be built with these options: {error}") from error
    if not _takes_any_keyword(function):
        raise ConfigError(
            f"reward {spec!r} takes no further keyword arguments, but is called with {', '.join(PASSED[:3])}, … and "
            "every column of the data. Add **_ to its parameters"
        )
    if made:
        function.__name__ = name or str(getattr(function, "__name__", type(function).__name__))
        return function
    if options:
        # TRL names the channel after the function, so the wrapper keeps the function's name.
        function = functools.update_wrapper(functools.partial(function, **options), function)
    return function if name is None else _named(function, name)


def find_reward(spec: str) -> RewardFunction:
    """Import the function, class or factory that a spec names, without building it.

    Raises:
        ConfigError: the spec does not name a callable.
    """
    where = BUILTIN.get(spec, spec)
    if not is_object_spec(where):
        raise ConfigError(
            f"reward is {spec!r}{did_you_mean(spec, BUILTIN)}; expected a built-in name ({', '.join(BUILTIN)}), "
            "'module:function' or 'file.py:function'. Choose one of the names, or name your own function."
        )
    return load_callable(where, "reward")


def needed_arguments(function: RewardFunction) -> list[str]:
    """Return the parameters without a default that TRL does not pass by itself: options, or columns of the data.

    If the object has an attribute ``needed_columns``, that attribute is the result.
    """
    if hasattr(function, "needed_columns"):
        return list(function.needed_columns)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # not written in Python
        return []
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in PASSED
    ]


def _takes_any_keyword(function: RewardFunction) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # not written in Python
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _named(function: RewardFunction, name: str) -> RewardFunction:
    """Give a function another name. TRL looks through a partial, and awaits only functions that are declared async."""

    def named(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    async def named_async(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    is_async = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
    wrapper = functools.update_wrapper(named_async if is_async else named, function)
    wrapper.__name__ = name
    return wrapper
