"""LIFT: raise the channel that is met least, and let no channel fall.

Let R_j in [0, 1] be the attained share of channel j for a completion (its reward on the channel's scale), and D_j its
deviation from the mean of its group, in the same unit. Two running means follow the run::

    a_j    mean of R_j                        how far channel j is met
    Q_jk   mean of D_j D_k                    s_j = sqrt(rho_j Q_jj), C_jk = Q_jk / (s_j s_k)

Write A_v = sum_j v_j D_j for an advantage with weights v, and |v| = sqrt(v' Q v) for its size. Then::

    t         = max over |A| = 1 of  min_j corr(A, D_j)                  0 if no advantage raises all channels
              = min over nu in the simplex of  sqrt(nu' C nu)            nu: which channels exclude each other
    omega     = argmin over omega >= 0 of  omega' S omega / 2 - sum_j omega_j,      S_jk = exp(-8 (1 - C_jk))
    phi       = min(1, n t^2),  n = sum_j omega_j                        1 if nothing is opposed, 0 on a frontier
    lambda_j  = omega_j rho_j (w_j exp(-kappa a_j))^(1/sqrt(phi))        need: large for channels that are met least
    f_j       = min(1, n sum_k S_jk nu_k)^3                              how opposed j is, copies counted together
    mu        = argmin over mu >= 0 of  mu' C mu / 2 + mu' (C lambda - margin t |lambda|) + mu' E mu / 2     guard
    mu       <- mu min(1, tau |lambda| / |mu|)
    A         = sum_j (lambda_j + mu_j) D_j                              then whitened over the batch, as always

with kappa = 4, margin = 0.5, tau = 0.7. For t, nu and f, C is shrunk by its own sampling error, see :func:`shrunk`. w
are the user's weights, rho the channels' reliabilities (1 if unknown). The line of mu is in units of spread (lambda_j
s_j for lambda_j). E is diagonal, E_jj = (0.02 + 3 e_j / (1 - e_j)) / omega_j + (1 - rho_j) / rho_j. Here
e_j = (1 - phi)^3 f_j is near 1 for channels on the frontier.

**What it maximises.** Tilt the policy by its advantage, pi' ~ pi exp(step A): the expectation of R_j changes at rate
E[A D_j]. The soft minimum F = -(1/kappa) ln sum_j w_j exp(-kappa a_j) therefore changes at the rate lambda' Q
(lambda + mu), in units of rewards, if lambda is its gradient (phi = 1, no copies). This is at least (1 - tau)
|lambda|^2 > 0, because |mu| <= tau |lambda|. On a frontier the same holds for the sharper soft minimum with
kappa / sqrt(phi).

**What it forbids.** If no channel is on a frontier and the bound tau is not reached, E[A D_j] >= margin t |lambda|
s_j for every j, up to the ridge 0.02 mu_j / omega_j: every channel rises. Such an A exists for every number of
channels, because t is the largest correlation that one advantage can have with all channels at once. By minimax, t is
the distance of the origin from the convex hull of the unit channels (MGDA's min-norm point, here K x K), and t =
1 / sqrt(K) for unrelated ones.

**On a frontier** (t = 0) no advantage raises all channels of nu together. The guard releases these (e = 1) and keeps
the others from falling, and F decides. It is sharp there, with w_j exp(-kappa a_j) to the power 1/sqrt(phi), so
a_j = const + ln(w_j) / kappa: a weight is an allowance. A channel of weight w ends ln(w) / kappa of attained share
above one of weight 1. ``floors`` name channels that are never traded.

**Copies.** omega is the share that a channel keeps of itself: 1 for an unrelated channel, 1/n for each of n copies. So
n copies of a channel get the advantages of one, if no reward is missing.

**Noise.** A channel of reliability rho has the variance s_j^2 = rho_j Q_jj. Noise is independent, so the other moments
do not change. If the resulting C is not positive semidefinite (rho too low for the observations), the nearest such
matrix is used.

**No signal.** A channel that is constant in a group has D = 0 there. A channel that is constant everywhere has s = 0
and does not take part.

The rule is ours. Known parts: the entropic worst case over tasks (group DRO, arXiv 1911.08731), and directions that
lower no objective (MGDA, Desideri 2012; GEM, arXiv 1706.08840), here from rewards instead of gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require_known, require_number, require_positive
from rvpo.core.lazy import Tensor, torch
from rvpo.core.lift_watch import ALIKE, Sight, next_watch
from rvpo.core.methods.base import Batch, Method, Outcome
from rvpo.core.metrics import EFFECTIVE, FRONTIER, GUARD, NEED, TURN, WEIGHT
from rvpo.core.nonnegative import least_nonnegative
from rvpo.core.running_mean import RunningMean
from rvpo.errors import ConfigError

TAU = 0.7
"""Largest size of the guard, as a share of the size of the need: the advantage turns by at most 45 degrees."""
LETTING_GO = 3.0
"""How fast the guard releases a channel on a frontier: factor of the ridge, and power of 1 - phi and of f."""
KERNEL = 8.0
"""How alike two channels must be to count as copies: correlations of 0.95 and 0.5 count 0.67 and 0.02."""
RIDGE = 0.02
"""Added to the diagonal of C in the guard, so that the weights of nearly equal channels stay bounded."""
SHARPEST = 10.0
"""Largest exponent of the need."""
LEAST_BATCHES = 2.0
"""Shortest horizon of Q."""
QUICK = 4.0
"""a is averaged over a quarter of the memory. If rewards exclude each other, a delayed a makes the policy oscillate."""
RESTORING = 0.9
"""Correlation of the advantage with a channel that is at its floor."""
NEVER_TRADED = 0.2
"""Correlation of the advantage with a channel that is near its floor."""
NEAR, NEAREST = 0.05, 1e-3
"""Largest and smallest distance, in attained share, at which a channel is near its floor."""
CANCELLED = 1e-4
"""An advantage that is smaller than this share of its summands is not scaled up: it is mostly rounding."""
SMALL = 1e-8
"""Number added to diagonals, so that copies of a channel get equal shares."""
TINY = 1e-12
LEAST_DEVIATION = 1e-9
"""Deviations up to this are rounding: they remain if the end of a scale clips rewards."""


@dataclass(frozen=True)
class LIFT(Method):
    """``lift``: raise the channel that is met least, and let no channel fall.

    Attributes:
        kappa: how much more the channel that is met least counts, >= 0: a channel met 1/kappa less often weighs e times
            as much.
        floors: name of a channel -> attained share in (0, 1] below which it must not fall. Such a channel is never
            traded for others. If it is already below its floor, it is raised first.
        margin: how far above 0 the guard keeps the correlation of the advantage with every channel, in [0, 1), as a
            share of the largest correlation that all channels can have at once; -1 turns the guard off.
        memory: number of completions per channel over which correlations are averaged, > 0. Attained shares are
            averaged over a quarter of it.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import rvpo
        >>> agg = rvpo.Aggregator(rvpo.LIFT(floors={"safe": 0.98}), ["correct", "brief", "safe"])
        >>> out = agg([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]], num_generations=4)
        >>> len(out.advantages)
        4
    """

    name: ClassVar[str] = "lift"
    summary: ClassVar[str] = "raises the channel that is met least and lets none fall (recommended)"
    by_sums: ClassVar[bool] = True
    own_dead_channels: ClassVar[str] = "keep"
    uses_reliability: ClassVar[bool] = True
    largest_reward: ClassVar[float] = 1e300  # it compares shares of a scale
    sums_weights: ClassVar[bool] = True  # A has size 1 by the running moments, however many channels there are
    former_options: ClassVar[Mapping[str, str]] = {
        "horizon": "Set memory, in completions, instead; method lift_z still has horizon, in batches"
    }
    kappa: float = 4.0
    floors: Mapping[str, float] = field(default_factory=dict)
    margin: float = 0.5
    memory: float = 640.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_number("kappa", self.kappa, math.inf)
        is_number = isinstance(self.margin, (int, float)) and not isinstance(self.margin, bool)
        if not is_number or not (self.margin == -1 or 0 <= self.margin < 1):
            raise ConfigError(
                f"margin is {self.margin!r}; expected a number in [0, 1), or -1 for no guard. The default is 0.5"
            )
        require_positive("memory", self.memory)
        if not isinstance(self.floors, Mapping):
            raise ConfigError(
                f"floors is {self.floors!r}; expected a mapping of channels to the share in (0, 1] that each must "
                "keep, such as lift:floors={safe:0.98}"
            )
        for name, floor in self.floors.items():
            require_number(f"floors: {name}", floor, 1, closed=True)
            require_positive(f"floors: {name}", floor)

    @property
    def remembers(self) -> bool:
        """Attained shares and correlations are means over batches."""
        return True

    @property
    def names_channels(self) -> tuple[str, ...]:
        """Names of the channels with a floor."""
        return tuple(self.floors)

    @property
    def traits(self) -> tuple[str, ...]:
        """All rows share weights that depend on the whole batch."""
        return ("shared-weights",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Update the running means with this batch, then weight its channels by them."""
        channels, names, p = batch.channels, batch.channels.names, batch.p
        if channels.index.ndim == 1:  # every batch has the same channels; a rubric's may be absent
            require_known("floors", self.floors, names)
        deviations = group_deviations(batch)
        weighted = p * deviations
        u = channels.pool(weighted)  # (N, K): several cells of a row can belong to one channel
        spread = _spread(batch, deviations)
        takes_part = ((spread > 0) & (p > 0)).any(-1)
        scored = ~batch.attained.isnan()
        has = (channels.pool(scored.to(p)) > 0).to(p)  # (N, K)
        products, taking, completions, groups, ranks = batch.shards.sum(
            u.T @ u,
            takes_part.sum(),
            has.sum(0),
            (batch.groups.sum(has) > 0).sum(0),
            channels.pool((deviations != 0).to(p)).sum(0),
        )
        completions = completions.cpu().double()  # (K,)
        shown = Shown(
            names,
            completions,
            # Deviations from a group's mean have one degree of freedom less per group that is scored.
            completions - groups.cpu(),
            batch.means(batch.attained).cpu().double(),
            (products / taking.clamp(min=1)).cpu().double(),
            bool(taking > 0),
            (ranks > 0).cpu(),
            _weights_of_channels(batch),
            _trusted(batch),
        )
        decided = self.decide(shown, state)
        cells = decided.factors.to(p)[channels.index]
        return Outcome(
            (weighted * cells).sum(-1),
            # In units of z, a cell counts by its spread. A channel that is constant decides nothing.
            aggregate.normalised(p * cells * spread),
            takes_part,
            state=decided.state,
            metrics=decided.metrics(),
        )

    def decide(self, shown: Shown, state: State) -> Decided:
        """Update the state with the statistics of a batch, and return the factors of its channels.

        Args:
            shown: statistics of the batch.
            state: state of the last batch; empty at the start of a run.
        """
        names, completions = shown.names, shown.completions
        seen = (completions > 0) & shown.takes_part
        now = shown.moments.masked_fill(~(seen[:, None] & seen), torch.nan)
        # Running means, including this batch.
        horizon = self.memory / completions.clamp(min=1)
        longer = horizon.clamp(min=LEAST_BATCHES)
        attained = RunningMean.from_state(state.get("attained"), 1).update(names, shown.attained, horizon / QUICK)
        moments = RunningMean.from_state(state.get("moments"), 2).update(names, now, longer)
        a, q = attained.mean(names), moments.mean(names)
        # Weights of the channels.
        alive = (seen & (q.diagonal() > TINY) & (shown.weights > 0) & (shown.trusted > 0)).nonzero()[:, 0]
        floors = torch.tensor([self.floors.get(name, math.nan) for name in names], dtype=torch.float64)
        known = (shown.free * moments.batches(names, longer)).clamp(min=1)
        of_alive = (x[alive] for x in (a, shown.weights, shown.trusted, floors, known))
        pairs = q if len(alive) == len(names) else q[alive][:, alive]
        weighed = self._weigh(pairs, *of_alive)
        factors = torch.zeros(len(names), dtype=torch.float64)
        factors[alive] = weighed.total
        sights = _sights(shown, a, floors, alive, weighed, self.memory)
        watch = next_watch(state.get("watch"), sights, weighed.frontier)
        new = {"attained": attained.to_state(), "moments": moments.to_state(), "watch": watch}
        return Decided(factors, new, weighed, tuple(names[k] for k in alive.tolist()))

    def _weigh(
        self, q: Tensor, attained: Tensor, weights: Tensor, trusted: Tensor, floors: Tensor, known: Tensor
    ) -> Weighed:
        """Return lambda, mu and the values for the metrics, for K channels with a spread.

        Args:
            q: (K, K) running mean of u u', with a positive diagonal.
            attained: (K,) running attained shares.
            weights: (K,) the user's weights, > 0.
            trusted: (K,) reliabilities in (0, 1].
            floors: (K,) attained shares, NaN = none.
            known: (K,) number of independent completions from which the moments are known, >= 1.
        """
        if not len(attained):
            return Weighed.none()
        spread = (q.diagonal() * trusted).sqrt()
        c = correlations(q, spread)
        own = own_shares(c)
        certain = shrunk(c, own, known)
        channels = float(own.sum())
        t, opposed = common_direction(certain, SMALL / own)
        phi = min(1.0, channels * t * t)
        power = min(SHARPEST, 1 / math.sqrt(max(phi, TINY)))
        # u holds the weights once already.
        exponent = (power - 1) * weights.log() - self.kappa * power * attained
        need = own * trusted * (exponent - exponent.max()).exp()
        need = need / norm_of(c, need * spread)
        guard = torch.zeros_like(need)
        if self.margin != -1:
            frontier = (1 - phi) ** LETTING_GO
            excluded = (channels * (likeness(certain) @ opposed)).clamp(max=1.0) ** LETTING_GO
            # The noise of a channel, in units of its true spread, makes it expensive to guard.
            ridge = (RIDGE + let_go(frontier * excluded)) / own + (1 - trusted) / trusted
            guard = guards(c, need * spread, self.margin * t, ridge) / spread
        kept = floors_kept(c, (need + guard) * spread, attained, floors) / spread
        return Weighed(need, guard + kept, c, spread, phi, channels, opposed)


@dataclass(frozen=True)
class Shown:
    """Statistics of a batch for its K channels, on the CPU.

    Attributes:
        names: K names.
        completions: (K,) float64, number of completions on which each was scored.
        free: (K,) float64, ``completions`` minus one per group in which the channel was scored.
        attained: (K,) float64, mean attained share; NaN where nothing was scored.
        moments: (K, K) float64, mean of u u' over the completions that take part.
        takes_part: whether any completion takes part.
        ranks: (K,) bool, whether the channel differs within a group.
        weights: (K,) float64, the user's weights, 0 where nothing was scored.
        trusted: (K,) float64, reliabilities in [0, 1].
    """

    names: tuple[str, ...]
    completions: Tensor
    free: Tensor
    attained: Tensor
    moments: Tensor
    takes_part: bool
    ranks: Tensor
    weights: Tensor
    trusted: Tensor


@dataclass(frozen=True)
class Decided:
    """Factors of the channels of a batch.

    Attributes:
        factors: (K,) float64, A = sum of these times u; 0 for channels without a spread.
        state: state for the next batch.
        weighed: values that led to the factors.
        names: names of the channels in ``weighed``.
    """

    factors: Tensor
    state: State
    weighed: Weighed
    names: tuple[str, ...]

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name."""
        return self.weighed.metrics(self.names)


@dataclass(frozen=True)
class Weighed:
    """Weights of K channels: ``need + guard``, so that A = sum of these times u.

    Attributes:
        need: (K,) lambda, scaled so that A_lambda has size 1 by the running moments, or less if needs cancel out.
        guard: (K,) mu, including the part that the floors need.
        correlations: (K, K) C.
        spread: (K,) s.
        frontier: phi in [0, 1]: 1 if nothing is opposed, 0 if nothing raises all channels.
        channels: effective number of channels, copies counted once.
        opposed: (K,) nu, shares of the mixture of channels that is closest to cancelling.
    """

    need: Tensor
    guard: Tensor
    correlations: Tensor
    spread: Tensor
    frontier: float
    channels: float
    opposed: Tensor

    @classmethod
    def none(cls) -> Weighed:
        """Return the object for a batch without channels."""
        empty = torch.zeros(0, dtype=torch.float64)
        return cls(empty, empty, torch.zeros(0, 0, dtype=torch.float64), empty, math.nan, 0.0, empty)

    @property
    def total(self) -> Tensor:
        """(K,) lambda + mu, scaled so that A has size 1 by the running moments."""
        total = self.need + self.guard
        return total / norm_of(self.correlations, total * self.spread) if len(total) else total

    @property
    def turn(self) -> float:
        """cos(A, A_lambda) by the running moments: 1 if the guard changes nothing."""
        if not len(self.need):
            return math.nan
        a, b = (self.need + self.guard) * self.spread, self.need * self.spread
        return float(a @ self.correlations @ b) / max(
            size_of(self.correlations, a) * size_of(self.correlations, b), TINY
        )

    def metrics(self, names: Sequence[str]) -> dict[str, float]:
        """Return the metrics by name. Need plus guard is 1 on average."""
        if not names:  # no channel is live, so the frontier is unknown
            return {EFFECTIVE: 0.0}
        total = self.need + self.guard
        scale = total.mean().clamp(min=TINY)
        found = {FRONTIER: self.frontier, TURN: self.turn, EFFECTIVE: self.channels}
        for name, need, guard in zip(names, (self.need / scale).tolist(), (self.guard / scale).tolist(), strict=True):
            found |= {f"{name}/{NEED}": need, f"{name}/{GUARD}": guard, f"{name}/{WEIGHT}": need + guard}
        return found


def group_deviations(batch: Batch) -> Tensor:
    """Return D (N, M): attained shares minus the mean of their group; 0 where missing or constant in the group."""
    scored = ~batch.attained.isnan()
    x, counted = batch.attained.masked_fill(~scored, 0.0), scored.to(batch.attained)
    mean = batch.groups.sum(x) / batch.groups.sum(counted).clamp(min=1)
    deviations = x - batch.groups.broadcast(mean)
    return deviations * (scored & batch.scores.live & (deviations.abs() > LEAST_DEVIATION))


def correlations(q: Tensor, spread: Tensor) -> Tensor:
    """Return C (K, K), positive semidefinite with a diagonal of 1, from moments and the channels' spreads.

    Off the diagonal, moments are those of Q. If part of Q is noise, the spreads are smaller than Q's, and the matrix
    may not be positive semidefinite. Then its negative eigenvalues are set to 0.
    """
    c = q / spread / spread[:, None]
    c.diagonal().fill_(1.0)
    if torch.equal(spread, q.diagonal().sqrt()):
        return c
    values, vectors = torch.linalg.eigh(c)
    if float(values[0]) >= 0:
        return c
    nearest: Tensor = (vectors * values.clamp(min=0)) @ vectors.T
    length = nearest.diagonal().sqrt()
    nearest = nearest / length / length[:, None]
    nearest.diagonal().fill_(1.0)
    return nearest


def shrunk(c: Tensor, own: Tensor, known: Tensor) -> Tensor:
    """Return correlations C (K, K) shrunk towards S, which relates only copies.

    A few completions cannot determine many correlations. With more channels than completions the hull of the channels
    always contains 0, which looks like a frontier. So C <- (1 - delta) C + delta S, where delta is the share of squares
    of C that its own sampling error explains (Schaefer and Strimmer 2005, doi 10.2202/1544-6115.1175)::

        delta = min(1, sum_jk v_jk (1 - C_jk^2)^2 / n_jk  /  sum_jk v_jk C_jk^2),   v_jk = omega_j omega_k (1 - S_jk)

    Args:
        c: (K, K) correlations.
        own: (K,) omega. Because of v, copies of a channel do not change delta.
        known: (K,) numbers of completions, >= 1; n_jk is the geometric mean of two of them.
    """
    copies = likeness(c)
    pairs = own[:, None] * own * (1 - copies)
    squares = c.square()
    error = (1 - squares).square() / (known[:, None] * known).sqrt()
    delta = min(1.0, float((pairs * error).sum()) / max(float((pairs * squares).sum()), TINY))
    return (1 - delta) * c + delta * copies


def common_direction(c: Tensor, ridge: Tensor) -> tuple[float, Tensor]:
    """Return t, the minimum of sqrt(nu' C nu) over the simplex, and the point nu (K,) at which it is reached.

    ``y = nu / t^2`` solves min y' C y / 2 - sum y over y >= 0. ``ridge`` (K,) is added to the diagonal of C.
    """
    y = _balanced(c, ridge)
    total = float(y.sum())
    return min(1.0, total**-0.5), y / total


def likeness(c: Tensor) -> Tensor:
    """Return S (K, K) in (0, 1]: how much two channels count as copies of each other."""
    return (-KERNEL * (1 - c)).exp()


def own_shares(c: Tensor) -> Tensor:
    """Return omega (K,) in (0, 1]: the share that each channel keeps of itself, 1/n for each of n copies."""
    return _balanced(likeness(c), torch.full_like(c[0], SMALL)).clamp(min=1e-3)


def _balanced(q: Tensor, ridge: Tensor) -> Tensor:
    """Return argmin over y >= 0 of y' q y / 2 - sum y, (K,), with ``ridge`` (K,) added to the diagonal of q."""
    return least_nonnegative(q + torch.diag(ridge), q.new_full((len(q),), -1.0))


def let_go(traded: Tensor) -> Tensor:
    """Return the numbers on the diagonal of C that release a channel from the guard by a share ``traded`` in [0, 1]."""
    return LETTING_GO * traded / (1 - traded).clamp(min=TINY)


def size_of(c: Tensor, v: Tensor) -> float:
    """Return |A_v| for weights v (K,) of channels at unit spread."""
    return math.sqrt(max(float(v @ c @ v), 0.0))


def norm_of(c: Tensor, v: Tensor) -> float:
    """Return |A_v|, by which an advantage is scaled to size 1; at least a small share of the size of its summands."""
    return max(size_of(c, v), CANCELLED * float(v.sum()), TINY)


def guards(c: Tensor, need: Tensor, margin: float, ridge: Tensor) -> Tensor:
    """Return mu (K,), which is added to ``need`` so that no channel falls, for channels at unit spread.

    Args:
        c: (K, K) correlations.
        need: (K,) lambda.
        margin: smallest E[A D_j] / s_j for every channel, in units of |A_lambda|.
        ridge: (K,) numbers added to the diagonal of C, > 0. The larger, the less a channel is guarded.
    """
    size = size_of(c, need)
    mu = least_nonnegative(c + torch.diag(ridge), c @ need - margin * size)
    return mu * min(1.0, TAU * size / max(size_of(c, mu), TINY))


def floors_kept(c: Tensor, weights: Tensor, attained: Tensor, floors: Tensor) -> Tensor:
    """Return what is added to ``weights`` (K,) so that channels with a floor stay above it, at unit spread.

    A channel is near its floor within 0.05 of attained share, or half of the distance between the floor and 1. There
    the advantage has a correlation of at least 0.2 with it, and at the floor of at least 0.9, so that a channel below
    its floor is raised before anything else. From twice that distance on, the floor has no effect.
    """
    added = torch.zeros_like(weights)
    (named,) = (~floors.isnan()).nonzero(as_tuple=True)
    if not len(named):
        return added
    floor, level = floors[named], attained[named]
    distance = (level - floor) / ((1 - floor) / 2).clamp(NEAREST, NEAR)
    above = NEVER_TRADED - (1 + NEVER_TRADED) * (distance - 1).clamp(0, 1)  # -1 holds for every advantage
    wanted = torch.where(distance < 1, RESTORING - (RESTORING - NEVER_TRADED) * distance.clamp(min=0), above)
    ridged = c[named][:, named] + 1e-3 * torch.eye(len(named)).to(c)
    before = (c @ weights)[named]
    # The required amount grows with the size of A, and adding it changes that size. Start from below, so that no more
    # than needed is added, but not from 0, where A stays if its channels are copies or opposites.
    size = size_of(c, weights)
    sizes = torch.where(wanted < 0, size, size / 100)
    for _ in range(40):
        added[named] = least_nonnegative(ridged, before - wanted * sizes)
        size = size_of(c, weights + added)
        sizes = torch.full_like(wanted, size)
        if bool(((c @ (weights + added))[named] >= (wanted - 1e-3) * size).all()):
            break
    return added


def _sights(
    shown: Shown, attained: Tensor, floors: Tensor, alive: Tensor, weighed: Weighed, memory: float
) -> dict[str, Sight]:
    """Return the input of :mod:`rvpo.core.lift_watch`, by name, for the scored channels of the batch.

    Args:
        shown: statistics of the batch.
        attained: (K,) running attained shares.
        floors: (K,) floors, NaN = no floor.
        alive: numbers of the channels in ``weighed``.
        weighed: weights of the batch.
        memory: number of completions over which correlations are averaged.
    """
    completions = shown.completions
    need, opposed = dict[int, float](), dict[int, float]()
    if len(alive):
        need = dict(zip(alive.tolist(), (weighed.need / weighed.need.max()).tolist(), strict=True))
        with_copies = (weighed.correlations > ALIKE).to(weighed.opposed) @ weighed.opposed
        opposed = dict(zip(alive.tolist(), with_copies.tolist(), strict=True))
    error = (attained * (1 - attained) / completions.clamp(min=memory / QUICK)).clamp(min=0).sqrt()
    columns = (x.tolist() for x in (attained, shown.attained, completions.long(), shown.ranks, floors, error))
    return {
        name: Sight(a, mean, n, rank, need.get(k), opposed.get(k), None if math.isnan(floor) else floor, e)
        for k, (name, a, mean, n, rank, floor, e) in enumerate(zip(shown.names, *columns, strict=True))
        if n
    }


def _spread(batch: Batch, deviations: Tensor) -> Tensor:
    """Return (N, M) the standard deviation of the attained shares in each row's group, 0 where constant."""
    squares = batch.groups.sum(deviations.square())
    counted = batch.groups.sum((~batch.attained.isnan()).to(deviations))
    spread = batch.groups.broadcast((squares / (counted - 1).clamp(min=1)).sqrt())
    return spread * batch.scores.live


def _weights_of_channels(batch: Batch) -> Tensor:
    """Return (K,) the mean weight of the scored cells of each channel, 0 without scored cells."""
    scored = (~batch.scores.missing).to(batch.weights)
    total, number = batch.shards.sum(batch.channels.total(batch.weights * scored), batch.channels.total(scored))
    return (total / number.clamp(min=1)).cpu().double()


def _trusted(batch: Batch) -> Tensor:
    """Return (K,) the mean reliability of the scored cells of each channel; 1 if unknown."""
    if batch.reliability is None:
        return torch.ones(len(batch.channels.names), dtype=torch.float64)
    rho = batch.reliability.to(batch.p).expand_as(batch.p)
    there = (~batch.attained.isnan()).to(batch.p)
    total, number = batch.shards.sum(batch.channels.total(rho * there), batch.channels.total(there))
    return (total / number.clamp(min=1)).cpu().double()
