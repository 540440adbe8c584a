"""``rvpo arena``: compare all rules on small tasks with known best answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rvpo.cli.completion import method_names
from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from rvpo.arena.fields import Quickstart, Run, Scripts
    from rvpo.arena.known import Known

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
    known: Annotated[
        str,
        typer.Option(
            help="Scores of finished trainings, which are not repeated: published (those that rvpo ships), none, or a "
            "scores.json of this command."
        ),
    ] = "published",
    out: Annotated[Path, typer.Option(help="Folder for records, table and numbers.")] = Path("runs/arena"),
) -> None:
    """Train rules on small tasks with known best answers, and print which rule neglects which channel.

    Every run is saved when it ends. The same command continues after an interruption, and further rules are added to
    the finished ones. The published scores of rvpo's own rules are used as they are, so only your rule is trained, in
    minutes. To train all rules again, which takes about three hours on two cores, set --known none.
    """
    from rvpo import interrupts

    with interrupts.says(lambda: f"finished runs are saved in {out}; the same command continues"):
        _arena(methods, fields.split(), cells.split(), seeds, baseline, about, parallel, out, known)


def _arena(
    methods: str,
    fields: list[str],
    cells: list[str],
    seeds: int,
    baseline: str,
    about: str,
    parallel: int,
    out: Path,
    known: str = "none",
) -> None:
    from rvpo.arena.cost import milliseconds
    from rvpo.arena.fields import FIELDS as FIELDS_BY_NAME
    from rvpo.arena.known import task_of, text
    from rvpo.arena.table import Scores, legend, markdown, not_first, rows, standing
    from rvpo.core.methods.registry import build_method, read_texts, spell

    if unknown := [name for name in fields if name not in FIELDS_BY_NAME]:
        raise ConfigError(f"fields contains {unknown[0]!r}; expected one or more of {', '.join(FIELDS_BY_NAME)}")
    if cells and (len(fields) > 1 or fields == ["quickstart"]):
        raise ConfigError(f"cells is {' '.join(cells)!r} for {' '.join(fields)}; expected one field: regimes or worlds")
    texts = list(dict.fromkeys(spell(method) for method in read_texts(methods)))
    base, subject = (spell(build_method(text)) for text in (baseline, about))
    if base not in texts:
        raise ConfigError(f"baseline is {baseline!r}; expected one of the compared rules: {', '.join(texts)}")
    stored = _read_known(known, texts)
    results, parts, scores_of, runs_of, tasks = {}, [], {}, {}, {}
    for name in fields:
        field = FIELDS_BY_NAME[name]
        tasks[name] = task_of(field.folder)
        runs_of[name] = _runs(field, tasks[name], stored, texts, cells, seeds, parallel, out / name)
    typer.echo("measuring the time that each rule takes per batch")
    cost = milliseconds(texts)
    for name in fields:
        field = FIELDS_BY_NAME[name]
        numbers = range(field.first_seed, field.first_seed + seeds)
        scores_of[name] = scores = Scores.of(runs_of[name], texts, numbers)
        if not scores.cells:
            parts.append(f"## {name}\n\nNo cell has runs of all rules.")
            continue
        table = rows(scores, base, cost)
        results[name] = {"rules": table, "cells": scores.cells, "seeds": seeds, "left_out": scores.left_out}
        cells_text = "1 cell" if len(scores.cells) == 1 else f"{len(scores.cells)} cells"
        lines = [f"## {name}", "", f"{field.about}. Here: {cells_text}, {seeds} seeds.", ""]
        lines += [markdown(len(scores.cells), table, base), "", legend(base)]
        if subject in texts:
            lines += ["", standing(subject, not_first(scores, subject), len(scores.cells))]
        parts.append("\n".join(lines))
    out.mkdir(parents=True, exist_ok=True)  # where all was known, nothing has made it
    page = "\n\n".join(parts) + "\n"
    (out / "arena.md").write_text(page, "utf-8")
    (out / "arena.json").write_text(json.dumps(results, indent=1), "utf-8")
    (out / "scores.json").write_text(text(tasks, scores_of, runs_of), "utf-8")
    typer.echo(f"\n{page}\ntable: {out / 'arena.md'}\nnumbers: {out / 'arena.json'}\nscores: {out / 'scores.json'}")


def _read_known(known: str, methods: Sequence[str]) -> Known:
    """Return the scores that are not trained again, without those of rules that have changed."""
    from rvpo.arena.known import PUBLISHED, Known

    if known == "none":
        return Known()
    stored = Known.read(PUBLISHED if known == "published" else Path(known))
    for method in stored.changed(methods):
        typer.echo(f"the known scores of {method} are of another form of this rule, so it is trained")
        stored = stored.without(method)
    return stored


def _runs(
    field: Scripts | Quickstart,
    task: str,
    stored: Known,
    methods: Sequence[str],
    chosen: Sequence[str],
    seeds: int,
    parallel: int,
    output: Path,
) -> list[Run]:
    """Train what is neither recorded nor known, and return the runs of the chosen cells."""
    cells = field.cells(chosen)
    numbers = range(field.first_seed, field.first_seed + seeds)
    if not stored.is_of(field.name, task):
        typer.echo(f"the known scores of {field.name} are of another form of its tasks, so all rules are trained")
    runs = stored.of(field.name, task, methods, cells, numbers)
    found: dict[tuple[str, str, float], set[int]] = {}
    for run in runs:
        found.setdefault((run.cell, run.method, run.rate), set()).add(run.seed)
    broken = {place[:2] for place, have in found.items() if have != set(numbers)}
    whole = {place[:2] for place in found} - broken
    runs = [run for run in runs if (run.cell, run.method) in whole]
    # One call for all cells in which the same rules are to be trained.
    to_train: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        missing = tuple(method for method in methods if (cell, method) not in whole)
        to_train.setdefault(missing, []).append(cell)
    if whole:
        typer.echo(f"{field.name}: {len(whole)} of {len(cells) * len(methods)} cells x rules are known")
    for missing, where in to_train.items():
        if missing:
            field.train(output, missing, seeds, where, parallel)
    trained = [run for run in field.read(output) if run.cell in cells]
    have = {(run.cell, run.method) for run in trained}
    return trained + [run for run in runs if (run.cell, run.method) not in have]
