"""Scores from verdicts: worked by hand, against a loop, and what a missing verdict does."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvpo.errors import ConfigError, RewardError
from rvpo.rewards.rubric import Criterion, Rubric
from rvpo.rewards.rubric.scores import (
    RAR_CATEGORY_WEIGHTS,
    benchmark_score,
    channel_weights,
    example_score,
    explicit_score,
    tag_scores,
)

Verdicts = Sequence[float | None]


def points(*values: float) -> Rubric:
    return Rubric(tuple(Criterion(f"c{i}", "t", value) for i, value in enumerate(values)))


def categories(*values: str | None, **fields: float) -> Rubric:
    return Rubric(tuple(Criterion(f"c{i}", "t", category=value, **fields) for i, value in enumerate(values)))


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_by_points_have_mean_1():
    # |5|, |-2|, |1|, |4|: sum 12, mean 3
    assert channel_weights(points(5, -2, 1, 4)) == pytest.approx([5 / 3, 2 / 3, 1 / 3, 4 / 3])


def test_uniform_weights_are_exactly_1():
    assert channel_weights(points(5, -2, 1), "uniform") == [1.0, 1.0, 1.0]


def test_weights_by_category_have_mean_1():
    # 1.0, 0.7, 0.3, 0.9: sum 2.9, mean 0.725
    rubric = categories("essential", "important", "optional", "pitfall")
    expected = [1.0 / 0.725, 0.7 / 0.725, 0.3 / 0.725, 0.9 / 0.725]
    assert channel_weights(rubric, RAR_CATEGORY_WEIGHTS) == pytest.approx(expected)


def test_a_category_may_weigh_nothing():
    assert channel_weights(categories("x", "y"), {"x": 3.0, "y": 0}) == [2.0, 0.0]


@given(st.lists(st.floats(1e-300, 1e308) | st.floats(-1e308, -1e-300), min_size=1, max_size=20))
def test_weights_have_mean_1_at_any_scale(values: list[float]):
    weights = channel_weights(points(*values))
    assert statistics.fmean(weights) == pytest.approx(1)
    assert min(weights) >= 0


@pytest.mark.parametrize(
    ("weighting", "message"),
    [
        ("point", "weighting is 'point'; expected 'uniform', 'points' or a mapping"),
        (None, "weighting is None"),
        ({"x": 1.0}, "no weight for the category 'y' of criterion 'c1'; it has 'x'. Add the category"),
        ({"x": 1.0, "y": -1.0}, "the weight of 'y' is -1.0; expected a finite number of at least 0"),
        ({"x": 1.0, "y": math.inf}, "the weight of 'y' is inf"),
        ({"x": 1.0, "y": math.nan}, "the weight of 'y' is nan"),
        ({"x": 1.0, "y": True}, "the weight of 'y' is True"),
        ({"x": 0, "y": 0}, "gives every criterion of a rubric the weight 0"),
    ],
)
def test_weightings_that_cannot_work(weighting: object, message: str):
    with pytest.raises(ConfigError, match=message):
        channel_weights(categories("x", "y"), weighting)  # type: ignore[arg-type]


def test_a_criterion_without_category_has_no_weight_by_category():
    with pytest.raises(ConfigError, match="no weight for the category None of criterion 'c0'"):
        channel_weights(categories(None), {"x": 1.0})


# --- the explicit score -----------------------------------------------------------------------------------------------


def test_explicit_score_by_hand():
    # (5*1 + 3*0 + 2*1) / (5 + 3 + 2)
    assert explicit_score(points(5, 3, 2), [1, 0, 1]) == pytest.approx(0.7)
    assert explicit_score(points(5, 3, 2), [1, 0, 1], "uniform") == pytest.approx(2 / 3)
    assert explicit_score(points(5, 3, 2), [0.5, 0, 1]) == pytest.approx(0.45)


def test_explicit_score_turns_round_what_is_bad():
    rubric = points(4, -1)
    assert explicit_score(rubric, [1, 0]) == pytest.approx(1.0)
    assert explicit_score(rubric, [1, 1]) == pytest.approx(0.8)
    assert explicit_score(rubric, [0, 1]) == 0.0


def test_explicit_score_with_the_papers_weights():
    # All verdicts there, all good when met: equation 1, (1.0*1 + 0.7*1 + 0.3*0 + 0.9*1) / 2.9
    rubric = categories("essential", "important", "optional", "pitfall", points=-1.0)
    rubric = Rubric(tuple(Criterion(c.id, c.text, -1.0, "good", c.category) for c in rubric.criteria))
    assert explicit_score(rubric, [1, 1, 0, 1], RAR_CATEGORY_WEIGHTS) == pytest.approx(2.6 / 2.9)


def test_a_missing_verdict_leaves_both_sums():
    assert explicit_score(points(5, 3, 2), [1, None, 0]) == pytest.approx(5 / 7)
    # "Not met" would have been a gain for the pitfall: (0 + 4) / 8 instead of 0 / 4.
    assert explicit_score(points(4, -4), [0, None]) == 0.0
    assert explicit_score(points(4, -4), [None, None]) is None


def test_no_score_where_only_weightless_criteria_were_judged():
    assert explicit_score(categories("x", "y"), [None, 1], {"x": 1.0, "y": 0.0}) is None


# --- HealthBench ------------------------------------------------------------------------------------------------------


def test_example_score_by_hand():
    rubric = points(10, 5, -8)
    assert example_score(rubric, [1, 0, 0]) == pytest.approx(10 / 15)
    assert example_score(rubric, [1, 1, 0]) == 1.0
    assert example_score(rubric, [0, 1, 1]) == pytest.approx(-3 / 15)
    assert example_score(rubric, [0.5, 0, 0]) == pytest.approx(5 / 15)


def test_example_score_without_positive_points():
    assert example_score(points(-8, -2), [1, 0]) is None


def test_example_score_reads_the_sign_of_the_points_not_the_polarity():
    rubric = Rubric((Criterion("a", "t", 4), Criterion("b", "t", -1, polarity="good")))
    assert example_score(rubric, [1, 1]) == pytest.approx(3 / 4)


def test_a_missing_verdict_is_never_not_met():
    rubric = points(10, 5, -8)
    assert example_score(rubric, [1, 0, None]) is None
    assert example_score(rubric, [1, 0, None], partial=True) == pytest.approx(10 / 15)
    assert example_score(rubric, [1, None, 1], partial=True) == pytest.approx(2 / 10)
    assert example_score(rubric, [None, None, 1], partial=True) is None


TAGGED = Rubric(
    (
        Criterion("a", "t", 4, tags=("axis:accuracy", "level:example")),
        Criterion("b", "t", 6, tags=("axis:accuracy",)),
        Criterion("c", "t", -3, tags=("axis:completeness", "level:example")),
        Criterion("d", "t", -2, tags=("axis:accuracy", "axis:accuracy")),
    )
)


def test_tag_scores_by_hand():
    # accuracy: (4 - 2) / (4 + 6); level: (4 - 3) / 4; completeness has no positive points
    expected = {"axis:accuracy": 0.2, "level:example": 0.25}
    assert tag_scores(TAGGED, [1, 0, 1, 1]) == pytest.approx(expected)


def test_a_missing_verdict_takes_only_its_own_tags():
    assert tag_scores(TAGGED, [1, None, 1, 1]) == {"axis:accuracy": None, "level:example": 0.25}
    assert tag_scores(TAGGED, [1, None, 1, 1], partial=True) == {"axis:accuracy": 0.5, "level:example": 0.25}
    assert tag_scores(TAGGED, [None, 1, 1, 1], partial=True)["level:example"] is None


def loop(rubric: Rubric, verdicts: Verdicts, tag: str | None = None) -> float | None:
    """HealthBench's definition, one criterion after another."""
    won, possible = 0.0, 0.0
    for i in range(len(verdicts)):
        criterion = rubric.criteria[i]
        if tag is not None and tag not in criterion.tags:
            continue
        if criterion.points > 0:
            possible = possible + criterion.points
        if verdicts[i] == 1:
            won = won + criterion.points
    return won / possible if possible > 0 else None


TAGS = ["axis:a", "axis:b", "level:x", "cluster:y"]
tagged_criteria = st.tuples(
    st.integers(-10, 10).filter(bool), st.lists(st.sampled_from(TAGS), unique=True), st.sampled_from([0.0, 1.0])
)


@given(st.lists(tagged_criteria, min_size=1, max_size=20))
def test_scores_equal_the_loop(rows: list[tuple[int, list[str], float]]):
    rubric = Rubric(tuple(Criterion(f"c{i}", "t", p, tags=tuple(tags)) for i, (p, tags, _) in enumerate(rows)))
    verdicts = [met for _, _, met in rows]
    assert example_score(rubric, verdicts) == loop(rubric, verdicts)
    expected = {tag: loop(rubric, verdicts, tag) for tag in TAGS}
    assert tag_scores(rubric, verdicts) == {tag: score for tag, score in expected.items() if score is not None}


@given(st.lists(tagged_criteria, min_size=2, max_size=10), st.data())
def test_a_missing_verdict_equals_a_rubric_without_the_criterion(rows: list, data: st.DataObject):
    full = points(*(p for p, _, _ in rows))
    verdicts: list[float | None] = [met for _, _, met in rows]
    gone = data.draw(st.integers(0, len(rows) - 1))
    rest = Rubric(full.criteria[:gone] + full.criteria[gone + 1 :])
    left = verdicts[:gone] + verdicts[gone + 1 :]
    verdicts[gone] = None
    assert example_score(full, verdicts) is None
    assert example_score(full, verdicts, partial=True) == example_score(rest, left)
    assert explicit_score(full, verdicts) == pytest.approx(explicit_score(rest, left))


@pytest.mark.parametrize("score", [explicit_score, example_score, tag_scores])
def test_verdicts_that_do_not_fit(score):
    with pytest.raises(RewardError, match="1 verdicts for a rubric of 2 criteria"):
        score(points(1, 2), [1])
    for value in (1.5, -0.1, math.nan):
        with pytest.raises(RewardError, match=rf"the verdict on criterion 'c1' is {value}; expected a number in"):
            score(points(1, 2), [1, value])


# --- the benchmark's statistics ---------------------------------------------------------------------------------------


def test_only_the_mean_is_clipped():
    score = benchmark_score([1.0, -0.5, 0.25])
    assert score is not None
    assert score.mean == pytest.approx(0.25)  # clipping each score first would give 0.4166…
    assert (score.n_samples, score.missing) == (3, 0)
    below = benchmark_score([-0.5, -0.1])
    assert below is not None
    assert (below.mean, below.bootstrap_std) == (0.0, 0.0)


def test_missing_scores_are_counted_and_left_out():
    score = benchmark_score([0.5, None, 1.0, None])
    assert score is not None
    assert (score.mean, score.n_samples, score.missing) == (0.75, 2, 2)
    assert benchmark_score([None, None]) is None
    assert benchmark_score([]) is None


def test_bootstrap_over_two_scores():
    """A resample of {0, 1} has mean 0, 1/2 or 1 with probability 1/4, 1/2, 1/4: standard deviation sqrt(1/8)."""
    score = benchmark_score([0.0, 1.0], resamples=20_000)
    assert score is not None
    assert score.bootstrap_std == pytest.approx(math.sqrt(1 / 8), rel=0.03)
    assert benchmark_score([0.7] * 5).bootstrap_std == pytest.approx(0)  # type: ignore[union-attr]


def test_bootstrap_equals_a_loop_over_the_same_draws():
    import numpy as np

    scores = [0.9, -0.8, 0.1, -0.4]  # a mean near 0, so that many resampled means are clipped
    draws = np.random.RandomState(7)
    means = []
    for _ in range(50):
        mean = sum(scores[i] for i in draws.randint(0, 4, 4)) / 4
        means.append(min(max(mean, 0.0), 1.0))
    score = benchmark_score(scores, resamples=50, seed=7)
    assert score is not None
    assert score.bootstrap_std == pytest.approx(statistics.pstdev(means), abs=1e-12)
