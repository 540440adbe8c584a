"""Plot which rule neglects where: every seed's worst channel in eight cells, and the AUC of all cells.

python benchmarks/regimes/plot.py runs/regimes docs/figures/regimes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from cells import CELLS
from table import NEGLECT, Sweep, best_rate, read

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SHOWN = ("p0.05", "p0.25", "p0.72", "p0.72-c0.9", "p0.25-c0.75", "p0.25-M15", "p0.72-graded", "p0.72-noise0.2")
# Okabe and Ito's colours, which the colour-blind tell apart, and greys for the baselines.
COLOURS = ("#555555", "#000000", "#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#56B4E9", "#009E73")
ALARM = "#D55E00"


def main() -> None:
    """Draw the strips above the heat map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what run.py had as --output")
    parser.add_argument("out", type=Path, help="figure")
    parser.add_argument("--cells", nargs="+", default=SHOWN, choices=list(CELLS), metavar="CELL", help="strips")
    args = parser.parse_args()
    sweep = read(args.folder)
    figure = plt.figure(figsize=(14, 14), facecolor="white", layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    strips(above, sweep, args.cells)
    heat_map(below.subplots(), sweep)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110)


def strips(figure: Figure, sweep: Sweep, cells: list[str]) -> None:
    """Draw a panel a cell: a dot a seed, a line for the mean over seeds, each rule at its best learning rate."""
    rows = -(-len(cells) // 4)
    panels = figure.subplots(rows, 4, sharex=True, sharey=True, squeeze=False)
    told = "a dot a seed, a bar their mean, each rule at its best learning rate. Shaded: neglect"
    figure.suptitle(f"Lowest channel after training: {told}")
    for panel, cell in zip(panels.flat, cells, strict=False):
        panel.axhspan(-0.05, NEGLECT, color="#f3e3da", zorder=0)
        for x, rule in enumerate(sweep.rules):
            if (cell, rule) not in sweep.measures:
                panel.text(x, 0.5, "missing", rotation=90, ha="center", va="center", fontsize=8, color="#777777")
                continue
            measures = sweep.measures[cell, rule]
            final = np.sort(measures["final"][best_rate(measures)])
            colour = COLOURS[x % len(COLOURS)]
            spread = x + np.linspace(-0.28, 0.28, len(final))  # sorted seeds side by side: equal ones stay visible
            panel.scatter(spread, final, s=22, color=colour, alpha=0.75, linewidth=0, zorder=3, clip_on=False)
            panel.hlines(final.mean(), x - 0.38, x + 0.38, color=colour, linewidth=2, zorder=2)
        panel.set_title(cell, fontsize=11)
        panel.set_xlim(-0.6, len(sweep.rules) - 0.4)
        panel.set_ylim(-0.03, 1.03)
        panel.set_xticks(range(len(sweep.rules)), sweep.rules, rotation=55, ha="right", rotation_mode="anchor")
        panel.grid(axis="y", alpha=0.3)
    for panel in panels[:, 0]:
        panel.set_ylabel("rate of the lowest channel")


def heat_map(panel: Axes, sweep: Sweep) -> None:
    """Draw rules x cells by mean AUC, and frame the pairs in which at least half of the seeds neglect."""
    cells = list(CELLS)
    values = np.full((len(sweep.rules), len(cells)), np.nan)
    for (cell, rule), measures in sweep.measures.items():
        y, x = sweep.rules.index(rule), cells.index(cell)
        rate = best_rate(measures)
        values[y, x] = measures["auc"][rate].mean()
        panel.text(
            x, y, f"{values[y, x]:.2f}"[1:] if values[y, x] < 0.995 else "1", ha="center", va="center", fontsize=9,
            color="white" if values[y, x] < 0.55 else "black",
        )  # fmt: skip
        if (measures["final"][rate] < NEGLECT).mean() >= 0.5:
            panel.add_patch(plt.Rectangle((x - 0.44, y - 0.44), 0.88, 0.88, fill=False, color=ALARM, linewidth=2.2))
    for y, x in np.argwhere(np.isnan(values)):
        panel.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor="#bbbbbb", hatch="////"))
    image = panel.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    panel.set_xticks(range(len(cells)), cells, rotation=55, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(sweep.rules)), sweep.rules)
    panel.set_title(
        "AUC of the lowest channel, mean over seeds. Framed: at least half of the seeds end in neglect. Hatched: missing",
        fontsize=12,
    )
    panel.figure.colorbar(image, ax=panel, pad=0.01, aspect=30)


if __name__ == "__main__":
    main()
