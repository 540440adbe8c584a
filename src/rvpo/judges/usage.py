"""Count what a judge did and what it cost, under fixed keys."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rvpo.forks import ForkedLock
from rvpo.rewards.rubric.verdict import REASONS, Verdict

COUNTS = (
    "calls",  # requests that were, or may have been, paid for
    "prompt_tokens",
    "cached_prompt_tokens",  # prompt tokens that were in the server's prefix cache, as the server reports
    "completion_tokens",
    "retries",  # further attempts
    "cache_hits",  # verdicts that cost nothing: from disk, or already requested for another question
    "verdicts",  # all verdicts, from the cache or not
    "missing",  # all missing verdicts
)


class Usage:
    """Totals of one judge since its construction. Thread-safe."""

    def __init__(self, prompt_price: float | None, completion_price: float | None) -> None:
        """Start all counts at 0. Prices are per million tokens; None if unknown."""
        self._counts = dict.fromkeys(COUNTS, 0) | {f"missing/{reason}": 0 for reason in REASONS}
        self._prices = (prompt_price, completion_price)
        self._lock = ForkedLock()

    def add(self, **counts: int) -> None:
        """Add to some of the counts."""
        with self._lock:
            for key, count in counts.items():
                self._counts[key] += count

    def note(self, verdicts: Iterable[Verdict]) -> None:
        """Count verdicts, and missing ones by their reason."""
        with self._lock:
            for verdict in verdicts:
                if verdict.reason is None:
                    self._counts["verdicts"] += 1
                else:
                    self._counts["missing"] += 1
                    self._counts[f"missing/{verdict.reason}"] += 1

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of these tokens, without a discount for cached ones; NaN if a price is unknown."""
        prompt_price, completion_price = self._prices
        if prompt_price is None or completion_price is None:
            return math.nan
        return (prompt_tokens * prompt_price + completion_tokens * completion_price) / 1e6

    def totals(self) -> dict[str, float]:
        """Return all counts and ``cost``."""
        with self._lock:
            counts = dict(self._counts)
        return {**counts, "cost": self.cost(counts["prompt_tokens"], counts["completion_tokens"])}


def added(usages: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return totals of one judge over processes, without what is unknown or never occurred.

    Args:
        usages: what :meth:`Usage.totals` returns, of each process. All processes read ``all/…`` from one cache file.

    Example:
        >>> added([{"calls": 2, "missing/timeout": 0, "all/calls": 9}, {"calls": 3, "all/calls": 8}])
        {'calls': 5, 'all/calls': 9}
    """
    totals: dict[str, float] = {}
    for usage in usages:
        for key, value in usage.items():
            if math.isnan(value) or (value == 0 and "missing/" in key):  # no prices; a reason that did not occur
                continue
            if key.startswith("all/") or "/all/" in key:
                totals[key] = max(totals.get(key, value), value)
            else:
                totals[key] = totals.get(key, 0) + value
    return totals
