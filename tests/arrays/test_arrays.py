"""The NumPy functions give the numbers of the core: on ragged, missing, dead, single-row and extreme rewards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpo.arrays import met, rules
from rvpo.arrays.groups import Partition, add_at
from rvpo.arrays.rules import Cells, soft_min
from rvpo.arrays.scores import group_zscore
from rvpo.core import GDPO, GRPO, RVPO, AdvantageConfig, Channels, compute, solved
from rvpo.core import met as core_met
from rvpo.core.groups import Groups
from rvpo.core.metrics import bottlenecks
from rvpo.core.normalize import group_zscore as core_zscore
from rvpo.errors import RewardError
from rvpo.step.trust import trusting

KINDS = ("uniform", "binary", "normal", "constant", "tiny", "huge", "close", "mixed")


def rewards_of(rng: np.random.Generator, kind: str, n: int, m: int) -> np.ndarray:
    """Rewards (n, m) of a kind; some are missing, and some channels are constant."""
    r = rng.random((n, m))
    if kind in ("binary", "mixed"):
        r = (r < 0.3).astype(float)
    if kind == "mixed":
        r = r * 10.0 ** rng.integers(-8, 8, m)
    scale = {"normal": 1.0, "tiny": 1e-12, "huge": 1e12, "close": 1e-7}.get(kind)
    if scale is not None:
        r = rng.normal(size=(n, m)) * scale + (1e3 if kind == "close" else 0.0)
    if kind == "constant":
        r = np.tile(rng.random(m), (n, 1))
    r[rng.random((n, m)) < rng.choice([0.0, 0.1, 0.6])] = np.nan
    r[:, rng.random(m) < 0.1] = np.nan
    return r


def ids_of(rng: np.random.Generator, n: int) -> np.ndarray:
    """Ids (n,) of groups: in blocks, ragged, shuffled, or one completion each."""
    kind = rng.integers(0, 4)
    if kind == 0:
        size = int(rng.choice([d for d in range(1, n + 1) if n % d == 0]))
        return np.arange(n) // size
    ids = rng.integers(0, max(1, n // 3), n)
    return np.arange(n)[::-1].copy() if kind == 1 else np.sort(ids) if kind == 2 else ids * 7 - 3


@st.composite
def cells(draw: st.DrawFn) -> Cells:
    """A batch with what a record may say of its cells."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, m = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    r = rewards_of(rng, draw(st.sampled_from(KINDS)), n, m)
    ids = ids_of(rng, n)
    weights = None
    if draw(st.booleans()):
        weights = rng.choice([0.0, 0.5, 1.0, 3.0], m)
        weights[0] = max(weights[0], 0.5)
        if draw(st.booleans()):
            weights = weights * rng.choice([0.0, 1.0], (n, m), p=[0.2, 0.8])
    applies = rng.random((n, m)) < 0.8 if draw(st.booleans()) else None
    outside = rng.random((n, m)) < 0.2 if draw(st.booleans()) else None
    reliability = rng.random((n, m)) if draw(st.booleans()) else None
    return Cells(r, Partition.of_ids(ids), weights, applies, outside, reliability, draw(st.booleans()))


def by_core(one: Cells, config: AdvantageConfig):
    """What the core makes of a batch, as :func:`rvpo.diagnose.aggregating.aggregated` calls it."""

    def tensor(x):
        return None if x is None else torch.from_numpy(x)

    return compute(
        torch.from_numpy(one.rewards),
        config,
        groups=torch.from_numpy(one.groups.index),
        weights=tensor(one.weights),
        applies=tensor(one.applies),
        outside=tensor(one.outside),
        monitored=one.monitored,
        **trusting(config.method, tensor(one.reliability)),
    )


def close(found: np.ndarray, expected: torch.Tensor, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(found, expected.numpy(), rtol=tolerance, atol=tolerance, equal_nan=True)


@settings(max_examples=150, deadline=None)
@given(cells(), st.sampled_from([0.0, 1e-21, 0.1, 1.0, 3.0, 80.0, np.inf]), st.sampled_from([1e-12, 1e-4]))
def test_soft_min(one: Cells, k: float, eps: float):
    found = soft_min(one, k, eps=eps)
    expected = by_core(one, AdvantageConfig(RVPO(k, whiten="none"), eps=eps))
    close(found.z, expected.z)
    close(found.responsibilities, expected.responsibilities)
    close(found.bottlenecks(), bottlenecks(expected))
    for name in ("live", "missing", "applies", "signal"):
        assert np.array_equal(getattr(found, name), getattr(expected, name).numpy()), name


SUMS = [
    *(GRPO(whiten=whiten, unscored=how) for whiten in ("group", "batch", "none") for how in ("zero", "left_out")),
    *(GDPO(whiten=whiten, unscored=how) for whiten in ("group", "batch", "none") for how in ("zero", "left_out")),
    GDPO(dead_channels="drop"),
]


@settings(max_examples=200, deadline=None)
@given(cells(), st.sampled_from(SUMS))
def test_advantages(one: Cells, method):
    config = AdvantageConfig(method)
    assert rules.is_known(config)
    found, expected = rules.advantages(one, config), by_core(one, config).advantages
    # Rounding of large rewards, and whatever is divided by a small spread, is not that of the core to the bit.
    scale = np.nanmax(np.abs(one.rewards), initial=1.0) if method.name == "grpo" and method.whiten == "none" else 1.0
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9, atol=1e-11 * scale)


def test_methods_of_the_core_are_not_repeated():
    for text in ("rvpo", "lift", "hard_min", "gdpo:whiten=token"):
        assert not rules.is_known(AdvantageConfig(text))
    assert not rules.is_known(AdvantageConfig("grpo", wanted=("a",)))


@settings(max_examples=150, deadline=None)
@given(cells(), st.sampled_from([0.0, 1e-4]), st.sampled_from([0, 1]))
def test_zscores_and_groups(one: Cells, eps: float, ddof: int):
    groups = Groups.in_blocks(torch.from_numpy(one.groups.index))
    assert (groups.count, groups.block, groups.size) == (one.groups.count, one.groups.block, one.groups.size)
    found = group_zscore(one.rewards, one.groups, eps=eps, ddof=ddof)
    expected = core_zscore(torch.from_numpy(one.rewards), groups, eps=eps, ddof=ddof, rtol=1e-6)
    close(found.z, expected.z)
    close(found.mean, expected.mean)
    close(found.std, expected.std)
    assert np.array_equal(found.live, expected.live.numpy())
    assert np.array_equal(one.groups.first_rows, [int((groups.index == p).nonzero()[0]) for p in range(groups.count)])


@settings(max_examples=100, deadline=None)
@given(cells(), st.integers(0, 2**32))
def test_what_is_met(one: Cells, seed: int):
    rng = np.random.default_rng(seed)
    n, m = one.rewards.shape
    groups = Groups.in_blocks(torch.from_numpy(one.groups.index))
    lines = np.where(rng.random(m) < 0.2, np.nan, rng.random(m))
    used = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    expected = core_met.group_counters(
        torch.from_numpy(one.rewards), torch.from_numpy(used), groups, torch.from_numpy(lines)
    )
    found = met.group_counters(one.rewards, used, one.groups, lines)
    for x, y in zip(found, (expected.counted, expected.unexplored, expected.suppressed), strict=True):
        assert np.array_equal(x, y.numpy())
    names = tuple("abc")
    index = rng.integers(0, 3, m)
    applies = np.ones((n, m), dtype=bool) if one.applies is None else one.applies
    weights = np.ones(m) if one.weights is None else one.weights
    channels = Channels(names, torch.from_numpy(index), (None,) * 3)
    tensors = torch.from_numpy(applies), torch.from_numpy(weights)
    counting = met.counting_cells(applies, weights, index, names, {"a", "c"})
    assert np.array_equal(counting, solved.counting_cells(*tensors, channels, {"a", "c"}).numpy())
    outside = None if one.outside is None else torch.from_numpy(one.outside)
    tallied = solved.tally(
        torch.from_numpy(one.rewards), groups, torch.from_numpy(lines), torch.from_numpy(counting), outside
    )
    mine = met.tally(one.rewards, one.groups, lines, counting, one.outside)
    close(mine.scored, tallied.scored)
    close(mine.met, tallied.met)
    close(np.stack(mine.shares()).astype(float), tallied.shares())
    close(met.pass_sums(mine, one.groups.size), solved.pass_sums(tallied, groups.size))


def test_pass_at_k_of_large_groups():
    scored, reached = np.array([[200.0, 3.0], [130.0, 0.0]]), np.array([[7.0, 1.0], [130.0, 0.0]])
    expected = solved.pass_sums(solved.Tally(torch.from_numpy(scored), torch.from_numpy(reached)), 200)
    close(met.pass_sums(met.Tally(scored, reached), 200), expected)


@settings(max_examples=100, deadline=None)
@given(cells(), st.integers(0, 2**32))
def test_ends_of_channels(one: Cells, seed: int):
    rng = np.random.default_rng(seed)
    n, m = one.rewards.shape
    applies = np.ones((n, m), dtype=bool) if one.applies is None else one.applies
    index = rng.integers(0, 4, m)
    found = met.ends_of(one.rewards, index, applies, 4)
    by_cell = met.ends_of(one.rewards, np.tile(index, (n, 1)), applies, 4)
    for k in range(4):
        own = one.rewards[:, index == k][applies[:, index == k]]
        known = own[~np.isnan(own)]
        assert found.occurs[k] == (own.size > 0)
        assert found.low[k] == known.min(initial=np.inf)
        assert found.high[k] == known.max(initial=-np.inf)
    low, high = torch.from_numpy(found.low), torch.from_numpy(found.high)
    between = core_met.strictly_between(
        torch.from_numpy(one.rewards), torch.from_numpy(index), low.tolist(), high.tolist()
    ).numpy()
    for k in range(4):
        assert found.between[k] == bool((between & applies)[:, index == k].any())
    for name in ("low", "high", "between", "occurs"):
        assert np.array_equal(getattr(found, name), getattr(by_cell, name)), name


def test_sums_at_places_that_repeat():
    rng = np.random.default_rng(0)
    for places in (rng.integers(0, 5, 40), np.sort(rng.integers(0, 5, 40)), np.arange(5), np.zeros(0, dtype=np.int64)):
        rows, found = rng.random((len(places), 2, 3)), np.zeros((5, 2, 3))
        expected = found.copy()
        add_at(found, places, rows)
        np.add.at(expected, places, rows)
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_weights_that_cannot_work_are_refused():
    rewards, groups = np.random.default_rng(0).random((4, 2)), Partition.of_ids(np.array([0, 0, 1, 1]))
    for weights in ([0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(RewardError, match="weights"):
            soft_min(Cells(rewards, groups, np.array(weights)), 1.0, eps=1e-4)
    rewards[0, 0] = np.nan
    with pytest.raises(RewardError, match="missing"):
        rules.advantages(Cells(rewards, groups), AdvantageConfig("grpo", missing="error"))
