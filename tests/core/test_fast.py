"""The quick way equals the loop reference and the equation page, and leaves to the page what it cannot do exactly."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rvpo
import rvpo.core
import rvpo.core.small as small
from reference import reference
from rvpo.core.blocks import SMALL
from rvpo.core.metrics import Advantages, counter_metrics
from rvpo.errors import RewardError

NAN = math.nan
PAGE = sys.modules["rvpo.core.advantages"]
TENSORS = [field.name for field in dataclasses.fields(Advantages)][:9]
METHODS = (
    "gdpo",
    "gdpo:dead_channels=drop",
    "gdpo:unscored=zero",
    "rvpo",
    "rvpo:k=3,dead_channels=keep",
    "rvpo:k=0",
    "grpo",
)
examples = settings(max_examples=15, deadline=None)


@contextmanager
def by_the_page() -> Iterator[None]:
    quick = PAGE.fast_advantages
    PAGE.fast_advantages = lambda *_: None
    try:
        yield
    finally:
        PAGE.fast_advantages = quick


@contextmanager
def numpy_is(usable: bool) -> Iterator[None]:
    """Let torch share arrays with NumPy or not, as where NumPy is not installed."""
    found = small.has_numpy
    small.has_numpy = found if usable else lambda: False
    try:
        yield
    finally:
        small.has_numpy = found


def is_quick(out: Advantages) -> bool:
    return "_later" in vars(out)


def agree(rewards: Tensor, *args, quick: bool = True, tolerance: float | None = None, **options) -> Advantages:
    """Compare both ways on every tensor of the result, and on all metrics."""
    tolerance = tolerance or (1e-12 if rewards.dtype == torch.float64 else 1e-6)
    given = rewards.clone()
    mine = rvpo.advantages(rewards, *args, **options)
    with by_the_page():
        page = rvpo.advantages(rewards, *args, **options)
    assert is_quick(mine) == quick
    assert not is_quick(page)
    columns = rewards.shape[1]
    lines, counting = torch.full((columns,), 0.5, dtype=torch.float64), torch.ones(columns, dtype=torch.bool)
    numbers = [
        {**out.metrics(), **counter_metrics(out, [str(j) for j in range(columns)], lines, counting)}
        for out in (mine, page)
    ]
    if bool((page.advantages.abs() < 1e-6).any()):  # whether an advantage of 0 is positive is up to rounding
        numbers = [{k: v for k, v in found.items() if not k.endswith("suppressed")} for found in numbers]
    assert numbers[0] == pytest.approx(numbers[1], rel=3e-6, abs=1e-6, nan_ok=True)
    for name in TENSORS:
        ours, theirs = getattr(mine, name), getattr(page, name)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=10 * tolerance, equal_nan=True, msg=name)
    assert torch.equal(mine.groups.index, page.groups.index)
    assert dict(mine.method_metrics) == dict(page.method_metrics)
    assert torch.equal(rewards.nan_to_num(), given.nan_to_num())
    return mine


@st.composite
def blocks(draw) -> tuple[Tensor, int]:
    """Draw rewards in blocks with channels that are free, binary, dead, nearly constant, missing or large."""
    groups, size, channels = draw(st.integers(1, 5)), draw(st.integers(2, 5)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    rewards = torch.randint(-12, 13, (groups, size, channels), generator=generator, dtype=torch.float64) / 4
    for p in range(groups):
        for j in range(channels):
            cell = rewards[p, :, j]
            kind = draw(st.sampled_from(["free"] * 4 + ["binary", "dead", "noise", "holes", "missing", "far"]))
            if kind == "binary":
                cell.clamp_(0, 1).round_()
            elif kind == "dead":
                cell.fill_(0.1)
            elif kind == "noise":
                cell.mul_(1e-9).add_(1).mul_(0.7)
            elif kind == "holes":
                cell[torch.rand(size, generator=generator) < 0.4] = NAN
            elif kind == "missing":
                cell.fill_(NAN)
            elif kind == "far":
                cell.add_(1e6)
    return rewards.flatten(0, 1), size


def in_any_order(draw, rewards: Tensor, size: int) -> tuple[Tensor, Tensor]:
    order = torch.tensor(draw(st.permutations(range(len(rewards)))))
    return rewards[order], (torch.arange(len(rewards)) // size * 5 - 7)[order]


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
@examples
def test_equals_the_equation_page(method: str, data: st.DataObject):
    rewards, size = data.draw(blocks())
    options = {"eps": data.draw(st.sampled_from([1e-4, 0.1])), "ddof": data.draw(st.sampled_from([0, 1]))}
    options["whiten"] = data.draw(st.sampled_from(["batch", "group", "none"]))
    if data.draw(st.booleans()):
        options["weights"] = data.draw(
            st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=rewards.shape[1], max_size=rewards.shape[1])
        )
    # Rounding of rewards around 1e6 is 1e-10, and grows where whitening divides by a small deviation.
    mixed, ids = in_any_order(data.draw, rewards, size)
    for usable in (True, False):
        with numpy_is(usable):
            agree(rewards, num_generations=size, method=method, tolerance=1e-7, **options)
            agree(mixed, ids, method=method, tolerance=1e-7, **options)


def test_the_deviation_of_large_rewards_is_that_of_their_numbers():
    """float32 has no fractions at 1e7, but the rewards have a standard deviation, over large and small batches."""
    for rows in (64, SMALL):
        rewards = torch.rand(rows, 3, generator=torch.Generator().manual_seed(0)) + 1e7
        for method in ("rvpo", "gdpo"):
            agree(rewards, num_generations=8, method=method, tolerance=1e-5)
            found = rvpo.advantages(rewards, num_generations=8, method=method).metrics()
            assert found["0/std"] == pytest.approx(float(rewards[:, 0].double().std()), rel=1e-6)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, NAN])
@pytest.mark.parametrize("method", ["rvpo", "gdpo", "grpo", "lift"])
@pytest.mark.filterwarnings("error")
def test_numpy_does_not_warn_of_rewards_that_are_left_to_torch(method: str, bad: float):
    """Not even where a user lets NumPy raise on everything."""
    rewards = torch.rand(16, 2, generator=torch.Generator().manual_seed(0))
    rewards[:4, 1], rewards[5, 0] = bad, -bad
    with numpy.errstate(all="raise"):
        if math.isnan(bad):
            assert rvpo.advantages(rewards, num_generations=4, method=method, state={}).advantages.isfinite().all()
        else:
            with pytest.raises(RewardError, match="inf"):
                rvpo.advantages(rewards, num_generations=4, method=method, state={})


@pytest.mark.parametrize("method", ["rvpo", "gdpo", "gdpo:whiten=group", "grpo"])
def test_constant_rewards_that_the_page_refuses_are_refused(method: str):
    rewards = torch.rand(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for constant in (slice(1, 2), slice(0, 2)):
        rewards[:, constant] = 1e120
        for usable in (True, False):
            with numpy_is(usable), pytest.raises(RewardError, match=r"1e[+]120"):
                rvpo.advantages(rewards, num_generations=4, method=method)


def test_small_batches_are_computed_in_numpy_where_it_is_installed():
    rewards = torch.rand(16, 3, generator=torch.Generator().manual_seed(0))
    for method in ("rvpo", "gdpo", "grpo"):
        assert rvpo.advantages(rewards, num_generations=4, method=method)._later.found.keeps_rewards
        with numpy_is(usable=False):
            assert not rvpo.advantages(rewards, num_generations=4, method=method)._later.found.keeps_rewards
    large = torch.rand(SMALL, 3, generator=torch.Generator().manual_seed(0))
    assert not rvpo.advantages(large, num_generations=4)._later.found.keeps_rewards


@pytest.mark.parametrize("name", ["rvpo", "gdpo", "grpo"])
@given(data=st.data())
@examples
def test_equals_the_loop_reference(name: str, data: st.DataObject):
    rewards, size = data.draw(blocks())
    mixed, ids = in_any_order(data.draw, rewards, size)
    out = rvpo.advantages(mixed, ids, method=name)
    slow = reference(mixed.tolist(), ids.tolist(), name)
    assert is_quick(out)
    assert out.live.tolist() == slow.live
    for attribute in ("advantages", "z", "responsibilities"):
        expected = torch.tensor(getattr(slow, attribute), dtype=torch.float64)
        torch.testing.assert_close(getattr(out, attribute), expected, atol=1e-7, rtol=1e-7, equal_nan=True)


def large(kind: str, rows: int = 8192, channels: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    rewards = torch.rand(rows, channels, generator=generator)
    if kind == "dead":
        rewards.view(-1, 8, channels)[
            torch.rand(rows // 8, channels, generator=generator)[:, None].expand(-1, 8, -1) < 0.3
        ] = 0.25
    elif kind == "missing":
        rewards[torch.rand(rows, channels, generator=generator) < 0.05] = NAN
        rewards[:8] = rewards[9] = rewards[16:24, 1] = NAN
    elif kind == "binary":
        rewards = rewards.round()
    elif kind == "far":
        rewards = rewards + 1000
    return rewards


@pytest.mark.parametrize("kind", ["plain", "dead", "missing", "binary", "far"])
def test_large_batches_in_float32(kind: str):
    rewards = large(kind)
    assert rewards.numel() > SMALL
    for method in ("gdpo", "rvpo", "grpo"):
        agree(rewards, num_generations=8, method=method)
    agree(rewards, torch.arange(len(rewards)) % 1024, method="rvpo", weights=[1.0, 2.0, 1.0, 1.0, 0.5])


def test_aggregates_that_hardly_differ_need_double_precision():
    """Opposite channels sum to 0, up to rounding that whitening would blow up."""
    half = large("plain", channels=2)
    out = agree(torch.cat([half, 1 - half], 1).double().float(), num_generations=8, method="gdpo", eps=1e-6)
    assert out.advantages.abs().max() < 1e-3 or out.advantages.abs().max() > 0.1  # not amplified from nowhere


EXTREMES = {
    "1e30": (1e30, False),
    "3e38": (3e38, False),
    "denormal": (1e-42, True),
    "1e-30": (1e-30, True),
}


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("method", ["gdpo", "rvpo", "grpo"])
def test_extreme_rewards(kind: str, method: str):
    scale, is_constant = EXTREMES[kind]
    for rows in (16, 8192):
        rewards = large("plain", rows) * scale
        out = agree(rewards, num_generations=8, method=method)
        assert out.advantages.isfinite().all()
        assert bool(out.live.any()) != is_constant


@pytest.mark.parametrize("value", [math.inf, -math.inf])
@pytest.mark.parametrize("method", ["gdpo", "rvpo", "grpo"])
def test_infinite_rewards_are_refused(method: str, value: float):
    for rewards in (large("plain", 16), large("plain"), large("missing")):
        rewards[11, 2] = value
        with pytest.raises(RewardError, match=r"rewards\[11, 2\] is -?inf; expected finite numbers"):
            rvpo.advantages(rewards, num_generations=8, method=method)


def test_missing_rewards_can_be_refused():
    rewards = large("missing", 16)
    with pytest.raises(RewardError, match="is nan; expected finite"):
        rvpo.advantages(rewards, num_generations=8, method="gdpo", missing="error")


@pytest.mark.parametrize(
    ("options", "quick"),
    [
        ({"num_generations": 1}, False),
        ({"groups": torch.tensor([0, 0, 1, 1, 1, 1, 2, 2])}, False),
        ({"groups": torch.tensor([9, 9, 1, 1, 4, 4, 1, 9])}, False),
        ({"num_generations": 8}, True),
        ({"num_generations": 2}, True),
        ({"num_generations": 2, "weights": [1.0, 0.0]}, False),
        ({"num_generations": 2, "weights": [1.0, 1e-20]}, False),
        ({"num_generations": 2, "weights": torch.rand(8, 2) + 0.1}, False),
        ({"num_generations": 2, "eps": 0.0}, False),
        ({"num_generations": 2, "applies": torch.ones(8, 2, dtype=torch.bool)}, False),
        ({"num_generations": 2, "method": "rvpo:k=0.001"}, False),
        ({"num_generations": 2, "method": "rvpo:k=10000"}, False),
        ({"num_generations": 2, "method": "hard_min"}, False),
        ({"num_generations": 2, "whiten": "token", "tokens": torch.arange(8) + 1}, False),
        ({"num_generations": 2, "method": "rvpo:k=linear(0.5,2)", "progress": 0.5}, True),
    ],
)
def test_what_does_not_fit_goes_the_other_way(options: dict, quick: bool):
    agree(torch.rand(8, 2, generator=torch.Generator().manual_seed(0)), quick=quick, tolerance=1e-5, **options)


@pytest.mark.parametrize("shape", [(2, 1), (8, 1), (2, 17)])
def test_smallest_batches(shape: tuple[int, int]):
    rewards = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for method in METHODS:
        agree(rewards, num_generations=2, method=method)


def test_nothing_but_advantages_is_computed_before_it_is_read():
    out = rvpo.advantages(large("plain"), num_generations=8)
    out.metrics()
    assert not {"z", "responsibilities", "live", "aggregated"} & set(vars(out))
    assert out.z is out.z
    with pytest.raises(AttributeError, match="nonsense"):
        out.nonsense  # noqa: B018


def test_a_result_can_be_copied_changed_and_pickled():
    out = rvpo.advantages(large("plain", 16), num_generations=8)
    changed = dataclasses.replace(out, advantages=out.advantages * 2)
    for other in (copy.deepcopy(out), pickle.loads(pickle.dumps(out)), changed):
        assert torch.equal(other.z, out.z)
        assert torch.equal(other.groups.index, out.groups.index)
    assert changed.metrics()["0/mean"] == pytest.approx(out.metrics()["0/mean"])


@pytest.mark.parametrize("way", ["in place", "through numpy"])
@pytest.mark.parametrize("method", ["gdpo", "grpo"])
def test_rewards_that_changed_since_are_refused(way: str, method: str):
    rewards = large("plain", 16)
    out = rvpo.advantages(rewards, num_generations=8, method=method)
    known = out.advantages.clone()
    if way == "in place":
        rewards[3, 1] += 0.5
    else:
        rewards.numpy()[3, 1] += 0.5
    with pytest.raises(RewardError, match=r"changed in place before z was read.*rewards.clone"):
        out.z  # noqa: B018
    assert torch.equal(out.advantages, known)


def test_aggregates_and_advantages_share_no_memory():
    out = rvpo.advantages(large("plain", 16).double(), num_generations=8, method="gdpo", whiten="none")
    before = out.aggregated.clone()
    out.advantages.zero_()
    assert torch.equal(out.aggregated, before)
