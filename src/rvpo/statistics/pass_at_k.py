"""Pass@k: the probability that at least one of k samples of an item is right (M. Chen et al., arXiv 2107.03374, eq. 1).

If an item was sampled n times and c samples are right, ``1 - C(n - c, k) / C(n, k)`` is the share of sets of k samples
that contain a right one. Its expectation is Pass@k for every n >= k. The expectation of ``1 - (1 - c / n)^k`` is not.
"""

from __future__ import annotations

import math


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Return the unbiased estimate of Pass@k of one item.

    It is computed as ``1 - prod (1 - k / i)`` over i = n - c + 1, ..., n, so that no binomial coefficient overflows.

    Args:
        samples: n, the number of scored samples; at least k.
        right: c, how many of them are right.
        k: number of tries; at least 1.

    Raises:
        ValueError: the numbers do not satisfy 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= samples or not 0 <= right <= samples:
        raise ValueError(f"samples={samples}, right={right}, k={k}; expected 1 <= k <= samples, 0 <= right <= samples")
    if right > samples - k:  # any k samples contain a right one
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - right + 1, samples + 1))
