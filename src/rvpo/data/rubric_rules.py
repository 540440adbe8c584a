"""Criteria that verl's rubric rewards decide by program: their ``tags`` name a verifier, a function and its parameters.

The tags are a list of texts (``axis:accuracy``, ``verifier:rule``) or an object (``{"verifier": "rule", …}``). If a
rule of rvpo decides the same, the criterion gets that rule. Otherwise the judge decides, and the function's name and
parameters are added to the text that it reads.
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
    """A program that decides a criterion.

    Attributes:
        function: name of the function.
        parameters: parameters that are not null.
    """

    function: str
    parameters: Mapping[str, Any]

    def as_text(self) -> str:
        """Return the function and its parameters as text for the judge, to be added after the criterion's text."""
        arguments = json.dumps(dict(self.parameters), ensure_ascii=False) if self.parameters else ""
        return f" ({self.function}{': ' if arguments else ''}{arguments})"


def tags_and_verifier(place: Place, where: str, entry: Row) -> tuple[list[str], Verifier | None]:
    """Return the tags of a criterion, and the program that decides it; None for the program if the judge decides.

    Raises:
        DataError: the tags are not text, a list of texts, or an object.
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
    tagged = dict(tag.split(":", 1) for tag in stored if tag.split(":", 1)[0] in VERIFIER_KEYS and ":" in tag)
    return [tag for tag in stored if tag.split(":", 1)[0] not in VERIFIER_KEYS], _verifier({**tagged, **own})


def as_rule(verifier: Verifier) -> dict[str, Any] | None:
    """Return the rule of :mod:`rvpo.judges.rule` that decides like a function of verl; None without such a rule."""
    if verifier.function != "word_count_range":
        return None
    low, high = (_whole(verifier.parameters.get(name)) for name in ("min_count", "max_count"))
    if low is None or high is None or not 0 <= low <= high:
        return None
    # verl's function counts pieces between white space. max_words of rvpo counts only pieces with a letter or digit.
    return {"regex": rf"\A\s*+(?:\S++\s*+){{{low},{high}}}\Z"}


def _verifier(fields: Mapping[str, Any]) -> Verifier | None:
    function = fields.get("function")
    if fields.get("verifier") != "rule" or not isinstance(function, str) or not function.strip():
        return None
    parameters = plain(fields.get("parameters"))
    given = parameters if isinstance(parameters, dict) else {"parameters": parameters}
    return Verifier(function.strip(), {key: value for key, value in given.items() if value not in (None, "")})


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
