"""Comparisons of finished runs, end to end on folders written here in the layout of ``rvpo eval``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from rvpo import statistics as st
from rvpo.compare.benchmarks import compare_benchmarks
from rvpo.compare.comparison import BenchmarkRow
from rvpo.compare.tables import benchmarks_text
from rvpo.errors import ConfigError, DataError

Table = Mapping[str, Sequence[float | None]]
SETTINGS = {"data": "sha256:1", "judge": {"model": "grader", "temperature": 0.0}}


def write_run(
    folder: Path,
    scores: Table,
    *,
    epochs: int = 1,
    ids: Sequence[str] | None = None,
    missing: Mapping[int, Mapping[str, str]] | None = None,
    weights: Table | None = None,
    categories: Sequence[str] | None = None,
    **results: Any,
) -> str:
    """Write a run whose rows are items in order, ``epochs`` rows each; ``missing`` is by row."""
    rows = len(next(iter(scores.values())))
    ids = ids or [f"q{i:04d}" for i in range(rows // epochs)]
    columns: dict[str, list[Any]] = {
        "id": [id_ for id_ in ids for _ in range(epochs)],
        "epoch": list(range(epochs)) * len(ids),
        "missing": [json.dumps((missing or {}).get(row, {})) for row in range(rows)],
    }
    if categories is not None:
        columns["label/category"] = list(categories)
    columns |= {
        f"score/{metric}": [None if x is None else float(x) for x in values] for metric, values in scores.items()
    }
    columns |= {f"weight/{metric}": list(values) for metric, values in (weights or {}).items()}
    folder.mkdir(parents=True)
    parquet.write_table(pyarrow.table(columns), folder / "items.parquet")
    found = {
        "version": 1,
        "benchmark": "gpqa",
        "primary": next(iter(scores)),
        "model": {"name": f"model of {folder.name}"},
        "settings": SETTINGS,
        "generation": {"max_tokens": 64, "temperature": 0.0},
        **results,
    }
    (folder / "results.json").write_text(json.dumps(found))
    return str(folder)


def only_row(*runs: str, **options: Any) -> BenchmarkRow:
    (rows,) = compare_benchmarks(runs, **options).rows.values()
    (row,) = rows
    return row


def rubric(n: int, seed: int, shift: float = 0.0) -> list[float]:
    """Scores with an item's difficulty that is the same for every seed."""
    difficulty, rng = np.random.default_rng(99).normal(0.4, 0.5, n), np.random.default_rng(seed)
    return (difficulty + shift + rng.normal(0, 0.2, n)).tolist()


# --- what is said of two runs ------------------------------------------------------------------------------------


def test_accuracies_that_differ(tmp_path: Path):
    # Of 30 items that differ B wins 25: exact McNemar is 2 * P(at most 5 heads of 30)
    a = write_run(tmp_path / "a", {"accuracy": [1] * 40 + [0] * 25 + [1] * 5 + [0] * 30})
    b = write_run(tmp_path / "b", {"accuracy": [1] * 40 + [1] * 25 + [0] * 5 + [0] * 30})
    row = only_row(a, b)
    assert (row.a.mean, row.b.mean, row.difference.mean) == pytest.approx((0.45, 0.65, 0.20))
    assert row.test == "mcnemar"
    assert row.p == pytest.approx(2 * sum(math.comb(30, heads) for heads in range(6)) / 2**30)
    assert row.adjusted == row.p
    assert row.verdict == "b higher"
    assert row.difference.low > 0
    assert row.asked == row.difference.items == 100


def test_either_order_says_the_same(tmp_path: Path):
    a = write_run(tmp_path / "a", {"score": rubric(80, 1)})
    b = write_run(tmp_path / "b", {"score": rubric(80, 2, 0.2)})
    row, back = only_row(a, b), only_row(b, a)
    assert row.test == "sign_flip"
    assert row.verdict == back.verdict == "b higher"
    assert back.difference.mean == pytest.approx(-row.difference.mean)
    assert (back.a, back.b) == (row.b, row.a)


def test_cannot_tell_names_the_items_that_the_observed_difference_needs(tmp_path: Path):
    # 6 won, 3 lost of 60: p = 2 * P(at most 3 heads of 9) = 260 / 512; s^2 = (9 - 60 * 0.05^2) / 59 = 0.15,
    # (1.96 + 0.84)^2 * 0.15 / 0.0025 + 1.92 = 472.9: in two digits, and not fewer than needed
    a = write_run(tmp_path / "a", {"accuracy": [0] * 6 + [1] * 3 + [1] * 51})
    b = write_run(tmp_path / "b", {"accuracy": [1] * 6 + [0] * 3 + [1] * 51})
    row = only_row(a, b)
    assert row.p == pytest.approx(260 / 512)
    assert row.verdict == "cannot tell: about 480 items would be needed"
    # Beside a second comparison, at 0.025: (2.2414 + 0.8416)^2 * 0.15 / 0.0025 + 2.51 = 572.8
    c = write_run(tmp_path / "c", {"accuracy": [1] * 6 + [0] * 3 + [1] * 51})
    for (row,) in compare_benchmarks([a, b, c]).rows.values():
        assert row.verdict == "cannot tell: about 580 items would be needed"


def test_items_that_did_not_suffice_are_not_said_to(tmp_path: Path):
    # 5 won, none lost of 8: p = 2 / 2^5, though by the formula 7.849 * (15 / 56) / 0.625^2 + 1.92 = 7.3 items would do
    a = write_run(tmp_path / "a", {"accuracy": [0] * 5 + [1] * 3})
    b = write_run(tmp_path / "b", {"accuracy": [1] * 8})
    assert only_row(a, b).verdict == "cannot tell: about 9 items would be needed"


def test_no_difference_at_all_is_answered_for_the_smallest_of_interest(tmp_path: Path):
    # 5 won, 5 lost of 100: s^2 = 10 / 99, and 7.849 * 0.10101 / 0.02^2 + 1.92 = 1984
    a = write_run(tmp_path / "a", {"accuracy": [0] * 5 + [1] * 5 + [1] * 90})
    b = write_run(tmp_path / "b", {"accuracy": [1] * 5 + [0] * 5 + [1] * 90})
    verdict = "cannot tell: about 2,000 items would be needed for a difference of 0.02"
    assert only_row(a, b).verdict == verdict
    assert only_row(a, b, smallest=0.3).verdict == "cannot tell: a difference of 0.3 would probably have shown"
    c = write_run(tmp_path / "c", {"accuracy": [0] * 5 + [1] * 5 + [1] * 90})
    same = only_row(a, c)
    assert same.verdict == "cannot tell: no item differs"
    assert same.p == 1
    assert same.difference.low < 0 < same.difference.high


def test_the_level_is_that_of_the_verdict(tmp_path: Path):
    # 8 won, 1 lost: p = 2 * (1 + 9) / 512 = 0.039
    a = write_run(tmp_path / "a", {"accuracy": [0] * 8 + [1] * 12})
    b = write_run(tmp_path / "b", {"accuracy": [1] * 8 + [0] * 1 + [1] * 11})
    assert only_row(a, b).verdict == "b higher"
    strict = only_row(a, b, level=0.99)
    assert strict.verdict.startswith("cannot tell")
    assert strict.difference.low < only_row(a, b).difference.low


def test_scores_below_zero_are_not_clipped(tmp_path: Path):
    # Both are clipped to 0 on average, and yet every item of b is better
    a = write_run(tmp_path / "a", {"score": [-0.5] * 20})
    b = write_run(tmp_path / "b", {"score": [-0.5 + 0.02 * i for i in range(1, 21)]})
    row = only_row(a, b)
    assert row.a.mean == pytest.approx(-0.5)
    assert row.verdict == "b higher"


# --- pairing -----------------------------------------------------------------------------------------------------


def test_pairs_are_by_id_and_what_one_lacks_is_left_out(tmp_path: Path):
    # q0 is only in a, q5 only in b, q2 has no score in a, q3 none in b: q1 and q4 are paired, of 6
    a = write_run(
        tmp_path / "a",
        {"score": [9.0, 0.1, None, 0.3, 0.4]},
        ids=["q0", "q1", "q2", "q3", "q4"],
        missing={2: {"score": "judge"}},
    )
    b = write_run(
        tmp_path / "b",
        {"score": [7.0, 0.8, math.nan, 0.5, 0.3]},
        ids=["q5", "q4", "q3", "q2", "q1"],
        missing={2: {"score": "judge"}},
    )
    row = only_row(a, b)
    assert (row.difference.items, row.asked) == (2, 6)
    assert row.a.mean == pytest.approx((0.1 + 0.4) / 2)
    assert row.b.mean == pytest.approx((0.3 + 0.8) / 2)
    assert "| 2 of 6 |" in benchmarks_text(compare_benchmarks([a, b]), as_markdown=True)


def test_items_without_a_metric_are_not_missing(tmp_path: Path):
    a = write_run(tmp_path / "a", {"axis:x": [0.1, 0.2, None]})
    b = write_run(tmp_path / "b", {"axis:x": [0.2, 0.2, None]})
    assert only_row(a, b).asked == 2


def test_epochs_of_an_item_are_averaged_over_those_scored(tmp_path: Path):
    a = write_run(tmp_path / "a", {"accuracy": [1, 0, 1, None]}, epochs=2, missing={3: {"accuracy": "timeout"}})
    b = write_run(tmp_path / "b", {"accuracy": [1, 1, 0, 0]}, epochs=2)
    row = only_row(a, b)
    assert row.a.mean == pytest.approx((0.5 + 1) / 2)
    assert row.difference.mean == pytest.approx((0.5 - 1) / 2)
    assert row.difference.items == 2
    assert row.test == "sign_flip"  # items asked twice are no tosses of one coin


def test_weights_and_categories(tmp_path: Path):
    # Two categories of 4 and 20 items that count the same: weights 1/4 and 1/20
    weights, kinds = [1 / 4] * 4 + [1 / 20] * 20, ["few"] * 4 + ["many"] * 20
    x, y = [1, 1, 0, 0] + [0] * 20, [1, 1, 1, 0] + [1] * 10 + [0] * 10
    a = write_run(tmp_path / "a", {"accuracy": x}, weights={"accuracy": weights}, categories=kinds)
    b = write_run(tmp_path / "b", {"accuracy": y}, weights={"accuracy": weights}, categories=kinds)
    row = only_row(a, b, seed=5)
    assert (row.a.mean, row.b.mean) == pytest.approx((0.25, (0.75 + 0.5) / 2))
    assert row.test == "sign_flip"
    d = np.array(y) - np.array(x)
    assert row.p == st.sign_flip(d, weights=weights, seed=5)
    assert row.difference == st.difference_interval(d, weights=weights, strata=kinds, seed=5)
    assert row.a == st.mean_interval(x, [f"q{i:04d}" for i in range(24)], weights=weights, strata=kinds)


def test_a_category_keeps_its_share_where_a_run_lacks_items(tmp_path: Path):
    # Two categories of 50 and 100 items that count the same. A meets all of "x" and none of "y"; B lacks 40 of "y",
    # and what has no reply has no weight either. Means: (1 + 0) / 2, not (50/50 + 0) / (50/50 + 60/100)
    kinds, weights = ["x"] * 50 + ["y"] * 100, [1 / 50] * 50 + [1 / 100] * 100
    lacking = [*range(50, 90)]
    x, y = [1.0] * 50 + [0.0] * 100, [1.0] * 50 + [None] * 40 + [1.0] * 60
    reasons = {i: {"all": "reply: timeout"} for i in lacking}
    known = [None if i in reasons else weight for i, weight in enumerate(weights)]
    a = write_run(tmp_path / "a", {"all": x}, weights={"all": weights}, categories=kinds)
    b = write_run(tmp_path / "b", {"all": y}, weights={"all": known}, categories=kinds, missing=reasons)
    row, back = only_row(a, b), only_row(b, a)
    assert (row.a.mean, row.b.mean, row.difference.mean) == pytest.approx((0.5, 1.0, 0.5))
    assert (row.a_runs, row.b_runs) == (pytest.approx((0.5,)), pytest.approx((1.0,)))
    assert (row.difference.items, row.asked) == (110, 150)
    assert (back.a, back.b, back.p) == (row.b, row.a, row.p)
    # The same of two seeds on both sides
    c, d = (
        write_run(tmp_path / name, {"all": s}, weights={"all": w}, categories=kinds, missing=m)
        for name, s, w, m in (("c", x, weights, {}), ("d", y, known, reasons))
    )
    seeds = only_row(f"A={a},{c}", f"B={b},{d}")
    assert seeds.test == "over_seeds"
    assert (seeds.a.mean, seeds.difference.mean) == pytest.approx((0.5, 0.5))


def test_a_category_of_which_no_item_is_paired(tmp_path: Path):
    kinds, weights = ["x"] * 4 + ["y"] * 2, [1 / 4] * 4 + [1 / 2] * 2
    scores = {"accuracy": [1, 0, 1, 0, 1, 1], "all": [1, 0, 1, 0, 1, 1]}
    lost = {"accuracy": [1, 0, 1, 0, None, None], "all": [1, 0, 1, 0, None, None]}
    reasons = {i: dict.fromkeys(scores, "reply: timeout") for i in (4, 5)}
    a = write_run(tmp_path / "a", scores, weights={"all": weights}, categories=kinds)
    b = write_run(tmp_path / "b", lost, weights={"all": weights}, categories=kinds, missing=reasons)
    accuracy, weighted = compare_benchmarks([a, b]).rows["b"]
    assert accuracy.p == 1.0
    assert (weighted.p, weighted.a.mean, weighted.difference.mean) == (None, None, None)
    assert (weighted.difference.items, weighted.asked) == (4, 6)
    assert weighted.verdict == "cannot tell: no item of category 'y' is scored in all runs"


# --- families ----------------------------------------------------------------------------------------------------


def test_holm_is_over_families_and_over_all_compared_runs(tmp_path: Path):
    def scores(seed: int) -> Table:
        names = ["score", "axis:x", "axis:y", "theme:z", "length", "cost"]
        return {name: rubric(30, 10 * seed + i, 0.05 * seed) for i, name in enumerate(names)}

    found = compare_benchmarks([write_run(tmp_path / name, scores(i)) for i, name in enumerate("abc")])
    assert [row.metric for row in found.rows["b"]] == ["score", "cost", "length", "axis:x", "axis:y", "theme:z"]
    for family in (["score"], ["cost", "length"], ["axis:x", "axis:y"], ["theme:z"]):
        rows = [row for name in "bc" for row in found.rows[name] if row.metric in family]
        assert len(rows) == 2 * len(family)
        assert [row.adjusted for row in rows] == st.holm([row.p for row in rows])


def test_a_metric_that_no_item_has_in_both(tmp_path: Path):
    a = write_run(tmp_path / "a", {"score": rubric(9, 1), "axis:x": [None] * 9}, missing={0: {"axis:x": "judge"}})
    b = write_run(tmp_path / "b", {"score": rubric(9, 2), "axis:x": [0.5] * 9})
    found = compare_benchmarks([a, b])
    row = found.rows["b"][1]
    assert (row.p, row.adjusted, row.difference.mean, row.asked) == (None, None, None, 9)
    assert row.verdict == "cannot tell: no item is scored in all runs"
    assert "| axis:x | - | - | - |  |  | 0 of 9 |" in benchmarks_text(found, as_markdown=True)


# --- training seeds ----------------------------------------------------------------------------------------------


def test_seeds_of_two_methods(tmp_path: Path):
    xs, ys = [rubric(50, seed) for seed in (1, 2)], [rubric(50, seed, 0.4) for seed in (3, 4, 5)]
    a = ",".join(write_run(tmp_path / f"a{i}", {"score": x}) for i, x in enumerate(xs))
    b = ",".join(write_run(tmp_path / f"b{i}", {"score": y}) for i, y in enumerate(ys))
    found = compare_benchmarks([f"GDPO={a}", f"LIFT={b}"])
    (row,) = found.rows["LIFT"]
    expected = st.over_seeds(ys, xs)
    assert row.test == "over_seeds"
    assert (row.p, row.difference) == (pytest.approx(expected.p), expected.interval)
    assert row.a_runs == pytest.approx([sum(x) / 50 for x in xs])
    assert row.b_runs == pytest.approx([sum(y) / 50 for y in ys])
    assert row.verdict == "LIFT higher"
    text = benchmarks_text(found)
    assert f"({row.a_runs[0]:.3f}, {row.a_runs[1]:.3f})" in text
    assert "over training seeds and items" in text
    assert "p is about these checkpoints" not in text


def test_seeds_that_spread_ask_for_more_seeds(tmp_path: Path):
    a = ",".join(write_run(tmp_path / f"a{i}", {"score": rubric(300, i, s)}) for i, s in enumerate((-0.3, 0.3)))
    b = ",".join(write_run(tmp_path / f"b{i}", {"score": rubric(300, 5 + i, s)}) for i, s in enumerate((-0.2, 0.4)))
    assert only_row(f"A={a}", f"B={b}").verdict == "cannot tell: more training seeds would be needed"


def test_several_runs_on_one_side_speak_of_checkpoints(tmp_path: Path):
    xs, y = [rubric(50, seed) for seed in (1, 2)], rubric(50, 3, 0.4)
    a = ",".join(write_run(tmp_path / f"a{i}", {"score": x}) for i, x in enumerate(xs))
    found = compare_benchmarks([f"A={a}", write_run(tmp_path / "b", {"score": y})])
    (row,) = found.rows["b"]
    assert row.test == "sign_flip"
    assert row.p == st.sign_flip(np.array(y) - np.mean(xs, axis=0))
    assert "p is about these checkpoints" in benchmarks_text(found)


# --- output ------------------------------------------------------------------------------------------------------


def test_rounding_is_no_finding(tmp_path: Path):
    # Three equal runs of 0.1 have the mean 0.10000000000000002, which is not higher than 0.1
    a = write_run(tmp_path / "a", {"score": [0.1] * 20})
    b = ",".join(write_run(tmp_path / f"b{i}", {"score": [0.1] * 20}) for i in range(3))
    for row in (only_row(a, f"gdpo={b}"), only_row(f"gdpo={b}", a)):
        assert (row.p, row.difference.mean, row.verdict) == (1.0, 0.0, "cannot tell: no item differs")
    c = ",".join(write_run(tmp_path / f"c{i}", {"score": [0.1] * 20}) for i in range(2))
    row = only_row(f"gdpo={b}", f"lift={c}")
    assert (row.test, row.p, row.verdict) == ("over_seeds", 1.0, "cannot tell: no item differs")
    assert row.a.low is None
    assert json.loads(json.dumps(compare_benchmarks([f"gdpo={b}", f"lift={c}"]).to_json(), allow_nan=False))


def test_accuracies_have_wilsons_interval_and_others_the_bootstrap(tmp_path: Path):
    # Item by item 1, 1/2 or 0 in both: of epochs that are 0/1, or a score's own
    ids = [f"q{i:04d}" for i in range(12)]
    epochs, means = [1, 1, 1, 0, 0, 0] * 4, [1, 0.5, 0] * 4
    a, b = (write_run(tmp_path / name, {"accuracy": epochs}, epochs=2) for name in "ab")
    assert only_row(a, b).a == st.mean_interval(means, ids, binary=True)
    c, d = (write_run(tmp_path / name, {"score": means}) for name in "cd")
    assert only_row(c, d).a == st.mean_interval(means, ids, binary=False) != only_row(a, b).a
    # One run whose scores are all 1 does not make the metric an accuracy
    e = write_run(tmp_path / "e", {"score": [1] * 12})
    row = only_row(e, d)
    assert (row.a, row.test) == (st.Interval(1.0, None, None, 12), "sign_flip")


def test_tables_and_json(tmp_path: Path):
    a = write_run(tmp_path / "a", {"accuracy": [0] * 20 + [1] * 20})
    b = write_run(tmp_path / "b", {"accuracy": [1] * 40}, generation={"max_tokens": 64, "temperature": 0.7})
    found = compare_benchmarks([a, f"lift={b}"])
    head, rule, line = benchmarks_text(found, as_markdown=True).splitlines()[2:5]
    assert head == "| metric | a | lift | difference | p | Holm | paired on | verdict |"
    assert rule == "| --- | --- | --- | --- | --- | --- | --- | --- |"
    assert re.fullmatch(
        r"\| accuracy \| 0\.500 \[0\.\d+, 0\.\d+\] \| 1\.000 \[0\.\d+, 1\.000\] \| \+0\.500 \[\+0\.\d+, \+0\.\d+\] "
        r"\| <0\.001 \| <0\.001 \| 40 of 40 \| lift higher \|",
        line,
    )
    columns = benchmarks_text(found).splitlines()[2:4]
    assert columns[0].index("verdict") == columns[1].index("lift higher")
    assert any("temperature is 0.0" in note and "0.7" in note for note in found.notes)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["baseline"] == "a"
    assert plain["rows"]["lift"][0]["difference"]["mean"] == 0.5
    assert plain["folders"] == {"a": [a], "lift": [b]}


def test_a_folder_may_have_an_equals_sign(tmp_path: Path):
    runs = [write_run(tmp_path / name, {"accuracy": [1, 0]}) for name in ("k=1", "k=2")]
    assert compare_benchmarks(runs).baseline == "k=1"


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.fixture
def a(tmp_path: Path) -> str:
    return write_run(tmp_path / "a", {"accuracy": [1, 0, 1]})


def refused(error: type[Exception], match: str, *runs: str, **options: Any) -> None:
    with pytest.raises(error, match=match):
        compare_benchmarks(runs, **options)


def test_one_checkpoint_is_not_two_seeds(tmp_path: Path, a: str):
    same = {"name": "m", "sha256": "1"}
    b, c, d = (
        write_run(tmp_path / name, {"accuracy": [1, 0, 1]}, model=same | {"sha256": sha})
        for name, sha in (("b", "1"), ("c", "1"), ("d", "2"))
    )
    refused(ConfigError, "twin have the same weights; expected runs of different training seeds", a, f"twin={b},{c}")
    assert compare_benchmarks([a, f"seeds={b},{d}"]).rows
    assert compare_benchmarks([b, c]).rows  # two runs of one model may be compared


def test_arguments_that_cannot_work(tmp_path: Path, a: str):
    b = write_run(tmp_path / "b", {"accuracy": [1, 0, 1]})
    refused(ConfigError, "0 runs to compare")
    refused(ConfigError, "1 runs to compare; expected two or more", a)
    refused(ConfigError, "nowhere is not a folder", a, str(tmp_path / "nowhere"))
    refused(ConfigError, "given twice", a, f"again={a}")
    refused(ConfigError, "names are 'x', 'x'; expected each name once", f"x={a}", f"x={b}")
    refused(ConfigError, "has no name before =; expected NAME=FOLDER. Add a name", a, f"={b}")
    refused(ConfigError, "level is 95", a, b, level=95)
    refused(ConfigError, "smallest is 0; expected a number > 0", a, b, smallest=0)


def test_unfinished_and_unreadable_runs(tmp_path: Path, a: str):
    for name in ("results.json", "items.parquet"):
        b = Path(write_run(tmp_path / f"without {name}", {"accuracy": [1, 0, 1]}))
        (b / name).unlink()
        refused(
            DataError,
            f"has no {name}, so its run is not finished; expected a finished run. Run `rvpo eval …` again",
            a,
            str(b),
        )
        (b / name).write_text("{")
        refused(DataError, "does not have the layout of a run", a, str(b))
    refused(DataError, "version 2; expected 1", a, write_run(tmp_path / "v2", {"accuracy": [1]}, version=2))
    refused(DataError, "KeyError: 'name'", a, write_run(tmp_path / "nameless", {"accuracy": [1]}, model={}))
    b = Path(write_run(tmp_path / "b", {"accuracy": [1, 0, 1]}))
    parquet.write_table(pyarrow.table({"id": ["q"]}), b / "items.parquet")
    refused(DataError, "does not have the layout of a run", a, str(b))


def test_runs_that_are_not_comparable(tmp_path: Path, a: str):
    other = write_run(tmp_path / "other", {"accuracy": [1, 0, 1]}, benchmark="bfcl")
    refused(ConfigError, "run of 'gpqa' and .* of 'bfcl'", a, other)
    judged = {**SETTINGS, "judge": {"model": "another", "temperature": 0.0}}
    b = write_run(tmp_path / "b", {"accuracy": [1, 0, 1]}, settings=judged)
    refused(ConfigError, r"differ in the setting judge\.model: 'grader' and 'another'", a, b)
    c = write_run(tmp_path / "c", {"accuracy": [1, 0, 1]}, settings={**SETTINGS, "limit": 3})
    refused(ConfigError, "differ in the setting limit: None and 3", a, c)


def test_no_common_items(tmp_path: Path, a: str):
    b = write_run(tmp_path / "b", {"accuracy": [1, 0]}, ids=["p1", "p2"])
    refused(DataError, "no item is scored both in 'a' and in another run", a, b)
