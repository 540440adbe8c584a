"""A running mean over batches, by channel name: the state of methods during a run.

The mean consists of names and numbers, so a checkpoint restores it to the last bit. Every process sees the rewards of
all processes, so the mean is the same for any number of processes.

**What is forgotten.** A run may have 100,000 labels, 32 new ones in every batch, and the size of a mean of pairs is the
square of the number of names. So at most ``MOST`` names are remembered. If there are more, the names that have been
absent for the longest time are dropped. Among these, the one with the smallest weight is dropped first, because it
loses least; then the name decides. The names of the current batch always stay, even if they are more. A dropped name
that comes back starts again.

The limit is on the number of names and not on the time of absence: a channel that is in every 50th batch of a run with
20 channels costs nothing and is never forgotten. In a run with many labels, a rare label keeps its own mean longer
(2,048 names: 63 batches with 32 new names each) than its pairs with others (160 names: 4 such batches). This loses
little. Its own mean shows how far it is met, and a pair that starts again has the covariance of the current batch,
which is only noisier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.core.channels import State
from rvpo.core.lazy import Tensor, torch

MOST = {1: 2048, 2: 160}
"""Largest number of names in a mean of channels (1) and of pairs (2). Both are under 1 MB in a checkpoint."""


@dataclass(frozen=True)
class RunningMean:
    """An exponential mean over batches, for named channels or pairs of them. The mean of an absent one does not decay.

    ``mean = sum_t f^t x_t / sum_t f^t`` with f = 1 - 1/horizon, over the batches t = 0 (this one), 1, … that have it.
    If horizons differ, a batch counts 1 / its own horizon, and the previous batches count the rest.

    Attributes:
        names: K names.
        total: decayed sum of the batches' values, (K,) or (K, K), float64 on the CPU.
        weight: (K,) decayed number of batches. The mean is ``total / weight``, so that the first batch counts fully.
        absent: K numbers of batches since the name last occurred.

    A pair is scaled by the geometric mean of the scales of its two channels. If all channels are always present, that
    is the same for all. If channels are absent at times, covariances stay positive semidefinite.
    """

    names: tuple[str, ...]
    total: Tensor
    weight: Tensor
    absent: tuple[int, ...]

    @classmethod
    def empty(cls, dimensions: int) -> RunningMean:
        """Return an empty mean, for channels (1) or pairs of channels (2)."""
        return cls((), torch.zeros((0,) * dimensions, dtype=torch.float64), torch.zeros(0, dtype=torch.float64), ())

    def update(
        self, names: Sequence[str], value: Tensor, horizon: float | Tensor, *, most: int | None = None
    ) -> RunningMean:
        """Add a batch. The past of channels in it decays by 1 - 1/horizon.

        Args:
            names: unique names of the n channels in the batch.
            value: (n,) or (n, n) values of the batch, NaN = not seen. A pair is seen if its diagonal entries are.
            horizon: number of batches over which the mean is taken, one number or (n,). Less than 1 counts as 1, which
                has no memory.
            most: largest number of names, except that those of the batch are always kept; None: see ``MOST``.
        """
        names, value, new = tuple(names), value.detach().cpu().double(), _share(horizon)
        old = self
        if names != self.names:
            old = self._remembering(names, MOST[value.ndim] if most is None else most)
            places = _places(names, old.names)
            value = _laid_out(value, places, torch.nan)
            new = _laid_out(new, places, 0.0) if isinstance(new, Tensor) else new
        seen = (~(value if value.ndim == 1 else value.diagonal()).isnan()).double()
        keep = 1 - seen * new
        counts = _of_pairs(new, value.ndim) if isinstance(new, Tensor) else new
        return RunningMean(
            old.names,
            _of_pairs(keep, value.ndim) * old.total + counts * value.nan_to_num(nan=0.0),
            keep * old.weight + new * seen,
            (0,) * len(names) if old is self else old.absent,
        )

    def mean(self, names: Sequence[str]) -> Tensor:
        """Return the mean of each of ``names`` (or pair), float64 on the CPU, NaN if it was never seen."""
        names, total, weight = tuple(names), self.total, self.weight
        if names != self.names:
            places = _places(self.names, names)
            total, weight = _laid_out(total, places, torch.nan), _laid_out(weight, places, torch.nan)
        return total / _of_pairs(weight, total.ndim)

    def batches(self, names: Sequence[str], horizon: float | Tensor) -> Tensor:
        """Return the effective number of batches in the mean of each of ``names``: float64 on the CPU, 0 if never seen.

        It is (sum f^t)^2 / sum f^2t over the batches that were seen, 1 after the first and 2 horizon - 1 in the long
        run: with W = ``weight``, W (2 h - 1) / (2 - W).

        Args:
            names: names of channels.
            horizon: as in :meth:`update`, the same for all batches.
        """
        names, weight = tuple(names), self.weight
        if names != self.names:
            weight = _laid_out(weight, _places(self.names, names), 0.0)
        return weight * (2 / torch.as_tensor(_share(horizon)) - 1) / (2 - weight)

    def to_state(self) -> dict[str, Any]:
        """Return a state with tensors. :func:`rvpo.core.state.plain` turns these into lists for a checkpoint."""
        return {"names": self.names, "total": self.total, "weight": self.weight, "absent": self.absent}

    @classmethod
    def from_state(cls, state: State | None, dimensions: int) -> RunningMean:
        """Undo :meth:`to_state`, to the last bit, from tensors or a checkpoint's lists; None gives an empty mean."""
        if state is None:
            return cls.empty(dimensions)
        names = tuple(state["names"])
        total, weight = (torch.as_tensor(state[key], dtype=torch.float64) for key in ("total", "weight"))
        # Older checkpoints have no ``absent``.
        absent = tuple(state.get("absent", (0,) * len(names)))
        return cls(names, total.reshape((len(names),) * dimensions), weight, absent)

    def _remembering(self, names: tuple[str, ...], most: int) -> RunningMean:
        """Add the names of a batch, count absences, and drop names while there are more than ``most``."""
        known, here = set(self.names), set(names)
        fresh = [name for name in names if name not in known]
        stay = list(range(len(self.names)))
        if (surplus := len(known) + len(fresh) - most) > 0:
            numbers = zip(self.absent, self.weight.tolist(), self.names, stay, strict=True)
            gone = sorted((-absent, weight, name, i) for absent, weight, name, i in numbers if name not in here)
            dropped = {i for *_, i in gone[:surplus]}
            stay = [i for i in stay if i not in dropped]
        places = torch.tensor([*stay, *[len(self.names)] * len(fresh)], dtype=torch.int64)
        kept = [self.names[i] for i in stay]
        return RunningMean(
            (*kept, *fresh),
            _laid_out(self.total, places, 0.0),
            _laid_out(self.weight, places, 0.0),
            (
                *(0 if name in here else self.absent[i] + 1 for i, name in zip(stay, kept, strict=True)),
                *[0] * len(fresh),
            ),
        )


def _share(horizon: float | Tensor) -> float | Tensor:
    """Return the weight of the current batch, 1 / horizon: a number or (n,) float64 on the CPU."""
    if isinstance(horizon, Tensor):
        return 1 / horizon.detach().cpu().double().clamp(min=1)
    return 1 / max(horizon, 1.0)


def _of_pairs(x: Tensor, dimensions: int) -> Tensor:
    """Return a scale of channels (K,) as the scale of pairs, (K, K), if there are two dimensions."""
    return x if dimensions == 1 else torch.outer(x, x).sqrt_()


def _places(names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return the index of each of ``wanted`` in ``names``, int64; the number of names if it is absent."""
    place = {name: i for i, name in enumerate(names)}
    return torch.tensor([place.get(name, len(names)) for name in wanted], dtype=torch.int64)


def _laid_out(x: Tensor, places: Tensor, fill: float) -> Tensor:
    """Rearrange every dimension of x by places; absent entries are ``fill``."""
    # An additional entry at the end represents all absent ones.
    x = torch.nn.functional.pad(x, (0, 1) * x.ndim, value=fill)
    for dimension in range(x.ndim):
        x = x.index_select(dimension, places)
    return x
