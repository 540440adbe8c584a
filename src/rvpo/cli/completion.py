"""Shell completion of method names. Imports nothing heavy, because the shell runs it at every press of Tab."""

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
"""Names of :data:`rvpo.core.methods.registry.METHODS`, listed here because importing the registry loads torch."""


def method_names(incomplete: str) -> list[str]:
    """Return the completions of an unfinished list of methods. Only its last method is completed.

    Args:
        incomplete: text typed so far, such as ``gdpo rv``.

    Returns:
        The whole text once per possible completion, such as ``["gdpo rvpo", "gdpo rvpo_explicit"]``.
    """
    before, blank, last = incomplete.rpartition(" ")
    return [f"{before}{blank}{name}" for name in METHODS if name.startswith(last)]
