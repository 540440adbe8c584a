"""The code blocks of documentation pages: what each is, and a runner that runs a page from top to bottom.

A fenced block is one of:

- ``python`` runs in this process; all blocks of a page share their names.
- ``bash`` runs with ``rvpo`` and ``python`` of this environment.
- any language with ``title="FILE"`` is written to that file in the page's folder.
- ``text`` is what the block before it prints: every line, with any white space, and ``…`` for anything.
- ``yaml``, ``diff`` and others are read by their parser.

Two comments may be directly before a block: ``<!-- not run: REASON -->`` (it is then only parsed) and
``<!-- slow: REASON -->`` (it runs at night). Before anything else, the second one makes the whole page slow.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import rvpo

BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|slow): (?P<reason>[^\n]+?) -->\n)?"
    r"^(?P<fence>`{3,})(?P<language>\w*)(?: +title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<code>.*?)^(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
SLOW_PAGE = re.compile(r"^<!-- slow: [^\n]+ -->\n(?!```)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block of a page; ``mark`` is "not run", "slow" or None, ``title`` the file that it is written to."""

    language: str
    code: str
    mark: str | None = None
    reason: str | None = None
    title: str | None = None

    @property
    def fate(self) -> str:
        """What the tests do with it."""
        if self.mark == "not run":
            return "not run"
        if self.title or self.language in ("python", "bash"):
            return "run"
        return "compared" if self.language == "text" else "parsed"


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page in order."""
    found = BLOCK.finditer(text)
    return [Block(m["language"], m["code"], m["mark"], m["reason"], m["title"]) for m in found]


def is_slow(text: str) -> bool:
    """Whether the whole page runs at night only."""
    return SLOW_PAGE.search(text) is not None


def parse(block: Block) -> None:
    """Read a block that is not run by its language's parser; raises where it cannot be read."""
    if block.language == "python":
        ast.parse(block.code)
    elif block.language == "bash":
        _bash("-n", "-c", block.code)
    elif block.language == "yaml":
        yaml.safe_load(block.code)
    elif block.language == "diff":
        new = "".join(line[1:] for line in block.code.splitlines(True) if not line.startswith("-"))
        try:
            ast.parse(new)
        except SyntaxError:
            _bash("-n", "-c", new)
    else:
        raise AssertionError(f"a block is {block.language!r}; expected python, bash, yaml, diff, text or a title")


def _bash(*arguments: str) -> None:
    done = subprocess.run(["bash", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Runner:
    """Runs the blocks of a page in a folder.

    Args:
        folder: new, the working directory.
        stand_ins: text in the blocks -> what takes its place here, such as the address of a server.
    """

    def __init__(self, folder: Path, stand_ins: Mapping[str, str]) -> None:
        self.folder, self.stand_ins = folder, dict(stand_ins)
        self.names: dict[str, Any] = {"__name__": "a_page"}
        self.printed = ""
        programs = folder.with_name(folder.name + "-bin")
        programs.mkdir()
        for name, command in (("rvpo", f"{sys.executable} -m rvpo"), ("python", sys.executable)):
            (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (programs / name).chmod(stat.S_IRWXU)
        self.environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(rvpo.__file__).parents[1]),
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "80",  # the width for which the pages show tables
        }

    def run(self, page: str, *, slow: bool) -> None:
        """Run a page from top to bottom; ``slow`` includes the blocks for the night."""
        for block in blocks(page):
            if block.fate in ("not run", "parsed"):
                parse(block)
            elif slow or block.mark != "slow":
                self._run(block)

    def _run(self, block: Block) -> None:
        code = block.code
        for text, stand_in in self.stand_ins.items():
            code = code.replace(text, stand_in)
        if block.title:
            (self.folder / block.title).write_text(code, "utf-8")
            self._forget(block.title)
        elif block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, "a block of a page", "exec"), self.names)
            self.printed = out.getvalue()
        elif block.language == "bash":
            done = subprocess.run(
                ["bash", "-e", "-c", code],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
            self.printed = done.stdout + done.stderr
        else:
            self._compare(code)

    def _compare(self, expected: str) -> None:
        printed = " ".join(self.printed.split())
        for line in expected.splitlines():
            for part in line.split("…"):
                assert " ".join(part.split()) in printed, f"expected {line!r} in:\n{self.printed}"

    @staticmethod
    def _forget(file: str) -> None:
        """Modules of an earlier page with the same name are not this page's."""
        sys.modules.pop(file.removesuffix(".py"), None)
        importlib.invalidate_caches()
