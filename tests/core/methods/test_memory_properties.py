"""Every method over sequences of batches: the loops of ``reference.py``, and what must not matter."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rvpo
from reference import remembering
from rvpo.core import AdvantageConfig, Channels, compute
from rvpo.core.methods.registry import METHODS, build_method
from rvpo.core.running_mean import RunningMean
from rvpo.core.state import plain
from rvpo.step.trust import trusting

examples = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)

RANGES = {"a": (0.0, 1.0), "b": (-3.0, 3.0), "c": None, "d": (0.0, 10.0)}

# Options of each method, as ``from_mapping`` takes them; the reference has them all.
CHOICES: dict[str, list[dict]] = {
    "rvpo": [{"k": 1.5}, {"k": {"target": 0.4, "horizon": 3.0}}],
    "rvpo_explicit": [{"beta": 0.3}],
    "hard_min": [{}],
    "gdpo": [{}, {"unscored": "zero"}],
    "grpo": [{}, {"unscored": "left_out"}],
    "lift": [
        {},
        {"kappa": 2.0, "margin": 0.0, "memory": 1.0},
        {"kappa": 9.0, "margin": 0.9, "memory": 200.0, "floors": {"a": 0.8, "c": 0.3}},
        {"margin": -1, "memory": 40.0},
    ],
    "lift_z": [{}, {"kappa": 2.0, "margin": 0.0, "horizon": 1.0}, {"kappa": 30.0, "margin": 0.5, "horizon": 20.0}],
    "tchebycheff": [{"rho": 0.2}],
    "smooth_tchebycheff": [{"mu": 0.3}],
    "lagrangian": [{"thresholds": {"a": 0.9, "c": 0.4}, "rate": 2.0, "ceiling": 3.0}],
    "ctwa": [{"target": 0.4, "rate": 1.0, "decay": 0.3, "cap": 0.6}],
    "riskpo": [{"bundle_size": 2}, {"bundle_size": 2, "score": {"name": "rvpo", "k": {"target": 0.5}}}],
}
CASES = [(method, options) for method, choices in CHOICES.items() for options in choices]
STATEFUL = [(method, options) for method, options in CASES if method in ("lift", "lift_z", "lagrangian", "ctwa")]
PAIRS = {"lift": "moments", "lift_z": "covariance"}
"""Where methods keep what they remember of pairs of channels."""


ELSEWHERE = {"dara", "sa_mrpo", "saw", "dvao", "corr_grpo", "gd2po", "verpo", "mgda"}
"""Methods without a memory whose loops are in test_rules_of_2026.py."""


def test_no_method_is_forgotten():
    assert set(CHOICES) | ELSEWHERE == set(METHODS)


@dataclass
class Batch:
    """Rewards (N, M) with group ids, and what each cell is."""

    rewards: Tensor
    groups: Tensor
    channels: Channels
    weights: Tensor | None
    applies: Tensor | None
    reliability: Tensor | None

    def run(self, config: AdvantageConfig, state: object) -> rvpo.Advantages:
        return compute(
            self.rewards,
            config,
            groups=self.groups,
            weights=self.weights,
            applies=self.applies,
            channels=self.channels,
            state=state,
            **trusting(config.method, self.reliability),
        )

    def take(self, rows: Tensor) -> Batch:
        """Return these rows of it, in their order."""
        per_row = {
            name: x[rows]
            for name in ("weights", "applies", "reliability")
            if (x := getattr(self, name)) is not None and x.ndim == 2
        }
        index = self.channels.index
        channels = replace(self.channels, index=index[rows] if index.ndim == 2 else index)
        return replace(self, rewards=self.rewards[rows], groups=self.groups[rows], channels=channels, **per_row)


def reward(rng: random.Random, name: str, kind: str) -> float:
    low, high = RANGES[name] or (0.0, 1.0)
    if rng.random() < 0.1:
        return math.nan
    share = {"binary": float(rng.random() < 0.3), "graded": rng.random(), "dead": 0.25}[kind]
    return low + (high - low) * share


def draw(rng: random.Random, ragged: bool, reliable: bool) -> Batch:
    """Draw groups of 1 to 5 rows. Ragged: each prompt has its own 1 to 4 cells, several of which may be one channel."""
    names = list(RANGES)
    rng.shuffle(names)
    if ragged:
        names = names[: rng.randint(1, 4)]  # the others are absent from this batch
    rewards, ids, cells, applies = [], [], [], []
    for group in range(rng.randint(1, 5)):
        of_prompt = [rng.choice(names) for _ in range(rng.randint(1, 4))] if ragged else names
        kinds = [rng.choice(["binary", "graded", "graded", "dead"]) for _ in of_prompt]
        for _ in range(rng.randint(1, 5)):
            row = [reward(rng, name, kind) for name, kind in zip(of_prompt, kinds, strict=True)]
            blank = 4 - len(row)
            rewards.append(row + [math.nan] * blank)
            ids.append(group * 7 - 3)
            cells.append([names.index(name) for name in of_prompt] + [0] * blank)
            applies.append([True] * len(row) + [False] * blank)
    ranges = tuple(RANGES[name] for name in names)
    weights = [[rng.choice([0.0, 0.5, 1.0, 1.0, 3.0]) for _ in range(4)] for _ in (rewards if ragged else [0])]
    if not ragged:
        weights[0][0] = 1.0
    rho = torch.tensor([[rng.choice([0.0, 0.3, 0.8, 1.0]) for _ in range(4)] for _ in rewards], dtype=torch.float64)
    return Batch(
        torch.tensor(rewards, dtype=torch.float64),
        torch.tensor(ids),
        Channels(tuple(names), torch.tensor(cells), ranges) if ragged else Channels.columns(names, ranges),
        torch.tensor(weights if ragged else weights[0], dtype=torch.float64) if rng.random() < 0.7 else None,
        torch.tensor(applies) if ragged else None,
        rho if reliable else None,
    )


def sequence(seed: int, ragged: bool, reliable: bool = False, length: int = 5) -> list[Batch]:
    rng = random.Random(seed)
    return [draw(rng, ragged, reliable) for _ in range(length)]


def by_loops(batch: Batch, method: str, state: dict, options: dict):
    index = batch.channels.index.expand(batch.rewards.shape).tolist()
    names = batch.channels.names
    return remembering(
        batch.rewards.tolist(),
        batch.groups.tolist(),
        method,
        state,
        channel=[[names[i] for i in row] for row in index],
        ranges={name: RANGES[name] or (0.0, 1.0) for name in names},
        weights=None if batch.weights is None else batch.weights.tolist(),
        reliability=None if batch.reliability is None else batch.reliability.tolist(),
        **options,
    )


def close(actual: Tensor, expected: object, method: str) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    # lift solves for channels that are copies or opposites with 1e-8 on the diagonal, which costs 8 of 16 digits, and
    # scales up what is left where needs cancel out.
    tolerance = 1e-5 if method == "lift" else 1e-9
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


# --- the reference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [False, True], ids=["columns", "ragged"])
@pytest.mark.parametrize(("method", "options"), CASES)
@examples
@given(seeds, st.booleans())
def test_five_batches_equal_the_loops(method: str, options: dict, ragged: bool, seed: int, reliable: bool):
    config = AdvantageConfig(build_method(method, options))
    reliable = reliable and config.method.uses_z
    state, theirs = None, {}
    for batch in sequence(seed, ragged, reliable):
        want, theirs = by_loops(batch, method, theirs, options)
        got = batch.run(config, state)
        close(got.aggregated, want.aggregated, method)
        close(got.advantages, want.advantages, method)
        close(got.responsibilities, want.responsibilities, method)
        close(got.z, want.z, method)
        state = json.loads(json.dumps(plain(got.state)))
        assert state == plain(got.state)  # to the last bit
    same_memory(method, state, theirs)


def same_memory(method: str, state: dict, theirs: dict) -> None:
    """Compare what the package remembers after the last batch with what the loops do."""
    if method in PAIRS:
        key = PAIRS[method]
        attained, pairs = RunningMean.from_state(state["attained"], 1), RunningMean.from_state(state[key], 2)
        assert dict(zip(attained.names, attained.total.tolist(), strict=True)) == pytest.approx(
            dict.fromkeys(attained.names, 0.0) | theirs["attained"], abs=1e-12
        )
        for i, a in enumerate(pairs.names):
            for j, b in enumerate(pairs.names):
                assert pairs.total[i, j].item() == pytest.approx(theirs[key].get((a, b), 0.0), abs=1e-12)
        return
    for key, value in theirs.items():
        if value:  # what a rule without memory leaves empty
            assert state[key] == pytest.approx(value, abs=1e-9), key


# --- what must not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "options"), CASES)
@examples
@given(seeds, st.booleans())
def test_the_order_of_rows_does_not_matter(method: str, options: dict, seed: int, ragged: bool):
    """RiskPO alone reads an order: of questions and papers, so there rows stay in place."""
    config = AdvantageConfig(build_method(method, options))
    rng, state, shuffled = random.Random(seed), None, None
    for batch in sequence(seed, ragged):
        order = list(range(len(batch.rewards)))
        if method != "riskpo":
            rng.shuffle(order)
        rows = torch.tensor(order)
        got, other = batch.run(config, state), batch.take(rows).run(config, shuffled)
        close(other.advantages, got.advantages[rows], method)
        state, shuffled = got.state, other.state


@pytest.mark.parametrize(("method", "options"), CASES)
@examples
@given(seeds)
def test_the_order_of_columns_does_not_matter(method: str, options: dict, seed: int):
    """The state is kept by name, so columns may lie otherwise in every batch."""
    config = AdvantageConfig(build_method(method, options))
    rng, state, shuffled = random.Random(seed), None, None
    for batch in sequence(seed, ragged=False):
        order = rng.sample(range(4), 4)
        names, ranges = ([x[j] for j in order] for x in (batch.channels.names, batch.channels.ranges))
        turned = replace(
            batch,
            rewards=batch.rewards[:, order],
            channels=Channels.columns(names, ranges),
            weights=None if batch.weights is None else batch.weights[order],
        )
        got, other = batch.run(config, state), turned.run(config, shuffled)
        close(other.advantages, got.advantages, method)
        close(other.responsibilities, got.responsibilities[:, order], method)
        state, shuffled = got.state, other.state


@pytest.mark.parametrize(("method", "options"), CASES)
@examples
@given(seeds, st.booleans())
def test_a_given_state_is_not_changed(method: str, options: dict, seed: int, ragged: bool):
    """A state may be used again, as evaluation does."""
    config = AdvantageConfig(build_method(method, options))
    first, second, *_ = sequence(seed, ragged)
    state = first.run(config, None).state
    kept = json.dumps(plain(state))
    one, two = second.run(config, state), second.run(config, json.loads(kept))
    assert json.dumps(plain(state)) == kept
    assert torch.equal(one.advantages, two.advantages)
    assert json.dumps(plain(one.state)) == json.dumps(plain(two.state))


@pytest.mark.parametrize(("method", "options"), STATEFUL)
@examples
@given(seeds)
def test_an_absent_channel_is_remembered(method: str, options: dict, seed: int):
    """What is remembered of a channel stays as it is while a ragged batch has no cell of it."""
    config = AdvantageConfig(build_method(method, options))
    state: dict = {}
    for batch in sequence(seed, ragged=True):
        before, state = state, batch.run(config, state).state
        if method in PAIRS:
            for key, n in (("attained", 1), (PAIRS[method], 2)) if before else ():
                old, new = (RunningMean.from_state(s[key], n) for s in (before, state))
                gone = [name for name in old.names if name not in batch.channels.names]
                assert torch.equal(old.mean(gone).nan_to_num(nan=-1.0), new.mean(gone).nan_to_num(nan=-1.0)), key
        else:
            for key, old in before.items():
                for name in set(old) - set(batch.channels.names):
                    assert state[key][name] == old[name], key


# --- lift's memory of pairs -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1.0, 1.5, 5.0, 100.0]))
def test_covariances_of_channels_that_come_and_go_stay_positive(seed: int, horizon: float):
    """Else the guard's quadratic program may have no minimum, as with plain running means of pairs."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    names, running = [f"c{i}" for i in range(5)], RunningMean.empty(2)
    for _ in range(8):
        here = rand(5) < 0.3
        u = (rand(12, 2) @ rand(2, 5) * rand(5).exp()) * here
        square = u.T @ u
        square = (square + square.T) / 2  # a product need not be symmetric to the last bit
        running = running.update(names, square.masked_fill(~(here[:, None] & here), torch.nan), horizon)
        c = running.mean(names).nan_to_num(nan=0.0)
        scale = c.diagonal().clamp(min=1e-300).rsqrt()
        correlation = scale[:, None] * c * scale
        assert torch.linalg.eigvalsh(correlation).min() > -1e-9
        assert torch.equal(c, c.T)


@examples
@given(seeds)
def test_where_all_channels_are_there_it_is_the_plain_running_mean(seed: int):
    generator = torch.Generator().manual_seed(seed)
    names, running, total, weight = ["a", "b"], RunningMean.empty(2), torch.zeros(2, 2, dtype=torch.float64), 0.0
    for _ in range(6):
        value = torch.randn(2, 2, generator=generator, dtype=torch.float64)
        running = running.update(names, value, 5.0)
        total, weight = 0.8 * total + 0.2 * value, 0.8 * weight + 0.2
        torch.testing.assert_close(running.mean(names), total / weight, rtol=1e-14, atol=1e-14)
