"""Reduce a failing batch: fewer groups, rows and channels, rounder numbers, as long as it fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from rvpo.conformance.properties import Fault
from rvpo.conformance.target import Example

BUDGET = 80
"""Largest number of calls of the property."""


def shrink_example(
    example: Example, fault: Fault, find: Callable[[Example], Fault | None], *, blocks: bool, budget: int = BUDGET
) -> tuple[Example, Fault]:
    """Return the smallest failing batch that was found, and its fault.

    Args:
        example: the batch that failed.
        fault: its fault.
        find: function that checks the property on a batch. It returns a fault, or None if it holds or does not apply.
        blocks: whether groups must keep equal sizes.
        budget: largest number of calls of ``find``.
    """
    improved = True
    while improved and budget > 0:
        improved = False
        for smaller in _smaller(example, blocks):
            budget -= 1
            found = find(smaller)
            if found is not None and found.kind == fault.kind:
                example, fault, improved = smaller, found, True
                break
            if budget <= 0:
                break
    return example, fault


def _smaller(example: Example, blocks: bool) -> Iterator[Example]:
    """Yield batches that are simpler by one step, the largest steps first."""
    members = example.members()
    everyone = torch.ones(len(example.groups), dtype=torch.bool)
    if len(members) > 1:
        for rows in members:
            kept = everyone.clone()
            kept[rows] = False
            yield example.rows(kept)
    channels = example.rewards.shape[1]
    for j in range(channels if channels > 1 else 0):
        yield example.scored(example.rewards[:, [i for i in range(channels) if i != j]])
    if blocks:
        for turn in range(len(members[0]) if len(members[0]) > 1 else 0):
            kept = everyone.clone()
            kept[torch.stack(members)[:, turn]] = False
            yield example.rows(kept)
    else:
        for row in range(len(everyone) if len(everyone) > 1 else 0):
            kept = everyone.clone()
            kept[row] = False
            yield example.rows(kept)
    for decimals in (0, 1, 2):
        rounded = torch.round(example.rewards, decimals=decimals) + 0.0  # no -0
        if not torch.equal(rounded.nan_to_num(nan=0.5), example.rewards.nan_to_num(nan=0.5)):
            yield example.scored(rounded)
    if int(example.lengths.max()) > 2:
        yield replace(example, lengths=example.lengths.clamp(max=2))
    names = {i: rank for rank, i in enumerate(sorted(set(example.groups.tolist())))}
    plain = torch.tensor([names[i] for i in example.groups.tolist()])
    if not torch.equal(plain, example.groups):
        yield replace(example, groups=plain)
