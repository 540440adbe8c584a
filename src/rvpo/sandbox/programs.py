"""The program in a reply."""

from __future__ import annotations

import re

MAX_REPLY_CHARS = 1_000_000
_FENCE = re.compile(r"^[ \t]{0,3}(```+|~~~+)[ \t]*([\w+.#-]*)[^\n]*$")
_PYTHON = ("python", "python3", "py", "python2", "py3")
_THOUGHTS_END = ("</think>", "</thinking>", "<|end_of_thought|>")


def program_of(text: str) -> str | None:
    """Return the program in a reply: its last block of Python, else its last block without a language; else None.

    Blocks stand between lines of three backticks or tildes; one that is never closed, as in a reply that was cut off,
    is none. A reply without any fence is a program if it is Python with a definition, an import or a statement that
    does something: bare code, as base models write it. What stands before the end of a model's thoughts
    (``</think>``) is not looked at.
    """
    for mark in _THOUGHTS_END:
        text = text.rpartition(mark)[2]
    if len(text) > MAX_REPLY_CHARS:
        return None
    blocks, fenced = _blocks(text)
    for languages in (_PYTHON, ("",)):
        for language, code in reversed(blocks):
            if language.lower() in languages and code.strip():
                return code
    return None if fenced else _bare(text)


def _blocks(text: str) -> tuple[list[tuple[str, str]], bool]:
    """Return (language, code) of each closed block, and whether there is any fence."""
    blocks: list[tuple[str, str]] = []
    open_fence, language, lines, fenced = "", "", list[str](), False
    for line in text.splitlines():
        match = _FENCE.match(line)
        if not open_fence:
            if match:
                open_fence, language, lines, fenced = match[1], match[2], [], True
        elif match and not match[2] and match[1][0] == open_fence[0] and len(match[1]) >= len(open_fence):
            blocks.append((language, "\n".join(lines) + "\n"))
            open_fence = ""
        else:
            lines.append(line)
    return blocks, fenced


def _bare(text: str) -> str | None:
    import ast

    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    # A word such as "yes" is Python too.
    said = all(isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call) for node in tree.body)
    return None if said else text
