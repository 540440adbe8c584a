"""An adaptive risk coefficient: the k at which the soft minimum has a given distance from the mean.

The effect of a fixed k depends on the batch. With more live channels, larger groups or rarer failures, the same k goes
from nearly the mean to nearly the minimum. Here k is derived from its intended effect. With responsibilities
r = softmax(ln p - k Z) of a row::

    effective     e(k) = 1 / sum_j (r_j^2 / p_j)                 Kish's effective sample share; n_eff / M for equal p
                  s(k) = mean over rows of (e - q) / (1 - q)     q = e(inf), the share p of the lowest channel
    bottleneck    b(k) = mean over rows of the responsibility of the lowest channel

``s`` falls from 1 (k = 0: every channel counts) to 0 (k -> inf: only the lowest counts). For equal p and one lowest
channel it is (n_eff - 1) / (M - 1), where n_eff = 1 / sum_j r_j^2 is the effective number of channels. ``b`` rises from
the mean of q to 1. Channels that tie for the lowest count as one channel, because no k separates them.

**Monotone.** Let f(k) = ln sum_j p_j exp(-k Z_j). Then ln e(k) = 2 f(k) - f(2k) has the derivative
2 (f'(k) - f'(2k)) <= 0, as f is convex; the log-responsibility of the lowest, ln p - k Z - f(k), has the derivative
sum_j r_j Z_j - Z >= 0. So exactly one k meets a target, and bisection finds it. 1 / sum r^2 is monotone only for equal
p: for p = (0.9, 0.1) with the lowest Z on the second channel it first rises. Therefore r^2 is divided by p.

**No signal.** Rows with fewer than two different channels do not determine k. If there are no other rows, k stays.

The measure: L. Kish, *Survey Sampling*, 1965, as used for importance weights. The rule is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from rvpo.core.aggregate import TIE
from rvpo.core.checks import require, require_number
from rvpo.core.lazy import Tensor, torch
from rvpo.core.shards import WHOLE, Whole
from rvpo.errors import ConfigError, RewardError

# Each measure's default target: about what k = 1 gives at M = 5, G = 8, all channels live (benchmarks/adaptive_k.py).
MEASURES = {"effective": 0.55, "bottleneck": 0.5}
DEFAULT_K = 1.0
HALVINGS = 40


@dataclass(frozen=True)
class AdaptiveK:
    """Target of an adaptive k, and how fast k may change.

    Attributes:
        target: value of the measure to keep, in (0, 1). None takes the measure's default.
        measure: ``"effective"`` (smaller is nearer to the minimum) or ``"bottleneck"`` (larger is).
        k_min: lowest k, above 0.
        k_max: highest k, finite.
        horizon: number of steps over which log k is averaged, >= 1. Each step moves it 1 / horizon of the way; with 1
            there is no averaging.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import rvpo
        >>> rvpo.RVPO(rvpo.AdaptiveK(target=0.4)) == rvpo.RVPO("adaptive(target=0.4)")
        True
    """

    target: float | None = None
    measure: str = "effective"
    k_min: float = 0.05
    k_max: float = 20.0
    horizon: float = 10.0

    def __post_init__(self) -> None:
        """Fill in the default target and refuse impossible values."""
        require("adaptive measure", self.measure, tuple(MEASURES))
        if self.target is None:
            object.__setattr__(self, "target", MEASURES[self.measure])
        require_number("adaptive target", self.target, 1)
        for name in ("k_min", "k_max", "horizon"):
            require_number(f"adaptive {name}", getattr(self, name), math.inf)
        if self.target == 0 or self.k_min == 0:
            name = "target" if self.target == 0 else "k_min"
            raise ConfigError(f"adaptive {name} is 0; expected a number above 0: set one, or use a fixed k")
        if self.k_min >= self.k_max:
            raise ConfigError(
                f"adaptive k_min is {self.k_min!r} and k_max {self.k_max!r}; expected k_min < k_max: widen the "
                "range, or use a fixed k"
            )
        if self.horizon < 1:
            raise ConfigError(
                f"adaptive horizon is {self.horizon!r}; expected a number of steps >= 1 (1: no averaging)"
            )

    def __str__(self) -> str:
        """Return its text, such as ``adaptive(target=0.55)``: the options that differ from the defaults."""
        default = AdaptiveK(measure=self.measure)
        shown = [
            f"{option.name}={value:.12g}" if isinstance(value, float) else f"{option.name}={value}"
            for option in fields(self)
            if (value := getattr(self, option.name)) != getattr(default, option.name)
            or (option.name == "measure" and value != "effective")
        ]
        return f"adaptive({','.join(shown)})" if shown else "adaptive"


def next_k(
    z: Tensor, p: Tensor, adaptive: AdaptiveK, state: float | None, shards: Whole = WHOLE
) -> tuple[float, float | None, float]:
    """Choose k for one batch.

    Args:
        z: (N, M) group z-scores, finite wherever ``p`` > 0.
        p: (N, M) channel shares, each row summing to 1, or to 0 where no channel takes part.
        adaptive: the target and the bounds.
        state: log k after the previous batch; None before the first batch, which sets it directly.
        shards: where the rows of the batch are.

    Returns:
        ``k`` for this batch, the new state, and the measure of this k on this batch. If no row has two different
        channels, the measure is NaN and the state does not change. The measure differs from the target because of the
        averaging over steps, and if :func:`solve_k` is at a bound.

    Raises:
        RewardError: ``z`` and ``p`` are not two (N, M) tensors, or ``z`` is not finite where ``p`` > 0.
        ConfigError: the state is not a finite number.
    """
    if state is not None and not math.isfinite(state):
        raise ConfigError(f"adaptive state is {state!r}; expected log k, a finite number, or None to start anew")
    rows = _rows(z, p, shards)
    if rows is not None:
        solved = math.log(_solve(rows, adaptive, shards))
        state = solved if state is None else state + (solved - state) / adaptive.horizon
    k = DEFAULT_K if state is None else math.exp(min(state, math.log(adaptive.k_max)))
    k = min(max(k, adaptive.k_min), adaptive.k_max)
    if rows is None:
        return k, state, math.nan
    return k, math.log(k), _measure(rows, k, adaptive.measure, shards)


def solve_k(z: Tensor, p: Tensor, adaptive: AdaptiveK) -> float | None:
    """Return the k that meets the target on this batch, without averaging.

    It is exactly ``k_min`` or ``k_max`` if the target is beyond that bound, and None if no row has two different
    channels. Shapes and errors are those of :func:`next_k`.
    """
    rows = _rows(z, p)
    return None if rows is None else _solve(rows, adaptive)


def measured(z: Tensor, p: Tensor, k: float, measure: str = "effective") -> float:
    """Return the measure of a given ``k`` > 0 on a batch; NaN if no row has two different channels."""
    require("adaptive measure", measure, tuple(MEASURES))
    rows = _rows(z, p)
    return math.nan if rows is None else _measure(rows, k, measure)


def _rows(z: Tensor, p: Tensor, shards: Whole = WHOLE) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return distance above the lowest channel (n, M), shares (n, M) and the lowest's share (n,) of rows that differ.

    They are float64 on the CPU, where the search does not wait for a device.
    """
    if z.ndim != 2 or z.shape != p.shape:
        raise RewardError(
            f"z has shape {tuple(z.shape)} and p {tuple(p.shape)}; expected (N, M) for both: one share per z-score"
        )
    z, p = (x.detach().cpu().double() for x in (z, p))
    out = p <= 0
    if not bool((z.isfinite() | out).all()):
        raise RewardError("z is not finite where p > 0: give channels that are missing a share of 0")
    above = (z - z.masked_fill(out, torch.inf).amin(-1, keepdim=True)).masked_fill(out, 0.0)
    lowest = (p * (above <= TIE)).sum(-1)
    differ = (~out).any(-1) & (1 - lowest > TIE)
    (count,) = shards.sum(differ.sum())
    return (above[differ], p[differ], lowest[differ]) if count > 0 else None


def _measure(rows: tuple[Tensor, Tensor, Tensor], k: float, measure: str, shards: Whole = WHOLE) -> float:
    above, p, lowest = rows
    odds = torch.exp(-k * above)
    total = (p * odds).sum(-1)
    if measure == "bottleneck":
        found = lowest / total
    else:
        effective = total.square() / (p * odds.square()).sum(-1)
        found = (effective - lowest) / (1 - lowest)
    summed, number = shards.sum(found.sum(), torch.tensor(len(found)))
    return summed.item() / int(number)


def _solve(rows: tuple[Tensor, Tensor, Tensor], adaptive: AdaptiveK, shards: Whole = WHOLE) -> float:
    """Bisect log k between the bounds."""
    target = adaptive.target
    assert target is not None  # __post_init__ filled it in

    def too_small(k: float) -> bool:
        value = _measure(rows, k, adaptive.measure, shards)
        return value < target if adaptive.measure == "bottleneck" else value > target

    if not too_small(adaptive.k_min):
        return adaptive.k_min
    if too_small(adaptive.k_max):
        return adaptive.k_max
    low, high = math.log(adaptive.k_min), math.log(adaptive.k_max)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(math.exp(middle)) else (low, middle)
    return math.exp((low + high) / 2)
