"""``rvpo demo``: diagnose a small sample run with known truth, or write it as a log to try other commands on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rvpo.errors import ConfigError
from rvpo.extras import needs_extra

SAMPLE = Path(__file__).with_name("sample_run")
"""Sample run of 40 steps in TRL's log format, made by ``rvpo.logs.demo`` with seed 0, and its ``truth.txt``."""


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Write a sample log to this folder, new or empty, instead of diagnosing the shipped one."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the completions, for --out.")] = 0,
) -> None:
    """Diagnose a small sample run whose truth is known, in a few seconds and without training.

    The log looks like that of a TRL run with log_completions=True and six rewards: one is ignored, one is outvoted, one
    is dead, and three are healthy. The last lines show the truth, and the command that diagnoses your own run. With
    --out, a log like it is written to a folder, so that you can try the other commands on it.
    """
    if out is None and seed != 0:
        raise ConfigError(f"--seed is {seed}, but the shipped run has one seed; expected --out, the folder to write to")
    with needs_extra("report", "reports"):
        if out is None:
            _diagnose_the_sample()
        else:
            _write(out, seed)


def _diagnose_the_sample() -> None:
    from rvpo.cli.logs import print_text
    from rvpo.diagnose.diagnose import diagnose
    from rvpo.diagnose.text import diagnoses_text
    from rvpo.logs.open import open_run
    from rvpo.text.terminal import current

    terminal = current()
    print_text(diagnoses_text([diagnose(open_run(SAMPLE))], terminal=terminal), terminal)
    typer.echo(
        f"\nthe truth: {truth(SAMPLE)}.\n\nnext, on a run of your own (logs of TRL, verl or others, not only rvpo's):"
    )
    typer.echo("  rvpo diagnose YOUR_RUN      # its folder, or a file of rollouts")
    typer.echo("or write the sample to a folder, to try replay and report on it:")
    typer.echo("  rvpo demo --out runs/demo")


def truth(folder: Path) -> str:
    """Return the known truth of a sample log in one line: its channels by verdict.

    Args:
        folder: folder of the log. Its ``truth.txt`` has one line ``CHANNEL: VERDICT. Why.`` per channel.

    Returns:
        Text such as ``format, brevity neglected; citations dead``.

    Example:
        >>> truth(SAMPLE)
        'format, brevity neglected; citations dead; correctness, detail, advice healthy'
    """
    channels: dict[str, list[str]] = {}
    for line in (folder / "truth.txt").read_text(encoding="utf-8").splitlines():
        channel, _, rest = line.partition(": ")
        channels.setdefault(rest.partition(".")[0], []).append(channel)
    return "; ".join(f"{', '.join(names)} {verdict}" for verdict, names in channels.items())


def _write(out: Path, seed: int) -> None:
    from rvpo.logs.demo import write_demo

    folder = write_demo(out, seed)
    shown = shlex.quote(str(folder))
    typer.echo(f"written: {folder}\n\nnext:")
    typer.echo(f"  rvpo diagnose {shown}     # which rewards are ignored, and why")
    typer.echo(f"  rvpo report {shown}       # the same on a page: report.html")
    typer.echo(f"\nthe truth, to compare: {folder / 'truth.txt'}")
