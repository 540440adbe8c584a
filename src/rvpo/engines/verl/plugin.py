"""What verl's own entry point says about our methods: that ``python -m rvpo.verl`` runs them.

verl loads the entry points of the group ``verl.plugins`` whenever it is imported. If its command line names one of our
methods, this ends the command at once; verl itself would fail after the first rollouts, with "Unknown advantage
estimator". Where the command line does not show it (a config file, a script of one's own), the names are registered,
and the estimator says the same. A plug-in must not be in the way: whoever registers such a name in verl replaces ours.
"""

from __future__ import annotations

import sys

from rvpo.engines.verl.placeholder import NAMES, Placeholder, named_in, refusal


def install() -> None:
    """End a command of verl's that names one of our methods, and register their names."""
    if method := named_in(sys.orig_argv):
        sys.exit(f"error: {refusal(method)}")
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    for name in NAMES:
        ADV_ESTIMATOR_REGISTRY.setdefault(name, Placeholder(name))


install()
