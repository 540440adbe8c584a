"""Plot format and correctness over training for the runs of a sweep, and print the table of their ends.

python benchmarks/rlla/plot.py runs/rlla --out docs/figures/rlla.png
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CHANNELS = ("format_reward", "correctness_reward")
COLOURS = {"grpo": "#888888", "gdpo": "#1f77b4", "rvpo_explicit": "#d08a00", "rvpo": "#c2255c"}


def read(folder: Path) -> dict[str, list[list[dict[str, float]]]]:
    """Return the training lines of every run, by method."""
    runs: dict[str, list[list[dict[str, float]]]] = defaultdict(list)
    for path in sorted(folder.glob("*/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        train = [line for line in lines if f"rewards/{CHANNELS[0]}/mean" in line]
        if train:
            runs[path.parent.name.rpartition("-")[0]].append(train)
    return runs


def main() -> None:
    """Draw one panel a channel: every seed a thin line, the mean over seeds a thick one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="look at this many first steps; default: all that every run has")
    parser.add_argument("--last", type=int, default=4, help="the table averages this many first and last steps")
    args = parser.parse_args()
    runs = read(args.folder)
    steps = args.steps or min(len(run) for group in runs.values() for run in group)
    figure, panels = plt.subplots(1, len(CHANNELS), figsize=(11, 4), sharex=True)
    print(
        f"| method | channel | first {args.last} steps | last {args.last} steps, each seed | mean | all steps, mean |"
    )
    print("|---|---|--:|---|--:|--:|")
    for panel, channel in zip(panels, CHANNELS, strict=True):
        key = f"rewards/{channel}/mean"
        for method, colour in COLOURS.items():
            curves = [[line[key] for line in run[:steps]] for run in runs.get(method, [])]
            if not curves:
                continue
            for curve in curves:
                panel.plot(range(1, len(curve) + 1), curve, color=colour, alpha=0.25, linewidth=1)
            mean = [statistics.fmean(curve[i] for curve in curves) for i in range(steps)]
            panel.plot(range(1, steps + 1), mean, color=colour, linewidth=2.2, label=f"{method} ({len(curves)} seeds)")
            ends = [statistics.fmean(curve[-args.last :]) for curve in curves]
            first = statistics.fmean(statistics.fmean(curve[: args.last]) for curve in curves)
            whole = statistics.fmean(statistics.fmean(curve) for curve in curves)
            print(
                f"| {method} | {channel.removesuffix('_reward')} | {first:.2f} | {', '.join(f'{e:.2f}' for e in ends)} | "
                f"{statistics.fmean(ends):.2f} | {whole:.2f} |"
            )
        panel.set_title(channel.removesuffix("_reward"))
        panel.set_xlabel("training step")
        panel.set_ylabel("mean reward of the step's rollouts")
        panel.grid(alpha=0.2)
    panels[0].legend(frameon=False)
    figure.tight_layout()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=130)


if __name__ == "__main__":
    main()
