"""The report: one table per cell, and findings whose wording is computed from the numbers.

Two measures determine the wording. Each is a mean over seeds, and each alone would hide something:

- *format in training*: the share of all rollouts of the training that met the strict format. The final value alone
  would hide that a constraint was lost and learned again.
- *worst channel at the end*: the lowest channel rate on the evaluation prompts. The format alone would hide its cost in
  other channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rvpo.quickstart.cells import Cell
from rvpo.quickstart.records import Record
from rvpo.quickstart.task import CHANNELS, FORMAT

MARGIN = 0.05  # means that differ by less are called equal
KEPT = 0.85  # a seed whose worst channel ends at this rate or above has neglected no channel


def verdict(format_gain: float, worst_gain: float) -> str:
    """Compare a method with the baseline: ``"better"``, ``"worse"``, ``"equal"``, or ``"mixed"`` if measures disagree.

    Args:
        format_gain: the method's format in training minus the baseline's.
        worst_gain: the method's worst channel at the end minus the baseline's.
    """
    up = max(format_gain, worst_gain) > MARGIN
    down = min(format_gain, worst_gain) < -MARGIN
    if up and down:
        return "mixed"
    return "better" if up else "worse" if down else "equal"


def finding(cell: Cell, records: Sequence[Record], method: str) -> str:
    """Return a few sentences that compare a method of ``cell`` with the baseline."""
    baseline = cell.methods[0].name
    a, b = of(records, cell, baseline), of(records, cell, method)
    format_gain = _mean(r.format_in_training for r in b) - _mean(r.format_in_training for r in a)
    worst_gain = _mean(r.worst_end for r in b) - _mean(r.worst_end for r in a)
    higher = sum(y.format_in_training > x.format_in_training for x, y in zip(a, b, strict=True))
    verdicts = {
        "better": f"{method} did better here{_lost(b)}.",
        "worse": f"{method} was the wrong choice here: {baseline} did better{_lost(a)}.",
        "equal": f"{method} and {baseline} did the same here, within {MARGIN:.2f}.",
        "mixed": f"Neither {method} nor {baseline} was better in both respects.",
    }
    return (
        f"During training it was met in {_mean(r.format_in_training for r in b):.0%} of rollouts with {method} and in "
        f"{_mean(r.format_in_training for r in a):.0%} with {baseline} ({method} higher in {higher} of {len(b)} "
        f"seeds); at the end the worst channel is at {_mean(r.worst_end for r in b):.2f} with {method} and at "
        f"{_mean(r.worst_end for r in a):.2f} with {baseline}, and every channel is met in at least {KEPT:.0%} of "
        f"replies in {_kept(b)} of {len(b)} seeds and in {_kept(a)} of {len(a)}. "
        f"{verdicts[verdict(format_gain, worst_gain)]}"
    )


def caption(cell: Cell, records: Sequence[Record]) -> str:
    """Return a caption for the plot: how many seeds of each method ended with every channel kept."""
    runs = {method.name: of(records, cell, method.name) for method in cell.methods}
    counts = [f"{name}: {_kept(rs)} of {len(rs)}" for name, rs in runs.items()]
    lines = [" · ".join(counts[i : i + 2]) for i in range(0, len(counts), 2)]  # more would not fit above a panel
    return "\n".join([f"seeds that end with every channel at {KEPT:.0%} or more:", *lines])


def of(records: Sequence[Record], cell: Cell, method: str) -> list[Record]:
    """Return the runs of one method, in the order of their seeds."""
    return sorted((r for r in records if (r.cell, r.method) == (cell.name, method)), key=lambda r: r.seed)


def findings(records: Sequence[Record], cells: Sequence[Cell]) -> list[str]:
    """Return one paragraph per cell, with a :func:`finding` for each method except the baseline."""
    return ["\n\n".join([_start(cell, records), *_judged(cell, records)]) for cell in cells]


def _start(cell: Cell, records: Sequence[Record]) -> str:
    start = _mean(r.start[FORMAT] for r in of(records, cell, cell.methods[0].name))
    return f"The format is met in {start:.0%} of replies at the start."


def _judged(cell: Cell, records: Sequence[Record]) -> list[str]:
    return [f"{method.name}: {finding(cell, records, method.name)}" for method in cell.methods[1:]]


def summary_of_runs(records: Sequence[Record], cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Return means over seeds and the values of every seed, per cell and method."""
    return {
        cell.name: {
            method.name: {
                "seeds": [r.seed for r in runs],
                "start": {name: _mean(r.start[name] for r in runs) for name in CHANNELS},
                "end": {name: _mean(r.end[name] for r in runs) for name in CHANNELS},
                "worst_end": [r.worst_end for r in runs],
                "format_end": [r.end[FORMAT] for r in runs],
                "format_in_training": [r.format_in_training for r in runs],
                "kept": _kept(runs),
                "seconds": _mean(r.seconds for r in runs),
            }
            for method in cell.methods
            for runs in [of(records, cell, method.name)]
        }
        for cell in cells
    }


def text(records: Sequence[Record], cells: Sequence[Cell], found: Sequence[str]) -> str:
    """Return the report: the table and the finding of each cell."""
    parts = []
    for cell, sentence in zip(cells, found, strict=True):
        parts += [f"{cell.title}\n", table_of_runs(records, cell), "", sentence]
        parts += [*_warnings([r for r in records if r.cell == cell.name], cell), ""]
    return "\n".join(parts).rstrip()


def _warnings(runs: Sequence[Record], cell: Cell) -> list[str]:
    """Return a summary of warnings during training: neglected channels per method, and the longest other warning."""
    parts = []
    for method in cell.methods:
        calls: dict[str, list[int]] = {}
        for r in of(runs, cell, method.name):
            for name in (name for warning in r.warnings if (name := called(warning))):
                calls.setdefault(name, []).append(r.seed)
        seeds = "; ".join(f"{name} in seed {', '.join(map(str, where))}" for name, where in calls.items())
        if seeds:
            parts += ["", f"During the runs of {method.name} rvpo warned that a channel is being neglected: {seeds}"]
    rest = [[warning for warning in r.warnings if not called(warning)] for r in runs]
    if count := sum(map(bool, rest)):  # one warning, with different channels per seed: the longest names most channels
        longest = max((warning for warnings in rest for warning in warnings), key=len)
        parts += ["", f"During {count} of these runs rvpo warned: {longest}"]
    return parts


def called(warning: str) -> str | None:
    """Return the channel that a warning calls neglected; None for other warnings."""
    found = re.match(r"'(.+)' is being neglected, seen at generation \d+: ", warning)
    return found and found[1]


def table_of_runs(records: Sequence[Record], cell: Cell) -> str:
    """Return a Markdown table of rates in percent: one row for the start, one per method, then the seeds."""
    runs = {method.name: of(records, cell, method.name) for method in cell.methods}
    before = next(iter(runs.values()))
    rows = [["channel", "start", *runs]]
    for name in CHANNELS:
        rates = [_mean(r.start[name] for r in before), *(_mean(r.end[name] for r in rs) for rs in runs.values())]
        rows.append([name, *(f"{rate:.0%}" for rate in rates)])
    rows.append(["**worst channel**", f"{_mean(min(r.start.values()) for r in before):.0%}"])
    rows[-1] += [f"{_mean(r.worst_end for r in rs):.0%}" for rs in runs.values()]
    rows.append(["worst, by seed", "", *(_by_seed(r.worst_end for r in rs) for rs in runs.values())])
    rows.append([f"{FORMAT}, by seed", "", *(_by_seed(r.end[FORMAT] for r in rs) for rs in runs.values())])
    rows.append(["… in training, by seed", "", *(_by_seed(r.format_in_training for r in rs) for rs in runs.values())])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _kept(runs: Sequence[Record]) -> int:
    return sum(r.worst_end >= KEPT for r in runs)


def _lost(runs: Sequence[Record]) -> str:
    """Return what to add about a better method that neglected a channel in some seeds."""
    lost = [str(r.seed) for r in runs if r.worst_end < KEPT]
    return f", but still neglected a channel in seed {', '.join(lost)}" if lost else ""


def _by_seed(rates: Any) -> str:
    return " ".join(f"{rate:.0%}" for rate in rates)


def _mean(values: Any) -> float:
    collected = list(values)
    return float(sum(collected) / len(collected))
