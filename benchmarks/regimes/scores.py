"""Print what run.py recorded as JSON lines, one per run, for `rvpo arena`: cell, method, rate, seed, auc, final.

    python benchmarks/regimes/scores.py runs/regimes

auc and final are the lowest channel's, as table.py defines them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rules import RULES
from table import measure

from rvpo.core.methods.registry import build_method, spell


def main() -> None:
    """Print the scores of a folder."""
    for path in sorted((Path(sys.argv[1]) / "records").glob("*.jsonl")):
        for record in map(json.loads, path.read_text("utf-8").splitlines()):
            found = measure(record)
            method = spell(build_method(RULES.get(record["rule"], record["rule"])))
            score = {"auc": float(found["auc"]), "final": float(found["final"])}
            print(
                json.dumps(
                    {"cell": record["cell"], "method": method, "rate": record["lr"], "seed": record["seed"], **score}
                )
            )


if __name__ == "__main__":
    main()
