"""What the shell completes beyond commands, options and files: names of methods. It imports nothing heavy."""

from __future__ import annotations

METHODS = (
    "rvpo",
    "rvpo_explicit",
    "hard_min",
    "gdpo",
    "grpo",
    "lift",
    "lift_z",
    "tchebycheff",
    "smooth_tchebycheff",
    "lagrangian",
    "ctwa",
    "riskpo",
    "dara",
    "sa_mrpo",
    "saw",
    "dvao",
    "corr_grpo",
    "gd2po",
    "verpo",
    "mgda",
)
"""Names of :data:`rvpo.core.methods.registry.METHODS`, which would load torch at every press of the key."""


def method_names(incomplete: str) -> list[str]:
    """Return the texts of methods that a text may become; of several methods, the last one is completed."""
    before, blank, last = incomplete.rpartition(" ")
    return [f"{before}{blank}{name}" for name in METHODS if name.startswith(last)]
