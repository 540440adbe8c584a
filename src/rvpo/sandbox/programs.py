"""The program in a reply."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_REPLY_CHARS = 1_000_000
MAX_INDENT = 3  # spaces by which the fence that ends a block may lie deeper than the one that begins it
_MAX_CUTS = 32  # statements at the margin after a continued program
_FENCE = re.compile(r"^([ \t]*)(```+|~~~+)[ \t]*([\w+.#-]*)[^\n]*$")
_PYTHON = ("python", "python3", "py", "python2", "py3")
_THOUGHTS_BEGIN = ("<think>", "<thinking>", "<|begin_of_thought|>")
_THOUGHTS_END = ("</think>", "</thinking>", "<|end_of_thought|>")


def program_of(text: str) -> str | None:
    """Return the program in a reply: its last block of Python, else its last block without a language; else None.

    Blocks stand between lines of three backticks or tildes; one that is never closed, as in a reply that was cut off,
    is none. A reply without any fence is a program if it is Python with a definition, an import or a statement that
    does something: bare code, as base models write it. What stands before the end of a model's thoughts
    (``</think>``) is not looked at; a reply that begins with thoughts which never end holds no program.
    """
    for mark in _THOUGHTS_END:
        text = text.rpartition(mark)[2]
    if len(text) > MAX_REPLY_CHARS or text.lstrip().startswith(_THOUGHTS_BEGIN):
        return None
    blocks, fenced = _blocks(text)
    for languages in (_PYTHON, ("",)):
        for language, code in reversed(blocks):
            if language.lower() in languages and code.strip():
                return code
    return None if fenced else _bare(text)


def program_after(prompt: str, text: str) -> str:
    """Return a prompt, which is code, and as much of the reply that continues it as is Python.

    Base models go on after the program, with prose or the fence of a block. The reply ends before the statement at the
    margin in which the Python ends; it is whole where it is Python, or where nothing would be left of it.
    """
    whole = f"{prompt}{text}"
    if len(text) > MAX_REPLY_CHARS:
        return whole
    lines, asked = text_lines(whole), text_lines(prompt)
    for _ in range(_MAX_CUTS):
        wrong = _wrong_line("\n".join(lines))
        if wrong is None:
            break
        margin = [i for i in range(len(asked), min(wrong, len(lines))) if _at_the_margin(lines[i])]
        kept = "\n".join(lines[: margin[-1]]) if margin else ""
        if not kept[len("\n".join(asked)) :].strip():
            return whole
        lines = lines[: margin[-1]]
    is_cut = len(lines) < len(text_lines(whole))
    return "\n".join(lines) + "\n" if is_cut else whole


def _wrong_line(code: str) -> int | None:
    """Return the number of the line, from 1, in which code ends to be Python; None if all of it is."""
    import ast

    try:
        ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):
        return 1
    return None


def _at_the_margin(line: str) -> bool:
    return bool(line.strip()) and not line[:1].isspace()


def _blocks(text: str) -> tuple[list[tuple[str, str]], bool]:
    """Return (language, code) of each closed block, and whether there is any fence.

    As in Markdown, a block in a list is indented with its fence, and that much is taken off its lines.
    """
    blocks: list[tuple[str, str]] = []
    indent, open_fence, language, lines, fenced = "", "", "", list[str](), False
    for line in text_lines(text):
        match = _FENCE.match(line)
        if not open_fence:
            if match:
                indent, open_fence, language = match[1], match[2], match[3]
                lines, fenced = [], True
        elif match and not match[3] and _closes(match[1], match[2], indent, open_fence):
            blocks.append((language, "\n".join(_without(indent, lines)) + "\n"))
            open_fence = ""
        else:
            lines.append(line)
    return blocks, fenced


def text_lines(text: str) -> list[str]:
    """Return lines as Python ends them: a form feed or U+2028, where ``str.splitlines`` splits, may lie in a string."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _closes(indent: str, fence: str, open_indent: str, open_fence: str) -> bool:
    """Return whether a fence ends a block: one that lies deeper, as in a docstring, does not."""
    deeper = len(indent.expandtabs(4)) > len(open_indent.expandtabs(4)) + MAX_INDENT
    return not deeper and fence[0] == open_fence[0] and len(fence) >= len(open_fence)


def _without(indent: str, lines: Sequence[str]) -> list[str]:
    """Return lines without the indentation of their fence; as they are if only the fence is indented."""
    first = next((line for line in lines if line.strip()), "")
    return [line.removeprefix(indent) for line in lines] if first.startswith(indent) else list(lines)


def _bare(text: str) -> str | None:
    import ast

    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    # A word such as "yes" is Python too.
    said = all(isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call) for node in tree.body)
    return None if said else text
