"""Which columns hold the prompt and the answer, and prompts in the forms that public data have.

Forms of a prompt: text, chat messages (``role`` and ``content``), ShareGPT's turns (``from`` and ``value``), a list of
one list of messages (BFCL), and any of them as JSON text. A conversation that ends with the assistant gives the prompt
before that turn, and the turn as the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.data.paths import ABSENT, lookup, plain
from rvpo.data.records import COLUMN_OPTIONS, ROLES, Place, Row, shorten

TOGETHER = (("context", "question"), ("instruction", "input"))
"""Columns that make one prompt together, in this order."""

PROMPT_COLUMNS = (
    "question",
    "problem",
    "query",
    "instruction",
    "messages",
    "conversations",
    "conversation",
    "user_query",
    "user_prompt",
)
"""Names of the column with the prompt, where none is called ``prompt``. Two of them in a file are ambiguous."""

LESS_USUAL = ("input", "task")
"""Such names that are looked at where a file has none of the others, as they also name other things."""

ANSWER_COLUMNS = (
    "solution",
    "reference_answer",
    "ground_truth",
    "expected_answer",
    "final_answer",
    "correct_answer",
    "gold_answer",
    "gold",
    "target",
    "label",
    "reference",
    "output",
    "response",
    "completion",
)
"""Names of the column with the answer, where none is called ``answer``. Two of them in a file are ambiguous."""

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
CONVERSATIONS = ("messages", "conversations", "conversation")
TRUTH = "reward_model.ground_truth"
"""Where verl's rows have the answer."""

_SPEAKERS: Mapping[str, str] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip


@dataclass(frozen=True)
class PromptColumns:
    """The columns that make the prompt: one, or several joined by a blank line; absent ones add nothing."""

    names: tuple[str, ...]

    @property
    def is_conversation(self) -> bool:
        """Whether a last turn of the assistant is the answer, not part of the prompt."""
        return self.names[0].lower() in CONVERSATIONS

    def line(self) -> str:
        """Return which columns were read."""
        return f"prompt = {' + '.join(self.names)}"


def find_prompt(rows: Sequence[tuple[Place, Row]], chosen: str) -> PromptColumns:
    """Return the columns with the prompt.

    Args:
        rows: the rows with their places.
        chosen: option ``prompt_column``; ``"prompt"``, its default, is looked for under other names if absent.

    Raises:
        DataError: the file has two columns that may hold the prompt.
    """
    columns = list(dict.fromkeys(name for _, row in rows for name, value in row.items() if value is not None))
    if chosen in columns or chosen != "prompt":
        return PromptColumns((chosen,))
    known = {spelled(name): name for name in reversed(columns)}
    if "prompt" in known:
        return PromptColumns((known["prompt"],))
    if "prompt_0" in known:
        turns = [known[f"{kind}_{i}"] for i in range(100) for kind in ("prompt", "response") if f"{kind}_{i}" in known]
        return PromptColumns(tuple(turns))
    found = [known[name] for name in PROMPT_COLUMNS if name in known]
    for pair in TOGETHER:
        names = [known[name] for name in pair if name in known]
        if len(names) == 2 and set(found) <= set(names):
            return PromptColumns(tuple(names))
    found = found or [known[name] for name in LESS_USUAL if name in known]
    if len(found) > 1:
        place = rows[0][0]
        seen = f"no column 'prompt', and {found} may each be the prompt"
        raise place.error("prompt", seen, "one column with the prompt", f"set prompt_column={found[0]!r}, for one")
    return PromptColumns(tuple(found) or (chosen,))


def read_prompt(place: Place, row: Row, columns: PromptColumns) -> tuple[Any, str | None]:
    """Return the prompt of a row as text or chat messages, and the answer that its conversation ends with, if any.

    What is not a prompt in any form that is known is returned as it is: checking the record will refuse it.

    Raises:
        DataError: a speaker or part of a message is unknown, or the user has several turns without replies.
    """
    if columns.names[0].lower() == "prompt_0":
        return _numbered_turns(row, columns), None
    if len(columns.names) > 1:
        return _joined(place, row, columns), None
    name = columns.names[0]
    value = lookup(row, name)
    if value is ABSENT:
        return None, None
    shared, value = False, plain(value) if _is_chat(plain(value)) else value
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(turns, list) for turns in value):
        if len(value) > 1:
            seen = f"{len(value)} turns of the user that are asked one after the other"
            raise place.error(name, seen, "a prompt for one reply", "write one row per turn, with the turns before it")
        value = value[0]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0], None
    if isinstance(value, list):
        shared = any(isinstance(turn, dict) and "from" in turn for turn in value)
        value = [_message(place, f"{name}[{i}]", turn) for i, turn in enumerate(value)]
    ends = isinstance(value, list) and len(value) > 1 and isinstance(value[-1], dict)
    if ends and value[-1].get("role") == "assistant" and (shared or columns.is_conversation):
        reply = value[-1].get("content")
        return value[:-1], reply if isinstance(reply, str) else None
    return value, None


def find_system(rows: Sequence[tuple[Place, Row]], raw: Sequence[str]) -> str | None:
    """Return the column with the text of a system message, which belongs to the prompt; None if there is none."""
    texts = (name for _, row in rows for name, value in row.items() if isinstance(value, str) and value.strip())
    names = dict.fromkeys(texts)
    return next((name for name in names if spelled(name) in SYSTEM_COLUMNS and name not in raw), None)


def with_system(row: Row, column: str, prompt: Any) -> Any:
    """Return a prompt as a chat that begins with the system message of its row, if it has one."""
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    text = row.get(column)
    if not isinstance(text, str) or not text.strip() or not isinstance(chat, list):
        return chat
    begins = bool(chat) and isinstance(chat[0], dict) and chat[0].get("role") in ("system", "developer")
    return chat if begins else [{"role": "system", "content": text}, *chat]


def find_answer(
    rows: Sequence[tuple[Place, Row]], columns: PromptColumns, *, rubric: str | None, has_reply: bool
) -> str | None:
    """Return the column with the answer; None if the conversations end with it, or rubrics need none.

    Raises:
        DataError: the file has two columns that may hold the answer, and no rubrics.
    """

    has_rubric = rubric is not None

    def filled(path: str) -> int:
        return sum(lookup(row, path) not in (ABSENT, None, "") for _, row in rows)

    if filled("answer") and rubric != "answer":
        return "answer" if not has_rubric or filled("answer") == len(rows) else None
    if filled(TRUTH):
        return TRUTH if not has_rubric or filled(TRUTH) == len(rows) else None
    if has_rubric or has_reply:
        return None
    names = dict.fromkeys(name for _, row in rows for name in row)
    known = {spelled(name): name for name in names if name not in columns.names}
    found = [known[name] for name in ("answer", *ANSWER_COLUMNS) if name in known and filled(known[name])]
    if len(found) > 1 and found[0].lower() != "answer":
        place = rows[0][0]
        seen = f"no column 'answer', and {found} may each be the answer"
        next_step = f"set reference_columns={{'answer': {found[0]!r}}}, for one"
        raise place.error("answer", seen, "one column with the answer", next_step)
    return found[0] if found else "answer"


def spelled(name: str) -> str:
    """Return a column's name as it is looked for: ``Correct Answer`` is ``correct_answer``."""
    return re.sub(r"[\s-]+", "_", name.strip()).lower()


def answer_text(value: Any) -> Any:
    """Return a number as text; any other value as it is. A whole number that a table made a decimal is whole again."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_chat(value: Any) -> bool:
    """Return whether a value that was JSON text is a conversation; other lists and objects may be the prompt's text."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(isinstance(t, dict) and {"role", "from"} & t.keys() for t in turns)


def _message(place: Place, where: str, turn: Any) -> Any:
    """Return a turn with ``role`` and ``content``, its parts of text joined."""
    if not isinstance(turn, dict):
        return turn
    message = {key: value for key, value in turn.items() if value is not None or key in ("role", "content")}
    if "from" in message and "role" not in message:
        speaker = message.pop("from")
        role = _SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
        if role is None:
            expected = f"one of {', '.join(_SPEAKERS)}"
            raise place.error(f"{where}.from", shorten(speaker), expected, f"rename the speaker, as one of {ROLES}")
        message["role"] = role
        if "value" in message:
            message["content"] = message.pop("value")
        for key in ("weight", "loss", "train"):  # of supervised training: whether the turn is learnt
            message.pop(key, None)
    parts = message.get("content")
    if isinstance(parts, list) and parts and all(_is_text_part(part) for part in parts):
        message["content"] = "".join(part["text"] for part in parts)
    return message


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _joined(place: Place, row: Row, columns: PromptColumns) -> Any:
    parts = []
    for name in columns.names:
        value = row.get(name)
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            value = "\n\n".join(value)
        if value is not None and not isinstance(value, str):
            next_step = f"set prompt_column to the other column, or write {name!r} as text"
            raise place.error(name, f"{type(value).__name__} {shorten(value)}", "text", next_step)
        parts.append(value)
    needed = columns.names[1] if columns.names[0].lower() == "context" else columns.names[0]
    if row.get(needed) is None:
        raise place.error(needed, "no prompt", "text", f"add it, or set {COLUMN_OPTIONS}")
    return "\n\n".join(part for part in parts if part is not None and part.strip())


def _numbered_turns(row: Row, columns: PromptColumns) -> list[dict[str, Any]]:
    """Return the conversation of PRBench's columns ``prompt_0``, ``response_0``, ``prompt_1``, …."""
    said = ((name, row.get(name)) for name in columns.names)
    return [
        {"role": "user" if name.lower().startswith("prompt") else "assistant", "content": text}
        for name, text in said
        if isinstance(text, str) and text.strip()
    ]
