"""Aggregate several batches at once, for methods that only look within groups, and then whiten each batch.

:func:`rvpo.core.compute` takes a single batch, because a method may look at all of it. The methods named here do not.
For them, only the whitening has to know where a batch ends.
"""

from __future__ import annotations

from dataclasses import replace

from rvpo.core import GDPO, GRPO, RVPO, AdvantageConfig, Advantages, HardMin, RVPOExplicit
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.normalize import group_zscore
from rvpo.diagnose.aggregating import aggregated, tensor
from rvpo.diagnose.joining import Joined
from rvpo.logs.run import Run

LOCAL = (GRPO, GDPO, RVPO, RVPOExplicit, HardMin)
"""Methods whose aggregate of a completion depends on its group alone, if they have no memory and no schedule."""


def is_local(config: AdvantageConfig) -> bool:
    """Whether :func:`aggregated_together` can be used."""
    method = config.method
    if type(method) not in LOCAL or method.remembers or method.needs_progress:
        return False
    if config.whiten == "group":
        return method.sums_weights  # otherwise eps depends on the mean weight of the batch
    return config.whiten in ("batch", "none") and not method.centres_groups


def aggregated_together(joined: Joined, config: AdvantageConfig, run: Run) -> Advantages:
    """Aggregate joined batches as :func:`rvpo.core.compute` aggregates each of them.

    Args:
        joined: the batches.
        config: a method for which :func:`is_local` holds.
        run: the run of the batches.
    """
    if config.whiten != "batch":
        return aggregated(joined.batch, config, run, groups=joined.groups)
    bare = replace(config, method=replace(config.method, whiten="none"))
    result = aggregated(joined.batch, bare, run, groups=joined.groups)
    batches = _partition(joined)
    counted = result.aggregated.masked_fill(~result.takes_part, torch.nan)[:, None]
    eps: float | Tensor = config.eps
    if not config.method.sums_weights:
        eps = config.eps / _total_weights(joined, result, batches)
    scores = group_zscore(counted, batches, eps=eps, ddof=config.ddof, rtol=config.rtol)
    return replace(result, advantages=scores.z[:, 0].nan_to_num(nan=0.0))


def _partition(joined: Joined) -> Groups:
    """Return which rows belong to the same batch."""
    sizes = [len(batch.groups) for batch in joined.parts]
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return Groups(index, len(sizes), sizes[0] if len(set(sizes)) == 1 else None)


def _total_weights(joined: Joined, result: Advantages, batches: Groups) -> Tensor:
    """Return the total weight of the channels scored on a completion, as a mean over the rows of a batch, (B, 1)."""
    weights = joined.batch.weights
    scored = (~result.missing).double() if weights is None else tensor(weights) * ~result.missing
    takes_part = result.takes_part.double()[:, None]
    mean = batches.sum(scored.sum(1, keepdim=True) * takes_part) / batches.sum(takes_part).clamp(min=1)
    return mean.masked_fill(mean == 0, 1.0)
