"""A metric for verl's dynamic sampling, with which it keeps the groups that any wanted channel ranks.

verl's ``algorithm.filter_groups`` drops a group if one number, its ``metric``, is the same for all of its completions.
The sum of rewards is not a good metric: it can be the same because channels cancel each other, and it differs if only
an unwanted channel differs. :func:`group_signal` is the same if, and only if, every wanted channel is the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

METRIC = "rvpo_signal"
"""Name of the metric in the results of our reward function, for ``algorithm.filter_groups.metric``."""

DIGITS = 6
"""Rewards rank a group if they differ in this number of significant digits, like rvpo's ``rtol`` of 1e-6."""


def group_signal(rewards: Mapping[str, Any], wanted: Sequence[str] | None = None) -> float:
    """Return a whole number below 2^40, a hash of the rewards of one completion on the wanted channels.

    Two completions with the same rewards have the same number (two with different rewards have it by chance in one of
    10^12 pairs). A missing reward (None, NaN) differs from all values. So a group is kept if a wanted channel is
    missing for some of its completions.

    Args:
        rewards: rewards by name; a rubric is a mapping of its criteria.
        wanted: names of the channels that count; None counts all.

    Example:
        >>> one, other = {"correct": 1.0, "short": 0.2}, {"correct": 1.0, "short": 0.9}
        >>> group_signal(one, ["correct"]) == group_signal(other, ["correct"]), group_signal(one) == group_signal(other)
        (True, False)
    """
    names = sorted(rewards) if wanted is None else list(wanted)
    text = json.dumps([[name, _rounded(rewards.get(name))] for name in names])
    # verl computes the standard deviation over a group. For equal whole numbers of this size, it is exactly 0.
    return float(int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=5).digest(), "big"))


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [[str(name), _rounded(value[name])] for name in sorted(value, key=str)]
    if value is None or math.isnan(value):
        return None
    return f"{float(value) + 0.0:.{DIGITS - 1}e}"  # + 0.0 turns -0 into 0
