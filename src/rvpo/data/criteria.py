"""Rubrics of any layout: what each value of a criterion means, and one line that says what was read as what."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rvpo.data.find_rubrics import TEXT_KEYS, WEIGHT_KEYS, points_and_items
from rvpo.data.paths import ABSENT, lookup, plain
from rvpo.data.records import Place, Row, check_unicode, shorten
from rvpo.data.rubric_rules import VERIFIER_KEYS, as_rule, tags_and_verifier
from rvpo.errors import ConfigError, DataError

LABEL_KEYS = ("axis", "category", "criterion_type", "type", "dimension", "importance_level", "weight_class", "theme")
"""Keys of a criterion that say of what kind it is. The first becomes its category, others become tags."""

ID_KEYS = ("id", "criterion_id", "rubric_id")
OWN_FIELDS = ("id", "text", "points", "polarity", "category", "tags", "rule", "judge", "scale")
"""Fields of :class:`rvpo.rewards.rubric.Criterion`."""

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
RUBRIC_KEYS = ("rubric", "text", "weight", "label", "id")
"""What the option ``rubric_keys`` may name."""

DIMENSION_WEIGHTS = ("dimension_weight", "dimension_weights")
"""Columns with the weight of each dimension, for rubrics whose criteria are listed by dimension."""

_FORMS = "a list of criteria: objects with a text and a weight, or texts"
_REPAIR = "repair the row"
_CALLED_BAD = {"negative", "pitfall", "penalty", "detrimental", "undesirable", "avoid"}
_TITLES = ("title", "name", "question")
_LIST_KEYS = ("criteria", "criterions", "rubrics", "rubric", "checklist", "items")
_POLARITIES = {"good": ("good", "include", "positive"), "bad": ("bad", "avoid", "exclude", "negative")}
_LEVEL = re.compile(r"(?:score|level|grade)?[ _]?\d+(?:[ _]?(?:points?|description))?", re.IGNORECASE)


@dataclass
class Reading:
    """What was read as what, for the line that says so."""

    keys: dict[str, Counter[str]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    weights: list[float] = field(default_factory=list)
    unweighted: list[tuple[Place, str]] = field(default_factory=list)
    rubrics: int = 0
    criteria: int = 0
    all_bad: int = 0
    repeated: int = 0
    made_ids: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    left_to_judge: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, key: str) -> None:
        """Count that a value of this kind was under this key."""
        self.keys.setdefault(kind, Counter())[key] += 1

    def names(self, kind: str) -> str:
        """Return the keys of a kind, the most frequent first; "" if none."""
        return ", ".join(key for key, _ in self.keys.get(kind, Counter()).most_common())

    def line(self, path: str) -> str:
        """Return what was read as what."""
        parts = [f"rubric = {path} ({self.criteria} criteria of {self.rubrics} prompts)"]
        parts.append(f"text = {self.names('text')}")
        bad = sum(weight < 0 for weight in self.weights)
        if self.weights:
            span = f"weight = {self.names('weight')}, {min(self.weights):g} to {max(self.weights):g}"
            parts.append(span + (f", {bad} negative: meeting those is bad" if bad else ""))
        else:
            parts.append("weight = 1 each")
        parts.append(f"labels = {self.names('label') or 'none'}")
        notes = (
            ("ids made for {} rubrics", self.made_ids),
            ("{} rubrics have negative weights alone", self.all_bad),
            ("{} criteria repeat the text of another of their rubric", self.repeated),
        )
        parts += [text.format(count) for text, count in notes if count]
        parts += [f"{count} decided by rule ({name})" for name, count in self.rules.items()]
        parts += [
            f"{count} for the rule {name!r}, which rvpo does not have: left to the judge"
            for name, count in self.left_to_judge.items()
        ]
        if self.unread:
            parts.append(f"not read of a criterion: {', '.join(self.unread)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Settings:
    """How the criteria of a file are read.

    Attributes:
        keys: what the user named (:data:`RUBRIC_KEYS`).
        pitfalls: a key of :data:`PITFALLS`, or None.
        prefixed: whether descriptions begin with a category, as those of Rubrics as Rewards do.
        title_is_label: whether titles repeat, so that they pool criteria.
    """

    keys: Mapping[str, str]
    pitfalls: str | None
    prefixed: bool
    title_is_label: bool


def read_criteria(
    rows: Sequence[tuple[Place, Row]], path: str, keys: Mapping[str, str], pitfalls: str | None
) -> tuple[list[str | None], Reading]:
    """Read the rubric of each row.

    Args:
        rows: rows with their places.
        path: where the rubric is; see :func:`rvpo.data.find_rubrics.find_rubrics`.
        keys: option ``rubric_keys``: which key holds ``text``, ``weight``, ``label`` and ``id``, where the usual names
            do not say it.
        pitfalls: option ``pitfalls``, see :func:`rar_meaning`.

    Returns:
        The JSON of a :class:`rvpo.rewards.rubric.Rubric` per row, None if a row has none, and what was read as what.

    Raises:
        DataError: a rubric has no form that is known, or a criterion has no text, two texts for a weight, a weight of
            0, a weight that is no number, or none although others have one.
        ConfigError: pitfalls are in the data and ``pitfalls`` is None.
    """
    entries = [_entries(place, row, path) for place, row in rows]
    settings = _settings([entry for found in entries for entry in found or ()], keys, pitfalls)
    reading = Reading()
    texts = [
        _rubric(place, path, found, row, settings, reading) if found else None
        for (place, row), found in zip(rows, entries, strict=True)
    ]
    _check_weights(reading)
    return texts, reading


def _settings(entries: Sequence[Row], keys: Mapping[str, str], pitfalls: str | None) -> Settings:
    texts = [text for entry in entries for text in (entry.get(k) for k in TEXT_KEYS) if isinstance(text, str)]
    prefixed = sum(RAR_PREFIX.match(text) is not None for text in texts)
    titles = [entry["title"] for entry in entries if isinstance(entry.get("title"), str)]
    repeat = bool(titles) and len(set(titles)) * 2 <= len(titles)
    return Settings(keys, pitfalls, prefixed * 2 > len(texts), repeat)


def _rubric(place: Place, path: str, entries: Sequence[Row], row: Row, settings: Settings, reading: Reading) -> str:
    criteria = [_criterion(place, f"{path}[{j}]", entry, settings, reading) for j, entry in enumerate(entries)]
    ids = [str(c["id"]) for c in criteria if c.get("id") not in (None, "")]
    if len(set(ids)) < len(criteria) and not all(_is_own(entry) for entry in entries):
        reading.made_ids += 1
        for j, criterion in enumerate(criteria):
            criterion["id"] = f"c{j}"
    reading.rubrics += 1
    reading.criteria += len(criteria)
    reading.all_bad += all(isinstance(c.get("points"), float) and c["points"] < 0 for c in criteria)
    reading.repeated += len(criteria) - len({c["text"] for c in criteria})
    named = lookup(row, "prompt_id")
    values = {"criteria": criteria} | ({"id": named} if isinstance(named, str) and named else {})
    return rubric_json(place, path, values)


def _entries(place: Place, row: Row, path: str) -> list[Row] | None:
    """Return the criteria of a row's rubric as objects; None if it has none."""
    value = lookup(row, path)
    value = None if value is ABSENT else plain(value)
    if value is None or value in ([], {}, ""):
        return None
    if isinstance(value, dict):
        value = _listed(place, path, value, row)
    if isinstance(value, str):
        value = points_and_items(value) or value
    if isinstance(value, str):
        seen, next_step = (
            f"one text {shorten(value)}",
            "write its criteria as a list of texts, or of objects with weights",
        )
        if value.lstrip()[:1] in ("[", "{"):
            seen, next_step = f"text that is not JSON {shorten(value)}", "write it with json.dumps"
        raise place.error(path, seen, _FORMS, next_step)
    if not isinstance(value, list):
        raise place.error(path, f"{type(value).__name__} {shorten(value)}", _FORMS, _REPAIR)
    entries = []
    for j, stored in enumerate(value):
        entry = {"text": stored} if isinstance(stored, str) and plain(stored) is stored else plain(stored)
        if not isinstance(entry, dict):
            raise place.error(f"{path}[{j}]", f"{type(entry).__name__} {shorten(entry)}", "an object or text", _REPAIR)
        entries.append(entry)
    return entries


def _listed(place: Place, path: str, value: Row, row: Row) -> Any:
    """Return the criteria of an object: one criterion, a list within, lists by dimension, or one per key."""
    if any(isinstance(value.get(key), str) for key in TEXT_KEYS):
        return [value]
    within = [key for key in _LIST_KEYS if isinstance(plain(value.get(key)), list)]
    if len(within) == 1:
        return plain(value[within[0]])
    if (columns := _columns(value)) is not None:
        return columns
    kinds = {type(inner) for inner in value.values()}
    if kinds == {list}:
        return _of_dimensions(place, path, value, row)
    if kinds == {dict}:
        return [{"id": key, **inner} for key, inner in value.items()]
    if kinds == {str} and not any(_LEVEL.fullmatch(key) for key in value):
        return [{"id": key, "text": inner} for key, inner in value.items()]
    if kinds and kinds <= {int, float} and not any(_LEVEL.fullmatch(key) for key in value):
        return [{"text": key, "weight": inner} for key, inner in value.items()]
    next_step = "write its criteria as a list (levels of one grade are one criterion with a scale)"
    raise place.error(path, f"an object {shorten(value)}", _FORMS, next_step)


def _columns(value: Row) -> list[Row] | None:
    """Return the criteria of an object of columns, as ``datasets`` stores a sequence of objects; None if it is not."""
    lists = {key: inner for key, inner in value.items() if isinstance(inner, list)}
    named = any(key in lists for key in (*TEXT_KEYS, "title", "name"))
    if not named or len(lists) < len(value) or len({len(inner) for inner in lists.values()}) != 1:
        return None
    rows = zip(*lists.values(), strict=True)
    return [dict(zip(lists, row, strict=True)) for row in rows]


def _of_dimensions(place: Place, path: str, value: Row, row: Row) -> list[Any]:
    """Return the criteria of all dimensions, each weight multiplied by that of its dimension."""
    named = [name for name in DIMENSION_WEIGHTS if isinstance(plain(row.get(name)), dict)]
    shares = plain(row[named[0]]) if named else {}
    listed = []
    for dimension, entries in value.items():
        share = 1.0
        if named:
            if dimension not in shares:
                next_step = "give the weight of each dimension"
                raise place.error(named[0], f"no weight of {dimension!r}", f"one of each of {list(value)}", next_step)
            share = number(place, f"{named[0]}.{dimension}", shares[dimension])
        for j, entry in enumerate(entries):
            criterion = {"text": entry} if isinstance(entry, str) else entry
            if not isinstance(criterion, dict):
                raise place.error(f"{path}.{dimension}[{j}]", shorten(entry), "an object or text", _REPAIR)
            weighed = {k: number(place, f"{path}.{dimension}[{j}].{k}", criterion[k]) * share
                       for k in WEIGHT_KEYS if criterion.get(k) is not None}  # fmt: skip
            listed.append({**criterion, **(weighed or ({"weight": share} if named else {})), "dimension": dimension})
    return listed


# --- one criterion ----------------------------------------------------------------------------------------------------


def _is_own(entry: Row) -> bool:
    return isinstance(entry.get("text"), str) and "id" in entry and all(key in OWN_FIELDS for key in entry)


def _criterion(place: Place, where: str, stored: Row, settings: Settings, reading: Reading) -> Row:
    """Return the fields of a ``Criterion``."""
    if _is_own(stored) and not settings.keys.keys() - {"rubric"}:
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
        criterion["polarity"] = _polarity(place, where, entry["polarity"])
    elif not settings.prefixed:
        _refuse_unclear_sign(place, where, entry, criterion, settings)
    if settings.prefixed:
        criterion |= rar_meaning(place, where, text, criterion.get("points", 1.0), settings.pitfalls)
    reading.unread.update(key for key in entry if key not in used)
    return criterion


def _with_annotations(entry: Row) -> Row:
    """Return a criterion of PRBench flat: its ``annotations`` have the weight under the name of its class."""
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
        raise place.error(where, seen, expected, "repair the row, or name the key: rubric_keys={'text': NAME}")
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
    if "importance" in found and (len(found) > 1 or not _is_number(found["importance"])):
        del found["importance"]
    if not found:
        hint = next((key for key in entry if re.search(r"weight|points|score", key, re.IGNORECASE)), "")
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
        expected = "a number that is not 0: its sign says whether meeting it is good"
        raise place.error(f"{where}.{key}", "a weight of 0", expected, "give the criterion its weight")
    criterion["points"] = weight
    reading.note("weight", key)
    reading.weights.append(weight)


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


def _refuse_unclear_sign(place: Place, where: str, entry: Row, criterion: Row, settings: Settings) -> None:
    """Give a pitfall the polarity that ``pitfalls`` says; refuse one that is called so and has a positive weight."""
    labels = [criterion.get("category"), *criterion.get("tags", ())]
    words = {str(label).lower().rpartition(":")[2].strip() for label in labels if label}
    flags = [key for key in entry if key.lower().removeprefix("is_") in _CALLED_BAD and entry[key] is True]
    called = sorted(words & _CALLED_BAD) or flags
    negative = criterion.get("points", 1.0) < 0
    if (negative and settings.pitfalls is None) or not (negative or called):
        return
    if settings.pitfalls is None:
        seen = f"a criterion called {called[0]!r} with a weight that is not negative: {shorten(criterion['text'])}"
        next_step = "write the weight negative, or read some of them and set the option (data.pitfalls in a recipe)"
        raise ConfigError(str(place.error(where, seen, PITFALL_CHOICE, next_step)))
    criterion["polarity"] = PITFALLS[settings.pitfalls]


def _polarity(place: Place, where: str, value: Any) -> str:
    for polarity, words in _POLARITIES.items():
        if isinstance(value, str) and value.strip().lower() in words:
            return polarity
    expected = "good or bad: what it means that the text is met"
    raise place.error(f"{where}.polarity", shorten(value), expected, _REPAIR)


def _texts(value: Any) -> list[str]:
    """Return the labels that a value holds."""
    values = value if isinstance(value, list) else [value]
    return [str(inner).strip() for inner in values if isinstance(inner, str | int) and str(inner).strip()]


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
        raise place.error(f"{where}.weight", f"{weight} of the category {category!r}", expected, _REPAIR)
    return meaning


# --- numbers and the result -------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def number(place: Place, where: str, value: Any) -> float:
    """Return a finite number, also one that is stored as text.

    Raises:
        DataError: the value is no number.
    """
    if not isinstance(value, int | float | str) or not _is_number(value):
        expected = "a number, also as text"
        raise place.error(where, f"{type(value).__name__} {shorten(value)}", expected, "write the weight as a number")
    return float(value)


def _check_weights(reading: Reading) -> None:
    """Refuse criteria without a weight if others have one, or if a key that is not read looks like one."""
    if not reading.unweighted:
        return
    place, where = reading.unweighted[0]
    if reading.weights:
        expected = f"a number, as {len(reading.weights)} other criteria have"
        raise place.error(where, "no weight", expected, "give each criterion its weight")
    hinted = [(p, w) for p, w in reading.unweighted if not w.endswith("]")]
    if hinted:
        place, where = hinted[0]
        key = where.rpartition(".")[2]
        expected = f"the weight under one of {', '.join(WEIGHT_KEYS)}"
        raise place.error(
            where, "a key that may be the weight", expected, f"name it: rubric_keys={{'weight': {key!r}}}"
        )


def rubric_json(place: Place, where: str, values: dict[str, Any]) -> str:
    """Check the criteria as ``Rubric`` does, and name the place where they are wrong."""
    from rvpo.rewards.rubric.criteria import Rubric  # its package loads torch, and importing rvpo.data shall be cheap

    try:
        rubric = Rubric.from_mapping(values).to_json()
        characters = json.dumps(values, ensure_ascii=False)
    except (DataError, TypeError, ValueError, RecursionError) as error:  # YAML has dates, JSON has not
        allowed = "criteria as in rvpo.rewards.rubric.Criterion"
        raise place.error(where, f"criteria that do not fit: {error}", allowed, _REPAIR) from error
    check_unicode(place, where, characters)
    return rubric
