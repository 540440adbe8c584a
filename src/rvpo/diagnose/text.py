"""A diagnosis and a replay as text, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from rvpo.diagnose.diagnosis import VERDICTS, ChannelDiagnosis, Diagnosis, Estimate
from rvpo.diagnose.exploration_text import exploration_notes, exploration_sentence, exploration_table
from rvpo.diagnose.replay import Replay
from rvpo.diagnose.several import headline
from rvpo.logs.guess import Guess
from rvpo.text.tables import fitted, markdown, printable
from rvpo.text.terminal import PLAIN, Terminal

NARROW = ("channel", "verdict", "sure", "mean", "trend", "live", "missing", "pull", "correlation", "punished")
SPARE = ("live", "missing")  # columns that a narrow terminal does without
WIDE = ("dead", "responsibility", "bottleneck", "at the top", "unexplored", "suppressed")


def diagnosis_text(diagnosis: Diagnosis, *, as_markdown: bool = False, terminal: Terminal = PLAIN) -> str:
    """Return a summary, the table, a sentence for each channel that wants a look, and the notes; Markdown has more."""
    ranked = sorted(diagnosis.channels, key=lambda channel: VERDICTS.index(channel.verdict))
    wide = as_markdown
    table = [[*NARROW, *(WIDE if wide else ())], *(_line(channel, wide) for channel in ranked)]
    head = (
        f"{diagnosis.run}: {diagnosis.completions:,} completions in {diagnosis.groups:,} groups "
        f"({diagnosis.completions / diagnosis.groups:.3g} each) over {diagnosis.steps:,} steps, advantages: "
        f"{diagnosis.method}. {summary(diagnosis)}"
    )
    quiet = ("saturated", "healthy")
    told = [f"{c.name}: {c.verdict}. {_capital(c.rule)}." for c in ranked if as_markdown or c.verdict not in quiet]
    if not as_markdown:
        for verdict in quiet:
            names = [channel.name for channel in ranked if channel.verdict == verdict]
            told += [f"{verdict}: {', '.join(names)}."] if names else []
    notes = [
        _legend(diagnosis, wide),
        *exploration_notes(diagnosis.exploration),
        *diagnosis.notes,
    ]
    return _text(
        head,
        table,
        told,
        notes,
        None if as_markdown else terminal,
        guessed(diagnosis.guesses),
        exploration_table(diagnosis.exploration),
    )


def diagnoses_text(diagnoses: Sequence[Diagnosis], *, as_markdown: bool = False, terminal: Terminal = PLAIN) -> str:
    """Return the text of one run; of several, what they come to, a table of the runs, and each run's text."""
    if len(diagnoses) == 1:
        return diagnosis_text(diagnoses[0], as_markdown=as_markdown, terminal=terminal)
    table = [["run", "method", "steps", "neglected"]]
    for diagnosis in diagnoses:
        names = [channel.name for channel in diagnosis.channels if channel.verdict == "neglected"]
        table.append([diagnosis.run, diagnosis.method, f"{diagnosis.steps:,}", ", ".join(names) or "-"])
    head = f"{len(diagnoses)} runs. {headline(diagnoses)}"
    first = _text(head, table, [], [], None if as_markdown else terminal)
    each = [diagnosis_text(diagnosis, as_markdown=as_markdown, terminal=terminal) for diagnosis in diagnoses]
    return "\n".join([first, *each])


def _legend(diagnosis: Diagnosis, wide: bool) -> str:
    """Return what the columns of the table mean."""
    sure = "share of resamples with this verdict"
    if diagnosis.guesses:
        sure += ", times how often such guesses are right"
    wider = (
        f" responsibility: share of a decision by a soft minimum, k = {diagnosis.k:g}. unexplored: share of groups in "
        "which no completion meets it. suppressed: share in which some do, not all, and none of these got a positive "
        "advantage."
    )
    return (
        f"sure: {sure}. trend: along a straight line from the first to the last step. pull: how far it moves the "
        "advantage, the others held, in units of the average channel. correlation: of the advantage with it within "
        f"groups. punished: the better of two got the lower advantage.{wider if wide else ''} [low, high]: "
        f"{diagnosis.level:.0%}, bootstrap over groups."
    )


def guessed(guesses: Sequence[Guess]) -> str:
    """Return the line that stands above everything that rests on guesses; empty without any."""
    if not guesses:
        return ""
    return f"Guessed, please check: {'; '.join(map(str, guesses))}."


def summary(diagnosis: Diagnosis) -> str:
    """Return which channels diverge from a monitor and which are neglected, and whether exploration collapses."""
    return f"{_of_channels(diagnosis)} {exploration_sentence(diagnosis.exploration)}".rstrip()


def _of_channels(diagnosis: Diagnosis) -> str:
    diverging, names, unclear = (
        [channel.name for channel in diagnosis.channels if channel.verdict == verdict]
        for verdict in ("diverging", "neglected", "unclear")
    )
    total = len(diagnosis.channels)
    if not names and not unclear and not diverging:
        return f"None of {total} channels is neglected."
    words = ((diverging, "diverging from a monitor"), (names, "neglected"), (unclear, "unclear"))
    told = [_counted(found, total, word) for found, word in words if found]
    return " ".join(told)


def _counted(names: Sequence[str], total: int, word: str) -> str:
    return f"{len(names)} of {total} channels {'is' if len(names) == 1 else 'are'} {word}: {', '.join(names)}."


def replay_text(replay: Replay, *, as_markdown: bool = False, terminal: Terminal = PLAIN) -> str:
    """Return the table of rules, and the notes."""
    names = list(dict.fromkeys(name for rule in replay.rules for name in rule.influence or ()))
    own = next((rule.influence for rule in replay.rules if rule.influence and rule.method == replay.own), None)
    own = own or next((rule.influence for rule in replay.rules if rule.influence), {})
    names.sort(key=lambda name: (value := (own or {}).get(name)) is None or value)  # the least followed first
    shown = names[:6]
    table = [["rule", "sign flips", "rank corr.", "channels", *shown]]
    for rule in replay.rules:
        cells = [_share(rule.sign_flips), _number(rule.rank_correlation), _number(rule.effective_channels)]
        influence = rule.influence or {}
        table.append([rule.method, *cells, *(_number(influence.get(name), sign="+") for name in shown)])
    method = "method unknown" if replay.own is None else replay.own
    gives = "" if replay.own_difference is None else f", replayed to within {replay.own_difference:.2g}"
    notes = [
        "sign flips: completions encouraged by one and discouraged by the other. rank corr.: with the run's own "
        "advantages, within groups. channels: how many decide a completion. Then the correlation of the rule's "
        "advantage with each channel"
        + (f" (the {len(shown)} of {len(names)} that are followed least)." if len(names) > len(shown) else "."),
        "The completions are those of the policy that the run trained: this says what a rule would have made of them.",
        *replay.notes,
    ]
    problems = [f"{rule.method}: {rule.problem}" for rule in replay.rules if rule.problem]
    head = f"{replay.run} ({method}{gives}), {replay.completions:,} completions"
    return _text(head, table, problems, notes, None if as_markdown else terminal, guessed(replay.guesses))


def _text(
    head: str,
    table: list[list[str]],
    told: list[str],
    notes: list[str],
    terminal: Terminal | None,
    guess: str = "",
    further: list[list[str]] | None = None,
) -> str:
    """Return all of it for a terminal, or as Markdown where there is none; what was guessed comes first.

    Args:
        head: the headline.
        table: the table, its head first.
        told: a sentence per channel.
        notes: what a reader has to know.
        terminal: where it is printed; None: as Markdown.
        guess: what was guessed.
        further: a second table, after the sentences.
    """
    head, guess = printable(head), printable(guess)
    told, notes = [*map(printable, told)], [*map(printable, notes)]
    if terminal is None:
        parts = [f"### {head}", "", *markdown(table)]
        bullet = "- "
    else:
        parts = [_filled(head, terminal, ""), "", *fitted(table, terminal.width, terminal.paint, SPARE)]
        told, notes = ([_filled(line, terminal) for line in lines] for lines in (told, notes))
        bullet = "* "
    if guess:
        parts = [f"**{guess}**" if terminal is None else _filled(guess, terminal, ""), "", *parts]
    parts += ["", *(bullet + line for line in told)] if told else []
    if further:
        lines = markdown(further) if terminal is None else fitted(further, terminal.width, terminal.paint)
        parts += ["", *lines]
    parts += ["", *(bullet + line for line in notes)] if notes else []
    return "\n".join(parts) + "\n"


def _filled(line: str, terminal: Terminal, indent: str = "  ") -> str:
    """Wrap a line to a terminal; a path or a spelling in it is never cut."""
    width = terminal.prose - len(indent)  # a bullet stands before it
    return fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _line(channel: ChannelDiagnosis, wide: bool) -> list[str]:
    cells = [
        channel.name,
        channel.verdict,
        _share(channel.confidence),
        _number(channel.mean.value),
        _number(channel.trend.value, sign="+"),
        _share(channel.live),
        _share(channel.missing),
        _interval(channel.pull),
        _interval(channel.correlation, sign="+"),
        _share(channel.punished.value),
    ]
    estimates = (channel.responsibility, channel.bottleneck, channel.ceiling, channel.unexplored, channel.suppressed)
    more = (channel.dead, *(e.value for e in estimates))
    return [*cells, *(map(_share, more) if wide else ())]


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
