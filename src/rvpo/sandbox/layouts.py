"""Read the tests in rows of programming datasets.

======================  ==============================================================================================
layout                  columns
======================  ==============================================================================================
``humaneval``           ``test`` (defines ``check``) and ``entry_point``; ``prompt`` for its imports and helpers
``mbpp``                ``test_list``; optional: ``test_setup_code`` or ``test_imports``, ``challenge_test_list``, and
                        ``test``, which has the further tests of MBPP+ in one text
``input_output``        ``input_output`` of APPS, TACO and PRIME: ``{"inputs": […], "outputs": […], "fn_name": …}``, as
                        an object or JSON
``livecodebench``       ``public_test_cases``, ``private_test_cases``, and ``metadata`` with ``func_name``
======================  ==============================================================================================

Other rows are refused, never guessed.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.errors import DataError
from rvpo.sandbox.analysis import decides, parsed
from rvpo.sandbox.cases import LENIENT, STRICT, arguments, as_list, called, loaded, results, unpacked
from rvpo.sandbox.granted import GRANTED
from rvpo.sandbox.outcomes import Test

LAYOUTS = ("humaneval", "mbpp", "input_output", "livecodebench")
MAX_TESTS = 2000


def layout_of(row: Mapping[str, Any]) -> str:
    """Return the layout of a row.

    Raises:
        DataError: the row has none of the layouts.
    """
    if _has(row, "public_test_cases") or _has(row, "private_test_cases"):
        return "livecodebench"
    if _has(row, "input_output"):
        return "input_output"
    if _has(row, "test_list"):
        return "mbpp"
    if _has(row, "test") and _has(row, "entry_point"):
        return "humaneval"
    raise DataError(
        f"a row with the columns {sorted(map(str, row))[:20]}; expected test and entry_point (HumanEval), test_list "
        "(MBPP), input_output (APPS, TACO, PRIME) or public_test_cases (LiveCodeBench). Rename the columns"
    )


def tests_of(row: Mapping[str, Any], layout: str = "auto", *, split: bool = False) -> list[Test]:  # noqa: PT028
    """Return the tests of one row, in order.

    Args:
        row: column -> value.
        layout: one of :data:`LAYOUTS`, or ``auto`` to find it from the columns.
        split: whether HumanEval gets one test per assertion of ``check``, instead of one test for the whole.

    Raises:
        DataError: the row does not have the layout, or has no test.
    """
    layout = layout_of(row) if layout == "auto" else layout
    readers = {"mbpp": _mbpp, "input_output": _input_output, "livecodebench": _livecodebench}
    if layout not in LAYOUTS:
        raise DataError(f"layout is {layout!r}; expected auto or one of {', '.join(LAYOUTS)}. Correct it")
    tests = _humaneval(row, split) if layout == "humaneval" else readers[layout](row)
    if not tests:
        raise DataError(f"a row of layout {layout} without a test; expected at least one. Drop the row")
    if len(tests) > MAX_TESTS:
        raise DataError(f"a row with {len(tests)} tests; expected at most {MAX_TESTS}. Keep fewer")
    return tests


tests_of.__test__ = False  # type: ignore[attr-defined]  # so that pytest does not collect it as a test


def _has(row: Mapping[str, Any], column: str) -> bool:
    return row.get(column) is not None


def _text(row: Mapping[str, Any], column: str, default: str | None = None) -> str:
    value = row.get(column)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise DataError(f"column {column!r} is a {type(value).__name__}; expected text. Correct it")
    return value


def _identifier(name: Any, column: str) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise DataError(f"{column} is {str(name)[:80]!r}; expected the name of a function. Correct it")
    return name


def _humaneval(row: Mapping[str, Any], split: bool) -> list[Test]:
    entry = _identifier(row.get("entry_point"), "entry_point")
    code, setup = _text(row, "test"), _runnable(row.get("prompt"))
    tree = parsed(code, "column 'test'")
    check = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    if check is None:
        raise DataError("column 'test' defines no function 'check'; expected one, as in HumanEval. Correct it")
    _require_decision("check", check.body)
    if not split:
        return [Test("check", "call", code=f"{code}\ncheck({entry})\n", setup=setup)]
    whole = list(check.body)
    kept = [i for i, node in enumerate(whole) if _asserts(node)]
    tests = []
    for number, own in enumerate(_groups(whole, kept), 1):
        check.body = [node for j, node in enumerate(whole) if j in own or j not in kept]
        tests.append(Test(f"test_{number}", "call", code=f"{ast.unparse(tree)}\ncheck({entry})\n", setup=setup))
    return tests


def _require_decision(name: str, body: Sequence[ast.stmt]) -> None:
    """Refuse a test that every program passes.

    Raises:
        DataError: the statements assert nothing when they run.
    """
    if decides(body) or (body and all(isinstance(node, ast.Import | ast.ImportFrom) for node in body)):
        return  # a test of nothing but imports fails where they fail
    inside = any(map(_asserts, body))
    seen = "its assertions are in functions that it never calls" if inside else "it has no assertion"
    raise DataError(
        f"test {name!r} passes every program, because {seen}; expected one, such as `assert f(1) == 2`. Correct the row"
    )


def _groups(body: Sequence[ast.stmt], kept: Sequence[int]) -> list[set[int]]:
    """Return groups of assertions that form one test: those that use the same object, which may change in between."""
    objects = set[str]()
    for i, node in enumerate(body):
        if i not in kept and not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)):
            objects |= _names(node, ast.Store)
    groups: list[tuple[set[str], set[int]]] = []
    for i in kept:
        used, own = _names(body[i], ast.Load) & objects, {i}
        for group in [group for group in groups if group[0] & used]:
            groups.remove(group)
            used, own = used | group[0], own | group[1]
        groups.append((used, own))
    return sorted((own for _, own in groups), key=min)


def _names(node: ast.stmt, context: type[ast.expr_context]) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, context)}


def _asserts(node: ast.stmt) -> bool:
    """Return whether a statement can fail a program. ``assert True``, which HumanEval has many of, cannot."""
    found = [one for one in ast.walk(node) if isinstance(one, ast.Assert)]
    return any(not isinstance(one.test, ast.Constant) or not one.test.value for one in found)


def _runnable(prompt: Any) -> str:
    """Return a prompt that is Python code, because the program may need its imports and helpers; "" for other prompts.

    A single word is valid Python, too, but is not code.
    """
    if not isinstance(prompt, str):
        return ""
    try:
        tree = parsed(prompt, "a prompt")
    except DataError:
        return ""
    return prompt if any(not isinstance(node, ast.Expr) for node in tree.body) else ""


def _mbpp(row: Mapping[str, Any]) -> list[Test]:
    tests = _strings(row.get("test_list"), "test_list")
    more = [] if row.get("challenge_test_list") is None else _strings(row["challenge_test_list"], "challenge_test_list")
    imports = [] if row.get("test_imports") is None else _strings(row["test_imports"], "test_imports")
    before = "\n".join([*imports, _text(row, "test_setup_code", "")])
    named = [(f"test_{i}", code) for i, code in enumerate(tests, 1)]
    named += [(f"challenge_{i}", code) for i, code in enumerate(more, 1)]
    named += [("plus", code)] if (code := _text(row, "test", "")).strip() else []
    found = []
    for name, code in named:
        _require_decision(name, parsed(code, f"test {name!r}").body)
        found.append(Test(name, "call", code=f"{before}\n{code}\n"))
    return found


def _strings(value: Any, column: str) -> list[str]:
    value = loaded(value, column) if isinstance(value, str) else value
    value = value.tolist() if hasattr(value, "tolist") else value  # an array of parquet
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise DataError(f"column {column!r} is a {type(value).__name__}; expected a list of texts. Correct it")
    return list(value)


def _input_output(row: Mapping[str, Any]) -> list[Test]:
    value = row["input_output"]
    value = loaded(value, "input_output") if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        raise DataError(f"column 'input_output' is a {type(value).__name__}; expected inputs and outputs. Correct it")
    inputs, outputs = (as_list(value.get(key), key) for key in ("inputs", "outputs"))
    if len(inputs) != len(outputs):
        raise DataError(f"{len(inputs)} inputs and {len(outputs)} outputs; expected one output each. Correct the row")
    _refuse_other_tests(value)
    name = value.get("fn_name")
    pairs = enumerate(zip(inputs, outputs, strict=True), 1)
    if name in (None, ""):
        return [_printed(f"test_{i}", given, wanted, close=True) for i, (given, wanted) in pairs]
    name = _identifier(name, "fn_name")
    return [
        called(f"test_{i}", name, arguments(given), results(given, wanted), LENIENT) for i, (given, wanted) in pairs
    ]


def _refuse_other_tests(value: Mapping[str, Any]) -> None:
    """Refuse assertions next to inputs and outputs, and the name of a function under another key than ``fn_name``.

    Raises:
        DataError: there is one of them. Without it, the tests would ask for something else.
    """
    if any(value.get("assert_case") or ()):
        raise DataError(
            "input_output has assertions under 'assert_case'; expected only inputs and outputs. Write them as "
            "test_list, the layout mbpp"
        )
    for key in ("func_name", "function_name", "method_name", "entry_point"):
        if value.get(key) and not value.get("fn_name"):
            raise DataError(f"input_output names a function under {key!r}; expected it under 'fn_name'. Rename the key")


def _printed(name: str, given: Any, wanted: Any, *, close: bool) -> Test:
    # As Python's own stdin does: with line ends of Windows, each input() would end with "\r".
    stdin = _lines(given, "input").replace("\r\n", "\n")
    return Test(name, "stdin", stdin=stdin, expected=_lines(wanted, "output"), setup=GRANTED, close=close)


def _lines(value: Any, what: str) -> str:
    """Return a text, or a list of lines as one text."""
    if isinstance(value, str):
        return value
    parts = as_list(value, f"an {what}")
    if not all(isinstance(part, str | int | float) for part in parts):
        raise DataError(f"an {what} contains lists; expected text or lines of text. Correct the row")
    return "\n".join(map(str, parts))


def _livecodebench(row: Mapping[str, Any]) -> list[Test]:
    cases = []
    for column in ("public_test_cases", "private_test_cases"):
        if _has(row, column):
            cases += [(column.partition("_")[0], case) for case in _cases(row[column], column)]
    metadata = row.get("metadata")
    metadata = loaded(metadata, "metadata") if isinstance(metadata, str) else metadata
    function = metadata.get("func_name") if isinstance(metadata, Mapping) else None
    tests = []
    for number, (kind, case) in enumerate(cases, 1):
        if not isinstance(case, Mapping) or not isinstance(case.get("input"), str):
            raise DataError("a test case without an input; expected input, output and testtype. Correct the row")
        name, output = f"{kind}_{number}", case.get("output")
        if not isinstance(output, str):
            raise DataError(f"the output of {name} is a {type(output).__name__}; expected text. Correct the row")
        if _is_call(case.get("testtype"), name, function):
            entry = _identifier(function, "func_name in metadata")
            tests.append(called(name, entry, arguments(case["input"]), loaded(output, "output"), STRICT))
        else:
            tests.append(_printed(name, case["input"], output, close=False))
    return tests


def _is_call(kind: Any, name: str, function: Any) -> bool:
    """Return whether a case calls a function. Without a testtype and a function name, it reads from stdin."""
    if kind in ("functional", "stdin") or (kind is None and function is None):
        return bool(kind == "functional")
    raise DataError(
        f"the testtype of {name} is {str(kind)[:40]!r}, with func_name {str(function)[:40]!r}; expected 'stdin' or "
        "'functional'. Correct the row"
    )


def _cases(value: Any, column: str) -> list[Any]:
    if not isinstance(value, str):
        return as_list(value, column)
    if value.lstrip()[:1] in ("[", ""):
        return as_list(loaded(value or "[]", column), column)
    return as_list(loaded(unpacked(value, column), column), column)
