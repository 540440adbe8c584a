"""``rvpo report``: make the HTML page of one or more runs, as a file or live while training runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rvpo.cli.logs import (
    Advantage,
    Group,
    GroupSize,
    MethodOption,
    Ranges,
    RewardsOption,
    Solved,
    Step,
    Steps,
    Weights,
    columns_of,
    named_file,
    names_of,
    opened,
    parsed,
    write_text,
)
from rvpo.compare.folders import named_folders
from rvpo.errors import ConfigError, DataError
from rvpo.extras import needs_extra

if TYPE_CHECKING:
    from rvpo.compare.comparison import TrainingComparison
    from rvpo.compare.run_groups import Found
    from rvpo.logs.run import Columns


def report_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Logs as for `rvpo diagnose`, or a folder of runs, or NAME=FOLDER,FOLDER as for `rvpo compare`.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(callback=named_file, help="File to write the page to.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="Title of the page. Default: the runs' names.")] = None,
    rewards: RewardsOption = None,
    group: Group = None,
    group_size: GroupSize = None,
    advantage: Advantage = None,
    step: Step = None,
    weights: Weights = None,
    ranges: Ranges = None,
    steps: Steps = None,
    solved: Solved = None,
    method: MethodOption = None,
    k: Annotated[
        float, typer.Option(min=0, help="Risk coefficient of the soft minimum that gives the responsibilities.")
    ] = 1.0,
    live: Annotated[
        bool, typer.Option("--live", help="Serve the page while training runs, instead of writing a file.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="For --live: address to serve on. Others can read the run if it is not 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="For --live: port to serve on; 0 takes any free port.")
    ] = 8765,
) -> None:
    """Make one HTML page of runs: verdicts, curves, responsibilities, replays, samples, and a rule explorer.

    The file needs no network and opens from disk. Several runs are compared by method.
    """
    with needs_extra("report", "reports", "scipy"):
        from rvpo.compare.run_groups import find_runs
        from rvpo.page.live import LivePage, server
        from rvpo.page.report import build_report as page

        assumed, columns = parsed(method), columns_of(rewards, group, group_size, advantage, step)

        def make() -> str:
            found = find_runs(runs)
            opens = [opened(path, columns, steps, weights, ranges, solved) for _, path in found.paths]
            compared = _compared(found, columns, names_of(solved))
            if len(opens) > 1 and not live:
                typer.echo(f"reading {len(opens)} runs", err=True)
            return page(opens, title=title, assumed=assumed, k=k, comparison=compared, live=live)

        if not live:
            write_text(out, make())
            return
        watched = [path for run in runs for path in named_folders(run)[1]]
        with server(LivePage(watched, make), host, port) as served:
            typer.echo(f"http://{host}:{served.server_address[1]}/ shows the newest logs; Ctrl-C stops it")
            try:
                served.serve_forever()
            except KeyboardInterrupt:
                typer.echo("stopped")


def _compared(found: Found, columns: Columns, solved: Sequence[str]) -> TrainingComparison | None:
    """Compare the runs by method. Return None if they all use one method or have no step in common."""
    from rvpo.compare.run_groups import group_runs
    from rvpo.compare.trainings import compare_trainings

    if len(found.paths) < 2:
        return None
    groups = group_runs(found, columns)
    if len(groups.runs) < 2:
        return None
    try:
        return compare_trainings(groups.runs, notes=groups.notes, solved=solved)
    except (ConfigError, DataError):
        return None
