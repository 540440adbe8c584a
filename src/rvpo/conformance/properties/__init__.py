"""The properties: those that every advantage function must have, and those that only describe the kind of rule."""

from __future__ import annotations

from rvpo.conformance.properties import kind, limits, missing, numbers, order
from rvpo.conformance.properties.base import Fault, Property, unmet

REQUIRED: tuple[Property, ...] = (
    *numbers.PROPERTIES,
    *order.PROPERTIES,
    *missing.PROPERTIES,
    *limits.PROPERTIES,
)
DESCRIPTIVE: tuple[Property, ...] = (
    *kind.DESCRIPTIONS,
    *missing.DESCRIPTIONS,
    *numbers.DESCRIPTIONS,
    *limits.DESCRIPTIONS,
)

__all__ = ["DESCRIPTIVE", "REQUIRED", "Fault", "Property", "unmet"]
