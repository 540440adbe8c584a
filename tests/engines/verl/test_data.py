"""Our data in verl's files: read by verl's own dataset, a completion earns what it earns in TRL."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner
from verl.utils.dataset.rl_dataset import RLHFDataset

from rvpo.cli.app import app
from rvpo.data import load_prompts
from rvpo.engines.verl import wire
from rvpo.engines.verl.data import SCHEMA, write_parquet
from rvpo.engines.verl.rewards import compute_score
from rvpo.errors import DataError
from rvpo.judges.build_rewards import rubric_reward
from rvpo.rewards.toolcall import correctness_reward, format_reward, length_reward

CALL = '<think> A tide. </think>\n<tool_call>\n{"name": "tide", "parameters": {"day": 1, "é": null}}\n</tool_call>'
TALK = "<think> Small talk. </think>\n<response> Good morning! </response>"
RLLA = [
    {"instruction": "Tools: tide.", "input": "<user> When is high water? </user>", "output": CALL},
    {"instruction": "Tools: tide.", "input": '<user> "Hello" \\ <image> \u2028 </user>', "output": TALK},
    {"instruction": "Tools: none.", "input": "<user> Thanks. </user>", "output": "<think> Nothing. </think>"},
]
REPLIES = [CALL, TALK, CALL.replace("1", "2"), "<think> Nothing. </think>", "no tags", ""]

RUBRICS = """
- prompt: How much ibuprofen may an adult take in a day?
  criteria:
    - {id: short, text: At most four words., points: 5, rule: {max_words: 4}, category: style}
    - {id: long, text: More than two words., points: -1, rule: {min_words: 3}}
- prompt: Hello
  criteria: [{id: kind, text: At most one word., rule: {max_words: 1}}]
"""

runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rlla.json"
    path.write_text(json.dumps(RLLA), encoding="utf-8")
    return path


def as_verl_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the rows that verl's dataset gives its agent loop."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", path.parent / "cache")
    config = OmegaConf.create({"cache_dir": str(path.parent / "cache"), "filter_overlong_prompts": False})
    dataset = RLHFDataset(str(path), tokenizer=None, config=config)
    return [dataset[i] for i in range(len(dataset))]


def score(row: dict[str, Any], reply: str, rewards: list[Any]) -> dict[str, Any]:
    truth = row["reward_model"]["ground_truth"]
    return asyncio.run(compute_score(row["data_source"], reply, truth, dict(row["extra_info"]), rewards=rewards))


def test_tool_calls_earn_what_they_earn_in_trl(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prompts = load_prompts(source)
    write_parquet(prompts, tmp_path / "train.parquet", data_source="rlla", split="train")
    rows = as_verl_reads(tmp_path / "train.parquet", monkeypatch)
    assert [row["raw_prompt"] for row in rows] == list(prompts["prompt"])
    for i, (row, answer) in enumerate(zip(rows, prompts["answer"], strict=True)):
        assert (row["data_source"], row["index"], row["extra_info"]["split"]) == ("rlla", i, "train")
        assert json.loads(row["extra_info"]["prompt"]) == prompts["prompt"][i]
        for reply in REPLIES:
            chat = [[{"role": "assistant", "content": reply}]]
            expected = {f.__name__: f(chat, [answer])[0] for f in (format_reward, correctness_reward, length_reward)}
            result = score(row, reply, ["format", "correctness", "length"])
            assert result.pop("score") == pytest.approx(sum(expected.values()))
            assert result == expected


def test_rubrics_earn_what_they_earn_in_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rubrics.yaml"
    path.write_text(RUBRICS, encoding="utf-8")
    prompts = load_prompts(path, layout="rubrics")
    write_parquet(prompts, tmp_path / "train.parquet", data_source="everyday", split="train")
    rows = as_verl_reads(tmp_path / "train.parquet", monkeypatch)
    assert rows[0]["raw_prompt"] == [{"role": "user", "content": prompts["prompt"][0]}]
    reward = rubric_reward({"kind": "rule"})
    rewards = [{"function": "rubric", "options": {"judge": {"kind": "rule"}}}]
    for row, prompt, rubric in zip(rows, prompts["prompt"], prompts["rubric"], strict=True):
        assert row["reward_model"]["ground_truth"] == ""
        for reply in ("one", "one two three", "one two three four five"):
            [expected] = asyncio.run(reward([prompt], [reply], rubric=[rubric]))
            result = score(row, reply, rewards)
            assert result["score"] == expected
            assert wire.parse(result["rvpo"]).channels == {"rubric": reward.latest[0]}
    assert [len(wire.parse(score(row, "one", rewards)["rvpo"]).channels["rubric"]) for row in rows] == [2, 1]


def test_columns_of_any_type_come_back_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Arrow would fill absent keys with null, and verl writes num_turns into extra_info."""
    path = tmp_path / "data.jsonl"
    values = [{"num_turns": 3, "tests": [[1, 2.5], []], "split": "a"}, {"num_turns": 4, "tests": [], "split": "b"}]
    path.write_text("".join(json.dumps({"prompt": "p", "meta": v}) + "\n" for v in values), encoding="utf-8")
    prompts = load_prompts(path, layout="jsonl", reference_columns={"meta": "meta"})
    write_parquet(prompts, tmp_path / "train.parquet", data_source="d", split="train")
    rows = as_verl_reads(tmp_path / "train.parquet", monkeypatch)
    assert [json.loads(row["extra_info"]["columns"]) for row in rows] == [{"meta": v} for v in values]


def test_long_data_are_written_in_parts_and_in_order(tmp_path: Path):
    prompts = datasets.Dataset.from_dict({"prompt": [str(i) for i in range(2500)], "answer": ["a"] * 2500})
    write_parquet(prompts, tmp_path / "new" / "train.parquet", data_source="d", split="train")
    table = pq.read_table(tmp_path / "new" / "train.parquet")
    assert table.schema == SCHEMA
    assert [row["index"] for row in table["extra_info"].to_pylist()] == list(range(2500))
    assert [chat[0]["content"] for chat in table["prompt"].to_pylist()] == [str(i) for i in range(2500)]


def test_a_value_that_json_cannot_hold_is_refused_and_leaves_no_file(tmp_path: Path):
    prompts = datasets.Dataset.from_dict({"prompt": ["p", "q"], "weight": [1.0, float("nan")]})
    path = tmp_path / "train.parquet"
    with pytest.raises(DataError, match=r"row 1, field 'weight': saw nan .*; next step: store the value as text"):
        write_parquet(prompts, path, data_source="d", split="train")
    assert not path.exists()


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(source: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: a\nmodel: {{path: m}}\ndata: {{path: {source}}}\nrewards: [format]\n", encoding="utf-8")
    return path


def test_the_command_writes_what_the_recipe_reads(recipe: Path, source: Path, tmp_path: Path):
    out = tmp_path / "out" / "rlla"
    result = runner.invoke(
        app, ["verl-data", str(recipe), "data.limit=2", f"eval_data.path={source}", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert f"2 prompts: {out / 'train.parquet'}" in result.output
    train, evaluation = (pq.read_table(out / f"{split}.parquet").to_pylist() for split in ("train", "eval"))
    assert [row["reward_model"]["ground_truth"] for row in train] == [CALL, TALK]
    assert [row["extra_info"]["split"] for row in evaluation] == ["eval"] * 3
    assert {row["data_source"] for row in train} == {"rlla"}
    assert sorted(path.name for path in out.iterdir()) == ["eval.parquet", "train.parquet"]


def test_the_command_tells_what_is_wrong_with_the_data(recipe: Path, tmp_path: Path):
    result = runner.invoke(app, ["verl-data", str(recipe), "data.path=absent.json", "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, DataError)
    assert "absent.json: saw no such file" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_verls_own_layout_is_read_back(recipe: Path, tmp_path: Path):
    """The files are a layout of ours, too: TRL can train on them."""
    runner.invoke(app, ["verl-data", str(recipe), "--out", str(tmp_path)])
    again = load_prompts(tmp_path / "train.parquet")
    assert list(again["answer"]) == [row["output"] for row in RLLA]
