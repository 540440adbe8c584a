"""The command line. Commands import what they need when they run, so that ``rvpo --help`` is instant."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from rvpo import __version__, interrupts
from rvpo.cli.arena import arena
from rvpo.cli.check import check_command
from rvpo.cli.compare import compare_command
from rvpo.cli.demo import demo
from rvpo.cli.diagnose import diagnose_command
from rvpo.cli.doctor import doctor
from rvpo.cli.eval import app as evaluate
from rvpo.cli.interruptible import interruptible, print_line
from rvpo.cli.judge import judge
from rvpo.cli.quickstart import quickstart
from rvpo.cli.replay import replay_command
from rvpo.cli.report import report_command
from rvpo.cli.train import train_command
from rvpo.cli.verl_data import verl_data
from rvpo.errors import RVPOError
from rvpo.extras import missing_package
from rvpo.files import disk_trouble
from rvpo.text.guarded import Formatter, guard_terminal
from rvpo.text.tables import printable

app = typer.Typer(
    name="rvpo",
    help="Train language models on many rewards without neglecting any (RVPO, arXiv 2605.05750).",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # Markdown joins the lines of a paragraph, so that help wraps to the terminal.
    pretty_exceptions_enable=False,
)
app.command("train")(train_command)
app.command("judge")(judge)
app.command("verl-data")(verl_data)
app.command("quickstart")(quickstart)
app.command("arena")(arena)
app.command("demo")(demo)
app.command("doctor")(doctor)
app.add_typer(evaluate)
app.command("diagnose")(diagnose_command)
app.command("replay")(replay_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("check")(check_command)
for registered in (*app.registered_commands, *evaluate.registered_commands):
    if registered.callback is not None:
        registered.callback = interruptible(registered.callback)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _setup(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show informational messages of libraries.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    logging.getLogger("rvpo").setLevel(logging.INFO)  # rvpo's own messages are few and meant for the user


def main() -> None:
    """Run the command line. Errors of rvpo and of the disk are printed as a message, without a traceback."""
    guard_terminal()
    try:
        with interrupts.handled(print_line):  # typer reads the commands before it runs one, which takes a moment
            app()
    except KeyboardInterrupt as interrupt:
        print_line(interrupts.said(interrupt))
        interrupts.end()
        raise SystemExit(interrupts.exit_code()) from None
    except RVPOError as error:
        _print_error(str(error))
        raise SystemExit(2) from None
    except Exception as error:
        trouble = missing_package(error) or disk_trouble(error)
        if trouble is None:
            raise
        _print_error(trouble)
        raise SystemExit(2) from None


def _print_error(message: str) -> None:
    text = "\n".join(printable(line) for line in message.split("\n"))
    typer.secho(f"error: {text}", err=True, fg=typer.colors.RED)
