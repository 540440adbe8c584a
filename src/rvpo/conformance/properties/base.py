"""What a property is, and how it compares answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rvpo.conformance.target import Answer, CallError, Example, NotHereError, Target

TOLERANCE = 1e-3
"""Largest difference between advantages that count as equal, relative to the largest of them, or to 1."""
LEVEL_READERS = frozenset({"levels", "shared-weights", "bundles"})
"""Traits of rules that may react to a constant added to a channel."""


@dataclass(frozen=True)
class Fault:
    """What went wrong on a batch.

    Attributes:
        kind: ``"raised"``, ``"not finite…"`` or ``"wrong"``; shrinking keeps it.
        what: what was done, and its result.
        got: (N,) advantages, or None without any.
        expected: (N,) expected advantages, or None if they are not known.
        changed: the batch that ``got`` belongs to, if it is not the example itself.
    """

    kind: str
    what: str
    got: Tensor | None = None
    expected: Tensor | None = None
    changed: Example | None = None


@dataclass(frozen=True)
class Property:
    """One property of an advantage function.

    Attributes:
        name: name in the table.
        statement: the property in one line.
        consequence: what happens to a training run if the property does not hold.
        examples: function of target and seed that returns batches.
        check: function that returns a fault on a batch, or None. It raises NotHereError if the batch is not suitable.
        required: whether a failure fails the check. Otherwise the property only describes the kind of rule.
        needs: requirements on the target: ``"k"``, ``"tokens"``, ``"many"`` (channels), ``"any layout"``.
        excused: trait -> why the property cannot hold for rules with this trait.
        reduced: trait -> the weaker form that was checked for rules with this trait.
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
    "k": (lambda target: target.has_k, "it has no risk coefficient, or its name is not given: --k-name"),
    "tokens": (lambda target: target.by_tokens, "it never sees response tokens"),
    "many": (lambda target: not target.one_channel, "it takes one reward per completion"),
    "any layout": (lambda target: not target.blocks, "it takes equal groups in consecutive rows only"),
}


def unmet(target: Target, needs: Sequence[str]) -> str | None:
    """Return why a property is not applicable to this target; None if it is."""
    return next((reason for holds, reason in (NEEDS[need] for need in needs) if not holds(target)), None)


def ask(target: Target, example: Example) -> Tensor:
    """Return the advantages (N,) of the unchanged batch.

    Raises:
        NotHereError: they are not all finite, which other properties report.
        CallError: the function raised.
    """
    advantages = target.answer(example).advantages
    if not bool(advantages.isfinite().all()):
        raise NotHereError("its advantages are not finite on this batch")
    return advantages


def attempt(target: Target, example: Example) -> Answer | Fault:
    """Return the answer to a batch, or a fault if the function raised."""
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
    """Call the target on a batch whose advantages (N,) are known, and return a fault if they differ."""
    answer = attempt(target, example)
    if isinstance(answer, Fault):
        return Fault("raised", f"{what}: {answer.what}", changed=example)
    return differ(answer.advantages, expected, what, example if changed else None, tolerance)


def differ(
    got: Tensor, expected: Tensor, what: str, changed: Example | None = None, tolerance: float = TOLERANCE
) -> Fault | None:
    """Return a fault if advantages differ from the expected ones by more than ``tolerance`` of the largest, or of 1."""
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
    """Return whether ``got`` is a rising affine image of ``expected``, within ``tolerance`` of its spread."""
    if float(expected.std()) <= 1e-6:
        return float(got.max() - got.min()) <= 1e-3
    if float(got.std()) <= 1e-6:
        return False
    return float((got - rescaled_rewards(expected, got)).abs().max()) <= tolerance * float(got.std())


def require_complete(example: Example) -> None:
    """Raise NotHereError if a reward is missing."""
    if not example.complete:
        raise NotHereError("a reward is missing")


def require_live(example: Example, smallest: int = 2) -> None:
    """Raise NotHereError if a group is small, or a channel almost constant in it."""
    require_complete(example)
    for rows in example.members():
        rewards = example.rewards[rows]
        spread = rewards.amax(0) - rewards.amin(0)
        if len(rows) < smallest or bool((spread < 0.2).any()):
            raise NotHereError("a group is small, or a channel almost constant in it")


def single_group(target: Target, example: Example, trait: str = "bundles") -> None:
    """Raise NotHereError for several groups, if the rule scores them together."""
    if trait in target.traits and len(example.members()) > 1:
        raise NotHereError("it scores several groups together")


def zscores(example: Example) -> Tensor:
    """Return group z-scores (N, M) of a complete batch, in float64, with ddof 1: the reference of the limits."""
    rewards = example.rewards.double()
    z = torch.zeros_like(rewards)
    for rows in example.members():
        z[rows] = (rewards[rows] - rewards[rows].mean(0)) / rewards[rows].std(0)
    return z
