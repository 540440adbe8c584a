"""The result of one batch, and what it says: which channel is the bottleneck, and which one is ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpo.core import aggregate
from rvpo.core.groups import Groups
from rvpo.errors import RewardError

CHANNEL_METRICS = (
    "mean",  # mean raw reward over the scored completions
    "std",  # their standard deviation (ddof 1) over the batch
    "live",  # share of completions on which the channel is live
    "dead",  # … scored, but constant in the group
    "missing",  # … not scored; live + dead + missing = 1
    "responsibility",  # mean responsibility over the completions with signal; sums to 1 over channels
    "bottleneck",  # share of completions with signal on which it is the lowest live z (ties share)
    "advantage_corr",  # Pearson correlation of the advantage with the channel's z where it is live
)


@dataclass(frozen=True)
class Advantages:
    """What :func:`rvpo.advantages` returns. Tensors are on the device and in the dtype of the rewards.

    Attributes:
        advantages: (N,) what the policy gradient uses; 0 for rows without signal.
        aggregated: (N,) the rule's value before whitening (for ``"grpo"`` the weighted sum of raw rewards).
        z: (N, M) group z-scores; 0 where dead, NaN where missing.
        responsibilities: (N, M) derivative of ``aggregated`` with respect to ``z`` (for ``"grpo"`` scaled to sum to 1);
            rows sum to 1 over the channels that take part, or are all 0 where none does.
        live: (N, M) bool, True where the channel is scored and ranks its group.
        missing: (N, M) bool, True where the reward was NaN.
        signal: (N,) bool, True where at least one channel of positive weight is live.
        rewards: (N, M) the rewards as given.
        groups: the partition of rows into groups.
    """

    advantages: Tensor
    aggregated: Tensor
    z: Tensor
    responsibilities: Tensor
    live: Tensor
    missing: Tensor
    signal: Tensor
    rewards: Tensor
    groups: Groups

    def metrics(self, names: Sequence[str] | None = None) -> dict[str, float]:
        """Return diagnostics as a flat dict, see :func:`channel_metrics`."""
        return channel_metrics(self, names)


def channel_metrics(result: Advantages, names: Sequence[str] | None = None) -> dict[str, float]:
    """Summarise a batch as a flat dict of floats.

    Keys: ``{name}/{metric}`` for each channel and each of ``CHANNEL_METRICS``, ``no_signal/groups`` (share of groups in
    which no channel of positive weight ranks anything) and ``no_signal/completions`` (their number of completions). A
    value that is undefined in this batch, such as the mean of a channel that was never scored, is NaN.

    Args:
        result: what :func:`rvpo.advantages` returned.
        names: M channel names; None numbers them from 0.

    Raises:
        RewardError: when the number of names is not M.
    """
    channels = result.rewards.shape[1]
    names = [str(j) for j in range(channels)] if names is None else list(names)
    if len(names) != channels:
        raise RewardError(f"{len(names)} channel names for {channels} channels: pass one name a channel, in order")
    wide = result.z.to(torch.float32 if result.z.device.type == "mps" else torch.float64).detach()
    scored, live = ~result.missing, result.live
    signal = result.signal.sum()

    lowest_share = live.to(wide.dtype)
    bottleneck = aggregate.hard_min(wide.masked_fill(~live, 0.0), lowest_share)[1] * result.signal[:, None]
    states = torch.stack([live, scored & ~live, result.missing]).to(wide.dtype).mean(1)
    mean, std = _masked_moments(result.rewards.detach().to(wide.dtype), scored)
    table = torch.stack(
        [
            mean,
            std,
            *states,
            (result.responsibilities.detach() * result.signal[:, None]).sum(0) / signal,
            bottleneck.sum(0) / signal,
            _masked_corr(result.advantages.detach().to(wide.dtype), wide, live),
        ]
    ).tolist()
    metrics = {
        f"{name}/{metric}": table[i][j] for j, name in enumerate(names) for i, metric in enumerate(CHANNEL_METRICS)
    }
    group_signal = result.groups.max(result.signal[:, None].to(wide.dtype))
    metrics["no_signal/groups"] = 1 - group_signal.mean().item()
    metrics["no_signal/completions"] = float(wide.shape[0] - signal.item())
    return metrics


def _masked_moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (ddof 1) of each column over ``mask``; NaN where undefined."""
    n = mask.sum(0)
    mean = x.masked_fill(~mask, 0.0).sum(0) / n
    squares = (x - mean).masked_fill(~mask, 0.0).square().sum(0)
    return mean, (squares / (n - 1).clamp(min=0)).sqrt()


def _masked_corr(a: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """Pearson correlation of ``a`` (N,) with each column of ``z`` (N, M) over ``mask``; NaN where undefined."""
    n = mask.sum(0)
    da, dz = ((x - x.masked_fill(~mask, 0.0).sum(0) / n).masked_fill(~mask, 0.0) for x in (a[:, None].expand_as(z), z))
    return (da * dz).sum(0) / (da.square().sum(0) * dz.square().sum(0)).sqrt()


def rarely_met(rewards: Tensor, below: float = 0.3) -> Tensor:
    """Tell which channels are rarely met, so that a soft minimum suppresses rather than guards them.

    A completion meets a channel when its reward lies above the middle of the channel's range; on the middle it half
    meets it. For a binary channel met with probability p, a success has z = sqrt((1-p)/p) and a failure only
    z = -sqrt(p/(1-p)): while p is small the minimum hardly sees failures and never sees successes.

    Args:
        rewards: (N, M), NaN = missing; the more completions, the surer.
        below: the share that counts as rare.

    Returns:
        (M,) bool, True where the share of scored completions that meet the channel lies below ``below`` by three
        standard errors. Channels that are constant, or scored on fewer than 32 completions, are False.
    """
    scored = ~rewards.isnan()
    low = rewards.masked_fill(~scored, torch.inf).amin(0)
    high = rewards.masked_fill(~scored, -torch.inf).amax(0)
    middle = (low + high) / 2
    met = ((rewards > middle).to(rewards.dtype) + 0.5 * (rewards == middle)).masked_fill(~scored, 0.0).sum(0)
    n = scored.sum(0)
    share = met / n
    error = (share * (1 - share) / n).sqrt()
    return (n >= 32) & (low < high) & (share + 3 * error < below)
