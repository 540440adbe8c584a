"""Make the prompts for a judge, which a completion cannot break out of, and read the answers.

A prompt has this order: instructions, conversation, completion, criterion. So the prompts of all criteria of a
completion, and of all completions of a conversation, have the same beginning, and a server's prefix cache is used. The
conversation and the completion are enclosed by lines with a mark that is made of the text's own hash. A text cannot
contain its own mark, equal texts have equal marks, and the text stays readable for small models, unlike JSON strings
with their escapes. One thing is changed in texts, roles and criteria: everything that looks like a control token of a
chat template, such as ``<|im_end|>``, is split by a zero-width space (:mod:`rvpo.judges.control_tokens`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from rvpo.files import sound
from rvpo.judges.control_tokens import harmless, one_line
from rvpo.judges.parsing import MalformedError, read_met, read_object, read_probability, read_score
from rvpo.judges.transport import ServerReply
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.texts import chat
from rvpo.rewards.rubric.verdict import Prompt, Verdict

DEFAULT_SCALE = (1, 10)  # scale of criteria without their own scale, if verdicts are graded
MAX_DETAIL_CHARS = 500  # characters of an explanation that are kept
_TOP_LOGPROBS = 20  # maximum of OpenAI, and of a vLLM server with default options

_FOLDER = files("rvpo.judges") / "prompts"
_NAMES = (
    "system", "material", "boolean", "boolean_explained", "probability", "scale", "scale_explained", "rubric",
)  # fmt: skip
_TEXTS = {name: (_FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in _NAMES}

_LAYOUT = 2  # version of the way in which this module uses these texts
DIGEST = hashlib.sha256(json.dumps([_LAYOUT, _TEXTS], sort_keys=True).encode()).hexdigest()
"""Version of the prompts. It is a part of the key under which a verdict is cached."""

_ID = re.compile(r"c\d+")  # id of a criterion in a call about several criteria


@dataclass(frozen=True, slots=True)
class Inquiry:
    """One call to a judge: the question, and the expected form of the answer.

    Attributes:
        messages: messages of the request.
        criteria: criteria that the call asks about, in order.
        completion: text that is judged.
        keys: keys of the answer's JSON object, one per criterion; empty if the answer is one word with its logprobs.
        scales: scale of each criterion; None if it is met or not met.
        explained: whether the answer begins with an explanation.
    """

    messages: list[dict[str, str]]
    criteria: tuple[Criterion, ...]
    completion: str
    keys: tuple[str, ...]
    scales: tuple[tuple[int, int] | None, ...]
    explained: bool = False

    @property
    def by_logprobs(self) -> bool:
        """Whether the verdict is read from the probabilities of the first token."""
        return not self.keys

    def fields(self, structured: str) -> dict[str, Any]:
        """Return the fields of the request that ask for the form of the answer."""
        if self.by_logprobs:
            return {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        if structured == "none":
            return {}
        if structured == "json_object":
            return {"response_format": {"type": "json_object"}}
        schema = {"name": "verdict", "strict": True, "schema": self._schema()}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def read(self, answer: ServerReply) -> list[Verdict]:
        """Return the verdict on each criterion.

        Raises:
            MalformedError: the answer does not contain all verdicts.
        """
        if self.by_logprobs:
            if answer.first_token is None:
                raise MalformedError("the server does not return logprobs; set verdict to 'boolean'")
            return [Verdict(read_probability(answer.first_token))]
        values = read_object(answer.text or "", self.keys, self.completion)
        if unknown := [key for key in values if _ID.fullmatch(key) and key not in self.keys]:
            raise MalformedError(f"the id {unknown[0][:40]!r}, which was not asked for")
        explanation = values.get("explanation") if self.explained else None
        detail = sound(explanation)[:MAX_DETAIL_CHARS] if isinstance(explanation, str) else None
        return [
            Verdict(read_score(values[key], scale) if scale else read_met(values[key]), None, detail)
            for key, scale in zip(self.keys, self.scales, strict=True)
        ]

    def _schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {"explanation": {"type": "string"}} if self.explained else {}
        for key, scale in zip(self.keys, self.scales, strict=True):
            # Whole numbers are listed, because not every server supports minimum and maximum.
            grades = {"type": "integer", "enum": list(range(scale[0], scale[1] + 1))} if scale else None
            properties[key] = grades or {"type": "boolean"}
        required = list(properties)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def ask_one(shown: str, completion: str, criterion: Criterion, *, verdict: str, explain: bool) -> Inquiry:
    """Return the call that asks about one criterion of a completion.

    Args:
        shown: beginning of the prompt, from :func:`material`.
        completion: text of the completion.
        criterion: criterion to decide.
        verdict: ``boolean``, ``probability`` or ``scale``.
        explain: whether to ask for an explanation.
    """
    scale = _scale(criterion, verdict)
    kind = "scale" if scale else verdict
    lowest, highest = scale or DEFAULT_SCALE
    name = f"{kind}_explained" if explain and kind != "probability" else kind
    question = _filled(name, criterion=harmless(criterion.text), lowest=lowest, highest=highest)
    keys = {"probability": (), "scale": ("score",), "boolean": ("criteria_met",)}[kind]
    return Inquiry(_messages(shown + question), (criterion,), completion, keys, (scale,), name != kind)


def ask_rubric(shown: str, completion: str, criteria: Sequence[Criterion], *, verdict: str) -> Inquiry:
    """Return the call that asks about all criteria of a completion at once, under short ids of their position."""
    scales = tuple(_scale(criterion, verdict) for criterion in criteria)
    keys = tuple(f"c{number}" for number in range(1, len(criteria) + 1))
    lines = [
        f"{key} ({f'whole number from {scale[0]} to {scale[1]}' if scale else 'true or false'}): "
        + harmless(" ".join(criterion.text.split()))
        for key, scale, criterion in zip(keys, scales, criteria, strict=True)
    ]
    question = _filled("rubric", criteria="\n".join(lines))
    return Inquiry(_messages(shown + question), tuple(criteria), completion, keys, scales)


def material(prompt: Prompt, completion: str) -> str:
    """Return conversation and completion between their marks: the beginning of the prompt for all criteria."""
    said, conversation = conversation_of(prompt)
    reply = harmless(completion)
    mark = mark_of(reply)
    return _filled("material", conversation_mark=said, conversation=conversation, reply_mark=mark, reply=reply)


def conversation_of(prompt: Prompt) -> tuple[str, str]:
    """Return the mark of a conversation, and its text with the mark in each line that names a role."""
    turns = [(one_line(role), harmless(text)) for role, text in chat(prompt)]
    mark = mark_of("\n".join(text for _, text in turns))
    return mark, "\n".join(f"[{role} {mark}]\n{text}" for role, text in turns)


def mark_of(text: str) -> str:
    """Return a mark that does not occur in a text. Equal texts have equal marks."""
    seed = text
    while (mark := hashlib.sha256(seed.encode()).hexdigest()[:12]) in text:
        seed = mark + seed
    return mark


def _messages(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": _TEXTS["system"].strip()}, {"role": "user", "content": question.strip()}]


def _filled(name: str, **values: object) -> str:
    return Template(_TEXTS[name]).substitute(values)


def _scale(criterion: Criterion, verdict: str) -> tuple[int, int] | None:
    return criterion.scale or (DEFAULT_SCALE if verdict == "scale" else None)
