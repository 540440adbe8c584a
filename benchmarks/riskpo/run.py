"""Train GRPO, RiskPO and controls from the same warm starts on a small verifiable task.

    python benchmarks/riskpo/run.py runs/riskpo            # resumable: a finished run is not run again
    python benchmarks/riskpo/run.py runs/riskpo --methods "grpo riskpo:bundle_size=2 my_rules.py:cvar"
    python benchmarks/riskpo/table.py runs/riskpo --figure docs/figures/riskpo.png

A run is a rule, a learning rate and a seed; its record is a line of ``records.jsonl``. Runs are stacked and trained at
once, on common random numbers: the questions and the uniforms for sampling depend on the seed and the step only. The
update is REINFORCE on one batch (no clipping ratio), Adam, gradient norm clipped to 1 a run. Adam undoes the scale of a
rule's advantages; what clipping takes from large ones is the same for all steps of a rule, more or less.

Evaluation: 96 held-out questions a seed, 32 samples each at temperature 1; Pass@k is the unbiased estimator
1 - C(n - c, k) / C(n, k) for c right of n samples (Chen et al., arXiv 2107.03374).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sums import LENGTH, PROMPT, VOCABULARY, carries, demonstrations, draw, prompt, questions, rewards
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parent.parent / "regimes"))
from policy import Policy
from train import Adam, chosen, token_mean

import rvpo
from rvpo.core.methods.registry import read_texts, spell

logging.getLogger("rvpo.step.aggregator").setLevel(logging.ERROR)  # it would warn once per run

PROMPTS, GENERATIONS = 20, 8  # P and G of a step: four bundles of five questions
LRS = (3e-4, 1e-3, 3e-3, 1e-2)
STEPS, EVERY = 200, 20
ASKED, SAMPLES = 96, 32
KS = (1, 2, 4, 8, 16)
POOL = 16384  # demonstrations of a warm start

Rule = Callable[[Tensor], Tensor]
"""Rewards (N,) of a step -> advantages (N,)."""


def negative(scores: Tensor) -> Tensor:
    """Push wrong replies down and nothing up (negative sample reinforcement, arXiv 2506.01347): a control."""
    return scores - 1


RULES: dict[str, str] = {
    "grpo": "grpo",
    "riskpo": "riskpo:tail_weight=0.5",
    "riskpo-w1.5": "riskpo",
    "riskpo-released": "riskpo:upper=0.9,quantiles=batch,riskpo_eps=1e-6,std_floor=0,leftover=sum",
    "riskpo-seek": "riskpo:tail_weight=0.5,seek=true",
    "riskpo-uniform": "riskpo:tail_weight=0.5,credit=uniform",
    "riskpo-deviation": "riskpo:tail_weight=0.5,credit=deviation",
    "riskpo-centred": "riskpo:tail_weight=0.5,baseline=anchored",
    "negative": "",  # the control above, which is not a method
}
"""Methods by the names of their records."""


def make_rule(name: str) -> Rule:
    """Return the rule of one run, with a memory of its own: one of :data:`RULES`, or a method as text."""
    if name == "negative":
        return negative
    aggregator = rvpo.Aggregator(RULES.get(name, name), ["right"])
    return lambda scores: aggregator(scores[:, None], num_generations=GENERATIONS).advantages


def named(methods: str) -> list[str]:
    """Return the texts of methods that are separated by blanks."""
    return [spell(method) for method in read_texts(methods)]


def warm_starts(seeds: Sequence[int], folder: Path, steps: int = 1000, lr: float = 1e-2, batch: int = 64) -> Tensor:
    """Return parameters (len(seeds), D) that imitate noisy demonstrations, one file a seed kept in ``folder``."""
    paths = {seed: folder / f"{seed}.safetensors" for seed in seeds}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        policy = _policy()
        theta = torch.stack([policy.init(seed) for seed in missing]).requires_grad_()
        optimizer = Adam(theta, torch.full((len(missing),), lr))
        pools = [demonstrations(questions(held_out=False), POOL, seed) for seed in missing]
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            rows = torch.randint(POOL, (batch,), generator=generator)
            asked, replies = (torch.stack([pool[i][rows] for pool in pools]) for i in (0, 1))
            log_probs = chosen(policy.log_probs(theta, prompt(asked), replies), replies)
            (gradient,) = torch.autograd.grad(token_mean(-log_probs, replies).sum(), theta)
            optimizer.step(gradient, min(1.0, (step + 1) / 20) * (1 - step / steps))
        for seed, row in zip(missing, theta.detach(), strict=True):
            save_file({"theta": row.clone()}, paths[seed])
    return torch.stack([load_file(path)["theta"] for path in paths.values()])


def train(theta: Tensor, runs: Sequence[tuple[str, float, int]], prompts: int, steps: int) -> list[dict[str, Any]]:
    """Train theta (R, D) in place on P = ``prompts`` questions per step, and return one record per run."""
    policy, pools = _policy(), questions(held_out=False)
    optimizer = Adam(theta.requires_grad_(), torch.tensor([lr for _, lr, _ in runs]))
    rules = [make_rule(rule) for rule, _, _ in runs]
    seeds = sorted({seed for *_, seed in runs})
    of_run = torch.tensor([seeds.index(seed) for *_, seed in runs])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    records: list[dict[str, Any]] = [
        {"rule": rule, "lr": lr, "seed": seed, "prompts": prompts, "evaluations": []} for rule, lr, seed in runs
    ]
    for step in range(steps + 1):
        if step % EVERY == 0:
            for record, values in zip(records, evaluate(theta.detach(), [seed for *_, seed in runs]), strict=True):
                record["evaluations"].append({"step": step, **values})
        if step == steps:
            break
        asked = torch.stack([draw(pools, prompts, g).repeat_interleave(GENERATIONS, 0) for g in generators])[of_run]
        uniforms = torch.stack([torch.rand(prompts * GENERATIONS, LENGTH, generator=g) for g in generators])[of_run]
        replies = policy.sample(theta, prompt(asked), uniforms)
        scores = rewards(asked, replies)
        advantages = torch.stack([rule(score) for rule, score in zip(rules, scores, strict=True)])
        log_probs = chosen(policy.log_probs(theta, prompt(asked), replies), replies)
        (gradient,) = torch.autograd.grad(token_mean(-advantages[..., None] * log_probs, replies).sum(), theta)
        optimizer.step(gradient)
    return records


@torch.no_grad()
def evaluate(theta: Tensor, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return Pass@k, entropy (nats a token), and both ends of Pass@k by number of carries, for theta (R, D)."""
    policy = _policy()
    by_seed = {seed: _exam(seed) for seed in set(seeds)}
    results = []
    # A question's samples differ only in their uniforms. Runs of a slice are stacked, to bound memory.
    for first in range(0, len(seeds), 10):
        part = seeds[first : first + 10]
        asked = torch.stack([by_seed[seed][0] for seed in part])
        uniforms = torch.stack([by_seed[seed][1] for seed in part])
        replies = policy.sample(theta[first : first + 10], prompt(asked), uniforms)
        right = rewards(asked, replies).unflatten(1, (ASKED, SAMPLES)).sum(-1).int()
        one = slice(None, None, SAMPLES // 8)  # an eighth of the samples tells the entropy well enough
        log_probs = policy.log_probs(theta[first : first + 10], prompt(asked[:, one]), replies[:, one])
        entropy = token_mean(-(log_probs.exp() * log_probs).sum(-1), replies[:, one])
        for (
            counts,
            nats,
            questions_,
        ) in zip(right, entropy, asked[:, ::SAMPLES], strict=True):
            table = {k: torch.tensor(_PASS[k])[counts.long()] for k in KS}
            kind = carries(questions_)
            results.append(
                {
                    "pass": {str(k): round(table[k].mean().item(), 5) for k in KS},
                    "entropy": round(nats.item(), 5),
                    "by_carries": {
                        str(c): {str(k): round(table[k][kind == c].mean().item(), 5) for k in KS}
                        for c in kind.unique().tolist()
                    },
                }
            )
    return results


_PASS = {k: [1 - comb(SAMPLES - c, k) / comb(SAMPLES, k) for c in range(SAMPLES + 1)] for k in KS}


def _exam(seed: int) -> tuple[Tensor, Tensor]:
    """Return the held-out questions (ASKED * SAMPLES, 4) of a seed and the uniforms of its samples."""
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    asked = draw(questions(held_out=True), ASKED, generator).repeat_interleave(SAMPLES, 0)
    return asked, torch.rand(len(asked), LENGTH, generator=generator)


def _policy() -> Policy:
    return Policy(VOCABULARY, PROMPT + LENGTH, inner=96)


def main() -> None:
    """Run what ``records.jsonl`` does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--methods", type=named, help="in place of --rules, such as 'grpo riskpo:bundle_size=2'")
    parser.add_argument("--lrs", nargs="+", type=float, default=LRS)
    parser.add_argument("--seeds", nargs="+", type=int, default=range(10))
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="P, questions of a step")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="updates; records do not tell runs of another number apart"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {(r["rule"], r["lr"], r["seed"]) for r in map(json.loads, lines) if r["prompts"] == args.prompts}
    for rule, lr in product(args.methods or args.rules, args.lrs):
        runs = [(rule, lr, seed) for seed in args.seeds if (rule, lr, seed) not in done]
        if not runs:
            continue
        start = time.perf_counter()
        theta = warm_starts([seed for *_, seed in runs], args.out / "warm")
        records = train(theta, runs, args.prompts, args.steps)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        last = [record["evaluations"][-1] for record in records]
        means = [sum(r["pass"][k] for r in last) / len(last) for k in ("1", "16")]
        entropy = sum(r["entropy"] for r in last) / len(last)
        print(
            f"{rule:18} lr {lr:g}  {len(runs)} runs  Pass@1 {means[0]:.3f}  Pass@16 {means[1]:.3f}  "
            f"entropy {entropy:.3f}  {time.perf_counter() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
