"""What the shell completes beyond commands, options and files: names of methods. It imports nothing heavy."""

from __future__ import annotations

METHODS = (
    "adaptive_k",
)


def method_names(incomplete: str) -> list[str]:
    """Return the methods that a text begins; of several methods, the last one is completed."""
    before, blank, last = incomplete.rpartition(" ")
    return [f"{before}{blank}{name}" for name in METHODS if name.startswith(last)]
