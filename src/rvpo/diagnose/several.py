"""Several runs in a sentence: which channel is neglected, in how many runs, and with which methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rvpo.diagnose.diagnosis import Diagnosis

NAMED = 4  # channels or methods that a sentence names


def headline(diagnoses: Sequence[Diagnosis]) -> str:
    """Return the headline of several runs: one sentence per neglected channel, the most often neglected first.

    Runs with unclear verdicts are counted, so that the headline never claims that a channel is fine when this is not
    known.
    """
    runs = len(diagnoses)
    neglected = _runs_with(diagnoses, "neglected")
    unclear = len({i for found in _runs_with(diagnoses, "unclear").values() for i in found})
    if neglected:
        ranked = sorted(neglected, key=lambda name: -len(neglected[name]))
        sentences = [_sentence(name, neglected[name], diagnoses) for name in ranked[:NAMED]]
        if more := ranked[NAMED:]:
            sentences.append(f"{len(more)} more channels are neglected in some of the runs.")
    elif unclear == runs:
        sentences = [f"It is unclear whether a channel is neglected: all {runs} runs have unclear verdicts."]
        unclear = 0
    else:
        sentences = [f"No channel is neglected in any of {runs} runs."]
    if unclear == 1:
        sentences.append("1 run has unclear verdicts.")
    elif unclear:
        sentences.append(f"{unclear} runs have unclear verdicts.")
    return " ".join(sentences)


def _sentence(name: str, found: Sequence[int], diagnoses: Sequence[Diagnosis]) -> str:
    runs = len(diagnoses)
    every = "both" if runs == 2 else f"all {runs}"
    where = every if len(found) == runs else f"{len(found)} of {runs}"
    sentence = f"{name} is neglected in {where} runs"
    methods = list(dict.fromkeys(diagnosis.method for diagnosis in diagnoses))
    if len(found) == runs:
        return f"{sentence}."
    if not 1 < len(methods) <= NAMED:
        named = [diagnoses[i].run for i in found[:NAMED]]
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return f"{sentence} ({', '.join(named)}{more})."
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
