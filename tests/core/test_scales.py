"""Scales of rewards: by hand, against loops over everything that was seen, and what must not matter."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rvpo
from rvpo.core import AdvantageConfig, Channels, compute
from rvpo.core.channels import Range
from rvpo.core.methods.lagrangian import Lagrangian
from rvpo.core.scales import KEY, NAMES, Scales, learned_scales
from rvpo.core.state import plain
from rvpo.errors import ConfigError

NAN = math.nan
HALF = Lagrangian({"0": 0.5})
METHODS = ["lift", "lift_z", "ctwa", "tchebycheff", "smooth_tchebycheff", HALF, "riskpo:bundle_size=2,score=lift"]


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Channel:
    """One channel without a declared range, or with one, batch by batch."""

    def __init__(self, declared: Range | None = None) -> None:
        self.channels, self.state = Channels.columns(["x"], [declared]), {}

    def add(self, *batches: list[float]) -> Range:
        """Take in batches; return the scale after the last one."""
        for batch in batches:
            rewards = tensor(batch)[:, None]
            self.scales = Scales.of(rewards, torch.ones_like(rewards), self.channels, self.state)
            self.state = json.loads(json.dumps(self.scales.state))
        return tuple(self.scales.frames[0].tolist())

    @property
    def shares(self) -> list[float]:
        return self.scales.shares[:, 0].tolist()


def frame_of(*batches: list[float]) -> Range:
    return Channel().add(*batches)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_declared_ranges_clip_and_count():
    channels = Channels.columns(["a", "b", "c"], [None, (-3.0, 3.0), (2, 4)])
    rewards = tensor([[0.25, 0.0, 3.0], [NAN, -9.0, 4.5], [1.0, 3.0, NAN]])
    scales = Scales.of(rewards, torch.ones_like(rewards), channels, {})
    assert scales.frames.tolist() == [[0, 1], [-3, 3], [2, 4]]
    want = tensor([[0.25, 0.5, 0.5], [NAN, 0.0, 1.0], [1.0, 1.0, NAN]])
    torch.testing.assert_close(scales.shares, want, rtol=0, atol=1e-15, equal_nan=True)
    assert scales.metrics(channels) == {
        "a/attained": 0.625,
        "a/outside": 0.0,
        "a/scale_low": 0.0,
        "a/scale_high": 1.0,
        "b/attained": 0.5,
        "b/outside": pytest.approx(1 / 3),
        "c/attained": 0.75,
        "c/outside": 0.5,
    }
    assert scales.state["c"] == {"range": [2.0, 4.0], "seen": 2, "outside": 1, "low": 3.0, "high": 4.5}


def test_nothing_is_kept_of_a_declared_range_from_0_to_1_that_holds():
    """Rubrics may have thousands of labels; their scores are declared to be in [0, 1]."""
    channel = Channel((0.0, 1.0))
    channel.add([0.0, 0.5, 1.0])
    assert channel.state == {}
    assert channel.add([0.0, 1.5]) == (0.0, 1.0)
    assert channel.state["x"]["outside"] == 1


def test_a_reward_in_0_to_1_needs_nothing():
    assert frame_of([0.3, 0.3, 0.4]) == (0.0, 1.0)
    assert frame_of([i / 100 for i in range(40)]) == (0.0, 1.0)


def test_a_stray_reward_moves_nothing():
    binary = [0.0, 1.0] * 8
    for stray in (1.2, 1e6, -0.1):
        channel = Channel()
        assert channel.add(*[binary] * 20, [*binary, stray]) == (0.0, 1.0)
        assert channel.shares[-1] == float(stray > 0)
        assert channel.scales.outside.sum() == 1
        assert channel.add(*[binary] * 40) == (0.0, 1.0)


def test_a_discrete_reward_is_followed_as_soon_as_it_recurs():
    assert frame_of([-1.0] * 6 + [1.0] * 2) == (-1.0, 1.0)
    zeros = [0.0] * 100
    for rare, want in ((5.0, (0.0, 5.0)), (-5.0, (-5.0, 0.0))):
        channel = Channel()
        assert channel.add([*zeros, rare]) == (0.0, 1.0)
        assert channel.add([*zeros, rare]) == want
        assert channel.shares == [float(rare < 0)] * 100 + [float(rare > 0)]
    assert frame_of([0.0, 1.0] * 50 + [1.2] * 2) == (0.0, 1.2)
    assert frame_of([0.0, 1.0] * 50 + [-5.0] * 2) == (-5.0, 1.0)


def test_a_rare_value_far_from_the_others_is_left_out():
    """-11 is more than ten times the width of [0, 1] away, -10 is not; of a common one this does not matter."""
    assert frame_of([0.0, 1.0] * 50 + [-11.0] * 3) == (0.0, 1.0)
    assert frame_of([0.0, 1.0] * 50 + [-10.0] * 3) == (-10.0, 1.0)
    assert frame_of([0.0, 1.0] * 50 + [-11.0] * 20) == (-11.0, 1.0)
    assert frame_of([0.0] * 995 + [1.0] * 2 + [1e6] * 3) == (0.0, 1.0)


def test_few_rewards_count_all():
    assert frame_of([100.0, 250.0, 400.0]) == (100.0, 400.0)


def test_a_reward_that_is_always_the_same_is_half_attained():
    channel = Channel()
    assert channel.add([5.0] * 9) == (5.0, 5.0)
    assert channel.shares == [0.5] * 9
    assert channel.add([7.0, 7.0]) == (5.0, 7.0)
    assert channel.shares == [1.0, 1.0]


def test_a_continuous_reward_has_its_quantiles():
    """Of 100 rewards, five lie beyond each end."""
    assert frame_of([float(i) for i in range(1, 101)]) == (6.0, 95.0)
    assert frame_of([float(i) for i in range(1, 51)], [float(i) for i in range(51, 101)]) == (6.0, 95.0)


def test_an_end_of_0_to_1_holds_while_few_rewards_lie_beyond_it():
    judge = [i / 90 for i in range(91)]
    assert frame_of([*judge, *[1.05] * 9]) == (0.0, 1.0)
    # 101 rewards, 10 of which are beyond 1: under a tenth; with 12 of 102 the fifth from above is the end.
    assert frame_of([*judge, *[2.0 + i for i in range(10)]]) == (0.0, 1.0)
    assert frame_of([*judge[:-1], *[2.0 + i for i in range(12)]]) == (0.0, 8.0)


def test_0_to_1_that_held_for_long_is_kept_on_the_other_side():
    judge = [i / 90 for i in range(91)]
    channel = Channel()
    assert channel.add(*[judge] * 6, [*judge[:9], 1.05]) == (0.0, 1.0)
    # 512 rewards count, 60 of them beyond 1: the 26th from above is the end.
    assert channel.add([2.0 + i for i in range(59)]) == (0.0, 35.0)


def test_a_settled_scale_only_widens():
    """After 512 rewards; the end moves once over a tenth of the newest lie beyond it, so that a 20th does."""
    channel = Channel()
    first = [float(i) for i in range(1, 513)]
    assert channel.add(first) == (26.0, 487.0)
    assert channel.add([1000.0] * 16) == (26.0, 487.0)  # 25 + 16 of 528
    assert channel.add([1000.0 + i for i in range(64)]) == (26.0, 1034.0)  # 25 + 80 of 592, of which 29 are above 1034
    for _ in range(20):
        assert channel.add([600.0] * 64) == (26.0, 1034.0)
    mastered = Channel()
    mastered.add(first)
    assert mastered.add(*[[512.0] * 64] * 20) == (26.0, 512.0)
    assert mastered.shares == [1.0] * 64


def test_a_penalty_that_is_rare_and_graded_is_mostly_met():
    """One value and rare others: the scale has them all, but for the lowest of the first 600."""
    penalty = [0.0] * 97 + [-3.0, -2.0, -1.0]
    channel = Channel()
    for _ in range(8):
        penalty = [reward - 0.01 if reward else reward for reward in penalty]
        low, high = channel.add(penalty)
    assert (low, high) == (pytest.approx(-3.05), 0.0)
    assert sum(channel.shares) / 100 == pytest.approx((97 + 0 + 0.97 / 3.05 + 1.97 / 3.05) / 100)


def test_a_rising_reward_does_not_stay_at_the_top():
    rng = random.Random(0)
    for way in (1, -1):
        channel = Channel()
        for step in range(400):
            channel.add([rng.gauss(way * 0.05 * step, 1) for _ in range(32)])
            assert sum(share in (0.0, 1.0) for share in channel.shares) < 16, step
        low, high = channel.add([0.0])
        assert (high > 19) if way == 1 else (low < -19)


def test_heavy_tails_are_not_followed_to_their_extremes():
    """100,000 log-normal rewards: the ends stay near the 5% and the 95% quantile, exp(-+1.645)."""
    rng, channel = random.Random(0), Channel()
    for _ in range(400):
        low, high = channel.add([math.exp(rng.gauss(0, 1)) for _ in range(250)])
    assert low == 0.0 or 0.12 < low < 0.25
    assert 4 < high < 7


def test_a_new_declaration_begins_anew():
    channel = Channel()
    channel.add([5.0, 7.0])
    channel.channels = Channels.columns(["x"], [(0.0, 10.0)])
    assert channel.add([5.0]) == (0.0, 10.0)
    assert channel.state["x"]["seen"] == 1
    channel.channels = Channels.columns(["x"])
    assert channel.add([6.0, 8.0]) == (6.0, 8.0)


def test_channels_seen_last_are_kept():
    state: dict = {}
    for step in range(NAMES + 5):
        names = ["always", f"c{step}"]
        state = Scales.of(tensor([[0.0, 2.0]]), torch.ones(1, 2), Channels.columns(names), state).state
    assert len(state) == NAMES
    assert "always" in state
    assert "c5" not in state
    assert list(state)[-1] == f"c{NAMES + 4}"


# --- loops over everything that was seen ------------------------------------------------------------------------------


class Loop:
    """The rules as the module's text has them, on lists of rewards; batches of up to 512."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.recent: list[list[float]] = []
        self.frame: Range | None = None

    def add(self, batch: list[float]) -> Range:
        settled, was_discrete = len(self.seen) >= 512, len(set(self.seen)) <= 16
        self.seen = sorted([*self.seen, *batch])
        if len(set(self.seen)) <= 16:
            new = self.of_discrete()
            if not settled or self.frame is None:
                self.frame = new
            elif new is not None:
                self.frame = (min(self.frame[0], new[0]), max(self.frame[1], new[1]))
        elif min(self.seen) < 0 or max(self.seen) > 1:
            self.recent.append(at_even_distances(self.seen) if was_discrete else batch)
            while sum(map(len, self.recent[1:])) >= 512:
                self.recent = self.recent[1:]
            if settled and self.frame is not None and self.frame[0] < self.frame[1]:
                self.widen()
            else:
                self.frame = self.of_continuous(settled and self.frame is None)
        return self.frame or (0.0, 1.0)

    def of_discrete(self) -> Range | None:
        s = self.seen
        aside = 1 if len(s) >= 8 else 0
        tail = max(aside, len(s) // 20)
        inside = [x for x in s if 0 <= x <= 1 and s.count(x) > aside]
        common = [s[tail], s[-1 - tail], *inside] if len(s) > 2 * tail else s
        low, high = s[aside], s[-1 - aside]
        if min(common) < max(common):
            spread = max(common) - min(common)
            if min(common) >= 0 and max(common) <= 1:
                spread = max(spread, 1)
            near = [x for x in s if min(common) - 10 * spread <= x <= max(common) + 10 * spread and low <= x <= high]
            low, high = min(near), max(near)
        return None if low >= 0 and high <= 1 else (low, high)

    def of_continuous(self, keeps: bool) -> Range | None:
        s = sorted(x for batch in self.recent for x in batch)
        total = max(len(s), min(len(self.seen), 512))
        aside = max(1, total // 20)
        middle = (len(s) - 1) // 2
        low, high = s[min(aside, middle)], s[-1 - min(aside, middle)]
        if low == high and total == len(s):
            low, high = s[min(1, middle)], s[-1 - min(1, middle)]
            return None if low >= 0 and high <= 1 else (low, high)
        below, above = [x for x in s if x < 0], [x for x in s if x > 1]
        if keeps or len(below) + len(above) <= total / 2:
            low = low if len(below) > total / 10 else 0.0
            high = high if len(above) > total / 10 else 1.0
        return None if (low, high) == (0, 1) else (low, high)

    def widen(self) -> None:
        assert self.frame is not None
        s = sorted(x for batch in self.recent for x in batch)
        low, high = self.frame
        tail = len(s) // 20
        if sum(x < low for x in s) > len(s) / 10:
            low = s[tail]
        if sum(x > high for x in s) > len(s) / 10:
            high = s[-1 - tail]
        self.frame = low, high


def at_even_distances(rewards: list[float]) -> list[float]:
    count = min(512, len(rewards))
    return [rewards[math.floor((i + 0.5) * len(rewards) / count)] for i in range(count)]


KINDS: dict[str, Callable[[random.Random, int], float]] = {
    "binary": lambda rng, t: float(rng.random() < 0.3),
    "signs": lambda rng, t: rng.choice([-1.0, 1.0]),
    "rare 5": lambda rng, t: 5.0 if rng.random() < 0.02 else 0.0,
    "grades": lambda rng, t: float(rng.randint(1, 10)),
    "stray": lambda rng, t: rng.choice([1e6, 1.2]) if rng.random() < 0.005 else rng.choice([0.0, 0.5, 1.0]),
    "many grades": lambda rng, t: float(rng.randint(0, 17 + t)),
    "judge": lambda rng, t: 1.05 if rng.random() < 0.05 else rng.random(),
    "normal": lambda rng, t: rng.gauss(0, 1),
    "rising": lambda rng, t: rng.gauss(t, 1),
    "tokens": lambda rng, t: float(round(math.exp(rng.gauss(5, 1)))),
    "penalty": lambda rng, t: -rng.random() * 4 if rng.random() < 0.04 else 0.0,
    "constant": lambda rng, t: 3.0,
}


def drawn(seed: int, most: int = 60) -> list[list[float]]:
    """Draw batches of one channel, whose kind may change on the way."""
    rng = random.Random(seed)
    kinds = [rng.choice(list(KINDS))] * rng.randint(1, 12) + [rng.choice(list(KINDS))] * rng.randint(0, 12)
    return [[KINDS[kind](rng, t) for _ in range(rng.randint(1, most))] for t, kind in enumerate(kinds)]


seeds = st.integers(0, 2**32 - 1)
examples = settings(max_examples=60, deadline=None)


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_scales_equal_the_loops(seed: int):
    channel, loop = Channel(), Loop()
    for batch in drawn(seed):
        assert channel.add(batch) == loop.add(batch)


# --- what must not matter ---------------------------------------------------------------------------------------------


@examples
@given(seeds)
def test_neither_order_nor_layout_nor_missing_cells_matter(seed: int):
    """The same rewards as one column, as two cells a row of one channel, and among cells that are not read."""
    rng = random.Random(seed)
    plain, turned = Channel(), Channel()
    ragged = Channels(("y", "x"), torch.tensor([[1, 1, 0, 1]]), (None, None))
    state: dict = {}
    for batch in drawn(seed):
        batch = batch * 2
        want = plain.add(batch)
        assert turned.add(rng.sample(batch, len(batch))) == want
        half = len(batch) // 2
        rewards = tensor([[a, b, 1e9, NAN] for a, b in zip(batch[:half], batch[half:], strict=True)])
        weights = torch.ones_like(rewards)
        weights[:, 2] = 0.0
        channels = Channels(ragged.names, ragged.index.expand(half, 4), ragged.ranges)
        scales = Scales.of(rewards, weights, channels, state)
        state = scales.state
        assert tuple(scales.frames[1].tolist()) == want
        assert state == {"x": plain.state["x"]}
        assert torch.equal(scales.shares[:, :2].T.flatten(), plain.scales.shares[:, 0])
        assert scales.shares[:, 2:].isnan().all()
    assert turned.state == plain.state


@examples
@given(seeds, st.sampled_from([2.0, 1024.0]))
def test_the_unit_does_not_matter_far_from_0_to_1(seed: int, unit: float):
    """A reward in pence or in pounds: powers of two, so that nothing is rounded."""
    one, other = Channel(), Channel()
    for batch in drawn(seed):
        shifted = [4096.0 + round(x * 64) / 64 if abs(x) < 1e5 else 4096.0 for x in batch]
        low, high = one.add(shifted)
        assert other.add([unit * x for x in shifted]) == (unit * low, unit * high)
        assert other.shares == one.shares


def wild(seed: int, rows: int = 16) -> Tensor:
    """Draw rewards (N, 4): of a reward model, tokens, binary with a stray one, a penalty; some missing."""
    rng = random.Random(seed)
    kinds = ("normal", "tokens", "stray", "penalty")
    return tensor([[NAN if rng.random() < 0.1 else KINDS[kind](rng, 0) for kind in kinds] for _ in range(rows)])


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_no_method_needs_ranges_and_all_go_on_to_the_last_bit(method: object):
    config, state, resumed = AdvantageConfig(method), None, None
    channels = Channels.columns(list("0123"))
    for step in range(40):
        out = compute(wild(step), config, num_generations=4, channels=channels, state=state)
        assert out.advantages.isfinite().all()
        resumed = compute(wild(step), config, num_generations=4, channels=channels, state=resumed)
        assert torch.equal(resumed.advantages, out.advantages)
        state, resumed = out.state, json.loads(json.dumps(plain(resumed.state)))
        assert resumed == plain(state)
    assert set(learned_scales(state)) == set("0123")
    for name in "0123":
        assert {f"{name}/{key}" for key in ("attained", "outside", "scale_low", "scale_high")} <= set(
            out.method_metrics
        )


def test_a_method_that_reads_no_scale_keeps_none():
    for method in ("gdpo", "grpo", "rvpo", "riskpo:bundle_size=2"):
        out = compute(wild(0), AdvantageConfig(method), num_generations=4, state={})
        assert KEY not in out.state
        assert "0/attained" not in out.method_metrics


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_advantages_do_not_depend_on_the_unit_of_a_declared_range(method: object):
    """Ten times the rewards with ten times the ranges, without eps, which is in units of the reward."""
    config, ranges = AdvantageConfig(method, eps=0.0), [(-2.0, 3.0), (0.0, 500.0), None, None]
    channels = Channels.columns(list("0123"), ranges)
    scaled = Channels.columns(list("0123"), [(-20.0, 30.0), (0.0, 5000.0), None, None])
    state, other = None, None
    for step in range(5):
        rewards, factor = wild(step), tensor([10.0, 10.0, 1.0, 1.0])
        out = compute(rewards, config, num_generations=4, channels=channels, state=state)
        tenfold = compute(rewards * factor, config, num_generations=4, channels=scaled, state=other)
        torch.testing.assert_close(tenfold.advantages, out.advantages, rtol=1e-9, atol=1e-9)
        state, other = out.state, tenfold.state


# --- methods of one's own, and the door without a memory --------------------------------------------------------------


class Level(rvpo.Method):
    """Mean attained share."""

    def __call__(self, batch: rvpo.Batch, state: object) -> rvpo.Outcome:
        assert KEY not in state
        return rvpo.Outcome((batch.p * batch.attained.nan_to_num(nan=0.0)).sum(-1), batch.p)


class Taken(Level):
    """Uses the key of the scales."""

    def __call__(self, batch: rvpo.Batch, state: object) -> rvpo.Outcome:
        return rvpo.Outcome((batch.p * batch.z).sum(-1), batch.p, state={KEY: 1})


def test_a_method_of_ones_own_gets_learned_scales():
    agg = rvpo.Aggregator(Level(whiten="none"), ["tokens"])
    agg(tensor([[100.0 + i] for i in range(100)]), num_generations=4)
    out = agg(tensor([[105.0], [194.0], [149.5], [1e9]]), num_generations=4)
    assert out.metrics["rvpo/tokens/scale_low"] == 105.0
    with pytest.raises(ConfigError, match="returned a state with the key 'scales'"):
        compute(wild(0), AdvantageConfig(Taken()), num_generations=4)


def test_the_door_without_a_memory_takes_the_scale_of_the_batch():
    rewards = tensor([[100.0, 0.0], [200.0, 1.0], [300.0, 1.0], [400.0, 0.0]])
    ranges = [(100.0, 400.0), None]
    want = rvpo.advantages(rewards, num_generations=4, method="tchebycheff", ranges=ranges)
    with pytest.warns(UserWarning, match=r"no range is declared .*\(0: \[100, 400\]\)"):
        got = rvpo.advantages(rewards, num_generations=4, method="tchebycheff")
    assert torch.equal(got.advantages, want.advantages)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rvpo.advantages(rewards[:, 1:], num_generations=4, method="tchebycheff")
        rvpo.advantages(rewards, num_generations=4, method="lift", state={})
