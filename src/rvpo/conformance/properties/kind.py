"""Properties that describe the kind of rule. They never fail a check."""

from __future__ import annotations

from dataclasses import replace

import torch

from rvpo.conformance import examples
from rvpo.conformance.properties.base import (
    Fault,
    Property,
    ask,
    attempt,
    differ,
    expect,
    require_complete,
    require_live,
)
from rvpo.conformance.properties.order import other_lengths
from rvpo.conformance.target import Example, Target


def _same_lengths(target: Target, example: Example) -> Fault | None:
    """Compare exact values: the whitening of verl's GDPO weights rows by their length."""
    before = ask(target, example)
    other = replace(example, lengths=other_lengths(example))
    return expect(target, other, before, "with other response lengths")


def _all_tokens(target: Target, example: Example) -> Fault | None:
    answer = target.answer(example)
    return Fault("wrong", "it differs between the tokens of a response", answer.advantages) if answer.varies else None


def _scale_free(target: Target, example: Example) -> Fault | None:
    """Scale one channel of one group."""
    require_live(example)
    before = ask(target, example)
    rewards = example.rewards.clone()
    rewards[example.members()[0], 0] *= 4
    return expect(target, example.scored(rewards), before, "after stretching channel 0 of one group", tolerance=5e-3)


def _improvement(target: Target, example: Example) -> Fault | None:
    """Raise one reward of one completion: no other completion of its group may overtake it."""
    require_complete(example)
    before = ask(target, example)
    for row in range(len(before)):
        group = (example.groups == example.groups[row]).nonzero()[:, 0]
        for channel in range(example.rewards.shape[1]):
            rewards = example.rewards.clone()
            rewards[row, channel] += 1
            changed = example.scored(rewards)
            answer = attempt(target, changed)
            if isinstance(answer, Fault):
                return answer
            got = answer.advantages
            overtaken = (before[row] > before[group] + 1e-3) & (got[row] < got[group] - 1e-3)
            if bool(overtaken.any()):
                return Fault(
                    "wrong", f"row {row} did better on channel {channel} and was overtaken", got, None, changed
                )
    return None


def outlier(target: Target, seed: int) -> list[Example]:
    """Return a batch with an outlier on one channel: raising it further increases the spread more than its lead."""
    made = examples.plain_examples(target, seed)
    if not target.one_channel:
        first, second = [1.0, -0.4, -0.3, -0.3], [-0.4, 1.5, -0.3, -0.3]
        rewards = torch.tensor([first, second]).T.contiguous()
        made.insert(0, Example(rewards, torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)))
    return made


def _centred(target: Target, example: Example) -> Fault | None:
    require_live(example)
    got = ask(target, example)
    means = torch.stack([got[rows].mean() for rows in example.members()])
    return differ(means, torch.zeros_like(means), "the group means are not 0")


def _unit(target: Target, example: Example) -> Fault | None:
    require_live(example)
    got = ask(target, example)
    seen = torch.stack([got.mean(), got.std()])
    return differ(seen, torch.tensor([0.0, 1.0], dtype=seen.dtype), "mean and standard deviation", tolerance=2e-3)


DESCRIPTIONS = (
    Property(
        "scale-free", "the scale of a channel does not matter", "", examples.plain_examples, _scale_free, required=False
    ),
    Property(
        "group-mean-0", "the advantages of a group average 0", "", examples.plain_examples, _centred, required=False
    ),
    Property(
        "batch-whitened",
        "the advantages of a batch have mean 0 and standard deviation 1",
        "",
        examples.plain_examples,
        _unit,
        required=False,
    ),
    Property(
        "improvement",
        "a completion that does better on one channel is never overtaken for it",
        "",
        outlier,
        _improvement,
        required=False,
    ),
    Property(
        "length-exact",
        "lengths do not matter to the last digit, whitening included",
        "",
        examples.plain_examples,
        _same_lengths,
        required=False,
        needs=("tokens",),
    ),
    Property(
        "token-constant",
        "all tokens of a response get the same advantage",
        "",
        examples.plain_examples,
        _all_tokens,
        required=False,
        needs=("tokens",),
    ),
)
