"""The check of plain words itself: what it finds, where, and that limits only go down."""

from __future__ import annotations

from pathlib import Path

import pytest

import words


@pytest.mark.parametrize(
    "text",
    [
        "a log with a column a reward",
        "one line a seed",
        "# a verdict a\n# criterion",
        "allowed are 1 to 3",
        "max_step is no option of RVPOConfig",
        "raised where there is none",
        '    "lines are removed that lie behind "\n    f"the checkpoint"',
        "        seed: of the bootstrap.",
        "more prompts would tell",
        "a verdict that could not be had",
    ],
)
def test_idioms_are_found(text: str):
    assert [line for line, _, _ in words.hits(text)] == [1]


@pytest.mark.parametrize(
    "text",
    [
        "one column per reward",
        "k is -1; expected a number >= 0",
        "there is no group",
        "if value is None: return None",
        "a judge behind a server",
        "        seed: random seed of the bootstrap",
        "k is no longer supported",
        "a method that a file defines",
    ],
)
def test_plain_words_pass(text: str):
    assert not list(words.hits(text))


def test_limits_only_go_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "docs").mkdir()
    page, limits = tmp_path / "docs" / "page.md", tmp_path / "words.toml"
    page.write_text("One line a seed.\n\nNothing is\nbeside it.\n")
    limits.write_text('"docs" = {start = 3, limit = 2}\n')
    assert words.main([], tmp_path, limits) == 0

    page.write_text("One line a seed.\n")
    assert words.main([], tmp_path, limits) == 0
    assert "lower the limit" in capsys.readouterr().out
    assert words.main(["--lower"], tmp_path, limits) == 0
    assert words.read_limits(limits) == {"docs": {"start": 3, "limit": 1}}

    page.write_text("One line a seed.\n\nNothing is\nbeside it.\n")
    assert words.main(["--lower"], tmp_path, limits) == 1
    assert words.read_limits(limits)["docs"]["limit"] == 1
    out = capsys.readouterr().out
    assert "docs/page.md:4: 'beside' -> next to, besides" in out
    assert "docs: 2 idioms; expected at most 1" in out


def test_a_new_room_has_no_idioms(tmp_path: Path):
    (tmp_path / "src" / "rvpo" / "new").mkdir(parents=True)
    (tmp_path / "src" / "rvpo" / "new" / "file.py").write_text("# one line a seed\n")
    assert words.main([], tmp_path, tmp_path / "words.toml") == 1
