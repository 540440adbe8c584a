"""Weights that follow the training: hand-worked values, what is refused, and the same advantages as fixed weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import rvpo
from reference import reference
from rvpo.core.weights import check_weights, mean_weight, plain_weight, read_weight, weights_at
from rvpo.diagnose.replay import replay
from rvpo.errors import ConfigError
from rvpo.logs.engine import function_weights
from rvpo.logs.open import open_run
from rvpo.logs.schema import FOLDER
from rvpo.logs.writer import ChannelTable
from rvpo.recipe import build_recipe


@pytest.mark.parametrize(
    ("text", "at", "mean"),
    [
        ("linear(0.2,1)", [0.2, 0.4, 0.6, 1.0], 0.6),
        ("cosine(0, 2)", [0, 1 - math.sqrt(0.5), 1.0, 2.0], 1.0),
        ("linear(end=0,start=1)", [1.0, 0.75, 0.5, 0.0], 0.5),
        ("alternate(1,0)", [1.0, 1.0, 0.0, 0.0], 0.5),
        ("alternate(1,0,cycles=2)", [1.0, 0.0, 1.0, 0.0], 0.5),
        ("alternate(3,2,1,0)", [3.0, 2.0, 1.0, 0.0], 1.5),
    ],
)
def test_values(text, at, mean):
    weight = read_weight(text, "a")
    assert [weight(t) for t in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(at)
    assert read_weight(plain_weight(weight), "a") == weight
    assert mean_weight(weight) == pytest.approx(mean)
    assert mean == pytest.approx(np.mean([weight((i + 0.5) / 4000) for i in range(4000)]), abs=1e-6)


def test_a_stretch_begins_at_its_step():
    # Steps 0, 1, 2 of 3 stretches: 1/3 and 2/3 are not exact.
    weight = read_weight("alternate(1,2,3,cycles=7)", "a")
    assert [weight(i / 21) for i in range(21)] == [1.0, 2.0, 3.0] * 7
    assert [weight(-1.0), weight(1.5)] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, r"weight of 'a' is -1; expected a number in \[0, inf\)"),
        (math.nan, "weight of 'a' is nan"),
        (True, "weight of 'a' is True"),
        ("rising", r"weight of 'a' is 'rising'; expected a number >= 0, linear\(0.2,1\), cosine"),
        ("linear", "expected the weights at the start and at the end, as in linear"),
        ("linear(1,2,3)", "expected the weights at the start and at the end"),
        ("cosine(0,-1)", "weight of 'a': cosine: end is -1; expected a number"),
        ("alternate(1)", "alternate has the weights"),
        ("alternate(1,x)", "alternate: weight is 'x'; expected a number"),
        ("alternate(1,0,cycles=0)", "cycles is 0; expected a whole number from 1"),
        ("alternate(1,0,phase=3)", "which has 'phase'; expected weights"),
        ("alternate(1,0,cycles=2,cycles=3)", "has 'cycles' twice"),
        ("linear(start=1,end=2,end=3)", "has 'end' twice"),
        ("alternate(1,,0)", "has a blank value; expected a value at each place"),
        ("linear(,1,2)", "has a blank value"),
        ("linear(start=,end=2)", "has a blank value"),
        ({"kind": "linear"}, "expected {kind: linear, start"),
        (["linear"], "weight of 'a' is \\['linear'\\]"),
        ("adaptive(0.5)", "expected a number >= 0, linear"),
    ],
)
def test_what_cannot_work_is_refused(weight, message):
    with pytest.raises(ConfigError, match=message):
        read_weight(weight, "a")


@pytest.mark.parametrize(
    ("texts", "when"),
    [
        (["linear(0,1)", "linear(0,2)"], "at 0%"),
        (["linear(1,0)", 0], "at 100%"),
        (["alternate(1,0)", "alternate(1,0,cycles=2)"], "at 75%"),
        (["alternate(0,1)", "linear(0,0)", 0], "at 0%"),
    ],
)
def test_weights_that_are_all_0_at_some_time_are_refused(texts, when):
    with pytest.raises(ConfigError, match=f"weights are all 0 {when} of the training"):
        rvpo.Aggregator("gdpo", list("abc")[: len(texts)], weights=texts)


def test_weights_that_take_turns_work():
    texts = ("alternate(1,0,0)", "alternate(0,1,0)", "alternate(0,0,1)")
    check_weights([read_weight(text, "a") for text in texts], "abc")


WEIGHTS = {"a": "linear(0.2,1)", "b": "alternate(1,0,cycles=2)"}  # and 1 for c
REWARDS = [[[float((i * 7 + t) % 5), float((i + t) % 2), (i * 3 + t) % 7 / 7] for i in range(8)] for t in range(9)]


@pytest.mark.parametrize("method", ["gdpo", "grpo", "rvpo:k=2", "rvpo:k=linear(0.5,2)"])
def test_advantages_are_those_of_a_loop_with_the_weights_of_the_step(method):
    aggregator = rvpo.Aggregator(method, ["a", "b", "c"], weights=WEIGHTS)
    for t, rewards in enumerate(REWARDS):
        progress = t / 8
        now = [0.2 + 0.8 * progress, [1.0, 0.0, 1.0, 0.0, 0.0][min(int(progress * 4), 4)], 1.0]
        out = aggregator(torch.tensor(rewards, dtype=torch.float64), num_generations=4, progress=progress)
        name = method.partition(":")[0]
        k = {"rvpo:k=2": 2.0, "rvpo:k=linear(0.5,2)": 0.5 + 1.5 * progress}.get(method, 1.0)
        want = reference(rewards, [i // 4 for i in range(8)], method=name, weights=now, k=k)
        got = out.advantages.tolist()
        assert got == pytest.approx(want.advantages, abs=1e-9)
        assert out.importance == dict(zip("abc", now, strict=True))


def test_progress_must_be_known():
    aggregator = rvpo.Aggregator("gdpo", ["a", "b", "c"], weights=WEIGHTS)
    with pytest.raises(
        ConfigError,
        match=r"progress is None, but the weight of 'a' follows .*Pass progress",
    ):
        aggregator(torch.tensor(REWARDS[0]), num_generations=4)
    rewards = torch.tensor(REWARDS[3], dtype=torch.float64)
    with pytest.raises(ConfigError, match="progress is None, but the weight of '1' follows"):
        rvpo.advantages(rewards, num_generations=4, weights=[1, "linear(0,1)", 1])
    got = rvpo.advantages(rewards, num_generations=4, weights=[1, "linear(0,1)", 1], progress=0.25).advantages
    torch.testing.assert_close(got, rvpo.advantages(rewards, num_generations=4, weights=[1, 0.25, 1]).advantages)


def test_the_record_has_the_weights_of_each_step_and_replays(tmp_path: Path):
    aggregator = rvpo.Aggregator("lift", ["a", "b", "c"], weights=WEIGHTS, ranges={"a": (0, 4)})
    table = ChannelTable(tmp_path / FOLDER)
    for t, rewards in enumerate(REWARDS):
        if t == 4:  # a resumed run
            state = json.loads(json.dumps(aggregator.state_dict()))
            aggregator = rvpo.Aggregator("lift", ["a", "b", "c"], weights=WEIGHTS, ranges={"a": (0, 4)})
            aggregator.load_state_dict(state)
        table.add(t + 1, aggregator(torch.tensor(rewards), num_generations=4, progress=t / 8))
    weights = pq.read_table(tmp_path / FOLDER / "000003.parquet").to_pylist()
    assert {row["channel"]: (row["weight"], row["counts"]) for row in weights} == {
        "a": (0.4, 0.4),
        "b": (0.0, 0.0),
        "c": (1.0, 1.0),
    }
    run = open_run(tmp_path)
    assert function_weights(run) == pytest.approx([math.nan, math.nan, 1.0], nan_ok=True)  # for advice: no single one
    found = replay(run, [])
    assert found.own_difference == pytest.approx(0, abs=1e-6)


RECIPE = {"name": "r", "model": {"path": "m"}, "data": {"path": "d"}}


@pytest.mark.parametrize("weight", ["linear(0.2, 1)", {"kind": "linear", "start": 0.2, "end": 1}])
def test_a_recipe_keeps_a_schedule_as_text(weight):
    recipe = build_recipe({**RECIPE, "rewards": ["format", {"function": "length", "weight": weight}]})
    assert [entry.weight for entry in recipe.rewards] == [1.0, "linear(0.2,1)"]
    assert build_recipe(recipe.model_dump()) == recipe
    assert json.loads(recipe.model_dump_json())["rewards"][1]["weight"] == "linear(0.2,1)"


@pytest.mark.parametrize("weight", ["linear(0.2)", "2", "alternate()", [1], None, True, "linear({{{{{{{{{{1"])
def test_a_recipe_refuses_other_weights(weight):
    with pytest.raises(ConfigError, match=r"rewards\.0\.weight: "):
        build_recipe({**RECIPE, "rewards": [{"function": "length", "weight": weight}]})


def test_weights_at():
    assert weights_at([1.0, read_weight("linear(0,1)", "b")], 0.5, ["a", "b"]) == [1.0, 0.5]
