"""Quote the text of a policy, a prompt or a foreign exception in our messages: short, on one line, harmless."""

from __future__ import annotations


def escaped(text: str, limit: int = 300) -> str:
    r"""Return a text with escapes for everything that could control a terminal or break a line, cut after ``limit``.

    >>> escaped("red \x1b[31m\nblue")
    'red \\x1b[31m\\nblue'
    """
    cut = text if len(text) <= limit else text[:limit] + "…"
    # repr also escapes lone surrogates and signs that change the writing direction. Its quotes are removed.
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in cut)


def quoted(text: str, limit: int = 80) -> str:
    r"""Return :func:`escaped` text in quotes.

    >>> quoted("what is the cat?\n")
    "'what is the cat?\\n'"
    """
    return f"'{escaped(text, limit)}'"
