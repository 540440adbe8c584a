"""Properties of order: names, lengths and layout must not matter, and better completions must get more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from rvpo.conformance import examples
from rvpo.conformance.properties.base import (
    Fault,
    Property,
    ask,
    attempt,
    expect,
    require_complete,
    require_live,
    rescaled_rewards,
    same_up_to_scale,
    single_group,
)
from rvpo.conformance.target import Example, NotHereError, Target

BUNDLES = "one group at a time, since it scores several together"
SHIFT = 3.0


def row_order(target: Target, example: Example) -> Fault | None:
    """Pass the same completions in another order."""
    before = ask(target, example)
    order = _another_order(target, example)
    if torch.equal(order, torch.arange(len(order))):
        raise NotHereError("there is no other order")
    return expect(target, example.rows(order), before[order], "with the same completions in another order")


def _another_order(target: Target, example: Example) -> Tensor:
    """Return a permutation (N,) of the rows that the target supports."""
    members = example.members()
    if target.blocks:
        return torch.cat([rows.flip(0) for rows in reversed(members)])
    if "bundles" in target.traits:  # a row keeps its place in the group, and groups their order
        turns = max(map(len, members))
        return torch.stack([rows[turn] for turn in range(turns) for rows in members if turn < len(rows)])
    return torch.arange(len(example.groups)).flip(0)


def channel_order(target: Target, example: Example) -> Fault | None:
    """Pass the channels in another order."""
    if example.rewards.shape[1] < 2:
        raise NotHereError("there is one channel")
    before = ask(target, example)
    return expect(target, example.scored(example.rewards.flip(1)), before, "with the channels in reverse order")


def group_names(target: Target, example: Example) -> Fault | None:
    """Rename the groups."""
    before = ask(target, example)
    renamed = replace(example, groups=1000 - 37 * example.groups)
    return expect(target, renamed, before, "with other ids for the same groups")


def padding(target: Target, example: Example) -> Fault | None:
    """Add columns of padding."""
    before = ask(target, example)
    return expect(target, replace(example, pad=example.pad + 3), before, "with three more columns of padding")


def length(target: Target, example: Example) -> Fault | None:
    """Change the response lengths: within a group, differences must keep their ratios."""
    require_live(example, smallest=3)
    before = ask(target, example)
    other = replace(example, lengths=other_lengths(example))
    answer = attempt(target, other)
    what = "with other response lengths, rewards as before"
    if isinstance(answer, Fault):
        return replace(answer, changed=other)
    got, expected = answer.advantages, before.clone()
    fine = True
    for rows in example.members():
        fine &= same_up_to_scale(got[rows], before[rows], 5e-3)
        expected[rows] = rescaled_rewards(before[rows], got[rows])
    return None if fine else Fault("wrong", what, got, expected, other)


def other_lengths(example: Example) -> Tensor:
    """Return lengths (N,) that differ within every group."""
    lengths = torch.empty_like(example.lengths)
    for rows in example.members():
        lengths[rows] = 1 + 2 * torch.arange(len(rows)).roll(1)
    return torch.where(lengths == example.lengths, lengths + 1, lengths)


def group_baseline(target: Target, example: Example) -> Fault | None:
    """Add a constant to a channel of one group: an easier prompt must not change the advantages."""
    require_live(example)
    before = ask(target, example)
    members = example.members()
    rewards = example.rewards.clone()
    rewards[members[-1], 0] += SHIFT
    what = f"after adding {SHIFT:g} to channel 0 of one group"
    if "shared-weights" in target.traits:  # then only constants that keep the level of the batch
        if len(members) < 2 or len(members[0]) != len(members[-1]):
            raise NotHereError("no two groups are of one size")
        rewards[members[0], 0] -= SHIFT
        what += f" and taking {SHIFT:g} from that of another"
    return expect(target, example.scored(rewards), before, what)


def groups_apart(target: Target, example: Example) -> Fault | None:
    """Change one group: the others must keep their order and the ratios of their differences."""
    require_live(example)
    members = example.members()
    if len(members) < 2:
        raise NotHereError("there is one group")
    before = ask(target, example)
    one, rewards = members[0], example.rewards.clone()
    if "shared-weights" in target.traits:
        rewards[one] = 2 * rewards[one].mean(0) - rewards[one]
        what = "after turning the rewards of one group around their mean"
    else:
        rewards[one] = 1 - 2 * rewards[one].roll(1, 0)
        what = "after other rewards for one group"
    others = torch.ones(len(before), dtype=torch.bool)
    others[one] = False
    if float(before[others].std()) < 1e-3:
        raise NotHereError("the other groups have no signal")
    changed = example.scored(rewards)
    answer = attempt(target, changed)
    if isinstance(answer, Fault):
        return replace(answer, changed=changed)
    got = answer.advantages
    if same_up_to_scale(got[others], before[others], 5e-3):
        return None
    expected = torch.full_like(got, torch.nan)
    expected[others] = rescaled_rewards(before[others], got[others])
    return Fault("wrong", f"{what}, the others are no longer what they were up to one scale", got, expected, changed)


def direction(target: Target, example: Example) -> Fault | None:
    """Check that the better completion gets more if all channels agree."""
    require_complete(example)
    single_group(target, example)
    if not bool((example.rewards == example.rewards[:, :1]).all()):
        raise NotHereError("the channels differ")
    got = ask(target, example)
    for rows in example.members():
        if len(rows) < 2:
            raise NotHereError("a group has one completion")
        order = rows[example.rewards[rows, 0].argsort()]
        steps = example.rewards[order, 0].diff()
        if bool((steps < 0.05).any()):
            raise NotHereError("two completions are almost equal")
        rises = got[order].diff()
        if bool((rises < -1e-4).any()) or float(got[order[-1]] - got[order[0]]) < 1e-3:
            return Fault("wrong", "the channels agree, and the advantages are not in the order of the rewards", got)
    return None


def dominance(target: Target, example: Example) -> Fault | None:
    """Check that a completion that is at least as good on every channel does not get less."""
    require_complete(example)
    single_group(target, example)
    got = ask(target, example)
    pairs = 0
    for rows in example.members():
        rewards = example.rewards[rows].double()
        better = (rewards[:, None] >= rewards).all(-1) & (rewards[:, None] > rewards).any(-1)
        pairs += int(better.sum())
        bad = better & (got[rows][:, None] < got[rows] - 1e-3)
        if bool(bad.any()):
            first, second = rows[bad.nonzero()[0]].tolist()
            return Fault(
                "wrong", f"row {first} is no worse than row {second} on any channel of its group, and gets less", got
            )
    if not pairs:
        raise NotHereError("no completion is no worse than another on all channels")
    return None


def chains(target: Target, seed: int) -> list[Example]:
    """Return batches in which many completions are at least as good as another of their group."""
    made = []
    if not target.one_channel:  # the first two fail channels that the others meet; one has the larger spread
        rewards = torch.tensor([[1.0, 0.0], [0.8125, 0.0], *([[0.0, 1.0]] * 6)])
        made.append(Example(rewards, torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.int64)))
    for i, sizes in enumerate(((5,), (4, 4))):
        example = examples.draw_example(
            target, sizes, 1 if target.one_channel else 2, seed * 100 + 80 + i, ("graded", "gaussian")
        )
        rewards = example.rewards.clone()
        for rows in example.members():
            for a, b in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
                channel = (a + b + seed) % rewards.shape[1]  # better on this one, equal on the others
                rewards[b] = rewards[a]
                rewards[b, channel] += 0.5
        made.append(example.scored(rewards))
    return made


_LEVELS: Mapping[str, str] = {"levels": "it depends on the level of a reward: it reads rewards on a declared scale"}

PROPERTIES = (
    Property(
        "direction",
        "where all channels agree, the better completion gets more",
        "the policy is not pushed towards what is rewarded",
        examples.copied_channels,
        direction,
        reduced={"bundles": BUNDLES},
    ),
    Property(
        "dominance",
        "a completion that is no worse on any channel than another of its group gets no less",
        "doing better can be punished",
        chains,
        dominance,
        excused={"spread-penalty": "a mean minus a variance is not monotone"},
        reduced={"bundles": BUNDLES},
    ),
    Property(
        "row-order",
        "the order of the completions does not matter",
        "results depend on how a batch was shuffled",
        examples.plain_examples,
        row_order,
        reduced={"bundles": "rows of different groups mixed; the order within groups forms the bundles"},
    ),
    Property(
        "channel-order",
        "the order of the channels does not matter",
        "results depend on how reward functions were listed",
        examples.several_channels,
        channel_order,
        needs=("many",),
        excused={"ordered": "the order of the channels is a part of the rule, by declaration"},
    ),
    Property(
        "group-names",
        "the ids of groups are names only",
        "results depend on the ids of prompts, or fail for some",
        examples.plain_examples,
        group_names,
        needs=("any layout",),
    ),
    Property(
        "group-baseline",
        "a constant added to a channel of one group changes nothing",
        "easy prompts are reinforced and hard ones pushed down, whatever the completion was",
        examples.plain_examples,
        group_baseline,
        excused={**_LEVELS, "bundles": "the level of a group moves the score of its bundle"},
        reduced={"shared-weights": "constants that cancel over the batch, whose level sets the weights"},
    ),
    Property(
        "groups-apart",
        "other rewards in one group leave the others as they were, up to one scale",
        "a completion is judged by the answers to other prompts",
        examples.plain_examples,
        groups_apart,
        excused={
            "bundles": "the groups of a bundle share their score",
            "adapts": "k follows the whole batch",
            "filters": "what is left out moves the mean that all are compared with",
        },
        reduced={"shared-weights": "a group mirrored around its mean, which keeps the shared weights"},
    ),
    Property(
        "padding",
        "padding changes nothing",
        "the longest response of a batch changes all advantages",
        examples.plain_examples,
        padding,
        needs=("tokens",),
    ),
    Property(
        "length",
        "how long a response is does not change how it compares with others of its group",
        "long answers are rewarded or punished for their length, as where z-scores are summed over tokens",
        examples.plain_examples,
        length,
        needs=("tokens",),
    ),
)
