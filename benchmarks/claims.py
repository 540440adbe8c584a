"""The table of claims and the other tables of docs/results that are made from docs/results/data.

    python benchmarks/claims.py             # writes the tables into the pages
    python benchmarks/claims.py --check     # only says which pages differ, with exit code 1

A page has one pair of comments per table, ``<!-- data: claims.yaml -->`` and ``<!-- end -->``. Everything between them is
made here. ``tests/benchmarks/test_claims.py`` checks that pages and data agree, and that a page has the numbers of its claims.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import first_order
import taylor
import yaml

from rvpo.arena.known import PUBLISHED, Known
from rvpo.arena.table import TIE, Scores, markdown

DOCS = Path(__file__).resolve().parents[1] / "docs"
DATA = DOCS / "results" / "data"
TABLE = re.compile(r"(<!-- data: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
ABOUT = {
    "paper": "RVPO's paper",
    "others": "Other papers and tools",
    "lift": "LIFT",
    "tools": "This toolkit",
}
STATUSES = ("reproduced", "refuted", "undecided", "untested", "ours")


def claims() -> list[dict[str, str]]:
    """Return the claims in the order of the file."""
    return yaml.safe_load((DATA / "claims.yaml").read_text("utf-8"))  # type: ignore[no-any-return]


def claims_table(_: str) -> list[str]:
    """Return the lines of the table of claims, with a line above each subject."""
    lines = ["| claim | number | command | size | status |", "|---|---|---|---|---|"]
    for about, title in ABOUT.items():
        lines.append(f"| **{title}** | | | | |")
        for entry in claims():
            if entry["about"] != about:
                continue
            command, number = entry.get("command"), entry.get("number", "not measured")
            cells = [
                entry["claim"],
                f"[{number}]({entry['page']})",
                f"`{command}`" if command else "",
                entry.get("size", ""),
                entry["status"],
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def taylor_table(name: str) -> list[str]:
    """Return the tables of ``benchmarks/taylor.py`` from its numbers."""
    found: dict[str, Any] = json.loads((DATA / name).read_text("utf-8"))
    return taylor.tables(found)


def first_order_table(name: str) -> list[str]:
    """Return the table of ``benchmarks/first_order.py`` from its numbers."""
    return first_order.table(json.loads((DATA / name).read_text("utf-8")))


def arena_table(name: str) -> list[str]:
    """Return the table of ``rvpo arena`` from its numbers."""
    found: dict[str, Any] = json.loads((DATA / name).read_text("utf-8"))
    return markdown(len(found["cells"]), found["rules"], "gdpo").split("\n")


def arena_cells_table(field: str) -> list[str]:
    """Return the AUC of each rule in each cell of a field, from the scores that the package ships.

    The highest of a cell is bold, with those within ``TIE`` of it.
    """
    runs = Known.read(PUBLISHED).runs[field]
    methods = list(dict.fromkeys(run.method for run in runs))
    scores = Scores.of(runs, methods, sorted({run.seed for run in runs}))
    means = scores.auc.mean(2)  # (methods, cells)
    order = sorted(range(len(methods)), key=lambda i: -means[i].mean())
    lines = ["| cell | " + " | ".join(f"`{methods[i]}`" for i in order) + " |", "|---" + "|--:" * len(order) + "|"]
    for j, cell in enumerate(scores.cells):
        best = means[:, j].max()
        shown = [f"{means[i, j]:.2f}".removeprefix("0") for i in order]
        bold = [f"**{text}**" if means[i, j] >= best - TIE else text for i, text in zip(order, shown, strict=True)]
        lines.append(f"| {cell} | " + " | ".join(bold) + " |")
    return lines


TABLES: dict[str, Callable[[str], list[str]]] = {
    "claims.yaml": claims_table,
    "arena-worlds.json": arena_table,
    "arena-regimes.json": arena_table,
    "worlds": arena_cells_table,  # fields of the arena, whose scores the package ships
    "regimes": arena_cells_table,
    "first-order.json": first_order_table,
    "suppressed.json": first_order_table,
    "taylor-demo.json": taylor_table,
    "taylor-quickstart.json": taylor_table,
}


def made(page: str) -> str:
    """Return the text of a page with its tables made anew."""

    def table(found: re.Match[str]) -> str:
        before, name, after = found.groups()
        return "\n".join([before, *TABLES[name](name), "", after])

    return TABLE.sub(table, page)


def pages() -> list[Path]:
    """Return the pages that have such tables."""
    return [page for page in sorted(DOCS.rglob("*.md")) if TABLE.search(page.read_text("utf-8"))]


def main() -> None:
    """Write the tables, or say where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    differing = [page for page in pages() if made(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in differing:
        if not args.check:
            page.write_text(made(page.read_text("utf-8")), "utf-8")
        print(("differs: " if args.check else "written: ") + str(page.relative_to(DOCS)))
    if args.check and differing:
        sys.exit(1)


if __name__ == "__main__":
    main()
