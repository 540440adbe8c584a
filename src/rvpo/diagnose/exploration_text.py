"""The exploration of a run in words and as a table, for the terminal, Markdown and the HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from rvpo.diagnose.exploration import Exploration, QuestionCurves, Series

PERIODS = ("first tenth", "middle", "last tenth")


def exploration_sentence(exploration: Exploration | None) -> str:
    """Return the sentence for the headline if exploration collapses or training stalls; otherwise an empty text."""
    if exploration is None or exploration.verdict not in ("collapses", "stalls"):
        return ""
    if exploration.verdict == "collapses":
        return "Exploration collapses: hardly any questions are left to learn from, although some are unsolved."
    return "Training stalls: hardly any questions are left to learn from, although some are unsolved."


def exploration_notes(exploration: Exploration | None) -> list[str]:
    """Return the verdict with its numbers, and the number of questions."""
    if exploration is None:
        return []
    notes = [f"Exploration {_verb(exploration.verdict)}: {exploration.rule}."]
    if exploration.solved is not None:
        notes[0] += f" A completion solves its question if it meets {_names(exploration.counting)}."
        fewest = {k: count for k, count in exploration.pass_groups.items() if count < exploration.groups}
        if fewest:
            parts = ", ".join(f"pass@{k} is over {count:,} questions" for k, count in fewest.items())
            notes.append(
                f"Some of the {exploration.groups:,} questions have too few scored completions for every k: {parts}."
            )
    if exploration.entropy is not None:
        notes.append(f"The entropy is {exploration.entropy_of}, as the trainer logged it.")
    return notes


def exploration_table(exploration: Exploration | None, *, of_channels: bool = True) -> list[list[str]]:
    """Return the table of shares, Pass@k and entropy at the beginning, middle and end; empty without values.

    Args:
        exploration: exploration of the run; None if it is not known.
        of_channels: whether the channels have rows of their own.
    """
    if exploration is None:
        return []
    rows: list[list[str]] = []
    if exploration.solved is not None:
        rows += _rows("", exploration.solved)
    if of_channels and len(exploration.channels) > 1:
        for name, curves in exploration.channels.items():
            rows += _rows(f"{name}: ", curves)
    if exploration.entropy is not None:
        rows.append(["entropy", *(_number(value) for value in periods(exploration.entropy))])
    return [["questions", *PERIODS], *rows] if rows else []


def periods(series: Series) -> list[float | None]:
    """Return the means of the first, the middle and the last tenth of the points."""
    width = max(1, len(series) // 10)
    middle = (len(series) - width) // 2
    return [_mean(series[start : start + width]) for start in (0, middle, len(series) - width)]


def _rows(prefix: str, curves: QuestionCurves) -> list[list[str]]:
    shares = {"solved by none": curves.none, "solved by some": curves.some, "solved by all": curves.all}
    passes = {f"pass@{k}": series for k, series in curves.passes.items()}
    return [[prefix + name, *(_share(value) for value in periods(x))] for name, x in (shares | passes).items()]


def _verb(verdict: str) -> str:
    return {"unclear": "is unclear", "explores": "does not collapse"}.get(verdict, verdict)


def _names(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
