"""Imports of common modules that benchmarks with input and output put before a program.

LiveCodeBench, APPS and PRIME put such a list of imports before every program. Importing all of them takes longer than
most programs, so a star import is left out if none of its names occurs in the program.
"""

from __future__ import annotations

import importlib
import re
from functools import lru_cache

_MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
# The order matters, because later imports win: `pow` is operator's, unless builtins comes after it.
GRANTED = "".join(
    [f"from {name} import *\n" for name in _MODULES]
    + [f"import {name}\n" for name in _MODULES if name not in ("builtins", "typing")]
    + ["import sys\nsys.setrecursionlimit(50000)\n"]
)
_WORD = re.compile(r"[^\W\d]\w*")


def reduced(setup: str, program: str) -> str:
    """Return a setup without the imports of :data:`GRANTED` that a program does not use. Others stay unchanged."""
    if setup != GRANTED:
        return setup
    words = set(_WORD.findall(program))
    if words & {"globals", "locals", "vars", "eval", "exec", "dir", "__dict__"}:
        return setup
    stars = [f"from {name} import *\n" for name in _MODULES if words & _exported(name)]
    plain = [f"import {name}\n" for name in _MODULES if name in words and name not in ("builtins", "typing")]
    return "".join([*stars, *plain, "import sys\nsys.setrecursionlimit(50000)\n"])


@lru_cache(maxsize=64)
def _exported(name: str) -> frozenset[str]:
    module = importlib.import_module(name)
    if name == "builtins":  # available without an import; only names that an earlier star import hides need it
        hidden = {word for other in _MODULES if other != name for word in _exported(other)}
        return frozenset(vars(module)) & frozenset(hidden)
    listed = getattr(module, "__all__", None)
    return frozenset(listed or [word for word in vars(module) if not word.startswith("_")])
