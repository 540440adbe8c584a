"""The report page as a text: one file, no network, and nothing of a log that HTML could read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import rule_cases
from report_data import HOSTILE, hostile, report, run

from rvpo import page
from rvpo.core.methods.registry import METHODS
from rvpo.errors import ConfigError, DataError
from rvpo.page.build import SCRIPTS, embed

pytest.importorskip("plotly", reason="the extra report is not installed")
FOLDER = Path(page.__file__).parent / "assets"


class Reader(HTMLParser):
    """Collect the elements, and the texts of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.elements and self.lasttag == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data

    def the(self, tag: str, **wanted: str) -> dict[str, str | None]:
        (found,) = [a for name, a in self.elements if name == tag and wanted.items() <= a.items()]
        return found

    @property
    def policy(self) -> dict[str, list[str]]:
        content = self.the("meta", **{"http-equiv": "Content-Security-Policy"})["content"]
        assert content
        return {part.split()[0]: part.split()[1:] for part in content.split(";")}


def test_the_data_stand_in_the_page_as_they_were_given():
    data = report()
    read = Reader(page.render(data))
    assert json.loads(read.scripts[0]) == data
    assert read.the("script", id="report-data")["type"] == "application/json"


def test_hostile_texts_add_no_element():
    quiet, attacked = Reader(page.render(report())), Reader(page.render(hostile()))
    assert [tag for tag, _ in attacked.elements] == [tag for tag, _ in quiet.elements]
    assert "img" not in [tag for tag, _ in attacked.elements]
    found = json.loads(attacked.scripts[0])
    assert found["runs"][0]["samples"][0]["completion"] == f"{HOSTILE}<!-- <script>"


@pytest.mark.parametrize("text", [HOSTILE, "<!--", "a & b", "\u2028\u2029", "half \ud800 surrogate", '"\\', "\0\x1f"])
def test_a_text_survives_and_html_reads_nothing_in_it(text: str):
    embedded = embed({"text": [text]})
    assert json.loads(embedded) == {"text": [text]}
    assert not re.search("[<>&\u2028\u2029]", embedded)
    embedded.encode("utf-8")


def test_other_letters_are_not_spelt_out():
    assert embed("東京 – Zürich") == '"東京 – Zürich"'


def test_numbers_that_json_does_not_have_are_null():
    assert embed({"a": [float("nan"), float("inf"), 1.5], "b": (1, None)}) == '{"a":[null,null,1.5],"b":[1,null]}'


def test_data_that_are_not_plain_are_refused():
    with pytest.raises(DataError, match=r"is not plain JSON .Object of type PosixPath"):
        page.render(report(title=Path("x")))


@pytest.mark.parametrize("schema", [None, "rvpo.report/2"])
def test_another_schema_is_refused(schema: str | None):
    with pytest.raises(DataError, match=r"expected 'rvpo\.report/1'"):
        page.render(report(schema=schema))


def test_without_plotly_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    from rvpo.page import build

    build._plotly.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=r"\[report\]"):
        page.render(report())


def test_the_policy_knows_every_script_by_its_hash_and_no_other():
    read = Reader(page.render(report()))
    scripts = read.scripts[1:]  # the first is the data
    assert len(scripts) == len(SCRIPTS) + 1
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    assert read.policy["script-src"] == hashes
    assert read.policy["default-src"] == ["'none'"]


@pytest.mark.parametrize(("live", "allowed"), [(False, "'none'"), (True, "'self'")])
def test_only_a_live_page_may_fetch_and_only_from_where_it_came(live: bool, allowed: str):
    policy = Reader(page.render(report(live=live))).policy
    assert policy["connect-src"] == [allowed]
    assert not [source for sources in policy.values() for source in sources if "//" in source or source == "*"]


def test_nothing_in_the_page_points_elsewhere():
    read = Reader(page.render(report()))
    targets = [a[key] for _, a in read.elements for key in ("src", "href", "action", "data") if a.get(key)]
    assert targets
    assert all(target.startswith(("#", "data:")) for target in targets)


def test_the_file_stays_under_ten_megabytes():
    large = report(runs=[run(channels=200, points=200, samples=20)], comparison=None)
    assert len(page.render(large).encode()) < 10_000_000


def test_rendering_is_repeatable():
    assert page.render(report()) == page.render(report())


@pytest.mark.parametrize("name", [*SCRIPTS, "page.css"])
def test_our_files_can_stand_in_a_page_and_evaluate_nothing(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert not re.search(r"</(script|style)", text, re.IGNORECASE)
    assert "<!--" not in text
    assert not re.search(r"\beval\b|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc", text)
    assert re.match(r'("use strict";\n)?/\*', text), "a file begins with a comment that says what it is"


def test_scripts_and_template_name_the_same_elements():
    template = (FOLDER / "template.html").read_text(encoding="utf-8")
    there = set(re.findall(r'\bid="([\w-]+)"', template))
    scripts = "".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    wanted = set(re.findall(r'(?:byId|Dom\.show|Charts\.draw|Charts\.forget|Charts\.table)\("([\w-]+)"', scripts))
    made = {"probe", "sort-verdict", "option-rvpo_explicit-beta"}  # by the scripts themselves
    assert wanted - there == made & wanted
    labels = set(re.findall(r'aria-labelledby="([\w-]+)"|\bfor="([\w-]+)"', template))
    assert {label for pair in labels for label in pair if label} <= there


def under_node(expression: str, cases: list | None = None) -> object:
    """Return the value of a JavaScript expression in which ``Rules`` and ``cases`` are known."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed; tests/page/browser compares the rules in a browser")
    code = f"""
const Rules = require({json.dumps(str(FOLDER / "rules.js"))});
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify({expression}));
"""
    done = subprocess.run([node, "-e", code], input=json.dumps(cases), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_methods_in_javascript_have_the_names_and_defaults_of_rvpo():
    found = under_node("Object.fromEntries(Object.entries(Rules.METHODS).map(([name, m]) => [name, m.options]))")
    assert set(found) == set(rule_cases.OPTIONS)
    for name, options in found.items():
        defaults = METHODS[name]().options()
        assert {key: value for key, value in defaults.items() if key in options} == options
        assert set(options) >= set(rule_cases.OPTIONS[name])


def test_rules_in_javascript_agree_with_rvpo_under_node():
    """As tests/page/browser does in the page itself; here on more groups."""
    cases = rule_cases.cases(1600)
    found = under_node(f"({rule_cases.IN_JAVASCRIPT})(cases)", cases)
    assert rule_cases.differing(cases, found) == []
