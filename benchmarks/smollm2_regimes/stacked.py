"""The two SmolLM2 tasks at length, without TRL: all tasks and methods of a seed are trained at once, on one core.

    python benchmarks/smollm2_regimes/prompts.py data/smollm2-regimes
    python benchmarks/smollm2_regimes/stacked.py --output runs/smollm2 --methods gdpo gdpo_w3 rvpo_k1 \
        --set trainer.per_device_train_batch_size=8        # one prompt a step
    python benchmarks/smollm2_regimes/stacked.py --output runs/smollm2 --methods lift --stack-seeds \
        --set trainer.per_device_train_batch_size=8
    python benchmarks/smollm2_regimes/table.py runs/smollm2/mostly-met runs/smollm2/rarely-met --tested lift

A recipe's rewards, prompts, sizes and learning rate are used as they are, and TRL's choices are made again: AdamW without
decay, gradients clipped to a norm of 1 (each run's own), a loss that is a mean over tokens, one update a generation. Not
as in the recipe: float32, adapters in the last ``--layers`` layers only (what the others compute is the same for all
runs), ``--steps``. Prompts, new adapters and random numbers depend on the seed and the step alone.

A finished run is skipped, an interrupted stack goes on from its last checkpoint. A run's folder has what table.py reads:
``metrics.jsonl``, and ``model`` once it is done.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from policy import Adapters, Policy, Sampled
from safetensors.torch import save_file
from torch import Tensor

import rvpo
from rvpo.engines.trl.loading import load_data, load_rewards, load_tokenizer
from rvpo.recipe import Recipe, load_recipe
from rvpo.rewards.registry import RewardFunction

HERE = Path(__file__).parent
TASKS = ("mostly-met", "rarely-met")
NAMED = {"rvpo_k1": ["method=rvpo:k=1"], "gdpo_w3": ["method=gdpo", "rewards.0.weight=3"]}
"""Overrides of a recipe by name; any other method is the recipe's text."""
SAVED = 5
"""Steps between two checkpoints of a stack."""


@dataclass(frozen=True)
class Run:
    """One task, method and seed."""

    recipe: Recipe
    rewards: Sequence[RewardFunction]
    aggregator: rvpo.Aggregator

    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the rewards of replies, (N, M)."""
        chats = [[{"role": "assistant", "content": text}] for text in texts]
        return torch.tensor([function(completions=chats) for function in self.rewards]).T

    def write(self, metrics: dict[str, Any]) -> None:
        """Add a line to the run's metrics."""
        with (self.recipe.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")


def main() -> None:
    """Train what is missing, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of a folder of runs a task")
    parser.add_argument("--methods", nargs="+", required=True, help=f"texts, or {', '.join(NAMED)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--layers", type=int, default=10, help="last layers, which have adapters")
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", help="key=value overrides of the recipes")
    parser.add_argument("--stack-seeds", action="store_true", help="train all seeds at once, too")
    args = parser.parse_args()
    groups = [args.seeds] if args.stack_seeds else [[seed] for seed in args.seeds]
    for seeds in groups:
        runs = [begin(args, task, method, seed) for seed in seeds for task in args.tasks for method in args.methods]
        if missing := [run for run in runs if not (run.recipe.folder / "model").exists()]:
            train(missing, args.steps, args.layers)


def begin(args: argparse.Namespace, task: str, method: str, seed: int) -> Run:
    """Return a run before its first step."""
    name = re.sub(r"[^\w.-]+", "-", f"{method}-{seed}")
    fixed = [f"name={name}", f"seed={seed}", f"output={args.output / task}"]
    overrides = [*fixed, *NAMED.get(method, [f"method={method}"]), *args.overrides]
    recipe = load_recipe(HERE / f"{task}.yaml", overrides)
    rewards = load_rewards(recipe.rewards, recipe.folder)
    names = [entry.name or entry.function.rpartition(":")[2] for entry in recipe.rewards]
    weights = [entry.weight for entry in recipe.rewards]
    return Run(recipe, rewards, rvpo.Aggregator(recipe.method, names, weights=weights))


def train(runs: Sequence[Run], steps: int, layers: int) -> None:
    """Train runs side by side and write their records."""
    recipe = runs[0].recipe
    options = recipe.trainer
    replies, rows, length = (
        options[key] for key in ("num_generations", "per_device_train_batch_size", "max_completion_length")
    )
    prompts = rows // replies
    tokenizer = load_tokenizer(recipe.model)
    policy = Policy(recipe.model.path, layers, recipe.model.peft["lora_alpha"], recipe.model.peft["r"])
    seeds = [run.recipe.seed for run in runs]
    adapters = policy.new_adapters(seeds)
    leaves = [leaf for pairs in adapters for pair in pairs.values() for leaf in pair]
    optimizer = torch.optim.AdamW(leaves, lr=options["learning_rate"], weight_decay=0.0)
    pool, held_out = (encode(section, tokenizer) for section in (recipe.data, recipe.eval_data))
    for step in range(resumed(runs, leaves, optimizer), steps):
        began = time.perf_counter(), time.process_time()
        chosen = [pool[i] for seed in seeds for i in drawn(seed, step, prompts, len(pool))]
        sampled = policy.sample(adapters, chosen, uniforms(seeds, step, (prompts, length, replies)))
        told = texts(sampled, tokenizer, len(runs))
        coefficients = torch.zeros(sampled.tokens.shape)
        for r, run in enumerate(runs):
            own = slice(r * prompts, (r + 1) * prompts)
            done = run.aggregator(run.score(told[r]), num_generations=replies, progress=step / max(steps - 1, 1))
            trained = sampled.trained[own]
            coefficients[own] = done.advantages.float().view(prompts, 1, replies) * trained / trained.sum()
            run.write({"step": step + 1, **done.metrics})
        policy.ascend(adapters, sampled, coefficients)
        clip(leaves)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % SAVED == 0:
            save(runs, leaves, optimizer, step + 1)
        wall, core = time.perf_counter() - began[0], time.process_time() - began[1]
        told_seeds = ", ".join(map(str, sorted(set(seeds))))
        print(
            f"{len(runs)} runs, seeds {told_seeds}, step {step + 1}/{steps}: {wall:.1f} s, {core:.1f} of a core",
            flush=True,
        )
    evaluate(runs, policy, adapters, held_out, tokenizer, length)
    for r, run in enumerate(runs):
        partial = run.recipe.folder / "model.partial"
        partial.mkdir(exist_ok=True)
        state = {
            f"{i}.{name}.{side}": leaf[r].detach().clone()
            for i, pairs in enumerate(adapters, policy.frozen)
            for name, pair in pairs.items()
            for side, leaf in zip(("down", "up"), pair, strict=True)
        }
        save_file(state, partial / "adapters.safetensors")
        partial.rename(run.recipe.folder / "model")
        (run.recipe.folder / "stack.pt").unlink(missing_ok=True)


def save(runs: Sequence[Run], leaves: Sequence[Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write what the stack needs to go on from a step into the first run's folder."""
    state = {
        "folders": [str(run.recipe.folder) for run in runs],
        "step": step,
        "leaves": [leaf.detach() for leaf in leaves],
        "optimizer": optimizer.state_dict(),
        "aggregators": [run.aggregator.state_dict() for run in runs],
    }
    path = runs[0].recipe.folder / "stack.pt"
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def resumed(runs: Sequence[Run], leaves: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Return the step to go on from, after loading what an interrupted call of the same runs saved; else 0."""
    step, path = 0, runs[0].recipe.folder / "stack.pt"
    if path.exists():
        state = torch.load(path)
        if state["folders"] == [str(run.recipe.folder) for run in runs]:
            step = state["step"]
            with torch.no_grad():
                for leaf, saved in zip(leaves, state["leaves"], strict=True):
                    leaf.copy_(saved)
            optimizer.load_state_dict(state["optimizer"])
            for run, remembered in zip(runs, state["aggregators"], strict=True):
                run.aggregator.load_state_dict(remembered)
    for run in runs:
        run.recipe.folder.mkdir(parents=True, exist_ok=True)
        metrics = run.recipe.folder / "metrics.jsonl"
        lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
        metrics.write_text("".join(lines[:step]))
    return step


def evaluate(
    runs: Sequence[Run],
    policy: Policy,
    adapters: Adapters,
    prompts: Sequence[Sequence[int]],
    tokenizer: Any,
    length: int,
) -> None:
    """Write each channel's mean over one reply to each of the held-out prompts."""
    draws = uniforms([run.recipe.seed for run in runs], -1, (len(prompts), length, 1))
    told = texts(policy.sample(adapters, [*prompts] * len(runs), draws), tokenizer, len(runs))
    for run, replies in zip(runs, told, strict=True):
        means = run.score(replies).mean(0).tolist()
        named = {f"eval_rvpo/{name}/mean": value for name, value in zip(run.aggregator.names, means, strict=True)}
        run.write({**named, "replies": replies})


def encode(section: Any, tokenizer: Any) -> list[list[int]]:
    """Return a section's prompts as tokens."""
    chats = load_data(section)["prompt"]
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]


def drawn(seed: int, step: int, count: int, size: int) -> list[int]:
    """Return which prompts a step has: each once in an order, then each once in another one."""
    epoch, place = divmod(step * count, size - size % count)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(1000 * seed + epoch))
    return order[place : place + count].tolist()


def uniforms(seeds: Sequence[int], step: int, shape: tuple[int, int, int]) -> Tensor:
    """Return random numbers (len(seeds) P, T, G) for shape (P, T, G), the same for runs of one seed."""
    draws = [
        torch.rand(shape, generator=torch.Generator().manual_seed(1_000_003 * (seed + 1) + step)) for seed in seeds
    ]
    return torch.cat(draws)


def texts(sampled: Sampled, tokenizer: Any, runs: int) -> list[list[str]]:
    """Return each run's replies, a prompt's next to each other."""
    tokens = torch.where(sampled.trained, sampled.tokens, tokenizer.pad_token_id).transpose(1, 2).flatten(0, 1)
    told = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    size = len(told) // runs
    return [told[r * size : (r + 1) * size] for r in range(runs)]


@torch.no_grad()
def clip(leaves: Sequence[Tensor], largest: float = 1.0) -> None:
    """Scale the gradients of each run, (R, …), to a norm of at most ``largest`` over all leaves."""
    squares = torch.stack([leaf.grad.square().flatten(1).sum(1) for leaf in leaves if leaf.grad is not None]).sum(0)
    scale = (largest / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for leaf in leaves:
        if leaf.grad is not None:
            leaf.grad *= scale[:, None, None]


if __name__ == "__main__":
    main()
