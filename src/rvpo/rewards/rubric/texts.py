"""Turn prompts and completions, plain or chat, into the text that judges read. Every message becomes text.

Chat messages may contain tool calls, a tool's output, or content in parts (text, image). A judge must see the calls of
the policy, and must not mistake a tool's output for the policy's words. A single malformed message must not cost a
batch its verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.rewards.rubric.verdict import Prompt


def chat(prompt: Prompt) -> list[tuple[str, str]]:
    """Return role and text of each message of a prompt. A plain text is a message of the user."""
    if isinstance(prompt, str):
        return [("user", prompt)]
    return [_turn(message) for message in prompt]


def completion_text(completion: Any) -> str:
    """Return the text of the policy: plain text, or the assistant's messages of a chat, with tool calls as JSON."""
    if isinstance(completion, str):
        return completion
    turns = [_turn(message) for message in completion]
    return "\n".join(text for role, text in turns if role == "assistant")


def completion_texts(completions: Sequence[Any]) -> list[str]:
    """Return :func:`completion_text` of each completion."""
    return [completion_text(completion) for completion in completions]


def has_pictures(prompt: Any) -> bool:
    """Return whether a chat has a part that is not text. A judge that reads only text would not see it."""
    messages = [] if isinstance(prompt, str) else prompt
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, Mapping) and part.get("type") in PICTURES for part in parts)


PICTURES = ("image", "image_url", "input_image", "video", "video_url", "audio", "input_audio")
"""Types of parts that are not text."""


def _turn(message: Any) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        return "user", str(message)
    parts = [_content(message.get("content"))]
    if message.get("tool_calls"):
        parts.append(json.dumps(message["tool_calls"], default=str, ensure_ascii=False))
    return str(message.get("role") or "user"), "\n".join(part for part in parts if part)


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, list):
        return "\n".join(
            part["text"] if isinstance(part, Mapping) and isinstance(part.get("text"), str) else f"[{_kind(part)}]"
            for part in content
        )
    return str(content)


def _kind(part: Any) -> str:
    return str(part.get("type") or "part") if isinstance(part, Mapping) else str(part)
