"""The running mean: to the bit as it was where nothing is forgotten, and small for runs with ever new labels."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rvpo
from rvpo.core.running_mean import MOST, RunningMean
from rvpo.core.state import plain

examples = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


class Slow:
    """The mean that never forgets, as it was first written: the reference."""

    def __init__(self, dimensions: int) -> None:
        self.names: tuple[str, ...] = ()
        self.total = torch.zeros((0,) * dimensions, dtype=torch.float64)
        self.weight = torch.zeros(0, dtype=torch.float64)

    def update(self, names: Sequence[str], value: Tensor, horizon: float) -> None:
        every = (*self.names, *(name for name in names if name not in self.names))
        value = self.laid_out(value, names, every, torch.nan)
        total, weight = (self.laid_out(x, self.names, every, 0.0) for x in (self.total, self.weight))
        seen = (~(value if value.ndim == 1 else value.diagonal()).isnan()).double()
        new, keep = 1 / horizon, 1 - seen / horizon
        self.names = every
        self.total = self.of_pairs(keep, value.ndim) * total + new * value.nan_to_num(nan=0.0)
        self.weight = keep * weight + new * seen

    def mean(self, names: Sequence[str]) -> Tensor:
        return self.laid_out(self.total / self.of_pairs(self.weight, self.total.ndim), self.names, names, torch.nan)

    @staticmethod
    def of_pairs(x: Tensor, dimensions: int) -> Tensor:
        return x if dimensions == 1 else (x[:, None] * x).sqrt()

    @staticmethod
    def laid_out(x: Tensor, names: Sequence[str], wanted: Sequence[str], fill: float) -> Tensor:
        place = {name: i for i, name in enumerate(names)}
        x = torch.nn.functional.pad(x, (0, 1) * x.ndim, value=fill)
        index = torch.tensor([place.get(name, len(names)) for name in wanted], dtype=torch.int64)
        for dimension in range(x.ndim):
            x = x.index_select(dimension, index)
        return x


def equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(nan=0.0), b.nan_to_num(nan=0.0))


def draw(rng: random.Random, dimensions: int, names: Sequence[str]) -> Tensor:
    """Draw a value in which some channels were not seen; it need not be symmetric to the last bit."""
    n = len(names)
    value = torch.randn((n,) * dimensions, generator=torch.Generator().manual_seed(rng.randrange(2**31))).double()
    missing = torch.tensor([rng.random() < 0.2 for _ in names], dtype=torch.bool)
    return value.masked_fill(missing if dimensions == 1 else missing[:, None] | missing, torch.nan)


def batches(rng: random.Random, dimensions: int, labels: int = 9) -> list[tuple[tuple[str, ...], Tensor]]:
    """Draw batches with channels that come, go, stay away and lie in any order; some have the last one's names."""
    out: list[tuple[tuple[str, ...], Tensor]] = []
    for _ in range(rng.randint(1, 10)):
        names = tuple(f"c{i}" for i in rng.sample(range(labels), rng.randint(1, labels)))
        if out and rng.random() < 0.4:
            names = out[-1][0]
        out.append((names, draw(rng, dimensions, names)))
    return out


@pytest.mark.parametrize("dimensions", [1, 2])
@examples
@given(seeds)
def test_it_is_to_the_bit_what_it_was(dimensions: int, seed: int):
    rng = random.Random(seed)
    running, slow, state = RunningMean.empty(dimensions), Slow(dimensions), None
    for names, value in batches(rng, dimensions):
        horizon = rng.choice([1.0, 1.3, 5.0, 5.0, 100.0])
        slow.update(names, value, horizon)
        running = running.update(names, value, horizon)
        # By way of what is kept between steps, and of a checkpoint.
        given = json.loads(json.dumps(plain(state))) if rng.random() < 0.5 else state
        state = RunningMean.from_state(given, dimensions).update(list(names), value, horizon).to_state()
        for ours in (running, RunningMean.from_state(state, dimensions)):
            assert ours.names == slow.names
            assert equal(ours.total, slow.total)
            assert equal(ours.weight, slow.weight)
            for wanted in (names, slow.names, ("c0", "new", "c3")):
                assert equal(ours.mean(wanted), slow.mean(wanted))


@pytest.mark.parametrize("dimensions", [1, 2])
@examples
@given(seeds)
def test_a_horizon_per_channel(dimensions: int, seed: int):
    rng = random.Random(seed)
    horizons = {f"c{i}": rng.choice([0.2, 1.0, 2.5, 30.0]) for i in range(9)}
    many, same, one = (RunningMean.empty(dimensions) for _ in range(3))
    for names, value in batches(rng, dimensions):
        many = many.update(names, value, torch.tensor([horizons[name] for name in names]))
        same = same.update(names, value, torch.full((len(names),), 2.5))
        one = one.update(names, value, 2.5)
    assert equal(same.total, one.total)
    assert equal(same.weight, one.weight)
    for name, horizon in horizons.items():  # each is the mean over its own horizon, whatever the others are
        alone, rng = RunningMean.empty(dimensions), random.Random(seed)
        for _ in horizons:
            rng.choice([0.2, 1.0, 2.5, 30.0])
        for names, value in batches(rng, dimensions):
            alone = alone.update(names, value, max(horizon, 1.0))
        own, want = (x.mean([name]).flatten() for x in (many, alone))
        torch.testing.assert_close(own, want, rtol=1e-12, atol=1e-14, equal_nan=True)


def test_a_pair_of_horizons_by_hand():
    """Each of the pair's factors is the geometric mean of its channels': keep 1/2 and 3/4, new 1/2 and 1/4."""
    horizon = torch.tensor([2.0, 4.0])
    first, second = (torch.tensor(x, dtype=torch.float64) for x in ([[4.0, 2.0], [2.0, 9.0]], [[1.0, 1.0], [1.0, 1.0]]))
    running = RunningMean.empty(2).update("ab", first, horizon).update("ab", second, horizon)
    keep, new = math.sqrt(1 / 2 * 3 / 4), math.sqrt(1 / 2 * 1 / 4)
    weight = math.sqrt((1 / 2 * 1 / 2 + 1 / 2) * (3 / 4 * 1 / 4 + 1 / 4))
    ab = (keep * new * 2 + new * 1) / weight
    want = torch.tensor([[(4 / 4 + 1 / 2) / 0.75, ab], [ab, (9 * 3 / 16 + 1 / 4) / (7 / 16)]], dtype=torch.float64)
    torch.testing.assert_close(running.mean("ab"), want, rtol=1e-14, atol=0)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_covariances_stay_positive_with_any_horizons_and_with_names_dropped(seed: int):
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    running = RunningMean.empty(2)
    for _ in range(8):
        names = [f"c{i}" for i in rng.sample(range(8), rng.randint(1, 5))]
        u = torch.randn(2, len(names), generator=generator, dtype=torch.float64)
        horizon = torch.tensor([rng.choice([1.0, 1.5, 5.0, 100.0]) for _ in names])
        running = running.update(names, u.T @ u, horizon, most=6)
        c = running.mean(running.names).nan_to_num(nan=0.0)
        scale = c.diagonal().clamp(min=1e-300).rsqrt()
        assert torch.linalg.eigvalsh(scale[:, None] * c * scale).min() > -1e-9


# --- what is forgotten ------------------------------------------------------------------------------------------------


def ones(running: RunningMean, names: Sequence[str], most: int, horizon: float = 5.0) -> RunningMean:
    dimensions = running.total.ndim
    return running.update(names, torch.ones((len(names),) * dimensions, dtype=torch.float64), horizon, most=most)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_longest_absent_is_dropped_first(dimensions: int):
    running = RunningMean.empty(dimensions)
    for names in ("abc", "cd", "b", "e"):
        running = ones(running, names, most=4)
    assert running.names == ("b", "c", "d", "e")
    assert running.absent == (1, 2, 2, 0)
    running = ones(running, "f", most=3)  # of c and d, c was seen twice
    assert running.names == ("b", "e", "f")
    running = ones(running, "f", most=3)
    assert running.absent == (3, 2, 0)


def test_of_equals_the_one_with_the_least_weight_is_dropped_then_the_first_name():
    running = RunningMean.empty(1)
    for names in ("ad", "dabc", "e"):
        running = ones(running, names, most=5)
    assert ones(running, "f", most=4).names == ("a", "d", "e", "f")
    assert ones(running, "f", most=3).names == ("d", "e", "f")


def test_a_batch_is_never_cut():
    running = ones(RunningMean.empty(2), "abcdef", most=3)
    assert running.names == tuple("abcdef")
    assert ones(running, "ag", most=3).names[0] == "a"
    assert ones(running, "xyzw", most=3).names == tuple("xyzw")


def test_what_is_not_over_the_limit_is_never_forgotten():
    """A channel that is in every 50th batch keeps its mean."""
    running = RunningMean.empty(2)
    for step in range(500):
        running = ones(running, ["a", "b", "rare"] if step % 50 == 0 else ["a", "b"], most=3)
    assert running.weight[2] == pytest.approx(1 - 0.8**10)


@pytest.mark.parametrize("dimensions", [1, 2])
@examples
@given(seeds)
def test_the_order_of_names_in_a_batch_does_not_matter(dimensions: int, seed: int):
    rng = random.Random(seed)
    ours, theirs = (RunningMean.empty(dimensions) for _ in range(2))
    for names, value in batches(rng, dimensions, labels=14):
        order = rng.sample(range(len(names)), len(names))
        turned = value[order] if dimensions == 1 else value[order][:, order]
        ours = ours.update(names, value, 5.0, most=7)
        theirs = theirs.update([names[i] for i in order], turned, 5.0, most=7)
        assert set(ours.names) == set(theirs.names)
        assert len(ours.names) <= max(7, len(names))
        assert dict(zip(ours.names, ours.absent, strict=True)) == dict(zip(theirs.names, theirs.absent, strict=True))
        assert equal(ours.mean(ours.names), theirs.mean(ours.names))


def test_a_dropped_name_begins_anew():
    running = RunningMean.empty(1).update(["a"], torch.tensor([0.25]), 5.0)
    running = ones(running, "bc", most=2)
    assert math.isnan(running.mean(["a"]).item())
    again = running.update(["a"], torch.tensor([0.75]), 5.0, most=2)
    assert again.mean(["a"]).item() == pytest.approx(0.75, rel=1e-15)


# --- a run with ever new labels ---------------------------------------------------------------------------------------


def test_ever_new_labels_cost_what_those_in_use_do():
    state, seconds = {}, []
    for step in range(400):
        names = [f"rubric/permanent {i}" for i in range(8)] + [f"rubric/label {32 * step + i}" for i in range(32)]
        u = torch.randn(64, 40, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        started = time.thread_time()
        for key, dimensions, value in (("attained", 1, u.mean(0)), ("covariance", 2, u.T @ u / 64)):
            running = RunningMean.from_state(state.get(key), dimensions).update(names, value, 5.0)
            running.mean(names)
            state[key] = running.to_state()
        seconds.append(time.thread_time() - started)
    assert [len(state[key]["names"]) for key in ("attained", "covariance")] == [MOST[1], MOST[2]]
    assert len(json.dumps(plain(state))) < 1_000_000
    early, late = (sorted(seconds[a:b])[(b - a) // 2] for a, b in ((100, 200), (300, 400)))
    assert late < 3 * early + 5e-3
    assert state["attained"]["names"][:8] == tuple(names[:8])
    assert state["attained"]["weight"][:8].tolist() == pytest.approx([1.0] * 8)


def test_a_full_memory_is_under_1_mb():
    state = {}
    for key, dimensions in (("attained", 1), ("covariance", 2)):
        names = [f"rubric/a label with a long name {i}" for i in range(MOST[dimensions])]
        value = torch.rand((len(names),) * dimensions, dtype=torch.float64)
        state[key] = RunningMean.empty(dimensions).update(names, value, 5.0).to_state()
    assert len(json.dumps(plain(state))) < 1_000_000


def test_lift_with_ever_new_labels():
    """Through compute, as a run has them: what was kept between steps and what a checkpoint keeps go on alike."""
    config, state, resumed = rvpo.AdvantageConfig("lift"), {}, {}
    for step in range(30):
        names = tuple(["a", "b"] + [f"r/{8 * step + i}" for i in range(8)])
        rewards = torch.rand(12, 10, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        ours, theirs = (
            rvpo.core.compute(rewards, config, num_generations=4, channels=rvpo.Channels.columns(names), state=each)
            for each in (state, json.loads(json.dumps(plain(resumed))))
        )
        assert torch.equal(ours.advantages, theirs.advantages)
        state, resumed = ours.state, theirs.state
    assert plain(state) == plain(resumed)
    assert isinstance(state["moments"]["total"], Tensor)
    assert len(state["moments"]["names"]) == MOST[2]


# --- the state as data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_checkpoint_of_before_is_read(dimensions: int):
    new = plain(ones(RunningMean.empty(dimensions), "ab", most=9).to_state())
    old = {key: value for key, value in new.items() if key != "absent"}
    read = RunningMean.from_state(old, dimensions)
    assert read.absent == (0, 0)
    assert plain(read.to_state()) == new
    empty = plain(RunningMean.empty(dimensions).to_state())
    assert RunningMean.from_state(empty, dimensions).total.shape == (0,) * dimensions


def test_a_state_is_not_changed_by_going_on():
    state = ones(RunningMean.empty(2), "ab", most=9).to_state()
    before = copy.deepcopy(state)
    for names in ("ab", "bc"):
        ones(RunningMean.from_state(state, 2), names, most=2)
    assert plain(state) == plain(before)


def test_plain():
    state = {
        "a": {"t": torch.tensor([[0.1, 0.2]], dtype=torch.float64), "n": ("x", "y")},
        "k": None,
        "s": [1, 2.5, True],
    }
    got = plain(state)
    assert got == {"a": {"t": [[0.1, 0.2]], "n": ["x", "y"]}, "k": None, "s": [1, 2.5, True]}
    assert json.loads(json.dumps(got)) == got
    assert plain(torch.tensor(3)) == 3
    got["s"].append(3)
    assert state["s"] == [1, 2.5, True]
