"""What `rvpo diagnose` finds of neglect that was put into logs, and what it mistakes for it.

    python benchmarks/reports/neglect.py --runs 200 --seed 0

A run has 3 to 17 binary or graded channels that share a factor within a completion, differ from prompt to prompt, drift
over 20 to 80 steps, and miss up to 5% of their rewards; 4 to 16 completions for each of 4 to 12 prompts a step.
Advantages are those of GRPO, GDPO or RVPO. One channel of it is neglected, in one of three ways:

    weight     it counts s times what the others count (s = 0: monitored by mistake), under GRPO and GDPO; under RVPO the
               weight stands inside the soft minimum, and a light channel that is far down still speaks
    scale      its rewards are s times as large, and raw rewards are summed (GRPO); in groups where all others tie GRPO
               scales it up again
    outvoted   the others oppose it, so that its row of the channels' correlation matrix sums to s: below 0 the mean
               rule (GDPO) lowers it

Clean runs are made alike, without. Rows count channels; the truth is which one was touched, not what became of it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import rvpo
from rvpo.diagnose.diagnose import diagnose
from rvpo.logs.open import open_run
from rvpo.logs.run import Columns

WAYS = {
    "weight": (0.0, 0.05, 0.1, 0.25, 0.5),
    "weight, rvpo": (0.0, 0.1, 0.25),
    "scale": (0.02, 0.05, 0.1, 0.25),
    "outvoted": (0.2, 0.0, -0.3),
}
CLEAN = ("grpo", "gdpo", "rvpo")


def make(path: Path, seed: int, way: str | None, strength: float, method: str) -> tuple[int | None, int]:
    """Write a run; return the channel that is neglected, and the number of completions."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    m = rng.choice([3, 5, 8, 17])
    steps, prompts, g = rng.randint(20, 80), rng.randint(4, 12), rng.choice([4, 8, 16])
    target = rng.randrange(m) if way else None
    level = torch.empty(m).uniform_(-1.2, 1.2, generator=generator)
    drift = torch.empty(m).uniform_(-0.5, 1.5, generator=generator)
    binary = torch.rand(m, generator=generator) < 0.7
    loading = torch.empty(m).uniform_(0, 0.5, generator=generator)
    if way == "outvoted":
        loading = opposed(m, target, strength, level + drift / 2, binary, generator)
    missing = rng.uniform(0, 0.05)
    weights = torch.ones(m)
    if way and way.startswith("weight"):
        weights[target] = strength
    table: dict[str, list] = {"step": [], "group": [], **{f"channel_{j}": [] for j in range(m)}, "advantage": []}
    for step in range(steps):
        n = prompts * g
        ease = torch.randn(prompts, m, generator=generator).repeat_interleave(g, 0) * 0.7
        factor = torch.randn(n, 1, generator=generator)
        noise = torch.randn(n, m, generator=generator)
        latent = loading * factor + (1 - loading**2).sqrt() * noise
        push = level + drift * step / steps + ease
        rewards = torch.where(binary, (latent + push > 0).float(), torch.sigmoid(latent + push))
        if way == "scale":
            rewards[:, target] *= strength
        rewards[torch.rand(n, m, generator=generator) < missing] = torch.nan
        result = rvpo.advantages(rewards, num_generations=g, method=method, weights=weights)
        table["step"] += [step + 1] * n
        table["group"] += (torch.arange(n) // g).tolist()
        for j in range(m):
            table[f"channel_{j}"] += [None if x != x else x for x in rewards[:, j].tolist()]
        table["advantage"] += result.advantages.tolist()
    pq.write_table(pa.table(table), path)
    return target, len(table["step"])


def opposed(
    m: int, target: int, row_sum: float, push: torch.Tensor, binary: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return the loadings at which the target's row of the channels' correlation matrix sums to ``row_sum``."""
    factor, noise = torch.randn(20_000, 1, generator=generator), torch.randn(20_000, m, generator=generator)
    low, high = 0.0, 1.0
    for _ in range(20):
        loading = torch.full((m,), (low + high) / 2)
        loading[target] *= -1
        latent = loading * factor + (1 - loading**2).sqrt() * noise + push
        rewards = torch.where(binary, (latent > 0).float(), torch.sigmoid(latent))
        reached = torch.corrcoef(rewards.T)[target].sum() > row_sum
        low, high = ((low + high) / 2, high) if reached else (low, (low + high) / 2)
    return loading


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="with neglect; as many are clean")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cells = [(way, strength) for way, strengths in WAYS.items() for strength in strengths]
    hit: dict[tuple[str, float], Counter] = {cell: Counter() for cell in cells}
    large: dict[tuple[str, float], Counter] = {cell: Counter() for cell in cells}
    others: dict[str, Counter] = {name: Counter() for name in ("beside a neglected one", *CLEAN)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.parquet"
        for i in range(2 * args.runs):
            way, strength = cells[i % len(cells)] if i < args.runs else (None, 0.0)
            methods = {"scale": ["grpo"], "outvoted": ["gdpo"], "weight": ["grpo", "gdpo"], "weight, rvpo": ["rvpo"]}
            method = random.Random(i).choice(methods.get(way or "", CLEAN))
            target, size = make(path, args.seed * 1_000_000 + i, way, strength, method)
            # Named, as a number of weight 0 without a telling name is taken for no reward.
            names = tuple(name for name in pq.read_schema(path).names if name.startswith("channel_"))
            run = open_run(path, Columns(rewards=names))
            found = [channel.verdict for channel in diagnose(run, texts=False).channels]
            for j, verdict in enumerate(found):
                if j == target:
                    hit[way, strength][verdict] += 1
                    if size >= 2000:
                        large[way, strength][verdict == "neglected"] += 1
                else:
                    others["beside a neglected one" if way else method][verdict] += 1
    verdicts = ("neglected", "unclear", "healthy", "saturated", "dead", "noisy")
    print(f"{'neglected channels':<28}" + "".join(f"{v:>11}" for v in verdicts) + f"{'recall':>9}{'>= 2000':>9}")
    for (way, strength), counts in hit.items():
        share = counts["neglected"] / max(1, counts.total())
        big = large[way, strength]
        of_large = f"{big[True] / big.total():>9.2f}" if big else f"{'-':>9}"
        told = "".join(f"{counts[v]:>11}" for v in verdicts)
        print(f"{way + ' ' + format(strength, 'g'):<28}{told}{share:>9.2f}{of_large}")
    print(f"\n{'other channels':<28}" + "".join(f"{v:>11}" for v in verdicts) + f"{'wrongly':>9}")
    for name, counts in others.items():
        share = counts["neglected"] / max(1, counts.total())
        print(f"{name:<28}" + "".join(f"{counts[v]:>11}" for v in verdicts) + f"{share:>9.4f}")
    true = sum(counts["neglected"] for counts in hit.values())
    false = sum(counts["neglected"] for counts in others.values())
    injected = sum(counts.total() for counts in hit.values())
    strong = [cell for cell in cells if cell[1] <= 0.1]
    recall = sum(hit[c]["neglected"] for c in strong) / sum(hit[c].total() for c in strong)
    print(f"\nprecision {true / (true + false):.3f} ({true} of {true + false})")
    share_of_large = sum(large[c][True] for c in strong) / sum(large[c].total() for c in strong)
    print(
        f"recall {true / injected:.3f} of all {injected}, {recall:.3f} at s = 0.1 or less, {share_of_large:.3f} of those in runs "
        "of 2,000 completions and more"
    )


if __name__ == "__main__":
    main()
