"""Tables in narrow terminals, and colours where they are wanted."""

from __future__ import annotations

import io
import re

import pytest

from rvpo.text.tables import aligned, fitted
from rvpo.text.terminal import NARROWEST, PIPED, Terminal, current

TABLE = [
    ["channel", "verdict", "sure", "pull", "correlation"],
    ["correctness", "healthy", "100%", "1.74 [1.60, 1.88]", "+0.79 [+0.77, +0.80]"],
    ["日本語の報酬", "neglected", "98%", "0.10 [0.07, 0.12]", "-"],
    ["a name of many words that no narrow terminal holds", "unclear", "", "-", "-0.36 [-0.40, -0.33]"],
]


def columns(line: str) -> int:
    return sum(2 if ord(c) > 0x2FFF else 1 for c in line)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 118])
def test_a_table_fits_and_says_the_same(width: int):
    lines = fitted(TABLE, width)
    assert max(map(columns, lines)) <= width
    told = " ".join(" ".join(lines).split())
    for cell in (cell for row in TABLE[1:] for cell in row if cell not in ("", "-")):
        assert cell in told


def test_intervals_and_then_columns_are_left_out_before_a_table_is_cut_up():
    table = [["channel", "verdict", "live", "pull"], ["format", "neglected", "100%", "0.10 [0.07, 0.12]"]]
    narrower = fitted(table, 40, spare=["live"])
    assert narrower == ["channel  verdict    live  pull", "format   neglected  100%  0.10", "(no room for intervals)"]
    assert fitted(table, 29, spare=["live"])[1:] == ["format   neglected  0.10", "(no room for intervals, live)"]
    assert fitted(table, 20, spare=["live"])[0] == "format"


def test_a_wide_terminal_gets_the_table_as_it_is():
    assert fitted(TABLE, 200) == aligned(TABLE)
    starts = {
        columns(line[: line.index(word)])
        for line, word in zip(aligned(TABLE)[1:], ("healthy", "neglected", "unclear"), strict=True)
    }
    assert len(starts) == 1  # wide letters count as two columns


def test_a_word_that_is_longer_than_a_line_stays_whole():
    assert fitted([["a", "b"], ["x" * 50, "y"]], 20) == ["x" * 50, "  b y"]


def test_colours_change_nothing_else():
    coloured = Terminal(colours=True)
    for width in (40, 200):
        painted = fitted(TABLE, width, coloured.paint)
        assert any("\x1b[1;31mneglected" in line for line in painted)
        assert [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in painted] == [
            line.rstrip() for line in fitted(TABLE, width)
        ]
    assert fitted(TABLE, 200, Terminal().paint) == fitted(TABLE, 200)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "screen", "colours"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_who_gets_colours(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], screen: bool, colours: bool):
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert current(Screen() if screen else io.StringIO()).colours is colours


@pytest.mark.parametrize(
    ("given", "width"), [("60", 60), ("3", NARROWEST), ("0", PIPED), ("wide", PIPED), (None, PIPED)]
)
def test_the_width_of_a_pipe(monkeypatch: pytest.MonkeyPatch, given: str | None, width: int):
    monkeypatch.delenv("COLUMNS", raising=False)
    if given is not None:
        monkeypatch.setenv("COLUMNS", given)
    assert current(io.StringIO()).width == width
