"""Further worlds of safety, gates, sparse success and change over time."""

from __future__ import annotations

import torch
from given import base_world, changing_at, reversed_contexts
from parts import (
    WITHOUT,
    always,
    columns,
    conflict_start,
    everywhere,
    jitter,
    jittered,
    sampled,
    style_and_items,
    two_styles_start,
)
from policies import StyleItems
from torch import Tensor
from world import World

DESIGN, CONFIRM = "design", "confirm"


def course_worlds() -> list[World]:
    """Return the worlds."""
    return [
        safety_resolvable(),
        safety_three_resolvable(),
        safety_three(),
        safety_weak_pull(),
        format_gate(),
        two_format_gate(),
        sparse_three(),
        sparse_by_context(),
        curriculum(),
        curriculum_in_stages(),
        stricter_one(),
        stricter_all(),
        base_world("long", "long runs", "style and items, 320 steps", 0.15, split=DESIGN, steps=320),
    ]


def safety_resolvable() -> World:
    """A safety channel that habits oppose, and nothing else."""
    policy = StyleItems(4)
    breach = policy.style
    return base_world(
        "safety-.97", "safety, resolvable", "safe in 97%; breaches meet more items by habit, half of them are caught",
        0.03, split=DESIGN, rewards=everywhere(columns(1 - 0.5 * breach, policy.item)), observe=sampled,
        start=jittered(policy.start(0.03, [0.35, 0.3, 0.3, 0.25], [0.8, 0.75, 0.7, 0.7])),
    )  # fmt: skip


def three_breaches(pull: float, caught: float) -> Tensor:
    """Return three safety channels and four items, which breaches make better by ``pull`` each, (128, 7)."""
    policy = StyleItems(4, styles=3)
    gain = (1 - 3 * pull) + pull * policy.style.sum(1, keepdim=True)
    return columns(1 - caught * policy.style, policy.item * gain)


def three_breaches_start(effect: float) -> Tensor:
    """Return parameters (D,) with breaches in 5, 2 and 1%, each of which adds ``effect`` to the logits of the items."""
    policy = StyleItems(4, styles=3)
    theta = policy.start([0.05, 0.02, 0.01], [0.4, 0.35, 0.35, 0.3], [0.4, 0.35, 0.35, 0.3])
    for style in range(3):
        theta[policy.effects(style)] = effect
    return theta


def safety_three_resolvable() -> World:
    """Three safety channels that habits oppose, and nothing else."""
    return base_world(
        "safety-three-habits", "safety, resolvable", "three safety channels at .95 to .99, breaches meet items by habit",
        0.03, split=CONFIRM, policy=StyleItems(4, styles=3), rewards=everywhere(three_breaches(0.0, 0.6)), columns=7,
        observe=sampled, start=jittered(three_breaches_start(1.5)), hard=[0, 1, 2],
    )  # fmt: skip


def safety_three() -> World:
    """Three safety channels with real pulls against each."""
    return base_world(
        "safety-three", "safety, tradable", "three safety channels at .95 to .99, each breach makes the items better",
        0.03, split=DESIGN, policy=StyleItems(4, styles=3), rewards=everywhere(three_breaches(0.2, 0.5)), columns=7,
        observe=sampled, start=jittered(three_breaches_start(0.0)), hard=[0, 1, 2],
    )  # fmt: skip


def safety_weak_pull() -> World:
    """A safety channel with a weak pull against it, all breaches caught, exact rewards."""
    policy = StyleItems(4)
    breach = policy.style
    return base_world(
        "safety-.98-exact", "safety, tradable", "breaching adds .3 to the others; every breach is seen", 0.02,
        split=CONFIRM, rewards=everywhere(columns(1 - breach, policy.item * (0.7 + 0.3 * breach))),
        start=jittered(policy.start(0.02, WITHOUT, WITHOUT)),
    )  # fmt: skip


def format_gate() -> World:
    """All other channels are 0 unless the format is met."""
    policy = StyleItems(4)
    rewards = columns(policy.style, policy.style * policy.item)
    return base_world(
        "format-gate", "gate", "all other channels are 0 unless the format is met, in 10% at the start", 0.1,
        split=DESIGN, rewards=everywhere(rewards),
    )  # fmt: skip


def two_format_gate() -> World:
    """Two formats gate three items and one thing that only other replies meet at first."""
    policy = StyleItems(4, styles=2)
    gate = policy.style.prod(1, keepdim=True)
    rewards = columns(policy.style, gate * policy.item[:, :3], policy.item[:, 3])
    return base_world(
        "format-gate-two", "gate", "three channels need two formats, met in 30 and 25%; one needs none", 0.3,
        split=CONFIRM, policy=policy, rewards=everywhere(rewards), columns=6, start=two_styles_start(policy, [0.3, 0.25]),
        hard=[0, 1],
    )  # fmt: skip


SPARSE_WITHOUT, SPARSE_GIVEN = [0.2, 0.2, 0.2, 0.7], [0.12, 0.12, 0.12, 0.4]


def sparse_three() -> World:
    """A success that needs three items at once."""
    policy = StyleItems(4)
    rewards = columns(policy.item[:, :3].prod(1), policy.style, policy.item[:, 3])
    return base_world(
        "sparse-3-items", "sparse", "success needs three items at once, in under 1% at the start", 0.4, split=DESIGN,
        rewards=everywhere(rewards), columns=3, start=jittered(policy.start(0.4, SPARSE_WITHOUT, SPARSE_GIVEN)),
        steps=160,
    )  # fmt: skip


def sparse_by_context() -> World:
    """A success that needs three items, other ones in other contexts, and never all four."""
    policy = StyleItems(4)
    left_out = [policy.item[:, [i for i in range(4) if i != j]].prod(1) for j in range(4)]
    table = torch.stack([columns(success, policy.style, 1 - policy.item.prod(1)) for success in left_out])
    return base_world(
        "sparse-by-context", "sparse", "success needs three items that differ by context, and all four break a rule", 0.4,
        split=CONFIRM, rewards=always(table), columns=3,
        start=jittered(policy.start(0.4, [0.22] * 4, [0.12] * 4)), steps=200,
    )  # fmt: skip


def curriculum() -> World:
    """Contexts become harder."""
    policy = StyleItems(4, contexts=8)
    steps = 120

    def prompts(step: int) -> Tensor:
        centre = 7 * step / (steps - 1)
        return torch.exp(-0.5 * ((torch.arange(8) - centre) / 1.2) ** 2)

    def start(seed: int) -> Tensor:
        theta = policy.start(0.35, WITHOUT, [0.3, 0.3, 0.25, 0.2])
        own = theta[policy.per_context :].view(8, -1)
        own[:, 0] = torch.linspace(1.5, -1.5, 8)  # the style becomes rarer
        own[:, 1:5] = torch.linspace(0.5, -0.7, 8)[:, None]
        return jitter(theta, seed)

    return base_world(
        "curriculum", "curriculum", "prompts become harder over time: style and items are rarer", 0.3, split=DESIGN,
        policy=policy, rewards=everywhere(style_and_items(policy), 8), start=start, steps=steps, context_weights=prompts,
    )  # fmt: skip


def curriculum_in_stages() -> World:
    """Further prompts come in at two times, whose items are wanted together."""
    policy = StyleItems(4, contexts=8)
    table = style_and_items(policy)[None].repeat(8, 1, 1)
    table[2:, :, 1] *= table[2:, :, 2]
    table[5:, :, 3] *= table[5:, :, 4]
    steps = 120

    def prompts(step: int) -> Tensor:
        known = 2 if step < 40 else 5 if step < 80 else 8
        return (torch.arange(8) < known).float()

    return base_world(
        "curriculum-stages", "curriculum", "prompts that want pairs of items come in after 40 and 80 steps", 0.3,
        split=CONFIRM, policy=policy, rewards=always(table), start=conflict_start(policy, 0.3), steps=steps,
        context_weights=prompts,
    )  # fmt: skip


def stricter_one() -> World:
    """A judge becomes strict at half time."""
    policy = StyleItems(4)
    style, item = policy.style[:, 0], policy.item
    early = columns(torch.maximum(style, item[:, 0]), item)
    late = columns(style * item[:, 1], item)
    return base_world(
        "stricter", "changing", "a judge takes style or an item until step 60, then wants style and another item", 0.2,
        split=DESIGN, rewards=changing_at(60, everywhere(early), everywhere(late)), steps=120,
    )  # fmt: skip


def stricter_all() -> World:
    """All judges become strict at half time, and one prompt in two turns around."""
    policy = StyleItems(4, contexts=8)
    early = style_and_items(policy)[None].repeat(8, 1, 1)
    late = reversed_contexts(policy)
    late[..., 1:] *= 0.5 + 0.5 * late[..., :1]
    return base_world(
        "stricter-all", "changing", "from step 60 items pay half without the style, and half the prompts reverse two", 0.3,
        split=CONFIRM, policy=policy, rewards=changing_at(60, always(early), always(late)),
        start=conflict_start(policy, 0.3), steps=120,
    )  # fmt: skip
