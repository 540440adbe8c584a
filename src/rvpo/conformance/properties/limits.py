"""Properties of the risk coefficient: the mean over channels as k -> 0, the minimum as k -> inf, no lost digits."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rvpo.conformance import examples
from rvpo.conformance.properties.base import (
    Fault,
    Property,
    ask,
    attempt,
    require_live,
    rescaled_rewards,
    same_up_to_scale,
    zscores,
)
from rvpo.conformance.target import Example, NotHereError, Target

SMALL, LARGE = 1e-3, 1e4
EXTREME = (1e-8, 30.0, 100.0, 1e4)
RISING = (0.01, 0.1, 0.5, 1.0, 2.0, 8.0, 50.0)
CLOSE = 0.02
"""Tolerance relative to a group's spread: ddof, eps and a finite k may change the result by this much."""


def towards_mean(target: Target, example: Example) -> Fault | None:
    """Compare a tiny k with the mean of z-scores."""
    return _limit(target, example, SMALL, zscores(example).mean(1), "the mean of the z-scores")


def towards_minimum(target: Target, example: Example) -> Fault | None:
    """Compare a huge k with the lowest z-score."""
    return _limit(target, example, LARGE, zscores(example).amin(1), "the lowest z-score")


def _limit(target: Target, example: Example, k: float, limit: Tensor, named: str) -> Fault | None:
    """Compare with a limit up to a rising affine map per group, which any whitening may apply."""
    require_live(example, smallest=3)
    if len({len(rows) for rows in example.members()}) > 1:
        raise NotHereError("groups differ in size, so that ddof would matter")
    called = replace(example, k=k)
    answer = attempt(target, called)
    if isinstance(answer, Fault):
        return replace(answer, what=f"with k = {k:g}: {answer.what}")
    got = answer.advantages
    if not bool(got.isfinite().all()):
        return Fault("not finite", f"with k = {k:g}", got)
    expected, fine = limit.clone(), True
    for rows in example.members():
        fine &= same_up_to_scale(got[rows], limit[rows], CLOSE)
        expected[rows] = rescaled_rewards(limit[rows], got[rows])
    if fine:
        return None
    return Fault("wrong", f"with k = {k:g}, against {named} at the same scale", got, expected)


def falls_with_k(target: Target, example: Example) -> Fault | None:
    """Increase k: the value of a completion before whitening must not rise."""
    require_live(example)
    last: Tensor | None = None
    for k in RISING:
        called = replace(example, k=k)
        value = target.answer(called).aggregated
        if value is None:
            raise NotHereError("it does not return the value before whitening (an attribute or key `aggregated`)")
        if last is not None and bool((value > last + 1e-5).any()):
            return Fault(
                "wrong", f"with k = {k:g} the value before whitening is higher than with a smaller k", value, last
            )
        last = value
    return None


def finite_for_all_k(target: Target, example: Example) -> Fault | None:
    """Try k from 1e-8 to 10,000."""
    require_live(example)
    for k in EXTREME:
        called = replace(example, k=k)
        answer = attempt(target, called)
        if isinstance(answer, Fault):
            return replace(answer, what=f"with k = {k:g}: {answer.what}")
        if not bool(answer.advantages.isfinite().all()):
            return Fault("not finite", f"with k = {k:g}", answer.advantages)
    return None


def digits(target: Target, example: Example) -> Fault | None:
    """Compare k = 1e-6 with k = 1e-3: a plain logarithm of a mean of exponentials loses its digits there."""
    require_live(example, smallest=3)
    some = ask(target, replace(example, k=SMALL))
    called = replace(example, k=1e-6)
    got = ask(target, called)
    if float((got - some).abs().max()) <= CLOSE:
        return None
    return Fault("wrong", "k = 1e-6 against k = 1e-3", got, some, called)


PROPERTIES = (
    Property(
        "k-to-0",
        "k -> 0 is the mean of the z-scores",
        "the rule is not the one that k = 0 promises, and runs with a small k differ from GDPO for no stated reason",
        examples.equal_groups,
        towards_mean,
        needs=("k", "many"),
    ),
    Property(
        "k-to-inf",
        "k -> inf is the lowest z-score",
        "a larger k does not guard the worst channel",
        examples.equal_groups,
        towards_minimum,
        needs=("k", "many"),
    ),
    Property(
        "k-finite",
        "every k from 1e-8 to 1e4 gives finite advantages",
        "exp(-k z) overflows: a k that is a little too large ends the run",
        examples.plain_examples,
        finite_for_all_k,
        needs=("k", "many"),
    ),
    Property(
        "k-monotone",
        "the value before whitening falls, or stays, as k rises",
        "a larger k is not more cautious",
        examples.plain_examples,
        falls_with_k,
        needs=("k", "many"),
    ),
)
DESCRIPTIONS = (
    Property(
        "k-digits",
        "k = 1e-6 keeps the digits of k = 1e-3",
        "",
        examples.equal_groups,
        digits,
        required=False,
        needs=("k", "many"),
    ),
)
