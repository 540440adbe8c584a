r"""The process that compares answers for :mod:`rvpo.rewards.math`: ``python -m rvpo.rewards.math_worker SECONDS``.

It reads one line ``[wanted, given]`` of JSON from stdin per comparison and answers ``true`` or ``false``, until stdin
ends. Math-Verify decides, with these corrections:

- Writing that misleads its grammar is replaced (:func:`as_meant`): ``42.``, ``1\,234\,567``, ``\mathrm{e}^2``,
  ``2 1/2``, ``1.5e-3``, ``90°``.
- Digits in two different bases are not equal (:func:`base_of`): Math-Verify ignores the base of ``1010_2``.
- Numbers that it calls equal must be equal relative to their size, too (:func:`relatively_equal`). Math-Verify rounds
  to 6 digits after the point and treats values below 1e-15 as 0, so all small numbers would be equal.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from rvpo.rewards.math_symbols import as_latex

MEMORY = 2 << 30  # bytes of address space of the worker; it needs about an eighth
RELATIVE = 5e-5  # relative difference of equal numbers, rounded to five significant digits: 1/70 is 0.014286
SMALL = 1e-3  # larger numbers keep at least four digits when the library rounds them: 1/700 is 0.001429
ABSOLUTE = 1e-5  # above this difference, numbers are not equal by rounding but for another reason, such as 9% and 9

_GAP = r"(?:\\[,;:! ]|\\thinspace\b ?|~|\{,\}|[ \u00a0\u2009\u202f])"
_THOUSANDS = re.compile(rf"(?<![\d.,])(?<!\d[ ~])\d{{1,3}}(?:{_GAP}\d{{3}})+(?!\d)")
_FRACTION = re.compile(rf"(?<=\d)\.\d{{3}}(?:{_GAP}\d{{3}})*{_GAP}\d{{1,3}}(?!\d)")
_GAPS = re.compile(_GAP)
_UPRIGHT = re.compile(
    r"\\(?:mathrm|mathup|mathit|mathnormal|textrm|textit|operatorname|symup|symrm)\s*\{\s*(e|i|\\pi)\s*\}"
    r"|\{\s*\\(?:rm|it)\s+(e|i|\\pi)\s*\}"
)
_IMAGINARY = re.compile(r"(?<=\d)i(?![A-Za-z])")
_GROUPED = re.compile(r"(?<![\w.{])\d{1,3}(?:_\d{3})+(?![\w.}])")  # 1_000_000, as programs write it
_MIXED = re.compile(rf"(?<![\w.,/}}^])(\d+){_GAP}+(\d+)/(\d+)(?![\w./])")  # 2 1/2
# 1.5e-3, as programs write it. Not 2e-3: LaTeX reads it as 2·e - 3.
_SCIENTIFIC = re.compile(r"(?<![\w.\\}^])(\d+\.\d+(?=[eE])|1(?=[eE])|\d+(?=E|e\+?\d|e-0))[eE]([+-]?\d{1,3})(?![\w.])")
_PERCENT = re.compile(rf"(?<=\d){_GAP}+(?=\\?%)")
_BASE = re.compile(r"[0-9A-Za-z]+\s*_\s*\{?\s*(\d+)\s*\}?")
_POINT_OF_NUMBER = re.compile(r"(?<=\d)\.(?![\d.])")  # 42. and (1., 2.)
_LAST_POINT = re.compile(r"(?<!\\left)(?<!\\right)(?<!\.)\.\s*$")  # the point at the end of a sentence


def as_meant(answer: str) -> str:
    r"""Return LaTeX without writing that misleads the grammar.

    Removed are gaps between groups of three digits, a point after the last digit or at the end, and the upright font
    of the constants e, i and pi. Mixed numbers, powers of ten as programs write them, and characters that LaTeX has a
    command for become LaTeX. Everything else stays unchanged.
    """
    answer = as_latex(answer)
    for grouped in (_THOUSANDS, _FRACTION):
        answer = grouped.sub(lambda number: _GAPS.sub("", number[0]), answer)
    answer = _GROUPED.sub(lambda number: number[0].replace("_", ""), answer)
    answer = _MIXED.sub(_mixed, answer)
    answer = _SCIENTIFIC.sub(lambda number: f"{number[1]} \\times 10^{{{int(number[2])}}}", answer)
    answer = _PERCENT.sub("", answer)
    # Between spaces, so that it does not become part of a command: \pi\mathrm{i} is \pi i.
    answer = _UPRIGHT.sub(lambda letter: f" {letter[1] or letter[2]} ", answer)
    answer = _IMAGINARY.sub(" i", answer)  # without a space, Math-Verify reads the i of 2i as a variable
    return _LAST_POINT.sub("", _POINT_OF_NUMBER.sub("", answer))


def _mixed(number: re.Match[str]) -> str:
    """Return a mixed number in LaTeX. Its numerator must be smaller than its denominator."""
    whole, above, below = number.groups()
    return f"{whole}\\frac{{{above}}}{{{below}}}" if int(above) < int(below) else number[0]


def base_of(answer: str) -> int | None:
    """Return the base in the index of a number, such as 2 in ``1010_2``; None without one."""
    found = _BASE.fullmatch(answer.strip())
    return int(found[1]) if found and any(char.isdigit() for char in found[0].partition("_")[0]) else None


def relatively_equal(first: Any, second: Any) -> bool:
    """Return whether two sympy values are equal relative to their size. Other values are left to the library.

    Args:
        first: value of an answer, or of a part of it.
        second: value to compare with.

    Returns:
        False if both are finite numbers below ``SMALL`` that differ by at most ``ABSOLUTE``, but by more than
        ``RELATIVE`` times the larger one; else True.
    """
    try:
        values = [_number(value) for value in (first, second)]
        distance = _number(first - second)
    except Exception:  # matrices and other values that cannot be subtracted
        return True
    if None in values or distance is None or distance == 0 or distance > ABSOLUTE:
        return True
    return bool(max(values) >= SMALL or distance <= RELATIVE * max(values))


def _number(value: Any) -> Any:
    """Return the absolute value of a real or complex number; None for other values."""
    size = abs(value.doit().evalf(30))  # doit evaluates percentages and sums
    return size if size.is_Float or size.is_Integer or size.is_Rational else None


def strict(equal: Callable[..., bool]) -> Callable[..., bool]:
    """Wrap the library's comparison of two numbers: they must be equal relative to their size, too."""

    @functools.wraps(equal)
    def strictly_equal(first: Any, second: Any, *limits: Any, **named: Any) -> bool:
        return equal(first, second, *limits, **named) and relatively_equal(first, second)

    return strictly_equal


def serve(cpu_seconds: float) -> None:
    """Answer the lines of stdin. A comparison that needs more than this CPU time, in seconds, ends the process."""
    import logging
    import resource
    import signal

    with contextlib.suppress(ValueError, OSError):  # some systems refuse this; the time limit still holds
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which closes stdin when it ends
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # so that output of a library is not read as an answer

    from math_verify import LatexExtractionConfig, grader, parse, verify

    # Math-Verify 0.9.0 has no option for this. Numbers in sets, intervals and matrices use this function, too.
    grader.sympy_numeric_eq = strict(grader.sympy_numeric_eq)
    logging.disable()
    latex = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]

    @functools.lru_cache(maxsize=256)
    def read(answer: str) -> Any:
        # Without fallback, so that a text that is not LaTeX is not compared as a string. The time limit is set below.
        return parse(f"\\boxed{{{as_meant(answer)}}}", latex, "no_fallback", "first_match", parsing_timeout=None)

    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        wanted, given = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # the default action of its signal ends the process
        try:
            bases = {base_of(wanted), base_of(given)} - {None}
            equal = len(bases) < 2 and verify(read(wanted), read(given), timeout_seconds=None)
        except Exception:  # includes MemoryError and RecursionError in the grammar or in sympy
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print("true" if equal else "false", file=answers, flush=True)


if __name__ == "__main__":
    serve(float(sys.argv[1]))
