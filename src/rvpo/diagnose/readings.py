"""How the advantages of a run may have come about, where its logs have none: each plausible way is a reading.

A verdict that depends on the reading is none: it becomes "unclear" and says what would settle it. One that all readings
share is as sure as the guesses that it rests on: its share of resamples times how often such guesses are right
(benchmarks/reports/guessed.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rvpo.core import GDPO, GRPO, AdvantageConfig, compute
from rvpo.core.groups import Groups
from rvpo.diagnose.verdicts import Judged
from rvpo.logs.run import Guess, LoggedBatch, Run

ASSUMED = AdvantageConfig(GRPO())
BY_CHANNEL = AdvantageConfig(GDPO())
TRUST_TOTAL, TRUST_SUM, TRUST_WEIGHTS = 0.95, 0.8, 0.85


@dataclass(frozen=True)
class Reading:
    """A way in which the advantages may have come about.

    Attributes:
        name: in words.
        config: method that gives advantages where none are logged.
        of_total: whether it is applied to the logged total instead of the rewards.
    """

    name: str
    config: AdvantageConfig
    of_total: bool = False

    def batch(self, batch: LoggedBatch) -> LoggedBatch:
        """Return a batch with the advantages that its total gives; as it is where they come from its rewards."""
        if not self.of_total or batch.totals is None or batch.advantages is not None:
            return batch
        groups = Groups.in_blocks(batch.groups)
        return replace(batch, advantages=compute(batch.totals[:, None], self.config, groups=groups).advantages)


def readings_of(run: Run, first: LoggedBatch | None, assumed: AdvantageConfig | None) -> tuple[Reading, ...]:
    """Return the plausible ways, the likeliest first.

    Args:
        run: logs of a run.
        first: its first batch.
        assumed: what the user says.
    """
    if assumed is not None:
        return (Reading(str(assumed), assumed),)
    if first is None or first.advantages is not None or len(run.channels) == 1:
        of_total = first is not None and first.totals is not None
        return (Reading("grpo on the logged total" if of_total else "grpo", ASSUMED, of_total),)
    if first.totals is None:
        return (Reading("grpo", ASSUMED), Reading("gdpo", BY_CHANNEL))
    on_total = Reading("grpo on the logged total", ASSUMED, of_total=True)
    return (
        (on_total,) if first.weights is None else (on_total, Reading("gdpo with the weights of the total", BY_CHANNEL))
    )


def guesses_of(run: Run, first: LoggedBatch | None, assumed: AdvantageConfig | None) -> tuple[Guess, ...]:
    """Return what has to be guessed about the advantages; see :func:`readings_of`."""
    if first is None or first.advantages is not None:
        return ()
    weighted = first.weights is not None
    if assumed is not None:
        if weighted or len(run.channels) == 1:
            return ()
        return (Guess("all rewards have the weight 1", "", "--weights", TRUST_WEIGHTS),)
    if first.totals is not None:
        why = "the logs have no advantages"
        return (Guess("advantages are those of GRPO on the logged total", why, "--method, --advantage", TRUST_TOTAL),)
    options = "--method, --advantage" if weighted else "--method, --weights, --advantage"
    what = f"advantages are those of GRPO on the {'weighted' if weighted else 'plain'} sum of the rewards"
    return (Guess(what, "the logs have neither advantages nor a total", options, TRUST_SUM),)


def agreed(by_reading: Mapping[str, Sequence[Judged]], guesses: Sequence[Guess]) -> list[Judged]:
    """Return one verdict per channel: that of all readings, else "unclear" with what would settle it."""
    names = list(by_reading)
    trust = math.prod(guess.trust for guess in guesses)
    doubts = [guess for guess in guesses if guess.open]
    return [
        _agreed(dict(zip(names, judged, strict=True)), trust, doubts)
        for judged in zip(*by_reading.values(), strict=True)
    ]


def _agreed(judged: Mapping[str, Judged], trust: float, doubts: Sequence[Guess]) -> Judged:
    first = next(iter(judged.values()))
    if doubts:
        return Judged("unclear", f"no verdict can be given: {doubts[0]}", None)
    if len({one.verdict for one in judged.values()}) > 1:
        told = "; under ".join(f"{name}: {one.verdict}" for name, one in judged.items())
        return Judged("unclear", f"it depends on the method: under {told}. Name the one that was used (--method)", None)
    known = [one.confidence for one in judged.values() if one.confidence is not None]
    return replace(first, confidence=trust * sum(known) / len(known) if known else None)
