"""Train one recipe with several methods and seeds, one after the other, resuming what an earlier call left undone.

    python benchmarks/rlla/sweep.py recipes/smollm2-rlla-cpu.yaml --output runs/rlla --set trainer.max_steps=12

Seeds vary slowest, so that a sweep that is cut off compares all methods on the seeds it finished.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

METHODS = {
    "grpo": ["method.name=grpo", "schedule=null"],
    "gdpo": ["method.name=gdpo", "schedule=null"],
    "rvpo_explicit": ["method.name=rvpo_explicit", "schedule=null"],
    "rvpo": ["method.name=rvpo"],
}


def main() -> None:
    """Run every cell; a failed one is reported and does not stop the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", help="key=value overrides of the recipe")
    args = parser.parse_args()
    failed = []
    for seed in args.seeds:
        for method in args.methods:
            name = f"{method}-{seed}"
            fixed = [f"name={name}", f"seed={seed}", f"output={args.output}", *METHODS[method]]
            command = [sys.executable, "-m", "rvpo", "train", str(args.recipe), *fixed, *args.overrides, "--resume"]
            args.output.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            with (args.output / f"{name}.log").open("a") as log:
                code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
            print(f"{name}: exit {code} after {time.perf_counter() - start:.0f} s", flush=True)
            if code:
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see the logs in {args.output}, and call again to resume")


if __name__ == "__main__":
    main()
