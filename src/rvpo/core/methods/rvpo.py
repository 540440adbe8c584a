"""RVPO and its limits: risk-sensitive over the channels of one completion, arXiv 2605.05750.

With group z-scores Z_j and channel shares p_j (equal weights: 1/M)::

    rvpo            A = -(1/k) ln( sum_j p_j exp(-k Z_j) )     the soft minimum; k -> 0: GDPO's mean, k -> inf: hard_min
    rvpo_explicit   A = m - beta * sum_j p_j (Z_j - m)^2       m = sum_j p_j Z_j; to second order beta = k / 2
    hard_min        A = min_j Z_j

:mod:`rvpo.core.aggregate` computes all three, with their derivatives. k is a number, a schedule over the training
(:class:`~rvpo.core.schedules.Linear`, :class:`~rvpo.core.schedules.Cosine`) or an
:class:`~rvpo.core.methods.adaptive_k.AdaptiveK`, which adapts it.

**Limits.** A channel that is dead in its group has Z = 0, which would cap every positive advantage. So it is dropped by
default; ``dead_channels="keep"`` follows the paper literally. **Failure case.** From k = 1 on, the soft minimum
suppresses a channel that is met in under about 30% of the rollouts: in units of the group's spread a rare success is an
outlier and is ignored, and a common failure costs little. Use ``lift``, or warm-start the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import build, call_text, require_number
from rvpo.core.methods.adaptive_k import AdaptiveK, next_k
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.schedules import Cosine, Linear, Schedule
from rvpo.errors import ConfigError

PAPER = Paper(
    "RVPO: Risk-Sensitive Alignment via Variance Regularization", "2605.05750", "Montero and Jurczyk and Dhingra", 2026
)

VARYING: Mapping[str, type[Schedule] | type[AdaptiveK]] = {"linear": Linear, "cosine": Cosine, "adaptive": AdaptiveK}
"""Kinds of k besides a number, by name in texts and mappings."""


@dataclass(frozen=True)
class RVPO(Method):
    """``rvpo``: the soft minimum over z-scores.

    Attributes:
        k: risk coefficient in [0, inf]: a number, a schedule, or an AdaptiveK; also as text (``"linear(0.5,2)"``,
            ``"adaptive"``) or mapping (``{"kind": "linear", "start": 0.5, "end": 2}``).

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import rvpo
        >>> rvpo.RVPO(k="linear(0.5,2)") == rvpo.RVPO(rvpo.Linear(0.5, 2.0))
        True
    """

    name: ClassVar[str] = "rvpo"
    summary: ClassVar[str] = "soft minimum over z-scores (the paper's)"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = PAPER
    always_spelled: ClassVar[tuple[str, ...]] = ("k",)
    k: float | Schedule | AdaptiveK | str | Mapping[str, object] = 1.0

    def __post_init__(self) -> None:
        """Read k and refuse impossible values."""
        super().__post_init__()
        object.__setattr__(self, "k", _read_k(self.k))

    @property
    def remembers(self) -> bool:
        """Whether k is adaptive."""
        return isinstance(self.k, AdaptiveK)

    @property
    def needs_progress(self) -> bool:
        """Whether k follows a schedule."""
        return isinstance(self.k, Schedule)

    @property
    def traits(self) -> tuple[str, ...]:
        """An adaptive k follows the batch."""
        return ("adapts",) if isinstance(self.k, AdaptiveK) else ()

    def risk(self, progress: float | None) -> float:
        """Return k; for an adaptive k return 1, the usual value."""
        if isinstance(self.k, Schedule):
            return self.k.start if progress is None else self.k(progress)
        return self.k if isinstance(self.k, int | float) else 1.0

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.soft_min`. The state of an adaptive k is its logarithm."""
        z, p = batch.z, batch.p
        if isinstance(self.k, AdaptiveK):
            k, log_k, reached = next_k(z, p, self.k, state.get("log_k"), batch.shards)
            metrics = {"k": k, f"k_{self.k.measure}": reached}
            return Outcome(*aggregate.soft_min(z, p, k), state={"log_k": log_k}, metrics=metrics)
        if isinstance(self.k, Schedule) and batch.progress is None:
            raise ConfigError(
                f"progress is None, but k follows the schedule {self.k}; expected the share of the training that is "
                "done, in [0, 1]. Pass progress=step / steps, or use a fixed k such as rvpo:k=1"
            )
        k = self.risk(batch.progress)
        return Outcome(*aggregate.soft_min(z, p, k), metrics={"k": k})


@dataclass(frozen=True)
class RVPOExplicit(Method):
    """``rvpo_explicit``: mean minus variance.

    Attributes:
        beta: penalty, >= 0; to second order ``beta = k / 2``. It is not related to TRL's ``beta``, the KL coefficient.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.RVPOExplicit(0.25))
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.27, 0.89, 0.28, -1.44]
    """

    name: ClassVar[str] = "rvpo_explicit"
    summary: ClassVar[str] = "mean minus beta times the variance over z-scores"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = PAPER
    beta: float = 0.5

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_number("beta", self.beta, math.inf)

    @property
    def traits(self) -> tuple[str, ...]:
        """A higher z-score can lower the aggregate."""
        return ("spread-penalty",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.explicit`."""
        return Outcome(*aggregate.explicit(batch.z, batch.p, self.beta))


@dataclass(frozen=True)
class HardMin(Method):
    """``hard_min``: the lowest z-score.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.HardMin())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [-0.3, 1.36, -0.04, -1.03]
    """

    name: ClassVar[str] = "hard_min"
    summary: ClassVar[str] = "the lowest z-score, the limit k -> inf of rvpo"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = PAPER

    def risk(self, progress: float | None) -> float:
        """Return infinity."""
        return math.inf

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.hard_min`."""
        return Outcome(*aggregate.hard_min(batch.z, batch.p))


def _read_k(k: object) -> float | Schedule | AdaptiveK:
    """Return k as a number or an object, from any of its forms.

    Raises:
        ConfigError: k has none of these forms, or cannot work.
    """
    if isinstance(k, Schedule | AdaptiveK):
        return k
    if k == "inf":
        return math.inf
    if isinstance(k, str):
        kind, positional, named = call_text(k)
        if kind in VARYING:
            try:
                return VARYING[kind](*positional, **named)
            except TypeError as error:
                raise ConfigError(f"k is {k!r} ({error}); expected {_K}") from error
    if isinstance(k, Mapping):
        options = dict(k)
        # Older records contain the options of an AdaptiveK without a kind.
        kind = str(options.pop("kind", "adaptive"))
        if kind not in VARYING:
            raise ConfigError(f"k has the kind {kind!r}; expected {_K}")
        return build(VARYING[kind], options, f"k: {kind}")
    if not isinstance(k, int | float) or isinstance(k, bool) or not k >= 0:
        raise ConfigError(f"k is {k!r}; expected {_K}. Set k=1 to start")
    return float(k)


_K = "a number in [0, inf], linear(0.5,2), cosine(0.5,2) or adaptive(target=0.55)"
