"""Strict readers of prompts with rubrics: Rubrics-as-Rewards, HealthBench, and rvpo's own layout.

Each converter takes one raw row and returns it with two columns set: ``prompt`` (text or chat messages) and ``rubric``
(the JSON string of :meth:`rvpo.rewards.rubric.Rubric.to_json`). Criterion j of the other layouts gets the id ``c{j}``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rvpo.data.criteria import rubric_json
from rvpo.data.criterion import OWN_FIELDS
from rvpo.data.paths import plain
from rvpo.data.pitfalls import RAR_PREFIX, UNLABELLED, rar_meaning
from rvpo.data.records import (
    Place,
    Row,
    Rows,
    check_prompt,
    require_field,
    require_text,
    shorten,
    source_error,
)
from rvpo.data.rubric_forms import number
from rvpo.text import strict_yaml

logger = logging.getLogger(__name__)

COLUMNS: Mapping[str, frozenset[str]] = {
    "rar": frozenset({"question", "rubric"}),
    "healthbench": frozenset({"prompt", "rubrics", "prompt_id", "example_tags"}),
    "rubrics": frozenset({"prompt", "criteria"}),
}
"""Layout of this module -> columns that it reads."""

OWN_COLUMNS: Mapping[str, dict[str, str]] = {
    "rar": {"rubric": "rubric"},
    "healthbench": {"rubric": "rubric", "example_tags": "example_tags"},
    "rubrics": {"rubric": "rubric"},
}
"""Layout of this module -> columns that it makes besides ``prompt``, in the form of ``reference_columns``."""

_RAR_CRITERIA = "a list of at least one {'description': ..., 'weight': ...}"


def convert(rows: Rows, layout: str, *, pitfalls: str | None, references: Collection[str]) -> Rows:
    """Set ``prompt`` and ``rubric`` in the raw rows of a layout of this module. Other rows stay unchanged."""
    if layout == "rar":
        return _rar_rows(rows, pitfalls)
    if layout == "healthbench":
        return ((place, healthbench_row(place, row)) for place, row in rows)
    if layout == "rubrics":
        return ((place, plain_row(place, row, {}, references)) for place, row in rows)
    return rows


# --- Rubrics as Rewards -----------------------------------------------------------------------------------------------


def rar_row(place: Place, row: Row, pitfalls: str | None) -> Row:
    """Convert one row of RaR-Medicine or RaR-Science (arXiv 2507.17746).

    The row's ``question`` is the prompt. Its ``rubric`` is a list of ``{"title", "description", "weight"}``. The
    description begins with "Essential Criteria:", "Important …", "Optional …" or "Pitfall Criteria:", which becomes the
    category and is removed from the text. The weight (5 to 1, for pitfalls -1 or -2) becomes the points. Without such a
    prefix, the text stays whole, and the category is ``"pitfall"`` if the weight is negative, else ``"unlabelled"``.

    Args:
        place: place of the row.
        row: raw row.
        pitfalls: whether it is good or bad that a pitfall's text is *met*, a key of :data:`PITFALLS`. The sign of the
            weight does not show this: it is negative in both sets, although their texts point in opposite directions.
            Neither set is uniform: by a count that we could not repeat, about 88% of the pitfalls of RaR-Medicine
            describe the mistake, and 80% of those of RaR-Science ask to avoid it. So read a few before you choose.

    Raises:
        DataError: a field is absent or malformed, or a criterion that is not a pitfall has a negative weight.
        ConfigError: the row has a pitfall, and ``pitfalls`` is None.
    """
    prompt = require_text(place, row, "question")
    criteria = []
    for index, entry in enumerate(_objects(place, row, "rubric", _RAR_CRITERIA)):
        field = f"rubric[{index}]"
        description = require_text(place, entry, "description", f"{field}.description")
        weight = require_field(place, entry, "weight", "a number", f"{field}.weight")
        criterion = {"id": f"c{index}", "points": weight, **rar_meaning(place, field, description, weight, pitfalls)}
        criteria.append(criterion)
    return {**row, "prompt": prompt, "rubric": rubric_json(place, "rubric", {"criteria": criteria})}


def _rar_rows(rows: Rows, pitfalls: str | None) -> Rows:
    """Convert all rows, and log how many criteria had no category."""
    seen: Counter[bool] = Counter()
    source = ""
    for place, row in rows:
        converted = rar_row(place, row, pitfalls)
        seen.update(RAR_PREFIX.match(entry["description"]) is None for entry in row["rubric"])
        source = place.source
        yield place, converted
    if seen[True]:
        message = (
            "%s: %d of %d criteria do not name one of the four categories; their category is %r, or pitfall if the "
            "weight is negative"
        )
        logger.warning(message, source, seen[True], seen.total(), UNLABELLED)


# --- HealthBench ------------------------------------------------------------------------------------------------------


def healthbench_row(place: Place, row: Row) -> Row:
    """Convert one example of HealthBench (arXiv 2505.08775; openai/simple-evals).

    ``prompt`` contains chat messages, and ``rubrics`` a list of ``{"criterion", "points", "tags"}``. Criteria with
    negative points cost points if they are met. ``prompt_id`` becomes the rubric's id; if it is absent, the id is a
    digest of the prompt. ``example_tags`` (``theme:…``) becomes the JSON string of the list. Both kinds of tags may be
    absent. Prompt, rubrics and tags may be JSON text.

    Raises:
        DataError: a field is absent or malformed.
    """
    row = {**row, **{key: plain(row[key]) for key in ("prompt", "rubrics", "example_tags") if key in row}}
    prompt = check_prompt(place, "prompt", require_field(place, row, "prompt", "chat messages"))
    criteria = []
    for index, entry in enumerate(_objects(place, row, "rubrics", "a list of {'criterion', 'points', 'tags'}")):
        field = f"rubrics[{index}]"
        points = require_field(place, entry, "points", "a number", f"{field}.points")
        criteria.append(
            {
                "id": f"c{index}",
                "text": require_text(place, entry, "criterion", f"{field}.criterion"),
                "points": number(place, f"{field}.points", points),
                "tags": plain(entry.get("tags")) or [],
            }
        )
    tags = row.get("example_tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise place.error("example_tags", shorten(tags), "a list of texts", "repair the row")
    if row.get("prompt_id") is None:
        id_ = hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:16]
    else:
        id_ = require_text(place, row, "prompt_id")
    rubric = rubric_json(place, "rubrics", {"id": id_, "criteria": criteria})
    return {**row, "prompt": prompt, "rubric": rubric, "example_tags": json.dumps(tags)}


# --- rvpo's own layout ------------------------------------------------------------------------------------------------


def plain_row(
    place: Place, row: Row, shared: Mapping[str, list[Any]], references: Collection[str] = frozenset()
) -> Row:
    """Convert one entry ``{"prompt", "criteria"}`` with optional ``id`` and ``use``.

    Args:
        place: place of the entry.
        row: entry. ``criteria`` is a list of mappings with the fields of :class:`rvpo.rewards.rubric.Criterion`.
            ``use`` names lists of ``shared`` that are put before them.
        shared: name -> list of criteria.
        references: further keys that the entry may have.

    Raises:
        DataError: a key or a name in ``use`` is unknown, or criteria are malformed or have equal ids.
    """
    allowed = ("prompt", "criteria", "id", "use", *sorted(references))
    if unknown := [key for key in row if key not in allowed]:
        next_step = "correct the key, or read it as a column with reference_columns"
        raise place.error(str(unknown[0]), "an unknown key", ", ".join(allowed), next_step)
    prompt = check_prompt(place, "prompt", require_field(place, row, "prompt", "text or chat messages"))
    names = row.get("use") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name in shared for name in names):
        known = f"a list of the names {sorted(shared)}"
        raise place.error("use", shorten(names), known, "define the name under `shared` (YAML only)")
    criteria = row.get("criteria") or [] if names else require_field(place, row, "criteria", "a list of criteria")
    if not isinstance(criteria, list):
        raise place.error("criteria", shorten(criteria), "a list of criteria", "write a list")
    values = {"id": row.get("id"), "criteria": [entry for name in names for entry in shared[name]] + criteria}
    return {**row, "prompt": prompt, "rubric": rubric_json(place, "criteria", values)}


def read_rubrics_yaml(path: Path, references: Collection[str]) -> Rows:
    """Read rvpo's own layout from YAML: a list of entries, or ``{prompts: [entries], shared: {name: [criteria]}}``.

    ::

        shared:
          style: [{id: short, text: At most 80 words., rule: {max_words: 80}}]
        prompts:
          - prompt: How much ibuprofen may an adult take in a day?
            use: [style]
            criteria: [{id: dose, text: States the maximum daily dose., points: 5}]

    Raises:
        DataError: the file does not have this form, or an entry is malformed (see :func:`plain_row`).
    """
    source, layout = str(path), "a list of entries, or {prompts: [entries], shared: {name: [criteria]}}"
    try:
        data = strict_yaml.load_yaml(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # also if the text is not UTF-8
        raise source_error(source, f"invalid YAML ({error})", layout, "repair the file") from error
    if isinstance(data, list):
        data = {"prompts": data}
    if not isinstance(data, dict) or not isinstance(data.get("prompts"), list) or data.keys() - {"prompts", "shared"}:
        seen = f"the keys {shorten(list(data))}" if isinstance(data, dict) else f"{type(data).__name__} {shorten(data)}"
        raise source_error(source, seen, layout, "rearrange the file")
    shared = data.get("shared") or {}
    if not isinstance(shared, dict) or not all(isinstance(criteria, list) for criteria in shared.values()):
        raise source_error(source, f"shared: {shorten(shared)}", "names with lists of criteria", "repair `shared`")
    for index, entry in enumerate(data["prompts"]):
        place = Place(source, index)
        if not isinstance(entry, dict):
            seen = f"{type(entry).__name__} {shorten(entry)}"
            raise place.error(None, seen, "{prompt: ..., criteria: [...]}", "write each entry as a mapping")
        yield place, plain_row(place, entry, shared, references)


# --- shared by the layouts --------------------------------------------------------------------------------------------


def detect_rubrics(row: Row) -> str | None:
    """Return the layout of this module that a row has, or None.

    Other rows, and rows with an ``answer``, are left to the general reader.
    """
    if COLUMNS["healthbench"] <= row.keys() and "answer" not in row:
        return "healthbench"
    if not COLUMNS["rubrics"] <= row.keys() <= {"prompt", "criteria", "id", "use"}:
        return None
    criteria = row["criteria"]
    entries = criteria if isinstance(criteria, list) else []
    own = all(isinstance(entry, dict) and "text" in entry and entry.keys() <= set(OWN_FIELDS) for entry in entries)
    return "rubrics" if own and not isinstance(criteria, str | dict) else None


def _objects(place: Place, row: Row, field: str, expected: str) -> list[dict[str, Any]]:
    entries = require_field(place, row, field, expected)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise place.error(field, f"{type(entries).__name__} {shorten(entries)}", expected, "repair the row")
    return entries
