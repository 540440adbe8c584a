"""Reward functions by the name that a YAML file gives: ``tiny_rewards.has_the``."""

from __future__ import annotations

from typing import Any


def many_words(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
    """Share of different words: graded, and beyond [0, 1]."""
    return [3.0 * len(set(text.split())) / max(len(text.split()), 1) for text in completions]


def has_the(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
    """Whether a word comes up: binary, and rarely met."""
    return [float("the" in text.split()) for text in completions]


def maybe(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
    """Cannot be scored for completions of an odd number of letters."""
    return [None if len(text) % 2 else float(len(text) % 3 > 0) for text in completions]
