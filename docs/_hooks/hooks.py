"""What mkdocs calls while it builds the site: generated parts, links into the source, pages of results, llms.txt."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import generated
import links
import llms

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent


def on_config(config: Any) -> Any:
    """Expand entries of the navigation such as ``results/*.md``: pages of results come and go with their data."""
    config["nav"] = expanded(config["nav"], DOCS)
    return config


def expanded(nav: list[Any], docs: Path) -> list[Any]:
    """Return a navigation whose patterns are replaced by the files that they match, in order."""
    whole: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            found = [path.relative_to(docs).as_posix() for path in sorted(docs.glob(entry))]
            whole += [page for page in found if page not in nav]
        elif isinstance(entry, dict):
            whole += [{k: expanded(v, docs) if isinstance(v, list) else v for k, v in entry.items()}]
        else:
            whole.append(entry)
    return whole


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Fill in generated parts, and send links that leave the docs to the repository."""
    return source_links(generated.fill(markdown), DOCS / page.file.src_path, config["repo_url"] or "")


def source_links(text: str, page: Path, repository: str) -> str:
    """Return a page whose links to files outside of the docs lead to the repository, or are plain text without one."""

    def replaced(match: re.Match[str]) -> str:
        file = links.leaves(match["target"], page, DOCS)
        if file is None:
            return match[0]
        if not file.exists():
            raise FileNotFoundError(f"{page.relative_to(ROOT)} links to {match['target']}, which does not exist")
        if not repository:
            return match["text"]
        kind = "tree" if file.is_dir() else "blob"
        return f"[{match['text']}]({repository.rstrip('/')}/{kind}/main/{file.relative_to(ROOT).as_posix()})"

    # A link in a code block is text, so only what is between the blocks is changed.
    pieces, start = [], 0
    for fence in links.FENCE.finditer(text):
        pieces += [links.LINK.sub(replaced, text[start : fence.start()]), fence[0]]
        start = fence.end()
    return "".join([*pieces, links.LINK.sub(replaced, text[start:])])


def on_post_build(config: Any) -> None:
    """Write llms.txt: the list of all pages, for language models that read the site."""
    text = llms.llms_txt(config["nav"], DOCS, config["site_url"] or "")
    (Path(config["site_dir"]) / "llms.txt").write_text(text, encoding="utf-8")
