"""Further worlds in which channels exclude each other."""

from __future__ import annotations

import itertools

import torch
from given import anti_copy, exclusive3, pareto
from parts import (
    always,
    budget,
    budget_policy,
    budget_start,
    everywhere,
    flipped,
    jittered,
    noisy,
)
from policies import Table, logit
from world import World

DESIGN, CONFIRM = "design", "confirm"


def frontier_worlds() -> list[World]:
    """Return the worlds."""
    return [
        pareto("pareto-convex", "frontier, convex", DESIGN, 2.0),
        pareto("pareto-convex-1.5", "frontier, convex", CONFIRM, 1.5),
        exclusive_and_easy("exclusive3-easy2", DESIGN, exclusive=[0.7, 0.2, 0.05], easy=[0.5, 0.4]),
        exclusive_and_easy("exclusive4-easy2", CONFIRM, exclusive=[0.5, 0.25, 0.15, 0.05], easy=[0.6, 0.3]),
        exclusive2("exclusive2", DESIGN, together=0),
        exclusive2("exclusive2-in-half", CONFIRM, together=2),
        anti_copy(
            name="anti-copy-weights", split=DESIGN, kind="frontier, weights", weights=[1.0, 1.0, 3.0, 1.0],
            note="detail and brevity sum to 1; the user gives the format weight 3",
        ),
        anti_copy(
            name="anti-copy-weights-detail", split=CONFIRM, kind="frontier, weights", weights=[2.0, 1.0, 1.0, 1.0],
            note="detail and brevity sum to 1; the user gives detail weight 2",
        ),
        exclusive3(
            name="noisy-exclusive3", split=DESIGN, kind="frontier, noisy", observe=flipped(0.15),
            note="three exclusive binary channels; the judge is wrong in 15%",
        ),
        noisy_pareto(),
        exclusive3(
            name="batch-512-exclusive3", split=DESIGN, kind="large batches", prompts=64,
            note="three exclusive binary channels, 64 groups of 8",
        ),
        anti_copy(
            name="long-anti-copy", split=CONFIRM, kind="long runs", steps=320,
            note="detail and brevity sum to 1, 320 steps",
        ),
    ]  # fmt: skip


def exclusive_and_easy(name: str, split: str, exclusive: list[float], easy: list[float]) -> World:
    """One of several exclusive binary channels, and easy ones that anything can meet.

    Args:
        name: of the world.
        split: of the world.
        exclusive: rates of the exclusive channels at the start; in the rest of the replies none is met.
        easy: rates of the easy channels at the start.
    """
    rates = [*exclusive, 1 - sum(exclusive)]
    one_hot = torch.eye(len(rates))[:, :-1]
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(easy))))
    rewards = torch.cat([one_hot.repeat_interleave(len(bits), 0), bits.repeat(len(rates), 1)], 1)
    log_easy = (bits * torch.tensor([logit(p) for p in easy])).sum(1)
    start = (torch.tensor(rates).log()[:, None] + log_easy).flatten()
    return World(
        name, "frontier, and easy channels", split, Table(4, len(rewards)), everywhere(rewards),
        jittered(start.repeat(4)), rewards.shape[1], hard=[len(exclusive) - 1],
        note=f"{len(exclusive)} exclusive binary channels and {len(easy)} easy ones",
    )  # fmt: skip


def exclusive2(name: str, split: str, together: int) -> World:
    """Two binary channels that exclude each other, except in some contexts.

    Args:
        name: of the world.
        split: of the world.
        together: number of the four contexts in which a few replies meet both.
    """
    rewards = torch.zeros(4, 10, 2)
    rewards[:, 0:5, 0] = rewards[:, 5:8, 1] = 1
    rewards[:together, 8] = 1
    rates = [0.75 / 5] * 5 + [0.15 / 3] * 3 + [0.05] * 2
    where = f", except in {together} of 4 contexts" if together else ""
    return World(
        name, "frontier, 2 channels", split, Table(4, 10), always(rewards),
        jittered(torch.tensor(rates).log().repeat(4)), 2, hard=[1],
        note=f"two binary channels that exclude each other{where}",
    )  # fmt: skip


def noisy_pareto() -> World:
    """Three channels share a budget, seen by noisy judges."""
    return World(
        "noisy-pareto", "frontier, noisy", CONFIRM, budget_policy(), everywhere(budget() ** 0.5), budget_start, 3,
        "a budget split in three, reward = share^.5, seen with noise of sd .3, .1, .2", hard=[2],
        observe=noisy([0.3, 0.1, 0.2]),
    )  # fmt: skip
