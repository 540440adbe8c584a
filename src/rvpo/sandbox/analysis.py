"""Analyse the code of a test, without running it: what does it need from the program?"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rvpo.errors import DataError

MAX_CODE_CHARS = 4_000_000
_REACHING_MODULES = frozenset(
    (
        "sys", "io", "os", "contextlib", "unittest", "mock", "inspect", "importlib", "builtins", "subprocess", "gc",
        "pytest", "doctest", "types", "threading", "multiprocessing", "asyncio", "signal", "pickle", "ctypes",
        "weakref", "ast", "dis", "traceback", "warnings", "logging",
    )
)  # fmt: skip
_REACHING_NAMES = frozenset(("globals", "locals", "vars", "exec", "eval", "compile", "__import__", "open", "input"))


@dataclass(frozen=True, slots=True)
class Needs:
    """What a test needs from the program.

    Attributes:
        prefer: built-in names that mean the program's functions, because the test calls nothing else.
        shared: reason why the test must run in the program's own process; empty if it need not.
    """

    prefer: tuple[str, ...] = ()
    shared: str = ""


@lru_cache(maxsize=4096)
def needs_of(code: str) -> Needs:
    """Return what a test needs from the program.

    Raises:
        DataError: the test is not Python.
    """
    tree = parsed(code, "a test")
    bound = _bound(tree)
    free = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    } - bound  # fmt: skip
    foreign = {name for name in free if not hasattr(builtins, name)}
    return Needs(() if foreign else _tested(tree, free), _shared(tree, foreign))


def decides(body: Sequence[ast.stmt]) -> bool:
    """Return whether running statements can fail a program: they assert, raise, or call something but ``print``.

    The bodies of functions and classes do not run by themselves, so they do not count.
    """
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Assert) and not _always_holds(node.test)):
            return True
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await) and not _prints(node.value):
            return True
        inner = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
        handlers = [part for handler in getattr(node, "handlers", ()) for part in handler.body]
        cases = [part for case in getattr(node, "cases", ()) for part in case.body]
        if decides([*inner, *handlers, *cases]):
            return True
    return False


def _always_holds(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and bool(test.value)


def _prints(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print"


def parsed(code: str, what: str) -> ast.Module:
    """Return the syntax tree of Python code.

    Args:
        code: source code.
        what: name of the code, for messages.

    Raises:
        DataError: the code is not Python, or is too long or nested too deeply.
    """
    if len(code) > MAX_CODE_CHARS:
        raise DataError(f"{what} has {len(code)} characters; expected at most {MAX_CODE_CHARS}. Shorten it")
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise DataError(f"{what} is {code[:80]!r}, which is not Python ({reason}); expected code. Correct it") from None


def _bound(tree: ast.Module) -> set[str]:
    """Return every name that a test binds anywhere. A wrong guess only sends a look-up to the program."""
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return bound


def _tested(tree: ast.Module, free: set[str]) -> tuple[str, ...]:
    """Return the built-in names that must mean the program's functions: those that the asserts of a test call.

    ``assert sum(10, 15) == 6`` names only ``sum``, so it tests the program's ``sum``.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            calls = [n for n in ast.walk(node.test) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
            inner = [n.func.id for n in calls if isinstance(n.func, ast.Name) and not _calls_within(n)]
            found.update(name for name in inner if name in free)
    for node in ast.walk(tree):  # check(sum)
        if isinstance(node, ast.Call):
            found.update(arg.id for arg in node.args if isinstance(arg, ast.Name) and arg.id in free)
    return tuple(sorted(found - {"True", "False", "None"}))


def _calls_within(call: ast.Call) -> bool:
    return any(isinstance(node, ast.Call) for arg in call.args for node in ast.walk(arg))


def _shared(tree: ast.Module, foreign: set[str]) -> str:
    """Return why a test needs the interpreter of the program, so that one process must run both; "" if it does not."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] in _REACHING_MODULES:
                return f"it imports {name}"
        if isinstance(node, ast.Name) and node.id in _REACHING_NAMES:
            return f"it uses {node.id}"
        if isinstance(node, ast.Name) and node.id in ("sys", "os", "io") and node.id in foreign:
            return f"it uses {node.id}"
        if isinstance(node, ast.ClassDef) and _names_in(node.bases) & foreign:
            return f"its class {node.name} derives from one of the program"
        if isinstance(node, ast.ExceptHandler) and node.type is not None and _names_in([node.type]) & foreign:
            return "it catches an exception of the program"
        if isinstance(node, ast.Global) and set(node.names) & foreign:
            return f"it changes the program's {node.names[0]}"
    return ""


def _names_in(nodes: list[ast.expr]) -> set[str]:
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}
