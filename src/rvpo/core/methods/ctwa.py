"""CTWA: covariance-targeted weight adaptation (Lu and Jiang 2026, arXiv 2602.06869).

The rule runs after each batch. It takes the state of K persistent channels and statistics of the batch, and returns a
new state; nothing is changed in place. All tensors are (K,) float64, on one device. ``x`` and ``attained`` are attained
shares in [0, 1], see :mod:`rvpo.core.scales`. A channel that was not scored in a batch (NaN) keeps its state.

If a step multiplies the probability of each completion by exp(step * w), where w is its weight in the loss, the mean of
x_j changes at the rate Cov(w, x_j). So the weight of a channel rises while that covariance is below a target::

    c_j  = mean over groups of Cov_group(w, x_j)        w = the advantage A before the first update of a batch, where
                                                        the importance ratio is 1 and nothing is clipped
    E_j <- (1 - decay) E_j + decay c_j                  the first c_j starts it
    d_j  = relu(target_j - E_j), or 0 where the channel's mean has reached its cap
    w_j <- w_j exp(rate * d_j)

c and its target are in units of A times x. |c| is at most std(A) / 2; for a binary channel met with probability q it is
q (1 - q) times the gap in mean A between met and unmet. Weights never fall; only their ratios matter. The authors also
drop completions with |w| above 100 times the median |w|, which whitened advantages need not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import check_lengths, require_number, require_positive
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.metrics import WEIGHT
from rvpo.core.shards import WHOLE, Whole

MAX_WEIGHT = 1e100


@dataclass(frozen=True)
class CTWA(Method):
    """``ctwa``: weights that rise where a channel's covariance with the advantage is too low, arXiv 2602.06869.

    That advantage is the weighted mean of z-scores at unit variance over the batch, for any ``whiten``.

    Attributes:
        target: covariance of advantage and attained share that every channel must have, >= 0.
        cap: mean attained share at which a channel needs no more weight, in [0, 1].
        rate: step of the logarithm of a weight for each unit of missing covariance, > 0.
        decay: share of the newest batch in the running covariance, in (0, 1].

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.CTWA(), state={})
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.45, 0.72, 0.31, -1.48]
    """

    name: ClassVar[str] = "ctwa"
    summary: ClassVar[str] = "weights that rise where a channel's covariance with the advantage is too low"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "Uncovering Cross-Objective Interference in Multi-Objective Alignment",
        "2602.06869",
        "Yining Lu and Meng Jiang",
        2026,
    )
    own_dead_channels: ClassVar[str] = "keep"
    target: float = 0.1
    cap: float = 0.95
    rate: float = 0.05
    decay: float = 0.1

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_number("target", self.target, math.inf)
        require_number("cap", self.cap, 1, closed=True)
        require_positive("rate", self.rate)
        require_number("decay", self.decay, 1, closed=True)
        require_positive("decay", self.decay)

    @property
    def remembers(self) -> bool:
        """Weights and covariances follow the run."""
        return True

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Weight this batch by the previous weights, then update them by the covariances of its advantages."""
        names, channels = batch.channels.names, batch.channels
        before = channels.by_name(state.get("weights", {}), 1.0)
        p = aggregate.normalised(batch.weights * channels.broadcast(before.to(batch.weights)) * batch.present)
        aggregated, responsibilities = aggregate.mean(batch.z, p)
        # The covariance is that of the advantage whitened over the batch, as is the default.
        counted = (p > 0).any(-1).to(p.dtype)
        total, number = batch.shards.sum((aggregated * counted).sum(), counted.sum())
        centred = (aggregated - total / number.clamp(min=1)) * counted
        (squares,) = batch.shards.sum(centred.square().sum())
        a = centred / (squares / number.clamp(min=1)).sqrt().clamp(min=1e-12)
        scored = (~batch.attained.isnan()).to(a.dtype)
        x = channels.pool(batch.attained.nan_to_num(nan=0.0)) / channels.pool(scored)  # (N, K), NaN where missing
        moved = move_weights(
            CTWAState(before, channels.by_name(state.get("covariance", {}), torch.nan)),
            group_covariance(a, x, batch.groups, batch.shards).cpu(),
            batch.means(batch.attained).cpu().double(),
            torch.full_like(before, self.target),
            torch.full_like(before, self.cap),
            rate=self.rate,
            decay=self.decay,
        )
        weights = {**state.get("weights", {}), **dict(zip(names, moved.weights.tolist(), strict=True))}
        if (largest := max(weights.values())) > MAX_WEIGHT:  # only ratios matter, and they never fall
            weights = {name: weight / largest for name, weight in weights.items()}
        covariance = {name: c for name, c in zip(names, moved.covariance.tolist(), strict=True) if not math.isnan(c)}
        new = {
            "weights": weights,
            "covariance": {**state.get("covariance", {}), **covariance},
        }
        metrics = {f"{name}/{WEIGHT}": weight for name, weight in zip(names, before.tolist(), strict=True)}
        return Outcome(aggregated, responsibilities, state=new, metrics=metrics)


class CTWAState(NamedTuple):
    """Weights (K,), which start as configured, and running covariances (K,), NaN until a channel is first scored."""

    weights: Tensor
    covariance: Tensor


def group_covariance(advantages: Tensor, x: Tensor, groups: Groups, shards: Whole = WHOLE) -> Tensor:
    """Return the covariance of the advantage with each channel, averaged over groups -> (K,).

    Population covariance (divided by n), over the completions of a group that were scored on the channel. Groups count
    the same whatever their size; those with fewer than two scored completions do not count, those in which the channel
    is constant count as 0.

    Args:
        advantages: (N,), finite.
        x: (N, K) attained shares, NaN = missing; the dtype of the computation.
        groups: the partition of rows into groups.
        shards: where the rows of the batch are.

    Returns:
        (K,) covariances, NaN if no group has two scored completions.
    """
    scored = ~x.isnan()
    count = groups.sum(scored.to(x.dtype))
    mean = groups.sum(x.masked_fill(~scored, 0.0)) / count.clamp(min=1)
    deviation = (x - groups.broadcast(mean)).masked_fill(~scored, 0.0)
    # Deviations sum to 0 within a group, so the mean of the advantage drops out.
    covariance = groups.sum(advantages.to(x.dtype)[:, None] * deviation) / count.clamp(min=1)
    counts = count > 1
    total, number = shards.sum(covariance.masked_fill(~counts, 0.0).sum(0), counts.sum(0))
    return total / number


def move_weights(
    state: CTWAState,
    covariance: Tensor,
    attained: Tensor,
    targets: Tensor,
    caps: Tensor,
    *,
    rate: float = 0.05,
    decay: float = 0.1,
) -> CTWAState:
    """Move the weights one step towards the covariance targets. ``state.weights`` then has the new weights.

    Args:
        state: weights and running covariances before this batch. A weight of 0 stays 0.
        covariance: (K,) result of :func:`group_covariance` for the batch, NaN = not scored.
        attained: (K,) mean attained share of each channel over the batch, NaN = not scored.
        targets: (K,) required covariance of each channel.
        caps: (K,) mean attained share at which a channel needs no more weight, NaN = none.
        rate: step of the logarithm of a weight for each unit of missing covariance; the authors' runs use 0.05.
        decay: share of the newest batch in the running covariance, in (0, 1]; the authors' is 0.1.

    Raises:
        RewardError: the tensors do not have the same length.
    """
    check_lengths(
        weights=state.weights,
        running=state.covariance,
        covariance=covariance,
        attained=attained,
        targets=targets,
        caps=caps,
    )
    unscored = covariance.isnan()
    moved = (1 - decay) * state.covariance + decay * covariance
    running = torch.where(state.covariance.isnan(), covariance, torch.where(unscored, state.covariance, moved))
    deficit = (targets - running).clamp(min=0.0).masked_fill(unscored | (attained >= caps), 0.0)
    return CTWAState(state.weights * torch.exp(rate * deficit), running)
