"""What kind of callable a reward function is, and a form of it that every version of TRL understands.

TRL before 1.10 takes a function's ``__name__``, which a partial and an object with ``__call__`` need not have, and
before 1.14 it does not see that such an object is async, and has no event loop for it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn


def unwrapped(function: Any) -> Any:
    """Return what a partial calls; anything else as it is."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def callable_name(function: Any) -> str:
    """Return the name that TRL gives a reward function."""
    inner = unwrapped(function)
    return str(getattr(inner, "__name__", type(inner).__name__))


def is_async(function: Any) -> bool:
    """Whether a call returns a coroutine: of a function, a partial of it, or an object whose ``__call__`` is async."""
    inner = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def plain(functions: Sequence[Any] | Any) -> list[Any] | Any:
    """Return reward functions for TRL's constructor; models, folders of models and functions as they are."""
    if not isinstance(functions, list | tuple):
        return functions
    return [_plain(function) for function in functions]


def restore(trainer: Any, given: Any, handed: Any) -> None:
    """Give a trainer the reward functions that a user gave, in place of those that :func:`plain` made of them.

    Args:
        trainer: TRL's, built.
        given: by the user.
        handed: what :func:`plain` made of them, unchanged since.
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
