"""Compare the rules of ``run.py`` with GRPO, paired by seed, and plot their curves.

    python benchmarks/riskpo/table.py runs/riskpo --figure docs/figures/riskpo.png

Each rule at the learning rate that gave it the best mean Pass@1 at the end, and all at one common learning rate. A
difference to GRPO is the mean over seeds, with a bootstrap 95% interval over seeds and the p of an exact sign-flip test
(two-sided; with 10 seeds the least is 0.002, with 5 it is 0.06). Nothing is corrected for the number of comparisons.
Last, entropy at equal Pass@1: where a run's curve first reaches a level, by linear interpolation.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Run = list[dict[str, Any]]  # the evaluations of a run
Runs = dict[tuple[str, float], dict[int, Run]]  # (rule, lr) -> seed -> evaluations
METRICS = ("1", "4", "16", "entropy")
COLOURS = {
    "grpo": "#555555",
    "riskpo": "#c2255c",
    "riskpo-released": "#e8890c",
    "riskpo-seek": "#9c36b5",
    "riskpo-centred": "#1f77b4",
    "negative": "#2b8a3e",
}


def read(folder: Path) -> dict[int, Runs]:
    """Return the runs by P, then by rule and learning rate, then by seed."""
    result: dict[int, Runs] = defaultdict(lambda: defaultdict(dict))
    for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        result[record["prompts"]][record["rule"], record["lr"]][record["seed"]] = record["evaluations"]
    return result


def value(evaluation: dict[str, Any], metric: str, carries: str | None = None) -> float:
    """Return the entropy or a Pass@k of one evaluation, of all questions or of those with so many carries."""
    if metric == "entropy":
        return evaluation["entropy"]
    passes = evaluation["pass"] if carries is None else evaluation["by_carries"].get(carries, {})
    return passes.get(metric, np.nan)


def best(runs: Runs) -> dict[str, float]:
    """Return the learning rate of each rule whose mean final Pass@1 is the highest."""
    mean = {key: np.mean([value(run[-1], "1") for run in seeds.values()]) for key, seeds in runs.items()}
    rules = dict.fromkeys(rule for rule, _ in runs)
    return {rule: max((lr for r, lr in runs if r == rule), key=lambda lr: mean[rule, lr]) for rule in rules}


def difference(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> str:
    """Return the mean of paired differences a - b with its interval and p."""
    gaps = a - b
    means = rng.choice(gaps, (10_000, len(gaps))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    signs = np.array(np.meshgrid(*[(-1, 1)] * len(gaps))).reshape(len(gaps), -1).T
    p = np.mean(np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12)
    return f"{gaps.mean():+.3f} [{low:+.3f}, {high:+.3f}] p {p:.3f}"


def table(runs: Runs, lrs: dict[str, float], rng: np.random.Generator) -> None:
    """Print final values and paired differences to GRPO, a row a rule."""
    print("| rule | lr | Pass@1 | Pass@4 | Pass@16 | entropy | Pass@1 - GRPO | Pass@16 - GRPO | entropy - GRPO |")
    print("|---|--:|--:|--:|--:|--:|---|---|---|")
    for rule, lr in lrs.items():
        seeds = sorted(runs[rule, lr].keys() & runs["grpo", lrs["grpo"]].keys())
        finals = {m: np.array([value(runs[rule, lr][s][-1], m) for s in seeds]) for m in METRICS}
        bases = {m: np.array([value(runs["grpo", lrs["grpo"]][s][-1], m) for s in seeds]) for m in METRICS}
        cells = [f"{finals[m].mean():.3f}" for m in METRICS]
        if rule != "grpo":
            cells += [difference(finals[m], bases[m], rng) for m in ("1", "16", "entropy")]
        print(f"| {rule} | {lr:g} | {' | '.join(cells)} |")


def by_carries(runs: Runs, lrs: dict[str, float]) -> None:
    """Print Pass@1 and Pass@16 by the number of carries, before and after."""
    print("| rule | " + " | ".join(f"{c} carries: Pass@1, @16" for c in "0123") + " |\n|---|---|---|---|---|")
    for name, key, at in [("start", "grpo", 0), *((rule, rule, -1) for rule in lrs)]:
        cells = []
        for c in "0123":
            evaluations = [run[at] for run in runs[key, lrs[key]].values()]
            cells.append(", ".join(f"{np.nanmean([value(e, k, c) for e in evaluations]):.2f}" for k in ("1", "16")))
        print(f"| {name} | {' | '.join(cells)} |")


def reached(run: Run, level: float) -> tuple[float, float, float] | None:
    """Return step, entropy and Pass@16 where Pass@1 first reaches ``level``, None where it does not."""
    for before, after in pairwise(run):
        low, high = value(before, "1"), value(after, "1")
        if low < level <= high:
            share = (level - low) / (high - low)
            pair = [(e["step"], value(e, "entropy"), value(e, "16")) for e in (before, after)]
            step, entropy, many = ((1 - share) * a + share * b for a, b in zip(*pair, strict=True))
            return step, entropy, many
    return None


def at_level(runs: Runs, lrs: dict[str, float], levels: tuple[float, ...]) -> None:
    """Print the mean step, entropy and Pass@16 at which Pass@1 reaches each level, and how many runs reach it."""
    print("| rule | " + " | ".join(f"Pass@1 = {x}: step, entropy, Pass@16 (runs)" for x in levels) + " |")
    print("|---|" + "---|" * len(levels))
    for rule, lr in lrs.items():
        cells = []
        for level in levels:
            found = [f for run in runs[rule, lr].values() if (f := reached(run, level))]
            means = np.mean(found, 0) if found else None
            text = "-" if means is None else f"{means[0]:.0f}, {means[1]:.2f}, {means[2]:.2f}"
            cells.append(f"{text} ({len(found)}/{len(runs[rule, lr])})")
        print(f"| {rule} | {' | '.join(cells)} |")


def sweep(runs: Runs) -> None:
    """Print Pass@1 / Pass@16 / entropy of every rule at every learning rate."""
    lrs = sorted({lr for _, lr in runs})
    print("| rule | " + " | ".join(f"lr {lr:g}" for lr in lrs) + " |\n|---|" + "---|" * len(lrs))
    for rule in dict.fromkeys(rule for rule, _ in runs):
        cells = []
        for lr in lrs:
            lasts = [run[-1] for run in runs.get((rule, lr), {}).values()]
            cells.append(
                " / ".join(f"{np.mean([value(e, m) for e in lasts]):.2f}" for m in ("1", "16", "entropy"))
                if lasts
                else "-"
            )
        print(f"| {rule} | {' | '.join(cells)} |")


def plot(every: dict[int, Runs], path: Path) -> None:
    """Draw Pass@1, Pass@16 and entropy over steps, at each rule's best learning rate; a row a number of questions."""
    figure, axes = plt.subplots(len(every), 3, figsize=(11, 3 * len(every)), squeeze=False)
    for row, (prompts, runs) in zip(axes, sorted(every.items()), strict=True):
        for axis, metric in zip(row, ("1", "16", "entropy"), strict=True):
            for rule, lr in best(runs).items():
                if rule not in COLOURS:
                    continue
                curves = np.array([[value(e, metric) for e in run] for run in runs[rule, lr].values()])
                steps = [e["step"] for e in next(iter(runs[rule, lr].values()))]
                spread = curves.std(0, ddof=1) / len(curves) ** 0.5
                axis.plot(steps, curves.mean(0), color=COLOURS[rule], label=f"{rule}, lr {lr:g}")
                band = (curves.mean(0) - spread, curves.mean(0) + spread)
                axis.fill_between(steps, *band, color=COLOURS[rule], alpha=0.15, linewidth=0)
            axis.set_title(f"{'entropy, nats a token' if metric == 'entropy' else f'Pass@{metric}'}, P = {prompts}")
            axis.spines[["top", "right"]].set_visible(False)
        row[2].legend(frameon=False, fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--lr", type=float, default=1e-3, help="the common learning rate")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    every = read(args.folder)
    for prompts, runs in sorted(every.items()):
        chosen = best(runs)
        print(f"\n## P = {prompts} questions a step\n\n### All learning rates: Pass@1 / Pass@16 / entropy\n")
        sweep(runs)
        print("\n### Each rule at its best learning rate\n")
        table(runs, chosen, rng)
        print()
        by_carries(runs, chosen)
        print()
        at_level(runs, chosen, (0.5, 0.7, 0.9))
        print(f"\n### All at learning rate {args.lr:g}\n")
        table(runs, {rule: args.lr for rule in chosen if (rule, args.lr) in runs}, rng)
    if args.figure:
        plot(every, args.figure)


if __name__ == "__main__":
    main()
