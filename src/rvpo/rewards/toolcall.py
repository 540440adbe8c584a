"""Tool calling: three reward channels that compare a reply with its reference reply.

Source: ToolRL, arXiv 2504.13958, verl/utils/reward_score/rlla.py (Apache-2.0), without any of its environment switches.
The rewards are equal to the last bit, including its peculiarities: think tags are not counted, ``True == 1``, and a
predicted call without "parameters" matters only if the reference has its name.

Each function takes one reply (``format_reward(reply, reference)``) or, as TRL calls reward functions, N of both. Text
before the reply itself, such as a chat template's header, must already be removed. Surrounding white space is ignored.

A reply is written by the policy that is rewarded for it, so it is hostile input: no reply raises an exception, and the
limits below bound the work. Calls beyond a limit count as unparsable. Only then can a reward differ from ToolRL's. If
the calls of the *reference* are unparsable, the reward is None (missing), never 0.
"""

from __future__ import annotations

import json
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any, overload

from rvpo.errors import RewardError

MAX_BLOCK_CHARS = 65_536  # characters between the tool_call tags; the rest of a reply may have any length
MAX_CALLS = 64  # calls in one reply, because every wanted call is compared with every predicted one
MAX_NESTING = 900  # levels of one call; Python's limit is 1,000 minus the caller's frames, unless a library raised it
MAX_DIGITS = sys.int_info.default_max_str_digits  # digits of an integer: 4,300 unless a library raised Python's limit
WORDS = 512  # words of reasoning that earn the full length reward

Completions = list[str] | list[list[dict[str, Any]]]
"""N replies: strings, or chats ``[{"role": "assistant", "content": ...}]``, scored by their first message."""

# (reference has a <tool_call>, reference has a <response>) -> literals that a reply must contain in this order, the
# first at its start and the last at its end.
_LAYOUT: dict[tuple[bool, bool], tuple[str, ...]] = {
    (False, False): ("<think>", "</think>"),
    (False, True): ("<think>", "</think>\n<response>", "</response>"),
    (True, False): ("<think>", "</think>\n<tool_call>\n", "\n</tool_call>"),
    (True, True): ("<think>", "</think>\n<tool_call>\n", "\n</tool_call>\n<response>", "</response>"),
}
# A JSON string, closed or not. An open string must match the rest, or many quotes would take quadratic time.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?')
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


@overload
def format_reward(completions: str, answer: str, **_: object) -> float | None: ...
@overload
def format_reward(completions: Completions, answer: list[str], **_: object) -> list[float | None]: ...
def format_reward(completions: Any, answer: Any, **_: object) -> Any:
    r"""Return 1 if the reply has the same layout as its reference, else 0.

    The tags of the reference choose one of four layouts: ``<think>…</think>``, followed, if the reference has them, by
    ``\n<tool_call>\n…\n</tool_call>`` and ``\n<response>…</response>``, and nothing else. Each tag after the thought
    must occur once in the whole reply.

    Args:
        completions: one reply, or N (:data:`Completions`).
        answer: reference reply, or N. Other keyword arguments, which TRL passes, are ignored.

    Returns:
        0.0 or 1.0, or a list of N; never None.

    Raises:
        RewardError: completions and answer are not two strings, or two lists of the same length.

    Example:
        >>> format_reward("<think>a</think>", "<think>b</think>"), format_reward("no tags", "<think>b</think>")
        (1.0, 0.0)
    """
    return _score(_format, completions, answer)


@overload
def correctness_reward(completions: str, answer: str, **_: object) -> float | None: ...
@overload
def correctness_reward(completions: Completions, answer: list[str], **_: object) -> list[float | None]: ...
def correctness_reward(completions: Any, answer: Any, **_: object) -> Any:
    """Return a score in [-3, 3] of how well the reply calls the tools of the reference with its parameters.

    With W wanted and P predicted calls, one JSON object ``{"name": …, "parameters": {…}}`` per line::

        reward  = 6 * score / maximum - 3
        score   = sim(names) + sum over W of the best unused P of that name: sim(keys) + number of equal values
        maximum = 1 + sum over W of: 1 + number of keys
        sim     = shared / (a + b - shared) of two multisets, 1 for equal lists

    Equal lists of calls score 3. A reply without both tags, or with something unparsable between them, scores -3. If
    the reference has no ``<tool_call>``, every reply scores 0.

    Args:
        completions: one reply, or N (:data:`Completions`).
        answer: reference reply, or N. Other keyword arguments, which TRL passes, are ignored.

    Returns:
        The reward, or a list of N; None (missing) if the reference's calls are not JSON or exceed a limit above.

    Raises:
        RewardError: completions and answer are not two strings, or two lists of the same length.
    """
    return _score(_correctness, completions, answer)


@overload
def length_reward(completions: str, answer: str, **_: object) -> float | None: ...
@overload
def length_reward(completions: Completions, answer: list[str], **_: object) -> list[float | None]: ...
def length_reward(completions: Any, answer: Any, **_: object) -> Any:
    """Return the number of words of reasoning divided by 512, at most 1.

    Counted are the words after the last ``<think>`` up to ``</think>``.

    Args:
        completions: one reply, or N (:data:`Completions`).
        answer: reference reply, or N; not used. Other keyword arguments, which TRL passes, are ignored.

    Returns:
        A value in [0, 1] rounded to 2 decimals, or a list of N; 0 if a think tag is absent, never None.

    Raises:
        RewardError: completions and answer are not two strings, or two lists of the same length.

    Example:
        >>> length_reward("<think>" + "word " * 128 + "</think>", "")
        0.25
    """
    return _score(_length, completions, answer)


# Ranges of the rewards, for methods that compare channels on their scales.
format_reward.reward_range = (0.0, 1.0)  # type: ignore[attr-defined]
correctness_reward.reward_range = (-3.0, 3.0)  # type: ignore[attr-defined]
length_reward.reward_range = (0.0, 1.0)  # type: ignore[attr-defined]


def _format(reply: str, reference: str) -> float:
    has_call, has_response = "<tool_call>" in reference, "<response>" in reference
    for tag, present in (("tool_call>", has_call), ("response>", has_response)):
        if present and not reply.count("<" + tag) == reply.count("</" + tag) == 1:
            return 0.0
    first, *inner, last = _LAYOUT[has_call, has_response]
    if not reply.startswith(first):
        return 0.0
    end = len(first)
    for literal in inner:  # the leftmost match suffices, so this is linear; a regular expression would backtrack
        if (start := reply.find(literal, end)) < 0:
            return 0.0
        end = start + len(literal)
    return float(reply.endswith(last, end))


def _correctness(reply: str, reference: str) -> float | None:
    if "<tool_call>" not in reference:
        return 0.0
    try:
        wanted = _parse_calls(reference)
    except (ValueError, RecursionError):
        return None
    if "<tool_call>" not in reply or "</tool_call>" not in reply:
        return -3.0
    try:
        return _compare(wanted, _parse_calls(reply))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):  # not JSON, or JSON that is not calls
        return -3.0


def _length(reply: str, reference: str) -> float:
    if "<think>" not in reply or "</think>" not in reply:
        return 0.0
    thought = reply.rpartition("<think>")[2].partition("</think>")[0]
    return min(1.0, round(len(thought.split(maxsplit=WORDS)) / WORDS, 2))


def _compare(wanted: list[Any], predicted: list[Any]) -> float:
    if wanted == predicted:
        return 3.0
    wanted_names, names = [call["name"] for call in wanted], [call["name"] for call in predicted]
    score = 1.0  # equal lists are not hashed, because a name may be any JSON value
    if wanted_names != names:
        score = _similarity((Counter(wanted_names) & Counter(names)).total(), len(wanted_names), len(names))
    maximum = 1.0
    unused = dict(enumerate(predicted))
    for call in wanted:
        name, parameters = call["name"], call["parameters"]
        maximum += 1.0 + len(parameters)
        best, best_index = 0.0, -1
        for index, candidate in unused.items():
            if candidate["name"] == name and (match := _match(parameters, candidate["parameters"])) > best:
                best, best_index = match, index
        if best_index >= 0:
            del unused[best_index]
            score += best
    return 6.0 * score / maximum - 3.0


def _match(wanted: dict[str, Any], predicted: dict[str, Any]) -> float:
    shared = wanted.keys() & predicted.keys()
    equal = sum(1 for key in shared if predicted[key] == wanted[key])
    return _similarity(len(shared), len(wanted), len(predicted)) + equal


def _similarity(shared: int, a: int, b: int) -> float:
    return shared / (a + b - shared) if a or b else 1.0


def _parse_calls(text: str) -> list[Any]:
    """Parse one JSON value per line after the first ``<tool_call>``. Raises ValueError or RecursionError."""
    block = text.split("<tool_call>", 2)[1].split("</tool_call>", 1)[0].strip()
    if len(block) > MAX_BLOCK_CHARS or block.count("\n") >= MAX_CALLS:
        raise ValueError("too long")
    return [decode(line) for line in block.split("\n")]


def decode(text: str) -> Any:
    """Parse one JSON value that a policy wrote, within the limits above.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or has an integer with too many digits.
        RecursionError: the text is nested too deeply for the present stack.
    """
    if _too_deep(text):
        raise ValueError("too deep")
    return _DECODER.decode(text)


def _too_deep(line: str) -> bool:
    # Counted before parsing, because the parser recurses on the C stack, which overflows if a library raised the limit.
    if line.count("[") + line.count("{") <= MAX_NESTING:
        return False
    return max(accumulate(_STEP.get(char, 0) for char in _STRING.sub("", line)), default=0) > MAX_NESTING


def _parse_int(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_parse_int)


def _score(score: Callable[[str, str], float | None], completions: object, answer: object) -> Any:
    """Apply ``score(reply, reference)`` to one pair of strings or to each of N pairs."""
    if isinstance(completions, str) and isinstance(answer, str):
        return score(completions.strip(), answer)
    if not isinstance(completions, list) or not isinstance(answer, list):
        seen = f"completions is {type(completions).__name__} and answer {type(answer).__name__}"
        raise RewardError(f"{seen}; pass two strings, or two lists of the same length")
    if len(completions) != len(answer):
        raise RewardError(f"{len(completions)} completions but {len(answer)} answers; pass one answer per completion")
    for index, reference in enumerate(answer):
        if not isinstance(reference, str):
            raise RewardError(f"answer[{index}] is {type(reference).__name__}; pass the reference reply as a string")
    replies = [_text(completion, f"completions[{index}]") for index, completion in enumerate(completions)]
    return [score(reply.strip(), reference) for reply, reference in zip(replies, answer, strict=True)]


def _text(completion: object, where: str) -> str:
    """Return the text of one completion: a string, or a chat whose first message has text, text parts or None."""
    content = completion
    if isinstance(completion, list) and completion and isinstance(completion[0], dict):
        content = completion[0].get("content")
        if content is None:
            return ""
        if isinstance(content, list) and all(isinstance(part, dict) for part in content):
            content = "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    if not isinstance(content, str):
        seen = f"{where} is {type(completion).__name__} {reprlib.repr(completion)}"
        raise RewardError(f"{seen}; pass a string or a chat [{{'role': 'assistant', 'content': <text>}}]")
    return content
