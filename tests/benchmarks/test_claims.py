"""The pages of docs/results: tables agree with their data, claims with their pages, links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import claims

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = sorted([*RESULTS.glob("*.md"), *(ROOT / "docs" / f"{name}.md" for name in ("algorithm", "regimes", "worlds"))])
CLAIMS = claims.claims()
NUMBER = re.compile(r"(?<![\w.])[+−-]?(?:\d[\d,]*)?\.?\d+(?:e-?\d+)?")
WORDS = {"seven": "7", "eight": "8", "eighteen": "18", "twenty": "20"}


def anchor(heading: str) -> str:
    """Return the anchor that GitHub and MkDocs give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)}


def numbers(text: str) -> set[str]:
    """Return the numbers of a text without signs, leading zeros and separators of thousands."""
    found = (number.strip("+−-").replace(",", "").lstrip("0") for number in NUMBER.findall(text))
    return {number.rstrip(".") or "0" for number in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, part = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not part or part in anchors(target), link


def test_tables_are_those_of_the_data():
    named = [name for page in claims.pages() for _, name, _ in claims.TABLE.findall(page.read_text("utf-8"))]
    assert sorted(named) == sorted(claims.TABLES)
    files = {name for name in named if "." in name}  # the others are fields of the arena, whose scores rvpo ships
    assert files == {path.name for path in claims.DATA.iterdir()}
    for page in claims.pages():
        text = page.read_text("utf-8")
        assert claims.made(text) == text, f"{page.name}: run python benchmarks/claims.py"


def test_every_page_of_results_is_listed():
    text = (RESULTS / "index.md").read_text("utf-8")
    for page in RESULTS.glob("*.md"):
        assert page.stem == "index" or f"]({page.name})" in text, page.name


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["claim"][:40])
def test_a_claim_is_on_its_page(claim: dict[str, str]):
    assert set(claim) <= {"about", "claim", "number", "command", "size", "status", "page"}
    assert claim["about"] in claims.ABOUT
    assert claim["status"] in claims.STATUSES
    assert ("number" in claim) == (claim["status"] != "untested")
    name, _, part = claim["page"].partition("#")
    page = (RESULTS / name).resolve()
    assert not part or part in anchors(page)
    text = page.read_text("utf-8")
    for field in ("number", "size"):
        said = claim.get(field, "")
        for word, number in WORDS.items():
            said, text = re.sub(rf"\b{word}\b", number, said), re.sub(rf"(?i)\b{word}\b", number, text)
        assert numbers(said) <= numbers(text), (field, numbers(said) - numbers(text))
    for script in re.findall(r"[\w/-]+\.(?:py|yaml)", claim.get("command", "")):
        assert (ROOT / script).exists(), script
