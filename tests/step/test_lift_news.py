"""What a run says about LIFT: each thing once, also after a resume."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import rvpo
from rvpo.core import lift_watch
from rvpo.core.lift_watch import PATIENCE, STUCK, Sight, next_watch
from rvpo.core.ragged import Family, Score
from rvpo.step.lift_news import news_of_lift
from rvpo.step.trust import Reliability

G = 8
Stream = Callable[[int, torch.Generator], Tensor]
"""step -> rewards (N, M)."""


def said(
    caplog: pytest.LogCaptureFixture,
    agg: rvpo.Aggregator,
    stream: Stream,
    batches: int,
    *,
    first: int = 0,
) -> list[tuple[int, str]]:
    """Return step and text of what is said; the aggregator is resumed from its checkpoint before every ninth batch."""
    found = []
    for step in range(first, first + batches):
        if step % 9 == 0:
            state = json.loads(json.dumps(agg.state_dict(), allow_nan=False))
            agg.load_state_dict(state)
            assert agg.state_dict() == state
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="rvpo"):
            agg(stream(step, torch.Generator().manual_seed(step)), num_generations=G)
        found += [(step, record.getMessage()) for record in caplog.records]
    return found


def bits(rates: list[float], generator: torch.Generator, rows: int = 64) -> Tensor:
    """Return independent rewards (rows, M) in {0, 1}, met at these rates."""
    return (torch.rand(rows, len(rates), generator=generator) < torch.tensor(rates)).double()


# --- channels that exclude each other ---------------------------------------------------------------------------------


def opposed(step: int, generator: torch.Generator) -> Tensor:
    """Detail and brevity sum to 1, and a third channel is unrelated to both and rises."""
    detail = torch.rand(64, generator=generator, dtype=torch.float64)
    return torch.stack([detail, 1 - detail, bits([min(0.3 + step / 100, 0.95)], generator)[:, 0]], 1)


def test_channels_that_exclude_each_other_are_said_once(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator("lift", ["detail", "brevity", "format"], weights={"detail": 2.0})
    ((step, text),) = said(caplog, agg, opposed, 100)
    assert step == PATIENCE - 1
    assert text.startswith("These channels seem to exclude each other: ")
    assert "'brevity' (attained 0." in text
    assert "'detail' (attained 0." in text
    assert "'format'" not in text
    assert "0.17 for weight 2 and 0.27 for weight 3 (kappa=4)" in text
    assert "(2) a floor for the channel that must not be traded, such as floors={'" in text


def test_copies_share_what_opposes_them(caplog: pytest.LogCaptureFixture):
    def copied(step: int, generator: torch.Generator) -> Tensor:
        both = opposed(step, generator)
        return torch.cat([both[:, :1].expand(-1, 12), both[:, 1:]], 1)

    agg = rvpo.Aggregator("lift", [*(f"detail_{i}" for i in range(12)), "brevity", "format"])
    ((_, text),) = said(caplog, agg, copied, 60)
    assert "'detail_0'" in text
    assert "and 7 more" in text
    watched = agg.state_dict()["remembered"]["watch"]
    assert set(watched["reported"]["exclude"]) == {*(f"detail_{i}" for i in range(12)), "brevity"}


def test_without_kappa_weights_are_no_advice(caplog: pytest.LogCaptureFixture):
    ((_, text),) = said(caplog, rvpo.Aggregator("lift:kappa=0", ["a", "b", "c"]), opposed, 60)
    assert "weight" not in text


def test_unrelated_and_mildly_opposed_channels_are_not_mentioned(caplog: pytest.LogCaptureFixture):
    def unrelated(step: int, generator: torch.Generator) -> Tensor:
        return bits([0.2 + step / 150, 0.3 + step / 150, 0.3 + step / 150], generator)

    def mild(step: int, generator: torch.Generator) -> Tensor:
        x = bits([0.5, 0.5], generator)
        x[:16, 1] = 1 - x[:16, 0]  # opposed in a quarter of the rows
        x[:, 0] *= step < 20 or bits([0.9], generator)[:, 0]
        return x

    assert said(caplog, rvpo.Aggregator("lift", ["a", "b", "c"]), unrelated, 100) == []
    assert [text for _, text in said(caplog, rvpo.Aggregator("lift", ["a", "b"]), mild, 100) if "exclude" in text] == []


def test_channels_that_rise_all_the_same_do_not_exclude_each_other():
    def watched(rise: float) -> list[str]:
        state: dict = {}
        for step in range(PATIENCE):
            level = 0.2 + rise * step / PATIENCE
            sight = Sight(level, level, 64, True, 1.0, 0.5, None, 0.01)
            state = next_watch(state, {"a": sight, "b": sight}, 0.1)
        return state["reported"]["exclude"]

    assert watched(0.2) == []
    assert watched(0.01) == ["a", "b"]


# --- channels that do not rise ----------------------------------------------------------------------------------------


def broken(step: int, generator: torch.Generator) -> Tensor:
    """The first judge is noise in [0, 0.3]; the others rise."""
    rate = min(0.3 + step / 150, 0.95)
    noise = 0.3 * torch.rand(64, 1, generator=generator, dtype=torch.float64)
    return torch.cat([noise, bits([rate, rate], generator)], 1)


def test_a_channel_that_leads_without_rising_is_said_once(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator("lift", ["judge", "correct", "format"])
    ((step, text),) = said(caplog, agg, broken, 160)
    assert STUCK - 1 <= step <= STUCK + 30
    assert text.startswith("LIFT works most on 'judge' (attained 0.15, 0.1")
    assert "reliability=Reliability(twice=0.1)" in text
    assert "warm-start" in text
    assert "weights={'judge': 0.3}" in text


def test_a_channel_that_rises_or_is_met_is_not_mentioned(caplog: pytest.LogCaptureFixture):
    def rising(step: int, generator: torch.Generator) -> Tensor:
        return bits([0.05 + step / 400, 0.8, 0.9], generator)

    def met(step: int, generator: torch.Generator) -> Tensor:
        return bits([0.95, 0.97, 0.98], generator)

    def shifted(step: int, generator: torch.Generator) -> Tensor:
        late = max(step - 60, 0)
        return bits([0.5 + step / 150 if step < 60 else 0.3 + late / 150, 0.9], generator)

    for stream, names in ((rising, "abc"), (met, "abc"), (shifted, "ab")):
        assert said(caplog, rvpo.Aggregator("lift", list(names)), stream, 140) == []


# --- channels that teach nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "note"), [(0.0, "never met, attained 0"), (0.25, "always attained 0.25"), (70.0, "always attained 0.50")]
)
def test_a_constant_channel_is_said_once(caplog: pytest.LogCaptureFixture, value: float, note: str):
    def constant(step: int, generator: torch.Generator) -> Tensor:
        x = bits([0.5, min(0.2 + step / 100, 0.9)], generator)
        x[:, 0] = value
        return x

    agg = rvpo.Aggregator("lift", ["secret", "format"])
    found = [(step, text) for step, text in said(caplog, agg, constant, 110) if "No range" not in text]
    ((step, text),) = found
    assert step == STUCK - 1
    assert f"no group had different rewards of 'secret' ({note}, 3200 completions)" in text


def test_a_channel_of_the_prompt_alone_teaches_nothing(caplog: pytest.LogCaptureFixture):
    def by_prompt(step: int, generator: torch.Generator) -> Tensor:
        x = bits([0.5, min(0.2 + step / 100, 0.9)], generator)
        x[:, 0] = bits([0.4], generator, 8)[:, 0].repeat_interleave(8)
        return x

    ((_, text),) = said(caplog, rvpo.Aggregator("lift", ["a", "b"]), by_prompt, 70)
    assert "'a' (equal within each group, attained 0" in text


def test_met_rare_unscored_and_unweighed_channels_are_not_mentioned(caplog: pytest.LogCaptureFixture):
    def stream(step: int, generator: torch.Generator) -> Tensor:
        x = bits([1.0, 0.0, 0.0, 0.0, min(0.2 + step / 100, 0.9)], generator)
        x[0, 1] = float(step % 20 == 0)  # rare, and rising towards the end
        x[: max(step - 40, 0), 1] = 1.0
        x[:, 2] = math.nan
        return x

    names = ["safe", "rare", "unscored", "monitored", "format"]
    agg = rvpo.Aggregator("lift", names, weights={"monitored": 0.0})
    # What is said of the rewards themselves has its own tests.
    found = [text for _, text in said(caplog, agg, stream, 80)]
    assert [text.split(" gave ")[0] for text in found] == ["'unscored'", "'safe'"]


# --- floors -----------------------------------------------------------------------------------------------------------


def at(levels: Callable[[int], list[float]]) -> Stream:
    """Return a stream of independent bits."""
    return lambda step, generator: bits(levels(step), generator, 128)


def test_a_floor_that_is_lost_is_said_once(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator(rvpo.LIFT(floors={"safe": 0.95}), ["safe", "correct"])
    lost = at(lambda step: [0.99 if step < 20 else 0.8, min(0.3 + step / 60, 0.97)])
    ((step, text),) = said(caplog, agg, lost, 60)
    assert 28 <= step <= 36
    assert text.startswith(
        "LIFT cannot keep the floor 0.95 of 'safe': its attained share has been below it for 10 batc"
    )
    assert "Use a smaller learning rate, or lower the floor." in text


def test_a_floor_that_is_below_at_the_start_and_never_reached(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator(rvpo.LIFT(floors={"a": 0.8, "b": 0.9}), ["a", "b", "c"])
    low = at(lambda step: [0.3, 0.7, min(0.2 + step / 80, 0.9)])
    found = said(caplog, agg, low, 90)
    assert [(step, text) for step, text in found if "starts below" in text] == [
        (0, found[0][1]),
        (0, found[1][1]),
    ]
    assert found[0][1].startswith("'a' starts below its floor: attained 0.")
    (late,) = [text for _, text in found if text.startswith("LIFT cannot reach the floor 0.8 of 'a'")]
    assert "It may be out of reach: lower it." in late
    assert "The floor of 'b' is not met either (attained 0." in late
    assert "exclude each other" in late


def test_floors_that_are_kept_or_being_reached_are_not_mentioned(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator(rvpo.LIFT(floors={"safe": 0.9}), ["safe", "correct"])
    assert said(caplog, agg, at(lambda step: [0.93, min(0.3 + step / 100, 0.95)]), 80) == []
    agg = rvpo.Aggregator(rvpo.LIFT(floors={"safe": 0.9}), ["safe", "correct"])
    rising = at(lambda step: [min(0.3 + step / 100, 0.95), min(0.3 + step / 100, 0.95)])
    ((step, text),) = said(caplog, agg, rising, 80)
    assert step == 0
    assert "LIFT raises it to the floor first, and the other channels wait." in text


# --- what is remembered -----------------------------------------------------------------------------------------------


def random_sights(generator: random.Random, names: list[str]) -> dict[str, Sight]:
    return {
        name: Sight(
            generator.random(), generator.random(), generator.randint(1, 9), generator.random() < 0.5,
            generator.choice([None, generator.random()]), generator.choice([None, generator.random()]),
            generator.choice([None, 0.5]), 0.01,
        )
        for name in names
    }  # fmt: skip


def test_what_is_watched_is_bounded_plain_and_of_any_order():
    generator = random.Random(0)
    one: dict = {}
    other: dict = {}
    for step in range(40):
        names = [f"label_{i}" for i in generator.sample(range(3000), 30)]
        sights = random_sights(generator, names)
        phi = generator.choice([math.nan, generator.random()])
        one = next_watch(one, sights, phi)
        turned = dict(sorted(sights.items(), reverse=True))
        other = next_watch(json.loads(json.dumps(other, allow_nan=False)), turned, phi)
        assert one == other, step
    assert len(one["channels"]) == lift_watch.MOST
    assert len(json.dumps(one)) < 100_000
    many = random_sights(generator, [f"label_{i}" for i in range(500)])
    assert set(next_watch(one, many, 0.5)["channels"]) == set(many)  # those of the batch stay


def test_reports_are_bounded():
    sights = {f"label_{i:03}": Sight(0.0, 0.0, 8, False, None, None, None, 0.0) for i in range(200)}
    state: dict = {}
    for _ in range(2 * STUCK):
        state = next_watch(state, sights, math.nan)
    assert state["reported"]["flat"] == [f"label_{i:03}" for i in range(lift_watch.MOST_REPORTED)]


def test_labels_of_rubrics_come_and_go(caplog: pytest.LogCaptureFixture):
    """A label in every second batch is counted in the batches that have it."""
    agg, found = rvpo.Aggregator("lift", ["rubric", "format"]), []
    for step in range(2 * STUCK + 2):
        generator = torch.Generator().manual_seed(step)
        x = bits([min(0.2 + step / 120, 0.9), min(0.2 + step / 120, 0.9)], generator, 16)
        labels = ("never",) if step % 2 else ("often",)
        rows = [[Score("c", value if step % 2 == 0 else 0.0, labels=labels)] for value in x[:, 0].tolist()]
        agg.load_state_dict(json.loads(json.dumps(agg.state_dict())))
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="rvpo"):
            out = agg(x, num_generations=G, families=[Family("rubric", rows)])
        found += [(step, record.getMessage()) for record in caplog.records]
        assert ("rvpo/rubric/often/need" in out.metrics) == (step % 2 == 0)
        assert "rvpo/rubric/never/need" not in out.metrics
    ((step, text),) = found
    assert step == 2 * STUCK - 1
    assert "'rubric/never' (never met, attained 0, 800 completions)" in text


def test_an_evaluation_says_and_remembers_nothing(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator("lift", ["a", "b"])
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        for _ in range(STUCK + 1):
            agg(torch.zeros(8, 2), num_generations=8, learn=False)
    assert caplog.records == []
    assert agg.state_dict()["remembered"] == {}


def test_riskpo_over_lift_says_the_same(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator(rvpo.RiskPO(score=rvpo.LIFT()), ["detail", "brevity", "format"])
    ((_, text),) = said(caplog, agg, opposed, 60)
    assert text.startswith("These channels seem to exclude each other")
    assert news_of_lift(rvpo.GDPO(), {}, {}) == []


def test_a_state_of_before_there_was_a_watch(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator("lift", ["detail", "brevity", "format"])
    agg(opposed(0, torch.Generator().manual_seed(0)), num_generations=G)
    state = agg.state_dict()
    del state["remembered"]["watch"]
    agg.load_state_dict(state)
    assert len(said(caplog, agg, opposed, 60)) == 1


def test_where_nothing_is_live_nothing_is_nan():
    agg = rvpo.Aggregator("lift", ["a", "b"])
    metrics = agg(torch.zeros(8, 2), num_generations=8).metrics
    ours = {name: value for name, value in metrics.items() if "/lift/" in name or name.endswith(("need", "guard"))}
    assert ours == {"rvpo/lift/channels": 0.0}


def test_reliability_lowers_the_need_of_a_noisy_channel():
    def run(reliability: Reliability | None) -> float:
        agg = rvpo.Aggregator("lift", ["judge", "correct", "format"], reliability=reliability)
        metrics: dict = {}
        for step in range(20):
            metrics = dict(agg(broken(step, torch.Generator().manual_seed(step)), num_generations=G).metrics)
        return metrics["rvpo/judge/need"]

    assert run(Reliability({"judge": 0.05})) < 0.2 * run(None)


# --- policies that learn ----------------------------------------------------------------------------------------------


def policy_gradient(
    agg: rvpo.Aggregator, rewards: Tensor, start: Tensor, batches: int, rate: float, seed: int
) -> Iterator[None]:
    """Train a softmax over K replies with rewards (K, M) by plain policy gradient."""
    logits, generator = start.clone().double(), torch.Generator().manual_seed(seed)
    for _ in range(batches):
        chosen = torch.multinomial(logits.softmax(0), 64, replacement=True, generator=generator)
        advantages = agg(rewards[chosen], num_generations=G).advantages
        gradient = torch.zeros_like(logits).index_add(0, chosen, advantages) - advantages.sum() * logits.softmax(0)
        logits = logits + rate * gradient / 64
        yield


@pytest.mark.parametrize("rate", [0.3, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_policies_that_learn(caplog: pytest.LogCaptureFixture, seed: int, rate: float):
    one_of_three = torch.eye(4, dtype=torch.float64)[:, :3], torch.tensor([0.7, 0.2, 0.07, 0.03]).log()
    replies = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).double()
    all_at_once = replies, (replies * torch.tensor([-2.0, -0.5, 0.5])).sum(1)
    for (rewards, start), words in ((one_of_three, "exclude each other"), (all_at_once, None)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="rvpo"):
            for _ in policy_gradient(rvpo.Aggregator("lift", list("abc")), rewards, start, 120, rate, seed):
                pass
        texts = [record.getMessage() for record in caplog.records]
        if words is None:
            assert texts == []
        else:
            (text,) = texts
            assert words in text
            assert all(f"{name!r} (attained" in text for name in "abc")
