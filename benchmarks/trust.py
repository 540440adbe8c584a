"""What a noisy channel does to the advantages, and how much trust in proportion to its reliability repairs.

    python benchmarks/trust.py [--seeds 8] [--prompts 32]

Five channels that share a fifth of their variance, G = 8: two binary ones (met in 0.4 and 0.75 of the rollouts, moved by
the prompt) and three graded ones. Noise goes into one binary channel (verdicts flipped), one graded channel (normal, in
units of its true standard deviation), or all channels but the last. 30 steps of P prompts; a tenth of the completions is
judged twice. Measured on the last ten steps:

    with the noise-free advantages    correlation of the advantages with those of the same rewards without noise
    with the true ... channels        correlation, within groups, with the true rewards of the noisy and of the other
                                      channels (mean over them)

``given`` knows the reliability, ``estimated`` has it from the pairs. Mean over seeds; +- is the 95% interval (Student t)
of the paired difference. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

import rvpo
from rvpo.core.aggregate import normalised, soft_min
from rvpo.core.groups import Groups
from rvpo.core.normalize import group_zscore
from rvpo.step.trust import Trust, next_reliability, shrink

M, G, STEPS, LAST, TWICE = 5, 8, 30, 10, 0.1
BINARY = 2
LEVELS = torch.tensor([-0.25, 0.75])
RULES = {"GDPO": 0.0, "k = 1": 1.0, "k = 2": 2.0, "k = 5": 5.0}
# Exponents of rho on Z and on the share; the shipped formula is the third.
FORMULAS = {
    "no trust": (0.0, 0.0),
    "Z √ρ": (0.5, 0.0),
    "Z √ρ, p √ρ": (0.5, 0.5),
    "Z √ρ, p ρ": (0.5, 1.0),
    "p √ρ": (0.0, 0.5),
    "p ρ": (0.0, 1.0),
}
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26, 12: 2.20, 16: 2.13}


@dataclass(frozen=True)
class Noise:
    """Which channels are noisy, and how much: probability of a flip, and standard deviation over the true one."""

    name: str
    channels: tuple[int, ...]
    flip: float = 0.0
    sd: float = 0.0


NOISES = (
    *(Noise(f"flip {e}", (0,), flip=e) for e in (0.05, 0.1, 0.2, 0.3, 0.4)),
    *(Noise(f"sd {s}", (BINARY,), sd=s) for s in (0.25, 0.5, 1.0, 2.0)),
    Noise("four: flip 0.1, sd 0.5", (0, 1, 2, 3), flip=0.1, sd=0.5),
    Noise("four: flip 0.3, sd 2", (0, 1, 2, 3), flip=0.3, sd=2.0),
)


def true_rewards(prompts: int, draw: torch.Generator) -> Tensor:
    """Draw (P * G, M) rewards without noise."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    latent = (
        math.sqrt(0.8) * normal(prompts, G, M) + math.sqrt(0.2) * normal(prompts, G, 1) + 0.7 * normal(prompts, 1, M)
    )
    latent[..., :BINARY] = (latent[..., :BINARY] + LEVELS > 0).double()
    return latent.reshape(prompts * G, M)


def judge(truth: Tensor, noise: Noise, draw: torch.Generator) -> Tensor:
    """Judge every completion once; the graded channels' true standard deviation within groups is 1."""
    flips = torch.rand(truth.shape, generator=draw, dtype=torch.float64) < noise.flip
    binary = torch.where(flips, 1 - truth, truth)
    graded = truth + noise.sd * torch.randn(truth.shape, generator=draw, dtype=torch.float64)
    judged = torch.where(torch.arange(M) < BINARY, binary, graded)
    noisy = torch.zeros(M, dtype=torch.bool)
    noisy[list(noise.channels)] = True
    return torch.where(noisy, judged, truth)


def true_reliability(noise: Noise, truth: Tensor, groups: Groups) -> Tensor:
    """Return (M,) true over observed variance within groups, the noise's part in closed form."""
    centred = truth - groups.broadcast(groups.sum(truth) / G)
    variance = centred.square().sum(0) / (groups.count * (G - 1))
    rho = torch.ones(M, dtype=torch.float64)
    for j in noise.channels:
        kept, added = ((1 - 2 * noise.flip) ** 2, noise.flip * (1 - noise.flip)) if j < BINARY else (1.0, noise.sd**2)
        rho[j] = kept * variance[j] / (kept * variance[j] + added)
    return rho


def advantages(rewards: Tensor, k: float, reliability: Tensor, formula: tuple[float, float] | None = None) -> Tensor:
    """Return whitened advantages (N,) under the package's trust, or under exponents of rho on Z and on the share."""
    groups = Groups.from_blocks(len(rewards), G, rewards.device)
    scores = group_zscore(rewards, groups, eps=1e-4, ddof=1, rtol=1e-6)
    p = normalised(scores.live.double() if k else torch.ones_like(rewards))
    if formula is None:
        z, p = shrink(scores.z, p, reliability)
    else:
        z, p = scores.z * reliability ** formula[0], normalised(p * reliability ** formula[1])
    aggregated, _ = soft_min(z, p, k)
    counts = (p > 0).any(-1)
    mean, std = aggregated[counts].mean(), aggregated[counts].std()
    return ((aggregated - mean) / std).masked_fill(~counts, 0.0)


def correlation(a: Tensor, b: Tensor) -> float:
    return torch.corrcoef(torch.stack((a, b)))[0, 1].item()


def within(a: Tensor, columns: Tensor) -> float:
    """Correlate ``a`` (N,) with each column (N, m) within groups, and average."""
    centred = [(x.view(-1, G) - x.view(-1, G).mean(1, keepdim=True)).flatten() for x in (a, *columns.T)]
    return statistics.fmean(correlation(centred[0], column) for column in centred[1:])


def one_seed(noise: Noise, seed: int, prompts: int) -> dict[tuple[str, ...], float]:
    """Run the 30 steps; return correlations by (rule, way, what)."""
    draw = torch.Generator().manual_seed(seed)
    truth = true_rewards(STEPS * prompts, draw)
    first, second = judge(truth, noise, draw), judge(truth, noise, draw)
    rows, state, estimates = prompts * G, None, []
    groups = Groups.from_blocks(rows, G, truth.device)
    for step in range(STEPS):
        batch = slice(step * rows, (step + 1) * rows)
        twice = torch.rand(rows, generator=draw) < TWICE
        estimate, state = next_reliability(
            first[batch][twice], second[batch][twice], first[batch], groups, Trust(), state
        )
        estimates.append(estimate.expand(rows, M))
    given = true_reliability(noise, truth, Groups.from_blocks(len(truth), G, truth.device))
    estimated = torch.cat(estimates[-LAST:])
    truth, judged = truth[-LAST * rows :], first[-LAST * rows :]
    others = [j for j in range(M) if j not in noise.channels]

    out: dict[tuple[str, ...], float] = {
        ("rho", "given"): given[noise.channels[0]].item(),
        ("rho", "estimated"): estimated[-1, noise.channels[0]].item(),
    }
    for rule, k in RULES.items():
        clean = advantages(truth, k, torch.ones(M))
        ways = {"no trust": advantages(judged, k, torch.ones(M)), "given": advantages(judged, k, given)}
        ways["estimated"] = advantages(judged, k, estimated)
        for way, a in ways.items():
            out[rule, way, "clean"] = correlation(a, clean)
            out[rule, way, "noisy"] = within(a, truth[:, list(noise.channels)])
            out[rule, way, "others"] = within(a, truth[:, others])
        for name, formula in FORMULAS.items():
            out[rule, name, "formula"] = correlation(advantages(judged, k, given, formula), clean)
        out[rule, "left out", "formula"] = correlation(advantages(judged, k, (given == 1).double()), clean)
    return out


def check_pipeline(prompts: int) -> None:
    """Without noise and trust, the advantages here are those of the package."""
    rewards = true_rewards(prompts, torch.Generator().manual_seed(0))
    for k in RULES.values():
        method = rvpo.RVPO(k) if k else "gdpo"
        theirs = rvpo.advantages(rewards, num_generations=G, method=method).advantages
        torch.testing.assert_close(advantages(rewards, k, torch.ones(M)), theirs, atol=1e-3, rtol=1e-3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, choices=sorted(STUDENT))
    parser.add_argument("--prompts", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    check_pipeline(args.prompts)
    results = {noise: [one_seed(noise, seed, args.prompts) for seed in range(args.seeds)] for noise in NOISES}

    def mean(noise: Noise, *key: str) -> float:
        return statistics.fmean(result[key] for result in results[noise])

    def gain(noise: Noise, rule: str, way: str) -> str:
        differences = [r[rule, way, "clean"] - r[rule, "no trust", "clean"] for r in results[noise]]
        half = STUDENT[args.seeds] * statistics.stdev(differences) / math.sqrt(args.seeds)
        return f"{statistics.fmean(differences):+.3f} ± {half:.3f}"

    print("**Reliability of the (first) noisy channel**, mean over seeds; the spread of the estimate over seeds\n")
    print("| noise | ρ | estimated | standard deviation |\n|---|--:|--:|--:|")
    for noise in NOISES:
        spread = statistics.stdev(r["rho", "estimated"] for r in results[noise])
        print(
            f"| {noise.name} | {mean(noise, 'rho', 'given'):.2f} | {mean(noise, 'rho', 'estimated'):.2f} | {spread:.3f} |"
        )

    print(
        "\n**With and without trust**: with the noise-free advantages; with the true noisy and the true other channels\n"
    )
    print(
        "| noise | rule | no trust | given: gain | estimated: gain | noisy: no trust | estimated | others: no trust | estimated |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for noise in NOISES:
        for rule in RULES:
            true = [mean(noise, rule, w, what) for what in ("noisy", "others") for w in ("no trust", "estimated")]
            print(
                f"| {noise.name} | {rule} | {mean(noise, rule, 'no trust', 'clean'):.3f} | {gain(noise, rule, 'given')} | "
                f"{gain(noise, rule, 'estimated')} | " + " | ".join(f"{x:.2f}" for x in true) + " |"
            )

    columns = [*FORMULAS, "left out"]
    print("\n**Formulas, ρ given**: correlation with the noise-free advantages\n")
    print("| noise | rule | " + " | ".join(columns) + " |\n|---|---|" + "--:|" * len(columns))
    for noise in NOISES:
        for rule in RULES:
            values = [mean(noise, rule, name, "formula") for name in columns]
            print(f"| {noise.name} | {rule} | " + " | ".join(f"{x:.3f}" for x in values) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
