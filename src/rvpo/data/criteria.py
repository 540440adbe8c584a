"""Read rubrics of any layout, row by row, and report in one line how they were read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.data.criterion import Settings, is_own, read_criterion
from rvpo.data.find_rubrics import TEXT_KEYS, WEIGHT_KEYS
from rvpo.data.paths import lookup
from rvpo.data.pitfalls import RAR_PREFIX, REPAIR
from rvpo.data.records import Place, Row, check_unicode
from rvpo.data.rubric_forms import entries_of
from rvpo.data.rubric_line import Reading
from rvpo.errors import DataError


def read_criteria(
    rows: Sequence[tuple[Place, Row]], path: str, keys: Mapping[str, str], pitfalls: str | None
) -> tuple[list[str | None], Reading]:
    """Read the rubric of each row.

    Args:
        rows: rows with their places.
        path: path of the rubric in a row; see :func:`rvpo.data.find_rubrics.find_rubrics`.
        keys: option ``rubric_keys``: the keys of ``text``, ``weight``, ``label`` and ``id``, if they do not have one of
            the usual names.
        pitfalls: option ``pitfalls``, see :func:`rar_meaning`.

    Returns:
        The JSON of a :class:`rvpo.rewards.rubric.Rubric` per row, None if the row has no rubric, and the counts of how
        rubrics were read.

    Raises:
        DataError: the form of a rubric is unknown, or a criterion has no text, two different weights, a weight of 0, a
            weight that is not a number, or no weight although others have one.
        ConfigError: the data have pitfalls, and ``pitfalls`` is None.
    """
    entries = [entries_of(place, row, path) for place, row in rows]
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
    criteria = [read_criterion(place, f"{path}[{j}]", entry, settings, reading) for j, entry in enumerate(entries)]
    ids = [str(c["id"]) for c in criteria if c.get("id") not in (None, "")]
    if len(set(ids)) < len(criteria) and not all(is_own(entry) and "id" in entry for entry in entries):
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


def _check_weights(reading: Reading) -> None:
    """Refuse criteria without a weight if others have one, or if an unread key looks like a weight."""
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
        raise place.error(where, "a key that may be the weight", expected, f"set rubric_keys={{'weight': {key!r}}}")


def rubric_json(place: Place, where: str, values: dict[str, Any]) -> str:
    """Return the JSON of a ``Rubric``.

    Args:
        place: place of the row, for messages.
        where: path of the rubric in the row, for messages.
        values: fields of the rubric.

    Raises:
        DataError: ``Rubric`` refuses the values.
    """
    from rvpo.rewards.rubric.criteria import Rubric  # its package loads torch, and importing rvpo.data must be cheap

    try:
        rubric = Rubric.from_mapping(values).to_json()
        characters = json.dumps(values, ensure_ascii=False)
    except (DataError, TypeError, ValueError, RecursionError) as error:  # such as dates, which YAML has but not JSON
        expected = "criteria as in rvpo.rewards.rubric.Criterion"
        raise place.error(where, f"criteria that do not fit: {error}", expected, REPAIR) from error
    check_unicode(place, where, characters)
    return rubric
