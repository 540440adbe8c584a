"""Train methods on programs of a tiny language, whose tests are channels.

    python benchmarks/programs/run.py runs/programs --parallel 2       # resumable: a finished run is not run again
    python benchmarks/programs/table.py runs/programs

First every method at every learning rate on the seeds for tuning; then each method at the learning rate with its best
mean Pass@1 there, on ten other seeds, which ``table.py`` compares. A run is a method, a learning rate and a seed, and a
line of ``records.jsonl``. The runs of a method and a learning rate are stacked and trained at once; questions and the
uniforms for sampling depend on the seed and the step only, so methods are compared on common random numbers.

"all pass" is one reward, 1 where a program passes all tests; "share" is the share of the tests that it passes; the
other methods see each test as a channel. ``riskpo`` on top of a method shares bundles of five questions and takes the
method for the score of a completion. The update is REINFORCE on one batch, Adam, gradient norm clipped to 1.

Evaluation: 96 of the trained functions and the held-out ones, 32 samples each at temperature 1, Pass@k by the estimator
of Chen et al.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core per process

import torch
from language import LENGTH, PROMPT, TESTS, VOCABULARY, demonstrations, pool, prompt, rewards
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parent.parent / "regimes"))
from policy import Policy
from train import Adam, chosen, token_mean

import rvpo
from rvpo.core.solved import pass_at

logging.getLogger("rvpo.step.aggregator").setLevel(logging.ERROR)  # it would warn once per run

PROMPTS, GENERATIONS = 20, 8  # P and G of a step: four bundles of five questions
LRS = (1e-4, 3e-4, 1e-3, 3e-3)
TUNING, SEEDS = tuple(range(100, 103)), tuple(range(10))
STEPS = 80
ASKED, SAMPLES = 96, 32
KS = (1, 2, 4, 8, 16)
POOL = 16384  # demonstrations of a warm start

SINGLE = {"all pass": "grpo", "share": "grpo"}
PER_TEST = {"GDPO": "gdpo", "VeRPO": "verpo", "RVPO": "rvpo:k=1", "LIFT": "lift"}
METHODS = {
    **SINGLE,
    **PER_TEST,
    **{f"RiskPO on {name}": f"riskpo:score={method}" for name, method in (SINGLE | PER_TEST).items()},
}
"""Methods by the names of their records; GRPO is the method of the two single rewards."""


def rule_of(name: str) -> Callable[[Tensor, float], Tensor]:
    """Return the rule of one run, with a memory of its own: tests passed (N, 6), progress -> advantages (N,)."""
    reward = name.removeprefix("RiskPO on ")
    names = [reward] if reward in SINGLE else list(TESTS)
    aggregator = rvpo.Aggregator(METHODS[name], names, ranges=[(0.0, 1.0)] * len(names))

    def rule(passed: Tensor, progress: float) -> Tensor:
        seen = passed
        if reward in SINGLE:
            seen = (passed.amin(1) if reward == "all pass" else passed.mean(1))[:, None]
        found: Tensor = aggregator(seen, num_generations=GENERATIONS, progress=progress).advantages
        return found

    return rule


def policy() -> Policy:
    """Return the model: 14,528 parameters."""
    return Policy(VOCABULARY, PROMPT + LENGTH, hidden=32, inner=96)


def warm_starts(seeds: Sequence[int], folder: Path, steps: int = 800, lr: float = 1e-2, batch: int = 64) -> Tensor:
    """Return parameters (len(seeds), D) that imitate noisy demonstrations, one file a seed kept in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        path = folder / f"{seed}.safetensors"
        if path.exists():
            continue
        model = policy()
        theta = model.init(seed)[None].requires_grad_()
        optimizer = Adam(theta, torch.tensor([lr]))
        asked, replies = demonstrations(POOL, seed)
        generator = torch.Generator().manual_seed(seed)
        for step in range(steps):
            rows = torch.randint(POOL, (batch,), generator=generator)
            told = replies[rows][None]
            log_probs = chosen(model.log_probs(theta, prompt(asked[rows])[None], told), told)
            (gradient,) = torch.autograd.grad(token_mean(-log_probs, told).sum(), theta)
            optimizer.step(gradient, min(1.0, (step + 1) / 20) * (1 - step / steps))
        save_file({"theta": theta.detach()[0].clone()}, path)
    return torch.stack([load_file(folder / f"{seed}.safetensors")["theta"] for seed in seeds])


def train(name: str, lr: float, seeds: Sequence[int], theta: Tensor, steps: int) -> list[dict[str, Any]]:
    """Train theta (R, D) in place, a row a seed, and return one record per run."""
    model, (asked_of, _) = policy(), pool(held_out=False)
    optimizer = Adam(theta.requires_grad_(), torch.full((len(seeds),), lr))
    rules = [rule_of(name) for _ in seeds]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    size = PROMPTS * GENERATIONS
    for step in range(steps):
        asked = torch.stack([asked_of[torch.randint(len(asked_of), (PROMPTS,), generator=g)] for g in generators])
        asked = asked.repeat_interleave(GENERATIONS, 1)
        uniforms = torch.stack([torch.rand(size, LENGTH, generator=g) for g in generators])
        replies = model.sample(theta, prompt(asked), uniforms)
        passed = rewards(asked, replies)
        advantages = torch.stack([rule(one, step / steps) for rule, one in zip(rules, passed, strict=True)])
        log_probs = chosen(model.log_probs(theta, prompt(asked), replies), replies)
        (gradient,) = torch.autograd.grad(token_mean(-advantages[..., None] * log_probs, replies).sum(), theta)
        optimizer.step(gradient)
    after = [
        {**evaluate(row, seed), "held_out": evaluate(row, seed, held_out=True)}
        for row, seed in zip(theta.detach(), seeds, strict=True)
    ]
    return [
        {"method": name, "lr": lr, "seed": seed, "steps": steps, **found}
        for seed, found in zip(seeds, after, strict=True)
    ]


@torch.no_grad()
def evaluate(theta: Tensor, seed: int, held_out: bool = False) -> dict[str, Any]:
    """Return Pass@k of all tests, how often each test is passed, and the entropy in nats a token, for theta (D,)."""
    model, generator = policy(), torch.Generator().manual_seed(seed + 1_000_000)
    asked_of, _ = pool(held_out)
    asked = asked_of[torch.randperm(len(asked_of), generator=generator)[:ASKED]].repeat_interleave(SAMPLES, 0)[None]
    replies = model.sample(theta[None], prompt(asked), torch.rand(1, asked.shape[1], LENGTH, generator=generator))
    passed = rewards(asked, replies)[0]
    solved = passed.amin(1).view(-1, SAMPLES).sum(1).double()
    log_probs = model.log_probs(theta[None], prompt(asked), replies)
    entropy = token_mean(-(log_probs.exp() * log_probs).sum(-1), replies)
    passes = pass_at(torch.full_like(solved, SAMPLES), solved, KS)
    return {
        "pass": {str(k): round(float(value.mean()), 5) for k, value in zip(KS, passes, strict=True)},
        "tests": [round(float(share), 5) for share in passed.mean(0)],
        "entropy": round(float(entropy), 5),
    }


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a folder."""
    path = folder / "records.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def job(settings: tuple[Path, str, float, tuple[int, ...], int]) -> tuple[str, list[dict[str, Any]]]:
    """Train one method at one learning rate on some seeds."""
    folder, name, lr, seeds, steps = settings
    torch.set_num_threads(1)
    began = time.perf_counter()
    records = train(name, lr, seeds, warm_starts(seeds, folder / "warm"), steps)
    mean = sum(record["pass"]["1"] for record in records) / len(records)
    return f"{name}, lr {lr:g}: Pass@1 {mean:.3f}, {time.perf_counter() - began:.0f} s", records


def chosen_rates(folder: Path, steps: int, methods: Sequence[str]) -> dict[str, float]:
    """Return each method's learning rate with the best mean Pass@1 on the seeds for tuning."""
    found: dict[tuple[str, float], list[float]] = {}
    for record in read(folder):
        if record["seed"] in TUNING and record["steps"] == steps:
            found.setdefault((record["method"], record["lr"]), []).append(record["pass"]["1"])
    means = {key: sum(values) / len(values) for key, values in found.items()}
    return {name: max((lr for m, lr in means if m == name), key=lambda lr: means[name, lr]) for name in methods}


def run_all(folder: Path, jobs: Sequence[tuple[str, float, tuple[int, ...]]], steps: int, parallel: int) -> None:
    """Run what ``records.jsonl`` does not have yet."""
    done = {(r["method"], r["lr"], r["seed"]) for r in read(folder) if r["steps"] == steps}
    left = [(name, lr, tuple([s for s in seeds if (name, lr, s) not in done])) for name, lr, seeds in jobs]
    todo = [(folder, name, lr, seeds, steps) for name, lr, seeds in left if seeds]
    with multiprocessing.get_context("spawn").Pool(parallel) as workers:
        for line, records in workers.imap_unordered(job, todo, chunksize=1):
            with (folder / "records.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
            print(line, flush=True)


def main() -> None:
    """Tune, then run each method at its learning rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--parallel", type=int, default=1, help="processes, a core each")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(args.parallel) as workers:  # they are shared by all methods
        workers.starmap(warm_starts, [([seed], args.out / "warm") for seed in (*TUNING, *SEEDS)], chunksize=1)
    tuning = [(name, lr, TUNING) for name in args.methods for lr in LRS]
    run_all(args.out, tuning, args.steps, args.parallel)
    rates = chosen_rates(args.out, args.steps, args.methods)
    print("learning rates:", json.dumps(rates), flush=True)
    run_all(args.out, [(name, lr, SEEDS) for name, lr in rates.items()], args.steps, args.parallel)


if __name__ == "__main__":
    main()
