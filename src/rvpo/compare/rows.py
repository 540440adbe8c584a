"""The tests of a comparison: a group of runs against the baseline, measure by measure and channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rvpo import statistics as st
from rvpo.compare.comparison import MEASURES, Group, Row, RunNumbers

LEVEL = 0.05
"""Pairs that cannot reach it do not pair, if as many runs can without."""

MOST_SEEDS = 100
"""A verdict that more than these would be needed does not say how many."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to test: level of the intervals, whether seeds do not pair, and what random assignments are drawn with."""

    level: float = st.LEVEL
    unpaired: bool = False
    resamples: int = st.RESAMPLES
    seed: int = 0

    @property
    def alpha(self) -> float:
        """Level of the tests; rounded, so that a p of exactly 0.05 is found."""
        return round(1 - self.level, 12)


def rows(baseline: Group, others: Sequence[Group], channels: Sequence[str | None], options: Options) -> tuple[Row, ...]:
    """Compare every group with the baseline, in every measure and channel.

    Args:
        baseline: A.
        others: each is B once.
        channels: names; None for the worst channel.
        options: of the tests.
    """
    out: list[Row] = []
    for measure in MEASURES:
        drafts = [_row(measure, channel, baseline, group, options) for group in others for channel in channels]
        for worst in (True, False):
            family = [i for i, row in enumerate(drafts) if (row.channel is None) == worst and row.test]
            adjusted = st.holm([drafts[i].p or 0.0 for i in family])
            at_best = st.holm([drafts[i].smallest or 0.0 for i in family])
            for i, p, possible in zip(family, adjusted, at_best, strict=True):
                judged = replace(drafts[i], adjusted=p)
                verdict = _verdict(judged, baseline.name, len(family), possible, options)
                drafts[i] = replace(judged, verdict=verdict)
        out += drafts
    return tuple(out)


def why_unpaired(a: Sequence[RunNumbers], b: Sequence[RunNumbers]) -> str | None:
    """Return why runs are not paired by seed; None where they are."""
    for run in (*a, *b):
        if run.seed is None:
            return f"nothing tells the seed of {run.name}"
    for runs in (a, b):
        seeds = [run.seed for run in runs]
        if twice := [run for run in runs if seeds.count(run.seed) > 1]:
            return f"seed {twice[0].seed} stands twice, in {twice[0].path} and {twice[1].path}"
    ours, theirs = (sorted(run.seed for run in runs if run.seed is not None) for runs in (a, b))
    if ours != theirs:
        return f"seeds are {_listed(ours)} and {_listed(theirs)}"
    n = len(ours)
    if n > 1 and st.smallest_p(n, None) > LEVEL >= st.smallest_p(n, n):  # decided by numbers of runs, not by results
        return f"{n} pairs cannot give a p of {LEVEL}, {n} runs against {n} can"
    return None


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _row(measure: str, channel: str | None, a: Group, b: Group, options: Options) -> Row:
    """Compare one measure on the runs that have it; the verdict on those with a test is left open."""
    runs_a, runs_b = ([run for run in group.runs if run.of(channel).get(measure) is not None] for group in (a, b))
    by_pair = not options.unpaired and len(runs_a) > 1 and why_unpaired(runs_a, runs_b) is None
    if by_pair:
        runs_a, runs_b = (sorted(runs, key=lambda run: run.seed or 0) for runs in (runs_a, runs_b))
    x, y = (
        tuple(value for run in runs if (value := run.of(channel).get(measure)) is not None) for runs in (runs_a, runs_b)
    )
    if not x or not y:
        lacking = " and ".join(group.name for group, values in ((a, x), (b, y)) if not values)
        nothing = st.Interval(None, None, None, 0)
        verdict = f"missing: no run of {lacking} has it"
        return Row(b.name, measure, channel, x, y, nothing, nothing, verdict=verdict)
    difference = st.runs_interval(y, x, by_pair=by_pair, level=options.level)
    effect = st.hedges_g(y, x, by_pair=by_pair, level=options.level)
    row = Row(b.name, measure, channel, x, y, difference, effect)
    if min(len(x), len(y)) < 2:
        single = " and ".join(group.name for group, values in ((a, x), (b, y)) if len(values) == 1)
        return replace(row, verdict=f"no p: one run of {single}, so how seeds differ is unknown")
    drawn = {"resamples": options.resamples, "seed": options.seed}
    p = st.sign_flip(st.paired(y, x), **drawn) if by_pair else st.permutation(y, x, **drawn)
    smallest = st.smallest_p(len(y), None if by_pair else len(x), resamples=options.resamples)
    return replace(row, test="paired" if by_pair else "unpaired", p=p, smallest=smallest)


def _verdict(row: Row, baseline: str, family: int, possible: float, options: Options) -> str:
    """Put into words what a tested row says; ``possible`` is the smallest adjusted p that the design allows."""
    alpha, by_pair = options.alpha, row.test == "paired"
    if row.adjusted is not None and row.adjusted <= alpha:
        more = row.group if (row.difference.mean or 0.0) > 0 else baseline
        return f"{more} {'drops more' if row.measure == 'drop' else 'higher'}"
    level = alpha / family
    if possible > alpha:
        runs = f"{len(row.b)} pairs of seeds" if by_pair else f"{len(row.b)} runs against {len(row.a)}"
        after = f" after Holm over {family} tests" if family > 1 else ""
        enough = st.seeds_for_level(level, by_pair=by_pair, resamples=options.resamples)
        then = "no number of seeds would change that" if enough is None else f"at least {enough} seeds each"
        return f"cannot tell: with {runs} no p below {possible:.2g} is possible{after}; {then}"
    if st.alike([*row.a, *row.b]):
        return "cannot tell: all runs are equal"
    needed = st.needed_seeds(row.b, row.a, by_pair=by_pair, level=level, resamples=options.resamples)
    if needed is None:
        return "cannot tell"
    about = max(needed, min(len(row.a), len(row.b)) + 1)  # these did not suffice
    told = f"about {about}" if about <= MOST_SEEDS else f"more than {MOST_SEEDS}"
    return f"cannot tell: {told} seeds each would be needed for a difference of this size"
