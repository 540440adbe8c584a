"""One record of a file as rows, one per completion: a record may hold a group, or a whole step, in lists.

The anchor is the list of completions: a record becomes as many rows as it has items. Every other list of that length
is dealt out to the rows, also inside objects (``rewards: {a: [..]}``). Everything else belongs to all rows. Without
completions, an object of lists of one length, or rewards next to advantages of one length, are such a record, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rvpo.errors import DataError

COMPLETIONS = (
    *("completions", "responses", "generations", "outputs", "rollouts", "samples", "trajectories", "candidates"),
    *("predictions", "completion", "response", "generation", "output", "answers", "texts"),
)
REFERENCES = ("answers", "texts", "predictions")
ONE_COMPLETION = ("completion", "response", "generation", "output", "model_output")
OUTER = ("groups", "examples", "problems", "items", "results", "records", "rows", "data", "batch", "traces")
"""Lists of objects, which may be rows or groups."""
PROMPTS = ("prompts", "prompt", "input", "inputs", "question", "questions", "problem", "query", "messages")
_SCORED = re.compile(r"^(?!.*weight).*(reward|score|(^|_)adv)", re.IGNORECASE)
_PER_TOKEN = re.compile(r"token|log_?prob|mask|_ids$", re.IGNORECASE)
_LABELS = re.compile(r"name|func|label|key|tag|type|criteri|column|metric", re.IGNORECASE)
IDS = (
    "example_id",
    "prompt_id",
    "group_id",
    "uid",
    "id",
    "task_id",
    "problem_id",
    "prompt_idx",
    "group",
    "index",
    "idx",
    "qid",
)
SCORES = ("rewards", "reward", "scores", "score", "advantages", "advantage", "metrics", "reward_components")
LINE = "line"
"""The added column: the number of the record that a row was in."""
GROUP = "group."
"""Put in front of a name of the record that one of its completions has, too."""
NESTED = {list, dict}
DEEPEST = 4  # lists of objects inside one another


@dataclass
class Layout:
    """How records become rows, and what was found on the way.

    Attributes:
        records: count of records read.
        unfolded: count of records that became rows out of lists.
        plain: count of records that are one row.
        largest: most rows of one of them.
        one_prompt: whether each of the unfolded has one prompt or id, not a list of them.
        repeated: names of what belongs to a whole record.
        own: names of what belongs to one completion, of records that lie in lists.
    """

    records: int = 0
    unfolded: int = 0
    plain: int = 0
    largest: int = 0
    one_prompt: bool = True
    repeated: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)

    @property
    def is_grouped(self) -> bool:
        """Whether every record is a group, so that the column :data:`LINE` tells groups apart."""
        return self.one_prompt and self.unfolded > 0 and not self.plain and self.largest > 1

    def is_repeated(self, name: str) -> bool:
        """Tell whether a column's values belong to whole records, by its dotted name."""
        if name.split(".")[0] in self.own:
            return False
        return any(name == shared or name.startswith(f"{shared}.") for shared in self.repeated)

    def rows(self, record: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a record; ``where`` names it in messages.

        Raises:
            DataError: a list of rewards has another length than that of the completions.
        """
        self.records += 1
        if NESTED.isdisjoint(map(type, record.values())):  # most logs are flat, and long
            self.plain += 1
            return iter((record,))
        return self._rows(record, where, 0)

    def _rows(self, record: dict[str, Any], where: str, depth: int) -> Iterator[dict[str, Any]]:
        anchor = find_anchor(record) if depth < DEEPEST else None
        if anchor is None:
            if not _is_hollow(record):
                self.plain += not depth
                yield record
            return
        name, count = anchor
        items = record[name]
        inner = isinstance(items, list) and isinstance(items[0], dict) and not is_message(items[0])
        nested = inner and find_anchor(items[0]) is not None
        if not nested:
            self.unfolded += 1
            self.largest = max(self.largest, count)
            self.one_prompt = self.one_prompt and _is_one_group(record, name)
        dealt, shared = _split(record, count, where, name)
        self.repeated.update((LINE, *shared_names(shared)))
        number = self.unfolded
        for index in range(count):
            row = {LINE: number, **shared}
            for key, value in dealt.items():
                row[key] = _pick(value, index, shared.get(key))
            item = row[name]
            if inner and isinstance(item, dict):
                self.plain += nested and find_anchor(item) is None
                del row[name]
                for part in self._rows(item, where, depth + 1):
                    self.own.update(part.keys() - {LINE})
                    self.repeated.update(f"{GROUP}{key}" for key in part.keys() & row.keys())
                    yield _merged(row, part)
            else:
                yield row


def find_anchor(record: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the name and the length of the list that has an item per completion; None where a record is one row."""
    one = any(isinstance(record.get(name), str) or is_chat(record.get(name)) for name in ONE_COMPLETION)
    for name in COMPLETIONS:
        value = record.get(name)
        if one and name in REFERENCES:  # next to a completion they are its references
            continue
        listed = isinstance(value, list) and value and not is_chat(value) and _are_completions(value)
        if listed and _has_numbers(record, name, value):
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
    """Return a list of scores with an item per completion: others of its length, or texts, lie next to it.

    Alone it may as well have an item per reward. Numbers of tokens of its length are those of one completion.
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


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _are_texts(name: str, values: list[Any]) -> bool:
    """Tell whether a list holds texts, other than the names of rewards."""
    return all(isinstance(value, str) for value in values) and not _LABELS.search(name)


def _is_hollow(record: Mapping[str, Any]) -> bool:
    """Tell whether a record would hold a group or a step, and holds none: all its lists are empty."""
    lists = [value for value in record.values() if isinstance(value, list)]
    return any(record.get(name) == [] for name in COMPLETIONS) and not any(lists)


def _has_numbers(record: Mapping[str, Any], anchor: str, items: list[Any]) -> bool:
    """Tell whether there are numbers for each completion: in lists of their length, in scores, or in the items."""
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
    """Tell whether objects may be completions: they have scores, or the record that they lie in has none."""
    if not all(isinstance(item, dict) for item in items):
        return False
    scored = any(_SCORED.search(str(name)) for item in items for name in item)
    return scored or not any(_SCORED.search(name) and value is not None for name, value in record.items())


def is_message(value: Any) -> bool:
    """Tell whether a value is one message of a chat, or one part of a response; what has a score is none."""
    if not isinstance(value, dict) or any(_SCORED.search(str(key)) for key in value):
        return False
    return "role" in value or "type" in value or {"from", "value"} <= value.keys()


def is_chat(value: Any) -> bool:
    """Tell whether a value is a chat: a list of messages."""
    return isinstance(value, list) and bool(value) and all(is_message(item) for item in value)


def _are_completions(values: list[Any]) -> bool:
    return all(isinstance(value, str | dict) or is_chat(value) for value in values)


def _is_one_group(record: Mapping[str, Any], anchor: str) -> bool:
    if any(isinstance(record.get(name), list) and not is_chat(record[name]) for name in PROMPTS):
        return False
    ids = () if anchor in OUTER else IDS  # the id of a record with a list of anything is no group's
    return any(record.get(name) is not None for name in (*PROMPTS, *ids))


def _is_listed(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and not is_chat(value)


def _split(record: Mapping[str, Any], count: int, where: str, anchor: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what has one item per completion, and what belongs to all of them."""
    dealt: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for name, value in record.items():
        scores = name in SCORES
        if isinstance(value, dict):
            dealt_parts = {key: part for key, part in value.items() if _is_listed(part, count)}
            shared_parts = {key: part for key, part in value.items() if key not in dealt_parts}
            for key, part in shared_parts.items():
                _check_length(part, count, f"{where}: {name}.{key}", anchor, scores)
            if dealt_parts:
                dealt[name] = dealt_parts
            if shared_parts:
                shared[name] = shared_parts
        elif _is_listed(value, count):
            dealt[name] = value
        elif scores and isinstance(value, list) and value and all(_is_listed(part, count) for part in value):
            dealt[name] = [list(of_one) for of_one in zip(*value, strict=True)]  # a list per reward
        else:
            _check_length(value, count, f"{where}: {name}", anchor, scores)
            shared[name] = value
    return dealt, shared


def _check_length(value: Any, count: int, what: str, anchor: str, scores: bool) -> None:
    if scores and isinstance(value, list) and len(value) != count:
        raise DataError(
            f"{what} has {len(value)} items, but {anchor!r} has {count}; expected one per completion: repair the record"
        )


def shared_names(shared: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted names of what belongs to all rows of a record."""
    for name, value in shared.items():
        yield from (f"{name}.{key}" for key in value) if isinstance(value, dict) else (name,)


def _pick(value: Any, index: int, shared: Any) -> Any:
    if isinstance(value, dict):
        return {**(shared or {}), **{key: part[index] for key, part in value.items()}}
    return value[index]


def _merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Join what belongs to the record and what belongs to one of its completions; the latter keeps its names."""
    merged = {f"{GROUP}{name}" if name in inner and name != LINE else name: value for name, value in outer.items()}
    return {**merged, **inner}
