r"""The answers that references and replies state, for comparison by :func:`rvpo.rewards.math.answers_equal`.

A reply's answer is in its last ``\boxed{…}``. Boxes that only commas, "and" or "or" separate are one answer of
several values, as Math-Verify reads them: ``$\boxed{2}$ and $\boxed{3}$`` is 2, 3. In a reply without a box, the answer
is the last line, if that is ``#### …``, as in GSM8K's solutions.
"""

from __future__ import annotations

import math
import re
from typing import Any

from rvpo.data.paths import plain
from rvpo.data.prompts import answer_text
from rvpo.rewards.math import BOX, MAX_ANSWER_CHARS, last_box, read_box

HASHES = "####"
# A number as programs write it, such as 1.5e-3, which LaTeX does not know. Not 2e-3: LaTeX reads it as 2·e - 3.
_FLOAT = re.compile(r"[+-]?(?:\d+\.\d+[eE][+-]?\d{1,3}|\d+[eE][+-]?0\d)")
MOST_BOXES = 64  # largest number of boxes that are read, from the end of a reply
_LINK = re.compile(r"(?:[\s$,;]|\\[)(\]]|\\ |\band\b|\bor\b)+")
_LONGEST_LINK = 24
_DOLLAR = re.compile(r"(?<!\\)(?:\$|\\[()\[\]])")  # does not match in \\[2pt], which ends the row of a matrix


def reply_answer(text: str) -> str | None:
    r"""Return the answer that a reply states; None if it states none, or one longer than ``MAX_ANSWER_CHARS``.

    Example:
        >>> reply_answer(r"So x is $\boxed{2}$ or $\boxed{3}$."), reply_answer("5 + 7 = 12\n#### 12")
        ('2, 3', '12')
    """
    start = last_box(text)
    if start < 0:
        return _after_hashes(text.rstrip().rpartition("\n")[2])
    found = read_box(text, start)
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
    return _joined(list(reversed(answers)))


def reference_answers(value: Any) -> list[str]:
    r"""Return the answers that a reference states, each in LaTeX without dollar signs; an empty list if it states none.

    Args:
        value: a number; a text, which is the answer or a solution that ends in ``\boxed{…}`` or in ``#### …``; or a
            list of such values, which may also be JSON text (``["1", "2"]``).

    Example:
        >>> reference_answers("6 - 1 = 5\n#### 5"), reference_answers('["1", "2"]')
        (['5'], ['1', '2'])
    """
    if isinstance(value, str):
        listed = plain(value)
        if isinstance(listed, list) and listed and all(isinstance(part, str) for part in listed):
            value = listed
    if isinstance(value, list | tuple):
        parts = [reference_answers(part) for part in value] if _is_flat(value) else []
        return [answer for part in parts for answer in part] if all(parts) else []
    text = answer_text(value)
    if not isinstance(text, str) or (isinstance(value, float) and not math.isfinite(value)):
        return []
    if BOX in text:
        answer = reply_answer(text)
    elif HASHES in text:
        answer = text.rpartition(HASHES)[2]
    else:
        answer = text
    answer = _DOLLAR.sub("", answer or "").strip()
    if _FLOAT.fullmatch(answer):
        answer = answer_text(float(answer))
    return [answer] if 0 < len(answer) <= MAX_ANSWER_CHARS else []


def joined(answers: list[str]) -> str | None:
    """Return several values as one answer; None if there are none, or if the answer is too long."""
    return _joined(answers) if answers else None


def _joined(answers: list[str]) -> str | None:
    different = list(dict.fromkeys(answers))
    text = ", ".join(different)
    return text if len(text) <= MAX_ANSWER_CHARS else None


def _links(between: str) -> bool:
    return len(between) <= _LONGEST_LINK and _LINK.fullmatch(between) is not None


def _after_hashes(line: str) -> str | None:
    if not line.startswith(HASHES):
        return None
    answer = _DOLLAR.sub("", line[len(HASHES) :]).strip()
    return answer if 0 < len(answer) <= MAX_ANSWER_CHARS else None


def _is_flat(values: Any) -> bool:
    return all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in values)
