"""verl's own advantage estimators for ``rvpo check``, from its registry."""

from __future__ import annotations

import inspect
from dataclasses import replace

from verl.trainer.ppo import core_algos

from rvpo.conformance.target import Spec, Target
from rvpo.conformance.targets import from_function
from rvpo.engines.verl.placeholder import Placeholder
from rvpo.errors import ConfigError
from rvpo.text.suggest import did_you_mean

GIVEN = ("token_level_rewards", "response_mask", "index", "config", "non_tensor_batch", "batch")
"""Arguments that the check passes. An estimator that needs a critic, or probabilities of tokens, cannot be checked."""


def target(spec: Spec, name: str) -> Target:
    """Return the estimator ``name``, which is called with token-level rewards.

    Raises:
        ConfigError: verl does not have this estimator, or it needs more than rewards.
    """
    theirs = [
        key
        for key, function in core_algos.ADV_ESTIMATOR_REGISTRY.items()
        if not isinstance(function, Placeholder) and not key.startswith("rvpo:")
    ]
    allowed = [key for key in theirs if not lacks(key)]
    if name not in theirs:
        raise ConfigError(
            f"verl's estimator is {name!r}{did_you_mean(name, allowed)}; expected one of {', '.join(allowed)}. An "
            "estimator that your own module registers is checked as module:function with --style tokens"
        )
    if missing := lacks(name):
        raise ConfigError(
            f"verl's estimator {name!r} needs {', '.join(missing)}, but the check has rewards only; expected one of "
            f"{', '.join(allowed)}"
        )
    return from_function(core_algos.ADV_ESTIMATOR_REGISTRY[name], replace(spec, style="tokens"))


def lacks(name: str) -> list[str]:
    """Return the arguments that an estimator needs and the check does not pass."""
    parameters = inspect.signature(core_algos.ADV_ESTIMATOR_REGISTRY[name]).parameters.values()
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in GIVEN
    ]
