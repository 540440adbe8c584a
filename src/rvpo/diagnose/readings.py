"""How the advantages of a run may have been computed, if its logs have none: each plausible way is a reading.

If the verdict depends on the reading, it becomes "unclear" and says which option settles it. A verdict that all
readings share is as sure as the guesses that it depends on: its share of resamples times the share of such guesses
that are right (benchmarks/reports/guessed.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rvpo.arrays.groups import Partition
from rvpo.arrays.rules import Cells, advantages
from rvpo.core import GDPO, GRPO, AdvantageConfig
from rvpo.diagnose.verdicts import Judged
from rvpo.logs.guess import Guess
from rvpo.logs.run import LoggedBatch, Run

ASSUMED = AdvantageConfig(GRPO())
BY_CHANNEL = AdvantageConfig(GDPO())
TRUST_TOTAL, TRUST_SUM, TRUST_WEIGHTS = 0.95, 0.8, 0.85


@dataclass(frozen=True)
class Reading:
    """A way in which the advantages may have been computed.

    Attributes:
        name: the reading in words.
        config: the method that gives advantages if none are logged.
        of_total: whether it is applied to the logged total instead of the rewards.
        size: number of rows per group, if the logs do not identify the groups; None if they do.
        given: whether the user named the method.
    """

    name: str
    config: AdvantageConfig
    of_total: bool = False
    size: int | None = None
    given: bool = False

    @property
    def label(self) -> str:
        """The name, with its source: the user or an assumption."""
        return f"{self.name} ({'--method' if self.given else 'assumed'})"

    def regrouped(self, batch: LoggedBatch) -> LoggedBatch:
        """Return a batch with the groups of this reading."""
        return batch if self.size is None else replace(batch, groups=batch.groupings[self.size])

    def batch(self, batch: LoggedBatch) -> LoggedBatch:
        """Return a batch with the groups of this reading and, if it uses the total, the advantages of the total."""
        batch = self.regrouped(batch)
        if not self.of_total or batch.totals is None or batch.advantages is not None:
            return batch
        cells = Cells(batch.totals[:, None], Partition.of_ids(batch.groups))
        return replace(batch, advantages=advantages(cells, self.config))


def readings_of(run: Run, first: LoggedBatch | None, assumed: AdvantageConfig | None) -> tuple[Reading, ...]:
    """Return the plausible readings, the likeliest first.

    Args:
        run: logs of a run.
        first: its first batch.
        assumed: the method that the user named.
    """
    methods = _methods(run, first, assumed)
    if first is None or not first.groupings:
        return methods
    return tuple([replace(method, size=size) for size in first.groupings for method in methods])


def _methods(run: Run, first: LoggedBatch | None, assumed: AdvantageConfig | None) -> tuple[Reading, ...]:
    """Return the plausible methods, the likeliest first."""
    if assumed is not None:
        return (Reading(str(assumed), assumed, given=True),)
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
        what = "advantages are those of GRPO on the logged total"
        return (Guess(what, why, "--method, --advantage", TRUST_TOTAL),)
    options = "--method, --advantage" if weighted else "--method, --weights, --advantage"
    what = f"advantages are those of GRPO on the {'weighted' if weighted else 'plain'} sum of the rewards"
    return (Guess(what, "the logs have neither advantages nor a total", options, TRUST_SUM),)


def agreed(readings: Sequence[Reading], judged: Sequence[Sequence[Judged]], guesses: Sequence[Guess]) -> list[Judged]:
    """Return one verdict per channel: the one that all readings share, otherwise "unclear" with how to settle it.

    Args:
        readings: the plausible readings, the likeliest first.
        judged: one sequence per reading, with one verdict per channel.
        guesses: the guesses that the verdicts depend on.
    """
    trust = math.prod(guess.trust for guess in guesses)
    doubts = [guess for guess in guesses if guess.open]
    return [_agreed(readings, of_channel, trust, doubts) for of_channel in zip(*judged, strict=True)]


DEPENDS = "it depends on"
"""Beginning of the reason for an unclear verdict that an option settles."""


def _agreed(readings: Sequence[Reading], judged: Sequence[Judged], trust: float, doubts: Sequence[Guess]) -> Judged:
    if doubts:
        return Judged("unclear", f"no verdict can be given: {doubts[0]}", None)
    if len({one.verdict for one in judged}) > 1:
        return Judged("unclear", _disagreement(readings, [one.verdict for one in judged]), None)
    known = [one.confidence for one in judged if one.confidence is not None]
    return replace(judged[0], confidence=trust * sum(known) / len(known) if known else None)


def _disagreement(readings: Sequence[Reading], verdicts: Sequence[str]) -> str:
    """Return which readings lead to which verdict, and how to settle it, as text."""
    by_size: dict[int | None, set[str]] = {}
    for reading, verdict in zip(readings, verdicts, strict=True):
        by_size.setdefault(reading.size, set()).add(verdict)
    if len(by_size) > 1 and all(len(found) == 1 for found in by_size.values()):  # the method makes no difference
        sizes: dict[str, list[str]] = {}
        for size, found in sorted(by_size.items(), key=lambda pair: pair[0] or 0):
            sizes.setdefault(next(iter(found)), []).append(str(size))
        cases = "; ".join(f"{verdict} with groups of {', '.join(listed)} rows" for verdict, listed in sizes.items())
        return f"{DEPENDS} the group size: {cases}. Pass the number of completions per prompt (--group-size)"
    methods: dict[str, dict[str, None]] = {}
    for reading, verdict in zip(readings, verdicts, strict=True):
        methods.setdefault(reading.name, {}).setdefault(verdict)
    cases = "; ".join(f"{' or '.join(found)} with {name}" for name, found in methods.items())
    also = " and the group size" if any(len(found) > 1 for found in methods.values()) else ""
    options = "--method, --group-size" if also else "--method"
    return f"{DEPENDS} the method{also}: {cases}. Pass what the run used ({options})"
