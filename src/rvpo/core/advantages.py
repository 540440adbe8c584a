"""Normalise, aggregate, whiten: many rewards per completion in, one advantage out.

::

    rewards (N, M) --group z-score--> z (N, M) --method--> aggregated (N,) --whiten--> advantages (N,)

Each method is one file of ``rvpo.core.methods``. Only GRPO sums the raw rewards first and normalises the sum. All
methods share everything else: missing values, dead channels, weights, rows without signal.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rvpo.core.aggregate import normalised
from rvpo.core.channels import Channels, Range, State, owner_of
from rvpo.core.config import AdvantageConfig
from rvpo.core.fast import fast_advantages
from rvpo.core.fast_lift import fast_lift
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome, outcome_of
from rvpo.core.methods.registry import METHODS, build_method
from rvpo.core.metrics import Advantages
from rvpo.core.monitored import widened, without_monitored
from rvpo.core.normalize import GroupScores, at_the_mean, group_zscore, whiten_by_token
from rvpo.core.scales import KEY, in_short, learned_scales
from rvpo.core.schedules import Schedule, checked_progress
from rvpo.core.shards import WHOLE, OneGroup, Whole
from rvpo.core.weights import LARGEST, Alternate, read_weight, weights_at
from rvpo.errors import ConfigError, RewardError

Adjust = Callable[[GroupScores, Tensor], tuple[GroupScores, Tensor]]
"""Changes z-scores and weights (N, M) before the method sees them; see :mod:`rvpo.step.trust`."""


def advantages(
    rewards: Tensor,
    groups: Tensor | None = None,
    method: str | Mapping[str, Any] | Method = "rvpo",
    weights: Tensor | Sequence[float | str | Schedule | Alternate] | None = None,
    *,
    num_generations: int | None = None,
    applies: Tensor | None = None,
    ranges: Sequence[Range | None] | None = None,
    progress: float | None = None,
    tokens: Tensor | None = None,
    state: State | None = None,
    eps: float = 1e-4,
    ddof: int = 1,
    rtol: float = 1e-6,
    missing: str = "drop",
    **options: Any,
) -> Advantages:
    """Turn the rewards of N completions on M channels into one advantage each.

    This function has no state between calls. A method that follows the run from batch to batch, such as ``"lift"``, is
    refused unless you pass its ``state`` yourself. :class:`rvpo.Aggregator` does that for you.

    Args:
        rewards: (N, M) floating point, in the units of the reward functions; NaN = missing.
        groups: (N,) integer group ids in any order. Groups may differ in size.
        method: ``"rvpo"``, ``"gdpo"``, ``"grpo"`` …, with options as text (``"rvpo:k=2"``), a mapping or an object
            (``rvpo.RVPO(2.0)``), or a method of your own (``"my_rules.py:cvar"``).
        weights: (M,) or (N, M) importance of the channels, >= 0; None gives all the same weight. Their scale matters
            only relative to ``eps``. A channel of weight 0 is monitored and does not take part. One of M weights can
            follow the training, such as ``"linear(0.2,1)"``, see :mod:`rvpo.core.weights`.
        num_generations: G, instead of ``groups``, for rows in consecutive blocks of G.
        applies: (N, M) bool, False where a column is not a channel of that completion's prompt, for example padding of
            rubrics with different lengths. Such a cell is not read and does not count as missing. None: all apply.
        ranges: M pairs (lowest, highest) of possible rewards, None where not declared. Methods that compare how far
            channels are met, such as ``"lift"``, use them. A reward beyond its range counts as the end of the range.
            Without a range, the scale of a reward is [0, 1]. Once rewards lie outside of [0, 1], the scale is learned
            from the batches in ``state`` and this one. Without ``state`` it is learned from this batch only, with a
            warning.
        progress: share of the training that is done, in [0, 1]; needed by a scheduled k or weight.
        tokens: (N,) number of trained tokens per completion; needed by ``whiten="token"``.
        state: ``state`` of the last batch's result; an empty mapping at the start of a run.
        eps: number added to every standard deviation, in reward units.
        ddof: 1 for the sample standard deviation (as TRL and verl), 0 for the population's.
        rtol: a channel is constant in its group if its relative range is at most this.
        missing: ``"drop"`` leaves an unscored channel out for that completion, ``"error"`` refuses NaN.
        **options: options of the method, such as ``k=2.0`` or ``whiten="none"``.

    Returns:
        The advantages (N,), and everything that led to them: see :class:`Advantages`.

    Raises:
        RewardError: the shape or dtype is wrong, a reward is infinite, or it is NaN under ``missing="error"``.
        ConfigError: an option is unknown, a value cannot work, or a method needs ``state`` and none is given.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[3.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [-3.0, 0.0]])  # correctness, format
        >>> rvpo.advantages(rewards, num_generations=4, method="rvpo:k=1").advantages
        tensor([-0.1902,  1.1254,  0.3260, -1.2612])
    """
    if type(method) is str and not options and method.partition(":")[0] in METHODS:
        config = _config(method, eps, ddof, rtol, missing)
    else:
        config = AdvantageConfig(build_method(method, options), eps=eps, ddof=ddof, rtol=rtol, missing=missing)
    if config.method.remembers and state is None:
        raise ConfigError(
            f"method {str(config)!r} remembers the run from batch to batch, but no state is given, so every call would "
            f"be a first batch. Use rvpo.Aggregator({str(config)!r}, names), which keeps the state, or pass state={{}} "
            "on the first batch and the result's state on the next ones"
        )
    progress = checked_progress(progress)
    channels = None
    if ranges is not None:
        columns = rewards.shape[1] if isinstance(rewards, Tensor) and rewards.ndim == 2 else len(ranges)
        channels = Channels.columns([str(j) for j in range(columns)], ranges, getattr(rewards, "device", None))
    result = compute(
        rewards,
        config,
        groups=groups,
        num_generations=num_generations,
        weights=_of_this_step(weights, progress),
        applies=applies,
        channels=channels,
        progress=progress,
        tokens=tokens,
        state=state,
    )
    if state is None and (learned := learned_scales(result.state)):
        told = ", ".join(f"{name}: {in_short(frame)}" for name, frame in learned.items())
        warnings.warn(
            f"rewards lie outside of [0, 1], and no range is declared for them. This call takes their scale from its "
            f"own batch ({told}), so scales differ from call to call. Pass ranges=[(low, high), …], or use "
            "rvpo.Aggregator, which learns them over the run",
            stacklevel=2,
        )
    return result


@lru_cache(maxsize=64, typed=True)
def _config(method: str, eps: float, ddof: int, rtol: float, missing: str) -> AdvantageConfig:
    """Build the config of a method of this package, once and not for every batch."""
    return AdvantageConfig(build_method(method), eps=eps, ddof=ddof, rtol=rtol, missing=missing)


def _of_this_step(weights: Any, progress: float | None) -> Any:
    """Return weights as numbers if one of them is a schedule."""
    if not isinstance(weights, list | tuple) or not any(isinstance(w, str | Schedule | Alternate) for w in weights):
        return weights
    names = [str(j) for j in range(len(weights))]
    return weights_at([read_weight(w, name) for w, name in zip(weights, names, strict=True)], progress, names)


def compute(
    rewards: Tensor,
    config: AdvantageConfig,
    *,
    groups: Tensor | Groups | None = None,
    num_generations: int | None = None,
    weights: Tensor | Sequence[float] | None = None,
    applies: Tensor | None = None,
    channels: Channels | None = None,
    progress: float | None = None,
    tokens: Tensor | None = None,
    adjust: Adjust | None = None,
    reliability: Tensor | None = None,
    outside: Tensor | None = None,
    state: State | None = None,
    monitored: bool = False,
    shards: Whole = WHOLE,
) -> Advantages:
    """Compute :func:`advantages` with the options in a config, for :mod:`rvpo.step` and the reports.

    Args:
        rewards: see :func:`advantages`, as for ``groups``, ``num_generations``, ``weights``, ``applies``, ``progress``
            and ``tokens``.
        config: the method and its options.
        groups: see above; also a :class:`Groups` object.
        num_generations: see above.
        weights: see above.
        applies: see above.
        channels: names and ranges of the channels, for methods that follow them from batch to batch or compare them on
            their scales. None numbers the columns and declares no range.
        progress: see above.
        tokens: see above.
        adjust: function that changes z-scores and weights before the method sees them.
        reliability: (M,) or (N, M) in [0, 1], how far each cell is trusted, for methods that read it themselves.
        outside: (N, M) bool, cells that are left out of their group's normalisation on that channel. Mean and standard
            deviation are those of the other cells. Cells outside have z = 0, and their rewards are not read. None if
            there are no such cells.
        monitored: whether columns of weight 0 were declared as monitors. The method then does not see them, and a row
            without other channels does not count. Otherwise they are rewards of weight 0, as in TRL.
        state: ``state`` of the last batch's result; None at the start of a run.
        shards: where the rows of the batch are. The rows of this rank are given, and its results are returned.
    """
    everywhere = applies is None
    is_plain = everywhere and adjust is None and outside is None and not monitored and shards.is_whole
    if is_plain and (channels is None or channels.index.shape == rewards.shape[1:]):
        quick = fast_lift(rewards, config, groups, num_generations, weights, channels, reliability, state)
        if quick is None and reliability is None:
            quick = fast_advantages(rewards, config, groups, num_generations, weights, progress)
        if quick is not None:
            return quick
    applies = _check_rewards(rewards, applies, outside, config, may_be_empty=not shards.is_whole)
    # Double precision for any input, because k up to 1e4 multiplies the rounding errors of z. (MPS has no float64.)
    wide = torch.float32 if rewards.device.type == "mps" else torch.float64
    r = rewards.to(wide)
    if not everywhere:
        r = r.masked_fill(~applies, torch.nan)
    w = _weights(weights, r)
    partition = groups
    if not isinstance(partition, Groups):
        partition = Groups.of(rewards.shape[0], partition, num_generations, rewards.device)
    if channels is None:
        channels = Channels.columns([str(j) for j in range(r.shape[1])], device=r.device)
    elif channels.index.shape not in (r.shape, r.shape[1:]):
        raise RewardError(
            f"channels has an index of shape {tuple(channels.index.shape)}; expected ({r.shape[1]},) or "
            f"{tuple(r.shape)}, a channel for each column or for each cell"
        )
    if outside is not None:
        outside = outside & applies
        r = r.masked_fill(outside, torch.nan)
    scores = group_zscore(r, partition, eps=config.eps, ddof=config.ddof, rtol=config.rtol)
    if outside is not None:
        r, scores = at_the_mean(r, scores, outside, partition)
    if adjust is not None:
        scores, w = adjust(scores, w)
    present = scores.live if config.dead_channels == "drop" else ~scores.missing
    z, p = scores.z.masked_fill(~present, 0.0), normalised(w * present)
    remembered = dict(state or {})
    known_scales = remembered.pop(KEY, {})
    batch = Batch(
        r, w, scores, present, z, p, partition, channels, progress, reliability, known_scales, outside, shards
    )
    batch, kept = without_monitored(batch) if monitored else (batch, None)
    outcome = widened(outcome_of(config.method, batch, remembered), kept, r.shape)
    new_state, metrics = _with_scales(outcome, batch, config)

    # TRL and verl whiten the weighted *sum* of z-scores. We aggregate a weighted mean, so that k means the same for
    # every M; dividing eps by the sum of the weights makes the whitened values the same.
    takes_part = (p > 0).any(-1) if outcome.takes_part is None else outcome.takes_part
    if config.wanted:
        takes_part = takes_part & ranked_by(config.wanted, channels, scores.live, partition)
    eps = config.eps if config.method.sums_weights else config.eps / _total_weight(w, scores, takes_part, shards)
    whitened = _whiten(outcome.aggregated, takes_part, partition, config, eps, tokens, shards)
    return Advantages(
        advantages=whitened.to(rewards.dtype),
        aggregated=outcome.aggregated.to(rewards.dtype),
        z=scores.z.to(rewards.dtype),
        responsibilities=outcome.responsibilities.to(rewards.dtype),
        live=scores.live,
        missing=scores.missing & applies,
        applies=applies,
        signal=(scores.live & (w > 0)).any(-1),
        takes_part=takes_part,
        rewards=rewards,
        groups=partition,
        state=new_state,
        method_metrics=metrics,
    )


def ranked_by(wanted: Sequence[str], channels: Channels, live: Tensor, groups: Groups) -> Tensor:
    """Return a mask (N,) of the rows whose group is ranked by a wanted channel.

    Args:
        wanted: names of channels, or of rubrics for all of their labels.
        channels: channels of the cells.
        live: (N, M) bool, cells that rank their group.
        groups: the partition of the rows.
    """
    is_wanted = torch.tensor([owner_of(name, wanted) is not None for name in channels.names], device=live.device)
    ranks = (live & is_wanted[channels.index]).any(1, keepdim=True)
    return groups.broadcast(groups.max(ranks.to(torch.float32)))[:, 0] > 0


def _with_scales(outcome: Outcome, batch: Batch, config: AdvantageConfig) -> tuple[State, Mapping[str, float]]:
    """Return state and metrics of a method, and those of the scales if the method has read them."""
    state: State = outcome.state or {}
    if KEY in state:
        raise ConfigError(
            f"method {str(config)!r} returned a state with the key {KEY!r}, under which rvpo keeps the channels' "
            "scales; expected another key"
        )
    if "scales" not in vars(batch):
        return state, outcome.metrics
    return (
        {**state, KEY: batch.scales.state},
        {**outcome.metrics, **batch.scales.metrics(batch.channels)},
    )


def _whiten(
    a: Tensor,
    takes_part: Tensor,
    groups: Groups,
    config: AdvantageConfig,
    eps: Tensor | float,
    tokens: Tensor | None,
    shards: Whole,
) -> Tensor:
    """Centre and scale the aggregate over the batch or the group. Rows that do not take part get 0 and do not count."""
    if config.method.centres_groups and config.whiten in ("batch", "none"):
        return _centred(a, takes_part, groups, config, eps, shards)
    if config.whiten == "none":
        return a.masked_fill(~takes_part, 0.0)
    if config.whiten == "token":
        if tokens is None or tokens.shape != a.shape:
            seen = "None" if tokens is None else f"a tensor of shape {tuple(tokens.shape)}"
            raise ConfigError(
                f"whiten is 'token', but tokens is {seen}; expected the number of trained tokens of each of the "
                f"{a.shape[0]} rows. Pass tokens, or drop whiten: only verl's engine knows them by itself"
            )
        return whiten_by_token(a, takes_part, tokens, shards)
    if config.whiten == "batch":
        groups = _whole_batch(a, shards)
    # Here a row is a completion with a single channel, so the normalisation of rewards can be reused.
    counted = a.masked_fill(~takes_part, torch.nan)[:, None]
    scores = group_zscore(counted, groups, eps=eps, ddof=config.ddof, rtol=config.rtol)
    return scores.z[:, 0].nan_to_num(nan=0.0)


def _whole_batch(rows: Tensor, shards: Whole) -> Groups:
    """Return the batch as one group."""
    if not shards.is_whole:
        return OneGroup(rows, shards)
    return Groups(torch.zeros(len(rows), dtype=torch.int64, device=rows.device), 1, block=len(rows))


def _centred(
    a: Tensor, takes_part: Tensor, groups: Groups, config: AdvantageConfig, eps: Tensor | float, shards: Whole
) -> Tensor:
    """Centre the aggregate within the group, and divide by its standard deviation over the batch, or by nothing."""
    counted = a.masked_fill(~takes_part, torch.nan)[:, None]
    whole = _whole_batch(a, shards)
    of_group, of_batch = (
        group_zscore(counted, part, eps=eps, ddof=config.ddof, rtol=config.rtol) for part in (groups, whole)
    )
    centred = (counted - groups.broadcast(of_group.mean))[:, 0]
    # If the rewards of a group are equal, a difference that is left is only rounding.
    centred = centred.masked_fill(~(takes_part & of_group.live[:, 0]), 0.0)
    if config.whiten == "none":
        return centred
    return centred / (of_batch.std[0, 0] + eps)


def _total_weight(w: Tensor, scores: GroupScores, takes_part: Tensor, shards: Whole) -> Tensor:
    """Return the weight of the channels scored on a completion, averaged over the rows that count."""
    weights = (w * ~scores.missing).sum(-1) * takes_part
    total, number = shards.sum(weights.sum(), takes_part.sum())
    mean = total / number.clamp(min=1)
    return mean.masked_fill(mean == 0, 1.0)


def _check_rewards(
    rewards: Tensor, applies: Tensor | None, outside: Tensor | None, config: AdvantageConfig, may_be_empty: bool
) -> Tensor:
    """Check both matrices and return ``applies``, all True where it is None."""
    is_matrix = isinstance(rewards, Tensor) and rewards.ndim == 2 and (rewards.numel() > 0 or may_be_empty)
    if not is_matrix or not rewards.is_floating_point():
        seen = (
            f"a {rewards.dtype} tensor of shape {tuple(rewards.shape)}"
            if isinstance(rewards, Tensor)
            else f"a {type(rewards).__name__}"
        )
        if not isinstance(rewards, Tensor):
            step = (
                ". Pass torch.tensor(rewards, dtype=torch.float64), or use rvpo.Aggregator, which also takes arrays, "
                "lists with None, and mappings"
            )
        else:
            step = "" if rewards.is_floating_point() else ". Convert whole numbers with rewards.double()"
        raise RewardError(
            f"rewards is {seen}; expected a floating point tensor of shape (N, M), not empty, with NaN = missing{step}"
        )
    if applies is None:
        applies = torch.ones_like(rewards, dtype=torch.bool)
    elif applies.shape != rewards.shape or applies.dtype != torch.bool:
        raise RewardError(
            f"applies is a {applies.dtype} tensor of shape {tuple(applies.shape)}; expected a bool tensor of shape "
            f"{tuple(rewards.shape)}: True where the channel belongs to the completion's prompt"
        )
    # Larger rewards overflow, which would turn all advantages into 0.
    largest = config.method.largest_reward
    bad = rewards.isinf() | (rewards.abs() > largest)
    if config.missing == "error":
        bad = bad | (rewards.isnan() if outside is None else rewards.isnan() & ~outside)
    bad = bad & applies
    if bad.any():
        row, channel = bad.nonzero()[0].tolist()
        raise RewardError(
            f"rewards[{row}, {channel}] is {rewards[row, channel].item()}; expected finite numbers from "
            f"-{largest:g} to {largest:g}"
            + (", and NaN where a channel could not be scored" if config.missing == "drop" else ' (missing="error")')
            + ": check the reward function of that channel"
        )
    return applies


def _weights(weights: Tensor | Sequence[float] | None, r: Tensor) -> Tensor:
    """Return channel weights as (N, M)."""
    if weights is None:
        return torch.ones_like(r)
    w = torch.as_tensor(weights, dtype=r.dtype, device=r.device)
    if w.shape not in (r.shape[1:], r.shape):
        raise RewardError(
            f"weights has shape {tuple(w.shape)}; expected ({r.shape[1]},) or {tuple(r.shape)}: one weight per channel"
        )
    # All weights of a row may be 0. A batch in which no prompt has a channel of positive weight has no signal.
    if not bool(((w <= LARGEST) & (w >= 0)).all()) or (w.ndim == 1 and not bool((w > 0).any())):
        raise RewardError(
            f"weights is {w.tolist() if w.numel() < 20 else 'a tensor'}; expected numbers >= 0 and up to {LARGEST:g}, "
            "at least one above 0. To minimise a reward, negate it in its reward function, not by a negative weight"
        )
    return w.expand_as(r)
