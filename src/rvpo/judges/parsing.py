"""Reading a judge's answer: tolerant of its dress, strict about the verdict, safe with whatever a judge may quote.

An answer may come bare, in a code fence, after reasoning, or with text before or after it. Exactly one JSON object
must hold the verdict, and it must begin a line or end the text: one in the middle of a sentence is talked about, not
given. A judge that quotes the completion may quote a false verdict with it. So an object with text around it does not
count where the completion holds the keys of a verdict itself: the answer is malformed, and is asked for again.
Every reader is total and bounded: it returns, or raises :class:`MalformedError`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

MAX_ANSWER_CHARS = 65_536  # of an answer; a longer one is malformed
MIN_MASS = 0.01  # probability of all allowed answers together, below which a model does not answer the question
MAX_OBJECTS = 64  # opening braces in an answer that are looked at: each costs at most one pass

# A JSON object without another, or a list, inside: nothing to recurse into. Possessive: nothing to backtrack.
_OBJECT = re.compile(r'\{[^][{}"]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^][{}"]*+)*+\}', re.DOTALL)
_BEGINS = re.compile(r"(?:\A|\n|[.!?:])[ \t]*+\Z")  # what stands before an object that begins a line or a sentence
_DECODER = json.JSONDecoder(strict=False)
_FENCE = re.compile(r"```[\w-]*+\s*+(.*?)```", re.DOTALL)
_THOUGHT_ENDS = ("</think>", "</thinking>", "</reasoning>")
_THOUGHT_BEGINS = ("<think>", "<thinking>", "<reasoning>")


class MalformedError(ValueError):
    """An answer that holds no verdict, or more than one."""


def read_object(answer: str, keys: Sequence[str], completion: str) -> dict[str, Any]:
    """Return the one JSON object of an answer that holds all ``keys``.

    Args:
        answer: what the judge wrote.
        keys: all must be there, in the object's text as they stand here. Others are allowed.
        completion: the text that was judged, which the answer may quote.

    Raises:
        MalformedError: no such object, two that differ, a key that stands twice, or text around the object while the
            completion holds one of the keys.
    """
    if len(answer) > MAX_ANSWER_CHARS:
        raise MalformedError(f"an answer of {len(answer)} characters")
    text = without_reasoning(answer).strip()
    if (fence := _FENCE.match(text)) and fence.end() == len(text):
        text = fence[1].strip()
    if _OBJECT.fullmatch(text):
        candidates = [text]
    elif any(f'"{key}"' in completion for key in keys):
        raise MalformedError("text around the JSON object, while the completion itself holds the keys of a verdict")
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
    """Return 1.0 for true and 0.0 for false; anything else is MalformedError."""
    if not isinstance(value, bool):
        raise MalformedError(f"{str(value)[:40]!r} instead of true or false")
    return float(value)


def read_score(value: object, scale: tuple[int, int]) -> float:
    """Return where a whole number stands between the bounds of a scale, in [0, 1]; anything else is MalformedError."""
    lowest, highest = scale
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not lowest <= value <= highest:
        raise MalformedError(f"{str(value)[:40]!r} instead of a whole number from {lowest} to {highest}")
    return (value - lowest) / (highest - lowest)


def read_probability(tokens: Sequence[tuple[str, float]]) -> float:
    """Return P(yes) / (P(yes) + P(no)) over the (token, log probability) pairs of one position, case and space aside.

    Raises:
        MalformedError: the two words together have less than :data:`MIN_MASS`.
    """
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in tokens:
        word = token.strip(" \t\r\n▁Ġ\"'.").casefold()
        if word in mass and math.isfinite(logprob):
            mass[word] += math.exp(min(logprob, 0.0))
    if (total := mass["yes"] + mass["no"]) < MIN_MASS:
        raise MalformedError(f"yes and no have {total:.2g} of the probability of the first token: it is no answer")
    return mass["yes"] / total


def without_reasoning(answer: str) -> str:
    """Return what follows the last end of a thought. One that begins and never ends holds no verdict."""
    end = max((at + len(tag) for tag in _THOUGHT_ENDS if (at := answer.rfind(tag)) >= 0), default=0)
    rest = answer[end:]
    if rest.lstrip().startswith(_THOUGHT_BEGINS):
        raise MalformedError("a thought that does not end: raise max_output_tokens")
    return rest


def _objects(text: str, keys: Sequence[str]) -> list[str]:
    """Return the flat objects of a text, alone or within others, that are given rather than talked about.

    Given is what begins a line or a sentence, or ends the text. An object that does not end swallows what follows.
    """
    found: list[str] = []
    text = text.removesuffix("```").rstrip()
    start = text.find("{")
    for _ in range(MAX_OBJECTS):
        if start < 0:
            return found
        try:
            _, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            match = _OBJECT.match(text, start)  # braces that are no JSON, such as {this}
            if match is None:
                if any(f'"{key}"' in text[start:] for key in keys):
                    raise MalformedError("an object that does not end, with a verdict begun in it") from None
                return found
            end = match.end()
        if end == len(text) or _BEGINS.search(text, 0, start):
            found += _OBJECT.findall(text, start, end)
        start = text.find("{", end)
    if start >= 0:
        raise MalformedError(f"more than {MAX_OBJECTS} braces")
    return found


def _parsed(candidate: str, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return the object if it is JSON and holds all keys, None if it is something else."""
    if not all(f'"{key}"' in candidate for key in keys):  # in plain letters: a quotation could hide them by escapes
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
        raise MalformedError("a key that stands twice in the JSON object")
    return value
