"""Print what each method did to each kind of criterion, from the verdict tables of a sweep, and plot it.

    python benchmarks/rubrics/table.py runs/rubrics --out docs/figures/rubrics.png

A value is the share of criteria that are satisfied (pitfalls: avoided) over the completions of a window of training steps:
the first, the best (highest for all criteria) and the last.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {
    "explicit": "#888888",
    "grpo": "#555555",
    "gdpo": "#1f77b4",
    "rvpo": "#c2255c",
    "rvpo_k1": "#e8890c",
    "hard_min": "#2b8a3e",
}


def read(folder: Path, steps: int | None) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the verdicts of each run by (method, seed)."""
    runs = {}
    for run in sorted(path for path in folder.iterdir() if (path / "channels").is_dir()):
        files = sorted((run / "channels").glob("0*.parquet"))[:steps]
        method, _, seed = run.name.rpartition("-")
        rows = pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)
        runs[method, seed] = rows[rows.criterion.notna()]
    return runs


def windows(verdicts: pd.DataFrame, width: int) -> dict[str, pd.DataFrame]:
    """Return the rows of the first, the best and the last ``width`` steps."""
    steps = sorted(verdicts.step.unique())
    spans = [steps[i : i + width] for i in range(len(steps) - width + 1)]
    best = max(spans, key=lambda span: verdicts[verdicts.step.isin(span)].reward.mean())
    return {
        name: verdicts[verdicts.step.isin(span)]
        for name, span in zip(("first", "best", "last"), (spans[0], best, spans[-1]), strict=True)
    }


def pools(verdicts: pd.DataFrame, criteria: list[str]) -> dict[str, float]:
    """Return the mean reward of all, of each label and of some criteria."""
    values = {"all": verdicts.reward.mean()}
    exploded = verdicts.explode("labels").groupby("labels").reward.mean()
    values |= {f"{label}": value for label, value in exploded.items()}
    return values | {f"`{name}`": verdicts[verdicts.criterion == name].reward.mean() for name in criteria}


def main() -> None:
    """Print one table a window, and one of spread over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="figure")
    parser.add_argument("--steps", type=int, help="look at this many first steps")
    parser.add_argument("--window", type=int, default=3, help="steps in a window")
    parser.add_argument("--criteria", type=int, default=6, help="show the criteria that stand in most rubrics")
    args = parser.parse_args()
    runs = read(args.folder, args.steps)
    every = pd.concat(runs.values())
    counts = every.groupby("criterion").size().sort_values(ascending=False)
    common = list(counts.index[: args.criteria])
    methods = [name for name in COLOURS if any(method == name for method, _ in runs)]
    for window in ("first", "best", "last"):
        table = {
            (method, seed): pools(windows(run, args.window)[window], common) for (method, seed), run in runs.items()
        }
        frame = pd.DataFrame(table).T.groupby(level=0).mean().loc[methods]
        seeds = {method: sum(name == method for name, _ in runs) for method in methods}
        print(f"\n**{window} {args.window} steps**, mean over seeds\n")
        print("| method | seeds | " + " | ".join(frame.columns) + " |")
        print("|---|--:|" + "--:|" * len(frame.columns))
        for method in methods:
            print(f"| {method} | {seeds[method]} | " + " | ".join(f"{value:.2f}" for value in frame.loc[method]) + " |")
    print(f"\n**each seed, all criteria**, first / best / last {args.window} steps; largest fall from best to last\n")
    print("| method | seeds | fall |\n|---|---|--:|")
    for method in methods:
        told, falls = [], []
        for (name, _), run in sorted(runs.items()):
            if name == method:
                means = [part.reward.mean() for part in windows(run, args.window).values()]
                told.append(" / ".join(f"{mean:.2f}" for mean in means))
                falls.append(means[1] - means[2])
        print(f"| {method} | {', '.join(told)} | {max(falls):.2f} |")
    if args.out:
        plot(runs, methods, args.out)


def plot(runs: dict[tuple[str, str], pd.DataFrame], methods: list[str], out: Path) -> None:
    """One panel a category: every seed a thin line, the mean over seeds a thick one."""
    labels = ["all", "essential", "important", "optional", "pitfall"]
    figure, panels = plt.subplots(1, len(labels), figsize=(17, 3.6), sharex=True)
    for panel, label in zip(panels, labels, strict=True):
        for method in methods:
            curves = []
            for (name, _), run in runs.items():
                if name == method:
                    part = run if label == "all" else run[[label in labels for labels in run.labels]]
                    curves.append(part.groupby("step").reward.mean())
                    panel.plot(curves[-1].index, curves[-1], color=COLOURS[method], alpha=0.2, linewidth=1)
            mean = pd.concat(curves, axis=1).mean(axis=1).rolling(3, min_periods=1).mean()
            panel.plot(mean.index, mean, color=COLOURS[method], linewidth=2, label=method)
        panel.set_title(label)
        panel.set_xlabel("step")
    panels[0].set_ylabel("share satisfied")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
