"""Criteria that describe something bad. Their weight, or the user, decides whether it is good to meet their text."""

from __future__ import annotations

import re
from collections.abc import Mapping
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

_CALLED_BAD = {"negative", "pitfall", "penalty", "detrimental", "undesirable", "avoid"}

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
    labels = [criterion.get("category"), *criterion.get("tags", ())]
    words = {str(label).lower().rpartition(":")[2].strip() for label in labels if label}
    flags = [key for key in entry if key.lower().removeprefix("is_") in _CALLED_BAD and entry[key] is True]
    called = sorted(words & _CALLED_BAD) or flags
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


def named_polarity(place: Place, where: str, value: Any) -> str:
    """Return ``good`` or ``bad`` from the value of a key ``polarity``."""
    for polarity, words in _POLARITIES.items():
        if isinstance(value, str) and value.strip().lower() in words:
            return polarity
    expected = "good or bad: whether it is good or bad to meet the text"
    raise place.error(f"{where}.polarity", shorten(value), expected, REPAIR)
