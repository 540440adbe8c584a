r"""Two formats in which a model sees tools and calls them: the format of RLLA, and the model's own.

**RLLA** (ToolRL, arXiv 2504.13958) is for models trained on it. The system prompt lists the tools: a numbered list with
their parameters as JSON. The reply is ``<think> … </think>``, then ``<tool_call>`` with one JSON object ``{"name",
"parameters"}`` per line, then ``<response>``. A model must see the sentences that it was trained on, so they are taken
from a record of its data (:func:`read_template`). Without such a record, our own sentences ask for the same layout;
such a score says less about how well a model does what it was trained for.

**Own**: the model's chat template or server gets the tools (``Item.tools``). The calls are those that the server
parsed, or text in the layouts of Hermes and Qwen (``<tool_call>`` around ``{"name", "arguments"}``), SmolLM2 (a list
inside the tags) or Llama 3 (``{"name", "parameters"}`` as the whole text). As in the official handler for Qwen, a block
that is not JSON is ignored, and so is all thinking up to the last ``</think>``.

A reply comes from a model in training, so it is hostile input: no text of a reply makes this module raise, and the
work on it is bounded by the limits of :mod:`rvpo.rewards.toolcall`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.data.records import shorten, source_error
from rvpo.data.rlla import read_rlla_json, read_rlla_parquet
from rvpo.evals.items import Message, Reply
from rvpo.rewards.toolcall import MAX_BLOCK_CHARS, MAX_CALLS, decode

Call = dict[str, dict[str, Any]]
"""``{name: {parameter: value}}``, the form that BFCL's checker needs."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class RllaTemplate:
    """The fixed sentences of an RLLA prompt.

    Attributes:
        head: beginning of the system prompt, up to the list of tools.
        tail: end of the system prompt, after the list of tools.
        opening: beginning of the user's message, up to the dialogue.
    """

    head: str
    tail: str
    opening: str

    @property
    def digest(self) -> str:
        """SHA-256 of the sentences."""
        return hashlib.sha256("\0".join((self.head, self.tail, self.opening)).encode()).hexdigest()


OWN_WORDS = RllaTemplate(
    head="You help the user, with tools where they fit. The tools are:\n",
    tail="""

First think. Then call tools, or respond, or both, in exactly this layout; leave out what is not needed:
<think> your reasoning </think>
<tool_call>
{"name": "name of a tool", "parameters": {"name of a parameter": "its value"}}
{"name": "name of a tool", "parameters": {}}
</tool_call>
<response> your words to the user </response>

Each line between the tool_call tags is one call. Call a tool only if it serves the request.""",
    opening="",
)


def read_template(path: Path) -> RllaTemplate:
    """Take the fixed sentences from the first record of an RLLA file, JSON or parquet.

    Raises:
        DataError: the file is absent or not of RLLA's layout, or its first record has no list of tools.
    """
    if not path.is_file():
        raise source_error(str(path), "no such file", "RLLA data, JSON or parquet", "name a file of it")
    rows = read_rlla_parquet(path, set()) if path.suffix == ".parquet" else read_rlla_json(path)
    _, row = next(rows, (None, None))
    contents = [str(message["content"]) for message in row["prompt"]] if row else []
    if len(contents) == 2:
        system, user = contents
        first, last = system.find("\n1. Name: "), system.rfind("\nParameters: ")
        if 0 <= first < last and "<user>" in user:
            end = system.find("\n", last + 1)
            tail = system[end:] if end >= 0 else ""
            return RllaTemplate(system[: first + 1], tail, user.partition("<user>")[0])
    expected = "a system prompt with '1. Name: …', 'Description: …', 'Parameters: {…}' and a user's turn in <user> tags"
    next_step = "name the file of RLLA data that the model was trained on, or leave the template out"
    raise source_error(str(path), f"a first record with {shorten(contents)}", expected, next_step)


def rlla_prompt(
    template: RllaTemplate, messages: Sequence[Message], functions: Sequence[Mapping[str, Any]]
) -> tuple[Message, Message]:
    """Return system prompt and dialogue in RLLA's layout.

    A system message of the question follows the template's. As in RLLA, the type of an optional parameter says so
    (``"integer, optional"``), and every parameter has a default, which is empty if the schema gives none.

    Args:
        template: the fixed sentences.
        messages: the chat to continue; roles system, user and assistant.
        functions: mappings with ``name``, ``description`` and ``parameters``, a JSON schema of an object.
    """
    tools = "\n".join(
        f"{number}. Name: {function['name']}\nDescription: {function['description']}\n"
        f"Parameters: {json.dumps(_flat_parameters(function['parameters']))}"
        for number, function in enumerate(functions, 1)
    )
    system = [message["content"] for message in messages if message["role"] == "system"]
    tags = {"user": "user", "assistant": "response"}
    turns = [(tags[message["role"]], message["content"]) for message in messages if message["role"] in tags]
    dialogue = "\n\n".join(f"<{tag}> {content.strip()} </{tag}>" for tag, content in turns)
    return (
        {"role": "system", "content": "\n\n".join([template.head + tools + template.tail, *system])},
        {"role": "user", "content": template.opening + dialogue},
    )


def rlla_calls(reply: Reply) -> list[Call] | None:
    """Read the calls of a reply in RLLA's layout; ``[]`` if it has none, None if they cannot be read.

    The calls are in the first ``<tool_call>`` after the thinking, one JSON object per line; blank lines are ignored.
    """
    answer = (reply.text or "").rpartition("</think>")[2]
    if _OPEN not in answer:
        return []
    block, closed, _ = answer.partition(_OPEN)[2].partition(_CLOSE)
    try:
        if not closed or len(block) > MAX_BLOCK_CHARS:
            raise ValueError("an open or too long block of calls")
        return _as_calls([_json(line) for line in block.splitlines() if line.strip()])
    except _UNREADABLE:
        return None


def own_calls(reply: Reply) -> list[Call] | None:
    """Read the calls of a reply in the model's own format; ``[]`` if it has none, None if they cannot be read."""
    try:
        if reply.calls:
            return [{call["name"]: _json(call["arguments"])} for call in reply.calls]
        answer = (reply.text or "").rpartition("</think>")[2]
        return _as_calls(list(_tagged(answer)) if _OPEN in answer else _bare(answer))
    except _UNREADABLE:
        return None


_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


def _flat_parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema's properties as RLLA lists them."""
    required = schema.get("required", [])
    flat = {}
    for name, given in schema["properties"].items():
        kind = given.get("type", "any")
        first = {"description": given.get("description", ""), "type": kind if name in required else f"{kind}, optional"}
        rest = {key: value for key, value in given.items() if key not in ("description", "type", "default")}
        flat[name] = {**first, **rest, "default": given.get("default", "")}
    return flat


def _tagged(text: str) -> Iterator[Any]:
    """Yield the JSON values between pairs of tags, and ignore other text. The time is linear in the text."""
    end = 0
    for _ in range(MAX_CALLS):
        start = text.find(_OPEN, end)
        stop = text.find(_CLOSE, start)
        if start < 0 or stop < 0:
            return
        end = stop + len(_CLOSE)
        try:
            value = _json(text[start + len(_OPEN) : stop])
        except (ValueError, RecursionError):
            continue
        yield from value if isinstance(value, list) else [value]


def _bare(text: str) -> list[Any]:
    """Return the value of a text that is one JSON object with a name, else an empty list."""
    text = text.strip()
    if not text.startswith("{"):
        return []
    try:
        value = _json(text)
    except (ValueError, RecursionError):
        return []
    return [value] if "name" in value else []


def _json(text: str) -> Any:
    if len(text) > MAX_BLOCK_CHARS:
        raise ValueError("too long")
    return decode(text.strip())


def _as_calls(values: list[Any]) -> list[Call]:
    """Return JSON values as calls; raise one of :data:`_UNREADABLE` if a value is not a call or there are too many."""
    if len(values) > MAX_CALLS:
        raise ValueError("too many calls")
    calls: list[Call] = []
    for value in values:
        arguments = value["arguments"] if "arguments" in value else value["parameters"]
        calls.append({value["name"]: dict(arguments.items())})
    return calls
