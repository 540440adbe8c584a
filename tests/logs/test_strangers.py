"""Logs of strangers with a known truth: a value, a column or an order that may be misread is read right or reported."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logs.layouts.writers import REWARDS, WEIGHTS, delimited, jsonl, truth
from rvpo.diagnose.diagnose import diagnose
from rvpo.errors import ConfigError, DataError
from rvpo.logs.open import open_run
from rvpo.logs.run import Run

Row = dict[str, Any]
STEPS, PROMPTS, SIZE = 6, 3, 8
ROWS = truth(STEPS, PROMPTS, SIZE)


def flat(row: Row, **more: Any) -> Row:
    return {name: row[name] for name in ("step", "prompt", "completion", *REWARDS)} | more


def number_of_prompt(row: Row) -> int:
    return int(row["group"].split("-")[1])


def opened(folder: Path, rows: Sequence[Row]) -> Run:
    return open_run(jsonl(folder / "run.jsonl", rows))


def groups(run: Run) -> list[int]:
    return [size for batch in run.batches() for size in np.bincount(batch.groups).tolist()]


def column(run: Run, name: str) -> list[float]:
    j = run.channels.index(name)
    return [value for batch in run.batches() for value in batch.rewards[:, j].tolist()]


def told(run: Run) -> str:
    return "; ".join(map(str, run.guesses))


# Names of columns


@pytest.mark.parametrize(
    "names", [("准确率", "有用", "格式"), ("Правильность", "стиль", "формат"), ("qualité", "sûreté", "forme")]
)
@pytest.mark.parametrize("inside", [True, False])
def test_names_in_any_alphabet_are_rewards(tmp_path: Path, names: tuple[str, ...], inside: bool):
    rows = []
    for row in ROWS:
        rewards = dict(zip(names, (row["correct"], row["helpful"], row["format"]), strict=True))
        rows.append({"step": row["step"], "prompt": row["prompt"], **({"rewards": rewards} if inside else rewards)})
    assert opened(tmp_path, rows).channels == names


def test_a_point_in_a_version_does_not_end_the_name_of_an_object(tmp_path: Path):
    names = {"reward_format": "format", "reward_gpt4.1": "helpful", "reward_llama-3.1": "correct"}
    rows = [{"step": r["step"], "prompt": r["prompt"], **{k: r[v] for k, v in names.items()}} for r in ROWS]
    assert opened(tmp_path, rows).channels == ("format", "gpt4.1", "llama-3.1")


@pytest.mark.parametrize("name", ["reward_raw", "raw_score", "reward_clipped", "normalized_reward", "reward_rm"])
def test_another_form_of_the_total_takes_no_part_of_it(tmp_path: Path, name: str):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "reward": r["total"], name: r["total"]}
        | {f"reward_{reward}": r[reward] for reward in REWARDS}
        for r in ROWS
    ]
    run = opened(tmp_path, rows)
    assert run.channels == REWARDS
    assert next(run.batches()).weights.tolist() == pytest.approx(list(WEIGHTS.values()), abs=1e-3)


@pytest.mark.parametrize("form", ["reward_{}", "{}_reward", "{}"])
def test_a_reward_that_was_never_scored_hides_no_others(tmp_path: Path, form: str):
    rows = []
    for row in ROWS:
        rewards = {form.format(name): row[name] for name in REWARDS}
        rows.append({"step": row["step"], "prompt": row["prompt"], "rewards/style": None, **rewards})
    run = opened(tmp_path, rows)
    [unscored] = [name for name in run.channels if "style" in name]
    assert np.isnan(column(run, unscored)).all()
    found = {tuple(column(run, name)) for name in run.channels if name != unscored}
    assert found == {tuple(row[name] for row in ROWS) for name in REWARDS}


TRANSFORMED: dict[str, Callable[[float], float]] = {
    "reward_{}_scaled": lambda value: 3 * value,
    "raw_reward_{}": lambda value: 7 * value - 1,
    "reward_{}_clipped": lambda value: min(value, 0.6),
    "{}_reward_shifted": lambda value: value + 5,
}


@pytest.mark.parametrize("form", TRANSFORMED)
def test_another_form_of_a_reward_is_counted_once(tmp_path: Path, form: str):
    plain = {name: f"reward_{name}" for name in REWARDS}
    rows = []
    for row in ROWS:
        rewards = {plain[name]: row[name] for name in REWARDS} | {
            form.format("helpful"): TRANSFORMED[form](row["helpful"])
        }
        rows.append({"step": row["step"], "prompt": row["prompt"], **rewards})
    run = opened(tmp_path, rows)
    assert run.channels == tuple(REWARDS)
    if form.startswith("reward"):  # the names of the others are not those of rewards
        assert repr(form.format("helpful")) in told(run)
    assert column(run, "helpful") == [row["helpful"] for row in ROWS]


def test_a_reward_whose_name_is_that_of_a_form_is_kept_with_values_of_its_own(tmp_path: Path):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "reward_helpful": r["helpful"], "reward_final_helpful": r["correct"]}
        for r in ROWS
    ]
    assert opened(tmp_path, rows).channels == ("helpful", "final_helpful")


@pytest.mark.parametrize("names", ["weighted_rewards/{}", "reward_{}_weighted", "weighted_reward_{}"])
def test_weighted_columns_show_the_weights(tmp_path: Path, names: str):
    weights = dict(zip(REWARDS, (2.0, 0.5, 0.25), strict=False))
    rows = []
    for row in ROWS:
        plain = {f"rewards/{name}": row[name] for name in weights}
        weighted = {names.format(name): weight * row[name] for name, weight in weights.items()}
        rows.append({"step": row["step"], "prompt": row["prompt"], **plain, **weighted})
    run = opened(tmp_path, rows)
    assert run.channels == tuple(weights)
    for batch in run.batches():
        assert batch.weights is not None
        np.testing.assert_allclose(batch.weights, list(weights.values()))


def test_one_column_that_gives_the_total_alone_is_reported(tmp_path: Path):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "reward": min(r["total"], 2.0), "reward_rm": min(r["total"], 2.0)}
        | {f"reward_{reward}": r[reward] for reward in REWARDS}
        for r in ROWS
    ]
    assert "'reward_rm' is a reward (this column alone gives the total" in told(opened(tmp_path, rows))


@pytest.mark.parametrize("name", ["latency", "num_turns", "test_time"])
def test_a_name_of_a_time_in_an_object_of_rewards_is_reported(tmp_path: Path, name: str):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "rewards": {"accuracy": r["correct"], name: r["helpful"]}}
        for r in ROWS
    ]
    assert f"'rewards.{name}' is left out" in told(opened(tmp_path, rows))


def test_flags_whose_names_say_nothing_are_reported(tmp_path: Path):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "accuracy": r["helpful"], "json_ok": bool(r["format"])} for r in ROWS
    ]
    assert "json_ok left out" in told(opened(tmp_path, rows))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", lambda i: i),
        ("", lambda i: i % SIZE),
        ("Unnamed: 0", lambda i: i % SIZE),
        ("sample", lambda i: i % SIZE),
        ("wall", lambda i: 0.25 * i),
    ],
)
@pytest.mark.parametrize("total", [True, False])
def test_what_numbers_rows_is_no_reward(tmp_path: Path, name: str, value: Callable[[int], float], total: bool):
    rows = [{name: value(i)} | flat(r) | ({"reward": r["total"]} if total else {}) for i, r in enumerate(ROWS)]
    run = open_run(delimited(tmp_path / "run.csv", rows))
    assert run.channels == REWARDS
    assert "not treated as a reward" in told(run)


def test_empty_names_are_rewards_with_a_name(tmp_path: Path):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "rewards": {"": r["correct"], " ": r["helpful"], "a": r["safety"]}}
        for r in ROWS
    ]
    assert opened(tmp_path, rows).channels == ("(empty)", "(empty) (2)", "a")


# Values


@pytest.mark.parametrize("said", ["{:.1%}", "{:.3f}!", "0,{:.0f}"])
def test_a_marked_reward_in_texts_is_reported(tmp_path: Path, said: str):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "reward_a": r["correct"], "reward_b": said.format(r["helpful"])}
        for r in ROWS
    ]
    run = opened(tmp_path, rows)
    assert run.channels == ("a",) if "!" not in said else True
    if "!" not in said:
        assert "'reward_b' is left out (its name is that of a reward, but it has texts, such as '" in told(run)


@pytest.mark.parametrize("name", ["format", "accuracy", "safety", "helpfulness"])
@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_reward_that_was_never_scored_is_reported(tmp_path: Path, name: str, nothing: float | None):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "correct": r["correct"], name: nothing, "error": None} for r in ROWS
    ]
    run = opened(tmp_path, rows)
    assert run.channels == ("correct",)
    assert f"'{name}' is left out (its name is that of a reward, but no row has a value" in told(run)
    assert "'error'" not in told(run)


@pytest.mark.parametrize("name", ["reward_b", "format_reward"])
def test_a_marked_reward_that_was_never_scored_is_a_channel(tmp_path: Path, name: str):
    rows = [{"step": r["step"], "prompt": r["prompt"], "reward_a": r["helpful"], name: None} for r in ROWS]
    assert len(opened(tmp_path, rows).channels) == 2


@pytest.mark.parametrize("words", [("yes", "no"), ("PASS", "FAIL"), ("correct", "wrong")])
def test_a_marked_reward_in_words_is_reported(tmp_path: Path, words: tuple[str, str]):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "reward_a": r["helpful"], "reward_b": words[int(r["correct"])]}
        for r in ROWS
    ]
    assert "'reward_b' is left out" in told(opened(tmp_path, rows))


def test_commas_between_thousands_are_not_decimal_commas(tmp_path: Path):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "reward_a": f"{r['correct']:.1f}"}
        | {"reward_b": f"{1000 + 9000 * r['helpful']:,.0f}"}
        for r in ROWS
    ]
    with pytest.raises(DataError, match="a comma may separate decimals or thousands"):
        open_run(delimited(tmp_path / "run.csv", rows, ";"))


@pytest.mark.parametrize("quoted", [(9,), (9, 17), (143,)], ids=["one", "two", "last"])
def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path: Path, quoted: tuple[int, ...]):
    lines = ["step,prompt,correct,helpful,completion"]
    for i, r in enumerate(ROWS):
        text = f'"{r["completion"]}' if i in quoted else r["completion"]
        lines.append(f"{r['step']},{r['prompt']},{r['correct']},{r['helpful']},{text}")
    (tmp_path / "run.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="expected CSV with every quote closed"):
        open_run(tmp_path / "run.csv")


@pytest.mark.parametrize("mark", [-999, -99, 9999])
@pytest.mark.parametrize("named", ["reward_{}", "rewards/{}"])
def test_a_mark_of_missing_rewards_is_refused(tmp_path: Path, mark: int, named: str):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], named.format("a"): r["correct"]}
        | {named.format("b"): mark if i % 40 == 0 else r["helpful"]}
        for i, r in enumerate(ROWS)
    ]
    with pytest.raises(DataError, match=f"is {mark:g} in 4 of 144 rows, and 0.* to 1 in all others; expected null"):
        opened(tmp_path, rows)


def test_minus_one_among_fractions_is_reported(tmp_path: Path):
    rows = [flat(r) | ({"helpful": -1} if i % 40 == 0 else {}) for i, r in enumerate(ROWS)]
    run = opened(tmp_path, rows)
    assert "-1 is a reward of 'helpful', not a missing one" in told(run)
    grades = [flat(r) | {"helpful": float(i % 3 - 1)} for i, r in enumerate(ROWS)]
    assert "a missing one" not in told(opened(tmp_path, grades))


def test_an_infinite_reward_without_a_mark_is_named(tmp_path: Path):
    rows = [flat(r) | ({"helpful": float("inf")} if i == 3 else {}) for i, r in enumerate(ROWS)]
    with pytest.raises(DataError, match="channel 'helpful' has the reward inf"):
        diagnose(opened(tmp_path, rows), resamples=100)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e12])
def test_the_highest_reward_is_found_on_every_scale(tmp_path: Path, scale: float):
    rows = [
        flat(r, advantage=r["advantage"]) | {name: r[name] * scale for name in REWARDS}
        for r in truth(12, PROMPTS, SIZE)
    ]
    found = diagnose(opened(tmp_path, rows), texts=False, resamples=100)
    assert {channel.name: channel.verdict == "saturated" for channel in found.channels} == dict.fromkeys(REWARDS, False)


@pytest.mark.parametrize(
    "weights", [{"reward_weights": WEIGHTS}, {f"{name}_weight": WEIGHTS[name] for name in REWARDS}]
)
def test_weights_in_columns_are_used(tmp_path: Path, weights: Row):
    rows = [
        {"step": r["step"], "prompt": r["prompt"], "rewards": {name: r[name] for name in REWARDS}, **weights}
        for r in ROWS
    ]
    assert next(opened(tmp_path, rows).batches()).weights.tolist() == list(WEIGHTS.values())


def test_a_list_of_names_names_the_rewards_of_its_row(tmp_path: Path):
    rng, rows = random.Random(0), []
    for r in ROWS:
        names = rng.sample(REWARDS, len(REWARDS))
        rows.append({"step": r["step"], "prompt": r["prompt"], "reward_names": names, "rewards": [r[n] for n in names]})
    run = opened(tmp_path, rows)
    assert {name: column(run, name) for name in REWARDS} == {name: [r[name] for r in ROWS] for name in REWARDS}


def test_a_list_of_scores_that_lacks_one_is_refused(tmp_path: Path):
    info = {"correct": [r["correct"] for r in ROWS[:8]], "helpful": [r["helpful"] for r in ROWS[:7]]}
    record = {"prompt": "p", "output": [r["completion"] for r in ROWS[:8]], "reward_extra_info": info}
    with pytest.raises(DataError, match=r"reward_extra_info.helpful has 7 items, but 'output' has 8"):
        opened(tmp_path, [record] * 4)


# Evaluations, runs and steps


@pytest.mark.parametrize(
    ("name", "train", "evaluated"),
    [
        ("split", None, "eval"),
        ("mode", "rl", "eval"),
        ("split", "train", "eval_gsm8k"),
        ("split", "math/train", "math/test"),
        ("is_validation", False, True),
        ("training", True, False),
        ("info.is_eval", 0, 1),
    ],
)
def test_evaluations_under_other_names_are_left_out(tmp_path: Path, name: str, train: Any, evaluated: Any):
    tests = [flat(r, **{name: evaluated}) | {"prompt": f"Test {r['prompt']}", "correct": 1.0} for r in ROWS[::2]]
    run = opened(tmp_path, [flat(r, **{name: train}) for r in ROWS] + tests)
    assert column(run, "correct") == [r["correct"] for r in ROWS]
    assert "72 rows of an evaluation" in "; ".join((*run.notes, told(run)))


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("count", [2, 8])
def test_runs_one_after_another_share_no_group(tmp_path: Path, files: bool, count: int):
    runs = [[flat(r) for r in truth(STEPS, PROMPTS, SIZE, seed)] for seed in range(count)]
    for seed, rows in enumerate(runs if files else [list(chain(*runs))]):
        jsonl(tmp_path / f"seed{seed}.jsonl", rows)
    run = open_run(tmp_path)
    assert groups(run) == [SIZE] * (count * STEPS * PROMPTS)
    assert "logged more than once" in told(run)


def test_steps_that_start_again_in_every_epoch_are_different_steps(tmp_path: Path):
    rows = [flat(r, epoch=epoch) for epoch in range(12) for r in truth(3, PROMPTS, SIZE, epoch)]
    run = opened(tmp_path, rows)
    assert len(run.steps) == 36
    assert groups(run) == [SIZE] * (36 * PROMPTS)
    assert "the steps of all epochs" in told(run)


def test_a_step_of_an_episode_is_not_the_step_of_the_training(tmp_path: Path):
    rows = [
        flat(r, global_step=r["step"]) | {"step": i % 2, "prompt": f"Question {number_of_prompt(r)}"}
        for i, r in enumerate(ROWS)
    ]
    run = opened(tmp_path, rows)
    assert run.steps == tuple(range(1, STEPS + 1))
    assert "steps are from column 'global_step', not 'step'" in told(run)


@pytest.mark.parametrize("step", ["step_{}", "2026-01-0{}", "{},000"])
def test_steps_in_texts_are_reported(tmp_path: Path, step: str):
    run = opened(tmp_path, [flat(r) | {"step": step.format(r["step"])} for r in ROWS])
    assert "the column 'step' is not used as the step (it has texts, such as '" in told(run)


def test_without_steps_epochs_are_the_steps(tmp_path: Path):
    rows = [flat(r, epoch=r["step"]) | {"prompt": f"Question {number_of_prompt(r)}"} for r in ROWS]
    run = opened(tmp_path, [{key: value for key, value in row.items() if key != "step"} for row in rows])
    assert len(run.steps) == STEPS
    assert groups(run) == [SIZE] * (STEPS * PROMPTS)


# Groups


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_number_their_own_prompts_share_no_group(tmp_path: Path, text: bool, count: int):
    for rank in range(count):
        jsonl(
            tmp_path / f"rank_{rank}.jsonl",
            [
                {"step": r["step"], "prompt_idx": number_of_prompt(r), **{name: r[name] for name in REWARDS}}
                | ({"prompt": f"{rank} {r['prompt']}"} if text else {})
                for r in truth(STEPS, PROMPTS, SIZE, rank)
            ],
        )
    run = open_run(tmp_path)
    assert sorted(groups(run)) == [SIZE] * (count * STEPS * PROMPTS)
    assert text or "no group has rows from several files" in told(run)


@pytest.mark.parametrize("name", ["prompt", "prompt_id"])
def test_processes_that_share_the_completions_of_a_prompt_share_its_group(tmp_path: Path, name: str):
    for rank in range(SIZE):
        part = [{"step": r["step"], name: r["group"], **{n: r[n] for n in REWARDS}} for r in ROWS[rank::SIZE]]
        jsonl(tmp_path / f"proc-{rank}.jsonl", part)
    assert groups(open_run(tmp_path)) == [SIZE] * (STEPS * PROMPTS)


@pytest.mark.parametrize(
    ("name", "value"), [("group", lambda r: "exp1"), ("task_id", lambda r: "math" if number_of_prompt(r) else "code")]
)
@pytest.mark.parametrize("prompt", ["prompt_id", "prompt_idx", "prompt"])
def test_the_name_of_an_experiment_or_a_task_is_no_group(
    tmp_path: Path, name: str, value: Callable[[Row], str], prompt: str
):
    rows = [
        {"step": r["step"], name: value(r), prompt: r["group"], **{reward: r[reward] for reward in REWARDS}}
        for r in ROWS
    ]
    assert groups(opened(tmp_path, rows)) == [SIZE] * (STEPS * PROMPTS)


def test_minus_one_is_no_id(tmp_path: Path):
    rows = [
        {"step": r["step"], "prompt_id": -1 if i % 20 == 0 else i // SIZE, "reward_a": r["correct"]}
        for i, r in enumerate(ROWS)
    ]
    with pytest.raises(DataError, match=r"the group .* is null or -1; expected an id"):
        opened(tmp_path, rows)


def test_one_text_for_all_prompts_is_reported(tmp_path: Path):
    run = opened(tmp_path, [flat(r) | {"prompt": "You are a helpful…"} for r in ROWS])
    assert "each step is one group (all rows have the same 'prompt'" in told(run)


def test_a_column_of_the_log_named_line_is_not_the_line(tmp_path: Path):
    rows = []
    for start in range(0, len(ROWS), SIZE):
        part = ROWS[start : start + SIZE]
        rewards = {name: [r[name] for r in part] for name in REWARDS}
        completions = [r["completion"] for r in part]
        rows.append(
            {"step": part[0]["step"], "line": 7, "prompt": part[0]["prompt"], "completions": completions}
            | {"rewards": rewards}
        )
    assert groups(opened(tmp_path, rows)) == [SIZE] * (STEPS * PROMPTS)


# One JSON object with several lists


def lists(rows: Sequence[Row], key: Callable[[Row], str], *without: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append({k: v for k, v in flat(row).items() if k not in without})
    return found


def document(folder: Path, value: Any) -> Run:
    (folder / "run.json").write_text(json.dumps(value))
    return open_run(folder / "run.json")


@pytest.mark.parametrize("key", ["step_{}", "{}", "iteration {}", "global_step_{}"])
def test_lists_per_step_are_all_read(tmp_path: Path, key: str):
    run = document(tmp_path, lists(ROWS, lambda r: key.format(r["step"]), "step"))
    assert run.steps == tuple(range(1, STEPS + 1))
    assert groups(run) == [SIZE] * (STEPS * PROMPTS)


def test_lists_per_phase_are_told_apart(tmp_path: Path):
    tests = lists(truth(STEPS * 2, PROMPTS, SIZE, 7), lambda r: "eval")
    run = document(tmp_path, lists(ROWS, lambda r: "train") | tests | {"config": [{"lr": 1}]})
    assert column(run, "helpful") == [r["helpful"] for r in ROWS]


def test_lists_per_run_are_told_apart(tmp_path: Path):
    run = document(tmp_path, lists(ROWS, lambda r: "a") | lists(truth(STEPS, PROMPTS, SIZE, 7), lambda r: "b"))
    assert groups(run) == [SIZE] * (2 * STEPS * PROMPTS)
    assert "the rows are from 2 runs" in told(run)


def test_lists_per_prompt_are_groups(tmp_path: Path):
    run = document(tmp_path, lists(ROWS, lambda r: f"question {r['group']}", "prompt"))
    assert groups(run) == [SIZE] * (STEPS * PROMPTS)


# TRL's completions


def completions(folder: Path, rows: Sequence[Row], types: dict[str, pa.DataType]) -> Run:
    (folder / "completions").mkdir()
    for step in dict.fromkeys(r["step"] for r in rows):
        part = [r for r in rows if r["step"] == step]
        table = {name: [r[name] for r in part] for name in ("step", "prompt", "completion", *REWARDS, "advantage")}
        arrays = {name: pa.array(cells) for name, cells in table.items()}
        arrays |= {name: arrays[name].cast(kind) for name, kind in types.items()}
        pq.write_table(pa.table(arrays), folder / "completions" / f"completions_{step:05d}.parquet")
    return open_run(folder)


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8(), pa.bool_()])
def test_trl_s_rewards_may_be_integers_or_flags(tmp_path: Path, kind: pa.DataType):
    run = completions(tmp_path, ROWS, {"correct": kind, "format": kind})
    assert run.channels == REWARDS
    assert column(run, "correct") == [r["correct"] for r in ROWS]


def test_trl_s_reward_in_texts_is_reported(tmp_path: Path):
    assert "'correct' is left out" in told(completions(tmp_path, ROWS, {"correct": pa.string()}))


def test_trl_s_mark_of_a_missing_reward_is_refused(tmp_path: Path):
    rows = [r | ({"format": -999.0} if i % 40 == 0 else {}) for i, r in enumerate(ROWS)]
    with pytest.raises(DataError, match="the reward 'format' is -999 in 4 of 144 rows"):
        completions(tmp_path, rows, {})


@pytest.mark.parametrize("step", [1, STEPS])
def test_trl_s_odd_file_at_an_end_is_reported(tmp_path: Path, step: int):
    rows = [r for i, r in enumerate(ROWS) if r["step"] != step or i % SIZE < 3]
    assert f"also those of step {step} (their groups do not have 8 completions" in told(completions(tmp_path, rows, {}))


# One truth in many forms


FORMS: dict[str, Callable[[Path], Path]] = {
    "lines": lambda folder: jsonl(folder / "r.jsonl", [flat(r, reward=r["total"]) for r in ROWS]),
    "array": lambda folder: _written(folder / "r.json", json.dumps([flat(r, reward=r["total"]) for r in ROWS])),
    "commas": lambda folder: delimited(folder / "r.csv", [flat(r, reward=r["total"]) for r in ROWS]),
    "tabs": lambda folder: delimited(folder / "r.tsv", [flat(r, reward=r["total"]) for r in ROWS], "\t"),
    "bars": lambda folder: delimited(folder / "r.csv", [flat(r, reward=r["total"]) for r in ROWS], "|"),
    "semicolons": lambda folder: delimited(
        folder / "r.csv",
        [
            {k: str(v).replace(".", ",") if k != "prompt" else v for k, v in flat(r, reward=r["total"]).items()}
            for r in ROWS
        ],
        ";",
    ),
    "texts": lambda folder: jsonl(
        folder / "r.jsonl", [{k: str(v) for k, v in flat(r, reward=r["total"]).items()} for r in ROWS]
    ),
    "shuffled": lambda folder: jsonl(
        folder / "r.jsonl", [flat(r, reward=r["total"]) for r in random.Random(3).sample(ROWS, len(ROWS))]
    ),
    "interleaved": lambda folder: jsonl(
        folder / "r.jsonl",
        [flat(r, reward=r["total"]) for r in sorted(ROWS, key=lambda r: (r["step"], r["index"]))],
    ),
    "ranks": lambda folder: _ranks(folder),
    "crlf": lambda folder: _written(
        folder / "r.ndjson", "\ufeff" + "".join(json.dumps(flat(r, reward=r["total"])) + "\r\n" for r in ROWS)
    ),
}


def _written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def _ranks(folder: Path) -> Path:
    for rank in range(4):
        jsonl(folder / f"rank{rank}.jsonl", [flat(r, reward=r["total"]) for r in ROWS[rank::4]])
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_run_has_the_same_groups_rewards_and_weights(tmp_path: Path, form: str):
    run = open_run(FORMS[form](tmp_path))
    assert run.channels == REWARDS
    assert run.steps == tuple(range(1, STEPS + 1))
    assert sorted(groups(run)) == [SIZE] * (STEPS * PROMPTS)
    assert next(run.batches()).weights.tolist() == pytest.approx(list(WEIGHTS.values()), abs=1e-3)
    by_group = {
        tuple(sorted(map(tuple, batch.rewards[batch.groups == group].tolist())))
        for batch in run.batches()
        for group in set(batch.groups.tolist())
    }
    parts = [ROWS[start : start + SIZE] for start in range(0, len(ROWS), SIZE)]
    assert by_group == {tuple(sorted(tuple(r[name] for name in REWARDS) for r in part)) for part in parts}


def test_rewards_in_texts_alone_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="none is clearly a reward"):
        opened(tmp_path, [flat(r) | {name: f"{r[name]:.0%}" for name in REWARDS} for r in ROWS])
