"""Structures equal slow loops, PAPO's equation and each other's spellings; a monitored channel changes nothing."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict
from typing import Any

import pytest
import torch

import rvpo
from rvpo.core.methods.registry import METHODS
from rvpo.core.metrics import in_catalogue
from rvpo.core.ragged import Family, Score
from rvpo.errors import ConfigError, RewardError
from rvpo.step.structure import AllOf, Gate, OnlyWhere, build_structure, build_structures
from structure_loops import conjoined, gated, gdpo, holds, papo

NAN = math.nan
NAMES = ["correct", "style", "cost", "safe"]
RANGES = {"correct": (0.0, 1.0), "style": (-3.0, 3.0), "cost": (0.0, 10.0), "safe": (1.0, 5.0)}
WEIGHTS = {"correct": 1.0, "style": 0.5, "cost": 2.0, "safe": 1.5}
EPS = 1e-4
OPTIONS = {"lagrangian": ":thresholds={correct:0.9}", "riskpo": ":bundle_size=2"}


def batch(seed: int, missing: float = 0.1) -> tuple[list[dict[str, float]], list[int]]:
    """Ragged groups with missing values, rewards outside of their range, and conditions that few or none meet."""
    draw = random.Random(seed)
    groups = [group for group, size in enumerate(draw.choices(range(1, 7), k=6)) for _ in range(size)]
    rows = []
    for group in groups:
        row = {
            "correct": float(draw.random() < (0.0, 0.2, 0.6, 1.0)[group % 4]),
            "style": draw.uniform(-3.5, 3.5),
            "cost": float(draw.randrange(11)),
            "safe": float(draw.choice([1, 3, 5, 5])),
        }
        rows.append({name: NAN if draw.random() < missing else value for name, value in row.items()})
    order = draw.sample(range(len(rows)), len(rows))
    return [rows[i] for i in order], [groups[i] for i in order]


def run(rows: list[dict[str, float]], groups: list[int], structure: Any, method: Any = "gdpo", **options: Any) -> Any:
    given = {"ranges": RANGES, "weights": WEIGHTS, "eps": EPS} | options
    agg = rvpo.Aggregator(method, NAMES, structure=structure, **given)
    return agg(torch.tensor([[row[name] for name in NAMES] for row in rows], dtype=torch.float64), groups=groups)


def close(got: torch.Tensor, want: list[float]) -> None:
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-9, equal_nan=True)


# --- slow loops -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("parts", [["correct", "style"], ["safe", "-cost"], ["correct", "style", "-cost", "safe"]])
def test_all_of_equals_the_loops(seed: int, parts: list[str]):
    rows, groups = batch(seed)
    out = run(rows, groups, AllOf(parts, called="all"))
    product = conjoined(rows, parts, RANGES)
    close(out.result.rewards[:, 4], product)
    replaced = [part.removeprefix("-") for part in parts]
    weights = {name: 0.0 if name in replaced else weight for name, weight in WEIGHTS.items()}
    weights["all"] = max(WEIGHTS[name] for name in replaced)
    both = [row | {"all": value} for row, value in zip(rows, product, strict=True)]
    close(out.advantages, gdpo(both, groups, weights, {}, EPS))
    assert out.weights[0].tolist() == list(weights.values())
    assert f"rvpo/{replaced[0]}/mean" in out.metrics  # the parts stay in the logs


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("gate", "threshold", "factor", "over"),
    [
        ("safe", 1.0, 0.0, None),
        ("safe", 0.5, 0.3, ["style"]),
        ("-cost", 0.7, 0.0, None),
        ("correct", 1.0, 0.9, ["cost", "safe"]),
    ],
)
def test_gate_equals_the_loops(seed: int, gate: str, threshold: float, factor: float, over: list[str] | None):
    rows, groups = batch(seed)
    out = run(rows, groups, [{"name": "gate", "channel": gate, "threshold": threshold, "factor": factor, "over": over}])
    behind = over or [name for name in NAMES if name != gate.removeprefix("-")]
    want = gated(rows, gate, behind, threshold, factor, RANGES)
    close(out.entered, [[row[name] for name in NAMES] for row in want])  # type: ignore[misc]
    close(out.advantages, gdpo(want, groups, WEIGHTS, {}, EPS))
    # The record and the metrics keep the rewards as they were scored.
    close(out.result.rewards, [[row[name] for name in NAMES] for row in rows])  # type: ignore[misc]
    known = [holds(row, gate, threshold, RANGES) for row in rows]
    text = str(
        build_structure({"name": "gate", "channel": gate, "threshold": threshold, "factor": factor, "over": over})
    )
    assert out.metrics[f"rvpo/{text}/holds"] == pytest.approx(known.count(True) / len(rows))
    assert out.metrics[f"rvpo/{text}/unknown"] == pytest.approx(known.count(None) / len(rows))
    assert all(in_catalogue(key) for key in out.metrics)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("meets", "threshold"), [("correct", 1.0), ("-cost", 0.5), ("safe", 0.5)])
def test_only_where_equals_the_loops(seed: int, meets: str, threshold: float):
    rows, groups = batch(seed)
    out = run(rows, groups, OnlyWhere("style", meets, threshold))
    known = [holds(row, meets, threshold, RANGES) for row in rows]
    outside = [found is False for found in known]
    want = [row | {"style": NAN if found is None else row["style"]} for row, found in zip(rows, known, strict=True)]
    close(out.advantages, gdpo(want, groups, WEIGHTS, {"style": outside}, EPS))


@pytest.mark.parametrize("seed", range(8))
def test_structures_compose_in_their_order(seed: int):
    rows, groups = batch(seed)
    out = run(
        rows, groups, "gate(safe,over=[correct]) all_of(correct,-cost,called=both) only_where(style,both,threshold=0.5)"
    )
    want = gated(rows, "safe", ["correct"], 1.0, 0.0, RANGES)
    want = [
        row | {"both": value} for row, value in zip(want, conjoined(want, ["correct", "-cost"], RANGES), strict=True)
    ]
    ranges = RANGES | {"both": (0.0, 1.0)}
    known = [holds(row, "both", 0.5, ranges) for row in want]
    want = [row | {"style": NAN if found is None else row["style"]} for row, found in zip(want, known, strict=True)]
    weights = WEIGHTS | {"correct": 0.0, "cost": 0.0, "both": 2.0}
    close(out.advantages, gdpo(want, groups, weights, {"style": [found is False for found in known]}, EPS))


# --- PAPO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_only_where_is_papo(seed: int, scale: float):
    """PAPO does not whiten: gdpo:unscored=zero,whiten=none is its sum, plain gdpo that over 1 + lambda."""
    rows, groups = batch(seed, missing=0.0)
    outcome, process = [row["correct"] for row in rows], [row["style"] for row in rows]
    want = papo(outcome, process, groups, scale, 1e-6)
    rewards = torch.tensor([outcome, process], dtype=torch.float64).T
    for method, divided in (("gdpo:unscored=zero,whiten=none", 1.0), ("gdpo:whiten=none", 1 + scale)):
        agg = rvpo.Aggregator(
            method,
            ["correct", "style"],
            ranges={"correct": (0, 1)},
            weights=[1.0, scale],
            structure="only_where(style,correct)",
            eps=1e-6,
        )
        close(agg(rewards, groups=groups).advantages, [advantage / divided for advantage in want])


def test_style_need_not_be_scored_where_it_does_not_count():
    rows, groups = batch(3, missing=0.0)
    unscored = [row | {"style": row["style"] if row["correct"] else NAN} for row in rows]
    for method in (*METHODS, "grpo:unscored=left_out"):
        text = method + OPTIONS.get(method, "")
        whole, less = (
            run(given, groups, "only_where(style,correct)", text, missing=missing)
            for given, missing in ((rows, "drop"), (unscored, "error"))
        )
        torch.testing.assert_close(whole.advantages, less.advantages)


# --- rubrics ----------------------------------------------------------------------------------------------------------


def rubric_rows(seed: int) -> tuple[list[list[Score]], list[list[float]]]:
    draw = random.Random(seed)
    rows = []
    for prompt in range(4):
        labels = [draw.choice(["essential", "extra"]) for _ in range(draw.randint(1, 5))] if prompt else []
        for _ in range(3):
            values = [None if draw.random() < 0.1 else float(draw.random() < 0.6) for _ in labels]
            scores = zip(labels, values, strict=True)
            rows.append([Score(f"c{j}", value, labels=(label,)) for j, (label, value) in enumerate(scores)])
    return rows, [[draw.random(), NAN] for _ in rows]


@pytest.mark.parametrize("seed", range(6))
def test_a_label_of_a_rubric_becomes_one_channel(seed: int):
    rows, rewards = rubric_rows(seed)
    agg = rvpo.Aggregator(
        "gdpo", ["format", "rubric"], ranges={"rubric": (0, 1)}, structure=["all_of(rubric/essential,called=must)"]
    )
    out = agg(torch.tensor(rewards, dtype=torch.float64), num_generations=3, families=[Family("rubric", rows)])
    column = out.layout.made["must"]
    for i, row in enumerate(rows):
        values = [score.value for score in row if score.labels == ("essential",)]
        assert bool(out.result.applies[i, column]) == bool(values)
        value = out.result.rewards[i, column].item()
        if not values:
            continue
        if None in values:
            assert math.isnan(value)
        else:
            assert value == math.prod(values)  # type: ignore[arg-type]
        own = out.weights[i][: 1 + len(row)].tolist()
        assert own == [1.0] + [0.0 if score.labels == ("essential",) else 1.0 for score in row]
    if any(score.labels == ("essential",) for row in rows for score in row):
        assert "rvpo/must/mean" in out.metrics
        assert "rvpo/rubric/essential/mean" in out.metrics


@pytest.mark.parametrize("seed", range(6))
def test_a_rubric_behind_a_gate_counts_where_it_holds(seed: int):
    rows, rewards = rubric_rows(seed)
    agg = rvpo.Aggregator(
        "rvpo",
        ["format", "rubric"],
        ranges={"rubric": (0, 1), "format": (0, 1)},
        structure="gate(format,threshold=0.5)",
    )
    out = agg(torch.tensor(rewards, dtype=torch.float64), num_generations=3, families=[Family("rubric", rows)])
    for i, row in enumerate(rows):
        for j, score in enumerate(row, 1):
            want = NAN if score.value is None else score.value * (rewards[i][0] >= 0.5)
            assert out.entered[i, j].item() == pytest.approx(want, nan_ok=True)


@pytest.mark.parametrize(
    ("structure", "told"),
    [
        ("all_of(rubric/tone)", "only monitored"),
        ("gate(rubric/tone)", "only monitored"),
        ("all_of(rubric/must) only_where(rubric/must,format)", "has replaced"),
        ("only_where(rubric,format) all_of(rubric/must,format)", "only in some completions"),
    ],
)
def test_labels_of_a_rubric_are_part_of_it(structure: str, told: str):
    ranges = {"rubric": (0, 1), "format": (0, 1)}
    with pytest.raises(ConfigError, match=told):
        rvpo.Aggregator("gdpo", ["format", "rubric"], ranges=ranges, structure=structure, monitor=["rubric/tone"])


@pytest.mark.parametrize("named", ["rubric", "rubric/must"])
def test_a_criterion_with_a_monitored_label_is_no_part_of_a_structure(named: str):
    """Its rubric or another label of it is named by the structure."""
    rows = [
        [Score("a", 1.0, labels=("must",)), Score("b", value, labels=("must", "tone"))] for value in (0.0, 1.0, 0.5)
    ]
    agg = rvpo.Aggregator(
        "gdpo", ["rubric"], ranges={"rubric": (0, 1)}, structure=f"all_of({named})", monitor=["rubric/tone"]
    )
    out = agg(torch.full((3, 1), NAN, dtype=torch.float64), num_generations=3, families=[Family("rubric", rows)])
    assert out.result.rewards[:, 2].tolist() == [1.0, 1.0, 1.0]
    assert out.weights.tolist() == [[0.0, 0.0, 1.0]] * 3


# --- monitored channels -----------------------------------------------------------------------------------------------


def no_shares(z: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """A rule that does not look at the shares."""
    return z.amin(-1)


@pytest.mark.parametrize("method", [*METHODS, "grpo:unscored=left_out", "gdpo:unscored=zero", no_shares])
@pytest.mark.parametrize("seed", range(3))
def test_a_monitored_channel_changes_no_advantage(method: Any, seed: int):
    text = method + OPTIONS.get(method, "") if isinstance(method, str) else method
    with_it = rvpo.Aggregator(text, [*NAMES, "gold"], ranges=RANGES, weights=WEIGHTS, monitor=["gold"])
    without = rvpo.Aggregator(text, NAMES, ranges=RANGES, weights=WEIGHTS)
    for step in range(3):
        rows, groups = batch(10 * seed + step, missing=0.4)
        rewards = torch.tensor([[row[name] for name in NAMES] for row in rows], dtype=torch.float64)
        gold = torch.randn(len(rows), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 100
        both, alone = (
            agg(given, groups=groups, progress=0.5)
            for agg, given in ((with_it, torch.cat([rewards, gold], 1)), (without, rewards))
        )
        torch.testing.assert_close(both.advantages, alone.advantages, rtol=1e-9, atol=1e-9)
        assert both.metrics["rvpo/gold/mean"] == pytest.approx(gold.mean().item())
        assert not both.result.responsibilities[:, -1].any()


# --- spellings and refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("all_of(a,b)", AllOf(["a", "b"])),
        ("all_of(a, -b, called=both, weight=2)", AllOf(["a", "-b"], "both", 2)),
        ('all_of("a,b",rubric/must)', AllOf(["a,b", "rubric/must"])),
        ('all_of(1,true,"=x y")', AllOf(["1", "true", "=x y"])),
        ("gate(safe)", Gate("safe")),
        ("veto(safe)", Gate("safe")),
        ("gate(-toxic,threshold=0.5,factor=0.25,over=[a,b])", Gate("-toxic", 0.5, 0.25, ["a", "b"])),
        ("only_where(style,correct,threshold=0.5)", OnlyWhere("style", "correct", 0.5)),
        ('gate("all_of(a,b)")', Gate("all_of(a,b)")),
    ],
)
def test_all_spellings_mean_the_same(text: str, made: Any):
    assert (
        build_structure(text)
        == made
        == build_structure(str(made))
        == build_structure(json.loads(json.dumps({"name": made.name, **asdict(made)})))
    )
    assert build_structures(f"{made} {made}") == (made, made)


@pytest.mark.parametrize(
    ("structure", "told"),
    [
        ("gate(saf)", "did you mean 'safe'"),
        ("gate(safe,over=[safe])", "as the gate and in over"),
        ("gate(safe,threshold=0)", r"expected a share in \(0, 1\]"),
        ("gate(safe,factor=1)", r"expected a number in \[0, 1\)"),
        ("all_of(safe,safe)", "twice"),
        ("all_of(safe,correct,called=style)", "which exists already"),
        ("all_of(safe,correct) gate(style,over=[safe])", "has replaced"),
        ("all_of(safe,correct) only_where(safe,style)", "has replaced"),
        ("only_where(style,style)", "twice"),
        ("only_where(style,correct) all_of(style,safe)", "only in some completions"),
        ("only_where(style,correct) gate(style)", "only in some completions"),
        ("only_where(style,correct) only_where(safe,style)", "only in some completions"),
        ("only_where(-style,correct)", "without a sign"),
        ("gate(gold)", "only monitored"),
        ("all_of(safe,gold)", "only monitored"),
        ("gate(free)", "no range is declared"),
        ("all_of(safe,free)", "no range is declared"),
        ("gate(safe)", "no range is declared"),  # of a channel behind it
        ("gates(safe)", "did you mean 'gate'"),
        ("gate safe", "expected all_of"),
        ("gate(safe,limit=2)", "unknown key 'limit'"),
        ("veto(safe,factor=0.5)", "a veto is hard"),
        ([3], "structure holds 3"),
        ({"name": "gate"}, "expected all_of"),
        ("gate(a,b)", "2 names; expected 1"),
        ("gate(safe,channel=correct)", "has channel twice"),
        ("only_where(style,safe,meets=correct)", "has meets twice"),
        ("all_of(safe,correct,parts=[style])", "has parts twice"),
    ],
)
def test_what_cannot_work_is_refused(structure: Any, told: str):
    with pytest.raises(ConfigError, match=told):
        rvpo.Aggregator("gdpo", [*NAMES, "free", "gold"], ranges=RANGES, structure=structure, monitor=["gold"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"monitor": ["saef"]}, "did you mean"),
        ({"monitor": NAMES}, "all rewards"),
        ({"monitor": ["safe"], "weights": {"safe": 2.0}}, "monitor names it, too"),
        ({"monitor": ["safe"], "weights": [1, 1, 1, 3]}, "monitor names it, too"),
        ({"monitor": ["safe"], "method": "lift:floors={safe:0.9}"}, "the method's options name"),
        ({"monitor": [3]}, "expected a list of names"),
        ({"structure": "all_of(safe,correct)", "method": "lift:floors={safe:0.9}"}, "has replaced"),
    ],
)
def test_a_monitor_that_cannot_work_is_refused(options: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        rvpo.Aggregator(options.pop("method", "gdpo"), NAMES, ranges=RANGES, **options)


@pytest.mark.parametrize(
    "structure", ["gate(safe)", "gate(safe,factor=0.5)", "only_where(style,correct)", "all_of(style,safe)"]
)
def test_an_infinite_reward_is_refused_and_not_hidden(structure: str):
    rows, groups = batch(0, missing=0.0)
    for row in rows:
        row.update(correct=0.0, safe=1.0)
    rows[0]["style"] = math.inf
    with pytest.raises(RewardError, match="expected finite numbers"):
        run(rows, groups, structure)


def test_a_threshold_is_reached_in_single_precision():
    agg = rvpo.Aggregator("gdpo", ["a", "b"], ranges=[(0, 1), (0, 1)], structure="gate(a,threshold=0.7)")
    out = agg(torch.tensor([[0.7, 0.2], [0.69, 0.8], [0.7, 0.4]]), num_generations=3)
    assert out.metrics["rvpo/gate(a,threshold=0.7)/holds"] == pytest.approx(2 / 3)
