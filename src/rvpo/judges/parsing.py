"""Read a judge's answer: tolerant about its form, strict about the verdict, and safe if the judge quotes a completion.

An answer may come bare, in a code fence, after reasoning, or with text before or after it. Exactly one JSON object must
contain the verdict, and it must begin a line or end the text: an object in the middle of a sentence is only mentioned.
A judge that quotes the completion may quote a false verdict with it. So if the completion itself contains the keys of a
verdict, an object with text around it does not count. Then the answer is malformed, and the judge is asked again. Every
reader ends in bounded time, and returns a value or raises :class:`MalformedError`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

MAX_ANSWER_CHARS = 65_536  # maximum length of an answer; a longer one is malformed
MIN_MASS = 0.01  # total probability of the possible answers below which a model does not answer the question
MAX_OBJECTS = 64  # maximum number of opening braces in an answer, because each costs up to one pass over the text

# A JSON object without objects or lists inside, so that parsing does not recurse. Possessive, so that it does not
# backtrack.
_OBJECT = re.compile(r'\{[^][{}"]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^][{}"]*+)*+\}', re.DOTALL)
_BEGINS = re.compile(r"(?:\A|\n|[.!?:])[ \t]*+\Z")  # text before an object that begins a line or a sentence
_DECODER = json.JSONDecoder(strict=False)
_FENCE = re.compile(r"```[\w-]*+\s*+(.*?)```", re.DOTALL)
# Marks of thoughts, as servers without a parser for the model return them: DeepSeek, Qwen; Gemma; Mistral; Kimi; Seed;
# gpt-oss.
_THOUGHT_ENDS = (
    *("</think>", "</thinking>", "</reasoning>", "</thought>", "[/THINK]", "◁/think▷", "</seed:think>"),
    "<|channel|>final<|message|>",
)
_THOUGHT_BEGINS = (
    *("<think>", "<thinking>", "<reasoning>", "<thought>", "[THINK]", "◁think▷", "<seed:think>"),
    "<|channel|>analysis<|message|>",
)


class MalformedError(ValueError):
    """An answer that contains no verdict, or more than one."""


def read_object(answer: str, keys: Sequence[str], completion: str) -> dict[str, Any]:
    """Return the one JSON object of an answer that has all ``keys``.

    Args:
        answer: text of the judge.
        keys: keys that the object must have, spelled without escapes. Further keys are accepted.
        completion: text that was judged. The answer may quote it.

    Raises:
        MalformedError: the object is absent, two objects differ, a key occurs twice, or text surrounds the object while
            the completion contains one of the keys.

    Example:
        >>> read_object('It is short.\\n{"criteria_met": true}', ["criteria_met"], "a reply")
        {'criteria_met': True}
    """
    if len(answer) > MAX_ANSWER_CHARS:
        raise MalformedError(f"an answer of {len(answer)} characters")
    text = without_reasoning(answer).strip()
    if (fence := _FENCE.match(text)) and fence.end() == len(text):
        text = fence[1].strip()
    if _OBJECT.fullmatch(text):
        candidates = [text]
    elif any(f'"{key}"' in completion for key in keys):
        raise MalformedError("text around the JSON object, while the completion itself contains the keys of a verdict")
    else:
        candidates = _objects(text, keys)
    found = [value for candidate in candidates if (value := _parsed(candidate, keys)) is not None]
    if not found:
        raise MalformedError(f"no JSON object with {', '.join(keys)}")
    verdicts = [[(key, type(value[key]), value[key]) for key in keys] for value in found]
    if any(verdict != verdicts[0] for verdict in verdicts):
        raise MalformedError(f"{len(found)} JSON objects that contradict each other")
    return found[-1]


def read_met(value: object) -> float:
    """Return 1.0 for true and 0.0 for false.

    Raises:
        MalformedError: the value is anything else.
    """
    if not isinstance(value, bool):
        raise MalformedError(f"{str(value)[:40]!r} instead of true or false")
    return float(value)


def read_score(value: object, scale: tuple[int, int]) -> float:
    """Return the position of a whole number on a scale (lowest, highest), in [0, 1].

    Raises:
        MalformedError: the value is not a whole number on the scale.

    Example:
        >>> read_score(7, (1, 10))
        0.6666666666666666
    """
    lowest, highest = scale
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not lowest <= value <= highest:
        raise MalformedError(f"{str(value)[:40]!r} instead of a whole number from {lowest} to {highest}")
    return (value - lowest) / (highest - lowest)


def read_probability(tokens: Sequence[tuple[str, float]]) -> float:
    """Return P(yes) / (P(yes) + P(no)), ignoring case and white space.

    Args:
        tokens: token and log probability, for the likeliest tokens at one position.

    Raises:
        MalformedError: the two words together have a probability below :data:`MIN_MASS`.
    """
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in tokens:
        word = token.strip(" \t\r\n▁Ġ\"'.").casefold()
        if word in mass and math.isfinite(logprob):
            mass[word] += math.exp(min(logprob, 0.0))
    if (total := mass["yes"] + mass["no"]) < MIN_MASS:
        raise MalformedError(f"the first token is yes or no with a probability of only {total:.2g}")
    return mass["yes"] / total


def without_reasoning(answer: str) -> str:
    """Return the text after the last end of a thought.

    Raises:
        MalformedError: a thought begins but does not end.
    """
    end = max((at + len(tag) for tag in _THOUGHT_ENDS if (at := answer.rfind(tag)) >= 0), default=0)
    rest = answer[end:]
    if rest.lstrip().startswith(_THOUGHT_BEGINS):
        raise MalformedError("a thought that does not end; raise max_output_tokens")
    return rest


def _objects(text: str, keys: Sequence[str]) -> list[str]:
    """Return the flat objects of a text, alone or inside others, that are verdicts rather than mentions.

    An object counts if it begins a line or a sentence, or ends the text. An object that does not end includes the rest
    of the text.
    """
    found: list[str] = []
    text = text.removesuffix("```").rstrip()
    start = text.find("{")
    for _ in range(MAX_OBJECTS):
        if start < 0:
            return found
        try:
            value, end = _DECODER.raw_decode(text, start)
            if _holds_verdict_around_another(value, keys):
                raise MalformedError("a verdict inside another verdict")
        except MalformedError:
            raise
        except (ValueError, RecursionError):
            match = _OBJECT.match(text, start)  # braces that are not JSON, such as {this}
            if match is None:
                if any(f'"{key}"' in text[start:] for key in keys):
                    raise MalformedError("an object that does not end, but begins a verdict") from None
                return found
            end = match.end()
        if end == len(text) or _BEGINS.search(text, 0, start):
            found += _OBJECT.findall(text, start, end)
        start = text.find("{", end)
    if start >= 0:
        raise MalformedError(f"more than {MAX_OBJECTS} braces")
    return found


def _holds_verdict_around_another(value: Any, keys: Sequence[str]) -> bool:
    """Return whether an object with one of the keys contains another such object, however deep."""
    levels = [(value, False)]
    while levels:
        inner, is_within = levels.pop()
        if isinstance(inner, dict):
            has_key = any(key in inner for key in keys)
            if has_key and is_within:
                return True
            is_within = is_within or has_key
            inner = list(inner.values())
        if isinstance(inner, list):
            levels += [(part, is_within) for part in inner]
    return False


def _parsed(candidate: str, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return the object if it is JSON and has all keys; None otherwise."""
    if not all(f'"{key}"' in candidate for key in keys):  # in plain letters: a quotation could hide them in escapes
        return None
    try:
        value = json.loads(candidate, object_pairs_hook=_unique, strict=False)
    except MalformedError:
        raise
    except ValueError:
        return None
    return value if all(key in value for key in keys) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise MalformedError("a key that occurs twice in the JSON object")
    return value
