"""Send exceptions to the other process: the names of their classes and their text."""

from __future__ import annotations

import builtins

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any

MAX_TEXT = 300


class RemoteError(Exception):
    """An exception of a class that the program defines."""


def names_of(error: BaseException) -> list[str]:
    """Return the names of an exception's class and its bases, the most derived class first."""
    return [kind.__name__ for kind in type(error).__mro__ if kind not in (object,)][:20]


def text_of(error: BaseException) -> str:
    """Return the text of an exception; "" if its ``__str__`` fails."""
    try:
        return str(error)[:MAX_TEXT]
    except BaseException:
        return ""


_BUILTIN_ERRORS = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def exception_of(names: Any, text: Any) -> BaseException:
    """Return an exception derived from the first built-in class in the list, with the name of the program's class."""
    text = text if isinstance(text, str) else ""
    listed = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    base: Any = next((_BUILTIN_ERRORS[name] for name in listed if name in _BUILTIN_ERRORS), RemoteError)
    if issubclass(base, BaseExceptionGroup):
        base = Exception
    own = {"__init__": lambda self, *args: None, "__str__": lambda self: text}
    kind: Any = type((listed or ["Exception"])[0][:80], (base,), own)
    error: BaseException = kind.__new__(kind)
    error.args = (text,)
    return error
