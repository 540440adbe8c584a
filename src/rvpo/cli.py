"""The command line. Commands import what they need when they run, so that ``rvpo --help`` is instant."""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from pathlib import Path
from typing import Annotated

import typer

from rvpo import __version__
from rvpo.conformance.command import check
from rvpo.errors import RVPOError
from rvpo.evals.commands import app as evals
from rvpo.reports.commands import diagnose, replay
from rvpo.reports.compare_command import compare
from rvpo.reports.report_command import report
from rvpo.tables import printable

app = typer.Typer(
    name="rvpo",
    help="Train language models on many rewards without neglecting one (RVPO, arXiv 2605.05750).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(evals)
app.command("diagnose")(diagnose)
app.command("replay")(replay)
app.command("compare")(compare)
app.command("report")(report)
app.command("check")(check)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _setup(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show informational messages of libraries, too.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("rvpo").setLevel(logging.INFO)  # what we say ourselves is little, and meant for the user


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, see recipes/ for examples.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value, for example trainer.max_steps=20 method.name=gdpo schedule=null"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
) -> None:
    """Train a model as a recipe says.

    `trainer` takes every option of TRL's GRPOConfig, `warm_start.trainer` of SFTConfig, `method` of
    rvpo.AdvantageConfig and `data` of rvpo.data.load_prompts. The run's folder keeps the resolved recipe, versions,
    metrics.jsonl, completions and checkpoints.
    """
    from rvpo.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    _quiet_transformers()
    from rvpo.engines.trl.run import train as run

    folder = run(loaded, resume=resume)
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"done: {folder}")


@app.command("judge")
def judge_completions(
    data: Annotated[
        Path,
        typer.Argument(help="JSONL or parquet with prompt, completion and rubric; or a run's completions folder."),
    ],
    judge: Annotated[
        str,
        typer.Option("--judge", help="rule, local:FOLDER, http://host:port/v1#MODEL, or a YAML file of a judge."),
    ],
    rubrics: Annotated[
        Path | None, typer.Option(help="Prompts with rubrics, joined by the prompt, where DATA has no rubric column.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Of --rubrics: auto, rubrics, rar or healthbench.")] = "auto",
    pitfalls: Annotated[
        str | None, typer.Option(help="For layout rar: met_is_bad or met_is_good; see rvpo.data.rubrics.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Parquet with one row a completion and criterion.")] = Path(
        "verdicts.parquet"
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first completions.")] = None,
) -> None:
    """Judge existing completions by their rubrics, without training.

    Every verdict is kept as soon as it is there: interrupted or called again, only what is missing is asked. An API key
    comes from the environment (OPENAI_API_KEY, or the variable that api_key_env of the YAML file names).
    """
    from rvpo.judges.build import load_judge, with_cache
    from rvpo.judges.scoring import read_completions, score, summary
    from rvpo.progress import Progress

    spec = with_cache(judge, out.with_name(out.name + ".sqlite"))  # also in the middle of a chunk, nothing paid is lost
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

        try:
            rows = score(questions, judged_by, out, judged_by=json.dumps(spec, default=str), progress=progress)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {bar.done} of {total} verdicts are kept, and the same command goes on", err=True)
            raise typer.Exit(130) from None
    _print_table(summary(rows, questions))
    usage = {key: value for key, value in judged_by.usage().items() if value and not math.isnan(value)}
    if usage:
        typer.echo("\n" + "  ".join(f"{key} {value:.6g}" for key, value in usage.items()))
    if lost := sum(row["verdict"] is None for row in rows):
        typer.secho(f"{lost} of {len(rows)} verdicts are missing: the same command asks for them again", err=True)
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


@app.command("verl-data")
def verl_data(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or any YAML file with a section `data` (and `eval_data`).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, for example data.path=train.parquet data.limit=512")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for train.parquet and eval.parquet. Its name is the rows' data_source.")
    ] = Path("data/verl"),
) -> None:
    """Write a recipe's data as the parquet files that verl trains on.

    `data` takes every option of rvpo.data.load_prompts; paths are as seen from here. For a run on verl, give the files
    as data.train_files and data.val_files; its reward functions find prompt and columns in each row's extra_info.
    """
    from rvpo.recipe import load_data_sections

    sections = load_data_sections(recipe, overrides or [])
    from rvpo.data import load_prompts
    from rvpo.engines.verl.data import write_parquet

    for split, section in sections.items():
        typer.echo(f"reading {section.path}", err=True)
        options = section.model_dump()
        dataset = load_prompts(options.pop("path"), **options)
        path = out / f"{split}.parquet"
        write_parquet(dataset, path, data_source=out.resolve().name, split=split)
        typer.echo(f"{len(dataset)} prompts: {path}")


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for report, plot and numbers.")] = Path("runs/quickstart"),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds a method; outcomes differ by seed, so one says little.")] = 5,
    processes: Annotated[int | None, typer.Option(min=1, help="Runs at the same time; default: one a core.")] = None,
    all_methods: Annotated[
        bool, typer.Option("--all-methods", help="Also GRPO and other risk coefficients, as in docs/results.md.")
    ] = False,
) -> None:
    """Watch RVPO and GDPO train a small built-in model whose rewards conflict (about three minutes on two cores).

    Nothing is downloaded and no GPU is needed. Trains from the same start and seeds with both methods, and once more
    from a start where RVPO is the wrong choice. Called again, it continues where it was stopped.
    """
    from rvpo.quickstart import CELLS, EVALUATED_CELLS, run

    results = run(out, seeds=range(seeds), cells=EVALUATED_CELLS if all_methods else CELLS, processes=processes)
    typer.echo(f"\n{results.text}\n\nplot: {results.plot}\nnumbers: {results.json}")


@app.command()
def doctor() -> None:
    """Say what is installed, what works here, and what to install for what."""
    import torch

    from rvpo import doctor as checks

    for name in checks.PACKAGES:
        typer.echo(f"{name:<14}{checks.installed(name) or '-'}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    typer.echo(f"{'GPU':<14}{device}")
    engines = [name for name in ("trl", "verl") if checks.installed(name)]
    typer.echo(f"{'engine':<14}{' and '.join(engines) or 'none'}\n")
    for capability in checks.CAPABILITIES:
        missing = capability.missing
        state = "works"
        if missing:
            remedy = "in an environment of its own, " if capability.excluded else ""
            state = f"missing {', '.join(missing)}: {remedy}{capability.command}"
        typer.echo(f"{capability.what:<40}{state}")
    for note in checks.conflicts() + checks.untested():
        typer.echo(f"note: {note}")


def _quiet_transformers() -> None:
    """Leave the training's progress bar alone on the terminal."""
    # TRL 1.16 calls names that transformers 6 will remove, in each step; nothing that our user could change.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # of reading and writing weights; training has its own


def main() -> None:
    """Run the command line; an error of ours is a message, not a traceback."""
    try:
        app()
    except RVPOError as error:
        text = "\n".join(printable(line) for line in str(error).split("\n"))
        typer.secho(f"error: {text}", err=True, fg=typer.colors.RED)
        raise SystemExit(2) from None
