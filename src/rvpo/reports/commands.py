"""``rvpo diagnose`` and ``rvpo replay`` on the command line, and the options that say what logs look like."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvpo.doctor import needs_extra
from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from rvpo.core import AdvantageConfig
    from rvpo.reports.records import Columns, Run

LOGS = "Folder of a run (rvpo's, TRL's with log_completions=True, verl's rollout_data_dir), or a parquet or JSONL file."
Logs = Annotated[Path, typer.Argument(help=LOGS, show_default=False)]
Rewards = Annotated[str | None, typer.Option(help="Columns of the rewards, a,b,c. Default: found by their names.")]
Group = Annotated[str | None, typer.Option(help="Column that says which completions answer one prompt.")]
GroupSize = Annotated[int | None, typer.Option(min=2, help="Completions of a prompt, where rows lie in blocks.")]
Advantage = Annotated[str | None, typer.Option(help="Column of the advantage that the run used.")]
Step = Annotated[str | None, typer.Option(help="Column of the training step.")]
Weights = Annotated[
    str | None, typer.Option(help="Importance of the channels in their order, 1,0.5,2, where the logs do not tell it.")
]
Ranges = Annotated[
    list[str] | None,
    typer.Option(
        "--range", help="Lowest and highest reward of a channel, NAME=LOW:HIGH, for rules that need them; repeatable."
    ),
]
Steps = Annotated[str | None, typer.Option(help="Only these steps, FIRST:LAST, such as 50: or :100.")]
Method = Annotated[
    str | None,
    typer.Option(help="How the run made its advantages, where the logs do not say: NAME or NAME:option=value,…"),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write everything here as JSON.")]
MarkdownFile = Annotated[Path | None, typer.Option("--markdown", help="Write the table here as Markdown.")]


def diagnose(
    path: Logs,
    rewards: Rewards = None,
    group: Group = None,
    group_size: GroupSize = None,
    advantage: Advantage = None,
    step: Step = None,
    weights: Weights = None,
    ranges: Ranges = None,
    steps: Steps = None,
    method: Method = None,
    k: Annotated[float, typer.Option(min=0, help="Of the soft minimum that tells responsibilities.")] = 1.0,
    texts: Annotated[
        bool, typer.Option(help="Read completions, too: equal ones with different rewards show a noisy channel.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
    html: Annotated[Path | None, typer.Option(help="Write the page here, as `rvpo report` does.")] = None,
) -> None:
    """Say which rewards of a run are ignored, from logs that are there already: a verdict a channel, and why.

    neglected: it hardly moves the advantage, or the others outvote it. dead: it ranks hardly any group. saturated:
    nothing left to gain. noisy: equal completions are scored differently. unclear: more groups would tell.
    """
    with needs_extra("report", "reports"):
        from rvpo.progress import Progress
        from rvpo.reports import diagnose as diagnosing
        from rvpo.reports.terminal import diagnosis_text

        run = opened(path, columns_of(rewards, group, group_size, advantage, step), steps, weights, ranges)
        assumed = parsed(method)
        with Progress("steps", len(run.steps)) as bar:
            found = diagnosing.diagnose(run, k=k, assumed=assumed, texts=texts, seed=seed, progress=bar.advance)
    typer.echo(diagnosis_text(found))
    write_json(json_file, found.to_json())
    write_text(markdown_file, diagnosis_text(found, as_markdown=True))
    if html is not None:
        from rvpo.reports.report import report

        write_text(html, report([run], assumed=assumed, k=k, diagnoses=[found]))


def replay(
    path: Logs,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Rules, NAME or NAME:option=value,option=value, separated by blanks, such as "
            "'gdpo rvpo:k=2 rvpo:k=5 lift:kappa=4'. Default: the usual ones.",
        ),
    ] = None,
    rewards: Rewards = None,
    group: Group = None,
    group_size: GroupSize = None,
    advantage: Advantage = None,
    step: Step = None,
    weights: Weights = None,
    ranges: Ranges = None,
    steps: Steps = None,
    method: Method = None,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """Aggregate the logged rewards of a run under other rules, and say what they would have done differently.

    The run's own method, replayed, gives its logged advantages; how exactly is told.
    """
    with needs_extra("report", "reports"):
        from rvpo.progress import Progress
        from rvpo.reports import replay as replaying
        from rvpo.reports.terminal import replay_text

        rules = replaying.parse_methods(methods or " ".join(replaying.DEFAULT))
        run = opened(path, columns_of(rewards, group, group_size, advantage, step), steps, weights, ranges)
        with Progress("steps", len(run.steps)) as bar:
            found = replaying.replay(run, rules, assumed=parsed(method), progress=bar.advance)
    typer.echo(replay_text(found))
    write_json(json_file, found.to_json())
    write_text(markdown_file, replay_text(found, as_markdown=True))


def columns_of(
    rewards: str | None, group: str | None, group_size: int | None, advantage: str | None, step: str | None
) -> Columns:
    """Return the options that say how logs look."""
    from rvpo.reports.records import Columns

    names = tuple(part.strip() for part in rewards.split(",")) if rewards else None
    if names and (len(set(names)) < len(names) or "" in names):
        raise ConfigError(f"--rewards is {rewards!r}, allowed is each column once, separated by commas: name them anew")
    return Columns(names, group, advantage, step, group_size=group_size)


def opened(
    path: Path, columns: Columns, steps: str | None, weights: str | None, ranges: Sequence[str] | None = None
) -> Run:
    """Open logs."""
    from rvpo.reports.opening import open_run
    from rvpo.reports.records import with_ranges, with_weights

    run = open_run(path, columns).between(*bounds_of(steps))
    run = with_ranges(run, dict(map(_range, ranges or ())))
    if weights is None:
        return run
    try:
        numbers = [float(part) for part in weights.split(",")]
    except ValueError:
        raise ConfigError(
            f"--weights is {weights!r}, allowed are numbers separated by commas: give one a channel, such as 1,0.5"
        ) from None
    return with_weights(run, numbers)


def parsed(method: str | None) -> AdvantageConfig | None:
    """Return the method of an option."""
    from rvpo.reports.replay import parse_method

    return None if method is None else parse_method(method)


def write_json(path: Path | None, value: Any) -> None:
    """Write an output that was asked for; numbers that are not finite are null."""
    if path is not None:
        write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path | None, text: str) -> None:
    """Write an output that was asked for, and say so.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        return
    from rvpo.files import write

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another file") from error
    typer.echo(f"written: {path}")


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, _, limits = text.rpartition("=")
    low, _, high = limits.partition(":")
    try:
        return name, (float(low), float(high))
    except ValueError:
        raise ConfigError(f"--range is {text!r}, allowed is NAME=LOW:HIGH: write it as in correctness=-3:3") from None


def bounds_of(steps: str | None) -> tuple[int | None, int | None]:
    """Return the first and the last step of an option, None where it leaves one out."""
    if steps is None:
        return None, None
    first, colon, last = steps.partition(":")
    if not colon or not all(part.strip() == "" or part.strip().isdecimal() for part in (first, last)):
        raise ConfigError(f"--steps is {steps!r}, allowed is FIRST:LAST: leave either out, as in 50:")
    return (int(first) if first.strip() else None), (int(last) if last.strip() else None)
