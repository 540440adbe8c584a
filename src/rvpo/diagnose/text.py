"""A diagnosis and a replay as text, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from rvpo.diagnose.diagnosis import VERDICTS, ChannelDiagnosis, Diagnosis, Estimate
from rvpo.diagnose.exploration_text import exploration_notes, exploration_sentence, exploration_table
from rvpo.diagnose.readings import DEPENDS
from rvpo.diagnose.replay import Replay
from rvpo.diagnose.several import headline
from rvpo.logs.guess import Guess
from rvpo.text.tables import fitted, markdown, printable
from rvpo.text.terminal import PLAIN, Terminal

NARROW = ("channel", "verdict", "sure", "mean", "trend", "live", "missing", "pull", "correlation", "punished")
SPARE = ("live", "missing")  # columns that are left out on a narrow terminal
WIDE = ("dead", "responsibility", "bottleneck", "at the top", "unexplored", "suppressed")


def diagnosis_text(
    diagnosis: Diagnosis, *, as_markdown: bool = False, terminal: Terminal = PLAIN, exploration: bool = False
) -> str:
    """Return a summary, the table, one sentence per channel that needs attention, and the notes; Markdown has more.

    Args:
        diagnosis: diagnosis of a run.
        as_markdown: whether the text is Markdown, which has all columns and sentences.
        terminal: width and colours, if it is not Markdown.
        exploration: whether the solved questions and Pass@k of every channel are shown. Markdown always shows them.
    """
    ranked = sorted(diagnosis.channels, key=lambda channel: VERDICTS.index(channel.verdict))
    wide = as_markdown
    table = [[*NARROW, *(WIDE if wide else ())], *(_line(channel, wide) for channel in ranked)]
    steps = "1 step" if diagnosis.steps == 1 else f"{diagnosis.steps:,} steps"
    head = (
        f"{diagnosis.run}: {diagnosis.completions:,} completions in {diagnosis.groups:,} groups "
        f"({diagnosis.completions / diagnosis.groups:.3g} each) over {steps}, advantages: "
        f"{diagnosis.method}. {summary(diagnosis)}"
    )
    quiet = ("saturated", "healthy")
    sentences = [
        f"{c.name}: {c.verdict}. {_capital(c.rule)}."
        for c in ranked
        if as_markdown or c.verdict not in quiet or c.has_lost_influence
    ]
    if not as_markdown:
        for verdict in quiet:
            names = [c.name for c in ranked if c.verdict == verdict and not c.has_lost_influence]
            sentences += [f"{verdict}: {', '.join(names)}."] if names else []
    of_channels = as_markdown or exploration
    explored = exploration_notes(diagnosis.exploration)
    if explored and not of_channels and diagnosis.exploration is not None and len(diagnosis.exploration.channels) > 1:
        explored[-1] += " Pass --exploration to see every channel."
    notes = [
        _legend(diagnosis, wide),
        *explored,
        *pooled_notes(diagnosis),
        *diagnosis.notes,
    ]
    return _text(
        head,
        table,
        sentences,
        notes,
        None if as_markdown else terminal,
        guessed(diagnosis.guesses),
        exploration_table(diagnosis.exploration, of_channels=of_channels),
    )


def diagnoses_text(
    diagnoses: Sequence[Diagnosis], *, as_markdown: bool = False, terminal: Terminal = PLAIN, exploration: bool = False
) -> str:
    """Return the text of one run; for several runs: a headline, a table of the runs, and the text of each run.

    The options are those of :func:`diagnosis_text`.
    """
    texts = [
        diagnosis_text(diagnosis, as_markdown=as_markdown, terminal=terminal, exploration=exploration)
        for diagnosis in diagnoses
    ]
    if len(texts) == 1:
        return texts[0]
    table = [["run", "method", "steps", "neglected"]]
    for diagnosis in diagnoses:
        names = [channel.name for channel in diagnosis.channels if channel.verdict == "neglected"]
        table.append([diagnosis.run, diagnosis.method, f"{diagnosis.steps:,}", ", ".join(names) or "-"])
    head = f"{len(diagnoses)} runs. {headline(diagnoses)}"
    first = _text(head, table, [], [], None if as_markdown else terminal)
    return "\n".join([first, *texts])


def _legend(diagnosis: Diagnosis, wide: bool) -> str:
    """Return what the columns of the table mean."""
    sure = "share of bootstrap resamples with the same verdict"
    if diagnosis.guesses:
        sure += ", times the share of such guesses that are right"
    wider = (
        f" responsibility: the channel's share of the decision under a soft minimum with k = {diagnosis.k:g}. "
        "unexplored: share of groups in which no completion meets the channel. suppressed: share of groups in which "
        "some completions meet it, but not all, and none of these got a positive advantage."
    )
    return (
        f"sure: {sure}. trend: change of the mean from the first to the last step, from a straight-line fit. pull: how "
        "far the channel moves the advantage while all others stay the same; the average channel has 1. correlation: "
        "channel and advantage, within groups. punished: share of pairs in which the better completion got "
        f"the lower advantage.{wider if wide else ''} [low, high]: {diagnosis.level:.0%} interval, from a bootstrap "
        "over groups."
    )


def guessed(guesses: Sequence[Guess]) -> str:
    """Return the line that lists the guesses, printed above all results that depend on them; empty without guesses."""
    if not guesses:
        return ""
    return f"Guessed, please check: {'; '.join(map(str, guesses))}."


def pooled_notes(diagnosis: Diagnosis) -> list[str]:
    """Return the note on channels that are several criteria of a completion; empty without such channels."""
    if not diagnosis.pooled:
        return []
    return [
        f"{', '.join(diagnosis.pooled)}: the verdict is about several criteria of a completion together, so one "
        "of them may be ignored without a sign here. For a verdict on a criterion, give it a label of its own: its "
        "category, or its first tag if it has no category."
    ]


def summary(diagnosis: Diagnosis) -> str:
    """Return which channels need attention, which are copies of each other, and whether exploration collapses."""
    parts = (_of_channels(diagnosis), *_copies(diagnosis), exploration_sentence(diagnosis.exploration))
    return " ".join(filter(None, parts))


def _copies(diagnosis: Diagnosis) -> list[str]:
    """Return a sentence for each set of channels that are copies of each other."""
    return [
        f"{', '.join(names[:-1])} and {names[-1]} are copies of one reward, which counts with all their weights."
        for names in diagnosis.copies()
    ]


def _of_channels(diagnosis: Diagnosis) -> str:
    diverging, names, unclear = (
        [channel.name for channel in diagnosis.channels if channel.verdict == verdict]
        for verdict in ("diverging", "neglected", "unclear")
    )
    total = len(diagnosis.channels)
    faded = faded_sentence(diagnosis.channels)
    if not names and not unclear and not diverging:
        return f"None of {total} channels is neglected{' over the whole run' if faded else ''}. {faded}".rstrip()
    words = ((diverging, "diverging from a monitor"), (names, "neglected"), (unclear, "unclear"))
    sentences = [_counted(found, total, word) for found, word in words if found]
    sentences += [faded] if faded else []
    # What would settle an unclear verdict is news of the first line, if it is the same for all of them.
    reasons = {channel.rule for channel in diagnosis.channels if channel.verdict == "unclear"}
    if len(reasons) == 1 and (reason := reasons.pop()).startswith(DEPENDS):
        sentences.append(f"{_capital(reason)}.")
    return " ".join(sentences)


def faded_sentence(channels: Sequence[ChannelDiagnosis]) -> str:
    """Return which channels lost their influence although they are healthy over the whole run; "" if none did."""
    names = [channel.name for channel in channels if channel.has_lost_influence]
    their = "its" if len(names) == 1 else "their"
    return f"{', '.join(names)} lost {their} influence by the last third of the steps." if names else ""


def _counted(names: Sequence[str], total: int, word: str) -> str:
    return f"{len(names)} of {total} channels {'is' if len(names) == 1 else 'are'} {word}: {', '.join(names)}."


def replay_text(replay: Replay, *, as_markdown: bool = False, terminal: Terminal = PLAIN) -> str:
    """Return the table of rules, and the notes."""
    names = list(dict.fromkeys(name for rule in replay.rules for name in rule.influence or ()))
    own = next((rule.influence for rule in replay.rules if rule.influence and rule.method == replay.own), None)
    own = own or next((rule.influence for rule in replay.rules if rule.influence), {})
    names.sort(key=lambda name: (value := (own or {}).get(name)) is None or value)  # the lowest correlation first
    shown = names[:6]
    table = [["rule", "sign flips", "rank corr.", "channels", *shown]]
    for rule in replay.rules:
        cells = [_share(rule.sign_flips), _number(rule.rank_correlation), _number(rule.effective_channels)]
        influence = rule.influence or {}
        table.append([rule.method, *cells, *(_number(influence.get(name), sign="+") for name in shown)])
    method = "method unknown" if replay.own is None else replay.own
    gives = "" if replay.own_difference is None else f", replayed to within {replay.own_difference:.2g}"
    notes = [
        "sign flips: share of completions whose advantage has the opposite sign of the run's own advantage. rank "
        "corr.: rank correlation with the run's own advantages, within groups. channels: effective number of channels "
        "that decide a completion. The other columns: correlation of the rule's advantage with each channel"
        + (f" (the {len(shown)} of {len(names)} with the lowest one)." if len(names) > len(shown) else "."),
        "The completions are from the policy that the run trained. The table shows the advantages that each rule gives "
        "these completions, not how a training with that rule would have gone on.",
        *replay.notes,
    ]
    problems = [f"{rule.method}: {rule.problem}" for rule in replay.rules if rule.problem]
    head = f"{replay.run} ({method}{gives}), {replay.completions:,} completions"
    return _text(head, table, problems, notes, None if as_markdown else terminal, guessed(replay.guesses))


def _text(
    head: str,
    table: list[list[str]],
    sentences: list[str],
    notes: list[str],
    terminal: Terminal | None,
    guess: str = "",
    further: list[list[str]] | None = None,
) -> str:
    """Return the whole text for a terminal or as Markdown. The guesses come first.

    Args:
        head: the headline.
        table: the table; its first row is the header.
        sentences: one sentence per channel.
        notes: facts that a reader has to know.
        terminal: where the text is printed; None for Markdown.
        guess: the line that lists the guesses.
        further: a second table, after the sentences.
    """
    head, guess = printable(head), printable(guess)
    sentences, notes = [*map(printable, sentences)], [*map(printable, notes)]
    if terminal is None:
        parts = [f"### {head}", "", *markdown(table)]
        bullet = "- "
    else:
        parts = [_filled(head, terminal, ""), "", *fitted(table, terminal.width, terminal.paint, SPARE)]
        sentences, notes = ([_filled(line, terminal) for line in lines] for lines in (sentences, notes))
        bullet = "* "
    if guess:
        parts = [f"**{guess}**" if terminal is None else _filled(guess, terminal, ""), "", *parts]
    parts += ["", *(bullet + line for line in sentences)] if sentences else []
    if further:
        lines = markdown(further) if terminal is None else fitted(further, terminal.width, terminal.paint)
        parts += ["", *lines]
    parts += ["", *(bullet + line for line in notes)] if notes else []
    return "\n".join(parts) + "\n"


def _filled(line: str, terminal: Terminal, indent: str = "  ") -> str:
    """Wrap a line to the width of a terminal; long words, such as paths, are never broken."""
    width = terminal.prose - len(indent)  # the first line begins with a bullet
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
