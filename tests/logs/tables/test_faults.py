"""Damaged and hostile files: read right, or one clear error with the place; never a bare exception."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rvpo.errors import ConfigError, DataError
from rvpo.logs.open import open_run
from rvpo.logs.tables import Table, look
from rvpo.logs.tables.folders import files_in

ROW = {"prompt": "p", "completion": "c", "reward_a": 0.5}


def written(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path if len(files) == 1 else folder


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def opened(path: Path) -> Table:
    return look(path, files_in(path) if path.is_dir() else [path])


def numbers(table: Table, name: str) -> list[float | None]:
    return table.read([name])[name].to_pylist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "{}\n" + '{"a": ' * 100_000 + "1" + "}" * 100_000 + "\n", "line 2: .*nested too deeply"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", lines(ROW) + '{"a": 1, "a": 2}\n', "line 2: .*the key 'a' occurs twice with different values"),
        ("a.jsonl", lines(ROW) + f'{{"a": {"9" * 5000}}}\n', "line 2: .*4300 digits"),
        ("a.jsonl", lines(ROW).encode() + b'{"a": "\xff\xfe"}\n', "line 2: .*utf-8"),
        ("a.csv", b"prompt,a\nx,1\ny,2,3\n", "line 3: 3 cells; expected 2, as in the header"),
        ("a.csv", b"prompt,a\nx,1\n\xe9,2\n", "line 3: .*expected UTF-8"),
        ("a.csv", b"a,a\n1,2\n", "the column 'a' occurs twice"),
        ("a.csv", b"1,2\n3,4\n", "expected a header with names of columns"),
        ("a.json", "[1, 2]", "item 0: a int; expected an object"),
        ("a.json", '[{"a": 1}, {"a"', "line 1: .*expected JSON. Fix the file"),
        ("a.jsonl", "\ufeff".encode("utf-16") + "x".encode("utf-16-le"), "is UTF-16; expected UTF-8"),
        ("a.jsonl.gz", gzip.compress(lines(ROW).encode() * 999)[:-20], "cannot be read .*expected a complete file"),
        ("a.parquet", b"PAR1 no", "cannot be read .*expected a complete file"),
        ("a.arrow", b"ARROW1 no", "cannot be read .*expected a complete file"),
        ("a.db", b"no database", "expected trackio's database"),
        ("a.jsonl", "", "has no rows; expected one row per completion"),
        ("a.csv", "prompt,reward\n", "has no rows"),
        ("a.jsonl", lines({"prompt": "p", "completions": [], "rewards": {"a": []}}), "has no rows"),
        ("a.jsonl", lines({"prompt": "p", "completions": ["x", "y"], "rewards": {"a": [1, 2, 3]}}),
         "line 1: rewards.a has 3 items, but 'completions' has 2; expected one per completion"),
        ("a.jsonl", lines({"prompt": "p", "responses": ["x", "y"], "rewards": [1]}), "rewards has 1 items"),
        ("a.jsonl", lines({f"key{i}": i for i in range(12_000)}), "more than 10000 columns"),
        ("a.json", '{"columns": ["a", "b"], "data": [[1, 2], [1]]}', "row 1: 1 cells; expected 2"),
        ("a.pt", pickle.dumps([1]), "is a pickle, which can run any program"),
        ("events.out.tfevents.1.host", b"x", "has TensorBoard's scalars, one mean per step"),
        ("run.wandb", b"x", "Read the run with wandb:ENTITY/PROJECT/RUN"),
        ("a.xyz", b"\x00\x01", "cannot read .*: its format is unknown"),
    ],
)  # fmt: skip
def test_a_clear_refusal(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = written(tmp_path, **{name: content})
    with pytest.raises(DataError, match=message):
        opened(path)


@pytest.mark.parametrize(
    ("reward", "read"),
    [
        ([1.0, "NaN", 0.5], [1.0, None, 0.5]),
        ([1, 0.5, True], [1.0, 0.5, 1.0]),
        (["1", "0.5", None], [1.0, 0.5, None]),
        ([[1.0], [0.5], []], [1.0, 0.5, None]),
        ([1.0, "timeout", 0.5], [1.0, None, 0.5]),
        ([1.0, 1e999, 0.5], [1.0, float("inf"), 0.5]),
    ],
)
def test_no_reward_vanishes_for_one_cell(tmp_path: Path, reward: list[object], read: list[float | None]) -> None:
    path = written(tmp_path, **{"a.jsonl": lines(*({**ROW, "reward_a": cell} for cell in reward))})
    table = opened(path)
    assert numbers(table, "reward_a") == read
    assert bool(list(table.notes_on(["reward_a"]))) == ("timeout" in reward)


def test_odd_cells_are_counted_with_their_place(tmp_path: Path) -> None:
    rows = [{**ROW, "reward_a": "timeout" if i == 7 else 0.5} for i in range(20)]
    table = opened(written(tmp_path, **{"a.jsonl": lines(*rows)}))
    assert table.columns["reward_a"].doubt == ""
    (note,) = table.notes_on(["reward_a"])
    assert note == (
        f"1 of 20 cells of 'reward_a' are not numbers, so they are missing ({tmp_path}/a.jsonl, line 8: 'timeout')"
    )  # fmt: skip


def test_a_reward_that_starts_late_and_an_odd_part_of_a_folder(tmp_path: Path) -> None:
    old = [{**ROW, "step": 1}] * 2
    pq.write_table(pa.Table.from_pylist(old), tmp_path / "part-0.parquet")
    new = [{**ROW, "step": 2, "reward_a": "0.25", "reward_b": 1}] * 2
    written(tmp_path, **{"part-1.jsonl": lines(*new)})
    table = opened(tmp_path)
    assert numbers(table, "reward_a") == [0.5, 0.5, 0.25, 0.25]
    assert numbers(table, "reward_b") == [None, None, 1.0, 1.0]
    assert list(table.notes_on(["reward_b"])) == ["1 of 2 files lack 'reward_b', so it is missing there"]


def test_ragged_lists_are_doubted_and_token_lists_are_one_value(tmp_path: Path) -> None:
    rows = [
        {**ROW, "rewards": [1.0, 0.5], "advantages": [0.0, 0.7, 0.7]},
        {**ROW, "rewards": [1.0, 0.5, 0.2], "advantages": [0.1, 0.2]},
    ]
    table = opened(written(tmp_path, **{"a.jsonl": lines(*rows)}))
    assert "lists of 2 to 3 numbers" in table.columns["rewards.0"].doubt
    assert numbers(table, "advantages") == [0.7, None]
    assert any("in 1 rows they differ" in note for note in table.notes)


def test_keys_that_are_ids_do_not_become_columns(tmp_path: Path) -> None:
    rows = [{**ROW, "verdicts": {f"criterion {i} {j}": 1 for j in range(10)}} for i in range(100)]
    table = opened(written(tmp_path, **{"a.jsonl": lines(*rows)}))
    assert [name for name in table.columns if name.startswith("verdicts")] == ["verdicts"]
    assert any("'verdicts' has hundreds of different keys" in note for note in table.notes)


def test_definitions_of_criteria_are_no_scores(tmp_path: Path) -> None:
    rows = [{**ROW, "rubrics": [{"criterion": "Is polite", "points": 5}, {"criterion": "Is short", "points": -2}]}]
    assert opened(written(tmp_path, **{"a.jsonl": lines(*rows)})).columns["rubrics"].kind == "text"


def test_names_that_two_parts_share_are_told_apart(tmp_path: Path) -> None:
    table = opened(written(tmp_path, **{"a.jsonl": lines({**ROW, "a.b": 1, "a": {"b": 2}})}))
    assert (numbers(table, "a.b"), numbers(table, "a.b (2)")) == ([1.0], [2.0])


def test_a_line_that_is_still_being_written_is_left_out_and_said(tmp_path: Path) -> None:
    table = opened(written(tmp_path, **{"a.jsonl": lines(ROW, ROW) + '{"prompt": "p", "rew'}))
    assert table.rows == 2
    assert any("line 3 is not complete" in note for note in table.notes)


def test_texts_that_utf_8_cannot_hold_and_ids_keep_their_form(tmp_path: Path) -> None:
    rows = [
        {**ROW, "prompt": "\ud800", "uid": "007"},
        {**ROW, "prompt": [{"role": "user", "content": "x"}], "uid": "7"},
    ]
    table = opened(written(tmp_path, **{"a.jsonl": lines(*rows)}))
    assert table.read_texts(["uid"])["uid"].to_pylist() == ["007", "7"]
    assert table.read_texts(["prompt"])["prompt"].to_pylist() == ["?", '[{"role": "user", "content": "x"}]']


@pytest.mark.parametrize(
    ("names", "setting"),
    [
        (["train/rewards/a/mean", "train/frac_reward_zero_std"], "log_completions=True"),
        (["critic/score/mean", "actor/pg_loss"], "trainer.rollout_data_dir"),
        (["train_speed(s/it)", "memory(GiB)", "reward"], "--log_completions true"),
        (["ppo_actor/task_reward/avg"], "dump_to_file"),
        (["train/loss", "train/rewards/a/mean", "completions"], "log_completions=True"),
        (["some/metric"], "log_completions=True.*trainer.rollout_data_dir"),
    ],
)
def test_metrics_per_step_are_refused_with_the_setting(tmp_path: Path, names: list[str], setting: str) -> None:
    rows = [{"_step": i, **dict.fromkeys(names, 0.1 * i)} for i in range(5)]
    with pytest.raises(DataError, match=rf"one row per step.*means of rewards.*{setting}"):
        opened(written(tmp_path, **{"a.jsonl": lines(*rows)}))


def test_several_runs_are_not_merged(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, **{"rollouts.jsonl": lines(ROW)})
    with pytest.raises(ConfigError, match=r"contains the folders of several runs \(first, second\)"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("record", "rows"),
    [
        ({"idx": 3, "rule_rewards": [1.0, 0.0], "self_rewards": [0.5, 0.25]}, 2),
        ({"idx": 3, "rewards": [1.0, 0.0, 1.0], "advantages": [0.5, -1.0, 0.5]}, 3),
        ({"idx": 3, "rewards": [1.0, 0.0], "answers_given": ["x", "y"]}, 2),
        ({"idx": 3, "rewards": [1.0, 0.0], "reward_names": ["correct", "format"]}, 1),
        ({"idx": 3, "rewards": [1.0, 0.0], "reward_weights": [2.0, 1.0]}, 1),
        ({"idx": 3, "rewards": [0.0, 1.0], "advantages": [0.5, 0.5], "token_ids": [4, 5]}, 1),
        ({"idx": 3, "rewards": [1.0, 0.0], "advantages": [0.5, 0.5], "completion": "x"}, 1),
        ({"prompt": "p", "completion": "x", "answers": ["x", "y"], "reward": 1.0}, 1),
        ({"prompt": "p", "completion": "x", "answers": ["x", "y"], "rewards": [1.0, 0.5]}, 1),
        ({"prompt": "p", "answers": ["x", "y"], "reward": 1.0}, 1),
        ({"prompt": "p", "output": [{"type": "reasoning", "summary": []}, {"type": "message"}], "reward": 1.0}, 1),
        (
            {
                "prompt": "p",
                "completion": "x",
                "results": [{"test": 1, "score": 1}, {"test": 2, "score": 0}],
                "reward": 1,
            },
            1,
        ),
        ({"prompt": "p", "outputs": [{"tool": "a", "n": 1}, {"tool": "b", "n": 2}], "reward": 1.0}, 1),
        ({"prompt": "p", "completions": ["x", "y"], "correct": [1, 0]}, 2),
        (
            {
                "prompt": "p",
                "samples": [{"text": "x", "type": "a", "reward": 1}, {"text": "y", "type": "a", "reward": 0}],
            },
            2,
        ),
    ],
)
def test_lists_of_scores_have_an_item_per_completion_only_where_that_is_clear(
    tmp_path: Path, record: dict[str, object], rows: int
) -> None:
    assert opened(written(tmp_path, **{"a.jsonl": lines(record)})).rows == rows
