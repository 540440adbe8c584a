"""What the statistics of ``rvpo eval compare`` are worth: false alarms, coverage and power on simulated evaluations.

    python benchmarks/evals/calibration.py [--simulations 2000]

Every line simulates so many pairs of runs on fresh items. An item has a difficulty that both runs share:

    accuracy             0/1, asked once; success probabilities are logistic in difficulty + skill + the run's own luck
    accuracy, 4 epochs   mean of four such answers
    rubric               HealthBench-like: at most 1, a fifth exactly 0, one in twenty far below 0
    gamble               rubric, but B adds an exponential minus its mean to half of the items: equal means, very
                         different runs; the sign-flip test does not assume this

The null hypothesis is B = A in distribution (gamble: in the mean). One simulated rate of 5% has a standard error of 0.5
points at 2,000 simulations. Resamples are 1,000 here, 10,000 by default. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np

from rvpo.statistics import (
    difference_interval,
    holm,
    mcnemar,
    mean_interval,
    needed_items,
    over_seeds,
    sign_flip,
)

ITEMS = (20, 60, 198, 1000)
RESAMPLES = 1000
AXES = 7
TRUTH = 1_000_000  # items from which a true mean is read
Pair = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator, int, float], Pair]


def answers(base: float, epochs: int) -> Draw:
    def draw(rng: np.random.Generator, n: int, effect: float) -> Pair:
        difficulty = rng.normal(base, 1.5, n)

        def run(skill: float) -> np.ndarray:
            p = 1 / (1 + np.exp(-(difficulty + skill + rng.normal(0, 0.5, n))))
            return rng.binomial(epochs, p) / epochs

        return run(0.0), run(effect)

    return draw


def rubric_scores(rng: np.random.Generator, difficulty: np.ndarray, effect: float) -> np.ndarray:
    n = len(difficulty)
    scores = difficulty + rng.normal(effect, 0.15, n)
    scores = np.where(rng.random(n) < 0.2, 0.0, scores)
    return np.minimum(np.where(rng.random(n) < 0.05, -rng.exponential(0.8, n), scores), 1.0)


def rubric(rng: np.random.Generator, n: int, effect: float) -> Pair:
    difficulty = rng.normal(0.35, 0.3, n)
    return rubric_scores(rng, difficulty, 0.0), rubric_scores(rng, difficulty, effect)


def gamble(rng: np.random.Generator, n: int, effect: float) -> Pair:
    a = rubric_scores(rng, rng.normal(0.35, 0.3, n), 0.0)
    return a, a + effect + np.where(rng.random(n) < 0.5, 0.4 * (rng.exponential(1.0, n) - 1), 0.0)


DRAWS: dict[str, Draw] = {
    "accuracy 0.65": answers(0.8, 1),
    "accuracy 0.95": answers(4.0, 1),
    "accuracy 0.35, 4 epochs": answers(-0.9, 4),
    "rubric": rubric,
    "gamble": gamble,
}


def names(n: int) -> list[str]:
    return [f"{i:05d}" for i in range(n)]


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n**{title}**\n")
    for line in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(line) + " |", flush=True)


def percent(hits: float, of: int) -> str:
    return f"{100 * hits / of:.1f}"


def false_alarms(rng: np.random.Generator, simulations: int) -> None:
    rows = []
    for name, draw in DRAWS.items():
        for n in ITEMS:
            p: dict[str, list[float]] = {"sign_flip": [], "mcnemar": []}
            for _ in range(simulations):
                a, b = draw(rng, n, 0.0)
                p["sign_flip"].append(sign_flip(b - a, resamples=RESAMPLES, seed=int(rng.integers(2**32))))
                if "accuracy" in name and "epochs" not in name:
                    p["mcnemar"].append(mcnemar(a, b))
            for test, values in p.items():
                if values:
                    found = np.array(values)
                    rows.append(
                        [name, test, str(n), *(percent((found <= at).sum(), simulations) for at in (0.05, 0.01))]
                    )
    table("False alarms, %", ["scores", "test", "items", "at 5%", "at 1%"], rows)


def coverage(rng: np.random.Generator, simulations: int) -> None:
    rows = []
    for name, draw in DRAWS.items():
        truth = draw(rng, TRUTH, 0.0)[0].mean()
        for n in ITEMS:
            hits = np.zeros(4)
            drawn = rng.multinomial(n, [1 / n] * n, size=RESAMPLES) / n  # the plain bootstrap's, the same for all
            for _ in range(simulations):
                a, b = draw(rng, n, 0.0)
                seed = int(rng.integers(2**32))
                mean = mean_interval(a, names(n), binary="accuracy" in name, resamples=RESAMPLES, seed=seed)
                difference = difference_interval(b - a, resamples=RESAMPLES, seed=seed)
                for i, (found, x, true) in enumerate(((mean, a, truth), (difference, b - a, 0.0))):
                    low, high = np.quantile(drawn @ x, [0.025, 0.975])
                    hits[2 * i : 2 * i + 2] += [found.low <= true <= found.high, low <= true <= high]
            rows.append([name, str(n), *(percent(x, simulations) for x in hits)])
    head = ["scores", "items", "mean", "mean, plain bootstrap", "difference", "difference, plain bootstrap"]
    table("Coverage of 95% intervals, %", head, rows)


def categories(rng: np.random.Generator, simulations: int) -> None:
    """Accuracy as the mean over categories of fixed sizes, as on leaderboards: weights and strata."""
    sizes = (16, 24, 50, 100, 200, 400)
    kinds = [name for k, size in enumerate(sizes) for name in [f"category {k}"] * size]
    weights = np.repeat([1 / size for size in sizes], sizes)
    n, rows = len(kinds), []
    for name, rates in {
        "0.2 to 0.9": (0.2, 0.9, 0.5, 0.4, 0.6, 0.8),
        "nearly 0, but irrelevance nearly 1": (0.0, 0.02, 0.98, 0.01, 0.0, 0.005),
        "nearly 1": (0.95, 0.99, 0.98, 0.95, 0.99, 0.97),
    }.items():
        p = np.repeat(rates, sizes)
        hits = np.zeros(3)
        for _ in range(simulations):
            a, b = ((rng.random(n) < p) * 1.0 for _ in range(2))
            seed = int(rng.integers(2**32))
            mean = mean_interval(a, names(n), weights=weights.tolist(), strata=kinds)
            difference = difference_interval(b - a, weights=weights, strata=kinds, resamples=RESAMPLES, seed=seed)
            found = sign_flip(b - a, weights=weights, resamples=RESAMPLES, seed=seed) <= 0.05
            hits += [mean.low <= np.mean(rates) <= mean.high, difference.low <= 0 <= difference.high, found]
        rows.append([name, *(percent(x, simulations) for x in hits)])
    head = ["rates of the categories", "coverage, mean", "coverage, difference", "false alarms at 5%"]
    table(f"Mean over {len(sizes)} categories of {sizes[0]} to {sizes[-1]} items, %", head, rows)


def family(rng: np.random.Generator, simulations: int) -> None:
    """Seven axes of one evaluation, correlated, each on 40% of the items."""
    rows = []
    for truly in (0, 3):
        for n in ITEMS:
            hits = np.zeros(2)
            for _ in range(simulations):
                difficulty = rng.normal(0.35, 0.3, n)
                p = []
                for axis in range(AXES):
                    has = rng.random(n) < 0.4
                    own = difficulty[has] + rng.normal(0, 0.1, has.sum())
                    effect = 0.3 if axis < truly else 0.0
                    a, b = rubric_scores(rng, own, 0.0), rubric_scores(rng, own, effect)
                    p.append(sign_flip(b - a, resamples=RESAMPLES, seed=int(rng.integers(2**32))))
                hits += [min(p[truly:]) <= 0.05, min(holm(p)[truly:]) <= 0.05]
            rows.append([f"{AXES - truly} of {AXES}", str(n), *(percent(x, simulations) for x in hits)])
    table("At least one false alarm among the axes, %", ["axes without a difference", "items", "p", "Holm"], rows)


def power(rng: np.random.Generator, simulations: int) -> None:
    """At the number of items that needed_items names from the true difference and variance: 80% is promised."""
    rows = []
    plans = {
        "accuracy 0.65": (0.2, 0.4, 0.8, 1.2),
        "accuracy 0.35, 4 epochs": (0.1, 0.2, 0.4, 0.8),
        "rubric": (0.03, 0.06, 0.12, 0.25),
    }
    for name, effects in plans.items():
        for effect in effects:
            a, b = DRAWS[name](rng, TRUTH, effect)
            delta, levels = float((b - a).mean()), (0.05, 0.05 / AXES)
            cells = []
            for level in levels:
                n = needed_items(b - a, level=level)
                found = 0
                for _ in range(simulations):
                    x, y = DRAWS[name](rng, n, effect)
                    single = "epochs" not in name and "accuracy" in name
                    p = (
                        mcnemar(x, y)
                        if single
                        else sign_flip(y - x, resamples=RESAMPLES, seed=int(rng.integers(2**32)))
                    )
                    found += p <= level
                cells += [f"{n:,}", percent(found, simulations)]
            pilots = []
            for _ in range(simulations):
                x, y = DRAWS[name](rng, 198, effect)
                pilots.append(needed_items(y - x) or math.inf)
            low, middle, high = np.quantile(pilots, [0.25, 0.5, 0.75], method="nearest")
            rows.append([name, f"{delta:.3f}", *cells, f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"])
    head = ["scores", "true difference", "items named at 5%", "power there, %", "at 5% / 7", "power there, %"]
    table("Power where 80% is promised", [*head, "named from 198 items: median (quartiles)"], rows)


def seeds(rng: np.random.Generator, simulations: int) -> None:
    """Methods that are equal, while their runs differ by the training seed."""
    rows = []
    n = 198
    for runs in (2, 3, 5):
        for spreads in ((0.0, 0.0), (0.02, 0.02), (0.05, 0.05), (0.1, 0.0)):
            hits = np.zeros(3)
            items = rng.multinomial(n, [1 / n] * n, size=RESAMPLES) / n
            resampled = [rng.multinomial(runs, [1 / runs] * runs, size=RESAMPLES) / runs for _ in range(2)]
            for _ in range(simulations):
                difficulty = rng.normal(0.35, 0.3, n)
                b, a = (
                    np.stack([rubric_scores(rng, difficulty, rng.normal(0, spread)) for _ in range(runs)])
                    for spread in spreads
                )
                draws = [((weights @ x) * items).sum(1) for weights, x in zip(resampled, (b, a), strict=True)]
                low, high = np.quantile(draws[0] - draws[1], [0.025, 0.975])
                p = sign_flip(b.mean(0) - a.mean(0), resamples=RESAMPLES, seed=int(rng.integers(2**32)))
                hits += [over_seeds(b, a).p <= 0.05, p <= 0.05, not low <= 0 <= high]
            rows.append(
                [str(runs), " and ".join(f"{spread:g}" for spread in spreads), *(percent(x, simulations) for x in hits)]
            )
    head = ["runs a method", "spread of seeds", "over_seeds", "sign_flip (of these checkpoints)", "two-level bootstrap"]
    table(f"Equal methods found different at 5%, %: rubric, {n} items", head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for part in (false_alarms, coverage, categories, family, power, seeds):
        part(np.random.default_rng(given.seed), given.simulations)


if __name__ == "__main__":
    main()
