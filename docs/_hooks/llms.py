"""``llms.txt``: the pages of the site with one line each, in the order of the navigation (llmstxt.org)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import links

HEAD = """# rvpo

> Train language models on many rewards without neglecting one. rvpo diagnoses which rewards of a finished run were
> ignored (TRL, verl, JSONL and other logs). It trains with methods that ignore none, such as LIFT and RVPO, in TRL's
> GRPOTrainer, in verl and in any other loop.
"""

NO_SENTENCE = ("#", "<", "|", "!", "- ", "---")
"""What a block begins with that is a heading, a comment, a table, a picture or a list."""


def llms_txt(nav: list[Any], docs: Path, site: str) -> str:
    """Return the text; ``site`` is the address of the site, empty for relative links."""
    lines = [HEAD]
    for section, page in _pages(nav, ""):
        if section is not None:
            lines.append(f"\n## {section}\n")
        if page is not None:
            text = (docs / page).read_text("utf-8")
            lines.append(f"- [{title(text)}]({site}{address(page)}): {description(text)}")
    return "\n".join(lines) + "\n"


def title(text: str) -> str:
    """Return the first heading of a page."""
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError("a page begins without a heading; expected '# Title' as its first line")
    return found[1].replace("`", "")


def description(text: str) -> str:
    """Return the first sentence of a page."""
    for block in re.split(r"\n\s*\n", links.without_code(text)):
        if not block.strip() or block.startswith(("    ", "\n    ")) or block.lstrip().startswith(NO_SENTENCE):
            continue
        plain = re.sub(r"\s+", " ", links.LINK.sub(lambda match: match["text"], block)).strip().replace("**", "")
        return re.split(r"(?<=[.?!])\s", plain)[0]
    return ""


def address(page: str) -> str:
    """Return the address of a page on the site: ``howto/judge.md`` is ``howto/judge/``."""
    path = page.removesuffix(".md")
    return path.removesuffix("index") if path == "index" or path.endswith("/index") else f"{path}/"


def _pages(nav: list[Any], section: str) -> Iterator[tuple[str | None, str | None]]:
    """Yield the sections and pages of a navigation in order."""
    for entry in nav:
        name, target = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(target, list):
            yield name, None
            yield from _pages(target, name)
        else:
            yield None, target
