"""LIFT's quick way equals the equation page over runs: advantages, state, metrics, and what is computed when read."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rvpo
import rvpo.core.small as small
from rvpo.core import LIFT, AdvantageConfig, Channels, compute, fast_lift
from rvpo.core.blocks import SMALL
from rvpo.core.lift_few import MOST
from rvpo.core.methods.registry import build_method
from rvpo.core.metrics import Advantages
from rvpo.core.state import plain
from rvpo.errors import ConfigError, RewardError

NAN = math.nan
PAGE = sys.modules["rvpo.core.advantages"]
TENSORS = [field.name for field in dataclasses.fields(Advantages)][:9]
G = 4
examples = settings(max_examples=10, deadline=None)


@contextmanager
def replaced(place: Any, name: str) -> Iterator[None]:
    """Let a quick way refuse everything."""
    quick = getattr(place, name)
    setattr(place, name, lambda *_: None)
    try:
        yield
    finally:
        setattr(place, name, quick)


def close(mine: Any, page: Any, tolerance: float, path: str = "") -> None:
    """Compare states or metrics: the same keys in the same order, and numbers up to rounding."""
    if isinstance(page, dict):
        assert list(mine) == list(page), path
        for key, value in page.items():
            close(mine[key], value, tolerance, f"{path}/{key}")
    elif isinstance(page, list):
        assert len(mine) == len(page), path
        for i, (one, other) in enumerate(zip(mine, page, strict=True)):
            close(one, other, tolerance, f"{path}/{i}")
    elif isinstance(page, float):
        assert mine == pytest.approx(page, rel=tolerance, abs=tolerance, nan_ok=True), path
    else:
        assert mine == page, path


def step(rewards: Tensor, state: Any, ranges: Any = None, method: str = "lift", **options: Any) -> Advantages:
    if "groups" not in options:
        options["num_generations"] = options.get("num_generations", G)
    columns = Channels.columns([f"c{j}" for j in range(rewards.shape[1])], ranges)
    config = {key: options.pop(key) for key in ("eps", "ddof", "rtol", "wanted") if key in options}
    return compute(rewards, AdvantageConfig(build_method(method), **config), channels=columns, state=state, **options)


def agree(
    batches: list[Tensor], *, quick: bool | None = True, tolerance: float = 1e-11, **options: Any
) -> list[Advantages]:
    """Follow a run both ways, each with its own state, and compare everything after each batch."""
    mine, page = None, None
    found = []
    for rewards in batches:
        given, before = rewards.clone(), json.dumps(plain(mine))
        out = step(rewards, mine, **options)
        with replaced(PAGE, "fast_lift"):
            slow = step(rewards, page, **options)
        assert quick is None or ("_later" in vars(out)) == quick
        assert "_later" not in vars(slow)
        assert json.dumps(plain(mine)) == before  # a state is not changed in place
        exact = tolerance if rewards.dtype == torch.float64 else 1e-6
        for name in TENSORS:
            ours, theirs = getattr(out, name), getattr(slow, name)
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
            torch.testing.assert_close(ours, theirs, atol=exact, rtol=exact, equal_nan=True, msg=name)
        mine, page = out.state, slow.state
        close(plain(mine), plain(page), tolerance)
        close(dict(out.method_metrics), dict(slow.method_metrics), tolerance)
        close(out.metrics(), slow.metrics(), 3e-6)
        assert torch.equal(rewards.nan_to_num(), given.nan_to_num())
        mine = json.loads(json.dumps(plain(mine))) if len(found) == 1 else mine  # as a checkpoint has it
        found.append(out)
    return found


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


KINDS = ("free", "binary", "shares", "dead", "noise", "group_dead", "wide", "levels", "copy", "opposite", "met", "tiny")


def column(kind: str, rows: int, seed: int, before: Tensor) -> Tensor:
    x = torch.rand(rows, generator=generator(seed), dtype=torch.float64)
    made: dict[str, Callable[[], Tensor]] = {
        "free": lambda: x,
        "binary": lambda: (x > 0.6).double(),
        "shares": lambda: (x * 4).round() / 4,
        "dead": lambda: torch.full_like(x, 0.1),
        "noise": lambda: 0.7 * (1 + 1e-9 * x),
        "group_dead": lambda: torch.where(torch.arange(rows) // G % 2 == 0, torch.full_like(x, 0.3), x),
        "wide": lambda: 40 * x - 13,
        "levels": lambda: (x * 3).round() * 5 - 5,
        "copy": lambda: before,
        "opposite": lambda: 1 - before,
        "met": lambda: (x > 0.02).double(),
        "tiny": lambda: 0.5 + 1e-4 * x,
    }
    return made[kind]()


def batch(kinds: list[str], rows: int, seed: int) -> Tensor:
    columns: list[Tensor] = []
    for j, kind in enumerate(kinds):
        before = columns[-1] if columns else torch.rand(rows, generator=generator(seed + 999), dtype=torch.float64)
        columns.append(column(kind, rows, seed * 31 + j, before))
    return torch.stack(columns, 1)


@given(data=st.data())
@examples
def test_runs_equal_the_equation_page(data: st.DataObject):
    draw = data.draw
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    groups, seed = draw(st.integers(1, 6)), draw(st.integers(0, 9999))
    options: dict[str, Any] = {"ddof": draw(st.sampled_from([0, 1])), "eps": draw(st.sampled_from([1e-4, 0.1]))}
    method = draw(
        st.sampled_from(["lift", "lift:kappa=9,margin=0.9,memory=30", "lift:margin=-1", "lift:floors={c0:0.7}"])
    )
    options["method"] = (
        f"{method}{',' if ':' in method else ':'}whiten={draw(st.sampled_from(['batch', 'group', 'none']))}"
    )
    if draw(st.booleans()):
        options["weights"] = [draw(st.sampled_from([0.5, 1.0, 3.0])) for _ in kinds]
    if draw(st.booleans()):
        options["ranges"] = [draw(st.sampled_from([None, (0.0, 1.0), (-3.0, 2.0)])) for _ in kinds]
    if draw(st.booleans()):
        order = torch.tensor(draw(st.permutations(range(groups * G))))
        options["groups"] = (torch.arange(groups * G) // G * 5 - 7)[order]
    if draw(st.booleans()):
        options["reliability"] = torch.tensor([draw(st.sampled_from([1.0, 0.6, 0.0])) for _ in kinds])
    batches = [batch(kinds, groups * G, seed + i) for i in range(3)]
    # Copies are told apart by 1e-8 on diagonals, which magnifies rounding; whitening within a group does, too.
    tolerance = 1e-6 if {"copy", "opposite"} & set(kinds) else 1e-9
    agree(batches, quick=None, tolerance=tolerance, **options)
    with replaced(small, "has_numpy"):  # as where NumPy is not installed
        agree(batches, quick=None, tolerance=tolerance, **options)


def test_small_batches_are_computed_in_numpy_where_it_is_installed():
    rewards = torch.rand(16, 3, generator=generator(0))
    assert step(rewards, None)._later.found.keeps_rewards
    with replaced(small, "has_numpy"):
        assert not step(rewards, None)._later.found.keeps_rewards
    assert not step(torch.rand(SMALL, 3, generator=generator(0)), None)._later.found.keeps_rewards


@pytest.mark.parametrize("columns", [1, 4, MOST, MOST + 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ordinary_runs_are_quick_and_equal(columns: int, dtype: torch.dtype):
    batches = [torch.rand(16, columns, generator=generator(i), dtype=torch.float64).to(dtype) for i in range(3)]
    if dtype == torch.bfloat16:
        batches = [x.float() for x in batches]
    agree(batches)


@pytest.mark.parametrize("kind", ["free", "binary", "levels", "wide", "group_dead"])
def test_batches_of_several_chunks(kind: str):
    batches = [batch([kind, "free", "binary"], SMALL, i)[:, [0, 1, 2, 0, 1]].float() for i in range(2)]
    batches[0][:, 3:] = batches[0][:, 3:].flip(0)
    batches[1][:, 3:] = batches[1][:, 3:].flip(0)
    agree(batches)
    agree(batches, groups=torch.arange(SMALL) % (SMALL // 4))


def holes(x: Tensor) -> Tensor:
    return x.masked_fill(torch.rand(x.shape, generator=generator(5), dtype=torch.float64) < 0.2, NAN)


ELSEWHERE: dict[str, dict[str, Any]] = {
    "a missing reward": {},
    "groups that differ in size": {"groups": torch.tensor([0] * 5 + [1] * 3 + [2] * 4 + [3] * 4)},
    "single rows": {"num_generations": 1},
    "a weight of 0": {"weights": [1.0, 0.0, 1.0]},
    "weights of cells": {"weights": torch.rand(16, 3, generator=generator(1), dtype=torch.float64) + 0.1},
    "cells that do not apply": {"applies": torch.arange(48).view(16, 3) % 7 > 0},
    "a wanted channel": {"wanted": ("c1",)},
    "dead channels left out": {"method": "lift:dead_channels=drop"},
    "tokens": {"method": "lift:whiten=token", "tokens": torch.arange(16) + 1},
    "reliabilities of cells": {"reliability": torch.rand(16, 3, generator=generator(2), dtype=torch.float64)},
    "no mean for eps": {"eps": 0.0},
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_does_not_fit_goes_the_other_way(kind: str):
    batches = [torch.rand(16, 3, generator=generator(i), dtype=torch.float64) for i in range(2)]
    if kind == "a missing reward":
        batches = [holes(x) for x in batches]
    agree(batches, quick=False, **ELSEWHERE[kind])


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 1e76, 1e300])
def test_extreme_rewards(scale: float):
    batches = [torch.rand(16, 3, generator=generator(i), dtype=torch.float64) * scale for i in range(3)]
    for out in agree(batches, quick=None, tolerance=1e-9):
        assert out.advantages.isfinite().all()


def test_a_run_may_change_between_both_ways():
    """A batch with a missing reward, other groups or another set of channels goes on from the state of a quick one."""
    batches = [torch.rand(16, 3, generator=generator(i), dtype=torch.float64) for i in range(6)]
    batches[1], batches[4] = holes(batches[1]), holes(batches[4])
    agree(batches, quick=None)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_rewards_are_refused(value: float):
    for rows in (16, SMALL):
        rewards = torch.rand(rows, 3, generator=generator(0))
        rewards[11, 2] = value
        with pytest.raises(RewardError, match=r"rewards\[11, 2\] is -?inf; expected finite numbers"):
            step(rewards, None)


def test_missing_rewards_can_be_refused():
    rewards = holes(torch.rand(16, 3, generator=generator(0), dtype=torch.float64))
    with pytest.raises(RewardError, match="is nan; expected finite"):
        rvpo.advantages(rewards, num_generations=G, method="lift", state={}, missing="error")


def test_unknown_floors_are_refused():
    with pytest.raises(ConfigError, match="floors names the channel 'nobody'; expected one of c0, c1"):
        step(torch.rand(16, 2), None, method="lift:floors={nobody:0.5}")


@pytest.mark.parametrize("columns", [2, 5, 12])
def test_few_channels_are_weighed_as_many(columns: int):
    """What plain Python decides is what the page decides of the same sums."""
    batches = [torch.rand(24, columns, generator=generator(i), dtype=torch.float64) for i in range(4)]
    batches = [torch.cat([x, 1 - x[:, :1], x[:, 1:2]], 1) for x in batches]  # opposed channels, and copies
    for method in ("lift", "lift:floors={c0:0.6,c1:0.9},kappa=2", "lift:margin=0.9"):
        few, many = None, None
        for rewards in batches:
            one = step(rewards, few, method=method)
            with replaced(fast_lift, "decide_few"):
                other = step(rewards, many, method=method)
            few, many = one.state, other.state
            close(plain(few), plain(many), 1e-11)
            close(dict(one.method_metrics), dict(other.method_metrics), 1e-6)
            torch.testing.assert_close(one.advantages, other.advantages, atol=1e-6, rtol=1e-6)


def test_nothing_but_advantages_and_state_is_computed_before_it_is_read():
    out = step(torch.rand(16, 3, generator=generator(0)), None)
    out.metrics()
    assert not {"z", "responsibilities", "live", "aggregated", "method_metrics"} & set(vars(out))
    assert out.method_metrics is out.method_metrics


def test_a_result_can_be_copied_and_pickled():
    out = step(torch.rand(16, 3, generator=generator(0)), None)
    for other in (pickle.loads(pickle.dumps(out)), dataclasses.replace(out, advantages=out.advantages * 2)):
        assert torch.equal(other.responsibilities, out.responsibilities)
        assert dict(other.method_metrics) == dict(out.method_metrics)


@pytest.mark.parametrize("name", ["z", "responsibilities", "live"])
def test_rewards_that_changed_since_are_refused(name: str):
    rewards = torch.rand(16, 3, generator=generator(0))
    out = step(rewards, None)
    rewards.numpy()[3, 1] += 0.5
    with pytest.raises(RewardError, match=f"changed in place before {name} was read.*rewards.clone"):
        getattr(out, name)


def test_methods_derived_from_lift_go_by_the_page():
    @dataclasses.dataclass(frozen=True)
    class Mine(LIFT):
        pass

    out = compute(torch.rand(16, 3), AdvantageConfig(Mine()), num_generations=G)
    assert "_later" not in vars(out)


def test_rewards_in_another_order_that_changed_since_are_refused():
    rewards = torch.rand(16, 3, generator=generator(0))
    out = step(rewards, None, groups=torch.arange(16) % 4)
    rewards.numpy()[3, 1] += 0.5
    with pytest.raises(RewardError, match="changed in place before responsibilities was read"):
        out.responsibilities  # noqa: B018
