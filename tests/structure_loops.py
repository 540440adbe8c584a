"""Structures and GDPO by loops over single completions, in plain Python floats."""

from __future__ import annotations

from math import fsum, isnan, nan, sqrt

Rows = list[dict[str, float]]
"""One mapping per completion: channel -> reward, NaN = missing."""


def share(value: float, limits: tuple[float, float], sign: str = "") -> float:
    """Attained share in [0, 1]; 1 - it for a cost."""
    if isnan(value):
        return nan
    low, high = limits
    attained = min(max((value - low) / (high - low), 0.0), 1.0)
    return 1 - attained if sign == "-" else attained


def taken_apart(name: str) -> tuple[str, str]:
    return ("-", name[1:]) if name.startswith("-") else ("", name)


def holds(row: dict[str, float], name: str, threshold: float, ranges: dict) -> bool | None:
    sign, channel = taken_apart(name)
    attained = share(row[channel], ranges[channel], sign)
    return None if isnan(attained) else attained >= threshold - 1e-6


def conjoined(rows: Rows, parts: list[str], ranges: dict) -> list[float]:
    """The product of shares per completion, NaN where one is missing."""
    found = []
    for row in rows:
        product = 1.0
        for part in parts:
            sign, channel = taken_apart(part)
            product *= share(row[channel], ranges[channel], sign)
        found.append(product)
    return found


def gated(rows: Rows, gate: str, over: list[str], threshold: float, factor: float, ranges: dict) -> Rows:
    """The rewards behind a gate."""
    changed = []
    for row in rows:
        new = dict(row)
        opens = holds(row, gate, threshold, ranges)
        for name in over:
            low = ranges[name][0]
            if opens is None:
                new[name] = nan
            elif not opens:
                new[name] = min(low + factor * (row[name] - low), row[name]) if not isnan(row[name]) else nan
        changed.append(new)
    return changed


def gdpo(rows: Rows, groups: list[int], weights: dict[str, float], outside: dict[str, list[bool]], eps: float) -> list:
    """GDPO's whitened advantages; ``outside``: channel -> completions outside of its normalisation, with z = 0."""
    z: list[dict[str, float]] = [{} for _ in rows]
    for name, weight in weights.items():
        if weight == 0:
            continue
        apart = outside.get(name, [False] * len(rows))
        for group in set(groups):
            members = [n for n, g in enumerate(groups) if g == group]
            inside = [n for n in members if not apart[n] and not isnan(rows[n][name])]
            scores = zscores([rows[n][name] for n in inside], eps)
            for n, score in zip(inside, scores, strict=True):
                z[n][name] = score
            for n in members:
                if apart[n]:
                    z[n][name] = 0.0
    taking = [n for n in range(len(rows)) if z[n]]
    mean = [
        fsum(weights[c] * s for c, s in z[n].items()) / fsum(weights[c] for c in z[n]) if z[n] else 0.0
        for n in range(len(rows))
    ]
    total = fsum(fsum(weights[c] for c in z[n]) for n in taking) / len(taking)
    advantages = [0.0] * len(rows)
    for n, score in zip(taking, zscores([mean[n] for n in taking], eps / total), strict=True):
        advantages[n] = score
    return advantages


def zscores(values: list[float], eps: float) -> list[float]:
    """(value - mean) / (sample standard deviation + eps); 0 where all are equal."""
    if len(values) < 2 or max(values) - min(values) <= 1e-6 * max(eps, *map(abs, values)):
        return [0.0] * len(values)
    mean = fsum(values) / len(values)
    std = sqrt(fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return [(value - mean) / (std + eps) for value in values]


def papo(outcome: list[float], process: list[float], groups: list[int], scale: float, eps: float) -> list[float]:
    """PAPO: Z of the outcome over the group, plus ``scale`` times Z of the process among the correct ones alone."""
    advantages = [0.0] * len(outcome)
    for group in set(groups):
        members = [n for n, g in enumerate(groups) if g == group]
        for n, score in zip(members, zscores([outcome[n] for n in members], eps), strict=True):
            advantages[n] = score
        correct = [n for n in members if outcome[n] == 1.0]
        for n, score in zip(correct, zscores([process[n] for n in correct], eps), strict=True):
            advantages[n] += scale * score
    return advantages
