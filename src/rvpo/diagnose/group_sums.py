"""The sums of each group on each column, from which the statistics of channels are computed. See ``sums.py``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rvpo.arrays.groups import Array, Bools, Ints, Partition
from rvpo.arrays.rules import Shares

SHIFTS = 32  # most partners that a completion is compared with
SAME = 1e-6  # advantages closer than this are equal: they are logged in single precision

SLOTS = (
    "cells",  # completions that have the channel
    "scored",
    "live",
    "reward",
    "time",  # sum over scored completions, from 0 to 1; with `time2` and `time_reward` for a straight-line fit
    "time2",
    "time_reward",
    "early_scored",  # first third of the time
    "early_reward",
    "late_scored",  # last third
    "late_reward",
    "late_top",  # completions of the last third with the channel's highest reward
    "groups_scored",
    "groups_live",
    "az",  # products of the advantage a and the z-score within groups, where the channel is live
    "aa",
    "zz",
    "company",  # number of live channels of a completion, itself included, summed over completions where it is live
    "punished",  # pairs of a group in which the better completion got the lower advantage
    "compared",
    "signal",  # completions with any live channel
    "responsibility",
    "bottleneck",
    "again_ss",  # squared deviations of identical completions of a group from their mean, and degrees of freedom
    "again_dof",
    "again_groups",  # groups with identical completions
    "within_ss",  # the same for all completions of a group
    "within_dof",
    "met_groups",  # groups in which it is known which completions meet the channel, see rvpo.core.met
    "unexplored",  # of these, groups in which no completion meets it
    "suppressed",  # of these, groups in which some meet it, but not all, and none of them has a positive advantage
    "unexplored_binary",  # the same two, if the run has no more than two values of the channel
    "suppressed_binary",
)
SLOT = {name: i for i, name in enumerate(SLOTS)}


def cell_sums(
    result: Shares, groups: Partition, advantages: Array, time: float | Array, single: bool
) -> dict[str, Array]:
    """Return the sums of each group on each column, (P, M).

    Args:
        result: shares of the batch under the soft minimum.
        groups: the partition of its rows.
        advantages: (N,) advantages that the run used, NaN where unknown.
        time: share of the run that was done, or (P, 1) per group.
        single: whether the run has only one step, which then counts as early and late.
    """
    punished, compared = _pairs(result.rewards, advantages, groups, result.live)
    rewards = np.nan_to_num(result.rewards, nan=0.0)
    scored = (result.applies & ~result.missing).astype(np.float64)
    live = (result.live & ~np.isnan(advantages)[:, None]).astype(np.float64)
    count, total = groups.sum(scored), groups.sum(scored * rewards)
    when = np.asarray(time, dtype=np.float64)
    early, late = ((when < 1 / 3) | single).astype(np.float64), ((when > 2 / 3) | single).astype(np.float64)
    known = live * np.nan_to_num(advantages, nan=0.0)[:, None]
    alive = groups.sum(live)
    a = (known - groups.broadcast(groups.sum(known) / np.maximum(alive, 1))) * live
    z = np.nan_to_num(result.z, nan=0.0) * live
    deviation = (rewards - groups.broadcast(total / np.maximum(count, 1))) * scored
    signal = (result.signal[:, None] & result.applies).astype(np.float64)
    company = result.live.sum(1, keepdims=True) * result.live
    ranked = groups.sum(result.live)
    return {
        "cells": groups.sum(result.applies),
        "scored": count,
        "live": ranked,
        "reward": total,
        "time": when * count,
        "time2": when * when * count,
        "time_reward": when * total,
        "early_scored": early * count,
        "early_reward": early * total,
        "late_scored": late * count,
        "late_reward": late * total,
        "groups_scored": (count > 0).astype(np.float64),
        "groups_live": (ranked > 0).astype(np.float64),
        "az": groups.sum(a * z),
        "aa": groups.sum(a * a),
        "zz": groups.sum(z * z),
        "company": groups.sum(company),
        "signal": groups.sum(signal),
        "responsibility": groups.sum(result.responsibilities * signal),
        "bottleneck": groups.sum(result.bottlenecks() * signal),
        "within_ss": groups.sum(deviation * deviation),
        "within_dof": np.maximum(count - 1, 0),
        "punished": groups.sum(punished),
        "compared": groups.sum(compared),
    }


def by_channel(z: Array, live: Bools, channel: Ints, count: int) -> tuple[Array, Array]:
    """Return the z-scores of the channels of the run, (N, K), and where there are any.

    If several live cells of a row belong to one channel, it gets their mean.

    Args:
        z: (N, M) z-scores; cells that are not live are not read.
        live: (N, M), which cells are live.
        channel: (M,) or (N, M), index of the channel of each cell.
        count: K, number of channels.
    """
    z, number = np.where(live, z, 0.0), live.astype(np.float64)
    if channel.ndim == 1 and np.array_equal(channel, np.arange(count)):
        return z, number
    total, cells = (pooled(x, channel, count) for x in (z, number))
    return total / np.maximum(cells, 1), (cells > 0).astype(np.float64)


def rounding(top: Array, low: Array) -> Array:
    """Return by how much rewards may differ from the highest one and still be equal to it, up to rounding.

    It depends on the spread of the rewards, not on their size alone: rewards of 1e-12 may all be different.
    """
    with np.errstate(invalid="ignore"):
        spread = np.nan_to_num(top - low, nan=0.0, posinf=0.0, neginf=0.0)
    size = np.nan_to_num(np.abs(top), nan=0.0, posinf=0.0)
    return np.asarray(1e-9 * np.maximum(spread, 0.0) + 4 * np.spacing(size))


def pooled(x: Array, channel: Ints, count: int) -> Array:
    """Sum the cells of each channel within each row, (N, M) -> (N, K)."""
    place = np.arange(len(x))[:, None] * count + channel
    sums = np.asarray(np.bincount(place.ravel(), x.ravel(), len(x) * count), dtype=np.float64)
    return sums.reshape(len(x), count)


def centred(advantages: Array, groups: Partition) -> Array:
    """Return advantages (N,) minus the mean of their group; 0 where unknown (NaN)."""
    known = ~np.isnan(advantages)
    a = np.where(known, advantages, 0.0)[:, None]
    mean = groups.sum(a) / np.maximum(groups.sum(known[:, None]), 1)
    found: Array = (a - groups.broadcast(mean))[:, 0] * known
    return found


def _pairs(rewards: Array, advantages: Array, groups: Partition, live: Bools) -> tuple[Array, Array]:
    """Return for each completion the number of pairs in which the better one got less, and of all pairs, (N, M) each.

    Each completion is compared with up to ``SHIFTS`` completions that follow it in the circle of its group. In groups
    of up to twice as many completions, every pair is compared once.
    """
    largest, order = groups.size, groups.order
    if largest > 2 * SHIFTS:  # pairs must not depend on the order of the rows
        order = np.random.default_rng(0).permutation(len(order))
        order = order[np.argsort(groups.index[order], kind="stable")]
    start, width = (x[groups.index[order]] for x in (groups.starts, groups.sizes))
    place = np.arange(len(order)) - start
    r, a = np.where(live, rewards, np.nan)[order], advantages[order]
    punished, compared = np.zeros(r.shape), np.zeros(r.shape)
    for shift in range(1, min(largest // 2, SHIFTS) + 1):
        partner = start + (place + shift) % width
        counted = (2 * shift < width) | ((2 * shift == width) & (place < shift))
        better, higher = r - r[partner], a - a[partner]
        known = (counted & ~np.isnan(higher))[:, None] & ((better > 0) | (better < 0))  # False for NaN
        sign = np.where(np.abs(higher) > SAME, np.sign(higher), 0.0)
        punished += known & (better * sign[:, None] < 0)
        compared += known
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return punished[back], compared[back]


def again_sums(rewards: Array, completions: Sequence[str], groups: Partition) -> dict[str, Array]:
    """Return the squared deviations of identical completions of a group from their mean, per group."""
    keys: dict[tuple[int, str], int] = {}
    pairs = zip(groups.index.tolist(), completions, strict=True)
    ids = np.array([keys.setdefault(pair, len(keys)) for pair in pairs])
    same = Partition(ids, len(keys))
    scored = (~np.isnan(rewards)).astype(np.float64)
    count = same.sum(scored)
    known = np.nan_to_num(rewards, nan=0.0)
    deviation = (known - same.broadcast(same.sum(known * scored) / np.maximum(count, 1))) * scored
    upwards = Partition(groups.index[same.first_rows], groups.count)
    dof = upwards.sum(np.maximum(count - 1, 0))
    return {
        "again_ss": upwards.sum(same.sum(deviation * deviation)),
        "again_dof": dof,
        "again_groups": (dof > 0).astype(np.float64),
    }
