"""Several samples of each item: Pass@k, and notes about missing samples and replies without an answer.

A metric of an *item*, such as Pass@k, is computed from all its samples. It is in the row of the item's first
sample: records, intervals and comparisons average the rows of an item, and so find one number per item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rvpo.errors import ConfigError
from rvpo.evals.items import Item, Key, Scored
from rvpo.statistics import pass_at_k

Rows = Sequence[tuple[Item, Scored]]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often each item is sampled, and the k of its Pass@k.

    Attributes:
        samples: n, the number of replies to each item.
        ks: the values of k, in increasing order, each at most n.
    """

    samples: int
    ks: tuple[int, ...]

    @classmethod
    def of(cls, samples: int, k: Sequence[int] | int | None) -> Sampling:
        """Check both numbers; a ``k`` of None means 1, 2, 4, … and n itself.

        Raises:
            ConfigError: a number is below 1, or a k is above n.

        Example:
            >>> Sampling.of(6, None)
            Sampling(samples=6, ks=(1, 2, 4, 6))
        """
        given = [k] if isinstance(k, int) else list(k) if k is not None else _powers(samples)
        for name, value in (("samples", samples), *(("k", value) for value in given)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} is {value!r}; expected a whole number of at least 1. Correct it")
        if not given:
            raise ConfigError("k is empty; expected at least one whole number. Leave k out, or give a number")
        if max(given) > samples:
            raise ConfigError(
                f"k is {max(given)}, but each item has {samples} samples; expected k of at most {samples}. Raise "
                "samples (--samples), or lower k (--k)"
            )
        return cls(samples, tuple(sorted(set(given))))


def _powers(samples: int) -> list[int]:
    if type(samples) is not int or samples < 1:
        return []  # the caller refuses it, and names it in the message
    return sorted({*(2**i for i in range(samples.bit_length())), samples})


def name_of(k: int) -> str:
    """Return the name of the metric Pass@k."""
    return f"pass@{k}"


def by_item(rows: Rows) -> dict[str, list[tuple[Item, Scored]]]:
    """Return the rows of each item, by its id, in the order of their epochs."""
    found: dict[str, list[tuple[Item, Scored]]] = {}
    for item, scored in sorted(rows, key=lambda row: row[0].epoch):
        found.setdefault(item.id, []).append((item, scored))
    return found


def with_pass_at(rows: Rows, right: str, ks: Sequence[int]) -> dict[Key, Scored]:
    """Return the first row of each item with its Pass@k added.

    Args:
        rows: all rows of a run.
        right: name of the metric of a sample that is 1 if it is right, 0 if it is wrong, None if that is unknown.
        ks: see :class:`Sampling`. If an item has fewer than k scored samples, its Pass@k is missing.
    """
    found = {}
    for samples in by_item(rows).values():
        item, first = samples[0]
        had = [value for _, scored in samples if (value := scored.scores.get(right)) is not None]
        enough = {name_of(k): k for k in ks if k <= len(had)}
        values = {name: pass_at_k(len(had), round(sum(had)), k) for name, k in enough.items()}
        reason = f"{len(had)} of {len(samples)} samples are scored"
        missing = {name_of(k): reason for k in ks if k > len(had)}
        found[item.key] = add(first, {**{name_of(k): None for k in ks}, **values}, missing)
    return found


def add(scored: Scored, scores: Mapping[str, float | None], reasons: Mapping[str, str]) -> Scored:
    """Return a row with further scores and reasons."""
    return replace(scored, scores={**scored.scores, **scores}, reasons={**scored.reasons, **reasons})


def notes_on_answers(rows: Rows, answered: str, what: str) -> list[str]:
    """Return a note if more than half of the replies hold no answer, and so cannot be right.

    Args:
        rows: all rows of a run.
        answered: name of the metric of a sample that is 0 if the reply holds no answer.
        what: what is true of such a reply, such as "hold no program".
    """
    had = [value for _, scored in rows if (value := scored.scores.get(answered)) is not None]
    without = had.count(0.0)
    return [f"{without} of {len(had)} replies {what}, and count as wrong"] if 2 * without > len(had) else []


def notes_on_samples(rows: Rows, right: str, ks: Sequence[int]) -> list[str]:
    """Return notes on how many items have missing samples, and what that means for Pass@k."""
    items = by_item(rows)
    scored = [sum(one.scores.get(right) is not None for _, one in samples) for samples in items.values()]
    asked = max(map(len, items.values()), default=0)
    short = [count for count in scored if count < asked]
    if not short:
        return []
    notes = [
        f"{len(short)} of {len(items)} items have fewer than {asked} scored samples (the fewest: {min(short)}); their "
        "Pass@k is estimated from those that are scored"
    ]
    left_out = [(k, sum(count < k for count in scored)) for k in ks]
    counts = ", ".join(f"{count} of {name_of(k)}" for k, count in left_out if count)
    if counts:
        notes.append(f"items left out because fewer than k of their samples are scored: {counts}")
    return notes
