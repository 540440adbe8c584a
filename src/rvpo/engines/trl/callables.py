"""Find the kind of a reward function, and convert it to a form that every version of TRL accepts.

TRL before 1.10 uses a function's ``__name__``, which a partial or an object with ``__call__`` may not have. TRL before
1.14 does not recognize that such an object is async, and does not start an event loop for it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn


def unwrapped(function: Any) -> Any:
    """Return the function that a partial calls; return anything else unchanged."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def callable_name(function: Any) -> str:
    """Return the name that TRL gives a reward function."""
    inner = unwrapped(function)
    return str(getattr(inner, "__name__", type(inner).__name__))


def is_async(function: Any) -> bool:
    """Whether a call returns a coroutine: for a function, a partial, or an object with an async ``__call__``."""
    inner = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def plain(functions: Sequence[Any] | Any) -> list[Any] | Any:
    """Return reward functions for TRL's constructor. Models, folders of models and functions are unchanged."""
    if not isinstance(functions, list | tuple):
        return functions
    return [_plain(function) for function in functions]


def restore(trainer: Any, given: Any, handed: Any) -> None:
    """Put the user's reward functions back into a trainer, in place of the results of :func:`plain`.

    Args:
        trainer: TRL's trainer, already built.
        given: the user's reward functions.
        handed: the result of :func:`plain`, unchanged.
    """
    if not isinstance(handed, list):
        return
    for i, (function, stand_in) in enumerate(zip(given, handed, strict=True)):
        if stand_in is not function and trainer.reward_funcs[i] is stand_in:
            trainer.reward_funcs[i] = function


def _plain(function: Any) -> Any:
    if not callable(function) or isinstance(function, nn.Module) or inspect.isfunction(function):
        return function
    made = _async(function) if is_async(function) else _sync(function)
    made.__name__ = callable_name(function)
    return made


def _sync(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _async(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return call
