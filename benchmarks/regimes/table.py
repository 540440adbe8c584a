"""Print what every rule did to the worst channel in every regime, with intervals and tests against GDPO.

    python benchmarks/regimes/table.py runs/regimes --markdown table.md --json table.json

The Markdown is for docs/results/regimes.md; the JSON has every number. Arrays: C cells, L learning rates, S seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from cells import CELLS
from rules import MAIN, RULES

from rvpo.statistics.flips import holm, sign_flip_test

BASELINE = "GDPO"
NEGLECT = 0.5
WINDOW = 5  # steps of the running mean that a dip is read from
LEVEL = 0.05
DRAWS = 10_000  # of a bootstrap
GROUPS = {
    "Initial rate of the format": ("p0.05", "p0.1", "p0.25", "p0.5", "p0.72", "p0.9"),
    "Conflict": tuple(name for name in CELLS if "-c" in name),
    "Number of channels, graded channels": tuple(name for name in CELLS if "-M" in name or "-graded" in name),
    "Group size": tuple(name for name in CELLS if "-G" in name),
    "Noisy format, channels that an empty reply meets": tuple(
        name for name in CELLS if "-noise" in name or "-floorless" in name
    ),
}
TESTED = {"final": "final", "auc": "AUC", "final_pooled": "final, all rates", "auc_pooled": "AUC, all rates"}
LEGEND = f"""\
- **final**: the lowest channel's true rate on 256 fresh prompts after training, mean over seeds; in brackets its 95%
  bootstrap interval over seeds ({DRAWS:,} resamples, percentile).
- **AUC**: each channel's rate in the training batches averaged over all steps, and of these the lowest channel's.
- **dip**: how far the lowest {WINDOW}-step running mean of channel 0, the format, falls below its rate before training.
- **others**: final mean of the channels other than the format: what it costs them.
- **neglect**: runs whose lowest final channel is below {NEGLECT}: at the best learning rate / at all learning rates.
- **best learning rate**: of each rule in each cell, by mean final, ties by mean AUC. It is chosen on the seeds that are
  shown; "all rates" averages a seed over the learning rates and chooses nothing.
- **better, worse**: than {BASELINE} at its own best rate, paired by seed (same warm start, same random numbers): exact
  two-sided sign-flip test. ▲ ▼: p < {LEVEL} for the whole family of a rule's cells (step-down max-t over the same flips,
  Westfall and Young 1993); △ ▽: p < {LEVEL} in this cell alone. In the summary, counts in brackets are of the latter kind.
  If d seeds differ, and all one way, p is 2 / 2^d: a difference on fewer than six seeds cannot be distinguished from none.
- **wins or ties**: the bootstrap interval of the paired difference to the cell's best rule, of those with runs, reaches 0.
- **largest gap**: to the cell's best rule, in mean final. The means at the right of the summary are over a rule's cells."""

Measures = dict[str, np.ndarray]
"""final, auc, dip and others, each (L, S)."""


@dataclass(frozen=True)
class Sweep:
    """What the records hold: measures by (cell, rule), and the cells x rules that have no or not all runs."""

    lrs: list[float]
    seeds: list[int]
    measures: Mapping[tuple[str, str], Measures]
    missing: Mapping[tuple[str, str], str]

    @property
    def rules(self) -> list[str]:
        """Rules with a complete cell, in the order of the definition; after them other methods by their texts."""
        return in_order({rule for _, rule in self.measures})

    @property
    def cells(self) -> list[str]:
        """Cells with a complete rule, in the order of the definition."""
        return [cell for cell in CELLS if any(cell == other for other, _ in self.measures)]


def read(folder: Path) -> Sweep:
    """Read the records of a sweep; main rules are expected in every cell, the others where one has begun."""
    runs: dict[tuple[str, str], dict[tuple[float, int], dict[str, float]]] = {}
    for path in sorted((folder / "records").glob("*.jsonl")):
        for record in map(json.loads, path.read_text("utf-8").splitlines()):
            runs.setdefault((record["cell"], record["rule"]), {})[record["lr"], record["seed"]] = measure(record)
    if not runs:
        raise SystemExit(f"no records in {folder / 'records'}: run benchmarks/regimes/run.py --output {folder} first")
    lrs = sorted({lr for found in runs.values() for lr, _ in found})
    seeds = sorted({seed for found in runs.values() for _, seed in found})
    wanted = list(product(lrs, seeds))
    measures, missing = {}, {}
    begun = {rule for _, rule in runs} | set(MAIN)
    for pair in product(CELLS, in_order(begun)):
        found = runs.get(pair, {})
        if all(key in found for key in wanted):
            shape = len(lrs), len(seeds)
            names = found[wanted[0]]
            measures[pair] = {n: np.array([found[key][n] for key in wanted]).reshape(shape) for n in names}
        else:
            missing[pair] = f" ({len(found)} of {len(wanted)} runs)" if found else ""
    return Sweep(lrs, seeds, measures, missing)


def in_order(rules: Collection[str]) -> list[str]:
    """Return rules in the order of the definition, and after them those that are texts of methods."""
    return [*(rule for rule in RULES if rule in rules), *sorted(set(rules) - set(RULES))]


def measure(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the measures of one run; :data:`LEGEND` defines them."""
    final, curve = np.array(record["final"]), np.array(record["curve"])
    running = np.lib.stride_tricks.sliding_window_view(curve[:, 0], min(WINDOW, len(curve))).mean(-1)
    return {
        "final": final.min(),
        "auc": curve.mean(0).min(),
        "dip": max(0.0, record["before"][0] - running.min()),
        "others": final[1:].mean(),
    }


def best_rate(measures: Measures) -> int:
    """Return the index of the learning rate with the highest mean final, ties by mean AUC."""
    final, auc = (measures[name].mean(1).round(9) for name in ("final", "auc"))
    return max(range(len(final)), key=lambda i: (final[i], auc[i]))


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean of values (S,)."""
    chosen = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(values[chosen].mean(1), (0.025, 0.975))
    return float(low), float(high)


def compare(sweep: Sweep, rule: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Test a rule against the baseline: cell -> key of :data:`TESTED` -> difference, p values, verdict."""
    cells = [cell for cell in sweep.cells if {(cell, rule), (cell, BASELINE)} <= sweep.measures.keys()]
    tests: dict[str, dict[str, dict[str, Any]]] = {cell: {} for cell in cells}
    if rule == BASELINE or not cells:
        return {}
    for test in TESTED:
        differences = np.stack(
            [_values(sweep, cell, rule, test) - _values(sweep, cell, BASELINE, test) for cell in cells]
        )
        p, family = sign_flip_test(differences)
        for cell, *row in zip(cells, differences.mean(1), p, family, holm(p), strict=True):
            found = dict(zip(("difference", "p", "p_family", "p_holm"), map(float, row), strict=True))
            tests[cell][test] = {**found, "verdict": verdict(found["difference"], found["p_family"])}
    return tests


def verdict(difference: float, p: float) -> str:
    """Return better, worse or level."""
    return "level" if p >= LEVEL else "better" if difference > 0 else "worse"


def _values(sweep: Sweep, cell: str, rule: str, test: str) -> np.ndarray:
    """Return what a test compares, (S,)."""
    measures = sweep.measures[cell, rule]
    values = measures[test.removesuffix("_pooled")]
    return np.asarray(values.mean(0) if test.endswith("_pooled") else values[best_rate(measures)])


def describe(sweep: Sweep) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every number by cell and rule."""
    table: dict[str, dict[str, dict[str, Any]]] = {cell: {} for cell in sweep.cells}
    tests = {rule: compare(sweep, rule) for rule in sweep.rules}
    for (cell, rule), measures in sweep.measures.items():
        rate = best_rate(measures)
        row: dict[str, Any] = {"lr": sweep.lrs[rate]}
        for name, values in measures.items():
            row[name] = float(values[rate].mean())
            row[f"{name}_interval"] = interval(values[rate])
        row["final_pooled"], row["auc_pooled"] = (float(measures[name].mean()) for name in ("final", "auc"))
        row["final_by_seed"] = measures["final"][rate].tolist()
        row["neglect"] = float((measures["final"][rate] < NEGLECT).mean())
        row["neglect_pooled"] = float((measures["final"] < NEGLECT).mean())
        table[cell][rule] = {**row, "against": tests[rule].get(cell, {})}
    for rows in table.values():
        best = max(rows, key=lambda rule: (rows[rule]["final"], rows[rule]["auc"]))
        top = np.array(rows[best]["final_by_seed"])
        for row in rows.values():
            row["gap"] = rows[best]["final"] - row["final"]
            row["ties_best"] = interval(np.array(row["final_by_seed"]) - top)[1] >= -1e-9
            row["best_rule"] = best
    return table


def summarise(table: Mapping[str, Mapping[str, Mapping[str, Any]]], rule: str) -> dict[str, Any]:
    """Sum a rule up over its cells."""
    rows = {cell: rules[rule] for cell, rules in table.items() if rule in rules}
    widest = max(rows, key=lambda cell: rows[cell]["gap"])
    summary: dict[str, Any] = {
        "cells": len(rows),
        "behind_best": [c for c, row in rows.items() if not row["ties_best"]],
    }
    for test, sign in product(TESTED, ("worse", "better")):
        told = {cell: row["against"][test] for cell, row in rows.items() if row["against"]}
        summary[f"{test}_{sign}"] = [cell for cell, one in told.items() if one["verdict"] == sign]
        alone = [cell for cell, one in told.items() if verdict(one["difference"], one["p"]) == sign]
        summary[f"{test}_{sign}_alone"] = alone
    for name in ("final", "auc", "dip", "others", "neglect", "neglect_pooled"):
        summary[name] = float(np.mean([row[name] for row in rows.values()]))
    return {**summary, "gap": rows[widest]["gap"], "gap_cell": widest}


def summary_lines(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the summary as a Markdown table; means are over cells, each rule at its best learning rates."""
    tests = [f"{name}: worse / better" for name in TESTED.values()]
    header = ["rule", "cells", *tests, "wins or ties", "largest gap", "neglect", "final", "AUC", "dip", "others"]
    rows = []
    for rule, found in summaries.items():
        counts = []
        for test in TESTED:
            sure, alone = (
                [len(found[f"{test}_{sign}{kind}"]) for sign in ("worse", "better")] for kind in ("", "_alone")
            )
            counts.append("" if rule == BASELINE else "{} / {} ({} / {})".format(*sure, *alone))
        gap = f"{found['gap']:.2f} in {found['gap_cell']}"
        neglect = f"{found['neglect']:.1%} / {found['neglect_pooled']:.1%}"
        means = [f"{found[name]:.3f}" for name in ("final", "auc", "dip", "others")]
        ties = str(found["cells"] - len(found["behind_best"]))
        rows.append([rule, str(found["cells"]), *counts, ties, gap, neglect, *means])
    return grid(header, rows)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return ["| " + " | ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)) + " |" for line in lines]


def mark(row: Mapping[str, Any], test: str) -> str:
    """Return the sign of a row's test, with a space before it."""
    found = row["against"].get(test)
    if not found or found["p"] >= LEVEL:
        return ""
    sure = found["p_family"] < LEVEL
    return " " + ("▲" if sure else "△") if found["difference"] > 0 else " " + ("▼" if sure else "▽")


def final_entry(row: Mapping[str, Any]) -> str:
    """Return the worst channel's final rate and its interval."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(row["final"], *row["final_interval"])


def auc_entry(row: Mapping[str, Any]) -> str:
    """Return the AUC with its test, and both neglect shares."""
    return f"{row['auc']:.2f}{mark(row, 'auc')}; {neglect_entry(row)}"


def neglect_entry(row: Mapping[str, Any]) -> str:
    """Return the shares of neglect at the best and at all learning rates."""
    return f"{row['neglect']:.0%} / {row['neglect_pooled']:.0%}"


def group_lines(table: Mapping[str, Mapping[str, Mapping[str, Any]]], rules: Sequence[str]) -> list[str]:
    """Return two Markdown tables for each group of cells, with rules in columns."""
    lines = []
    for title, cells in GROUPS.items():
        present = [cell for cell in cells if cell in table]
        if not present:
            continue
        lines += ["", f"#### {title}"]
        entries = (("final", lambda row: final_entry(row) + mark(row, "final")), ("AUC; neglect", auc_entry))
        for told, entry in entries:
            rows = [[c, *(entry(table[c][r]) if r in table[c] else "missing" for r in rules)] for c in present]
            lines += ["", *grid([told, *rules], rows)]
    return lines


def full_lines(table: Mapping[str, Mapping[str, Mapping[str, Any]]], rules: Sequence[str]) -> list[str]:
    """Return a Markdown table for each cell, with rules in rows."""
    lines = []
    tests = [f"{name} against {BASELINE}" for name in TESTED.values()]
    header = ["lr", "final", "AUC", "dip", "others", "neglect", *tests]
    for cell, found in table.items():
        rows = []
        for rule in (rule for rule in rules if rule in found):
            row = found[rule]
            values = [f"{row[name]:.2f}" for name in ("auc", "dip", "others")]
            told = [f"{t['difference']:+.2f} p {t['p']:.3f}{mark(row, test)}" for test, t in row["against"].items()]
            rows.append(
                [rule, f"{row['lr']:g}", final_entry(row), *values, neglect_entry(row), *(told or [""] * len(TESTED))]
            )
        lines += ["", *grid([cell, *header], rows)]
    return lines


def missing_lines(sweep: Sweep) -> list[str]:
    """Name what is missing: cells without any runs, then a line per rule."""
    lines = [f"Missing: {len(sweep.missing)} of {len(sweep.missing) + len(sweep.measures)} cells x rules."]
    begun = {cell for cell, _ in sweep.measures} | {cell for (cell, _), why in sweep.missing.items() if why}
    empty = [cell for cell in CELLS if cell not in begun]
    lines += [f"- all rules: {', '.join(empty)}"] if empty else []
    for rule in in_order({rule for _, rule in sweep.missing}):
        cells = [cell + why for (cell, other), why in sweep.missing.items() if other == rule and cell in begun]
        lines += [f"- {rule}: {', '.join(cells)}"] if cells else []
    return lines


def failures(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the cells in which a rule is below the best one or the baseline."""
    lines = []
    for rule, found in summaries.items():
        told = {"below the cell's best rule": found["behind_best"]}
        if rule != BASELINE:
            for kind, name in (("", f"worse than {BASELINE} in a test (▼)"), ("_alone", "only in a cell alone (▽)")):
                cells = {cell for test in TESTED for cell in found[f"{test}_worse{kind}"]}
                told[name] = [
                    cell for cell in CELLS if cell in cells and not any(cell in x for x in list(told.values())[1:])
                ]
        named = (f"{what}: {some_cells(cells)}" for what, cells in told.items())
        lines.append(f"- **{rule}**: {'; '.join(named)}.")
    return lines


def some_cells(cells: Sequence[str]) -> str:
    """Name cells, or count them where there are too many to read; the JSON has all."""
    return f"{len(cells)} cells" if len(cells) > 10 else ", ".join(cells) or "nowhere"


def main() -> None:
    """Print all of it, and write the Markdown and the JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what run.py had as --output")
    parser.add_argument("--markdown", type=Path, help="write the tables for the documentation")
    parser.add_argument("--json", type=Path, help="write every number")
    args = parser.parse_args()
    sweep = read(args.folder)
    table = describe(sweep)
    summaries = {rule: summarise(table, rule) for rule in sweep.rules}
    told = [f"{len(sweep.seeds)} seeds, learning rates {', '.join(f'{lr:g}' for lr in sweep.lrs)}.", ""]
    told += [*summary_lines(summaries), "", *failures(summaries), "", LEGEND, "", *missing_lines(sweep)]
    print("\n".join([*full_lines(table, sweep.rules), "", *told]))
    if args.markdown:
        args.markdown.write_text("\n".join([*told, *group_lines(table, sweep.rules), ""]), "utf-8")
    if args.json:
        missing = [
            {"cell": cell, "rule": rule, "why": why.strip(" ()") or "no runs"}
            for (cell, rule), why in sweep.missing.items()
        ]
        args.json.write_text(json.dumps({"summary": summaries, "cells": table, "missing": missing}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
