"""Find the program in a reply."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_REPLY_CHARS = 1_000_000
MAX_INDENT = 3  # spaces by which the closing fence of a block may be indented more than its opening fence
_MAX_CUTS = 32  # maximum number of unindented statements that are removed after a continued program
_FENCE = re.compile(r"^([ \t]*)(```+|~~~+)[ \t]*([\w+.#-]*)[^\n]*$")
_PYTHON = ("python", "python3", "py", "python2", "py3")
_THOUGHTS_BEGIN = ("<think>", "<thinking>", "<|begin_of_thought|>")
_THOUGHTS_END = ("</think>", "</thinking>", "<|end_of_thought|>")


def program_of(text: str) -> str | None:
    """Return the program in a reply: its last block of Python, or its last block without a language, or None.

    Blocks are enclosed by lines of three backticks or tildes. A block that is not closed, as in a reply that was cut
    off, does not count. A reply without any fence is a program if it is Python with a definition, an import or a
    statement that does something: base models write such bare code. Text before the end of a model's thoughts
    (``</think>``) is ignored. A reply that begins with thoughts but does not end them contains no program.

    Example:
        >>> program_of("Here it is:\\n```python\\nprint(1)\\n```")
        'print(1)\\n'
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
    """Return a prompt, which is code, together with the part of the reply that continues it as Python.

    Base models often add prose or the fence of a block after the program. The reply is cut before the unindented
    statement in which the Python ends. It is not cut if all of it is Python, or if nothing would be left of it.
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
    """Return the number of the first line, from 1, that is not Python; None if all of the code is Python."""
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
    """Return language and code of each closed block, and whether the text has any fence.

    As in Markdown, a block in a list is indented with its fence, and this indentation is removed from its lines.
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
    """Split a text into lines as Python does. ``str.splitlines`` also splits at form feeds and U+2028 in strings."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _closes(indent: str, fence: str, open_indent: str, open_fence: str) -> bool:
    """Return whether a fence closes a block. A fence with deeper indentation, as in a docstring, does not."""
    deeper = len(indent.expandtabs(4)) > len(open_indent.expandtabs(4)) + MAX_INDENT
    return not deeper and fence[0] == open_fence[0] and len(fence) >= len(open_fence)


def _without(indent: str, lines: Sequence[str]) -> list[str]:
    """Return lines without the indentation of their fence. If only the fence is indented, they stay unchanged."""
    first = next((line for line in lines if line.strip()), "")
    return [line.removeprefix(indent) for line in lines] if first.startswith(indent) else list(lines)


def _bare(text: str) -> str | None:
    import ast

    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    # A word such as "yes" is valid Python, too.
    is_prose = all(isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call) for node in tree.body)
    return None if is_prose else text
