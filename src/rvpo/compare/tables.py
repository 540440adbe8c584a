"""A comparison of training runs as tables: for a terminal, and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from textwrap import fill

from rvpo.compare.comparison import WORST, Comparison, Group, Row
from rvpo.statistics import Interval
from rvpo.text.tables import Table, aligned, markdown, told_p

_NUMBERS = ("first", "best", "last", "auc", "drop")
_FEW = 8  # runs that are shown one by one


def text(comparison: Comparison, measures: Sequence[str], *, channels: bool = True, as_markdown: bool = False) -> str:
    """Return what a comparison found: the groups in numbers, the tests, and the notes.

    Args:
        comparison: from :func:`rvpo.compare.trainings.compare`.
        measures: whose tests are shown.
        channels: show the numbers of all channels; else of the worst one alone.
        as_markdown: in Markdown; else for a terminal.
    """
    lines: Callable[[Table], list[str]] = markdown if as_markdown else aligned
    head, bullet = ("### ", "- ") if as_markdown else ("", "* ")
    shown: list[str | None] = [None] if comparison.worst_of else []
    if channels or not shown:
        shown += comparison.scales
    out: list[str] = []
    for channel in shown:
        out += [f"{head}{_name(channel)}: mean over runs", "", *lines(_numbers(comparison, channel, measures[0])), ""]
    for measure in measures:
        for group in comparison.groups[1:]:
            table, reasons = _short(tests(comparison, measure, group.name))
            out += [f"{head}{measure}: {group.name} against {comparison.baseline}", "", *lines(table), ""]
            out += [*(bullet + fill(f"cannot tell: {reason}", 118, subsequent_indent="  ") for reason in reasons), ""]
    notes = comparison.notes if as_markdown else [fill(note, 118, subsequent_indent="  ") for note in comparison.notes]
    return "\n".join([*out, *(bullet + note for note in notes)]) + "\n"


def _short(table: list[list[str]]) -> tuple[list[list[str]], list[str]]:
    """Cut from verdicts why so few runs cannot tell, which is the same in many lines, and return these reasons."""
    reasons: dict[str, None] = {}
    lines = []
    for line in table:
        told = re.fullmatch(r"cannot tell: (with .* is possible.*); (.*)", line[-1])
        if told is None:
            lines.append(line)
            continue
        reasons[told[1]] = None
        lines.append([*line[:-1], f"cannot tell: {told[2]}"])
    return lines, list(reasons)


def tests(comparison: Comparison, measure: str, group: str | None = None) -> list[list[str]]:  # noqa: PT028 - no test
    """Return the tests of a measure as a table, the head first: of one group against the baseline, or of all groups."""
    rows = [row for row in comparison.rows if row.measure == measure and group in (None, row.group)]
    if group is None:
        head = ["group", "channel", "baseline", "mean", "difference", "p", "Holm", "g", "verdict"]
        return [head, *([row.group, *_cells(row)] for row in rows)]
    head = ["channel", comparison.baseline, group, "difference", "p", "Holm", "g", "verdict"]
    return [head, *map(_cells, rows)]


def _name(channel: str | None) -> str:
    return WORST if channel is None else channel


def _numbers(comparison: Comparison, channel: str | None, measure: str) -> Table:
    """Return a line a group: the means of its runs, and the runs one by one in a measure."""
    table = [["group", "runs", *_NUMBERS, f"{measure} of each run"]]
    for group in comparison.groups:
        means = [_mean(group.values(channel, name)) for name in _NUMBERS]
        runs = len(group.values(channel, "best"))
        table.append([group.name, str(runs), *means, _each(group, channel, measure)])
    return table


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else "-"


def _each(group: Group, channel: str | None, measure: str) -> str:
    values = group.values(channel, measure)
    if not values:
        return "missing"
    told = [f"{value:.2f}" for value in values]
    return " ".join(told) if len(told) <= _FEW else f"{min(values):.2f} to {max(values):.2f}"


def _cells(row: Row) -> list[str]:
    return [
        _name(row.channel),
        _mean(row.a),
        _mean(row.b),
        _interval(row.difference, 3),
        told_p(row.p),
        told_p(row.adjusted),
        _interval(row.effect, 1),
        row.verdict,
    ]


def _interval(interval: Interval, digits: int) -> str:
    if interval.mean is None:
        return "-"
    text = f"{interval.mean:+.{digits}f}"
    if interval.low is not None and interval.high is not None:
        text += f" [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    return text
