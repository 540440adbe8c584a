"""The engine that judges samples: options, baseline, Holm's adjustment over families, verdicts."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from rvpo import statistics as st
from rvpo.compare.comparison import BenchmarkRow
from rvpo.compare.engine import CompareOptions, Sample, baseline_first, judge_samples
from rvpo.errors import ConfigError

NOTHING = st.Interval(None, None, None, 0)


def sample(
    p: float | None, family: Hashable = "f", difference: float = 1.0, *, reason: str = "", smallest: float = 0.0
) -> Sample[BenchmarkRow]:
    """Build a sample that answers with its reason, the level that it is asked for, and what is impossible."""
    row = BenchmarkRow(
        "m", NOTHING, NOTHING, (), (), st.Interval(difference, None, None, 9), 9, "t", p, verdict="final"
    )
    return Sample(
        row,
        ("a", "b"),
        family,
        lambda level, impossible: reason and f"{reason} {level:.4f} {impossible}".strip(),
        smallest=smallest,
    )


def test_each_family_is_adjusted_by_itself_and_rows_keep_their_order():
    ps = [(0.04, "x"), (0.01, "y"), (None, "x"), (0.02, "x"), (0.03, ("x", True))]
    rows = judge_samples([sample(p, family) for p, family in ps], CompareOptions())
    assert [row.p for row in rows] == [p for p, _ in ps]
    # Holm over 0.04 and 0.02 of "x": 2 * 0.02 and 0.04; families of one are as they were
    assert [row.adjusted for row in rows] == [0.04, 0.01, None, 0.04, 0.03]
    assert rows[2].verdict == "final"


def test_the_higher_side_is_named():
    found = judge_samples([sample(0.01, 1), sample(0.01, 2, -0.5)], CompareOptions())
    assert [row.verdict for row in found] == ["b higher", "a higher"]


def test_a_p_of_exactly_the_level_is_significant():
    # In floating point, 1 - 0.9 is below 0.1
    assert judge_samples([sample(0.1)], CompareOptions(level=0.9))[0].verdict == "b higher"
    assert judge_samples([sample(0.1001)], CompareOptions(level=0.9))[0].verdict == "cannot tell"


def test_the_reason_is_asked_for_at_the_level_of_the_family():
    rows = judge_samples([sample(0.5, reason="because"), sample(0.6, reason="because")], CompareOptions())
    assert [row.verdict for row in rows] == ["cannot tell: because 0.0250"] * 2


def test_what_no_result_could_have_reached_is_said():
    (alone,) = judge_samples([sample(0.1, reason="r", smallest=0.1)], CompareOptions())
    assert alone.verdict == "cannot tell: r 0.0500 no p below 0.1 is possible"
    # 0.02 could be significant by itself, 3 * 0.02 cannot
    rows = judge_samples([sample(0.5, reason="r", smallest=0.02) for _ in range(3)], CompareOptions())
    assert rows[0].verdict == "cannot tell: r 0.0167 no p below 0.06 is possible after Holm over 3 tests"


def test_options_that_cannot_work():
    for level in (0, 1, 95):
        with pytest.raises(ConfigError, match=f"level is {level}; expected 0 < level < 1. Use 0.95, for example"):
            CompareOptions(level=level)
    assert CompareOptions(resamples=7, seed=3).drawn == {"resamples": 7, "seed": 3}


def test_the_baseline_comes_first():
    groups = {"a": 1, "b": 2, "c": 3}
    words = {"found": "1 group", "next_step": "give more"}
    assert list(baseline_first(groups, None, **words)) == ["a", "b", "c"]
    assert list(baseline_first(groups, "c", **words).items()) == [("c", 3), ("a", 1), ("b", 2)]
    with pytest.raises(ConfigError, match="baseline is 'x'; expected one of 'a', 'b', 'c'"):
        baseline_first(groups, "x", **words)
    with pytest.raises(ConfigError, match=r"1 group; expected two or more. Next step: give more"):
        baseline_first({"a": 1}, None, **words)
