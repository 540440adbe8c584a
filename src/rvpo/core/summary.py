"""Compute the metrics of a batch from its blocks in one pass, without storing (N, M) z-scores or responsibilities.

:func:`rvpo.core.metrics.channel_metrics` is the specification. This module is for batches without missing rewards.
"""

from __future__ import annotations

from dataclasses import dataclass

from rvpo.core.aggregate import TIE, normalised
from rvpo.core.blocks import CELLS, LOG2E, Blocks, Chunk, Rule
from rvpo.core.lazy import Tensor, torch


@dataclass(slots=True)
class Met:
    """Counts of completions per group that meet a channel, for a batch without missing rewards.

    Attributes:
        met: (P, M) float64, number of completions that meet the channel.
        raised: (P, M) float64, number of these with a positive advantage.
        solves: (P,) float64, number of completions that meet every channel that counts.
    """

    met: Tensor
    raised: Tensor
    solves: Tensor


def met_counts(values: Tensor, ends: Tensor, counting: Tensor, advantages: Tensor) -> Met:
    """Count completions that meet a channel.

    Args:
        values: (P, G, M) rewards.
        ends: (M,) float64, the smallest reward that meets a channel; with NaN no completion meets it.
        counting: (M,) bool, channels that a completion must meet to solve its question.
        advantages: (G, P) advantages.
    """
    # The smallest number of the rewards' dtype that is at least the end, so that rewards are not converted.
    least = ends.to(values)
    least = torch.where(least.double() < ends, torch.nextafter(least, torch.full_like(least, torch.inf)), least)
    wanted = counting.nonzero()[:, 0]
    step = max(1, CELLS // values[0].numel())
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(values), step):
        rewards = values[start : start + step].transpose(0, 1)
        meets = torch.empty(rewards.shape, dtype=torch.float32, device=values.device).copy_(rewards >= least)
        raises = (advantages[:, start : start + step, None] > 0).to(meets)
        solves = meets if len(wanted) == meets.shape[-1] else meets.index_select(-1, wanted)
        solved = (solves.sum(-1) == len(wanted)).sum(0)
        found.append((meets.sum(0).double(), (meets * raises).sum(0).double(), solved.double()))
    met, raised, solves = map(torch.cat, zip(*found, strict=True))
    return Met(met, raised, solves)


@dataclass(slots=True)
class Summary:
    """Metrics of a batch.

    Attributes:
        columns: (8, M) float64 in the order of :data:`rvpo.core.metrics.CHANNEL_METRICS`.
        ranks: (M,) bool, whether the channel ranks a group.
        groups: share of the groups with a signal.
        rows: number of completions with a signal.
        effective: mean effective number of channels, NaN if no completion has a signal.
        aggregated_std: standard deviation of the values before whitening, NaN for fewer than two.
    """

    columns: Tensor
    ranks: Tensor
    groups: float
    rows: int
    effective: float
    aggregated_std: float


def summarised(blocks: Blocks, rule: Rule, advantages: Tensor, values: Tensor) -> Summary:
    """Compute the metrics in one pass over a batch.

    Args:
        blocks: the rewards, without missing ones.
        rule: the rule that aggregates channels.
        advantages: (G, P) resulting advantages.
        values: (n,) the method's values of the completions that the whitening counts.
    """
    passes = _Passes(rule, blocks)
    start = 0
    for chunk in blocks.chunks():
        stop = start + chunk.mean.shape[0]
        passes.add(chunk, advantages[:, start:stop])
        start = stop
    return passes.summary(standard_deviation(values))


def standard_deviation(x: Tensor) -> float:
    """Return the standard deviation (ddof 1) of numbers (n,), in double precision where there is one; NaN if n < 2."""
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    return x.to(wide).std().item() if len(x) > 1 else torch.nan


class _Passes:
    """Sums over groups and completions, per channel."""

    def __init__(self, rule: Rule, blocks: Blocks) -> None:
        self._rule, self._weights = rule, blocks.weights
        self._size, channels = blocks.values.shape[1:]
        self._means = _Spread(channels, blocks.values.device)
        # Squares around the group's mean, groups that are live, responsibilities, bottlenecks, and over live cells:
        # advantages, their squares, z squared, advantage times z.
        self._sums = torch.zeros(8, channels, dtype=torch.float64, device=blocks.values.device)
        self._signal = 0
        self._effective = 0.0
        self._deciding = 0

    def add(self, chunk: Chunk, advantages: Tensor) -> None:
        """Add a chunk with its advantages (G, C)."""
        self._means.add(chunk.mean)
        live = torch.ones_like(chunk.scale) if chunk.live is None else chunk.live.double()
        signal = live.amax(1)  # (C,)
        self._signal += int(signal.sum())
        z = chunk.z()
        a = advantages.to(z.dtype, memory_format=torch.contiguous_format)
        pulls = self._responsibilities(chunk, z, live, signal)
        # Sum over the G completions of each group first: a channel is live for all of them or for none.
        totals = (
            chunk.squares.sum(0),
            live.sum(0),
            pulls,
            _lowest(z, chunk.live),
            a.sum(0).double() @ live,
            a.square().sum(0).double() @ live,
            (chunk.squares * chunk.scale.square()).sum(0),
            (z * a[:, :, None]).sum((0, 1)),
        )
        self._sums += torch.stack([total.double() for total in totals])

    def _responsibilities(self, chunk: Chunk, z: Tensor, live: Tensor, signal: Tensor) -> Tensor:
        """Return the responsibilities, summed over completions with a signal, (M,), and add the effective numbers."""
        pulls = self._pulls(chunk, z)
        repeated = self._size // len(pulls)
        if chunk.live is None:
            effective = 1 / pulls.square().sum(-1)  # rows sum to 1
        else:
            pulls = pulls * signal[:, None].to(pulls)
            decided = pulls * live.to(pulls)  # none is negative
            total, squares = decided.sum(-1), decided.square().sum(-1)
            effective = (total.square() / squares)[total > 0]
        self._effective += float(effective.sum(dtype=torch.float64)) * repeated
        self._deciding += effective.numel() * repeated
        return pulls.sum((0, 1)) * repeated

    def _pulls(self, chunk: Chunk, z: Tensor) -> Tensor:
        """Return responsibilities (G, C, M); (1, C, M) if they are the same for all completions of a group."""
        if not self._rule.k:
            return chunk.responsibilities(self._rule, self._weights)[:1]
        odds = (z * (-self._rule.k * LOG2E)).exp2_()
        present = chunk.present(self._rule.drops)
        if present is not None:
            odds.mul_(present)
        if isinstance(self._weights, Tensor):
            odds.mul_(self._weights)
        return normalised(odds)

    def summary(self, aggregated_std: float) -> Summary:
        """Return the metrics of all chunks.

        Args:
            aggregated_std: see :class:`Summary`.
        """
        groups = self._means.number
        rows, mean = groups * self._size, self._means.mean
        squares, live, pulls, lowest, a, a_squared, z_squared, products = self._sums
        spread = (squares + self._size * self._means.squares) / (rows - 1)
        counted, signal = live * self._size, self._signal * self._size
        a_spread = a_squared - a * a / counted
        columns = [
            mean,
            spread.sqrt(),
            live / groups,
            1 - live / groups,
            torch.zeros_like(mean),
            pulls / signal,
            lowest / signal,
            products / (a_spread * z_squared).sqrt(),  # within a group z has the mean 0
        ]
        number = self._effective / self._deciding if self._deciding else torch.nan
        return Summary(torch.stack(columns), live > 0, self._signal / groups, signal, number, aggregated_std)


class _Spread:
    """Mean (M,) and squared deviations (M,) of rows that come in parts.

    The formula for two parts is that of T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances" (1979). Deviations of each part are from its own mean, so that large means
    that are close together keep all digits.
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        self.number = 0
        self.mean, self.squares = torch.zeros(2, channels, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Add rows (n, M)."""
        before, self.number = self.number, self.number + len(rows)
        mean = rows.mean(0)
        apart = mean - self.mean
        own = (rows - mean).square_().sum(0)
        self.squares = self.squares + own + apart.square() * (before * len(rows) / self.number)
        self.mean = self.mean + apart * (len(rows) / self.number)


def _lowest(z: Tensor, live: Tensor | None) -> Tensor:
    """Return on how many completions each channel is the lowest live one, (M,). Ties share.

    Args:
        z: (G, C, M) z-scores.
        live: (C, M) bool; None if all are.
    """
    if live is not None:
        z = z + torch.zeros_like(live, dtype=z.dtype).masked_fill_(~live, torch.inf)
    low = _least(z)
    tied = torch.le(z, low.add_(TIE), out=torch.empty_like(z))
    if live is not None:
        tied.mul_(live)
    number = tied.sum((0, 1))
    rows = low.numel() if live is None else len(z) * int(live.any(1).sum())
    if float(number.sum()) == rows:  # no ties
        return number
    return (tied / tied.sum(-1, keepdim=True).clamp_(min=1)).sum((0, 1))


def _least(x: Tensor) -> Tensor:
    """Return the minimum over the last dimension, which is kept. Halves that overlap, because short rows are slow."""
    while x.shape[-1] > 4:
        half = (x.shape[-1] + 1) // 2
        x = torch.minimum(x[..., :half], x[..., -half:])
    return x.amin(-1, keepdim=True)
