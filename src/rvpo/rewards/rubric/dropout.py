"""Rubric dropout (arXiv 2608.11669): each step, some of a prompt's positive criteria are not asked.

A policy cannot learn to please a judge on a fixed list if the list changes. Of n criteria with positive points,
``floor(share * n)`` are dropped, but at least ``KEPT`` stay; criteria with negative points always stay. All completions
of a prompt have the same mask. It follows from the prompt, its rubric and the training step alone, so it is the same on
every process and after a resume. A dropped criterion is not judged, which saves its call, and is no channel of that
prompt in that step: it is neither missing nor 0.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from rvpo.rewards.rubric.criteria import Criterion

KEPT = 3
"""Positive criteria that always stay."""


def kept_criteria(criteria: Sequence[Criterion], share: float, prompt: Any, rubric: str, step: int) -> list[int]:
    """Return the numbers of the criteria that are asked, in order.

    Args:
        criteria: of the prompt.
        share: of the positive criteria that is dropped, in [0, 1).
        prompt: text or chat.
        rubric: the rubric's own text; with the prompt, it says which prompt this is.
        step: of the training.
    """
    positive = [i for i, criterion in enumerate(criteria) if criterion.points > 0]
    # The small addition is for shares such as 0.3, of which ten times are less than 3 in floating point.
    count = min(int(share * len(positive) + 1e-9), max(0, len(positive) - KEPT))
    # What is no text, such as an image, has no representation that all processes share.
    told = json.dumps([prompt, rubric, step], default=lambda part: type(part).__name__, sort_keys=True)
    seed = int.from_bytes(hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    dropped = set(random.Random(seed).sample(positive, count))
    return [i for i in range(len(criteria)) if i not in dropped]
