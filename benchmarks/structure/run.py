"""Where each structure helps and where it hurts: small policies on tasks of a few binary choices, CPU seconds each.

    python benchmarks/structure/run.py --output runs/structure              # resumes what an earlier call left undone
    python benchmarks/structure/run.py --output runs/structure --seeds 8

A reply is a sequence of yes/no choices; each choice has a logit for every choice of those before it, so nothing that a
reply can be is out of the policy's reach. A task says how likely each choice is at first, which rewards a reply gets,
and which replies are wanted. Every pair of rules sees the same prompts, group sizes and seeds. The table has the share of
wanted replies after training and on average over training, in percent, mean and standard error over seeds.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import rvpo
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.dropout import kept_criteria

STEPS, PROMPTS, COMPLETIONS, RATE = 200, 8, 8, 1.0

Bits = Tensor  # (N, B) of 0 and 1


@dataclass(frozen=True)
class Task:
    """A task with the structure that is tried on it.

    Attributes:
        start: chance of each choice at first, given the choices before it.
        rewards: name of a channel -> its reward (N,) for replies (N, B).
        wanted: which replies are wanted, (N,) bool.
        structure: the structure that is compared with none; ``dropout=0.5`` is rubric dropout, where each reward is
            a positive criterion of the same rubric.
        weights: of the channels that do not weigh 1.
    """

    start: Sequence[Callable[[tuple[int, ...]], float]]
    rewards: Mapping[str, Callable[[Bits], Tensor]]
    wanted: Callable[[Bits], Tensor]
    structure: str
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def dropout(self) -> float:
        """Share of the criteria that is not asked in a step; 0 where the structure is none of criteria."""
        name, _, share = self.structure.partition("=")
        return float(share) if name == "dropout" else 0.0


def always(chance: float) -> Callable[[tuple[int, ...]], float]:
    """A choice that does not depend on those before it."""
    return lambda before: chance


def given_first(yes: float, no: float) -> Callable[[tuple[int, ...]], float]:
    """A choice whose chance depends on the first one."""
    return lambda before: yes if before[0] else no


def bit(j: int) -> Callable[[Bits], Tensor]:
    """A reward for a choice."""
    return lambda bits: bits[:, j]


def both(bits: Bits) -> Tensor:
    """The first two choices are yes."""
    return bits[:, :2].all(1)


def every(bits: Bits) -> Tensor:
    """All choices are yes."""
    return bits.all(1)


def honest(bits: Bits) -> Tensor:
    """All choices but the first are yes."""
    return bits[:, 1:].all(1)


STYLE = {"style": bit(0), "correct": bit(1)}
SAFE = {"safe": bit(0), "helpful": bit(1)}
TASKS = {
    "polish excludes right": Task(
        [always(0.5), given_first(0.0, 0.5)], STYLE, bit(1), "only_where(style,correct)", {"style": 3.0}
    ),
    "polish leads to right": Task(
        [always(0.05), given_first(0.02, 0.0002)], STYLE, bit(1), "only_where(style,correct)"
    ),
    "unsafe is more helpful": Task([always(0.5), given_first(0.05, 0.8)], SAFE, both, "gate(safe)", {"helpful": 3.0}),
    "safe is rare": Task([always(0.01), always(0.1)], SAFE, bit(1), "gate(safe)"),
    "four against one": Task(
        [always(0.3), *[given_first(0.6, 0.95)] * 4],
        {"short": bit(0), **{f"point{j}": bit(j) for j in range(1, 5)}},
        every,
        "all_of(short,point1,point2,point3,point4)",
    ),
    "a trick pays most": Task(
        [always(0.3), *[given_first(0.0, 0.5)] * 7],
        {f"criterion{j}": bit(j) for j in range(8)},
        honest,
        "dropout=0.75",
        {"criterion0": 8.0},
    ),
    "six rare criteria": Task([always(0.15)] * 6, {f"criterion{j}": bit(j) for j in range(6)}, every, "dropout=0.5"),
    "all at once is rare": Task(
        [always(0.15)] * 6,
        {f"point{j}": bit(j) for j in range(6)},
        every,
        f"all_of({','.join(f'point{j}' for j in range(6))})",
    ),
}


class Policy:
    """Choices one after the other, with a logit for each choice after each beginning of a reply."""

    def __init__(self, start: Sequence[Callable[[tuple[int, ...]], float]]) -> None:
        self.logits = []
        for j, chance in enumerate(start):
            beginnings = [tuple(number >> (j - 1 - i) & 1 for i in range(j)) for number in range(2**j)]
            p = torch.tensor([chance(before) for before in beginnings], dtype=torch.float64)
            self.logits.append(p.logit())

    def sample(self, count: int, generator: torch.Generator) -> Bits:
        """Draw replies (N, B)."""
        place, bits = torch.zeros(count, dtype=torch.int64), []
        for logits in self.logits:
            drawn = torch.rand(count, generator=generator, dtype=torch.float64) < logits[place].sigmoid()
            bits.append(drawn)
            place = 2 * place + drawn
        return torch.stack(bits, 1).double()

    def learn(self, bits: Bits, advantages: Tensor) -> None:
        """Take a step of policy gradient."""
        place = torch.zeros(len(bits), dtype=torch.int64)
        for j, logits in enumerate(self.logits):
            gradient = advantages * (bits[:, j] - logits[place].sigmoid()) / len(bits)
            logits.index_add_(0, place, RATE * gradient)
            place = 2 * place + bits[:, j].long()

    def chance(self, wanted: Callable[[Bits], Tensor]) -> float:
        """Return the exact chance of a wanted reply."""
        count = len(self.logits)
        replies = torch.tensor([[n >> (count - 1 - j) & 1 for j in range(count)] for n in range(2**count)]).double()
        place, p = torch.zeros(len(replies), dtype=torch.int64), torch.ones(len(replies), dtype=torch.float64)
        for j, logits in enumerate(self.logits):
            yes = logits[place].sigmoid()
            p = p * torch.where(replies[:, j] > 0, yes, 1 - yes)
            place = 2 * place + replies[:, j].long()
        return float((p * wanted(replies).double()).sum())


def train(task: Task, method: str, structure: str | None, seed: int) -> dict[str, float]:
    """Train once; return the chance of a wanted reply at the start, at the end and on average."""
    generator = torch.Generator().manual_seed(seed)
    policy, names = Policy(task.start), list(task.rewards)
    dropout = task.dropout if structure else 0.0
    agg = rvpo.Aggregator(
        method,
        names,
        ranges=dict.fromkeys(names, (0, 1)),
        weights=dict(task.weights),
        structure=None if dropout else structure,
    )
    agg.quiet = True
    curve = [policy.chance(task.wanted)]
    for step in range(STEPS):
        bits = policy.sample(PROMPTS * COMPLETIONS, generator)
        rewards = torch.stack([reward(bits) for reward in task.rewards.values()], 1)
        if dropout:
            rewards[~asked(names, dropout, seed, step)] = torch.nan
        policy.learn(bits, agg(rewards, num_generations=COMPLETIONS).advantages)
        curve.append(policy.chance(task.wanted))
    return {"start": curve[0], "end": curve[-1], "average": sum(curve) / len(curve)}


def asked(names: Sequence[str], dropout: float, seed: int, step: int) -> Tensor:
    """Return which rewards (N, M) are asked in a step, with one mask for all completions of a prompt."""
    criteria = [Criterion(name, f"The reply meets {name}.") for name in names]
    mask = torch.zeros(PROMPTS, len(names), dtype=torch.bool)
    for prompt in range(PROMPTS):
        mask[prompt, kept_criteria(criteria, dropout, prompt, f"seed {seed}", step)] = True
    return mask.repeat_interleave(COMPLETIONS, 0)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--methods", nargs="+", default=["gdpo"], help="default: gdpo")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print(f"{'task':<24}{'method':<10}{'structure':<44}{'start':>7}{'end':>14}{'average':>14}")
    for name, task in TASKS.items():
        for method in options.methods:
            for structure in (None, task.structure):
                rows = [_once(options.output, name, method, structure, seed) for seed in range(options.seeds)]
                shown = f"{name:<24}{method:<10}{structure or 'none':<44}{100 * rows[0]['start']:>7.2f}"
                print(
                    shown + "".join(f"{_told([row[key] for row in rows]):>14}" for key in ("end", "average")),
                    flush=True,
                )


def _once(folder: Path, name: str, method: str, structure: str | None, seed: int) -> dict[str, float]:
    """Return a result, from the file of an earlier call if there is one."""
    kind = f"{name.replace(' ', '-')}.{''.join(c if c.isalnum() else '-' for c in method)}.{'with' if structure else 'none'}"
    path = folder / f"{kind}.{seed}.json"
    if path.exists():
        found: dict[str, float] = json.loads(path.read_text("utf-8"))
        return found
    result = train(TASKS[name], method, structure, seed)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result), "utf-8")
    partial.replace(path)
    return result


def _told(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1) / len(values))
    return f"{100 * mean:.1f} +- {100 * spread:.1f}"


if __name__ == "__main__":
    main()
