"""Rewards of the rig's task, as a ``custom_reward_function`` file of verl: two channels, and ragged rubrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

VOWELS = set("aeiou")
LENGTH = 6  # letters of the word asked for


def vowels(word: str, _: str) -> float:
    """Share of letters that are vowels; 0 for an empty word, which has none."""
    return sum(letter in VOWELS for letter in word) / max(len(word), 1)


def brief(word: str, _: str) -> float:
    """1 at the length asked for, falling to 0 at none or twice that length."""
    return max(0.0, 1 - abs(len(word) - LENGTH) / LENGTH)


def varied(word: str, _: str) -> float | None:
    """Share of distinct letters; missing for an empty word, like the next two."""
    return len(set(word)) / len(word) if word else None


def opens_soft(word: str, _: str) -> float | None:
    """1 if the first letter is a vowel."""
    return float(word[0] in VOWELS) if word else None


def no_echo(word: str, letters: str) -> float | None:
    """Share of letters that are not among those of the prompt."""
    return sum(letter not in letters for letter in word) / len(word) if word else None


CRITERIA: dict[str, Callable[[str, str], float | None]] = {
    f.__name__: f for f in (vowels, brief, varied, opens_soft, no_echo)
}


def two_channels(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None
) -> dict[str, float]:
    """Return the channels ``vowels`` and ``brief`` (each in [0, 1]) and their mean as ``score``."""
    channels = {"vowels": vowels(solution_str, ""), "brief": brief(solution_str, "")}
    return {"score": sum(channels.values()) / len(channels), **channels}


def ragged(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None
) -> dict[str, float | str]:
    """Return the prompt's own two to five criteria as JSON under ``rvpo``, the mean of those scored as ``score``."""
    truth = json.loads(ground_truth)
    values = {name: CRITERIA[name](solution_str, truth["letters"]) for name in truth["criteria"]}
    scored = [value for value in values.values() if value is not None]
    channels = [
        {"name": name, "value": value, "weight": 2.0 if name == "brief" else 1.0, "labels": ["word"]}
        for name, value in values.items()
    ]
    score = sum(scored) / len(scored) if scored else 0.0
    return {"score": score, "rvpo": json.dumps({"channels": channels})}


def raises_for_some(data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any]) -> Any:
    """Raise for every rollout of a third of the prompts; else return NumPy's numbers."""
    import numpy

    if extra_info["index"] % 3 == 0:
        raise ValueError("cannot read the answer")
    found = two_channels(data_source, solution_str, ground_truth)
    return {name: numpy.float32(value) for name, value in found.items()}


def raises_always(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
    """Fail somewhere in a library, as a reward function with a mistake does."""
    return json.loads("{no json")


def misses_scores(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
    """Return no score for words of odd length, and no vowels for those of a length that 3 divides."""
    length = len(solution_str)
    found: dict[str, float | None] = {**two_channels(data_source, solution_str, ground_truth)}
    return found | ({"score": None} if length % 2 else {}) | ({"vowels": None} if length % 3 == 0 else {})
