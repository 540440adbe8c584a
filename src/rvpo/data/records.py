"""The prompt record: the checks of a row, and the one form of messages about bad rows."""

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
"""Options that name the columns of a file, for messages."""

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles of a chat message."""

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
"""Names of columns that TRL's GRPO trainer passes to reward functions itself, drops, or reads as pictures."""


def shorten(value: object, width: int = 90) -> str:
    """Return ``repr(value)``, cut to ``width`` characters so that a message stays readable.

    Example:
        >>> shorten("a long text", 10)
        "'a long..."
    """
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def source_error(source: str, seen: str, expected: str, next_step: str) -> DataError:
    """Return the error for a whole file, folder or hub dataset.

    Args:
        source: name of the file, folder or dataset.
        seen: what was found, as a noun phrase.
        expected: what was expected, as a noun phrase.
        next_step: what the user can do, as an imperative.
    """
    seen = " ".join(seen.split())  # messages of other libraries may have several lines
    return DataError(f"{source}: saw {seen}; expected {expected}; next step: {next_step}")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a row.

    Attributes:
        source: name of the file, folder or dataset.
        row: number of the row, from 0.
        line: number of the line, from 1; None if rows are not lines.
    """

    source: str
    row: int
    line: int | None = None

    def error(self, field: str | None, seen: str, expected: str, next_step: str) -> DataError:
        """Return the error for one field of this row. ``field=None`` stands for the whole row."""
        where = f"{self.source}, row {self.row}"
        where += "" if self.line is None else f" (line {self.line})"
        where += "" if field is None else f", field {field!r}"
        return source_error(where, seen, expected, next_step)


def require_field(
    place: Place,
    row: Row,
    field: str,
    expected: str,
    label: str | None = None,
    next_step: str = "add the field to this row",
) -> Any:
    """Return ``row[field]``.

    Raises:
        DataError: the field is absent or null.
    """
    if row.get(field) is None:
        seen = "null" if field in row else f"no such field (the row has {shorten(sorted(row))})"
        raise place.error(label or field, seen, expected, next_step)
    return row[field]


def require_text(place: Place, row: Row, field: str, label: str | None = None) -> str:
    """Return ``row[field]``, a text that is not blank.

    Raises:
        DataError: the field is absent, not text, blank, or not valid Unicode.
    """
    expected = "text with at least one visible character"
    value = require_field(place, row, field, expected, label)
    if not isinstance(value, str):
        seen = f"{type(value).__name__} {shorten(value)}"
        raise place.error(label or field, seen, expected, "write the value as a string")
    if not value.strip():
        raise place.error(label or field, shorten(value), expected, "fill in the text")
    check_unicode(place, label or field, value)
    return value


def check_unicode(place: Place, field: str, text: str) -> None:
    """Check that a text can be stored as UTF-8.

    Raises:
        DataError: the text contains a lone surrogate, which UTF-8 cannot encode.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        seen = f"the lone surrogate {text[error.start]!a} at character {error.start}"
        raise place.error(field, seen, "valid Unicode", "repair the escape sequence in the file") from error


def check_prompt(place: Place, field: str, prompt: object) -> str | list[dict[str, str]]:
    """Return the prompt: text, or chat messages with only the keys ``role`` and ``content``.

    Raises:
        DataError: the prompt has another form, or no text.
    """
    expected = "a non-empty string, or a list of messages {'role': ..., 'content': ...}"
    if isinstance(prompt, str):
        return require_text(place, {field: prompt}, field)
    if not isinstance(prompt, list):
        seen = f"{type(prompt).__name__} {shorten(prompt)}"
        raise place.error(field, seen, expected, "convert the column, or name another one as prompt_column")
    messages = [_check_message(place, f"{field}[{i}]", message) for i, message in enumerate(prompt)]
    if not any(m["content"].strip() for m in messages if m["role"] not in ("system", "developer")):
        seen = f"{len(messages)} messages without any text except in the system message"
        raise place.error(field, seen, expected, "add the user's message")
    return messages


def _check_message(place: Place, field: str, message: object) -> dict[str, str]:
    expected = "{'role': ..., 'content': ...}"
    if not isinstance(message, dict):
        seen = f"{type(message).__name__} {shorten(message)}"
        raise place.error(field, seen, expected, "write each message as an object")
    role = require_field(place, message, "role", f"one of {', '.join(ROLES)}", f"{field}.role")
    if role not in ROLES:
        next_step = "rename the role ('human' is usually 'user', 'gpt' is 'assistant')"
        raise place.error(f"{field}.role", shorten(role), f"one of {', '.join(ROLES)}", next_step)
    content = require_field(place, message, "content", "text", f"{field}.content")
    if not isinstance(content, str):
        seen = f"{type(content).__name__} {shorten(content)}"
        raise place.error(f"{field}.content", seen, "text", "join the parts into one string (text only)")
    check_unicode(place, f"{field}.content", content)
    # Arrow fills keys that only other messages have with null, so a null key has no meaning.
    extra = sorted(key for key, value in message.items() if key not in ("role", "content") and value is not None)
    if extra:
        next_step = "render these keys into the message's content"
        raise place.error(field, f"the further keys {shorten(extra)}", f"only {expected}", next_step)
    return {"role": role, "content": content}


def with_system_prompt(prompt: str | list[dict[str, str]], system_prompt: str) -> list[dict[str, str]]:
    """Replace the leading system (or developer) message, or add one. A text becomes the user's message."""
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
    """Check one raw row, and return its prompt and its reference columns under their new names.

    Raises:
        DataError: a field is absent, null or malformed.
    """
    next_step = f"add the field to this row, or set {COLUMN_OPTIONS}"
    prompt = require_field(place, row, prompt_column, "text or chat messages", next_step=next_step)
    prompt = check_prompt(place, prompt_column, prompt)
    record: Row = {"prompt": prompt if system_prompt is None else with_system_prompt(prompt, system_prompt)}
    for new_name, column in reference_columns.items():
        expected = "text" if new_name == "answer" else "any value but null"
        record[new_name] = require_field(place, row, column, expected, next_step=next_step)
        if new_name == "answer":
            require_text(place, row, column)
        elif isinstance(record[new_name], str):
            check_unicode(place, column, record[new_name])
    return record


def prompt_chars(record: Row) -> int:
    """Return the number of characters of a record's prompt: of its text, or of all its messages together."""
    prompt = record["prompt"]
    return len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)


def check_types(placed: list[tuple[Place, Row]]) -> None:
    """Check that each column has one type: prompts are all text or all chats; int and float are one type.

    Raises:
        DataError: a row has another type than the first row.
    """
    first = placed[0][1]
    for place, record in placed:
        for name, value in record.items():
            if name == "rubric" and (value is None or first[name] is None):
                continue  # a prompt without a rubric, kept by missing_rubrics='keep'
            if _kind(value) != _kind(first[name]):
                expected = f"{_kind(first[name])}, as in row {placed[0][0].row}"
                next_step = "use one type for the whole column"
                raise place.error(name, f"{_kind(value)} {shorten(value)}", expected, next_step)


def build_dataset(placed: list[tuple[Place, Row]]) -> Dataset:
    """Return checked records as a dataset that gives back exactly the same values.

    Raises:
        DataError: Arrow refuses a column, or would change a value.
    """
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
    """Return records with pictures as they are stored: ``{bytes, path}``."""
    from datasets import Image, List

    return dataset.cast_column("images", List(Image(decode=False)))


def _with_pictures(dataset: Dataset, images: Sequence[Sequence[bytes]]) -> Dataset:
    """Add a column with lists of pictures. They are decoded when a row is read."""
    from datasets import Dataset, Features, Image, List, concatenate_datasets

    values = [[{"bytes": data, "path": None} for data in row] for row in images]
    column = Dataset.from_dict({"images": values}, features=Features({"images": List(Image())}))
    return concatenate_datasets([dataset, column], axis=1)


def _kind(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__


def _check_storable(placed: list[tuple[Place, Row]], name: str, values: list[Any]) -> None:
    """Check that Arrow stores a column without changing a value, such as filling absent object keys with null."""
    from datasets import Dataset

    expected = "one type and the same object keys in every row"
    next_step = "store the value as a JSON string and parse it in the reward function"
    try:
        stored = Dataset.from_dict({name: values})[name]
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:  # Arrow's errors derive from these
        source = placed[0][0].source
        raise source_error(f"{source}, column {name!r}", str(error), expected, next_step) from error
    for (place, _), value, back in zip(placed, values, stored, strict=True):
        # repr is compared, too, because NaN is not equal to itself
        if back != value and repr(back) != repr(value):
            seen = f"{shorten(value)}, which the column would store as {shorten(back)}"
            raise place.error(name, seen, expected, next_step)
