"""Channel weights that follow the run: dual variables of constraints, and covariance targets (CTWA).

Both rules belong between a batch and the next: they take the state of K persistent channels and what the batch showed,
and return a new state; nothing is changed in place. Everything is (K,) float64, on one device. ``x`` and ``attained``
are shares of a channel's declared [lo, hi], 0 to 1. A channel that was not scored in a batch (NaN) keeps its state.

**Lagrangian.** Maximise sum_j w_j a_j subject to a_j >= tau_j, where a_j is the expected attained share of channel j
under the policy theta::

    L(theta, lambda) = sum_j w_j a_j + sum_j lambda_j (a_j - tau_j)          max over theta, min over lambda >= 0
    dL/dtheta        = sum_j (w_j + lambda_j) da_j/dtheta                    so the channels weigh w + lambda
    -dL/dlambda_j    = tau_j - a_j                                           so lambda_j rises while a_j falls short
    lambda_j        <- clip(lambda_j + eta (tau_j - a_j), 0, lambda_max)

The policy gradient is that of L, up to one factor a group, where attained shares are summed with weights w + lambda
before they are normalised; after z-scores, channel j weighs (w_j + lambda_j) / std_j. Minimising in full over
0 <= lambda <= lambda_max leaves sum_j w_j a_j - lambda_max sum_j relu(tau_j - a_j): a threshold out of reach costs a
bounded penalty. Dual steps in policy gradients: Tessler et al. 2018, arXiv 1805.11074.

**CTWA**, covariance-targeted weight adaptation (Lu and Jiang 2026, arXiv 2602.06869). Where a step multiplies the
probability of each completion by exp(step * w), w its weight in the loss, the mean of x_j changes at the rate
Cov(w, x_j). So the weight of a channel rises while that covariance is below a target::

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

from typing import NamedTuple

import torch
from torch import Tensor

from rvpo.core.groups import Groups
from rvpo.errors import RewardError


class LagrangianState(NamedTuple):
    """Dual variables (K,), in units of the channel weights; they start at 0."""

    multipliers: Tensor


class CTWAState(NamedTuple):
    """Weights (K,), which start as configured, and running covariances (K,), NaN until a channel was first scored."""

    weights: Tensor
    covariance: Tensor


def lagrangian(
    state: LagrangianState, attained: Tensor, thresholds: Tensor, *, rate: float, ceiling: float
) -> LagrangianState:
    """Move the dual variables one step. The channels then weigh ``w + state.multipliers``.

    Args:
        state: dual variables before this batch.
        attained: (K,) mean attained share of each channel over the batch, NaN = not scored.
        thresholds: (K,) the share demanded, NaN = an objective, not constrained.
        rate: eta > 0, in weight per unit of attained share and batch.
        ceiling: lambda_max > 0, the largest multiplier.

    Raises:
        RewardError: when the three do not have the same length.
    """
    _check_lengths(multipliers=state.multipliers, attained=attained, thresholds=thresholds)
    shortfall = thresholds - attained
    step = rate * shortfall.masked_fill(shortfall.isnan(), 0.0)
    return LagrangianState((state.multipliers + step).clamp(0.0, ceiling))


def group_covariance(advantages: Tensor, x: Tensor, groups: Groups) -> Tensor:
    """Return the covariance of the advantage with each channel, averaged over groups -> (K,).

    Population covariance (divided by n), over the completions of a group that were scored on the channel. Groups count
    the same whatever their size; those with fewer than two scored completions do not count, those in which the channel
    is constant count as 0.

    Args:
        advantages: (N,), finite.
        x: (N, K) attained shares, NaN = missing; the dtype of the computation.
        groups: which rows belong together.

    Returns:
        (K,), NaN where no group has two scored completions.
    """
    scored = ~x.isnan()
    count = groups.sum(scored.to(x.dtype))
    mean = groups.sum(x.masked_fill(~scored, 0.0)) / count.clamp(min=1)
    deviation = (x - groups.spread(mean)).masked_fill(~scored, 0.0)
    # Deviations sum to 0 within a group, so the mean of the advantage drops out.
    covariance = groups.sum(advantages.to(x.dtype)[:, None] * deviation) / count.clamp(min=1)
    counts = count > 1
    return covariance.masked_fill(~counts, 0.0).sum(0) / counts.sum(0)


def ctwa(
    state: CTWAState,
    covariance: Tensor,
    attained: Tensor,
    targets: Tensor,
    caps: Tensor,
    *,
    rate: float = 0.05,
    decay: float = 0.1,
) -> CTWAState:
    """Move the weights one step towards the covariance targets. The channels then weigh ``state.weights``.

    Args:
        state: weights and running covariances before this batch. A weight of 0 stays 0.
        covariance: (K,) what :func:`group_covariance` returned for the batch, NaN = not scored.
        attained: (K,) mean attained share of each channel over the batch, NaN = not scored.
        targets: (K,) covariance demanded of each channel.
        caps: (K,) mean attained share at which a channel needs no more weight, NaN = none.
        rate: step of the logarithm of a weight for each unit of missing covariance; the authors' runs use 0.05.
        decay: share of the newest batch in the running covariance, in (0, 1]; the authors' is 0.1.

    Raises:
        RewardError: when the tensors do not have the same length.
    """
    _check_lengths(
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


def _check_lengths(**tensors: Tensor) -> None:
    if len({tensor.shape for tensor in tensors.values()}) > 1 or any(t.ndim != 1 for t in tensors.values()):
        seen = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise RewardError(
            f"shapes differ or are not (K,): {seen}: pass one value for each of the K channels that the state was "
            "started with, and start a new state when the channels change"
        )
