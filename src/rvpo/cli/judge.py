"""``rvpo judge``: verdicts on existing completions, without training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from rvpo.cli.logs import JsonFile, MarkdownFile, Step, Steps, bounds_of, write_json, write_text


def judge(
    data: Annotated[
        Path,
        typer.Argument(
            help="File with prompt, completion and rubric (JSONL, JSON, CSV or parquet), or a folder of such files, "
            "such as a run's completions.",
            show_default=False,
        ),
    ],
    judge_spec: Annotated[
        str,
        typer.Option("--judge", help="rule, local:FOLDER, http://host:port/v1#MODEL, or a YAML file of a judge."),
    ],
    rubrics: Annotated[
        Path | None,
        typer.Option(help="File of prompts with rubrics, in any layout, joined by prompt, if DATA has no rubrics."),
    ] = None,
    layout: Annotated[str, typer.Option(help="Layout of --rubrics: auto, rubrics, rar, healthbench, …")] = "auto",
    pitfalls: Annotated[
        str | None,
        typer.Option(help="How Rubrics as Rewards words pitfalls: met_is_bad or met_is_good; see rvpo.data.rubrics."),
    ] = None,
    rubric_key: Annotated[
        list[str] | None,
        typer.Option(
            "--rubric-key",
            help="Where rubrics have names of their own: KEY=NAME for rubric, text, weight, label or id, such as "
            "weight=importance. Repeatable.",
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
    limit: Annotated[int | None, typer.Option(min=1, help="Judge only the first completions.")] = None,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """Judge existing completions by their rubrics, without training.

    Every verdict is saved as it arrives. After an interruption, the same command asks only for what is missing. The API
    key comes from the environment: OPENAI_API_KEY, or the variable that api_key_env of the YAML file names.
    """
    from rvpo import interrupts
    from rvpo.judges.build import load_judge, with_cache
    from rvpo.judges.completions import Reading, read_completions
    from rvpo.judges.scoring import score, verdict_summary
    from rvpo.text.progress import Progress

    spec = with_cache(
        judge_spec, out.with_name(out.name + ".sqlite")
    )  # also in the middle of a chunk, nothing paid is lost
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
    usage = {key: value for key, value in judged_by.usage().items() if value and not math.isnan(value)}
    if usage:
        typer.echo("\n" + "  ".join(f"{key} {value:.6g}" for key, value in usage.items()))
    if lost := sum(row["verdict"] is None for row in rows):
        typer.secho(f"{lost} of {len(rows)} verdicts are missing; the same command asks for them again", err=True)
    typer.echo(f"verdicts: {out}")
    write_json(json_file, summary)
    write_text(markdown_file, _markdown(summary))


def _cost(usage: dict[str, float]) -> float:
    """Return what was paid since the start; NaN where a judge knows no prices."""
    costs = [value for key, value in usage.items() if key.split("/")[-1] == "cost" and "all" not in key.split("/")]
    return sum(costs) if costs else math.nan


def _rubric_keys(given: list[str]) -> dict[str, str]:
    """Return the option ``rubric_keys`` from KEY=NAME."""
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


def _print_table(table: dict[str, dict[str, float | None]]) -> None:
    width = max(map(len, table))
    typer.echo(f"{'':<{width}}  {'mean':>6}  {'number':>7}  {'missing':>7}")
    for name, line in table.items():
        mean = "-" if line["mean"] is None else f"{line['mean']:.3f}"
        typer.echo(f"{name:<{width}}  {mean:>6}  {line['number']:>7.0f}  {line['missing']:>7.1%}")
