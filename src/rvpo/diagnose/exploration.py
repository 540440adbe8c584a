"""Does exploration collapse? Few questions are left that some completions solve, while other questions are unsolved.

A group-relative method learns from questions that some completions solve, but not all. When no such questions are
left, training is over. That is good if all questions are solved. It is bad if the policy has become so narrow that it
finds no first success on the rest. The verdict is **collapses** if all of this holds for a late stretch of the training
and the earlier stretch of the same length that has most to learn from:

1. The share solved by some fell, by ``SURE`` standard errors, to below ``LITTLE`` and a quarter of its earlier value.
2. The share solved by none is at least ``UNSOLVED``, clearly above ``FLOOR``, and did not fall by more than a quarter;
   or it is at least ``LARGE``; or it rose, by ``SURE`` standard errors, to at least ``RISEN``: questions were lost.
3. The share solved by none no longer falls: compared with the stretch just before, and from quarter to quarter, by an
   ordinary test.
4. The entropy of the policy, if it was logged, fell to below ``NARROWER`` of its earlier value. If it did not, the
   verdict is **stalls**: later questions may be harder, or too hard, and the policy is not the cause.

Standard errors are those of a mean over questions, but at least those of a mean over steps, because the questions of a
step may be alike. It does not matter whether the policy drifted there by chance: a policy with nothing left to learn
from stays where it is.

The shares depend on the number of scored completions per question: with one completion, no question is solved by
"some". If this number fell to below ``AS_MANY`` of its earlier value, there is no verdict.

Rewards alone cannot distinguish a narrow policy from questions that are too hard, or from later questions that are
harder. The sentence says so if no entropy was logged.
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
"""Standard errors of a fall that counts; not about 2, because there are several looks."""
USUAL = 1.96
LITTLE = 0.1
"""If less than this share is solved by some, hardly anything is left to learn from."""
REST = 0.25
"""At most this share of the earlier "some" is left; "none" may have fallen by at most this share."""
UNSOLVED, FLOOR, LARGE = 0.15, 0.1, 0.3
"""Share solved by none: its minimum, what it must clearly exceed, and from which value on it may have fallen."""
RISEN = 0.05
"""Minimum of the share solved by none if it clearly rose."""
NARROWER = 0.7
"""At most this share of the earlier entropy is left."""
AS_MANY = 0.9
"""At least this share of the scored completions per question is left; otherwise a fall of the shares means nothing."""
FEWEST_POINTS, FEWEST_GROUPS = 4, 32
"""Fewest points and groups of a stretch."""
SHORTER = 0.7
"""Ratio of the lengths of a stretch and of the next longer one; the longest is a quarter of the training."""

Array = NDArray[np.float64]
Series = tuple[float | None, ...]
_NONE, _SOME = 0, 1


@dataclass(frozen=True, slots=True)
class QuestionCurves:
    """Shares of questions over T points in time, None if nothing was scored, and Pass@k by k."""

    none: Series
    some: Series
    all: Series
    passes: Mapping[int, Series]


@dataclass(frozen=True, slots=True)
class Exploration:
    """The exploration of a run over T points in time, as in :class:`~rvpo.diagnose.diagnosis.Curves`.

    Attributes:
        steps: T steps, each the last one of a point.
        counting: channels that a completion has to meet to solve its question.
        unknown: those of them whose threshold is unknown; if there is any, no question is known to be solved.
        solved: curves of the solved questions; None if unknown.
        channels: channel -> its curves, for channels with a known threshold.
        groups: number of questions for which it is known whether they are solved.
        pass_groups: k -> number of questions in the mean of Pass@k.
        entropy: (T,) entropy of the policy, in nats per token; None if it was not logged.
        entropy_of: name under which it was logged, and the file; empty without entropy.
        verdict: ``"collapses"``, ``"stalls"``, ``"explores"`` or ``"unclear"``.
        rule: the sentence that explains the verdict, with its numbers.
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
    """Return shares, curves and the verdict of the counts.

    Args:
        sums: sums over the questions of the run.
        names: names of its K channels.
        lines: the thresholds that were used to count.
        point_of: step -> its point in time.
        entropy: entropy of the policy; None if it was not logged.
        guessed: whether the groups are a guess; there is no verdict then.
    """
    steps = tuple({point: step for step, point in point_of.items()}.values())
    solved = len(names)
    counted = sums.sums[GROUPS][:, solved]
    average = None if entropy is None else _by_point(entropy, point_of)
    if guessed:
        verdict, rule = "unclear", "the groups of completions are a guess (--group, --group-size)"
    elif lines.unknown or not counted.any():
        verdict, rule = "unclear", _unknown(lines)
    else:
        shares = np.stack([sums.sums[name][:, solved] for name in SHARES])
        verdict, rule = judged(shares, counted, average, steps, sums.sums[SCORED][:, solved])
    if entropy is not None and average is None:
        logged = f"steps {min(entropy.by_step)} to {max(entropy.by_step)}"
        rule += f"; the entropy in {entropy.path} is for {logged}, which these logs do not contain"
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
    """Return the verdict on a run, and the sentence that explains it.

    Args:
        shares: (3, T) numbers of questions solved by none, some and all completions.
        groups: (T,) number of questions.
        entropy: (T,) mean entropy, NaN if unknown; None if it was not logged.
        steps: (T,) last step of each point.
        scored: (T,) number of scored completions of these questions; None: constant per question.
    """
    scored = groups if scored is None else scored
    width = len(groups) // 4
    if width < FEWEST_POINTS or groups[-width:].sum() < FEWEST_GROUPS:
        return "unclear", f"{len(groups)} steps with {int(groups.sum())} questions are too few to be sure"
    quarters = [_Stretch(shares, groups, len(groups) - back * width, width) for back in (2, 1)]
    if _falls(*quarters):  # shorter stretches would miss it
        return "explores", _now(shares, groups, scored)
    while width >= FEWEST_POINTS and groups[-width:].sum() >= FEWEST_GROUPS:
        late = _Stretch(shares, groups, len(groups) - width, width)
        last = len(groups) - 2 * width  # start of the stretch just before
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
    """Means of "none" and "some", (2,), over the ``width`` points from ``start`` on, with their standard errors."""

    def __init__(self, shares: Array, groups: Array, start: int, width: int) -> None:
        counts, n = shares[:2, start : start + width], groups[start : start + width]
        self.start, self.width, self.groups = start, width, float(n.sum())
        self.mean = counts.sum(1) / max(self.groups, 1)
        near = (counts.sum(1) + 1) / (self.groups + 2)  # so that a share of 0 also has an error
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
    """Return the verdict on a run with hardly anything left to learn from, and the sentence that explains it."""
    since = steps[late.start]
    rule = (
        f"since about step {since}, only {late.mean[_SOME]:.1%} of the questions are solved by some of their "
        f"completions (before: {before.mean[_SOME]:.0%}), and {late.mean[_NONE]:.0%} by none (before: "
        f"{before.mean[_NONE]:.0%}). Hardly anything is left to learn from, although questions are unsolved"
    )
    ratio = None if entropy is None else _entropy_left(before, late, entropy)
    if entropy is not None and ratio is None and np.nan_to_num(entropy).any():
        return "collapses", (
            f"{rule}. The entropy was not logged in both stretches, so there may be another cause than a policy that "
            "is too narrow: later questions may be harder, or the unsolved ones too hard"
        )
    if ratio is None:
        return "collapses", (
            f"{rule}. No entropy was found in the logs (--metrics), so there may be another cause than a policy that "
            "is too narrow: later questions may be harder, or the unsolved ones too hard"
        )
    if ratio >= NARROWER:
        return "stalls", (
            f"{rule}. The entropy of the policy did not fall with it ({ratio:.0%} is left), so later questions may be "
            "harder, or the unsolved ones too hard"
        )
    return "collapses", f"{rule}. The entropy of the policy fell to {ratio:.0%} of its earlier value"


def _entropy_left(before: _Stretch, late: _Stretch, entropy: Array) -> float | None:
    """Return the share of the entropy that is left; None if it was not logged in both stretches."""
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
        f"since about step {steps[late.start]}, only {late.mean[_SOME]:.1%} of the questions are solved by some of "
        f"their completions (before: {before.mean[_SOME]:.0%}), but a question now has {sizes[1]:.1f} scored "
        f"completions (before: {sizes[0]:.1f}), and fewer completions solve fewer questions"
    )


def _now(shares: Array, groups: Array, scored: Array) -> str:
    tenth = max(1, len(groups) // 10)
    sizes = [_per_question(scored, groups, start, tenth) for start in (0, len(groups) - tenth)]
    depends = (
        f"; these shares depend on the scored completions per question, which change from {sizes[0]:.1f} to "
        f"{sizes[1]:.1f}"
        if min(sizes) < AS_MANY * max(sizes)
        else ""
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        first, last = (shares[:, part].sum(1) / groups[part].sum() for part in (slice(tenth), slice(-tenth, None)))
    changes = [f"by {name} from {a:.0%} to {b:.0%}" for name, a, b in zip(SHARES, first, last, strict=True)]
    return (
        f"the shares of questions solved by none, some and all of their completions change from the first to the last "
        f"tenth of the steps: {', '.join(changes)}{depends}"
    )


def _unknown(lines: Lines) -> str:
    if lines.unknown:
        return (
            f"it is not known which values of {', '.join(lines.unknown)} count as met. Declare the range "
            "(--range NAME=LOW:HIGH), or name the channels that decide whether a question is solved (--solved NAME)"
        )
    return "no completion is scored on all channels that decide whether a question is solved"


def _curves(sums: QuestionSums, column: int) -> QuestionCurves:
    none, some, every = (_series(sums.series(name, column)) for name in SHARES)
    return QuestionCurves(none, some, every, {k: _series(sums.series(f"pass@{k}", column)) for k in sums.ks})


def _by_point(entropy: Entropy, point_of: Mapping[int, int]) -> Array | None:
    """Return the mean entropy of each point, (T,), NaN if none was logged; None if no point has any."""
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
