"""Unexplored and suppressed groups against loops, in a batch, in a run's records and in the alarm."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

import rvpo
from rvpo.core import Channels
from rvpo.core.groups import Groups
from rvpo.core.met import line_of, next_few
from rvpo.core.metrics import effective_channels
from rvpo.diagnose.alarm import Alarm, Generation
from rvpo.logs.run import LoggedBatch, Run


def loops(
    rewards: list[list[float]], advantages: list[float], groups: list[int], lines: list[float]
) -> list[tuple[float, float]]:
    """Return the share of unexplored and of suppressed groups of each channel, group by group."""
    found = []
    for j, line in enumerate(lines):
        counted = unexplored = suppressed = 0
        for group in sorted(set(groups)):
            scored = [i for i, g in enumerate(groups) if g == group and not math.isnan(rewards[i][j])]
            if not scored or math.isnan(line):
                continue
            met = [i for i in scored if rewards[i][j] >= line]
            counted += 1
            unexplored += not met
            suppressed += 0 < len(met) < len(scored) and all(advantages[i] <= 0 for i in met)
        nothing = (math.nan, math.nan)
        found.append((unexplored / counted, suppressed / counted) if counted else nothing)
    return found


def drawn(seed: int, n: int = 48) -> list[list[float]]:
    """Draw a rarely met binary reward, one of 0 and 0.05, a graded one, one in [-3, 3], and one of unknown scale."""
    rng = random.Random(seed)
    rows = [
        [
            float(rng.random() < 0.15),
            0.05 * (rng.random() < 0.7),
            rng.random(),
            rng.uniform(-3, 3),
            rng.uniform(0, 9),
        ]
        for _ in range(n)
    ]
    return [[math.nan if rng.random() < 0.1 else x for x in row] for row in rows]


NAMES = ["rare", "small", "graded", "declared", "unknown"]
RANGES = {"declared": (-3.0, 3.0)}
LINES = [0.5, 0.025, 0.5, 0.0, math.nan]


@pytest.mark.parametrize("method", ["gdpo", "grpo", "rvpo:k=2", "lift", "hard_min"])
def test_metrics_are_those_of_loops(method: str):
    aggregator = rvpo.Aggregator(method, NAMES, ranges=RANGES)
    groups = [i // 6 for i in range(48)]
    for seed in range(3):
        rewards = drawn(seed)
        out = aggregator(torch.tensor(rewards, dtype=torch.float64), num_generations=6)
        want = loops(rewards, out.advantages.tolist(), groups, LINES)
        for name, (unexplored, suppressed) in zip(NAMES, want, strict=True):
            assert out.metrics[f"rvpo/{name}/unexplored"] == pytest.approx(unexplored, nan_ok=True)
            assert out.metrics[f"rvpo/{name}/suppressed"] == pytest.approx(suppressed, nan_ok=True)
    assert any(suppressed for _, suppressed in want[:4])


def test_what_is_met_does_not_depend_on_a_batch_alone():
    # The second value of a channel shows in the second batch, the third in the third; a resumed run knows them.
    first, second, third = ([[0.2]] * 4, [[0.2], [0.3]] * 2, [[0.2], [0.3], [0.3], [0.9]])
    aggregator = rvpo.Aggregator("gdpo", ["a"])
    shares = [aggregator(torch.tensor(first), num_generations=2).metrics["rvpo/a/unexplored"]]
    resumed = rvpo.Aggregator("gdpo", ["a"])
    resumed.load_state_dict(aggregator.state_dict())
    shares += [
        resumed(torch.tensor(batch), num_generations=2).metrics["rvpo/a/unexplored"] for batch in (second, third)
    ]
    assert shares == [1.0, 0.0, 0.5]  # on [0, 1]: none; 0.3 is the higher of two; on [0, 1] again: only 0.9
    evaluated = resumed(torch.tensor([[5.0], [7.0]]), num_generations=2, learn=False)
    assert math.isnan(evaluated.metrics["rvpo/a/unexplored"])  # 7 shows that the scale is not [0, 1]
    assert resumed(torch.tensor(third), num_generations=2).metrics["rvpo/a/unexplored"] == 0.5


@pytest.mark.parametrize(
    ("declared", "few", "low", "high", "line"),
    [
        (None, [0.0, 1.0], 0, 1, 0.5),
        (None, [-1.0, 1.0], -1, 1, 0.0),
        (None, [0.0], 0, 0, 0.5),
        (None, [7.0], 7, 7, math.nan),
        (None, None, 0.1, 0.9, 0.5),
        (None, None, -0.1, 0.9, math.nan),
        ((-3, 3), [-3.0, 2.0], -3, 2, 0.0),
        ((0, 1), [0.0, 0.05], 0, 0.05, 0.5),
    ],
)
def test_the_line(declared, few, low, high, line):
    assert line_of(declared, few, low, high) == pytest.approx(line, nan_ok=True)


def test_values_are_told_apart_beyond_rounding():
    assert next_few([0.0], 0.1, 0.1 + 1e-9, False) == [0.0, 0.1]
    assert next_few([0.0, 0.1], 0.1, 0.2, False) is None
    assert next_few([], math.inf, -math.inf, False) == []


@pytest.mark.parametrize("order", [1, -1])
def test_records_and_alarm_say_the_same(order: int):
    # The binary channel shows its second value late: higher (order 1) or lower (order -1) than the first.
    from rvpo.diagnose.diagnose import diagnose

    rng = random.Random(order)
    batches, rows, groups, advantages = [], [], [], []
    channels = Channels.columns(["late", "graded", "unknown"])
    alarm = Alarm()
    for step in range(1, 13):
        late = [float(step > 6 and rng.random() < 0.3) * order for _ in range(24)]
        rewards = [[x, rng.random(), rng.uniform(0, 9)] for x in late]
        a = [rng.gauss(0, 1) for _ in range(24)]
        matrix, index = torch.tensor(rewards, dtype=torch.float64), torch.arange(24) // 4
        batch = LoggedBatch(step, matrix, index, torch.arange(3), torch.tensor(a, dtype=torch.float64))
        batches.append(batch)
        alarm.add(Generation(matrix, batch.advantages, Groups.in_blocks(index), channels, torch.ones(3)))
        if step == 8:
            arrays = alarm.state()
            alarm = Alarm()
            alarm.load_state(arrays)
        rows += rewards
        groups += [6 * step + i // 4 for i in range(24)]
        advantages += a
    line = 0.5 if order == 1 else -0.5
    want = loops(rows, advantages, groups, [line, 0.5, math.nan])
    run = Run(Path("run"), "table", channels.names, tuple(range(1, 13)), lambda texts: iter(batches))
    found = diagnose(run, texts=False, resamples=100).channels
    look = alarm._look().found
    for j, (unexplored, suppressed) in enumerate(want):
        assert (found[j].unexplored.value or math.nan) == pytest.approx(unexplored or math.nan, nan_ok=True)
        assert (found[j].suppressed.value or math.nan) == pytest.approx(suppressed or math.nan, nan_ok=True)
        assert look["unexplored"][j] == pytest.approx(unexplored, nan_ok=True)
        assert look["suppressed"][j] == pytest.approx(suppressed, nan_ok=True)


def test_effective_channels():
    rewards = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    assert effective_channels(rvpo.advantages(rewards, num_generations=2, method="gdpo")).tolist() == [2, 2]
    heavy = rvpo.advantages(rewards, num_generations=2, method="gdpo", weights=[3, 1, 1])
    assert effective_channels(heavy).tolist() == pytest.approx([16 / 10] * 2)  # (3/4, 1/4)
    assert len(effective_channels(rvpo.advantages(rewards * 0, num_generations=2, method="gdpo"))) == 0
