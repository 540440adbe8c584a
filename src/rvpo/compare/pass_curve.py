"""Plot Pass@k over k: the curves of each compared group, and the paired difference, which is what is tested.

Because items are paired, the intervals of two curves may overlap although their difference is significant. The lower
row therefore shows the difference itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpo.compare.comparison import BenchmarkComparison, BenchmarkRow
from rvpo.errors import ConfigError
from rvpo.files import whole
from rvpo.statistics import Interval

BASELINE, OTHER, DIFFERENCE = "#0072b2", "#d55e00", "#000000"  # colour-blind safe (Okabe and Ito)
_METRIC = re.compile(r"pass@([1-9][0-9]{0,8})")


def pass_rows(rows: Sequence[BenchmarkRow]) -> dict[int, BenchmarkRow]:
    """Return the row of the metric ``pass@k`` for each k, in the order of k. Rows without a mean are left out."""
    found = {int(match[1]): row for row in rows if (match := _METRIC.fullmatch(row.metric))}
    return {k: row for k, row in sorted(found.items()) if row.difference.mean is not None}


def draw_pass_curve(comparison: BenchmarkComparison, path: Path) -> Path:
    """Write a PNG with one column per group that is compared with the baseline.

    Args:
        comparison: result of :func:`rvpo.compare.benchmarks.compare_benchmarks`.
        path: file to write.

    Returns:
        The path.

    Raises:
        ConfigError: the runs have no Pass@k, or the file cannot be written.
    """
    columns = {name: found for name, rows in comparison.rows.items() if (found := pass_rows(rows))}
    if not columns:
        raise ConfigError(
            f"the runs of {comparison.benchmark!r} have no metric pass@k in common; expected runs of `rvpo eval math` "
            "or `rvpo eval code` with common k. Leave --plot out"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(max(4.6 * len(columns), 5.2), 6.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False, height_ratios=[3, 2])
    for column, (name, rows) in enumerate(columns.items()):
        above, below = axes[0][column], axes[1][column]
        _curve(above, {k: row.a for k, row in rows.items()}, BASELINE, comparison.baseline)
        _curve(above, {k: row.b for k, row in rows.items()}, OTHER, name)
        _curve(below, {k: row.difference for k, row in rows.items()}, DIFFERENCE, None)
        _mark_significant(below, rows, round(1 - comparison.level, 12))
        below.axhline(0, color="#999999", linewidth=0.8)
        above.legend(frameon=False, fontsize="small", loc="lower right")
        above.set_title(f"{name} against {comparison.baseline}", fontsize="medium", parse_math=False)
        below.set_xlabel("k")
        _scale(below, list(rows))
    axes[0][0].set_ylabel(f"Pass@k, {comparison.level:.0%} intervals")
    axes[1][0].set_ylabel("difference, paired by item")
    try:
        with whole(path) as partial:
            canvas.print_png(str(partial))
    except OSError as error:
        raise ConfigError(f"--plot is {str(path)!r} ({error.strerror}); expected a file that can be written") from error
    return path


def _curve(axes: Any, points: dict[int, Interval], colour: str, label: str | None) -> None:
    known = {k: point for k, point in points.items() if point.mean is not None}
    means = [point.mean for point in known.values()]
    axes.plot(list(known), means, color=colour, marker="o", markersize=4, linewidth=1.4, label=_plain(label))
    ends = {k: point for k, point in known.items() if point.low is not None and point.high is not None}
    axes.vlines(list(ends), [p.low for p in ends.values()], [p.high for p in ends.values()], color=colour, alpha=0.6)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_significant(axes: Any, rows: dict[int, BenchmarkRow], alpha: float) -> None:
    """Draw a ring around differences that are significant after Holm's adjustment within the family."""
    ringed = [(k, row.difference.mean) for k, row in rows.items() if row.adjusted is not None and row.adjusted <= alpha]
    if ringed:
        axes.plot(*zip(*ringed, strict=True), "o", markersize=9, fillstyle="none", color=DIFFERENCE, label="after Holm")
        axes.legend(frameon=False, fontsize="small")


def _scale(axes: Any, ks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, labels=[str(k) for k in ks], minor=False)
    axes.minorticks_off()


def _plain(label: str | None) -> str | None:
    """Return a label that matplotlib shows as it is: not read as a formula, not hidden from the legend."""
    return None if label is None else label.replace("$", r"\$").lstrip("_") or "_"
