"""Turn verdicts into numbers: weights of criteria, the explicit score of Rubrics-as-Rewards, HealthBench's scores.

Verdicts are values in [0, 1] in the order of the criteria: the degree to which a criterion's text is met. None is a
missing verdict. It never counts as "not met": each function documents what it does instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from rvpo.errors import ConfigError, RewardError
from rvpo.rewards.rubric.criteria import Criterion, Rubric

Weighting: TypeAlias = str | Mapping[str, float]
"""``"uniform"``, ``"points"``, or the weight of each category."""

RAR_CATEGORY_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"essential": 1.0, "important": 0.7, "optional": 0.3, "pitfall": 0.9}
)
"""Weights of RaR-Explicit (arXiv 2507.17746, section 4.4), as a :data:`Weighting`."""


def channel_weights(rubric: Rubric, weighting: Weighting = "points") -> list[float]:
    """Return the weight of each criterion, scaled so that the mean weight is 1.

    So a criterion counts on average as much as an ordinary reward function, for any number of criteria and any scale
    of their points.

    Args:
        rubric: rubric with M criteria.
        weighting: ``"uniform"`` (all 1), ``"points"`` (in proportion to the absolute value of the points), or a
            mapping of categories to weights of at least 0, such as :data:`RAR_CATEGORY_WEIGHTS`.

    Returns:
        M weights of at least 0 with mean 1.

    Raises:
        ConfigError: the weighting is unknown, a weight is negative or not finite, the mapping has no weight for the
            category of a criterion, or all weights are 0.
    """
    if isinstance(weighting, Mapping):
        weights = [_category_weight(criterion, weighting) for criterion in rubric.criteria]
    elif weighting == "points":
        weights = [abs(criterion.points) for criterion in rubric.criteria]
    elif weighting == "uniform":
        weights = [1.0] * len(rubric.criteria)
    else:
        allowed = "'uniform', 'points' or a mapping of categories to weights"
        raise ConfigError(f"weighting is {weighting!r}; expected {allowed}")
    largest = max(weights)
    if largest == 0:
        raise ConfigError(
            f"weighting {weighting!r} gives every criterion of a rubric the weight 0; expected one above 0. Raise one "
            "of the weights"
        )
    weights = [weight / largest for weight in weights]  # so that no sum overflows
    mean = math.fsum(weights) / len(weights)
    return [weight / mean for weight in weights]


def _category_weight(criterion: Criterion, weights: Mapping[str, float]) -> float:
    category = criterion.category
    if category is None or category not in weights:
        raise ConfigError(
            f"weighting has no weight for the category {category!r} of criterion {criterion.id!r}; it has "
            f"{', '.join(map(repr, weights))}. Add the category, or use 'points' or 'uniform'"
        )
    weight = weights[category]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise ConfigError(
            f"weighting: the weight of {category!r} is {weight!r}; expected a finite number of at least 0"
        )
    return float(weight)


def explicit_score(rubric: Rubric, verdicts: Sequence[float | None], weighting: Weighting = "points") -> float | None:
    """Return the explicit aggregation of Rubrics-as-Rewards: the weighted mean of the criteria's rewards.

    Equation 1 of arXiv 2507.17746 is ``sum_j w_j c_j / sum_j w_j``, where c_j is 1 if criterion j is met. Its
    experiments use :data:`RAR_CATEGORY_WEIGHTS`. This function differs in two ways. First, c_j is the criterion's
    *reward*, which is inverted if it is bad to meet the criterion. (The paper relies on pitfalls "phrased in positive
    form", but those of RaR-Medicine mostly are not.) Second, criteria without a verdict are left out of both sums. With
    the paper's weights, only criteria that are good to meet, and all verdicts, both are equal.

    Args:
        rubric: rubric with M criteria.
        verdicts: M values in [0, 1] or None, in the order of the criteria.
        weighting: see :func:`channel_weights`.

    Returns:
        A value in [0, 1]; None if no criterion with a positive weight has a verdict.

    Raises:
        RewardError: the number of verdicts is not M, or a value is outside [0, 1].
        ConfigError: see :func:`channel_weights`.
    """
    weights = channel_weights(rubric, weighting)
    values = zip(rubric.criteria, _checked(rubric, verdicts), strict=True)
    return weighted_mean([None if value is None else criterion.reward(value) for criterion, value in values], weights)


def weighted_mean(rewards: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Return the weighted mean of the rewards that are not missing; None if their weights are all 0.

    Example:
        >>> weighted_mean([1.0, None, 0.0], [3.0, 5.0, 1.0])
        0.75
    """
    judged = [(weight, reward) for weight, reward in zip(weights, rewards, strict=True) if reward is not None]
    total = math.fsum(weight for weight, _ in judged)
    return math.fsum(weight * reward for weight, reward in judged) / total if total else None


def example_score(rubric: Rubric, verdicts: Sequence[float | None], *, partial: bool = False) -> float | None:
    """Return HealthBench's score of one example: points of the criteria met / sum of the positive points.

    Source: arXiv 2505.08775, and ``calculate_score`` of openai/simple-evals. The result equals theirs if every verdict
    is 0 or 1. A graded verdict earns its share of the points. ``polarity`` is not used: here the sign of the points
    decides.

    Args:
        rubric: rubric with M criteria.
        verdicts: M values in [0, 1] or None, in the order of the criteria.
        partial: treatment of missing verdicts. False: the example has no score, because counting a criterion as "not
            met" would lower the score, or raise it if its points are negative. True: these criteria are left out of
            both sums.

    Returns:
        A value of at most 1, negative if more points are lost than won; None without a score (no positive points, or a
        missing verdict).

    Raises:
        RewardError: the number of verdicts is not M, or a value is outside [0, 1].
    """
    return _points_score(zip(rubric.criteria, _checked(rubric, verdicts), strict=True), partial)


def tag_scores(rubric: Rubric, verdicts: Sequence[float | None], *, partial: bool = False) -> dict[str, float | None]:
    """Return :func:`example_score` over the criteria of each tag, such as ``axis:accuracy``.

    A tag without positive points is absent, as in openai/simple-evals. The score of a tag is None if one of its
    verdicts is missing, or, with ``partial``, if no positive points are left.
    """
    by_tag: dict[str, list[tuple[Criterion, float | None]]] = {}
    for criterion, value in zip(rubric.criteria, _checked(rubric, verdicts), strict=True):
        for tag in dict.fromkeys(criterion.tags):
            by_tag.setdefault(tag, []).append((criterion, value))
    return {
        tag: _points_score(judged, partial)
        for tag, judged in by_tag.items()
        if any(criterion.points > 0 for criterion, _ in judged)
    }


def _points_score(judged: Iterable[tuple[Criterion, float | None]], partial: bool) -> float | None:
    won = possible = 0.0  # summed in the reference's order, so that the results are equal to the last bit
    for criterion, value in judged:
        if value is None:
            if not partial:
                return None
            continue
        won += criterion.points * value
        possible += max(criterion.points, 0.0)
    return won / possible if possible else None


@dataclass(frozen=True, slots=True)
class BenchmarkScore:
    """HealthBench's statistics over examples.

    Attributes:
        mean: mean of the scores, clipped to [0, 1]. Single scores are not clipped.
        n_samples: number of examples with a score.
        bootstrap_std: standard deviation (ddof 0) of the clipped mean over resampled examples.
        missing: number of examples without a score.
    """

    mean: float
    n_samples: int
    bootstrap_std: float
    missing: int


def benchmark_score(
    scores: Iterable[float | None], *, resamples: int = 1000, seed: int | None = 0
) -> BenchmarkScore | None:
    """Aggregate the scores of all examples, or of one axis or theme, as openai/simple-evals does.

    Args:
        scores: one score per example. Missing scores (None) are counted and left out.
        resamples: number of bootstrap samples. Each has as many examples as there are scores.
        seed: random seed of the resampling. simple-evals gives the same numbers after ``numpy.random.seed(seed)``.

    Returns:
        The statistics, or None if no example has a score.
    """
    import numpy as np

    scores = list(scores)
    values = np.array([score for score in scores if score is not None], dtype=np.float64)
    n = len(values)
    if not n:
        return None
    random = np.random.RandomState(seed)
    means = [np.clip(np.mean(random.choice(values, n)), 0, 1) for _ in range(resamples)]
    mean = float(np.clip(np.mean(values), 0, 1))
    return BenchmarkScore(mean, n, float(np.std(means)), len(scores) - n)


def _checked(rubric: Rubric, verdicts: Sequence[float | None]) -> Sequence[float | None]:
    if len(verdicts) != len(rubric.criteria):
        raise RewardError(
            f"{len(verdicts)} verdicts for a rubric of {len(rubric.criteria)} criteria; expected one per criterion, in "
            "order. Use None for a missing verdict"
        )
    for criterion, value in zip(rubric.criteria, verdicts, strict=True):
        if value is not None and not 0 <= value <= 1:
            raise RewardError(
                f"the verdict on criterion {criterion.id!r} is {value!r}; expected a number in [0, 1], or None if it "
                "is missing"
            )
    return verdicts
