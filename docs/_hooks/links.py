"""Links and anchors of Markdown pages: what the hooks rewrite, and what a test follows without building the site."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LINK = re.compile(r"(?<!\\)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+(?:\([^()\s]*\)[^()\s]*)?)\)")
FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,})[^\n]*\n.*?^(?P=indent)(?P=marks) *$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
OUTSIDE = ("http://", "https://", "mailto:")


def without_code(text: str) -> str:
    """Return a page without its code blocks, in which links and headings are plain text."""
    return FENCE.sub("", text)


def links(text: str) -> Iterator[str]:
    """Yield the targets of all links and pictures of a page."""
    for match in LINK.finditer(CODE.sub(lambda code: "x" * len(code[0]), without_code(text))):
        yield match["target"]


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as the extension ``toc`` of Python-Markdown makes it."""
    heading = LINK.sub(lambda match: match["text"], heading)
    plain = re.sub(r"[^\w\s-]", "", heading.encode("ascii", "ignore").decode()).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page; a heading that comes twice has ``_1`` at its second place, as ``toc`` names it."""
    found: set[str] = set()
    for heading in HEADING.findall(without_code(text)):
        name = first = anchor(heading)
        count = 0
        while name in found:
            count += 1
            name = f"{first}_{count}"
        found.add(name)
    return found


def pages(docs: Path) -> list[Path]:
    """Return all pages of a docs folder."""
    return sorted(path for path in docs.rglob("*.md") if "_hooks" not in path.parts)


def leaves(target: str, page: Path, docs: Path) -> Path | None:
    """Return the file that a link names if it lies outside of the docs folder, None for all other links."""
    if target.startswith((*OUTSIDE, "#")):
        return None
    file = (page.parent / target.partition("#")[0]).resolve()
    return None if file.is_relative_to(docs.resolve()) else file
