"""Logs of other people: what is found by itself, what must be named, and what is refused with a word that helps."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rvpo.errors import ConfigError, DataError
from rvpo.reports.records import Batch, Columns, Run, open_run, with_weights
from rvpo.reports.schema import METADATA, SCHEMA


def write(path: Path, **columns: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def only(run: Run) -> Batch:
    (batch,) = run.batches()
    return batch


def test_a_table_by_its_usual_names(tmp_path: Path):
    path = write(
        tmp_path / "run.parquet",
        global_step=[2, 1, 2, 1],
        prompt=["a", "b", "a", "b"],
        response=["x", "y", "z", "w"],
        reward_safe=[1.0, None, 0.0, 1.0],
        reward_fun=[1, 2, 3, 4],
        reward=[2.0, 2.0, 3.0, 5.0],
        advantages=[1.0, 0.5, -1.0, -0.5],
    )
    run = open_run(path)
    assert (run.kind, run.channels, run.steps, run.name) == ("table", ("safe", "fun"), (1, 2), "run.parquet")
    first, second = run.batches(texts=True)
    assert first.rewards[:, 1].tolist() == [2.0, 4.0]
    assert first.rewards[:, 0].isnan().tolist() == [True, False]
    assert first.advantages.tolist() == [0.5, -0.5]
    assert (second.texts.completions, second.texts.prompts) == (["x", "z"], ["a", "a"])
    assert second.groups[0] == second.groups[1] != first.groups[0]


def test_names_can_be_given(tmp_path: Path):
    path = write(tmp_path / "run.parquet", a=[1.0, 0.0], b=[True, False], which=[7, 7], other=[0.0, 9.0], it=[3, 3])
    run = open_run(path, Columns(rewards=("b", "a"), group="which", step="it", advantage="other"))
    assert run.channels == ("b", "a")
    assert run.steps == (3,)
    assert only(run).rewards.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert only(run).advantages.tolist() == [0.0, 9.0]


def test_blocks_instead_of_a_group(tmp_path: Path):
    path = write(tmp_path / "run.parquet", reward_a=[1.0, 0.0, 0.5, 0.5])
    assert only(open_run(path, Columns(group_size=2))).groups.tolist() == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match=r"--group-size is 3, but .* has 4 rows"):
        open_run(path, Columns(group_size=3))


def test_jsonl_with_an_object_of_rewards(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    rows = [
        {"prompt_id": "p", "rewards": {"a": 1, "b": None}, "advantage": 0.25},
        {"prompt_id": "p", "rewards": {"a": 0.5, "c": 2}, "advantage": -0.25},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = open_run(path)
    assert run.channels == ("a", "b", "c")
    batch = only(run)
    assert batch.rewards[:, 0].tolist() == [1.0, 0.5]
    assert batch.rewards.isnan().tolist() == [[False, True, True], [False, True, False]]


def test_a_chat_is_a_prompt(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    chats = [[{"role": "user", "content": text}] for text in ("hi", "hi", "ho", "ho")]
    path.write_text("".join(json.dumps({"prompt": chat, "reward_a": i}) + "\n" for i, chat in enumerate(chats)))
    assert only(open_run(path)).groups.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n[1]\n", r"line 2: a list, allowed is one JSON object a line, UTF-8: wrap it"),
        ('{"a": 1}\n{"a"\n', r"line 2: .*allowed is one JSON object a line, UTF-8: repair the line"),
        ('{"group": 1, "note": "x"}\n', "none is clearly a reward: name them with --rewards"),
        ('{"reward_a": 1}\n', "none tells which rows answer one prompt: name it with --group"),
        ('{"reward_a": 1, "group": null}\n{"reward_a": 2, "group": 1}\n', "row 0: the group .*is null"),
        ('{"reward_a": 1, "group": 1, "step": 1.5}\n', "row 0: the step is 1.5, allowed is a whole number"),
        ("", "has no rows"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, text: str, message: str):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises((ConfigError, DataError), match=message):
        list(open_run(path).batches())


def test_an_infinite_reward_is_named(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0, 0], reward_a=[1.0, float("inf")], reward_b=[0.0, 1.0], step=[4, 4])
    with pytest.raises(DataError, match="step 4, completion 1: channel 'a' has the reward inf, allowed are finite"):
        list(open_run(path).batches())


def test_words_are_no_rewards(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0, 0], reward_a=["good", "bad"], reward_b=[1.0, 2.0])
    with pytest.raises(DataError, match="column 'reward_a' holds string, allowed are numbers"):
        open_run(path, Columns(rewards=("reward_a",)))


def test_nothing_there(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist, allowed is the folder of a run"):
        open_run(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"holds notes.txt, allowed are channels/ \(rvpo\), completions/ \(TRL"):
        open_run(tmp_path)


def test_trl_s_groups_are_blocks_of_equal_prompts(tmp_path: Path):
    """The prompt "a" stands in two groups side by side."""
    prompts = ["a"] * 8 + ["b"] * 4
    for step in (1, 2):
        rewards = [float((i * step) % 3) for i in range(12)]
        write(
            tmp_path / "completions" / f"completions_{step:05d}.parquet",
            step=[step] * 12,
            prompt=prompts,
            completion=["x"] * 12,
            good=rewards,
            words=list(range(12)),
            advantage=rewards,
        )
    run = open_run(tmp_path)
    assert (run.kind, run.channels, run.steps) == ("completions", ("good",), (1, 2))
    assert [batch.groups.tolist() for batch in run.batches()] == [[i // 4 for i in range(12)]] * 2
    assert "groups of 4 completions" in run.notes[1]
    bigger = open_run(tmp_path, Columns(group_size=6))
    assert next(iter(bigger.batches())).groups.tolist() == [i // 6 for i in range(12)]
    with pytest.raises(DataError, match="12 completions, which are no blocks of 5"):
        list(open_run(tmp_path, Columns(group_size=5)).batches())
    with pytest.raises(DataError, match="has no column 'bad', it has step, prompt"):
        list(open_run(tmp_path, Columns(rewards=("bad",))).batches())


def test_trl_s_groups_of_different_size(tmp_path: Path):
    write(
        tmp_path / "completions_00003.parquet",
        prompt=["a", "a", "a", "b", "b"],
        completion=["x"] * 5,
        good=[0.0, 1.0, 2.0, 3.0, 4.0],
        advantage=[0.0] * 5,
    )
    assert only(open_run(tmp_path)).groups.tolist() == [0, 0, 0, 1, 1]


def test_a_record_of_the_future_is_refused(tmp_path: Path):
    about = json.dumps({"version": 2, "config": {}, "ranges": {}, "by_token": False})
    table = SCHEMA.empty_table().replace_schema_metadata({METADATA: about})
    (tmp_path / "channels").mkdir()
    pq.write_table(table, tmp_path / "channels" / "000001.parquet")
    with pytest.raises(DataError, match="is a record of version 2, allowed is up to 1"):
        open_run(tmp_path)


def test_a_part_of_the_steps(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0] * 6, reward_a=[0.0, 1.0] * 3, step=[1, 1, 2, 2, 5, 5])
    run = open_run(path)
    assert run.between(None, None) is run
    assert [batch.step for batch in run.between(2, None).batches()] == [2, 5]
    assert run.between(None, 2).steps == (1, 2)
    with pytest.raises(ConfigError, match=r"steps 3 to 4 of .* hold nothing, allowed are steps 1 to 5"):
        run.between(3, 4)


def test_weights_that_the_logs_do_not_tell(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0, 0], reward_a=[0.0, 1.0], reward_b=[1.0, 0.0])
    assert only(with_weights(open_run(path), [1, 0.5])).weights.tolist() == [1.0, 0.5]
    with pytest.raises(ConfigError, match="--weights is 1, allowed is a finite number >= 0 for each of a, b"):
        with_weights(open_run(path), [1])


def test_rows_of_a_batch():
    batch = Batch(
        1,
        torch.arange(6.0).reshape(3, 2),
        torch.tensor([0, 0, 1]),
        torch.arange(2),
        advantages=torch.tensor([1.0, 2.0, 3.0]),
        weights=torch.tensor([1.0, 2.0]),
    )
    part = batch.rows(torch.tensor([2, 0]))
    assert part.rewards.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert part.advantages.tolist() == [3.0, 1.0]
    assert part.weights.tolist() == [1.0, 2.0]
    assert part.channel.tolist() == [0, 1]
