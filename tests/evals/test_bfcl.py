"""BFCL: the real data and checker of bfcl-eval, both prompting formats, the leaderboard's aggregates, hostile text."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence, Set
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rvpo.errors import ConfigError, DataError
from rvpo.evals import bfcl_package, tool_formats
from rvpo.evals.bfcl import BFCL, GROUPS, LIVE, NON_LIVE
from rvpo.evals.bfcl_package import Entry, load_package
from rvpo.evals.items import Generation, Item, Key, Reply, Scored
from rvpo.evals.run import evaluate
from rvpo.evals.tool_formats import OWN_WORDS, own_calls, read_template, rlla_calls, rlla_prompt

ROOT = Path(__file__).parents[2]
SIZES = {
    "simple_python": 400,
    "simple_java": 100,
    "simple_javascript": 50,
    "multiple": 200,
    "parallel": 200,
    "parallel_multiple": 200,
    "irrelevance": 240,
    "live_simple": 258,
    "live_multiple": 1053,
    "live_parallel": 16,
    "live_parallel_multiple": 24,
    "live_irrelevance": 884,
    "live_relevance": 16,
}
# Questions that no reply can get right: an answer that needs a parameter which the function does not have, lacks a
# required one, allows no value for one, or wants numbers where the checker makes strings of them.
UNATTAINABLE = {
    "simple_java_36",
    "simple_java_65",
    "live_simple_106-63-0",
    "live_simple_112-68-0",
    "live_multiple_862-181-3",
    "live_multiple_964-207-0",
}


@pytest.fixture(scope="module")
def replies() -> ModuleType:
    """The script that builds right and spoiled replies from the benchmark's answers."""
    spec = importlib.util.spec_from_file_location("bfcl_vs_official", ROOT / "benchmarks/evals/bfcl_vs_official.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def entry(category: str, place: int = 0) -> Entry:
    return load_package().entries(category)[place]


def score(benchmark: BFCL, pairs: list[tuple[Item, Reply]]) -> list[Scored]:
    return asyncio.run(benchmark.score(pairs))


@cache
def asked(category: str, prompting: str) -> tuple[BFCL, dict[str, Item]]:
    benchmark = BFCL([category], prompting=prompting)
    return benchmark, {item.id: item for item in benchmark.items()}


def verdict(identity: str, text: str, prompting: str = "own", **reply: Any) -> Scored:
    benchmark, items = asked(identity.rsplit("_", 1)[0], prompting)
    (scored,) = score(benchmark, [(items[identity], Reply(text, **reply))])
    return scored


def right(identity: str, text: str, prompting: str = "own", **reply: Any) -> bool:
    return verdict(identity, text, prompting, **reply).scores["accuracy"] == 1.0


def hermes(*calls: tuple[str, Any], key: str = "arguments") -> str:
    return "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, key: arguments})}\n</tool_call>" for name, arguments in calls
    )


def rlla(*calls: tuple[str, Any]) -> str:
    lines = "\n".join(json.dumps({"name": name, "parameters": arguments}) for name, arguments in calls)
    return f"<think> hm </think>\n<tool_call>\n{lines}\n</tool_call>"


# --- data


def test_every_category_is_loaded():
    items = BFCL().items()
    assert {c: sum(i.labels["category"] == c for i in items) for c in SIZES} == SIZES
    assert len({item.id for item in items}) == len(items) == sum(SIZES.values())
    assert set(NON_LIVE + LIVE) == set(SIZES)
    assert {i.labels["group"] for i in items if i.labels["category"].startswith("live")} == {"live"}


def test_categories_are_those_of_the_package():
    with bfcl_package._stand_ins():
        mapping = importlib.import_module("bfcl_eval.constants.category_mapping")
        headers = importlib.import_module("bfcl_eval.constants.column_headers")
    assert tuple(mapping.NON_LIVE_CATEGORY) == NON_LIVE
    assert tuple(mapping.LIVE_CATEGORY) == LIVE
    benchmark = BFCL(limit=1)
    table = benchmark.summary([(item, Scored({"accuracy": 1.0})) for item in benchmark.items()])["leaderboard"]
    assert list(table["non_live"]) == headers.COLUMNS_NON_LIVE[2:]
    assert list(table["live"]) == headers.COLUMNS_LIVE[2:]
    ours = set(table["overall"])
    assert ours == {name for name in headers.COLUMNS_OVERALL if "Live" in name or "elevance" in name}


def test_names_of_categories_and_groups():
    assert [item.labels["category"] for item in BFCL(["live_parallel"]).items()] == ["live_parallel"] * 16
    chosen = BFCL(["live_parallel", "non_live", "parallel"]).settings()["categories"]
    assert chosen == [*NON_LIVE, "live_parallel"]
    assert BFCL().settings() == BFCL(["all"]).settings() == BFCL(["live", "non_live"]).settings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"categories": ["simple"]},
            r"categories=\['simple'\]; expected one or more of all, non_live, live, simple_python",
        ),
        ({"categories": []}, r"categories=\[\]"),
        ({"prompting": "xml"}, "prompting='xml'; expected one of own, rlla"),
        ({"limit": 0}, "limit=0; expected 1 or more"),
        ({"template": "x.json"}, "template='x.json' with prompting='own'; expected prompting='rlla'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        BFCL(**options)


def test_limit_takes_a_fixed_sample_of_each_category():
    first, again = (
        [i.id for i in BFCL(["parallel", "live_parallel", "live_multiple"], limit=20).items()] for _ in range(2)
    )
    assert first == again
    assert len(first) == 20 + 20 + 16
    assert first[:20] != [f"parallel_{n}" for n in range(20)]
    alone = [i.id for i in BFCL(["parallel"], limit=20).items()]
    assert alone == first[:20], "other categories do not change a category's sample"
    assert [i.id for i in BFCL(["parallel"], limit=20, seed=1).items()] != alone
    assert alone == sorted(alone, key=lambda identity: int(identity.rsplit("_", 1)[1]))


def test_settings_change_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = load_package()
    original = package._data
    (tmp_path / "possible_answer").mkdir()
    for path in ("BFCL_v4_parallel.json", "possible_answer/BFCL_v4_parallel.json"):
        (tmp_path / path).write_bytes((original / path).read_bytes())
    before = BFCL(["parallel"]).settings()
    monkeypatch.setattr(package, "_data", tmp_path)
    assert BFCL(["parallel"]).settings() == before
    answers = tmp_path / "possible_answer/BFCL_v4_parallel.json"
    answers.write_text(answers.read_text(encoding="utf-8").replace("Taylor Swift", "Mozart"), encoding="utf-8")
    assert BFCL(["parallel"]).settings()["data"] != before["data"]
    answers.write_text("".join(answers.read_text(encoding="utf-8").splitlines(True)[1:]), encoding="utf-8")
    with pytest.raises(DataError, match=r"199 answers .* 200 questions .* next step: pip install"):
        BFCL(["parallel"]).items()
    answers.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"BFCL_v4_parallel.json: saw .*next step: pip install"):
        BFCL(["parallel"]).items()


def test_settings_change_with_what_is_asked(tmp_path: Path):
    base = BFCL(["parallel"]).settings()
    for other in (BFCL(["parallel"], prompting="rlla"), BFCL(["parallel"], limit=3), BFCL(["parallel"], seed=1)):
        assert other.settings() != base
    template = rlla_file(tmp_path)
    with_ours, with_theirs = (BFCL(["parallel"], prompting="rlla", template=t).settings() for t in (None, template))
    assert with_ours["template"] != with_theirs["template"]
    json.dumps(with_theirs)


# --- the package without its vendors


def test_a_fresh_interpreter_loads_no_vendor_and_leaves_sys_modules_clean():
    code = """
import sys, json
import rvpo.evals.bfcl
assert not any(name.startswith("bfcl_eval") for name in sys.modules), "only scoring needs the package"
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("openai", "anthropic", "tenacity", "tree_sitter", "dotenv", "overrides"):
            raise ImportError(name + " is blocked")
        if name.startswith(("bfcl_eval.model_handler.api", "bfcl_eval.model_handler.local")):
            raise ImportError(name + " is blocked")
        assert name != "bfcl_eval.constants.model_config"
sys.meta_path.insert(0, Blocked())
package = rvpo.evals.bfcl.load_package()
entry = package.entries("simple_java")[0]
package.tools(entry)
print(package.check(entry, [], dots=True).error_type)
print([name for name in sys.modules if name.startswith("bfcl_eval") or name == "tenacity"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["simple_function_checker:wrong_count", "[]"]


def test_what_was_loaded_before_is_there_afterwards(monkeypatch: pytest.MonkeyPatch):
    mine = {name: ModuleType(name) for name in ("bfcl_eval", "bfcl_eval.utils", "tenacity")}
    for name, module in mine.items():
        monkeypatch.setitem(sys.modules, name, module)
    with bfcl_package._stand_ins():
        assert all(sys.modules.get(name) is not module for name, module in mine.items())
        assert importlib.import_module("bfcl_eval.constants.enums").Language.PYTHON
    assert all(sys.modules[name] is module for name, module in mine.items())
    assert not {"bfcl_eval.constants", "bfcl_eval.constants.model_config"} & sys.modules.keys()


def test_an_absent_package_is_named_with_its_remedy():
    code = """
import sys
from rvpo.errors import ConfigError
from rvpo.evals.bfcl import BFCL
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bfcl_eval":
            raise ModuleNotFoundError(name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "bfcl_eval" else real(name, package)
sys.meta_path.insert(0, Absent())
for call in (BFCL().items, BFCL().settings):
    try:
        call()
    except ConfigError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "pip install --no-deps bfcl-eval==2026.3.23" in line
        assert "pin versions that break this environment" in line


def test_another_version_is_used_with_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(bfcl_package.importlib.metadata, "version", lambda name: "2031.1.1")
    with caplog.at_level(logging.WARNING):
        assert load_package.__wrapped__().version == "2031.1.1"
    assert "bfcl-eval is 2031.1.1, tested with 2026.3.23" in caplog.text


# --- right and wrong replies, on real questions


@pytest.mark.parametrize("category", SIZES)
def test_the_answers_are_right_in_every_format(replies: ModuleType, category: str):
    spoken = {e.id: replies.right(e) for e in load_package().entries(category)}
    for prompting, write in (
        ("own", replies.server_calls),
        ("own", lambda s: Reply(replies.qwen_text(s, dots=False))),
        ("rlla", lambda s: Reply(replies.rlla_text(s))),
    ):
        benchmark, items = asked(category, prompting)
        scored = score(benchmark, [(item, write(spoken[item.id])) for item in items.values()])
        wrong = {item for item, result in zip(items, scored, strict=True) if result.scores["accuracy"] < 1}
        assert wrong == {identity for identity in UNATTAINABLE if identity.rsplit("_", 1)[0] == category}


# simple_python_0: calculate_triangle_area(base=10, height=5, unit="units" or left out)
AREA = "calculate_triangle_area"


@pytest.mark.parametrize(
    ("arguments", "expected", "error"),
    [
        ({"base": 10, "height": 5}, True, None),
        ({"base": 10, "height": 5, "unit": "Units"}, True, None),  # case is overlooked
        ({"base": 10, "height": 6}, False, "value_error:others"),
        ({"base": 10}, False, "simple_function_checker:missing_required"),
        ({"base": 10, "height": "5"}, False, "type_error:simple"),
        ({"base": 10, "height": 5.0}, False, "type_error:simple"),
        ({"base": 10, "height": 5, "depth": 1}, False, "simple_function_checker:unexpected_param"),
        ({"base": 10, "height": None}, False, "type_error:simple"),
        ({"base": True, "height": 5}, False, "type_error:simple"),
    ],
)
@pytest.mark.parametrize(("prompting", "write"), [("own", hermes), ("rlla", rlla)])
def test_arguments(arguments: Any, expected: bool, error: str | None, prompting: str, write: Any):
    scored = verdict("simple_python_0", write((AREA, arguments)), prompting)
    assert scored.scores == {"accuracy": float(expected), "category:simple_python": float(expected)}
    assert scored.details.get("error_type") == error


@pytest.mark.parametrize(("prompting", "write"), [("own", hermes), ("rlla", rlla)])
def test_number_and_names_of_calls(prompting: str, write: Any):
    good = (AREA, {"base": 10, "height": 5})
    assert right("simple_python_0", write(good), prompting)
    assert not right("simple_python_0", write(good, good), prompting)
    assert not right("simple_python_0", write(("area", good[1])), prompting)
    assert not right("simple_python_0", "base 10, height 5: 25", prompting)
    assert not right("simple_python_0", "", prompting)


def test_parallel_calls_in_any_order():
    calls = [
        ("spotify.play", {"artist": "Taylor Swift", "duration": 20}),
        ("spotify.play", {"artist": "Maroon 5", "duration": 15}),
    ]
    for order in (calls, calls[::-1]):
        assert right("parallel_0", rlla(*order), "rlla")
    assert not right("parallel_0", rlla(calls[0]), "rlla")
    assert not right("parallel_0", rlla(calls[0], calls[0]), "rlla")


def test_dots_in_names():
    arguments = {"artist": "Taylor Swift", "duration": 20}, {"artist": "Maroon 5", "duration": 15}
    dots, underscores = ([(name, a) for a in arguments] for name in ("spotify.play", "spotify_play"))
    assert right("parallel_0", rlla(*dots), "rlla")
    assert not right("parallel_0", rlla(*underscores), "rlla")
    assert right("parallel_0", hermes(*underscores))
    assert not right("parallel_0", hermes(*dots))
    (item,) = (item for item in BFCL(["parallel"]).items() if item.id == "parallel_0")
    assert item.tools[0]["function"]["name"] == "spotify_play"
    (item,) = (item for item in BFCL(["parallel"], prompting="rlla").items() if item.id == "parallel_0")
    assert "1. Name: spotify.play\n" in item.messages[0]["content"]


def test_values_of_java_and_javascript_are_code_in_strings():
    """simple_java_8: booleans; the checker converts the code, and takes nothing but strings."""
    name = "EFSNIOFile_setContents"
    good = {"source": "fileStream", "force": "true", "keepHistory": "false", "monitor": "progressMonitor"}
    assert right("simple_java_8", hermes((name, good)))
    assert verdict("simple_java_8", hermes((name, good | {"force": True}))).details["error_type"] == "type_error:java"
    shown = entry("simple_java", 8).described[0]["parameters"]["properties"]["force"]
    assert shown["type"] == "string"
    assert "Java boolean type parameter in string representation" in shown["description"]
    assert entry("simple_java", 8).functions[0]["parameters"]["properties"]["force"]["type"] == "boolean"


def test_relevance_and_irrelevance():
    call = ("anything", {"x": 1})
    for prompting, write in (("own", hermes), ("rlla", rlla)):
        assert right("irrelevance_0", "None of these fits.", prompting)
        assert not right("irrelevance_0", write(call), prompting)
        assert not right("live_relevance_0-0-0", "None of these fits.", prompting)
        assert right("live_relevance_0-0-0", write(call), prompting)
    # Unreadable is no call; so are arguments that are no object.
    for text in ("<tool_call>\n{oops\n</tool_call>", hermes(("anything", [1]))):
        assert right("irrelevance_0", text)
        assert not right("live_relevance_0-0-0", text)
    served = ({"name": "anything", "arguments": "[1]"},)
    assert right("irrelevance_0", "", calls=served)
    assert not right("irrelevance_0", "", calls=({"name": "anything", "arguments": "{}"},))


# --- reading calls


def test_calls_of_a_server():
    reply = Reply("", calls=({"name": "a", "arguments": '{"x": [1.5, null]}'}, {"name": "a", "arguments": "{}"}))
    assert own_calls(reply) == [{"a": {"x": [1.5, None]}}, {"a": {}}]
    assert own_calls(replace(reply, calls=({"name": "a", "arguments": '{"x"'},))) is None
    assert own_calls(Reply("hello", calls=())) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>', [{"a": {"x": 1}}]),
        ('<tool_call>{"name": "a", "parameters": {"x": 1}}</tool_call>', [{"a": {"x": 1}}]),
        (
            '<tool_call>[{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]</tool_call>',
            [{"a": {}}, {"b": {}}],
        ),
        ('Yes: <tool_call>\n{"name": "a", "arguments": {}}\n</tool_call> and done', [{"a": {}}]),
        ('{"name": "a", "parameters": {"x": 1}}', [{"a": {"x": 1}}]),
        (
            '<think><tool_call>{"name": "b", "arguments": {}}</tool_call></think>{"name": "a", "parameters": {}}',
            [{"a": {}}],
        ),
        ('<tool_call>{"name"</tool_call><tool_call>{"name": "a", "arguments": {}}</tool_call>', [{"a": {}}]),
        ('<tool_call>\n{"name": "a", "arguments": {}}', []),  # cut off
        ('{"answer": 42}', []),
        ("{not json", []),
        ("", []),
        ('<tool_call>{"name": "a"}</tool_call>', None),
        ('<tool_call>{"name": "a", "arguments": "{}"}</tool_call>', None),
        ('<tool_call>{"name": ["a"], "arguments": {}}</tool_call>', None),
        ('<tool_call>{"arguments": {}}</tool_call>', None),
        ("<tool_call>5</tool_call>", None),
        ('<tool_call>"arguments"</tool_call>', None),
    ],
)
def test_calls_in_the_text_of_a_model(text: str, expected: Any):
    assert own_calls(Reply(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rlla(("a", {"x": 1}), ("b c", {})), [{"a": {"x": 1}}, {"b c": {}}]),
        (rlla(("a", {})) + "\n<response> done </response>", [{"a": {}}]),
        ("<think> no </think>\n<response> no </response>", []),
        ("<think> <tool_call> would be wrong </think>\n<response> no </response>", []),
        ('<tool_call>\n\n{"name": "a", "parameters": {}}\n\n</tool_call>', [{"a": {}}]),
        ('<think></think>\n<tool_call>\n{"name": "a", "parameters": {}}\n{"name":\n</tool_call>', None),
        ('<think></think>\n<tool_call>\n{"name": "a", "parameters": {}}', None),  # cut off
        ("<tool_call>\n</tool_call>", []),
    ],
)
def test_calls_in_the_layout_of_rlla(text: str, expected: Any):
    assert rlla_calls(Reply(text)) == expected


DEEP, OPEN = "[" * 100_000, "<tool_call>"
HOSTILE = [
    DEEP,
    OPEN * 50_000,
    OPEN + DEEP + "</tool_call>",
    OPEN + '{"name": "a", "arguments": ' + '{"x":' * 5_000 + "1" + "}" * 5_000 + "}</tool_call>",
    OPEN + '{"name": "a", "arguments": {"x": ' + "9" * 100_000 + "}}</tool_call>",
    OPEN + '{"name": "a", "arguments": {"x": "' + "y" * 1_000_000 + '"}}</tool_call>',
    (OPEN + '{"name": "a", "arguments": {}}</tool_call>') * 1_000,
    OPEN + "[" + '{"name": "a", "arguments": {}},' * 500 + '{"name": "a", "arguments": {}}]</tool_call>',
    OPEN + '{"name": "\\ud800", "arguments": {"\\ud800": "\\ud800"}}</tool_call>',
    OPEN + '{"name": "calculate_triangle_area", "arguments": {"base": NaN, "height": -Infinity}}</tool_call>',
    OPEN + "\x00\u2028</tool_call>",
    "</think>" * 10_000,
    "{" * 10_000,
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_replies_are_wrong_and_never_raise(text: str):
    for prompting in ("own", "rlla"):
        assert not right("simple_python_0", text.replace("arguments", "parameters"), prompting)
        assert not right("simple_python_0", text, prompting)
        assert not right("parallel_0", text, prompting)
        assert not right("simple_java_8", text, prompting)
    assert not right("simple_python_0", "", calls=({"name": AREA, "arguments": text},))


def test_more_calls_than_the_limit_are_not_read():
    call = '{"name": "a", "arguments": {}}'
    assert own_calls(Reply(f"<tool_call>[{','.join([call] * (tool_formats.MAX_CALLS + 1))}]</tool_call>")) is None
    assert len(own_calls(Reply(f"<tool_call>{call}</tool_call>" * 1_000)) or []) == tool_formats.MAX_CALLS
    assert rlla_calls(Reply(rlla(*[("a", {})] * (tool_formats.MAX_CALLS + 1)))) is None


@pytest.mark.parametrize(
    ("category", "code"),
    [
        ("simple_javascript", "[[" + "],[" * 100 + "x"),  # exponential in the checker's expression for arrays
        ("simple_java", "new HashMap<>() {{" + " " * 500),  # the fifth power
        ("simple_java", "new ArrayList<>() {{" + " } " * 100_000),
    ],
)
def test_code_that_the_checker_cannot_read_in_time_is_wrong(category: str, code: str):
    for question in load_package().entries(category):
        names = question.functions[0]["parameters"]["properties"]
        call = {question.functions[0]["name"]: dict.fromkeys(names, code)}
        assert load_package().check(question, [call], dots=True).error_type == "rvpo:code_beyond_limits"


def test_no_answer_comes_near_the_limits_of_code(replies: ModuleType):
    for category in ("simple_java", "simple_javascript"):
        for question in load_package().entries(category):
            for _, text in replies.right(question).calls:
                assert bfcl_package._cheap([{"f": json.loads(text)}])
                assert all(len(value) < bfcl_package.MAX_CODE_CHARS / 2 for value in json.loads(text).values())


def test_a_reply_on_which_the_checker_fails_is_wrong():
    """simple_python_145 wants a float, which the checker makes of any integer; `bfcl evaluate` stops here."""
    arguments = {"principal": 5000, "interest_rate": 10**400, "period": 10, "compounding_frequency": "yearly"}
    result = load_package().check(
        entry("simple_python", 145), [{"calculate_compounded_interest": arguments}], dots=True
    )
    assert (result.right, result.error_type) == (False, "rvpo:checker_failed")
    assert result.error.startswith("OverflowError")


# --- the prompt


def rlla_file(folder: Path, instruction: str | None = None) -> Path:
    """A file in RLLA's layout, with sentences of our own."""
    tools = "1. Name: a\nDescription: b\nParameters: {}\n2. Name: c\nDescription: d\nParameters: {}"
    made = f"Serve.\n\nTools:\n{tools}\n\nBe brief."
    record = {"instruction": instruction or made, "input": "So far\n<user> Hi </user>", "output": "<think> x </think>"}
    path = folder / "rlla.json"
    path.write_text(json.dumps([record, record | {"instruction": "another"}]), encoding="utf-8")
    return path


FUNCTION = {
    "name": "math.add",
    "description": "Adds.",
    "parameters": {
        "type": "dict",
        "properties": {
            "a": {"type": "integer", "description": "First."},
            "b": {"type": "array", "items": {"type": "float"}, "description": "More.", "default": [1.0]},
        },
        "required": ["a"],
    },
}


def test_an_rlla_prompt_has_the_sentences_of_the_data(tmp_path: Path):
    template = read_template(rlla_file(tmp_path))
    assert (template.head, template.tail, template.opening) == ("Serve.\n\nTools:\n", "\n\nBe brief.", "So far\n")
    messages = [
        {"role": "system", "content": "Speak French."},
        {"role": "user", "content": "1 and 2 "},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "and 4?"},
    ]
    system, user = rlla_prompt(template, messages, [FUNCTION, FUNCTION | {"name": "again"}])
    parameters = {
        "a": {"description": "First.", "type": "integer", "default": ""},
        "b": {"description": "More.", "type": "array, optional", "items": {"type": "float"}, "default": [1.0]},
    }
    shown = f"Description: Adds.\nParameters: {json.dumps(parameters)}"
    tools = f"1. Name: math.add\n{shown}\n2. Name: again\n{shown}"
    assert system == {"role": "system", "content": f"Serve.\n\nTools:\n{tools}\n\nBe brief.\n\nSpeak French."}
    turns = "<user> 1 and 2 </user>\n\n<response> 3 </response>\n\n<user> and 4? </user>"
    assert user == {"role": "user", "content": f"So far\n{turns}"}


def test_a_prompt_built_from_a_record_is_that_record(tmp_path: Path):
    """With its own tools, the record comes out as it went in."""
    description = {"description": "A city.", "type": "string", "default": ""}
    made = (
        "Serve.\n\nTools:\n"
        f"1. Name: weather\nDescription: Tells it.\nParameters: {json.dumps({'city': description})}\n\nBe brief."
    )
    path = rlla_file(tmp_path, made)
    schema = {
        "type": "dict",
        "properties": {"city": {"type": "string", "description": "A city."}},
        "required": ["city"],
    }
    function = {"name": "weather", "description": "Tells it.", "parameters": schema}
    system, user = rlla_prompt(read_template(path), [{"role": "user", "content": "Hi"}], [function])
    assert (system["content"], user["content"]) == (made, "So far\n<user> Hi </user>")


def test_a_template_from_parquet(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = json.loads(rlla_file(tmp_path).read_text(encoding="utf-8"))[0]
    prompt = [{"role": "system", "content": record["instruction"]}, {"role": "user", "content": record["input"]}]
    row = {"data_source": ["rlla"], "prompt": [prompt], "reward_model": [{"ground_truth": record["output"]}]}
    pq.write_table(pa.table(row), tmp_path / "rlla.parquet")
    assert read_template(tmp_path / "rlla.parquet") == read_template(tmp_path / "rlla.json")


@pytest.mark.parametrize("instruction", ["No tools here.", "Parameters: {}\n1. Name: a"])
def test_a_template_without_tools_is_refused(tmp_path: Path, instruction: str):
    with pytest.raises(DataError, match=r"rlla.json: saw a first record .* next step: name the file of RLLA data"):
        BFCL(prompting="rlla", template=rlla_file(tmp_path, instruction))


def test_an_absent_template_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"absent.json: saw no such file; expected RLLA data"):
        BFCL(prompting="rlla", template=tmp_path / "absent.json")


def test_our_own_sentences_show_the_layout():
    system, user = rlla_prompt(OWN_WORDS, [{"role": "user", "content": "Hi"}], [FUNCTION])
    assert user["content"] == "<user> Hi </user>"
    for part in ("1. Name: math.add\n", "<think>", "\n<tool_call>\n", "\n</tool_call>\n", "<response>"):
        assert part in system["content"]
    assert rlla_calls(Reply(system["content"].replace("<think>", ""))) == [
        {"name of a tool": {"name of a parameter": "its value"}},
        {"name of a tool": {}},
    ], "the layout that is shown is the one that is read"


def test_own_tools_are_json_schema():
    types = set()

    def visit(schema: Any) -> None:
        if isinstance(schema, dict):
            if isinstance(schema.get("type"), str) and ("description" in schema or "properties" in schema):
                types.add(schema["type"])
            for value in schema.values():
                visit(value)

    for item in BFCL().items():
        for tool in item.tools:
            assert tool["type"] == "function"
            assert "." not in tool["function"]["name"]
            visit(tool["function"]["parameters"])
    assert types <= {"string", "integer", "number", "boolean", "array", "object"}


# --- aggregates


def summary_of(benchmark: BFCL, rights: dict[str, int], missing: dict[str, int] | None = None) -> tuple[Any, Any]:
    """Score the first ``rights`` questions of each category 1, the last ``missing`` None, all others 0."""
    items = benchmark.items()
    sizes = Counter(item.labels["category"] for item in items)
    seen: Counter[str] = Counter()
    scored = []
    for item, weighed in zip(items, score(benchmark, [(item, Reply("")) for item in items]), strict=True):
        category = item.labels["category"]
        seen[category] += 1
        value: float | None = float(seen[category] <= rights[category])
        if seen[category] > sizes[category] - (missing or {}).get(category, 0):
            value = None
        scored.append((item, replace(weighed, scores=dict.fromkeys(benchmark.metrics(item), value))))
    return benchmark.summary(scored), scored


def mean(scored: Any, metric: str) -> float:
    rows = [(r.scores[metric], r.weights.get(metric, 1.0)) for _, r in scored if r.scores.get(metric) is not None]
    return sum(value * weight for value, weight in rows) / sum(weight for _, weight in rows)


def test_aggregates_by_hand():
    rights = {
        "simple_python": 300,  # 3/4
        "simple_java": 50,  # 1/2
        "simple_javascript": 5,  # 1/10
        "multiple": 160,  # 4/5
        "parallel": 100,  # 1/2
        "parallel_multiple": 20,  # 1/10
        "irrelevance": 60,  # 1/4
        "live_simple": 129,
        "live_multiple": 1000,
        "live_parallel": 0,
        "live_parallel_multiple": 24,
        "live_irrelevance": 442,  # 1/2
        "live_relevance": 12,  # 3/4
    }
    summary, scored = summary_of(BFCL(), rights)
    simple = (3 / 4 + 1 / 2 + 1 / 10) / 3
    expected = {
        "simple": simple,
        "non_live": (simple + 4 / 5 + 1 / 2 + 1 / 10) / 4,
        "live": (129 + 1000 + 0 + 24) / (258 + 1053 + 16 + 24),
        "irrelevance": (1 / 4 + 1 / 2) / 2,
        "relevance": 3 / 4,
        "accuracy": sum(rights.values()) / sum(SIZES.values()),
        "category:live_multiple": 1000 / 1053,
    }
    assert {metric: mean(scored, metric) for metric in expected} == pytest.approx(expected, abs=1e-12)
    table = summary["leaderboard"]
    assert table["non_live"]["Non-Live Overall Acc"] == pytest.approx(expected["non_live"], abs=1e-12)
    assert table["non_live"]["Simple AST"] == pytest.approx(simple, abs=1e-12)
    assert table["non_live"]["Irrelevance Detection"] == 1 / 4
    assert table["live"]["Live Overall Acc"] == pytest.approx(expected["live"], abs=1e-12)
    assert table["live"]["Irrelevance Detection"] == 1 / 2
    assert table["live"]["Relevance Detection"] == 3 / 4
    assert table["overall"]["Irrelevance Detection"] == 3 / 8
    assert table["overall"]["Non-Live AST Acc"] == table["non_live"]["AST Summary"]
    assert summary["left_out"] == {}


def test_an_aggregate_without_one_of_its_categories_is_left_out():
    benchmark = BFCL(["simple_python", "multiple", "live_relevance"])
    summary, scored = summary_of(benchmark, {"simple_python": 100, "multiple": 100, "live_relevance": 16})
    metrics = {metric for _, result in scored for metric in result.scores}
    assert metrics == {
        "accuracy",
        "category:simple_python",
        "category:multiple",
        "category:live_relevance",
        "relevance",
    }
    assert summary["leaderboard"]["non_live"] == {"Python Simple AST": 0.25, "Multiple AST": 0.5}
    assert summary["leaderboard"]["overall"] == {"Non-Live Multiple AST": 0.5, "Relevance Detection": 1.0}
    assert summary["left_out"] == {
        "simple": ["simple_java", "simple_javascript"],
        "non_live": ["simple_java", "simple_javascript", "parallel", "parallel_multiple"],
        "live": ["live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"],
        "irrelevance": ["irrelevance", "live_irrelevance"],
    }


def test_a_sample_counts_categories_by_their_full_sizes():
    benchmark = BFCL(["live"], limit=20)
    rights = dict.fromkeys(LIVE, 0) | {"live_simple": 10, "live_multiple": 20, "live_parallel": 16}
    summary, scored = summary_of(benchmark, rights)
    expected = (258 * 10 / 20 + 1053 * 20 / 20 + 16 * 16 / 16 + 24 * 0) / (258 + 1053 + 16 + 24)
    assert mean(scored, "live") == pytest.approx(expected, abs=1e-12)
    assert summary["leaderboard"]["overall"]["Live Acc"] == pytest.approx(expected, abs=1e-12)
    assert mean(scored, "accuracy") == (10 + 20 + 16) / (20 + 20 + 16 + 20 + 20 + 16)


def test_a_missing_score_is_not_a_wrong_one():
    benchmark = BFCL(["live_parallel", "live_relevance"])
    rights, missing = {"live_parallel": 4, "live_relevance": 0}, {"live_parallel": 8, "live_relevance": 16}
    summary, scored = summary_of(benchmark, rights, missing)
    assert mean(scored, "category:live_parallel") == 4 / 8
    assert summary["leaderboard"]["live"] == {"Python Parallel AST": 4 / 8}
    assert summary["left_out"]["relevance"] == ["live_relevance"], "no score at all decides nothing"


class Lossy:
    """Calls nothing where nothing is to be called, and always calls elsewhere; of ``lost`` items it has no reply."""

    def __init__(self, lost: set[str]) -> None:
        self.lost = lost

    def identity(self) -> dict[str, Any]:
        return {"name": "lossy"}

    async def replies(
        self, items: Sequence[Item], wanted: Set[Key], generation: Generation
    ) -> AsyncIterator[list[tuple[Item, Reply]]]:
        call = {"name": "f", "arguments": "{}"}
        replies = {"irrelevance": Reply("No."), "live_irrelevance": Reply("", calls=(call,))}
        yield [
            (item, Reply.missing("too_long") if item.id in self.lost else replies[item.labels["category"]])
            for item in items
        ]


@pytest.mark.parametrize(("lost", "mean"), [(0, 0.5), (19, 0.5), (20, None)])
def test_a_category_keeps_its_share_where_replies_are_missing(tmp_path: Path, lost: int, mean: float | None):
    """All right in one category, all wrong in the other: 1/2, as in the leaderboard's table, however many are lost."""
    benchmark = BFCL(["irrelevance", "live_irrelevance"], limit=20)
    ids = [item.id for item in benchmark.items() if item.labels["category"] == "irrelevance"]
    results = evaluate(benchmark, Lossy(set(ids[:lost])), tmp_path, quiet=True)
    assert results["metrics"]["irrelevance"]["mean"] == (None if mean is None else pytest.approx(mean))
    assert results["metrics"]["irrelevance"]["missing"] == lost
    assert results["summary"]["leaderboard"]["overall"].get("Irrelevance Detection") == mean


def test_metrics_are_those_that_are_scored():
    benchmark = BFCL(limit=1)
    for item in benchmark.items():
        (scored,) = score(benchmark, [(item, Reply("hm"))])
        assert list(scored.scores) == list(benchmark.metrics(item))
        assert set(scored.weights) == {name for name in scored.scores if ":" not in name} - {"accuracy"}
        json.dumps(scored.details)
    assert benchmark.primary == "accuracy"
    assert set(GROUPS) == {"all", "non_live", "live"}
