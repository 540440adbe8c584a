"""Count the completions of each question that meet a channel (none, some, all) and Pass@k, without a separate run.

A completion *meets* a channel as in :mod:`rvpo.core.met`. It **solves** its question if it meets every channel that
counts (by default all that are trained on). With n scored completions of a question, of which c meet the channel::

    none, some, all     shares of questions with c = 0, with 0 < c < n, with c = n; only "some" can teach anything
    Pass@k              mean over questions with n >= k of 1 - C(n - c, k) / C(n, k)

Pass@k is the probability that k completions drawn from the n contain one that meets the channel. It is unbiased for k
new completions (Chen et al. 2021, arXiv 2107.03374).

**Missing.** A completion that is not scored on a channel, or whose channel has no known line, does not count there. A
completion that is not scored on every channel that counts is neither solved nor unsolved. Questions with too few scored
completions are left out of Pass@k; ``solved/pass_groups`` has the number of the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rvpo.core.channels import Channels, owner_of
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.met import on_the_line
from rvpo.core.shards import WHOLE, Whole

TABULATED = 128
"""Largest size of groups for which Pass@k is looked up in a table."""
SHARES = ("none", "some", "all")
"""Shares of the questions, which sum to 1."""


@dataclass(frozen=True)
class Tally:
    """Counts per question: ``scored`` (P, C) completions with a known result, of which ``met`` (P, C) meet it."""

    scored: Tensor
    met: Tensor

    def shares(self) -> Tensor:
        """Return (3, P, C) whether no, some or all completions solve a question; 0 if no completion counts."""
        counted = self.scored > 0
        none, every = counted & (self.met == 0), counted & (self.met == self.scored)
        return torch.stack([none, counted & ~none & ~every, every]).to(self.met)


def tally(rewards: Tensor, groups: Groups, lines: Tensor, counting: Tensor, outside: Tensor | None = None) -> Tally:
    """Count completions per question, in C = M + 1 columns. The last one is for solving the question.

    Args:
        rewards: (N, M), NaN = missing or not a channel of the row.
        groups: the partition of the rows, one group per question.
        lines: (M,) or (N, M), the smallest reward that meets the cell's channel; NaN = unknown.
        counting: (M,) or (N, M) bool, cells that a completion must meet to solve its question.
        outside: (N, M) bool, cells without a reward because a structure's condition does not hold. A completion with
            such a cell does not solve its question. None without such cells.
    """
    lines = lines.to(rewards).expand(rewards.shape)
    known = ~rewards.isnan() & ~lines.isnan()
    meets = known & (rewards >= on_the_line(lines))
    counting = counting.to(rewards.device).expand(rewards.shape)
    settled = known if outside is None else known | outside
    judged = (settled | ~counting).all(1) & counting.any(1)
    solves = judged & (meets | ~counting).all(1)
    found = torch.cat([known, judged[:, None], meets, solves[:, None]], 1).to(rewards.dtype)
    scored, met = groups.sum(found).chunk(2, 1)
    return Tally(scored, met)


def tally_of(met: Tensor, solves: Tensor, known: Tensor, counting: Tensor, size: int) -> Tally:
    """Return the result of :func:`tally` for a batch without missing rewards.

    Args:
        met: (P, M), number of completions that meet the channel.
        solves: (P,), number of completions that meet every channel that counts.
        known: (M,) bool, whether the line of the channel is known.
        counting: (M,) bool, channels that a completion must meet to solve its question.
        size: G, the size of the groups.
    """
    is_judged = bool(counting.any()) and bool((known | ~counting).all())
    scored = torch.cat([known, known.new_full((1,), is_judged)]).to(met) * size
    return Tally(scored.expand(len(met), -1), torch.cat([met, solves[:, None] * is_judged], 1))


def is_named(channel: str, names: Collection[str], functions: Collection[str]) -> bool:
    """Return whether ``names`` has a channel, or the reward function whose label it is."""
    return channel in names or owner_of(channel, functions) in names


def counting_cells(
    applies: Tensor | None, weights: Tensor, channels: Channels, trained: Collection[str], shards: Whole = WHOLE
) -> Tensor:
    """Return the cells that a completion must meet to solve its question, (N, M) bool.

    These are the cells of ``trained`` channels, except single cells of weight 0, such as criteria that are only
    monitored. A channel whose weight is 0 in the whole batch, for example by a schedule, still counts. Otherwise the
    meaning of "solved" would change from step to step.

    Args:
        applies: (N, M) bool, False where the column is not a channel of the row. None: each column is its own channel
            in all rows, and the result is (M,).
        weights: (M,) or (N, M) weights of the cells.
        channels: the K channels, with the channel of each cell.
        trained: names of channels that are trained on.
        shards: where the rows of the batch are.
    """
    if applies is None:
        return torch.tensor([name in trained for name in channels.names], device=weights.device)
    index = channels.index.to(applies.device).expand(applies.shape)
    weighted = weights.to(applies.device).expand(applies.shape) > 0
    named = torch.tensor([name in trained for name in channels.names], device=applies.device)
    silent = ~torch.zeros(len(channels.names), dtype=torch.bool, device=applies.device).index_put(
        (index[weighted & applies],), torch.tensor(True, device=applies.device)
    )
    if not shards.is_whole:
        silent_ranks, ranks = shards.sum(silent.long(), torch.tensor(1))
        silent = silent_ranks == ranks.to(silent_ranks)
    return applies & named[index] & (weighted | silent[index])


def powers(size: int) -> list[int]:
    """Return the k of Pass@k: 1, 2, 4, … up to the size of the largest group."""
    return [2**i for i in range(size.bit_length())]


def pass_at(scored: Tensor, met: Tensor, ks: Sequence[int]) -> Iterator[Tensor]:
    """Yield Pass@k of each entry for ascending ``ks``; NaN where n < k.

    Args:
        scored: n, of any shape; whole numbers as floats.
        met: c, of the same shape.
        ks: values of k in ascending order, at least 1.
    """
    missed, done = torch.ones_like(scored), 0
    for k in ks:
        for i in range(done, k):
            # C(n - c, k) / C(n, k), factor by factor; 0 once there are more draws than failures.
            missed = missed * (scored - met - i).clamp(min=0) / (scored - i).clamp(min=1)
        done = k
        yield (1 - missed).masked_fill(scored < k, torch.nan)


def pass_sums(found: Tally, size: int) -> Tensor:
    """Return Pass@k for K powers of two, 0 where n < k, and then whether n >= k, (2 K, P, C).

    Args:
        found: counts per question.
        size: largest number of completions of a question.
    """
    if size <= TABULATED:
        table = _pass_table(size).to(found.met)
        return table[:, found.scored.long(), found.met.long()]
    values = torch.stack(list(pass_at(found.scored, found.met, powers(size))))
    return torch.cat([values.nan_to_num(nan=0.0), (~values.isnan()).to(values)])


@lru_cache(maxsize=8)
def _pass_table(size: int) -> Tensor:
    """Return a table of :func:`pass_sums` for n and c up to ``size``, (2 K, size + 1, size + 1)."""
    n, c = torch.meshgrid(*[torch.arange(size + 1, dtype=torch.float64)] * 2, indexing="ij")
    values = torch.stack(list(pass_at(n, c.minimum(n), powers(size))))
    return torch.cat([values.nan_to_num(nan=0.0), (~values.isnan()).to(values)])


@dataclass(frozen=True)
class SolvedSums:
    """The metrics of the questions of a batch, as sums over the questions.

    Attributes:
        ks: the k of Pass@k.
        questions: (4 + 2 K,) numbers of questions that none, some and all completions solve and that count, then the
            sums of Pass@k, then how many questions each is of.
        by_name: (C, 4) the first four of each channel.
    """

    ks: list[int]
    questions: Tensor
    by_name: Tensor

    def metrics(self, names: Sequence[str]) -> dict[str, float]:
        """Return ``{name}/solved_some`` and ``…/solved_all``, and for questions also Pass@k; see the catalogue.

        Pass@k of each channel would add about a hundred numbers per step. Its mean already is Pass@1.
        """
        metrics = {f"solved/{key}": value for key, value in _told(self.questions.tolist(), self.ks).items()}
        for name, (_, some, every, counted) in zip(names, self.by_name.tolist(), strict=True):  # none is `unexplored`
            metrics[f"{name}/solved_some"] = _share(some, counted)
            metrics[f"{name}/solved_all"] = _share(every, counted)
        return metrics


def solved_sums(
    found: Tally, size: int, names: Sequence[str] | Mapping[str, Tensor], shards: Whole = WHOLE
) -> SolvedSums:
    """Sum over the questions of this process.

    Args:
        found: counts of the batch.
        size: size of the largest group.
        names: M names of columns, or name -> (P, M) bool, the columns that it pools; each counts as a group.
        shards: where the other questions are. All ranks have the same k.
    """
    _, (largest,) = shards.combined([], [torch.tensor(size)])
    size = int(largest)
    ks = powers(size)
    counted = torch.cat([found.shares(), (found.scored > 0).to(found.met)[None]])
    of_questions = Tally(found.scored[:, -1], found.met[:, -1])
    solved = torch.cat([counted[..., -1].sum(1), pass_sums(of_questions, size).sum(1)])
    columns = counted[..., :-1]  # (4, P, M)
    if isinstance(names, Mapping):
        sums = [(columns * mask).sum((1, 2)) for mask in names.values()]
        by_name = torch.stack(sums) if sums else columns.new_zeros((0, len(columns)))
    else:
        by_name = columns.sum(1).T
    return SolvedSums(ks, solved, by_name)


def _told(total: Sequence[float], ks: Sequence[int]) -> dict[str, float]:
    """Return the metrics of the questions by name, from the sums of :class:`SolvedSums`."""
    groups = total[3]
    told = {name: _share(value, groups) for name, value in zip(SHARES, total, strict=False)}
    passes = {f"pass@{k}": _share(total[4 + i], total[4 + len(ks) + i]) for i, k in enumerate(ks)}
    return told | {"groups": groups, "pass_groups": total[-1]} | passes


def _share(value: float, of: float) -> float:
    return value / of if of else torch.nan
