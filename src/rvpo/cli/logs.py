"""Options that several commands share: the columns of logs, and the files for output."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvpo.cli.completion import method_names
from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from rvpo.core import AdvantageConfig
    from rvpo.logs.run import Columns, Run
    from rvpo.text.terminal import Terminal

LOGS = (
    "Folder of a run (rvpo's, TRL's with log_completions=True, verl's rollout_data_dir), a file of rollouts (JSONL, "
    "JSON, CSV, parquet; also gzip or zstd), or a tracker's run: wandb:ENTITY/PROJECT/RUN, trackio:PROJECT/RUN."
)
Logs = Annotated[Path, typer.Argument(help=LOGS, show_default=False)]
RewardsOption = Annotated[
    str | None, typer.Option(help="Columns with the rewards, a,b,c. Default: found by their names.")
]
Group = Annotated[
    str | None, typer.Option(help="Column with the group id. A group is the completions of one prompt in one step.")
]
GroupSize = Annotated[
    int | None, typer.Option(min=2, help="Completions per prompt, if the rows of a group follow each other.")
]
Advantage = Annotated[str | None, typer.Option(help="Column with the advantage that the run used.")]
Step = Annotated[str | None, typer.Option(help="Column with the training step.")]
Weights = Annotated[
    str | None, typer.Option(help="Weight of each channel, in order, such as 1,0.5,2, if the logs do not have them.")
]
Ranges = Annotated[
    list[str] | None,
    typer.Option(
        "--range",
        help="Lowest and highest reward of a channel, NAME=LOW:HIGH, for methods that need scales, such as lift. Other "
        "rewards have the scale [0, 1], which is learned if a reward lies outside it. Repeatable.",
    ),
]
Solved = Annotated[
    str | None,
    typer.Option(
        help="Channels that a completion has to meet to solve its question, a,b. Default: those named in the record, "
        "or else all that are trained on."
    ),
]
Metrics = Annotated[
    Path | None,
    typer.Option(
        help="File with the run's metrics, for the entropy: metrics.jsonl, trainer_state.json, or the file of verl's "
        "file logger. Default: the file found in the run's folder."
    ),
]
Steps = Annotated[str | None, typer.Option(help="Steps to read, FIRST:LAST, such as 50: or :100.")]
MethodOption = Annotated[
    str | None,
    typer.Option(
        autocompletion=method_names,
        help="Method of the run, if the logs do not have it: NAME or NAME:option=value, such as lift:kappa=3. Name "
        "your own method here, too, such as my_rules.py:cvar: code named in a record is never imported.",
    ),
]


def named_file(path: Path | None) -> Path | None:
    """Return a file to write; the callback of options that name one.

    Raises:
        ConfigError: it is "-", which would become a file of this name although other programs print then.
    """
    if path == Path("-"):
        raise ConfigError("'-' is not the name of a file; expected a file, such as out.json. Name one, or /dev/stdout")
    return path


JsonFile = Annotated[
    Path | None, typer.Option("--json", callback=named_file, help="File to write everything to as JSON.")
]
MarkdownFile = Annotated[
    Path | None, typer.Option("--markdown", callback=named_file, help="File to write the table to as Markdown.")
]


def given_options(context: typer.Context, names: Collection[str]) -> list[str]:
    """Return the options among ``names`` that the user gave, as words of a command line."""
    words = []
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            value = context.params[parameter.name]
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [parameter.opts[0], str(one)]
    return words


def columns_of(
    rewards: str | None, group: str | None, group_size: int | None, advantage: str | None, step: str | None
) -> Columns:
    """Return the columns of the logs from the options."""
    from rvpo.logs.run import Columns

    names = tuple(part.strip() for part in rewards.split(",")) if rewards else None
    if names and (len(set(names)) < len(names) or "" in names):
        raise ConfigError(f"--rewards is {rewards!r}; expected each column once, separated by commas, such as a,b,c")
    return Columns(names, group, advantage, step, group_size=group_size)


def names_of(option: str | None) -> tuple[str, ...]:
    """Return the names in an option a,b; an empty tuple if the option is absent.

    Raises:
        ConfigError: one of the names is empty.
    """
    names = tuple(part.strip() for part in option.split(",")) if option is not None else ()
    if "" in names:
        raise ConfigError(f"--solved is {option!r}; expected channels, separated by commas. Name at least one")
    return names


def opened(
    path: Path,
    columns: Columns,
    steps: str | None,
    weights: str | None,
    ranges: Sequence[str] | None = None,
    solved: str | None = None,
) -> Run:
    """Open logs with the options of a command."""
    from rvpo.logs.open import open_run
    from rvpo.logs.run import with_ranges, with_solved, with_weights

    run = open_run(path, columns, bounds_of(steps))
    run = with_ranges(run, dict(map(_range, ranges or ())))
    if solved is not None:
        run = with_solved(run, names_of(solved))
    if weights is None:
        return run
    try:
        numbers = [float(part) for part in weights.split(",")]
    except ValueError:
        raise ConfigError(
            f"--weights is {weights!r}; expected numbers separated by commas. Give one per channel, such as 1,0.5"
        ) from None
    return with_weights(run, numbers)


def parsed(method: str | None) -> AdvantageConfig | None:
    """Return the method that an option names; None if the option is absent."""
    from rvpo.core import AdvantageConfig
    from rvpo.core.methods.registry import build_method

    return None if method is None else AdvantageConfig(build_method(method))


def print_text(text: str, terminal: Terminal) -> None:
    """Print a text that was laid out for a terminal. In a pipe, click would remove colours that the user asked for."""
    typer.echo(text, color=terminal.colours or None)


def write_json(path: Path | None, value: Any) -> None:
    """Write a value as JSON if a file was given. Numbers that are not finite become null."""
    if path is not None:
        write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path | None, text: str) -> None:
    """Write a text if a file was given, and print the file's name.

    Raises:
        ConfigError: the file cannot be written.
    """
    if path is None:
        return
    from rvpo.files import write

    try:
        write(path, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); choose another file") from error
    typer.echo(f"written: {path}")


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, _, limits = text.rpartition("=")
    low, _, high = limits.partition(":")
    try:
        return name, (float(low), float(high))
    except ValueError:
        raise ConfigError(f"--range is {text!r}; expected NAME=LOW:HIGH, such as correctness=-3:3") from None


def bounds_of(steps: str | None) -> tuple[int | None, int | None]:
    """Return the first and the last step of an option FIRST:LAST; None for a part that is left out."""
    if steps is None:
        return None, None
    first, colon, last = steps.partition(":")
    if not colon or not all(part.strip() == "" or part.strip().isdecimal() for part in (first, last)):
        raise ConfigError(f"--steps is {steps!r}; expected FIRST:LAST. Either may be left out, as in 50:")
    return (int(first) if first.strip() else None), (int(last) if last.strip() else None)
