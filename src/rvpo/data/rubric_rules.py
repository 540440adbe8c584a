"""Criteria that verl's rubric rewards decide by program: ``tags`` with a verifier, a function and its parameters.

The tags are a list of texts (``axis:accuracy``, ``verifier:rule``) or an object (``{"verifier": "rule", …}``). Where a
rule of ours decides the same, the criterion gets it. Where none does, the criterion stays with the judge, which reads
the function's name and parameters after the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rvpo.data.paths import plain
from rvpo.data.records import Place, Row, shorten

VERIFIER_KEYS = ("verifier", "function", "parameters")


@dataclass(frozen=True)
class Verifier:
    """A program that decides a criterion: the name of its function, and the parameters that are not null."""

    function: str
    parameters: Mapping[str, Any]

    def as_text(self) -> str:
        """Return what a judge needs to know of it, to follow the criterion's text."""
        told = json.dumps(dict(self.parameters), ensure_ascii=False) if self.parameters else ""
        return f" ({self.function}{': ' if told else ''}{told})"


def tags_and_verifier(place: Place, where: str, entry: Row) -> tuple[list[str], Verifier | None]:
    """Return the tags of a criterion, and the program that decides it.

    Raises:
        DataError: the tags are neither text, a list of texts, nor an object.
    """
    stored = plain(entry.get("tags"))
    own = {key: entry[key] for key in VERIFIER_KEYS if key in entry}
    if stored is None:
        return [], _verifier(own)
    if isinstance(stored, str):
        return [stored.strip()] if stored.strip() else [], _verifier(own)
    if isinstance(stored, dict):
        labels = {key: value for key, value in stored.items() if key not in VERIFIER_KEYS and value not in (None, "")}
        tags = [key if value is True else f"{key}:{value}" for key, value in labels.items()]
        return tags, _verifier({**stored, **own})
    if not isinstance(stored, list) or not all(isinstance(tag, str) and tag for tag in stored):
        expected = "text, a list of texts, or an object"
        raise place.error(f"{where}.tags", shorten(stored), expected, "repair the row")
    told = dict(tag.split(":", 1) for tag in stored if tag.split(":", 1)[0] in VERIFIER_KEYS and ":" in tag)
    return [tag for tag in stored if tag.split(":", 1)[0] not in VERIFIER_KEYS], _verifier({**told, **own})


def as_rule(verifier: Verifier) -> dict[str, Any] | None:
    """Return the rule of :mod:`rvpo.judges.rule` that decides as a verl function does; None if there is none."""
    if verifier.function != "word_count_range":
        return None
    low, high = (_whole(verifier.parameters.get(name)) for name in ("min_count", "max_count"))
    if low is None or high is None or not 0 <= low <= high:
        return None
    # The function counts pieces between white space; our max_words counts those with a letter or digit.
    return {"regex": rf"\A\s*+(?:\S++\s*+){{{low},{high}}}\Z"}


def _verifier(told: Mapping[str, Any]) -> Verifier | None:
    function = told.get("function")
    if told.get("verifier") != "rule" or not isinstance(function, str) or not function.strip():
        return None
    parameters = plain(told.get("parameters"))
    given = parameters if isinstance(parameters, dict) else {"parameters": parameters}
    return Verifier(function.strip(), {key: value for key, value in given.items() if value not in (None, "")})


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
