"""The plot: per cell the format and the worst channel over training, one line per seed, no means."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpo.quickstart.cells import GDPO, GRPO, LIFT, RVPO_K1, RVPO_K2, RVPO_PAPER, Cell
from rvpo.quickstart.records import Record
from rvpo.quickstart.report import caption, of

# Colour-blind safe (Okabe and Ito). A method has the same colour in every cell.
COLOURS = {
    GDPO.name: "#d55e00",
    GRPO.name: "#0072b2",
    RVPO_K1.name: "#009e73",
    RVPO_K2.name: "#cc79a7",
    RVPO_PAPER.name: "#56b4e9",
    LIFT.name: "#000000",
}
OTHERS = ("#e69f00", "#999999", "#f0e442", "#882255", "#44aa99")  # for methods without their own colour, in order
WINDOW = 5  # steps averaged: one step is 64 rollouts
ROWS = (("strict format met", "format_curve"), ("worst channel", "worst_curve"))


def draw_curves(records: Sequence[Record], cells: Sequence[Cell], path: Path) -> Path:
    """Draw one column per cell and write a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(5.2 * len(cells), 6.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(ROWS), len(cells), sharex="col", sharey=True, squeeze=False)
    for column, cell in enumerate(cells):
        for row, (label, curve) in enumerate(ROWS):
            _panel(axes[row][column], cell, records, curve)
            axes[row][0].set_ylabel(f"{label}, share of rollouts")
        axes[0][column].set_title(f"{cell.title}\n{caption(cell, records)}", fontsize="medium")
        axes[-1][column].set_xlabel(f"training step (mean of {WINDOW})")
        axes[0][column].legend(frameon=False, fontsize="small", title="one line per seed")
    canvas.print_png(str(path))
    return path


def _panel(axes: Any, cell: Cell, records: Sequence[Record], curve: str) -> None:
    """Draw every seed of every method of ``cell``."""
    others = itertools.cycle(OTHERS)
    for method in cell.methods:
        colour = COLOURS.get(method.name) or next(others)
        # No mean over seeds: the outcomes are bimodal, so a mean would show a value that no run has.
        label: str | None = method.name
        for record in of(records, cell, method.name):
            line = _smooth(getattr(record, curve))
            steps = [WINDOW * (i + 0.5) for i in range(len(line))]
            axes.plot(steps, line, color=colour, linewidth=1.3, alpha=0.8, label=label)
            label = None  # one entry in the legend for all seeds
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _smooth(curve: list[float]) -> list[float]:
    """Average consecutive windows of steps, so that the line shows the trend."""
    windows = [curve[i : i + WINDOW] for i in range(0, len(curve), WINDOW)]
    return [sum(window) / len(window) for window in windows]
