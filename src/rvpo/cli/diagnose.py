"""``rvpo diagnose``: which rewards of a run are ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvpo.cli.logs import (
    Advantage,
    Group,
    GroupSize,
    JsonFile,
    Logs,
    MarkdownFile,
    MethodOption,
    Ranges,
    RewardsOption,
    Step,
    Steps,
    Weights,
    columns_of,
    opened,
    parsed,
    write_json,
    write_text,
)
from rvpo.extras import needs_extra


def diagnose_command(
    path: Logs,
    rewards: RewardsOption = None,
    group: Group = None,
    group_size: GroupSize = None,
    advantage: Advantage = None,
    step: Step = None,
    weights: Weights = None,
    ranges: Ranges = None,
    steps: Steps = None,
    method: MethodOption = None,
    k: Annotated[
        float, typer.Option(min=0, help="Risk coefficient of the soft minimum behind the responsibilities.")
    ] = 1.0,
    texts: Annotated[
        bool,
        typer.Option(help="Whether to read completions, too: equal ones with different rewards show a noisy channel."),
    ] = True,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap.")] = 0,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
    html: Annotated[Path | None, typer.Option(help="File to write the page to, as `rvpo report` does.")] = None,
) -> None:
    """Show which rewards of a run are ignored: one verdict per channel, and why. Works on any finished run.

    neglected: it hardly moves the advantage, or the others outvote it. dead: it ranks hardly any group. saturated:
    nothing left to gain. noisy: equal completions are scored differently. unclear: more groups are needed to be sure.
    """
    with needs_extra("report", "reports"):
        from rvpo.diagnose import diagnose as diagnosing
        from rvpo.diagnose.text import diagnosis_text
        from rvpo.text.progress import Progress

        run = opened(path, columns_of(rewards, group, group_size, advantage, step), steps, weights, ranges)
        assumed = parsed(method)
        with Progress("steps", len(run.steps)) as bar:
            found = diagnosing.diagnose(run, k=k, assumed=assumed, texts=texts, seed=seed, progress=bar.advance)
    typer.echo(diagnosis_text(found))
    write_json(json_file, found.to_json())
    write_text(markdown_file, diagnosis_text(found, as_markdown=True))
    if html is not None:
        from rvpo.page.report import build_report

        write_text(html, build_report([run], assumed=assumed, k=k, diagnoses=[found]))
