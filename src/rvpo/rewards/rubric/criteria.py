"""Rubrics and criteria as plain data. A rubric is the list of criteria of one prompt.

A rubric is stored in a dataset column as a JSON string, because Arrow fills the keys of object columns with nulls::

    {"id": "q17", "criteria": [
        {"id": "dose", "text": "States the maximum daily dose.", "points": 5, "category": "essential",
         "tags": ["axis:accuracy"]},
        {"id": "scare", "text": "Alarms the reader without need.", "points": -2, "category": "pitfall"},
        {"id": "short", "text": "At most 80 words.", "rule": {"max_words": 80}}]}
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rvpo.errors import DataError
from rvpo.text.numbers import is_finite

GOOD, BAD = "good", "bad"
MAX_STEPS = 100  # maximum number of steps of a scale, because judges are shown, or asked about, each one


@dataclass(frozen=True, slots=True)
class Criterion:
    """One property of a completion to be judged. In training, it is one channel.

    Attributes:
        id: name that is unique in the rubric.
        text: statement that is met or not met, as the judge reads it.
        points: importance. Negative points are lost if the statement is met. Never 0.
        polarity: ``"good"`` or ``"bad"``: whether it is good or bad to *meet* the statement. None follows the sign of
            ``points``. They may differ: RaR-Science gives negative points to pitfalls worded as "avoids …".
        category: importance in words, such as ``"essential"``. Metrics are reported per category.
        tags: further labels for metrics, such as ``"axis:accuracy"``.
        rule: check by program instead of by a judge, see :mod:`rvpo.judges.rule`.
        judge: name of the judge that decides it, if several are mixed.
        scale: (lowest, highest) for a graded answer instead of met / not met.
    """

    id: str
    text: str
    points: float = 1.0
    polarity: str | None = None
    category: str | None = None
    tags: tuple[str, ...] = ()
    rule: Mapping[str, Any] | None = None
    judge: str | None = None
    scale: tuple[int, int] | None = None

    @property
    def met_is_good(self) -> bool:
        """Whether it is good to meet the criterion."""
        return self.polarity == GOOD if self.polarity else self.points > 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Category and tags. Metrics pool scores by these labels."""
        return self.tags if self.category is None else (self.category, *self.tags)

    def reward(self, verdict: float) -> float:
        """Return the channel's reward in [0, 1] for a verdict, the degree in [0, 1] to which the statement is met.

        Example:
            >>> Criterion("scare", "Alarms the reader.", points=-2.0).reward(0.25)
            0.75
        """
        return verdict if self.met_is_good else 1.0 - verdict


@dataclass(frozen=True, slots=True)
class Rubric:
    """The criteria of one prompt, in a fixed order. Criterion j is channel j of every completion of that prompt."""

    criteria: tuple[Criterion, ...]
    id: str | None = None

    @classmethod
    def from_mapping(cls, values: object) -> Rubric:
        """Build a rubric from plain data: a mapping with ``criteria``, or only the list of criteria.

        Raises:
            DataError: keys are unknown or missing, types are wrong, criteria are absent, or an id occurs twice.
        """
        if isinstance(values, list):
            values = {"criteria": values}
        rubric = _mapping(values, ("id", "criteria"), "rubric")
        entries = rubric.get("criteria")
        if not isinstance(entries, list) or not entries:
            raise DataError(f"rubric: criteria is {_short(entries)}; expected a list of at least one criterion")
        if not isinstance(rubric.get("id"), str | None):
            raise DataError(f"rubric: id is {_short(rubric['id'])}; expected text or null")
        criteria = tuple(_criterion(entry, i) for i, entry in enumerate(entries))
        ids = [criterion.id for criterion in criteria]
        for i, name in enumerate(ids):
            if name in ids[:i]:
                raise DataError(
                    f"rubric: criteria {ids.index(name)} and {i} both have the id {name!r}; expected different ids. "
                    "Rename one"
                )
        return cls(criteria, rubric.get("id"))

    @classmethod
    def from_json(cls, text: str) -> Rubric:
        """Parse the JSON of :meth:`to_json`.

        Raises:
            DataError: the text is not JSON, or :meth:`from_mapping` refuses it.
        """
        if not isinstance(text, str):
            raise DataError(f"rubric: {_short(text)} is a {type(text).__name__}; expected text. Store Rubric.to_json()")
        return _parsed(text)

    def facts(self) -> tuple[list[bool], list[tuple[str, ...]]]:
        """Return ``met_is_good`` and ``labels`` of each criterion."""
        return [c.met_is_good for c in self.criteria], [c.labels for c in self.criteria]

    def to_json(self) -> str:
        """Return the rubric as one line of JSON, without fields that have their default value."""
        entries = []
        for criterion in self.criteria:
            entry: dict[str, Any] = {"id": criterion.id, "text": criterion.text}
            for field in fields(criterion)[2:]:
                value = getattr(criterion, field.name)
                if value != field.default:
                    entry[field.name] = list(value) if isinstance(value, tuple) else value
            entries.append(entry)
        return json.dumps({"id": self.id, "criteria": entries} if self.id else {"criteria": entries})


def rubrics_of(texts: Iterable[str | None]) -> dict[str, Rubric]:
    """Read the rubrics of a batch, each text once. Prompts without a rubric are left out.

    Returns:
        A mapping from the JSON of a rubric to the rubric.

    Raises:
        DataError: a rubric is malformed.
    """
    found: dict[str, Rubric] = {}
    for text in texts:
        if text is not None and (not isinstance(text, str) or text not in found):
            found[text] = Rubric.from_json(text)  # refuses values that are not text
    return found


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Rubric:
    try:
        values = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"rubric: {_short(text)} is not JSON ({error}); expected what Rubric.to_json returns"
        ) from error
    return Rubric.from_mapping(values)


def _criterion(entry: object, index: int) -> Criterion:
    where = f"criterion {index}"
    values = dict(_mapping(entry, tuple(field.name for field in fields(Criterion)), where))
    if isinstance(values.get("id"), int) and not isinstance(values["id"], bool):
        values["id"] = str(values["id"])
    for key in ("id", "text"):
        _require_text(values, key, where)
    where = f"criterion {index} ({values['id']!r})"
    values["points"] = _points(values, where)
    _require_polarity(values, where)
    for key in ("category", "judge"):
        _require_text_or_null(values, key, where)
    values["tags"] = _tags(values, where)
    _require_rule(values, where)
    values["scale"] = _scale(values, where)
    return Criterion(**values)


def _require_text(values: Mapping[str, Any], key: str, where: str) -> None:
    text = values.get(key)
    if not isinstance(text, str) or not text.strip() or text.encode(errors="replace").decode() != text:
        raise DataError(f"{where}: {key} is {_short(text)}; expected text that is not blank, in valid Unicode")


def _require_text_or_null(values: Mapping[str, Any], key: str, where: str) -> None:
    if not isinstance(values.get(key), str | None) or values.get(key) == "":
        raise DataError(f"{where}: {key} is {_short(values[key])}; expected text")


def _points(values: Mapping[str, Any], where: str) -> float:
    points = values.get("points", 1.0)
    if isinstance(points, bool) or not isinstance(points, int | float) or not is_finite(points) or points == 0:
        raise DataError(f"{where}: points is {_short(points)}; expected a finite number that is not 0")
    return float(points)


def _require_polarity(values: Mapping[str, Any], where: str) -> None:
    if values.get("polarity") not in (None, GOOD, BAD):
        raise DataError(
            f"{where}: polarity is {_short(values['polarity'])}; expected 'good' or 'bad': whether it is good or bad "
            "to meet the text. Leave it out to follow the sign of points"
        )


def _tags(values: Mapping[str, Any], where: str) -> tuple[str, ...]:
    tags = values.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise DataError(f"{where}: tags is {_short(tags)}; expected a list of texts such as 'axis:accuracy'")
    return tuple(tags)


def _require_rule(values: Mapping[str, Any], where: str) -> None:
    rule = values.get("rule")
    if rule is not None and not (isinstance(rule, dict) and rule):
        raise DataError(f"{where}: rule is {_short(rule)}; expected a mapping such as {{'max_words': 80}}")


def _scale(values: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    scale = values.get("scale")
    if scale is None:
        return None
    whole = isinstance(scale, list) and len(scale) == 2 and all(type(bound) is int for bound in scale)
    if not whole or not 1 <= scale[1] - scale[0] <= MAX_STEPS:
        raise DataError(
            f"{where}: scale is {_short(scale)}; expected [lowest, highest] in whole numbers that differ by 1 to "
            f"{MAX_STEPS}"
        )
    return scale[0], scale[1]


_MEANT = {
    "weight": "points", "importance": "points", "score": "points", "criterion": "text", "description": "text",
    "name": "id", "title": "id", "label": "category", "type": "category",
}  # fmt: skip
"""Names that other projects give to the keys of a criterion."""


def _mapping(values: object, allowed: tuple[str, ...], where: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise DataError(f"{where} is {_short(values)}; expected a mapping with the keys {', '.join(allowed)}")
    if unknown := [key for key in values if key not in allowed]:
        meant = _MEANT.get(str(unknown[0]).lower())
        hint = f" ({meant!r} is rvpo's name for it)" if meant in allowed else ""
        raise DataError(f"{where} has the unknown key {unknown[0]!r}; expected one of {', '.join(allowed)}{hint}")
    return values


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
