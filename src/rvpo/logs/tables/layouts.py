"""Convert a record of a file to rows, one per completion: a record may contain a group, or a whole step, in lists.

The anchor is the list of completions: a record becomes one row per item. Every other list of that length is distributed
over the rows, also inside objects (``rewards: {a: [..]}``). Everything else belongs to all rows. Without completions,
an object of lists with equal lengths, or rewards next to advantages of equal length, is also such a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rvpo.errors import DataError
from rvpo.logs.tables.anchors import COMPLETIONS, OUTER, SCORES, find_anchor, is_chat, is_message

PROMPTS = ("prompts", "prompt", "input", "inputs", "question", "questions", "problem", "query", "messages")
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
LINE = "line"
"""The added column: number of the record that contained the row."""
LOGGED_LINE = "logged_line"
"""Name of a column that the log itself calls ``line``, in records that contain rows."""
GROUP = "group."
"""Prefix for a name of the record that one of its completions also has."""
_SCORED = re.compile(r"reward|score|metric|component|extra|info|verdict", re.IGNORECASE)
NESTED = {list, dict}
DEEPEST = 4  # largest depth of nested lists of objects


@dataclass
class Layout:
    """Converts records to rows, and remembers what was found.

    Attributes:
        records: count of records read.
        unfolded: count of records whose lists were unfolded into rows.
        plain: count of records that are one row.
        largest: largest number of rows of one record.
        one_prompt: whether each unfolded record has one prompt or id, not a list of them.
        repeated: names of values that belong to a whole record.
        own: names of values that belong to one completion, from records inside lists.
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
        """Whether every record is a group, so that the column :data:`LINE` identifies groups."""
        return self.one_prompt and self.unfolded > 0 and not self.plain and self.largest > 1

    def is_repeated(self, name: str) -> bool:
        """Return whether the values of a column, given by its dotted name, belong to whole records."""
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
        if LINE in record and (depth or anchor is not None):
            record = {LOGGED_LINE if name == LINE else name: value for name, value in record.items()}
            anchor = None if anchor is None else (LOGGED_LINE if anchor[0] == LINE else anchor[0], anchor[1])
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


def _is_hollow(record: Mapping[str, Any]) -> bool:
    """Return whether a record is an empty group or step: all its lists are empty."""
    lists = [value for value in record.values() if isinstance(value, list)]
    return any(record.get(name) == [] for name in COMPLETIONS) and not any(lists)


def _is_one_group(record: Mapping[str, Any], anchor: str) -> bool:
    if any(isinstance(record.get(name), list) and not is_chat(record[name]) for name in PROMPTS):
        return False
    ids = () if anchor in OUTER else IDS  # the id of a record with a list of rows does not identify a group
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
                # Next to lists of scores with the right length, a list that is a little shorter or longer lacks some.
                nearly = bool(dealt_parts) and _SCORED.search(name) is not None and _is_nearly(part, count)
                _check_length(part, count, f"{where}: {name}.{key}", anchor, scores or nearly)
            if dealt_parts:
                dealt[name] = dealt_parts
            if shared_parts:
                shared[name] = shared_parts
        elif _is_listed(value, count):
            dealt[name] = value
        elif scores and isinstance(value, list) and value and all(_is_listed(part, count) for part in value):
            dealt[name] = [list(of_one) for of_one in zip(*value, strict=True)]  # one list per reward
        else:
            _check_length(value, count, f"{where}: {name}", anchor, scores)
            shared[name] = value
    return dealt, shared


def _is_nearly(value: Any, count: int) -> bool:
    """Return whether a list has numbers for most of the completions, or for more than there are."""
    listed = isinstance(value, list) and count / 2 < len(value) < 2 * count
    return listed and all(item is None or isinstance(item, int | float) for item in value)


def _check_length(value: Any, count: int, what: str, anchor: str, scores: bool) -> None:
    if scores and isinstance(value, list) and len(value) != count:
        raise DataError(
            f"{what} has {len(value)} items, but {anchor!r} has {count}; expected one per completion. Fix the record"
        )


def shared_names(shared: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted names of the values that belong to all rows of a record."""
    for name, value in shared.items():
        yield from (f"{name}.{key}" for key in value) if isinstance(value, dict) else (name,)


def _pick(value: Any, index: int, shared: Any) -> Any:
    if isinstance(value, dict):
        return {**(shared or {}), **{key: part[index] for key, part in value.items()}}
    return value[index]


def _merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Join the values of a record with those of one completion, which keeps its names."""
    merged = {f"{GROUP}{name}" if name in inner and name != LINE else name: value for name, value in outer.items()}
    return {**merged, **inner}
