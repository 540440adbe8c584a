"""Read prompts in the forms of public data.

Forms: text, chat messages (``role`` and ``content``), ShareGPT's turns (``from`` and ``value``), a list with one list
of messages (BFCL), and any of these as JSON text. If a conversation ends with the assistant, this last turn is the
answer and the turns before it are the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpo.data.columns import PromptColumns
from rvpo.data.paths import ABSENT, lookup, plain
from rvpo.data.records import COLUMN_OPTIONS, ROLES, Place, Row, shorten

_SPEAKERS: Mapping[str, str] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip


def read_prompt(place: Place, row: Row, columns: PromptColumns) -> tuple[Any, str | None]:
    """Return the prompt of a row as text or chat messages, and the answer at the end of its conversation or None.

    A value that does not have the form of a prompt is returned unchanged: the later check of the record refuses it.

    Raises:
        DataError: a speaker or a part of a message is unknown, or the user has several turns without replies.
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
    texts = isinstance(value, list) and len(value) > 1 and all(isinstance(turn, str) for turn in value)
    if texts or (isinstance(value, list) and value and all(isinstance(turns, list) for turns in value)):
        if len(value) > 1:
            seen = f"{len(value)} turns of the user, without the replies between them"
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


def with_system(row: Row, column: str, prompt: Any) -> Any:
    """Return a prompt as a chat that begins with the system message in a column of its row, if the row has one."""
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    text = row.get(column)
    if not isinstance(text, str) or not text.strip() or not isinstance(chat, list):
        return chat
    begins = bool(chat) and isinstance(chat[0], dict) and chat[0].get("role") in ("system", "developer")
    return chat if begins else [{"role": "system", "content": text}, *chat]


def _is_chat(value: Any) -> bool:
    """Return whether a value parsed from JSON text is a conversation. Other JSON may be the text of a prompt."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(isinstance(t, dict) and {"role", "from"} & t.keys() for t in turns)


def _message(place: Place, where: str, turn: Any) -> Any:
    """Return a turn with ``role`` and ``content``. Parts of text are joined."""
    if not isinstance(turn, dict):
        return turn
    message = {key: value for key, value in turn.items() if value is not None or key in ("role", "content")}
    if "from" in message and "role" not in message:
        speaker = message.pop("from")
        role = _SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
        if role is None:
            expected = f"one of {', '.join(_SPEAKERS)}"
            raise place.error(f"{where}.from", shorten(speaker), expected, f"rename the speaker to one of {ROLES}")
        message["role"] = role
        if "value" in message:
            message["content"] = message.pop("value")
        for key in ("weight", "loss", "train"):  # for supervised training: whether the turn is trained on
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
    if row.get(columns.asked) is None:
        raise place.error(columns.asked, "no prompt", "text", f"add it, or set {COLUMN_OPTIONS}")
    return "\n\n".join(part for part in parts if part is not None and part.strip())


def _numbered_turns(row: Row, columns: PromptColumns) -> list[dict[str, Any]]:
    """Return the conversation of PRBench's columns ``prompt_0``, ``response_0``, ``prompt_1``, …."""
    turns = ((name, row.get(name)) for name in columns.names)
    return [
        {"role": "user" if name.lower().startswith("prompt") else "assistant", "content": text}
        for name, text in turns
        if isinstance(text, str) and text.strip()
    ]
