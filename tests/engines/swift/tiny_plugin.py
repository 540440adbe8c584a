"""A plug-in file of ms-swift: three rewards, one of which is missing now and then, and rvpo's method for them."""

from __future__ import annotations

import json
import os
from typing import Any

import rvpo.swift

TABLE = os.environ.get("TINY_TABLE")  # a file, one per process, to which each call appends what it returned


def _noted(name: str, values: list[float | None]) -> list[float | None]:
    if TABLE:
        with open(f"{TABLE}.{os.environ.get('RANK', 0)}", "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(json.dumps({"name": name, "values": values}) + "\n")
    return values


def many_words(completions: list[str], **_: Any) -> list[float | None]:
    """Share of different words: graded, and beyond [0, 1]."""
    return _noted("many_words", [3.0 * len(set(text.split())) / max(len(text.split()), 1) for text in completions])


def has_the(completions: list[str], **_: Any) -> list[float | None]:
    """Whether a word comes up: binary, and rarely met."""
    return _noted("has_the", [float("the" in text.split()) for text in completions])


def maybe(completions: list[str], **_: Any) -> list[float | None]:
    """Cannot be scored for completions of an odd number of letters."""
    return _noted("maybe", [None if len(text) % 2 else float(len(text) % 3) for text in completions])


from swift.rewards import orms  # noqa: E402

for function in (many_words, has_the, maybe):
    # ms-swift builds what it finds with args=…, and names a reward by the class of what it got.
    orms[function.__name__] = type(
        function.__name__,
        (),
        {
            "__init__": lambda self, args=None, **_: None,
            "__call__": staticmethod(function),
        },
    )

rvpo.swift.use(**json.loads(os.environ.get("TINY_OPTIONS", '{"method": "lift"}')))
