"""A running mean over batches, by channel name: what methods remember of a run.

The mean is names and numbers, so that a checkpoint restores it to the last bit; and because every process sees the
rewards of all of them, it is the same for any number of processes.

**What is forgotten.** A run may meet 100,000 labels, 32 new ones in every batch, and a mean of pairs holds the square
of the number of names. So at most ``MOST`` names are remembered. If there are more, the names that have been absent for
the longest time are dropped; among equals, the smallest weight goes first, because it loses least, and then the name
decides. The names of the current batch always stay, even if they are more. A dropped name that comes back begins anew.

The limit is on the number of names and not on the time of absence, because time says nothing about use: a channel that
is in every 50th batch of a run with 20 channels costs nothing and is never forgotten. In a run of many labels, a rare
label keeps its own mean longer (2,048 names: 63 batches with 32 new names each) than its pairs with others (160 names:
4 such batches). This loses little: its own mean says how far it is behind, while a pair that begins anew has the
covariance of the current batch, which is only noisier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.core.channels import State
from rvpo.core.lazy import Tensor, torch

MOST = {1: 2048, 2: 160}
"""How many names a mean of channels (1) and of pairs (2) remembers. Both together are under 1 MB in a checkpoint."""


@dataclass(frozen=True)
class RunningMean:
    """An exponential mean over batches, for named channels or pairs of them; one that is absent does not fade.

    ``mean = sum_t f^t x_t / sum_t f^t`` with f = 1 - 1/horizon, over the batches t = 0 (this one), 1, … that have it.
    If horizons differ, a batch counts 1 / its own horizon, and what came before it keeps the rest.

    Attributes:
        names: K names.
        total: decayed sum of the batches' values, (K,) or (K, K), float64 on the CPU.
        weight: (K,) the same of the number of batches. The mean is their ratio, so that the first batch counts in full.
        absent: K numbers of batches since the name was last in one.

    A pair is scaled by the geometric means of what its two channels are scaled by. Where all channels are always there,
    that is the same for all; where they come and go, covariances stay positive semidefinite.
    """

    names: tuple[str, ...]
    total: Tensor
    weight: Tensor
    absent: tuple[int, ...]

    @classmethod
    def empty(cls, dimensions: int) -> RunningMean:
        """Begin anew, for channels (1) or pairs of channels (2)."""
        return cls((), torch.zeros((0,) * dimensions, dtype=torch.float64), torch.zeros(0, dtype=torch.float64), ())

    def update(
        self, names: Sequence[str], value: Tensor, horizon: float | Tensor, *, most: int | None = None
    ) -> RunningMean:
        """Take in a batch; the past of what was seen fades by 1 - 1/horizon.

        Args:
            names: of the n channels in the batch, unique.
            value: (n,) or (n, n) of the batch, NaN = not seen. A pair is seen where its diagonal entries are.
            horizon: batches over which the mean is taken, one number or (n,); less than 1 counts as 1, no memory.
            most: how many names are remembered, those of the batch in any case; None: see ``MOST``.
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
        """Return the mean for each of ``names`` (or pair), float64 on the CPU, NaN where it was never seen."""
        names, total, weight = tuple(names), self.total, self.weight
        if names != self.names:
            places = _places(self.names, names)
            total, weight = _laid_out(total, places, torch.nan), _laid_out(weight, places, torch.nan)
        return total / _of_pairs(weight, total.ndim)

    def batches(self, names: Sequence[str], horizon: float | Tensor) -> Tensor:
        """Return how many batches the mean of each of ``names`` is worth: float64 on the CPU, 0 if never seen.

        It is (sum f^t)^2 / sum f^2t over the batches that were seen, 1 after the first and 2 horizon - 1 in the long
        run: with W = ``weight``, W (2 h - 1) / (2 - W).

        Args:
            names: of channels.
            horizon: as in :meth:`update`, the same for all batches.
        """
        names, weight = tuple(names), self.weight
        if names != self.names:
            weight = _laid_out(weight, _places(self.names, names), 0.0)
        return weight * (2 / torch.as_tensor(_share(horizon)) - 1) / (2 - weight)

    def to_state(self) -> dict[str, Any]:
        """Return a state; it holds tensors, which :func:`rvpo.core.state.plain` turns into lists for a checkpoint."""
        return {"names": self.names, "total": self.total, "weight": self.weight, "absent": self.absent}

    @classmethod
    def from_state(cls, state: State | None, dimensions: int) -> RunningMean:
        """Undo :meth:`to_state`, to the last bit, from tensors or from a checkpoint's lists; None begins anew."""
        if state is None:
            return cls.empty(dimensions)
        names = tuple(state["names"])
        total, weight = (torch.as_tensor(state[key], dtype=torch.float64) for key in ("total", "weight"))
        # Checkpoints of before names were dropped have no ``absent``.
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
    """Return what the current batch counts, 1 / horizon: a number or (n,) float64 on the CPU."""
    if isinstance(horizon, Tensor):
        return 1 / horizon.detach().cpu().double().clamp(min=1)
    return 1 / max(horizon, 1.0)


def _of_pairs(x: Tensor, dimensions: int) -> Tensor:
    """Return a scale of channels (K,) as that of pairs of them, (K, K), where there are two dimensions."""
    return x if dimensions == 1 else torch.outer(x, x).sqrt_()


def _places(names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return where each of ``wanted`` is among ``names``, int64; at the end if it is not."""
    place = {name: i for i, name in enumerate(names)}
    return torch.tensor([place.get(name, len(names)) for name in wanted], dtype=torch.int64)


def _laid_out(x: Tensor, places: Tensor, fill: float) -> Tensor:
    """Rearrange every dimension of x by places; what it does not have is ``fill``."""
    # One more entry, at the end, stands for all that is not there.
    x = torch.nn.functional.pad(x, (0, 1) * x.ndim, value=fill)
    for dimension in range(x.ndim):
        x = x.index_select(dimension, places)
    return x
