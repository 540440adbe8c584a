"""Criteria that describe something bad. Their weight, or the user, decides whether it is good to meet their text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.data.records import Place, Row, shorten
from rvpo.errors import ConfigError

PITFALLS: Mapping[str, str] = {"met_is_bad": "bad", "met_is_good": "good"}
"""Value of the option ``pitfalls`` -> polarity of the criteria that describe a pitfall."""

UNLABELLED = "unlabelled"
"""Category of a Rubrics-as-Rewards criterion whose description does not begin with one of the four categories."""

RAR_PREFIX = re.compile(r"\s*(essential|important|optional|pitfall)(?:\s+criteri(?:a|on))?\s*:\s*", re.IGNORECASE)
"""Beginning of the description of a Rubrics-as-Rewards criterion."""

PITFALL_CHOICE = (
    "pitfalls='met_is_bad' (they name the mistake, 'Does not mention …': most of RaR-Medicine) or "
    "pitfalls='met_is_good' (they ask to avoid it, 'Avoids …': most of RaR-Science)"
)

_POLARITIES = {"good": ("good", "include", "positive"), "bad": ("bad", "avoid", "exclude", "negative")}

_CALLED_BAD = re.compile(
    r"(?:bad|minus|negatives?|pitfalls?|penalt(?:y|ies)|deductions?|demerits?|detrimental|undesir(?:able|ed)|unwanted"
    r"|avoid|forbidden|prohibited|disallowed|violations?|(?:must|should|do) not(?: (?:do|have|include))?)"
    r"(?: (?:criteri(?:a|on)|points?|items?|rubrics?|behaviou?rs?))?"
)
"""Labels and flags of criteria that describe something bad."""

_CALLED_GOOD = re.compile(r"good|positive|desir(?:able|ed)|wanted|reward")
_DIRECTIONS = ("sign", "direction", "valence", "kind", "sentiment")  # keys whose value says what is good
_MINUS = ("-", "-1", "-1.0", "neg")
_TRUE, _FALSE = ("true", "yes", "y", "t", "1"), ("false", "no", "n", "f", "0")

REPAIR = "repair the row"


def rar_meaning(place: Place, where: str, text: str, weight: Any, pitfalls: str | None) -> Row:
    """Return text, category and polarity of a Rubrics-as-Rewards criterion.

    Args:
        place: place of the row, for messages.
        where: path of the criterion in the row, for messages.
        text: description of the criterion.
        weight: weight of the criterion.
        pitfalls: option ``pitfalls``.

    Raises:
        ConfigError: the criterion is a pitfall, and the option ``pitfalls`` is not set.
        DataError: the weight is negative, and the criterion is not a pitfall.
    """
    prefix = RAR_PREFIX.match(text)
    negative = isinstance(weight, int | float) and weight < 0
    category = prefix[1].lower() if prefix else "pitfall" if negative else UNLABELLED
    meaning: Row = {"text": text[prefix.end() :].strip() if prefix else text.strip(), "category": category}
    if category == "pitfall":
        if pitfalls is None:
            seen = f"the pitfall {shorten(text)} and pitfalls=None"
            next_step = "read some pitfalls of these data, and set the option pitfalls (data.pitfalls in a recipe)"
            raise ConfigError(str(place.error(f"{where}.description", seen, PITFALL_CHOICE, next_step)))
        meaning["polarity"] = PITFALLS[pitfalls]
    elif negative:
        expected = "a positive number (only pitfalls have negative weights)"
        raise place.error(f"{where}.weight", f"{weight} of the category {category!r}", expected, REPAIR)
    return meaning


def give_polarity(place: Place, where: str, entry: Row, criterion: Row, pitfalls: str | None) -> None:
    """Give a criterion for something bad the polarity of the option ``pitfalls``.

    A criterion is about something bad if its weight is negative, or if its labels or flags say so.

    Raises:
        ConfigError: labels or flags say so, the weight is not negative, and the option ``pitfalls`` is not set.
    """
    called = _called_bad(entry, [criterion.get("category"), *criterion.get("tags", ())])
    negative = criterion.get("points", 1.0) < 0
    if (negative and pitfalls is None) or not (negative or called):
        return
    if pitfalls is None:
        seen = f"a criterion labelled {called[0]!r} with a weight that is not negative: {shorten(criterion['text'])}"
        next_step = (
            "make the weight negative, or read some of these criteria and set the option pitfalls (data.pitfalls in a "
            "recipe)"
        )
        raise ConfigError(str(place.error(where, seen, PITFALL_CHOICE, next_step)))
    criterion["polarity"] = PITFALLS[pitfalls]


def _called_bad(entry: Row, labels: Sequence[Any]) -> list[str]:
    """Return the labels, flags and directions of a criterion that say that it is about something bad."""
    words = [_words(str(label).rpartition(":")[2]) for label in labels if label]
    found = [word for word in words if _CALLED_BAD.fullmatch(word)]
    for key, value in entry.items():
        name = _words(key).removeprefix("is ")
        is_bad = _CALLED_BAD.fullmatch(name) and _flag(value) is True
        is_not_good = _CALLED_GOOD.fullmatch(name) and _flag(value) is False
        points_down = str(value).strip() in _MINUS or _CALLED_BAD.fullmatch(_words(str(value)))
        if is_bad or is_not_good or (name in _DIRECTIONS and points_down):
            found.append(f"{key}: {value}")
    return found


def _words(text: str) -> str:
    """Return a name or label in lower case, with single blanks between its words."""
    return " ".join(re.split(r"[\s_-]+", text.strip().lower()))


def _flag(value: Any) -> bool | None:
    """Return whether a flag is set. Tables store it as a number or as text. None if the value is not a flag."""
    if isinstance(value, int | float):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else ""
    return True if word in _TRUE else False if word in _FALSE else None


def named_polarity(place: Place, where: str, value: Any) -> str:
    """Return ``good`` or ``bad`` from the value of a key ``polarity``."""
    for polarity, words in _POLARITIES.items():
        if isinstance(value, str) and value.strip().lower() in words:
            return polarity
    expected = "good or bad: whether it is good or bad to meet the text"
    raise place.error(f"{where}.polarity", shorten(value), expected, REPAIR)
