"""Work of the judges in the reward workers, summed from the totals that come with every completion."""

from __future__ import annotations

from collections.abc import Iterable

from rvpo.core.metrics import JUDGE, PREFIX
from rvpo.engines.verl.wire import Message, Totals
from rvpo.judges.usage import added


class JudgeTotals:
    """Keeps the latest totals of every worker, and sums them."""

    def __init__(self) -> None:
        """Start a run."""
        self._latest: dict[str, Totals] = {}

    def note(self, texts: Iterable[Message]) -> None:
        """Add the totals of completions. An asynchronous rollout may arrive long after it was scored."""
        for text in texts:
            if text.totals is None:
                continue
            known = self._latest.get(text.totals.worker)
            if known is None or known.call < text.totals.call:
                self._latest[text.totals.worker] = text.totals

    def metrics(self) -> dict[str, float]:
        """Return ``rvpo/{channel}/judge/{total}``, summed over all workers since they started."""
        names = {name: None for totals in self._latest.values() for name in totals.by_reward}
        return {
            f"{PREFIX}{name}/{JUDGE}/{key}": float(value)
            for name in names
            for key, value in added(totals.by_reward.get(name, {}) for totals in self._latest.values()).items()
        }
