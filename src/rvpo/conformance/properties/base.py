"""What a property is, and how it compares answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rvpo.conformance.target import Answer, CallError, Example, NotHereError, Target

TOLERANCE = 1e-3
"""Largest difference between advantages that are the same, in units of the largest of them, or of 1."""
LEVEL_READERS = frozenset({"levels", "shared-weights", "bundles"})
"""Traits of rules to which a constant added to a channel may say something."""


@dataclass(frozen=True)
class Fault:
    """What went wrong on a batch.

    Attributes:
        kind: ``"raised"``, ``"not finite…"`` or ``"wrong"``; shrinking keeps it.
        what: what was done, and what came of it.
        got: (N,) advantages, where there are any.
        expected: (N,) what they should have been, where that is a number.
        changed: the batch that ``got`` belongs to, where it is not the example itself.
    """

    kind: str
    what: str
    got: Tensor | None = None
    expected: Tensor | None = None
    changed: Example | None = None


@dataclass(frozen=True)
class Property:
    """One thing to ask of an advantage function.

    Attributes:
        name: as in the table.
        statement: what holds, on one line.
        consequence: what a training run suffers where it does not hold.
        examples: target and seed -> batches.
        check: finds a fault on a batch, or None; raises NotHereError where the batch says nothing.
        required: whether a failure fails the check; otherwise the property describes what kind of rule it is.
        needs: what the target must be: ``"k"``, ``"tokens"``, ``"many"`` (channels), ``"any layout"``.
        excused: trait -> why the property cannot hold for such a rule.
        reduced: trait -> in which narrower form it was checked for such a rule.
    """

    name: str
    statement: str
    consequence: str
    examples: Callable[[Target, int], Sequence[Example]]
    check: Callable[[Target, Example], Fault | None]
    required: bool = True
    needs: tuple[str, ...] = ()
    excused: Mapping[str, str] = field(default_factory=dict)
    reduced: Mapping[str, str] = field(default_factory=dict)


NEEDS: Mapping[str, tuple[Callable[[Target], bool], str]] = {
    "k": (lambda target: target.has_k, "it has no risk coefficient, or none was named: --k-name"),
    "tokens": (lambda target: target.by_tokens, "it never sees response tokens"),
    "many": (lambda target: not target.one_channel, "it takes one reward a completion"),
    "any layout": (lambda target: not target.blocks, "it takes equal groups in consecutive rows only"),
}


def unmet(target: Target, needs: Sequence[str]) -> str | None:
    """Return why a property says nothing about this target, None where it does."""
    return next((reason for holds, reason in (NEEDS[need] for need in needs) if not holds(target)), None)


def ask(target: Target, example: Example) -> Tensor:
    """Return the advantages (N,) of the batch to start from.

    Raises:
        NotHereError: they are not all finite; that is for other properties to say.
        CallError: the function raised.
    """
    advantages = target.answer(example).advantages
    if not bool(advantages.isfinite().all()):
        raise NotHereError("its advantages are not finite here in the first place")
    return advantages


def attempt(target: Target, example: Example) -> Answer | Fault:
    """Return the answer to a batch, or the fault that there is none."""
    try:
        return target.answer(example)
    except CallError as error:
        return Fault("raised", str(error))


def expect(
    target: Target,
    example: Example,
    expected: Tensor,
    what: str,
    *,
    tolerance: float = TOLERANCE,
    changed: bool = True,
) -> Fault | None:
    """Ask about a batch whose advantages are known (N,)."""
    answer = attempt(target, example)
    if isinstance(answer, Fault):
        return Fault("raised", f"{what}: {answer.what}", changed=example)
    return differ(answer.advantages, expected, what, example if changed else None, tolerance)


def differ(
    got: Tensor, expected: Tensor, what: str, changed: Example | None = None, tolerance: float = TOLERANCE
) -> Fault | None:
    """Return the fault that advantages are not the expected ones, to ``tolerance`` of the largest, or of 1."""
    if not bool(got.isfinite().all()):
        return Fault("not finite", f"{what}: not all advantages are finite", got, expected, changed)
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    if float((got - expected).abs().max()) <= allowed:
        return None
    return Fault("wrong", what, got, expected, changed)


def rescaled_rewards(x: Tensor, y: Tensor) -> Tensor:
    """Return the rising affine image a x + b, a >= 0, of ``x`` that is closest to ``y``, both (N,)."""
    centred = x - x.mean()
    slope = (centred * (y - y.mean())).sum() / centred.square().sum().clamp(min=1e-30)
    return slope.clamp(min=0) * centred + y.mean()


def same_up_to_scale(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether ``got`` is a rising affine image of ``expected``, to ``tolerance`` of its spread."""
    if float(expected.std()) <= 1e-6:
        return float(got.max() - got.min()) <= 1e-3
    if float(got.std()) <= 1e-6:
        return False
    return float((got - rescaled_rewards(expected, got)).abs().max()) <= tolerance * float(got.std())


def require_complete(example: Example) -> None:
    """Stop where a reward is missing."""
    if not example.complete:
        raise NotHereError("a reward is missing")


def require_live(example: Example, smallest: int = 2) -> None:
    """Stop where a group is small, or a channel all but constant in it."""
    require_complete(example)
    for rows in example.members():
        rewards = example.rewards[rows]
        spread = rewards.amax(0) - rewards.amin(0)
        if len(rows) < smallest or bool((spread < 0.2).any()):
            raise NotHereError("a group is small, or a channel all but constant in it")


def single_group(target: Target, example: Example, trait: str = "bundles") -> None:
    """Stop where there are several groups, for a rule that scores them together."""
    if trait in target.traits and len(example.members()) > 1:
        raise NotHereError("it scores several groups together")


def zscores(example: Example) -> Tensor:
    """Group z-scores (N, M) of a complete batch, in float64, with ddof 1: the reference of the limits."""
    rewards = example.rewards.double()
    z = torch.zeros_like(rewards)
    for rows in example.members():
        z[rows] = (rewards[rows] - rewards[rows].mean(0)) / rewards[rows].std(0)
    return z
