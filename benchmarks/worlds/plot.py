"""Draw what run.py recorded: AUC as a share of the oracle's, rules x worlds, and each rule's mean and lowest.

python benchmarks/worlds/plot.py runs/worlds docs/figures/worlds.png [--rules GDPO LIFT]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from table import MATERIAL, Results
from worlds import SPLITS, WORLDS

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

ALARM = "#D55E00"
COLOURS = {"given": "#0072B2", "design": "#E69F00", "confirm": "#009E73"}


def main() -> None:
    """Draw the heat map next to the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what run.py had as --output")
    parser.add_argument("out", type=Path, help="figure")
    parser.add_argument("--seeds", type=int, help="number of seeds; default: those that all files have")
    parser.add_argument("--rules", nargs="+", metavar="RULE", help="rules; default: all")
    args = parser.parse_args()
    results = Results.read(args.folder, args.seeds and range(args.seeds), args.rules)
    worlds = sorted(results.oracle, key=lambda name: SPLITS.index(WORLDS[name].split))
    ratios = np.array([[results.ratio(world, rule) for rule in results.rules] for world in worlds])  # (worlds, rules)
    order = np.argsort(-np.nanmean(ratios, 0))
    rules, ratios = [results.rules[i] for i in order], ratios[:, order]
    width, height = 6 + 0.7 * len(rules), 4.5 + 0.2 * len(worlds)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(width, height), height_ratios=(1, max(1.0, 0.06 * len(worlds))), layout="constrained"
    )
    summary(above, rules, worlds, ratios)
    heat_map(below, results, rules, worlds, ratios)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110)


def summary(panel: Axes, rules: list[str], worlds: list[str], ratios: np.ndarray) -> None:
    """Draw a dot per world and a bar for the mean, by split."""
    splits = [split for split in SPLITS if any(WORLDS[world].split == split for world in worlds)]
    for i, split in enumerate(splits):
        rows = np.array([WORLDS[world].split == split for world in worlds])
        x = np.arange(len(rules)) + (i - (len(splits) - 1) / 2) * 0.26
        for at, values in zip(x, ratios[rows].T, strict=True):
            panel.scatter(np.full(len(values), at), values, s=14, alpha=0.5, linewidth=0, color=COLOURS[split])
        panel.hlines(np.nanmean(ratios[rows], 0), x - 0.12, x + 0.12, color=COLOURS[split], linewidth=2.5, label=split)
    panel.set_xticks(range(len(rules)), rules, rotation=30, ha="right", rotation_mode="anchor")
    panel.set_ylim(0, 1.1)
    panel.set_ylabel("AUC / oracle's AUC")
    panel.set_title("One dot per world, one bar per mean")
    panel.legend(loc="lower left", fontsize=8)
    panel.grid(axis="y", alpha=0.3)


def heat_map(panel: Axes, results: Results, rules: list[str], worlds: list[str], ratios: np.ndarray) -> None:
    """Draw worlds x rules, framed where a rule is worse than GDPO."""
    panel.imshow(ratios, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(ratios):
        if np.isnan(value):
            continue
        colour = "white" if value < 0.55 else "black"
        panel.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
        if results.versus(worlds[y], rules[x], "GDPO")[0] < -MATERIAL:
            panel.add_patch(plt.Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, color=ALARM, linewidth=1.6))
    for y in range(1, len(worlds)):
        if WORLDS[worlds[y]].split != WORLDS[worlds[y - 1]].split:
            panel.axhline(y - 0.5, color="white", linewidth=4)
    panel.set_xticks(range(len(rules)), rules, rotation=30, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(worlds)), worlds, fontsize=8)
    panel.set_title(f"AUC of the worst channel / oracle's.\nFramed: AUC below GDPO's by more than {MATERIAL}")


if __name__ == "__main__":
    main()
