"""The figures that the docs draw again, and those that they show."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import figures

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHOWN = re.compile(r"figures/([\w-]+)\.png")


def test_the_arena_is_drawn_from_the_shipped_scores(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    figures.arena(tmp_path)
    with image.open(tmp_path / "arena.png") as drawn, image.open(figures.FIGURES / "arena.png") as shown:
        assert drawn.size == shown.size, "the scores have changed: run `make figures`"
        assert len(drawn.convert("RGB").getcolors(2**16)) > 10, "it is empty"


def test_each_figure_is_shown_and_exists():
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    shown = {name for page in pages for name in SHOWN.findall(page.read_text("utf-8"))}
    assert shown == {path.stem for path in figures.FIGURES.glob("*.png")}
    assert {"arena", *figures.SCREENS} <= shown
