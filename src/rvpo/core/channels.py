"""The named channels of a run, and what is remembered of them from batch to batch.

Most rules look at one batch alone. Some follow the run: they need to know which cells of this batch belong to the same
channel as those of the last one, on which scale the channel's rewards lie, and a running mean for each channel. That
mean is the state, plain data of names and numbers, so that a checkpoint restores it to the last bit; and because every
process sees the rewards of all of them, it is the same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rvpo.errors import ConfigError, RewardError

State = Mapping[str, Any]
"""What a rule remembers: nested mappings and lists of numbers, as JSON holds them."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Channels:
    """The K channels of a run, and where their cells lie in this batch.

    Attributes:
        names: K names, unique.
        index: (M,) or (N, M) int64, which channel a cell belongs to. Several cells of a row may belong to one, such as
            the criteria of a rubric's category.
        ranges: K pairs (lowest, highest) of what the channel's reward can be, or None where nobody said; that is then
            taken for [0, 1], and a reward outside is an error as soon as a rule needs the scale.
    """

    names: tuple[str, ...]
    index: Tensor
    ranges: tuple[Range | None, ...]

    def __post_init__(self) -> None:
        """Refuse names that stand twice, and ranges or an index that do not fit them."""
        if len(set(self.names)) < len(self.names) or len(self.ranges) != len(self.names):
            raise ConfigError(
                f"{len(self.names)} channels, {len(set(self.names))} different names and {len(self.ranges)} ranges: "
                "each channel has its own name and one range (or None)"
            )
        if self.index.dtype != torch.int64 or not self.index.numel() or int(self.index.max()) >= len(self.names):
            raise ConfigError(
                f"index is a {self.index.dtype} tensor of shape {tuple(self.index.shape)} for {len(self.names)} "
                "channels, allowed are int64 numbers of channels, one for each column or cell"
            )

    @classmethod
    def columns(
        cls, names: Sequence[str], ranges: Sequence[Range | None] | None = None, device: torch.device | None = None
    ) -> Channels:
        """One channel a column.

        Raises:
            ConfigError: a range is no pair of two numbers in ascending order, or there are not M of them.
        """
        ranges = check_ranges(ranges, len(names))
        return cls(tuple(names), torch.arange(len(names), device=device), ranges)

    def attained(self, rewards: Tensor) -> Tensor:
        """Scale rewards (N, M) to [0, 1], NaN where missing: 0 at the channel's lowest, 1 at its highest.

        A declared range clips what lies outside.

        Raises:
            RewardError: a reward lies outside [0, 1] and its channel has no declared range.
        """
        limits = [(0.0, 1.0) if limits is None else limits for limits in self.ranges]
        table = torch.tensor(limits, dtype=rewards.dtype, device=rewards.device)
        index = self.index.expand(rewards.shape)
        low, high = table[index].unbind(-1)
        attained = (rewards - low) / (high - low)
        undeclared = torch.tensor([limits is None for limits in self.ranges], device=rewards.device)[index]
        outside = undeclared & ((attained < 0) | (attained > 1))
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            name = self.names[int(index[row, column])]
            raise RewardError(
                f"channel {name!r} has a reward of {rewards[row, column].item():g}, and no range was declared for it, "
                "which stands for [0, 1]: this method compares how far channels are met, so declare the lowest and "
                "the highest value that it can take (ranges)"
            )
        return attained.clamp(0, 1)

    def pool(self, x: Tensor) -> Tensor:
        """Sum the cells of each channel within each row, (N, M) -> (N, K)."""
        # A product with one-hot columns, because index_add is not deterministic on CUDA.
        onehot = torch.nn.functional.one_hot(self.index, len(self.names)).to(x.dtype)
        if self.index.ndim == 1:
            return x @ onehot
        return torch.einsum("nm,nmk->nk", x, onehot)

    def mean(self, x: Tensor) -> Tensor:
        """Average the cells of each channel over the batch, (N, M) with NaN = not counted -> (K,), NaN where none."""
        counted = ~x.isnan()
        return self.pool(x.masked_fill(~counted, 0.0)).sum(0) / self.pool(counted.to(x.dtype)).sum(0)

    def spread(self, stat: Tensor) -> Tensor:
        """Give every cell its channel's value, (K,) -> (M,) or (N, M)."""
        return stat[self.index]


def check_ranges(ranges: Sequence[Range | None] | None, count: int) -> tuple[Range | None, ...]:
    """Return ``count`` ranges, None where not declared.

    Raises:
        ConfigError: see :meth:`Channels.columns`.
    """
    if ranges is None:
        return (None,) * count
    if len(ranges) != count:
        raise ConfigError(f"{len(ranges)} ranges for {count} channels: give one a channel, None where it is [0, 1]")
    checked: list[Range | None] = []
    for j, entry in enumerate(ranges):
        if entry is None:
            checked.append(None)
            continue
        pair = list(entry) if isinstance(entry, (list, tuple)) else []
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in pair)
        if len(pair) != 2 or not numbers or not -torch.inf < pair[0] < pair[1] < torch.inf:
            raise ConfigError(
                f"range {j} is {entry!r}, allowed is a pair of finite numbers, the lowest and the highest reward, "
                "such as [-3, 3]"
            )
        checked.append((float(pair[0]), float(pair[1])))
    return tuple(checked)


@dataclass(frozen=True)
class Running:
    """An exponential mean over batches, for named channels or pairs of them; one that is absent does not fade.

    ``mean = sum_t f^t x_t / sum_t f^t`` with f = 1 - 1/horizon, over the batches t = 0 (this one), 1, … that have it.

    Attributes:
        names: K names.
        total: decayed sum of the batches' values, (K,) or (K, K), float64 on the CPU.
        weight: (K,) the same of the number of batches. The mean is their ratio, so that the first batch counts in full.

    A pair is scaled by the geometric means of what its two channels are scaled by. Where all channels are always there,
    that is the same for all; where they come and go, covariances stay positive semidefinite.
    """

    names: tuple[str, ...]
    total: Tensor
    weight: Tensor

    @classmethod
    def empty(cls, dimensions: int) -> Running:
        """Begin anew, for channels (1) or pairs of channels (2)."""
        return cls((), torch.zeros((0,) * dimensions, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))

    def update(self, names: Sequence[str], value: Tensor, horizon: float) -> Running:
        """Take in a batch's value for each of ``names``, NaN = not seen; the past fades by 1 - 1/``horizon``."""
        every = (*self.names, *(name for name in names if name not in self.names))
        value = _laid_out(value.detach().cpu().double(), names, every, torch.nan)
        total, weight = (_laid_out(x, self.names, every, 0.0) for x in (self.total, self.weight))
        seen = (~(value if value.ndim == 1 else value.diagonal()).isnan()).double()
        new, keep = 1 / horizon, 1 - seen / horizon
        return Running(
            every,
            _of_pairs(keep, value.ndim) * total + new * value.nan_to_num(nan=0.0),
            keep * weight + new * seen,
        )

    def mean(self, names: Sequence[str]) -> Tensor:
        """Return the mean for each of ``names`` (or pair), float64 on the CPU, NaN where it was never seen."""
        return _laid_out(self.total / _of_pairs(self.weight, self.total.ndim), self.names, tuple(names), torch.nan)

    def to_state(self) -> dict[str, Any]:
        """Return plain data."""
        return {"names": list(self.names), "total": self.total.tolist(), "weight": self.weight.tolist()}

    @classmethod
    def from_state(cls, state: State | None, dimensions: int) -> Running:
        """Undo :meth:`to_state`, to the last bit; None begins anew."""
        if state is None:
            return cls.empty(dimensions)
        total, weight = (torch.tensor(state[key], dtype=torch.float64) for key in ("total", "weight"))
        return cls(tuple(state["names"]), total, weight)


def _of_pairs(x: Tensor, dimensions: int) -> Tensor:
    """Return a scale of channels (K,) as that of pairs of them, (K, K), where there are two dimensions."""
    return x if dimensions == 1 else (x[:, None] * x).sqrt()


def _laid_out(x: Tensor, names: Sequence[str], wanted: Sequence[str], fill: float) -> Tensor:
    """Rearrange every dimension of x from ``names`` to ``wanted``; what it does not have is ``fill``."""
    place = {name: i for i, name in enumerate(names)}
    # One more entry, at the end, stands for all that is not there.
    x = torch.nn.functional.pad(x, (0, 1) * x.ndim, value=fill)
    index = torch.tensor([place.get(name, len(names)) for name in wanted], dtype=torch.int64)
    for dimension in range(x.ndim):
        x = x.index_select(dimension, index)
    return x
