"""What a run says about the scales of its rewards: each thing once, also after a resume."""

from __future__ import annotations

import json
import logging

import pytest
import torch

import rvpo
from rvpo.core.ragged import Family, Score


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def said(caplog: pytest.LogCaptureFixture, agg: rvpo.Aggregator, *batches: list[float]) -> list[str]:
    """Return what is said while batches come in; the aggregator is resumed from its checkpoint before each."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        for batch in batches:
            agg.load_state_dict(json.loads(json.dumps(agg.state_dict())))
            agg(column(batch), num_generations=2)
    return [record.getMessage() for record in caplog.records]


def test_a_learned_scale_is_said_once(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator("lift", ["length"])
    assert said(caplog, agg, [0.25, 0.5]) == []
    (text,) = said(caplog, agg, [100.0 + i for i in range(100)], [5000.0] * 100, [1e6] * 600)
    assert text.startswith(
        "No range is declared for 'length', and its rewards are not all in [0, 1]: its scale is learned from what is "
        "seen, now [103, 194] (seen: [0.25, 199]). If you know the range, declare it: ranges={'length': [low, high]}"
    )


def test_an_evaluation_says_nothing(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        rvpo.Aggregator("lift", ["length"])(column([5.0, 7.0]), num_generations=2, learn=False)
    assert caplog.records == []


def test_a_declared_range_that_is_left_is_said_once(caplog: pytest.LogCaptureFixture):
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        agg = rvpo.Aggregator("tchebycheff", ["a"], ranges=[(low, high)])
        assert said(caplog, agg, [0.0, 1.0], [0.5, 0.5]) == []
        (text,) = said(caplog, agg, [0.0, 1.5], [0.0, 9.0])
        assert text.startswith(f"Rewards of 'a' lie outside of its range [{low:g}, {high:g}] (seen: [0, 1.5]).")


def test_a_range_that_does_not_fit_is_said_once(caplog: pytest.LogCaptureFixture):
    wide = rvpo.Aggregator("lift", ["a"], ranges=[(-100.0, 100.0)])
    assert said(caplog, wide, *[[0.0, 1.0]] * 255) == []
    (text,) = said(caplog, wide, *[[0.0, 1.0]] * 3)
    assert text.startswith(
        "The range [-100, 100] of 'a' is far wider than what was seen: its first 512 rewards lie in [0, 1]."
    )
    narrow = rvpo.Aggregator("lift", ["a"], ranges=[(0.0, 2.0)])
    assert "lie outside" in said(caplog, narrow, [-30.0, 30.0])[0]
    (text,) = said(caplog, narrow, *[[-30.0, 30.0]] * 300)
    assert text.startswith(
        "The range [0, 2] of 'a' is far too narrow: its first 512 rewards lie in [-30, 30], 100% of them outside"
    )
    assumed = rvpo.Aggregator("lift", ["a"])
    (text,) = said(caplog, assumed, *[[0.01, 0.06]] * 300)
    assert text.startswith("No range is declared for 'a', so its scale is [0, 1], but its first 512 rewards lie in")


def test_what_fits_or_never_changes_is_not_mentioned(caplog: pytest.LogCaptureFixture):
    assert said(caplog, rvpo.Aggregator("tchebycheff", ["a"], ranges=[(0.0, 9.0)]), *[[0.0, 1.0]] * 300) == []
    for ranges in ([(0.0, 9.0)], None):
        (text,) = said(caplog, rvpo.Aggregator("tchebycheff", ["a"], ranges=ranges), *[[0.0, 0.0]] * 300)
        assert text.startswith("'a' gave the same reward, 0")  # of reward_news: its scale is not mentioned
        assert "range" not in text
    assert said(caplog, rvpo.Aggregator("gdpo", ["a"]), *[[0.0, 70.0]] * 300) == []


def test_nothing_is_kept_of_the_labels_of_a_rubric_with_a_declared_range():
    """As that of every RubricReward is: there may be thousands of them."""
    agg = rvpo.Aggregator("lift", ["rubric", "length"], ranges={"rubric": (0, 1)})
    rows = [[Score("c", float(i), labels=("essential",))] for i in range(2)]
    agg(torch.tensor([[0.0, 80.0], [0.0, 90.0]]), num_generations=2, families=[Family("rubric", rows)])
    assert list(agg.state_dict()["remembered"]["scales"]) == ["length"]
