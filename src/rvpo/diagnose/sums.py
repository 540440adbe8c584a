"""The sums of a diagnosis, kept by group so that groups can be resampled, in memory that does not grow with the run.

A statistic of a channel is a function of sums over groups. A bootstrap resamples groups, because the completions of a
prompt are not independent. Up to ``BLOCKS`` groups have a block each. Further groups share these blocks at random, so
that the bootstrap then resamples clusters of groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from rvpo.arrays.groups import Array, Bools, Ints, Partition, add_at
from rvpo.arrays.met import ends_of
from rvpo.arrays.rules import Shares
from rvpo.core import AdvantageConfig
from rvpo.core.channels import State
from rvpo.core.scales import in_short, learned_scales
from rvpo.diagnose.aggregating import advantages_of, shares_of
from rvpo.diagnose.group_sums import SLOT, SLOTS, again_sums, by_channel, cell_sums, centred, rounding
from rvpo.diagnose.joining import Joined, Joiner
from rvpo.diagnose.met_sums import MetLines, met_sums
from rvpo.logs.run import LoggedBatch, Run

BLOCKS = 2048
POINTS = 300  # most points in time of a curve
STRETCHES = 24  # most stretches of time with pulls of their own
CHUNK_CELLS = 1_000_000  # most cells of a batch that are counted at once
PAIR_CELLS = 4_000_000  # most products of channels, over all blocks
EPS = 1e-12
"""Number added to a standard deviation. It is tiny, so that a channel on a small scale, which the eps of the run
silences, is visible."""


class Sums:
    """The sums of a run.

    Attributes:
        blocks: (BLOCKS, K, slots) sums per block of groups.
        points: (T, K, slots) sums per point in time.
        point_steps: (T,) last step of each point.
        products: (K, K, 3) sums of z_j z_l, z_j^2 and z_l^2 where both are live.
        pairs: (B, K, K + 1) sums of z_j z_l, and of z_j a in the last column, for the regression of the advantage a on
            all channels. With many channels, several blocks share one entry.
        stretches: (B, K, K + 1) the same sums per stretch of time.
        top: (K,) highest reward.
        low: (K,) lowest reward.
        completions: number of rows.
        known: number of rows with an advantage.
        groups: number of groups.
        monitored: (K,) bool, whether the weight of the channel is 0 on every completion.
        state: what the assumed method remembers.
    """

    def __init__(self, run: Run, k: float, assumed: AdvantageConfig | None) -> None:
        """Begin; ``assumed`` is how the run aggregated if its advantages were not logged."""
        channels = len(run.channels)
        self._run, self._assumed, self._k = run, assumed, k
        self._ranges = [run.ranges.get(name) for name in run.channels]
        self.state: State = {}
        self.known = 0
        self.blocks = np.zeros((BLOCKS, channels, len(SLOTS)))
        count = min(POINTS, len(run.steps))
        self._point = point_of_steps(run.steps)
        self.points = np.zeros((count, channels, len(SLOTS)))
        self.point_steps = tuple({point: step for step, point in self._point.items()}.values())
        self.products = np.zeros((channels, channels, 3))
        self.pairs = np.zeros((min(BLOCKS, max(64, PAIR_CELLS // channels**2)), channels, channels + 1))
        stretches = min(STRETCHES, max(1, PAIR_CELLS // channels**2), count)
        self.stretches = np.zeros((stretches, channels, channels + 1))
        self._met = MetLines()
        self.top, self.low = np.full(channels, -np.inf), np.full(channels, np.inf)
        self.monitored = np.ones(channels, dtype=bool)
        self.completions = self.groups = 0
        self._joiner = Joiner()

    def add(self, one: Joined) -> None:
        """Count a batch, now or later together with others. Call :meth:`settle` after the last batch."""
        batch = one.batch
        advantages = batch.advantages
        if advantages is None:
            assert self._assumed is not None  # callers pass a method if advantages are not logged
            advantages, self.state = advantages_of(batch, self._assumed, self._run, self.state, one.groups)
            one = replace(one, batch=replace(batch, advantages=advantages))
        if batch.weights is None:
            self.monitored[:] = False
        else:
            self.monitored[np.broadcast_to(batch.channel, batch.weights.shape)[batch.weights > 0]] = False
        for joined in self._joiner.add(one):
            self._count_all(joined)

    def _count_all(self, joined: Joined) -> None:
        """Count batches that were joined, or parts of a large one."""
        batch = joined.batch
        if batch.rewards.size <= CHUNK_CELLS:
            self._count(joined)
            return
        for rows in _chunks(joined.groups, batch.rewards.shape[1]):
            self._count(Joined.single(batch.rows(rows)))

    def _count(self, joined: Joined) -> None:
        batch, groups, advantages = joined.batch, joined.groups, joined.batch.advantages
        assert advantages is not None  # add() filled in those of the assumed method
        channel = batch.channel
        result = shares_of(batch, self._run, self._k, EPS, groups)
        steps = self._run.steps
        time = (joined.steps - steps[0]).astype(np.float64)[:, None] / max(steps[-1] - steps[0], 1)
        self._reach(result, channel)
        again = {} if batch.texts is None else again_sums(result.rewards, batch.texts.completions, groups)
        cells = cell_sums(result, groups, advantages, time, len(steps) == 1) | again
        top = self.top[channel]
        at_top = (result.rewards >= top - rounding(top, self.low[channel])) & result.applies
        cells["late_top"] = groups.sum(at_top) * ((time > 2 / 3) | (len(steps) == 1))
        cells |= self._met_cells(result, channel, groups, advantages)
        known = ~np.isnan(advantages)
        a = centred(advantages, groups)
        points = np.array([self._point[step] for step in joined.steps.tolist()])
        blocks = self._keep(cells, groups, channel, points)
        self._correlate(result, groups, channel, a, known, blocks, points)
        self.completions += len(advantages)
        self.known += int(known.sum())
        self.groups += groups.count

    def settle(self) -> None:
        """Count the batches that are still waiting, and choose the thresholds of the channels."""
        for joined in self._joiner.rest():
            self._count_all(joined)
        self._met.settle(self.blocks, self._run.channels, self._ranges, self.low, self.top, SLOT)

    def _met_cells(self, result: Shares, channel: Ints, groups: Partition, advantages: Array) -> dict[str, Array]:
        """Count unexplored and suppressed groups; correct the counts of earlier groups if a new value changes them."""
        graded, binary, raised = self._met.look(result, channel, self._run.channels, self._ranges)
        for name in raised:
            j = self._run.channels.index(name)
            self.blocks[:, j, SLOT["unexplored_binary"]] = self.blocks[:, j, SLOT["met_groups"]]
        return met_sums(result, groups, advantages, graded, binary)

    def _reach(self, result: Shares, channel: Ints) -> None:
        """Update the highest and lowest rewards, and reset the counts of a highest reward that was exceeded."""
        before = self.top.copy()
        ends = ends_of(result.rewards, channel, result.applies, len(self.top))
        np.maximum(self.top, ends.high, out=self.top)
        np.minimum(self.low, ends.low, out=self.low)
        moved = self.top > before + rounding(before, self.low)
        self.blocks[:, moved, SLOT["late_top"]] = 0

    def _keep(self, cells: dict[str, Array], groups: Partition, channel: Ints, points: Ints) -> Ints:
        """Add the sums of groups (P, M) to their blocks and to their points in time (P,); return the blocks (P,)."""
        shape = cells["cells"].shape
        table = np.zeros((*shape, len(SLOTS)))
        for name, sums in cells.items():
            table[..., SLOT[name]] = sums
        number = np.arange(self.groups, self.groups + groups.count)
        block = np.where(number < BLOCKS, number, _scattered(number))
        for sums, place in ((self.blocks, block), (self.points, points)):
            if channel.ndim == 1 and np.array_equal(channel, np.arange(sums.shape[1])):
                add_at(sums, place, table)
                continue
            # All rows of a group have the channels of its first row.
            of = np.broadcast_to(channel if channel.ndim == 1 else channel[groups.first_rows], shape)
            index = (place[:, None] * sums.shape[1] + of).ravel()
            add_at(sums.reshape(-1, len(SLOTS)), index, table.reshape(-1, len(SLOTS)))
        return block

    def stretch_of(self, point: int) -> int:
        """Return the index of the stretch of time that contains a point in time."""
        return point * len(self.stretches) // len(self.points)

    def _correlate(
        self, result: Shares, groups: Partition, channel: Ints, a: Array, known: Bools, blocks: Ints, points: Ints
    ) -> None:
        """Add the products of z-scores with each other and with the advantages.

        Args:
            result: z-scores of the rows.
            groups: the partition of the rows.
            channel: (M,) or (N, M) index of the channel of each cell.
            a: (N,) advantages minus the mean of their group.
            known: (N,), whether the advantage is known.
            blocks: (P,) block of each group.
            points: (P,) point in time of each group.
        """
        count = len(self._run.channels)
        z, live = by_channel(result.z, result.live, channel, count)
        squares = (z * z).T @ live
        for i, part in enumerate((z.T @ z, squares, squares.T)):
            self.products[..., i] += part
        z = z * known[:, None]
        both = np.concatenate([z, a[:, None]], 1)
        stretch = points * len(self.stretches) // len(self.points)
        held = max(1, PAIR_CELLS // (count * (count + 1)))  # groups whose products fit in memory
        for start in range(0, groups.count, held):
            some = slice(start, start + held)
            products = _products(z, both, groups, some)
            add_at(self.pairs, blocks[some] % len(self.pairs), products)
            add_at(self.stretches, stretch[some], products)


def _products(z: Array, both: Array, groups: Partition, part: slice) -> Array:
    """Return the products of the columns of ``z`` (N, K) with those of ``both`` (N, L) for some groups, (p, K, L)."""
    if groups.block is not None:
        first, second = (x.reshape(groups.count, groups.block, -1)[part] for x in (z, both))
        return first.transpose(0, 2, 1) @ second
    starts, sizes = groups.starts[part].tolist(), groups.sizes[part].tolist()
    rows = (groups.order[start : start + size] for start, size in zip(starts, sizes, strict=True))
    return np.stack([z[own].T @ both[own] for own in rows])


def point_of_steps(steps: Sequence[int]) -> dict[int, int]:
    """Return step -> its point in time, with at most ``POINTS`` points."""
    count = min(POINTS, len(steps))
    return {step: i * count // len(steps) for i, step in enumerate(steps)}


def estimated_progress(run: Run, first: LoggedBatch | None, configs: Sequence[AdvantageConfig | None]) -> str:
    """Return a note if a method depends on the progress of the training and the logs do not have it; otherwise "".

    Args:
        run: logs of a run.
        first: its first batch; None if it has no progress.
        configs: the methods that are applied to it.
    """
    following = [str(config) for config in configs if config is not None and config.method.needs_progress]
    if not following or (first is not None and first.progress is not None):
        return ""
    return (
        f"the logs do not have the training progress that {', '.join(dict.fromkeys(following))} needs, so it is "
        f"computed from the steps: 0 at step {run.steps[0]}, 1 at step {run.steps[-1]}"
    )


def note_of_scales(states: Iterable[State]) -> str:
    """Return a note if scales of rewards were learned from the logs; otherwise an empty text.

    Args:
        states: states of the methods after the last batch.
    """
    found = {name: frame for state in states for name, frame in learned_scales(state).items()}
    scales = ", ".join(f"{name} {in_short(frame)}" for name, frame in found.items())
    return scales and f"no range is declared, so scales are learned from the rewards: {scales} (--range NAME=LOW:HIGH)"


def _chunks(groups: Partition, columns: int) -> Iterator[Ints]:
    """Yield the rows of whole groups, about ``CHUNK_CELLS`` cells at a time."""
    limit = max(1, CHUNK_CELLS // columns)
    ends = groups.starts + groups.sizes
    part = (ends - 1) // limit  # groups that end within the same stretch
    for number in np.unique(part):
        within = np.flatnonzero(part == number)
        yield groups.order[groups.starts[within[0]] : ends[within[-1]]]


def _scattered(number: Ints) -> Ints:
    """Return a pseudo-random block for each group, the same at every call (a multiplicative hash)."""
    mixed = (number * 2_654_435_761) % (1 << 32)
    return (mixed >> 15) % BLOCKS
