"""Rubrics of any layout, row by row, with one line that says what was read as what."""

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
    if len(set(ids)) < len(criteria) and not all(is_own(entry) for entry in entries):
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
        raise place.error(where, f"criteria that do not fit: {error}", allowed, REPAIR) from error
    check_unicode(place, where, characters)
    return rubric
