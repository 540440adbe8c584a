"""Compare HealthBench's scores with those of openai/simple-evals, on random rubrics and verdicts.

Needs one file that is not part of this project (MIT):

    --reference  healthbench_eval.py of the repository openai/simple-evals

The reference file is imported, that is, run; the modules that it imports for its web pages and its calls of models are
replaced by empty ones. Its `grade_sample` gets our verdicts from a grader that recites them, so example and tag scores
come from its own code, and so do the clipped means and the bootstrap, from the same seed of numpy's global generator.

Equal means the same float to the last bit. Exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from rvpo.rewards.rubric import Rubric
from rvpo.rewards.rubric.scores import benchmark_score, example_score, tag_scores

AXES = [f"axis:{name}" for name in ("accuracy", "completeness", "communication", "context", "instructions")]
THEMES = [f"theme:{i}" for i in range(7)]
CLUSTERS = [f"cluster:{i}" for i in range(30)]


def load_reference(path: Path) -> ModuleType:
    """Import the file as a module of a package whose other modules are empty."""

    def stub(name: str, **attributes: object) -> None:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(attributes)

    package = "simple_evals_reference"
    stub(package, __path__=[])
    stub(f"{package}.common", HTML_JINJA="", map_with_progress=lambda f, items, **_: [f(item) for item in items])
    stub(f"{package}.sampler", __path__=[])
    stub(
        f"{package}.sampler.chat_completion_sampler",
        OPENAI_SYSTEM_MESSAGE_API="",
        ChatCompletionSampler=SimpleNamespace,
    )
    names = ("Eval", "EvalResult", "MessageList", "SamplerBase", "SingleEvalResult")
    stub(f"{package}.types", **{name: type(name, (SimpleNamespace,), {}) for name in names})
    for name in ("blobfile", "pandas"):
        stub(name)
    spec = importlib.util.spec_from_file_location(f"{package}.healthbench_eval", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"--reference {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("blobfile", "pandas"):
        del sys.modules[name]
    return module


def draw(rng: random.Random) -> tuple[list[dict[str, Any]], list[bool], list[str]]:
    """Return rubric items as HealthBench has them, a verdict on each, and the example's tags."""
    while True:
        items = []
        for i in range(rng.randint(1, 20)):
            tags = [rng.choice(["level:example", "level:cluster"]), rng.choice(AXES)]
            tags += rng.sample(CLUSTERS, rng.randint(0, 2))
            points = rng.choice([-1, 1, 1]) * rng.choice([rng.randint(1, 10), rng.uniform(0.1, 10)])
            items.append({"criterion": f"criterion {i}", "points": points, "tags": tags})
        if any(item["points"] > 0 for item in items):  # the reference asserts that an example has a score
            share = rng.random()
            return items, [rng.random() < share for _ in items], rng.sample(THEMES, rng.randint(1, 2))


def reference_metrics(module: ModuleType, items: list[dict[str, Any]], met: list[bool], tags: list[str]) -> Any:
    """Return the metrics of one example by the reference's own `grade_sample`."""
    answers = iter(met)

    def recite(_: object) -> SimpleNamespace:
        return SimpleNamespace(response_text=json.dumps({"explanation": "", "criteria_met": next(answers)}))

    rubric = [module.RubricItem.from_dict(item) for item in items]
    grader = SimpleNamespace(grader_model=recite)  # all that the method reads of its object
    return module.HealthBenchEval.grade_sample(grader, [{"role": "user", "content": "q"}], "a", tags, rubric)[0]


def our_metrics(items: list[dict[str, Any]], met: list[bool], tags: list[str]) -> dict[str, float | None]:
    rubric = Rubric.from_mapping(
        [
            {"id": f"c{i}", "text": item["criterion"], "points": item["points"], "tags": item["tags"]}
            for i, item in enumerate(items)
        ]
    )
    verdicts = [float(value) for value in met]
    score = example_score(rubric, verdicts)
    return {"overall_score": score, **dict.fromkeys(tags, score), **tag_scores(rubric, verdicts)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="simple-evals' healthbench_eval.py")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    module = load_reference(args.reference)
    rng = random.Random(args.seed)
    theirs: dict[str, list[float]] = {}
    ours: dict[str, list[float | None]] = {}
    counts = dict.fromkeys(("example scores", "tag scores", "tags without a score", "clipped statistics"), 0)
    differences = dict.fromkeys(counts, 0)
    negative = 0
    for _ in range(args.examples):
        items, met, tags = draw(rng)
        reference, mine = reference_metrics(module, items, met, tags), our_metrics(items, met, tags)
        negative += reference["overall_score"] < 0
        for name in {*reference, *mine, *(tag for item in items for tag in item["tags"])}:
            kind = "example scores" if name == "overall_score" or name.startswith("theme:") else "tag scores"
            kind = kind if name in reference else "tags without a score"
            counts[kind] += 1
            differences[kind] += (name in reference) != (name in mine) or reference.get(name) != mine.get(name)
            if name in reference:
                theirs.setdefault(name, []).append(reference[name])
            if name in mine:
                ours.setdefault(name, []).append(mine[name])
    clipped = 0
    for name in theirs.keys() | ours.keys():
        score = benchmark_score(ours.get(name, []), seed=args.seed)
        clipped += np.mean(theirs[name]) < 0
        for statistic in ("mean", "n_samples", "bootstrap_std"):
            np.random.seed(args.seed)  # the reference draws from the global generator
            expected = module._compute_clipped_stats(theirs[name], statistic)
            counts["clipped statistics"] += 1
            differences["clipped statistics"] += score is None or getattr(score, statistic) != expected
    print(
        f"{args.examples:,} examples, seed {args.seed}: {negative:,} scores below 0, {clipped:,} means clipped at 0\n"
    )
    print("| compared | values | differences |\n|---|--:|--:|")
    for kind, count in counts.items():
        print(f"| {kind} | {count:,} | {differences[kind]:,} |")
    return 1 if any(differences.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
