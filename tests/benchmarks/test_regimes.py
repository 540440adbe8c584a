"""The statistics of benchmarks/regimes/table.py, against loops and values worked by hand."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import rvpo

FOLDER = Path(__file__).parents[2] / "benchmarks" / "regimes"
SIBLINGS = ("table", "cells", "rules", "train", "policy", "task")


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    """Import the script as its own folder sees it; leave no module of so common a name behind, nor a quiet logger."""
    logger = logging.getLogger("rvpo.step.aggregator")
    level = logger.level
    before = {name: sys.modules.pop(name) for name in SIBLINGS if name in sys.modules}
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("table")
    logger.setLevel(level)
    sys.path.remove(str(FOLDER))
    for name in SIBLINGS:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def reference_test(differences: np.ndarray) -> tuple[list[float], list[float]]:
    """Compute both p values as they are defined: every flip, every cell, loops only."""
    cells, seeds = differences.shape
    norm = [sum(d * d for d in row) ** 0.5 or 1.0 for row in differences]

    def statistics(signs: tuple[int, ...]) -> list[float]:
        return [
            abs(sum(s * d for s, d in zip(signs, row, strict=True))) / n
            for row, n in zip(differences, norm, strict=True)
        ]

    flips = [statistics(signs) for signs in product((1, -1), repeat=seeds)]
    observed = statistics((1,) * seeds)
    alone = [sum(flip[c] >= observed[c] - 1e-9 for flip in flips) / len(flips) for c in range(cells)]
    family, highest = [0.0] * cells, 0.0
    left = sorted(range(cells), key=lambda c: -observed[c])
    while left:  # the most extreme cell against the maximum over it and all that are less extreme
        cell = left[0]
        p = sum(max(flip[c] for c in left) >= observed[cell] - 1e-9 for flip in flips) / len(flips)
        highest = max(highest, p)
        family[cell] = highest
        left = left[1:]
    return alone, family


@pytest.mark.parametrize("seed", range(5))
def test_sign_flips_equal_the_loops(table: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    differences = rng.normal(rng.normal(size=(6, 1)), size=(6, 5)).round(2)
    differences[3] = 0
    alone, family = table.sign_flip_test(differences)
    expected_alone, expected_family = reference_test(differences)
    np.testing.assert_allclose(alone, expected_alone)
    np.testing.assert_allclose(family, expected_family)


def test_sign_flips_by_hand(table: ModuleType) -> None:
    # All 8 seeds agree: only the data and their mirror are as extreme, 2 of 256. None differs: every flip ties.
    # (3, 1, 1, 1): |sum| 6 of at most 6, reached by 2 of 16. (3, -1, -1, -1): 0, reached by all.
    assert table.sign_flip_test(np.full((1, 8), 0.3))[0] == [2 / 256]
    assert table.sign_flip_test(np.zeros((1, 8)))[0] == [1]
    np.testing.assert_allclose(table.sign_flip_test(np.array([[3.0, 1, 1, 1], [3, -1, -1, -1]]))[0], [2 / 16, 1])


def test_family_keeps_its_level_where_holm_cannot_reject(table: ModuleType) -> None:
    """28 cells in which all 8 seeds agree: Holm's smallest p is 28 * 2 / 256, the joint flips' still 2 / 256."""
    alone, family = table.sign_flip_test(np.full((28, 8), 0.2))
    np.testing.assert_allclose(family, 2 / 256)
    assert table.holm(alone).min() == pytest.approx(28 * 2 / 256)


def test_family_is_rarely_wrong_under_the_null(table: ModuleType) -> None:
    """Of 200 families without a difference at most about 5% have a rejection; without correction most have one."""
    rng = np.random.default_rng(0)
    found = [table.sign_flip_test(rng.normal(size=(28, 8))) for _ in range(200)]
    assert np.mean([family.min() < 0.05 for _, family in found]) < 0.09  # 2.6 standard errors above
    assert np.mean([alone.min() < 0.05 for alone, _ in found]) > 0.5


def test_holm_by_hand(table: ModuleType) -> None:
    # Sorted .01, .02, .04, .5 times 4, 3, 2, 1: .04, .06, .08, .5. Then .6 * 2 is capped at 1, and .9 may not be below.
    np.testing.assert_allclose(table.holm(np.array([0.04, 0.01, 0.5, 0.02])), [0.08, 0.04, 0.5, 0.06])
    np.testing.assert_allclose(table.holm(np.array([0.9, 0.6])), [1, 1])


def test_interval_covers_the_mean_and_repeats(table: ModuleType) -> None:
    # 8 draws of 4 zeros and 4 ones have no one with P = 1 / 256 and at most one with 9 / 256: the 2.5% quantile of
    # their mean is 1/8, and the 97.5% quantile its mirror.
    assert table.interval(np.array([0.0, 1.0] * 4)) == (1 / 8, 7 / 8)
    assert table.interval(np.full(8, 0.25)) == (0.25, 0.25)


def test_measures_by_hand(table: ModuleType) -> None:
    curve = [[0.6, 0.0], [0.1, 0.2], [0.1, 0.4], [0.1, 0.6], [0.1, 0.8], [0.1, 1.0], [1.0, 1.0]]
    found = table.measure({"before": [0.6, 0.1], "final": [0.9, 0.7], "curve": curve})
    # Means over steps 2.1 / 7 and 4 / 7. Lowest mean of 5 steps of channel 0: 0.1, which is 0.5 below the start.
    assert found == pytest.approx({"final": 0.7, "auc": 0.3, "dip": 0.5, "others": 0.7})
    rising = table.measure(
        {"before": [0.2, 0.1], "final": [0.9, 0.7], "curve": [[0.3 + 0.1 * t, 0.5] for t in range(6)]}
    )
    assert rising["dip"] == 0


def test_best_rate_prefers_final_then_auc(table: ModuleType) -> None:
    final = np.array([[0.5, 0.7], [0.8, 0.6], [0.6, 0.8]])
    assert table.best_rate({"final": final, "auc": np.array([[0.9], [0.1], [0.2]])}) == 2
    assert table.best_rate({"final": final, "auc": np.array([[0.9], [0.3], [0.2]])}) == 1


def write(folder: Path, cell: str, rule: str, finals: dict[tuple[float, int], float]) -> None:
    """Write records whose format ends at ``finals`` of (lr, seed) and whose curve stays there."""
    lines = [
        {"cell": cell, "rule": rule, "lr": lr, "seed": seed, "before": [0.5, 1], "final": [x, 1], "curve": [[x, 1]] * 6}
        for (lr, seed), x in finals.items()
    ]
    path = folder / "records" / f"{cell}--{rule.replace(' ', '_')}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def test_a_sweep_is_read_compared_and_summed_up(table: ModuleType, tmp_path: Path) -> None:
    keys = list(product((0.001, 0.002), range(8)))
    for cell in ("p0.05", "p0.72"):
        write(tmp_path, cell, "GDPO", {(lr, seed): 0.6 + 0.01 * seed for lr, seed in keys})
    # The best rate is 0.002. At it the rule is better by 0.2 on every seed, at the other it neglects.
    write(tmp_path, "p0.05", "LIFT", {(lr, seed): 0.8 + 0.01 * seed if lr == 0.002 else 0.1 for lr, seed in keys})
    write(tmp_path, "p0.72", "LIFT", dict.fromkeys(keys[:-1], 0.9))
    sweep = table.read(tmp_path)
    assert sweep.missing["p0.72", "LIFT"] == " (15 of 16 runs)"
    assert sweep.missing["p0.25", "GDPO"] == ""
    assert len(sweep.missing) + len(sweep.measures) == len(table.CELLS) * len(table.MAIN)
    rows = table.describe(sweep)
    lift = rows["p0.05"]["LIFT"]
    assert (lift["lr"], lift["neglect"], lift["neglect_pooled"]) == (0.002, 0, 0.5)
    assert lift["final"] == pytest.approx(0.835)
    assert lift["against"]["final"]["difference"] == pytest.approx(0.2)
    assert lift["against"]["final"]["p"] == 2 / 256
    assert lift["against"]["final"]["verdict"] == "better"
    # All rates: the mean of 0.1 and 0.8 + is 0.45 +, below GDPO's 0.6 + on every seed.
    assert lift["against"]["final_pooled"]["verdict"] == "worse"
    summary = table.summarise(rows, "LIFT")
    assert (summary["final_better"], summary["final_worse"], summary["final_pooled_worse"]) == (
        ["p0.05"],
        [],
        ["p0.05"],
    )
    assert (summary["cells"], summary["behind_best"]) == (1, [])
    gdpo = table.summarise(rows, "GDPO")
    assert (gdpo["behind_best"], gdpo["gap_cell"]) == (["p0.05"], "p0.05")
    assert gdpo["gap"] == pytest.approx(0.2)
    told = table.missing_lines(sweep)
    assert "- all rules: p0.1, p0.25, p0.5, p0.9, " in told[1]
    assert told[2:4] == ["- GRPO: p0.05, p0.72", "- RVPO k=1: p0.05, p0.72"]
    assert "- LIFT: p0.72 (15 of 16 runs)" in told
    assert "missing" in "\n".join(table.group_lines(rows, sweep.rules))


def test_every_cell_stands_in_one_group(table: ModuleType) -> None:
    assert sorted(cell for cells in table.GROUPS.values() for cell in cells) == sorted(table.CELLS)


def test_rules_are_methods_by_their_texts(table: ModuleType, tmp_path: Path) -> None:
    """A method that has a name keeps it; another is called by its text, and is read back after those with a name."""
    rules = importlib.import_module("rules")
    assert rules.named("gdpo rvpo lift:kappa=0 lift:kappa=3") == [
        "GDPO",
        "RVPO k=1",
        "LIFT, guard only",
        "lift:kappa=3",
    ]
    assert [rules.RULES[name] for name in rules.MAIN[:6]] == [
        "grpo",
        "gdpo",
        "rvpo:k=1",
        "rvpo:k=2",
        "rvpo:k=linear(0.5,2)",
        "lift",
    ]
    for rule in ("GDPO", "lift:kappa=3", "GRPO"):
        write(tmp_path, "p0.05", rule, {(0.001, seed): 0.6 for seed in range(2)})
    assert table.read(tmp_path).rules == ["GRPO", "GDPO", "lift:kappa=3"]


def test_rules_carry_their_memory_and_their_trust(table: ModuleType, tmp_path: Path) -> None:
    """Each run has its own, and equals rvpo.Aggregator called by hand; a rule of one's own works, too."""
    rules = importlib.import_module("rules")
    batches = [torch.rand(16, 3, generator=torch.Generator().manual_seed(seed)).round() for seed in range(3)]
    (tmp_path / "mine.py").write_text("def lowest(z, p):\n    return z.min(-1).values\n", "utf-8")
    for name, method in (
        ("LIFT", "lift"),
        ("RVPO k=0.5 to 2", "rvpo:k=linear(0.5,2)"),
        (f"{tmp_path}/mine.py:lowest",) * 2,
    ):
        first, second = (rules.factory(name, 8)() for _ in range(2))
        by_hand = rvpo.Aggregator(method, ["0", "1", "2"])
        for step, rewards in enumerate(batches):
            expected = by_hand(rewards, num_generations=8, progress=step / 2).advantages
            assert torch.equal(first(rewards, step, 3), expected)
            assert torch.equal(second(rewards, step, 3), expected)
    trusting = rules.factory("GDPO, trust", 8)
    assert trusting.judges_twice
    rule, plain = trusting(), rules.factory("GDPO", 8)()
    again = 1 - batches[0]  # what is judged the other way round the second time is not trusted in the next step
    assert torch.equal(rule(batches[0], 0, 3, again), plain(batches[0], 0, 3))
    assert not torch.equal(rule(batches[1], 1, 3, again), plain(batches[1], 1, 3))
