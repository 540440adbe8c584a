"""Further worlds by their size: channels, rubrics, groups, batches; token sequences and random worlds."""

from __future__ import annotations

import torch
from given import base_world, dup10, random_world, two_hard
from parts import (
    SLOW,
    always,
    columns,
    conflict_start,
    everywhere,
    jittered,
)
from policies import StyleItems, Tokens
from torch import Tensor
from world import World

DESIGN, CONFIRM = "design", "confirm"


def size_worlds() -> list[World]:
    """Return the worlds."""
    return [
        two_channels("channels-2", DESIGN, graded=False),
        two_channels("channels-2-graded", CONFIRM, graded=True),
        twenty_channels(),
        forty_channels(),
        rubric("rubric-40", DESIGN, labels=40, contexts=16),
        rubric("rubric-240", CONFIRM, labels=240, contexts=60),
        *_batches(),
        tokens_length(),
        tokens_rare_word(),
        random_world("random-aligned", DESIGN, "aligned", "8 contexts x 32 replies, channels agree"),
        random_world("random-graded", CONFIRM, "graded", "8 contexts x 32 replies, graded channels conflict"),
    ]


def two_channels(name: str, split: str, graded: bool) -> World:
    """A rare style against what is met often."""
    policy = StyleItems(4)
    other = policy.item.mean(1) if graded else policy.item[:, 0]
    note = f"a rare style against one {'graded' if graded else 'binary'} channel; both can be met"
    start = policy.start(0.1, [0.9, 0.85, 0.85, 0.8], [0.1, 0.1, 0.15, 0.15])
    return base_world(
        name, "2 channels", note, 0.1, split=split, rewards=everywhere(columns(policy.style, other)), columns=2,
        start=jittered(start),
    )  # fmt: skip


def twenty_channels() -> World:
    """A style against 19 means of random items."""
    policy = StyleItems(6)
    generator = torch.Generator().manual_seed(20)
    picks = [torch.randperm(6, generator=generator)[: 1 + j % 3] for j in range(19)]
    rewards = columns(policy.style, *(policy.item[:, pick].mean(1) for pick in picks))
    start = policy.start(0.2, [0.75, 0.7, 0.65, 0.6, 0.6, 0.6], [0.35, 0.3, 0.3, 0.3, 0.25, 0.25])
    return base_world(
        "channels-20", "many channels", "a style against 19 means of 1 to 3 of 6 items", 0.2, split=DESIGN,
        policy=policy, rewards=everywhere(rewards), columns=20, start=jittered(start),
    )  # fmt: skip


def forty_channels() -> World:
    """Two styles against 38 conjunctions of random items."""
    policy = StyleItems(6, styles=2)
    generator = torch.Generator().manual_seed(40)
    picks = [torch.randperm(6, generator=generator)[: 1 + j % 2] for j in range(38)]
    rewards = columns(policy.style, *(policy.item[:, pick].prod(1) for pick in picks))
    rates, given = [0.8, 0.75, 0.75, 0.7, 0.7, 0.65], [0.4, 0.4, 0.35, 0.35, 0.3, 0.3]
    theta = policy.start([0.2, 0.15], rates, given)
    theta[policy.effects(1)] = theta[policy.effects(0)]
    return base_world(
        "channels-40", "many channels", "two styles against 38 conjunctions of 1 or 2 of 6 items", 0.2, split=CONFIRM,
        policy=policy, rewards=everywhere(rewards), columns=40, start=jittered(theta), hard=[0, 1],
    )  # fmt: skip


def rubric(name: str, split: str, labels: int, contexts: int, cells: int = 6) -> World:
    """A ragged rubric: each context has 3 to 6 criteria, whose labels recur in other contexts.

    A criterion asks for one of the items or, for a quarter of the labels, for the style. Two criteria of a label in one
    context ask for different items. Which items a label asks for is the same in all contexts.
    """
    policy = StyleItems(4, contexts=contexts)
    generator = torch.Generator().manual_seed(labels)
    applies = torch.arange(cells) < torch.randint(3, cells + 1, (contexts, 1), generator=generator)
    order = [torch.randperm(labels, generator=generator) for _ in range(-(-contexts * cells // labels))]
    label = torch.zeros(contexts, cells, dtype=torch.int64)
    label[applies] = torch.cat(order)[: int(applies.sum())]
    # Now and then, two criteria of a context have one label.
    twice = torch.rand(contexts, generator=generator) < 0.3
    present = torch.bincount(label[applies], minlength=labels)
    table = torch.zeros(contexts, policy.replies, cells)
    for x in range(contexts):
        if twice[x] and present[label[x, 1]] > 1:
            present[label[x, 1]] -= 1
            label[x, 1] = label[x, 0]
        seen: dict[int, int] = {}
        for m in range(cells):
            name_of = int(label[x, m])
            again = seen[name_of] = seen.get(name_of, -1) + 1
            wants_style = name_of % 4 == 0 and again == 0
            table[x, :, m] = policy.style[:, 0] if wants_style else policy.item[:, (name_of + again) % 4]
    absent = set(range(labels)) - set(label[applies].tolist())
    hard = [j for j in range(0, labels, 4) if j not in absent]
    return base_world(
        name, "ragged rubric", f"{labels - len(absent)} labels in {contexts} contexts of 3 to {cells} criteria", 0.25,
        split=split, policy=policy, rewards=always(table), columns=cells, applies=applies, label=label, labels=labels,
        counted=[j for j in range(labels) if j not in absent], hard=hard, steps=100,
        start=conflict_start(policy, 0.25),
    )  # fmt: skip


def _batches() -> list[World]:
    small, large, groups = "small batches", "large batches", "group size"
    return [
        base_world(
            "batch-12", small, "style and items, 3 groups of 4", 0.3, split=DESIGN, prompts=3, group=4, steps=160,
            rates=SLOW,
        ),
        batch_4_copies(),
        base_world(
            "groups-of-2", groups, "style and items, 4 groups of 2", 0.3, split=DESIGN, prompts=4, group=2, steps=160,
            rates=SLOW,
        ),
        two_hard(
            name="groups-of-2-two-hard", split=CONFIRM, kind=groups, note="two hard channels, 8 groups of 2", prompts=8,
            group=2, steps=160, rates=SLOW,
        ),
        base_world("groups-of-16", groups, "style and items, 4 groups of 16", 0.2, split=DESIGN, prompts=4, group=16),
        two_hard(
            name="batch-32-two-hard", split=CONFIRM, kind=groups, note="two hard channels, 2 groups of 16", prompts=2,
            group=16, steps=120,
        ),
        random_world(
            "batch-512-random", CONFIRM, "conflict", "8 contexts x 32 replies, channels conflict, 64 groups of 8",
            kind=large, prompts=64,
        ),
    ]  # fmt: skip


def batch_4_copies() -> World:
    """Ten copies of one criterion, one group of 4."""
    return dup10(
        name="batch-4-copies", split=CONFIRM, kind="small batches", note="ten copies of an easy criterion, one group of 4",
        prompts=1, group=4, steps=240, rates=SLOW,
    )  # fmt: skip


def used(words: Tensor) -> Tensor:
    """Return which tokens (K, T) come before the first 0, which ends a reply."""
    return (words != 0).cumprod(1).bool()


def has(words: Tensor, word: int) -> Tensor:
    """Return whether a word is in the reply, (K,)."""
    return ((words == word) & used(words)).any(1).float()


def tokens_length() -> World:
    """Detail needs words, brevity none, and the format a first word."""
    policy = Tokens(4, 4, 4)
    words = policy.words
    detail = (has(words, 2) + has(words, 3)) / 2
    brevity = ((5 - used(words).sum(1)) / 4).clamp(max=1)
    rewards = columns((words[:, 0] == 1), detail, brevity)
    return World(
        "tokens-length", "token sequences", DESIGN, policy, everywhere(rewards),
        jittered(policy.start([0.25, 0.1, 0.4, 0.25])), 3,
        "4 tokens of 4 words: a rare first word, detail by two words, brevity by the length", steps=100,
    )  # fmt: skip


def tokens_rare_word() -> World:
    """Three words are wanted, one of them rare, each at most once."""
    policy = Tokens(4, 4, 4)
    words = policy.words
    length = used(words).sum(1)
    distinct = sum(has(words, word) for word in (1, 2, 3))
    rewards = columns(has(words, 3), has(words, 1), has(words, 2), (distinct == length) * (length > 0), length <= 3)
    return World(
        "tokens-rare-word", "token sequences", CONFIRM, policy, everywhere(rewards),
        jittered(policy.start([0.3, 0.35, 0.33, 0.02])), 5,
        "4 tokens of 4 words: three words are wanted once each, one is rare", steps=100,
    )  # fmt: skip
