"""Train one recipe with several methods and seeds, resuming what an earlier call left undone.

    python benchmarks/sweep.py recipes/smollm2-rlla-cpu.yaml --output runs/rlla --set trainer.max_steps=12
    python benchmarks/sweep.py recipes/smollm2-rubrics-cpu.yaml --output runs/rubrics --parallel 2 \
        --methods explicit gdpo rvpo rvpo_k1 hard_min
    python benchmarks/sweep.py recipes/smollm2-rlla-cpu.yaml --output runs/own --methods gdpo lift:kappa=3 my_rules.py:cvar

A method is any text that a recipe takes, or one of the names below. Seeds vary slowest, so that a sweep that is cut off
compares all methods on the seeds it finished.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rvpo.core.methods.registry import build_method
from rvpo.errors import ConfigError

NAMED = {
    "rvpo": [],  # the recipe's own method, in the recipes of the paper rvpo with its schedule
    "rvpo_k1": ["method=rvpo:k=1"],
    "gdpo_w3": ["method=gdpo", "rewards.0.weight=3"],  # a recipe's first reward counts three times
    # The single-reward baselines of Rubrics-as-Rewards, for recipes whose first reward is a rubric.
    "explicit": ["method=grpo", "rewards.0.options.aggregation=explicit"],
    "implicit": ["method=grpo", "rewards.0.options.aggregation=implicit"],
}
"""Overrides of a recipe by name."""
DEFAULT = ["grpo", "gdpo", "rvpo_explicit", "rvpo"]


def checked(text: str) -> str:
    """Check a method's text before anything runs."""
    if text not in NAMED:
        try:
            build_method(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return text


def main() -> None:
    """Run every cell; a failed one is reported and does not stop the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", type=checked, default=DEFAULT, help=f"texts, or {', '.join(NAMED)}")
    parser.add_argument("--parallel", type=int, default=1, help="runs at the same time, one thread each if above 1")
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", help="key=value overrides of the recipe")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": "1"} if args.parallel > 1 else {}

    def run(cell: tuple[int, str]) -> str | None:
        seed, method = cell
        name = re.sub(r"[^\w.-]+", "-", f"{method}-{seed}")
        fixed = [f"name={name}", f"seed={seed}", f"output={args.output}", *NAMED.get(method, [f"method={method}"])]
        command = [sys.executable, "-m", "rvpo", "train", str(args.recipe), *fixed, *args.overrides, "--resume"]
        start = time.perf_counter()
        with (args.output / f"{name}.log").open("a") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | threads).returncode
        print(f"{name}: exit {code} after {time.perf_counter() - start:.0f} s", flush=True)
        return name if code else None

    with ThreadPoolExecutor(args.parallel) as pool:
        cells = [(seed, method) for seed in args.seeds for method in args.methods]
        failed = [name for name in pool.map(run, cells) if name]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see the logs in {args.output}, and call again to resume")


if __name__ == "__main__":
    main()
