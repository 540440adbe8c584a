"""What a diagnosis counts: sums by group, so that groups can be resampled, in memory that does not grow with the run.

A statistic of a channel is a function of sums over groups. Groups are what a bootstrap may resample: completions of a
prompt are not independent. Up to ``BLOCKS`` groups have a place each; further ones share the places at random, which
resamples clusters of groups instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rvpo.core import RVPO, AdvantageConfig, Advantages, Channels, compute
from rvpo.core.channels import State
from rvpo.core.groups import Groups
from rvpo.core.scales import in_short, learned_scales
from rvpo.diagnose.group_sums import SLOT, SLOTS, again_sums, by_channel, cell_sums, centred
from rvpo.diagnose.joining import Joined, Joiner
from rvpo.diagnose.met_sums import MetLines, met_sums
from rvpo.logs.run import LoggedBatch, Run
from rvpo.step.trust import trusting

BLOCKS = 2048
POINTS = 300  # in time, that curves have at most
STRETCHES = 24  # of time, for each of which there are pulls
CHUNK_CELLS = 1_000_000  # of a batch that are looked at together
PAIR_CELLS = 4_000_000  # of products of channels, over all blocks

Array = NDArray[np.float64]


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
        self._run, self._assumed = run, assumed
        # Without an eps worth the name: a channel on a scale so small that the run's own eps silences it is to be seen.
        self._soft_min = AdvantageConfig(RVPO(k, whiten="none"), eps=1e-12)
        self.state: State = {}
        self._channels: Channels | None = None  # of the last batch: those of a run without rubrics stay the same
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
            result = aggregated(batch, self._assumed, self._run, self.state, one.groups)
            advantages, self.state = result.advantages, result.state
            one = replace(one, batch=replace(batch, advantages=advantages))
        if batch.weights is None:
            self.monitored[:] = False
        else:
            self.monitored[batch.channel.expand(batch.weights.shape)[batch.weights > 0].numpy()] = False
        for joined in self._joiner.add(one):
            self._count_all(joined)

    def _count_all(self, joined: Joined) -> None:
        """Count batches that were joined, or parts of a large one."""
        batch = joined.batch
        if batch.rewards.numel() <= CHUNK_CELLS:
            self._count(joined)
            return
        for rows in _chunks(joined.groups.index, batch.rewards.shape[1]):
            self._count(Joined.single(batch.rows(rows)))

    def _count(self, joined: Joined) -> None:
        batch, groups, advantages = joined.batch, joined.groups, joined.batch.advantages
        assert advantages is not None  # those of the assumed method otherwise
        channel = batch.channel.expand(batch.rewards.shape)
        if self._channels is None or not torch.equal(self._channels.index, batch.channel):
            self._channels = channels_of(batch, self._run)
        result = aggregated(batch, self._soft_min, self._run, groups=groups, channels=self._channels)
        steps = self._run.steps
        time = (joined.steps - steps[0]).double()[:, None] / max(steps[-1] - steps[0], 1)
        self._reach(result, channel)
        again = {} if batch.texts is None else again_sums(result.rewards, batch.texts.completions, groups)
        cells = cell_sums(result, groups, advantages, time, len(steps) == 1) | again
        top = torch.from_numpy(self.top)[channel]
        at_top = (result.rewards >= top - 1e-9 * top.abs().clamp(min=1)) & result.applies
        cells["late_top"] = groups.sum(at_top.double()) * ((time > 2 / 3) | (len(steps) == 1))
        cells |= self._met_cells(result, groups, advantages)
        known = ~advantages.isnan()
        a = centred(advantages, groups)
        points = torch.tensor([self._point[step] for step in joined.steps.tolist()])
        blocks = self._keep(cells, groups, channel, points)
        self._correlate(result, channel, a, known, blocks, points)
        self.completions += len(advantages)
        self.known += int(known.sum())
        self.groups += groups.count

    def settle(self) -> None:
        """Count what is still waiting, and choose from which reward on completions meet a channel."""
        for joined in self._joiner.rest():
            self._count_all(joined)
        names = self._run.channels
        ranges = [self._run.ranges.get(name) for name in names]
        self._met.settle(self.blocks, names, ranges, self.low, self.top, SLOT)

    def _met_cells(self, result: Advantages, groups: Groups, advantages: Tensor) -> dict[str, Tensor]:
        """Count unexplored and suppressed groups; what a new value shows of the groups before is corrected."""
        assert self._channels is not None  # set before the first cell is counted
        graded, binary, raised = self._met.look(result, self._channels)
        for name in raised:
            j = self._run.channels.index(name)
            self.blocks[:, j, SLOT["unexplored_binary"]] = self.blocks[:, j, SLOT["met_groups"]]
        return met_sums(result, groups, advantages, graded, binary)

    def _reach(self, result: Advantages, channel: Tensor) -> None:
        """Move the highest and lowest rewards; what was counted at a lower height is at it no longer."""
        rewards = result.rewards.masked_fill(~result.applies, torch.nan)
        flat, of = rewards.flatten(), channel.flatten()
        known = ~flat.isnan()
        for extreme, reduce in ((self.top, "amax"), (self.low, "amin")):
            before = extreme.copy()
            torch.from_numpy(extreme).scatter_reduce_(0, of[known], flat[known], reduce)
            if reduce == "amax":
                moved = extreme > before + 1e-9 * np.maximum(1, np.abs(np.nan_to_num(before, neginf=0)))
                self.blocks[:, moved, SLOT["late_top"]] = 0

    def _keep(self, cells: dict[str, Tensor], groups: Groups, channel: Tensor, points: Tensor) -> Tensor:
        """Add the sums of groups (P, M) to their blocks and to their points in time (P,); return the blocks (P,)."""
        first = torch.full((groups.count,), len(channel)).scatter_reduce(
            0, groups.index, torch.arange(len(channel)), "amin"
        )
        of = channel[first]  # (P, M): a group has one set of channels
        table = torch.stack([cells.get(name, torch.zeros_like(cells["cells"])) for name in SLOTS], -1)
        number = torch.arange(self.groups, self.groups + groups.count)
        block = torch.where(number < BLOCKS, number, _scattered(number))
        for sums, place in ((self.blocks, block), (self.points, points)):
            index = (place[:, None] * sums.shape[1] + of).flatten()
            torch.from_numpy(sums).view(-1, len(SLOTS)).index_add_(0, index, table.flatten(0, 1))
        return block

    def stretch_of(self, point: int) -> int:
        """Return the number of the stretch of time that a point in time is in."""
        return point * len(self.stretches) // len(self.points)

    def _correlate(
        self, result: Advantages, channel: Tensor, a: Tensor, known: Tensor, blocks: Tensor, points: Tensor
    ) -> None:
        """Add the products of z-scores, and those with the advantage ``a`` (N,) around its group's mean.

        Args:
            result: of the rows.
            channel: (N, M) number of the channel of each cell.
            a: (N,) advantages around the mean of their group.
            known: (N,) bool, whether the advantage is known.
            blocks: (P,) of the groups.
            points: (P,) in time.
        """
        count = len(self._run.channels)
        z, live = by_channel(result, channel, count)
        for i, part in enumerate((z.T @ z, z.square().T @ live, live.T @ z.square())):
            self.products[..., i] += part.numpy()
        z = z * known[:, None]
        both = torch.cat([z, a[:, None]], 1)
        pairs, stretches = torch.from_numpy(self.pairs), torch.from_numpy(self.stretches)
        stretch = points * len(self.stretches) // len(self.points)
        held = max(1, PAIR_CELLS // (count * (count + 1)))  # groups whose products fit in memory
        for start in range(0, result.groups.count, held):
            some = slice(start, start + held)
            products = _products(z, both, result.groups, some)
            pairs.index_add_(0, blocks[some] % len(pairs), products)
            stretches.index_add_(0, stretch[some], products)


def _products(z: Tensor, both: Tensor, groups: Groups, part: slice) -> Tensor:
    """Return the products of the columns of ``z`` (N, K) with those of ``both`` (N, L) for some groups, (p, K, L)."""
    if groups.block is not None:
        first, second = (x.reshape(groups.count, groups.block, -1)[part] for x in (z, both))
        return first.transpose(1, 2) @ second
    sizes = torch.bincount(groups.index, minlength=groups.count)
    order = torch.argsort(groups.index, stable=True)
    ends = sizes.cumsum(0)
    rows = order[int(ends[part][0] - sizes[part][0]) : int(ends[part][-1])]
    own = sizes[part].tolist()
    split = zip(torch.split(z[rows], own), torch.split(both[rows], own), strict=True)
    return torch.stack([first.T @ second for first, second in split])


def point_of_steps(steps: Sequence[int]) -> dict[int, int]:
    """Return step -> the point in time that it counts in, of ``POINTS`` at most."""
    count = min(POINTS, len(steps))
    return {step: i * count // len(steps) for i, step in enumerate(steps)}


def aggregated(
    batch: LoggedBatch,
    config: AdvantageConfig,
    run: Run,
    state: State | None = None,
    groups: Groups | None = None,
    channels: Channels | None = None,
) -> Advantages:
    """Aggregate a batch by ``config``, with all that its record knows of weights, trust and channels."""
    progress = progress_of(batch, run)
    return compute(
        batch.rewards,
        config,
        groups=Groups.in_blocks(batch.groups) if groups is None else groups,
        weights=batch.weights,
        applies=batch.applies,
        channels=channels or channels_of(batch, run),
        progress=progress,
        tokens=batch.tokens,
        outside=batch.outside,
        monitored=bool(run.monitor),
        **trusting(config.method, batch.reliability),
        state=state,
    )


def channels_of(batch: LoggedBatch, run: Run) -> Channels:
    """Return the run's channels, and which of them each cell of a batch belongs to."""
    return Channels(run.channels, batch.channel, tuple([run.ranges.get(name) for name in run.channels]))


def progress_of(batch: LoggedBatch, run: Run) -> float:
    """Return the share of the training that was done at a batch: as recorded, else by its place among the steps."""
    if batch.progress is not None:
        return batch.progress
    first, last = run.steps[0], run.steps[-1]
    return min(max((batch.step - first) / max(last - first, 1), 0.0), 1.0)


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


@contextmanager
def one_thread() -> Iterator[None]:
    """Batches are small: threads that wait for each other would cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chunks(groups: Tensor, columns: int) -> Iterator[Tensor]:
    """Yield the rows of whole groups, about ``CHUNK_CELLS`` cells at a time."""
    limit = max(1, CHUNK_CELLS // columns)
    order = torch.argsort(groups, stable=True)
    sizes = torch.bincount(groups)
    ends = sizes.cumsum(0)
    part = (ends - 1) // limit  # groups that end within the same stretch
    for number in sorted(set(part.tolist())):
        within = (part == number).nonzero()[:, 0]
        yield order[int(ends[within[0]] - sizes[within[0]]) : int(ends[within[-1]])]


def _scattered(number: Tensor) -> Tensor:
    """Return a block for each group, at random but the same at every call (a multiplicative hash)."""
    mixed = (number * 2_654_435_761) % (1 << 32)
    return (mixed >> 15) % BLOCKS
