"""Which columns are rewards, which rows are groups, and what is said where neither is certain."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.text import diagnosis_text
from rvpo.errors import ConfigError
from rvpo.logs.guess import Guess
from rvpo.logs.open import open_run
from rvpo.logs.run import Columns, Run
from rvpo.logs.tables import names

Row = dict[str, Any]


def rows(steps: Sequence[int] = range(6), prompts: int = 3, size: int = 8, seed: int = 0) -> list[Row]:
    """Completions with the rewards good, fine and idle, of which the total has good + 0.5 fine."""
    rng = np.random.default_rng(seed)
    made = []
    for step in steps:
        for prompt in range(prompts):
            good, idle = ((rng.random(size) < 0.5).astype(float) for _ in range(2))
            fine = rng.random(size).round(3)
            total = good + 0.5 * fine
            advantage = (total - total.mean()) / (total.std(ddof=1) + 1e-4)
            for i in range(size):
                made.append(
                    {"step": step, "prompt": f"{step} {prompt}", "completion": f"{seed} {step} {prompt} {i}"}
                    | {"good": good[i], "fine": fine[i], "idle": idle[i], "reward": total[i], "advantage": advantage[i]}
                )
    return made


def opened(path: Path, made: Sequence[Row], without: Sequence[str] = (), columns: Columns | None = None) -> Run:
    file = path / "run.jsonl"
    kept = [{key: value for key, value in row.items() if key not in without} for row in made]
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return open_run(file, columns)


def sizes(run: Run) -> list[int]:
    return [size for batch in run.batches() for size in np.bincount(batch.groups).tolist()]


def told(run: Run) -> str:
    return "; ".join(map(str, run.guesses))


NAMED = [("Step", "Query ID"), ("Global Step", "prompt-id"), ("ITER", "Prompt Id")]


@pytest.mark.parametrize(("step", "prompt"), NAMED)
def test_names_with_spaces_hyphens_and_capitals_are_understood(tmp_path: Path, step: str, prompt: str):
    made = [{**row, step: row["step"], prompt: row["prompt"]} for row in rows()]
    run = opened(tmp_path, made, ["step", "prompt"])
    assert f"groups are rows with the same {prompt!r} within a step" in run.notes
    assert f"steps are from column {step!r}" in run.notes
    assert sizes(run) == [8] * 18


def test_a_fact_is_said_once(tmp_path: Path):
    """A guess is printed above the results. No note below repeats it."""
    text = " ".join(diagnosis_text(diagnose(opened(tmp_path, rows(), ["prompt", "advantage"]), resamples=100)).split())
    assert text.count("groups are consecutive rows within a step") == 1
    assert text.count("the logs have no advantages") == 1


FOREIGN = {
    "generation_ms": lambda rng, i: float(rng.integers(500, 9000)),
    "sample_idx": lambda rng, i: i % 8,
    "kl": lambda rng, i: float(rng.random()),
    "num_turns": lambda rng, i: int(rng.integers(1, 9)),
    "head_version": lambda rng, i: i // 30,
    "created_at": lambda rng, i: 1.7e9 + i,
    "is_truncated": lambda rng, i: bool(rng.random() < 0.5),
    "oddly_named": lambda rng, i: float(rng.random()),
}


@pytest.mark.parametrize("without", [("advantage",), ("reward",), ()], ids=["total", "advantages", "both"])
def test_foreign_numbers_are_no_rewards(tmp_path: Path, without: Sequence[str]):
    rng = np.random.default_rng(1)
    made = [row | {name: of(rng, i) for name, of in FOREIGN.items()} for i, row in enumerate(rows())]
    run = opened(tmp_path, made, ["idle", *without])
    assert set(run.channels) == {"good", "fine"}
    assert "oddly_named: not treated as a reward" in told(run)


@pytest.mark.parametrize("name", ["format", "score_style", "rewards/idle", "tone_reward"])
@pytest.mark.parametrize("without", [("advantage",), ("reward",)], ids=["total", "advantages"])
def test_a_reward_by_name_without_a_share_is_neglected(tmp_path: Path, name: str, without: Sequence[str]):
    made = [{name if key == "idle" else key: value for key, value in row.items()} for row in rows(prompts=8)]
    found = diagnose(opened(tmp_path, made, without), texts=False, resamples=100)
    verdicts = {channel.name: channel.verdict for channel in found.channels}
    assert len(verdicts) == 3
    assert [verdict for channel, verdict in verdicts.items() if channel not in ("good", "fine")] == ["neglected"]


def test_weights_come_from_the_total(tmp_path: Path):
    batch = next(opened(tmp_path, rows(), ["advantage", "idle"]).batches())
    assert batch.weights.tolist() == pytest.approx([1, 0.5])


def test_a_counter_that_the_total_needs_is_a_reward(tmp_path: Path):
    made = [{"tool_calls" if key == "good" else key: value for key, value in row.items()} for row in rows()]
    run = opened(tmp_path, made, ["advantage", "idle"])
    assert run.channels == ("tool_calls", "fine")
    assert "'tool_calls' is a reward (its name does not say so" in told(run)


def test_only_a_total_is_one_channel(tmp_path: Path):
    run = opened(tmp_path, rows(), ["advantage", "good", "fine", "idle"])
    assert run.channels == ("reward",)
    assert "'reward' is the only reward" in told(run)


@pytest.mark.parametrize("other", ["elapsed_count", "volume", "stuff"])
def test_a_hundredfold_scale_asks_for_the_rewards(tmp_path: Path, other: str):
    rng = np.random.default_rng(2)
    made = [row | {other: float(rng.random() * 5000)} for row in rows()]
    if other == "elapsed_count":  # called a counter: left out
        assert other not in opened(tmp_path, made, ["reward", "advantage"]).channels
        return
    with pytest.raises(ConfigError, match=rf"{other}' varies .* times as much .*--rewards a,b,c"):
        opened(tmp_path, made, ["reward", "advantage"])


def test_a_constant_enters_no_assumed_total(tmp_path: Path):
    made = [row | {"setting": 1.7e9, "format": 1.0} for row in rows()]
    run = opened(tmp_path, made, ["reward", "advantage"])
    assert set(run.channels) == {"good", "fine", "idle", "format"}
    found = {channel.name: channel.verdict for channel in diagnose(run, texts=False, resamples=100).channels}
    assert found["good"] == "healthy"
    assert found["format"] == "saturated"


def test_without_total_and_advantages_methods_must_agree(tmp_path: Path):
    made = [row | {"fine": row["fine"] * 0.04} for row in rows(prompts=8)]
    found = diagnose(opened(tmp_path, made, ["reward", "advantage"]), texts=False, resamples=100)
    verdicts = {channel.name: channel for channel in found.channels}
    assert verdicts["fine"].verdict == "unclear"
    assert "neglected with grpo; healthy with gdpo" in verdicts["fine"].rule
    assert verdicts["good"].confidence < 0.8
    text = diagnosis_text(found)
    assert text.startswith("Guessed, please check: advantages are those of GRPO on the plain sum")
    assert "None of" not in text
    assert found.to_json()["guesses"][0]["option"] == "--method, --weights, --advantage"


def test_an_open_guess_gives_no_verdict(tmp_path: Path):
    made = rows(steps=range(40), prompts=4)
    for row in made:
        row["prompt"] = row["prompt"].split()[1]
    rng = np.random.default_rng(0)
    run = opened(tmp_path, [made[i] for i in rng.permutation(len(made))], ["step", "advantage"])
    assert any(guess.open for guess in run.guesses)
    assert {channel.verdict for channel in diagnose(run, texts=False, resamples=100).channels} == {"unclear"}


@pytest.mark.parametrize(
    "step", ["_step", "Step", "train/global_step", "trainer/global_step", "training_step", "gen_step"]
)
def test_steps_under_other_names(tmp_path: Path, step: str):
    made = [{step if key == "step" else key: value for key, value in row.items()} for row in rows()]
    for row in made:
        row["prompt"] = "the same in every step"
    run = opened(tmp_path, made)
    assert len(run.steps) == 6
    assert len(sizes(run)) == 18  # the prompt alone is one group per step: advantages cut it in three


@pytest.mark.parametrize("name", ["example_id", "task_id", "_ng_task_index", "prompt_idx", "info.problem_id", "uid"])
def test_groups_under_other_names(tmp_path: Path, name: str):
    made = [row | {name: row["prompt"].replace(" ", "-")} for row in rows()]
    assert sizes(opened(tmp_path, made, ["prompt", "advantage"])) == [8] * 18


def test_a_reward_of_fractions_with_a_name_like_an_id_stays_a_reward(tmp_path: Path):
    made = [
        {"step": i // 16, "prompt": f"q{i // 8}", "reward_a": i * 7 % 11 / 11, "safety_group": i * 5 % 13 / 13}
        for i in range(64)
    ]
    made = [row | {"reward": row["reward_a"] + row["safety_group"]} for row in made]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    assert set(open_run(path).channels) == {"reward_a", "safety_group"}


@pytest.mark.parametrize("name", ["rollout_group", "task_uid", "dataset_item_id", "questionHash"])
@pytest.mark.parametrize("advantage", [True, False])
def test_an_id_with_an_unusual_name_groups_rows_and_is_said(tmp_path: Path, name: str, advantage: bool):
    made = [{"id": i, **row, name: f"{row['prompt']}-x"} for i, row in enumerate(rows(size=6))]
    run = opened(tmp_path, made, ["prompt"] if advantage else ["prompt", "advantage"])
    assert sizes(run) == [6] * 18
    assert f"groups are rows with the same {name!r} within a step (its name is not a usual one" in told(run)
    assert name not in run.channels


@pytest.mark.parametrize("value", [lambda i: i, lambda i: i % 5, lambda i: 3])
def test_an_unusual_id_that_does_not_fit_groups_nothing(tmp_path: Path, value: Callable[[int], int]):
    made = [row | {"rollout_group": value(i)} for i, row in enumerate(rows())]
    assert "sizes tried" in told(opened(tmp_path, made, ["prompt", "advantage"]))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("good", "accuracy"), "'good' is not treated as a reward (it is a copy of 'accuracy'"),
        (("good_reward", "sure_reward"), "is a reward and a copy of 'sure_reward' (only their common share"),
    ],
)
def test_a_copy_of_a_reward_is_not_said_to_have_no_share(tmp_path: Path, names: tuple[str, str], said: str):
    made = [row | dict.fromkeys(names, row["good"]) for row in rows()]
    run = opened(tmp_path, made, ["advantage"] + ["good"] * ("good" not in names))
    assert said in told(run)
    assert "weight may be 0" not in told(run)


@pytest.mark.parametrize("advantage", [True, False])
def test_ids_that_are_unique_per_row_are_no_groups(tmp_path: Path, advantage: bool):
    made = [row | {"uid": f"{row['prompt']}_s_{i}", "id": i} for i, row in enumerate(rows())]
    without = [] if advantage else ["advantage"]
    assert sizes(opened(tmp_path, made, without)) == [8] * 18
    alone = [{"uid": f"{row['prompt']}_{i % 8}", **row} for i, row in enumerate(rows())]
    assert sizes(opened(tmp_path, alone, ["prompt", *without])) == [8] * 18


@pytest.mark.parametrize("advantage", [True, False])
def test_the_number_of_generations_changes(tmp_path: Path, advantage: bool):
    made = rows(range(3)) + rows(range(3, 6), size=16)
    run = opened(tmp_path, made, [] if advantage else ["advantage"])
    assert sizes(run) == [8] * 9 + [16] * 9
    assert advantage or "from step 3 on 16" in told(run)


@pytest.mark.parametrize("advantage", [True, False])
def test_steps_that_a_resume_repeats_are_apart(tmp_path: Path, advantage: bool):
    made = rows(range(5)) + rows(range(3, 7), seed=1)
    run = opened(tmp_path, made, [] if advantage else ["advantage"])
    assert sizes(run) == [8] * 27
    assert "steps 3 to 4 are logged more than once" in told(run)


def test_rows_that_are_there_twice_count_once(tmp_path: Path):
    made = rows()
    run = opened(tmp_path, made + made)
    assert sizes(run) == [8] * 18
    assert any("rows are identical copies" in note for note in run.notes)


def test_two_runs_in_one_file_are_apart_and_said(tmp_path: Path):
    made = [row | {"run_id": "a"} for row in rows()] + [row | {"run_id": "b"} for row in rows(seed=1)]
    mixed = [row for pair in zip(made[: len(made) // 2], made[len(made) // 2 :], strict=True) for row in pair]
    run = opened(tmp_path, mixed, ["advantage"])
    assert sizes(run) == [8] * 36
    assert "the rows are from 2 runs" in told(run)
    assert "may contain several runs" in told(opened(tmp_path, made, ["run_id"]))


@pytest.mark.parametrize(("name", "value"), [("split", "eval"), ("phase", "validation"), ("is_eval", True)])
def test_evaluations_are_left_out(tmp_path: Path, name: str, value: Any):
    training = False if value is True else "train"
    made = [row | {name: training} for row in rows()] + [row | {name: value} for row in rows(range(2), size=4, seed=1)]
    run = opened(tmp_path, made)
    assert sizes(run) == [8] * 18
    assert any("24 rows of an evaluation" in note for note in run.notes)


def test_evaluations_without_a_mark_are_seen_by_their_size(tmp_path: Path):
    evaluations = [row | {"prompt": "e" + row["prompt"]} for row in rows((2, 4), prompts=2, size=4, seed=1)]
    made = sorted(rows() + evaluations, key=lambda row: row["step"])
    run = opened(tmp_path, made, ["advantage"])
    assert sizes(run) == [8] * 18
    assert "groups of 4 at 2 steps are left out as evaluations" in told(run)


@pytest.mark.parametrize("cell", ["NaN", "timeout", None])
def test_a_column_with_one_odd_cell_stays(tmp_path: Path, cell: Any):
    made = rows()
    made[17]["fine"] = cell
    run = opened(tmp_path, made, ["reward"])
    assert "fine" in run.channels
    assert sum(int(np.isnan(batch.rewards).sum()) for batch in run.batches()) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rewards/format", "marked"),
        ("reward_components.schema", "marked"),
        ("train/rewards/length", "marked"),
        ("judge_score", "marked"),
        ("win_reward_func", "marked"),
        ("total_reward", "total"),
        ("final_score", "total"),
        ("response_length", "foreign"),
        ("scoring_ms", "foreign"),
        ("expected_answer", "foreign"),
        ("rewards/std", "foreign"),
        ("pass_rate", "named"),
        ("exact_match", "named"),
        ("alpha", "unknown"),
    ],
)
def test_classes_of_names(name: str, kind: str):
    from rvpo.logs.tables.columns import Column
    from rvpo.logs.tables.rewards import class_of

    assert class_of(Column(name, "number")) == kind


def test_short_names():
    assert names.short(["rewards/a", "rewards/b"]) == {"rewards/a": "a", "rewards/b": "b"}
    assert names.short(["win_reward_func"]) == {"win_reward_func": "win_reward_func"}


def trl(path: Path, made: Sequence[Row], extra: dict[str, Any] | None = None) -> None:
    (path / "completions").mkdir(exist_ok=True)
    for step in dict.fromkeys(row["step"] for row in made):
        part = [row for row in made if row["step"] == step]
        rng = np.random.default_rng(step)
        order = ("step", "prompt", "completion", "good", "fine")
        columns = {key: [row[key] for row in part] for key in order if key in part[0]}
        columns |= {name: rng.random(len(part)).tolist() for name in extra or ()}
        columns["advantage"] = [row["advantage"] for row in part]
        pq.write_table(pa.table(columns), path / "completions" / f"completions_{step:05d}.parquet")


def test_trl_s_log_extra_is_no_reward(tmp_path: Path):
    trl(tmp_path, rows(range(1, 7)), {"entropy": None, "margin": None})
    run = open_run(tmp_path)
    assert run.channels == ("good", "fine")
    assert "margin: not treated as a reward" in told(run)


def test_trl_s_reward_that_was_never_scored_is_in_the_first_line(tmp_path: Path):
    trl(tmp_path, rows(range(1, 5)))
    for path in (tmp_path / "completions").iterdir():
        table = pq.read_table(path)
        for name in ("safety_reward", "note"):
            table = table.append_column(name, pa.nulls(len(table)))
        pq.write_table(table, path)
    run = open_run(tmp_path)
    assert run.channels == ("good", "fine")
    assert "'safety_reward' is left out (its name is that of a reward, but no row has a value" in told(run)
    assert "note" not in told(run)


def test_trl_s_reward_that_was_added_at_a_resume_is_read(tmp_path: Path):
    late = rows(range(4, 7))
    early = [
        {k: v for k, v in row.items() if k != "fine"} | {"advantage": row["good"] - 0.5} for row in rows(range(1, 4))
    ]
    trl(tmp_path, early)
    trl(tmp_path, late)
    run = open_run(tmp_path)
    assert run.channels == ("good", "fine")
    assert any("3 of 6 files lack the reward 'fine'" in note for note in run.notes)


def test_trl_s_number_of_generations_may_change(tmp_path: Path):
    trl(tmp_path, rows(range(1, 5)) + rows(range(5, 7), size=16))
    assert sizes(open_run(tmp_path)) == [8] * 12 + [16] * 6


def test_trl_s_evaluation_in_between_is_left_out(tmp_path: Path):
    trl(tmp_path, rows(range(1, 4)) + rows((4,), size=3) + rows(range(5, 7)))
    run = open_run(tmp_path)
    assert run.steps == (1, 2, 3, 5, 6)
    assert any("1 files are left out as evaluations (steps 4)" in note for note in run.notes)


def test_a_guess_reads_as_a_clause():
    assert str(Guess("x is y", "z", "--a")) == "x is y (z; --a)"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("correct", "{:.0%}"),
        ("passed", "yes {}"),
        ("train/format", "level {}"),
        ("score", "{} out of 1"),
        ("total_reward", "about {}"),
    ],
)
def test_a_reward_that_is_written_in_words_stands_in_the_first_line(tmp_path: Path, name: str, said: str):
    made = [row | {name: said.format(row["good"])} for row in rows()]
    run = opened(tmp_path, made, ["reward"])
    assert name not in run.channels
    assert f"{name!r} is left out (its name is that of a reward, but it has texts, such as " in told(run)


@pytest.mark.parametrize("name", ["judge", "think", "language"])
def test_explanations_and_names_are_no_rewards_in_words(tmp_path: Path, name: str):
    run = opened(tmp_path, [row | {name: f"a text of {row['good']}"} for row in rows()], ["reward"])
    assert f"{name!r}" not in told(run)


@pytest.mark.parametrize(
    "costs", [{"length_penalty": 0.5}, {"toxicity": 2.0}, {"overlong": 0.8, "unsafe_penalty": 1.0}]
)
def test_a_cost_in_the_total_is_shown_negated_and_not_called_reversed(tmp_path: Path, costs: dict[str, float]):
    rng = np.random.default_rng(1)
    made = []
    for row in rows(range(12)):
        cost = {name: float(rng.random()) for name in costs}
        total = row["reward"] - sum(costs[name] * cost[name] for name in costs)
        made.append(row | cost | {"reward": total})
    run = opened(tmp_path, made, ["advantage"])
    channels = {channel.name: channel for channel in diagnose(run, resamples=100).channels}
    for name, weight in costs.items():
        assert channels[f"-{name}"].verdict == "healthy"
        assert channels[f"-{name}"].pull.value > 0
        assert f"{name!r} is a cost" in "; ".join(run.notes)
        batch = next(run.batches())
        assert batch.weights[run.channels.index(f"-{name}")].item() == pytest.approx(weight, abs=1e-3)
