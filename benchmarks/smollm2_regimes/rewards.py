"""Channels over one short reply: what is asked is decided by counting characters and words, never by a model.

Longer words and longer replies, which most channels ask for, work against the two hard ones: :func:`plain` (mostly met
before training) and :func:`finished` (rarely met, as a reply is cut off after 24 tokens). No two channels of a task
exclude each other: of 288 untrained replies 5% and 1% had all five at 0.8 or above. All are in [0, 1].

``completions`` are chats, N lists whose last message is the reply; a word is a run of letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Chats = Sequence[Sequence[dict[str, str]]]

WORD = re.compile(r"[^\W\d_]+")


def words(text: str) -> list[str]:
    """Return the runs of letters."""
    return WORD.findall(text)


def _each(completions: Chats, score: Callable[[str], float]) -> list[float]:
    return [float(score(chat[-1]["content"])) for chat in completions]


def plain(completions: Chats, letters: int = 11, **_: object) -> list[float]:
    """1 where there are words, and none has more than so many letters."""
    return _each(completions, lambda text: 0 < max(map(len, words(text)), default=0) <= letters)


def finished(completions: Chats, **_: object) -> list[float]:
    """1 where the reply ends as a sentence does."""
    return _each(completions, lambda text: text.rstrip().endswith((".", "!", "?")))


def length(completions: Chats, characters: int = 160, **_: object) -> list[float]:
    """Characters over those wanted, at most 1."""
    return _each(completions, lambda text: min(1.0, len(text) / characters))


def vocabulary(completions: Chats, letters: int = 7, wanted: int = 8, **_: object) -> list[float]:
    """Words of at least so many letters over those wanted, at most 1."""
    return _each(completions, lambda text: min(1.0, _long(text, letters) / wanted))


def at_least(completions: Chats, letters: int = 1, wanted: int = 1, **_: object) -> list[float]:
    """1 where at least so many words are wanted and there, of at least so many letters."""
    return _each(completions, lambda text: _long(text, letters) >= wanted)


def comma(completions: Chats, **_: object) -> list[float]:
    """1 where there is a comma."""
    return _each(completions, lambda text: "," in text)


def _long(text: str, letters: int) -> int:
    return sum(len(word) >= letters for word in words(text))
