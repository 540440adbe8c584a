"""Criteria that name something bad: what it means that their text is met is said by their weight, or by the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rvpo.data.records import Place, Row, shorten
from rvpo.errors import ConfigError

PITFALLS: Mapping[str, str] = {"met_is_bad": "bad", "met_is_good": "good"}
"""Option ``pitfalls`` -> polarity of the criteria that name a pitfall."""

UNLABELLED = "unlabelled"
"""Category of a Rubrics-as-Rewards criterion whose description does not begin with one of the four."""

RAR_PREFIX = re.compile(r"\s*(essential|important|optional|pitfall)(?:\s+criteri(?:a|on))?\s*:\s*", re.IGNORECASE)
"""How the description of a criterion of Rubrics as Rewards begins."""

PITFALL_CHOICE = (
    "pitfalls='met_is_bad' (they name the mistake, 'Does not mention …': most of RaR-Medicine) or "
    "pitfalls='met_is_good' (they ask to avoid it, 'Avoids …': most of RaR-Science)"
)

_POLARITIES = {"good": ("good", "include", "positive"), "bad": ("bad", "avoid", "exclude", "negative")}

_CALLED_BAD = {"negative", "pitfall", "penalty", "detrimental", "undesirable", "avoid"}

REPAIR = "repair the row"


def rar_meaning(place: Place, where: str, text: str, weight: Any, pitfalls: str | None) -> Row:
    """Return text, category and polarity of a criterion of Rubrics as Rewards.

    Raises:
        ConfigError: it is a pitfall, and ``pitfalls`` does not say what it means that its text is met.
        DataError: its weight is negative, and it is no pitfall.
    """
    prefix = RAR_PREFIX.match(text)
    negative = isinstance(weight, int | float) and weight < 0
    category = prefix[1].lower() if prefix else "pitfall" if negative else UNLABELLED
    meaning: Row = {"text": text[prefix.end() :].strip() if prefix else text.strip(), "category": category}
    if category == "pitfall":
        if pitfalls is None:
            seen = f"the pitfall {shorten(text)} and pitfalls=None"
            next_step = "read some pitfalls of these data and set the option (data.pitfalls in a recipe)"
            raise ConfigError(str(place.error(f"{where}.description", seen, PITFALL_CHOICE, next_step)))
        meaning["polarity"] = PITFALLS[pitfalls]
    elif negative:
        expected = "a positive number (pitfalls alone are negative)"
        raise place.error(f"{where}.weight", f"{weight} of the category {category!r}", expected, REPAIR)
    return meaning


def give_polarity(place: Place, where: str, entry: Row, criterion: Row, pitfalls: str | None) -> None:
    """Give a pitfall the polarity that ``pitfalls`` says; refuse one that is called so and has a positive weight."""
    labels = [criterion.get("category"), *criterion.get("tags", ())]
    words = {str(label).lower().rpartition(":")[2].strip() for label in labels if label}
    flags = [key for key in entry if key.lower().removeprefix("is_") in _CALLED_BAD and entry[key] is True]
    called = sorted(words & _CALLED_BAD) or flags
    negative = criterion.get("points", 1.0) < 0
    if (negative and pitfalls is None) or not (negative or called):
        return
    if pitfalls is None:
        seen = f"a criterion called {called[0]!r} with a weight that is not negative: {shorten(criterion['text'])}"
        next_step = "write the weight negative, or read some of them and set the option (data.pitfalls in a recipe)"
        raise ConfigError(str(place.error(where, seen, PITFALL_CHOICE, next_step)))
    criterion["polarity"] = PITFALLS[pitfalls]


def named_polarity(place: Place, where: str, value: Any) -> str:
    """Return good or bad, as the value of a key ``polarity`` says."""
    for polarity, words in _POLARITIES.items():
        if isinstance(value, str) and value.strip().lower() in words:
            return polarity
    expected = "good or bad: what it means that the text is met"
    raise place.error(f"{where}.polarity", shorten(value), expected, REPAIR)
