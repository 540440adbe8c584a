"""Compare the methods of ``run.py`` on the seeds that were not tuned on, paired by seed.

    python benchmarks/programs/table.py runs/programs

The baseline of every method is GRPO on "all pass", the usual reward of code; of RiskPO on top of a method, that method
as well. Differences are means over seeds with the interval of Student's t on pairs, and the p of a sign-flip test, which
is exact with 10 seeds (the least is 0.002). Holm's adjustment is over all methods, for each measure and baseline.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from run import KS, METHODS, SEEDS, STEPS, TUNING, chosen_rates, read

from rvpo import statistics as st

BASELINE, ON = "all pass", "RiskPO on "
MEASURES = ("pass@1", "pass@16", "hardest test")
Scores = Mapping[str, Mapping[int, Mapping[str, float]]]  # method -> seed -> measures


def scores_of(folder: Path, rates: Mapping[str, float], steps: int) -> Scores:
    """Return the measures of every run at its method's learning rate, the seeds for tuning left out."""
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in rates}
    for record in read(folder):
        name, seed = record["method"], record["seed"]
        if record["steps"] == steps and seed in SEEDS and rates.get(name) == record["lr"]:
            passes = {f"pass@{k}": record["pass"][str(k)] for k in KS}
            held_out = {"held-out pass@1": record["held_out"]["pass"]["1"]}
            rest = {"hardest test": min(record["tests"]), "entropy": record["entropy"]}
            found[name][seed] = passes | rest | held_out
    return {name: runs for name, runs in found.items() if runs}


def means(scores: Scores, rates: Mapping[str, float]) -> list[str]:
    """Return a Markdown table of means over seeds."""
    shown = [*(f"pass@{k}" for k in KS), "hardest test", "entropy", "held-out pass@1"]
    lines = ["| method | lr | seeds | " + " | ".join(shown) + " |", "|---|--:|--:|" + "--:|" * len(shown)]
    for name, runs in scores.items():
        cells = [f"{sum(run[key] for run in runs.values()) / len(runs):.3f}" for key in shown]
        lines.append(f"| {name} | {rates[name]:g} | {len(runs)} | {' | '.join(cells)} |")
    return lines


def differences(scores: Scores, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a Markdown table of paired differences of each method to its baseline."""
    lines = ["| method | against | " + " | ".join(MEASURES) + " |", "|---|---|" + "---|" * len(MEASURES)]
    cells: dict[str, list[str]] = {}
    for measure in MEASURES:
        rows = []
        for name, baseline in pairs:
            seeds = sorted(scores[name].keys() & scores[baseline].keys())
            ours, theirs = ([scores[one][seed][measure] for seed in seeds] for one in (name, baseline))
            interval = st.runs_interval(ours, theirs, by_pair=True)
            rows.append((name, interval, st.sign_flip(st.paired(ours, theirs))))
        adjusted = st.holm([p for *_, p in rows])
        for (name, interval, p), holm in zip(rows, adjusted, strict=True):
            ends = "" if interval.low is None else f" [{interval.low:+.3f}, {interval.high:+.3f}]"
            mark = "" if holm > 0.05 else " *"
            cells.setdefault(name, []).append(f"{interval.mean:+.3f}{ends} p {p:.3f}, Holm {holm:.3f}{mark}")
    lines += [f"| {name} | {baseline} | {' | '.join(cells[name])} |" for name, baseline in pairs]
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    begun = {record["method"] for record in read(args.folder) if record["seed"] in TUNING}
    rates = chosen_rates(args.folder, args.steps, [name for name in METHODS if name in begun])
    scores = scores_of(args.folder, rates, args.steps)
    print("\n".join(means(scores, rates)), "\n")
    against = [(name, BASELINE) for name in scores if name != BASELINE and not name.startswith(ON)]
    print("\n".join(differences(scores, against)), "\n")
    on_top = [(name, name.removeprefix(ON)) for name in scores if name.startswith(ON)]
    print("\n".join(differences(scores, [pair for pair in on_top if pair[1] in scores])))


if __name__ == "__main__":
    main()
