"""Print what run.py recorded as JSON lines, one per run, for `rvpo arena`: cell, method, rate, seed, auc, final.

    python benchmarks/worlds/scores.py runs/worlds

auc and final are those of the lowest channel that counts, as table.py defines them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from rules import RULES
from train import ORACLES
from worlds import WORLDS

from rvpo.core.methods.registry import build_method, spell


def main() -> None:
    """Print the scores of a folder, the oracles' among them."""
    for path in sorted((Path(sys.argv[1]) / "records").glob("*.jsonl")):
        for record in map(json.loads, path.read_text("utf-8").splitlines()):
            world = WORLDS.get(record["world"])
            if world is None:
                continue
            method = record["rule"]
            if method not in ORACLES:
                spec = RULES.get(method)
                method = spell(build_method(spec.text(world) if spec else method))
            score = {
                key: float(np.array(record[name])[world.counts].min())
                for key, name in (("auc", "mean"), ("final", "final"))
            }
            print(
                json.dumps(
                    {"cell": world.name, "method": method, "rate": record["rate"], "seed": record["seed"], **score}
                )
            )


if __name__ == "__main__":
    main()
