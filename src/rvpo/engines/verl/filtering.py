"""A metric for verl's dynamic sampling, by which it keeps the groups that any wanted channel ranks.

verl's ``algorithm.filter_groups`` drops a group if one number, its ``metric``, is the same for all of its completions.
A sum of rewards is the same where channels cancel each other, and differs where only an unwanted channel does.
:func:`group_signal` is a number that is the same if, and only if, every wanted channel is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

METRIC = "rvpo_signal"
"""Under which our reward function returns it, for ``algorithm.filter_groups.metric``."""

DIGITS = 6
"""Significant digits in which rewards must differ to rank a group, as rvpo's ``rtol`` of 1e-6."""


def group_signal(rewards: Mapping[str, Any], wanted: Sequence[str] | None = None) -> float:
    """Return a whole number, below 2^40, that stands for the rewards of one completion on the wanted channels.

    Two completions have the same number if they have the same rewards (by chance, others do once in 10^12 pairs). A
    missing reward (None, NaN) differs from any other: a group in which a wanted channel is scored only in part is kept.

    Args:
        rewards: by name; of a rubric, a mapping of its criteria.
        wanted: names of the channels that count; None: all.

    Example:
        >>> one, other = {"correct": 1.0, "short": 0.2}, {"correct": 1.0, "short": 0.9}
        >>> group_signal(one, ["correct"]) == group_signal(other, ["correct"]), group_signal(one) == group_signal(other)
        (True, False)
    """
    names = sorted(rewards) if wanted is None else list(wanted)
    text = json.dumps([[name, _rounded(rewards.get(name))] for name in names])
    # verl takes the standard deviation over a group: of whole numbers of this size it is exactly 0 if they are equal.
    return float(int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=5).digest(), "big"))


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [[str(name), _rounded(value[name])] for name in sorted(value, key=str)]
    if value is None or math.isnan(value):
        return None
    return f"{float(value) + 0.0:.{DIGITS - 1}e}"  # plus 0 makes -0 the 0 that it equals
