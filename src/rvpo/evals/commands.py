"""``rvpo eval …``: the benchmarks and their comparison on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvpo.errors import ConfigError

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="eval",
    help="Evaluate a checkpoint with the field's own evaluators, and say what is signal and what is noise.",
    no_args_is_help=True,
)

Model = Annotated[
    str, typer.Argument(help="Folder of a model or adapter, hub id, or http://host:port/v1#MODEL.", show_default=False)
]
Out = Annotated[
    Path | None, typer.Option(help="The run's folder; called again, it goes on. Default: runs/evals/BENCHMARK/MODEL.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many items, always the same ones.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest reply. Default: see above.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 is greedy. Default: see above.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Nucleus of sampling. Default: see above.")]
Seed = Annotated[int, typer.Option(help="Of sampling. A server is sent one where it is not 0.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Local models: items generated together.")]
Dtype = Annotated[str | None, typer.Option(help="Local models: float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="Local models: cpu, cuda, cuda:1. Default: cuda where there is one.")]
GgufFile = Annotated[str | None, typer.Option(help="Local models: name of a GGUF file in the folder.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Servers: requests in flight.")]
ApiKeyEnv = Annotated[str, typer.Option(help="Servers: NAME of the environment variable with the key.")]
ExtraBody = Annotated[str | None, typer.Option(help="Servers: further fields of a request, as JSON.")]


@app.command()
def healthbench(
    model: Model,
    data: Annotated[Path, typer.Option(help="HealthBench's JSONL: the full, hard or consensus file.")],
    judge: Annotated[
        str, typer.Option(help="Grader: http://host:port/v1#MODEL (reference template), local:FOLDER, or a YAML file.")
    ],
    subset: Annotated[str, typer.Option(help="Which file --data is: full, hard or consensus.")] = "full",
    out: Out = None,
    limit: Limit = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    dtype: Dtype = None,
    device: Device = None,
    gguf_file: GgufFile = None,
    concurrency: Concurrency = 32,
    api_key_env: ApiKeyEnv = "OPENAI_API_KEY",
    extra_body: ExtraBody = None,
) -> None:
    """Rubrics of physicians: overall score, axes and themes as openai/simple-evals computes them.

    Replies have up to 2048 tokens at temperature 0.5, as there.
    """
    _run("healthbench", {"path": data, "judge": judge, "subset": subset, "limit": limit}, locals())


@app.command()
def gpqa(
    model: Model,
    data: Annotated[
        str, typer.Option(help="gpqa_diamond.csv, or the hub id, whose terms must be accepted there.")
    ] = "Idavidrein/gpqa",
    epochs: Annotated[int, typer.Option(min=1, help="Times that each question is asked, each in another order.")] = 4,
    order_seed: Annotated[int, typer.Option(help="Of the order of the answers.")] = 0,
    out: Out = None,
    limit: Limit = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    dtype: Dtype = None,
    device: Device = None,
    gguf_file: GgufFile = None,
    concurrency: Concurrency = 32,
    api_key_env: ApiKeyEnv = "OPENAI_API_KEY",
    extra_body: ExtraBody = None,
) -> None:
    """Multiple-choice questions of graduate level, with a chain of thought.

    Replies have up to 2048 tokens at temperature 0.5, as in simple-evals.
    """
    _run("gpqa", {"path": data, "epochs": epochs, "seed": order_seed, "limit": limit}, locals())


@app.command()
def bfcl(
    model: Model,
    categories: Annotated[
        str, typer.Option(help="Comma-separated: all, non_live, live, or single ones such as simple_python.")
    ] = "all",
    prompting: Annotated[
        str, typer.Option(help="rlla: ToolRL's layout of <think> and <tool_call>; own: the model's own tool format.")
    ] = "own",
    rlla_template: Annotated[
        Path | None,
        typer.Option(help="For rlla: the RLLA file whose sentences the model was trained on. Default: our own words."),
    ] = None,
    out: Out = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many items a category, always the same.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    dtype: Dtype = None,
    device: Device = None,
    gguf_file: GgufFile = None,
    concurrency: Concurrency = 32,
    api_key_env: ApiKeyEnv = "OPENAI_API_KEY",
    extra_body: ExtraBody = None,
) -> None:
    """Function calling: the single-turn categories of BFCL, decided by the official checker of bfcl-eval.

    Replies have up to 4096 tokens, greedily.
    """
    options = {"categories": categories, "prompting": prompting, "template": rlla_template, "limit": limit}
    _run("bfcl", options, locals())


@app.command()
def toolcall(
    model: Model,
    data: Annotated[str, typer.Option(help="Held-out dialogues: RLLA's files, or JSONL with prompt and answer.")],
    layout: Annotated[str, typer.Option(help="Of --data: auto, rlla, rlla_parquet, jsonl, …")] = "auto",
    offset: Annotated[int, typer.Option(min=0, help="Skip so many rows: those trained on.")] = 0,
    max_prompt_chars: Annotated[int | None, typer.Option(min=1, help="Leave out longer prompts.")] = None,
    shuffle_seed: Annotated[int | None, typer.Option(help="Shuffle before --offset, as the recipe's data did.")] = None,
    out: Out = None,
    limit: Limit = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    dtype: Dtype = None,
    device: Device = None,
    gguf_file: GgufFile = None,
    concurrency: Concurrency = 32,
    api_key_env: ApiKeyEnv = "OPENAI_API_KEY",
    extra_body: ExtraBody = None,
) -> None:
    """Tool calls on dialogues of RLLA's layout: format and correctness as ToolRL scores them.

    Replies have up to 512 tokens, greedily.
    """
    options = {
        "path": data,
        "layout": layout,
        "max_prompt_chars": max_prompt_chars,
        "shuffle_seed": shuffle_seed,
        "offset": offset,
        "limit": limit,
    }
    _run("toolcall", options, locals())


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of finished runs, or NAME=FOLDER,FOLDER,… for several training seeds of a method. The first "
            "is what the others are compared with.",
            show_default=False,
        ),
    ],
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    smallest: Annotated[
        float, typer.Option(min=0, help="Difference of interest, in units of the metric: how many items would tell it?")
    ] = 0.02,
    out: Annotated[Path | None, typer.Option(help="Write the comparison here, too: .json or .md.")] = None,
) -> None:
    """Compare runs item by item: differences with intervals, tests, and "cannot tell" where that is the answer."""
    if out is not None and out.suffix not in (".json", ".md"):
        raise ConfigError(f"--out is {str(out)!r}, allowed is a file that ends in .json or .md: rename it")
    from rvpo.evals.build import needs_extra

    with needs_extra():
        from rvpo.evals.compare import compare as compared
        from rvpo.files import write

        comparison = compared(runs, level=level, smallest=smallest)
    typer.echo(comparison.to_text())
    if out is None:
        return
    text = comparison.to_markdown() if out.suffix == ".md" else json.dumps(comparison.to_json(), indent=1) + "\n"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(out, text)
    except OSError as error:
        raise ConfigError(f"--out is {str(out)!r} ({error.strerror}), allowed is a file that can be written") from error
    typer.echo(f"written: {out}")


def _folder(benchmark: str, model: str, out: Path | None) -> Path:
    """Return the folder of a run; a model's folder gives its last two names, as in my-run-checkpoint-100."""
    at_server = model.startswith(("http://", "https://"))
    name = model.partition("#")[2] if at_server else "-".join(Path(model).resolve().parts[-2:])
    return out or Path("runs/evals") / benchmark / re.sub(r"[^\w.-]+", "-", name).strip("-.")


def _run(name: str, options: dict[str, Any], given: dict[str, Any]) -> None:
    """Evaluate with the options of a command (its local variables), and print the results."""
    folder = _folder(name, given["model"], given["out"])
    chosen = {key: given[key] for key in ("max_tokens", "temperature", "top_p") if given[key] is not None}
    from rvpo.evals.build import generation_of, load_benchmark, needs_extra

    with needs_extra():
        from rvpo.evals.models import load_policy
        from rvpo.evals.run import evaluate, table

        benchmark = load_benchmark(name, options, folder)
        generation = generation_of(benchmark, chosen | {"seed": given["seed"]})
        policy = load_policy(
            given["model"],
            gguf_file=given["gguf_file"],
            dtype=given["dtype"],
            device=given["device"],
            batch_size=given["batch_size"],
            api_key_env=given["api_key_env"],
            concurrency=given["concurrency"],
            extra_body=_mapping(given["extra_body"]),
        )
        try:
            results = evaluate(benchmark, policy, folder, generation=generation)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: what is done is kept in {folder}, and the same command goes on", err=True)
            raise typer.Exit(130) from None
    typer.echo(table(results))
    typer.echo(f"\nresults: {folder / 'results.json'}\nitems:   {folder / 'items.parquet'}")


def _mapping(text: str | None) -> dict[str, Any] | None:
    try:
        values = json.loads(text) if text else {}
    except ValueError as error:  # what stands there may hold a key, so it is not repeated
        raise ConfigError(f"--extra-body is no JSON ({error}), allowed is a JSON object in quotes") from None
    if not isinstance(values, dict):
        raise ConfigError("--extra-body is JSON but no object, allowed is one such as '{\"top_k\": 20}'")
    return values
