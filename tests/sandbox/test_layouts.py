"""Rows of benchmarks become tests; rows that are none are refused by name."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

import pytest

from rvpo.errors import DataError
from rvpo.sandbox.layouts import layout_of, tests_of

CHECK = """
def check(candidate):
    assert candidate(1) == 2
    assert True
    for x in (1, 2):
        assert candidate(x)
"""
STDIN = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])
CALLED = json.dumps([{"input": "[1]\n2", "output": "3", "testtype": "functional"}])


def packed(text: str) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(text))).decode()


def test_humaneval():
    row = {"prompt": "import math\ndef f(x):\n    '''Add.'''\n", "test": CHECK, "entry_point": "f"}
    assert layout_of(row) == "humaneval"
    [test] = tests_of(row)
    assert test.code.endswith("check(f)\n")
    assert test.setup == row["prompt"]
    assert [test.name for test in tests_of(row, split=True)] == ["test_1", "test_2"]
    for prose in ("Write f.", "Solve", "f(x)"):
        assert tests_of(row | {"prompt": prose})[0].setup == ""


@pytest.mark.parametrize(
    ("body", "tests"),
    [
        ("a = []\nassert candidate(a) == 1\nassert candidate(a) == 2\nassert candidate([]) == 1", 2),
        ("o = candidate()\nassert o.push(1) is None\nassert o.pop() == 1", 1),
        ("a, b = [], []\nassert candidate(a)\nassert candidate(b)\nassert a + b", 1),
        ("eps = 1e-6\nassert candidate(1) < eps\nassert candidate(2) < eps", 2),
        ("import math\nassert candidate(1) < math.pi\nassert candidate(2) < math.pi", 2),
    ],
)
def test_assertions_on_one_object_are_not_split(body: str, tests: int):
    check = "def check(candidate):\n    " + body.replace("\n", "\n    ")
    found = tests_of({"test": check, "entry_point": "f"}, split=True)
    assert len(found) == tests
    assert sum(test.code.count("assert") for test in found) == body.count("assert")


def test_mbpp():
    row = {"test_list": ["assert f(1) == 2", "assert f(2) == 3"], "test_setup_code": "import math"}
    tests = tests_of(row)
    assert [test.name for test in tests] == ["test_1", "test_2"]
    assert all("import math" in test.code for test in tests)
    assert tests_of({"test_list": json.dumps(row["test_list"])})[1].code.strip() == "assert f(2) == 3"
    assert len(tests_of(row | {"challenge_test_list": ["assert f(9) == 10"]})) == 3
    *_, plus = tests_of(row | {"test": "for x in range(9):\n    assert f(x)"})  # MBPP+ has its further tests there
    assert (plus.name, "range(9)" in plus.code, "import math" in plus.code) == ("plus", True, True)


@pytest.mark.parametrize("as_text", [True, False])
def test_input_output(as_text: bool):
    value: Any = {"inputs": ["1\n", ["1", "2"]], "outputs": ["2\n", ["3"]]}
    first, second = tests_of({"input_output": json.dumps(value) if as_text else value})
    assert (first.stdin, second.stdin, second.expected) == ("1\n", "1\n2", "3")
    assert first.close
    value = {"inputs": ["[1, 2]\n3", [[1], 2]], "outputs": ["[4]", [4]], "fn_name": "f"}
    assert [test.kind for test in tests_of({"input_output": value})] == ["call", "call"]


def test_livecodebench():
    row = {"public_test_cases": STDIN, "private_test_cases": packed(STDIN), "metadata": "{}"}
    assert [test.name for test in tests_of(row)] == ["public_1", "private_2"]
    assert not tests_of(row)[0].close
    [test] = tests_of({"public_test_cases": CALLED, "metadata": json.dumps({"func_name": "f"})})
    assert "f" in test.code


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"question": "x"},
        {"test": "x = 1", "entry_point": "f"},
        {"test": CHECK, "entry_point": "f; import os"},
        {"test": CHECK, "entry_point": "class"},
        {"test": "def check(", "entry_point": "f"},
        {"test_list": []},
        {"test_list": "assert f(1)"},
        {"test_list": ["assert f("]},
        {"test_list": [1]},
        {"input_output": "{"},
        {"input_output": "[1]"},
        {"input_output": {"inputs": ["1"], "outputs": []}},
        {"input_output": {"inputs": [], "outputs": []}},
        {"input_output": {"inputs": ["x"], "outputs": ["1"], "fn_name": "f"}},
        {"input_output": {"inputs": [[1]], "outputs": [1], "fn_name": "f()"}},
        {"input_output": "[" * 100_000},
        {"public_test_cases": "[{}]"},
        {"public_test_cases": CALLED, "metadata": "{}"},
        {"public_test_cases": "no base64 !"},
        {"public_test_cases": base64.b64encode(zlib.compress(pickle.dumps({"a": print}))).decode()},
        {"public_test_cases": base64.b64encode(zlib.compress(b"cos\nsystem\n(S'true'\ntR.")).decode()},
    ],
)
def test_rows_that_are_none(row: dict[str, Any]):
    with pytest.raises(DataError, match="expected"):
        tests_of(row)


@pytest.mark.parametrize(
    ("program", "value", "passed"),
    [
        ("def f(a, b):\n    return a + [b]", {"inputs": ["[1]\n2"], "outputs": ["[1, 2]"]}, True),
        (
            "class Solution:\n    def f(self, a, b):\n        return (*a, b)",
            {"inputs": [[[1], 2]], "outputs": [[[1, 2]]]},
            True,
        ),
        ("def f(a, b):\n    return [(1, 2)]", {"inputs": [[1, 2]], "outputs": [[[[1, 2]]]]}, True),
        ("def f(a):\n    return {1: a[1]}", {"inputs": [[{"1": 5}]], "outputs": [[{"1": 5}]]}, True),
        ("def f(a):\n    return a", {"inputs": [[1]], "outputs": [[2]]}, False),
        ("def f(a):\n    return 'x'", {"inputs": [["x"]], "outputs": ["x"]}, True),
        ("def f(a):\n    return '21'", {"inputs": [["12"]], "outputs": ["21"]}, True),
        ("def f(a):\n    return 'true'", {"inputs": [[1]], "outputs": ["true"]}, True),
        ("def f(a):\n    return [1]", {"inputs": [[1]], "outputs": ["[1]"]}, True),
        ("def f(a):\n    return '22'", {"inputs": [["12"]], "outputs": ["21"]}, False),
        ("def f(a):\n    return '21'", {"inputs": ["[1]"], "outputs": ["21"]}, False),
        ("def f(a):\n    return a", {"inputs": ["[1]\n"], "outputs": ["[1]\n"]}, True),
    ],
)
def test_calls_are_compared_as_apps_does(program: str, value: dict[str, Any], passed: bool):
    [test] = tests_of({"input_output": value | {"fn_name": "f"}})
    scope: dict[str, Any] = {}
    exec(program, scope)
    try:
        exec(test.code, scope)
    except AssertionError:
        assert not passed
    else:
        assert passed


@pytest.mark.parametrize(
    ("kind", "function"), [("function_call", "f"), ("Functional", "f"), (None, "f"), ("stdin_stdout", None), (1, None)]
)
def test_a_case_of_an_unknown_kind_is_refused(kind: Any, function: str | None):
    case = {"input": "1", "output": "1", **({} if kind is None else {"testtype": kind})}
    with pytest.raises(DataError, match="expected 'stdin' or 'functional'"):
        tests_of({"public_test_cases": [case], "metadata": {"func_name": function}})


def test_a_case_without_a_kind_is_read_from_stdin_where_no_function_is_named():
    [test] = tests_of({"public_test_cases": [{"input": "1", "output": "1"}]})
    assert test.kind == "stdin"


def test_calls_are_compared_as_livecodebench_does():
    cases = json.dumps([{"input": "[1]", "output": "[[1, 2]]", "testtype": "functional"}])
    [test] = tests_of({"public_test_cases": cases, "metadata": {"func_name": "f"}})
    for result, passed in (([[1, 2]], True), (([1, 2],), True), ([(1, 2)], False), ([[1, 2.5]], False)):
        scope: dict[str, Any] = {"f": lambda a, result=result: result}
        try:
            exec(test.code, scope)
        except AssertionError:
            assert not passed
        else:
            assert passed


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("", "it has no assertion"),
        ("# assert f(1) == 2", "it has no assertion"),
        ("f(1) == 2", "it has no assertion"),
        ("print(f(1))", "it has no assertion"),
        ("result = f(1)", "it has no assertion"),
        ("assert True", "it has no assertion"),
        ("for x in (1, 2):\n    print(f(x))", "it has no assertion"),
        ("def test_f():\n    assert f(1) == 2", "functions that it never calls"),
        ("class TestF:\n    def test_f(self):\n        assert f(1) == 2", "functions that it never calls"),
        ("def check(candidate):\n    assert candidate(1) == 2", "functions that it never calls"),
    ],
)
def test_a_test_that_passes_every_program_is_refused(code: str, seen: str):
    for row in ({"test_list": ["assert f(1) == 2", code]}, {"test_list": ["assert f(1) == 2"], "test": code or "pass"}):
        with pytest.raises(DataError, match=f"passes every program, because .*{seen}; expected one, such as"):
            tests_of(row)


@pytest.mark.parametrize(
    "body", ["pass", "'Nothing yet.'", "return candidate(1) == 2", "print(candidate(1))", "assert True, 'fine'"]
)
def test_a_check_that_passes_every_program_is_refused(body: str):
    for split in (False, True):
        with pytest.raises(DataError, match="'check' passes every program, because it has no assertion"):
            tests_of({"test": f"def check(candidate):\n    {body}\n", "entry_point": "f"}, split=split)


@pytest.mark.parametrize(
    "code",
    [
        "assert f(1) == 2",
        "if f(1) != 2:\n    raise AssertionError",
        "for x in (1, 2):\n    with open('/dev/null'):\n        assert f(x)",
        "try:\n    f(1)\nexcept ValueError:\n    pass",
        "try:\n    x = f(1)\nexcept ValueError:\n    raise",
        "match f(1):\n    case 2:\n        pass\n    case _:\n        raise ValueError",
        "import numpy\nnumpy.testing.assert_equal(f(1), 2)",
        "def check(g):\n    assert g(1) == 2\ncheck(f)",
        "import unittest\nunittest.main()",
    ],
)
def test_a_test_may_decide_in_any_way(code: str):
    assert len(tests_of({"test_list": [code]})) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"func_name": "f"}, "names a function under 'func_name'; expected it under 'fn_name'. Rename"),
        ({"entry_point": "f", "fn_name": None}, "names a function under 'entry_point'; expected it under 'fn_name'"),
        ({"assert_case": ["assert f(1) == 2"]}, "assertions under 'assert_case'; expected only inputs and outputs"),
    ],
)
def test_other_tests_next_to_inputs_and_outputs_are_refused(more: dict[str, Any], message: str):
    value = {"inputs": ["1"], "outputs": ["2"]}
    with pytest.raises(DataError, match=message):
        tests_of({"input_output": json.dumps(value | more)})
    assert len(tests_of({"input_output": value | {"assert_case": [""], "fn_name": ""}})) == 1


@pytest.mark.parametrize("given", ["1\r\nab\r\n", ["1\r", "ab\r", ""]])
def test_line_ends_of_windows_are_read_as_python_reads_them(given: Any):
    [test] = tests_of({"input_output": {"inputs": [given], "outputs": ["2\r\n"]}})
    assert test.stdin == "1\nab\n"
    [test] = tests_of({"public_test_cases": json.dumps([{"input": "1\r\nab\r\n", "output": "2", "testtype": "stdin"}])})
    assert test.stdin == "1\nab\n"
