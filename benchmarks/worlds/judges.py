"""Further worlds whose judges are broken, drift, can be exploited, or use other ranges than declared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from given import base_world
from parts import (
    SLOW,
    broken,
    broken_binary,
    columns,
    conflict_start,
    everywhere,
    flat_start,
    style_and_items,
)
from policies import StyleItems
from torch import Tensor
from world import Pairs, World

DESIGN, CONFIRM = "design", "confirm"
DRIFT_STEPS = 120


def judge_worlds() -> list[World]:
    """Return the worlds."""
    return [
        broken_half(),
        broken_three_of_eight(),
        broken_rare(),
        broken_two(),
        drift_scale(),
        drift_offset(),
        exploit_bit(),
        exploit_length(),
        *_range_worlds(),
        heavy_cauchy(),
        heavy_outliers(),
    ]


def with_judges(count: int) -> Tensor:
    """Return style and items with ``count`` further columns of 0, (32, 5 + count)."""
    return columns(style_and_items(StyleItems(4)), torch.zeros(32, count))


def broken_half() -> World:
    """Half of the judges are broken, in batches of 8."""
    return base_world(
        "broken-half", "broken judges", "five of ten graded judges are broken, uniform in [0, .3], 8 completions", 0.4,
        split=DESIGN, start=flat_start(StyleItems(4), 0.4), rewards=everywhere(with_judges(5)), columns=10,
        observe=broken(range(5, 10)), counted=list(range(5)), prompts=2, group=4, steps=160, rates=SLOW,
    )  # fmt: skip


def broken_three_of_eight() -> World:
    """Three of eight judges are broken, in batches of 16."""
    return base_world(
        "broken-3-of-8", "broken judges", "three of eight graded judges are broken, uniform in [0, .3], 16 completions",
        0.3, split=CONFIRM, rewards=everywhere(with_judges(3)), columns=8, observe=broken(range(5, 8)),
        counted=list(range(5)), prompts=4, group=4, steps=120, rates=SLOW,
    )  # fmt: skip


def broken_rare() -> World:
    """A broken binary judge that is rarely met, next to a conflict."""
    return base_world(
        "broken-binary-.08", "broken judges, binary", "a judge that says yes at random in 8%, and a conflict", 0.25,
        split=DESIGN, rewards=everywhere(with_judges(1)), columns=6, observe=broken_binary([5], 0.08),
        counted=list(range(5)),
    )  # fmt: skip


def broken_two() -> World:
    """Two broken binary judges."""
    return base_world(
        "broken-binary-two", "broken judges, binary", "two judges that say yes at random in 30%, and a conflict", 0.25,
        split=CONFIRM, rewards=everywhere(with_judges(2)), columns=7, observe=broken_binary([5, 6], 0.3),
        counted=list(range(5)),
    )  # fmt: skip


def drift(
    shares: list[tuple[int, Callable[[Tensor, float], Tensor]]],
) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Observe 0 or 1 per item, then change some columns by how much of the run is done (0 to 1)."""

    def observe(step: int, mean: Tensor, uniform: Tensor) -> Tensor:
        seen = mean.clone()
        for column, change in shares:
            seen[..., column] = change(mean[..., column], step / (DRIFT_STEPS - 1))
        return seen

    return observe


def drift_scale() -> World:
    """The scale of two judges of easy items shrinks."""
    observe = drift([(1, lambda x, t: x * (1 - 0.7 * t)), (2, lambda x, t: x * (1 - 0.7 * t))])
    return base_world(
        "drift-scale", "judges drift", "two judges of easy items pay less and less, down to .3", 0.25,
        split=DESIGN, observe=observe, steps=DRIFT_STEPS,
    )  # fmt: skip


def drift_offset() -> World:
    """The judge of the hard channel becomes lenient, that of an easy one strict."""
    observe = drift([(0, lambda x, t: x + (1 - x) * 0.8 * t), (1, lambda x, t: (x - 0.6 * t).clamp(min=0.0))])
    return base_world(
        "drift-offset", "judges drift", "the hard channel's judge pays up to .8 for nothing, an easy one's .6 less", 0.25,
        split=CONFIRM, observe=observe, steps=DRIFT_STEPS,
    )  # fmt: skip


def exploit_bit() -> World:
    """A trick gets a part of a reward without what is wanted."""
    policy = StyleItems(4, styles=2)
    trick, item = policy.style[:, 1], policy.item
    wanted = item[:, 3]
    seen = columns(policy.style[:, 0], item[:, :3], torch.maximum(wanted, 0.6 * trick))
    truth = columns(policy.style[:, 0], item[:, :3], wanted * (1 - trick))
    return base_world(
        "exploit-trick", "judges are exploited", "a trick gets .6 of an item's reward and makes the item worthless",
        0.25, split=DESIGN, policy=policy, rewards=everywhere(seen), truth=everywhere(truth),
        start=conflict_start(policy, [0.25, 0.05]), hard=[4],
    )  # fmt: skip


def exploit_length() -> World:
    """A judge that likes long replies, which are worse."""
    policy = StyleItems(4, styles=2)
    long, item = policy.style[:, 1], policy.item
    quality = item[:, 2:].mean(1)
    seen = columns(policy.style[:, 0], item[:, :2], 0.7 * quality + 0.3 * long, 1 - 0.5 * long)
    truth = columns(policy.style[:, 0], item[:, :2], quality * (1 - 0.3 * long), 1 - 0.5 * long)
    return base_world(
        "exploit-length", "judges are exploited", "quality is paid .3 for length, which lowers it; brevity is a channel",
        0.25, split=CONFIRM, policy=policy, rewards=everywhere(seen), truth=everywhere(truth),
        start=conflict_start(policy, [0.25, 0.4]), hard=[0],
    )  # fmt: skip


def rescaled(ranges: list[tuple[float, float]]) -> Tensor:
    """Return style and items scaled from [0, 1] to ranges, (32, 5)."""
    low, high = torch.tensor(ranges).unbind(-1)
    return low + (high - low) * style_and_items(StyleItems(4))


def _range_worlds() -> list[World]:
    policy = StyleItems(4)
    base = style_and_items(policy)
    three = [(-3.0, 3.0)] * 5
    mixed = [(-3.0, 3.0), (0.0, 1.0), (0.0, 100.0), (-1.0, 0.0), (0.0, 1.0)]
    wide: Pairs = [None] * 4 + [(0.0, 10.0)]
    graded = columns(policy.style, policy.item[:, :2], policy.item.mean(1), policy.item[:, 2:].mean(1))
    narrow: Pairs = [None] * 3 + [(0.0, 0.5), (0.0, 0.4)]

    def world(name: str, split: str, note: str, **changes: object) -> World:
        return base_world(name, "ranges", note, 0.2, split=split, **changes)

    return [
        world("range-10x", DESIGN, "all ranges are declared ten times too wide", ranges=[(0.0, 10.0)] * 5),
        world("range-10x-easy", CONFIRM, "one easy item's range is declared ten times too wide", ranges=wide),
        world(
            "range-narrow", DESIGN, "two graded channels are declared in [0, .5] and [0, .4], and clipped",
            rewards=everywhere(graded), ranges=narrow,
        ),
        world(
            "range-3", DESIGN, "all rewards lie in [-3, 3], as declared",
            rewards=everywhere(rescaled(three)), truth=everywhere(base), ranges=list(three), observe=two_values(three),
        ),
        world(
            "range-mixed", CONFIRM, "rewards in [-3, 3], [0, 1], [0, 100] and [-1, 0], as declared",
            rewards=everywhere(rescaled(mixed)), truth=everywhere(base), ranges=list(mixed), observe=two_values(mixed),
        ),
    ]  # fmt: skip


def two_values(ranges: list[tuple[float, float]]) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Observe the lowest or the highest reward wrongly in 5%."""
    low, high = torch.tensor(ranges).unbind(-1)
    return lambda step, mean, uniform: torch.where(uniform < 0.05, low + high - mean, mean)


def heavy_cauchy() -> World:
    """Graded rewards with Cauchy noise."""
    policy = StyleItems(4)
    rewards = columns(0.1 + 0.8 * policy.style, 0.2 + 0.6 * policy.item)

    def observe(step: int, mean: Tensor, uniform: Tensor) -> Tensor:
        noise = torch.tan(torch.pi * (uniform - 0.5).clamp(-0.4999, 0.4999))
        return (mean + 0.08 * noise).clamp(-2, 3)

    return base_world(
        "heavy-cauchy", "heavy tails", "graded rewards with Cauchy noise of scale .08, clipped to the declared [-2, 3]",
        0.25, split=DESIGN, rewards=everywhere(rewards), ranges=[(-2.0, 3.0)] * 5, observe=observe,
    )  # fmt: skip


def heavy_outliers() -> World:
    """Now and then a reward is far off."""

    def observe(step: int, mean: Tensor, uniform: Tensor) -> Tensor:
        outlier = torch.where(uniform < 0.015, -5.0, 6.0)
        return torch.where(uniform < 0.03, outlier, mean)

    return base_world(
        "heavy-outliers", "heavy tails", "3% of the rewards are -5 or 6, as declared; the others are 0 or 1", 0.25,
        split=CONFIRM, ranges=[(-5.0, 6.0)] * 5, observe=observe,
    )  # fmt: skip
