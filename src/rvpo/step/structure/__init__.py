"""Structures: dependencies between channels, applied before any method.

- :class:`AllOf`: several channels become one, which is met only if all are met.
- :class:`Gate`: other channels count only where one channel holds.
- :class:`OnlyWhere`: a channel ranks only the completions that meet another channel.

:class:`rvpo.Aggregator` applies a list of structures, in order, before the method. ``docs/structure.md`` says when each
helps and when it hurts.
"""

from __future__ import annotations

from rvpo.step.structure.all_of import AllOf
from rvpo.step.structure.base import Structure
from rvpo.step.structure.gate import Gate
from rvpo.step.structure.only_where import OnlyWhere
from rvpo.step.structure.spelling import build_structure, build_structures

__all__ = ["AllOf", "Gate", "OnlyWhere", "Structure", "build_structure", "build_structures"]
