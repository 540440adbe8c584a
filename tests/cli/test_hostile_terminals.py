"""No control sequence of a stranger reaches the terminal, in whatever a command prints, logs or refuses."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from pathlib import Path

import pytest

from rvpo.cli.app import main
from rvpo.text.guarded import Formatter, Guarded, harmless

STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
EVIL = "e\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\rvil\x08"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run a command in this process, and return all that it printed."""
    said = io.StringIO()
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, said)
    monkeypatch.setattr(sys, "argv", ["rvpo", *arguments])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.raises(SystemExit):
        main()
    return said.getvalue()


def log(folder: Path) -> Path:
    """Write a log of a stranger, with hostile names of rewards and texts, under a hostile name."""
    path = folder / f"{EVIL}.jsonl"
    rows = [
        {"step": i // 8, "prompt": f"p{i // 4} {EVIL}", "completion": f"c{i} {EVIL}", f"{EVIL}_reward": i % 3,
         "other_reward": (i * 7) % 5, "advantage": (i * 3) % 7 - 3.0}
        for i in range(32)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    "arguments",
    [("train", f"{EVIL}.yaml"), ("train", "r.yaml", f"{EVIL}={EVIL}"), ("check", f"{EVIL}:f"), (EVIL,), ("--" + EVIL,),
     ("diagnose", EVIL), ("report", EVIL, f"--{EVIL}"), ("replay", EVIL), ("judge", EVIL, "--judge", EVIL),
     ("compare", f"{EVIL}={EVIL}"), ("eval", EVIL)],
)  # fmt: skip
def test_a_hostile_argument_is_refused_harmlessly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("name: a\n")
    said = run(monkeypatch, *arguments)
    assert said
    assert STEERING.search(said) is None, said.encode()


@pytest.mark.parametrize("command", ["diagnose", "report", "replay"])
def test_a_hostile_log_is_told_harmlessly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str):
    monkeypatch.chdir(tmp_path)
    said = run(monkeypatch, command, str(log(tmp_path)))
    assert "other" in said or "html" in said
    assert STEERING.search(said) is None, said.encode()


@pytest.mark.parametrize(
    "text", [EVIL, "\x1b[31mred\x1b[0m", "\x1bc", "\x1b[6n", "\u2066\u2069", "\x85\x9d", "\ud83d", "a\x00b", "\x7f"]
)
def test_what_is_written_or_logged_is_harmless(text: str):
    file = io.StringIO()
    Guarded(file).write(f"{text}\n")
    record = logging.LogRecord("rvpo", logging.WARNING, "", 0, "%s", (text,), None)
    for shown in (file.getvalue(), Formatter("%(message)s").format(record)):
        assert STEERING.search(shown) is None
        assert "\N{REPLACEMENT CHARACTER}" in shown


def test_a_terminal_keeps_colours_and_progress_bars_and_nothing_else():
    bar = "\r 12%|#  | 1/8\x1b[A"
    assert harmless(bar, terminal=True) == bar
    assert harmless("\x1b[1;31mred\x1b[0m\n", terminal=True) == "\x1b[1;31mred\x1b[0m\n"
    for text in ("\x1b[2J", "\x1b]0;title\x07", "a\rb", "\x1b[31", "\x9b31m", "\u202e"):
        assert "\x1b" not in harmless(text, terminal=True)
        assert STEERING.search(harmless(text, terminal=True)) is None


def test_plain_text_of_any_script_stays():
    text = "naïve 漢字 👩\u200d💻 שלום\tx\nline\n"
    assert harmless(text) == text
