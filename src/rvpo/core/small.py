"""Small batches on a CPU, in NumPy. A step of 64 completions costs calls, not work, and NumPy's calls cost less.

The layout and the formulas are those of :mod:`rvpo.core.blocks` and :mod:`rvpo.core.summary`, in double precision. A
batch with a missing reward, or a machine without NumPy, is left to those files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rvpo.core.aggregate import TIE
from rvpo.core.blocks import FLOAT64, LOG2E, SMALL, Rule, UnfitError, Weights
from rvpo.core.config import AdvantageConfig
from rvpo.core.lazy import Tensor, has_numpy, numpy, torch
from rvpo.core.summary import Summary

Array = Any
"""A NumPy array of float64, unless said otherwise. NumPy is not needed to import this file."""


def in_work_layout(values: Tensor) -> Array | None:
    """Return a copy of rewards in work layout, (G, P, M); None if the batch is not small, or NumPy cannot read it.

    Args:
        values: (P, G, M) rewards.
    """
    is_readable = values.dtype in (torch.float32, torch.float64) and values.device.type == "cpu"
    if values.numel() > SMALL or not is_readable or not has_numpy():
        return None
    return values.numpy().transpose(1, 0, 2).astype(numpy.float64, order="C")


def as_array(weights: Weights, channels: int) -> Array:
    """Return weights as (M,), also if all are equal."""
    return numpy.full(channels, weights) if isinstance(weights, float) else weights.numpy()


@dataclass(slots=True)
class Scores:
    """Rewards of a batch, centred in their groups.

    Attributes:
        x: (G, P, M) deviations from the group's mean.
        mean: (P, M) mean of the group.
        squares: (P, M) sums of squared deviations.
        std: (P, M) standard deviations.
        live: (P, M) bool, whether a channel ranks a group; None if all do.
        scale: (P, M) 1 / (std + eps), 0 where not live.
    """

    x: Array
    mean: Array
    squares: Array
    std: Array
    live: Array | None
    scale: Array

    @classmethod
    def of(cls, x: Array, eps: float, config: AdvantageConfig) -> Scores:
        """Centre rewards (G, P, M), which are overwritten.

        Args:
            x: the rewards.
            eps: number added to standard deviations.
            config: the other options of the normalisation.

        Raises:
            UnfitError: a reward is missing or too large.
        """
        high, low = numpy.maximum.reduce(x), numpy.minimum.reduce(x)
        largest = numpy.maximum(high, -low)
        if not numpy.maximum.reduce(largest, None) < FLOAT64.range:  # also if one is NaN
            raise UnfitError
        ranges = high - low
        live = ranges > numpy.maximum(largest, eps) * config.rtol
        # Relative to the middle of the group, so that large rewards that are close together keep all digits.
        middle = low + 0.5 * ranges
        x -= middle
        offset = numpy.add.reduce(x) / len(x)
        x -= offset
        squares = numpy.einsum("gpm,gpm->pm", x, x)
        std = numpy.sqrt(squares / (len(x) - config.ddof))
        scale = 1 / (std + eps)
        every = bool(numpy.logical_and.reduce(live, None))
        return cls(x, middle + offset, squares, std, None if every else live, scale if every else scale * live)

    @property
    def z(self) -> Array:
        """z-scores (G, P, M), 0 where dead."""
        return self.x * self.scale

    def everywhere_live(self) -> Array:
        """Return (P, M) bool, whether a channel ranks a group."""
        return numpy.ones(self.scale.shape, dtype=bool) if self.live is None else self.live

    def responsibilities(self, rule: Rule, weights: Array) -> Array:
        """Return responsibilities, (G, P, M), or (1, P, M) if they are the same for all completions of a group.

        Args:
            rule: the rule that aggregates channels.
            weights: (M,) weights of the channels.
        """
        present = self.everywhere_live() if rule.drops or rule.k is None else 1.0
        if rule.k:
            pull = numpy.exp2(self.x * (self.scale * (-rule.k * LOG2E))) * (present * weights)
        elif rule.k is None:  # in units of z a channel of a sum counts by its standard deviation
            pull = (self.std * weights * present)[None]
        else:
            pull = numpy.broadcast_to(present * weights, self.scale.shape)[None]
        total = numpy.add.reduce(pull, -1, keepdims=True)
        return pull / numpy.where(total == 0, 1.0, total)

    def aggregated(self, rule: Rule, weights: Array) -> tuple[Array, Array | None]:
        """Return the aggregate (G, P), and which groups take part, (P,) bool; None if all do.

        Args:
            rule: a rule over z-scores.
            weights: (M,) weights of the channels, which sum to 1.
        """
        assert rule.k is not None
        present = self.live if rule.drops else None
        if rule.k == 0:
            value = numpy.einsum("gpm,pm->gp", self.x, self.scale * weights)
        else:
            odds = numpy.exp2(self.x * (self.scale * (-rule.k * LOG2E)))
            value = odds @ weights if present is None else numpy.einsum("gpm,pm->gp", odds, present * weights)
        taking = None
        if present is not None:
            total = present @ weights
            taking = total > 0
            total[~taking] = 1.0
            if not (rule.k == 0 and rule.sums):
                value /= total
            if rule.k:
                value[:, ~taking] = 1.0
        return (numpy.log(value) * (-1 / rule.k) if rule.k else value), taking


def summed(x: Array, weights: Array) -> Array:
    """Return the weighted sum of rewards (G, P, M), (G, P).

    Raises:
        UnfitError: a reward is missing or too large.
    """
    _require_fit(x)  # before NumPy warns of them
    value = x @ weights
    _require_fit(value)
    return value


def _require_fit(x: Array) -> None:
    if not numpy.maximum.reduce(numpy.abs(x), None) < FLOAT64.range:  # also if a number is NaN
        raise UnfitError


def whitened(value: Array, taking: Array | None, eps: float, config: AdvantageConfig) -> Array:
    """Return (G, P) centred and scaled by the option ``whiten``; 0 in groups that do not take part.

    Args:
        value: (G, P).
        taking: (P,) bool, which groups take part; None if all do.
        eps: number added to standard deviations.
        config: the method and its options.
    """
    centres, std = config.method.centres_groups, 0.0
    if config.whiten == "batch":
        z, std = standardised(value if taking is None else value[:, taking], eps, config)
        if not centres:
            return z if taking is None else _spread(z, taking, value)
    if config.whiten == "none" and not centres:
        found = value
    else:
        # Here a row is a completion with a single channel, so the normalisation of rewards can be reused.
        scores = Scores.of(value[:, :, None].copy(), eps, config)
        found = scores.x if scores.live is None else scores.x * scores.live
        if config.whiten == "group":
            found = found * scores.scale
        elif config.whiten == "batch":
            found = found / (std + eps)
        found = found[:, :, 0]
    return found if taking is None else found * taking


def _spread(part: Array, taking: Array, like: Array) -> Array:
    """Return (G, P) with the columns of ``part`` where ``taking`` (P,) is True, otherwise 0."""
    found = numpy.zeros_like(like)
    found[:, taking] = part
    return found


def standardised(a: Array, eps: float, config: AdvantageConfig) -> tuple[Array, float]:
    """Return (a - mean) / (std + eps) of all numbers, and their standard deviation; 0 and 0 if all are equal."""
    if a.size < 2:
        return numpy.zeros_like(a), 0.0
    low, high = float(numpy.minimum.reduce(a, None)), float(numpy.maximum.reduce(a, None))
    if not high - low > config.rtol * max(abs(low), abs(high), eps):
        return numpy.zeros_like(a), 0.0
    deviation = a - numpy.add.reduce(a, None) / a.size
    flat = deviation.ravel()
    std = math.sqrt(flat.dot(flat) / (a.size - config.ddof))
    return deviation / (std + eps), std


def products(cells: Tensor) -> Tensor:
    """Return the products of columns (n, M) float64, summed over the rows, (M, M). The batch may be large."""
    if cells.device.type != "cpu" or not has_numpy():
        return cells.T @ cells
    x = cells.numpy()
    return torch.from_numpy(x.T @ x)  # NumPy computes half of a symmetric matrix, torch all of it


@dataclass(slots=True)
class SmallDeviations:
    """The deviations from which LIFT decides, see :class:`rvpo.core.fast_lift.Deviations`.

    Attributes:
        d: (G, P, M) deviations of attained shares from their group's mean.
        live: (P, M) bool, whether a channel differs within a group.
        masks: whether ``live`` had to be applied, because d was not exactly 0 by itself.
        means: (P, M) mean attained shares of the groups.
    """

    d: Array
    live: Array
    masks: bool
    means: Array

    @classmethod
    def of(
        cls,
        x: Array,
        ends: tuple[Array, Array],
        scales: Array | None,
        clear: float,
        least: float,
        config: AdvantageConfig,
    ) -> SmallDeviations:
        """Compute the deviations of rewards.

        Args:
            x: (G, P, M) rewards, which are overwritten.
            ends: lowest and highest reward of each group, (P, M) each, which are overwritten.
            scales: (2, M) lower ends and widths of the scales; None if all rewards equal their attained shares.
            clear: smallest range of attained shares with which a channel certainly has deviations.
            least: a deviation up to this counts as 0.
            config: numerical options.

        Raises:
            UnfitError: it is not clear whether a channel has deviations in a group.
        """
        low, high = ends
        live = high - low > numpy.maximum(numpy.maximum(high, -low), config.eps) * config.rtol
        if scales is not None:
            first, width = scales
            if not numpy.minimum.reduce(width) > 0:  # half attained, for any reward
                raise UnfitError
            for part in (x, low, high):
                part -= first
                part /= width
                numpy.clip(part, 0.0, 1.0, out=part)
        ranges = high - low
        differs = ranges > 0
        both = live & differs
        if numpy.minimum.reduce(numpy.where(both, ranges, math.inf), None) < clear:
            raise UnfitError
        masks = bool((both != differs).any())
        means = numpy.add.reduce(x) / len(x)
        x -= means
        d = numpy.where(numpy.abs(x) > least, x, 0.0)
        return cls(d * both if masks else d, both, masks, means)

    def products(self, shares: Array) -> Array:
        """Return the mean of u u' over the completions that take part, (M, M), where u = shares times d."""
        taking = self.live.any(1)
        cells = self.d.reshape(-1, len(shares)) * shares
        return cells.T @ cells / max(int(taking.sum()) * len(self.d), 1)


def summarised_small(scores: Scores, rule: Rule, weights: Array, advantages: Array, aggregated_std: float) -> Summary:
    """Return the metrics of a small batch, see :func:`rvpo.core.summary.summarised`.

    Args:
        scores: the batch.
        rule: the rule that aggregates channels.
        weights: (M,) weights of the channels.
        advantages: (G, P) advantages.
        aggregated_std: standard deviation of the values before whitening.
    """
    size, groups, _ = scores.x.shape
    live, z = scores.everywhere_live(), scores.z
    ranking = live.any(1)  # (P,)
    number = numpy.count_nonzero(live, 0)
    counted, signal = number * size, int(numpy.count_nonzero(ranking)) * size
    pulls = numpy.broadcast_to(scores.responsibilities(rule, weights) * ranking[:, None], z.shape)
    decided = pulls * live  # none is negative
    total, squares = numpy.add.reduce(decided, -1), numpy.einsum("gpm,gpm->gp", decided, decided)
    decides = total > 0
    effective = total[decides] ** 2 / squares[decides]
    apart = scores.mean - numpy.add.reduce(scores.mean) / groups
    spread = numpy.add.reduce(scores.squares + size * apart * apart) / (groups * size - 1)
    a = numpy.add.reduce(advantages) @ live
    products = numpy.einsum("gpm,gp->m", z, advantages)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        a_spread = numpy.add.reduce(advantages * advantages) @ live - a * a / counted
        z_squared = numpy.add.reduce(scores.squares * scores.scale * scores.scale)
        columns = [
            numpy.add.reduce(scores.mean) / groups,
            numpy.sqrt(spread),
            number / groups,
            1 - number / groups,
            numpy.zeros(len(number)),
            numpy.add.reduce(pulls, (0, 1)) / numpy.float64(signal),
            numpy.add.reduce(_lowest(z, live), (0, 1)) / numpy.float64(signal),
            products / numpy.sqrt(a_spread * z_squared),  # within a group z has the mean 0
        ]
    mean = float(effective.mean()) if len(effective) else math.nan
    of_channels, ranks = torch.from_numpy(numpy.array(columns)), torch.from_numpy(number > 0)
    return Summary(of_channels, ranks, signal / size / groups, signal, mean, aggregated_std)


def _lowest(z: Array, live: Array) -> Array:
    """Return which live channel of a completion is lowest, (G, P, M); ties share, 0 without live channels."""
    z = numpy.where(live, z, math.inf)
    tied = (z <= numpy.minimum.reduce(z, -1, keepdims=True) + TIE) & live
    return tied / numpy.maximum(numpy.count_nonzero(tied, -1, keepdims=True), 1)
