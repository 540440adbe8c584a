"""RiskPO: hand-derived values, every mode against plain loops, and the rules for what is missing or left over."""

from __future__ import annotations

import itertools
import json
import math
import random
from math import fsum, isnan, nan, sqrt

import pytest
import torch

from rvpo.core.groups import Groups
from rvpo.core.methods.registry import build_method
from rvpo.core.methods.riskpo import LEVELS, RiskPO, RiskPOResult, riskpo
from rvpo.errors import ConfigError, RewardError

TAILS = ({"tail_weight": 0.0}, {"tail_weight": 1.5}, {"tail_weight": 0.7, "seek": True})
PLAIN = {"riskpo_eps": 0.0, "normalise": False, "credit": "uniform"}
# Two questions, four completions each; the papers' scores are 2, 0, 1, 0.
SCORES, IDS = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0, 0, 0, 0, 1, 1, 1, 1]


def run(scores: list[float], ids: list[int], state: list[float] | None = None, **options) -> RiskPOResult:
    x = torch.tensor(scores, dtype=torch.float64)
    return riskpo(x, Groups.from_ids(torch.tensor(ids), len(ids)), RiskPO(**options), state)


def tracked(low: float, high: float) -> list[float]:
    """A state whose quantiles at 0.2 and 0.8 are ``low`` and ``high``, and in between on a line through both."""
    return [low + (high - low) * (level - 0.2) / 0.6 for level in LEVELS]


# ---- the reference: one completion, one paper, one bundle at a time ----


def quantile(values: list[float], level: float) -> float:
    """Linear interpolation between order statistics, as numpy and torch define it."""
    values = sorted(values)
    at = level * (len(values) - 1)
    below = math.floor(at)
    above = min(below + 1, len(values) - 1)
    return values[below] + (at - below) * (values[above] - values[below])


def deviation(values: list[float]) -> float:
    mean = fsum(values) / len(values)
    return sqrt(fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 1.0


def loops(scores: list[float], ids: list[int], c: RiskPO, state: list[float] | None):
    """Advantages, papers' scores and the next state."""
    questions: dict[int, list[int]] = {}
    for row, question in enumerate(ids):
        questions.setdefault(question, []).append(row)
    asked = [rows for rows in questions.values() if any(not isnan(scores[row]) for row in rows)]
    bundles = [asked[i : i + c.bundle_size] for i in range(0, len(asked), c.bundle_size)]
    if c.leftover == "drop" and bundles and len(bundles[-1]) < c.bundle_size:
        bundles.pop()

    def at(level: float) -> float:
        return state[min(range(19), key=lambda i: abs((i + 1) / 20 - level))]

    def curve(numerator) -> float:
        values = [numerator(q) for q in state]
        return fsum((values[i] + values[i + 1]) / 2 * 0.05 for i in range(18))

    range_base = tail_base = 0.0
    if state is not None and c.baseline != "none":
        low, high = at(c.lower), at(c.upper)
        constant = low - high if c.baseline == "anchored" else 0.0
        range_base = curve(lambda q: max(q - low, 0) - max(q - high, 0) + constant)
        tail_base = curve(lambda q: -max(low - q, 0))

    advantages, all_papers = [0.0] * len(scores), []
    for bundle in bundles:
        scored = [[scores[row] for row in rows if not isnan(scores[row])] for rows in bundle]
        means = [fsum(values) / len(values) for values in scored]
        stds = [deviation(values) for values in scored]
        papers = []
        for turn in range(min(len(rows) for rows in bundle)):
            rows = [question[turn] for question in bundle]
            if all(isnan(scores[row]) for row in rows):
                continue
            total = fsum(means[b] if isnan(scores[row]) else scores[row] for b, row in enumerate(rows))
            papers.append((rows, total * c.bundle_size / len(bundle) if c.leftover == "scale" else total))
        sums = [s for _, s in papers]
        all_papers += sums
        low, high = quantile(sums, c.lower), quantile(sums, c.upper)
        if state is not None and c.quantiles == "track":
            low, high = at(c.lower), at(c.upper)
        elif state is not None and c.quantiles == "mix":
            low, high = (low + at(c.lower)) / 2, (high + at(c.upper)) / 2
        std = deviation(sums)
        for rows, s in papers:
            numerator = max(s - low, 0) - max(s - high, 0) + (low - high if c.anchored else 0.0)
            a = (numerator - range_base) / (c.upper - c.lower + c.riskpo_eps)
            if c.seek:
                tail = max(s - high, 0) / (1 - c.upper + c.riskpo_eps)
            else:
                tail = (-max(low - s, 0) - tail_base) / (c.lower + c.riskpo_eps)
            a = (a + c.tail_weight * tail) / (1 + c.tail_weight)
            if c.normalise:
                a /= (1.0 if std < c.std_floor else std) + c.riskpo_eps
            offs = [0.0 if isnan(scores[row]) else scores[row] - means[b] for b, row in enumerate(rows)]
            for b, row in enumerate(rows):
                if isnan(scores[row]):
                    continue
                if c.credit == "uniform":
                    advantages[row] = a
                elif c.credit == "std":
                    advantages[row] = a / ((stds[b] if stds[b] > 1e-3 else 1.0) + c.riskpo_eps)
                elif c.credit == "score":
                    advantages[row] = a * (0.5 if scores[row] > 0 else 1.5)
                elif abs(fsum(offs)) > c.riskpo_eps:
                    advantages[row] = a * offs[b] / fsum(offs)
                else:
                    advantages[row] = a / len(rows)
    if not all_papers:
        return advantages, all_papers, state
    levels = [(i + 1) / 20 for i in range(19)]
    if state is None:
        return advantages, all_papers, [quantile(all_papers, level) for level in levels]
    share = [sum(s < q for s in all_papers) / len(all_papers) for q in state]
    return (
        advantages,
        all_papers,
        [q + c.quantile_lr * (level - below) for q, level, below in zip(state, levels, share, strict=True)],
    )


MODES = list(
    itertools.product(
        ("track", "batch", "mix"),
        ("uniform", "std", "score", "deviation"),
        TAILS,
        (True, False),
        (True, False),
        ("none", "plain", "anchored"),
    )
)


@pytest.mark.parametrize("quantiles", ["track", "batch", "mix"])
def test_every_mode_equals_the_loops(quantiles: str):
    rng = random.Random(quantiles)
    for quantile_mode, credit, tail, normalise, anchored, baseline in MODES:
        if quantile_mode != quantiles:
            continue
        config = RiskPO(
            bundle_size=rng.randint(1, 4), upper=rng.choice([0.8, 0.9]), leftover=rng.choice(["scale", "sum", "drop"]),
            quantiles=quantiles, credit=credit, normalise=normalise, anchored=anchored, baseline=baseline, **tail,
        )  # fmt: skip
        ids = [q for q in range(rng.randint(1, 9)) for _ in range(rng.randint(1, 6))]
        rng.shuffle(ids)
        # Multiples of 1/4 make ties and equal papers, and sums without rounding: no comparison hangs on the last bit.
        values = rng.choice([[0.0, 1.0], [i / 4 for i in range(-4, 5)], [0.0, 0.5, 1.0, nan]])
        scores = [rng.choice(values) for _ in ids]
        state = None
        for _ in range(3):
            result = run(scores, ids, state, **vars(config))
            advantages, papers, after = loops(scores, ids, config, state)
            torch.testing.assert_close(result.advantages.tolist(), advantages, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(result.paper_scores.tolist(), papers, rtol=1e-12, atol=1e-12)
            assert (result.state is None) == (after is None)
            if after is not None:
                torch.testing.assert_close(result.state, after, rtol=1e-12, atol=1e-12)
            # Off the multiples of 1/4, so that the last bit of a tracked quantile does not decide S < q.
            state = None if after is None else [q + 0.01 * (i + 1) for i, q in enumerate(result.state)]
            rng.shuffle(scores)


# ---- values by hand ----


def test_range_and_tail_of_a_bundle():
    # Sorted papers 0, 0, 1, 2: q_a at position 0.6 is 0, q_b at position 2.4 is 1.4. Nothing lies below q_a, so T = 0,
    # and R = (min(S, 1.4) - 1.4) / 0.6 = 0, -7/3, -2/3, -7/3; A = R / 2.5.
    result = run(SCORES, IDS, bundle_size=2, quantiles="batch", **PLAIN)
    expected = [0.0, -14 / 15, -4 / 15, -14 / 15]
    torch.testing.assert_close(result.advantages.tolist(), expected * 2)
    assert result.paper_scores.tolist() == [2.0, 0.0, 1.0, 0.0]
    assert result.papers.tolist() == [0, 1, 2, 3] * 2
    assert result.paper_bundles.tolist() == [0] * 4


def test_tracked_quantiles_lower_tail_and_seeking():
    # q_a = 1, q_b = 1.5: R = (-.5 + {.5, 0, 0, 0}) / 0.6 and T = -(1 - S)^+ / 0.2 = 0, -5, 0, -5.
    averse = run(SCORES, IDS, tracked(1.0, 1.5), bundle_size=2, **PLAIN)
    base = -0.5 / 0.6
    torch.testing.assert_close(
        averse.advantages.tolist(), [0.0, (base - 7.5) / 2.5, base / 2.5, (base - 7.5) / 2.5] * 2
    )
    # Seeking: T = (2 - 1.5) / 0.2 = 2.5 for the best paper, 0 for the others.
    seeking = run(SCORES, IDS, tracked(1.0, 1.5), bundle_size=2, seek=True, **PLAIN)
    torch.testing.assert_close(seeking.advantages.tolist(), [1.5, base / 2.5, base / 2.5, base / 2.5] * 2)
    assert averse.metrics["riskpo/lower_tail"] == 0.5
    assert averse.metrics["riskpo/upper_tail"] == 0.25


def test_credit_modes():
    # One bundle, w = 0, not anchored, q_a = 0 and q_b = 1.5: A = min(S, 1.5) / 0.6 = 2.5, 0, 5/3, 0.
    def credit(mode: str) -> list[float]:
        options = {**PLAIN, "credit": mode, "anchored": False, "tail_weight": 0.0}
        return run(SCORES, IDS, tracked(0.0, 1.5), bundle_size=2, **options).advantages.tolist()

    # std of (1,0,1,0) is sqrt(1/3), of (1,0,0,0) 1/2
    a, b = 1 / sqrt(1 / 3), 2.0
    torch.testing.assert_close(credit("std"), [2.5 * a, 0.0, 5 / 3 * a, 0.0, 2.5 * b, 0.0, 5 / 3 * b, 0.0])
    torch.testing.assert_close(credit("score"), [1.25, 0.0, 5 / 6, 0.0, 1.25, 0.0, 2.5, 0.0])
    # Deviations of the papers' completions: (.5, .75), (-.5, -.25), (.5, -.25), (-.5, -.25); A = 0 for 2nd and 4th.
    torch.testing.assert_close(credit("deviation"), [1.0, 0.0, 10 / 3, 0.0, 1.5, 0.0, -5 / 3, 0.0])


def test_deviations_that_cancel_share_alike():
    # Both questions have mean 1/2; in each paper one is solved and the other is not. S = 1 and A = (1 - 0) / 0.6.
    options = {**PLAIN, "credit": "deviation", "anchored": False, "tail_weight": 0.0}
    result = run([1.0, 0.0, 0.0, 1.0], [0, 0, 1, 1], tracked(0.0, 2.0), bundle_size=2, **options)
    torch.testing.assert_close(result.advantages.tolist(), [1 / 0.6 / 2] * 4)


def test_normalising_divides_by_the_papers_std():
    # Papers 2, 0, 1, 0 have the mean 3/4 and the squared deviations 25/16, 9/16, 1/16, 9/16: variance 11/12.
    plain = run(SCORES, IDS, bundle_size=2, **PLAIN).advantages
    normalised = run(SCORES, IDS, bundle_size=2, **{**PLAIN, "normalise": True}).advantages
    torch.testing.assert_close(normalised, plain / sqrt(11 / 12))


def test_equal_papers_do_not_explode():
    # Nobody solves anything, q_a = 1, q_b = 4: R = -3 / 0.6 = -5, T = -1 / 0.2 = -5, so A = -5, and there is no std.
    options = {"bundle_size": 5, "credit": "uniform"}
    ids = [q for q in range(5) for _ in range(4)]
    result = run([0.0] * 20, ids, tracked(1.0, 4.0), **options)
    torch.testing.assert_close(result.advantages.tolist(), [-5.0] * 20, rtol=1e-5, atol=0)
    assert result.metrics["riskpo/flat_bundles"] == 1.0
    released = run([0.0] * 20, ids, tracked(1.0, 4.0), std_floor=0.0, **options)
    torch.testing.assert_close(released.advantages.tolist(), [-5e6] * 20, rtol=1e-5, atol=0)


def test_baseline_is_the_integral_of_the_tracked_curve():
    # The curve q(l) = (l - 0.2) / 0.6 has q_a = 0, q_b = 1. Over 0.05 … 0.95 by trapezoids, with no constant: a ramp
    # from 0 to 1 over 0.2 … 0.8 and 1 from there, 0.3 + 0.15. The tail: -(0.2 - l) / 0.6 over 0.05 … 0.2 is
    # -0.15 * 0.25 / 2.
    state, options = tracked(0.0, 1.0), {"bundle_size": 2, "anchored": False, **PLAIN}
    none = run(SCORES, IDS, state, **options).advantages
    plain = run(SCORES, IDS, state, baseline="plain", **options).advantages
    torch.testing.assert_close(none - plain, torch.full_like(none, (0.45 / 0.6 - 1.5 * 0.01875 / 0.2) / 2.5))
    # With q_a - q_b = -1 in the integrand, over a width of 0.9: smaller by 0.9.
    anchored = run(SCORES, IDS, state, baseline="anchored", **options).advantages
    torch.testing.assert_close(anchored - plain, torch.full_like(none, 0.9 / 0.6 / 2.5))
    # On the first batch there is no curve.
    first = run(SCORES, IDS, baseline="plain", **options).advantages
    assert torch.equal(first, run(SCORES, IDS, **options).advantages)


def test_tracking_starts_with_the_quantiles_and_then_steps():
    first = run(SCORES, IDS, bundle_size=2)
    # Papers 0, 0, 1, 2: at level 0.5, position 1.5 is 0.5; at 0.95, position 2.85 is 1.85.
    assert first.state[9] == pytest.approx(0.5)
    assert first.state[18] == pytest.approx(1.85)
    assert first.metrics["riskpo/quantile_upper"] == pytest.approx(1.4)
    second = run(SCORES, IDS, first.state, bundle_size=2, quantile_lr=0.1)
    # Half of the papers lie below 0.5 and below it at level 0.5; three of four below 1.85 at level 0.95.
    assert second.state[9] == pytest.approx(0.5)
    assert second.state[18] == pytest.approx(1.85 + 0.1 * (0.95 - 0.75))
    # A quantile is not below itself: at level 0.05 it is 0, and no paper is smaller.
    assert second.state[0] == pytest.approx(0.1 * 0.05)


def test_the_state_decides_from_the_second_batch_on():
    first = run(SCORES, IDS, bundle_size=2)
    assert torch.equal(first.advantages, run(SCORES, IDS, bundle_size=2, quantiles="batch").advantages)
    other = [1.0 - s for s in SCORES]
    second = {mode: run(other, IDS, first.state, bundle_size=2, quantiles=mode) for mode in ("track", "batch", "mix")}
    assert not torch.equal(second["track"].advantages, second["batch"].advantages)
    assert not torch.equal(second["track"].advantages, second["mix"].advantages)
    assert second["track"].state == second["batch"].state == second["mix"].state


def test_state_survives_json_to_the_bit():
    rng = random.Random(0)
    ids = [q for q in range(20) for _ in range(8)]
    state = restored = None
    for _ in range(20):
        scores = [rng.gauss(0, 1) for _ in ids]
        one, two = run(scores, ids, state), run(scores, ids, restored)
        assert torch.equal(one.advantages, two.advantages)
        state, restored = one.state, json.loads(json.dumps(two.state))
        assert state == restored


def test_tracking_finds_the_quantiles():
    # Papers of five fair coins: quantiles 0.2 and 0.8 of Binomial(5, 1/2) are 2 and 3 (P(S < 2) = 0.1875,
    # P(S < 3) = 0.5, P(S < 4) = 0.8125). From 2.5 both are approached by 0.03 a step, and overshot by no more.
    rng = random.Random(1)
    ids, state = [q for q in range(50) for _ in range(8)], [2.5] * 19
    for _ in range(50):
        state = run([float(rng.random() < 0.5) for _ in ids], ids, state).state
    assert state[3] == pytest.approx(2.0, abs=0.1)
    assert state[15] == pytest.approx(3.0, abs=0.1)


# ---- who sits where ----


def test_bundles_take_questions_by_first_appearance():
    ids = [7, 3, 7, 3, 5, 1, 5, 1]
    result = run([1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0], ids, bundle_size=2)
    assert result.paper_scores.tolist() == [3.0, 7.0, 30.0, 70.0]
    assert result.papers.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert result.paper_bundles.tolist() == [0, 0, 1, 1]


def test_blocks_are_the_same_as_ids():
    scores, config = torch.rand(24, dtype=torch.float64), RiskPO(bundle_size=2)
    blocks = riskpo(scores, Groups.from_blocks(24, 4, scores.device), config)
    ids = riskpo(scores, Groups.from_ids(torch.arange(6).repeat_interleave(4), 24), config)
    assert torch.equal(blocks.advantages, ids.advantages)


def test_the_smallest_question_decides_the_number_of_papers():
    result = run([1.0, 0.0, 1.0, 0.0, 1.0], [0, 0, 0, 1, 1], bundle_size=2, **PLAIN)
    assert result.paper_scores.tolist() == [1.0, 1.0]
    assert result.papers.tolist() == [0, 1, -1, 0, 1]
    assert result.advantages[2] == 0


def test_a_missing_completion_is_stood_in_for_by_its_questions_mean():
    # Question 0 has the mean 2/3 over what was scored: papers 1 + 1, 2/3 + 0, 1 + 0, 0 + 1.
    result = run([1.0, nan, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], IDS, tracked(5.0, 6.0), bundle_size=2)
    torch.testing.assert_close(result.paper_scores.tolist(), [2.0, 2 / 3, 1.0, 1.0])
    assert result.papers.tolist() == [0, 1, 2, 3] * 2
    assert result.advantages[1] == 0
    assert (result.advantages[[0, 2, 3, 4, 5, 6, 7]] != 0).all()


def test_a_paper_or_question_without_scores_is_none():
    result = run([1.0, nan, 0.0, nan], [0, 0, 1, 1], bundle_size=2)
    assert result.paper_scores.tolist() == [1.0]
    assert result.papers.tolist() == [0, -1, 0, -1]
    # Question 1 was never scored, so 0 and 2 form the bundle.
    result = run([1.0, 2.0, nan, nan, 3.0, 4.0], [0, 0, 1, 1, 2, 2], bundle_size=2)
    assert result.paper_scores.tolist() == [4.0, 6.0]
    assert result.papers.tolist() == [0, 1, -1, -1, 0, 1]


def test_a_batch_without_papers_leaves_the_state_alone():
    for scores, options in (([nan] * 8, {}), (SCORES, {"leftover": "drop"})):
        for state in (None, tracked(1.0, 2.0)):
            result = run(scores, IDS, state, **options)
            assert result.advantages.tolist() == [0.0] * 8
            assert result.state == state
            assert result.paper_scores.numel() == 0
            assert isnan(result.metrics["riskpo/lower_tail"])


def test_leftover_questions():
    scores, ids = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], [0, 0, 1, 1, 2, 2]
    assert run(scores, ids, bundle_size=2, leftover="scale").paper_scores.tolist() == [2.0, 0.0, 2.0, 0.0]
    assert run(scores, ids, bundle_size=2, leftover="sum").paper_scores.tolist() == [2.0, 0.0, 1.0, 0.0]
    dropped = run(scores, ids, bundle_size=2, leftover="drop")
    assert dropped.paper_scores.tolist() == [2.0, 0.0]
    assert dropped.papers.tolist() == [0, 1, 0, 1, -1, -1]
    assert dropped.advantages[4:].tolist() == [0.0, 0.0]
    # Three questions of five: a scaled paper counts 5/3, in double precision.
    assert run(scores, ids, leftover="scale").paper_scores.tolist() == [3 * (5 / 3), 0.0]


def test_a_single_paper_has_no_signal_of_its_own():
    # S is its own quantile, so R = T = 0, and its std counts as 1.
    assert run([0.3, 0.9], [0, 1], bundle_size=2).advantages.tolist() == [0.0, 0.0]


def test_dtype_and_gradient():
    scores = torch.tensor(SCORES, requires_grad=True)
    result = riskpo(scores, Groups.from_ids(torch.tensor(IDS), 8), RiskPO(bundle_size=2))
    assert result.advantages.dtype == torch.float32
    assert not result.advantages.requires_grad
    assert result.paper_scores.dtype == torch.float64


# ---- refusals ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bundle_size": 0}, "bundle_size is 0"),
        ({"bundle_size": True}, "bundle_size is True"),
        ({"lower": 0.0}, "lower is 0.0"),
        ({"lower": 0.8, "upper": 0.2}, "lower is 0.8 and upper 0.2"),
        ({"lower": 0.21, "upper": 0.22}, "two different ones"),
        ({"upper": 1.0}, r"upper is 1.0; expected a number in \[0, 1\)"),
        ({"tail_weight": -1.0}, "tail_weight is -1.0"),
        ({"quantile_lr": nan}, "quantile_lr is nan"),
        ({"seek": 1}, "seek is 1; expected True and False"),
        ({"quantiles": "tracked"}, "quantiles is 'tracked'; expected one of 'track', 'batch', 'mix'"),
        ({"credit": "sum-mean"}, "credit is 'sum-mean'"),
        ({"baseline": True}, "baseline is True"),
        ({"leftover": "merge"}, "leftover is 'merge'"),
        ({"riskpo_eps": 0.0, "std_floor": 0.0}, "riskpo_eps and std_floor are both 0"),
        ({"omega": 1.0}, "has no option 'omega'"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        build_method("riskpo", options)


def test_bad_scores_and_states_are_refused():
    groups, config = Groups.from_ids(torch.tensor(IDS), 8), RiskPO()
    for scores in (torch.zeros(7), torch.zeros(8, 1), torch.zeros(8, dtype=torch.int64)):
        with pytest.raises(RewardError, match=r"expected floating point of shape \(8,\)"):
            riskpo(scores, groups, config)
    with pytest.raises(RewardError, match="with 1 infinite"):
        riskpo(torch.tensor([*SCORES[:7], math.inf]), groups, config)
    for state in ([0.0] * 18, [nan] * 19):
        with pytest.raises(ConfigError, match="expected 19 finite numbers"):
            riskpo(torch.tensor(SCORES), groups, config, state)
