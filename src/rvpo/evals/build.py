"""Make a benchmark from its name and plain options, for recipes and the command line."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rvpo.core.checks import unknown_option
from rvpo.errors import ConfigError
from rvpo.evals.items import Benchmark, Generation

BENCHMARKS = {
    "bfcl": ("rvpo.evals.bfcl", "BFCL"),
    "gpqa": ("rvpo.evals.gpqa", "GPQA"),
    "healthbench": ("rvpo.evals.healthbench", "healthbench"),
    "toolcall": ("rvpo.evals.toolcall", "ToolCall"),
    "code": ("rvpo.evals.code", "Code"),
    "math": ("rvpo.evals.math", "Math"),
}
"""Name -> module, and the class or function in it that builds the benchmark.

A module is imported only when its benchmark is asked for, because it needs packages of the extra ``eval``.
"""


def load_benchmark(name: str, options: Mapping[str, Any], folder: Path) -> Benchmark:
    """Build a benchmark.

    Args:
        name: one of :data:`BENCHMARKS`.
        options: arguments of its class (``BFCL``, ``Code``, ``GPQA``, ``Math``, ``ToolCall``), or of
            ``rvpo.evals.healthbench.healthbench``.
        folder: the folder in which a judge without a cache of its own keeps its verdicts.

    Raises:
        ConfigError: the benchmark or an option is unknown, or a value cannot work.
        DataError: the data is absent or malformed.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"benchmark is {name!r}; expected one of {', '.join(BENCHMARKS)}")
    module, maker = BENCHMARKS[name]
    make: Callable[..., Benchmark] = getattr(importlib.import_module(module), maker)
    given = dict(options) | ({"folder": folder} if name == "healthbench" else {})
    try:
        return make(**given)
    except TypeError as error:  # an option is unknown, missing or of a wrong type
        known = ", ".join(name for name in inspect.signature(make).parameters if name != "folder")
        raise ConfigError(f"benchmark {name}: {error}; its options are {known}") from error


def generation_of(benchmark: Benchmark, options: Mapping[str, Any]) -> Generation:
    """Return the benchmark's default generation settings, with ``options`` replaced.

    Raises:
        ConfigError: an option is unknown.
    """
    known = [field.name for field in fields(Generation)]
    if unknown := [key for key in options if key not in known]:
        raise unknown_option("generation", unknown[0], known)
    return replace(benchmark.generation, **options)
