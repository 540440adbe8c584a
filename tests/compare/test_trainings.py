"""Training runs over seeds: their tests by hand, curves by loops, comparisons, and folders as engines leave them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats
from typer.testing import CliRunner

from rvpo import statistics as st
from rvpo.cli.compare import compare as command
from rvpo.compare import tables as compare_tables
from rvpo.compare.comparison import MEASURES, Comparison, Row
from rvpo.compare.curves import RunCurves, lowest, measures, read_curves, scales, shares, smoothed, windows
from rvpo.compare.run_groups import Groups, find_runs, group_runs
from rvpo.compare.run_origins import split_seed
from rvpo.compare.trainings import compare
from rvpo.core import AdvantageConfig
from rvpo.errors import ConfigError, DataError
from rvpo.logs.open import open_run
from rvpo.logs.run import Columns
from rvpo.logs.schema import METADATA

NAN = math.nan

# --- tests of two groups of runs ---------------------------------------------------------------------------------


def test_permutation_by_hand():
    # Only {1,2,3} against {4,5,6} and its mirror, of C(6, 3) = 20, are as far apart
    assert st.permutation([4, 5, 6], [1, 2, 3]) == pytest.approx(2 / 20)
    # The mean of 0..4 is 2, two values lie 3 away from 2 * 2 in their sum: {3, 4} and {0, 1}, of C(5, 2) = 10
    assert st.permutation([3, 4], [0, 1, 2]) == pytest.approx(2 / 10)
    # {9, 1} against {0, 2}: |10 - 2| = 8; sums of pairs are 10, 9, 11 and mirrored 2, 3, 1: all but 9 and 3
    assert st.permutation([9, 1], [0, 2]) == pytest.approx(4 / 6)


def test_permutation_of_bistable_runs_by_hand():
    # 3 of 10 runs are lost, all A's: the three fall into one group in 2 * C(7, 2) of C(10, 5) = 252 assignments
    assert st.permutation([1] * 5, [1, 0, 0, 1, 0]) == pytest.approx(42 / 252)


@pytest.mark.parametrize(("n", "r"), [(2, 2), (3, 4), (5, 2), (5, 5)])
def test_permutation_is_that_of_a_loop_and_of_scipy(n: int, r: int):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n).round(1), rng.normal(size=r).round(1)  # rounded, for ties
    pooled, found, ways = [*b, *a], 0, 0
    for chosen in itertools.combinations(range(n + r), r):
        rest = [pooled[i] for i in range(n + r) if i not in chosen]
        found += abs(np.mean([pooled[i] for i in chosen]) - np.mean(rest)) >= abs(b.mean() - a.mean()) - 1e-9
        ways += 1
    assert st.permutation(b, a) == pytest.approx(found / ways)
    theirs = stats.permutation_test((b, a), lambda x, y: abs(np.mean(x) - np.mean(y)), alternative="greater")
    assert st.permutation(b, a) == pytest.approx(theirs.pvalue)


def test_permutation_takes_rounding_for_ties():
    assert st.permutation([0.1 + 0.2, 0.3], [0.3, 0.3]) == 1
    # Swapping 0.3 for 0.1 + 0.2 gives the same sums but for rounding: 2 of the 6 assignments are less extreme, not 4
    assert st.permutation([0.1 + 0.2, 1.0], [0.3, 0.0]) == pytest.approx(4 / 6)


def test_random_assignments_are_those_of_all(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=7), rng.normal(0.9, size=6)
    exact = st.permutation(b, a)
    assert 0.02 < exact < 0.5
    monkeypatch.setattr("rvpo.statistics.pvalues.ASSIGNMENTS", 0)
    monkeypatch.setattr("rvpo.statistics.base.CELLS", 13 * 777)  # in chunks
    drawn = st.permutation(b, a, resamples=20_000)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))
    assert st.permutation(np.arange(50) + 100, np.arange(50), resamples=999) == 1 / 1000  # never 0


@given(some.lists(some.floats(-1, 1), min_size=2, max_size=7), some.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_permutation_is_symmetric_and_not_below_the_smallest_p(values: list[float], r: int):
    r = min(r, len(values) - 1)
    b, a = values[:r], values[r:]
    p = st.permutation(b, a)
    assert st.smallest_p(len(b), len(a)) - 1e-12 <= p <= 1
    assert p == pytest.approx(st.permutation(a, b))
    assert p == pytest.approx(st.permutation(b[::-1], a[::-1]))


@pytest.mark.parametrize(("b", "a"), [(3, 3), (2, 5), (4, 4), (1, 6), (8, 8)])
def test_smallest_p_is_reached_by_groups_apart(b: int, a: int):
    # Far apart, and of uneven steps, lest another assignment is as extreme by accident
    high, low = 10_000 + 2.0 ** np.arange(b), -(3.0 ** np.arange(a))
    assert st.permutation(high, low) == pytest.approx(st.smallest_p(b, a))


def test_smallest_p_of_pairs_and_of_random_signs():
    for pairs in (1, 3, 5, 6, 14):
        assert st.sign_flip(np.arange(1, pairs + 1)) == pytest.approx(st.smallest_p(pairs)) == min(1, 2 / 2**pairs)
    assert st.smallest_p(15, resamples=999) == 1 / 1000 == st.sign_flip(np.arange(1, 31), resamples=999)
    assert st.smallest_p(9, 9, resamples=999) == 1 / 1000  # C(18, 9) = 48,620 are not all tried
    assert st.smallest_p(1, 1) == 1


def test_how_many_seeds_a_level_needs():
    # 2 / C(6, 3) = 0.1 and 2 / C(8, 4) = 0.029; 2 / 2^5 = 0.0625 and 2 / 2^6 = 0.031
    assert st.seeds_for_level(0.05) == 4
    assert st.seeds_for_level(0.05, by_pair=True) == 6
    # 0.05 / 17 = 0.00294: 2 / C(10, 5) = 0.0079 and 2 / C(12, 6) = 0.0022; 2 / 2^9 = 0.0039 and 2 / 2^10 = 0.002
    assert st.seeds_for_level(0.05 / 17) == 6
    assert st.seeds_for_level(0.05 / 17, by_pair=True) == 10
    assert st.seeds_for_level(1e-6) is None  # 1 / 10,001 is the smallest with random ones


def test_intervals_are_those_of_t_tests():
    b, a = np.array([0.9, 0.7, 0.95, 0.8]), np.array([0.5, 0.75, 0.2, 0.6])
    welch = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.9)
    pairs = stats.ttest_rel(b, a).confidence_interval(0.9)
    found = st.runs_interval(b, a, level=0.9)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high))
    assert (found.mean, found.items) == (pytest.approx(b.mean() - a.mean()), 8)
    found = st.runs_interval(b, a, by_pair=True, level=0.9)
    assert (found.low, found.high, found.items) == (pytest.approx(pairs.low), pytest.approx(pairs.high), 4)


def test_no_interval_where_nothing_tells_one():
    assert st.runs_interval([0.5], [0.2, 0.4]) == st.Interval(pytest.approx(0.2), None, None, 3)
    assert st.runs_interval([0.5, 0.5], [0.3, 0.3]) == st.Interval(pytest.approx(0.2), None, None, 4)
    assert st.runs_interval([0.5, 0.7], [0.3, 0.5], by_pair=True) == st.Interval(pytest.approx(0.2), None, None, 2)
    # One group alone that spreads: v = s^2 / 2 with one degree of freedom, t = 12.706
    found = st.runs_interval([0.5, 0.5], [0.2, 0.4])
    assert found.high - found.mean == pytest.approx(12.7062 * math.sqrt(0.02 / 2), rel=1e-4)
    assert st.hedges_g([0.5], [0.2, 0.4]) == st.Interval(None, None, None, 3)
    assert st.hedges_g([0.5, 0.5], [0.2, 0.2]) == st.Interval(None, None, None, 4)


def test_hedges_g_by_hand():
    # Means 4 and 2, s = 1, df = 4: J = 1 - 3 / 15 = 0.8
    found = st.hedges_g([3, 4, 5], [1, 2, 3])
    assert found.mean == pytest.approx(1.6)
    assert found.items == 6
    # t = 2 / sqrt(2 / 3) lies at the 97.5% and the 2.5% quantile of noncentral t at the ends, times sqrt(2 / 3)
    t, error = 2 / math.sqrt(2 / 3), math.sqrt(2 / 3)
    assert stats.nct.cdf(t, 4, found.low / error) == pytest.approx(0.975, abs=1e-4)
    assert stats.nct.cdf(t, 4, found.high / error) == pytest.approx(0.025, abs=1e-4)
    assert st.hedges_g([1, 2, 3], [3, 4, 5]).low == pytest.approx(-found.high)


def test_hedges_g_of_pairs_has_the_same_value_and_their_interval():
    b, a = np.array([3.0, 4.0, 5.5]), np.array([1.0, 2.1, 3.0])
    alone, found = st.hedges_g(b, a), st.hedges_g(b, a, by_pair=True)
    assert found.mean == pytest.approx(alone.mean)
    # Algina and Keselman: ends are those of the noncentrality of the paired t, df 2, times s_d / (s sqrt(n))
    d = b - a
    t, scale = d.mean() / (d.std(ddof=1) / math.sqrt(3)), d.std(ddof=1) / math.sqrt(3)
    scale /= math.sqrt((b.var(ddof=1) + a.var(ddof=1)) / 2)
    assert stats.nct.cdf(t, 2, found.low / scale) == pytest.approx(0.975, abs=1e-3)
    assert found.low > alone.low  # the pairs move together
    assert st.hedges_g([3, 4, 5], [1, 2, 3], by_pair=True) == st.Interval(pytest.approx(1.6), None, None, 3)


def test_an_effect_of_runs_that_hardly_differ_is_huge_and_finite():
    found = st.hedges_g([1, 1 + 1e-6, 1], [0, 1e-6, 0])
    assert 1e5 < found.low < found.mean < found.high < 1e8


def test_needed_seeds_by_hand():
    # delta = 1, variances 1 and 1: n = (1.95996 + 0.84162)^2 * 2 / 1 + 1.95996^2 / 4 = 16.66 seeds each
    assert st.needed_seeds([1, 2, 3], [0, 1, 2]) == 17
    # Pairs, d = 0, 1, 2 with variance 1: 7.849 + 1.9207 = 9.77
    assert st.needed_seeds([0, 2, 4], [0, 1, 2], by_pair=True) == 10
    # A difference of many deviations still needs what the test needs at all
    assert st.needed_seeds([101, 102, 103], [0, 1, 2]) == 4
    assert st.needed_seeds([101, 102, 104], [0, 1, 2], by_pair=True) == 6
    for b, a in (([1, 2], [1, 2]), ([1, 1], [0, 0]), ([1], [0, 3])):
        assert st.needed_seeds(b, a) is None


# --- curves ------------------------------------------------------------------------------------------------------


def curves(
    name: str,
    seed: int | None,
    mean: Mapping[str, Sequence[float]],
    *,
    steps: Sequence[int] | None = None,
    **given: Any,
) -> RunCurves:
    """Build a run from the mean rewards of its channels; its rewards are seen to span [0, 1]."""
    values = np.array(list(mean.values()), dtype=float).T
    seen = {channel: (0.0, 1.0) for channel, curve in mean.items() if not np.isnan(curve).all()}
    told = {"seen": seen, "ranges": {}, **given}
    every = np.array(steps or range(1, len(values) + 1), dtype=np.int64)
    return RunCurves(f"runs/{name}", name, tuple(mean), every, values, seed=seed, **told)


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
    assert (
        "d -3 to 3, e 0 to 4 (declared); f 0.2 to 0.9 (lowest and highest that were seen); g 0 to 1 (constant" in told
    )
    assert "e: rewards from 0 to 4 leave the declared range [0, 1]" in told
    assert "h: always 7 and of no declared range, so no share can be told" in told
    other = replace(one, ranges={"d": (-5.0, 1.0)})
    found, notes = scales([one, other])
    assert found["d"] == (-5, 3)
    assert "d: runs declare different ranges, [-3, 3] and [-5, 1]; the widest counts" in notes


def test_shares_are_of_the_range_at_the_steps_asked_for():
    run = curves("run", 0, {"a": [-3, 0, 3], "b": [0.5, NAN, 1]}, steps=[10, 20, 40])
    found = shares(run, {"b": (0.0, 1.0), "a": (-3.0, 3.0), "absent": (0.0, 1.0)}, np.array([10, 40]))
    assert found == pytest.approx(np.array([[0.5, 0, NAN], [1, 1, NAN]]), nan_ok=True)


def completions(folder: Path, mean: Mapping[str, Sequence[float | None]], **extra: Any) -> Path:
    """Write TRL's completions of a run: 2 prompts of 2 completions a step, 0.1 below and above a channel's mean."""
    (folder / "completions").mkdir(parents=True)
    for i in range(len(next(iter(mean.values())))):
        rewards = {
            name: [None if curve[i] is None else curve[i] + d for d in (-0.1, 0.1) * 2] for name, curve in mean.items()
        }
        columns = {"step": [i + 1] * 4, "prompt": ["a", "a", "b", "b"], "completion": ["x"] * 4}
        # Advantages differ between steps, or the reader takes a step for the same generation logged again
        table = pa.table(
            columns
            | {name: pa.array(values, pa.float64()) for name, values in rewards.items()}
            | {"advantage": [float(i), 1.0, 2.0, 3.0]}
        )
        pq.write_table(table, folder / "completions" / f"completions_{i + 1:05d}.parquet")
    for name, values in extra.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    return folder


def record(folder: Path, cells: Sequence[tuple[int, int, str, float | None]], ks: Sequence[float]) -> Path:
    """Write the record of our own engines, with those columns that are needed: cells of (step, completion, channel)."""
    (folder / "channels").mkdir(parents=True)
    for step, k in enumerate(ks, 1):
        own = [cell for cell in cells if cell[0] == step]
        n = len(own)
        table = pa.table(
            {
                "step": pa.array([step] * n, pa.int64()),
                "batch": pa.array([0] * n, pa.int64()),
                "completion": pa.array([cell[1] for cell in own], pa.int64()),
                "group": pa.array([0] * n, pa.int64()),
                "channel": pa.array([cell[2] for cell in own], pa.string()),
                "counts": pa.array([1.0] * n, pa.float64()),
                "reliability": pa.array([1.0] * n, pa.float64()),
                "reward": pa.array([cell[3] for cell in own], pa.float64()),
                "advantage": pa.array([0.0] * n, pa.float64()),
                "tokens": pa.array([None] * n, pa.int64()),
            }
        )
        config = {"method": "rvpo", "k": k, "options": {}}
        about = {"version": 1, "config": config, "ranges": {"right": [-3, 3], "style": None}, "by_token": False}
        table = table.replace_schema_metadata({METADATA: json.dumps(about)})
        pq.write_table(table, folder / "channels" / f"{step:06d}.parquet")
    return folder


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
    assert run.configs == tuple(AdvantageConfig(method="rvpo", k=k) for k in (0.5, 2.0))


def test_a_run_without_any_reward_is_refused(tmp_path: Path):
    cells = [(1, 0, "right", None), (1, 1, "right", None)]
    with pytest.raises(DataError, match="holds no reward at all, allowed is a run with scored completions: leave it"):
        read_curves(open_run(record(tmp_path / "run", cells, [1.0])))


# --- comparisons -------------------------------------------------------------------------------------------------


def seeds(method: str, ends: Sequence[float], channel: str = "c") -> list[RunCurves]:
    """Build runs that rise or fall in a straight line from 0.5 to ``ends``, over 5 steps."""
    return [curves(f"{method}-{seed}", seed, {channel: np.linspace(0.5, end, 5)}) for seed, end in enumerate(ends)]


def rows_of(found: Comparison, measure: str, group: str | None = None) -> dict[str | None, Row]:
    return {row.channel: row for row in found.rows if row.measure == measure and group in (None, row.group)}


def test_pairs_of_six_seeds_by_hand():
    a, b = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.4, 0.6, 0.8, 1.0, 0.9]
    found = compare({"gdpo": seeds("gdpo", a), "lift": seeds("lift", b)[::-1]})
    row = rows_of(found, "last")["c"]
    assert (row.a, row.b, row.test) == (pytest.approx(a), pytest.approx(b), "paired")
    assert row.difference.mean == pytest.approx(0.3)  # d = 0.1, 0.2, 0.3, 0.4, 0.5, 0.3
    assert (row.difference.items, row.p, row.adjusted) == (6, 2 / 64, 2 / 64)
    assert row.verdict == "lift higher"
    # A line from 0.5 to e has the mean (0.5 + e) / 2, the best max(0.5, e), and loses what it falls
    row = rows_of(found, "auc")["c"]
    assert (row.a, row.b) == (pytest.approx([(0.5 + x) / 2 for x in a]), pytest.approx([(0.5 + x) / 2 for x in b]))
    row = rows_of(found, "drop")["c"]
    assert row.a == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0])
    assert row.b == pytest.approx([0.3, 0.1, 0, 0, 0, 0])
    # d = -0.1, -0.2, -0.2, -0.1 and two pairs that are equal and say nothing: 2 / 2^4
    assert row.p == pytest.approx(2 / 16)
    assert row.verdict.startswith("cannot tell: about ")


def test_the_one_that_drops_more_is_named():
    a, b = [0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.15]
    found = compare({"a": seeds("a", a), "b": seeds("b", b)}, unpaired=True)
    assert rows_of(found, "drop")["c"].verdict == "b drops more"  # 2 / C(8, 4) = 0.029
    assert rows_of(found, "last")["c"].verdict == "a higher"
    found = compare({"a": seeds("a", a), "b": seeds("b", b)}, unpaired=True, baseline="b")
    assert found.baseline == "b"
    assert [group.name for group in found.groups] == ["b", "a"]
    assert rows_of(found, "drop")["c"].verdict == "b drops more"


def test_three_seeds_cannot_tell_and_the_verdict_says_how_many_could():
    found = compare({"a": seeds("a", [0.1, 0.2, 0.3]), "b": seeds("b", [0.8, 0.9, 1.0])}, unpaired=True)
    row = rows_of(found, "last")["c"]
    assert (row.p, row.smallest) == (pytest.approx(0.1), pytest.approx(0.1))
    told = "cannot tell: with 3 runs against 3 no p below 0.1 is possible; at least 4 seeds each"
    assert row.verdict == told
    found = compare({"a": seeds("a", [0.1, 0.2, 0.3]), "b": seeds("b", [0.8, 0.9, 1.0])})
    told = "cannot tell: with 3 pairs of seeds no p below 0.25 is possible; at least 6 seeds each"
    assert rows_of(found, "last")["c"].verdict == told
    assert any("Pairs of 3 seeds give no p below 0.25; unpaired (--unpaired), 3 runs" in note for note in found.notes)


def test_pairing_is_by_seed_and_pays_where_seeds_matter():
    ends = [0.1, 0.9, 0.3, 0.6, 0.2, 0.75, 0.5]
    groups = {"a": seeds("a", ends), "b": seeds("b", [x + 0.05 + 0.001 * i for i, x in enumerate(ends)])}
    row = rows_of(compare(groups), "last")["c"]
    assert (row.test, row.p, row.verdict) == ("paired", 2 / 2**7, "b higher")
    row = rows_of(compare(groups, unpaired=True), "last")["c"]
    assert row.test == "unpaired"
    assert row.p > 0.5
    assert row.verdict.startswith("cannot tell: more than 100 seeds each")
    shuffled = {"a": groups["a"], "b": [groups["b"][i] for i in (3, 1, 6, 0, 2, 5, 4)]}
    assert rows_of(compare(shuffled), "last")["c"].p == 2 / 2**7


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({0: None}, "nothing tells the seed of b-0"),
        ({0: 1}, "seed 1 stands twice, in runs/b-0 and runs/b-1"),
        ({0: 9}, "seeds are 0, 1, 2, 3 and 1, 2, 3, 9"),
    ],
)
def test_without_the_same_seeds_runs_are_not_paired_and_the_notes_say_why(changed: Mapping[int, int | None], why: str):
    b = [replace(run, seed=changed.get(i, i)) for i, run in enumerate(seeds("b", [0.5, 0.6, 0.7, 0.8]))]
    found = compare({"a": seeds("a", [0.1, 0.2, 0.3, 0.4]), "b": b})
    assert {row.test for row in found.rows} == {"unpaired"}
    assert f"b against a: not paired by seed ({why})." in found.notes


@pytest.mark.parametrize(
    ("count", "why"),
    [
        (3, None),  # neither can tell
        (4, "4 pairs cannot give a p of 0.05, 4 runs against 4 can"),
        (5, "5 pairs cannot give a p of 0.05, 5 runs against 5 can"),
        (6, None),
    ],
)
def test_pairs_that_are_too_few_do_not_pair(count: int, why: str | None):
    scores = [0.1 + 0.05 * i for i in range(count)]
    found = compare({"a": seeds("a", scores), "b": seeds("b", [x + 0.4 for x in scores])})
    assert {row.test for row in found.rows} == {"unpaired" if why else "paired"}
    assert f"b against a: {f'not paired by seed ({why})' if why else 'paired by seed'}." in found.notes


def test_holm_is_over_channels_and_groups_and_the_worst_channel_is_a_family():
    rng = np.random.default_rng(0)

    def group(method: str, shift: float) -> list[RunCurves]:
        return [
            curves(f"{method}-{i}", i, {c: rng.uniform(0, 0.3, 4) + shift * (c == "x") for c in "xyz"})
            for i in range(6)
        ]

    found = compare({name: group(name, shift) for name, shift in (("a", 0), ("b", 0.6), ("c", 0.1))}, unpaired=True)
    for measure in MEASURES:
        rows = [row for row in found.rows if row.measure == measure]
        assert len(rows) == 2 * 4
        for family in ([r for r in rows if r.channel], [r for r in rows if not r.channel]):
            assert [row.adjusted for row in family] == st.holm([row.p for row in family])
    assert rows_of(found, "auc", "b")["x"].verdict == "b higher"  # 6 tests: 6 * 2 / C(12, 6) = 0.013


def test_many_channels_need_more_seeds():
    # 17 tests, 5 against 5: 17 * 2 / 252 = 0.135
    def group(method: str, end: float) -> list[RunCurves]:
        return [curves(f"{method}-{i}", i, {f"c{j}": [0.5, end + 0.01 * i] for j in range(17)}) for i in range(5)]

    row = rows_of(compare({"a": group("a", 0.1), "b": group("b", 0.8)}, unpaired=True), "last")["c3"]
    told = (
        "cannot tell: with 5 runs against 5 no p below 0.13 is possible after Holm over 17 tests; at least 6 seeds each"
    )
    assert row.verdict == told
    assert row.adjusted == pytest.approx(17 * 2 / 252)


def test_the_worst_channel_is_looked_for_in_every_window():
    runs = [curves(f"a-{i}", i, {"x": [0.9, 0.7, 0.5, 0.1], "y": [0.2, 0.4, 0.6, 0.8]}) for i in range(2)]
    found = compare({"a": runs, "b": [replace(run, name=f"b-{run.seed}") for run in runs]}, window=1)
    # min: 0.2, 0.4, 0.5, 0.1
    worst = {"first": 0.2, "best": 0.5, "last": 0.1, "auc": 0.3, "drop": 0.4}
    assert found.groups[0].runs[0].worst == pytest.approx(worst)
    assert found.groups[0].runs[0].worst_curve == pytest.approx((0.2, 0.4, 0.5, 0.1))
    wide = compare({"a": runs, "b": [replace(run, name=f"b-{run.seed}") for run in runs]}, window=2)
    # windows of x: 0.8, 0.6, 0.3, of y: 0.3, 0.5, 0.7; min: 0.3, 0.5, 0.3
    worst = {"first": 0.3, "best": 0.5, "last": 0.3, "auc": 1.1 / 3, "drop": 0.2}
    assert wide.groups[0].runs[0].worst == pytest.approx(worst)
    assert found.rows[0].channel is None
    assert found.rows[0].p == 1
    assert found.rows[0].verdict.startswith("cannot tell: with 2 pairs")


def test_runs_that_are_all_equal_cannot_be_told_apart():
    found = compare({"a": seeds("a", [0.7] * 4), "b": seeds("b", [0.7] * 4)}, unpaired=True)
    row = rows_of(found, "auc")["c"]
    assert (row.p, row.verdict) == (1, "cannot tell: all runs are equal")
    assert row.effect == st.Interval(None, None, None, 8)


def test_runs_of_other_lengths_are_compared_over_the_steps_that_all_have():
    long = curves("a-0", 0, {"c": [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]})
    short = curves("a-1", 1, {"c": [0.2, 0.4, 0.6]})
    sparse = curves("b-0", 0, {"c": [0.9, 0.5, 0.1]}, steps=[1, 3, 5])
    found = compare({"a": [long, short], "b": [sparse]})
    assert (found.first, found.last, found.count, found.steps) == (1, 3, 2, (1, 3))
    assert rows_of(found, "last")["c"].a == pytest.approx((0.6, 0.6))  # at step 3, not at the long run's end
    assert rows_of(found, "last")["c"].b == pytest.approx((0.5,))
    told = "Runs differ in their steps: compared are the 2 from 1 to 3 that all have. a-1 has 3, a-0 6."
    assert told in found.notes
    apart = curves("b-0", 0, {"c": [0.5]}, steps=[9])
    with pytest.raises(
        DataError, match=r"runs/b-0 has steps 9 to 9, runs/a-0 1 to 6, and all runs have none in common"
    ):
        compare({"a": [long], "b": [apart]})


def test_a_channel_that_some_runs_lack_is_missing_and_never_0():
    def run(method: str, seed: int, end: float, **more: Sequence[float]) -> RunCurves:
        return curves(f"{method}-{seed}", seed, {"c": [0.5, end], **more})

    a = [run("a", i, 0.6 + i / 50, extra=[0.1, 0.2 + i / 50]) for i in range(4)] + [run("a", 4, 0.7)]
    b = [run("b", i, 0.6 + i / 50, only_b=[0.1, 0.3]) for i in range(5)]
    found = compare({"a": a, "b": b, "d": [run("d", i, 0.5, extra=[NAN, 0.9 + i / 50]) for i in range(5)]})
    row = rows_of(found, "last", "b")["extra"]
    assert (row.a, row.b) == (pytest.approx((0.2, 0.22, 0.24, 0.26)), ())
    assert (row.p, row.difference.mean, row.verdict) == (None, None, "missing: no run of b has it")
    assert rows_of(found, "last", "d")["only_b"].verdict == "missing: no run of a and d has it"
    row = rows_of(found, "last", "d")["extra"]  # four of A's runs, five of D's: the seeds that have it differ
    assert (row.test, len(row.a), len(row.b)) == ("unpaired", 4, 5)
    assert row.p == pytest.approx(1 / math.comb(9, 4))
    assert found.groups[0].runs[4].measures["extra"]["auc"] is None
    assert found.groups[0].runs[4].curves["extra"] == (None, None)
    assert rows_of(found, "auc", "d")["extra"].b == pytest.approx([0.9 + i / 50 for i in range(5)])  # not halved
    assert found.worst_of == ("c",)
    assert found.groups[0].runs[0].worst == pytest.approx(found.groups[0].runs[0].measures["c"])
    assert "extra is missing in a-4, b-0, b-1, b-2, b-3, b-4, which are left out of its numbers." in found.notes
    assert "The worst channel is one of those in all runs: c." in found.notes


def test_runs_without_a_common_channel_have_no_worst_one():
    found = compare({"a": seeds("a", [0.1, 0.2]), "b": seeds("b", [0.3, 0.4], "other")})
    assert {row.channel for row in found.rows} == {"c", "other"}
    assert found.groups[0].runs[0].worst is None
    assert "There is no worst channel: no channel is in all runs." in found.notes
    assert "c: mean over runs" in compare_tables.text(found, ("auc",), channels=False)


def test_one_run_a_group_gives_numbers_without_p():
    found = compare({"a": seeds("a", [0.2]), "b": seeds("b", [0.6]), "c": seeds("c", [0.5, 0.7])})
    row = rows_of(found, "last", "b")["c"]
    assert row.difference == st.Interval(pytest.approx(0.4), None, None, 2)
    assert (row.p, row.adjusted, row.test) == (None, None, "")
    assert row.verdict == "no p: one run of a and b, so how seeds differ is unknown"
    assert rows_of(found, "last", "c")["c"].verdict == "no p: one run of a, so how seeds differ is unknown"
    assert any(note.startswith("One run of a, b: numbers without p") for note in found.notes)
    assert found.groups[0].curves["c"].std == (None,) * 5


def test_bands_are_over_runs():
    found = compare({"a": seeds("a", [0.1, 0.3, 0.8]), "b": seeds("b", [0.3, 0.4])}, window=1)
    band = found.groups[0].curves["c"]
    assert (band.mean[-1], band.low[-1], band.high[-1]) == (pytest.approx(0.4), 0.1, 0.8)
    assert band.std[-1] == pytest.approx(np.std([0.1, 0.3, 0.8], ddof=1), abs=1e-6)
    assert band.std[0] == 0
    assert found.groups[0].worst_curve == band  # there is one channel


def test_long_curves_are_thinned_and_keep_their_ends():
    runs = {name: [curves(f"{name}-0", 0, {"c": np.linspace(0, 1, 1001)})] for name in "ab"}
    found = compare(runs)
    assert (found.window, found.count) == (50, 1001)
    assert len(found.steps) == len(found.groups[0].runs[0].curves["c"]) == 200
    assert (found.steps[0], found.steps[-1]) == (1, 1001)
    # Centred, step 1 is the mean of steps 1 to 25 (0.012), trailing it is itself; inside they lie 24.5 steps apart
    assert found.groups[0].runs[0].curves["c"][0] == pytest.approx(0.012)
    trailing = compare(runs, trailing=True).groups[0].runs[0]
    assert trailing.curves["c"][0] == 0
    assert trailing.measures == found.groups[0].runs[0].measures


def test_json_is_plain_and_whole():
    a = [curves(f"a-{i}", i, {"c": [0.1, 0.2 + i / 10], "late": [NAN, 0.5]}) for i in range(2)]
    b = [curves(f"b-{i}", i, {"c": [0.1, 0.6 + i / 10]}) for i in range(2)]
    found = compare({"a": a, "b": b}, notes=["found so"])
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["schema"] == "rvpo.comparison/1"
    assert [group["name"] for group in told["groups"]] == ["a", "b"]
    run = told["groups"][0]["runs"][1]
    assert (run["name"], run["seed"], run["path"], run["curves"]["late"]) == ("a-1", 1, "runs/a-1", [None, 0.5])
    assert set(told["groups"][0]["curves"]["c"]) == {"mean", "low", "high", "std"}
    assert {row["measure"] for row in told["rows"]} == set(MEASURES)
    assert "found so" in told["notes"]
    assert told["scales"] == {"c": [0, 1], "late": [0, 1]}


def test_tables_show_a_measure_or_all_of_them():
    found = compare({"a": seeds("a", [0.1, 0.2]), "b|c": seeds("b", [0.3, 0.4])})
    short = compare_tables.text(found, ("last",), channels=False)
    assert "last: b|c against a" in short
    assert "auc: b|c" not in short
    assert "c: mean over runs" not in short.replace("worst channel: mean over runs", "")
    assert "0.10 0.20" in short  # each run
    everything = compare_tables.text(found, MEASURES, as_markdown=True)
    assert all(f"### {measure}: b|c against a" in everything for measure in MEASURES)
    assert "| b\\|c | 2 | 0.500 |" in everything
    assert "### c: mean over runs" in everything
    assert "\n* p: permutation test" in short
    head, worst, row = compare_tables.tests(found, "last")
    assert (len(head), worst[:2], row[:3]) == (9, ["b|c", "worst channel"], ["b|c", "c", "0.150"])
    assert list(found.groups[0].bands()) == ["worst channel", "c"]
    many = compare({"a": seeds("a", np.linspace(0, 1, 9)), "b": seeds("b", [0.3])})
    assert "0.00 to 1.00" in compare_tables.text(many, ("last",))


def test_what_cannot_be_compared_is_refused():
    one = seeds("a", [0.1, 0.2])
    with pytest.raises(ConfigError, match=r"1 group of runs \(a\), allowed are two or more"):
        compare({"a": one})
    with pytest.raises(ConfigError, match="baseline is 'x', allowed are 'a', 'b'"):
        compare({"a": one, "b": one}, baseline="x")
    with pytest.raises(ConfigError, match="level is 95, allowed is 0 < level < 1"):
        compare({"a": one, "b": one}, level=95)
    with pytest.raises(ConfigError, match="window is 6 steps, allowed is 1 to 5, which all runs have"):
        compare({"a": one, "b": one}, window=6)
    same = [curves("a-0", 0, {"c": [7.0]}, seen={"c": (7.0, 7.0)})]
    with pytest.raises(DataError, match=r"no channel can be compared, .*: c: always 7 and of no declared range"):
        compare({"a": same, "b": same})


# --- folders -----------------------------------------------------------------------------------------------------


def opened(*arguments: str | Path, columns: Columns | None = None) -> Groups:
    return group_runs(find_runs(arguments), columns)


def named(groups: Groups) -> dict[str, list[tuple[str, int | None]]]:
    return {name: [(run.name, run.seed) for run in runs] for name, runs in groups.runs.items()}


@pytest.mark.parametrize(
    ("name", "method", "seed"),
    [
        ("grpo-0", "grpo", 0),
        ("rvpo_k1-12", "rvpo_k1", 12),
        ("gdpo_seed3", "gdpo", 3),
        ("gdpo-seed-3", "gdpo", 3),
        ("gdpo-s4", "gdpo", 4),
        ("2", "parent", 2),
        ("seed-2", "parent", 2),
        ("rvpo-k1", "rvpo-k1", None),
        ("gdpo-lr1e-3", "gdpo-lr1e-3", None),
        ("qwen2.5", "qwen2.5", None),
        ("lift", "lift", None),
    ],
)
def test_seeds_stand_at_the_end_of_a_folders_name(name: str, method: str, seed: int | None):
    assert split_seed(name, "parent") == (method, seed)


def test_a_sweep_in_trls_layout_is_grouped_by_the_names_of_its_folders(tmp_path: Path):
    for method, end in (("grpo", 0.3), ("lift", 0.8)):
        for seed in (0, 10, 2):
            completions(tmp_path / f"{method}-{seed}", {"right": [0.2, end], "form": [0.5, None]})
    (tmp_path / "lift-2.log").write_text("…")
    groups = opened(tmp_path)
    assert named(groups) == {m: [(f"{m}-{seed}", seed) for seed in (0, 2, 10)] for m in ("grpo", "lift")}
    found = compare(groups.runs)
    # Rewards are the means -+ 0.1: seen are 0.1 to 0.9, so 0.8 is (0.8 - 0.1) / 0.8
    assert found.scales["right"] == pytest.approx((0.1, 0.9))
    assert rows_of(found, "last")["right"].b == pytest.approx((0.875,) * 3)
    assert found.groups[0].runs[0].measures["form"]["last"] is None  # not scored at the end
    assert rows_of(found, "last")["form"].verdict == "missing: no run of grpo and lift has it"


def test_plain_tables_are_runs_too(tmp_path: Path):
    for i, end in enumerate((0.3, 0.4, 0.8, 0.9)):
        folder = tmp_path / f"{'ab'[i // 2]}_seed{i % 2}"
        folder.mkdir()
        table = {"global_step": [1, 1, 2, 2], "uid": ["p", "p", "q", "q"], "score_right": [0.0, 1.0, end, end]}
        pq.write_table(pa.table(table), folder / "rollouts.parquet")
    groups = opened(tmp_path, columns=Columns(rewards=("score_right",)))
    assert named(groups) == {"a": [("a_seed0", 0), ("a_seed1", 1)], "b": [("b_seed0", 0), ("b_seed1", 1)]}
    assert rows_of(compare(groups.runs), "last")["score_right"].a == pytest.approx((0.3, 0.4))
    files = [tmp_path / f"{name}_seed0.parquet" for name in "ab"]
    for file in files:
        pq.write_table(pa.table({"step": [1, 2], "prompt": ["p", "q"], "reward/right": [0.0, 1.0]}), file)
    assert named(opened(*files)) == {"a": [("a_seed0", 0)], "b": [("b_seed0", 0)]}


def recipe(name: str, seed: int, method: Any, schedule: Any = None, **more: Any) -> dict[str, Any]:
    rewards = [{"function": "right", "name": "right", "options": more.pop("options", {})}]
    own = {"name": name, "output": f"runs/{name}", "seed": seed, "method": method, "schedule": schedule}
    return (
        own
        | {"data": {"path": "x.jsonl", "shuffle_seed": seed}, "rewards": rewards, "trainer": {"max_steps": 2}}
        | more
    )


def test_recipes_tell_method_and_seed_whatever_the_folders_are_called(tmp_path: Path):
    told = {
        "one": recipe("one", 7, {"name": "gdpo"}),
        "two": recipe("two", 8, {"name": "gdpo"}),
        "k-5": recipe("k-5", 7, {"name": "rvpo"}, 1.0),
        "paper": recipe("paper", 7, {"name": "rvpo"}, {"kind": "linear", "start": 0.5, "end": 2.0}),
        "self": recipe("self", 7, {"name": "rvpo"}, {"kind": "adaptive", "target": 0.4}),
        "up": recipe("up", 8, {"name": "lift", "kappa": 3.0}),
        "unknown": recipe("unknown", 8, {"name": "of-the-future", "x": 1}),
    }
    for folder, values in told.items():
        completions(tmp_path / folder, {"right": [0.2, 0.4]}, recipe=values)
    groups = named(opened(tmp_path))
    assert groups == {
        "gdpo": [("one", 7), ("two", 8)],
        "rvpo k=1": [("k-5", 7)],
        "rvpo k=0.5..2": [("paper", 7)],
        "rvpo k adaptive": [("self", 7)],
        "lift kappa=3": [("up", 8)],
        "of-the-future x=1": [("unknown", 8)],
    }


def test_runs_of_one_method_with_other_settings_are_other_groups(tmp_path: Path):
    for method in ("explicit", "implicit"):
        for seed in (0, 1):
            values = recipe(f"{method}-{seed}", seed, {"name": "grpo"}, options={"aggregation": method})
            completions(tmp_path / f"{method}-{seed}", {"right": [0.2, 0.4]}, recipe=values)
    assert named(opened(tmp_path)) == {
        f"grpo (rewards.0.options.aggregation={m})": [(f"{m}-{seed}", seed) for seed in (0, 1)]
        for m in ("explicit", "implicit")
    }


def test_as_few_settings_as_tell_recipes_apart_are_named(tmp_path: Path):
    for i, (rate, batch) in enumerate(((0.1, 8), (0.1, 16), (0.2, 8), (0.2, 16))):
        settings = {"learning_rate": rate, "same": 1, "batch": batch, "also": batch}
        completions(tmp_path / f"x{i}", {"right": [0.2]}, recipe=recipe(f"x{i}", 0, {"name": "gdpo"}, trainer=settings))
    assert list(opened(tmp_path).runs) == [
        f"gdpo (trainer.learning_rate={rate}, trainer.batch={batch})" for rate in (0.1, 0.2) for batch in (8, 16)
    ]


def test_a_record_without_a_recipe_tells_its_method_and_how_k_moved(tmp_path: Path):
    cells = [(step, i, "right", float(i)) for step in (1, 2) for i in (0, 1)]
    for seed in (0, 1):
        record(tmp_path / f"a-{seed}", cells, [1.0, 1.0])
        record(tmp_path / f"b-{seed}", cells, [0.5, 2.0])
        record(tmp_path / f"other-{seed}", cells, [1.0, 1.0])
    groups = named(opened(tmp_path))
    assert groups == {
        "rvpo k=1 (a)": [("a-0", 0), ("a-1", 1)],
        "rvpo k=0.5..2": [("b-0", 0), ("b-1", 1)],
        "rvpo k=1 (other)": [("other-0", 0), ("other-1", 1)],
    }
    inner = opened(tmp_path / "a-0" / "channels", f"x={tmp_path / 'b-1'}")
    assert named(inner) == {"rvpo k=1": [("a-0", 0)], "x": [("b-1", 1)]}


def test_given_names_come_first_and_say_where_their_runs_differ(tmp_path: Path):
    for seed, rate in enumerate((0.1, 0.2)):
        values = recipe(f"m-{seed}", seed, {"name": "gdpo"}, trainer={"learning_rate": rate})
        completions(tmp_path / f"m-{seed}", {"right": [0.2, 0.4]}, recipe=values)
        completions(tmp_path / "nested" / "up" / str(seed), {"right": [0.2, 0.4]})
    groups = opened(f"mean={tmp_path / 'm-0'},{tmp_path / 'm-1'}", tmp_path / "nested")
    assert named(groups) == {"mean": [("m-0", 0), ("m-1", 1)], "up": [("up/0", 0), ("up/1", 1)]}
    told = "mean: runs differ in more than their seeds; trainer.learning_rate is 0.1 in m-0 and 0.2 in m-1."
    assert groups.notes == (told,)
    apart = opened(tmp_path / "m-0", tmp_path / "m-1")
    assert list(apart.runs) == ["gdpo (trainer.learning_rate=0.1)", "gdpo (trainer.learning_rate=0.2)"]


def test_a_run_that_left_no_logs_is_passed_over_with_a_note(tmp_path: Path):
    completions(tmp_path / "a-0", {"right": [0.2, 0.4]})
    (tmp_path / "a-1").mkdir()
    (tmp_path / "a-1" / "recipe.yaml").write_text("seed: 1\n")
    groups = opened(tmp_path)
    assert named(groups) == {"a": [("a-0", 0)]}
    assert groups.notes == ("without logs, so left out: a-1",)


def test_what_cannot_be_read_or_grouped_is_refused(tmp_path: Path):
    run = completions(tmp_path / "a-0", {"right": [0.2, 0.4]})
    with pytest.raises(ConfigError, match="a-0 is given twice, allowed is once"):
        find_runs([tmp_path, run])
    with pytest.raises(ConfigError, match=r"has no name before =, allowed is NAME=FOLDER"):
        find_runs([f"={run}"])
    with pytest.raises(ConfigError, match="names an empty folder, allowed is NAME=FOLDER,FOLDER"):
        find_runs([f"a={run},"])
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        opened(tmp_path / "nowhere")
    other = completions(tmp_path / "b" / "a-1", {"right": [0.2, 0.4]})
    assert list(opened(run, f"a={other}").runs) == ["a (a)", "a"]
    with pytest.raises(ConfigError, match=r"two groups of runs are both called 'a \(a\)', one of them .*a-0"):
        opened(run, f"a={other}", f"a (a)={completions(tmp_path / 'c', {'right': [0.2]})}")
    (run / "recipe.yaml").write_text("- 1\n")
    with pytest.raises(DataError, match=r"recipe.yaml holds list, allowed is a mapping"):
        opened(run)
    (run / "recipe.yaml").write_text("a: [\n")
    with pytest.raises(DataError, match=r"recipe.yaml cannot be read .* repair or remove it"):
        opened(run)


def test_the_command_prints_and_writes(tmp_path: Path):
    for method, end in (("a", 0.3), ("b", 0.8)):
        for seed in range(2):
            completions(tmp_path / "runs" / f"{method}-{seed}", {"right": [0.2, end], "form": [0.5, 0.5]})
    app = typer.Typer()
    app.command()(command)
    told = CliRunner().invoke(
        app,
        [
            *(str(tmp_path / "runs"), "--measure", "last", "--rewards", "right, form", "--baseline", "b"),
            *(
                "--steps",
                ":1",
                "--markdown",
                str(tmp_path / "out" / "c.md"),
                "--json",
                str(tmp_path / "out" / "c.json"),
            ),
        ],
    )
    assert told.exit_code == 0, told.output
    assert "last: a against b" in told.output
    assert "auc: a against b" not in told.output
    assert "### drop: a against b" in (tmp_path / "out" / "c.md").read_text()
    written = json.loads((tmp_path / "out" / "c.json").read_text())
    assert (written["baseline"], written["last"]) == ("b", 1)
    everything = CliRunner().invoke(app, [str(tmp_path / "runs"), "--all"])
    assert "drop: b against a" in everything.output
    assert "form: mean over runs" in everything.output
    failed = CliRunner().invoke(app, [str(tmp_path / "runs"), "--json", str(tmp_path)])
    assert isinstance(failed.exception, ConfigError)
    assert str(failed.exception).startswith(f"{tmp_path} cannot be written")
