"""What a run explores, in words and as a table: for the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Sequence

from rvpo.diagnose.exploration import Exploration, QuestionCurves, Series

PERIODS = ("first tenth", "middle", "last tenth")


def exploration_sentence(exploration: Exploration | None) -> str:
    """Return what belongs in the headline: a collapse, or that nothing is left to learn from; else nothing."""
    if exploration is None or exploration.verdict not in ("collapses", "stalls"):
        return ""
    if exploration.verdict == "collapses":
        return "Exploration collapses: hardly a question is left to learn from, although some are unsolved."
    return "Training stalls: hardly a question is left to learn from, although some are unsolved."


def exploration_notes(exploration: Exploration | None) -> list[str]:
    """Return the verdict with its numbers, and over how many questions."""
    if exploration is None:
        return []
    told = [f"Exploration {_verb(exploration.verdict)}: {exploration.rule}."]
    if exploration.solved is not None:
        told[0] += f" A question is solved by a completion that meets {_names(exploration.counting)}."
        fewest = {k: count for k, count in exploration.pass_groups.items() if count < exploration.groups}
        if fewest:
            parts = ", ".join(f"pass@{k} over {count:,}" for k, count in fewest.items())
            told.append(f"Of {exploration.groups:,} questions, not all have enough scored completions: {parts}.")
    if exploration.entropy is not None:
        told.append(f"The entropy is {exploration.entropy_of}, as the trainer logged it.")
    return told


def exploration_table(exploration: Exploration | None) -> list[list[str]]:
    """Return shares, Pass@k and entropy at the beginning, in the middle and at the end; nothing without any."""
    if exploration is None:
        return []
    rows: list[list[str]] = []
    if exploration.solved is not None:
        rows += _rows("", exploration.solved)
    if len(exploration.channels) > 1:
        for name, curves in exploration.channels.items():
            rows += _rows(f"{name}: ", curves)
    if exploration.entropy is not None:
        rows.append(["entropy", *(_number(value) for value in periods(exploration.entropy))])
    return [["questions", *PERIODS], *rows] if rows else []


def periods(series: Series) -> list[float | None]:
    """Return the means of the first tenth of the points, of the middle one and of the last one."""
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
