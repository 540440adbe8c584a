"""THE EQUATION: how the channels of one completion become one number.

Each rule takes the group z-scores ``z`` (N, M) and the channel shares ``p`` (N, M) — non-negative, each row summing
to 1, or to 0 where no channel takes part — and returns the aggregate (N,) and the responsibilities (N, M), that is
dA/dZ. With equal shares p_j = 1/M (RVPO, arXiv 2605.05750)::

    RVPO            A = -(1/k) ln( sum_j p_j exp(-k Z_j) )        dA/dZ_j = softmax(ln p_j - k Z_j)
    RVPO-explicit   A = m - beta * sum_j p_j (Z_j - m)^2          m = sum_j p_j Z_j
    GDPO            A = sum_j p_j Z_j                             = the limit k -> 0
    hard-min        A = min_j Z_j                                 = the limit k -> inf

For every k > 0: min_j Z_j <= A <= m, and A falls as k rises. To second order A = m - (k/2) var(Z), so ``k`` plays the
part of ``2 * beta``. A row whose shares are all 0 (no signal) aggregates to 0 with responsibilities 0.
"""

from __future__ import annotations

from rvpo.core.lazy import Tensor, torch

# z-scores closer than this are treated as ties: in float32, equal rankings give z-scores that differ by up to this.
TIE = 1e-6
# For a smaller k the soft minimum equals the mean to the last digit, and for a much smaller one k * z loses digits.
LEAST_K = 1e-20


def soft_min(z: Tensor, p: Tensor, k: float) -> tuple[Tensor, Tensor]:
    """RVPO's soft minimum over channels with risk coefficient ``k`` in [0, inf]."""
    if k < LEAST_K:
        return mean(z, p)
    if k == torch.inf:
        return hard_min(z, p)
    lowest, above = _above_lowest(z, p)
    # Relative to the minimum every exponent is <= 0. expm1/log1p keep all digits as k -> 0. If the sum is below 1/2,
    # its logarithm is taken directly. Otherwise a lowest channel with a tiny share would be lost in 1 - (1 - share).
    odds = p * torch.exp(-k * above)
    total = odds.sum(-1)
    near = torch.log1p((p * torch.expm1(-k * above)).sum(-1).clamp(min=-0.5))
    far = total.masked_fill(total <= 0, 1.0).log()
    return lowest - torch.where((total > 0) & (total < 0.5), far, near) / k, normalised(odds)


def explicit(z: Tensor, p: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the mean minus ``beta`` times the variance across channels. Responsibilities can be negative."""
    average, _ = mean(z, p)
    deviation = z - average[:, None]
    aggregate = average - beta * (p * deviation.square()).sum(-1)
    return aggregate, p * (1 - 2 * beta * deviation)


def mean(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Return GDPO's weighted mean."""
    return (p * z).sum(-1), p


def hard_min(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest channel. Ties share the responsibility in proportion to ``p``, as in the limit k -> inf."""
    lowest, above = _above_lowest(z, p)
    responsibilities = normalised(p * (above.detach() <= TIE))
    # The second term is 0; its gradient is the responsibilities.
    return lowest + (responsibilities * (z - z.detach())).sum(-1), responsibilities


def _above_lowest(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest z (N,) of the channels that take part, and each channel's distance above it (N, M)."""
    out = p <= 0
    lowest = z.detach().masked_fill(out, torch.inf).amin(-1)
    lowest = lowest.masked_fill(out.all(-1), 0.0)
    return lowest, (z - lowest[:, None]).masked_fill(out, 0.0)


def normalised(shares: Tensor) -> Tensor:
    """Scale rows to sum to 1. Rows of zeros stay zero."""
    total = shares.sum(-1, keepdim=True)
    return shares / total.masked_fill(total == 0, 1.0)
