"""Read one criterion of any layout: its text, weight, labels, id, and the program that decides it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rvpo.data.find_rubrics import TEXT_KEYS, WEIGHT_KEYS
from rvpo.data.paths import plain
from rvpo.data.pitfalls import give_polarity, named_polarity, rar_meaning
from rvpo.data.records import Place, Row, check_unicode, shorten
from rvpo.data.rubric_forms import is_number, number
from rvpo.data.rubric_line import Reading
from rvpo.data.rubric_rules import VERIFIER_KEYS, as_rule, tags_and_verifier

LABEL_KEYS = ("axis", "category", "criterion_type", "type", "dimension", "importance_level", "weight_class", "theme")
"""Keys of a criterion's labels. The first label becomes its category, others become tags."""

ID_KEYS = ("id", "criterion_id", "rubric_id")

OWN_FIELDS = ("id", "text", "points", "polarity", "category", "tags", "rule", "judge", "scale")
"""Fields of :class:`rvpo.rewards.rubric.Criterion`."""

RUBRIC_KEYS = ("rubric", "text", "weight", "label", "id")
"""Keys of the option ``rubric_keys``."""

_TITLES = ("title", "name", "question")
_MARKS_OF_OWN = {"id", "rule", "scale", "judge"}  # fields that only rvpo's own layout has in this form
_NESTED = re.compile(r"(?:sub_?)?(?:rubrics?|criteria|criterions?|checklists?)", re.IGNORECASE)
_MAY_WEIGH = re.compile(
    r"pts|point|value|marks?|credits?|grade|coef(?:ficient)?|percent(?:age)?|worth|priority"
    r"|severity|.*(?:分值|分数|权重).*",
    re.IGNORECASE,
)
_SURELY_WEIGHS = re.compile(r"weight|points|score", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """How the criteria of a file are read.

    Attributes:
        keys: option ``rubric_keys``, with keys of :data:`RUBRIC_KEYS`.
        pitfalls: option ``pitfalls``, a key of :data:`PITFALLS`, or None.
        prefixed: whether descriptions begin with a category, as in Rubrics as Rewards.
        title_is_label: whether titles repeat, so that they are labels of groups of criteria.
    """

    keys: Mapping[str, str]
    pitfalls: str | None
    prefixed: bool
    title_is_label: bool


def is_own(entry: Row) -> bool:
    """Return whether a criterion has a text, a field that marks rvpo's own layout, and no fields of other layouts."""
    known = isinstance(entry.get("text"), str) and all(key in OWN_FIELDS for key in entry)
    return known and any(entry.get(key) is not None for key in _MARKS_OF_OWN)


def read_criterion(place: Place, where: str, stored: Row, settings: Settings, reading: Reading) -> Row:
    """Return the fields of a ``Criterion``.

    Args:
        place: place of the row, for messages.
        where: path of the criterion in the row, for messages.
        stored: criterion as stored in the file.
        settings: settings for all criteria of the file.
        reading: counts that are updated.

    Raises:
        DataError: the criterion is malformed.
        ConfigError: the criterion is a pitfall, and the option ``pitfalls`` is not set.
    """
    if is_own(stored) and not settings.keys.keys() - {"rubric"}:
        entry = {key: value for key, value in stored.items() if value is not None}
        reading.note("text", "text")
        for kind, key in (("label", "category"), ("label", "tags")):
            if entry.get(key):
                reading.note(kind, key)
        if isinstance(entry.get("points"), int | float) and not isinstance(entry["points"], bool):
            reading.note("weight", "points")
            reading.weights.append(float(entry["points"]))
        return entry
    entry = {key: value for key, value in _with_annotations(stored).items() if value is not None}
    if "text" not in settings.keys:
        _refuse_group(place, where, entry)
    used: set[str] = set(VERIFIER_KEYS)
    text = _text(place, where, entry, settings, reading, used)
    criterion: Row = {"text": text}
    _weigh(place, where, entry, criterion, settings, reading, used)
    _label(place, where, entry, criterion, settings, reading, used)
    for key in ("id",) if "id" not in settings.keys else (settings.keys["id"],):
        key = next((k for k in ID_KEYS if k in entry), key) if "id" not in settings.keys else key
        used.add(key)
        if isinstance(entry.get(key), str | int) and not isinstance(entry.get(key), bool):
            criterion["id"] = str(entry[key])
    if "polarity" in entry:
        used.add("polarity")
        criterion["polarity"] = named_polarity(place, where, entry["polarity"])
    elif not settings.prefixed:
        give_polarity(place, where, entry, criterion, settings.pitfalls)
    if settings.prefixed:
        criterion |= rar_meaning(place, where, text, criterion.get("points", 1.0), settings.pitfalls)
    reading.unread.update(key for key in entry if key not in used)
    return criterion


def _refuse_group(place: Place, where: str, entry: Row) -> None:
    """Refuse an entry that contains a list of criteria, because only its own text would be judged."""
    has_text = any(isinstance(entry.get(key), str) for key in TEXT_KEYS)
    for key, stored in entry.items():
        listed = plain(stored)
        if not isinstance(listed, list) or not any(isinstance(part, dict | str) for part in listed):
            continue
        if _NESTED.fullmatch(key) or (key == "items" and not has_text):
            next_step = (
                "write the criteria of all groups in one list, each with the name of its group as its category; or set "
                "rubric_keys={'text': NAME} to judge each group as one criterion with the text under NAME"
            )
            raise place.error(f"{where}.{key}", f"{len(listed)} criteria inside a criterion", "one list", next_step)


def _with_annotations(entry: Row) -> Row:
    """Flatten a criterion of PRBench. Its ``annotations`` have the weight under the name of its class."""
    notes = entry.get("annotations")
    if not isinstance(notes, dict) or not isinstance(notes.get("weight_class"), str):
        return entry
    name = notes["weight_class"].replace(" ", "_") + "_weight"
    category = next((v for k, v in notes.items() if "criteria_category" in k and isinstance(v, str)), None)
    flat = {"weight": notes.get(name), "category": category, "weight_class": notes["weight_class"]}
    return {**{k: v for k, v in entry.items() if k != "annotations"}, **flat}


def _text(place: Place, where: str, entry: Row, settings: Settings, reading: Reading, used: set[str]) -> str:
    keys = [settings.keys["text"]] if "text" in settings.keys else [*TEXT_KEYS]
    found = [key for key in keys if isinstance(entry.get(key), str) and entry[key].strip()]
    if not found and "text" not in settings.keys:
        found = [k for k in _TITLES if isinstance(entry.get(k), str) and entry[k].strip()][:1]
        known = (*_TITLES, *LABEL_KEYS, *ID_KEYS, *WEIGHT_KEYS, *VERIFIER_KEYS, "tags", "polarity")
        longer = [
            k
            for k, v in entry.items()
            if k not in known and isinstance(v, str) and found and len(v) > len(entry[found[0]])
        ]
        if longer:
            seen = f"{found[0]!r}, and a longer text under {longer[0]!r}"
            next_step = f"choose with rubric_keys={{'text': {longer[0]!r}}} or rubric_keys={{'text': {found[0]!r}}}"
            raise place.error(where, seen, f"the text under one of {', '.join(keys)}", next_step)
    if not found:
        seen = f"no text (the criterion is {shorten(entry)})"
        expected = f"its text under one of {', '.join(keys)}"
        raise place.error(where, seen, expected, "repair the row, or set rubric_keys={'text': NAME}")
    used.update(found)
    reading.note("text", " + ".join(found))
    parts = dict.fromkeys(entry[key].strip() for key in found)
    text = ": ".join(parts)
    check_unicode(place, f"{where}.{found[0]}", text)
    return text


def _weigh(
    place: Place, where: str, entry: Row, criterion: Row, settings: Settings, reading: Reading, used: set[str]
) -> None:
    keys = [settings.keys["weight"]] if "weight" in settings.keys else [*WEIGHT_KEYS]
    found = {key: entry[key] for key in keys if key in entry}
    if "importance" in found and (len(found) > 1 or not is_number(found["importance"])):
        del found["importance"]
    if not found:
        hint = next((key for key, value in entry.items() if _may_weigh(key, value)), "")
        reading.unweighted.append((place, f"{where}.{hint}" if hint else where))
        return
    numbers = {key: number(place, f"{where}.{key}", value) for key, value in found.items()}
    if len(set(numbers.values())) > 1:
        one, other = list(numbers)[:2]
        next_step = f"choose with rubric_keys={{'weight': {one!r}}} or rubric_keys={{'weight': {other!r}}}"
        raise place.error(where, f"two weights, {numbers}", "one weight", next_step)
    key, weight = next(iter(numbers.items()))
    used.update(found)
    if weight == 0:
        expected = "a number that is not 0: its sign shows whether meeting the criterion is good"
        raise place.error(f"{where}.{key}", "a weight of 0", expected, "give the criterion its weight")
    criterion["points"] = weight
    reading.note("weight", key)
    reading.weights.append(weight)


def _may_weigh(key: str, value: Any) -> bool:
    """Return whether a value may be the weight, to judge by its key, or because it is a negative number."""
    if _SURELY_WEIGHS.search(key):
        return True
    return is_number(value) and (_MAY_WEIGH.fullmatch(key) is not None or float(value) < 0)


def _label(
    place: Place, where: str, entry: Row, criterion: Row, settings: Settings, reading: Reading, used: set[str]
) -> None:
    tags, verifier = tags_and_verifier(place, where, entry)
    named = settings.keys.get("label")
    keys = [named] if named else [*LABEL_KEYS, *(["importance"] if "importance" not in used else [])]
    if named is None and settings.title_is_label and "title" not in used:
        keys.append("title")
    for key in keys:
        texts = _texts(entry.get(key))
        used.add(key)
        if not texts:
            continue
        reading.note("label", key)
        if "category" not in criterion:
            criterion["category"] = texts.pop(0)
        tags += texts if key in ("axis", "category", named) else [f"{key}:{text}" for text in texts]
    used.add("tags")
    if tags:
        reading.note("label", "tags") if entry.get("tags") else None
        criterion["tags"] = list(dict.fromkeys(tags))
    if verifier is not None:
        rule = as_rule(verifier)
        if rule is not None:
            criterion["rule"] = rule
            reading.rules[verifier.function] += 1
        else:
            reading.left_to_judge[verifier.function] += 1
            criterion["text"] += verifier.as_text()


def _texts(value: Any) -> list[str]:
    """Return the labels in a value."""
    values = value if isinstance(value, list) else [value]
    return [str(inner).strip() for inner in values if isinstance(inner, str | int) and str(inner).strip()]
