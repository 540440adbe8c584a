"""Shares of questions solved by none, some and all, and Pass@k: against loops, by hand, and with missing values."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import rvpo
from rvpo.core.groups import Groups
from rvpo.core.metrics import in_catalogue
from rvpo.core.solved import pass_at

NAN = math.nan


def by_counting(n: int, c: int, k: int) -> float:
    """Share of the subsets of k of n completions, the first c of which meet it, that hold one of these."""
    draws = list(itertools.combinations(range(n), k))
    return sum(min(draw) < c for draw in draws) / len(draws)


def test_pass_at_k_is_the_share_of_draws_that_hold_a_success():
    for n, c in ((1, 0), (1, 1), (5, 2), (8, 1), (8, 8), (9, 3), (10, 7)):
        for k, found in zip(range(1, 12), pass_at(*torch.tensor([[n], [c]]).double(), range(1, 12)), strict=True):
            assert float(found) == pytest.approx(by_counting(n, c, k) if k <= n else NAN, abs=1e-12, nan_ok=True)


def test_pass_at_k_equals_chens_formula_on_many_counts():
    generator = torch.Generator().manual_seed(0)
    n = torch.randint(1, 300, (2000,), generator=generator)
    c = (torch.rand(2000, generator=generator) * (n + 1)).long()
    for k in (1, 2, 7, 64, 256):
        (found,) = pass_at(n.double(), c.double(), [k])
        want = [
            1 - math.comb(a - b, k) / math.comb(a, k) if a >= k else NAN
            for a, b in zip(n.tolist(), c.tolist(), strict=True)
        ]
        torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12, equal_nan=True)


def loops(rows: list[list[float]], size: int) -> dict[str, float]:
    """The shares of one channel of 0/1 rewards, question by question."""
    found = {"none": 0, "some": 0, "all": 0}
    for first in range(0, len(rows), size):
        met = [row for row in rows[first : first + size] if not math.isnan(row)]
        if met:
            found["none" if not any(met) else "all" if all(met) else "some"] += 1
    return {name: count / max(1, sum(found.values())) for name, count in found.items()}


def test_each_channel_and_the_question_are_counted():
    right = [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    short = [1, 1, 1, 1, 0, 1, 0, 1, 0, NAN, 0, 0]
    out = rvpo.Aggregator("gdpo", ["right", "short"])(torch.tensor([right, short]).T, num_generations=4)
    metrics = {name.removeprefix("rvpo/"): value for name, value in out.metrics.items()}
    for name, rewards in (("right", right), ("short", short)):
        want = loops(rewards, 4)
        shares = [metrics[f"{name}/{key}"] for key in ("unexplored", "solved_some", "solved_all")]
        assert shares == pytest.approx([want["none"], want["some"], want["all"]])
    assert [metrics[f"solved/{key}"] for key in ("none", "some", "all")] == pytest.approx([1 / 3, 2 / 3, 0])
    assert metrics["solved/pass@4"] == pytest.approx(1.0)  # the question with a missing value has only three
    assert [metrics[f"solved/{key}"] for key in ("groups", "pass_groups")] == [3, 2]
    assert metrics["solved/pass@1"] == pytest.approx((1 / 4 + 2 / 4 + 0) / 3)  # the mean of the groups' means
    assert [name for name in out.metrics if not in_catalogue(name)] == []


@pytest.mark.parametrize(
    ("options", "solved"),
    [
        ({}, [1, 1, 0, 0]),  # both
        ({"solved": ["right"]}, [1, 1, 1, 0]),
        ({"solved": "short"}, [1, 1, 0, 1]),
        ({"monitor": ["short"]}, [1, 1, 1, 0]),
        ({"monitor": ["short"], "solved": ["short"]}, [1, 1, 0, 1]),  # a test that nobody trains on
        ({"weights": {"short": "alternate(0,1)"}}, [1, 1, 0, 0]),  # weight 0 now, and trained on
        ({"weights": {"short": 0.0}}, [1, 1, 1, 0]),
        (
            {"structure": ["all_of(right,short,called=both)"], "ranges": {"right": (0, 1), "short": (0, 1)}},
            [1, 1, 0, 0],
        ),
        ({"structure": ["only_where(short,right)"], "ranges": {"right": (0, 1)}}, [1, 1, 0, 0]),
    ],
)
def test_what_a_completion_has_to_meet(options: dict, solved: list[int]):
    rewards = torch.tensor([[1.0, 1], [1, 1], [1, 0], [0, 1]])
    out = rvpo.Aggregator("gdpo", ["right", "short"], **options)(rewards, num_generations=4, progress=0.0)
    assert out.metrics["rvpo/solved/pass@1"] == pytest.approx(sum(solved) / 4)
    assert out.metrics["rvpo/solved/some"] == 1


def test_a_channel_without_a_known_line_leaves_the_question_unknown():
    rewards = torch.tensor([[1.0, -3.5], [0, -1], [1, -2], [0, 0]])
    names = ["right", "length"]
    unknown = rvpo.Aggregator("gdpo", names)(rewards, num_generations=4).metrics
    assert math.isnan(unknown["rvpo/solved/none"])
    assert math.isnan(unknown["rvpo/solved/pass@2"])
    assert math.isnan(unknown["rvpo/length/solved_some"])
    assert unknown["rvpo/solved/groups"] == 0
    assert unknown["rvpo/right/solved_some"] == 1
    declared = rvpo.Aggregator("gdpo", names, ranges={"length": (-4, 0)})(rewards, num_generations=4).metrics
    assert declared["rvpo/solved/pass@1"] == 0.25  # length: from -2 on
    assert rvpo.Aggregator("gdpo", names, solved=["right"])(rewards, num_generations=4).metrics[
        "rvpo/solved/pass@1"
    ] == pytest.approx(0.5)


@pytest.mark.parametrize("names", [["rigth"], [], [3], "other/tone"])
def test_unknown_names_are_refused(names: object):
    with pytest.raises(rvpo.errors.ConfigError, match="solved"):
        rvpo.Aggregator("gdpo", ["right", "short"], solved=names)  # type: ignore[arg-type]


def test_criteria_of_a_rubric_are_pooled_and_all_have_to_be_met():
    rewards = [{"rubric": {"a": 1, "b": 1}}, {"rubric": {"a": 1, "b": 0}}, {"rubric": {"c": 0}}, {"rubric": {"c": 0}}]
    out = rvpo.Aggregator("gdpo", ["rubric"])(rewards, num_generations=2)
    metrics = {name.removeprefix("rvpo/"): value for name, value in out.metrics.items()}
    assert [metrics[f"rubric/{key}"] for key in ("unexplored", "solved_some", "solved_all")] == pytest.approx(
        [1 / 3] * 3
    )
    assert [metrics[f"solved/{key}"] for key in ("none", "some", "all")] == [0.5, 0.5, 0.0]
    assert metrics["solved/pass@1"] == 0.25


def test_groups_of_different_sizes_count_where_they_are_large_enough():
    groups = Groups.from_ids(torch.tensor([0, 1, 1, 1, 0, 2]), 6)
    rewards = torch.tensor([[0.0], [1], [0], [0], [0], [1]])
    out = rvpo.Aggregator("gdpo", ["right"])(rewards, groups=groups.index)
    assert out.metrics["rvpo/solved/pass@1"] == pytest.approx((0 + 1 / 3 + 1) / 3)
    assert out.metrics["rvpo/solved/pass@2"] == pytest.approx((0 + 2 / 3) / 2)
    assert "rvpo/solved/pass@4" not in out.metrics


@pytest.mark.parametrize("size", [3, 128, 150])
def test_large_groups_have_the_same_numbers_without_a_table(size: int):
    rewards = (torch.rand(2 * size, 1, generator=torch.Generator().manual_seed(size)) < 0.02).double()
    out = rvpo.Aggregator("gdpo", ["right"])(rewards, num_generations=size)
    met = rewards.view(2, size).sum(1).long().tolist()
    for k in (1, 2, 128):
        if k <= size:
            want = sum(1 - math.comb(size - c, k) / math.comb(size, k) for c in met) / 2
            assert out.metrics[f"rvpo/solved/pass@{k}"] == pytest.approx(want, abs=1e-12)
