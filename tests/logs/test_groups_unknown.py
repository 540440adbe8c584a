"""Logs that do not show which rows answer one prompt: every plausible size is tried, or they are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from logs.test_understanding import Row, opened, rows, told
from rvpo.diagnose.diagnose import diagnose
from rvpo.errors import ConfigError, DataError, RVPOError
from rvpo.logs.open import open_run
from rvpo.logs.run import Columns

NO_GROUPS = ("prompt", "advantage")


@pytest.mark.parametrize(
    "change",
    [
        lambda made: [row | {"id": i} for i, row in enumerate(made)],
        lambda made: sorted(made, key=lambda row: -row["step"]),
        lambda made: [row | {"uid": f"{i:x}-{i * 7919 % 997}"} for i, row in enumerate(made)],
        lambda made: [made[i] for i in np.random.default_rng(0).permutation(len(made))],
    ],
    ids=["id per row", "steps backwards", "uid per row", "any order"],
)
def test_sizes_are_tried_within_steps(tmp_path: Path, change: Callable[[list[Row]], list[Row]]):
    batches = list(opened(tmp_path, change(rows()), NO_GROUPS).batches())
    assert [list(batch.groupings) for batch in batches] == [[8, 6, 12, 4, 3, 24, 2]] * 6
    assert all(set(np.bincount(batch.groupings[size]).tolist()) == {size} for batch in batches for size in (8, 3))


def test_sizes_that_disagree_give_none(tmp_path: Path):
    """A reward that differs between prompts and not within: it counts in a whole step, and not in groups of 8."""
    rng = np.random.default_rng(0)
    made = []
    for step in range(15):
        for _ in range(4):
            easy = float(rng.random() < 0.5)
            for _ in range(8):
                good = float(rng.random() < 0.5)
                made.append({"step": step, "reward_good": good, "reward_easy": easy, "reward": good + easy})
    found = diagnose(opened(tmp_path, made), texts=False, resamples=100)
    easy = next(channel for channel in found.channels if "easy" in channel.name)
    assert easy.verdict == "unclear"
    assert "it depends on the group size: dead with groups of 2, 4, 8" in easy.rule
    assert "--group-size" in easy.rule
    named = diagnose(opened(tmp_path, made, columns=Columns(group_size=8)), texts=False, resamples=100)
    assert not any("sizes tried" in str(guess) for guess in named.guesses)


def test_unequal_steps_have_the_sizes_that_divide_them(tmp_path: Path):
    run = opened(tmp_path, rows(range(4), prompts=2) + rows(range(4, 6), prompts=3), NO_GROUPS)
    assert "sizes tried: 2, 4, 8)" in told(run)
    assert list(next(run.batches()).groupings) == [8, 4, 2]


def without_step(made: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key != "step"} for row in made]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (without_step(rows()), r"the step is not known.*A log with one completion per prompt cannot be diagnosed"),
        (rows(range(4), 1, 7) + rows(range(4, 8), 1, 8), "no group size divides the rows of all steps"),
        ([{"n_correct": i % 5, "n_formatted": 8, "i": i} for i in range(40)], "counts of its completions"),
        ([{"correct_count": i % 5, "gold": str(i)} for i in range(40)], "counts of its completions"),
        ([{"num_passed": i % 5, "k": 8, "name": str(i)} for i in range(40)], "counts of its completions"),
        ([{"step": i % 30, "reward": i % 7, "reward_format": i % 3} for i in range(90)], "one row per step"),
        ([{"step": i // 2, "reward": i % 7, "reward_format": i % 3} for i in range(90)], "none shows which rows"),
        ([{"type": "config", "style_prompt": "x"}, *({"step": i, "accuracy": i / 9} for i in range(9))], "per step"),
    ],
)
def test_what_shows_no_groups_is_refused_with_what_to_do(tmp_path: Path, made: list[Row], message: str):
    with pytest.raises((ConfigError, DataError), match=message) as refused:
        opened(tmp_path, made, NO_GROUPS)
    means = "counts" in message or "per step" in message
    assert not (means and "--group-size" in str(refused.value))


@pytest.mark.parametrize("prompt", ["prompt", "question", "prompt_id", "task_id"])
def test_one_completion_per_prompt_is_no_group(tmp_path: Path, prompt: str):
    made = [row | {prompt: f"p{i}"} for i, row in enumerate(rows())]
    run = opened(tmp_path, made, ["advantage"] if prompt == "prompt" else NO_GROUPS)
    with pytest.raises(RVPOError, match="expected several completions per group"):
        diagnose(run, texts=False, resamples=100)


@pytest.mark.parametrize("at", [(0,), (5, 9), (143,)])
def test_few_rows_without_a_step_are_left_out_and_said(tmp_path: Path, at: tuple[int, ...]):
    made = rows()
    for row in at:
        made[row]["step"] = None
    run = opened(tmp_path, made)
    assert f"{len(at)} of 144 rows are left out (they have no step" in told(run)


def test_many_rows_without_a_step_are_refused(tmp_path: Path):
    made = [row | {"step": None if i % 2 else row["step"]} for i, row in enumerate(rows())]
    with pytest.raises(DataError, match=r"72 of 144 rows have no step .*expected one step per completion"):
        opened(tmp_path, made, columns=Columns(step="step"))


@pytest.mark.parametrize("sizes", [(8, 8), (4, 4, 4), (5, 5)])
def test_equal_rewards_with_different_advantages_cut_groups(tmp_path: Path, sizes: tuple[int, ...]):
    made = []
    for block, size in enumerate(sizes):
        rewards = [1.0] * (block + 1) + [0.0] * (size - block - 1)
        made += [{"step": 0, "prompt": "a", "reward": r, "advantage": r - sum(rewards) / size} for r in rewards]
    run = opened(tmp_path, made)
    assert [n for batch in run.batches() for n in np.bincount(batch.groups).tolist()] == list(sizes)
    assert any("so that equal rewards have equal advantages in a group" in note for note in run.notes)


@pytest.mark.parametrize("name", ["output", "answer", "info.task.outputs", "completion"])
def test_expected_outputs_are_no_completions(tmp_path: Path, name: str):
    made = [{**row, name: f"expected {row['prompt']}"} for row in rows()]
    if name != "completion":
        made = [{key: value for key, value in row.items() if key != "completion"} for row in made]
    found = diagnose(opened(tmp_path, made), resamples=100)
    assert "noisy" not in {channel.verdict for channel in found.channels}
    assert any(f"{name!r} does not contain the completions" in note for note in found.notes)


def test_the_next_column_holds_the_completions(tmp_path: Path):
    made = [row | {"output": row["completion"], "completion": row["prompt"]} for row in rows()]
    batch = next(opened(tmp_path, made).batches(texts=True))
    assert batch.texts.completions[0] == "0 0 0 0"


@pytest.mark.parametrize("total", ["reward", "total_score", "details.total_score"])
def test_a_total_that_most_rows_lack_is_not_used(tmp_path: Path, total: str):
    made = [{**row, total: row["reward"] if i % 3 == 0 else None} for i, row in enumerate(rows())]
    made = [row if total == "reward" else {k: v for k, v in row.items() if k != "reward"} for row in made]
    run = opened(tmp_path, made, ["advantage"])
    assert f"the total {total!r} is not used (96 of 144 rows do not have it" in told(run)
    assert next(run.batches()).totals is None


@pytest.mark.parametrize("constant", ["format_reward", "xml_score", "reward_tags"])
def test_rewards_by_name_that_never_vary_are_kept(tmp_path: Path, constant: str):
    made = [
        {"step": row["step"], "prompt": row["prompt"], "reward_good": 0.0, constant: 0.0, "tool_reward": 1.0}
        for row in rows()
    ]
    run = opened(tmp_path, made)
    assert len(run.channels) == 3
    twice = [row | {"metrics": {constant: row[constant]}} for row in made]
    assert len(opened(tmp_path, twice).channels) == 3


def test_an_object_that_some_rows_lack_is_no_reward(tmp_path: Path):
    made = [row | {"reward_info": None if i % 3 else {"note": "x"}} for i, row in enumerate(rows())]
    assert "reward_info" not in opened(tmp_path, made).channels


@pytest.mark.parametrize("wrapped", ["simulations", "runs_of_it", "episodes"])
def test_the_list_with_scores_holds_the_rows(tmp_path: Path, wrapped: str):
    tasks = [{"id": i, "purpose": "x"} for i in range(200)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"tasks": tasks, "info": {}, wrapped: rows()}))
    assert "good" in open_run(path).channels


@pytest.mark.parametrize("huge", [1e308, -1.7e308, 1e200])
def test_huge_numbers_overflow_nothing(tmp_path: Path, huge: float, recwarn: pytest.WarningsRecorder):
    made = rows()
    for i, column in enumerate(("good", "fine", "reward", "advantage", "idle")):
        made[7 * i + 3][column] = huge
        made[7 * i + 4]["good"] = -huge
    for without in ([], ["advantage"], ["reward", "advantage"], list(NO_GROUPS)):
        try:
            diagnose(opened(tmp_path, made, without), texts=False, resamples=100)
        except RVPOError:
            continue
    assert not [str(w.message) for w in recwarn if "overflow" in str(w.message) and "tables" in str(w.filename)]
