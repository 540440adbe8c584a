"""Which columns of a table are its rewards.

Names sort the columns with numbers into classes: ``marked`` (``rewards/format``), ``named`` (format, safety),
``unknown`` (alpha), ``foreign`` (generation_ms, kl) and ``total`` (reward, score). A logged total, or advantages, then
show which columns are rewards (:mod:`rvpo.logs.tables.totals`), independent of their names. Without either, names alone
decide, and the choice is a guess. A note or guess reports every column that may be a reward and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvpo.errors import ConfigError
from rvpo.logs.guess import Guess
from rvpo.logs.tables import names as naming
from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.totals import LARGEST, Fit, deviations, explain_advantages, explain_total, follows, is_copy

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

CLASSES = ("foreign", "total", "unknown", "named", "marked")
"""From the least to the most likely reward."""
HUNDREDFOLD = 100.0
COUNTER = 20  # whole numbers above this are counts or sizes, if nothing else is known about a column
TOTALS_FIRST = ("reward", "total_reward", "reward_total", "final_reward", "total", "score", "final_score", "rewards")
FEWEST_GROUPS = 4
FEWEST_ROWS = 16
SAMPLE = 200_000
MOSTLY = 0.5  # a total that is missing in a larger share of the rows is not used
LISTED = 6  # names in a message


@dataclass
class Chosen:
    """The rewards of a table.

    Attributes:
        rewards: names of columns.
        total: column of the total; None if absent.
        weights: weights of the rewards in the total; None if unknown.
        guesses: what a reader has to check.
        notes: what a reader has to know.
    """

    rewards: list[str]
    total: str | None = None
    weights: list[float] | None = None
    guesses: list[Guess] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Numbers:
    """The columns with numbers that may be rewards.

    Attributes:
        path: path of the logs, for messages.
        columns: name -> facts about the column.
        values: name -> (N,) values, NaN = missing.
        groups: (N,) ids of groups.
        advantages: (N,), None if they are not logged or constant.
        names: all columns of the table, for messages.
        counters: columns that number the rows or the completions of a group, whatever their names are.
    """

    path: Path
    columns: Mapping[str, Column]
    values: Mapping[str, Array]
    groups: Ints
    advantages: Array | None
    names: Sequence[str] = ()
    counters: frozenset[str] = frozenset()

    def sample(self) -> Numbers:
        """Return whole groups with about ``SAMPLE`` rows, spread over the table."""
        every = 1 + len(self.groups) // SAMPLE
        if every == 1:
            return self
        rows = self.groups % every == 0
        return replace(
            self,
            values={name: column[rows] for name, column in self.values.items()},
            groups=np.unique(self.groups[rows], return_inverse=True)[1],
            advantages=None if self.advantages is None else self.advantages[rows],
        )

    def of(self, *classes: str) -> list[str]:
        """Return the columns of some classes, the least likely rewards first."""
        return [name for kind in CLASSES if kind in classes for name in self.columns if self.kind(name) == kind]

    def kind(self, name: str) -> str:
        """Return the class of a column."""
        return "foreign" if name in self.counters else class_of(self.columns[name])

    def constant(self, name: str) -> bool:
        """Whether a column has one value, or none."""
        column = self.columns[name]
        return not column.low < column.high

    def of_prompt(self, name: str) -> bool:
        """Whether a column without a mark has one value per prompt, such as a difficulty or an expected answer."""
        many = int((np.bincount(self.groups) > 1).sum()) >= FEWEST_GROUPS
        return many and self.kind(name) != "marked" and not self.constant(name) and self.level(name)

    def level(self, name: str) -> bool:
        """Whether a column never differs within a group."""
        return not deviations(_finite(self.values[name]), self.groups).any()


def class_of(column: Column) -> str:
    """Return the class that the name and the kind of a column give it."""
    name, flag = column.name, column.kind == "flag"
    if naming.is_hard(name):
        return "foreign"
    if naming.is_total(name):
        return "total"
    if naming.is_marked(name):
        return "marked"
    if naming.is_foreign(name):
        return "foreign"
    if naming.is_outcome(name, flag):
        return "named"
    return "foreign" if flag else "unknown"


def counts_rows(values: Array, groups: Ints) -> bool:
    """Return whether a column rises from row to row, as a counter or a clock, or numbers the rows of every group."""
    if len(values) < FEWEST_ROWS or not np.isfinite(values).all():
        return False
    if (np.diff(values) > 0).all():
        return True
    order = np.lexsort((values, groups))
    same = np.diff(groups[order]) == 0
    several = int((np.bincount(groups) > 1).sum())
    return several >= FEWEST_GROUPS and bool((np.diff(values[order])[same] == 1).all())


def choose(numbers: Numbers) -> Chosen:
    """Find the rewards.

    Raises:
        ConfigError: no column is a reward, or names do not show which columns are rewards.
    """
    numbers = numbers.sample()
    totals = [name for name in _by_usual_order(numbers.of("total")) if not numbers.level(name)]
    gaps = {name: int(np.isnan(numbers.values[name]).sum()) for name in totals}
    rare = [name for name in totals if gaps[name] > MOSTLY * len(numbers.groups)]
    totals = [name for name in totals if name not in rare]
    known = {name: column for name, column in numbers.columns.items() if name not in rare}
    numbers = replace(numbers, columns=known)
    unknown = numbers.of("unknown")
    counters = [name for name in unknown if counts_rows(numbers.values[name], numbers.groups)]
    numbers = replace(numbers, counters=frozenset(counters))
    chosen = _chosen(numbers, totals)
    if left := [name for name in counters if name not in chosen.rewards]:
        why = "consecutive numbers of the rows, or of the completions of each group"
        chosen.guesses.append(Guess(f"{listed(left)}: not treated as a reward", why, "--rewards", trust=0.97))
    rows = len(numbers.groups)
    for name in rare:
        why = f"{gaps[name]:,} of {rows:,} rows do not have it"
        chosen.guesses.append(Guess(f"the total {name!r} is not used", why, "log it in every row", trust=0.95))
    if chosen.total is not None and gaps.get(chosen.total):
        why = f"{gaps[chosen.total]:,} of {rows:,} rows do not have it"
        what = f"rows without the total {chosen.total!r} have no advantages"
        chosen.guesses.append(Guess(what, why, "log it in every row", trust=0.95))
    return chosen


def _chosen(numbers: Numbers, totals: Sequence[str]) -> Chosen:
    chosen = None
    if totals:
        chosen = _of_total(numbers, totals)
    elif numbers.advantages is not None:
        chosen = of_advantages(numbers)
    return chosen or _of_names(numbers)


def _by_usual_order(totals: Sequence[str]) -> list[str]:
    usual = {name: place for place, name in enumerate(TOTALS_FIRST)}
    return sorted(totals, key=lambda name: usual.get(naming.key(name), len(usual)))


def _of_total(numbers: Numbers, totals: Sequence[str]) -> Chosen:
    """Take the columns that add up to a total; if none do, the total is the only reward."""
    total = totals[0]
    if numbers.advantages is not None:
        advantages = numbers.advantages
        followed = [name for name in totals if follows(numbers.values[name], advantages, numbers.groups)]
        total = next(iter(followed), total)
    others = [name for name in totals if name != total and not is_copy(numbers.values[name], numbers.values[total])]
    plain = [name for name in numbers.of("unknown", "named", "marked") if not numbers.constant(name)]
    again = [name for name in plain if is_copy(numbers.values[name], numbers.values[total])]
    parts = [name for name in plain if name not in again]
    foreign = [name for name in numbers.of("foreign") if not numbers.constant(name)]
    fit: Fit | None = None
    for tried in (parts, [*again, *parts], [*others, *parts], [*foreign, *others, *parts]):
        if tried:
            found = explain_total(numbers.values[total], {name: numbers.values[name] for name in tried}, numbers.groups)
            if found.exact or fit is None:
                fit = found
        if fit is not None and fit.exact:
            break
    fit = fit or Fit({}, 1.0)
    if np.isnan(fit.unexplained):  # too few rows
        chosen = _of_names(numbers)
        chosen.total = total
        return chosen
    if not fit.exact:
        fit = Fit({name: w for name, w in fit.weights.items() if numbers.kind(name) != "foreign"}, fit.unexplained)
    copies = [name for name in again if name not in fit.weights] if fit.exact else []
    chosen = _with_named(numbers, fit, f"the total {total!r}", copies)
    chosen.total = total
    if copies:
        chosen.notes.append(f"{listed(copies)} left out, because it repeats the total {total!r}")
    if fit.exact and len(fit.weights) == 1 and len(chosen.rewards) > 1:
        (only,) = fit.weights
        if numbers.kind(only) != "foreign":
            why = "this column alone gives the total, so the others are taken to have the weight 0"
            option = "leave it out with --rewards if it is only another name of the total"
            chosen.guesses.append(Guess(f"{only!r} is a reward", why, option, trust=0.9))
    if not fit.weights:
        chosen.rewards = [*_without_copies(numbers, numbers.of("marked"), chosen), total]
        if len(chosen.rewards) == 1:
            why = "no other column is a part of it, so neglect of its parts cannot be detected"
            chosen.guesses.append(Guess(f"{total!r} is the only reward", why, "log each reward separately", trust=1.0))
    elif fit.exact:
        # The weight of a constant reward is unknown, so the note does not say that it is 0.
        chosen.weights = [fit.weights.get(name, 1.0 if numbers.constant(name) else 0.0) for name in chosen.rewards]
        both = zip(chosen.rewards, chosen.weights, strict=True)
        weights = ", ".join(f"{name} {w:.3g}" for name, w in both if not numbers.constant(name))
        if level := [name for name in chosen.rewards if numbers.constant(name)]:
            weights += f" (unknown for {listed(level)}, because constant)"
        chosen.notes.append(f"the rewards add up to the total {total!r} with the weights {weights}")
    else:
        chosen.guesses.append(
            Guess(
                f"the columns {listed(chosen.rewards)} are the rewards",
                f"as a weighted sum they explain {1 - fit.unexplained:.0%} of the total {total!r}",
                "--rewards",
                trust=0.8,
            )
        )
    return chosen


def with_total(numbers: Numbers, rewards: list[str]) -> Chosen:
    """Return rewards that the user named, with the total that they add up to, if it is logged."""
    chosen = Chosen(rewards)
    for total in _by_usual_order(numbers.of("total")):
        if total in rewards or numbers.level(total):
            continue
        columns = {name: numbers.values[name] for name in rewards if not numbers.constant(name)}
        fit = explain_total(numbers.values[total], columns, numbers.groups) if columns else Fit()
        if fit.exact:
            chosen.total, chosen.weights = total, [fit.weights.get(name, 0.0) for name in rewards]
            chosen.notes.append(f"the rewards add up to the total {total!r}")
            return chosen
    return chosen


def of_advantages(numbers: Numbers) -> Chosen | None:
    """Take the columns whose sum, raw or as z-scores, gives the logged advantages; None without such columns."""
    assert numbers.advantages is not None
    fit = Fit()
    for classes in (("unknown", "named", "marked"), CLASSES):
        tried = [name for name in numbers.of(*classes) if not numbers.constant(name)]
        if tried:
            columns = {name: numbers.values[name] for name in tried}
            fit = explain_advantages(numbers.advantages, columns, numbers.groups)
        if fit.exact:
            return _with_named(numbers, fit, "the logged advantages")
    return None


def _with_named(numbers: Numbers, fit: Fit, what: str, copies: Sequence[str] = ()) -> Chosen:
    """Return the columns with a share, and those without a share that have the name of a reward.

    Args:
        numbers: the columns.
        fit: their shares.
        what: what they explain, for messages.
        copies: columns that repeat it, and so are not rewards.
    """
    chosen = Chosen([])
    without = [name for name in numbers.of("named", "marked") if name not in fit.weights and name not in copies]
    without = _without_copies(numbers, without, chosen, list(fit.weights))
    if not fit.weights:
        without = [name for name in without if numbers.kind(name) == "marked"]
    without = [name for name in without if not numbers.of_prompt(name)]
    rewards = {*fit.weights, *without}
    chosen.rewards = [name for name in numbers.columns if name in rewards]
    for name in fit.weights:
        if numbers.kind(name) == "foreign":
            chosen.guesses.append(
                Guess(f"{name!r} is a reward", f"its name does not say so, but it is a part of {what}", "--rewards")
            )
    named = [name for name in without if not naming.begins_marked(name) and not numbers.constant(name)]
    asked = (*without, *numbers.of("unknown", "named"))
    copies_of_parts = {name: part for name in asked if (part := _copied(numbers, name, fit))}
    for name, part in copies_of_parts.items():
        if name in rewards:
            why = f"only their common share in {what} is known"
            option = "leave it out with --rewards if it is only logged"
            chosen.guesses.append(Guess(f"{name!r} is a reward and a copy of {part!r}", why, option, trust=0.95))
    named = [name for name in named if name not in copies_of_parts]
    if fit.exact and named:
        chosen.guesses.append(
            Guess(
                f"{listed(named)}: rewards by their names, but not a part of {what}",
                "their weight may be 0, or they are only logged",
                "leave them out with --rewards",
                trust=0.95,
            )
        )
    left = [name for name in numbers.of("unknown", "named") if name not in rewards and name not in copies]
    for name in [name for name in left if name in copies_of_parts]:
        left.remove(name)
        why = f"it is a copy of {copies_of_parts[name]!r}, which is treated as both"
        chosen.guesses.append(Guess(f"{name!r} is not treated as a reward", why, "--rewards", trust=0.97))
    if left and fit.weights:
        chosen.guesses.append(
            Guess(f"{listed(left)}: not treated as a reward", f"not a part of {what}", "--rewards", trust=0.97)
        )
    if left and not fit.weights:
        chosen.notes.append(f"left out, because they do not explain {what}: {listed(left)}")
    return chosen


def _copied(numbers: Numbers, name: str, fit: Fit) -> str | None:
    """Return the column with a share of which ``name``, which has none, is a copy; None without such a column."""
    if name in fit.weights:
        return None
    return next((part for part in fit.weights if is_copy(numbers.values[name], numbers.values[part])), None)


def _without_copies(numbers: Numbers, names: Sequence[str], chosen: Chosen, known: Sequence[str] = ()) -> list[str]:
    """Leave out columns whose names only suggest a reward and that are copies of another column."""
    kept: list[str] = []
    for name in names:
        others = [other for other in (*known, *kept) if is_copy(numbers.values[name], numbers.values[other])]
        if others and numbers.kind(name) != "marked":
            chosen.notes.append(f"{name!r} is left out, because it is a copy of {others[0]!r}")
        else:
            kept.append(name)
    return kept


def _of_names(numbers: Numbers) -> Chosen:
    """Take the columns with names of rewards, because neither a total nor advantages show the rewards.

    Raises:
        ConfigError: no column qualifies, or their scales differ so much that some are probably not rewards.
    """
    marked = numbers.of("marked")
    begun = [name for name in marked if naming.begins_marked(name)]
    inside = [name for name in marked if naming.is_listed(name)]
    clear = _if_scored(numbers, inside) or (_if_scored(numbers, marked) if begun else [])
    named = [name for name in numbers.of("named") if not numbers.of_prompt(name)]
    unknown = [name for name in numbers.of("unknown") if not numbers.constant(name) and not numbers.of_prompt(name)]
    chosen = Chosen([])
    flags = [name for name in numbers.of("foreign") if _is_open_flag(numbers, name)]
    if flags and (clear or named or unknown):
        why = "true or false may be a state of the completion, such as the end of its text"
        chosen.guesses.append(Guess(f"{listed(flags)} left out", why, "--rewards", trust=0.9))
    if clear:
        chosen.rewards = _without_second(numbers, _in_order(numbers, clear), chosen)
        chosen.rewards = _without_forms(numbers, chosen.rewards, chosen)
        copies = [name for name in (*marked, *named) if name not in clear]
        if left := [name for name in copies if not _is_any_copy(numbers, name, chosen.rewards)]:
            chosen.guesses.append(
                Guess(f"{listed(left)} left out", "the names of others mark them as rewards", "--rewards")
            )
        if unknown:
            chosen.notes.append(f"not rewards by their names: {listed(unknown)} (--rewards names others)")
        return _without_a_total(numbers, chosen)
    counters = [name for name in unknown if numbers.columns[name].whole and numbers.columns[name].high > COUNTER]
    plain = [name for name in unknown if name not in counters]
    chosen.rewards = _without_forms(numbers, _in_order(numbers, [*marked, *named, *plain]), chosen)
    chosen.rewards = chosen.rewards or _by_usual_order(numbers.of("total"))[:1]
    if not chosen.rewards:
        raise ConfigError(
            f"{numbers.path} has the columns {listed(numbers.names, 20)}, and none is clearly a reward; expected one "
            "column per reward. Name them with --rewards a,b,c"
        )
    _check_scales(numbers, chosen.rewards)
    without = f"; left out: {listed(counters)}" if counters else ""
    chosen.guesses.append(
        Guess(
            f"the rewards are the columns {listed(chosen.rewards, 12)}{without}",
            "by their names" if not plain else "no name marks a reward, and other numbers have names of other things",
            "--rewards",
            trust=0.75 if plain else 0.9,
        )
    )
    return _without_a_total(numbers, chosen)


def _if_scored(numbers: Numbers, names: Sequence[str]) -> list[str]:
    """Return columns, or none if nothing was scored in any: then other names may be those of rewards, too."""
    scored = any(numbers.columns[name].kind != "empty" for name in names)
    return list(names) if scored else []


def _is_open_flag(numbers: Numbers, name: str) -> bool:
    """Whether a column has only true and false, and no name that says of what."""
    flag = numbers.columns[name].kind == "flag" and not numbers.constant(name) and not naming.is_foreign(name)
    return flag and not numbers.of_prompt(name)


def _is_any_copy(numbers: Numbers, name: str, others: Sequence[str]) -> bool:
    values = numbers.values
    return any(is_copy(values[name], values[other]) or _is_second(numbers, name, other) for other in others)


def _without_second(numbers: Numbers, names: Sequence[str], chosen: Chosen) -> list[str]:
    """Leave out a reward that is logged twice under one name, such as ``metrics.format`` and ``format``."""
    kept: list[str] = []
    for name in names:
        first = next((other for other in kept if _is_second(numbers, name, other)), None)
        if first is None:
            kept.append(name)
        else:
            chosen.notes.append(f"{name!r} is left out, because it is a copy of {first!r}")
    return kept


def _without_forms(numbers: Numbers, names: Sequence[str], chosen: Chosen) -> list[str]:
    """Leave out another form of a reward, such as ``format_scaled`` or ``format_clipped`` next to ``format``.

    Both the name and the values must say so: within every group, it must order the completions as the reward does.
    """
    forms = {}
    for name in names:
        for other in names:
            if naming.is_form(name, of=other) and _orders_alike(numbers, name, other):
                forms[name] = other
                break
    for name, other in forms.items():
        why = f"by its name and values, it is another form of {other!r}"
        chosen.guesses.append(Guess(f"{name!r} is left out", why, "--rewards", trust=0.9))
    return [name for name in names if name not in forms]


def _orders_alike(numbers: Numbers, name: str, other: str) -> bool:
    """Whether a column never decreases within a group where another increases, and is equal where that is equal."""
    form, plain = numbers.values[name], numbers.values[other]
    known = np.isfinite(form)
    # Infinite rewards are refused later, with the name of their column.
    if not np.array_equal(known, np.isfinite(plain)) or not known.any() or np.isinf(form).any():
        return False
    order = np.lexsort((form, plain, numbers.groups))
    inside = np.diff(numbers.groups[order]) == 0
    steps = np.diff(form[order])[inside]
    ties = np.diff(plain[order])[inside] == 0
    rounding = 1e-6 * np.abs(form[known]).max()
    return not (steps < -rounding).any() and not (np.abs(steps[ties]) > rounding).any()


def _is_second(numbers: Numbers, name: str, other: str) -> bool:
    """Whether two columns have the same last name and values; constants with different names are different rewards."""
    return naming.inner(name) == naming.inner(other) and _same(numbers.values[name], numbers.values[other])


def _same(values: Array, other: Array) -> bool:
    return np.array_equal(values, other, equal_nan=True)


def _without_a_total(numbers: Numbers, chosen: Chosen) -> Chosen:
    """Leave out a reward that is the sum of at least two others: a total with an unusual name."""
    varied = [name for name in chosen.rewards if not numbers.constant(name)]
    if len(varied) < 3:
        return chosen
    for name in varied:
        others = {other: numbers.values[other] for other in varied if other != name}
        fit = explain_total(numbers.values[name], others, numbers.groups)
        weights = list(fit.weights.values())
        if fit.unexplained < 1e-8 and len(weights) >= 2 and min(weights) > 1e-6:
            chosen.guesses.append(
                Guess(
                    f"{name!r} is the total",
                    f"it is a weighted sum of {listed(list(fit.weights))}",
                    "--rewards",
                )
            )
            chosen.rewards = [reward for reward in chosen.rewards if reward != name]
            chosen.total = name
            chosen.weights = [fit.weights.get(reward, 0.0) for reward in chosen.rewards]
            return chosen
    return chosen


def _check_scales(numbers: Numbers, rewards: Sequence[str]) -> None:
    spreads = {}
    for name in rewards:
        if np.isinf(numbers.values[name]).any():
            continue  # the code that reads it raises an error with its name
        deviation = deviations(_finite(numbers.values[name]), numbers.groups)
        if spread := float(np.sqrt((deviation * deviation).mean())):
            spreads[name] = spread
    if not spreads:
        return
    low, high = min(spreads, key=lambda name: spreads[name]), max(spreads, key=lambda name: spreads[name])
    if spreads[high] > HUNDREDFOLD * spreads[low]:
        raise ConfigError(
            f"{numbers.path}: the columns {listed(list(spreads), 12)} may be rewards, but {high!r} varies "
            f"{spreads[high] / spreads[low]:,.0f} times as much as {low!r}; expected rewards on similar scales. Name "
            "the rewards with --rewards a,b,c"
        )


def _finite(values: Array) -> Array:
    """Return a column (N, 1) with 0 for missing values, clipped so that squares do not overflow."""
    return np.clip(np.nan_to_num(values, nan=0.0), -LARGEST, LARGEST)[:, None]


def _in_order(numbers: Numbers, names: Sequence[str]) -> list[str]:
    return [name for name in numbers.columns if name in set(names)]


def listed(names: Sequence[str], most: int = LISTED) -> str:
    """Return the first names of a list, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
