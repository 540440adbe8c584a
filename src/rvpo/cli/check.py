"""The command ``rvpo check``. It imports what it needs when it runs, so that ``rvpo --help`` is instant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rvpo.conformance.suite import Report


def check(
    function: Annotated[
        str,
        typer.Argument(
            help="rvpo:METHOD, trl:grpo, trl:gdpo, verl:ESTIMATOR, package.module:function or path/file.py:function"
        ),
    ],
    style: Annotated[
        str,
        typer.Option(
            help="completions: f(rewards (N, M), groups (N,)) -> (N,). tokens: verl's f(token_level_rewards, "
            "response_mask, index, …). auto: by the names of its parameters."
        ),
    ] = "completions",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="key=value, an argument for the function; repeatable.")
    ] = None,
    k_name: Annotated[
        str | None, typer.Option(help="Name of its risk coefficient, so that its limits are checked.")
    ] = None,
    channels: Annotated[str, typer.Option(help="many, one (reward a completion), or auto.")] = "auto",
    declare: Annotated[
        list[str] | None,
        typer.Option(
            help="What the rule is by design: levels, shared-weights, bundles, spread-penalty, adapts or "
            "complete-only; repeatable."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that shall agree with a single one; 1 leaves that out.")
    ] = 2,
    local_rows: Annotated[
        bool, typer.Option("--local-rows", help="In several processes it gets its own rows and gathers by itself.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the processes may take.")] = 120.0,
    seeds: Annotated[int, typer.Option(min=1, help="Batches of each shape.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the findings.")] = None,
) -> None:
    """Check an advantage function, yours or an engine's, for what training relies on.

    Calls it on small batches and asks: limits of k, padding and lengths, order of rows and channels, groups, missing
    rewards, constant channels, extreme values, several processes. Prints what fails with a small batch that shows it.
    The code that is named is run. Exit code 1 where a required property fails.
    """
    from rvpo.conformance.suite import check as ask
    from rvpo.conformance.target import Spec
    from rvpo.conformance.targets import parse_options, resolve

    options = parse_options(option or [], "--option")
    spec = Spec(function, style, options, k_name, channels, tuple(declare or ()))
    report = ask(resolve(spec), seeds=seeds, processes=processes, timeout=timeout, local_rows=local_rows)
    _show(report, json_file)
    if not report.passed:
        raise typer.Exit(1)


def _show(report: Report, json_file: Path | None) -> None:
    from rvpo.conformance.show import as_data, as_text

    typer.echo(as_text(report))
    if json_file is not None:
        json_file.write_text(json.dumps(as_data(report), indent=1, allow_nan=False) + "\n", "utf-8")
