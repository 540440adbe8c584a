"""Compare our HealthBench with that of openai/simple-evals, on random rubrics, conversations and verdicts.

Needs a checkout of that repository, which is not part of this project (MIT):

    --reference  its healthbench_eval.py; sampler/chat_completion_sampler.py is read beside it

Both files are imported, that is, run; what else they import for web pages and tables is replaced by empty modules, and
OpenAI's client by one that keeps the request and recites a verdict. So requests, scores, tag scores, clipped means and
the bootstrap (from the same seed of numpy's global generator) come from the reference's own code. On our side the
examples go through a JSONL file, ``rvpo.evals.healthbench`` and an ``EndpointJudge`` with ``ask="healthbench"``, of which
the call over the network alone is replaced: a request that the reference did not make has no answer.

Equal means the same request to the last character, and the same float to the last bit. Exit code 1 on any difference.
The last table, which is not judged, says what inspect-evals makes of the same verdicts.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib.util
import inspect
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from rvpo.evals.healthbench import SCORE, HealthBench
from rvpo.evals.items import Reply, Scored
from rvpo.judges.endpoint import EndpointJudge
from rvpo.judges.transport import Chat, ServerReply, TransportError

AXES = [f"axis:{name}" for name in ("accuracy", "completeness", "communication", "context", "instructions")]
THEMES = [f"theme:{i}" for i in range(7)]
CLUSTERS = [f"cluster:{i}" for i in range(30)]
SCRAPS = ("fever", "2.5 mg", "größer", "头痛", "😷", "\n", "\n\n", '"', "'", "\\", "\\1", "${x}", "{}", "<b>", "[5]", "# Rubric item",
          "```json", "user: no", " ")  # fmt: skip
KINDS = ("grader requests", "example scores", "tag scores", "tags without a score", "aggregates")
MODEL = "grader"


# --- the reference ----------------------------------------------------------------------------------------------------


def load_reference(path: Path) -> tuple[ModuleType, ModuleType]:
    """Import benchmark and sampler as modules of a package whose other modules are empty."""

    def stub(name: str, **attributes: object) -> None:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(attributes)

    def load(name: str, file: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None or not file.exists():
            raise SystemExit(f"--reference {path}: no Python file {file}; name healthbench_eval.py in a checkout")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    package = "simple_evals_reference"
    stub(package, __path__=[])
    stub(f"{package}.common", HTML_JINJA="", map_with_progress=lambda f, items, **_: [f(item) for item in items])
    stub(f"{package}.sampler", __path__=[])
    names = ("Eval", "EvalResult", "MessageList", "SamplerBase", "SamplerResponse", "SingleEvalResult")
    stub(f"{package}.types", **{name: type(name, (SimpleNamespace,), {}) for name in names})
    for name in ("blobfile", "pandas"):
        stub(name)
    name = "sampler.chat_completion_sampler"
    sampler = load(f"{package}.{name}", path.parent / f"{name.replace('.', '/')}.py")
    module = load(f"{package}.healthbench_eval", path)
    for name in ("blobfile", "pandas"):
        del sys.modules[name]
    return module, sampler


def grading_sampler(module: ModuleType, sampler: ModuleType, client: Any) -> Any:
    """Return the reference's grader, with the options that it gives it, for a client of ours."""
    tree = ast.parse(inspect.getsource(module.physician_completions_main))
    [call] = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "grading_sampler"
    ]
    options = {
        keyword.arg: getattr(module, keyword.value.id)
        if isinstance(keyword.value, ast.Name)
        else ast.literal_eval(keyword.value)
        for keyword in call.keywords
    }
    sampler.OpenAI = lambda: client
    return sampler.ChatCompletionSampler(**options | {"model": MODEL})


class Recorder:
    """Takes the place of the reference's client: keeps each request, and gives the next of the verdicts."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.met: list[bool] = []
        self.chat = SimpleNamespace(completions=self)

    def create(self, **request: Any) -> SimpleNamespace:
        answer = json.dumps({"explanation": "So it is.", "criteria_met": self.met.pop(0)}, indent=2)
        self.answers[canonical(request)] = f"```json\n{answer}\n```"
        message = SimpleNamespace(content=self.answers[canonical(request)])
        return SimpleNamespace(choices=[SimpleNamespace(message=message)], usage=None)


def canonical(request: dict[str, Any]) -> str:
    return json.dumps(request, sort_keys=True)


# --- ours -------------------------------------------------------------------------------------------------------------


class Recited(EndpointJudge):
    """Our judge, whose server knows the answers to the reference's requests alone."""

    async def check(self) -> None:
        """Ask nothing: there is no server."""


def ours(examples: list[dict[str, Any]], answers: dict[str, str]) -> tuple[list[Scored], dict[str, Any], int]:
    """Return the scores of all examples, the summary, and the number of requests that differ from the reference's."""
    open_requests = dict(answers)
    unknown = 0

    async def complete(_: Chat, request: dict[str, Any]) -> ServerReply:
        nonlocal unknown
        text = open_requests.pop(canonical(request), None)
        if text is None:
            unknown += 1
            raise TransportError("rejected", "the reference did not ask this")
        return ServerReply(text, False, None, 0, 0, 0)

    Chat.complete = complete  # type: ignore[method-assign]
    judge = Recited(model=MODEL, base_url="http://localhost/v1", ask="healthbench")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.jsonl"
        path.write_text("".join(json.dumps(example) + "\n" for example in examples), encoding="utf-8")
        benchmark = HealthBench(path, judge, judge.identity())
        items = benchmark.items()
    replies = {example["prompt_id"]: Reply(example["completion"]) for example in examples}
    scored = asyncio.run(benchmark.score([(item, replies[item.id]) for item in items]))
    return scored, benchmark.summary(list(zip(items, scored, strict=True))), unknown + len(open_requests)


# --- examples ---------------------------------------------------------------------------------------------------------


def draw(rng: random.Random, number: int) -> tuple[dict[str, Any], list[bool]]:
    """Return an example as HealthBench has them, with a completion, and a verdict on each rubric item."""

    def text() -> str:
        return "x" + " ".join(rng.choice(SCRAPS) for _ in range(rng.randint(1, 12)))

    while True:
        items = []
        for i in range(rng.randint(1, 20)):
            tags = [rng.choice(["level:example", "level:cluster"]), rng.choice(AXES)]
            tags += rng.sample(CLUSTERS, rng.randint(0, 2))
            points = rng.choice([-1, 1, 1]) * rng.choice([rng.randint(1, 10), rng.uniform(0.1, 10)])
            items.append({"criterion": f"criterion {number}.{i} {text()}", "points": points, "tags": tags})
        if any(item["points"] > 0 for item in items):  # the reference asserts that an example has a score
            break
    share = rng.random()
    roles = ["user", "assistant"] * rng.randint(0, 2) + ["user"]
    example = {
        "prompt_id": f"example {number}",
        "prompt": [{"role": role, "content": text()} for role in roles],
        "rubrics": items,
        "example_tags": rng.sample(THEMES, rng.randint(1, 2)),
        "completion": text(),
    }
    return example, [rng.random() < share for _ in items]


# --- the comparison ---------------------------------------------------------------------------------------------------


def compare_scores(
    examples: list[dict[str, Any]], theirs: list[dict[str, float]], mine: list[Scored]
) -> tuple[Counter[str], Counter[str]]:
    """Return, by kind, how many values there are and how many differ."""
    counts: Counter[str] = Counter()
    differences: Counter[str] = Counter()
    for example, metrics, scored in zip(examples, theirs, mine, strict=True):
        reference = {SCORE if name == "overall_score" else name: value for name, value in metrics.items()}
        for name in {*reference, *scored.scores, *(tag for item in example["rubrics"] for tag in item["tags"])}:
            kind = "example scores" if name == SCORE or name.startswith("theme:") else "tag scores"
            kind = kind if name in reference else "tags without a score"
            counts[kind] += 1
            same = (name in reference) == (name in scored.scores) and reference.get(name) == scored.scores.get(name)
            differences[kind] += not same
    return counts, differences


def reference_aggregates(module: ModuleType, metrics: list[dict[str, float]], seed: int) -> dict[str, float]:
    """Return what the reference's own aggregation makes of the examples, its generator seeded for each bootstrap."""
    unseeded = module._compute_clipped_stats

    def seeded(values: list[float], statistic: str) -> Any:
        if statistic == "bootstrap_std":
            np.random.seed(seed)  # the reference draws from the global generator
        return unseeded(values, statistic)

    module._compute_clipped_stats = seeded
    results = [
        SimpleNamespace(metrics=m, score=m["overall_score"], html="", convo=[], example_level_metadata={})
        for m in metrics
    ]
    result = module._aggregate_get_clipped_mean(results)
    module._compute_clipped_stats = unseeded
    return {**result.metrics, SCORE: result.score}


def inspect_axes(examples: list[dict[str, Any]], verdicts: list[list[bool]]) -> dict[str, float]:
    """Return the mean of each axis as inspect-evals has it."""
    from inspect_ai.scorer import SampleScore, Score
    from inspect_evals.healthbench.scorer import calculate_category_scores

    scores = [
        SampleScore(
            score=Score(
                value={},
                metadata={"detailed_results": [{**item, "met": m} for item, m in zip(e["rubrics"], met, strict=True)]},
            )
        )
        for e, met in zip(examples, verdicts, strict=True)
    ]
    found = calculate_category_scores(scores, bootstrap_samples=1)["axis_scores"]
    return {f"axis:{name}": float(values["score"]) for name, values in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="simple-evals' healthbench_eval.py")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the examples")
    args = parser.parse_args()
    module, sampler = load_reference(args.reference)
    recorder = Recorder()
    grader = SimpleNamespace(grader_model=grading_sampler(module, sampler, recorder))  # all that the method reads
    rng = random.Random(args.seed)
    drawn = [draw(rng, number) for number in range(args.examples)]
    examples = [example for example, _ in drawn]
    theirs = []
    for example, met in drawn:
        recorder.met = list(met)
        rubric = [module.RubricItem.from_dict(item) for item in example["rubrics"]]
        grade = module.HealthBenchEval.grade_sample
        theirs.append(grade(grader, example["prompt"], example["completion"], example["example_tags"], rubric)[0])

    mine, summary, unequal = ours(examples, recorder.answers)
    counts, differences = compare_scores(examples, theirs, mine)
    counts["grader requests"], differences["grader requests"] = len(recorder.answers), unequal
    expected = reference_aggregates(module, theirs, seed=0)  # the seed of ours
    for name, aggregate in summary["aggregates"].items():
        for statistic in ("mean", "n_samples", "bootstrap_std"):
            key = name if statistic == "mean" else f"{name}:{statistic}"
            counts["aggregates"] += 1
            differences["aggregates"] += aggregate is None or aggregate[statistic] != expected.get(key)
    statistics = (":n_samples", ":bootstrap_std", "overall_score")  # the last is the score a second time
    names = {name for name in expected if not name.endswith(statistics)}
    differences["aggregates"] += len(names ^ summary["aggregates"].keys())

    negative = sum(metrics["overall_score"] < 0 for metrics in theirs)
    print(f"{args.examples:,} examples, seed {args.seed}: {negative:,} scores below 0\n")
    print("| compared | values | differences |\n|---|--:|--:|")
    for kind in KINDS:
        print(f"| {kind} | {counts[kind]:,} | {differences[kind]:,} |")
    print("\n| mean of | simple-evals and ours | inspect-evals | difference in points |\n|---|--:|--:|--:|")
    for axis, value in sorted(inspect_axes(examples, [met for _, met in drawn]).items()):
        print(f"| {axis} | {expected[axis]:.4f} | {value:.4f} | {100 * (value - expected[axis]):+.1f} |")
    return 1 if any(differences.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
