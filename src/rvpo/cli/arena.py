"""``rvpo arena``: all rules in all fields, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rvpo.cli.completion import method_names
from rvpo.errors import ConfigError

METHODS = (
    "grpo gdpo rvpo:k=1 rvpo:k=2 hard_min lift ctwa smooth_tchebycheff dara dara:form=symmetric sa_mrpo saw dvao "
    "corr_grpo gd2po gd2po:form=soft verpo mgda"
)
FIELDS = ("regimes", "worlds", "quickstart")


def arena(
    methods: Annotated[
        str,
        typer.Option(
            autocompletion=method_names,
            help="Rules, separated by blanks; your own as my_rules.py:cvar. Default: all that need no options.",
        ),
    ] = METHODS,
    fields: Annotated[str, typer.Option(help="Where they train: regimes, worlds, quickstart.")] = "regimes worlds",
    cells: Annotated[
        str, typer.Option(help="Only these regimes, or worlds, or splits of worlds such as given. Default: all.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=2, max=16, help="Seeds per rule and cell, paired between rules.")] = 8,
    baseline: Annotated[str, typer.Option(help="The rule that the others are tested against.")] = "gdpo",
    about: Annotated[str, typer.Option(help="The rule of which is told where it is not first.")] = "lift",
    parallel: Annotated[int, typer.Option(min=1, help="Processes, one core each.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for records, table and numbers.")] = Path("runs/arena"),
) -> None:
    """Train rules in small tasks with known best answers, and print who neglects what.

    Every run is saved when it ends, so the same command goes on where it was stopped, and further rules join those that
    are there. All rules need about two hours on two cores for the regimes and the worlds; one rule a few minutes.
    """
    from rvpo import interrupts

    with interrupts.says(lambda: f"finished runs are saved in {out}; the same command goes on"):
        _arena(methods, fields.split(), cells.split(), seeds, baseline, about, parallel, out)


def _arena(
    methods: str, fields: list[str], cells: list[str], seeds: int, baseline: str, about: str, parallel: int, out: Path
) -> None:
    from rvpo.arena.cost import milliseconds
    from rvpo.arena.fields import FIELDS as KNOWN
    from rvpo.arena.table import Scores, markdown, not_first, rows
    from rvpo.core.methods.registry import build_method, read_texts, spell

    if unknown := [name for name in fields if name not in KNOWN]:
        raise ConfigError(f"fields names {unknown[0]!r}; expected one or more of {', '.join(KNOWN)}")
    if cells and (len(fields) > 1 or fields == ["quickstart"]):
        raise ConfigError(f"cells is {' '.join(cells)!r} for {' '.join(fields)}; expected one field: regimes or worlds")
    texts = list(dict.fromkeys(spell(method) for method in read_texts(methods)))
    base, subject = (spell(build_method(text)) for text in (baseline, about))
    if base not in texts:
        raise ConfigError(f"baseline is {baseline!r}; expected one of the rules that take part: {', '.join(texts)}")
    results, parts = {}, []
    for name in fields:
        KNOWN[name].train(out / name, texts, seeds, cells, parallel)
    cost = milliseconds(texts)
    for name in fields:
        field = KNOWN[name]
        numbers = range(field.first_seed, field.first_seed + seeds)
        scores = Scores.of(field.read(out / name), texts, numbers)
        if not scores.cells:
            parts.append(f"## {name}\n\nNo cell has runs of all rules.")
            continue
        table = rows(scores, base, cost)
        results[name] = {"rules": table, "cells": scores.cells, "seeds": seeds, "left_out": scores.left_out}
        lines = [f"## {name}", "", f"{field.about}: {len(scores.cells)} cells, {seeds} seeds.", ""]
        lines += [markdown(scores, table, base)]
        if subject in texts:
            lines += ["", _told(subject, not_first(scores, subject), len(scores.cells))]
        parts.append("\n".join(lines))
    text = "\n\n".join(parts) + "\n"
    (out / "arena.md").write_text(text, "utf-8")
    (out / "arena.json").write_text(json.dumps(results, indent=1), "utf-8")
    typer.echo(f"\n{text}\ntable: {out / 'arena.md'}\nnumbers: {out / 'arena.json'}")


def _told(method: str, behind: list[tuple[str, str, float]], cells: int) -> str:
    """Return in which cells a rule is not first."""
    if not behind:
        return f"`{method}` is first in all {cells} cells."
    named = ", ".join(f"{cell} ({winner} by {gap:.3f})" for cell, winner, gap in behind)
    return f"`{method}` is not first in {len(behind)} of {cells} cells: {named}."
