"""Schedules of k: hand-worked values, bounds, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from math import sqrt

import pytest

from rvpo import Cosine, Linear
from rvpo.errors import ConfigError


def test_values():
    at = [0.0, 0.25, 0.5, 1.0]
    # the paper's line, 0.5 -> 2.0: a quarter of 1.5 is 0.375
    assert [Linear()(t) for t in at] == [0.5, 0.875, 1.25, 2]
    # (1 - cos(pi t)) / 2 at 1/4 is (1 - sqrt(1/2)) / 2
    assert [Cosine()(t) for t in at] == pytest.approx([0.5, 0.5 + 1.5 * (1 - sqrt(0.5)) / 2, 1.25, 2])
    assert Linear(3.0, 1.0)(0.5) == 2  # it may fall as well


@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_progress_is_clamped(schedule):
    assert schedule(-0.1) == 0.5
    assert schedule(1.7) == 2.0
    with pytest.raises(ConfigError, match=r"progress is nan; expected"):
        schedule(math.nan)


def test_they_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Linear().start = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0,), r"linear: start of k is -1.0; expected a number in \[0, inf\)"),
        ((None,), r"linear: start of k is None; expected a number"),
        ((0.5, math.inf), r"linear: end of k is inf"),
        (("fast",), r"linear: start of k is 'fast'"),
    ],
)
def test_errors(arguments: tuple, message: str):
    with pytest.raises(ConfigError, match=message):
        Linear(*arguments)
