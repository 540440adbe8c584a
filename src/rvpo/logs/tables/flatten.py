"""Convert a row with nested values to flat cells with dotted names: ``rewards: {a: 1}`` becomes ``rewards.a``.

Objects are split into their parts. Chats and lists of other values than numbers are kept whole (as JSON when they are
read). Lists of numbers become columns ``name.0``, ``name.1``, …; a list with one number per token becomes one number if
all tokens agree. An object ``{score, weight}`` becomes the score, and the weight is stored separately.
"""

from __future__ import annotations

import ast
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rvpo.logs.tables.layouts import NESTED

DEEPEST = 6  # largest depth of nested objects whose parts become columns
LONGEST_LIST = 32  # numbers; longer lists are numbers per token, not per reward
IDS_FROM = 1_000  # a list of integers with one of at least this size has ids of tokens
LONGEST_LABEL = 60  # characters of the name of a reward
MOST_KEYS = 256  # different keys of one object; more are ids, not names of rewards
MOST_COLUMNS = 10_000

_ADVANTAGE = re.compile(r"(^|[._])adv", re.IGNORECASE)
_PER_TOKEN = re.compile(r"log_?prob|token|mask|input_ids|_ids$|attention|entrop|embedding|logits", re.IGNORECASE)
_HOLDS_REWARDS = re.compile(r"reward|score|metric|component|rubric|criteri|verdict|info|extra", re.IGNORECASE)
_NAMES_OF_REWARDS = re.compile(
    r"(reward|score|metric|component|criteri\w*|rubric|func\w*)s?_?(name|key|label|func|function|type)s?$",
    re.IGNORECASE,
)
_LABELS = ("name", "key", "id", "type", "criterion", "label", "rubric")
_VALUES = ("score", "reward", "value")  # not "points": those are the weights of criteria, before anything is scored


@dataclass
class Flattening:
    """What was found while rows were flattened.

    Attributes:
        weights: column -> the weight in the log; None if it differs from row to row.
        lengths: list column -> lowest and highest number of its items.
        per_token: list column that was reduced to the value that all tokens share -> number of rows where they differ.
        keys: object -> its different keys so far.
        kept_whole: objects with too many different keys.
    """

    weights: dict[str, float | None] = field(default_factory=dict)
    lengths: dict[str, tuple[int, int]] = field(default_factory=dict)
    per_token: dict[str, int] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)
    kept_whole: set[str] = field(default_factory=set)

    def flat(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the cells of a row; lists and objects that are kept whole are still lists and objects."""
        if NESTED.isdisjoint(map(type, row.values())) and not any(map(_may_be_json, row.values())):
            return row
        cells: dict[str, Any] = {}
        labels = _labels_of(row)
        for name, value in row.items():
            if labels and name != labels[0] and _is_labelled(name, value, labels[1]):
                value = dict(zip(labels[1], value, strict=True))
            self._add(cells, name, value, 0)
        return cells

    def _add(self, cells: dict[str, Any], name: str, value: Any, depth: int) -> None:
        if isinstance(value, str) and value[:1] in ("{", "[") and _HOLDS_REWARDS.search(name):
            value = _parsed(value)
        if isinstance(value, dict):
            self._add_object(cells, name, value, depth)
        elif isinstance(value, list):
            self._add_list(cells, name, value, depth)
        else:
            _put(cells, name, value)

    def _add_object(self, cells: dict[str, Any], name: str, value: dict[str, Any], depth: int) -> None:
        if _is_scored(value):
            self._weigh(name, value["weight"])
            _put(cells, name, value["score"])
            value = {key: part for key, part in value.items() if key not in ("score", "weight")}
        known = self.keys.setdefault(name, set())
        known.update(map(str, value))
        if depth >= DEEPEST or len(known) > MOST_KEYS:
            self.kept_whole.add(name)
            _put(cells, name, value)
            return
        for key, inner in value.items():
            self._add(cells, f"{name}.{key if str(key).strip('/. ') else '(empty)'}", inner, depth + 1)

    def _add_list(self, cells: dict[str, Any], name: str, value: list[Any], depth: int) -> None:
        if len(value) == 1 and isinstance(value[0], list) and _are_numbers(value[0]):
            value = value[0]
        if not value:
            _put(cells, name, None)
        elif not _are_numbers(value):
            named = _named_items(value) if _HOLDS_REWARDS.search(name) else None
            if named is None or depth >= DEEPEST:
                _put(cells, name, value)
            else:
                self._add_object(cells, name, named, depth)
        elif len(value) == 1:
            _put(cells, name, value[0])
        elif _ADVANTAGE.search(name):
            self._add_per_token(cells, name, value)
        elif _PER_TOKEN.search(name) or len(value) > LONGEST_LIST or _are_ids(value):
            # With the digest, prompts with equal tokens stay equal, and different prompts stay different.
            _put(cells, name, f"({len(value)} numbers, {zlib.crc32(repr(value).encode()):08x})")
        else:
            low, high = self.lengths.get(name, (len(value), len(value)))
            self.lengths[name] = min(low, len(value)), max(high, len(value))
            for index, number in enumerate(value):
                _put(cells, f"{name}.{index}", number)

    def _add_per_token(self, cells: dict[str, Any], name: str, value: list[Any]) -> None:
        """Put the advantage that all tokens of a completion share; tokens outside of it have 0."""
        shared = {number for number in value if number is not None and number != 0}
        off = self.per_token.setdefault(name, 0)
        if len(shared) <= 1:
            _put(cells, name, next(iter(shared), 0.0))
            return
        low, high = min(shared), max(shared)
        if high - low <= 1e-6 * max(abs(low), abs(high)):  # the same number, rounded
            _put(cells, name, low)
            return
        self.per_token[name] = off + 1
        _put(cells, name, None)

    def _weigh(self, name: str, weight: float | None) -> None:
        known = self.weights.setdefault(name, weight)
        if known != weight:
            self.weights[name] = None


def _labels_of(row: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """Return the list of a row that names the items of its lists of rewards: ``reward_names: [a, b]``."""
    for name, value in row.items():
        if isinstance(value, list) and len(value) > 1 and _NAMES_OF_REWARDS.search(name):
            short = all(isinstance(item, str) and 0 < len(item) <= LONGEST_LABEL for item in value)
            if short and len(set(value)) == len(value):
                return name, value
    return None


def _is_labelled(name: str, value: Any, labels: list[str]) -> bool:
    """Return whether a value is a list of rewards, or of their weights, with one item per label."""
    listed = isinstance(value, list) and len(value) == len(labels) and _are_numbers(value)
    return listed and bool(_HOLDS_REWARDS.search(name)) and not _ADVANTAGE.search(name)


def _may_be_json(value: Any) -> bool:
    return value.__class__ is str and value[:1] in ("{", "[")


def _put(cells: dict[str, Any], name: str, value: Any) -> None:
    """Add a cell; if two parts of a row have the same name, number them, so that both are kept."""
    number, free = 2, name
    while free in cells:
        free, number = f"{name} ({number})", number + 1
    cells[free] = value


def _is_scored(value: Mapping[str, Any]) -> bool:
    return {"score", "weight"} <= value.keys() and all(
        isinstance(value[key], int | float | None) for key in ("score", "weight")
    )


def _are_numbers(values: list[Any]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(value, int) for value in values) and max(values) >= IDS_FROM


def _named_items(values: list[Any]) -> dict[str, Any] | None:
    """Return ``[{name: a, score: 1}, …]`` as ``{a: 1, …}``, with weights if there are any; None for other lists."""
    named: dict[str, Any] = {}
    for item in values:
        if not isinstance(item, dict):
            return None
        label = next((item[key] for key in _LABELS if isinstance(item.get(key), str)), None)
        score = next((key for key in _VALUES if isinstance(item.get(key), int | float)), None)
        if label is None or score is None or label in named or len(label) > LONGEST_LABEL:
            return None
        weight = item.get("weight")
        named[label] = {"score": item[score], "weight": weight} if isinstance(weight, int | float) else item[score]
    return named


def _parsed(text: str) -> Any:
    """Return the object or list that a cell contains as JSON or Python text; otherwise the text."""
    if len(text) > 100_000:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return text
    return value if isinstance(value, dict | list) else text
