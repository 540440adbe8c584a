"""Time and peak memory of `rvpo diagnose`, from ten thousand to a million logged completions with 17 channels.

    python benchmarks/reports/scale.py --sizes 10000 100000 1000000

Each size is written twice: as TRL's completions/ (a file for each 1,000 completions, with prompts and completions of
about 100 and 400 characters) and as one parquet file with a column of the step. Every measurement is a process of its
own, of which the operating system tells the peak; `import` is one that only loads what the command loads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHANNELS, STEP, GROUP = 17, 1000, 8
CHILD = """
import json, resource, sys, time
from rvpo.diagnose.diagnose import diagnose
from rvpo.logs.open import open_run
import torch
start = time.perf_counter()
told = {}
if sys.argv[1] != "-":
    found = diagnose(open_run(sys.argv[1]), texts=sys.argv[2] == "texts")
    told = {"completions": found.completions, "groups": found.groups}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": time.perf_counter() - start, "peak_mib": peak, **told}))
"""


def step_table(rng: np.random.Generator, step: int) -> pa.Table:
    rewards = (rng.random((STEP, CHANNELS)) < rng.uniform(0.2, 0.8, CHANNELS)).astype(float)
    rewards[rng.random(rewards.shape) < 0.02] = np.nan
    advantage = np.nansum(rewards, 1)
    advantage = (advantage - advantage.mean()) / advantage.std()
    words = np.array(["lorem ", "ipsum ", "dolor ", "sit ", "amet "])
    texts = ["".join(row) for row in words[rng.integers(0, 5, (STEP, 80))]]
    prompts = ["".join(words[rng.integers(0, 5, 20)]) for _ in range(STEP // GROUP)]
    return pa.table(
        {
            "step": [step] * STEP,
            "prompt": [prompts[i // GROUP] for i in range(STEP)],
            "completion": texts,
            **{f"reward_{j}": rewards[:, j] for j in range(CHANNELS)},
            "advantage": advantage,
        }
    )


def measure(path: str, texts: bool) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, path, "texts" if texts else "no"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    empty = measure("-", False)
    print(
        f"{'logs':<28}{'completions':>12}{'seconds':>9}{'us each':>9}{'peak MiB':>10}{'above import':>14}", flush=True
    )
    print(f"{'import':<28}{0:>12}{0:>9.1f}{'':>9}{empty['peak_mib']:>10.0f}")
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "completions").mkdir()
            rng = np.random.default_rng(0)
            writer = None
            for step in range(1, size // STEP + 1):
                table = step_table(rng, step)
                pq.write_table(table, folder / "completions" / f"completions_{step:05d}.parquet")
                plain = table.drop_columns(["completion"])
                writer = writer or pq.ParquetWriter(folder / "all.parquet", plain.schema)
                writer.write_table(plain)
            writer.close()
            for what, path, texts in (
                ("completions/, with texts", folder, True),
                ("completions/, --no-texts", folder, False),
                ("one parquet file", folder / "all.parquet", False),
            ):
                m = measure(str(path), texts)
                print(
                    f"{what:<28}{m['completions']:>12,}{m['seconds']:>9.1f}{1e6 * m['seconds'] / size:>9.1f}"
                    f"{m['peak_mib']:>10.0f}{m['peak_mib'] - empty['peak_mib']:>14.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
