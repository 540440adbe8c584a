"""A running mean over batches, by channel name: what methods remember of a run.

The mean is plain data of names and numbers, so that a checkpoint restores it to the last bit; and because every process
sees the rewards of all of them, it is the same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rvpo.core.channels import State


@dataclass(frozen=True)
class RunningMean:
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
    def empty(cls, dimensions: int) -> RunningMean:
        """Begin anew, for channels (1) or pairs of channels (2)."""
        return cls((), torch.zeros((0,) * dimensions, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))

    def update(self, names: Sequence[str], value: Tensor, horizon: float) -> RunningMean:
        """Take in a batch's value for each of ``names``, NaN = not seen; the past fades by 1 - 1/``horizon``."""
        every = (*self.names, *(name for name in names if name not in self.names))
        value = _laid_out(value.detach().cpu().double(), names, every, torch.nan)
        total, weight = (_laid_out(x, self.names, every, 0.0) for x in (self.total, self.weight))
        seen = (~(value if value.ndim == 1 else value.diagonal()).isnan()).double()
        new, keep = 1 / horizon, 1 - seen / horizon
        return RunningMean(
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
    def from_state(cls, state: State | None, dimensions: int) -> RunningMean:
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
