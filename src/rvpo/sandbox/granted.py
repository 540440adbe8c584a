"""The names that benchmarks with input and output grant a program before it starts: those of common modules.

LiveCodeBench, APPS and PRIME put such a list of imports before every program. Importing all of them takes longer than
most programs, so a star import whose names do not occur in a program is left out.
"""

from __future__ import annotations

import importlib
import re
from functools import lru_cache

_MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
# In this order, because later ones win: `pow` is operator's, unless builtins comes after it.
GRANTED = "".join(
    [f"from {name} import *\n" for name in _MODULES]
    + [f"import {name}\n" for name in _MODULES if name not in ("builtins", "typing")]
    + ["import sys\nsys.setrecursionlimit(50000)\n"]
)
_WORD = re.compile(r"[^\W\d]\w*")


def reduced(setup: str, program: str) -> str:
    """Return a setup without the imports of :data:`GRANTED` that a program has no use for; any other as it is."""
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
    if name == "builtins":  # there without any import; only what an earlier star hides needs the second one
        hidden = {word for other in _MODULES if other != name for word in _exported(other)}
        return frozenset(vars(module)) & frozenset(hidden)
    listed = getattr(module, "__all__", None)
    return frozenset(listed or [word for word in vars(module) if not word.startswith("_")])
