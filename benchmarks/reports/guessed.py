"""How right `rvpo diagnose` is where the logs say less than it needs, and whether "sure" covers that.

    python benchmarks/reports/guessed.py --runs 60 --seed 0

The runs are those of benchmarks/reports/neglect.py (one channel neglected in two of three runs). Each is diagnosed once
with all that there is to know; these verdicts are the truth here. Then columns are taken away or added:

    total              no advantages, but the total of the rewards
    total, foreign     also timings, counters, kl and a number without a telling name beside the rewards
    advantages, foreign    advantages and no total, with the same columns beside the rewards
    neither            neither advantages nor a total
    neither, foreign   the same, with the other columns
    ids per row        the total; ids are unique per row, prompts are texts
    resumed            the total; the last third of the steps is there twice, with other completions

Counted are channels whose true verdict is not "unclear": same verdict, "unclear", another one, or lost without a word.
The last table says how many of the verdicts with a certain "sure" are the true ones.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from neglect import CLEAN, WAYS, make

from rvpo.diagnose.diagnose import diagnose
from rvpo.errors import ConfigError
from rvpo.logs.open import open_run
from rvpo.logs.run import Columns

NAMES = (
    *("correct", "format", "helpful", "safety", "style", "honesty", "relevance", "quality", "clarity", "brevity"),
    *("grounded", "citations", "schema", "tone", "fluency", "empathy", "politeness"),
)
Arrays = dict[str, np.ndarray]
BINS = ((0.9, 1.01), (0.7, 0.9), (0.5, 0.7), (0.0, 0.5))


def renamed(table: pa.Table) -> Arrays:
    """Return columns under names that rewards have, and prompts as texts."""
    columns = {name: table[name].to_numpy() for name in ("step", "group", "advantage")}
    for name in table.column_names:
        if name.startswith("channel_"):
            columns[NAMES[int(name.removeprefix("channel_"))]] = table[name].to_numpy().astype(float)
    pairs = zip(columns["step"].tolist(), columns["group"].tolist(), strict=True)
    columns["prompt"] = np.array([f"question {step}-{group}" for step, group in pairs])
    return columns


def with_total(columns: Arrays, weights: Mapping[str, float]) -> Arrays:
    """Add the weighted sum of the rewards."""
    total = sum(weight * np.nan_to_num(columns[name]) for name, weight in weights.items())
    return columns | {"reward": np.asarray(total)}


def with_foreign(columns: Arrays, rng: np.random.Generator) -> Arrays:
    """Add what trainers log beside rewards."""
    n = len(columns["step"])
    return columns | {
        "generation_ms": rng.integers(300, 9000, n).astype(float),
        "response_length": rng.integers(20, 900, n),
        "kl": rng.random(n),
        "num_turns": rng.integers(1, 8, n),
        "_timestamp": 1.7e9 + np.arange(n),
        "oddity": rng.random(n),
    }


def without(columns: Arrays, *names: str) -> Arrays:
    """Leave columns out."""
    return {name: values for name, values in columns.items() if name not in names}


def with_ids_per_row(columns: Arrays) -> Arrays:
    """Replace the group by an id that no two rows share."""
    ids = np.array([f"{prompt}_0_{row}".replace(" ", "-") for row, prompt in enumerate(columns["prompt"])])
    return without(columns, "group", "advantage") | {"uid": ids}


def resumed(columns: Arrays) -> Arrays:
    """Log the last third of the steps again, with rewards that are dealt out anew within each group."""
    steps = columns["step"]
    repeated = np.flatnonzero(steps > steps.max() - steps.max() // 3)
    both = {name: np.concatenate([values, values[repeated]]) for name, values in columns.items()}
    groups = np.char.add(columns["prompt"][repeated], "")
    for name in (*NAMES, "reward"):
        if name in both:
            again = both[name][len(steps) :]
            for prompt in np.unique(groups):
                rows = groups == prompt
                again[rows] = np.roll(again[rows], 1)  # the same for all rewards: the total stays their sum
    return without(both, "advantage")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cells = [(way, strength) for way, strengths in WAYS.items() if way != "weight, rvpo" for strength in strengths]
    counts: dict[str, Counter[str]] = {}
    sure: dict[tuple[float, float], Counter[bool]] = {limits: Counter() for limits in BINS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.parquet"
        for i in range(args.runs):
            rng = np.random.default_rng(args.seed * 1_000_000 + i)
            way, strength = cells[i % len(cells)] if i % 3 else (None, 0.0)
            methods = {"scale": ["grpo"], "outvoted": ["gdpo"], "weight": ["grpo"]}
            method = random.Random(i).choice(methods.get(way or "", [name for name in CLEAN if name != "rvpo"]))
            target, _ = make(path, args.seed * 1_000_000 + i, way, strength, method)
            named = tuple(name for name in pq.read_schema(path).names if name.startswith("channel_"))
            whole = diagnose(open_run(path, Columns(rewards=named)), texts=False, resamples=200)
            truth = {
                NAMES[int(name.removeprefix("channel_"))]: channel.verdict
                for name, channel in zip(named, whole.channels, strict=True)
            }
            columns = renamed(pq.read_table(path))
            weights = dict.fromkeys(truth, 1.0)
            if way == "weight" and target is not None:
                weights[NAMES[target]] = strength
            for name, of in variants(weights, rng).items():
                pq.write_table(pa.table(of(columns)), path)
                count(path, truth, counts.setdefault(name, Counter()), sure)
    kinds = ("same", "unclear", "another", "lost", "refused", "foreign")
    print(f"{'logged':<22}" + "".join(f"{kind:>10}" for kind in kinds))
    for name, found in counts.items():
        print(f"{name:<22}" + "".join(f"{found[kind]:>10}" for kind in kinds))
    print(f"\n{'sure':<22}{'verdicts':>10}{'right':>10}{'share':>10}")
    for (low, high), found in sure.items():
        share = found[True] / max(1, found.total())
        print(f"{f'{low:.0%} to {min(high, 1):.0%}':<22}{found.total():>10}{found[True]:>10}{share:>10.3f}")


def variants(weights: Mapping[str, float], rng: np.random.Generator) -> dict[str, Callable[[Arrays], Arrays]]:
    """Return what is done to the columns of a run."""

    def bare(columns: Arrays) -> Arrays:
        return without(columns, "advantage")

    def total(columns: Arrays) -> Arrays:
        return with_total(bare(columns), weights)

    return {
        "total": total,
        "total, foreign": lambda columns: with_foreign(total(columns), rng),
        "advantages, foreign": lambda columns: with_foreign(columns, rng),
        "neither": bare,
        "neither, foreign": lambda columns: with_foreign(bare(columns), rng),
        "ids per row": lambda columns: with_ids_per_row(with_total(columns, weights)),
        "resumed": lambda columns: resumed(with_total(columns, weights)),
    }


def count(
    path: Path, truth: Mapping[str, str], counts: Counter[str], sure: Mapping[tuple[float, float], Counter[bool]]
) -> None:
    """Diagnose a log and count its verdicts."""
    known = {name: verdict for name, verdict in truth.items() if verdict != "unclear"}
    try:
        found = diagnose(open_run(path), texts=False, resamples=200)
    except ConfigError:
        counts["refused"] += len(known)
        return
    told = {channel.name: channel for channel in found.channels}
    counts["foreign"] += len(told.keys() - truth.keys())
    headline = "; ".join(map(str, found.guesses))
    for name, verdict in known.items():
        if name not in told:
            counts["unclear" if name in headline else "lost"] += 1
            continue
        channel = told[name]
        if channel.verdict == "unclear":
            counts["unclear"] += 1
            continue
        right = channel.verdict == verdict
        counts["same" if right else "another"] += 1
        for low, high in BINS:
            if channel.confidence is not None and low <= channel.confidence < high:
                sure[low, high][right] += 1


if __name__ == "__main__":
    main()
