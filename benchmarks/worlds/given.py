"""The 17 worlds of the first study, with the same names, starts and draws."""

from __future__ import annotations

import torch
from parts import (
    GIVEN,
    SLOW,
    WITHOUT,
    always,
    broken,
    budget,
    budget_policy,
    budget_start,
    columns,
    conflict_start,
    everywhere,
    flat_start,
    jittered,
    noisy,
    random_tables,
    sampled,
    standard_normal,
    style_and_items,
    two_styles_start,
)
from policies import Mlp, StyleItems, Table
from torch import Tensor
from world import Schedule, World

GIVEN_SPLIT = "given"


def given_worlds() -> list[World]:
    """Return the worlds in the order of the study."""
    return [
        exclusive3(),
        pareto_concave(),
        two_hard(),
        impossible_pull(),
        noise1_small(),
        plain(),
        anti_copy(),
        range_03(),
        heavy_length(),
        gated(),
        shift(),
        wakes(),
        graded_noise(),
        tiny(),
        random_conflict(),
        safety_real(),
        dup10(),
    ]


def base_world(name: str, kind: str, note: str, style: float, **changes: object) -> World:
    """Return a style and four items, which are met more often without the style."""
    policy = StyleItems(4)
    settings = {
        "split": GIVEN_SPLIT,
        "policy": policy,
        "rewards": everywhere(style_and_items(policy)),
        "start": conflict_start(policy, style),
        "columns": 5,
        **changes,
    }
    return World(name=name, kind=kind, note=note, **settings)  # type: ignore[arg-type]


def three_exclusive() -> tuple[Tensor, Tensor]:
    """Return rewards (12, 3) of replies that meet one of three channels or none, and their log-probabilities (12,)."""
    rewards = torch.zeros(12, 3)
    rewards[0:4, 0] = rewards[4:8, 1] = rewards[8:11, 2] = 1
    rates = [0.7 / 4] * 4 + [0.2 / 4] * 4 + [0.05 / 3] * 3 + [0.05]
    return rewards, torch.tensor(rates).log()


def exclusive3(**changes: object) -> World:
    """One of three binary channels at a time."""
    rewards, start = three_exclusive()
    settings = {"name": "exclusive3", "kind": "frontier, binary", "split": GIVEN_SPLIT, **changes}
    settings.setdefault("note", "three mutually exclusive binary channels; at best 1/3 each")
    return World(
        policy=Table(4, 12), rewards=everywhere(rewards), start=jittered(start.repeat(4)), columns=3, hard=[2],
        **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def pareto(name: str, kind: str, split: str, power: float, **changes: object) -> World:
    """Three channels share a budget; the reward is a power of the share."""
    return World(
        name, kind, split, budget_policy(), everywhere(budget() ** power), budget_start, 3,
        f"a budget of 10 split in three, reward = share^{power:g}", hard=[2], **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def pareto_concave() -> World:
    """Three channels share a budget with diminishing returns."""
    return pareto("pareto-concave", "frontier, concave", GIVEN_SPLIT, 0.5)


def two_hard(**changes: object) -> World:
    """Two rarely met channels against four others."""
    policy = StyleItems(4, styles=2)
    settings = {"name": "two-hard", "kind": "several hard", "split": GIVEN_SPLIT, **changes}
    settings.setdefault("note", "two rarely met channels, both against the four others; all can be met")
    return World(
        policy=policy, rewards=everywhere(style_and_items(policy)), start=two_styles_start(policy, [0.12, 0.12]),
        columns=6, hard=[0, 1], **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def impossible_pull() -> World:
    """A channel that can hardly be met, and only at the cost of the others."""
    policy = StyleItems(4)
    pull = policy.style * (1 - policy.item.mean(1, keepdim=True)) * 0.12
    note = "a channel met in at most 12%, and only by replies that miss the others; it does not count"
    return base_world(
        "impossible-pull", "impossible", note, 0.1, rewards=everywhere(columns(policy.item, pull)), observe=sampled,
        counted=[0, 1, 2, 3], hard=[4],
    )  # fmt: skip


def noise1_small() -> World:
    """One broken judge of six."""
    policy = StyleItems(4)
    rewards = columns(style_and_items(policy), torch.full((32,), 0.15))
    return base_world(
        "noise1-small", "broken judges", "one broken graded judge of six, uniform in [0, .3], 8 completions", 0.4,
        start=flat_start(policy, 0.4), rewards=everywhere(rewards), columns=6, observe=broken([5]),
        counted=[0, 1, 2, 3, 4], prompts=2, group=4, steps=160, rates=SLOW,
    )  # fmt: skip


def plain() -> World:
    """Nothing conflicts."""
    note = "nothing conflicts, nothing is broken"
    return base_world("plain", "plain", note, 0.4, start=flat_start(StyleItems(4), 0.4))


def anti_copy_rewards(policy: StyleItems) -> Tensor:
    """Return detail, brevity = 1 - detail, the format and a criterion, (K, 4)."""
    detail = policy.item.mean(1)
    return columns(detail, 1 - detail, policy.style, policy.item[:, :2].sum(1) >= 1)


def anti_copy(**changes: object) -> World:
    """Detail and brevity sum to 1."""
    settings = {"name": "anti-copy", "kind": "frontier, detail and brevity", **changes}
    settings.setdefault("note", "detail and brevity sum to 1, a format, a criterion; at best .5")
    rewards = everywhere(anti_copy_rewards(StyleItems(4)))
    return base_world(style=0.25, rewards=rewards, columns=4, hard=[2], **settings)  # type: ignore[arg-type]


def range_03() -> World:
    """A channel that uses a part of its range."""
    policy = StyleItems(4)
    base, scale = style_and_items(policy), torch.ones(5)
    scale[0] = 0.3
    note = "the style pays at most .3 of its declared range"
    return base_world("range-.3", "ranges", note, 0.25, rewards=everywhere(base * scale), truth=everywhere(base))


def heavy_length() -> World:
    """A length in tokens among rewards in [0, 1]."""
    policy = StyleItems(4)
    base, items = style_and_items(policy), policy.item

    def observe(step: int, mean: Tensor, uniform: Tensor) -> Tensor:
        seen = mean.clone()
        seen[..., 5] = mean[..., 5] * torch.exp(0.8 * standard_normal(uniform[..., 5]))
        return seen

    return base_world(
        "heavy-length", "heavy tails", "a log-normal length, declared in [0, 8192], mostly 100 to 1500", 0.25,
        rewards=everywhere(columns(base, 150 + 100 * items.sum(1))), truth=everywhere(columns(base, items.mean(1))),
        columns=6, observe=observe, ranges=[None] * 5 + [(0.0, 8192.0)], counted=[0, 1, 2, 3, 4],
    )  # fmt: skip


def gated() -> World:
    """A chain of channels, each of which needs the last."""
    policy = StyleItems(4)
    style, item = policy.style[:, 0], policy.item
    first = style * item[:, 0]
    rewards = columns(style, first, first * item[:, 1] * item[:, 2], item[:, 3], item.sum(1) >= 2)
    start = policy.start(0.12, [0.7, 0.7, 0.6, 0.7], [0.4, 0.35, 0.3, 0.2])
    note = "channel 2 needs 1, which needs 0; 2 is met in under 1% at the start"
    return base_world("gated", "sparse", note, 0.12, rewards=everywhere(rewards), start=jittered(start), hard=[2])


def reversed_contexts(policy: StyleItems) -> Tensor:
    """Return style and items (X, K, 5), where the later half of the contexts wants two items reversed."""
    table = style_and_items(policy)[None].repeat(policy.contexts, 1, 1)
    table[policy.contexts // 2 :, :, 1:3] = 1 - table[policy.contexts // 2 :, :, 1:3]
    return table


def shift() -> World:
    """Other prompts from half time."""
    policy = StyleItems(4, contexts=8)

    def prompts(step: int) -> Tensor:
        early = torch.tensor([1.0] * 4 + [0.0] * 4)
        return early if step < 60 else 1 - early

    return base_world(
        "shift", "changing", "other prompts from half time, which want two items reversed", 0.3, policy=policy,
        rewards=always(reversed_contexts(policy)), start=conflict_start(policy, 0.3), steps=120,
        context_weights=prompts,
    )  # fmt: skip


def changing_at(step: int, before: Schedule, after: Schedule) -> Schedule:
    """Use other rewards from a step on."""
    return lambda now: before(now) if now < step else after(now)


def wakes() -> World:
    """A channel that is constant at first."""
    late = style_and_items(StyleItems(4))
    early = late.clone()
    early[:, 0] = 1.0
    rewards = changing_at(60, everywhere(early), everywhere(late))
    note = "channel 0 is always 1 until step 60, then it is the style"
    return base_world("wakes", "changing", note, 0.3, rewards=rewards, steps=120)


def graded_noise() -> World:
    """Graded channels that are seen through noise."""
    policy = StyleItems(4)
    rewards = columns(0.1 + 0.8 * policy.style, 0.2 + 0.6 * policy.item)
    note = "graded channels with noise of sd .3, .02, .1, .3, .6"
    observe = noisy([0.3, 0.02, 0.1, 0.3, 0.6])
    return base_world("graded-noise", "noise", note, 0.3, rewards=everywhere(rewards), observe=observe)


def tiny() -> World:
    """One group of four per batch."""
    note = "style and items, one group of 4 per batch"
    return base_world("tiny-G4P1", "small batches", note, 0.3, prompts=1, group=4, steps=240, rates=SLOW)


def random_world(name: str, split: str, tables: str, note: str, kind: str = "random", **changes: object) -> World:
    """Return random rewards, a world of its own for each seed."""
    policy = Mlp(8, 32)
    settings = {"hard": [5], "steps": 100, "rates": (0.005, 0.015, 0.04), **changes}
    return World(
        name,
        kind,
        split,
        policy,
        always(random_tables(tables)),
        policy.start,
        6,
        note,
        **settings,  # type: ignore[arg-type]
    )


def random_conflict() -> World:
    """Random channels that exclude each other."""
    return random_world("random-conflict", GIVEN_SPLIT, "conflict", "8 contexts x 32 replies, channels conflict")


def safety_real() -> World:
    """A safety channel with a real pull against it."""
    policy = StyleItems(4)
    breach = policy.style
    return base_world(
        "safety-.99-real", "safety, tradable", "breaching doubles the others, and half the breaches are caught", 0.02,
        rewards=everywhere(columns(1 - breach * 0.5, policy.item * (0.5 + 0.5 * breach))),
        start=jittered(policy.start(0.02, WITHOUT, WITHOUT)), observe=sampled,
    )  # fmt: skip


def dup10(**changes: object) -> World:
    """Ten copies of one criterion."""
    policy = StyleItems(4)
    copies = policy.item[:, 1:2].expand(-1, 10)
    settings = {"name": "dup10", "kind": "copies", **changes}
    settings.setdefault("note", "ten copies of one easy criterion against one hard one")
    return base_world(
        style=0.25,
        rewards=everywhere(columns(policy.style, policy.item[:, 0], copies)), columns=12,
        start=jittered(policy.start(0.25, WITHOUT, GIVEN)), **settings,  # type: ignore[arg-type]
    )  # fmt: skip
