"""The fast path of :func:`rvpo.core.advantages.compute`, for batches that :mod:`rvpo.core.blocks` supports.

All groups have one size, in any order. Each channel has one weight above 0. There is no filter, structure, reliability
or gradient. The method is the mean, the soft minimum or the sum. Any other batch is computed by ``compute``
automatically, with the same result.

Only advantages are computed. z-scores, responsibilities and live masks are computed when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from rvpo.core.blocks import LEAST_SHARE, SMALL, Blocks, Chunk, Found, Rule, UnfitError, Weights
from rvpo.core.config import AdvantageConfig
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.gdpo import GDPO
from rvpo.core.methods.grpo import GRPO
from rvpo.core.methods.rvpo import RVPO
from rvpo.core.metrics import Advantages
from rvpo.core.schedules import Schedule
from rvpo.core.small import Array, Scores, as_array, in_work_layout, summarised_small, summed
from rvpo.core.small import whitened as whitened_small
from rvpo.core.summary import Met, Summary, met_counts, standard_deviation, summarised
from rvpo.core.weights import LARGEST
from rvpo.errors import RewardError

LEAST_K = 0.25
"""For a smaller k the logarithm of the soft minimum needs the exact formula of :mod:`rvpo.core.aggregate`."""
SPREAD = 0.2
"""Standard deviation of aggregates below which float32 is not exact enough."""


def fast_advantages(
    rewards: Tensor,
    config: AdvantageConfig,
    groups: Tensor | Groups | None,
    num_generations: int | None,
    weights: Tensor | Sequence[float] | None,
    progress: float | None,
) -> Advantages | None:
    """Return the result of :func:`rvpo.core.advantages.compute`; None if ``compute`` itself must compute it.

    Args:
        rewards: see ``compute``, also for the others. They need not be checked before: ``compute`` reports errors.
        config: the method and its options.
        groups: see above.
        num_generations: see above.
        weights: see above.
        progress: see above.
    """
    rule = rule_of(config, progress)
    if rule is None or config.wanted or config.whiten == "token" or not is_plain(rewards):
        return None
    with torch.no_grad():
        w = channel_weights(weights, rewards)
        found = None if w is None else in_blocks(rewards, groups, num_generations)
        if w is None or found is None:
            return None
        # Within a group, aggregates may be arbitrarily close to each other.
        is_wide = rewards.dtype != torch.float32 or rewards.numel() <= SMALL or config.whiten == "group"
        for dtype in (torch.float64,) if is_wide or rule.k is None else (torch.float32, torch.float64):
            try:
                return Fitting(rewards, config, rule, w, *found, dtype).result()
            except UnfitError:
                continue
    return None


def rule_of(config: AdvantageConfig, progress: float | None) -> Rule | None:
    """Return the rule of a method; None for a method that this file does not support."""
    method, drops = config.method, config.dead_channels == "drop"
    if type(method) is RVPO:
        if isinstance(method.k, Schedule) and progress is None:
            return None
        k = method.risk(progress)
        is_known = not method.remembers and (k == 0 or LEAST_K <= k < torch.inf)
        return Rule(k, drops) if is_known else None
    if type(method) is GDPO:
        return Rule(0.0, drops, method.unscored == "zero")
    if type(method) is GRPO and method.unscored == "zero":
        return Rule(None, drops, sums=True)
    return None


def is_plain(rewards: Tensor) -> bool:
    """Return whether rewards are a matrix that needs no gradient, on a device with double precision."""
    return (
        type(rewards) is torch.Tensor
        and rewards.ndim == 2
        and rewards.numel() > 0
        and rewards.is_floating_point()
        and rewards.device.type in ("cpu", "cuda")
        and not rewards.requires_grad
    )


def channel_weights(weights: Tensor | Sequence[float] | None, rewards: Tensor) -> Weights | None:
    """Return weights, (M,) float64, or one number if all are equal; None if they are per cell, 0 or wrong."""
    if weights is None:
        return 1.0
    if isinstance(weights, Tensor) and weights.requires_grad:
        return None
    given = weights.tolist() if isinstance(weights, Tensor) else list(weights)
    if len(given) != rewards.shape[1] or not all(isinstance(weight, int | float) for weight in given):
        return None
    least = LEAST_SHARE * sum(given)
    if not (least > 0 and all(least < weight <= LARGEST for weight in given)):
        return None
    if all(weight == given[0] for weight in given):
        return float(given[0])
    return torch.tensor(given, dtype=torch.float64, device=rewards.device)


def in_blocks(
    rewards: Tensor, groups: Tensor | Groups | None, num_generations: int | None
) -> tuple[Groups, Tensor | None] | None:
    """Return the groups, and an order of rows in which groups form blocks, or None if they do already.

    Return None for both if groups differ in size, have one completion each, or are not given correctly.
    """
    rows = len(rewards)
    if isinstance(groups, Groups):
        if len(groups.index) != rows:
            return None
        if groups.block is not None:
            return (groups, None) if groups.block > 1 else None
        ids: Tensor | None = groups.index
    else:
        ids = groups
    if (ids is None) == (num_generations is None) and not isinstance(groups, Groups):
        return None
    if ids is None:
        if type(num_generations) is not int or num_generations < 2 or rows % num_generations:
            return None
        return Groups.from_blocks(rows, num_generations, rewards.device), None
    is_integer = isinstance(ids, Tensor) and not (ids.is_floating_point() or ids.is_complex())
    if not is_integer or ids.dtype == torch.bool or ids.shape != (rows,):
        return None
    return _sorted(ids.to(rewards.device), groups if isinstance(groups, Groups) else None)


def _sorted(ids: Tensor, known: Groups | None) -> tuple[Groups, Tensor] | None:
    values, order = torch.sort(ids, stable=True)
    count = int((values[1:] != values[:-1]).sum()) + 1
    size, left = divmod(len(ids), count)
    if left or size < 2:
        return None
    blocks = values.view(count, size)
    if not bool((blocks[:, 0] == blocks[:, -1]).all()):
        return None
    if known is not None:
        return known, order
    index = torch.empty_like(order)
    index[order] = torch.arange(count, device=ids.device).repeat_interleave(size)
    return Groups(index, count), order


@dataclass(slots=True)
class Fitting:
    """A batch that the fast path supports.

    Attributes:
        rewards: (N, M) rewards as given.
        config: numerical options.
        rule: rule that aggregates channels.
        weights: weights of the channels, (M,) float64, or one number if all are equal.
        groups: the partition of the rows.
        order: (N,) order of rows in which groups form blocks; None if they do already.
        dtype: dtype of the computation.
    """

    rewards: Tensor
    config: AdvantageConfig
    rule: Rule
    weights: Weights
    groups: Groups
    order: Tensor | None
    dtype: torch.dtype

    def blocks(self) -> Blocks:
        """Return the rewards in blocks, and the weights as shares; for a sum the weights do not change."""
        values = self.rewards if self.order is None else self.rewards.index_select(0, self.order)
        weights = self.weights if self.rule.sums else self.weights / self.total
        if isinstance(weights, Tensor):
            weights = weights.to(self.dtype)
        config = self.config
        return Blocks(
            values.reshape(self.groups.count, -1, values.shape[1]),
            weights,
            config.eps,
            config.ddof,
            config.rtol,
            self.dtype,
        )

    @property
    def total(self) -> float:
        """Sum of the weights."""
        weights = self.weights
        return float(weights.sum()) if isinstance(weights, Tensor) else weights * self.rewards.shape[1]

    def result(self) -> Advantages:
        """Compute the advantages.

        Raises:
            UnfitError: ``compute``, or double precision, is needed.
        """
        blocks = self.blocks()
        blocks.check(self.rule)
        found, advantages = self._in_numpy(blocks) or self._in_torch(blocks)
        return Advantages.with_later(
            Kept(self, found, version_of(self.rewards)),
            advantages=advantages,
            rewards=self.rewards,
            groups=self.groups,
            method_metrics={"k": self.rule.k} if self.config.method.name == "rvpo" else {},
        )

    def _in_torch(self, blocks: Blocks) -> tuple[Found, Tensor]:
        """Return the aggregates and the advantages."""
        found = blocks.aggregated(self.rule)
        if found.has_holes and self.config.missing == "error":
            raise UnfitError
        whitened = self.whitened(found.value, found.takes_part, self.eps(found.weight))
        return found, self.rows(whitened, self.rewards.dtype)

    def _in_numpy(self, blocks: Blocks) -> tuple[Found, Tensor] | None:
        """Return the aggregates and the advantages of a small batch; None if they must be computed in torch."""
        x = in_work_layout(blocks.values)
        if x is None:
            return None
        weights = as_array(blocks.weights, blocks.values.shape[2])
        taking = None
        try:
            if self.rule.k is None:
                value = summed(x, weights)
            else:
                value, taking = Scores.of(x, self.config.eps, self.config).aggregated(self.rule, weights)
            whitened = whitened_small(value, taking, self.eps(1.0), self.config)
        except UnfitError:
            return None
        return self.found_small(value, taking), self.rows_small(whitened)

    def eps(self, scored: float) -> float:
        """Return the number added to the standard deviation of aggregates.

        Args:
            scored: share of the weights that was scored.
        """
        return self.config.eps if self.config.method.sums_weights else self.config.eps / (scored * self.total)

    def found_small(self, value: Array, taking: Array | None) -> Found:
        """Return aggregates (G, P) of NumPy, of the groups ``taking`` (P,), as tensors."""
        a = torch.from_numpy(value)
        takes_part = None if taking is None else torch.from_numpy(taking).expand_as(a)
        return Found(a, takes_part, 1.0, False, [self.rewards.clone()], keeps_rewards=True)

    def rows_small(self, x: Array) -> Tensor:
        """Return a copy of (G, P) of NumPy as rows (N,) in the order and the dtype of the rewards."""
        narrow = "float32" if self.rewards.dtype == torch.float32 else "float64"
        return self.in_order(torch.from_numpy(x.T.astype(narrow, order="C").reshape(-1)))

    def rows(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a copy of (G, P) as rows (N,) in the order of the rewards."""
        return self.in_order(x.T.reshape(-1).to(dtype, copy=True))

    def in_order(self, flat: Tensor) -> Tensor:
        """Return rows (N, …), given in blocks, in the order of the rewards."""
        return flat if self.order is None else torch.empty_like(flat).index_copy_(0, self.order, flat)

    def whitened(self, a: Tensor, takes_part: Tensor | None, eps: float) -> Tensor:
        """Return (G, P) float64 centred and scaled by the option ``whiten``; 0 for rows that do not take part.

        Raises:
            UnfitError: float32 is not exact enough.
        """
        config = self.config
        if config.whiten == "none" and not config.method.centres_groups:
            return a if takes_part is None else a.masked_fill(~takes_part, 0.0)
        if config.whiten == "batch":
            z, std = _standardised(a if takes_part is None else a[takes_part], eps, config.ddof, config.rtol)
            if self.dtype == torch.float32 and std < SPREAD:
                raise UnfitError
            if not config.method.centres_groups:
                return z if takes_part is None else torch.zeros_like(a).masked_scatter_(takes_part, z)
        # Here a row is a completion with a single channel, so the normalisation of rewards can be reused.
        counted = a if takes_part is None else a.masked_fill(~takes_part, torch.nan)
        blocks = Blocks(counted.T[:, :, None], 1.0, eps, config.ddof, config.rtol, torch.float64)
        whitened = torch.empty_like(blocks.values)
        blocks.fill(whitened, Chunk.z if config.whiten == "group" else Chunk.live_deviations)
        if config.whiten == "batch":
            whitened.div_(std + eps)
        return whitened[:, :, 0].T


def _standardised(a: Tensor, eps: float, ddof: int, rtol: float) -> tuple[Tensor, float]:
    """Return (a - mean) / (std + eps) of all numbers, and their standard deviation; 0 and 0 if all are equal."""
    if a.numel() < 2:
        return torch.zeros_like(a), 0.0
    low, high = (float(end) for end in torch.aminmax(a))
    if not high - low > rtol * max(abs(low), abs(high), eps):
        return torch.zeros_like(a), 0.0
    deviation = a - a.mean()
    flat = deviation.reshape(-1)
    std = math.sqrt(float(torch.dot(flat, flat)) / (a.numel() - ddof))
    return deviation.div_(std + eps), std


def version_of(x: Tensor) -> int | None:
    """Return how often a tensor was changed in place; None if torch does not count it."""
    return None if x.is_inference() else x._version


@dataclass(slots=True)
class Kept:
    """Computes the other attributes from the same rewards.

    Attributes:
        batch: the batch.
        found: aggregates from which the advantages were computed.
        version: version of the rewards, see :func:`version_of`.
    """

    batch: Fitting
    found: Found
    version: int | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a copy count changes of its own rewards from now on. The trace shows whether they changed before."""
        return _copied, (type(self), [getattr(self, field.name) for field in fields(self)])

    def __call__(self, name: str) -> Any:
        """Return an attribute of :class:`Advantages`."""
        rewards, takes_part = self.batch.rewards, self.found.takes_part
        if name == "applies":
            return _everywhere(True, rewards)
        if name == "missing":
            return rewards.isnan() if self.found.has_holes else _everywhere(False, rewards)
        if name == "aggregated":
            return self.batch.rows(self.found.value, rewards.dtype)
        if name == "takes_part":
            everybody = _everywhere(True, rewards[:, 0])
            return everybody if takes_part is None else self.batch.rows(takes_part, torch.bool)
        with torch.no_grad():
            return self._filled("live").any(-1) if name == "signal" else self._filled(name)

    def summary(self, advantages: Tensor) -> Summary | None:
        """Return the metrics of the batch; None if a reward is missing.

        Args:
            advantages: (N,) as they are now.
        """
        if not self._is_whole():
            return None
        value, takes_part = self.found.value, self.found.takes_part
        counted = value.flatten() if takes_part is None else value[takes_part]
        counted = counted.to(self.batch.rewards.dtype)  # as ``aggregated`` has them
        batch, blocks = self.batch, self.batch.blocks()
        with torch.no_grad():
            scores = self._scores(blocks)
            if scores is None:
                return summarised(blocks, batch.rule, self._in_blocks(advantages), counted)
            weights = as_array(blocks.weights, blocks.values.shape[2])
            a = self._in_blocks(advantages).numpy().astype("float64")
            return summarised_small(scores, batch.rule, weights, a, standard_deviation(counted))

    def met(self, ends: Tensor, counting: Tensor, advantages: Tensor) -> Met | None:
        """Return how many completions meet the channels, see :func:`met_counts`; None if a reward is missing.

        Args:
            ends: (M,).
            counting: (M,).
            advantages: (N,) as they are now.
        """
        if not self._is_whole():
            return None
        with torch.no_grad():
            return met_counts(self.batch.blocks().values, ends, counting, self._in_blocks(advantages))

    def _is_whole(self) -> bool:
        """Return whether all rewards are present and unchanged."""
        rewards = self.batch.rewards
        is_exact = rewards.dtype in (torch.float32, torch.float64)
        return is_exact and not self.found.has_holes and self.version == version_of(rewards)

    def _in_blocks(self, rows: Tensor) -> Tensor:
        """Return (N,) as (G, P)."""
        order = self.batch.order
        return (rows if order is None else rows.index_select(0, order)).view(self.batch.groups.count, -1).T

    def _scores(self, blocks: Blocks) -> Scores | None:
        """Return the scores of a small batch; None for other batches, and if its rewards have changed."""
        if not self.found.keeps_rewards:
            return None
        x = in_work_layout(blocks.values)
        try:
            return None if x is None else Scores.of(x, blocks.eps, self.batch.config)
        except UnfitError:
            return None

    def _filled_small(self, name: str, scores: Scores, blocks: Blocks) -> Tensor:
        """Return z-scores, responsibilities or the live mask of a small batch, (N, M)."""
        kind = "float32" if self.batch.rewards.dtype == torch.float32 else "float64"
        if name == "live":
            found, kind = scores.everywhere_live()[None], "bool"
        elif name == "z":
            found = scores.z
        else:
            found = scores.responsibilities(self.batch.rule, as_array(blocks.weights, blocks.values.shape[2]))
        rows = torch.from_numpy(found.transpose(1, 0, 2).astype(kind, order="C")).expand_as(blocks.values)
        return self.batch.in_order(rows.flatten(0, 1))

    def _filled(self, name: str) -> Tensor:
        """Return z-scores, responsibilities or the live mask, (N, M)."""
        batch, trace = self.batch, list[Tensor]()
        blocks = batch.blocks()
        scores = self._scores(blocks)
        if scores is not None:
            self.require_same(name, self.retraced())
            return self._filled_small(name, scores, blocks)

        def taken(chunk: Chunk) -> Tensor:
            trace.append(chunk.squares)
            if name == "live":
                return chunk.live_cells()
            if name == "responsibilities":
                return chunk.responsibilities(batch.rule, blocks.weights)
            return chunk.z() if chunk.there is None else chunk.z().masked_fill_(chunk.there == 0, torch.nan)

        dtype = torch.bool if name == "live" else batch.rewards.dtype
        filled = torch.empty(blocks.values.shape, dtype=dtype, device=batch.rewards.device)
        blocks.fill(filled, taken)
        if batch.rule.k is None or self.found.keeps_rewards:
            trace = self.retraced()
        self.require_same(name, trace)
        return batch.in_order(filled.flatten(0, 1))

    def retraced(self) -> list[Tensor]:
        """Return the trace of the batch for its present rewards."""
        if self.found.keeps_rewards:
            return [self.batch.rewards]
        return self.batch.blocks().aggregated(self.batch.rule).trace

    def require_same(self, name: str, trace: list[Tensor]) -> None:
        """Refuse to compute an attribute from rewards that were changed.

        Args:
            name: name of the attribute.
            trace: trace of the present rewards, see :class:`Found`.

        Raises:
            RewardError: the rewards were changed.
        """
        is_same = self.version == version_of(self.batch.rewards)
        if not is_same or not all(map(torch.equal, trace, self.found.trace)):
            raise RewardError(
                f"the rewards of this batch were changed in place before {name} was read, which is computed from them; "
                "expected the rewards as they were given. Read it first, or pass rewards.clone()"
            )


def _copied(kind: type[Kept], values: list[Any]) -> Kept:
    made = kind(*values)
    made.version = version_of(made.batch.rewards)
    return made


def _everywhere(value: bool, like: Tensor) -> Tensor:
    return torch.tensor(value, device=like.device).expand(like.shape)
