"""Import an object of foreign code by its name: ``package.module:name`` or ``path/to/file.py:name``.

The named code is executed, so name only code that you trust.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from rvpo.errors import ConfigError
from rvpo.text.suggest import did_you_mean

_FORMS = "package.module:name or path/to/file.py:name"
_SHOWN = 20  # largest number of names in a message
_FAILURES = (Exception, SystemExit)  # what foreign code may raise; an interrupt comes from the user and is not caught
_loading = threading.RLock()  # only one thread imports a file at a time; a file may load other files


def _open_in_child() -> None:
    """Give a forked process its own lock: the thread that held the parent's lock does not exist there."""
    global _loading
    _loading = threading.RLock()


if hasattr(os, "register_at_fork"):  # POSIX
    os.register_at_fork(after_in_child=_open_in_child)


def is_object_spec(text: str) -> bool:
    """Return whether a text has the form ``package.module:name`` or ``path/to/file.py:name``. Nothing is imported.

    The name may have dots, as in ``module:Class.method``. The last colon is the separator, as in ``C:\\x.py:name``.
    """
    where, _, name = text.rpartition(":")
    return _is_dotted(name) and (where.endswith(".py") or _is_dotted(where))


def load_object(spec: str, what: str) -> Any:
    """Import the object that a spec names.

    Relative paths and modules that are not installed are searched in the current folder. A file is imported once per
    process, even if several of its objects are named. While it is imported, it can import the modules next to it.

    Args:
        spec: ``package.module:name`` or ``path/to/file.py:name``; the name may have dots.
        what: noun for the messages, such as ``"reward"``.

    Raises:
        ConfigError: the spec has another form, the module or file does not exist or cannot be imported, or it has no
            such name.
    """
    if not is_object_spec(spec):
        raise ConfigError(f"{what} is {spec!r}; expected {_FORMS}. Give the module or file, a colon, and the name.")
    where, _, name = spec.rpartition(":")
    found: Any = _module_of_file(where, f"{what} {spec!r}") if where.endswith(".py") else _module(where, what, spec)
    for i, part in enumerate(parts := name.split(".")):
        found = _attribute(found, part, ".".join([where, *parts[:i]]), f"{what} {spec!r}")
    return found


def load_callable(spec: str, what: str) -> Callable[..., Any]:
    """Import the function or class that a spec names; see :func:`load_object`.

    Raises:
        ConfigError: as for :func:`load_object`, or the object cannot be called.
    """
    found = load_object(spec, what)
    if not callable(found):
        raise ConfigError(
            f"{what} {spec!r} has the type {type(found).__name__}; expected a function or a class. Name one of them."
        )
    return cast("Callable[..., Any]", found)


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _module(name: str, what: str, spec: str) -> ModuleType:
    with _wrapped(f"{what} {spec!r}", name), _on_path(Path.cwd()):
        return importlib.import_module(name)


def _module_of_file(where: str, what: str) -> ModuleType:
    path = Path(where).expanduser().resolve()
    name = _module_name(path)
    with _loading:
        if name not in sys.modules:
            if not path.is_file():
                raise ConfigError(
                    f"{what}: the file {where} does not exist in {Path.cwd()}; expected {_FORMS}. Check the path."
                )
            with _wrapped(what, where), _on_path(path.parent):
                _execute(name, path)
        return sys.modules[name]


def _module_name(path: Path) -> str:
    """Return the name in ``sys.modules`` of a resolved path.

    It has no dot, because ``pickle`` would look for a package before the dot. Its digest distinguishes files with the
    same stem.
    """
    digest = hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:16]
    stem = re.sub(r"\W", "_", path.stem)
    return f"rvpo_file_{digest}_{stem}"


def _execute(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None  # true for the suffix .py
    # Register the module before it runs, as an import statement does: dataclasses look up their module.
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)  # a second try runs the file again
        raise


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Add a folder to the module path. Python does so for ``python file.py``, but not for a console script."""
    here = str(folder)
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:  # the foreign code may have changed it
            sys.path.remove(here)


@contextmanager
def _wrapped(what: str, where: str) -> Iterator[None]:
    """Turn errors of foreign code into a ConfigError that names the line of the failure."""
    try:
        yield
    except _FAILURES as error:
        raise ConfigError(
            f"{what}: {where} cannot be imported ({type(error).__name__}: {error}{_line(error)}); expected {_FORMS}, "
            f"found from {Path.cwd()}. {_next_step(error)}"
        ) from error


def _line(error: BaseException) -> str:
    """Return the innermost line of foreign code in a traceback, or an empty text if no such line ran.

    A SyntaxError names its line itself.
    """
    own = {__file__, importlib.__file__}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in own]
    frames = [frame for frame in frames if not frame.filename.startswith("<frozen importlib")]
    return f", {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _next_step(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"Check the name and its folder, or install {error.name}."
    return "Repair the code at that place, or name another one."


def _attribute(value: Any, name: str, where: str, what: str) -> Any:
    try:
        return getattr(value, name)
    except AttributeError as error:
        callables = _callables(value)
        listed = [item for item in callables if _is_own(value, item)] or callables
        shown = ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
        raise ConfigError(
            f"{what}: {where} has no {name!r}{did_you_mean(name, callables)}; expected one of its functions and "
            f"classes: {shown or 'it has none'}. Check the name."
        ) from error
    except _FAILURES as error:  # from a module's own __getattr__, which may import
        raise ConfigError(
            f"{what}: {where} fails to give {name!r} ({type(error).__name__}: {error}{_line(error)}); expected a "
            "function or a class. Repair the code, or name another one."
        ) from error


def _callables(value: Any) -> list[str]:
    """Return the public callable names of an object: first its own, then those that it imported."""
    names = [name for name in dir(value) if not name.startswith("_")]
    found = {name: inspect.getattr_static(value, name, None) for name in names}  # does not run foreign code
    callables = [name for name, item in found.items() if callable(item) or isinstance(item, classmethod)]
    return sorted(callables, key=lambda name: not _is_own(value, name))


def _is_own(value: Any, name: str) -> bool:
    """Return whether a module defines ``name`` and does not import it."""
    item = inspect.getattr_static(value, name, None)
    return getattr(item, "__module__", None) == getattr(value, "__name__", None)
