"""Which reward is being ignored? Read the logs once, count by group and channel, and report verdicts with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rvpo.core import AdvantageConfig
from rvpo.diagnose import verdicts
from rvpo.diagnose.aggregating import one_thread
from rvpo.diagnose.changing import has_faded, pulls_of_thirds, with_change
from rvpo.diagnose.diagnosis import ChannelDiagnosis, Curves, Diagnosis, Estimate, Influence, say
from rvpo.diagnose.diverging import Divergence, Watch
from rvpo.diagnose.estimates import LEVEL, RESAMPLES, estimated, pulls, values
from rvpo.diagnose.exploration import Exploration, explored
from rvpo.diagnose.group_sums import SLOT
from rvpo.diagnose.joining import Joined, Joiner, Kept
from rvpo.diagnose.questions import Lines, Seen, count_questions, merged, seen_of
from rvpo.diagnose.readings import Reading, agreed, guesses_of, readings_of
from rvpo.diagnose.sums import Sums, estimated_progress, note_of_scales, point_of_steps
from rvpo.diagnose.unscored import Unscored
from rvpo.errors import ConfigError, DataError
from rvpo.logs.entropy import Entropy, find_entropy
from rvpo.logs.guess import unsaid
from rvpo.logs.run import LoggedBatch, Run

Array = NDArray[np.float64]


def diagnose(
    run: Run,
    *,
    k: float = 1.0,
    assumed: AdvantageConfig | None = None,
    texts: bool = True,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    entropy: Entropy | None = None,
) -> Diagnosis:
    """Diagnose every channel of a run.

    Args:
        run: logs of a run, from :func:`rvpo.logs.open.open_run`.
        k: risk coefficient of the soft minimum that defines responsibilities.
        assumed: the method that gave the advantages, if none were logged. None: GRPO on the logged total or on the
            plain sum. A verdict that GDPO would change is then unclear.
        texts: whether to read the completions, to find identical ones with different scores.
        level: level of the intervals.
        resamples: number of bootstrap resamples over groups.
        seed: random seed of the bootstrap.
        progress: called with the number of steps that were read.
        entropy: entropy of the policy by step; None: look for it in the run's folder.

    Raises:
        ConfigError: an option has a value that cannot work.
        DataError: the logs cannot be read.
    """
    if not 0 < level < 1 or resamples < 100:
        raise ConfigError(
            f"level is {level!r} and resamples {resamples!r}; expected 0 < level < 1 and resamples >= 100"
        )
    if not run.every_batch and assumed is not None and assumed.method.remembers:
        raise ConfigError(
            f"{assumed} remembers the run, but {run.path} does not have every step since the first; expected a method "
            "without memory. Assume another method (--method)"
        )
    first = next(run.batches(), None)
    readings = readings_of(run, first, assumed)
    guesses = (*guesses_of(run, first, assumed), *run.guesses)
    every = [Sums(run, k, reading.config) for reading in readings]
    unscored, watch = Unscored(run), Watch()
    logged, seen, kept = _count(run, readings, every, unscored, watch, texts, progress)
    sums, reading = every[0], readings[0]
    total = sums.blocks.sum(0)
    correlations = _correlations(sums.products)
    estimates = [
        estimated(
            one.blocks,
            one.pairs,
            known=one.known > 0,
            dead=verdicts.RULES.dead,
            level=level,
            resamples=resamples,
            seed=seed,
        )
        for one in every
    ]
    found, _ = estimates[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        spreads = np.sqrt(total[:, SLOT["within_ss"]] / total[:, SLOT["within_dof"]])
    judged = agreed(
        readings,
        [
            verdicts.judged(
                run.channels,
                *estimate,
                reached=[(sums.low[j], sums.top[j], run.ranges.get(name)) for j, name in enumerate(run.channels)],
                monitored=sums.monitored.tolist(),
                spreads=spreads,
                correlations=correlations,
                sums_raw=run.config is None or run.config.method.name == "grpo",
            )
            for estimate in estimates
        ],
        guesses,
    )
    counted = _by_stretch(sums)
    thirds = pulls_of_thirds(sums.stretches, counted[..., SLOT["groups_live"]], _alive(total), level)
    early, late = thirds or [[Estimate(None)] * len(run.channels)] * 2
    judged = [with_change(*of_channel) for of_channel in zip(judged, early, late, strict=True)]
    channels = tuple(
        _channel(
            name,
            judged[j],
            {key: column[j] for key, column in found.items()},
            total[j],
            watch.called.get(name),
            has_faded(early[j], late[j]),
        )
        for j, name in enumerate(run.channels)
    )
    notes = unsaid(run.notes, guesses)
    if logged and assumed is not None:
        notes.append(f"advantages are logged, so {assumed} (--method) was not used")
    if not logged:
        if assumed is not None:  # without --method, a guess says which advantages are assumed
            notes.append(f"the logs have no advantages, so those of {reading.name} (--method) are computed")
        if note := estimated_progress(run, None, [reading.config]):
            notes.append(note)
        if note := note_of_scales([sums.state]):
            notes.append(note)
    if note := unscored.note():
        notes.append(note)
    return Diagnosis(
        run=run.name,
        path=str(run.path),
        kind=run.kind,
        method=str(run.config) if run.config else "as logged" if logged else reading.label,
        k=k,
        level=level,
        completions=sums.completions,
        groups=sums.groups,
        steps=len(run.steps),
        channels=channels,
        correlations=correlations,
        curves=_curves(run, sums),
        notes=tuple(notes),
        influence=_influence(run, sums) if sums.known else None,
        guesses=guesses,
        pooled=_pooled(run, first),
        exploration=_exploration(
            run,
            seen,
            kept.batches(),
            entropy or find_entropy(run),
            bool(first and first.groupings),
        ),
    )


def _pooled(run: Run, first: LoggedBatch | None) -> tuple[str, ...]:
    """Return the channels to which a completion of the first batch has several cells, such as criteria of one label."""
    if first is None:
        return ()
    channel = np.broadcast_to(first.channel, first.rewards.shape)
    applies = np.ones(channel.shape, dtype=bool) if first.applies is None else first.applies
    rows = np.nonzero(applies)[0]
    cells, counts = np.unique(np.stack([rows, channel[applies]], 1), axis=0, return_counts=True)
    return tuple([run.channels[j] for j in np.unique(cells[counts > 1, 1])])


def _exploration(
    run: Run, seen: Mapping[str, Seen], batches: Iterable[Joined], entropy: Entropy | None, guessed: bool
) -> Exploration:
    """Count the questions of a run, after all rewards were seen that determine when a channel is met."""
    lines, point_of = Lines(seen, run.ranges, run.solved), point_of_steps(run.steps)
    sums = count_questions(run, lines, point_of, batches)
    return explored(sums, run.channels, lines, point_of, entropy, guessed)


def _count(
    run: Run,
    readings: Sequence[Reading],
    every: Sequence[Sums],
    unscored: Unscored,
    watch: Watch,
    texts: bool,
    progress: Callable[[int], None] | None,
) -> tuple[bool, dict[str, Seen], Kept]:
    """Read the run into the sums of each reading.

    Returns:
        Whether it logged advantages, what it shows of its channels, and its batches.

    Raises:
        DataError: no two completions belong to the same prompt.
    """
    logged, done = False, -1
    sight, kept, joiner = _Sight(run), Kept(run, readings[0].regrouped), Joiner()
    with one_thread():
        for batch in run.batches(texts):
            likely = kept.add(batch)
            unscored.add(likely.batch)
            for joined in joiner.add(likely):
                sight.add(joined.batch)
            for reading, sums in zip(readings, every, strict=True):
                read = reading.batch(batch)
                is_likely = read.groups is likely.batch.groups
                sums.add(replace(likely, batch=read) if is_likely else Joined.single(read))
            logged = logged or batch.advantages is not None
            if progress is not None and batch.step != done:
                done = batch.step
                progress(1)
        for joined in joiner.rest():
            sight.add(joined.batch)
        for sums in every:
            sums.settle()
        if sight.monitors:
            _look(run, watch, kept.batches())
    if every[0].groups == every[0].completions:
        raise DataError(
            f"{run.path} has {every[0].completions} completions in as many groups; expected several completions per "
            "group. Name the column that identifies the group (--group), or pass the number of completions per group "
            "(--group-size). A log with one completion per prompt cannot be diagnosed, because rewards are compared "
            "between completions of the same prompt"
        )
    return logged, sight.seen, kept


class _Sight:
    """What a run shows of its channels.

    Attributes:
        seen: name -> what was seen.
        monitors: whether there was a channel that, up to then, was not trained on.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.seen = {name: Seen() for name in run.channels}
        self.monitors = False

    def add(self, batch: LoggedBatch) -> None:
        shown = seen_of(batch, self._run)
        self.seen = merged([self.seen, shown])
        self.monitors = self.monitors or not all(self.seen[name].trained for name in shown)


def _look(run: Run, watch: Watch, batches: Iterable[Joined]) -> None:
    """Compare the trained channels of a run with its monitors, batch by batch."""
    for one in batches:
        batch = one.batch
        watch.add(batch.step, batch.rewards, one.groups, batch.channel, run.channels, batch.weights, batch.applies)


def _channel(
    name: str,
    judged: verdicts.Judged,
    found: Mapping[str, Estimate],
    total: Array,
    divergence: Divergence | None,
    faded: bool,
) -> ChannelDiagnosis:
    cells = total[SLOT["cells"]]
    live, scored = (float(total[SLOT[slot]] / cells) if cells else None for slot in ("live", "scored"))
    if divergence is not None:  # before any other verdict: a reward that is gamed has too much influence
        judged = verdicts.Judged("diverging", divergence.sentence(), None)
    return ChannelDiagnosis(
        name=name,
        verdict=judged.verdict,
        rule=judged.rule,
        confidence=judged.confidence,
        mean=found["mean"],
        trend=found["trend"],
        early=found["early"].value,
        late=found["late"].value,
        live=live,
        dead=None if live is None or scored is None else scored - live,
        missing=None if scored is None else 1 - scored,
        live_groups=found["live_groups"],
        correlation=found["correlation"],
        fair=found["fair"].value if live else None,
        pull=found["pull"],
        punished=found["punished"],
        responsibility=found["responsibility"],
        bottleneck=found["bottleneck"],
        ceiling=found["ceiling"],
        reliability=found["reliability"],
        pairs=int(total[SLOT["again_dof"]]),
        cause=judged.cause,
        divergence=divergence,
        unexplored=found["unexplored"],
        suppressed=found["suppressed"],
        faded=faded,
    )


def _correlations(products: Array) -> tuple[tuple[float | None, ...], ...]:
    both, first, second = np.moveaxis(products, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        c = both / np.sqrt(first * second)
    return tuple(map(_finite, c))


def _curves(run: Run, sums: Sums) -> Curves:
    found = values(sums.points)
    cells = sums.points[..., SLOT["cells"]]
    with np.errstate(invalid="ignore", divide="ignore"):
        found["live_share"] = sums.points[..., SLOT["live"]] / cells
        found["missing"] = 1 - sums.points[..., SLOT["scored"]] / cells

    def by_channel(name: str) -> dict[str, tuple[float | None, ...]]:
        return {channel: _finite(found[name][:, j]) for j, channel in enumerate(run.channels)}

    return Curves(
        steps=sums.point_steps,
        mean=by_channel("mean"),
        responsibility=by_channel("responsibility"),
        correlation=by_channel("correlation"),
        live=by_channel("live_share"),
        missing=by_channel("missing"),
    )


def _stretches(sums: Sums) -> NDArray[np.int64]:
    """Return the stretch of time of each point in time."""
    return np.array([sums.stretch_of(point) for point in range(len(sums.points))])


def _by_stretch(sums: Sums) -> Array:
    """Return the sums per stretch of time, (B, K, slots)."""
    stretch = _stretches(sums)
    return np.stack([sums.points[stretch == b].sum(0) for b in range(len(sums.stretches))])


def _alive(total: Array) -> NDArray[np.bool_]:
    """Return which channels enter the average of the pulls."""
    alive: NDArray[np.bool_] = total[:, SLOT["groups_live"]] >= verdicts.RULES.dead * total[:, SLOT["groups_scored"]]
    return alive


def _influence(run: Run, sums: Sums) -> Influence:
    """Return the influence of each channel on the advantages that were used, per stretch of time."""
    stretch, counted = _stretches(sums), _by_stretch(sums)
    alive = _alive(counted.sum(0))
    found = values(counted)
    pull, correlation, fair = pulls(sums.stretches, alive), found["correlation"], found["fair"]
    by_channel = {}
    for j, name in enumerate(run.channels):
        columns = (_finite(column[:, j]) for column in (pull, correlation, fair))
        by_channel[name] = tuple([say(*point) for point in zip(*columns, strict=True)])
    return Influence(
        steps=tuple([sums.point_steps[int(np.flatnonzero(stretch == b)[-1])] for b in range(len(sums.stretches))]),
        pull={name: _finite(pull[:, j]) for j, name in enumerate(run.channels)},
        say=by_channel,
    )


def _finite(values: Array) -> tuple[float | None, ...]:
    """Return numbers, with None for those that are not finite, because JSON cannot hold them."""
    return tuple([x if known else None for x, known in zip(values.tolist(), np.isfinite(values), strict=True)])
