"""Find the anchor of a record: the list that has one item per completion.

A list of texts or objects is an anchor only if there are numbers for each of its items. Next to a single completion,
lists are its references, tests or messages. A list of scores is an anchor if a second list has the same length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

COMPLETIONS = (
    *(
        "completions",
        "responses",
        "generations",
        "outputs",
        "rollouts",
        "samples",
        "trajectories",
        "candidates",
        "inferences",
    ),
    *("predictions", "completion", "response", "generation", "output", "answers", "texts"),
)
REFERENCES = ("answers", "texts", "predictions")
ONE_COMPLETION = ("completion", "response", "generation", "output", "model_output")
OUTER = ("groups", "examples", "problems", "items", "results", "records", "rows", "data", "batch", "traces")
"""Names of lists of objects, which may be rows or groups."""
SCORES = ("rewards", "reward", "scores", "score", "advantages", "advantage", "metrics", "reward_components")
_SCORED = re.compile(r"^(?!.*weight).*(reward|score|(^|_)adv)", re.IGNORECASE)
_PER_TOKEN = re.compile(r"token|log_?prob|mask|_ids$", re.IGNORECASE)
_LABELS = re.compile(r"name|func|label|key|tag|type|criteri|column|metric", re.IGNORECASE)


def find_anchor(record: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return name and length of the list with one item per completion; None if the record is a single row."""
    one = any(isinstance(record.get(name), str) or is_chat(record.get(name)) for name in ONE_COMPLETION)
    for name in COMPLETIONS:
        value = record.get(name)
        if one and name in REFERENCES:  # next to a single completion, these are its references
            continue
        if isinstance(value, list) and _are_completions(value) and _has_numbers(record, name, value):
            return name, len(value)
    for name in () if one else OUTER:
        value = record.get(name)
        if isinstance(value, list) and value and not is_chat(value) and _are_rows(record, value):
            return name, len(value)
    for name in SCORES:
        value = record.get(name)
        if isinstance(value, dict) and value:
            lengths = {len(inner) if isinstance(inner, list) else -1 for inner in value.values()}
            if len(lengths) == 1 and min(lengths) >= 1:
                return name, lengths.pop()
    return _anchor_of_scores(record)


def _anchor_of_scores(record: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return a list of scores with one item per completion: a list of scores or texts next to it has the same length.

    A single list of scores may also have one item per reward. If a list per token has the same length, the scores
    belong to one completion.
    """
    if any(
        isinstance(record.get(name), str) or is_chat(record.get(name)) for name in (*COMPLETIONS, "content", "text")
    ):
        return None
    lists = {name: value for name, value in record.items() if isinstance(value, list) and len(value) > 1}
    scores = [name for name, value in lists.items() if _SCORED.search(name) and all(map(_is_number, value))]
    for name in scores:
        alike = [other for other, value in lists.items() if len(value) == len(lists[name]) and other != name]
        if any(_PER_TOKEN.search(other) for other in alike):
            continue
        if any(other in scores or _are_texts(other, lists[other]) for other in alike):
            return name, len(lists[name])
    return None


def _has_numbers(record: Mapping[str, Any], anchor: str, items: list[Any]) -> bool:
    """Return whether there are numbers for each completion: in lists of their length, in scores, or in the items."""
    if _are_rows(record, items):
        return True
    for name, value in record.items():
        for part in value.values() if isinstance(value, dict) else (value,):
            numbers = (
                isinstance(part, list) and bool(part) and not is_chat(part) and not isinstance(part[0], str | dict)
            )
            if name != anchor and numbers and (len(part) == len(items) or _SCORED.search(name)):
                return True
    return False


def _are_rows(record: Mapping[str, Any], items: list[Any]) -> bool:
    """Return whether objects may be completions: they have scores, or their record has no scores."""
    if not all(isinstance(item, dict) for item in items):
        return False
    scored = any(_SCORED.search(str(name)) for item in items for name in item)
    return scored or not any(_SCORED.search(name) and value is not None for name, value in record.items())


def has_scores(record: Mapping[str, Any]) -> bool:
    """Return whether a name in a record is that of a reward or a score."""
    return any(_SCORED.search(str(name)) for name in record)


def is_message(value: Any) -> bool:
    """Return whether a value is a message of a chat or a part of a response; an object with a score is not."""
    if not isinstance(value, dict) or any(_SCORED.search(str(key)) for key in value):
        return False
    return "role" in value or "type" in value or {"from", "value"} <= value.keys()


def is_chat(value: Any) -> bool:
    """Return whether a value is a chat: a list of messages."""
    return isinstance(value, list) and bool(value) and all(is_message(item) for item in value)


def _are_completions(values: list[Any]) -> bool:
    if not values or is_chat(values):
        return False
    return all(isinstance(value, str | dict) or is_chat(value) for value in values)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _are_texts(name: str, values: list[Any]) -> bool:
    """Return whether a list has texts other than the names of rewards."""
    return all(isinstance(value, str) for value in values) and not _LABELS.search(name)
