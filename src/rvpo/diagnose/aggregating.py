"""Apply a method to a logged batch: in NumPy if that is enough, otherwise with the core, which needs torch.

A diagnosis needs z-scores, the shares of the soft minimum and, for logs without advantages, the advantages of GRPO and
GDPO. :mod:`rvpo.arrays` computes these. :func:`aggregated` calls any other method as in training.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from rvpo.arrays.groups import Array, Partition
from rvpo.arrays.rules import Cells, Shares, advantages, is_known, soft_min
from rvpo.core import AdvantageConfig, Advantages, Channels, compute
from rvpo.core.channels import State
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.extras import needs_extra
from rvpo.logs.run import LoggedBatch, Run
from rvpo.step.trust import trusting

NEEDS_TORCH = "replays, and methods other than grpo and gdpo,"


def shares_of(batch: LoggedBatch, run: Run, k: float, eps: float, groups: Partition | None = None) -> Shares:
    """Return the z-scores of a batch, and how the soft minimum shares the decision between its channels.

    Args:
        batch: a batch of the run.
        run: logs of the run.
        k: risk coefficient in [0, inf].
        eps: number added to every standard deviation, in reward units.
        groups: groups of the batch, if they are already known.
    """
    return soft_min(_cells(batch, run, groups), k, eps=eps)


def advantages_of(
    batch: LoggedBatch, config: AdvantageConfig, run: Run, state: State | None = None, groups: Partition | None = None
) -> tuple[Array, State]:
    """Return the advantages of a method (N,), and its state.

    Args:
        batch: a batch of the run.
        config: the method.
        run: logs of the run.
        state: what the method remembers of earlier batches.
        groups: groups of the batch, if they are already known.

    Raises:
        MissingExtraError: the method needs torch, which is not installed.
    """
    if is_known(config):
        return advantages(_cells(batch, run, groups), config), {}
    result = aggregated(batch, config, run, state, groups)
    return result.advantages.numpy(), result.state


def _cells(batch: LoggedBatch, run: Run, groups: Partition | None) -> Cells:
    return Cells(
        batch.rewards,
        Partition.of_ids(batch.groups) if groups is None else groups,
        batch.weights,
        batch.applies,
        batch.outside,
        batch.reliability,
        monitored=bool(run.monitor),
    )


def aggregated(
    batch: LoggedBatch,
    config: AdvantageConfig,
    run: Run,
    state: State | None = None,
    groups: Partition | None = None,
) -> Advantages:
    """Aggregate a batch with :func:`rvpo.core.compute`, with the recorded weights, trust and channels.

    Raises:
        MissingExtraError: torch is not installed.
    """
    require_torch()
    return compute(
        tensor(batch.rewards),
        config,
        groups=tensor_groups(Partition.of_ids(batch.groups) if groups is None else groups),
        weights=_maybe(batch.weights),
        applies=_maybe(batch.applies),
        channels=Channels(run.channels, tensor(batch.channel), tuple([run.ranges.get(name) for name in run.channels])),
        progress=progress_of(batch, run),
        tokens=_maybe(batch.tokens),
        outside=_maybe(batch.outside),
        monitored=bool(run.monitor),
        **trusting(config.method, _maybe(batch.reliability)),
        state=state,
    )


def has_torch() -> bool:
    """Whether torch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def require_torch() -> None:
    """Import torch, or refuse the calculation that needs it.

    Raises:
        MissingExtraError: torch is not installed.
    """
    with needs_extra("torch", NEEDS_TORCH, "torch"):
        torch.get_num_threads()  # this imports torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch, if it is in use, to one thread: batches are small, and threads would wait for each other."""
    if "torch" not in sys.modules:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tensor(x: NDArray[Any]) -> Tensor:
    """Return an array as a tensor, which shares its memory."""
    return torch.from_numpy(x if x.flags.writeable else x.copy())


def _maybe(x: NDArray[Any] | None) -> Tensor | None:
    return None if x is None else tensor(x)


def tensor_groups(groups: Partition) -> Groups:
    """Return a partition as groups of the core."""
    if groups.block is not None:
        return Groups.from_blocks(groups.count * groups.block, groups.block, torch.device("cpu"))
    return Groups(tensor(groups.index), groups.count)


def progress_of(batch: LoggedBatch, run: Run) -> float:
    """Return the share of the training that was done at a batch: as recorded, otherwise from its step."""
    if batch.progress is not None:
        return batch.progress
    first, last = run.steps[0], run.steps[-1]
    return min(max((batch.step - first) / max(last - first, 1), 0.0), 1.0)
