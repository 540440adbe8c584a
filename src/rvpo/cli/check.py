"""``rvpo check``: check a method or an advantage function. Imports late, so that ``rvpo --help`` is instant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rvpo.conformance.suite import Report


def check_command(
    function: Annotated[
        str,
        typer.Argument(
            help="A method, such as lift, rvpo:k=2 or my_rules.py:cvar; trl:grpo, trl:gdpo or verl:ESTIMATOR; or an "
            "advantage function f(rewards, groups), as path/file.py:function or package.module:function."
        ),
    ],
    style: Annotated[
        str,
        typer.Option(
            help="How a function is called. completions: f(rewards (N, M), groups (N,)) -> (N,). tokens: verl's "
            "f(token_level_rewards, response_mask, index, …). method: f(z (N, M), p (N, M)) -> (N,), which is also "
            "recognized by parameters named z and p. auto: by the names of its parameters."
        ),
    ] = "completions",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="Argument for the function, key=value; repeatable.")
    ] = None,
    k_name: Annotated[
        str | None, typer.Option(help="Name of the risk coefficient, so that its limits are checked.")
    ] = None,
    channels: Annotated[str, typer.Option(help="Rewards per completion: many, one, or auto.")] = "auto",
    declare: Annotated[
        list[str] | None,
        typer.Option(
            help="Trait that the function has by design: levels, shared-weights, bundles, spread-penalty, ordered, "
            "adapts or complete-only; repeatable. A method declares its traits in its property `traits`."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of processes for the multi-process check; 1 skips it.")
    ] = 2,
    local_rows: Annotated[
        bool,
        typer.Option(
            "--local-rows", help="Give each process only its own rows. The function gathers the others itself."
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Time limit of the multi-process check, in seconds.")] = 120.0,
    seeds: Annotated[int, typer.Option(min=1, help="Number of batches of each shape.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="File to write the findings to.")] = None,
) -> None:
    """Check that a method or an advantage function has the properties that training relies on.

    Works on your own function and on an engine's. It is called on small batches that test limits of k, padding and
    lengths, order of rows and channels, groups, missing rewards, constant channels, extreme values and several
    processes. Each failure is printed with a small batch that shows it. The code that you name is imported and run.
    The exit code is 1 if a required property fails.
    """
    from rvpo import interrupts

    with interrupts.says(lambda: "a check saves nothing before its end; the same command starts again"):
        from rvpo.conformance.suite import PROPERTIES
        from rvpo.conformance.suite import run_checks as checked
        from rvpo.conformance.target import Spec
        from rvpo.conformance.targets import parse_options, resolve
        from rvpo.text.progress import Progress

        options = parse_options(option or [], "--option")
        spec = Spec(function, style, options, k_name, channels, tuple(declare or ()))
        target = resolve(spec)
        with Progress("properties", PROPERTIES) as bar:
            report = checked(
                target,
                seeds=seeds,
                processes=processes,
                timeout=timeout,
                local_rows=local_rows,
                progress=lambda finding: bar.advance(1, f"last: {finding.asked.name}, {finding.status}"),
            )
    _show(report, json_file)
    if not report.passed:
        raise typer.Exit(1)


def _show(report: Report, json_file: Path | None) -> None:
    from rvpo.conformance.show import as_data, report_as_text

    typer.echo(report_as_text(report))
    if json_file is not None:
        json_file.write_text(json.dumps(as_data(report), indent=1, allow_nan=False) + "\n", "utf-8")
