"""From a name and plain options to a benchmark, for recipes and the command line."""

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
"""Name -> module and what builds it. Loaded when asked for: they need packages of the extra ``eval``."""


def load_benchmark(name: str, options: Mapping[str, Any], folder: Path) -> Benchmark:
    """Build a benchmark.

    Args:
        name: one of :data:`BENCHMARKS`.
        options: of its class (``BFCL``, ``Code``, ``GPQA``, ``Math``, ``ToolCall``), or of
            ``rvpo.evals.healthbench.healthbench``.
        folder: where a judge that names no cache keeps its verdicts.

    Raises:
        ConfigError: no such benchmark, an unknown option, or a value that cannot work.
        DataError: the data is absent or malformed.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"benchmark is {name!r}; expected one of {', '.join(BENCHMARKS)}")
    module, maker = BENCHMARKS[name]
    make: Callable[..., Benchmark] = getattr(importlib.import_module(module), maker)
    given = dict(options) | ({"folder": folder} if name == "healthbench" else {})
    try:
        return make(**given)
    except TypeError as error:  # an option that it does not have, one that it needs, or one of a wrong type
        allowed = ", ".join(name for name in inspect.signature(make).parameters if name != "folder")
        raise ConfigError(f"benchmark {name}: {error}; its options are {allowed}") from error


def generation_of(benchmark: Benchmark, options: Mapping[str, Any]) -> Generation:
    """Return the benchmark's own generation with some options replaced.

    Raises:
        ConfigError: an unknown option.
    """
    allowed = [field.name for field in fields(Generation)]
    if unknown := [key for key in options if key not in allowed]:
        raise unknown_option("generation", unknown[0], allowed)
    return replace(benchmark.generation, **options)
