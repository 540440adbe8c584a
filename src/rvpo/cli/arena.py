"""``rvpo arena``: compare all rules on small tasks with known best answers."""

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
    fields: Annotated[
        str, typer.Option(help="Sets of tasks, separated by blanks: regimes, worlds, quickstart.")
    ] = "regimes worlds",
    cells: Annotated[
        str, typer.Option(help="Regimes, worlds, or splits of worlds to run, such as `given`. Default: all.")
    ] = "",
    seeds: Annotated[
        int, typer.Option(min=2, max=16, help="Number of seeds per rule and cell, paired between rules.")
    ] = 8,
    baseline: Annotated[str, typer.Option(help="Rule that the others are tested against.")] = "gdpo",
    about: Annotated[str, typer.Option(help="Rule for which the cells are listed where it is not first.")] = "lift",
    parallel: Annotated[int, typer.Option(min=1, help="Number of processes; each uses one core.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for records, table and numbers.")] = Path("runs/arena"),
) -> None:
    """Train rules on small tasks with known best answers, and print which rule neglects which channel.

    Every run is saved when it ends. The same command continues after an interruption, and further rules are added to
    the finished ones. All rules on regimes and worlds take about two hours on two cores; one rule takes a few minutes.
    """
    from rvpo import interrupts

    with interrupts.says(lambda: f"finished runs are saved in {out}; the same command continues"):
        _arena(methods, fields.split(), cells.split(), seeds, baseline, about, parallel, out)


def _arena(
    methods: str, fields: list[str], cells: list[str], seeds: int, baseline: str, about: str, parallel: int, out: Path
) -> None:
    from rvpo.arena.cost import milliseconds
    from rvpo.arena.fields import FIELDS as KNOWN
    from rvpo.arena.table import Scores, markdown, not_first, rows
    from rvpo.core.methods.registry import build_method, read_texts, spell

    if unknown := [name for name in fields if name not in KNOWN]:
        raise ConfigError(f"fields contains {unknown[0]!r}; expected one or more of {', '.join(KNOWN)}")
    if cells and (len(fields) > 1 or fields == ["quickstart"]):
        raise ConfigError(f"cells is {' '.join(cells)!r} for {' '.join(fields)}; expected one field: regimes or worlds")
    texts = list(dict.fromkeys(spell(method) for method in read_texts(methods)))
    base, subject = (spell(build_method(text)) for text in (baseline, about))
    if base not in texts:
        raise ConfigError(f"baseline is {baseline!r}; expected one of the compared rules: {', '.join(texts)}")
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
            lines += ["", _standing(subject, not_first(scores, subject), len(scores.cells))]
        parts.append("\n".join(lines))
    text = "\n\n".join(parts) + "\n"
    (out / "arena.md").write_text(text, "utf-8")
    (out / "arena.json").write_text(json.dumps(results, indent=1), "utf-8")
    typer.echo(f"\n{text}\ntable: {out / 'arena.md'}\nnumbers: {out / 'arena.json'}")


def _standing(method: str, lost: list[tuple[str, str, float]], cells: int) -> str:
    """Return a sentence that lists the cells in which a rule is not first."""
    if not lost:
        return f"`{method}` is first in all {cells} cells."
    named = ", ".join(f"{cell} ({winner} by {gap:.3f})" for cell, winner, gap in lost)
    return f"`{method}` is not first in {len(lost)} of {cells} cells: {named}."
