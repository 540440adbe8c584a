"""Format a comparison as text: tables and notes, for a terminal or in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from textwrap import fill

from rvpo.compare.comparison import (
    WORST,
    BenchmarkComparison,
    BenchmarkRow,
    TrainingComparison,
    TrainingGroup,
    TrainingRow,
)
from rvpo.statistics import Interval
from rvpo.text.tables import fitted, markdown, told_p
from rvpo.text.terminal import PLAIN, Terminal

_NUMBERS = ("first", "best", "last", "auc", "drop")
_FEW = 8  # up to this many runs are shown one by one


def trainings_text(
    comparison: TrainingComparison,
    measures: Sequence[str],
    *,
    channels: bool = True,
    as_markdown: bool = False,
    terminal: Terminal = PLAIN,
) -> str:
    """Return a comparison of training runs as text: the numbers of each group, the tests, and the notes.

    Args:
        comparison: result of :func:`rvpo.compare.trainings.compare_trainings`.
        measures: measures whose tests are shown.
        channels: show the numbers of all channels; otherwise only those of the worst channel.
        as_markdown: return Markdown; otherwise text for a terminal.
        terminal: terminal that the text is laid out for.
    """
    shown: list[str | None] = [None] if comparison.worst_of else []
    if channels or not shown:
        shown += comparison.scales
    tables = [(f"{_name(channel)}: mean over runs", _numbers(comparison, channel, measures[0])) for channel in shown]
    tables += [
        (f"{measure}: {group.name} against {comparison.baseline}", table_of_tests(comparison, measure, group.name))
        for measure in measures
        for group in comparison.groups[1:]
    ]
    tables += [
        (f"exploration, {measure}: {group.name} against {comparison.baseline}", table)
        for measure in measures
        for group in comparison.explored[1:]
        if len(table := table_of_exploration(comparison, measure, group.name)) > 1
    ]
    return _text(tables, comparison.notes, None if as_markdown else terminal)


def benchmarks_text(comparison: BenchmarkComparison, *, as_markdown: bool = False, terminal: Terminal = PLAIN) -> str:
    """Return a comparison of benchmark runs as text: one table per group, and the notes.

    Args:
        comparison: result of :func:`rvpo.compare.benchmarks.compare_benchmarks`.
        as_markdown: return Markdown; otherwise text for a terminal.
        terminal: terminal that the text is laid out for.
    """
    tables = []
    for name, rows in comparison.rows.items():
        head = ["metric", comparison.baseline, name, "difference", "p", "Holm", "paired on", "verdict"]
        title = f"{comparison.benchmark}: {name} against {comparison.baseline}"
        tables.append((title, [head, *map(_benchmark_cells, rows)]))
    return _text(tables, comparison.notes, None if as_markdown else terminal)


def table_of_tests(comparison: TrainingComparison, measure: str, group: str | None = None) -> list[list[str]]:
    """Return the tests of a measure against the baseline as a table with a head, for one group or for all groups."""
    rows = [row for row in comparison.rows if row.measure == measure and group in (None, row.group)]
    if group is None:
        head = ["group", "channel", "baseline", "mean", "difference", "p", "Holm", "g", "verdict"]
        return [head, *([row.group, *_training_cells(row)] for row in rows)]
    head = ["channel", comparison.baseline, group, "difference", "p", "Holm", "g", "verdict"]
    return [head, *map(_training_cells, rows)]


def table_of_exploration(comparison: TrainingComparison, measure: str, group: str) -> list[list[str]]:
    """Return the tests of a group's exploration against the baseline as a table. Without tests, it is only the head."""
    rows = [row for row in comparison.exploration if (row.measure, row.group) == (measure, group)]
    head = ["quantity", comparison.baseline, group, "difference", "p", "Holm", "g", "verdict"]
    return [head, *map(_training_cells, rows)]


def lines_of_exploration(comparison: TrainingComparison, measure: str) -> list[list[str]]:
    """Return the tests of exploration of all groups, as lines to append to :func:`table_of_tests` of all groups."""
    lines = []
    for row in comparison.exploration:
        if row.measure == measure:
            quantity, *cells = _training_cells(row)
            lines.append([row.group, f"exploration: {quantity}", *cells])
    return lines


def _text(tables: Iterable[tuple[str, list[list[str]]]], notes: Iterable[str], terminal: Terminal | None) -> str:
    """Return titles, tables and notes as text, wrapped for a terminal. Without a terminal, return Markdown."""
    head, bullet = ("### ", "- ") if terminal is None else ("", "* ")
    out: list[str] = []
    for title, table in tables:
        short, reasons = _short(table)
        lines = markdown(short) if terminal is None else fitted(short, terminal.width)
        out += [head + title, "", *lines, ""]
        out += [*(bullet + _wrapped(f"cannot tell: {reason}", terminal) for reason in reasons), ""] if reasons else []
    return (
        "\n".join([*out, *(bullet + (note if terminal is None else _wrapped(note, terminal)) for note in notes)]) + "\n"
    )


def _wrapped(text: str, terminal: Terminal | None) -> str:
    """Wrap a note. Names and paths are not broken, so that they can be copied."""
    width = (terminal or PLAIN).prose - 2
    return fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _short(table: list[list[str]]) -> tuple[list[list[str]], list[str]]:
    """Move the reason that too few runs cannot give a small p from the verdicts into a list.

    Many lines have the same reason, so it is printed once below the table.
    """
    reasons: dict[str, None] = {}
    lines = []
    for line in table:
        verdict = re.fullmatch(r"cannot tell: (with .* is possible.*); (.*)", line[-1])
        if verdict is None:
            lines.append(line)
            continue
        reasons[verdict[1]] = None
        lines.append([*line[:-1], f"cannot tell: {verdict[2]}"])
    return lines, list(reasons)


def _numbers(comparison: TrainingComparison, channel: str | None, measure: str) -> list[list[str]]:
    """Return one line per group: the means of its runs, and one measure of each run."""
    table = [["group", "runs", *_NUMBERS, f"{measure} of each run"]]
    for group in comparison.groups:
        means = [_mean(group.values(channel, name)) for name in _NUMBERS]
        runs = len(group.values(channel, "best"))
        table.append([group.name, str(runs), *means, _each(group, channel, measure)])
    return table


def _each(group: TrainingGroup, channel: str | None, measure: str) -> str:
    values = group.values(channel, measure)
    if not values:
        return "missing"
    texts = [f"{value:.2f}" for value in values]
    return " ".join(texts) if len(texts) <= _FEW else f"{min(values):.2f} to {max(values):.2f}"


def _training_cells(row: TrainingRow) -> list[str]:
    means = [_name(row.channel), _mean(row.a), _mean(row.b), _interval(row.difference)]
    return [*means, told_p(row.p), told_p(row.adjusted), _interval(row.effect, 1), row.verdict]


def _benchmark_cells(row: BenchmarkRow) -> list[str]:
    means = [f"{_interval(mean, sign='')}{_runs(runs)}" for mean, runs in ((row.a, row.a_runs), (row.b, row.b_runs))]
    items = f"{row.difference.items:,} of {row.asked:,}"
    return [row.metric, *means, _interval(row.difference), told_p(row.p), told_p(row.adjusted), items, row.verdict]


def _name(channel: str | None) -> str:
    return WORST if channel is None else channel


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else "-"


def _runs(means: Sequence[float]) -> str:
    return f" ({', '.join(f'{mean:.3f}' for mean in means)})" if len(means) > 1 else ""


def _interval(interval: Interval, digits: int = 3, sign: str = "+") -> str:
    if interval.mean is None:
        return "-"
    text = f"{interval.mean:{sign}.{digits}f}"
    if interval.low is not None and interval.high is not None:
        text += f" [{interval.low:{sign}.{digits}f}, {interval.high:{sign}.{digits}f}]"
    return text
