"""The method in plain Python floats and loops, to be read beside the paper (RVPO, arXiv 2605.05750).

Slow on purpose and written without the package: tests compare every fast path with it. Rows are completions, columns
are channels, NaN is a missing reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, fsum, inf, isnan, log, nan, sqrt


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
) -> Reference:
    """Advantages of N completions, with the options and defaults of ``rvpo.AdvantageConfig``."""
    rows, channels = range(len(rewards)), range(len(rewards[0]))
    whiten = whiten or ("group" if method == "grpo" else "batch")
    dead_channels = dead_channels or ("keep" if method in ("grpo", "gdpo") else "drop")
    if weights is None:
        weights = [1.0 for _ in channels]
    w = weights if isinstance(weights[0], list) else [weights for _ in rows]
    members = {group: [n for n in rows if groups[n] == group] for group in groups}

    # Z_j(g) = (R_j(g) - mean_j) / (std_j + eps), within the group
    z = [[nan for _ in channels] for _ in rows]
    std = [[0.0 for _ in channels] for _ in rows]
    for group in members.values():
        for j in channels:
            column = [rewards[n][j] for n in group]
            for n, score in zip(group, zscores(column, eps, ddof, rtol), strict=True):
                z[n][j] = score
                std[n][j] = 0.0 if isnan(score) or is_constant(column, eps, rtol) else deviation(column, ddof)
    live = [[std[n][j] > 0 for j in channels] for n in rows]

    # The rule over the channels of one completion
    aggregated = [0.0 for _ in rows]
    responsibilities = [[0.0 for _ in channels] for _ in rows]
    counted = []
    for n in rows:
        present = [live[n][j] if dead_channels == "drop" else not isnan(z[n][j]) for j in channels]
        taking_part = [j for j in channels if present[j] and w[n][j] > 0]
        if not taking_part:
            continue
        counted.append(n)
        if method == "grpo":
            aggregated[n] = weighted_sum(rewards, members[groups[n]], n, w[n])
            pull = [w[n][j] * std[n][j] for j in taking_part]
        else:
            p = [w[n][j] / fsum(w[n][i] for i in taking_part) for j in taking_part]
            aggregated[n], pull = rule(method, [z[n][j] for j in taking_part], p, k, beta)
        total = fsum(pull)
        for j, share in zip(taking_part, pull, strict=True):
            responsibilities[n][j] = share / total if total > 0 else 0.0

    # Whitening, as the peers do it on the weighted *sum* of z-scores: W times our mean, hence eps / W
    scored_weight = [fsum(w[n][j] for j in channels if not isnan(z[n][j])) for n in counted]
    scale = 1.0 if method == "grpo" or not counted else fsum(scored_weight) / len(counted)
    advantages = [aggregated[n] if whiten == "none" and n in counted else 0.0 for n in rows]
    pools = {"none": [], "batch": [list(rows)], "group": list(members.values())}[whiten]
    for pool in pools:
        pool = [n for n in pool if n in counted]
        for n, score in zip(pool, zscores([aggregated[n] for n in pool], eps / scale, ddof, rtol), strict=True):
            advantages[n] = score
    return Reference(advantages, aggregated, z, responsibilities, live)


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


def weighted_sum(rewards: list[list[float]], group: list[int], n: int, w: list[float]) -> float:
    """GRPO's sum_j w_j R_j of completion n. The deviations of its scored channels stand in for the missing ones."""
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
