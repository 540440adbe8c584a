"""Convert checkpoints of older versions into the form of this version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rvpo.core import LIFT, LIFTZ, Method

logger = logging.getLogger(__name__)


def of_this_version(state: Mapping[str, Any], method: Method) -> Mapping[str, Any]:
    """Convert the ``state_dict()`` of an Aggregator of an older version for ``method`` of this version.

    The rule that is now called ``lift_z`` was called ``lift``. Its state has the key ``covariance``.

    - ``lift_z`` continues with this state, to the last bit.
    - ``lift`` continues with the attained shares. Its correlations begin anew, because they are in other units. A
      warning says so.

    A state of this version is returned as it is.
    """
    remembered = state.get("remembered")
    if state.get("method") == LIFT.name and isinstance(remembered, Mapping) and "covariance" in remembered:
        if isinstance(method, LIFTZ):
            return {**state, "method": LIFTZ.name}
        if isinstance(method, LIFT):
            return {**state, "remembered": _without_covariance(remembered)}
    score = getattr(method, "score", None)  # riskpo has the state of its score
    if isinstance(score, LIFT) and isinstance(remembered, Mapping):
        inner = remembered.get("score")
        if isinstance(inner, Mapping) and "covariance" in inner:
            return {**state, "remembered": {**remembered, "score": _without_covariance(inner)}}
    return state


def _without_covariance(remembered: Mapping[str, Any]) -> dict[str, Any]:
    logger.warning(
        "The checkpoint is of an older 'lift', which is called 'lift_z' now. Method 'lift' goes on with its attained "
        "shares, but measures correlations anew. Set method='lift_z' to go on with the old rule exactly as it was."
    )
    return {key: value for key, value in remembered.items() if key != "covariance"}
