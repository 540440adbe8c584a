"""The named channels of a run: the cells of a batch that belong to each channel, and the ranges of their rewards.

Most methods use only one batch. Some follow the run: they need to know which cells of this batch belong to the same
channel as cells of the last batch, and the scale of the channel's rewards. Their state of a channel is stored by its
name; see :mod:`rvpo.core.running_mean` and :mod:`rvpo.core.scales`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rvpo.core.lazy import Tensor, torch
from rvpo.errors import ConfigError

State = Mapping[str, Any]
"""State of a method: nested mappings and lists of numbers. Lists may also be tensors; a checkpoint has lists."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Channels:
    """The K channels of a run, and their cells in this batch.

    Attributes:
        names: K unique names.
        index: (M,) or (N, M) int64, the number of each cell's channel. Several cells of a row may belong to one
            channel, such as the criteria of a rubric's category.
        ranges: K pairs (lowest, highest) of possible rewards, or None if no range is declared. The scale is then
            learned, see :mod:`rvpo.core.scales`.

    Raises:
        ConfigError: names are not unique, or ranges or index do not fit.

    Example:
        >>> import rvpo
        >>> rvpo.Channels.columns(["correct", "safe"], [(-3, 3), None]).index
        tensor([0, 1])
    """

    names: tuple[str, ...]
    index: Tensor
    ranges: tuple[Range | None, ...]

    def __post_init__(self) -> None:
        """Refuse duplicate names, and ranges or an index that do not fit the names."""
        if len(set(self.names)) < len(self.names) or len(self.ranges) != len(self.names):
            raise ConfigError(
                f"{len(self.names)} channels have {len(set(self.names))} different names and {len(self.ranges)} "
                "ranges; expected a unique name and one range (or None) per channel"
            )
        # A rank of several may have no rows, but it has columns.
        is_empty = not self.index.ndim or not self.index.shape[-1]
        beyond = bool(self.index.numel()) and int(self.index.max()) >= len(self.names)
        if self.index.dtype != torch.int64 or is_empty or beyond:
            raise ConfigError(
                f"index is a {self.index.dtype} tensor of shape {tuple(self.index.shape)} for {len(self.names)} "
                "channels; expected int64 numbers of channels, one for each column or cell"
            )

    @classmethod
    def columns(
        cls, names: Sequence[str], ranges: Sequence[Range | None] | None = None, device: torch.device | None = None
    ) -> Channels:
        """Make one channel per column.

        Raises:
            ConfigError: a range is not a pair of two numbers in ascending order, or there are not M ranges.
        """
        ranges = check_ranges(ranges, len(names), names)
        return cls(tuple(names), torch.arange(len(names), device=device), ranges)

    @cached_property
    def are_columns(self) -> bool:
        """Whether column k is channel k, as in every batch without rubrics."""
        return self.index.ndim == 1 and self.index.tolist() == list(range(len(self.names)))

    def pool(self, x: Tensor) -> Tensor:
        """Return sums over the cells of each channel within each row, (N, M) -> (N, K). It may be ``x`` itself."""
        if self.are_columns:
            return x
        # Use one-hot columns on devices where index_add is not deterministic, such as CUDA.
        if self.index.ndim == 2 and x.device.type == "cpu":
            return x.new_zeros(len(x), len(self.names)).scatter_add(1, self.index, x)
        onehot = torch.nn.functional.one_hot(self.index, len(self.names)).to(x.dtype)
        if self.index.ndim == 1:
            return x @ onehot
        return torch.einsum("nm,nmk->nk", x, onehot)

    def total(self, x: Tensor) -> Tensor:
        """Return sums over the cells of each channel in the batch, (N, M) -> (K,)."""
        if self.index.ndim == 1:
            return self.pool(x).sum(0)
        # On the CPU the order of the sum is always the same.
        zeros = torch.zeros(len(self.names), dtype=x.dtype)
        return zeros.scatter_add(0, self.index.cpu().flatten(), x.cpu().flatten()).to(x.device)

    def mean(self, x: Tensor) -> Tensor:
        """Return means of each channel's cells, (N, M) with NaN = not counted -> (K,), NaN without counted cells."""
        if self.are_columns and not bool((mean := x.mean(0)).isnan().any()):  # every cell counts
            return mean
        missing = x.isnan()
        return self.total(x.masked_fill(missing, 0.0)) / self.total((~missing).to(x.dtype))

    def broadcast(self, stat: Tensor) -> Tensor:
        """Return the value of each cell's channel, (K,) -> (M,) or (N, M)."""
        return stat[self.index]

    def by_name(self, values: Mapping[str, float], missing: float) -> Tensor:
        """Return each channel's value, (K,) float64 on the CPU; ``missing`` for names that ``values`` lacks."""
        return torch.tensor([values.get(name, missing) for name in self.names], dtype=torch.float64)


def owner_of(channel: str, functions: Iterable[str]) -> str | None:
    """Return the reward function of a channel: the one with its name, or the rubric whose label it is.

    Names of reward functions may contain slashes. The longest one that fits is the owner.

    Args:
        channel: name of a channel, such as ``"judge/tone"``.
        functions: names of the reward functions.

    Example:
        >>> owner_of("team/judge/tone", ["format", "team/judge"])
        'team/judge'
    """
    fitting = [name for name in functions if channel == name or channel.startswith(f"{name}/")]
    return max(fitting, key=len, default=None)


def check_ranges(
    ranges: Sequence[Range | None] | None, count: int, names: Sequence[str] | None = None
) -> tuple[Range | None, ...]:
    """Return ``count`` ranges, None where not declared.

    Raises:
        ConfigError: see :meth:`Channels.columns`.
    """
    if ranges is None:
        return (None,) * count
    if len(ranges) != count:
        raise ConfigError(f"{len(ranges)} ranges for {count} channels; expected one per channel, None if not declared")
    checked: list[Range | None] = []
    for j, entry in enumerate(ranges):
        if entry is None:
            checked.append(None)
            continue
        pair = list(entry) if isinstance(entry, (list, tuple)) else []
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in pair)
        if len(pair) != 2 or not numbers or not -math.inf < pair[0] < pair[1] < math.inf:
            raise ConfigError(
                f"the range of {names[j] if names else f'channel {j}'} is {entry!r}; expected a pair of finite "
                "numbers, the lowest and the highest reward, such as [-3, 3]"
            )
        checked.append((float(pair[0]), float(pair[1])))
    return tuple(checked)
