"""Several runs in a sentence: which channel diverges or is neglected, in how many runs, and with which methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rvpo.diagnose.diagnosis import Diagnosis

NAMED = 4  # channels or methods that a sentence names


def headline(diagnoses: Sequence[Diagnosis]) -> str:
    """Return the headline of several runs: one sentence per neglected channel, the most often neglected first.

    Channels that diverge from a monitor come before them, and channels that lost their influence after them. Runs with
    unclear verdicts are counted, so that the headline never claims that a channel is fine when this is not known.
    """
    runs = len(diagnoses)
    sentences = _sentences("diverging", "diverges from a monitor", diagnoses)
    unclear = len({i for found in _runs_with(diagnoses, "unclear").values() for i in found})
    if neglected := _sentences("neglected", "is neglected", diagnoses):
        sentences += neglected
    elif unclear == runs:
        sentences.append(f"It is unclear whether a channel is neglected: all {runs} runs have unclear verdicts.")
        unclear = 0
    else:
        sentences.append(f"No channel is neglected in any of {runs} runs.")
    faded = [i for i, diagnosis in enumerate(diagnoses) if any(c.has_lost_influence for c in diagnosis.channels)]
    if faded:
        sentences.append(f"In {_named(faded, diagnoses)}, a healthy channel lost its influence during the run.")
    if unclear == 1:
        sentences.append("1 run has unclear verdicts.")
    elif unclear:
        sentences.append(f"{unclear} runs have unclear verdicts.")
    return " ".join(sentences)


def _sentences(verdict: str, words: str, diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Return one sentence per channel with a verdict, the most frequent first."""
    found = _runs_with(diagnoses, verdict)
    ranked = sorted(found, key=lambda name: -len(found[name]))
    sentences = [_sentence(f"{name} {words}", found[name], diagnoses) for name in ranked[:NAMED]]
    if more := ranked[NAMED:]:
        are = words.replace("is ", "are ").replace("diverges", "diverge")
        sentences.append(f"{len(more)} more channels {are} in some of the runs.")
    return sentences


def _named(found: Sequence[int], diagnoses: Sequence[Diagnosis]) -> str:
    """Return the names of runs, the first ones if there are many."""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{', '.join(diagnoses[i].run for i in found[:NAMED])}{more}"


def _sentence(beginning: str, found: Sequence[int], diagnoses: Sequence[Diagnosis]) -> str:
    runs = len(diagnoses)
    every = "both" if runs == 2 else f"all {runs}"
    where = every if len(found) == runs else f"{len(found)} of {runs}"
    sentence = f"{beginning} in {where} runs"
    methods = list(dict.fromkeys(diagnosis.method for diagnosis in diagnoses))
    if len(found) == runs:
        return f"{sentence}."
    if not 1 < len(methods) <= NAMED:
        return f"{sentence} ({_named(found, diagnoses)})."
    parts = []
    for method in methods:
        own = [i for i, diagnosis in enumerate(diagnoses) if diagnosis.method == method]
        parts.append(f"{sum(i in own for i in found)} of {len(own)} with {method}")
    return f"{sentence}: {', '.join(parts)}."


def _runs_with(diagnoses: Iterable[Diagnosis], verdict: str) -> dict[str, list[int]]:
    """Return channel -> indices of the runs with this verdict on it."""
    found: dict[str, list[int]] = {}
    for i, diagnosis in enumerate(diagnoses):
        for channel in diagnosis.channels:
            if channel.verdict == verdict:
                found.setdefault(channel.name, []).append(i)
    return found
