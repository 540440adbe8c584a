"""Does exploration collapse? Questions that some completions solve run out while others are solved by none.

A group-relative method learns from questions that some completions solve, not all. When there are none left, training
is over: well, if all questions are solved, and badly, if the policy has become so narrow that it finds no first success
on the rest. **Collapses** is said of a run when all of this holds for a late stretch of the training and an earlier one
of the same length, the one with most to learn from:

1. The share solved by some fell, by ``SURE`` standard errors, to below ``LITTLE`` and a quarter of what it was.
2. The share solved by none is at least ``UNSOLVED``, clearly above ``FLOOR``, and did not fall by more than a quarter;
   or it is at least ``LARGE``; or it rose, by ``SURE`` standard errors, to at least ``RISEN``: questions were lost.
3. It does not fall any more: against the stretch just before, and from quarter to quarter, by an ordinary test.
4. The entropy of the policy, where it was logged, fell to below ``NARROWER`` of what it was. If it did not, the run
   **stalls**: later questions may be harder, or out of reach, and the policy is not to blame.

Standard errors are those of a mean over questions, and not below that of a mean over steps, whose questions may be
alike. Whether the policy wandered there by chance is no matter: a policy without anything left to learn from stays.

The shares depend on how many scored completions a question has: with one, none is solved by some. Where that number
fell to below ``AS_MANY`` of what it was, there is no verdict.

Rewards alone cannot tell a policy that has become narrow from questions that nobody can solve, or that come late and
are harder. The sentence says so where no entropy was logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rvpo.core.solved import SHARES
from rvpo.diagnose.questions import GROUPS, SCORED, Lines, QuestionSums
from rvpo.logs.entropy import Entropy

SURE = 4.0
"""Standard errors of a fall that is called: there are several looks."""
USUAL = 1.96
LITTLE = 0.1
"""Share solved by some below which there is hardly anything left to learn from."""
REST = 0.25
"""Share of what it was that is left of "some", at most; and by which "none" may have fallen."""
UNSOLVED, FLOOR, LARGE = 0.15, 0.1, 0.3
"""Share solved by none: what it is at least, what it is clearly above, and from where on it may have fallen."""
RISEN = 0.05
"""The same where it clearly rose."""
NARROWER = 0.7
"""Share of the entropy that is left, at most."""
AS_MANY = 0.9
"""Share of the scored completions of a question that is left, at least, for a fall of the shares to mean something."""
FEWEST_POINTS, FEWEST_GROUPS = 4, 32
"""Points and groups of a stretch, at least."""
SHORTER = 0.7
"""Length of the next shorter stretch that is looked at, as a share; the longest is a quarter of the training."""

Array = NDArray[np.float64]
Series = tuple[float | None, ...]
_NONE, _SOME = 0, 1


@dataclass(frozen=True, slots=True)
class QuestionCurves:
    """Shares of questions over T points in time, None where nothing was scored, and Pass@k by k."""

    none: Series
    some: Series
    all: Series
    passes: Mapping[int, Series]


@dataclass(frozen=True, slots=True)
class Exploration:
    """What a run still finds. T points in time, as of :class:`~rvpo.diagnose.diagnosis.Curves`.

    Attributes:
        steps: T last steps of each point.
        counting: channels that a completion has to meet to solve its question.
        unknown: those of them of which it is not known which rewards meet them; then nothing is known to be solved.
        solved: curves of the question being solved; None where that is not known.
        channels: curves by channel, of those whose line is known.
        groups: number of questions in which it is known whether they are solved.
        pass_groups: k -> number of questions that Pass@k is a mean over.
        entropy: (T,) of the policy, in nats a token; None where it was not logged.
        entropy_of: name under which it was logged, and the file; empty without.
        verdict: ``"collapses"``, ``"stalls"``, ``"explores"`` or ``"unclear"``.
        rule: the sentence, with its numbers.
    """

    steps: tuple[int, ...]
    counting: tuple[str, ...]
    unknown: tuple[str, ...]
    solved: QuestionCurves | None
    channels: Mapping[str, QuestionCurves]
    groups: int
    pass_groups: Mapping[int, int]
    entropy: Series | None
    entropy_of: str
    verdict: str
    rule: str


def explored(
    sums: QuestionSums,
    names: Sequence[str],
    lines: Lines,
    point_of: Mapping[int, int],
    entropy: Entropy | None,
    guessed: bool = False,
) -> Exploration:
    """Return what the counts come to.

    Args:
        sums: of the run.
        names: of its K channels.
        lines: by which it was counted.
        point_of: step -> its point in time.
        entropy: of the policy; None where it was not logged.
        guessed: whether it is a guess which completions answer one question; there is no verdict then.
    """
    steps = tuple({point: step for step, point in point_of.items()}.values())
    solved = len(names)
    counted = sums.sums[GROUPS][:, solved]
    average = None if entropy is None else _by_point(entropy, point_of)
    if guessed:
        verdict, rule = "unclear", "which completions answer one question is a guess (--group, --group-size)"
    elif lines.unknown or not counted.any():
        verdict, rule = "unclear", _unknown(lines)
    else:
        shares = np.stack([sums.sums[name][:, solved] for name in SHARES])
        verdict, rule = judged(shares, counted, average, steps, sums.sums[SCORED][:, solved])
    if entropy is not None and average is None:
        logged = f"steps {min(entropy.by_step)} to {max(entropy.by_step)}"
        rule += f"; the entropy in {entropy.path} is of {logged}, none of which is here"
    return Exploration(
        steps=steps,
        counting=lines.counting,
        unknown=lines.unknown,
        solved=_curves(sums, solved) if counted.any() else None,
        channels={name: _curves(sums, j) for j, name in enumerate(names) if sums.sums[GROUPS][:, j].any()},
        groups=int(counted.sum()),
        pass_groups={k: int(sums.sums[f"of@{k}"][:, solved].sum()) for k in sums.ks},
        entropy=None if average is None else _series(average),
        entropy_of="" if entropy is None else f"{entropy.key} in {entropy.path}",
        verdict=verdict,
        rule=rule,
    )


def judged(
    shares: Array, groups: Array, entropy: Array | None, steps: Sequence[int], scored: Array | None = None
) -> tuple[str, str]:
    """Return the verdict on a run, and the sentence.

    Args:
        shares: (3, T) numbers of questions solved by none, some and all completions.
        groups: (T,) number of questions.
        entropy: (T,) mean entropy, NaN where unknown; None if it was not logged.
        steps: (T,) last step of each point.
        scored: (T,) number of scored completions of these questions; None: as many per question all the time.
    """
    scored = groups if scored is None else scored
    width = len(groups) // 4
    if width < FEWEST_POINTS or groups[-width:].sum() < FEWEST_GROUPS:
        return "unclear", f"{len(groups)} steps with {int(groups.sum())} questions are too few to be sure"
    quarters = [_Stretch(shares, groups, len(groups) - back * width, width) for back in (2, 1)]
    if _falls(*quarters):  # short stretches would not see it
        return "explores", _now(shares, groups, scored)
    while width >= FEWEST_POINTS and groups[-width:].sum() >= FEWEST_GROUPS:
        late = _Stretch(shares, groups, len(groups) - width, width)
        last = len(groups) - 2 * width  # of the stretch just before
        starts = sorted({*range(0, last, max(1, width // 2)), last})
        earlier = [one for start in starts if (one := _Stretch(shares, groups, start, width)).groups >= FEWEST_GROUPS]
        before = max(earlier, key=lambda one: one.mean[_SOME], default=None)
        if before is not None and _is_over(before, late) and not _falls(earlier[-1], late):
            sizes = [_per_question(scored, groups, one.start, width) for one in (before, late)]
            if sizes[1] < AS_MANY * sizes[0]:
                return "unclear", _fewer(before, late, sizes, steps)
            return _told(before, late, entropy, steps)
        width = int(width * SHORTER)
    return "explores", _now(shares, groups, scored)


class _Stretch:
    """Means of "none" and "some" over ``width`` points from ``start`` on, (2,), with their standard errors."""

    def __init__(self, shares: Array, groups: Array, start: int, width: int) -> None:
        counts, n = shares[:2, start : start + width], groups[start : start + width]
        self.start, self.width, self.groups = start, width, float(n.sum())
        self.mean = counts.sum(1) / max(self.groups, 1)
        near = (counts.sum(1) + 1) / (self.groups + 2)  # a share of 0 has an error, too
        of_questions = near * (1 - near) / max(self.groups, 1)
        deviations = counts - self.mean[:, None] * n
        of_steps = (deviations**2).sum(1) / max(self.groups, 1) ** 2 * width / (width - 1)
        self.error = np.sqrt(np.maximum(of_questions, of_steps))


def _change(before: _Stretch, after: _Stretch) -> Array:
    """Return the changes of "none" and "some" in standard errors, (2,)."""
    found: Array = (after.mean - before.mean) / np.hypot(before.error, after.error)
    return found


def _is_over(before: _Stretch, late: _Stretch) -> bool:
    """Return whether questions to learn from ran out while others are unsolved: rules 1 and 2."""
    some, none = late.mean[_SOME], late.mean[_NONE]
    change = _change(before, late)
    fell = change[_SOME] < -SURE
    little = some + USUAL * late.error[_SOME] < LITTLE and some < REST * before.mean[_SOME]
    unsolved = none >= UNSOLVED and none - USUAL * late.error[_NONE] > FLOOR
    stays = none >= (1 - REST) * before.mean[_NONE] or none >= LARGE
    lost = none >= RISEN and change[_NONE] > SURE
    return bool(fell and little and (lost or (unsolved and stays)))


def _falls(before: _Stretch, late: _Stretch) -> bool:
    """Return whether questions are still being solved for the first time: rule 3."""
    return bool(_change(before, late)[_NONE] < -USUAL)


def _told(before: _Stretch, late: _Stretch, entropy: Array | None, steps: Sequence[int]) -> tuple[str, str]:
    """Return the verdict on a run in which nothing is left to learn from, and the sentence."""
    since = steps[late.start]
    rule = (
        f"since about step {since}, {late.mean[_SOME]:.1%} of the questions are solved by some of their completions, "
        f"down from {before.mean[_SOME]:.0%}, and {late.mean[_NONE]:.0%} by none ({before.mean[_NONE]:.0%} before): "
        "there is hardly anything left to learn from, although questions are unsolved"
    )
    ratio = None if entropy is None else _entropy_left(before, late, entropy)
    if entropy is not None and ratio is None and np.nan_to_num(entropy).any():
        return "collapses", (
            f"{rule}. The entropy was not logged in both of these stretches: if later questions are harder, or these "
            "out of reach, the policy need not be too narrow"
        )
    if ratio is None:
        return "collapses", (
            f"{rule}. No entropy was found in the logs (--metrics): if later questions are harder, or these out of "
            "reach, the policy need not be too narrow"
        )
    if ratio >= NARROWER:
        return "stalls", (
            f"{rule}. The entropy of the policy did not fall with it ({ratio:.0%} is left), so later questions may be "
            "harder, or these out of reach"
        )
    return "collapses", f"{rule}. The entropy of the policy fell to {ratio:.0%} of what it was"


def _entropy_left(before: _Stretch, late: _Stretch, entropy: Array) -> float | None:
    """Return which share of the entropy is left; None where it was not logged in both stretches."""
    first, last = (entropy[one.start : one.start + one.width] for one in (before, late))
    if np.isnan(first).all() or np.isnan(last).all() or not np.nanmean(first) > 0:
        return None
    return float(np.nanmean(last) / np.nanmean(first))


def _per_question(scored: Array, groups: Array, start: int, width: int) -> float:
    """Return the mean number of scored completions of a question in a stretch."""
    stretch = slice(start, start + width)
    return float(scored[stretch].sum() / max(groups[stretch].sum(), 1))


def _fewer(before: _Stretch, late: _Stretch, sizes: Sequence[float], steps: Sequence[int]) -> str:
    """Return the sentence on a run whose questions have fewer scored completions than before."""
    return (
        f"since about step {steps[late.start]}, {late.mean[_SOME]:.1%} of the questions are solved by some of their "
        f"completions, down from {before.mean[_SOME]:.0%}, but a question has {sizes[1]:.1f} scored completions and "
        f"had {sizes[0]:.1f}: with fewer, less is found"
    )


def _now(shares: Array, groups: Array, scored: Array) -> str:
    tenth = max(1, len(groups) // 10)
    sizes = [_per_question(scored, groups, start, tenth) for start in (0, len(groups) - tenth)]
    depends = (
        f"; a question has {sizes[0]:.1f} scored completions at first and {sizes[1]:.1f} at the end, on which these "
        "shares depend"
        if min(sizes) < AS_MANY * max(sizes)
        else ""
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        first, last = (shares[:, part].sum(1) / groups[part].sum() for part in (slice(tenth), slice(-tenth, None)))
    told = [f"{name} {a:.0%} to {b:.0%}" for name, a, b in zip(SHARES, first, last, strict=True)]
    return (
        f"questions solved by {', '.join(told)} of their completions, from the first to the last tenth of the steps"
        f"{depends}"
    )


def _unknown(lines: Lines) -> str:
    if lines.unknown:
        return (
            f"which rewards of {', '.join(lines.unknown)} count as met is not known: declare the range "
            "(--range NAME=LOW:HIGH), or name the channels that a solved question meets (--solved NAME)"
        )
    return "no completion is scored on every channel that counts"


def _curves(sums: QuestionSums, column: int) -> QuestionCurves:
    none, some, every = (_series(sums.series(name, column)) for name in SHARES)
    return QuestionCurves(none, some, every, {k: _series(sums.series(f"pass@{k}", column)) for k in sums.ks})


def _by_point(entropy: Entropy, point_of: Mapping[int, int]) -> Array | None:
    """Return the mean entropy of each point, (T,), NaN where none was logged; None if that is everywhere."""
    totals = np.zeros((2, max(point_of.values()) + 1))
    for step, value in entropy.by_step.items():
        if step in point_of:
            totals[:, point_of[step]] += (value, 1)
    if not totals[1].any():
        return None
    with np.errstate(invalid="ignore"):
        found: Array = totals[0] / totals[1]
    return found


def _series(values: Array) -> Series:
    return tuple([x if known else None for x, known in zip(values.tolist(), np.isfinite(values), strict=True)])
