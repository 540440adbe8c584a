"""Properties of missing rewards: they do not affect other completions, do not count as 0, and give no advantage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from rvpo.conformance import examples
from rvpo.conformance.properties.base import (
    LEVEL_READERS,
    Fault,
    Property,
    ask,
    attempt,
    differ,
    expect,
    require_live,
    single_group,
)
from rvpo.conformance.target import CallError, Example, NotHereError, Target

SHIFT = 3.0
ABOVE = 7.5
"""Constant that raises every reward of ``below_zero`` above 0."""
FAR_BELOW = -9.0
SMALL_K = 0.05


def one_missing(target: Target, seed: int) -> list[Example]:
    """Return plain batches without one reward, or without a row's only reward."""
    return [examples.with_missing(e, seed % len(e.groups), 0) for e in examples.plain_examples(target, seed)]


def below_zero(target: Target, seed: int) -> list[Example]:
    """Return the same batches, shifted such that 0 would be the best reward."""
    return [
        examples.with_missing(e.scored((e.rewards - 3.5).clamp(max=-0.5)), seed % len(e.groups), 0)
        for e in examples.equal_groups(target, seed)
    ]


def contained(target: Target, example: Example) -> Fault | None:
    """Check that all advantages are finite although a reward is missing."""
    if example.complete:
        raise NotHereError("no reward is missing")
    got = target.answer(example).advantages
    bad = ~got.isfinite()
    if not bool(bad.any()):
        return None
    hit = example.rewards.isnan().any(1)
    others = int((bad & ~hit).sum())
    elsewhere = int((bad & ~torch.isin(example.groups, example.groups[hit])).sum())
    reach = "in other groups" if elsewhere else "of others" if others else "of its own"
    return Fault(
        f"not finite {reach}",  # shrinking keeps this reach
        f"{int(hit.sum())} of {len(got)} completions lack a reward, and {int(bad.sum())} get no finite advantage, "
        f"{others} of them with complete rewards, {elsewhere} in other groups",
        got,
    )


def not_zero(target: Target, example: Example) -> Fault | None:
    """Check that a missing reward does not count as 0: the result differs, and does not depend on the place of 0."""
    missing = example.rewards.isnan()
    if not bool(missing.any()) or bool((example.rewards > -0.2).any()):
        raise NotHereError("no reward is missing, or 0 would make no difference")
    require_live(example.scored(example.rewards.nan_to_num(nan=-1.0)), smallest=3)
    got = ask(target, example)
    # On one batch the two can agree by chance: a minimum ignores a 0 that is the best reward, and a rule that rewards
    # only the best ignores one that is the worst.
    if all(_as_zero(target, e) for e in (example, example.scored(example.rewards + ABOVE))):
        return Fault("wrong", "the advantages are those of a reward of 0 in place of the missing one", got)
    if target.traits & set(LEVEL_READERS):
        return None
    return expect(target, example.scored(example.rewards + SHIFT), got, f"after adding {SHIFT:g} to every reward")


def _as_zero(target: Target, example: Example) -> bool:
    """Return whether a missing reward counts as 0, for a function that depends on this reward."""
    zero, low = (attempt(target, example.scored(example.rewards.nan_to_num(nan=x))) for x in (0.0, FAR_BELOW))
    if isinstance(zero, Fault) or isinstance(low, Fault):
        return False
    gap = (zero.advantages - ask(target, example)).abs().max()
    return float(gap) < 1e-5 <= float((zero.advantages - low.advantages).abs().max())


def middling(target: Target, example: Example) -> Fault | None:
    """If the channels agree, a completion between best and worst must stay there although a reward is missing."""
    single_group(target, example)
    rewards, missing = example.rewards, example.rewards.isnan()
    value = rewards.nan_to_num(nan=-torch.inf).amax(1)
    agree = bool((missing | (rewards == value[:, None])).all())
    if not bool(missing.any()) or not agree or not bool(value.isfinite().all()):
        raise NotHereError("no reward is missing, or the channels differ")
    for k in (None, SMALL_K) if target.has_k else (None,):
        called = replace(example, k=k)
        got = ask(target, called)
        for rows in example.members():
            v, order = value[rows].sort()
            if len(rows) < 4 or bool((v.diff() < 0.15).any()) or bool(missing[rows[order[[0, -1]]]].any()):
                raise NotHereError(
                    "a group is small, two completions are almost equal, or the best or worst lacks a reward"
                )
            middle = rows[missing[rows].any(1)]
            worst, best = got[rows[order[0]]], got[rows[order[-1]]]
            if bool((got[middle] > best + 1e-3).any() or (got[middle] < worst - 1e-3).any()):
                said = "" if k is None else f"with k = {k:g}, "
                what = (
                    f"{said}a middling completion with a missing reward gets more than the best or less than the worst"
                )
                return Fault("wrong", what, got)
    return None


def middle_missing(target: Target, seed: int) -> list[Example]:
    """Return batches whose channels agree. The middle or second best completion lacks one, or all except one."""
    made = []
    for e in examples.copied_channels(target, seed):
        rows = e.members()[0]
        ranked = rows[e.rewards[rows, 0].argsort()]
        for offset in (0.0, 2.0):  # 0 is near the worst reward, or far below it
            for row in ranked[len(rows) // 2 : -1].tolist():
                one = examples.with_missing(e.scored(e.rewards + offset), row, 0)
                made += [one, examples.with_missing(one, row, 1)]
    return made


def channel_missing(target: Target, example: Example) -> Fault | None:
    """Check that a channel without any score has no effect."""
    absent = example.rewards.isnan().all(0)
    if not bool(absent.any()) or bool(absent.all()):
        raise NotHereError("no channel is missing throughout")
    require_live(example.scored(example.rewards[:, ~absent]))
    without = ask(target, example.scored(example.rewards[:, ~absent]))
    return expect(target, example, without, "with a channel that nobody was scored on", changed=False, tolerance=2e-3)


def last_channel_missing(target: Target, seed: int) -> list[Example]:
    """Return batches without any reward on their last channel."""
    made = []
    for e in examples.several_channels(target, seed):
        rewards = e.rewards.clone()
        rewards[:, -1] = torch.nan
        made.append(e.scored(rewards))
    return made


def row_missing(target: Target, example: Example) -> Fault | None:
    """Check that a completion without any reward gets 0, and that the others get the same as without it."""
    absent = example.rewards.isnan().all(1)
    if not bool(absent.any()) or bool(example.rewards[~absent].isnan().any()):
        raise NotHereError("no completion is without any reward")
    require_live(example.rows(~absent))
    if len(example.rows(~absent).members()) < len(example.members()):
        raise NotHereError("a whole group is without any reward")
    got = target.answer(example).advantages
    zero = torch.zeros_like(got[absent])
    if fault := differ(got[absent], zero, "a completion without any reward has an advantage"):
        return replace(fault, got=got, expected=None)
    if target.blocks or "bundles" in target.traits:
        return None if bool(got.isfinite().all()) else Fault("not finite", "not all advantages are finite", got)
    expected = torch.zeros_like(got)
    expected[~absent] = ask(target, example.rows(~absent))
    return differ(got, expected, "with a completion without any reward among the others", tolerance=2e-3)


def whole_row_missing(target: Target, seed: int) -> list[Example]:
    """Return batches in which one completion has no reward."""
    return [examples.with_missing(e, seed % len(e.groups)) for e in examples.equal_groups(target, seed)]


def refused(target: Target, example: Example) -> Fault | None:
    """Check that a function for complete rewards raises on missing ones instead of returning something."""
    if "complete-only" not in target.traits:
        raise NotHereError("it takes missing rewards")
    try:
        got = target.answer(example).advantages
    except CallError:
        return None
    return Fault("wrong", "it was declared to refuse missing rewards, and returned advantages", got)


def average(target: Target, example: Example) -> Fault | None:
    """Compare a completion with a missing reward to a twin that has the average of the others there."""
    got = ask(target, example)
    row = int(example.rewards.isnan().any(1).nonzero()[0, 0])
    twin = row + 1
    if abs(float(got[row] - got[twin])) <= 1e-3:
        return None
    return Fault("wrong", "it differs from a twin whose reward is the average of the others", got)


def twins(target: Target, seed: int) -> list[Example]:
    """Return one group. Row 1 lacks a reward, and its twin, row 2, has the average of the others instead."""
    del target, seed
    rewards = torch.tensor([[0.0, 0.25], [1.0, torch.nan], [1.0, 0.5], [0.25, 1.0], [0.5, 0.25]])
    return [Example(rewards, torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64))]


_REFUSED: Mapping[str, str] = {"complete-only": "it was declared to take complete rewards only"}
_AS_ZERO: Mapping[str, str] = {**_REFUSED, "missing-as-0": "it counts a missing reward as 0, by its definition"}

PROPERTIES = (
    Property(
        "missing-contained",
        "a missing reward leaves every advantage finite",
        "one failed judge call turns the loss of the whole batch into NaN",
        one_missing,
        contained,
        excused=_REFUSED,
    ),
    Property(
        "missing-not-0",
        "a missing reward is not counted as a reward of 0",
        "an outage of a judge is trained as the worst, or the best, of answers",
        below_zero,
        not_zero,
        excused={**_AS_ZERO, "filters": "left out either way where the channels disagree"},
        reduced=dict.fromkeys(LEVEL_READERS, "not the same result as with 0; the rule depends on the place of 0"),
    ),
    Property(
        "missing-middle",
        "where channels agree, a missing one does not lift above the best or sink below the worst",
        "completions are pushed for how many of their rewards arrived",
        middle_missing,
        middling,
        needs=("many",),
        excused=_AS_ZERO,
        reduced={"bundles": "one group at a time, since it scores several together"},
    ),
    Property(
        "missing-channel",
        "a channel without any score has no effect",
        "a reward function that is down changes the advantages from the others",
        last_channel_missing,
        channel_missing,
        needs=("many",),
        excused=_REFUSED,
    ),
    Property(
        "missing-row",
        "a completion without any reward gets 0, and the others get the same as without it",
        "completions that were not judged are reinforced or pushed down",
        whole_row_missing,
        row_missing,
        excused=_REFUSED,
        reduced={"bundles": "the 0 only: without the completion its bundle has another score"},
    ),
    Property(
        "missing-refused",
        "it raises if a reward is missing, as declared",
        "a missing reward passes unnoticed, with whatever value takes its place",
        one_missing,
        refused,
    ),
)
DESCRIPTIONS = (
    Property(
        "missing-as-average",
        "a missing reward counts as the average of the group's others on that channel",
        "",
        twins,
        average,
        required=False,
        needs=("many",),
    ),
)
