"""Results of a field: one row per rule, with intervals, tests against a baseline, and the cells where it is first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvpo.arena.fields import Run
from rvpo.statistics.base import Array
from rvpo.statistics.flips import sign_flip_test

NEGLECT = 0.5  # a run neglects a channel that is below this at its end
LEVEL = 0.05
DRAWS = 10_000  # resamples of a bootstrap
TIE = 0.005  # a rule whose AUC is this close to the best also counts as first


@dataclass(frozen=True)
class Scores:
    """Complete results of some methods in a field, for every cell, method and seed, averaged over learning rates.

    Attributes:
        methods: names of the methods, the order of the arrays.
        cells: names of the cells, the order of the arrays.
        seeds: the seeds, the order of the arrays.
        auc: (methods, cells, seeds) lowest of the channels' means over training.
        final: (methods, cells, seeds) lowest channel at the end.
        neglect: (methods, cells, seeds) share of learning rates at which a channel ends below ``NEGLECT``.
        left_out: cells that at least one method has not finished.
    """

    methods: tuple[str, ...]
    cells: tuple[str, ...]
    seeds: tuple[int, ...]
    auc: Array
    final: Array
    neglect: Array
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, runs: Sequence[Run], methods: Sequence[str], seeds: Sequence[int]) -> Scores:
        """Arrange runs. A cell counts if all methods have all seeds at the same learning rates."""
        found: dict[tuple[str, str, int], list[Run]] = {}
        for run in runs:
            if run.method in methods and run.seed in seeds:
                found.setdefault((run.cell, run.method, run.seed), []).append(run)
        cells = list(dict.fromkeys(run.cell for run in runs))
        complete = [cell for cell in cells if _is_complete(found, cell, methods, seeds)]

        def measured(what: str) -> Array:
            values = [
                [_average(found[cell, method, seed], what) for seed in seeds] for method in methods for cell in complete
            ]
            return np.array(values, dtype=float).reshape(len(methods), len(complete), len(seeds))

        return cls(
            tuple(methods),
            tuple(complete),
            tuple(seeds),
            measured("auc"),
            measured("final"),
            measured("neglect"),
            tuple(cell for cell in cells if cell not in complete),
        )


def _is_complete(
    found: Mapping[tuple[str, str, int], list[Run]], cell: str, methods: Sequence[str], seeds: Sequence[int]
) -> bool:
    """Return whether all methods have all seeds of a cell, at the same learning rates."""
    pairs = [(method, seed) for method in methods for seed in seeds]
    rates = {tuple(sorted(run.rate for run in found.get((cell, *pair), []))) for pair in pairs}
    return len(rates) == 1 and rates != {()}


def _average(runs: Sequence[Run], what: str) -> float:
    if what == "neglect":
        return float(np.mean([run.final < NEGLECT for run in runs]))
    return float(np.mean([getattr(run, what) for run in runs]))


def rows(scores: Scores, baseline: str, cost: dict[str, float]) -> list[dict[str, Any]]:
    """Return one row per method, the highest AUC first.

    A row has ``auc`` with its 95% bootstrap interval over seeds (``low``, ``high``), ``final``, ``neglect``, ``first``
    (number of cells in which its AUC is the highest, or within ``TIE`` of it), ``better`` and ``worse`` (number of
    cells in which it differs from the baseline at p < .05, adjusted for the whole family of methods x cells) and
    ``cost`` (milliseconds per step).
    """
    best = scores.auc.mean(2).max(0)  # by cell
    base = scores.methods.index(baseline)
    others = [i for i in range(len(scores.methods)) if i != base]
    differences = scores.auc[others] - scores.auc[base]
    p = np.ones(differences.shape[:2])
    if differences.size:
        _, adjusted = sign_flip_test(differences.reshape(-1, differences.shape[2]))
        p = adjusted.reshape(differences.shape[:2])
    found = []
    for i, method in enumerate(scores.methods):
        low, high = interval(scores.auc[i].mean(0))
        row: dict[str, Any] = {
            "method": method,
            "auc": float(scores.auc[i].mean()),
            "low": low,
            "high": high,
            "final": float(scores.final[i].mean()),
            "neglect": float(scores.neglect[i].mean()),
            "first": int((scores.auc[i].mean(1) >= best - TIE).sum()),
            "lowest": float(scores.auc[i].mean(1).min()),
            "cost": cost.get(method),
        }
        if i != base:
            k = others.index(i)
            told = p[k] < LEVEL
            row |= {
                "better": int((told & (differences[k].mean(1) > 0)).sum()),
                "worse": int((told & (differences[k].mean(1) < 0)).sum()),
            }
        found.append(row)
    return sorted(found, key=lambda row: -row["auc"])


def interval(values: Array) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of a mean over seeds."""
    chosen = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(values[chosen].mean(1), (0.025, 0.975))
    return float(low), float(high)


def not_first(scores: Scores, method: str) -> list[tuple[str, str, float]]:
    """Return the cells in which a method is not first, with the first method and the gap, the widest gap first."""
    means = scores.auc.mean(2)
    own = means[scores.methods.index(method)]
    found = []
    for j, cell in enumerate(scores.cells):
        winner = int(means[:, j].argmax())
        if own[j] < means[winner, j] - TIE:
            found.append((cell, scores.methods[winner], float(means[winner, j] - own[j])))
    return sorted(found, key=lambda entry: -entry[2])


def standing(method: str, lost: list[tuple[str, str, float]], cells: int) -> str:
    """Return a sentence that lists the cells in which a rule is not first."""
    if not lost:
        where = "the only cell" if cells == 1 else f"all {cells} cells"
        return f"`{method}` is first in {where}, or within {TIE} of the first."
    named = ", ".join(f"{cell} ({winner} by {gap:.3f})" for cell, winner, gap in lost)
    return f"`{method}` is not first in {len(lost)} of {cells} cells: {named}."


def legend(baseline: str) -> str:
    """Return what the columns of :func:`markdown` mean."""
    return (
        f"first in: cells in which the AUC of the rule is the highest, or within {TIE} of the highest. better / worse: "
        f"cells in which its AUC differs from that of {baseline} (p < {LEVEL} after adjustment), however little."
    )


def markdown(count: int, table: Sequence[dict[str, Any]], baseline: str) -> str:
    """Return the table as Markdown; ``count`` is the number of cells."""
    head = (
        "rule", "AUC of the lowest channel", "lowest cell", "final", "neglect", "first in",
        f"better / worse than {baseline}", "ms per step",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for row in table:
        against = "" if "better" not in row else f"{row['better']} / {row['worse']}"
        cost = "" if row["cost"] is None else f"{row['cost']:.2f}"
        cells = (
            f"`{row['method']}`", f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]", f"{row['lowest']:.3f}",
            f"{row['final']:.3f}", f"{100 * row['neglect']:.0f}%", f"{row['first']} of {count}",
            against, cost,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
