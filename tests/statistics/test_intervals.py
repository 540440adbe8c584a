"""Intervals and tests of evaluations: by hand, against slow loops, against scipy's own, and their symmetries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from rvpo.statistics import (
    Interval,
    alike,
    difference_interval,
    holm,
    mcnemar,
    mean_interval,
    needed_items,
    over_seeds,
    paired,
    rescaled,
    sign_flip,
)

NAN = math.nan
T19 = 2.093024  # 97.5% quantile of t with 19 degrees of freedom, from a table


def ids(n: int) -> list[str]:
    return [f"item {i:04d}" for i in range(n)]


def skewed(n: int, seed: int = 0) -> np.ndarray:
    """Scores like HealthBench's: up to 1, some far below 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < 0.1, -rng.exponential(1.0, n), rng.beta(2, 3, n))


# --- means -------------------------------------------------------------------------------------------------------


def test_no_and_one_item():
    assert mean_interval([], []) == Interval(None, None, None, 0)
    assert mean_interval([None, NAN], ["a", "b"]) == Interval(None, None, None, 0)
    assert mean_interval([0.25, None], ["a", "b"]) == Interval(0.25, None, None, 1)
    assert mean_interval([0.25, 0.75], ["a", "a"]) == Interval(0.5, None, None, 1)
    assert mean_interval([0.25, 0.75], ["a", "b"], weights=[0, 0]) == Interval(None, None, None, 2)


def test_epochs_are_averaged_before_items():
    # Item a has the mean 0.5 of its two scored epochs, b has 1: 0.75, though three of four scores are 1
    found = mean_interval([1, 0, None, 1], ["a", "a", "a", "b"])
    assert found.mean == pytest.approx(0.75)
    assert found.items == 2


def test_wilson_by_hand():
    # 15 of 20: v = 0.75 * 0.25 / 19 (ddof 1), so n* = 19, and Wilson's formula with t instead of z
    x = [1.0] * 15 + [0.0] * 5
    z2 = T19**2
    centre = (0.75 + z2 / 38) / (1 + z2 / 19)
    half = math.sqrt(z2) / (1 + z2 / 19) * math.sqrt(0.75 * 0.25 / 19 + z2 / (4 * 19**2))
    found = mean_interval(x, ids(20))
    assert (found.mean, found.low, found.high) == pytest.approx((0.75, centre - half, centre + half), abs=1e-6)


def test_all_met_is_not_certain():
    # Wilson at p = 1 and n = 20: low = 1 / (1 + t^2 / 20)
    found = mean_interval([1.0] * 20, ids(20))
    assert found.high == 1
    assert found.low == pytest.approx(1 / (1 + T19**2 / 20), abs=1e-6)
    none = mean_interval([0.0] * 20, ids(20))
    assert (none.low, none.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_epochs_narrow_the_interval_by_what_they_agree():
    # 20 items that are met in 2 of 4 epochs each do not differ; 10 always and 10 never met have the variance of 0/1
    alike = mean_interval([1, 1, 0, 0] * 20, [i for i in ids(20) for _ in range(4)])
    apart = mean_interval([1, 1, 1, 1] * 10 + [0] * 40, [i for i in ids(20) for _ in range(4)])
    assert alike.mean == apart.mean == 0.5
    assert alike.high - alike.low < apart.high - apart.low
    assert (apart.low, apart.high) == pytest.approx(
        [getattr(mean_interval([1] * 10 + [0] * 10, ids(20)), end) for end in ("low", "high")]
    )


def test_strata_with_one_kind_of_item_each_are_not_certain():
    # A model that calls no tool: all of "irrelevance" right, all of "simple" wrong. Within strata nothing varies.
    found = mean_interval([1.0] * 20 + [0.0] * 20, ids(40), strata=["irrelevance"] * 20 + ["simple"] * 20)
    # All 20 right is between 1 / (1 + t^2 / 20) and 1, and counts for a half; all wrong is its mirror image
    low = 1 / (1 + stats.t.ppf(0.975, 38) ** 2 / 20)
    assert (found.low, found.mean, found.high) == pytest.approx((0.5 - (1 - low) / 2, 0.5, 0.5 + (1 - low) / 2))


def test_strata_by_hand():
    # Strata of 10 and 5 items, each with the same share of the mean; ends add up in squares around it
    x, kinds = [1.0] * 5 + [0.0] * 5 + [1.0] * 4 + [0.0], ["a"] * 10 + ["b"] * 5
    ends = []
    for mean, n in ((0.5, 10), (0.8, 5)):  # Wilson at n - 1, for the variance has ddof 1
        z2 = stats.t.ppf(0.975, 13) ** 2 / (n - 1)
        half = math.sqrt(z2 * mean * (1 - mean) + z2 * z2 / 4) / (1 + z2)
        ends.append(((mean + z2 / 2) / (1 + z2) - half - mean, (mean + z2 / 2) / (1 + z2) + half - mean))
    below, above = (math.hypot(ends[0][i] / 2, ends[1][i] / 2) for i in (0, 1))
    found = mean_interval(x, ids(15), weights=[1.0] * 10 + [2.0] * 5, strata=kinds)
    assert (found.low, found.mean, found.high) == pytest.approx((0.65 - below, 0.65, 0.65 + above))


def test_a_stratum_of_one_item_counts():
    found = mean_interval([1.0, 1.0, 1.0, 0.0], ids(4), weights=[1, 1, 1, 3], strata=["a", "a", "a", "b"])
    assert found.mean == 0.5
    assert found.high > 0.8


def test_bootstrap_against_loops():
    # The same expanded quantiles of 2,000 resamples drawn one by one; both are random, so within Monte Carlo error
    x, n = skewed(30), 30
    rng = np.random.default_rng(1)
    means = sorted(sum(x[rng.integers(n)] for _ in range(n)) / n for _ in range(2000))
    outside = stats.norm.cdf(-stats.t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1)))
    found = mean_interval(x, ids(n))
    width = found.high - found.low
    assert found.mean == pytest.approx(sum(x) / n)
    assert found.low == pytest.approx(means[round(outside * 2000)], abs=0.08 * width)
    assert found.high == pytest.approx(means[round((1 - outside) * 2000) - 1], abs=0.08 * width)


@pytest.mark.parametrize("steps", [2, 10_000])
def test_bootstrap_against_scipy_for_many_items(steps: int):
    # With many items the expansion vanishes, and scipy's percentile interval is the same, whether values repeat or not
    x = np.round(skewed(400) * steps) / steps
    theirs = stats.bootstrap((x,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    found = mean_interval(x, ids(400))
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_bootstrap_is_as_wide_as_students_t_on_symmetric_data():
    # The plain percentile interval would be 18% narrower
    x = stats.norm.ppf((np.arange(10) + 0.5) / 10)
    found = mean_interval(x, ids(10), resamples=200_000)
    half = stats.t.ppf(0.975, 9) * x.std(ddof=1) / math.sqrt(10)
    assert (found.low, found.high) == pytest.approx((-half, half), rel=0.03)


def test_chunks_of_resamples_are_all_drawn(monkeypatch: pytest.MonkeyPatch):
    x = skewed(50)
    whole = mean_interval(x, ids(50), resamples=1000)
    monkeypatch.setattr("rvpo.statistics.base.CELLS", 350)  # 7 resamples at a time
    assert mean_interval(x, ids(50), resamples=1000) == whole


def test_weights_and_strata_of_a_bootstrap():
    # Two strata whose items are nearly alike: resampling within them hardly moves the mean, resampling over them does
    x, kinds = np.repeat([3.0, -1.0], 10) + np.tile([-0.01, 0.01], 10), ["a"] * 10 + ["b"] * 10
    weights = [3.0] * 10 + [1.0] * 10
    fixed = mean_interval(x, ids(20), weights=weights, strata=kinds)
    assert fixed.mean == pytest.approx(2.0)  # (30 * 3 - 10) / 40
    assert 1.99 < fixed.low < 2.0 < fixed.high < 2.01
    free = mean_interval(x, ids(20), weights=weights)
    assert free.low < 1.5 < 2.3 < free.high


def test_scores_that_happen_to_lie_in_0_to_1_are_no_accuracies():
    # As of a rubric without a negative one: the bootstrap, and the same as with all scores moved by 2
    x = np.linspace(0.1, 0.9, 8)
    found, moved = (mean_interval(v, ids(8)) for v in (x, x - 2))
    assert (found.mean, found.low, found.high) == pytest.approx((moved.mean + 2, moved.low + 2, moved.high + 2))
    assert found != mean_interval(x, ids(8), binary=True)


def test_accuracies_are_told_by_their_rows_before_epochs_are_averaged():
    # Means of 1/2 of 0/1 are accuracies, scores of 1/2 are not; who has only the means can say what they are
    pairs = mean_interval([1, 0] * 8, [i for i in ids(8) for _ in range(2)])
    assert pairs == mean_interval([0.5] * 8, ids(8), binary=True)
    assert pairs.low < 0.5 < pairs.high
    assert mean_interval([0.5] * 8, ids(8)) == Interval(0.5, None, None, 8)
    assert mean_interval([1.0] * 8, ids(8), binary=False) == Interval(1.0, None, None, 8)


@pytest.mark.parametrize("value", [-0.5, 0.1, 3.0])
def test_no_interval_where_nothing_varies(value: float):
    assert mean_interval([value] * 8, ids(8)) == Interval(pytest.approx(value), None, None, 8)
    # The mean of three epochs of 0.1 is 0.10000000000000002, that of one is 0.1: rounding is no variation
    several = [i for number, i in enumerate(ids(20)) for _ in range(1 + 2 * (number % 2))]
    assert mean_interval([value] * 40, several) == Interval(pytest.approx(value), None, None, 20)


def test_few_scores_that_deviate_have_students_interval():
    # 18 times full marks and twice none: s^2 = 20/19 * 0.9 * 0.1 * 9
    x = [3.0] * 18 + [0.0] * 2
    half = T19 * 3 * math.sqrt(0.9 * 0.1 / 19)
    found = mean_interval(x, ids(20))
    assert (found.mean, found.low, found.high) == pytest.approx((2.7, 2.7 - half, 2.7 + half), abs=1e-6)
    theirs = stats.ttest_1samp([0.2, 0.4, -0.3], 0).confidence_interval()
    found = mean_interval([0.2, 0.4, -0.3], ids(3))
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_students_interval_within_strata_by_hand():
    # Shares 1/2 each; 4 items with the variance 1/4 and 5 that are alike: (1/2)^2 * (1/4) / 4, 9 - 2 degrees of freedom
    x, kinds = [2.0, 2.0, 2.0, 3.0] + [-1.0] * 5, ["a"] * 4 + ["b"] * 5
    found = mean_interval(x, ids(9), weights=[1 / 4] * 4 + [1 / 5] * 5, strata=kinds)
    half = stats.t.ppf(0.975, 7) / 8
    assert (found.mean, found.low, found.high) == pytest.approx((0.625, 0.625 - half, 0.625 + half))
    assert mean_interval([2.0] * 4 + [-1.0] * 5, ids(9), strata=kinds).low is None


def test_values_that_repeat_are_resampled_as_others_are():
    # A millionth of noise takes the values apart, and with it the way in which they are drawn
    x, weights, kinds = np.round(skewed(400) * 2) / 2, [1.0, 3.0] * 200, ["a"] * 300 + ["b"] * 100
    apart = x + 1e-6 * np.random.default_rng(0).normal(size=400)
    one, other = (mean_interval(v, ids(400), weights=weights, strata=kinds, resamples=40_000) for v in (x, apart))
    assert (one.low, one.mean, one.high) == pytest.approx((other.low, other.mean, other.high), abs=0.004)


def test_a_weight_of_two_is_two_items_in_the_mean():
    x = skewed(20)
    doubled = np.concatenate([x, x[:5]])
    assert mean_interval(x, ids(20), weights=[2.0] * 5 + [1.0] * 15).mean == pytest.approx(doubled.mean())


@given(some.lists(some.floats(-2, 1), min_size=2, max_size=12), some.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_does_not_matter(values: list[float], random):
    rows = list(zip(values, ids(len(values)), range(len(values)), ["a", "b"] * len(values), strict=False))
    shuffled = random.sample(rows, len(rows))
    one, other = (
        mean_interval(x, i, weights=[1 + w for w in weights], strata=kinds, resamples=200)
        for x, i, weights, kinds in (zip(*rows, strict=True), zip(*shuffled, strict=True))
    )
    assert one == other


@given(some.lists(some.floats(-1, 1), min_size=2, max_size=20))
@settings(max_examples=40, deadline=None)
def test_an_interval_holds_its_mean(values: list[float]):
    mean = mean_interval(values, ids(len(values)), resamples=500)
    # Where none is given, all are alike: a constant, but for rounding
    assert mean.low is not None or np.ptp(values) <= 1e-12
    for found in (mean, difference_interval(values, resamples=500)):
        if found.low is not None:
            assert found.low <= found.mean + 1e-9
            assert found.mean - 1e-9 <= found.high


# --- what is missing ---------------------------------------------------------------------------------------------


def test_a_category_keeps_its_share_where_items_are_missing():
    # Two categories of four that count 1/4 and 3/4. Of the first, one item is left, and stands for all four of it.
    values, kinds = [1.0, None, NAN, None, 0.0, 0.0, 1.0, 0.0], ["a"] * 4 + ["b"] * 4
    weights = [1 / 16] * 4 + [3 / 16] * 4
    found = mean_interval(values, ids(8), weights=weights, strata=kinds)
    assert found.mean == pytest.approx(1 / 4 * 1 + 3 / 4 * 1 / 4)
    assert found.items == 5
    kept = [0, 4, 5, 6, 7]
    same = mean_interval(
        [values[i] for i in kept], [ids(8)[i] for i in kept], weights=[1 / 4] + [3 / 16] * 4, strata=["a"] + ["b"] * 4
    )
    assert (found.low, found.high) == pytest.approx((same.low, same.high))
    # Without a reply there is no weight: it is that of the category's others
    unknown = [None if value is None else weight for value, weight in zip(values, weights, strict=True)]
    assert mean_interval(values, ids(8), weights=unknown, strata=kinds) == found
    # Without strata nothing stands for what is missing
    assert mean_interval(values, ids(8), weights=weights).mean == pytest.approx((1 / 16 + 3 / 16) / (1 / 16 + 12 / 16))


def test_a_category_of_which_nothing_is_left_leaves_no_mean():
    values, kinds = [None, None, 1.0, 0.0], ["a", "a", "b", "b"]
    for weights in ([1.0] * 4, [None, None, 1.0, 1.0], [NAN, 2.0, 1.0, 1.0]):
        assert mean_interval(values, ids(4), weights=weights, strata=kinds) == Interval(None, None, None, 2)
    # Unless it counts for nothing
    assert mean_interval(values, ids(4), weights=[0.0, 0.0, 1.0, 1.0], strata=kinds).mean == 0.5


def test_an_epoch_that_is_missing_takes_no_share():
    # Item a has one of two epochs left, b both: they count the same
    found = mean_interval([1, None, 0, 0], ["a", "a", "b", "b"], weights=[2.0, None, 2.0, 2.0], strata=["k"] * 4)
    assert found.mean == 0.5


def test_rescaled_by_hand():
    kinds, scored = ["a", "a", "b", "b", "b"], [True, False, True, True, False]
    # a: (1 + 3) on the first; b: the unknown one is as the others, so 3 * 2 on two of them
    assert rescaled([1, 3, 2, 2, NAN], kinds, scored) == pytest.approx([4, 3, 3])
    assert rescaled([1, 3, 2, 2, 5], kinds, [True] * 5) == pytest.approx([1, 3, 2, 2, 5])
    assert rescaled([1, 3, 2, 2, 5], kinds, [False, False, True, True, True]) is None


@given(some.lists(some.tuples(some.sampled_from("ab"), some.floats(0.1, 3), some.booleans()), min_size=1, max_size=12))
def test_rescaled_keeps_the_sum_of_each_stratum(rows: list[tuple[str, float, bool]]):
    kinds, weights, scored = zip(*rows, strict=True)
    found = rescaled(weights, kinds, scored)
    left = {kind for kind, _, kept in rows if kept}
    if left != set(kinds):
        assert found is None
        return
    assert found is not None
    for kind in left:
        own = sum(w for w, k in zip(found, (k for k, _, kept in rows if kept), strict=True) if k == kind)
        assert own == pytest.approx(sum(weight for k, weight, _ in rows if k == kind))


# --- paired differences ------------------------------------------------------------------------------------------


def test_few_differing_items_by_hand():
    # n = 20, two won, none lost. Bonett and Price: (2 + 1) / 22 - (0 + 1) / 22 around which
    # sqrt((3/22 + 1/22 - (2/22)^2) / 22) is the standard error
    d = [1.0, 1.0] + [0.0] * 18
    error = math.sqrt((4 / 22 - (2 / 22) ** 2) / 22)
    half = stats.t.ppf(0.975, 21) * error
    found = difference_interval(d)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 2 / 22 - half, 2 / 22 + half))


def test_equal_runs_are_not_certainly_equal():
    found = difference_interval([0.0] * 50)
    assert found.mean == 0
    assert -found.low == pytest.approx(found.high)
    assert found.high > 0.03


def test_differences_that_are_all_alike_by_hand():
    # 20 of 20 won: with one more won and one more lost, 20/22 around which sqrt((22/22 - (20/22)^2) / 22)
    found = difference_interval([1.0] * 20)
    half = stats.t.ppf(0.975, 21) * math.sqrt((1 - (20 / 22) ** 2) / 22)
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 20 / 22 - half, 20 / 22 + half))
    # A difference of 0.02 at every item is one of that size
    small = difference_interval([0.02] * 20)
    assert (small.mean, small.low, small.high) == pytest.approx([0.02 * end for end in (1, found.low, found.high)])
    # Within strata nothing varies either
    apart = difference_interval([1.0] * 20 + [-1.0] * 20, strata=["a"] * 20 + ["b"] * 20)
    assert apart.low < -0.05 < 0.05 < apart.high


def test_difference_interval_of_many_is_the_bootstrap_of_the_mean():
    d = skewed(60) - skewed(60, 1)
    assert difference_interval(d, seed=3) == mean_interval(d, ids(60), seed=3)
    assert difference_interval(d[:1]) == Interval(pytest.approx(d[0]), None, None, 1)


def test_sign_flip_by_hand():
    # |1 + 2 + 4| = 7 is reached by all plus and all minus: 2 of 8
    assert sign_flip([1, 2, 4]) == pytest.approx(2 / 8)
    # |1 + 2 - 1| = 2: sums are 4, 2, 2, 0 and their negatives, so 6 of 8; zeros change nothing
    assert sign_flip([1, 0, 2, -1, 0]) == pytest.approx(6 / 8)
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([]) == 1.0


def test_ties_by_rounding_are_ties():
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floating point; every sum is at least as extreme as 0
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0


def test_rounding_is_no_difference():
    # Three runs of 0.1 have the mean 0.10000000000000002
    b, a = np.full((3, 20), 0.1), np.full(20, 0.1)
    assert (b.mean(0) - a != 0).all()
    assert (paired(b, a) == 0).all()
    assert sign_flip(paired(b, a)) == 1.0
    # The scale is that of the largest score
    assert paired([1e6, 0.5], [1e6, 0.5 + 1e-7]).tolist() == [0, 0]
    assert paired([1.0, 0.5], [1.0, 0.5 + 1e-7])[1] == pytest.approx(-1e-7)
    assert paired([[0.25, 1], [0.75, 1]], [[0.0, 0.5]]).tolist() == [0.5, 0.5]
    assert alike([0.1, 0.10000000000000002])
    assert not alike([0.1, 0.1000001])
    assert needed_items([0.1, 0.10000000000000002], 0.1) is None


def test_sign_flip_against_loops():
    d, w = skewed(9) - 0.2, np.linspace(0.5, 2, 9)
    extreme = sum(
        abs(sum(s * wi * di for s, wi, di in zip(signs, w, d, strict=True))) >= abs(sum(w * d)) - 1e-12
        for signs in itertools.product((1, -1), repeat=9)
    )
    assert sign_flip(d, weights=w) == pytest.approx(extreme / 2**9)


@pytest.mark.parametrize("n", [8, 40])
def test_sign_flip_against_scipy(n: int):
    a, b = skewed(n), skewed(n, 5) + 0.1
    theirs = stats.permutation_test(
        (b, a), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    )
    assert sign_flip(b - a) == pytest.approx(theirs.pvalue, abs=1e-12 if n == 8 else 0.02)


def test_random_signs_are_those_of_all_signs(monkeypatch: pytest.MonkeyPatch):
    d = skewed(14) - 0.1
    exact = sign_flip(d)
    monkeypatch.setattr("rvpo.statistics.pvalues.EXACT", 0)
    drawn = sign_flip(d, resamples=40_000)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40_000))
    monkeypatch.setattr("rvpo.statistics.base.CELLS", 14 * 8)
    assert sign_flip(d, resamples=4_001) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4_001))


def test_a_p_value_of_random_signs_is_never_0():
    assert sign_flip(np.linspace(1, 2, 40), resamples=999) == 1 / 1000


@given(some.lists(some.floats(-1, 1), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_sign_flip_does_not_care_which_is_first_nor_for_order(d: list[float]):
    p = sign_flip(d, resamples=500)
    assert 0 < p <= 1
    assert sign_flip(d[::-1], resamples=500) == p
    if np.count_nonzero(d) <= 14:
        assert sign_flip([-x for x in d], resamples=500) == p


def test_mcnemar_by_hand():
    # 8 won and 2 lost: 2 * P(at most 2 heads of 10) = 2 * (1 + 10 + 45) / 1024
    a, b = [0] * 8 + [1] * 2 + [1] * 30, [1] * 8 + [0] * 2 + [1] * 30
    assert mcnemar(a, b) == pytest.approx(2 * 56 / 1024)
    assert mcnemar(b, a) == pytest.approx(2 * 56 / 1024)
    assert mcnemar([0, 1], [0, 1]) == 1.0


@given(some.lists(some.tuples(some.integers(0, 1), some.integers(0, 1)), min_size=1, max_size=14))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_sign_flip_with_all_signs(pairs: list[tuple[int, int]]):
    a, b = np.array(pairs).T
    assert mcnemar(a, b) == pytest.approx(sign_flip(b - a))


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, and none below the one before
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(some.lists(some.floats(0, 1), min_size=1, max_size=8))
def test_holm_finds_what_stepping_down_finds(p: list[float]):
    # The procedure as Holm states it: go on while p_(i) <= 0.05 / (m - i)
    found: set[int] = set()
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - rank) > 0.05:
            break
        found.add(i)
    assert {i for i, q in enumerate(holm(p)) if q <= 0.05} == found


# --- how many items ----------------------------------------------------------------------------------------------


def test_needed_items_by_hand():
    # s^2 = 1 (ddof 1) and delta = 0.1: (1.959964 + 0.841621)^2 / 0.01 + 1.959964^2 / 2 = 784.9 + 1.9
    d = np.array([-1.0, 1.0] * 50)
    d *= math.sqrt(99 / 100)
    assert needed_items(d, 0.1) == math.ceil(784.888 + 1.921)
    # at 0.05 / 7: (2.690110 + 0.841621)^2 * 100 + 2.690110^2 / 2
    assert needed_items(d, 0.1, level=0.05 / 7) == math.ceil(1247.31 + 3.62)


def test_needed_items_takes_the_observed_difference():
    d = skewed(80)
    assert needed_items(d) == needed_items(d, float(d.mean()))
    assert needed_items(d) == needed_items(-d)


def test_no_number_can_be_told():
    assert needed_items([0.5]) is None
    assert needed_items([0.0] * 9, 0.02) is None
    assert needed_items([1.0, -1.0]) is None  # a difference of 0
    # Seeds alone have a standard error of 0.1: no number of items tells 0.2 at 80% power, as 0.2 < 2.80 * 0.1
    assert needed_items(skewed(50), 0.2, seed_variance=0.01) is None
    assert needed_items(skewed(50), 0.3, seed_variance=0.01) > needed_items(skewed(50), 0.3)


def test_equal_weights_change_nothing_and_unequal_ones_cost():
    d = skewed(100)
    assert needed_items(d, 0.1, weights=[7.0] * 100) == needed_items(d, 0.1)
    assert needed_items(d, 0.1, weights=[10.0] * 20 + [1.0] * 80) > needed_items(d, 0.1)


# --- over seeds --------------------------------------------------------------------------------------------------


def reference_over_seeds(b: np.ndarray, a: np.ndarray) -> tuple[float, float, float]:
    """Return difference, squared standard error and degrees of freedom, by loops over mean squares."""
    n = b.shape[1]
    d = [sum(b[:, i]) / len(b) - sum(a[:, i]) / len(a) for i in range(n)]
    mean = sum(d) / n
    items = sum((x - mean) ** 2 for x in d) / (n - 1) / n
    total, spread = items, items**2 / (n - 1)
    for x in (b, a):
        r, grand = len(x), x.sum() / x.size
        rows, columns = [sum(row) / n for row in x], [sum(column) / r for column in x.T]
        ms_runs = n * sum((row - grand) ** 2 for row in rows) / (r - 1)
        ms_error = sum((x[j, i] - rows[j] - columns[i] + grand) ** 2 for j in range(r) for i in range(n)) / (
            (r - 1) * (n - 1)
        )
        total += max(0.0, (ms_runs - ms_error) / (r * n))
        spread += (ms_runs / (r * n)) ** 2 / (r - 1)
    return mean, total, max(total**2 / spread, min(len(b), len(a)) - 1)


@pytest.mark.parametrize("apart", [0.0, 0.3])
def test_over_seeds_against_loops(apart: float):
    rng = np.random.default_rng(4)
    b = rng.normal(0.2, 1, (3, 15)) + apart * rng.normal(size=(3, 1))
    a = rng.normal(0.0, 1, (2, 15)) + apart * rng.normal(size=(2, 1))
    mean, variance, df = reference_over_seeds(b, a)
    found = over_seeds(b, a)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert (found.interval.mean, found.interval.low, found.interval.high) == pytest.approx(
        (mean, mean - half, mean + half)
    )
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / math.sqrt(variance), df))
    back = over_seeds(a, b)
    assert (back.p, back.interval.mean) == pytest.approx((found.p, -mean))


def test_seeds_that_differ_widen_what_items_alone_say():
    rng = np.random.default_rng(0)
    item = rng.normal(size=200)
    b = item + np.array([[0.5], [-0.5], [0.0]]) + 0.1 * rng.normal(size=(3, 200)) + 0.2
    a = item + 0.1 * rng.normal(size=(3, 200))
    assert sign_flip(b.mean(0) - a.mean(0)) < 0.001  # these checkpoints differ
    assert over_seeds(b, a).p > 0.3  # the methods need not
    assert over_seeds(b, a).seed_variance == pytest.approx(0.25 / 3, rel=0.05)


def test_equal_runs_over_seeds():
    x = np.ones((2, 5))
    assert over_seeds(x, x).p == 1.0
    assert over_seeds(x).interval == Interval(1.0, None, None, 5)


def test_rounding_is_no_finding_over_seeds():
    b, a = np.full((3, 20), 0.1), np.full((2, 20), 0.1)
    found = over_seeds(b, a)
    assert (found.p, found.interval) == (1.0, Interval(0.0, None, None, 20))
    # Items that differ, runs that do not: of a difference of rounding alone nothing is left either
    spread = np.tile(np.linspace(0.1, 0.9, 20), (3, 1))
    assert over_seeds(spread, spread[:2]).p == 1.0
    # A real difference that is everywhere the same has p from the signs of 5 items, 2 / 2^5, and no interval
    found = over_seeds(np.full((3, 5), 0.3), np.full((2, 5), 0.1))
    assert found.p == 2 / 32
    assert found.interval == Interval(pytest.approx(0.2), None, None, 5)
