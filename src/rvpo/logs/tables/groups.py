"""Which rows answer one prompt, so that their advantages were computed together.

Columns with usual names propose groups; none of them spans two steps. The order of the rows, the sizes and the logged
advantages, which sum to 0 within the groups of most methods, decide between proposals, and find groups that a prompt
has twice in a step. Where no column proposes any, blocks of rows may be found by the advantages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rvpo.logs.run import Guess
from rvpo.logs.tables.names import is_prompt

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MANY = 128  # completions of a prompt, from which on a group without a step is probably several
CENTRED = 0.95
FEWEST = 5  # groups whose advantages move, to tell anything by their sums
_COUNTED = re.compile(r"(.+)[_\-:/#.]\d+")


@dataclass
class Grouping:
    """Groups of N rows.

    Attributes:
        ids: (N,) from 0, without gaps.
        said: how they were found, in a clause.
        guesses: what a reader has to check.
        notes: what a reader has to know.
        kept: (N,) bool, rows that belong to the training, as far as sizes tell.
    """

    ids: Ints
    said: str
    guesses: list[Guess] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: Bools | None = None


@dataclass(frozen=True)
class Labels:
    """A column of ids: (N,) codes of its distinct values, -1 where a row has none."""

    codes: Ints
    values: pa.Array


@dataclass(frozen=True)
class Rows:
    """What is known of N rows: (N,) steps, None without them; (N,) parts of a step; (N,) advantages, None without."""

    steps: Ints | None
    parts: Ints
    advantages: Array | None

    @property
    def base(self) -> Ints:
        """Ids of what no group can span."""
        steps = self.parts * 0 if self.steps is None else self.steps
        return codes_of(np.stack([steps, self.parts], 1))

    @property
    def informative(self) -> bool:
        """Whether the advantages can check groups: they are there and move."""
        return self.advantages is not None and bool(np.nanmax(np.abs(self.advantages), initial=0.0) > 1e-3)


def by_column(rows: Rows, candidates: Mapping[str, Labels], named: bool) -> Grouping | None:
    """Return the groups of the best column, None where no column groups rows.

    Args:
        rows: what is known of them.
        candidates: the values of each candidate, the likeliest first.
        named: whether the only candidate was named by the user, who is not doubted.
    """
    proposed: dict[str, Ints] = {}
    passed_over: list[str] = []
    for name, values in candidates.items():
        ids = codes_of(np.stack([rows.base, values.codes], 1))
        if named or _grouped(ids) >= 0.5:
            proposed[name] = ids
        else:
            passed_over.append(name)
    if not proposed:
        return _by_counted_names(rows, candidates) or by_advantages(rows) or _alone(rows, candidates)
    if not named:
        _drop_mixed(proposed, {name: candidates[name].codes for name in proposed})
        if passed_over and _is_one_text(rows, proposed):
            return _by_counted_names(rows, candidates) or by_advantages(rows) or _alone(rows, candidates)
    name = next(iter(proposed)) if named else _best(rows, proposed)
    found = Grouping(proposed[name], f"groups are those of column {name!r}{'' if rows.steps is None else ' in a step'}")
    if passed_over:
        why = f"(almost) every row has a value of its own in {', '.join(passed_over)}"
        found.guesses.append(Guess(found.said, why, "--group", trust=0.95))
    ahead = [other for other in proposed if list(proposed).index(other) < list(proposed).index(name)]
    if ahead:
        found.guesses.append(
            Guess(
                f"groups are those of {name!r}, not of {ahead[0]!r}",
                "their sizes or advantages fit better",
                f"--group {ahead[0]}",
            )
        )
    _split(rows, found)
    if not named:
        _doubt(rows, found)
    return found


def _drop_mixed(proposed: dict[str, Ints], codes: Mapping[str, Ints]) -> None:
    """Drop ids under which several prompts stand, such as the number of a completion; prompts are known to group."""
    prompt = next((name for name in proposed if is_prompt(name)), None)
    if prompt is None:
        return
    for name in [name for name in proposed if not is_prompt(name)]:
        several = np.bincount(proposed[name]) > 1
        pairs = np.unique(np.stack([proposed[name], codes[prompt]], 1), axis=0)
        mixed = np.bincount(pairs[:, 0], minlength=len(several)) > 1
        if mixed[several].mean() > 0.2:
            del proposed[name]


def _is_one_text(rows: Rows, proposed: Mapping[str, Ints]) -> bool:
    """Whether only prompts group rows, and all rows have the same: what was asked is probably elsewhere."""
    ids = next(iter(proposed.values()))
    return all(map(is_prompt, proposed)) and int(ids.max()) == int(rows.base.max())


def _by_counted_names(rows: Rows, candidates: Mapping[str, Labels]) -> Grouping | None:
    """Group by ids that end with the number of the completion, such as ``{prompt}_{session}_{number}``."""
    for name, values in candidates.items():
        stems = [str(value) for value in values.values.to_pylist()]
        for _ in range(3):
            matches = [_COUNTED.fullmatch(stem) for stem in stems]
            if not all(matches):
                break
            stems = [match[1] for match in matches if match]
            ids = codes_of(np.stack([rows.base, codes_of_texts(stems)[values.codes]], 1))
            sizes = np.bincount(ids)
            if _grouped(ids) > 0.9 and len(sizes) > 1 and _regular(sizes) > 0.9:
                said = f"groups are those of column {name!r} without the number at its end"
                return Grouping(ids, said, [Guess(said, "every row has another value", "--group, --group-size")])
    return None


def _alone(rows: Rows, candidates: Mapping[str, Labels]) -> Grouping:
    """Group by the first candidate although (almost) every row is alone: rewards over time can still be compared."""
    name, values = next(iter(candidates.items()))
    ids = codes_of(np.stack([rows.base, values.codes], 1))
    return Grouping(ids, f"groups are those of column {name!r}, where (almost) every row has a value of its own")


def by_advantages(rows: Rows) -> Grouping | None:
    """Return the smallest blocks of rows within steps whose advantages sum to 0; None where there are none."""
    if not rows.informative or rows.advantages is None:
        return None
    starts = np.flatnonzero(np.diff(rows.base, prepend=-1))
    lengths = np.diff(np.append(starts, len(rows.base)))
    for size in range(2, min(int(lengths.min()), 256) + 1):
        if (lengths % size).any():
            continue
        ids = np.arange(len(rows.base)) // size
        share, told = centred_share(ids, rows.advantages)
        if share == 1 and told >= 3:
            said = f"groups are blocks of {size} rows"
            return Grouping(
                ids, said, [Guess(said, "the advantages sum to 0 in each of them", "--group, --group-size")]
            )
    return None


def centred_share(ids: Ints, advantages: Array) -> tuple[float, int]:
    """Return the share of groups whose advantages sum to 0, of those in which they move, and how many these are."""
    known = np.isfinite(advantages)
    count = int(ids.max()) + 1
    a = np.clip(np.where(known, advantages, 0.0), -1e60, 1e60)
    total, size = np.bincount(ids, a, count), np.bincount(ids, np.abs(a), count)
    whole = np.bincount(ids, ~known, count) == 0
    moved = (size > 1e-3) & whole & (np.bincount(ids, minlength=count) > 1)
    if not moved.any():
        return 0.0, 0
    return float((np.abs(total) <= 2e-3 * size + 1e-6)[moved].mean()), int(moved.sum())


def _best(rows: Rows, proposed: Mapping[str, Ints]) -> str:
    """Return the first proposal, or a later one that clearly fits better."""
    names = list(proposed)
    if rows.informative and rows.advantages is not None:
        shares = {name: centred_share(ids, rows.advantages)[0] for name, ids in proposed.items()}
        best = max(shares.values())
        if best >= CENTRED:
            fitting = [name for name in names if shares[name] >= best - 0.02]
            # Whole groups taken together are centred, too: of those that fit, the finest is the group.
            return max(fitting, key=lambda name: int(proposed[name].max()))
    regular = [name for name in names if _regular(np.bincount(proposed[name])) >= 0.9]
    if not regular:
        return names[0]
    first = regular[0]
    if np.bincount(proposed[first]).max() > MANY:
        finer = [name for name in regular if _refines(proposed[name], proposed[first])]
        return finer[0] if finer else first
    return first


def _split(rows: Rows, found: Grouping) -> None:
    """Split groups in which a prompt stands twice: blocks of rows that are separate, or that the advantages show."""
    ids = found.ids
    block, sizes_of_blocks = _blocks(ids)
    sizes = np.bincount(ids)
    size = int(np.bincount(sizes_of_blocks).argmax())
    even = float((sizes_of_blocks == size).mean())
    twice = sizes > size
    separate = size > 1 and even >= 0.95 and twice.any()
    advantages = rows.advantages if rows.informative else None
    if advantages is not None:
        share, told = centred_share(ids, advantages)
        finer = codes_of(np.stack([ids, block], 1))
        by_block, _ = centred_share(finer, advantages)
        if separate and told and by_block >= share - 0.02 and by_block >= CENTRED:
            found.ids = finer
            found.notes.append(f"prompts that come back are groups of their own, {size} rows each")
            return
        _split_by_sums(found, advantages, share)
        return
    if not separate:
        return
    if rows.steps is not None and not (~twice).any():
        return  # every prompt in blocks: more likely the parts of a batch
    found.ids = codes_of(np.stack([ids, block], 1))
    found.guesses.append(
        Guess(
            f"a prompt that comes back after others is a group of its own ({size} rows each)",
            "no advantages are logged that would show it",
            "--group, --group-size",
        )
    )


def _split_by_sums(found: Grouping, advantages: Array, share: float) -> None:
    """Cut groups into equal parts in order of their rows, where the advantages sum to 0 in nearly all of these.

    Several groups taken together sum to 0, too; parts of one group do not.
    """
    ids = found.ids
    sizes = np.bincount(ids)
    place = _places(ids)
    usual = int(np.bincount(sizes).argmax())
    for size in range(2, usual + 1):
        cut = (sizes % size == 0) & (sizes > size)
        if usual % size or not cut.any():
            continue
        finer = codes_of(np.stack([ids, np.where(cut[ids], place // size, 0)], 1))
        better, told = centred_share(finer, advantages)
        if told >= FEWEST and better >= CENTRED and better >= share - 0.02:
            found.ids = finer
            found.notes.append(f"groups are cut into {size} rows each, whose advantages sum to 0")
            return


def _doubt(rows: Rows, found: Grouping) -> None:
    """Say where sizes look as if groups were several, or as if evaluations were among them."""
    sizes = np.bincount(found.ids)
    if rows.informative and rows.advantages is not None and centred_share(found.ids, rows.advantages)[0] >= CENTRED:
        _leave_out_single(found, sizes)
        return
    usual = int(np.bincount(sizes).argmax())
    if rows.steps is None and usual > MANY:
        found.guesses.append(
            Guess(
                f"groups have {usual} rows each",
                "no column of the step was found, so that prompts may come back over time",
                "--step, --group, --group-size",
                open=True,
            )
        )
        return
    _leave_out_single(found, sizes)
    _odd_steps(rows, found, sizes)


def _leave_out_single(found: Grouping, sizes: Ints) -> None:
    single = sizes == 1
    if single.any() and not single.all():
        found.kept = ~single[found.ids]
        found.notes.append(f"{int(single.sum()):,} rows are alone with their prompt (evaluations?): left out")


def _odd_steps(rows: Rows, found: Grouping, sizes: Ints) -> None:
    """Say, or leave out, groups of another size that come back now and then: an evaluation, or steps logged twice."""
    regular, usual = _regular(sizes), int(np.bincount(sizes).argmax())
    if regular == 1 or rows.steps is None:
        return
    first = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(first, found.ids, rows.steps)
    other = (sizes != usual) & (sizes > 1)
    steps, odd = np.unique(first[sizes == usual]), np.unique(first[other])
    if not len(odd):
        return
    if odd.min() > steps.max() or odd.max() < steps.min():
        multiple = sizes[other] % usual == 0
        if multiple.all() and rows.advantages is None and odd.min() > steps.max():
            told = f"groups have {usual} rows, from step {odd.min()} on {_range(sizes[other])}"
            found.guesses.append(Guess(told, "or steps are logged twice", "--group, --group-size", trust=0.85))
        else:
            found.notes.append(f"groups have {usual} rows, in steps {odd.min()} to {odd.max()} {_range(sizes[other])}")
        return
    kinds = np.unique(sizes[other])
    if len(kinds) == 1 and regular >= 0.6 and len(odd) <= len(steps) / 2:
        kept = ~other[found.ids]
        found.kept = kept if found.kept is None else found.kept & kept
        found.guesses.append(
            Guess(
                f"groups of {kinds[0]} at {len(odd)} steps are left out as evaluations",
                f"all others have {usual} rows",
                "--group, or a log without them",
            )
        )
    elif regular < 0.5:
        found.notes.append(f"groups differ in size ({_range(sizes)})")
    else:
        found.notes.append(f"most groups have {usual} rows, others {_range(sizes[other])}")


def _range(sizes: Ints) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return str(low) if low == high else f"{low} to {high}"


def _grouped(ids: Ints) -> float:
    """Return the share of rows that are not alone in their group."""
    return float((np.bincount(ids)[ids] > 1).mean())


def _regular(sizes: Ints) -> float:
    """Return the share of groups that have the most usual size above 1."""
    sizes = sizes[sizes > 1]
    return float((sizes == np.bincount(sizes).argmax()).mean()) if len(sizes) else 0.0


def _refines(fine: Ints, coarse: Ints) -> bool:
    return int(codes_of(np.stack([fine, coarse], 1)).max()) == int(fine.max())


def _blocks(ids: Ints) -> tuple[Ints, Ints]:
    """Return the number of the block of rows side by side that each row lies in, and the sizes of the blocks."""
    starts = np.diff(ids, prepend=-1) != 0
    block = np.cumsum(starts) - 1
    return block, np.bincount(block)


def _places(ids: Ints) -> Ints:
    """Return the place of each row among those of its group, from 0."""
    order = np.argsort(ids, kind="stable")
    sizes = np.bincount(ids)
    places = np.empty_like(ids)
    places[order] = np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places


def codes_of_texts(values: Sequence[str | None]) -> Ints:
    """Return numbers for equal texts, from 0 in order of appearance."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([numbers[value] for value in values], dtype=np.int64)


def codes_of(values: NDArray[np.generic]) -> Ints:
    """Return numbers for equal values or rows, from 0 in order of appearance."""
    _, first, codes = np.unique(values, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[codes.reshape(-1)], dtype=np.int64)
