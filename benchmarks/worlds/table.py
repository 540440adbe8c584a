"""Tables of what run.py recorded, in markdown: how far each rule comes of what an oracle can.

python benchmarks/worlds/table.py runs/worlds [--seeds 16] [--rules GDPO LIFT] > docs/worlds_table.md

AUC is the mean over time of each counted channel's true share, then the lowest of these. The oracle of a world is the
best of three, by its AUC averaged over learning rates and seeds; a ratio is a rule's AUC averaged likewise, divided by
the oracle's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from train import ORACLES
from worlds import SPLITS, WORLDS

MATERIAL = 0.02
"""A rule is listed as worse than GDPO where its AUC is lower by more than this."""


@dataclass(frozen=True)
class Results:
    """Measures (L, S) by world and rule, learning rates x seeds.

    Attributes:
        auc: lowest over counted channels of the mean over time.
        final: lowest counted channel at the end.
        dip: how far a counted channel fell below its start at most.
        oracle: AUC of the best oracle by world, averaged over learning rates and seeds.
        rules: names, in the order of the records' files.
    """

    auc: dict[tuple[str, str], np.ndarray]
    final: dict[tuple[str, str], np.ndarray]
    dip: dict[tuple[str, str], np.ndarray]
    oracle: dict[str, float]
    rules: list[str]

    @classmethod
    def read(
        cls, folder: str | Path, seeds: Sequence[int] | None = None, rules: Sequence[str] | None = None
    ) -> Results:
        """Read the records of a folder.

        Args:
            folder: what run.py had as ``--output``.
            seeds: only these; the ones that all files have, by default.
            rules: only these, in this order; all by default.
        """
        found: dict[tuple[str, str], dict[tuple[float, int], dict[str, Any]]] = {}
        for path in sorted((Path(folder) / "records").glob("*.jsonl")):
            for record in map(json.loads, path.read_text().splitlines()):
                found.setdefault((record["world"], record["rule"]), {})[record["rate"], record["seed"]] = record
        if not found:
            raise SystemExit(f"{folder} has no records; run run.py --output {folder} first")
        if seeds is None:
            seeds = sorted(set.intersection(*({seed for _, seed in runs} for runs in found.values())))
        auc, final, dip = {}, {}, {}
        for (name, rule), runs in found.items():
            world = WORLDS.get(name)
            if world is None or not all((rate, seed) in runs for rate in world.rates for seed in seeds):
                continue
            grid = [[runs[rate, seed] for seed in seeds] for rate in world.rates]
            lowest = {
                key: np.array([[min(np.array(run[key])[world.counts]) for run in row] for row in grid])
                for key in ("mean", "final")
            }
            auc[name, rule], final[name, rule] = lowest["mean"], lowest["final"]
            dip[name, rule] = np.array([[run["dip"] for run in row] for row in grid])
        names = [world for world in WORLDS if (world, ORACLES[0]) in auc]
        oracle = {name: max(float(auc[name, which].mean()) for which in ORACLES) for name in names}
        known = list(dict.fromkeys(rule for _, rule in auc if rule not in ORACLES))
        return cls(auc, final, dip, oracle, [r for r in rules if r in known] if rules else known)

    def ratio(self, world: str, rule: str) -> float:
        """Return a rule's AUC as a share of the oracle's, NaN where it has no records."""
        return float(self.auc[world, rule].mean()) / self.oracle[world] if (world, rule) in self.auc else np.nan

    def versus(self, world: str, rule: str, other: str) -> tuple[float, float]:
        """Return a rule's AUC minus another's, averaged, and the p-value of the exact sign-flip test over seeds."""
        if (world, rule) not in self.auc or (world, other) not in self.auc:
            return np.nan, np.nan
        difference = (self.auc[world, rule] - self.auc[world, other]).mean(0)
        return float(difference.mean()), flip_p(difference)


def flip_p(differences: np.ndarray) -> float:
    """Return the exact two-sided p-value (S,) of the mean under random signs; 65,536 random ones above 16 seeds."""
    count = len(differences)
    if count <= 16:
        signs = (np.arange(2**count)[:, None] >> np.arange(count) & 1) * 2.0 - 1
    else:
        signs = np.random.default_rng(0).integers(0, 2, (65536, count)) * 2.0 - 1
    return float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean())


def text(results: Results, against: Sequence[str] = ("GDPO", "LIFT")) -> str:
    """Return all tables as markdown."""
    parts = [_summary(results, split) for split in (None, *SPLITS)]
    parts += [_ratios(results)]
    parts += [_differences(results, other) for other in against if other in results.rules]
    parts += [_dips(results), _losses(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _summary(results: Results, split: str | None) -> str:
    worlds = [name for name in results.oracle if split in (None, WORLDS[name].split)]
    if not worlds:
        return ""
    rows = []
    for rule in results.rules:
        ratios = np.array([results.ratio(world, rule) for world in worlds])
        if np.isnan(ratios).all():
            continue
        dips = [results.dip[world, rule].mean() for world in worlds if (world, rule) in results.dip]
        finals = [results.final[world, rule].mean() for world in worlds if (world, rule) in results.final]
        deltas = [results.versus(world, rule, "GDPO")[0] for world in worlds]
        low = worlds[int(np.nanargmin(ratios))]
        rows.append([
            rule, f"{np.nanmean(ratios):.3f}", f"{np.nanmin(ratios):.3f} ({low})", f"{np.nanmedian(ratios):.3f}",
            f"{np.mean(finals):.3f}", f"{np.mean(dips):.3f}", str(int(np.sum(np.array(deltas) < -MATERIAL))),
            str(int(np.isfinite(ratios).sum())),
        ])  # fmt: skip
    rows.sort(key=lambda row: -float(row[1]))
    head = [
        "rule",
        "mean of AUC / oracle",
        "lowest",
        "median",
        "final",
        "dip",
        f"worse than GDPO by > {MATERIAL}",
        "worlds",
    ]
    return f"**{'all worlds' if split is None else split} ({len(worlds)})**\n\n" + _markdown(head, rows)


def _ratios(results: Results) -> str:
    rows = []
    for name, oracle in results.oracle.items():
        world = WORLDS[name]
        cells = [f"{results.ratio(name, rule):.3f}".replace("nan", "") for rule in results.rules]
        rows.append([name, world.kind, world.split, f"{oracle:.3f}", *cells])
    return "**AUC / oracle**\n\n" + _markdown(["world", "kind", "split", "oracle", *results.rules], rows)


def _differences(results: Results, other: str) -> str:
    rules = [rule for rule in results.rules if rule != other]
    rows = []
    for name in results.oracle:
        pairs = [results.versus(name, rule, other) for rule in rules]
        rows.append([name, *("" if np.isnan(d) else f"{d:+.3f} ({p:.4f})" for d, p in pairs)])
    return f"**AUC minus {other}'s, and p of the sign-flip test over seeds**\n\n" + _markdown(["world", *rules], rows)


def _dips(results: Results) -> str:
    worlds = [name for name in results.oracle if "safety" in WORLDS[name].kind]
    rows = []
    for name in worlds:
        dips = [results.dip.get((name, rule)) for rule in results.rules]
        rows.append([name, *("" if dip is None else " ".join(f"{x:.3f}" for x in dip.mean(1)) for dip in dips)])
    if not rows:
        return ""
    return "**Dip of a counted channel below its start, by learning rate: safety worlds**\n\n" + _markdown(
        ["world", *results.rules], rows
    )


def _losses(results: Results) -> str:
    if "GDPO" not in results.rules:
        return ""
    lines = []
    for rule in results.rules:
        found = [(name, results.versus(name, rule, "GDPO")) for name in results.oracle]
        lost = [f"{name} {d:+.3f} (p {p:.4f})" for name, (d, p) in found if d < -MATERIAL]
        lines.append(f"- {rule}: {', '.join(lost) or 'none'}")
    return f"**Worlds in which a rule's AUC is below GDPO's by more than {MATERIAL}**\n\n" + "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what run.py had as --output")
    parser.add_argument("--seeds", type=int, help="number of seeds; default: those that all files have")
    parser.add_argument("--rules", nargs="+", metavar="RULE", help="rules in this order; default: all")
    args = parser.parse_args()
    print(text(Results.read(args.folder, args.seeds and range(args.seeds), args.rules)), end="")


if __name__ == "__main__":
    main()
