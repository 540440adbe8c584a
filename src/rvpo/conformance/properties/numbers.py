"""Numerical properties: shape and precision of the result, channels without signal, and extreme rewards."""

from __future__ import annotations

import math
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
from rvpo.conformance.target import Example, NotHereError, Target

NOISE = 0.05
"""Largest advantage that rounding may cause: a twentieth of a standard deviation."""
CONSTANTS = (0.7, 10.1, 1000.1)
SCALES = (1e6, 1e-6)


def output(target: Target, example: Example) -> Fault | None:
    """Check that each completion gets a finite number. The call itself refuses other shapes and types."""
    require_complete(example)
    got = target.answer(example).advantages
    return None if bool(got.isfinite().all()) else Fault("not finite", "not all advantages are finite", got)


def deterministic(target: Target, example: Example) -> Fault | None:
    """Call twice on a batch, with another batch in between."""
    first = ask(target, example)
    attempt(target, example.scored(1 - example.rewards))
    second = target.answer(example).advantages
    if torch.equal(first, second):
        return None
    return Fault("wrong", "the second call on the same batch differs", second, first)


def inputs_kept(target: Target, example: Example) -> Fault | None:
    """Check that the function does not write into its arguments."""
    answer = target.answer(example)
    if not answer.modified:
        return None
    return Fault("wrong", f"it changed {', '.join(answer.modified)} in place", answer.advantages)


def incomplete_too(target: Target, seed: int) -> list[Example]:
    """Return plain batches, and one with a missing reward: many functions that change an input fill NaN in place."""
    made = examples.plain_examples(target, seed)
    return made if "complete-only" in target.traits else [*made, examples.with_missing(made[0], 0, 0)]


def constant(target: Target, example: Example) -> Fault | None:
    """Check that rewards which differ only by rounding count as equal."""
    require_complete(example)
    flat = example.rewards.clone()
    for rows in example.members():
        rewards = example.rewards[rows]
        spread = rewards.amax(0) - rewards.amin(0)
        equal = spread <= 1e-6 * rewards.abs().amax(0)
        if bool((~equal & (spread < 0.2)).any()):
            raise NotHereError("a channel is neither live nor constant")
        # A nearby constant whose sums are exact, so close that it is the same to a rule that reads levels.
        flat[rows] = torch.where(equal, examples.on_grid(rewards[0]).to(rewards), rewards)
    if torch.equal(flat, example.rewards):
        raise NotHereError("no channel is constant up to rounding")
    got = target.answer(example).advantages
    what = f"a channel is constant up to rounding ({example.rewards.dtype}), against a true constant close by"
    return differ(got, ask(target, example.scored(flat)), what, None, NOISE)


def noisy_constants(target: Target, seed: int) -> list[Example]:
    """Return batches in which a group has one channel or all channels constant, exactly or up to the last digit."""
    made = []
    for i, value in enumerate(CONSTANTS):
        base = examples.equal_groups(target, seed)[i % 2]
        for channels in (slice(0, 1), slice(None)):
            for noise in (0.0, math.ulp(1.0) * 2**29, 1e-8):  # none, one unit in the last place of float32, a fixed one
                rewards = base.rewards.double() if noise == 1e-8 else base.rewards.clone()
                rows = base.members()[0]
                level = torch.full_like(rewards[rows][:, channels], value)
                sign = torch.tensor([1.0, -1.0, 0.0]).repeat(len(rows))[: len(rows), None].to(rewards)
                rewards[rows, channels] = level + sign * noise * (1 if noise == 1e-8 else value)
                made.append(base.scored(rewards))
    return made


def no_signal(target: Target, example: Example) -> Fault | None:
    """Check that equal completions get 0: there is nothing to learn."""
    require_complete(example)
    for rows in example.members():
        if bool((example.rewards[rows] != example.rewards[rows[0]]).any()):
            raise NotHereError("somebody differs")
    got = target.answer(example).advantages
    zero = torch.zeros_like(got)
    return differ(got, zero, "all completions of a group have the same rewards, and the advantages are not 0")


def all_equal(target: Target, seed: int) -> list[Example]:
    """Return batches in which all completions of a group have the same rewards."""
    made = []
    for e in examples.plain_examples(target, seed):
        rewards = e.rewards.clone()
        for rows in e.members():
            rewards[rows] = rewards[rows[0]].clone()
        made.append(e.scored(rewards))
    return made


def extreme(target: Target, example: Example) -> Fault | None:
    """Check that very large and very small rewards give finite advantages."""
    require_live(example)
    for scale in SCALES:
        changed = example.scored(example.rewards * scale)
        answer = attempt(target, changed)
        if isinstance(answer, Fault):
            return replace(answer, changed=changed)
        if not bool(answer.advantages.isfinite().all()):
            return Fault("not finite", f"with rewards times {scale:g}", answer.advantages, None, changed)
    return None


def precision(target: Target, example: Example) -> Fault | None:
    """Pass the same numbers as float64."""
    require_live(example)
    before = ask(target, example)
    return expect(target, example.scored(example.rewards.double()), before, "with the same rewards as float64")


def alone(target: Target, example: Example) -> Fault | None:
    """Check that a completion alone in its group, which cannot be compared, gets a finite advantage."""
    if all(len(rows) > 1 for rows in example.members()):
        raise NotHereError("no completion is alone in its group")
    got = target.answer(example).advantages
    return None if bool(got.isfinite().all()) else Fault("not finite", "not all advantages are finite", got)


def alone_zero(target: Target, example: Example) -> Fault | None:
    """Check that a completion alone in its group gets 0."""
    got = ask(target, example)
    rows = torch.cat([rows for rows in example.members() if len(rows) == 1])
    fault = differ(got[rows], torch.zeros_like(got[rows]), "a completion alone in its group has an advantage")
    return None if fault is None else replace(fault, got=got, expected=None)


def lone(target: Target, seed: int) -> list[Example]:
    """Return batches with groups of one."""
    channels = 1 if target.one_channel else 2
    sizes = [(1, 1, 1)] if target.blocks else [(1, 1, 1), (1, 4, 3)]
    return [examples.draw_example(target, each, channels, seed * 100 + 20 + i) for i, each in enumerate(sizes)]


def dead_neutral(target: Target, example: Example) -> Fault | None:
    """Add a channel that is constant over the batch."""
    require_live(example)
    before = ask(target, example)
    column = torch.full_like(example.rewards[:, :1], 0.5)
    more = example.scored(torch.cat([example.rewards, column], 1))
    return expect(target, more, before, "with one more channel that is the same for all", tolerance=5e-3)


OUTPUT = Property(
    "output",
    "it returns one finite number per completion",
    "training stops, or the loss is NaN",
    examples.plain_examples,
    output,
)
PROPERTIES = (
    OUTPUT,
    Property(
        "deterministic",
        "the same batch gives the same advantages, to the last bit",
        "processes that compute it on their own drift apart",
        examples.plain_examples,
        deterministic,
    ),
    Property(
        "inputs-kept",
        "its arguments are unchanged",
        "logs and training use other rewards than those that were scored",
        incomplete_too,
        inputs_kept,
    ),
    Property(
        "rounding",
        "rewards that differ only in the last digit count as equal",
        "rounding noise around a constant is trained like a reward",
        noisy_constants,
        constant,
    ),
    Property(
        "no-signal",
        "where all completions of every group are equal, all advantages are 0",
        "prompts that teach nothing move the policy",
        all_equal,
        no_signal,
    ),
    Property(
        "extreme-rewards",
        "rewards times a million, or a millionth, give finite advantages",
        "a reward on an unusual scale ends the run",
        examples.plain_examples,
        extreme,
    ),
    Property(
        "precision",
        "float32 and float64 rewards give the same",
        "results depend on the type that a reward function happens to return",
        examples.plain_examples,
        precision,
    ),
    Property(
        "alone-finite",
        "a group of one completion gives finite advantages",
        "a prompt that lost its other completions ends the run",
        lone,
        alone,
    ),
)
DESCRIPTIONS = (
    Property("alone-0", "a completion alone in its group gets 0", "", lone, alone_zero, required=False),
    Property(
        "dead-neutral",
        "one more channel that is the same for all changes nothing",
        "",
        examples.several_channels,
        dead_neutral,
        required=False,
        needs=("many",),
    ),
)
