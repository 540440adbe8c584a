"""The prompt record: what a row must look like, and the one way in which a bad row is reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rvpo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = "Iterator[tuple[Place, Row]]"

COLUMN_OPTIONS = (
    "prompt_column, or reference_columns (new name -> column of the file; `reference_columns: {}` for data "
    "without answers)"
)
"""How to say where a file keeps what we ask for, for messages."""

ROLES = ("system", "developer", "user", "assistant", "tool")
"""The roles that a chat message may have."""

RESERVED_COLUMNS = (
    "prompts",
    "completion",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
    "image",
    "images",
)
"""Names that TRL's GRPO trainer passes to reward functions itself, drops, or reads as pictures."""


def shorten(value: object, width: int = 90) -> str:
    """Return ``repr(value)``, cut to ``width`` characters so that a message stays readable."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def source_error(source: str, seen: str, allowed: str, next_step: str) -> DataError:
    """Return the error for a whole file, folder or hub dataset."""
    seen = " ".join(seen.split())  # messages of other libraries may span lines
    return DataError(f"{source}: saw {seen}; allowed: {allowed}; next step: {next_step}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row came from: ``row`` counts from 0; ``line`` counts from 1 and exists for JSONL only."""

    source: str
    row: int
    line: int | None = None

    def error(self, field: str | None, seen: str, allowed: str, next_step: str) -> DataError:
        """Return the error for one field of this row (``field=None``: the row as a whole)."""
        where = f"{self.source}, row {self.row}"
        where += "" if self.line is None else f" (line {self.line})"
        where += "" if field is None else f", field {field!r}"
        return source_error(where, seen, allowed, next_step)


def require_field(
    place: Place,
    row: Row,
    field: str,
    allowed: str,
    label: str | None = None,
    next_step: str = "add the field to this row",
) -> Any:
    """Return ``row[field]``; an absent or null field raises :class:`~rvpo.errors.DataError`."""
    if row.get(field) is None:
        seen = "null" if field in row else f"no such field (the row has {shorten(sorted(row))})"
        raise place.error(label or field, seen, allowed, next_step)
    return row[field]


def require_text(place: Place, row: Row, field: str, label: str | None = None) -> str:
    """Return ``row[field]`` if it is text that is not blank and can be stored as UTF-8."""
    allowed = "text with at least one visible character"
    value = require_field(place, row, field, allowed, label)
    if not isinstance(value, str):
        seen = f"{type(value).__name__} {shorten(value)}"
        raise place.error(label or field, seen, allowed, "write the value as a string")
    if not value.strip():
        raise place.error(label or field, shorten(value), allowed, "fill in the text")
    check_unicode(place, label or field, value)
    return value


def check_unicode(place: Place, field: str, text: str) -> None:
    """Raise DataError where a text holds a lone surrogate, which no file or server can take as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        seen = f"the lone surrogate {text[error.start]!a} at character {error.start}"
        raise place.error(field, seen, "valid Unicode", "repair the escape sequence in the file") from error


def check_prompt(place: Place, field: str, prompt: object) -> str | list[dict[str, str]]:
    """Return the prompt, text or chat messages, reduced to the keys ``role`` and ``content``."""
    allowed = "a non-empty string, or a list of messages {'role': ..., 'content': ...}"
    if isinstance(prompt, str):
        return require_text(place, {field: prompt}, field)
    if not isinstance(prompt, list):
        seen = f"{type(prompt).__name__} {shorten(prompt)}"
        raise place.error(field, seen, allowed, "convert the column, or name another one as prompt_column")
    messages = [_check_message(place, f"{field}[{i}]", message) for i, message in enumerate(prompt)]
    if not any(m["content"].strip() for m in messages if m["role"] not in ("system", "developer")):
        seen = f"{len(messages)} messages, none of them with text beside the system message"
        raise place.error(field, seen, allowed, "add the user's message")
    return messages


def _check_message(place: Place, field: str, message: object) -> dict[str, str]:
    allowed = "{'role': ..., 'content': ...}"
    if not isinstance(message, dict):
        seen = f"{type(message).__name__} {shorten(message)}"
        raise place.error(field, seen, allowed, "write each message as an object")
    role = require_field(place, message, "role", f"one of {', '.join(ROLES)}", f"{field}.role")
    if role not in ROLES:
        next_step = "rename the role ('human' is usually 'user', 'gpt' is 'assistant')"
        raise place.error(f"{field}.role", shorten(role), f"one of {', '.join(ROLES)}", next_step)
    content = require_field(place, message, "content", "text", f"{field}.content")
    if not isinstance(content, str):
        seen = f"{type(content).__name__} {shorten(content)}"
        raise place.error(f"{field}.content", seen, "text", "join the parts into one string (text only)")
    check_unicode(place, f"{field}.content", content)
    # Arrow fills keys that only other messages have with null, so a null key carries nothing.
    extra = sorted(key for key, value in message.items() if key not in ("role", "content") and value is not None)
    if extra:
        next_step = "render these keys into the message's content"
        raise place.error(field, f"the further keys {shorten(extra)}", f"only {allowed}", next_step)
    return {"role": role, "content": content}


def with_system_prompt(prompt: str | list[dict[str, str]], system_prompt: str) -> list[dict[str, str]]:
    """Replace the leading system (or developer) message, or add one; text becomes the user's message."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    has_system = messages[0]["role"] in ("system", "developer")
    return [{"role": "system", "content": system_prompt}, *messages[int(has_system) :]]


def to_record(
    place: Place,
    row: Row,
    *,
    prompt_column: str,
    reference_columns: Mapping[str, str],
    system_prompt: str | None,
) -> Row:
    """Check one raw row and keep its prompt and reference columns, under their new names."""
    next_step = f"add the field to this row, or set {COLUMN_OPTIONS}"
    prompt = require_field(place, row, prompt_column, "text or chat messages", next_step=next_step)
    prompt = check_prompt(place, prompt_column, prompt)
    record: Row = {"prompt": prompt if system_prompt is None else with_system_prompt(prompt, system_prompt)}
    for new_name, column in reference_columns.items():
        allowed = "text" if new_name == "answer" else "any value but null"
        record[new_name] = require_field(place, row, column, allowed, next_step=next_step)
        if new_name == "answer":
            require_text(place, row, column)
        elif isinstance(record[new_name], str):
            check_unicode(place, column, record[new_name])
    return record


def prompt_chars(record: Row) -> int:
    """Return the characters of a record's prompt: its text, or the contents of all its messages."""
    prompt = record["prompt"]
    return len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)


def check_types(placed: list[tuple[Place, Row]]) -> None:
    """Raise unless each column holds one type: text or chat for prompts, numbers mixing int and float."""
    first = placed[0][1]
    for place, record in placed:
        for name, value in record.items():
            if name == "rubric" and (value is None or first[name] is None):
                continue  # a prompt without a rubric, which was asked for
            if _kind(value) != _kind(first[name]):
                allowed = f"{_kind(first[name])}, as in row {placed[0][0].row}"
                next_step = "use one type for the whole column"
                raise place.error(name, f"{_kind(value)} {shorten(value)}", allowed, next_step)


def build_dataset(placed: list[tuple[Place, Row]]) -> Dataset:
    """Store checked records as a dataset that gives back exactly the values that went in."""
    from datasets import Dataset

    first = placed[0][1]
    columns = {name: [record[name] for _, record in placed] for name in first if name != "images"}
    for name, values in columns.items():
        if name not in ("prompt", "rubric") and not isinstance(first[name], str):
            _check_storable(placed, name, values)
    dataset = Dataset.from_dict(columns)
    if "images" not in first:
        return dataset
    return _with_pictures(dataset, [record["images"] for _, record in placed])


def undecoded(dataset: Dataset) -> Dataset:
    """Return records whose pictures are ``{bytes, path}``, as they are stored."""
    from datasets import Image, List

    return dataset.cast_column("images", List(Image(decode=False)))


def _with_pictures(dataset: Dataset, images: Sequence[Sequence[bytes]]) -> Dataset:
    """Add lists of pictures, which are decoded when a row is read."""
    from datasets import Dataset, Features, Image, List, concatenate_datasets

    values = [[{"bytes": data, "path": None} for data in row] for row in images]
    column = Dataset.from_dict({"images": values}, features=Features({"images": List(Image())}))
    return concatenate_datasets([dataset, column], axis=1)


def _kind(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__


def _check_storable(placed: list[tuple[Place, Row]], name: str, values: list[Any]) -> None:
    """Raise if Arrow refuses a column, or would change a value (it fills absent object keys with null)."""
    from datasets import Dataset

    allowed = "one type and the same object keys in every row"
    next_step = "store the value as a JSON string and parse it in the reward function"
    try:
        stored = Dataset.from_dict({name: values})[name]
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:  # Arrow's errors derive from these
        source = placed[0][0].source
        raise source_error(f"{source}, column {name!r}", str(error), allowed, next_step) from error
    for (place, _), value, back in zip(placed, values, stored, strict=True):
        # repr: NaN is not equal to itself, and yet it is unchanged
        if back != value and repr(back) != repr(value):
            seen = f"{shorten(value)}, which the column would store as {shorten(back)}"
            raise place.error(name, seen, allowed, next_step)
