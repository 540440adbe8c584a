"""A plug-in of verl whose error says that ``python -m rvpo.verl`` runs our methods, if verl's own command names one.

verl loads the entry points of the group ``verl.plugins`` whenever it is imported. If its command line names one of our
methods, this ends the command at once. Otherwise, verl would fail after the first rollouts, with "Unknown advantage
estimator". If the method is named elsewhere (in a config file or a user's script), the names are registered, and the
estimator raises the same error. Code that registers such a name in verl replaces our estimator.
"""

from __future__ import annotations

import sys

from rvpo.engines.verl.placeholder import NAMES, Placeholder, named_in, refusal


def install() -> None:
    """End a command of verl that names one of our methods, and register the names of all our methods."""
    if method := named_in(sys.orig_argv):
        sys.exit(f"error: {refusal(method)}")
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    for name in NAMES:
        ADV_ESTIMATOR_REGISTRY.setdefault(name, Placeholder(name))


install()
