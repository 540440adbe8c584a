"""Comparisons of training runs over seeds, by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from compare.training_runs import NAN, completions, curves, rows_of, seeds
from rvpo import statistics as st
from rvpo.cli.compare import compare_command as command
from rvpo.compare.comparison import MEASURES
from rvpo.compare.curves import RunCurves, on_different_scales
from rvpo.compare.tables import trainings_text
from rvpo.compare.trainings import compare_trainings
from rvpo.diagnose.questions import Seen
from rvpo.errors import ConfigError, DataError


def test_pairs_of_six_seeds_by_hand():
    a, b = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.4, 0.6, 0.8, 1.0, 0.9]
    found = compare_trainings({"gdpo": seeds("gdpo", a), "lift": seeds("lift", b)[::-1]})
    row = rows_of(found, "last")["c"]
    assert (row.a, row.b, row.test) == (pytest.approx(a), pytest.approx(b), "paired")
    assert row.difference.mean == pytest.approx(0.3)  # d = 0.1, 0.2, 0.3, 0.4, 0.5, 0.3
    assert (row.difference.items, row.p, row.adjusted) == (6, 2 / 64, 2 / 64)
    assert row.verdict == "lift higher"
    # A line from 0.5 to e has the mean (0.5 + e) / 2, the best max(0.5, e), and loses what it falls
    row = rows_of(found, "auc")["c"]
    assert (row.a, row.b) == (pytest.approx([(0.5 + x) / 2 for x in a]), pytest.approx([(0.5 + x) / 2 for x in b]))
    row = rows_of(found, "drop")["c"]
    assert row.a == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0])
    assert row.b == pytest.approx([0.3, 0.1, 0, 0, 0, 0])
    # d = -0.1, -0.2, -0.2, -0.1 and two pairs that are equal and say nothing: 2 / 2^4
    assert row.p == pytest.approx(2 / 16)
    assert row.verdict.startswith("cannot tell: about ")


def test_the_one_that_drops_more_is_named():
    a, b = [0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.15]
    found = compare_trainings({"a": seeds("a", a), "b": seeds("b", b)}, unpaired=True)
    assert rows_of(found, "drop")["c"].verdict == "b drops more"  # 2 / C(8, 4) = 0.029
    assert rows_of(found, "last")["c"].verdict == "a higher"
    found = compare_trainings({"a": seeds("a", a), "b": seeds("b", b)}, unpaired=True, baseline="b")
    assert found.baseline == "b"
    assert [group.name for group in found.groups] == ["b", "a"]
    assert rows_of(found, "drop")["c"].verdict == "b drops more"


def test_three_seeds_cannot_tell_and_the_verdict_says_how_many_could():
    found = compare_trainings({"a": seeds("a", [0.1, 0.2, 0.3]), "b": seeds("b", [0.8, 0.9, 1.0])}, unpaired=True)
    row = rows_of(found, "last")["c"]
    assert (row.p, row.smallest) == (pytest.approx(0.1), pytest.approx(0.1))
    told = "cannot tell: with 3 runs against 3 no p below 0.1 is possible; at least 4 seeds each"
    assert row.verdict == told
    found = compare_trainings({"a": seeds("a", [0.1, 0.2, 0.3]), "b": seeds("b", [0.8, 0.9, 1.0])})
    told = "cannot tell: with 3 pairs of seeds no p below 0.25 is possible; at least 6 seeds each"
    assert rows_of(found, "last")["c"].verdict == told
    assert any(
        "3 pairs of seeds cannot give a p below 0.25. Unpaired (--unpaired), 3 runs" in note for note in found.notes
    )


def test_pairing_is_by_seed_and_pays_where_seeds_matter():
    ends = [0.1, 0.9, 0.3, 0.6, 0.2, 0.75, 0.5]
    groups = {"a": seeds("a", ends), "b": seeds("b", [x + 0.05 + 0.001 * i for i, x in enumerate(ends)])}
    row = rows_of(compare_trainings(groups), "last")["c"]
    assert (row.test, row.p, row.verdict) == ("paired", 2 / 2**7, "b higher")
    row = rows_of(compare_trainings(groups, unpaired=True), "last")["c"]
    assert row.test == "unpaired"
    assert row.p > 0.5
    assert row.verdict.startswith("cannot tell: more than 100 seeds each")
    shuffled = {"a": groups["a"], "b": [groups["b"][i] for i in (3, 1, 6, 0, 2, 5, 4)]}
    assert rows_of(compare_trainings(shuffled), "last")["c"].p == 2 / 2**7


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({0: None}, "the seed of b-0 is unknown"),
        ({0: 1}, "seed 1 occurs twice, in runs/b-0 and runs/b-1"),
        ({0: 9}, "seeds are 0, 1, 2, 3 and 1, 2, 3, 9"),
    ],
)
def test_without_the_same_seeds_runs_are_not_paired_and_the_notes_say_why(changed: Mapping[int, int | None], why: str):
    b = [replace(run, seed=changed.get(i, i)) for i, run in enumerate(seeds("b", [0.5, 0.6, 0.7, 0.8]))]
    found = compare_trainings({"a": seeds("a", [0.1, 0.2, 0.3, 0.4]), "b": b})
    assert {row.test for row in found.rows} == {"unpaired"}
    assert f"b against a: not paired by seed ({why})." in found.notes


@pytest.mark.parametrize(
    ("count", "why"),
    [
        (3, None),  # neither can tell
        (4, "4 pairs cannot give a p of 0.05, but 4 runs against 4 can"),
        (5, "5 pairs cannot give a p of 0.05, but 5 runs against 5 can"),
        (6, None),
    ],
)
def test_pairs_that_are_too_few_do_not_pair(count: int, why: str | None):
    scores = [0.1 + 0.05 * i for i in range(count)]
    found = compare_trainings({"a": seeds("a", scores), "b": seeds("b", [x + 0.4 for x in scores])})
    assert {row.test for row in found.rows} == {"unpaired" if why else "paired"}
    assert f"b against a: {f'not paired by seed ({why})' if why else 'paired by seed'}." in found.notes


def test_holm_is_over_channels_and_groups_and_the_worst_channel_is_a_family():
    rng = np.random.default_rng(0)

    def group(method: str, shift: float) -> list[RunCurves]:
        return [
            curves(f"{method}-{i}", i, {c: rng.uniform(0, 0.3, 4) + shift * (c == "x") for c in "xyz"})
            for i in range(6)
        ]

    found = compare_trainings(
        {name: group(name, shift) for name, shift in (("a", 0), ("b", 0.6), ("c", 0.1))}, unpaired=True
    )
    for measure in MEASURES:
        rows = [row for row in found.rows if row.measure == measure]
        assert len(rows) == 2 * 4
        for family in ([r for r in rows if r.channel], [r for r in rows if not r.channel]):
            assert [row.adjusted for row in family] == st.holm([row.p for row in family])
    assert rows_of(found, "auc", "b")["x"].verdict == "b higher"  # 6 tests: 6 * 2 / C(12, 6) = 0.013


def test_many_channels_need_more_seeds():
    # 17 tests, 5 against 5: 17 * 2 / 252 = 0.135
    def group(method: str, end: float) -> list[RunCurves]:
        return [curves(f"{method}-{i}", i, {f"c{j}": [0.5, end + 0.01 * i] for j in range(17)}) for i in range(5)]

    row = rows_of(compare_trainings({"a": group("a", 0.1), "b": group("b", 0.8)}, unpaired=True), "last")["c3"]
    told = (
        "cannot tell: with 5 runs against 5 no p below 0.13 is possible after Holm over 17 tests; at least 6 seeds each"
    )
    assert row.verdict == told
    assert row.adjusted == pytest.approx(17 * 2 / 252)


def test_the_worst_channel_is_looked_for_in_every_window():
    runs = [curves(f"a-{i}", i, {"x": [0.9, 0.7, 0.5, 0.1], "y": [0.2, 0.4, 0.6, 0.8]}) for i in range(2)]
    found = compare_trainings({"a": runs, "b": [replace(run, name=f"b-{run.seed}") for run in runs]}, window=1)
    # min: 0.2, 0.4, 0.5, 0.1
    worst = {"first": 0.2, "best": 0.5, "last": 0.1, "auc": 0.3, "drop": 0.4}
    assert found.groups[0].runs[0].worst == pytest.approx(worst)
    assert found.groups[0].runs[0].worst_curve == pytest.approx((0.2, 0.4, 0.5, 0.1))
    wide = compare_trainings({"a": runs, "b": [replace(run, name=f"b-{run.seed}") for run in runs]}, window=2)
    # windows of x: 0.8, 0.6, 0.3, of y: 0.3, 0.5, 0.7; min: 0.3, 0.5, 0.3
    worst = {"first": 0.3, "best": 0.5, "last": 0.3, "auc": 1.1 / 3, "drop": 0.2}
    assert wide.groups[0].runs[0].worst == pytest.approx(worst)
    assert found.rows[0].channel is None
    assert found.rows[0].p == 1
    assert found.rows[0].verdict.startswith("cannot tell: with 2 pairs")


def test_runs_that_are_all_equal_cannot_be_told_apart():
    found = compare_trainings({"a": seeds("a", [0.7] * 4), "b": seeds("b", [0.7] * 4)}, unpaired=True)
    row = rows_of(found, "auc")["c"]
    assert (row.p, row.verdict) == (1, "cannot tell: all runs are equal")
    assert row.effect == st.Interval(None, None, None, 8)


def test_runs_of_other_lengths_are_compared_over_the_steps_that_all_have():
    long = curves("a-0", 0, {"c": [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]})
    short = curves("a-1", 1, {"c": [0.2, 0.4, 0.6]})
    sparse = curves("b-0", 0, {"c": [0.9, 0.5, 0.1]}, steps=[1, 3, 5])
    found = compare_trainings({"a": [long, short], "b": [sparse]})
    assert (found.first, found.last, found.count, found.steps) == (1, 3, 2, (1, 3))
    assert rows_of(found, "last")["c"].a == pytest.approx((0.6, 0.6))  # at step 3, not at the long run's end
    assert rows_of(found, "last")["c"].b == pytest.approx((0.5,))
    told = (
        "Runs differ in their steps, so only the 2 steps from 1 to 3 that all runs have are compared. a-1 has 3, "
        "a-0 has 6."
    )
    assert told in found.notes
    apart = curves("b-0", 0, {"c": [0.5]}, steps=[9])
    with pytest.raises(DataError, match=r"runs/b-0 has steps 9 to 9, runs/a-0 has 1 to 6, and no step is in all runs"):
        compare_trainings({"a": [long], "b": [apart]})


def test_a_channel_that_some_runs_lack_is_missing_and_never_0():
    def run(method: str, seed: int, end: float, **more: Sequence[float]) -> RunCurves:
        return curves(f"{method}-{seed}", seed, {"c": [0.5, end], **more})

    a = [run("a", i, 0.6 + i / 50, extra=[0.1, 0.2 + i / 50]) for i in range(4)] + [run("a", 4, 0.7)]
    b = [run("b", i, 0.6 + i / 50, only_b=[0.1, 0.3]) for i in range(5)]
    found = compare_trainings({"a": a, "b": b, "d": [run("d", i, 0.5, extra=[NAN, 0.9 + i / 50]) for i in range(5)]})
    row = rows_of(found, "last", "b")["extra"]
    assert (row.a, row.b) == (pytest.approx((0.2, 0.22, 0.24, 0.26)), ())
    assert (row.p, row.difference.mean, row.verdict) == (None, None, "missing: no run of b has it")
    assert rows_of(found, "last", "d")["only_b"].verdict == "missing: no run of a and d has it"
    row = rows_of(found, "last", "d")["extra"]  # four of A's runs, five of D's: the seeds that have it differ
    assert (row.test, len(row.a), len(row.b)) == ("unpaired", 4, 5)
    assert row.p == pytest.approx(1 / math.comb(9, 4))
    assert found.groups[0].runs[4].measures["extra"]["auc"] is None
    assert found.groups[0].runs[4].curves["extra"] == (None, None)
    assert rows_of(found, "auc", "d")["extra"].b == pytest.approx([0.9 + i / 50 for i in range(5)])  # not halved
    assert found.worst_of == ("c",)
    assert found.groups[0].runs[0].worst == pytest.approx(found.groups[0].runs[0].measures["c"])
    assert "extra is missing in a-4, b-0, b-1, b-2, b-3, b-4, so its numbers are from the other runs." in found.notes
    assert "The worst channel is one of those in all runs: c." in found.notes


def test_runs_without_a_common_channel_have_no_worst_one():
    found = compare_trainings({"a": seeds("a", [0.1, 0.2]), "b": seeds("b", [0.3, 0.4], "other")})
    assert {row.channel for row in found.rows} == {"c", "other"}
    assert found.groups[0].runs[0].worst is None
    assert "The worst channel is not compared: no channel is in all runs." in found.notes
    assert "c: mean over runs" in trainings_text(found, ("auc",), channels=False)


def test_one_run_a_group_gives_numbers_without_p():
    found = compare_trainings({"a": seeds("a", [0.2]), "b": seeds("b", [0.6]), "c": seeds("c", [0.5, 0.7])})
    row = rows_of(found, "last", "b")["c"]
    assert row.difference == st.Interval(pytest.approx(0.4), None, None, 2)
    assert (row.p, row.adjusted, row.test) == (None, None, "")
    assert row.verdict == "no p: only one run of a and b, so the variation over seeds is unknown"
    assert rows_of(found, "last", "c")["c"].verdict == "no p: only one run of a, so the variation over seeds is unknown"
    assert any(note.startswith("One run of a, b: numbers without p") for note in found.notes)
    assert found.groups[0].curves["c"].std == (None,) * 5


def test_bands_are_over_runs():
    found = compare_trainings({"a": seeds("a", [0.1, 0.3, 0.8]), "b": seeds("b", [0.3, 0.4])}, window=1)
    band = found.groups[0].curves["c"]
    assert (band.mean[-1], band.low[-1], band.high[-1]) == (pytest.approx(0.4), 0.1, 0.8)
    assert band.std[-1] == pytest.approx(np.std([0.1, 0.3, 0.8], ddof=1), abs=1e-6)
    assert band.std[0] == 0
    assert found.groups[0].worst_curve == band  # there is one channel


def test_long_curves_are_thinned_and_keep_their_ends():
    runs = {name: [curves(f"{name}-0", 0, {"c": np.linspace(0, 1, 1001)})] for name in "ab"}
    found = compare_trainings(runs)
    assert (found.window, found.count) == (50, 1001)
    assert len(found.steps) == len(found.groups[0].runs[0].curves["c"]) == 200
    assert (found.steps[0], found.steps[-1]) == (1, 1001)
    # Centred, step 1 is the mean of steps 1 to 25 (0.012), trailing it is itself; inside they lie 24.5 steps apart
    assert found.groups[0].runs[0].curves["c"][0] == pytest.approx(0.012)
    trailing = compare_trainings(runs, trailing=True).groups[0].runs[0]
    assert trailing.curves["c"][0] == 0
    assert trailing.measures == found.groups[0].runs[0].measures


def test_json_is_plain_and_whole():
    a = [curves(f"a-{i}", i, {"c": [0.1, 0.2 + i / 10], "late": [NAN, 0.5]}) for i in range(2)]
    b = [curves(f"b-{i}", i, {"c": [0.1, 0.6 + i / 10]}) for i in range(2)]
    found = compare_trainings({"a": a, "b": b}, notes=["found so"])
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["schema"] == "rvpo.comparison/1"
    assert [group["name"] for group in told["groups"]] == ["a", "b"]
    run = told["groups"][0]["runs"][1]
    assert (run["name"], run["seed"], run["path"], run["curves"]["late"]) == ("a-1", 1, "runs/a-1", [None, 0.5])
    assert set(told["groups"][0]["curves"]["c"]) == {"mean", "low", "high", "std"}
    assert {row["measure"] for row in told["rows"]} == set(MEASURES)
    assert "found so" in told["notes"]
    assert told["scales"] == {"c": [0, 1], "late": [0, 1]}


def test_what_cannot_be_compared_is_refused():
    one = seeds("a", [0.1, 0.2])
    with pytest.raises(ConfigError, match=r"1 group of runs \(a\); expected two or more"):
        compare_trainings({"a": one})
    with pytest.raises(ConfigError, match="baseline is 'x'; expected one of 'a', 'b'"):
        compare_trainings({"a": one, "b": one}, baseline="x")
    with pytest.raises(ConfigError, match="level is 95; expected 0 < level < 1"):
        compare_trainings({"a": one, "b": one}, level=95)
    with pytest.raises(ConfigError, match="window is 6 steps; expected 1 to 5, the number of steps that all runs have"):
        compare_trainings({"a": one, "b": one}, window=6)
    same = [curves("a-0", 0, {"c": [7.0]}, seen={"c": (7.0, 7.0)})]
    with pytest.raises(
        DataError, match=r"no channel can be compared; expected .*c: always 7 and without a declared range"
    ):
        compare_trainings({"a": same, "b": same})


def test_the_command_prints_and_writes(tmp_path: Path):
    for method, end in (("a", 0.3), ("b", 0.8)):
        for seed in range(2):
            completions(tmp_path / "runs" / f"{method}-{seed}", {"right": [0.2, end], "form": [0.5, 0.5]})
    app = typer.Typer()
    app.command()(command)
    told = CliRunner().invoke(
        app,
        [
            *(str(tmp_path / "runs"), "--measure", "last", "--rewards", "right, form", "--baseline", "b"),
            *(
                "--steps",
                ":1",
                "--markdown",
                str(tmp_path / "out" / "c.md"),
                "--json",
                str(tmp_path / "out" / "c.json"),
            ),
        ],
    )
    assert told.exit_code == 0, told.output
    assert "last: a against b" in told.output
    assert "auc: a against b" not in told.output
    assert "### drop: a against b" in (tmp_path / "out" / "c.md").read_text()
    written = json.loads((tmp_path / "out" / "c.json").read_text())
    assert (written["baseline"], written["last"]) == ("b", 1)
    everything = CliRunner().invoke(app, [str(tmp_path / "runs"), "--all"])
    assert "drop: b against a" in everything.output
    assert "form: mean over runs" in everything.output
    failed = CliRunner().invoke(app, [str(tmp_path / "runs"), "--json", str(tmp_path)])
    assert isinstance(failed.exception, ConfigError)
    assert str(failed.exception).startswith(f"{tmp_path} cannot be written")


@pytest.mark.parametrize("hole", [slice(10, None), slice(0, 10), slice(5, 15), slice(0, 20, 2)])
def test_a_channel_is_compared_where_all_runs_scored_it(hole: slice):
    rising = np.linspace(0, 1, 20)

    def run(name: str, seed: int, holes: bool) -> RunCurves:
        values = rising + 0.001 * seed
        if holes:
            values = values.copy()
            values[hole] = NAN
        return curves(name, seed, {"judged": values.tolist(), "other": [0.5 + 0.001 * seed] * 20})

    groups = {"a": [run(f"a-{i}", i, False) for i in range(5)], "b": [run(f"b-{i}", i, True) for i in range(5)]}
    found = compare_trainings(groups)
    for measure in ("auc", "best"):
        row = rows_of(found, measure)["judged"]
        assert row.difference.mean == pytest.approx(0, abs=1e-9), "both groups are equal where both were scored"
        assert row.verdict.startswith("cannot tell")
    assert rows_of(found, "auc")[None].difference.mean == pytest.approx(0, abs=1e-9)
    assert any("judged: best, drop and auc are over the 10 of 20 steps" in note for note in found.notes)
    ends = rows_of(found, "last")["judged"]  # the end is that of the training
    assert ends.verdict == "missing: no run of b has it" if hole == slice(10, None) else ends.p is not None


def test_runs_that_share_few_steps_of_a_channel_count_with_their_own():
    rare = [[0.5 if step % 7 == seed else NAN for step in range(21)] for seed in range(6)]
    runs = [curves(f"r-{seed}", seed, {"rare": rare[seed], "other": [0.5] * 21}) for seed in range(6)]
    found = compare_trainings({"a": runs[:3], "b": runs[3:]})
    assert rows_of(found, "auc")["rare"].a == (0.5,) * 3
    assert any("rare: only 0 of 21 steps were scored in all runs" in note for note in found.notes)


def with_values(name: str, seed: int, low: float, high: float) -> RunCurves:
    values = np.linspace(low, high, 5).tolist()
    shown = {"weighted": Seen(low, high, [low, high], True)}
    return curves(
        name,
        seed,
        {"weighted": values, "other": [0.1 * seed] * 5},
        seen={"weighted": (low, high), "other": (0.0, 1.0)},
        shown=shown,
    )


@pytest.mark.parametrize("values", [(0.0, 2.0), (-1.0, 1.0), (0.0, 100.0)])
def test_a_channel_that_runs_log_on_different_scales_is_not_compared(values: tuple[float, float]):
    a = [with_values(f"a-{i}", i, 0.0, 1.0) for i in range(5)]
    found = compare_trainings({"a": a, "b": [with_values(f"b-{i}", i, *values) for i in range(5)]})
    row = rows_of(found, "auc")["weighted"]
    assert (row.p, row.verdict) == (None, "not compared: the runs log it on different scales")
    assert found.worst_of == ("other",)
    assert any(
        f"weighted: its only rewards are 0 and 1 in a-0, and {values[0]:g} and {values[1]:g} in b-0" in note
        for note in found.notes
    )


@pytest.mark.parametrize(
    ("one", "two", "apart"),
    [
        ((0.0, 0.1), (0.0, float(np.float32(0.1))), False),  # single and double precision
        ((0.0, 1.0), (0.0, 0.3), True),
        ((0.0, 1.0), (1.0, 2.0), True),
        ((0.0, 1.0), (1.0, 1.0), False),  # always met in the second run
    ],
)
def test_two_values_show_the_scale(one: tuple[float, float], two: tuple[float, float], apart: bool):
    runs = [with_values("a", 0, *one), with_values("b", 1, *two)]
    if two[0] == two[1]:
        runs[1] = replace(runs[1], shown={"weighted": Seen(*two, [two[0]], True)})
    assert ("weighted" in on_different_scales(runs)) == apart
    declared = [replace(run, ranges={"weighted": (0.0, 2.0)}) for run in runs]
    assert on_different_scales(declared) == {}


def test_rewards_that_span_more_in_one_run_are_named():
    a = [curves(f"a-{i}", i, {"c": [0.1, 0.9]}) for i in range(3)]
    b = [curves(f"b-{i}", i, {"c": [10.0, 90.0]}, seen={"c": (0.0, 100.0)}) for i in range(3)]
    notes = compare_trainings({"a": a, "b": b}).notes
    assert any("c: rewards reach from 0 to 1 in a-0, and from 0 to 100 in b-" in note for note in notes)


def test_runs_that_are_copies_are_named():
    run = curves("a-0", 0, {"c": [0.1, 0.5, 0.9]})
    others = [curves(f"b-{i}", i, {"c": [0.1, 0.5, 0.8 + 0.01 * i]}) for i in range(2)]
    notes = compare_trainings({"a": [run, replace(run, name="a-1", seed=1)], "b": others}).notes
    assert [note for note in notes if "same rewards at every step" in note] == [
        "a-0 and a-1 have the same rewards at every step. If one is a copy of the other, or the seed has no effect, "
        "remove one of them: p regards them as two independent runs."
    ]
    constant = [curves(f"c-{i}", i, {"c": [0.0, 0.0, 0.0]}) for i in range(2)]
    assert not any("same rewards" in note for note in compare_trainings({"c": constant, "b": others}).notes)
