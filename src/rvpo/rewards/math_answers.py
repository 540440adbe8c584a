r"""The answers that references and replies state, for comparison by :func:`rvpo.rewards.math.answers_equal`.

A reply's answer is in its last ``\boxed{…}``. Boxes that only commas, "and" or "or" separate are one answer of
several values, as Math-Verify reads them: ``$\boxed{2}$ and $\boxed{3}$`` is 2, 3. The evaluation also reads the last
line of a reply without a box, if that is ``#### …``, as in GSM8K's solutions.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from rvpo.text.numbers import answer_text

MAX_ANSWER_CHARS = 1000  # maximum length of an answer between the braces; the longest in MATH have about 150
BOX = "\\boxed{"
HASHES = "####"
MOST_BOXES = 64  # largest number of boxes that are read, from the end of a reply

_EMPTY_BOX = re.compile(r"\\boxed\{\s*\}")
# A number as programs write it, such as 1.5e-3, which LaTeX does not know. Not 2e-3: LaTeX reads it as 2·e - 3.
_FLOAT = re.compile(r"[+-]?(?:\d+\.\d+[eE][+-]?\d{1,3}|\d+[eE][+-]?0\d)")
_LINK = re.compile(r"(?:[\s$,;]|\\[)(\]]|\\ |\band\b|\bor\b)+")
_LONGEST_LINK = 24
_DOLLAR = re.compile(r"(?<!\\)(?:\$|\\[()\[\]])")  # does not match in \\[2pt], which ends the row of a matrix
_ANSWER_LINE = re.compile(
    r"(?:(?:so|thus|then|therefore),?\s+)?(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s*:|\s+is\b:?)\s*(.+)",
    re.IGNORECASE,
)
_PROSE = 3  # a reference with this many words is a sentence rather than an answer
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_ABSENT = frozenset(("nan", "nat", "<na>", "n/a", "null"))  # words that tables write for a missing value


def reply_answer(text: str) -> str | None:
    r"""Return the answer that a reply states; None if it states none, or one longer than ``MAX_ANSWER_CHARS``.

    Example:
        >>> reply_answer(r"So x is $\boxed{2}$ or $\boxed{3}$."), reply_answer("5 + 7 = 12\n#### 12")
        ('2, 3', '12')
    """
    if last_box(text) < 0:
        return _after_hashes(text.rstrip().rpartition("\n")[2])
    return boxed_answer(text)


def boxed_answer(text: str) -> str | None:
    r"""Return the content of the last boxes of a text; None if it has no box, or its last box cannot be read."""
    start = last_box(text)
    found = None if start < 0 else read_box(text, start)
    if found is None:
        return None
    answers = [found[0]]
    for _ in range(MOST_BOXES):
        before = text.rfind(BOX, 0, start)
        found = None if before < 0 else read_box(text, before)
        if found is None or not _links(text[found[1] : start]):
            break
        answers.append(found[0])
        start = before
    return joined(list(reversed(answers)))


def stated_answer(reference: str) -> str | None:
    r"""Return the answer in a reference, as one text; None if it states none or is too long.

    Example:
        >>> stated_answer("So it is 6 * 7. #### 42"), stated_answer(r"Thus \boxed{\frac{1}{2}}.")
        ('42', '\\frac{1}{2}')
    """
    return joined(reference_answers(reference))


def reference_answers(value: Any) -> list[str]:
    r"""Return the answers that a reference states, each in LaTeX without dollar signs; an empty list if it states none.

    Args:
        value: a number; a text, which is the answer or a solution that ends in ``\boxed{…}``, in ``#### …`` or in the
            sentence ``The answer is …``; or a list of such values, which may also be JSON text (``["1", "2"]``). Words
            for a missing value, such as ``nan``, state no answer.

    Example:
        >>> reference_answers("6 - 1 = 5\n#### 5"), reference_answers('["1", "2"]')
        (['5'], ['1', '2'])
    """
    if isinstance(value, str):
        value = _listed(value) or value
    if isinstance(value, list | tuple):
        parts = [reference_answers(part) for part in value] if _is_flat(value) else []
        return [answer for part in parts for answer in part] if all(parts) else []
    text = answer_text(value)
    if not isinstance(text, str) or (isinstance(value, float) and not math.isfinite(value)):
        return []
    if "\\boxed" in text:
        answer = boxed_answer(text)
    elif HASHES in text:  # MetaMathQA repeats the answer in a line below
        answer = text.rpartition(HASHES)[2].strip().partition("\n")[0]
    else:
        last_sentence = re.split(r"\n|(?<=[.!?]) ", text.strip())[-1].strip()
        stated = _ANSWER_LINE.fullmatch(last_sentence)
        answer = stated[1] if stated else text
    answer = _DOLLAR.sub("", answer or "").strip()
    if answer.casefold() in _ABSENT:
        return []
    if _FLOAT.fullmatch(answer):
        answer = answer_text(float(answer))
    return [answer] if 0 < len(answer) <= MAX_ANSWER_CHARS else []


def is_sentence(answer: str) -> bool:
    """Return whether a reference is a sentence rather than an answer. Few replies will be equal to it."""
    return len(_WORD.findall(answer)) >= _PROSE


def joined(answers: list[str]) -> str | None:
    """Return several values as one answer; None without a value, or if the answer is too long."""
    text = ", ".join(dict.fromkeys(answers))
    return text if 0 < len(text) <= MAX_ANSWER_CHARS else None


def last_box(text: str) -> int:
    r"""Return the position of the last box, or -1. ``\boxed{}`` is skipped, because it only mentions boxes."""
    start = text.rfind(BOX)
    while start >= 0 and _EMPTY_BOX.match(text, start):
        start = text.rfind(BOX, 0, start)
    return start


def read_box(text: str, start: int) -> tuple[str, int] | None:
    r"""Return the content of the ``\boxed{…}`` that begins at ``start``, and the position after it.

    Return None if it is empty, not closed, or longer than ``MAX_ANSWER_CHARS``.
    """
    start += len(BOX)
    depth, escaped = 1, False
    for end, char in enumerate(text[start : start + MAX_ANSWER_CHARS + 1], start):
        if not escaped:  # \{ and \} are printed braces, which need not be balanced: \left\{ … \right.
            depth += (char == "{") - (char == "}")
            if depth == 0:
                answer = text[start:end].strip()
                return (answer, end + 1) if answer else None
        escaped = char == "\\" and not escaped
    return None


def _listed(text: str) -> list[str] | None:
    """Return the list of texts that a text is in JSON; None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(found, list) and bool(found) and all(isinstance(part, str) for part in found)
    return found if is_list else None


def _links(between: str) -> bool:
    return len(between) <= _LONGEST_LINK and _LINK.fullmatch(between) is not None


def _after_hashes(line: str) -> str | None:
    if not line.startswith(HASHES):
        return None
    answer = _DOLLAR.sub("", line[len(HASHES) :]).strip()
    return answer if 0 < len(answer) <= MAX_ANSWER_CHARS else None


def _is_flat(values: Any) -> bool:
    return all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in values)
