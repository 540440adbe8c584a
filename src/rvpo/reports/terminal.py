"""A diagnosis and a replay as text, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import fill

from rvpo.reports.diagnosis import VERDICTS, ChannelDiagnosis, Diagnosis, Estimate
from rvpo.reports.replay import Replay
from rvpo.tables import aligned, markdown, printable

Lines = Callable[[list[list[str]]], list[str]]


def diagnosis_text(diagnosis: Diagnosis, *, as_markdown: bool = False) -> str:
    """Return the table, a sentence for each channel that wants a look, and the notes."""
    ranked = sorted(diagnosis.channels, key=lambda channel: VERDICTS.index(channel.verdict))
    table = [
        [
            *("channel", "verdict", "sure", "mean", "trend", "live", "dead", "missing"),
            *("pull", "correlation", "punished", "responsible", "lowest", "at top"),
        ]
    ]
    table += [_line(channel) for channel in ranked]
    head = (
        f"{diagnosis.run}: {diagnosis.completions:,} completions in {diagnosis.groups:,} groups over "
        f"{diagnosis.steps:,} steps, advantages: {diagnosis.method}"
    )
    told = [f"{channel.name}: {channel.verdict}. {_capital(channel.rule)}." for channel in ranked]
    notes = [
        f"pull: how far it moves the advantage, the others held, in units of the average channel. correlation: of the "
        f"advantage with it within groups. punished: the better of two got the lower advantage. responsible: share of "
        f"the decision under a soft minimum with k = {diagnosis.k:g}. lowest: of its completion. at top: of the last "
        f"third. [low, high]: {diagnosis.level:.0%}, bootstrap over groups.",
        *diagnosis.notes,
    ]
    return _text(head, table, told, notes, as_markdown)


def replay_text(replay: Replay, *, as_markdown: bool = False) -> str:
    """Return the table of rules, and the notes."""
    names = list(dict.fromkeys(name for rule in replay.rules for name in rule.influence or ()))
    shown = names[:8]
    table = [["rule", "sign flips", "rank corr.", "channels", *shown]]
    for rule in replay.rules:
        cells = [_share(rule.sign_flips), _number(rule.rank_correlation), _number(rule.effective_channels)]
        influence = rule.influence or {}
        table.append([rule.method, *cells, *(_number(influence.get(name), sign="+") for name in shown)])
    own = "method unknown" if replay.own is None else replay.own
    gives = "" if replay.own_difference is None else f", replayed to within {replay.own_difference:.2g}"
    notes = [
        "sign flips: completions encouraged by one and discouraged by the other. rank corr.: with the run's own "
        "advantages, within groups. channels: how many decide a completion. Then the correlation of the rule's "
        "advantage with each channel" + (f" (the first {len(shown)} of {len(names)})." if len(names) > 8 else "."),
        "The completions are those of the policy that the run trained: this says what a rule would have made of them.",
        *replay.notes,
    ]
    problems = [f"{rule.method}: {rule.problem}" for rule in replay.rules if rule.problem]
    return _text(
        f"{replay.run} ({own}{gives}), {replay.completions:,} completions", table, problems, notes, as_markdown
    )


def _text(head: str, table: list[list[str]], told: list[str], notes: list[str], as_markdown: bool) -> str:
    lines: Lines = markdown if as_markdown else aligned
    head, told, notes = printable(head), [*map(printable, told)], [*map(printable, notes)]
    wrapped = notes if as_markdown else [fill(note, 118, subsequent_indent="  ") for note in notes]
    said = told if as_markdown else [fill(line, 118, subsequent_indent="  ") for line in told]
    bullet = "- " if as_markdown else "* "
    parts = [f"### {head}" if as_markdown else head, "", *lines(table)]
    for block in (said, wrapped):
        parts += ["", *(bullet + line for line in block)] if block else []
    return "\n".join(parts) + "\n"


def _line(channel: ChannelDiagnosis) -> list[str]:
    return [
        channel.name,
        channel.verdict,
        _share(channel.confidence),
        _number(channel.mean.value),
        _number(channel.trend.value, sign="+"),
        *(_share(value) for value in (channel.live, channel.dead, channel.missing)),
        _interval(channel.pull),
        _interval(channel.correlation, sign="+"),
        *(_share(e.value) for e in (channel.punished, channel.responsibility, channel.bottleneck, channel.ceiling)),
    ]


def _interval(estimate: Estimate, sign: str = "") -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return _number(estimate.value, sign)
    return f"{estimate.value:{sign}.2f} [{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else format(value, f"{sign}.3g")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
