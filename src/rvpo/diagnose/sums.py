"""What a diagnosis counts: sums by group, so that groups can be resampled, in memory that does not grow with the run.

A statistic of a channel is a function of sums over groups. Groups are what a bootstrap may resample: completions of a
prompt are not independent. Up to ``BLOCKS`` groups have a place each; further ones share the places at random, which
resamples clusters of groups instead.
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
from rvpo.diagnose.group_sums import SLOT, SLOTS, again_sums, by_channel, cell_sums, centred
from rvpo.diagnose.joining import Joined, Joiner
from rvpo.diagnose.met_sums import MetLines, met_sums
from rvpo.logs.run import LoggedBatch, Run

BLOCKS = 2048
POINTS = 300  # in time, that curves have at most
STRETCHES = 24  # of time, for each of which there are pulls
CHUNK_CELLS = 1_000_000  # of a batch that are looked at together
PAIR_CELLS = 4_000_000  # of products of channels, over all blocks
EPS = 1e-12
"""Added to a standard deviation. It is tiny, so that a channel on a small scale, which the eps of the run silences, is
seen."""


class Sums:
    """Sums of a run.

    Attributes:
        blocks: (BLOCKS, K, slots).
        points: (T, K, slots), over time.
        point_steps: (T,) last step of each point.
        products: (K, K, 3) sums of z_j z_l, z_j^2 and z_l^2 where both are live.
        pairs: (B, K, K + 1) sums of z_j z_l, and of z_j a in the last column, of the same groups pooled further where
            there are many channels: what the regression of the used advantage a on all channels needs.
        stretches: (B, K, K + 1) the same sums of a stretch of time each.
        top: (K,) highest reward.
        low: (K,) lowest reward.
        completions: number of rows.
        known: of these, how many have an advantage.
        groups: number of groups.
        monitored: (K,) bool, whether the weight of the channel is 0 on every completion.
        state: what the assumed method remembers.
    """

    def __init__(self, run: Run, k: float, assumed: AdvantageConfig | None) -> None:
        """Begin; ``assumed`` is how the run aggregated where its advantages were not logged."""
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
        """Count a batch, perhaps later, together with others: :meth:`settle` ends it."""
        batch = one.batch
        advantages = batch.advantages
        if advantages is None:
            assert self._assumed is not None  # the caller's business
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
        assert advantages is not None  # those of the assumed method otherwise
        channel = batch.channel
        result = shares_of(batch, self._run, self._k, EPS, groups)
        steps = self._run.steps
        time = (joined.steps - steps[0]).astype(np.float64)[:, None] / max(steps[-1] - steps[0], 1)
        self._reach(result, channel)
        again = {} if batch.texts is None else again_sums(result.rewards, batch.texts.completions, groups)
        cells = cell_sums(result, groups, advantages, time, len(steps) == 1) | again
        top = self.top[channel]
        at_top = (result.rewards >= top - 1e-9 * np.maximum(np.abs(top), 1)) & result.applies
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
        """Count what is still waiting, and choose from which reward on completions meet a channel."""
        for joined in self._joiner.rest():
            self._count_all(joined)
        self._met.settle(self.blocks, self._run.channels, self._ranges, self.low, self.top, SLOT)

    def _met_cells(self, result: Shares, channel: Ints, groups: Partition, advantages: Array) -> dict[str, Array]:
        """Count unexplored and suppressed groups; what a new value shows of the groups before is corrected."""
        graded, binary, raised = self._met.look(result, channel, self._run.channels, self._ranges)
        for name in raised:
            j = self._run.channels.index(name)
            self.blocks[:, j, SLOT["unexplored_binary"]] = self.blocks[:, j, SLOT["met_groups"]]
        return met_sums(result, groups, advantages, graded, binary)

    def _reach(self, result: Shares, channel: Ints) -> None:
        """Move the highest and lowest rewards; what was counted at a lower height is at it no longer."""
        before = self.top.copy()
        ends = ends_of(result.rewards, channel, result.applies, len(self.top))
        np.maximum(self.top, ends.high, out=self.top)
        np.minimum(self.low, ends.low, out=self.low)
        moved = self.top > before + 1e-9 * np.maximum(1, np.abs(np.nan_to_num(before, neginf=0)))
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
            # A group has one set of channels: that of its first row.
            of = np.broadcast_to(channel if channel.ndim == 1 else channel[groups.first_rows], shape)
            index = (place[:, None] * sums.shape[1] + of).ravel()
            add_at(sums.reshape(-1, len(SLOTS)), index, table.reshape(-1, len(SLOTS)))
        return block

    def stretch_of(self, point: int) -> int:
        """Return the number of the stretch of time that a point in time is in."""
        return point * len(self.stretches) // len(self.points)

    def _correlate(
        self, result: Shares, groups: Partition, channel: Ints, a: Array, known: Bools, blocks: Ints, points: Ints
    ) -> None:
        """Add the products of z-scores, and those with the advantage ``a`` (N,) around the mean of its group.

        Args:
            result: of the rows.
            groups: their groups.
            channel: (M,) or (N, M) number of the channel of each cell.
            a: (N,) advantages around the mean of their group.
            known: (N,), whether the advantage is known.
            blocks: (P,) of the groups.
            points: (P,) in time.
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
    """Return step -> the point in time that it counts in, of ``POINTS`` at most."""
    count = min(POINTS, len(steps))
    return {step: i * count // len(steps) for i, step in enumerate(steps)}


def estimated_progress(run: Run, first: LoggedBatch | None, configs: Sequence[AdvantageConfig | None]) -> str:
    """Return a note if a method follows the progress of the training and the logs do not have it, else nothing.

    Args:
        run: logs of a run.
        first: its first batch; None if it has no progress.
        configs: methods that are applied to it.
    """
    following = [str(config) for config in configs if config is not None and config.method.needs_progress]
    if not following or (first is not None and first.progress is not None):
        return ""
    return (
        f"the logs do not say how much of the training was done at each step, so {', '.join(dict.fromkeys(following))} "
        f"takes it from the steps: 0 at step {run.steps[0]}, 1 at step {run.steps[-1]}"
    )


def note_of_scales(states: Iterable[State]) -> str:
    """Return a note if scales of rewards were learned from the logs, else nothing.

    Args:
        states: what each method remembers after the last batch.
    """
    found = {name: frame for state in states for name, frame in learned_scales(state).items()}
    told = ", ".join(f"{name} {in_short(frame)}" for name, frame in found.items())
    return told and f"no range is declared, so scales are learned from the rewards: {told} (--range NAME=LOW:HIGH)"


def _chunks(groups: Partition, columns: int) -> Iterator[Ints]:
    """Yield the rows of whole groups, about ``CHUNK_CELLS`` cells at a time."""
    limit = max(1, CHUNK_CELLS // columns)
    ends = groups.starts + groups.sizes
    part = (ends - 1) // limit  # groups that end within the same stretch
    for number in np.unique(part):
        within = np.flatnonzero(part == number)
        yield groups.order[groups.starts[within[0]] : ends[within[-1]]]


def _scattered(number: Ints) -> Ints:
    """Return a block for each group, at random but the same at every call (a multiplicative hash)."""
    mixed = (number * 2_654_435_761) % (1 << 32)
    return (mixed >> 15) % BLOCKS
