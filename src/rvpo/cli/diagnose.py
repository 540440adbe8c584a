"""``rvpo diagnose``: show which rewards of a run are ignored."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rvpo.cli.logs import (
    LOGS,
    Advantage,
    Group,
    GroupSize,
    JsonFile,
    MarkdownFile,
    MethodOption,
    Metrics,
    Ranges,
    RewardsOption,
    Solved,
    Step,
    Steps,
    Weights,
    columns_of,
    given_options,
    named_file,
    opened,
    parsed,
    print_text,
    write_json,
    write_text,
)
from rvpo.errors import ConfigError
from rvpo.extras import needs_extra

SHARED = (
    "rewards", "group", "group_size", "advantage", "step", "weights", "ranges", "steps", "solved", "method", "k",
)  # fmt: skip
"""Options that `rvpo report` takes as well, so the next command repeats them."""


def diagnose_command(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help=f"{LOGS} Or a folder of runs.", show_default=False)],
    rewards: RewardsOption = None,
    group: Group = None,
    group_size: GroupSize = None,
    advantage: Advantage = None,
    step: Step = None,
    weights: Weights = None,
    ranges: Ranges = None,
    steps: Steps = None,
    solved: Solved = None,
    metrics: Metrics = None,
    method: MethodOption = None,
    k: Annotated[
        float, typer.Option(min=0, help="Risk coefficient of the soft minimum that gives the responsibilities.")
    ] = 1.0,
    texts: Annotated[
        bool,
        typer.Option(help="Read completions, too: equal completions with different rewards show a noisy channel."),
    ] = True,
    exploration: Annotated[
        bool,
        typer.Option("--exploration", help="Print the questions solved and Pass@k of every channel, too."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap.")] = 0,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
    html: Annotated[
        Path | None, typer.Option(callback=named_file, help="File to write the HTML page of `rvpo report` to.")
    ] = None,
) -> None:
    """Show which rewards of a run are ignored: one verdict per channel, and why. Works on any finished run.

    The verdicts:

    - neglected: the channel hardly moves the advantage, or the others outvote it.
    - dead: it ranks hardly any group.
    - saturated: hardly anything is left to gain.
    - noisy: equal completions are scored differently.
    - diverging: it rises while a monitor (a channel of weight 0) falls. The policy may have found a loophole in it.
    - unclear: more groups are needed to be sure.

    Also shows whether exploration collapses: questions solved by none, some and all of their completions, Pass@k and
    entropy. In a folder of runs, such as the quickstart's, every run is diagnosed, and the first line covers them all.
    """
    with needs_extra("report", "reports"):
        from rvpo.compare.run_groups import find_runs
        from rvpo.diagnose import diagnose as diagnosing
        from rvpo.diagnose.readings import DEPENDS
        from rvpo.diagnose.text import diagnoses_text
        from rvpo.logs.entropy import read_entropy
        from rvpo.text.progress import Progress
        from rvpo.text.terminal import current

        columns, assumed = columns_of(rewards, group, group_size, advantage, step), parsed(method)
        paths = find_runs([path])
        for note in paths.notes:
            typer.echo(f"note: {note}", err=True)
        runs = [opened(run, columns, steps, weights, ranges, solved) for _, run in paths.paths]
        if metrics is not None and len(runs) > 1:
            raise ConfigError(
                f"--metrics is one file, but there are {len(runs)} runs; expected one run. Pass the folder of one run"
            )
        entropy = None if metrics is None else read_entropy(metrics)
        with Progress("steps", sum(len(run.steps) for run in runs)) as bar:
            found = [
                diagnosing.diagnose(
                    run, k=k, assumed=assumed, texts=texts, seed=seed, progress=bar.advance, entropy=entropy
                )
                for run in runs
            ]
    terminal = current()
    print_text(diagnoses_text(found, terminal=terminal, exploration=exploration), terminal)
    if html is None and any(channel.verdict in ("diverging", "neglected") for one in found for channel in one.channels):
        command = shlex.join(["rvpo", "report", str(path), *given_options(context, SHARED)])
        print_text(f"Next: a page with the lines to copy:\n  {command}", terminal)
    rules = [
        channel.rule for one in found for channel in one.channels if channel.rule.startswith(f"{DEPENDS} the method:")
    ]
    if any("unclear with grpo" not in rule for rule in rules):  # otherwise, the command would settle nothing
        command = shlex.join(["rvpo", "diagnose", str(path), *given_options(context, SHARED), "--method", "grpo"])
        print_text(f"Next, if the run used GRPO (or name its method):\n  {command}", terminal)
    data = [diagnosis.to_json() for diagnosis in found]
    write_json(json_file, data[0] if len(data) == 1 else {"schema": "rvpo.diagnoses/1", "runs": data})
    write_text(markdown_file, diagnoses_text(found, as_markdown=True))
    if html is not None:
        from rvpo.page.report import build_report

        write_text(html, build_report(runs, assumed=assumed, k=k, diagnoses=found))
