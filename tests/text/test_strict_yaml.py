"""Strict YAML: what SafeLoader reads, minus what a reader would misread."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import rvpo
from rvpo.text import strict_yaml
from rvpo.text.strict_yaml import MAX_DEPTH, MAX_REPEATED


def refused(text: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller looks at the message
        strict_yaml.load_yaml(text)
    assert not isinstance(caught.value, yaml.YAMLError)
    return " ".join(str(caught.value).split())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "a: 1\nb: [x, yes, ~, 1.5, 0x10, 1_000]\nc: {d: {e: 2024-01-02}}\n",
        "- &a {k: 1}\n- *a\n- {<<: *a, k: 2}\n- {<<: [*a, {l: 3}], m: 4}\n",
        "a: |\n  text\n  more\nb: >-\n  folded\n  too\n",
        "? 1\n: one\n? true\n: yes\n".replace("1\n", "2\n"),
        "'1e5': '1e5'\n",
        "!!set {a, b}",
        "\ufeffa: 1",
        "a: é\n",
    ],
)
def test_it_reads_what_the_safe_loader_reads(text: str):
    assert strict_yaml.load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["1e-5", "1E5", "2e+3", "-3e0", "1.5e4", "1.e3", ".5e1", "+.5E-1", "1_000e0"])
def test_scientific_notation_is_a_number(text: str):
    found = strict_yaml.load_yaml(f"a: {text}")["a"]
    assert isinstance(found, float)
    assert found == float(text.replace("_", ""))


@pytest.mark.parametrize("text", ["1e5x", "e5", "1e", ".e5", "'1e5'", "1e5.0"])
def test_other_words_stay_text(text: str):
    assert strict_yaml.load_yaml(f"a: {text}")["a"] == text.strip("'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nother: b\nname: c\n", "the key 'name' occurs twice, first in line 1"),
        ("a: {k: 1, k: 2}\n", "the key 'k' occurs twice, first in line 1"),
        ("- - {k: 1,\n     'k': 2}\n", "the key 'k' occurs twice, first in line 1"),
        ("1: a\n0x1: b\n", "the key 1 occurs twice"),
        ("1: a\ntrue: b\n", "the key True occurs twice"),
        ("1e3: a\n1000: b\n", "the key 1000 occurs twice"),
        ("a: {<<: {k: 1, k: 2}}\n", "the key 'k' occurs twice"),
        ("- &a {k: 1}\n- {<<: *a, k: 2, k: 3}\n", "the key 'k' occurs twice"),
        ("!!set {a, a}", "the key 'a' occurs twice"),
    ],
)
def test_a_repeated_key_is_refused(text: str, message: str):
    assert message in refused(text)


def test_the_message_has_both_lines():
    assert "first in line 1 in" in (told := refused("name: a\nother: b\nname: c\n"))
    assert "line 3, column 1" in told


def test_a_merged_mapping_may_be_overridden_wherever_it_lies():
    """SafeLoader merges into the tree of nodes, here before the deeper mapping is built."""
    text = "base: &a {k: 1}\nx: {y: {z: &b {<<: *a, k: 2}}}\nc: {<<: *b, k: 3}\n"
    assert strict_yaml.load_yaml(text) == {"base": {"k": 1}, "x": {"y": {"z": {"k": 2}}}, "c": {"k": 3}}


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: [*a]}", "&a {<<: *a}", "? &a [*a]\n: 1"])
def test_a_value_inside_itself_is_refused(text: str):
    assert "the alias *a is inside the value that it repeats" in refused(text)


@pytest.mark.parametrize(
    ("opened", "closed"), [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("!!omap [a: ", "]")], ids=repr
)
def test_depth_is_bounded(opened: str, closed: str):
    assert f"the values are nested more than {MAX_DEPTH} deep" in refused(opened * 20_000 + closed * 20_000)


def test_what_is_nested_less_is_read():
    value = strict_yaml.load_yaml("[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1))
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == 1


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_a_billion_laughs_are_refused_at_once(form: str):
    lines = ["l0: &l0 {k: lol}" if "<<" in form else "l0: &l0 [lol]"]
    lines += [f"l{i}: &l{i} " + form.format(", ".join([f"*l{i - 1}"] * 10)) for i in range(1, 12)]
    started = time.process_time()  # written out it would be 10 to the 11th values, for hours
    assert f"aliases repeat more than {MAX_REPEATED} values" in refused("\n".join(lines))
    assert time.process_time() - started < 60


def test_many_small_aliases_are_fine():
    """As in a file of rubrics that share criteria."""
    text = "shared: &s [{id: a, text: b}]\nall:\n" + "- *s\n" * 5000
    assert len(strict_yaml.load_yaml(text)["all"]) == 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b", "expected ',' or ']'"),
        ("a: 2024-13-01", "month must be in 1..12"),
        ("? [a]\n: b", "unhashable key"),
        ("a: *b", "found undefined alias 'b'"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: \x00", "special characters are not allowed"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("!!bool x", "a value does not fit its tag (KeyError: 'x')"),
        ("!!timestamp x", "a value does not fit its tag (AttributeError"),
        ("!!int x", "invalid literal for int()"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("<<: a", "expected a mapping or list of mappings for merging"),
    ],
)
def test_every_failure_is_a_value_error(text: str, message: str):
    assert message in refused(text)


def test_what_is_no_number_is_one_in_yaml():
    assert math.isnan(strict_yaml.load_yaml(".nan"))
    assert strict_yaml.load_yaml("-.inf") == -math.inf


def test_pyyaml_is_imported_on_first_use():
    code = "import sys, rvpo.text.strict_yaml as s; assert 'yaml' not in sys.modules; print(s.load_yaml('a: 1e1'))"
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'a': 10.0}"


def test_loaders_of_others_stay_as_they_are():
    strict_yaml.load_yaml("a: 1e5")
    assert yaml.safe_load("{a: 1e5, a: 1e5}") == {"a": "1e5"}


# --- what would take long ---------------------------------------------------------------------------------------------

MANY = strict_yaml.MAX_VALUES
LONG = strict_yaml.MAX_CHARACTERS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("".join(f"k{i}: {i}\n" for i in range(MANY)), f"there are more than {MANY} keys and values"),
        ("- a\n" * 2 * MANY, f"there are more than {MANY} keys and values"),
        ("- [" + "1," * 2 * MANY + "]", f"there are more than {MANY} keys and values"),
        ("a: " + "x" * LONG, "characters; expected at most"),
        ("#" * LONG + "\na: 1", "characters; expected at most"),
        ("a: " + "9" * 400, "an integer is beyond 1.8e308"),
        ("a: -0x" + "f" * 400, "an integer is beyond 1.8e308"),
        ("a: 1" + ":59" * 400, "an integer is beyond 1.8e308"),
    ],
)
def test_what_is_too_large_is_refused(text: str, message: str):
    assert message in refused(text)
