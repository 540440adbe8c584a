"""``rvpo compare``: compare training runs by method over seeds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rvpo.cli.logs import (
    Group,
    GroupSize,
    JsonFile,
    MarkdownFile,
    RewardsOption,
    Solved,
    Step,
    Steps,
    bounds_of,
    columns_of,
    names_of,
    write_json,
    write_text,
)
from rvpo.extras import needs_extra


class Measure(StrEnum):
    """Summary of a curve that is compared."""

    auc = "auc"
    last = "last"
    best = "best"
    drop = "drop"


def compare_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of runs, a folder that contains runs, or NAME=FOLDER,FOLDER,… for the seeds of one method. "
            "Without names, runs that differ only in their seeds form one group.",
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="Name of the group that the others are compared with. Default: the first.")
    ] = None,
    measure: Annotated[
        Measure,
        typer.Option(help="auc: mean over all steps; last: the end; best: the highest window; drop: best - last."),
    ] = Measure.auc,
    everything: Annotated[
        bool, typer.Option("--all", help="Print all measures, and the numbers of all channels.")
    ] = False,
    unpaired: Annotated[
        bool, typer.Option("--unpaired", help="Do not pair runs by seed where both groups have the same seeds.")
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Number of steps averaged for first, best and last. Default: 5% of the steps."),
    ] = None,
    trailing: Annotated[
        bool, typer.Option("--trailing", help="In --json: smooth curves over the steps before, not over those around.")
    ] = False,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals.")] = 0.95,
    rewards: RewardsOption = None,
    group: Group = None,
    group_size: GroupSize = None,
    step: Step = None,
    steps: Steps = None,
    solved: Solved = None,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """Compare training runs by method over seeds: differences with intervals, tests, and "cannot tell".

    Compares every channel, and the worst one, by its reward as a share of its range, from the training logs. Then
    compares exploration: questions solved by none, some and all of their completions, unbiased Pass@k, and entropy.
    """
    with needs_extra("report", "reports", "scipy"):
        from rvpo.compare.comparison import MEASURES
        from rvpo.compare.folders import refuse_evaluations
        from rvpo.compare.run_groups import find_runs, group_runs
        from rvpo.compare.tables import trainings_text
        from rvpo.compare.trainings import compare_trainings
        from rvpo.text.progress import Progress
        from rvpo.text.terminal import current

        refuse_evaluations(runs)
        columns, between = columns_of(rewards, group, group_size, None, step), bounds_of(steps)
        found = find_runs(runs)
        with Progress("runs", len(found.paths)) as bar:
            groups = group_runs(found, columns, between, bar.advance)
        comparison = compare_trainings(
            groups.runs,
            baseline=baseline,
            window=window,
            trailing=trailing,
            unpaired=unpaired,
            level=level,
            notes=groups.notes,
            solved=names_of(solved),
        )
    measures = MEASURES if everything else (measure.value,)
    typer.echo(trainings_text(comparison, measures, channels=everything, terminal=current()))
    write_json(json_file, comparison.to_json())
    write_text(markdown_file, trainings_text(comparison, MEASURES, as_markdown=True))
