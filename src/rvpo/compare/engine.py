"""Judge samples: adjust p values within families, and turn them into verdicts.

A sample is one difference between a group and the baseline, with its p value. Each kind of run makes its own samples,
and gives the reason if a difference is not significant. Everything else is the same for both kinds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from rvpo import statistics as st
from rvpo.compare.comparison import BenchmarkRow, TrainingRow
from rvpo.errors import ConfigError

GroupT = TypeVar("GroupT")
RowT = TypeVar("RowT", TrainingRow, BenchmarkRow)


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """Options of the tests.

    Attributes:
        level: confidence level of the intervals.
        resamples: number of resamples of bootstraps and permutations.
        seed: random seed of the resamples.

    Raises:
        ConfigError: the level is not between 0 and 1.
    """

    level: float = st.LEVEL
    resamples: int = st.RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the level."""
        if not 0 < self.level < 1:
            raise ConfigError(f"level is {self.level!r}; expected 0 < level < 1. Use 0.95, for example")

    @property
    def alpha(self) -> float:
        """Significance level of the tests, rounded so that a p of exactly 0.05 is significant."""
        return round(1 - self.level, 12)

    @property
    def drawn(self) -> dict[str, Any]:
        """Keyword arguments for bootstraps and permutations."""
        return {"resamples": self.resamples, "seed": self.seed}


@dataclass(frozen=True, slots=True)
class Sample(Generic[RowT]):
    """One difference between group B and baseline A, before it is judged.

    Attributes:
        row: row of the result, without ``adjusted``. If it has no ``p``, its verdict is final.
        names: names of A and B.
        family: key of the family of tests that Holm's adjustment covers.
        why_not: function that returns why the difference is not significant, "" if unknown. Its arguments are the level
            that the test needs within its family, and the reason why no result could have been significant ("" if one
            could).
        more: words for the side with the higher mean, such as ``higher``.
        smallest: smallest p that the test can give.
    """

    row: RowT
    names: tuple[str, str]
    family: Hashable
    why_not: Callable[[float, str], str]
    more: str = "higher"
    smallest: float = 0.0


def baseline_first(
    groups: Mapping[str, GroupT], baseline: str | None, *, found: str, next_step: str
) -> dict[str, GroupT]:
    """Return the groups by name, with the baseline first.

    Args:
        groups: name -> group.
        baseline: name of the baseline; None is the first group.
        found: what was found, for the error message.
        next_step: what the user can do, for the error message.

    Raises:
        ConfigError: there are fewer than two groups, or the baseline does not exist.
    """
    if len(groups) < 2:
        raise ConfigError(f"{found}; expected two or more. Next step: {next_step}")
    first = next(iter(groups)) if baseline is None else baseline
    if first not in groups:
        raise ConfigError(f"baseline is {first!r}; expected one of {', '.join(map(repr, groups))}")
    return {first: groups[first], **groups}


def judge_samples(samples: Sequence[Sample[RowT]], options: CompareOptions) -> tuple[RowT, ...]:
    """Return the rows of all samples of a comparison, in order, with adjusted p values and verdicts."""
    rows = [sample.row for sample in samples]
    families: dict[Hashable, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        if sample.row.p is not None:
            families[sample.family].append(i)
    for members in families.values():
        adjusted = st.holm([rows[i].p or 0.0 for i in members])
        possible = st.holm([samples[i].smallest for i in members])
        after = f" after Holm over {len(members)} tests" if len(members) > 1 else ""
        for i, p, at_best in zip(members, adjusted, possible, strict=True):
            sample, higher = samples[i], (rows[i].difference.mean or 0.0) > 0
            if p <= options.alpha:
                verdict = f"{sample.names[higher]} {sample.more}"
            else:
                impossible = f"no p below {at_best:.2g} is possible{after}" if at_best > options.alpha else ""
                verdict = cannot_tell(sample.why_not(options.alpha / len(members), impossible))
            rows[i] = replace(rows[i], adjusted=p, verdict=verdict)
    return tuple(rows)


def cannot_tell(reason: str) -> str:
    """Return the verdict on a difference that is not significant. The reason may be ""."""
    return f"cannot tell: {reason}" if reason else "cannot tell"
