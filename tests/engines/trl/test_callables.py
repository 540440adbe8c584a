"""Reward functions of every kind reach every version of TRL as plain functions, and come back as they were."""

from __future__ import annotations

import asyncio
import functools
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rvpo.engines.trl import callables


class Scorer:
    def __call__(self, completions: list[str], scale: float = 1.0, **_: Any) -> list[float]:
        return [scale * len(text) for text in completions]


class AsyncScorer:
    async def __call__(self, completions: list[str], scale: float = 1.0, **_: Any) -> list[float]:
        return [scale * len(text) for text in completions]


def sync_function(completions: list[str], scale: float = 1.0, **_: Any) -> list[float]:
    return [scale * len(text) for text in completions]


async def async_function(completions: list[str], scale: float = 1.0, **_: Any) -> list[float]:
    return [scale * len(text) for text in completions]


KINDS = {
    "sync_function": (sync_function, False, 1.0),
    "async_function": (async_function, True, 1.0),
    "Scorer": (Scorer(), False, 1.0),
    "AsyncScorer": (AsyncScorer(), True, 1.0),
    "partial of a function": (functools.partial(sync_function, scale=2.0), False, 2.0),
    "partial of an async function": (functools.partial(async_function, scale=2.0), True, 2.0),
    "partial of a partial of an object": (functools.partial(functools.partial(AsyncScorer()), scale=3.0), True, 3.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_function_does_the_same(kind: str):
    function, is_async, scale = KINDS[kind]
    assert callables.is_async(function) is is_async
    (made,) = callables.plain([function])
    assert inspect.iscoroutinefunction(made) is is_async
    assert made.__name__ == callables.callable_name(function)
    returned = made(completions=["ab", "c"])
    assert (asyncio.run(returned) if is_async else returned) == [2 * scale, scale]


def test_what_trl_knows_is_left_alone_and_the_rest_comes_back():
    module, folder = torch.nn.Linear(1, 1), "some/model"
    given = [sync_function, module, folder, Scorer(), AsyncScorer()]
    handed = callables.plain(given)
    assert handed[:3] == given[:3]
    trainer = SimpleNamespace(reward_funcs=[*handed, "of an environment"])
    trainer.reward_funcs[2] = loaded = torch.nn.Linear(1, 1)  # as TRL does with a folder
    callables.restore(trainer, given, handed)
    assert trainer.reward_funcs == [sync_function, module, loaded, *given[3:], "of an environment"]
    assert callables.plain(None) is None
