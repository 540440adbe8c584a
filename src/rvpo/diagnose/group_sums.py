"""The sums of each group on each column, of which statistics of channels are functions. See ``sums.py``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpo.core import Advantages
from rvpo.core.groups import Groups
from rvpo.core.metrics import bottlenecks

SHIFTS = 32  # partners that a completion is compared with, at most
SAME = 1e-6  # advantages nearer than this are the same: they are logged in single precision

SLOTS = (
    "cells",  # completions that have the channel
    "scored",
    "live",
    "reward",
    "time",  # of the scored completions, from 0 to 1; with `time2` and `time_reward` for a straight line
    "time2",
    "time_reward",
    "early_scored",  # first third of the time
    "early_reward",
    "late_scored",  # last third
    "late_reward",
    "late_top",  # those of them with the channel's highest reward
    "groups_scored",
    "groups_live",
    "az",  # products within groups of the used advantage a and the z-score, where the channel is live
    "aa",
    "zz",
    "company",  # live channels of a completion, itself included, summed over completions where it is live
    "punished",  # pairs of a group in which the better one got the lower advantage
    "compared",
    "signal",  # completions with any live channel
    "responsibility",
    "bottleneck",
    "again_ss",  # squared deviations of equal completions of a group from their mean, and their degrees of freedom
    "again_dof",
    "again_groups",  # groups that have such completions
    "within_ss",  # those of all completions of a group
    "within_dof",
    "met_groups",  # groups whose completions are known to meet the channel or not, see rvpo.core.met
    "unexplored",  # those of them in which none does
    "suppressed",  # those in which some do, not all, and none of these has a positive advantage
    "unexplored_binary",  # the same two, should the run have no more than two values of the channel
    "suppressed_binary",
)
SLOT = {name: i for i, name in enumerate(SLOTS)}


def cell_sums(
    result: Advantages, groups: Groups, advantages: Tensor, time: float | Tensor, single: bool
) -> dict[str, Tensor]:
    """Return the sums of each group on each column, (P, M).

    Args:
        result: of the batch, by the soft minimum.
        groups: the partition of its rows.
        advantages: (N,) that the run used, NaN where unknown.
        time: share of the run that was done, or (P, 1) of each group.
        single: whether the run has one step only, which is early and late.
    """
    pairs = _pairs(result.rewards, advantages, groups, result.live)
    lowest = bottlenecks(result)
    rewards = result.rewards.nan_to_num(nan=0.0)
    scored = (result.applies & ~result.missing).double()
    live = (result.live & ~advantages.isnan()[:, None]).double()
    count, total = groups.sum(scored), groups.sum(scored * rewards)
    when = torch.as_tensor(time, dtype=torch.float64)
    early, late = ((when < 1 / 3) | single).double(), ((when > 2 / 3) | single).double()
    known = live * advantages.nan_to_num(nan=0.0)[:, None]
    alive = groups.sum(live)
    a = (known - groups.broadcast(groups.sum(known) / alive.clamp(min=1))) * live
    z = result.z.nan_to_num(nan=0.0) * live
    deviation = (rewards - groups.broadcast(total / count.clamp(min=1))) * scored
    signal = result.signal.double()[:, None].expand_as(rewards) * result.applies
    company = result.live.sum(1, keepdim=True) * result.live
    return {
        "cells": groups.sum(result.applies.double()),
        "scored": count,
        "live": groups.sum(result.live.double()),
        "reward": total,
        "time": when * count,
        "time2": when * when * count,
        "time_reward": when * total,
        "early_scored": early * count,
        "early_reward": early * total,
        "late_scored": late * count,
        "late_reward": late * total,
        "groups_scored": (count > 0).double(),
        "groups_live": (groups.sum(result.live.double()) > 0).double(),
        "az": groups.sum(a * z),
        "aa": groups.sum(a * a),
        "zz": groups.sum(z * z),
        "company": groups.sum(company.double()),
        "signal": groups.sum(signal),
        "responsibility": groups.sum(result.responsibilities * signal),
        "bottleneck": groups.sum(lowest * signal),
        "within_ss": groups.sum(deviation.square()),
        "within_dof": (count - 1).clamp(min=0),
        "punished": groups.sum(pairs["punished"]),
        "compared": groups.sum(pairs["compared"]),
    }


def by_channel(result: Advantages, channel: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return z-scores of the run's channels, (N, K), the mean of a channel's live cells, and where there are any."""
    z, live = result.z.masked_fill(~result.live, 0.0), result.live.double()
    total, number = (torch.zeros(len(z), count, dtype=z.dtype).scatter_add(1, channel, x) for x in (z, live))
    return total / number.clamp(min=1), (number > 0).double()


def centred(advantages: Tensor, groups: Groups) -> Tensor:
    """Return advantages (N,) around the mean of their group; 0 where unknown (NaN)."""
    known = ~advantages.isnan()
    a = advantages.nan_to_num(nan=0.0)[:, None]
    mean = groups.sum(a) / groups.sum(known.double()[:, None]).clamp(min=1)
    return (a - groups.broadcast(mean))[:, 0] * known


def _pairs(rewards: Tensor, advantages: Tensor, groups: Groups, live: Tensor) -> dict[str, Tensor]:
    """Return for each completion how often a better one got less, of how many compared, (N, M).

    Compared are completions of a group, each with up to ``SHIFTS`` that follow it around the circle of its group.

    In groups of up to twice as many completions, every pair is compared once.
    """
    size = torch.bincount(groups.index, minlength=groups.count)
    order = torch.arange(len(groups.index))
    if int(size.max()) > 2 * SHIFTS:  # partners must not depend on how rows happen to be sorted
        order = torch.randperm(len(order), generator=torch.Generator().manual_seed(0))
    order = order[torch.argsort(groups.index[order], stable=True)]
    start = (size.cumsum(0) - size)[groups.index[order]]
    place, width = torch.arange(len(order)) - start, size[groups.index[order]]
    r, a, alive = rewards[order].masked_fill(~live[order], torch.nan), advantages[order], live[order]
    sums = {name: torch.zeros_like(r) for name in ("punished", "compared")}
    for shift in range(1, min(int(size.max()) // 2, SHIFTS) + 1):
        partner = start + (place + shift) % width
        counted = (2 * shift < width) | ((2 * shift == width) & (place < shift))
        better = r - r[partner]
        higher = a - a[partner]
        known = (counted & ~higher.isnan())[:, None] & alive & ~better.isnan() & (better != 0)
        direction = better.sign() * (higher.sign() * (higher.abs() > SAME))[:, None]
        sums["punished"] += known & (direction < 0)
        sums["compared"] += known
    return {name: torch.empty_like(x).index_copy(0, order, x) for name, x in sums.items()}


def again_sums(rewards: Tensor, completions: Sequence[str], groups: Groups) -> dict[str, Tensor]:
    """Squared deviations of equal completions of a group from their mean."""
    keys: dict[tuple[int, str], int] = {}
    pairs = zip(groups.index.tolist(), completions, strict=True)
    ids = torch.tensor([keys.setdefault(pair, len(keys)) for pair in pairs])
    same = Groups(ids, len(keys))
    scored = (~rewards.isnan()).double()
    count = same.sum(scored)
    known = rewards.nan_to_num(nan=0.0)
    deviation = (known - same.broadcast(same.sum(known * scored) / count.clamp(min=1))) * scored
    of_group = torch.zeros(len(keys), dtype=torch.int64).scatter(0, ids, groups.index)
    upwards = Groups(of_group, groups.count)
    dof = upwards.sum((count - 1).clamp(min=0))
    return {"again_ss": upwards.sum(same.sum(deviation.square())), "again_dof": dof, "again_groups": (dof > 0).double()}
