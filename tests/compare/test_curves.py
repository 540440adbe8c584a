"""Curves of training runs: by hand, by loops, and as they are read from logs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from compare.training_runs import NAN, curves, record
from rvpo.compare.curves import lowest, measures, read_curves, scales, shares, smoothed, windows
from rvpo.core import AdvantageConfig
from rvpo.errors import DataError
from rvpo.logs.open import open_run


@given(
    some.lists(some.one_of(some.just(NAN), some.floats(-1, 1)), min_size=1, max_size=12),
    some.integers(1, 12),
    some.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_windows_and_moving_averages_are_those_of_loops(values: list[float], width: int, trailing: bool):
    def mean(start: int, end: int) -> float:
        known = [x for x in values[max(start, 0) : max(end, 0)] if not math.isnan(x)]
        return sum(known) / len(known) if known else NAN

    n, back = len(values), width - 1 if trailing else width // 2
    expected = [mean(t - back, t - back + width) for t in range(n)]
    assert smoothed(np.array(values), width, trailing=trailing) == pytest.approx(expected, nan_ok=True, abs=1e-12)
    if width <= n:
        expected = [mean(t, t + width) for t in range(n - width + 1)]
        assert windows(np.array(values), width) == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_measures_by_hand():
    curve = np.array([0.0, 0.2, 0.9, 0.7, 0.3, 0.1])
    found = measures(windows(curve, 2), curve)  # windows 0.1, 0.55, 0.8, 0.5, 0.2
    assert found == pytest.approx({"first": 0.1, "best": 0.8, "last": 0.2, "auc": 2.2 / 6, "drop": 0.6})
    nothing = measures(np.full(3, NAN), np.full(3, NAN))
    assert all(math.isnan(value) for value in nothing.values())
    ends = measures(np.array([0.5, NAN]), np.array([0.5, NAN]))  # not scored at the end: that is not 0
    assert (ends["best"], ends["auc"]) == (0.5, 0.5)
    assert math.isnan(ends["last"])
    assert math.isnan(ends["drop"])


def test_the_lowest_channel_passes_over_what_is_missing():
    found = lowest(np.array([[0.3, NAN, 0.5], [NAN, NAN, NAN], [0.2, 0.1, 0.9]]))
    assert found == pytest.approx([0.3, NAN, 0.1], nan_ok=True)
    assert np.isnan(lowest(np.zeros((2, 0)))).all()


def test_scales_are_declared_or_seen_or_assumed():
    one = curves(
        "one",
        0,
        {name: [0.0] for name in "defgh"},
        ranges={"d": (-3.0, 3.0), "e": (0.0, 1.0)},
        seen={"d": (-1.0, 2.0), "e": (0.0, 4.0), "f": (0.2, 0.5), "g": (0.0, 0.0), "h": (7.0, 7.0)},
    )
    two = curves("two", 1, {"f": [0.0], "never": [NAN]}, seen={"f": (0.4, 0.9)}, ranges={})
    found, notes = scales([one, two])
    # d as declared; e was left upwards; f over both runs; g is constant within [0, 1]; h says nothing; never has none
    assert found == {"d": (-3, 3), "e": (0, 4), "f": (0.2, 0.9), "g": (0, 1)}
    told = "\n".join(notes)
    assert "d -3 to 3, e 0 to 4 (declared); f 0.2 to 0.9 (lowest and highest reward seen); g 0 to 1 (assumed" in told
    assert "e: rewards from 0 to 4 leave the declared range [0, 1]" in told
    assert "h: always 7 and without a declared range, so its share cannot be computed" in told
    other = replace(one, ranges={"d": (-5.0, 1.0)})
    found, notes = scales([one, other])
    assert found["d"] == (-5, 3)
    assert "d: runs declare different ranges, [-3, 3] and [-5, 1]; the widest counts" in notes


def test_shares_are_of_the_range_at_the_steps_asked_for():
    run = curves("run", 0, {"a": [-3, 0, 3], "b": [0.5, NAN, 1]}, steps=[10, 20, 40])
    found = shares(run, {"b": (0.0, 1.0), "a": (-3.0, 3.0), "absent": (0.0, 1.0)}, np.array([10, 40]))
    assert found == pytest.approx(np.array([[0.5, 0, NAN], [1, 1, NAN]]), nan_ok=True)


def test_a_record_is_read_by_channel_with_what_is_missing_left_out(tmp_path: Path):
    # Completion 0 has two criteria of style, 1 has one, which was not scored; `right` is missing at step 2
    cells = [
        (1, 0, "right", 3.0),
        (1, 0, "style", 1.0),
        (1, 0, "style", 0.0),
        (1, 1, "right", -1.0),
        (1, 1, "style", None),
        (2, 0, "style", 0.25),
        (2, 1, "right", None),
    ]
    run = read_curves(open_run(record(tmp_path / "run-3", cells, [0.5, 2.0])))
    assert run.channels == ("right", "style")
    assert run.mean == pytest.approx(np.array([[1.0, 0.5], [NAN, 0.25]]), nan_ok=True)
    assert run.seen == {"right": (-1, 3), "style": (0, 1)}
    assert run.ranges == {"right": (-3, 3)}
    assert run.configs == tuple(AdvantageConfig(f"rvpo:k={k}") for k in (0.5, 2.0))


def test_a_run_without_any_reward_is_refused(tmp_path: Path):
    cells = [(1, 0, "right", None), (1, 1, "right", None)]
    with pytest.raises(DataError, match=r"has no rewards; expected a run with scored completions. Leave it"):
        read_curves(open_run(record(tmp_path / "run", cells, [1.0])))
