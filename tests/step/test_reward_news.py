"""What a run says about rewards that teach nothing, or leave their range: each thing once, also after a resume."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import rvpo
from rvpo.core.ragged import Family, Score
from rvpo.step.reward_news import FLAT, MISSING

G, N = 4, 16
NAN = float("nan")
METHODS = ("gdpo", "grpo", "rvpo", "tchebycheff")
Batch = Callable[[int], Sequence[float]]


def said(
    caplog: pytest.LogCaptureFixture, agg: rvpo.Aggregator, batch: Batch, steps: int = 45
) -> list[tuple[int, str]]:
    """Return what is said of the first channel, with its generation; every generation resumes from a checkpoint."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for step in range(steps):
        agg.load_state_dict(json.loads(json.dumps(agg.state_dict(), allow_nan=False)))
        other = torch.rand(N, generator=generator, dtype=torch.float64)
        rewards = torch.stack([torch.tensor(batch(step), dtype=torch.float64), other], 1)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="rvpo"):
            agg(rewards, num_generations=G)
        found += [(step + 1, record.getMessage()) for record in caplog.records if "'a'" in record.getMessage()]
    return found


def aggregator(method: str, limits: tuple[float, float] | None = None) -> rvpo.Aggregator:
    return rvpo.Aggregator(method, ["a", "other"], ranges={"a": limits, "other": (0.0, 1.0)})


def always(value: float) -> Batch:
    return lambda step: [value] * N


def varied(step: int) -> list[float]:
    return [float((i + step) % 3 == 0) for i in range(N)]


@pytest.mark.parametrize("method", [*METHODS, "lift"])
def test_a_reward_that_is_always_missing(caplog: pytest.LogCaptureFixture, method: str):
    ((step, text),) = said(caplog, aggregator(method), always(NAN))
    assert step == MISSING
    assert text.startswith("'a' gave no reward (None or NaN) to all 160 completions of the first 10 generations.")
    assert "Check that its reward function returns a number" in text


def test_missing_later_or_now_and_then(caplog: pytest.LogCaptureFixture):
    def later(step: int) -> list[float]:
        return varied(step) if step < 30 else [NAN] * N

    ((step, text),) = said(caplog, aggregator("gdpo"), later)
    assert step == 30 + MISSING
    assert "of the last 10 generations" in text
    assert said(caplog, aggregator("gdpo"), lambda step: [NAN] * (N - 1) + [float(step % 2)], 15) == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("value", "limits"), [(0.0, None), (0.3, (0.0, 1.0)), (-2.0, (-3.0, 3.0))])
def test_a_constant_reward(
    caplog: pytest.LogCaptureFixture, method: str, value: float, limits: tuple[float, float] | None
):
    ((step, text),) = said(caplog, aggregator(method, limits), always(value))
    assert step == FLAT
    assert text.startswith(f"'a' gave the same reward, {value:g}, to all 320 completions of the first 20 generations.")
    assert "warm-start" in text


@pytest.mark.parametrize(("value", "limits"), [(1.0, None), (1.0, (0.0, 1.0)), (2.9, (-3.0, 3.0)), (7.0, None)])
def test_a_reward_that_is_constant_at_its_best_is_no_fault(
    caplog: pytest.LogCaptureFixture, value: float, limits: tuple[float, float] | None
):
    ((_, text),) = said(caplog, aggregator("gdpo", limits), always(value))
    assert text.startswith(f"'a' gave the same high reward, {value:g}, to all 320 completions")
    assert "Either the policy meets it already, then nothing is to be done" in text


@pytest.mark.parametrize("method", [*METHODS, "lift"])
def test_a_reward_that_was_learned_says_nothing(caplog: pytest.LogCaptureFixture, method: str):
    assert said(caplog, aggregator(method), lambda step: varied(step) if step < 5 else [1.0] * N) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_reward_that_is_met_no_longer(caplog: pytest.LogCaptureFixture, method: str):
    lost = said(caplog, aggregator(method), lambda step: varied(step) if step < 5 else [0.0] * N)
    ((step, text),) = [found for found in lost if "soft minimum" not in found[1]]
    assert step == 5 + FLAT
    assert "to all 320 completions of the last 20 generations, after rewards of up to 1: the policy has stopped" in text
    assert "method='lift'" in text


@pytest.mark.parametrize("method", METHODS)
def test_a_reward_that_ranks_nothing(caplog: pytest.LogCaptureFixture, method: str):
    def of_the_prompt(step: int) -> list[float]:
        return [((i // G + step) % 4) / 4 for i in range(N)]

    ((step, text),) = said(caplog, aggregator(method), of_the_prompt)
    assert step == FLAT
    assert text.startswith("'a' differs between prompts (from 0 to 0.75), but not within any group, on all 320")


@pytest.mark.parametrize("method", ["lift", "riskpo:score=lift"])
@pytest.mark.parametrize("value", [0.0, 0.3, 70.0])
def test_lift_says_it_in_its_own_words_alone(caplog: pytest.LogCaptureFixture, method: str, value: float):
    texts = [text for _, text in said(caplog, aggregator(method), always(value), 80) if "No range" not in text]
    assert not [text for text in texts if "gave the same" in text]


@pytest.mark.parametrize("method", ["gdpo", "grpo", "rvpo"])
def test_a_declared_range_is_told_by_methods_without_scales_too(caplog: pytest.LogCaptureFixture, method: str):
    def left(step: int) -> list[float]:
        return [value + 0.5 * (step > 2) for value in varied(step)]

    ((step, text),) = said(caplog, aggregator(method, (0.0, 1.0)), left)
    assert step == 4
    assert text.startswith("Rewards of 'a' lie outside of its declared range [0, 1] (seen: [0, 1.5]).")
    ((step, text),) = said(caplog, aggregator(method, (-100.0, 100.0)), varied)
    assert step == 512 // N
    assert "The declared range [-100, 100] of 'a' is far wider than what was seen: its first 512 rewards" in text
    assert said(caplog, aggregator(method), left) == []


def test_methods_with_scales_say_it_once(caplog: pytest.LogCaptureFixture):
    for method in ("lift", "tchebycheff", "lift_z"):
        found = said(caplog, aggregator(method, (0.0, 1.0)), lambda step: [value + 0.5 for value in varied(step)])
        assert len(found) == 1, found
        assert "They count as the ends of the range" in found[0][1]


def test_labels_of_rubrics_are_counted_where_they_occur(caplog: pytest.LogCaptureFixture):
    """The label 'rare' occurs in every fifth generation only and is constant there; 'gone' is never scored."""
    agg = rvpo.Aggregator("gdpo", ["rubric"])
    found: list[tuple[int, str]] = []
    for step in range(5 * FLAT + 5):
        label, value = ("rare", 0.0) if step % 5 == 0 else ("often", None)
        rows = [
            [Score(label, value if value is not None else float(i % 3 == 0)), Score("gone", None), Score("ok", i % 2)]
            for i in range(N)
        ]
        caplog.clear()
        agg.load_state_dict(json.loads(json.dumps(agg.state_dict())))
        with caplog.at_level(logging.WARNING, logger="rvpo"):
            agg(torch.zeros(N, 1), num_generations=G, families=[Family("rubric", _labelled(rows))])
        found += [(step + 1, record.getMessage()) for record in caplog.records]
    assert [(step, text.split(" ")[0]) for step, text in found] == [
        (MISSING, "'rubric/gone'"),
        (5 * (FLAT - 1) + 1, "'rubric/rare'"),
    ]


def _labelled(rows: list[list[Score]]) -> list[list[Score]]:
    return [[Score(s.channel, s.value, labels=(s.channel,)) for s in row] for row in rows]


def test_evaluations_and_quiet_processes_say_nothing(caplog: pytest.LogCaptureFixture):
    zeros: Tensor = torch.zeros(N, 1)
    evaluated, quiet, loud = (rvpo.Aggregator("gdpo", ["a"]) for _ in range(3))
    quiet.quiet = True
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        for _ in range(2 * FLAT):
            evaluated(zeros, num_generations=G, learn=False)
            quiet(zeros, num_generations=G)
    assert caplog.records == []
    assert "seen" not in evaluated.state_dict()
    for _ in range(FLAT):
        loud(zeros, num_generations=G)
    assert len(caplog.records) == 1
    assert quiet.state_dict()["seen"]["a"]["said"] == ["constant"]  # what the main process writes is the same


def test_what_is_remembered_does_not_grow():
    agg = rvpo.Aggregator("gdpo", ["rubric"])
    for step in range(300):
        rows = [[Score(f"c{step}", float(i % 2), labels=(f"c{step}", f"d{step}"))] for i in range(G)]
        agg(torch.zeros(G, 1), num_generations=G, families=[Family("rubric", rows)])
    assert len(agg.state_dict()["seen"]) <= 256 + 4
