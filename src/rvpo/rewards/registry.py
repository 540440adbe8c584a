"""From a recipe's reward entry to a callable: a built-in name, ``module:function`` or ``file.py:function``."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError

RewardFunction = Callable[..., Any]

BUILTIN: Mapping[str, str] = {
    "format": "rvpo.rewards.toolcall:format_reward",
    "correctness": "rvpo.rewards.toolcall:correctness_reward",
    "length": "rvpo.rewards.toolcall:length_reward",
}


def load_reward(spec: str, options: Mapping[str, Any] | None = None) -> RewardFunction:
    """Load a reward function and bind its options.

    Args:
        spec: a name in :data:`BUILTIN`, ``package.module:function``, or ``path/to/file.py:function``. The code that it
            names is imported, so name only code that you would run.
        options: keyword arguments bound to the function, for example a threshold.

    Raises:
        ConfigError: when nothing callable is found there, or it does not take one of the options.
    """
    where, _, name = BUILTIN.get(spec, spec).rpartition(":")
    if not where:
        raise ConfigError(
            f"reward {spec!r} is neither a built-in name ({', '.join(BUILTIN)}) nor 'module:function' nor "
            "'file.py:function'"
        )
    function = getattr(_module(where, spec), name, None)
    if not callable(function):
        raise ConfigError(f"reward {spec!r}: {where} has no callable {name!r}")
    if not options:
        return function  # type: ignore[no-any-return]
    parameters = inspect.signature(function).parameters
    unknown = [key for key in options if key not in parameters]
    if unknown:
        raise ConfigError(f"reward {spec!r} has no option {unknown[0]!r}; it takes {', '.join(parameters)}")
    # TRL names the channel after the function, so the wrapper keeps its name.
    return functools.update_wrapper(functools.partial(function, **options), function)


def _module(where: str, spec: str) -> Any:
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        path = Path(where).expanduser()
        module_spec = importlib.util.spec_from_file_location(path.stem, path)
        if module_spec is None or module_spec.loader is None:
            raise ConfigError(f"reward {spec!r}: {where} is not a Python file")
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
    except (ImportError, FileNotFoundError) as error:
        raise ConfigError(f"reward {spec!r}: cannot import {where} ({error}); check the name and its folder") from error
    return module
