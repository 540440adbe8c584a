"""``rvpo judge``: existing completions to a table of verdicts, resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from typer.testing import CliRunner

from rvpo.cli.app import app
from rvpo.errors import ConfigError, DataError
from rvpo.judges import MixedJudge, RuleJudge, scoring
from rvpo.judges.completions import read_completions
from rvpo.judges.scoring import COLUMNS, criterion_summary, verdict_summary
from rvpo.rewards.rubric import Question, Verdict

RUBRIC = {
    "criteria": [
        {"id": "greets", "text": "Greets.", "points": 3, "category": "essential", "rule": {"contains_any": "hello"}},
        {"id": "shouts", "text": "Shouts.", "points": -1, "category": "pitfall", "rule": {"regex": "!"}},
    ]
}
ROWS: list[dict[str, Any]] = [
    {"prompt": "Greet me.", "completion": "Hello there!", "rubric": RUBRIC},
    {"prompt": "Greet me.", "completion": "Go away.", "rubric": RUBRIC},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "completions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


def score(questions: list, judge: Any, out: Path, judged_by: str = "me", **options: Any) -> list[dict[str, Any]]:
    return scoring.score(questions, judge, out, judged_by=judged_by, **options)


class Flaky:
    """Decides everything as met, but loses the criteria that it was told to, and counts what it is asked."""

    def __init__(self, lose: set[str] = frozenset(), fail: bool = False) -> None:
        self.lose, self.fail, self.asked = lose, fail, []

    async def judge(self, questions: list[Question]) -> list[list[Verdict]]:
        if self.fail:
            raise ConfigError("no such rule")
        self.asked += [(q.completion, c.id) for q in questions for c in q.criteria]
        return [
            [Verdict.missing("timeout") if c.id in self.lose else Verdict(1.0) for c in q.criteria] for q in questions
        ]

    async def check(self) -> None:
        pass

    def usage(self) -> dict[str, float]:
        return {"calls": float(len(self.asked)), "cost": 0.25}


def test_one_row_a_completion_and_criterion(data: Path, tmp_path: Path):
    out = tmp_path / "out.parquet"
    questions = read_completions(data)
    rows = score(questions, MixedJudge({"rule": RuleJudge()}), out)
    assert [(row["row"], row["criterion"], row["verdict"], row["reward"]) for row in rows] == [
        (0, "greets", 1.0, 1.0),
        (0, "shouts", 1.0, 0.0),
        (1, "greets", 0.0, 0.0),
        (1, "shouts", 0.0, 1.0),
    ]
    assert pq.read_table(out).to_pylist() == rows
    assert tuple(rows[0]) == COLUMNS
    table = verdict_summary(rows, questions)
    assert table["explicit score"]["mean"] == ((3 * 1 + 1 * 0) / 4 + (3 * 0 + 1 * 1) / 4) / 2
    assert table["pitfall"] == {"mean": 0.5, "number": 2, "missing": 0.0}


def test_a_line_per_criterion_shows_whether_the_judge_separates_completions(data: Path, tmp_path: Path):
    rows = score(read_completions(data), MixedJudge({"rule": RuleJudge()}), tmp_path / "out.parquet")
    line = {"mean": 0.5, "number": 2, "missing": 0.0, "lowest": 0.0, "highest": 1.0}
    assert criterion_summary(rows) == {"greets": line, "shouts": line}
    lost = [row | {"verdict": None, "reward": None} for row in rows]
    nothing = {"mean": None, "number": 2, "missing": 1.0, "lowest": None, "highest": None}
    assert criterion_summary(lost) == {"greets": nothing, "shouts": nothing}
    named_alike = [row | {"criterion": "c"} for row in rows]
    assert list(criterion_summary(named_alike)) == ["c: Greets.", "c: Shouts."]


def test_only_what_is_missing_is_asked_again(data: Path, tmp_path: Path):
    out, questions = tmp_path / "out.parquet", read_completions(data)
    rows = score(questions, Flaky({"shouts"}), out)
    assert [row["reason"] for row in rows] == [None, "timeout", None, "timeout"]
    assert [row["reward"] for row in rows] == [1.0, None, 1.0, None]
    assert verdict_summary(rows, questions)["pitfall"] == {"mean": None, "number": 2, "missing": 1.0}

    # A process that was killed in the middle of a line.
    with (tmp_path / "out.parquet.journal.jsonl").open("a") as journal:
        journal.write("[1, 1, 0.")
    again = Flaky()
    arrived: list[tuple[int, int]] = []
    rows = score(questions, again, out, progress=lambda *counts: arrived.append(counts))
    assert again.asked == [("Hello there!", "shouts"), ("Go away.", "shouts")]
    assert arrived == [(2, 0), (1, 0), (1, 0)]  # known, then each completion
    assert [row["reward"] for row in rows] == [1.0, 0.0, 1.0, 0.0]

    third = Flaky(fail=True)
    assert score(questions, third, out) == rows


def test_another_judge_is_asked_and_more_rows_keep_what_is_known(data: Path, tmp_path: Path):
    out, questions = tmp_path / "out.parquet", read_completions(data)
    score(questions[:1], Flaky(), out)
    rest = Flaky()
    score(questions[::-1], rest, out)
    assert rest.asked == [("Go away.", "greets"), ("Go away.", "shouts")]
    other = Flaky()
    score(questions, other, out, judged_by="somebody else")
    assert len(other.asked) == 4
    # A rule that was changed under the same words is another question.
    changed = json.loads(json.dumps(ROWS))
    changed[0]["rubric"]["criteria"][0]["rule"] = {"contains_any": "hi"}
    data.write_text("".join(json.dumps(row) + "\n" for row in changed), "utf-8")
    again = Flaky()
    score(read_completions(data), again, out)
    assert again.asked == [("Hello there!", "greets")]


def test_criteria_are_looked_at_first(data: Path, tmp_path: Path):
    judge = MixedJudge({"model": Flaky()}, default="model")
    with pytest.raises(ConfigError, match="completion 0, rubric without id: criterion 'greets' goes"):
        score(read_completions(data), judge, tmp_path / "out.parquet")


def test_rubrics_from_a_file_of_their_own(tmp_path: Path):
    """As for a training run's completions: chat with a system message, in a folder of parquet files."""
    rubrics = tmp_path / "rubrics.yaml"
    rubrics.write_text(yaml.safe_dump([{"prompt": "Greet me.", **RUBRIC}]), "utf-8")
    folder = tmp_path / "completions"
    folder.mkdir()
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Greet me."}]
    rows = [{"prompt": chat, "completion": [{"role": "assistant", "content": "hello"}], "advantage": 0.5}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "completions_00001.parquet")
    [(question, rubric)] = read_completions(folder, rubrics)
    assert question.completion == "hello"
    assert [criterion.id for criterion in rubric.criteria] == ["greets", "shouts"]

    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"prompt": "Leave.", "completion": "no"}) + "\n", "utf-8")
    with pytest.raises(DataError, match=r"other.jsonl, row 0 \(line 1\), field 'prompt': saw 'Leave.'"):
        read_completions(other, rubrics)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": "b"}, "row 0 .*pass --rubrics"),
        ({"prompt": "a", "rubric": RUBRIC}, "field 'completion'"),
        ({"completion": "a", "rubric": RUBRIC}, "field 'prompt'"),
        ({"prompt": "a", "completion": "b", "rubric": {"criteria": []}}, "field 'rubric': saw no rubric"),
        ({"prompt": "a", "completion": "b", "rubric": "not json"}, "saw one text 'not json'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict, message: str):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(DataError, match=message):
        read_completions(path)


def test_no_such_input(tmp_path: Path):
    with pytest.raises(DataError, match="saw no such file"):
        read_completions(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"a folder with \[\]"):
        read_completions(tmp_path)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="saw an empty file"):
        read_completions(empty)


def test_a_mistake_in_a_rubric_is_an_error_not_a_traceback_group(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no such rule"):
        score(read_completions(data), Flaky(fail=True), tmp_path / "out.parquet")


def test_command_line(data: Path, tmp_path: Path):
    out = tmp_path / "out.parquet"
    done = CliRunner().invoke(app, ["judge", str(data), "--judge", "rule", "--out", str(out), "--limit", "1"])
    assert done.exit_code == 0, done.output
    assert "explicit score   0.750        1     0.0%" in done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["shouts", "0.000", "0.000", "0.000", "0.0%"] in lines
    assert "if it is bad to meet a criterion, 1 means that a completion avoids it" in done.output
    assert f"verdicts: {out}" in done.output
    assert len(pq.read_table(out)) == 2


def test_command_line_shows_missing_verdicts(data: Path, tmp_path: Path):
    module = tmp_path / "my_judge.py"
    module.write_text(
        "from rvpo.judges import Verdict\n"
        "class Lost:\n"
        "    async def judge(self, questions):\n"
        "        return [[Verdict.missing('refused') for _ in q.criteria] for q in questions]\n"
        "    async def check(self): pass\n"
        "    def usage(self): return {'calls': 3.0, 'cost': 0.5}\n"
    )
    judge = tmp_path / "judge.yaml"
    rows = [row | {"rubric": {"criteria": [{"id": "kind", "text": "Is kind."}]}} for row in ROWS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    judge.write_text(yaml.safe_dump({"judge": {"kind": f"{module}:Lost"}}))
    out = tmp_path / "out.parquet"
    done = CliRunner().invoke(app, ["judge", str(data), "--judge", str(judge), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "2 of 2 verdicts are missing; the same command asks for them again" in done.output
    assert "this command: calls 3, cost 0.5" in done.output
