"""What the verdicts of ``rvpo compare`` are worth: false alarms, coverage and power on simulated training runs.

    OMP_NUM_THREADS=1 python benchmarks/reports/compare_calibration.py [--simulations 1000]

Every line simulates so many comparisons of two methods with 3, 5 or 8 seeds each and passes them through the functions
that the command uses, from the curves on. A run has 60 steps and 2, 5 or 17 channels:

    smooth       share = learning curve + what the seed adds + noise of the steps. The seed adds 0.06 (standard
                 deviation) to a run, half of its variance shared by all channels; the noise is 0.05 with an
                 autocorrelation of 0.8, half of its variance shared by all channels
    bistable     the same, but in channel 0 half of the runs end at 0.98 and half at 0.02, as in ../shared/pilot
    equal mean   channel 0 is bistable in A; in B every run ends between: equal means, unequal spread. Permutation tests
                 do not assume equal spreads only where groups are large

Of the variance that the seed adds, ``shared`` is the part that both methods' runs of one seed have in common; with it
pairing pays. Rates are of p <= 0.05; at 1,000 simulations a rate of 5% has a standard error of 0.7 points. Prints
Markdown tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rvpo.compare.comparison import MEASURES, TrainingComparison
from rvpo.compare.curves import RunCurves
from rvpo.compare.trainings import compare_trainings
from rvpo.text.tables import markdown

STEPS = 60
RUNS = (3, 5, 8)
CHANNELS = (2, 5, 17)
SEED_SD, NOISE_SD, AUTOCORRELATION = 0.06, 0.05, 0.8
RESAMPLES = 1000  # drawn only beyond 8 against 8
RANGE = (
    -1.0,
    2.0,
)  # declared, so wide that nothing is clipped and a difference of shares is a third of that of rewards
TRUTH = 4000  # runs from which a true effect size is read


@dataclass(frozen=True)
class World:
    """Two methods: what their seeds share, and how channel 0 goes."""

    name: str
    shared: float = 0.0
    bistable: tuple[float, float] | None = None  # of A and B: chance that a run keeps channel 0
    between: bool = False  # B ends in the middle instead
    effect: float = 0.0  # on channel 0 of B, at the end


NULLS = (World("smooth"), World("smooth, shared 0.7", shared=0.7), World("bistable", bistable=(0.5, 0.5)))
UNEQUAL = World("equal mean", bistable=(0.5, 0.5), between=True)
POWER = (
    *(World(f"smooth, +{effect:g}", effect=effect) for effect in (0.1, 0.2)),
    *(World(f"smooth, shared 0.7, +{effect:g}", shared=0.7, effect=effect) for effect in (0.1, 0.2)),
    World("bistable, 40% and 100% of runs keep channel 0", bistable=(0.4, 1.0)),
    World("bistable, 10% and 100%", bistable=(0.1, 1.0)),
)


def mixed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw standard normal values, (..., K), half of whose variance is shared by the last dimension."""
    return (rng.normal(size=(*shape[:-1], 1)) + rng.normal(size=shape)) * np.sqrt(0.5)


def runs_of(rng: np.random.Generator, world: World, runs: int, channels: int) -> dict[str, list[RunCurves]]:
    progress = np.linspace(0, 1, STEPS)
    learning = 0.3 + 0.4 / (1 + np.exp(-8 * (progress - 0.4)))
    of_seed = np.sqrt(world.shared) * mixed(rng, (runs, channels))
    names, out = tuple(f"c{j}" for j in range(channels)), {}
    for method, keeps in zip("AB", world.bistable or (None, None), strict=True):
        own = of_seed + np.sqrt(1 - world.shared) * mixed(rng, (runs, channels))
        noise = mixed(rng, (runs, STEPS, channels))
        for t in range(1, STEPS):
            noise[:, t] = AUTOCORRELATION * noise[:, t - 1] + np.sqrt(1 - AUTOCORRELATION**2) * noise[:, t]
        curves = learning[:, None] + SEED_SD * own[:, None] * progress[:, None] ** 0.5 + NOISE_SD * noise
        if keeps is not None:
            end = np.where(rng.random(runs) < keeps, 0.98, 0.02)
            if world.between and method == "B":
                end[:] = 0.5
            fades = np.exp(-6 * progress)
            curves[:, :, 0] = 0.6 * fades + end[:, None] * (1 - fades) + 0.2 * NOISE_SD * noise[:, :, 0]
        if method == "B":
            curves[:, :, 0] += world.effect * progress
        out[method] = [
            RunCurves(
                path=f"{method}-{seed}",
                name=f"{method}-{seed}",
                channels=names,
                steps=np.arange(1, STEPS + 1),
                mean=curve,
                seen=dict.fromkeys(names, (0.0, 1.0)),
                ranges=dict.fromkeys(names, RANGE),
                seed=seed,
            )
            for seed, curve in enumerate(curves)
        ]
    return out


def simulated(
    rng: np.random.Generator, world: World, runs: int, channels: int, unpaired: bool, simulations: int
) -> list[TrainingComparison]:
    return [
        compare_trainings(runs_of(rng, world, runs, channels), unpaired=unpaired, resamples=RESAMPLES)
        for _ in range(simulations)
    ]


def rates(found: Sequence[TrainingComparison], measure: str) -> dict[str, float]:
    """Return the rates of p <= 0.05 in a measure: of a channel, of any channel before and after Holm, of the worst."""
    rows = [[row for row in comparison.rows if row.measure == measure] for comparison in found]
    of_channels = [[row for row in every if row.channel is not None] for every in rows]
    worst = [row for every in rows for row in every if row.channel is None]
    covers = [row.difference.low <= 0 <= row.difference.high for every in of_channels for row in every]
    return {
        "a channel": float(np.mean([row.p <= 0.05 for every in of_channels for row in every])),
        "any channel": float(np.mean([min(row.p for row in every) <= 0.05 for every in of_channels])),
        "any, Holm": float(np.mean([min(row.adjusted for row in every) <= 0.05 for every in of_channels])),
        "worst channel": float(np.mean([row.p <= 0.05 for row in worst])),
        "channel 0": float(np.mean([every[0].p <= 0.05 for every in of_channels])),
        "channel 0, Holm": float(np.mean([every[0].adjusted <= 0.05 for every in of_channels])),
        "interval holds 0": float(np.mean(covers)),
        "its, channel 0": float(np.mean(covers[:: len(of_channels[0])])),
        "its, worst": float(np.mean([row.difference.low <= 0 <= row.difference.high for row in worst])),
    }


def table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    print("\n".join([f"\n**{title}**\n", *markdown([list(head), *map(list, lines)])]), flush=True)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def false_alarms(rng: np.random.Generator, simulations: int) -> None:
    keys = ("a channel", "any channel", "any, Holm", "worst channel", "interval holds 0", "its, worst")
    lines: dict[bool, list[list[str]]] = {True: [], False: []}
    for world in NULLS:
        for runs in RUNS:
            for channels in CHANNELS:
                for unpaired in (False, True):
                    found = simulated(rng, world, runs, channels, unpaired, simulations)
                    design = [world.name, f"{runs} v {runs}", str(channels), "unpaired" if unpaired else "paired"]
                    for measure in MEASURES if channels == 5 else ("auc",):
                        told = rates(found, measure)
                        lines[measure == "auc"].append([*design, measure, *(percent(told[key]) for key in keys)])
    head = ["equal methods", "runs", "channels", "test", "measure", *keys[:4], "interval, a channel", "interval, worst"]
    for is_auc, what in ((True, "auc"), (False, "the other measures, 5 channels")):
        table(f"Equal methods, {what}: p <= 0.05, and 95% intervals that hold 0, %", head, lines[is_auc])


def unequal(rng: np.random.Generator, simulations: int) -> None:
    lines = []
    for runs in RUNS:
        found = simulated(rng, UNEQUAL, runs, 2, True, simulations)
        told = [rates(found, measure) for measure in ("auc", "last")]
        lines.append([f"{runs} v {runs}", *(percent(x[key]) for x in told for key in ("channel 0", "its, channel 0"))])
    head = ["runs", "auc: p <= 0.05", "auc: interval holds 0", "last: p <= 0.05", "last: interval holds 0"]
    table("Channel 0 equal in the mean, bistable in A and steady in B: unpaired, %", head, lines)


def power(rng: np.random.Generator, simulations: int) -> None:
    lines = []
    for world in POWER:
        for runs in (3, 5, 6, 8, 10):
            cells = []
            for unpaired in (False, True):
                told = rates(simulated(rng, world, runs, 5, unpaired, simulations), "last")
                cells += [percent(told[key]) for key in ("channel 0", "channel 0, Holm", "worst channel")]
            lines.append([world.name, f"{runs} v {runs}", *cells])
    tests = [f"{test}: {what}" for test in ("paired", "unpaired") for what in ("p", "Holm of 5", "worst channel")]
    table("A difference in channel 0, found in last, %", ["methods", "runs", *tests], lines)


def effects(rng: np.random.Generator, simulations: int) -> None:
    """Coverage where there is a difference: of the means and of Hedges' g, in auc of channel 0."""
    lines = []
    for world in POWER[:4]:
        many = compare_trainings(runs_of(rng, world, TRUTH, 1), unpaired=True, resamples=1)
        row = next(row for row in many.rows if row.measure == "auc" and row.channel == "c0")
        truth, delta = row.difference.mean, row.effect.mean
        for runs in RUNS:
            for unpaired in (False, True):
                found = [
                    next(row for row in comparison.rows if row.measure == "auc" and row.channel == "c0")
                    for comparison in simulated(rng, world, runs, 2, unpaired, simulations)
                ]
                covered = [
                    np.mean([interval.low <= true <= interval.high for interval in intervals])
                    for intervals, true in (
                        ([row.difference for row in found], truth),
                        ([row.effect for row in found], delta),
                    )
                ]
                g = float(np.mean([row.effect.mean for row in found]))
                design = [world.name, f"{runs} v {runs}", "unpaired" if unpaired else "paired"]
                lines.append([*design, *map(percent, covered), f"{delta:.2f}", f"{g:.2f}"])
    head = ["methods", "runs", "test", "difference", "g", "true g", "mean g"]
    table("Coverage of 95% intervals where there is a difference (auc of channel 0), %", head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--simulations", type=int, default=1000, help="of equal methods; of different ones half of them"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    parts: Sequence[Callable[[np.random.Generator, int], None]] = (false_alarms, unequal, power, effects)
    for part in parts:
        part(np.random.default_rng(given.seed), given.simulations if part is false_alarms else given.simulations // 2)


if __name__ == "__main__":
    main()
