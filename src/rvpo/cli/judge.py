"""``rvpo judge``: verdicts on existing completions, without training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer


def judge(
    data: Annotated[
        Path,
        typer.Argument(help="JSONL or parquet file with prompt, completion and rubric; or a run's completions folder."),
    ],
    judge_spec: Annotated[
        str,
        typer.Option("--judge", help="rule, local:FOLDER, http://host:port/v1#MODEL, or a YAML file of a judge."),
    ],
    rubrics: Annotated[
        Path | None, typer.Option(help="File of prompts with rubrics, joined by prompt, if DATA has no rubric column.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Layout of --rubrics: auto, rubrics, rar or healthbench.")] = "auto",
    pitfalls: Annotated[
        str | None,
        typer.Option(help="How layout rar words pitfalls: met_is_bad or met_is_good; see rvpo.data.rubrics."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Parquet file to write, with one row per completion and criterion.")] = Path(
        "verdicts.parquet"
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Judge only the first completions.")] = None,
) -> None:
    """Judge existing completions by their rubrics, without training.

    Every verdict is saved as it arrives. After an interruption, the same command asks only for what is missing. The API
    key comes from the environment: OPENAI_API_KEY, or the variable that api_key_env of the YAML file names.
    """
    from rvpo import interrupts
    from rvpo.judges.build import load_judge, with_cache
    from rvpo.judges.scoring import read_completions, score, verdict_summary
    from rvpo.text.progress import Progress

    spec = with_cache(
        judge_spec, out.with_name(out.name + ".sqlite")
    )  # also in the middle of a chunk, nothing paid is lost
    judged_by = load_judge(spec)
    options = {"layout": layout, "pitfalls": pitfalls} if rubrics else {}
    questions = read_completions(data, rubrics, **options)[:limit]
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
    _print_table(verdict_summary(rows, questions))
    usage = {key: value for key, value in judged_by.usage().items() if value and not math.isnan(value)}
    if usage:
        typer.echo("\n" + "  ".join(f"{key} {value:.6g}" for key, value in usage.items()))
    if lost := sum(row["verdict"] is None for row in rows):
        typer.secho(f"{lost} of {len(rows)} verdicts are missing; the same command asks for them again", err=True)
    typer.echo(f"verdicts: {out}")


def _cost(usage: dict[str, float]) -> float:
    """Return what was paid since the start; NaN where a judge knows no prices."""
    costs = [value for key, value in usage.items() if key.split("/")[-1] == "cost" and "all" not in key.split("/")]
    return sum(costs) if costs else math.nan


def _print_table(table: dict[str, dict[str, float | None]]) -> None:
    width = max(map(len, table))
    typer.echo(f"{'':<{width}}  {'mean':>6}  {'number':>7}  {'missing':>7}")
    for name, line in table.items():
        mean = "-" if line["mean"] is None else f"{line['mean']:.3f}"
        typer.echo(f"{name:<{width}}  {mean:>6}  {line['number']:>7.0f}  {line['missing']:>7.1%}")
