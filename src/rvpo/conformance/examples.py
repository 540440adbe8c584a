"""The batches: small and seeded, with different shapes and kinds of rewards.

Every reward is a multiple of 1/64, so that sums are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpo.conformance.target import Example, Target

GRID = 64
LONGEST = 6
EQUAL = ((4, 4, 4), (5, 5), (3, 3, 3, 3))
RAGGED = ((3, 5, 2), (4, 2, 6))
KINDS = ("binary", "graded", "gaussian")


def plain_examples(target: Target, seed: int) -> list[Example]:
    """Return complete batches with equal and with ragged groups. Every channel differs within every group."""
    sizes = [*EQUAL, *(() if target.blocks else RAGGED)]
    counts = (1,) if target.one_channel else (3, 2, 4, 1, 3)
    return [draw_example(target, each, counts[i % len(counts)], seed * 100 + i) for i, each in enumerate(sizes)]


def several_channels(target: Target, seed: int) -> list[Example]:
    """Return :func:`plain_examples` with two channels or more."""
    return [example for example in plain_examples(target, seed) if example.rewards.shape[1] > 1]


def equal_groups(target: Target, seed: int) -> list[Example]:
    """Return batches of equal groups without binary channels, so that spreads are much larger than any eps."""
    return [
        draw_example(target, sizes, 1 if target.one_channel else 3, seed * 100 + 40 + i, ("graded", "gaussian"))
        for i, sizes in enumerate(EQUAL)
    ]


def copied_channels(target: Target, seed: int) -> list[Example]:
    """Return batches in which all channels are equal: five different rewards per group, more than 1/8 apart."""
    examples = []
    for i, groups in enumerate((1, 2)):
        generator = _generator(seed * 100 + 60 + i)
        steps = torch.stack([torch.randperm(5, generator=generator) for _ in range(groups)]).flatten()
        rewards = on_grid(0.1 + steps * 0.2)[:, None].expand(-1, 1 if target.one_channel else 3)
        examples.append(_laid_out(target, rewards.clone(), (5,) * groups, generator))
    return examples


def draw_example(
    target: Target, sizes: Sequence[int], channels: int, seed: int, kinds: Sequence[str] = KINDS
) -> Example:
    """Draw one batch with groups of these sizes. Rows come in any order, unless the target needs blocks."""
    generator = _generator(seed)
    rewards = torch.cat([_group(size, channels, kinds, seed, generator) for size in sizes])
    return _laid_out(target, rewards, sizes, generator)


def with_missing(example: Example, row: int, channel: int | None = None) -> Example:
    """Return the batch without one reward, or without all rewards of a row."""
    rewards = example.rewards.clone()
    rewards[row, slice(None) if channel is None else channel] = torch.nan
    return example.scored(rewards)


def on_grid(x: Tensor) -> Tensor:
    """Round to multiples of 1/64, as float32."""
    return (x.double() * GRID).round().div(GRID).float()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _laid_out(target: Target, rewards: Tensor, sizes: Sequence[int], generator: torch.Generator) -> Example:
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    lengths = torch.randint(1, LONGEST + 1, (len(rewards),), generator=generator)
    example = Example(rewards, groups, lengths)
    return example if target.blocks else example.rows(torch.randperm(len(rewards), generator=generator))


def _group(size: int, channels: int, kinds: Sequence[str], seed: int, generator: torch.Generator) -> Tensor:
    """Draw a group (size, channels) in which every channel differs. A group of one has no differences."""
    columns = []
    for j in range(channels):
        kind = kinds[(j + seed) % len(kinds)]
        if kind == "binary":
            column = torch.randint(0, 2, (size,), generator=generator).float()
            column[: min(size, 2)] = torch.tensor([0.0, 1.0])[:size]
        elif kind == "graded":
            column = torch.arange(size) / max(size - 1, 1)
        else:
            column = torch.randn(size, generator=generator).clamp(-3, 3)
            if size > 1:  # make the spread 1, for any draw
                column = (column - column.mean()) / column.std().clamp(min=0.1) + 0.5
        columns.append(on_grid(column[torch.randperm(size, generator=generator)]).clamp(-3, 3))
    return torch.stack(columns, 1)
