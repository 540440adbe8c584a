r"""Write the characters of keyboards and web pages as LaTeX: ``90°``, ``½``, ``√2``, ``x²``, full-width digits.

Math-Verify's grammar reads LaTeX, and only some of these characters. An answer with another one would be wrong,
although it is right.
"""

from __future__ import annotations

import re
import unicodedata

_SYMBOLS = str.maketrans(
    {
        "°": "^{\\circ}", "º": "^{\\circ}", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\u2212": "-",  # dashes
        "·": "\\cdot ", "•": "\\cdot ", "÷": "/", "\u2215": "/", "≈": "\\approx ", "≠": "\\neq ", "≤": "\\le ",
        "≥": "\\ge ", "∈": "\\in ", "∪": "\\cup ", "∩": "\\cap ", "∞": "\\infty ", "∅": "\\emptyset ",
        "、": ",", "，": ",", "\u066b": ".", "\u066c": ",", "\u2019": "'", "\u2032": "'", "∶": ":",
    }
)  # fmt: skip
_COMMANDS = (
    (re.compile(r"\\varnothing\b"), r"\\emptyset"),
    (re.compile(r"\\(?:lbrace|rbrace)\b"), lambda found: "\\{" if found[0] == "\\lbrace" else "\\}"),
    (re.compile(r"\\mathbb\s+([A-Z])\b"), r"\\mathbb{\1}"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ\b)"), r"^{\\circ}"),
)
_CURRENCY = re.compile(r"[€£¥₹￥](?=\s*\d)|(?<=\d)\s*[€£¥₹￥¢]")  # as Math-Verify reads \$5
_ROOT = re.compile(r"([√∛])\s*(\d+(?:\.\d+)?|[A-Za-z]|\([^()]*\)|\{[^{}]*\})")
_RAISED, _LOWERED, _PLAIN = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n"
_SCRIPTS = re.compile(f"[{_RAISED}]+|[{_LOWERED}]+")
_FULL_SIZE = str.maketrans(_RAISED + _LOWERED, _PLAIN * 2)


def as_latex(text: str) -> str:
    r"""Return a text with LaTeX in place of the characters that it has a command for. ASCII digits replace all others.

    Example:
        >>> as_latex("90°"), as_latex("2√3"), as_latex("x²"), as_latex("½"), as_latex("５％")
        ('90^{\\circ}', '2\\sqrt{3}', 'x^{2}', '\\frac{1}{2}', '5%')
    """
    for pattern, written in _COMMANDS:
        text = pattern.sub(written, text)
    if text.isascii():
        return text
    text = _CURRENCY.sub("", text)
    text = _SCRIPTS.sub(_script, text)
    text = _ROOT.sub(_root, "".join(map(_plain, text)))
    return text.translate(_SYMBOLS)


def _plain(char: str) -> str:
    """Return the ASCII form of digits of other scripts and of full-width characters, and the LaTeX of ½."""
    if char.isascii():
        return char
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    kind = unicodedata.decomposition(char).partition(" ")[0]
    if kind not in ("<wide>", "<fraction>"):
        return char
    above, line, below = unicodedata.normalize("NFKC", char).partition("\u2044")
    return f"\\frac{{{above}}}{{{below}}}" if line and below else above


def _script(small: re.Match[str]) -> str:
    mark = "^" if small[0][0] in _RAISED else "_"
    return f"{mark}{{{small[0].translate(_FULL_SIZE)}}}"


def _root(found: re.Match[str]) -> str:
    inside = found[2].strip("{}")
    return f"\\sqrt{{{inside}}}" if found[1] == "√" else f"\\sqrt[3]{{{inside}}}"
