"""Find the groups of a table: rows with the same prompt whose advantages were computed together.

Columns with usual names propose groups; a group never spans two steps. The order of the rows, the sizes of groups and
the logged advantages decide between proposals, because advantages sum to 0 within the groups of most methods. They also
show whether a prompt has two groups in a step. If no column proposes groups, the advantages may show blocks of rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rvpo.logs.guess import Guess, guess_by_text
from rvpo.logs.tables.names import identifies_prompt, is_prompt, may_count_rows

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MANY = 128  # without steps, a larger number of completions per prompt probably means several groups
CENTRED = 0.95
FEWEST = 5  # fewest groups with varying advantages from which sums show anything
FEW_CONTRADICTIONS = 0.02  # advantages of a few rows may be cut off, or rounded
LARGEST = 1e60
USUAL_SIZES = (8, 16, 4, 32, 5, 6, 10, 12, 2, 3, 20, 24, 64)
MOST_SIZES = 12  # most sizes that are tried
FEWEST_ROWS = 4  # with fewer rows per step, rows are probably means of several runs
TRUST_BLOCKS = 0.9
_COUNTED = re.compile(r"(.+)[_\-:/#.]\d+")


@dataclass
class Grouping:
    """Groups of N rows.

    Attributes:
        ids: (N,) ids from 0, without gaps.
        said: how the groups were found, as a clause.
        guesses: what a reader has to check.
        notes: what a reader has to know.
        kept: (N,) bool, rows that belong to the training, as far as sizes show.
        by_size: size -> (N,) ids, if groups are blocks of an unknown size: all plausible sizes, the likeliest first.
            ``ids`` are those of the smallest size.
    """

    ids: Ints
    said: str
    guesses: list[Guess] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: Bools | None = None
    by_size: dict[int, Ints] = field(default_factory=dict)


@dataclass(frozen=True)
class Labels:
    """A column of ids: (N,) codes of its distinct values, -1 if a row has no value."""

    codes: Ints
    values: pa.Array


@dataclass(frozen=True)
class Rows:
    """Facts about N rows: (N,) steps or None, (N,) parts of a step, (N,) advantages or None."""

    steps: Ints | None
    parts: Ints
    advantages: Array | None

    @property
    def base(self) -> Ints:
        """Ids of the parts of steps; a group cannot span several of them."""
        steps = self.parts * 0 if self.steps is None else self.steps
        return codes_of(np.stack([steps, self.parts], 1))

    @property
    def informative(self) -> bool:
        """Whether the advantages can be used to check groups: they are logged and not constant."""
        return self.advantages is not None and bool(np.nanmax(np.abs(self.advantages), initial=0.0) > 1e-3)


def by_column(rows: Rows, candidates: Mapping[str, Labels], named: bool) -> Grouping | None:
    """Return the groups of the best column; None if no column groups rows.

    Args:
        rows: facts about the rows.
        candidates: the values of each candidate, the likeliest first.
        named: whether the user named the only candidate; it is then not questioned.
    """
    proposed: dict[str, Ints] = {}
    passed_over: list[str] = []
    if not named:
        candidates = _without_constants(rows, candidates)
    for name, values in candidates.items():
        ids = codes_of(np.stack([rows.base, values.codes], 1))
        if named or _grouped(ids) >= 0.5:
            proposed[name] = ids
        else:
            passed_over.append(name)
    if not proposed:
        return _without_columns(rows, candidates)
    if not named:
        _drop_mixed(proposed, {name: candidates[name].codes for name in proposed})
        if passed_over and _is_one_text(rows, proposed):
            return _without_columns(rows, candidates)
    name = next(iter(proposed)) if named else _best(rows, proposed)
    within = "" if rows.steps is None else " within a step"
    found = Grouping(proposed[name], f"groups are rows with the same {name!r}{within}")
    if passed_over:
        why = f"(almost) every row has a different value in {', '.join(passed_over)}"
        found.guesses.append(Guess(found.said, why, "--group", trust=0.95))
    if is_prompt(name) and (by_text := guess_by_text(candidates[name].values.to_pylist(), "--group names ids")):
        found.guesses.append(by_text)
    if not named and rows.base.max() and not np.ptp(candidates[name].codes) and not rows.informative:
        why = f"all rows have the same {name!r}, so it may not identify the prompt"
        found.guesses.append(Guess("each step is one group", why, "--group, --group-size", trust=0.8))
    ahead = [other for other in proposed if list(proposed).index(other) < list(proposed).index(name)]
    if ahead:
        found.guesses.append(
            Guess(
                f"groups are rows with the same {name!r}, not with the same {ahead[0]!r}",
                "their sizes or advantages fit better",
                f"--group {ahead[0]}",
            )
        )
    _split(rows, found)
    if not named:
        _doubt(rows, found)
    return found


def pairs_rows(rows: Rows, labels: Labels) -> bool:
    """Whether most rows share their label with another row of the step."""
    return _grouped(codes_of(np.stack([rows.base, labels.codes], 1))) >= 0.5


def fits_groups(rows: Rows, labels: Labels) -> bool:
    """Whether a column of an unusual name fits: steps have several groups, (nearly) all of the same size.

    The rows of a group also follow each other, or its label occurs in no other step: other ids, such as the number of a
    completion within its group, do neither.
    """
    ids = codes_of(np.stack([rows.base, labels.codes], 1))
    if ids.max() <= rows.base.max() or _grouped(ids) < 0.9 or _regular(np.bincount(ids)) < 0.8:
        return False
    follow = len(_blocks(ids)[1]) == ids.max() + 1
    once = ids.max() + 1 == len(np.unique(labels.codes)) and rows.base.max() > 0
    if not follow and not once:
        return False
    return not rows.informative or rows.advantages is None or centred_share(ids, rows.advantages)[0] >= CENTRED


def _without_constants(rows: Rows, candidates: Mapping[str, Labels]) -> Mapping[str, Labels]:
    """Leave out ids that are the same in all rows of several steps, such as the name of an experiment."""
    if not rows.base.max():
        return candidates
    varied = {name: values for name, values in candidates.items() if is_prompt(name) or np.ptp(values.codes)}
    return varied or candidates


def _without_columns(rows: Rows, candidates: Mapping[str, Labels]) -> Grouping:
    """Group rows that differ in all candidates: different prompts are groups of one row; row numbers are ignored."""
    found = _by_counted_names(rows, candidates) or by_advantages(rows)
    if found is None and all(map(may_count_rows, candidates)):
        found = by_sizes(rows)
    return found or _alone(rows, candidates)


def _drop_mixed(proposed: dict[str, Ints], codes: Mapping[str, Ints]) -> None:
    """Drop ids that several prompts share, such as the number of a completion within its group, or its task.

    If the prompts are not logged, a column whose name says that it identifies prompts shows the same.
    """
    prompt = next((name for name in proposed if is_prompt(name)), None)
    prompt = prompt or next((name for name in proposed if identifies_prompt(name)), None)
    if prompt is None:
        return
    for name in [name for name in proposed if name != prompt and not is_prompt(name)]:
        several = np.bincount(proposed[name]) > 1
        pairs = np.unique(np.stack([proposed[name], codes[prompt]], 1), axis=0)
        mixed = np.bincount(pairs[:, 0], minlength=len(several)) > 1
        if mixed[several].mean() > 0.2:
            del proposed[name]


def _is_one_text(rows: Rows, proposed: Mapping[str, Ints]) -> bool:
    """Whether only prompts group rows and all rows have the same prompt: the real prompt is probably elsewhere."""
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
                said = f"groups are rows with the same {name!r} without the number at its end"
                return Grouping(ids, said, [Guess(said, "every row has a different value", "--group, --group-size")])
    return None


def _alone(rows: Rows, candidates: Mapping[str, Labels]) -> Grouping:
    """Group by the first candidate although (almost) every row is alone: trends of rewards can still be compared."""
    name, values = next(iter(candidates.items()))
    ids = codes_of(np.stack([rows.base, values.codes], 1))
    return Grouping(ids, f"groups are rows with the same {name!r}, but (almost) every row has a different value")


def by_advantages(rows: Rows) -> Grouping | None:
    """Return the smallest blocks of rows within steps whose advantages sum to 0; None without such blocks."""
    if not rows.informative or rows.advantages is None:
        return None
    starts = np.flatnonzero(np.diff(rows.base, prepend=-1))
    lengths = np.diff(np.append(starts, len(rows.base)))
    for size in range(2, min(int(lengths.min()), 256) + 1):
        if (lengths % size).any():
            continue
        ids = np.arange(len(rows.base)) // size
        share, moving = centred_share(ids, rows.advantages)
        if share == 1 and moving >= 3:
            said = f"groups are blocks of {size} rows"
            return Grouping(ids, said, [Guess(said, "the advantages sum to 0 in each block", "--group, --group-size")])
    return None


def by_sizes(rows: Rows) -> Grouping | None:
    """Return blocks of every plausible size within steps; None without steps, or if no size divides all of them.

    Nearly all trainers write the rows of a prompt one after another. The size then divides the number of rows of every
    step. If this number never changes, a whole step may also be one group.
    """
    if rows.steps is None:
        return None
    base, place = rows.base, _places(rows.base)
    lengths = np.bincount(base)
    common = int(np.gcd.reduce(lengths))
    sizes = [size for size in range(2, min(common, MANY) + 1) if common % size == 0]
    sizes.sort(key=lambda size: (size not in USUAL_SIZES, abs(np.log(size / USUAL_SIZES[0]))))
    sizes = sizes[:MOST_SIZES]
    if lengths.min() == lengths.max() == common > 1 and common not in sizes:
        sizes.append(common)
    if not sizes or lengths.min() < FEWEST_ROWS:
        return None
    by_size = {size: codes_of(np.stack([base, place // size], 1)) for size in sizes}
    tried = ", ".join(str(size) for size in sorted(sizes))
    what = f"groups are consecutive rows within a step (sizes tried: {tried})"
    why = "no column identifies the group; a verdict is given only if all of these sizes agree on it"
    guess = Guess(what, why, "--group-size, --group", trust=TRUST_BLOCKS)
    return Grouping(by_size[min(sizes)], what, [guess], by_size=by_size)


def centred_share(ids: Ints, advantages: Array) -> tuple[float, int]:
    """Of the groups with varying advantages, return the share whose advantages sum to 0, and the number of groups."""
    known = np.isfinite(advantages)
    count = int(ids.max()) + 1
    a = np.clip(np.where(known, advantages, 0.0), -LARGEST, LARGEST)
    total, size = np.bincount(ids, a, count), np.bincount(ids, np.abs(a), count)
    whole = np.bincount(ids, ~known, count) == 0
    moved = (size > 1e-3) & whole & (np.bincount(ids, minlength=count) > 1)
    if not moved.any():
        return 0.0, 0
    return float((np.abs(total) <= 2e-3 * size + 1e-6)[moved].mean()), int(moved.sum())


def share_of_level(ids: Ints, codes: Ints) -> float:
    """Return the share of groups with several rows in which a column is constant; 0 without such groups."""
    several = np.bincount(ids) > 1
    pairs = np.unique(np.stack([ids, codes], 1), axis=0)
    values = np.bincount(pairs[:, 0], minlength=len(several))
    return float((values[several] == 1).mean()) if several.any() else 0.0


def contradictions(ids: Ints, rewards: Array, advantages: Array) -> float:
    """Of the rewards that several rows of a group share, return the share with different advantages.

    Args:
        ids: (N,) ids of groups.
        rewards: (N, M), with the total if it is logged.
        advantages: (N,), NaN = unknown.
    """
    known = np.isfinite(advantages)
    if not known.any():
        return 0.0
    alike = codes_of(np.column_stack([ids[known], np.nan_to_num(rewards[known], nan=-LARGEST)]))
    a = np.clip(advantages[known], -LARGEST, LARGEST)
    low, high = np.full(alike.max() + 1, np.inf), np.full(alike.max() + 1, -np.inf)
    np.minimum.at(low, alike, a)
    np.maximum.at(high, alike, a)
    several = np.bincount(alike) > 1
    different = high - low > 1e-3 * np.abs(a).max(initial=0.0)
    return float(different[several].mean()) if several.any() else 0.0


def cut_by_contradictions(ids: Ints, rewards: Array, advantages: Array) -> tuple[Ints, int] | None:
    """Cut groups into blocks of one size, so that equal rewards have equal advantages, which sum to 0 in each block.

    Returns:
        (N,) ids and the size; None if there is no contradiction, or if no size removes it.
    """
    if contradictions(ids, rewards, advantages) <= FEW_CONTRADICTIONS:
        return None
    common = int(np.gcd.reduce(np.bincount(ids)))
    place = _places(ids)
    for size in range(common // 2, 1, -1):
        if common % size:
            continue
        finer = codes_of(np.stack([ids, place // size], 1))
        share, moving = centred_share(finer, advantages)
        if moving and share >= CENTRED and contradictions(finer, rewards, advantages) <= FEW_CONTRADICTIONS:
            return finer, size
    return None


def _best(rows: Rows, proposed: Mapping[str, Ints]) -> str:
    """Return the first proposal, or a later one that clearly fits better."""
    names = list(proposed)
    if rows.informative and rows.advantages is not None:
        shares = {name: centred_share(ids, rows.advantages)[0] for name, ids in proposed.items()}
        best = max(shares.values())
        if best >= CENTRED:
            fitting = [name for name in names if shares[name] >= best - 0.02]
            # Several groups together also sum to 0, so the finest proposal that fits is the right one.
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
    """Split groups in which a prompt occurs twice: its blocks of rows are separate, or the advantages show them."""
    ids = found.ids
    block, sizes_of_blocks = _blocks(ids)
    sizes = np.bincount(ids)
    size = int(np.bincount(sizes_of_blocks).argmax())
    even = float((sizes_of_blocks == size).mean())
    twice = sizes > size
    separate = size > 1 and even >= 0.95 and twice.any()
    advantages = rows.advantages if rows.informative else None
    if advantages is not None:
        share, moving = centred_share(ids, advantages)
        finer = codes_of(np.stack([ids, block], 1))
        by_block, _ = centred_share(finer, advantages)
        if separate and moving and by_block >= share - 0.02 and by_block >= CENTRED:
            found.ids = finer
            found.notes.append(f"a prompt that occurs again is a new group; groups have {size} rows each")
            return
        _split_by_sums(found, advantages, share)
        return
    if not separate:
        return
    if rows.steps is not None and not (~twice).any():
        return  # every prompt has several blocks: these are more likely parts of a batch
    found.ids = codes_of(np.stack([ids, block], 1))
    found.guesses.append(
        Guess(
            f"a prompt that occurs again after others is a new group ({size} rows each)",
            "no advantages are logged that could confirm it",
            "--group, --group-size",
        )
    )


def _split_by_sums(found: Grouping, advantages: Array, share: float) -> None:
    """Cut groups into equal parts in order of their rows, if the advantages sum to 0 in nearly all of these parts.

    Several groups together also sum to 0; parts of one group do not.
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
        better, moving = centred_share(finer, advantages)
        if moving >= FEWEST and better >= CENTRED and better >= share - 0.02:
            found.ids = finer
            found.notes.append(f"groups are cut into {size} rows each, so that advantages sum to 0 in each group")
            return


def _doubt(rows: Rows, found: Grouping) -> None:
    """Add a guess if sizes suggest that a group is several groups, or that there are evaluations."""
    sizes = np.bincount(found.ids)
    if rows.informative and rows.advantages is not None and centred_share(found.ids, rows.advantages)[0] >= CENTRED:
        _leave_out_single(found, sizes)
        return
    usual = int(np.bincount(sizes).argmax())
    if rows.steps is None and usual > MANY:
        found.guesses.append(
            Guess(
                f"groups have {usual} rows each",
                "no column of the step was found, so the same prompt may occur at several steps",
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
        found.notes.append(
            f"{int(single.sum()):,} rows are left out, because no other row has their prompt (perhaps evaluations)"
        )


def _odd_steps(rows: Rows, found: Grouping, sizes: Ints) -> None:
    """Report or leave out groups of a different size: evaluations now and then, or steps that were logged twice."""
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
            what = f"groups have {usual} rows, from step {odd.min()} on {_range(sizes[other])}"
            found.guesses.append(Guess(what, "or steps are logged twice", "--group, --group-size", trust=0.85))
        else:
            others = f"{_range(sizes[other])} in steps {odd.min()} to {odd.max()}"
            found.notes.append(f"groups have {usual} rows, but {others}")
        return
    kinds = np.unique(sizes[other])
    if len(kinds) == 1 and regular >= 0.6 and len(odd) <= len(steps) / 2:
        kept = ~other[found.ids]
        found.kept = kept if found.kept is None else found.kept & kept
        found.guesses.append(
            Guess(
                f"groups of {kinds[0]} at {len(odd)} steps are left out as evaluations",
                f"all other groups have {usual} rows",
                "--group, or a log without evaluations",
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
    """Return the share of groups that have the most common size above 1."""
    sizes = sizes[sizes > 1]
    return float((sizes == np.bincount(sizes).argmax()).mean()) if len(sizes) else 0.0


def _refines(fine: Ints, coarse: Ints) -> bool:
    return int(codes_of(np.stack([fine, coarse], 1)).max()) == int(fine.max())


def _blocks(ids: Ints) -> tuple[Ints, Ints]:
    """Return the index of each row's block of consecutive rows, and the sizes of the blocks."""
    starts = np.diff(ids, prepend=-1) != 0
    block = np.cumsum(starts) - 1
    return block, np.bincount(block)


def _places(ids: Ints) -> Ints:
    """Return the position of each row within its group, from 0."""
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
