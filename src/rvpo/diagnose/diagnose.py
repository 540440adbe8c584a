"""Which reward is being ignored? Read logs once, count by group and channel, and say it with its uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rvpo.core import GRPO, AdvantageConfig
from rvpo.diagnose import verdicts
from rvpo.diagnose.diagnosis import ChannelDiagnosis, Curves, Diagnosis, Estimate, or_none
from rvpo.diagnose.estimates import EVIDENCE, LEVEL, RESAMPLES, estimates, pulls, resampled, resampled_pulls, values
from rvpo.diagnose.group_sums import SLOT
from rvpo.diagnose.sums import Sums, one_thread
from rvpo.errors import ConfigError, DataError
from rvpo.logs.run import Run

Array = NDArray[np.float64]
ASSUMED = AdvantageConfig(GRPO())


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
) -> Diagnosis:
    """Diagnose every channel of a run.

    Args:
        run: from :func:`rvpo.logs.open.open_run`.
        k: of the soft minimum under which responsibilities are told.
        assumed: how advantages come about where none were logged; None: GRPO on the plain sum.
        texts: read completions too, to find equal ones that were scored differently.
        level: of the intervals.
        resamples: of the bootstrap over groups.
        seed: of the bootstrap.
        progress: called with the number of steps that were read.

    Raises:
        ConfigError: an option that cannot work.
        DataError: logs that cannot be read.
    """
    if not 0 < level < 1 or resamples < 100:
        raise ConfigError(f"level is {level!r} and resamples {resamples!r}, allowed is 0 < level < 1, resamples >= 100")
    assumed = assumed or ASSUMED
    if assumed.method.remembers and not run.every_batch:
        raise ConfigError(
            f"{assumed} remembers the run, and {run.path} does not have every step since the first: assume "
            "another method"
        )
    sums = Sums(run, k, assumed)
    logged, monitored = _count(run, sums, texts, progress)
    total = sums.blocks.sum(0)
    found, draws = _estimated(run, sums, total, level, resamples, seed)
    best = np.array(
        [verdicts.at_its_best(sums.top[j], sums.low[j], run.ranges.get(n)) for j, n in enumerate(run.channels)]
    )
    drawn = None if draws is None else verdicts.each(draws, best)
    channels = tuple(
        _channel(
            name,
            {key: column[j] for key, column in found.items()},
            total[j],
            bool(best[j]),
            drawn if drawn is None else drawn[:, j],
            bool(monitored[j]),
        )
        for j, name in enumerate(run.channels)
    )
    correlations = _correlations(sums.products)
    channels = _advised(run, channels, total, correlations)
    notes = list(run.notes)
    if logged and assumed is not ASSUMED:
        notes.append(f"advantages are logged: {assumed} (--method) is not needed and was not used")
    if not logged:
        notes.append(f"the logs have no advantages: those of {assumed} are assumed (--method)")
    return Diagnosis(
        run=run.name,
        path=str(run.path),
        kind=run.kind,
        method=str(run.config) if run.config else "as logged" if logged else f"{assumed} (assumed)",
        k=k,
        level=level,
        completions=sums.completions,
        groups=sums.groups,
        steps=len(run.steps),
        channels=channels,
        correlations=correlations,
        curves=_curves(run, sums),
        notes=tuple(notes),
    )


def _count(run: Run, sums: Sums, texts: bool, progress: Callable[[int], None] | None) -> tuple[bool, NDArray[np.bool_]]:
    """Read the run into its sums; return whether it logged advantages, and (K,) which channels never count.

    Raises:
        DataError: no two completions answer one prompt.
    """
    logged, done, monitored = False, -1, np.ones(len(run.channels), dtype=bool)
    with one_thread():
        for batch in run.batches(texts):
            sums.add(batch)
            logged = logged or batch.advantages is not None
            _note_weights(monitored, batch.weights, batch.channel)
            if progress is not None and batch.step != done:
                done = batch.step
                progress(1)
    if sums.groups == sums.completions:
        raise DataError(
            f"{run.path} has {sums.completions} completions in as many groups, allowed are several a group: "
            "name the column that says which belong together (--group), or their number (--group-size)"
        )
    return logged, monitored


def _estimated(
    run: Run, sums: Sums, total: Array, level: float, resamples: int, seed: int
) -> tuple[dict[str, list[Estimate]], dict[str, Array] | None]:
    """Return each statistic of each channel with its interval, and the draws that gave these."""
    draws = resampled(sums.blocks, resamples, seed)
    alive = total[:, SLOT["groups_live"]] >= verdicts.RULES.dead * total[:, SLOT["groups_scored"]]
    drawn_pulls = resampled_pulls(sums.pairs, alive, resamples, seed)
    few = np.any([total[:, SLOT[slot]] < least for slot, least in EVIDENCE.items()], axis=0)
    if draws is not None:
        draws["pull"] = np.full_like(draws["mean"], np.nan) if drawn_pulls is None else drawn_pulls
        draws["reliability"][:, few] = np.nan
    groups = int((sums.blocks[..., SLOT["cells"]].sum(1) > 0).sum())
    moved = pulls(sums.pairs.sum(0), alive) if sums.known else np.full(len(run.channels), np.nan)
    found = estimates(total, draws, groups, level, {"pull": moved})
    found["reliability"] = [Estimate(None) if few[j] else e for j, e in enumerate(found["reliability"])]
    return found, draws


def _note_weights(monitored: NDArray[np.bool_], weights: Tensor | None, channel: Tensor) -> None:
    """Clear the channels that count for anything."""
    if weights is None:
        monitored[:] = False
        return
    counting = channel.expand(weights.shape)[weights > 0]
    monitored[counting.numpy()] = False


def _channel(
    name: str, found: dict[str, Estimate], total: Array, best: bool, drawn: NDArray[np.str_] | None, monitored: bool
) -> ChannelDiagnosis:
    verdict = verdicts.tell(found, best)
    cells = total[SLOT["cells"]]

    def share(slot: str) -> float | None:
        return float(total[SLOT[slot]] / cells) if cells else None

    live, scored = share("live"), share("scored")
    return ChannelDiagnosis(
        name=name,
        verdict=verdict,
        rule=verdicts.sentence(verdict, found, monitored),
        confidence=_confidence(verdict, drawn),
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
    )


def _advised(
    run: Run,
    channels: Sequence[ChannelDiagnosis],
    total: Array,
    correlations: Sequence[Sequence[float | None]],
) -> tuple[ChannelDiagnosis, ...]:
    """Add to the sentence of neglected channels where the neglect comes from."""
    with np.errstate(invalid="ignore", divide="ignore"):
        spreads = np.sqrt(total[:, SLOT["within_ss"]] / total[:, SLOT["within_dof"]])
    sums_raw = run.config is None or run.config.method.name == "grpo"
    advised = []
    for j, channel in enumerate(channels):
        told = verdicts.advice(j, run.channels, channel.rule, spreads, correlations, sums_raw)
        neglected = channel.verdict == "neglected" and told
        advised.append(replace(channel, rule=f"{channel.rule}; {told}") if neglected else channel)
    return tuple(advised)


def _confidence(verdict: str, drawn: NDArray[np.str_] | None) -> float | None:
    """Return the share of resamples with this verdict; what is unclear is none that a resample could have."""
    if drawn is None or verdict == "unclear":
        return None
    return float((drawn == verdict).mean())


def _correlations(products: Array) -> tuple[tuple[float | None, ...], ...]:
    both, first, second = np.moveaxis(products, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        c = both / np.sqrt(first * second)
    return tuple(tuple(or_none(x) for x in row) for row in c)


def _curves(run: Run, sums: Sums) -> Curves:
    found = values(sums.points)
    cells = sums.points[..., SLOT["cells"]]
    with np.errstate(invalid="ignore", divide="ignore"):
        found["live_share"] = sums.points[..., SLOT["live"]] / cells
        found["missing"] = 1 - sums.points[..., SLOT["scored"]] / cells

    def by_channel(name: str) -> dict[str, tuple[float | None, ...]]:
        return {channel: tuple(map(or_none, found[name][:, j])) for j, channel in enumerate(run.channels)}

    return Curves(
        steps=sums.point_steps,
        mean=by_channel("mean"),
        responsibility=by_channel("responsibility"),
        correlation=by_channel("correlation"),
        live=by_channel("live_share"),
        missing=by_channel("missing"),
    )
