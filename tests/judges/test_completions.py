"""Completions of a stranger: their columns are found or named, and none is judged by another prompt's rubric."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("datasets")

from rvpo.cli.app import app
from rvpo.errors import ConfigError, DataError
from rvpo.judges.completions import Reading, read_completions

CRITERIA = [{"id": "short", "text": "At most 3 words.", "rule": {"max_words": 3}}]


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


USER = [{"role": "user", "content": "p"}]
LAYOUTS: dict[str, dict[str, Any]] = {
    "own": {"prompt": "p", "completion": "c", "rubric": CRITERIA},
    "HealthBench": {"prompt": USER, "response": "c", "rubrics": [{"criterion": "x", "points": -2}]},
    "verl": {"question": "p", "output": "c", "reward_model": {"rubrics": [{"criterion": "x", "points": 1}]}},
    "a conversation": {"messages": [*USER, {"role": "assistant", "content": "c"}], "rubric": ["x"]},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_columns_are_found(name: str, tmp_path: Path):
    [(question, rubric)] = read_completions(jsonl(tmp_path / "x.jsonl", LAYOUTS[name]))
    assert question.completion == "c"
    assert question.criteria == rubric.criteria
    assert len(rubric.criteria) == 1


def test_columns_are_named_where_they_are_unclear(tmp_path: Path):
    row = {"prompt": "p", "task": "t", "output": "a", "response": "b", "mine": "c", "rubric": CRITERIA}
    path = jsonl(tmp_path / "x.jsonl", row)
    with pytest.raises(DataError, match=r"may each be the completion; .*--completion-column"):
        read_completions(path)
    reading = Reading(prompt_column="task", completion_column="mine")
    [(question, _)] = read_completions(path, reading=reading)
    assert (question.prompt, question.completion) == ("t", "c")


def test_prompts_without_a_rubric_are_an_error_or_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = [{"prompt": p, "completion": "c"} for p in "abc"]
    path, rubrics = (
        jsonl(tmp_path / "x.jsonl", *rows),
        jsonl(tmp_path / "r.jsonl", {"prompt": "b", "criteria": CRITERIA}),
    )
    with pytest.raises(DataError, match=r"row 0 .*--skip-without-rubric"):
        read_completions(path, rubrics)
    skip = Reading(skip_without_rubric=True)
    with caplog.at_level(logging.WARNING, logger="rvpo.judges"):
        [(question, _)] = read_completions(path, rubrics, reading=skip)
    assert question.prompt == "b"
    assert "skipped 2 of 3 completions" in caplog.text
    within = jsonl(tmp_path / "y.jsonl", rows[0], rows[1] | {"rubric": CRITERIA})
    with pytest.raises(DataError, match=r"row 0 .*no rubric.*--skip-without-rubric"):
        read_completions(within)
    assert len(read_completions(within, reading=skip)) == 1
    with pytest.raises(DataError, match="none of the 1 prompts has a rubric"):
        read_completions(jsonl(tmp_path / "z.jsonl", rows[0]), rubrics, reading=skip)


def test_one_prompt_with_two_rubrics_is_refused(tmp_path: Path):
    other = [{"id": "x", "text": "Is kind."}]
    rubrics = jsonl(tmp_path / "r.jsonl", {"prompt": "p", "criteria": CRITERIA}, {"prompt": "p", "criteria": other})
    path = jsonl(tmp_path / "x.jsonl", {"prompt": "p", "completion": "c"})
    with pytest.raises(DataError, match="the prompt 'p' with two rubrics"):
        read_completions(path, rubrics)
    with pytest.raises(ConfigError, match="which has no rubrics"):
        read_completions(path, jsonl(tmp_path / "n.jsonl", {"prompt": "p", "answer": "a"}))


def test_steps_and_folders_of_jsonl(tmp_path: Path):
    for step in (1, 2, 3):
        jsonl(
            tmp_path / "parts" / f"{step}.jsonl",
            {"step": step, "prompt": "p", "completion": str(step), "rubric": CRITERIA},
        )
    found = read_completions(tmp_path / "parts", reading=Reading(steps=(2, None)))
    assert [question.completion for question, _ in found] == ["2", "3"]
    with pytest.raises(DataError, match="saw 0 rows with a step from 7 to None"):
        read_completions(tmp_path / "parts", reading=Reading(steps=(7, None)))
    with pytest.raises(DataError, match="name its column with --step"):
        read_completions(tmp_path / "parts", reading=Reading(step_column="s", steps=(7, None)))


def test_the_command_judges_a_foreign_file(tmp_path: Path):
    entries = [{"gist": "At most 3 words.", "importance": 2}]
    path = jsonl(tmp_path / "x.jsonl", {"query": "p", "reply": "a b", "checks": {"rubrics": entries}})
    table = tmp_path / "table.json"
    options = ["--rubric-key", "rubric=checks.rubrics", "--rubric-key", "text=gist", "--completion-column", "reply"]
    result = CliRunner().invoke(app, ["judge", str(path), "--judge", "rule", *options, "--out", str(tmp_path / "v")])
    assert isinstance(result.exception, ConfigError)
    assert "has no rule" in str(result.exception)
    own = jsonl(tmp_path / "y.jsonl", {"prompt": "p", "completion": "a b", "rubric": CRITERIA})
    outputs = ["--out", str(tmp_path / "v.parquet"), "--json", str(table), "--markdown", str(tmp_path / "t.md")]
    result = CliRunner().invoke(app, ["judge", str(own), "--judge", "rule", *outputs])
    assert result.exit_code == 0, result.output
    assert 1.0 in {line["mean"] for line in json.loads(table.read_text()).values()}
    assert (tmp_path / "t.md").read_text().startswith("| | mean |")
