"""What must hold of RiskPO for every batch, searched by Hypothesis."""

from __future__ import annotations

import json
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rvpo.core.groups import Groups
from rvpo.core.methods.riskpo import LEVELS, RiskPO, RiskPOResult, riskpo

examples = settings(max_examples=60, deadline=None)

GRID = st.integers(-8, 8).map(lambda i: i / 4)
STEPS = st.lists(st.integers(0, 4), min_size=len(LEVELS), max_size=len(LEVELS))


@st.composite
def states(draw) -> list[float]:
    """Tracked quantiles in order, in steps of 1/4 but off the grid of the scores."""
    steps = draw(STEPS)
    return [-2.1 + sum(steps[: i + 1]) / 4 for i in range(len(LEVELS))]


@st.composite
def options(draw) -> dict:
    seek = draw(st.booleans())
    return {
        "bundle_size": draw(st.integers(1, 4)),
        "tail_weight": draw(st.sampled_from([0.0, 0.5, 1.5])),
        "seek": seek,
        "quantiles": draw(st.sampled_from(["track", "batch", "mix"])),
        "credit": draw(st.sampled_from(["uniform", "std", "score", "deviation"])),
        "normalise": draw(st.booleans()),
        "anchored": draw(st.booleans()),
        "baseline": draw(st.sampled_from(["none", "plain", "anchored"])),
        "leftover": draw(st.sampled_from(["scale", "sum", "drop"])),
    }


@st.composite
def blocks(draw, missing: bool = False, ragged: bool = False) -> tuple[Tensor, Tensor]:
    """Scores (N,) in quarters with question ids, in blocks; sums of them have no rounding."""
    count, size = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    ids = [q for q in range(count) for _ in range(draw(st.integers(1, size)) if ragged else size)]
    cell = GRID | st.just(math.nan) if missing else GRID
    scores = draw(st.lists(cell, min_size=len(ids), max_size=len(ids)))
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(ids)


def run(scores: Tensor, ids: Tensor, state: list[float] | None = None, **choice) -> RiskPOResult:
    return riskpo(scores, Groups.from_ids(ids, len(ids)), RiskPO(**choice), state)


@examples
@given(blocks(missing=True, ragged=True), options(), st.none() | states())
def test_finite_and_zero_outside_papers(batch, choice, state):
    scores, ids = batch
    result = run(scores, ids, state, **choice)
    assert result.advantages.isfinite().all()
    assert (result.advantages[(result.papers < 0) | scores.isnan()] == 0).all()
    assert result.state is None or all(map(math.isfinite, result.state))
    present = result.papers[result.papers >= 0]
    assert set(present.tolist()) == set(range(len(result.paper_scores)))


@examples
@given(blocks(missing=True, ragged=True), options(), st.none() | states())
def test_the_state_is_functional_and_survives_json(batch, choice, state):
    kept = None if state is None else list(state)
    one = run(*batch, state, **choice)
    two = run(*batch, json.loads(json.dumps(state)), **choice)
    assert state == kept
    assert torch.equal(one.advantages, two.advantages)
    assert one.state == two.state


@examples
@given(blocks(), options(), st.none() | states(), st.randoms(use_true_random=False))
def test_rows_matter_only_through_their_papers(batch, choice, state, random):
    """Turning whole papers, the same way in all questions, turns the advantages along."""
    scores, ids = batch
    size = int((ids == 0).sum())
    turns = torch.tensor(random.sample(range(size), size))
    order = torch.cat([question * size + turns for question in range(int(ids.max()) + 1)])
    plain, turned = run(scores, ids, state, **choice), run(scores[order], ids, state, **choice)
    torch.testing.assert_close(turned.advantages, plain.advantages[order], rtol=1e-9, atol=1e-9)
    if plain.state is not None:
        torch.testing.assert_close(turned.state, plain.state, rtol=1e-12, atol=1e-12)


@examples
@given(blocks(ragged=True), options(), st.none() | states(), st.randoms(use_true_random=False))
def test_interleaved_questions_are_the_same(batch, choice, state, random):
    """Rows of different questions may interleave, as long as each question's own order and first row keep theirs."""
    scores, ids = batch
    first = [int((ids == q).nonzero()[0]) for q in range(int(ids.max()) + 1)]
    queues = {q: (ids == q).nonzero()[1:, 0].tolist() for q in range(len(first))}
    order = list(first)
    while any(queues.values()):
        order.append(queues[random.choice([q for q, rest in queues.items() if rest])].pop(0))
    plain, mixed = run(scores, ids, state, **choice), run(scores[order], ids[order], state, **choice)
    assert torch.equal(mixed.advantages, plain.advantages[order])
    assert mixed.state == plain.state


@examples
@given(blocks(), options(), st.lists(GRID, min_size=6, max_size=6))
def test_batch_quantiles_do_not_see_a_shift_of_a_question(batch, choice, shifts):
    scores, ids = batch
    choice |= {"quantiles": "batch", "baseline": "none", "leftover": "sum"}
    choice["credit"] = "std" if choice["credit"] == "score" else choice["credit"]
    plain, shifted = run(scores, ids, **choice), run(scores + torch.tensor(shifts)[ids], ids, **choice)
    torch.testing.assert_close(shifted.advantages, plain.advantages, rtol=1e-9, atol=1e-9)


@examples
@given(blocks(), states(), options(), st.integers(0, 10**6), st.integers(1, 8))
def test_monotone_in_the_score_and_flat_above_the_upper_quantile(batch, state, choice, pick, raised):
    scores, ids = batch
    choice |= {"quantiles": "track", "normalise": False, "credit": "uniform"}
    row = pick % len(scores)
    higher = scores.clone()
    higher[row] += raised / 4
    before, after = run(scores, ids, state, **choice), run(higher, ids, state, **choice)
    mine = before.papers == before.papers[row]
    if before.papers[row] >= 0:
        assert (after.advantages[mine] >= before.advantages[mine] - 1e-12).all()
        above = before.paper_scores[before.papers[row]] > state[15]
        if above and not choice["seek"]:
            torch.testing.assert_close(after.advantages, before.advantages, rtol=1e-12, atol=1e-12)
        if above and choice["seek"] and choice["tail_weight"]:
            assert (after.advantages[mine] > before.advantages[mine]).all()
    assert torch.equal(after.advantages[~mine], before.advantages[~mine])


@examples
@given(blocks(), states(), options())
def test_leftover_rules_touch_only_the_leftover(batch, state, choice):
    scores, ids = batch
    size = choice["bundle_size"]
    full = ids < (int(ids.max()) + 1) // size * size
    scale, plain, drop = (run(scores, ids, state, **choice | {"leftover": rule}) for rule in ("scale", "sum", "drop"))
    assert torch.equal(scale.advantages[full], plain.advantages[full])
    assert torch.equal(drop.advantages[full], plain.advantages[full])
    assert (drop.advantages[~full] == 0).all()
    ratio = size / max(1, (int(ids.max()) + 1) % size)
    leftover = plain.paper_bundles == (int(ids.max()) + 1) // size
    torch.testing.assert_close(scale.paper_scores[leftover], plain.paper_scores[leftover] * ratio)


@examples
@given(blocks(missing=True, ragged=True), states(), st.floats(0.0, 1.0))
def test_tracking_moves_at_most_one_step(batch, state, lr):
    result = run(*batch, state, quantile_lr=lr)
    assert all(abs(new - old) <= lr + 1e-12 for new, old in zip(result.state, state, strict=True))
