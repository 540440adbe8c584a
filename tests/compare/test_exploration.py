"""What runs explore is compared by one notion of a solved question, with tests, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rvpo.compare.curves import RunCurves, read_curves
from rvpo.compare.tables import trainings_text
from rvpo.compare.trainings import compare_trainings
from rvpo.errors import ConfigError
from rvpo.logs.run import LoggedBatch, Run

STEPS = 12


def training(
    folder: Path, seed: int, chance: float, *, channels: Sequence[str] = ("right",), size: int = 4, high: float = 1.0
) -> RunCurves:
    """Read a run in which each completion meets each channel with probability ``chance``; else it has 0."""
    rng = np.random.default_rng([seed, int(chance * 100)])
    shape = (STEPS, 8 * size, len(channels))
    rewards = torch.tensor(np.where(rng.random(shape) < chance, high, 0.0))
    batches = [
        LoggedBatch(step, rows, torch.arange(8 * size) // size, torch.arange(len(channels)))
        for step, rows in enumerate(rewards, 1)
    ]
    run = Run(folder, "table", tuple(channels), tuple(range(1, STEPS + 1)), lambda texts: iter(batches))
    return replace(read_curves(run), seed=seed)


def groups_of(folder: Path, **given: Mapping[str, object]) -> dict[str, list[RunCurves]]:
    """Four seeds of a method that solves little and of one that solves much; options by method."""
    return {
        name: [training(folder, seed, chance, **given.get(name, {})) for seed in range(6)]  # type: ignore[arg-type]
        for name, chance in (("low", 0.2), ("high", 0.6))
    }


def test_shares_and_pass_at_k_are_tested(tmp_path: Path):
    found = compare_trainings(groups_of(tmp_path))
    rows = {(row.channel, row.measure): row for row in found.exploration}
    names = ["solved by none", "solved by some", "solved by all", "pass@1", "pass@2", "pass@4"]
    assert {channel for channel, _ in rows} == set(names)
    auc = rows["pass@1", "auc"]
    assert auc.difference.mean == pytest.approx(0.4, abs=0.1)
    assert auc.test == "paired"
    assert auc.adjusted is not None
    assert auc.adjusted >= auc.p
    assert rows["solved by none", "auc"].difference.mean < 0
    by_hand = np.mean(auc.a)
    assert by_hand == pytest.approx(np.mean([run.of("right")["auc"] for run in found.groups[0].runs]))  # of 0 and 1
    text = trainings_text(found, ("auc",))
    assert "exploration, auc: high against low" in text
    assert "meets right" in text
    assert json.dumps(found.to_json(), allow_nan=False)


def test_shares_of_groups_of_different_sizes_are_left_out(tmp_path: Path):
    found = compare_trainings(groups_of(tmp_path, high={"size": 8}))
    assert {row.channel for row in found.exploration} == {"pass@1", "pass@2", "pass@4"}
    assert any("Groups have 4 and 8 completions" in note for note in found.notes)


def changed(run: RunCurves, change: Callable[[LoggedBatch], LoggedBatch]) -> RunCurves:
    batches = [change(batch) for batch in run.run.batches()]
    return replace(read_curves(replace(run.run, read=lambda texts: iter(batches))), seed=run.seed)


def fewer(batch: LoggedBatch) -> LoggedBatch:
    """Every second completion, in the second half of the steps."""
    return batch if batch.step <= STEPS / 2 else batch.rows(torch.arange(0, len(batch.rewards), 2))


def unscored(batch: LoggedBatch) -> LoggedBatch:
    """The same completions without rewards."""
    kept = np.arange(len(batch.rewards))[:, None] % 2 == 0
    return batch if batch.step <= STEPS / 2 else replace(batch, rewards=np.where(kept, batch.rewards, np.nan))


@pytest.mark.parametrize("change", [fewer, unscored])
def test_groups_that_shrink_are_compared_where_they_have_not(
    tmp_path: Path, change: Callable[[LoggedBatch], LoggedBatch]
):
    groups = groups_of(tmp_path)
    groups["high"] = [changed(run, change) for run in groups["high"]]
    found = compare_trainings(groups)
    assert {row.channel for row in found.exploration} == {"pass@1", "pass@2", "pass@4"}
    notes = " ".join(found.notes)
    assert "Questions have 3.0 to 4.0 scored completions on average" in notes
    assert f"enough scored completions: pass@4 at {STEPS // 2}." in notes


def test_guessed_groups_are_not_compared(tmp_path: Path):
    groups = groups_of(tmp_path)
    groups["low"] = [changed(run, lambda b: replace(b, groupings={4: b.groups, 2: b.groups})) for run in groups["low"]]
    found = compare_trainings(groups)
    assert not found.exploration
    assert any("the groups of completions are a guess" in note for note in found.notes)


@pytest.mark.parametrize("other", [("right",), ("other", "right"), ("right", "a", "b")])
def test_channels_that_not_all_runs_have_do_not_count(tmp_path: Path, other: tuple[str, ...]):
    found = compare_trainings(groups_of(tmp_path, low={"channels": ("right", "more")}, high={"channels": other}))
    [auc] = [row for row in found.exploration if (row.channel, row.measure) == ("pass@1", "auc")]
    assert auc.difference.mean == pytest.approx(0.4, abs=0.1)
    assert any("more" in note and "is not counted there" in note for note in found.notes)


@pytest.mark.parametrize("name", ["rigth", "more", "right/"])
def test_a_channel_that_not_all_runs_have_cannot_be_named(tmp_path: Path, name: str):
    groups = groups_of(tmp_path, low={"channels": ("right", "more")})
    with pytest.raises(ConfigError, match=f"--solved names the channel '{name}', which not all runs have"):
        compare_trainings(groups, solved=["right", name])
    said = {
        key: [replace(one, run=replace(one.run, solved=("right", name))) for one in runs]
        for key, runs in groups.items()
    }
    found = compare_trainings(said)
    assert not found.exploration
    assert any(f"not all runs have the channel {name}" in note for note in found.notes)


def test_one_run_shows_what_meets_a_channel_in_all_of_them(tmp_path: Path):
    groups = groups_of(tmp_path, low={"high": 5.0}, high={"high": 5.0})
    groups["never"] = [training(tmp_path, seed, 0.0, high=5.0) for seed in range(6)]  # by itself, 0 could be the goal
    rows = [row for row in compare_trainings(groups).exploration if row.channel == "pass@4"]
    assert {row.b for row in rows if row.group == "never"} == {(0.0,) * 6}


def test_no_line_no_numbers(tmp_path: Path):
    groups = groups_of(tmp_path)
    graded = [training(tmp_path, seed, 0.5, high=7.5 + seed) for seed in range(6)]
    found = compare_trainings({**groups, "graded": graded})
    assert found.exploration == ()
    assert any(
        "Solved questions are not compared: it is not known which rewards of right" in note for note in found.notes
    )


def test_what_is_solved_can_be_named(tmp_path: Path):
    groups = groups_of(tmp_path, low={"channels": ("right", "style")}, high={"channels": ("right", "style")})
    both = {row.channel: row for row in compare_trainings(groups).exploration if row.measure == "auc"}
    one = {r.channel: r for r in compare_trainings(groups, solved=("right",)).exploration if r.measure == "auc"}
    assert np.mean(both["pass@1"].b) == pytest.approx(0.36, abs=0.06)
    assert np.mean(one["pass@1"].b) == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize("logged", [(0, 1), (0,)])
def test_entropy_is_compared_where_all_runs_logged_it(tmp_path: Path, logged: tuple[int, ...]):
    groups = {}
    for i, name in enumerate(("low", "high")):
        groups[name] = []
        for seed in range(4):
            folder = tmp_path / name / str(seed)
            (folder / "channels").mkdir(parents=True)
            if i in logged:
                entries = [json.dumps({"step": step, "entropy": 1.0 + i}) for step in range(2, STEPS + 1, 2)]
                (folder / "metrics.jsonl").write_text("\n".join(entries))
            groups[name].append(training(folder, seed, 0.5))
    found = compare_trainings(groups)
    rows = [row for row in found.exploration if row.channel == "entropy"]
    assert [row.difference.mean for row in rows] == ([1.0, 1.0] if logged == (0, 1) else [])
    assert any("Entropy is not compared" in note for note in found.notes) == (logged == (0,))
