"""How noisy is one batch's gradient under a rule, before training?

    python benchmarks/riskpo/noise.py runs/riskpo --prompts 20 256

At the warm start of each seed, draw independent batches and compare their gradients g: the signal-to-noise ratio is
|mean g| / sqrt(mean |g - mean g|^2), where the squared length of the mean is corrected for the noise left in it. It is
that of one batch; both squares are summed over seeds first. Quantiles that a rule tracks are those after ten batches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from run import GENERATIONS, LENGTH, RULES, _policy, make_rule, warm_starts
from sums import draw, prompt, questions, rewards
from torch import Tensor
from train import chosen, token_mean

BEFORE = 10  # batches after which tracked quantiles have settled


def powers(gradients: Tensor) -> tuple[float, float]:
    """Return the squared length of the mean of B gradients (B, D), without its noise, and the power of the noise."""
    batches = len(gradients)
    mean = gradients.mean(0)
    noise = float((gradients - mean).square().sum()) / (batches - 1)
    return float(mean.square().sum()) - noise / batches, noise


def gradients(theta: Tensor, rule: str, prompts: int, batches: int, seed: int) -> Tensor:
    """Return the gradients (B, D) of independent batches at parameters theta (D,)."""
    policy, pools = _policy(), questions(held_out=False)
    advantages_of = make_rule(rule)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for batch in range(BEFORE + batches):
        asked = draw(pools, prompts, generator).repeat_interleave(GENERATIONS, 0)[None]
        uniforms = torch.rand(1, prompts * GENERATIONS, LENGTH, generator=generator)
        at = theta[None].clone().requires_grad_()
        with torch.no_grad():
            replies = policy.sample(at, prompt(asked), uniforms)
        advantages = advantages_of(rewards(asked, replies)[0])
        if batch < BEFORE:
            continue
        log_probs = chosen(policy.log_probs(at, prompt(asked), replies), replies)
        loss = token_mean(-advantages[None, :, None] * log_probs, replies).sum()
        found.append(torch.autograd.grad(loss, at)[0][0])
    return torch.stack(found)


def main() -> None:
    """Print a table: a row per rule, a column per number of questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder of run.py, whose warm starts are used")
    parser.add_argument("--rules", nargs="+", default=["grpo", "riskpo"], choices=list(RULES))
    parser.add_argument("--prompts", nargs="+", type=int, default=[20, 256])
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--seeds", nargs="+", type=int, default=range(10))
    args = parser.parse_args()
    torch.set_num_threads(1)
    starts = warm_starts(args.seeds, args.out / "warm")
    print("| rule | " + " | ".join(f"{prompts} questions" for prompts in args.prompts) + " |")
    print("|---|" + "--:|" * len(args.prompts))
    for rule in args.rules:
        cells = []
        for prompts in args.prompts:
            signal = noise = 0.0
            for seed, theta in zip(args.seeds, starts, strict=True):
                of_seed = powers(gradients(theta, rule, prompts, args.batches, seed))
                signal, noise = signal + of_seed[0], noise + of_seed[1]
            cells.append(f"{max(signal, 0.0) ** 0.5 / noise**0.5:.2f}")
        print(f"| {rule} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
