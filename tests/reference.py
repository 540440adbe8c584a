"""The method in plain Python floats and loops, to be read beside the paper (RVPO, arXiv 2605.05750).

Slow on purpose and written without the package: tests compare every fast path with it. Rows are completions, columns
are channels, NaN is a missing reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, fsum, inf, isnan, log, nan, sqrt

import numpy


@dataclass
class Reference:
    """Lists with the names and meanings of ``rvpo.Advantages``."""

    advantages: list[float]
    aggregated: list[float]
    z: list[list[float]]
    responsibilities: list[list[float]]
    live: list[list[bool]]


def reference(
    rewards: list[list[float]],
    groups: list[int],
    method: str = "rvpo",
    *,
    k: float = 1.0,
    beta: float = 0.5,
    weights: list[float] | list[list[float]] | None = None,
    eps: float = 1e-4,
    ddof: int = 1,
    rtol: float = 1e-6,
    whiten: str | None = None,
    dead_channels: str | None = None,
    unscored: str | None = None,
) -> Reference:
    """Advantages of N completions, with the options and defaults of ``rvpo.AdvantageConfig``."""
    rows, channels = range(len(rewards)), range(len(rewards[0]))
    whiten = whiten or ("group" if method == "grpo" else "batch")
    unscored = unscored or ("zero" if method == "grpo" else "left_out")
    dead_channels = dead_channels or ("keep" if method in ("grpo", "gdpo") else "drop")
    w = weight_matrix(weights, rewards)
    members = {group: [n for n in rows if groups[n] == group] for group in groups}
    z, std = group_scores(rewards, members, eps, ddof, rtol)
    live = [[std[n][j] > 0 for j in channels] for n in rows]

    # The rule over the channels of one completion
    aggregated = [0.0 for _ in rows]
    responsibilities = [[0.0 for _ in channels] for _ in rows]
    counted = []
    for n in rows:
        pull = []
        present = [live[n][j] if dead_channels == "drop" else not isnan(z[n][j]) for j in channels]
        taking_part = [j for j in channels if present[j] and w[n][j] > 0]
        if not taking_part and not (unscored == "zero" and any(present)):
            continue
        counted.append(n)
        if method == "grpo":
            aggregated[n] = weighted_sum(rewards, members[groups[n]], n, w[n], unscored)
            pull = [w[n][j] * std[n][j] for j in taking_part]
        else:
            p = [w[n][j] / fsum(w[n][i] for i in taking_part) for j in taking_part]
            if p:
                aggregated[n], pull = rule(method, [z[n][j] for j in taking_part], p, k, beta)
            if unscored == "zero":  # TRL's sum of w_j Z_j
                aggregated[n] = fsum(w[n][j] * z[n][j] for j in taking_part)
        total = fsum(pull)
        for j, share in zip(taking_part, pull, strict=True):
            responsibilities[n][j] = share / total if total > 0 else 0.0

    advantages = whitened(
        aggregated, counted, members, z, w, method == "grpo" or unscored == "zero", eps, ddof, rtol, whiten, method
    )
    return Reference(advantages, aggregated, z, responsibilities, live)


def weight_matrix(weights: list[float] | list[list[float]] | None, rewards: list[list[float]]) -> list[list[float]]:
    """Return (N, M) weights."""
    if weights is None:
        weights = [1.0 for _ in rewards[0]]
    return weights if isinstance(weights[0], list) else [weights for _ in rewards]


def group_scores(
    rewards: list[list[float]], members: dict[int, list[int]], eps: float, ddof: int, rtol: float
) -> tuple[list[list[float]], list[list[float]]]:
    """Return Z_j(g) = (R_j(g) - mean_j) / (std_j + eps) and std_j (0 where not live), within the group."""
    z = [[nan for _ in rewards[0]] for _ in rewards]
    std = [[0.0 for _ in rewards[0]] for _ in rewards]
    for group in members.values():
        for j in range(len(rewards[0])):
            column = [rewards[n][j] for n in group]
            for n, score in zip(group, zscores(column, eps, ddof, rtol), strict=True):
                z[n][j] = score
                std[n][j] = 0.0 if isnan(score) or is_constant(column, eps, rtol) else deviation(column, ddof)
    return z, std


def whitened(
    aggregated: list[float],
    counted: list[int],
    members: dict[int, list[int]],
    z: list[list[float]],
    w: list[list[float]],
    raw: bool,
    eps: float,
    ddof: int,
    rtol: float,
    whiten: str,
    method: str = "",
) -> list[float]:
    """Whiten as the peers do it on the weighted *sum* of z-scores: W times our mean, hence eps / W."""
    scored_weight = [fsum(wj for wj, zj in zip(w[n], z[n], strict=True) if not isnan(zj)) for n in counted]
    scale = 1.0 if raw or not counted else fsum(scored_weight) / len(counted)
    if method == "grpo" and whiten != "group":  # around the group's mean, over the deviation of the batch or nothing
        every = [aggregated[n] for n in counted]
        scale = deviation(every, ddof) + eps if whiten == "batch" and not is_constant(every, eps, rtol) else 1.0
        advantages = [0.0 for _ in aggregated]
        for group in members.values():
            pool = [n for n in group if n in counted]
            values = [aggregated[n] for n in pool]
            for n in pool if not is_constant(values, eps, rtol) else []:
                advantages[n] = (aggregated[n] - fsum(values) / len(values)) / scale
        return advantages
    advantages = [aggregated[n] if whiten == "none" and n in counted else 0.0 for n in range(len(aggregated))]
    pools = {"none": [], "batch": [list(range(len(aggregated)))], "group": list(members.values())}[whiten]
    for pool in pools:
        pool = [n for n in pool if n in counted]
        for n, score in zip(pool, zscores([aggregated[n] for n in pool], eps / scale, ddof, rtol), strict=True):
            advantages[n] = score
    return advantages


def rule(method: str, z: list[float], p: list[float], k: float, beta: float) -> tuple[float, list[float]]:
    """Return A and dA/dZ of one completion, over the channels that take part with shares p."""
    mean = fsum(pj * zj for pj, zj in zip(p, z, strict=True))
    low = min(z)
    if method == "rvpo" and 0 < k < inf:  # A = -(1/k) ln sum_j p_j exp(-k Z_j), with exp(-k low) taken out
        odds = [pj * exp(-k * (zj - low)) for pj, zj in zip(p, z, strict=True)]
        return low - log(fsum(odds)) / k, [o / fsum(odds) for o in odds]
    if method == "rvpo_explicit":  # A = mean_j Z_j - beta var_j Z_j
        variance = fsum(pj * (zj - mean) ** 2 for pj, zj in zip(p, z, strict=True))
        return mean - beta * variance, [pj * (1 - 2 * beta * (zj - mean)) for pj, zj in zip(p, z, strict=True)]
    if method == "hard_min" or (method == "rvpo" and k == inf):  # A = min_j Z_j
        tied = [pj if zj - low <= 1e-6 else 0.0 for pj, zj in zip(p, z, strict=True)]  # equal up to rounding
        return low, [t / fsum(tied) for t in tied]
    return mean, p  # A = mean_j Z_j


def weighted_sum(rewards: list[list[float]], group: list[int], n: int, w: list[float], unscored: str = "zero") -> float:
    """GRPO's sum_j w_j R_j of completion n: of what was scored, or with that standing in for what was not."""
    if unscored == "zero":
        return fsum(wj * r for wj, r in zip(w, rewards[n], strict=True) if not isnan(r))
    expected, deviations, weight, scored_weight = [], [], [], []
    for j, wj in enumerate(w):
        scored = [rewards[m][j] for m in group if not isnan(rewards[m][j])]
        if not scored:
            continue  # nobody in the group has this channel
        mean = fsum(scored) / len(scored)
        expected.append(wj * mean)
        weight.append(wj)
        if not isnan(rewards[n][j]):
            deviations.append(wj * (rewards[n][j] - mean))
            scored_weight.append(wj)
    return fsum(expected) + fsum(weight) / fsum(scored_weight) * fsum(deviations)


def zscores(values: list[float], eps: float, ddof: int, rtol: float) -> list[float]:
    """(x - mean) / (std + eps) over the scored values; 0 where they are constant, NaN where missing."""
    scored = [x for x in values if not isnan(x)]
    if is_constant(values, eps, rtol):
        return [nan if isnan(x) else 0.0 for x in values]
    mean = fsum(scored) / len(scored)
    return [(x - mean) / (deviation(values, ddof) + eps) for x in values]


def deviation(values: list[float], ddof: int) -> float:
    """Return the standard deviation of the scored values."""
    scored = [x for x in values if not isnan(x)]
    mean = fsum(scored) / len(scored)
    return sqrt(fsum((x - mean) ** 2 for x in scored) / (len(scored) - ddof))


def is_constant(values: list[float], eps: float, rtol: float) -> bool:
    """Whether the scored values rank nothing: fewer than two, or equal up to float noise."""
    scored = [x for x in values if not isnan(x)]
    if len(scored) < 2:
        return True
    return max(scored) - min(scored) <= rtol * max(abs(max(scored)), abs(min(scored)), eps)


# --- methods that compare channels on their scales, or remember the run -----------------------------------------------

SCALES = ("tchebycheff", "smooth_tchebycheff")
LEVELS = [i / 20 for i in range(1, 20)]


@dataclass
class Cells:
    """One batch, cell by cell: what each of the N x M cells is, and the channel of the run that it belongs to."""

    rewards: list[list[float]]
    members: dict[int, list[int]]
    w: list[list[float]]
    z: list[list[float]]
    std: list[list[float]]
    part: list[list[int]]  # the columns that take part, of each row
    channel: list[list[str]]
    ranges: dict[str, tuple[float, float]]
    rho: list[list[float]] | None = None

    def shares(self, n: int) -> dict[int, float]:
        total = fsum(self.w[n][j] for j in self.part[n])
        return {j: self.w[n][j] / total for j in self.part[n]}

    def attained(self, n: int, j: int) -> float:
        """(R - lowest) / (highest - lowest), NaN where not scored or without weight."""
        if isnan(self.rewards[n][j]) or self.w[n][j] == 0:
            return nan
        low, high = self.ranges[self.channel[n][j]]
        return min(max((self.rewards[n][j] - low) / (high - low), 0.0), 1.0)

    def mean_attained(self, name: str) -> float:
        """Mean over the cells of the batch that belong to a channel of the run."""
        cells = [(n, j) for n, row in enumerate(self.channel) for j, other in enumerate(row) if other == name]
        scored = [x for n, j in cells if not isnan(x := self.attained(n, j))]
        return fsum(scored) / len(scored) if scored else nan


def remembering(
    rewards: list[list[float]],
    groups: list[int],
    method: str,
    state: dict,
    *,
    channel: list[list[str]],
    ranges: dict[str, tuple[float, float]],
    weights: list[float] | list[list[float]] | None = None,
    reliability: list[list[float]] | None = None,
    eps: float = 1e-4,
    ddof: int = 1,
    rtol: float = 1e-6,
    whiten: str | None = None,
    dead_channels: str | None = None,
    **options,
) -> tuple[Reference, dict]:
    """Advantages of one batch and the state for the next, for every method; ``channel`` (N, M) names the cells.

    ``ranges`` has the run's channels of this batch, in order. ``options`` are the method's own.
    """
    raw = method in ("grpo", *SCALES)
    whiten = whiten or ("group" if raw else "none" if method == "riskpo" else "batch")
    inner = options.get("score", "grpo") if method == "riskpo" else method  # the rule over channels
    inner = inner["name"] if isinstance(inner, dict) else inner
    dead_channels = dead_channels or ("drop" if inner in ("rvpo", "rvpo_explicit", "hard_min") else "keep")
    w = weight_matrix(weights, rewards)
    members: dict[int, list[int]] = {}
    for n, group in enumerate(groups):
        members.setdefault(group, []).append(n)
    z, std = group_scores(rewards, members, eps, ddof, rtol)
    live = [[s > 0 for s in row] for row in std]
    rho = reliability if method == "lift" else None  # reads reliabilities itself
    if reliability is not None and rho is None:  # Z' = sqrt(rho) Z, p' in proportion to p sqrt(rho)
        z = [[zj * sqrt(rho) for zj, rho in zip(*rows, strict=True)] for rows in zip(z, reliability, strict=True)]
        shrunk = [[wj * sqrt(rho) for wj, rho in zip(*rows, strict=True)] for rows in zip(w, reliability, strict=True)]
        w = [[x * fsum(old) / (fsum(row) or 1.0) for x in row] for row, old in zip(shrunk, w, strict=True)]
    counts = [
        [live[n][j] if dead_channels == "drop" else not isnan(z[n][j]) for j in range(len(w[0]))] for n in range(len(w))
    ]
    part = [[j for j, present in enumerate(row) if present and w[n][j] > 0] for n, row in enumerate(counts)]
    cells = Cells(rewards, members, w, z, std, part, channel, ranges, rho)
    if method == "riskpo":
        aggregated, pull, counted, new = riskpo(cells, state, options)
    else:
        aggregated, pull, counted, new = score(method, cells, state, options)
    responsibilities = [[0.0 for _ in row] for row in w]
    for n, row in enumerate(pull):
        total = fsum(row.values())
        for j, share in row.items():
            responsibilities[n][j] = share / total if total > 0 else 0.0
    raw = method in ("grpo", "lift") or options.get("unscored") == "zero"
    advantages = whitened(aggregated, counted, members, z, w, raw, eps, ddof, rtol, whiten, method)
    return Reference(advantages, aggregated, z, responsibilities, live), new


def score(method: str, cells: Cells, state: dict, options: dict) -> tuple[list[float], list[dict], list[int], dict]:
    """Return A (N,), the unscaled responsibilities, the rows that take part and the new state."""
    rows = range(len(cells.rewards))
    if method in SCALES:
        return shortfalls(method, cells, options)
    if method == "lift":
        return lift(cells, state, **options)
    if method == "lift_z":
        return lift_z(cells, state, **options)
    if method == "ctwa":
        return ctwa(cells, state, **options)
    aggregated, pull = [0.0 for _ in rows], [{} for _ in rows]
    new: dict = {}
    counted = [n for n in rows if cells.part[n]]
    if options.get("unscored", "zero" if method == "grpo" else None) == "zero":
        counted = [n for n in rows if not all(isnan(r) for r in cells.rewards[n])]
    k = options.get("k", 1.0)
    if isinstance(k, dict):
        k, new = adaptive_k(cells, state, **k)
    multipliers = {}
    if method == "lagrangian":
        # lambda_j <- clip(lambda_j + eta (tau_j - a_j), 0, lambda_max)
        multipliers = dict(state.get("multipliers", {}))
        for name in cells.ranges:
            before = multipliers.get(name, 0.0)
            short = options["thresholds"].get(name, nan) - cells.mean_attained(name)
            step = 0.0 if isnan(short) else options.get("rate", 0.5) * short
            multipliers[name] = min(max(before + step, 0.0), options.get("ceiling", 10.0))
        new = {"multipliers": multipliers}
    for n in counted:
        if method == "grpo":
            group = next(group for group in cells.members.values() if n in group)
            aggregated[n] = weighted_sum(cells.rewards, group, n, cells.w[n], options.get("unscored", "zero"))
            pull[n] = {j: cells.w[n][j] * cells.std[n][j] for j in cells.part[n]}
            continue
        weight = {j: cells.w[n][j] + multipliers.get(cells.channel[n][j], 0.0) for j in cells.part[n]}
        p = [weight[j] / fsum(weight.values()) for j in cells.part[n]]
        if not p:
            continue
        aggregated[n], shares = rule(method, [cells.z[n][j] for j in cells.part[n]], p, k, options.get("beta", 0.5))
        pull[n] = dict(zip(cells.part[n], shares, strict=True))
        if options.get("unscored") == "zero":  # TRL's sum of w_j Z_j
            aggregated[n] = fsum(weight[j] * cells.z[n][j] for j in cells.part[n])
    return aggregated, pull, counted, new


def shortfalls(method: str, cells: Cells, options: dict) -> tuple[list[float], list[dict], list[int], dict]:
    """-(max_j D_j + rho sum_j p_j (1 - x_j)), or -mu ln sum_j exp(D_j / mu), with D_j = M' p_j (1 - x_j)."""
    rows = range(len(cells.rewards))
    aggregated, pull = [0.0 for _ in rows], [{} for _ in rows]
    for group in cells.members.values():
        x = {(n, j): cells.attained(n, j) for n in group for j in range(len(cells.w[n]))}
        for n in group:
            filled = {}
            for j in range(len(cells.w[n])):
                scored = [x[m, j] for m in group if not isnan(x[m, j])]
                if scored and cells.w[n][j] > 0:
                    filled[j] = fsum(scored) / len(scored) if isnan(x[n, j]) else x[n, j]
            total = fsum(cells.w[n][j] for j in filled)
            p = {j: cells.w[n][j] / total for j in filled}
            distance = {j: len(p) * p[j] * (1 - filled[j]) for j in p}
            if not p:
                continue
            worst = max(distance.values())
            if method == "tchebycheff":
                rho = options.get("rho", 0.05)
                tied = [j for j in p if worst - distance[j] <= 1e-6]
                aggregated[n] = -(worst + rho * fsum(p[j] * (1 - filled[j]) for j in p))
                slope = {j: p[j] * (len(p) * (j in tied) / len(tied) + rho) for j in p}
            else:
                mu = options.get("mu", 0.1)
                odds = {j: exp((distance[j] - worst) / mu) for j in p}
                aggregated[n] = -worst - mu * log(fsum(odds.values()))
                slope = {j: p[j] * odds[j] for j in p}
            wide = {j: cells.ranges[cells.channel[n][j]] for j in p}
            total = fsum(slope.values())
            pull[n] = {j: slope[j] / total * cells.std[n][j] / (wide[j][1] - wide[j][0]) for j in p}
    counted = [
        n for n in rows if any(wj > 0 and not isnan(r) for wj, r in zip(cells.w[n], cells.rewards[n], strict=True))
    ]
    return aggregated, pull, counted, {}


def lift_z(
    cells: Cells, state: dict, kappa: float = 6.0, margin: float = 0.2, horizon: float = 5.0
) -> tuple[list[float], list[dict], list[int], dict]:
    """A = sum_j (lambda_j + mu_j) p_j Z_j, with lambda ~ exp(-kappa a) and the least mu that lets no channel fall."""
    rows, names = range(len(cells.rewards)), list(cells.ranges)
    counted = [n for n in rows if any(cells.std[n][j] > 0 for j in cells.part[n])]
    u = [dict.fromkeys(names, 0.0) for _ in rows]  # a completion's z-scores times their shares, by channel
    share = [dict.fromkeys(names, 0.0) for _ in rows]
    for n in rows:
        for j, pj in cells.shares(n).items():
            u[n][cells.channel[n][j]] += pj * cells.z[n][j]
            share[n][cells.channel[n][j]] += pj
    here = [name for name in names if counted and any(share[n][name] > 0 for n in rows)]

    # Running means: the past fades by 1 - 1/horizon where the channel is there, a pair by the geometric mean of both.
    past = state or {"attained": {}, "weight": {}, "covariance": {}, "covariance_weight": {}}
    new = {key: dict(value) for key, value in past.items()}
    for name in names:
        if not isnan(x := cells.mean_attained(name)):
            new["attained"][name] = past["attained"].get(name, 0.0) * (1 - 1 / horizon) + x / horizon
            new["weight"][name] = past["weight"].get(name, 0.0) * (1 - 1 / horizon) + 1 / horizon
    for a in here:
        new["covariance_weight"][a] = past["covariance_weight"].get(a, 0.0) * (1 - 1 / horizon) + 1 / horizon
    every = list(new["covariance_weight"])
    for a in every:
        for b in every:
            fade = sqrt((1 - (a in here) / horizon) * (1 - (b in here) / horizon))
            now = fsum(u[n][a] * u[n][b] for n in rows) / len(counted) if a in here and b in here else 0.0
            new["covariance"][a, b] = past["covariance"].get((a, b), 0.0) * fade + now / horizon

    mean = {name: new["attained"][name] / new["weight"][name] for name in names if name in new["weight"]}
    w = {name: fsum(share[n][name] for n in rows) / len(cells.rewards) for name in mean}
    low = min((mean[name] for name in mean if w[name] > 0), default=0.0)
    need = {name: exp(-kappa * max(mean[name] - low, 0.0)) for name in mean}
    average = fsum(w[name] * need[name] for name in mean) / (fsum(w.values()) or 1.0)
    lambdas = {name: need[name] / average if name in need and average > 0 else 1.0 for name in names}

    def covariance(a: str, b: str) -> float:
        scale = sqrt(new["covariance_weight"][a] * new["covariance_weight"][b])
        return new["covariance"][a, b] / scale

    moving = [name for name in here if covariance(name, name) > 0]
    of_lambda = fsum(lambdas[a] * covariance(a, b) * lambdas[b] for a in moving for b in moving)
    demand = [
        fsum(covariance(a, b) * lambdas[b] for b in moving) - margin * sqrt(max(of_lambda, 0) * covariance(a, a))
        for a in moving
    ]
    ridged = [[covariance(a, b) * (1.02 if a == b else 1.0) for b in moving] for a in moving]
    added = dict(zip(moving, least(ridged, demand), strict=True))
    # A channel that is dead in the whole batch is not moved by it.
    total = {
        name: lambdas[name] + (added.get(name, 0.0) if any(u[n][name] != 0 for n in rows) else 0.0) for name in names
    }
    pull = [{j: pj * total[cells.channel[n][j]] for j, pj in cells.shares(n).items()} for n in rows]
    aggregated = [fsum(x * cells.z[n][j] for j, x in pull[n].items()) for n in rows]
    live = [{j: x for j, x in pull[n].items() if cells.std[n][j] > 0} for n in rows]  # a dead channel decides nothing
    return aggregated, live, counted, new


def lift(
    cells: Cells,
    state: dict,
    kappa: float = 4.0,
    floors: dict[str, float] | None = None,
    margin: float = 0.5,
    memory: float = 640.0,
) -> tuple[list[float], list[dict], list[int], dict]:
    """A = sum_j (lambda_j + mu_j) p_j D_j, from running means of what is attained and of the moments of p D."""
    rows, names = range(len(cells.rewards)), list(cells.ranges)
    columns = range(len(cells.w[0]))
    # Deviations from the mean of the group, and their spread, column by column.
    d = [[0.0 for _ in columns] for _ in rows]
    spread = [[0.0 for _ in columns] for _ in rows]
    for group in cells.members.values():
        for j in columns:
            scored = [n for n in group if not isnan(cells.attained(n, j))]
            mean = fsum(cells.attained(n, j) for n in scored) / max(len(scored), 1)
            moving = [n for n in scored if cells.std[n][j] > 0]
            for n in moving:
                d[n][j] = x if abs(x := cells.attained(n, j) - mean) >= 1e-9 else 0.0
            for n in moving:
                spread[n][j] = sqrt(fsum(d[m][j] ** 2 for m in moving) / max(len(scored) - 1, 1))
    p = [cells.shares(n) for n in rows]
    counted = [n for n in rows if any(spread[n][j] > 0 for j in p[n])]
    of = {name: [[j for j in columns if cells.channel[n][j] == name] for n in rows] for name in names}
    u = {name: [fsum(p[n].get(j, 0.0) * d[n][j] for j in of[name][n]) for n in rows] for name in names}

    # Running means. A batch counts 1 / horizon, the past of what was seen keeps the rest.
    read = {name: [(n, j) for n in rows for j in of[name][n] if not isnan(cells.attained(n, j))] for name in names}
    completions = {name: len({n for n, _ in read[name]}) for name in names}
    new = {key: dict(state.get(key, {})) for key in ("attained", "weight", "moments", "moments_weight")}
    seen = [name for name in names if completions[name] and counted]
    for name in names:
        if completions[name]:
            share = 1 / max(memory / completions[name] / 4, 1.0)
            new["attained"][name] = (1 - share) * new["attained"].get(name, 0.0) + share * cells.mean_attained(name)
            new["weight"][name] = (1 - share) * new["weight"].get(name, 0.0) + share
    counts = {name: 1 / max(memory / completions[name], 2.0) for name in seen}
    known = [*new["moments_weight"], *(name for name in seen if name not in new["moments_weight"])]
    for a in known:
        for b in known:
            fade = sqrt((1 - counts.get(a, 0.0)) * (1 - counts.get(b, 0.0)))
            now = 0.0
            if a in counts and b in counts:
                now = fsum(u[a][n] * u[b][n] for n in rows) / len(counted) * sqrt(counts[a] * counts[b])
            new["moments"][a, b] = fade * new["moments"].get((a, b), 0.0) + now
    for name in seen:
        new["moments_weight"][name] = (1 - counts[name]) * new["moments_weight"].get(name, 0.0) + counts[name]

    def moment(a: str, b: str) -> float:
        return new["moments"][a, b] / sqrt(new["moments_weight"][a] * new["moments_weight"][b])

    def average(values: list[list[float]], of_name: list[tuple[int, int]]) -> float:
        return fsum(values[n][j] for n, j in of_name) / max(len(of_name), 1)

    cells_of = {name: [(n, j) for n in rows for j in of[name][n] if not isnan(cells.rewards[n][j])] for name in names}
    w = {name: average(cells.w, cells_of[name]) for name in names}
    rho = {name: 1.0 if cells.rho is None else average(cells.rho, read[name]) for name in names}
    alive = [name for name in seen if moment(name, name) > 1e-12 and w[name] > 0 and rho[name] > 0]
    known = []  # completions, less one for each group that is scored, times the batches that the mean is worth
    for name in alive:
        weight, rows_of = new["moments_weight"][name], {n for n, _ in read[name]}
        free = completions[name] - sum(not rows_of.isdisjoint(group) for group in cells.members.values())
        known.append(max(free * weight * (2 / counts[name] - 1) / (2 - weight), 1.0))
    total = dict.fromkeys(names, 0.0)
    if alive:
        given = floors or {}
        q = [[moment(a, b) for b in alive] for a in alive]
        attained = [new["attained"][name] / new["weight"][name] for name in alive]
        mine = ([by_name[a] for a in alive] for by_name in (w, rho, dict.fromkeys(alive, nan) | given))
        found = lift_weights(q, attained, *mine, kappa, margin, known)
        total |= dict(zip(alive, found, strict=True))
    pull = [{j: pj * total[cells.channel[n][j]] for j, pj in p[n].items()} for n in rows]
    aggregated = [fsum(x * d[n][j] for j, x in pull[n].items()) for n in rows]
    return aggregated, [{j: x * spread[n][j] for j, x in pull[n].items()} for n in rows], counted, new


def lift_weights(
    q: list[list[float]],
    attained: list[float],
    w: list[float],
    rho: list[float],
    floors: list[float],
    kappa: float,
    margin: float,
    known: list[float],
) -> list[float]:
    """Return (lambda + mu) / |A|, from the moments of K channels with a spread: the equations of the module."""
    k = range(len(q))
    s = [sqrt(q[i][i] * rho[i]) for i in k]
    c = [[1.0 if i == j else q[i][j] / s[i] / s[j] for j in k] for i in k]
    if any(x != 1 for x in rho):
        c = nearest_correlations(c)

    def times(v: list[float]) -> list[float]:
        return [fsum(c[i][j] * v[j] for j in k) for i in k]

    def size(v: list[float]) -> float:
        return sqrt(max(fsum(v[i] * x for i, x in zip(k, times(v), strict=True)), 0.0))

    def norm(v: list[float]) -> float:
        return max(size(v), 1e-4 * fsum(v), 1e-12)

    def plus(m: list[list[float]], ridge: list[float]) -> list[list[float]]:
        return [[m[i][j] + (ridge[i] if i == j else 0.0) for j in k] for i in k]

    def nearest_to_zero(ridge: list[float]) -> tuple[float, list[float]]:
        y = least(plus(certain, ridge), [-1.0 for _ in k])
        return min(1.0, 1 / sqrt(fsum(y))), [x / fsum(y) for x in y]

    alike = [[exp(-8 * (1 - c[i][j])) for j in k] for i in k]
    omega = [max(x, 1e-3) for x in least(plus(alike, [1e-8 for _ in k]), [-1.0 for _ in k])]
    n = fsum(omega)
    # C is shrunk by the share of its squares that its sampling error explains, leaving out copies.
    pairs = [(i, j, omega[i] * omega[j] * (1 - alike[i][j])) for i in k for j in k]
    error = fsum(v * (1 - c[i][j] ** 2) ** 2 / sqrt(known[i] * known[j]) for i, j, v in pairs)
    delta = min(1.0, error / max(fsum(v * c[i][j] ** 2 for i, j, v in pairs), 1e-12))
    certain = [[(1 - delta) * c[i][j] + delta * alike[i][j] for j in k] for i in k]
    alike = [[exp(-8 * (1 - certain[i][j])) for j in k] for i in k]
    t, nu = nearest_to_zero([1e-8 / o for o in omega])
    phi = min(1.0, n * t * t)
    power = min(10.0, 1 / sqrt(max(phi, 1e-12)))
    # p holds the weights once already.
    logs = [(power - 1) * log(w[i]) - kappa * power * attained[i] for i in k]
    need = [omega[i] * rho[i] * exp(logs[i] - max(logs)) for i in k]
    scale = norm([need[i] * s[i] for i in k])
    v = [need[i] * s[i] / scale for i in k]  # in units of spread
    if margin != -1:
        f = [min(1.0, n * fsum(alike[i][j] * nu[j] for j in k)) ** 3 for i in k]
        e = [(1 - phi) ** 3 * x for x in f]

        def let_go(x: float) -> float:
            return 3 * x / max(1 - x, 1e-12)

        m = margin * size(v) * t
        mu = least(
            plus(c, [(0.02 + let_go(e[i])) / omega[i] + (1 - rho[i]) / rho[i] for i in k]), [x - m for x in times(v)]
        )
        bound = min(1.0, 0.7 * size(v) / max(size(mu), 1e-12))
        v = [x + bound * y for x, y in zip(v, mu, strict=True)]
    named = [i for i in k if not isnan(floors[i])]
    if named:
        wanted = []
        for i in named:
            distance = (attained[i] - floors[i]) / min(max((1 - floors[i]) / 2, 1e-3), 0.05)
            above = 0.2 - 1.2 * min(max(distance - 1, 0.0), 1.0)
            wanted.append(0.9 - 0.7 * max(distance, 0.0) if distance < 1 else above)
        before, start = times(v), list(v)
        ridged = [[c[i][j] + (1e-3 if i == j else 0.0) for j in named] for i in named]
        now = [size(v) if x < 0 else size(v) / 100 for x in wanted]
        for _ in range(40):
            added = least(ridged, [before[i] - x * y for i, x, y in zip(named, wanted, now, strict=True)])
            v = list(start)
            for i, x in zip(named, added, strict=True):
                v[i] += x
            now = [size(v)] * len(named)
            if all(times(v)[i] >= (x - 1e-3) * size(v) for i, x in zip(named, wanted, strict=True)):
                break
    return [v[i] / s[i] / norm(v) for i in k]


def nearest_correlations(c: list[list[float]]) -> list[list[float]]:
    """Set negative eigenvalues to 0, then scale the diagonal to 1."""
    values, vectors = numpy.linalg.eigh(numpy.array(c))
    if values[0] >= 0:
        return c
    positive = (vectors * values.clip(0)) @ vectors.T
    scale = numpy.sqrt(positive.diagonal())
    found = (positive / numpy.outer(scale, scale)).tolist()
    return [[1.0 if i == j else x for j, x in enumerate(row)] for i, row in enumerate(found)]


def least(q: list[list[float]], c: list[float]) -> list[float]:
    """Minimise x^T q x / 2 + c^T x over x >= 0 by trying every set of entries that may be above 0."""
    best, lowest = [0.0 for _ in c], 0.0
    for free in range(1, 2 ** len(c)):
        chosen = [i for i in range(len(c)) if free >> i & 1]
        x = solve([[q[i][j] for j in chosen] for i in chosen], [-c[i] for i in chosen])
        value = fsum(c[i] * xi for i, xi in zip(chosen, x, strict=True)) / 2  # x^T q x = -c^T x at a solution
        if min(x) >= 0 and value < lowest:
            lowest, best = value, [0.0 for _ in c]
            for i, xi in zip(chosen, x, strict=True):
                best[i] = xi
    return best


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss's elimination with row pivots."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(len(rows)):
        pivot = max(range(i, len(rows)), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for r in range(len(rows)):
            if r != i:
                factor = rows[r][i] / rows[i][i]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[i], strict=True)]
    return [row[-1] / row[i] for i, row in enumerate(rows)]


def ctwa(
    cells: Cells, state: dict, target: float = 0.1, cap: float = 0.95, rate: float = 0.05, decay: float = 0.1
) -> tuple[list[float], list[dict], list[int], dict]:
    """GDPO with weights from before the batch; then w_j <- w_j exp(rate relu(target - E_j)), E_j the running Cov."""
    rows = range(len(cells.rewards))
    weights = {**dict.fromkeys(cells.ranges, 1.0), **state.get("weights", {})}
    running = dict(state.get("covariance", {}))
    pull = []
    for n in rows:
        weight = {j: cells.w[n][j] * weights[cells.channel[n][j]] for j in cells.part[n]}
        pull.append({j: x / fsum(weight.values()) for j, x in weight.items()})
    aggregated = [fsum(p * cells.z[n][j] for j, p in pull[n].items()) for n in rows]
    counted = [n for n in rows if pull[n]]
    mean = fsum(aggregated[n] for n in counted) / max(len(counted), 1)
    spread = sqrt(fsum((aggregated[n] - mean) ** 2 for n in counted) / max(len(counted), 1))
    a = [(aggregated[n] - mean) / max(spread, 1e-12) if n in counted else 0.0 for n in rows]
    for name in cells.ranges:
        x = []
        for n in rows:
            scored = [
                value
                for j, other in enumerate(cells.channel[n])
                if other == name and not isnan(value := cells.attained(n, j))
            ]
            x.append(fsum(scored) / len(scored) if scored else nan)
        covariances = []
        for group in cells.members.values():
            scored = [n for n in group if not isnan(x[n])]
            if len(scored) > 1:
                middle = fsum(x[n] for n in scored) / len(scored)
                covariances.append(fsum(a[n] * (x[n] - middle) for n in scored) / len(scored))
        if not covariances:
            continue
        new = fsum(covariances) / len(covariances)
        running[name] = (1 - decay) * running[name] + decay * new if name in running else new
        if cells.mean_attained(name) < cap:
            weights[name] *= exp(rate * max(target - running[name], 0.0))
    return aggregated, pull, counted, {"weights": weights, "covariance": running}


def adaptive_k(
    cells: Cells,
    state: dict,
    target: float = 0.55,
    k_min: float = 0.05,
    k_max: float = 20.0,
    horizon: float = 10.0,
) -> tuple[float, dict]:
    """k at which the mean of (e - q) / (1 - q), e = 1 / sum_j r_j^2 / p_j, is the target; log k is averaged."""
    rows = []
    for n in range(len(cells.rewards)):
        p = cells.shares(n)
        low = min((cells.z[n][j] for j in p), default=0.0)
        q = fsum(pj for j, pj in p.items() if cells.z[n][j] - low <= 1e-6)
        if p and 1 - q > 1e-6:
            rows.append((p, {j: cells.z[n][j] - low for j in p}, q))

    def measure(k: float) -> float:
        values = []
        for p, above, q in rows:
            odds = {j: pj * exp(-k * above[j]) for j, pj in p.items()}
            effective = 1 / fsum((odds[j] / fsum(odds.values())) ** 2 / p[j] for j in p)
            values.append((effective - q) / (1 - q))
        return fsum(values) / len(values)

    log_k = state.get("log_k")
    if rows:
        low, high = log(k_min), log(k_max)
        if measure(k_min) <= target:
            high = low
        elif measure(k_max) > target:
            low = high
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if measure(exp(middle)) > target else (low, middle)
        log_k = low if log_k is None else log_k + (low - log_k) / horizon
    return 1.0 if log_k is None else exp(log_k), {"log_k": log_k}


def riskpo(cells: Cells, state: dict, options: dict) -> tuple[list[float], list[dict], list[int], dict]:
    """Mixed value at risk of bundles of questions, with tracked quantiles and credit by the question's std."""
    size, lower, upper = options.get("bundle_size", 5), 0.2, 0.8
    of_score = options.get("score", {"name": "grpo", "unscored": "left_out"})
    of_score = {"name": of_score} if isinstance(of_score, str) else dict(of_score)
    method = of_score.pop("name")
    scores, pull, _, inner = score(method, cells, state.get("score", {}), of_score)
    scored = [
        s if any(wj > 0 and not isnan(r) for wj, r in zip(cells.w[n], cells.rewards[n], strict=True)) else nan
        for n, s in enumerate(scores)
    ]
    questions = [group for group in cells.members.values() if not all(isnan(scored[n]) for n in group)]
    tracked = state.get("quantiles")
    aggregated, counted, papers = [0.0 for _ in scored], [], []
    for start in range(0, len(questions), size):
        bundle = questions[start : start + size]
        sums = {}
        for i in range(min(len(question) for question in bundle)):
            if all(isnan(scored[question[i]]) for question in bundle):
                continue
            filled = []
            for question in bundle:
                known = [scored[n] for n in question if not isnan(scored[n])]
                filled.append(fsum(known) / len(known) if isnan(scored[question[i]]) else scored[question[i]])
            sums[i] = fsum(filled) * size / len(bundle)
        values = list(sums.values())
        papers += values
        low, high = (quantile(values, a) if tracked is None else tracked[LEVELS.index(a)] for a in (lower, upper))
        spread = deviation(values, 1) if len(values) > 1 else 1.0
        for i, s in sums.items():
            between = (max(s - low, 0) - max(s - high, 0) + low - high) / (upper - lower + 1e-6)
            tail = -max(low - s, 0) / (lower + 1e-6)
            paper = (between + 1.5 * tail) / 2.5 / ((1.0 if spread < 1e-3 else spread) + 1e-6)
            for question in bundle:
                n = question[i]
                known = [scored[m] for m in question if not isnan(scored[m])]
                contrast = deviation(known, 1) if len(known) > 1 else 1.0
                counted.append(n)
                if not isnan(scored[n]):
                    aggregated[n] = paper / ((1.0 if contrast <= 1e-3 else contrast) + 1e-6)
    if papers and tracked is None:
        tracked = [quantile(papers, level) for level in LEVELS]
    elif papers:
        below = [sum(s < q for s in papers) / len(papers) for q in tracked]
        tracked = [q + 0.1 * (level - b) for q, level, b in zip(tracked, LEVELS, below, strict=True)]
    return aggregated, pull, sorted(counted), {"score": inner, "quantiles": tracked}


def quantile(values: list[float], level: float) -> float:
    """Interpolate linearly between the order statistics."""
    ordered = sorted(values)
    place = level * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
