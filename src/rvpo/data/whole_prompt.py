"""Check that prompts are whole. Another column may contain the story, the choices or the numbers of the question.

Columns with names of such parts are refused, unless the user chose the columns of the prompt, or reads the column as a
reference. Parts under other names are found if the same prompt has several answers
(:mod:`rvpo.data.repeated_prompts`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.data.columns import ANSWER_COLUMNS, JOINT, NEARLY, PromptColumns, spelled
from rvpo.data.paths import plain
from rvpo.data.records import Place, Row, shorten

_PARTS = {
    "context", "body", "passage", "story", "paragraph", "background", "document", "article", "premise", "scenario",
    "situation", "fact", "evidence", "narrative", "dialogue", "dialog", "transcript", "excerpt", "vignette",
}  # fmt: skip
"""Words in the name of a column whose text a question is about."""

_PART_NAMES = {
    "input", "text", "content", "history", "chat_history", "abstract", "hypothesis", "table", "schema", "db_schema",
    "starter_code", "input_format", "output_format", "constraints", "stories", "bodies",
}  # fmt: skip
"""Whole names of columns whose text a question is about."""

_OF_ANSWERS = {"answer", "output", "response", "completion", "solution", "rubric", "criteria", "id", "url", "type"}
_CHOICES = re.compile(r"(answer_)?(options?|choices?)|endings|((option|choice|opt?|ending)_?|op)[a-h0-9]")
_LETTERS = ("a", "b", "c")
_TOOLS = re.compile(r"(available_)?(tools?|functions?|apis?)|tool_schemas?|api_list")
_WORDS = re.compile(r"[^\W\d_]{2,}")
_UNSPACED = re.compile(r"[\u3040-\u9fff\uac00-\ud7af\u0e00-\u0e7f]{12}")
_NUMBERED = re.compile(r"\bn_\d+\b|\bnumber_?\d+\b|[<\[{](?:num|number|n|x|value|v|temp)_?\d+[>\]}]")


def check_whole(
    rows: Sequence[tuple[Place, Row]],
    columns: PromptColumns,
    prompts: Sequence[Any],
    raw: Sequence[str],
    option: str = "prompt_column=",
) -> None:
    """Refuse prompts if a column that is not read contains a part of them.

    Args:
        rows: rows with their places.
        columns: columns with the prompt. If the user chose them, nothing is refused.
        prompts: prompt of each row, as it was read.
        raw: columns that are read besides the prompt.
        option: spelling of the option that names the prompt's columns, for messages.

    Raises:
        DataError: a column contains a text, choices, tools, or values for placeholders of the prompt.
    """
    if columns.chosen:
        return
    texts = [_text_of(prompt) for prompt in prompts]
    is_text = any(isinstance(prompt, str) for prompt in prompts)
    names = dict.fromkeys(name for _, row in rows for name, value in row.items() if _is_filled(value))
    unread = [name for name in names if name not in columns.names and name not in raw]
    known = {spelled(name) for name in unread}
    for name in unread:
        values = [row.get(name) for _, row in rows]
        what = _kind_of(spelled(name), known, values)
        if what is not None and _is_repeated(what, values, texts):
            what = None
        if what is None and _fills(spelled(name), values, texts):
            what = "values for the placeholders"
        if what is not None:
            raise _left_out(rows, columns, name, what, is_text=is_text, option=option)


def _kind_of(name: str, known: set[str], values: Sequence[Any]) -> str | None:
    """Return which part of a prompt a column contains, by its name and values; None for other columns."""
    words = {word.removesuffix("s") for word in name.split("_")}
    if _TOOLS.fullmatch(name):
        return "tools" if any(_names(value) for value in values) else None
    if _CHOICES.fullmatch(name) or (name in _LETTERS and known.issuperset(_LETTERS)):
        lists = any(
            isinstance(plain(value), list | dict) or len(str(value)) > 3 for value in values if value is not None
        )
        return "choices" if lists or name not in ("choice", "option") else None  # else it is the letter of the answer
    filled = [value for value in values if isinstance(value, str | list | dict) and value]
    if not filled or words & _OF_ANSWERS:
        return None
    wordy = any(isinstance(value, list | dict) or is_wordy(value) for value in filled)
    if name in _PART_NAMES or name.removesuffix("s") in _PARTS or (words & _PARTS and wordy):
        return "a text"
    return None


def _is_repeated(what: str, values: Sequence[Any], prompts: Sequence[str]) -> bool:
    """Return whether the prompts repeat the values, or the values contain the whole prompts."""
    shares = []
    for value, prompt in zip(values, prompts, strict=True):
        found = plain(value)
        leaves = _names(found) if what == "tools" else [leaf for leaf in map(_squeezed, _leaves(found)) if leaf]
        whole = _squeezed(prompt)
        if leaves:
            inside = all(_squeezed(leaf) in whole for leaf in leaves)
            shares.append(inside or (what == "a text" and any(whole in _squeezed(leaf) for leaf in leaves)))
    return sum(shares) >= NEARLY * len(shares)


def _fills(name: str, values: Sequence[Any], prompts: Sequence[str]) -> bool:
    """Return whether the values of a column fill placeholders of most prompts, such as N_00 or {name}."""
    if name in ANSWER_COLUMNS or name == "answer":
        return False
    fits = 0
    for value, prompt in zip(values, prompts, strict=True):
        found = plain(value)
        numbered = set(_NUMBERED.findall(prompt))
        named = map(str, found) if isinstance(found, Mapping) else [name] if found is not None else []
        fits += (bool(numbered) and len(_values(found)) == len(numbered)) or any(_is_slot(key, prompt) for key in named)
    return 2 * fits > len(prompts)


def _is_slot(name: str, prompt: str) -> bool:
    r"""Return whether a prompt has a name in braces. Formulas such as ``\frac{a}{b}`` and ``x_{i}`` do not count."""
    return re.search(rf"(?<![\w}}\]^\\]){{{re.escape(name.lower())}}}", prompt) is not None


def _values(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return [part for part in re.split(r"[\s,;]+", value.strip("[]() ")) if part]
    return list(value) if isinstance(value, list | dict) else [] if value is None else [value]


def _left_out(
    rows: Sequence[tuple[Place, Row]], columns: PromptColumns, name: str, what: str, *, is_text: bool, option: str
) -> Exception:
    place, value = next((place, row[name]) for place, row in rows if _is_filled(row.get(name)))
    seen = f"{what} next to the prompt ({columns.label}), not read as a part of it: {shorten(value)}"
    joins = is_text and what == "a text" and isinstance(value, str)
    return place.error(name, seen, "the whole prompt", next_step(columns, name, joins=joins, option=option))


def next_step(columns: PromptColumns, name: str, *, joins: bool, option: str = "prompt_column=") -> str:
    """Return the next step for a message: how to read a column as a part of the prompt, or how to leave it out.

    Args:
        columns: columns with the prompt.
        name: column that may be a part of the prompt.
        joins: whether both can be joined as texts.
        option: spelling of the option that names the prompt's columns.
    """
    whole = f"{name}{JOINT}{columns.label}"
    join = f"join them with {option}{whole!r}" if joins else f"write {name!r} into the prompt"
    if columns.names == ("prompt",):
        return f"{join}, or read it as a reference with reference_columns={{{name!r}: {name!r}, …}}"
    return f"{join}, or declare that the prompt is whole with {option}{columns.label!r}"


def is_wordy(value: Any) -> bool:
    """Return whether a value is a text with at least three words, or with 12 letters in a script without blanks."""
    if not isinstance(value, str):
        return False
    return len(_WORDS.findall(value)) > 2 or _UNSPACED.search(value) is not None


def _names(tools: Any) -> list[str]:
    """Return the names of tools."""
    found = plain(tools)
    entries = found if isinstance(found, list) else [found]
    named = [entry.get("function", entry) for entry in entries if isinstance(entry, Mapping)]
    return [entry["name"] for entry in named if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)]


def _leaves(value: Any, depth: int = 0) -> list[str]:
    """Return the texts in a nested value."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list) and depth < 4:
        return [leaf for inner in value for leaf in _leaves(inner, depth + 1)]
    return [] if value is None else [str(value)]


def _text_of(prompt: Any) -> str:
    turns = prompt if isinstance(prompt, list) else [prompt]
    contents = [turn.get("content") if isinstance(turn, Mapping) else turn for turn in turns]
    return " ".join(str(content) for content in contents).lower()


def _squeezed(text: str) -> str:
    return "".join(text.split()).lower()


def _is_filled(value: Any) -> bool:
    return value is not None and value not in ("", [], {})
