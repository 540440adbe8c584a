"""``rvpo judge``: judge existing completions, without training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from rvpo.cli.logs import JsonFile, MarkdownFile, Step, Steps, bounds_of, write_json, write_text

CRITERIA_SHOWN = 20  # more criteria have no line each: they are in the parquet file


def judge(
    data: Annotated[
        Path,
        typer.Argument(
            help="File with prompt, completion and rubric (JSONL, JSON, CSV or parquet), or a folder of such files, "
            "for example a run's completions.",
            show_default=False,
        ),
    ],
    judge_spec: Annotated[
        str,
        typer.Option(
            "--judge", help="Judge: rule, local:FOLDER, http://host:port/v1#MODEL, or a YAML file that describes one."
        ),
    ],
    rubrics: Annotated[
        Path | None,
        typer.Option(help="File of prompts with rubrics, if DATA has none. Rows are joined by prompt."),
    ] = None,
    layout: Annotated[str, typer.Option(help="Layout of --rubrics: auto, rubrics, rar, healthbench, …")] = "auto",
    pitfalls: Annotated[
        str | None,
        typer.Option(
            help="Wording of pitfalls in Rubrics as Rewards: met_is_bad or met_is_good; see rvpo.data.rubrics."
        ),
    ] = None,
    rubric_key: Annotated[
        list[str] | None,
        typer.Option(
            "--rubric-key",
            help="Field names of your rubrics, if they differ from rvpo's: KEY=NAME for rubric, text, weight, label or "
            "id, such as weight=importance. Repeatable.",
        ),
    ] = None,
    skip_without_rubric: Annotated[
        bool,
        typer.Option("--skip-without-rubric", help="Leave out completions whose prompt has no rubric, and count them."),
    ] = False,
    prompt_column: Annotated[str, typer.Option(help="Column with the prompt.")] = "prompt",
    completion_column: Annotated[str, typer.Option(help="Column with the completion.")] = "completion",
    step: Step = None,
    steps: Steps = None,
    out: Annotated[Path, typer.Option(help="Parquet file to write, with one row per completion and criterion.")] = Path(
        "verdicts.parquet"
    ),
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of completions to judge, from the first on. Default: all.")
    ] = None,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """Judge existing completions by their rubrics, without training.

    Every verdict is saved when it arrives. After an interruption, the same command asks only for what is missing. The
    API key is read from the environment variable OPENAI_API_KEY, or from the one named by api_key_env in the YAML file.
    """
    from rvpo import interrupts
    from rvpo.judges.build import load_judge, with_cache
    from rvpo.judges.completions import Reading, read_completions
    from rvpo.judges.scoring import criterion_summary, score, verdict_summary
    from rvpo.text.progress import Progress

    # The cache keeps paid verdicts even if the command ends in the middle of a chunk.
    spec = with_cache(judge_spec, out.with_name(out.name + ".sqlite"))
    judged_by = load_judge(spec)
    reading = Reading(
        prompt_column=prompt_column,
        completion_column=completion_column,
        step_column=step or "step",
        steps=bounds_of(steps),
        rubric_keys=_rubric_keys(rubric_key or []),
        pitfalls=pitfalls,
        skip_without_rubric=skip_without_rubric,
    )
    questions = read_completions(data, rubrics, layout=layout, reading=reading)[:limit]
    total = sum(len(question.criteria) for question, _ in questions)
    with Progress("verdicts", total) as bar:
        missing = 0

        def progress(arrived: int, lost: int) -> None:
            nonlocal missing
            missing += lost
            cost = _cost(judged_by.usage())
            bar.advance(arrived, f"{missing} missing" + ("" if math.isnan(cost) else f", cost {cost:.4g}"))

        with interrupts.says(
            lambda: f"{bar.done - missing} of {total} verdicts are saved; the same command asks for the others"
        ):
            rows = score(questions, judged_by, out, judged_by=json.dumps(spec, default=str), progress=progress)
    summary = verdict_summary(rows, questions)
    _print_table(summary)
    criteria = criterion_summary(rows)
    if len(criteria) <= CRITERIA_SHOWN:
        typer.echo()
        _print_criteria(criteria)
    if any(row["verdict"] is not None and row["verdict"] != row["reward"] for row in rows):
        typer.echo("\nThe numbers are rewards: if it is bad to meet a criterion, 1 means that a completion avoids it.")
    if lines := _usage_lines(judged_by.usage()):
        typer.echo("\n" + "\n".join(lines))
    if lost := sum(row["verdict"] is None for row in rows):
        typer.secho(f"{lost} of {len(rows)} verdicts are missing; the same command asks for them again", err=True)
    typer.echo(f"verdicts: {out}")
    write_json(json_file, summary)
    write_text(markdown_file, _markdown(summary))


def _usage_lines(usage: Mapping[str, float]) -> list[str]:
    """Return what the judge was asked by this command, and by all commands with the same cache if that is more."""
    own: dict[str, float] = {}
    total: dict[str, float] = {}
    for key, value in usage.items():
        *judge, count = key.split("/")
        if not value or math.isnan(value) or count in ("verdicts", "missing"):  # the table has the last two
            continue
        # Totals of the cache file have the part "all", such as all/calls, or small/all/calls of a mixed judge.
        (total if "all" in judge else own)["/".join([*(part for part in judge if part != "all"), count])] = value
    lines = [f"this command: {_counts(own)}"] if own else []
    if any(value != own.get(key) for key, value in total.items()):
        lines.append(f"with earlier commands: {_counts(total)}")
    return lines


def _counts(usage: Mapping[str, float]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value:.6g}" for key, value in usage.items())


def _cost(usage: dict[str, float]) -> float:
    """Return the cost since the start; NaN if the judge has no prices."""
    costs = [value for key, value in usage.items() if key.split("/")[-1] == "cost" and "all" not in key.split("/")]
    return sum(costs) if costs else math.nan


def _rubric_keys(given: list[str]) -> dict[str, str]:
    """Return the option ``rubric_keys`` from texts KEY=NAME."""
    from rvpo.data.options import check_rubric_options
    from rvpo.errors import ConfigError

    pairs = [text.partition("=") for text in given]
    for text, (_, equals, _) in zip(given, pairs, strict=True):
        if not equals:
            raise ConfigError(f"--rubric-key is {text!r}; expected KEY=NAME, such as weight=importance")
    keys = {key: name for key, _, name in pairs}
    check_rubric_options(None, keys, "error")
    return keys


def _markdown(table: dict[str, dict[str, float | None]]) -> str:
    lines = ["| | mean | number | missing |", "|---|---|---|---|"]
    for name, line in table.items():
        mean = "-" if line["mean"] is None else f"{line['mean']:.3f}"
        lines.append(f"| {name} | {mean} | {line['number']:.0f} | {line['missing']:.1%} |")
    return "\n".join(lines) + "\n"


def _print_criteria(table: Mapping[str, Mapping[str, float | None]]) -> None:
    from rvpo.text.tables import aligned, printable

    rows = [["criterion", "mean", "lowest", "highest", "missing"]]
    for name, line in table.items():
        rewards = ["-" if line[key] is None else f"{line[key]:.3f}" for key in ("mean", "lowest", "highest")]
        rows.append([printable(name), *rewards, f"{line['missing']:.1%}"])
    typer.echo("\n".join(aligned(rows)))


def _print_table(table: dict[str, dict[str, float | None]]) -> None:
    width = max(map(len, table))
    typer.echo(f"{'':<{width}}  {'mean':>6}  {'number':>7}  {'missing':>7}")
    for name, line in table.items():
        mean = "-" if line["mean"] is None else f"{line['mean']:.3f}"
        typer.echo(f"{name:<{width}}  {mean:>6}  {line['number']:>7.0f}  {line['missing']:>7.1%}")
