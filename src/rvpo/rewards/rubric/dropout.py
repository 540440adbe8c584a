"""Rubric dropout (arXiv 2608.11669): in each step, some of a prompt's positive criteria are not judged.

If the list of criteria changes, a policy cannot learn to please a judge on a fixed list. Of n criteria with positive
points, ``floor(share * n)`` are dropped, but at least ``KEPT`` stay. Criteria with negative points always stay. All
completions of a prompt have the same mask. It depends only on the prompt, its rubric and the training step, so it is
the same on every process and after a resume. A dropped criterion is not judged, which saves a call. It is not a channel
of that prompt in that step, so it is neither missing nor 0.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from rvpo.rewards.rubric.criteria import Criterion

KEPT = 3
"""Minimum number of positive criteria that stay."""


def kept_criteria(criteria: Sequence[Criterion], share: float, prompt: Any, rubric: str, step: int) -> list[int]:
    """Return the indices of the criteria that are judged, in order.

    Args:
        criteria: criteria of the prompt.
        share: share of the positive criteria that are dropped, in [0, 1).
        prompt: prompt, as text or chat.
        rubric: JSON of the rubric. Together with the prompt, it identifies the row.
        step: training step.
    """
    positive = [i for i, criterion in enumerate(criteria) if criterion.points > 0]
    # The small addition corrects rounding: ten times a share of 0.3 is less than 3 in floating point.
    count = min(int(share * len(positive) + 1e-9), max(0, len(positive) - KEPT))
    # Parts that are not text, such as images, have no representation that is the same on all processes.
    key = json.dumps([prompt, rubric, step], default=lambda part: type(part).__name__, sort_keys=True)
    seed = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    dropped = set(random.Random(seed).sample(positive, count))
    return [i for i in range(len(criteria)) if i not in dropped]
