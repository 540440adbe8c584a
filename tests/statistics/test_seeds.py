"""Statistics of runs, one number each: by hand, by loops, and as scipy computes them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from rvpo import statistics as st


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
