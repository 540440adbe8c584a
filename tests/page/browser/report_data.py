"""Data of a report as ``rvpo.reports`` makes it, invented, so that the page can be tested without the rest."""

from __future__ import annotations

import math
import random
from typing import Any

HOSTILE = "</script><img src=x onerror=alert(1)>"
NAMES = ("correctness", "helpfulness", "format", "safety", "brevity", "tone")
VERDICTS = ("healthy", "saturated", "neglected", "neglected", "unclear", "noisy")
STARTS = (0.32, 0.55, 0.86, 0.78, 0.50, 0.47)
ENDS = (0.71, 0.97, 0.41, 0.63, 0.55, 0.49)
PULLS = (2.1, 1.7, 0.08, 0.14, 0.3, 0.9)
CORRELATIONS = (0.71, 0.58, -0.09, 0.05, 0.14, 0.33)


def estimate(value: float, reach: float) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def share(value: float, reach: float) -> dict[str, float]:
    return {"value": value, "low": max(value - reach, 0.0), "high": min(value + reach, 1.0)}


def sentence(verdict: str, pull: float, correlation: float) -> str:
    moves = (
        f"it moves the advantage {pull:.2f} [{pull - 0.06:.2f}, {pull + 0.06:.2f}] times as far as the average channel"
    )
    return {
        "neglected": f"ignored: {moves}; 54% of improvements got the lower advantage",
        "noisy": "62% of its variance is noise: equal completions were scored differently",
        "saturated": "97% of the last third have its highest reward",
        "unclear": f"{moves}: more groups would tell",
        "dead": "ranks 2% of the groups, under 5%",
    }.get(verdict, moves)


def channel(j: int, name: str) -> dict[str, Any]:
    i = j % len(NAMES)
    verdict = "dead" if j % 13 == 12 else VERDICTS[i]
    missing = 0.06 if i == 5 else 0.0
    dead = 0.98 if verdict == "dead" else (0.55 if i == 1 else 0.12)
    return {
        "name": name,
        "verdict": verdict,
        "rule": sentence(verdict, PULLS[i], CORRELATIONS[i]),
        "confidence": (0.99, 0.97, 1.0, 0.93, 0.58, 0.88)[i],
        "mean": share((STARTS[i] + ENDS[i]) / 2, 0.012),
        "trend": estimate(ENDS[i] - STARTS[i], 0.03),
        "early": STARTS[i],
        "late": ENDS[i],
        "live": 1 - dead - missing if verdict != "dead" else 0.02 - missing / 10,
        "dead": dead,
        "missing": missing,
        "live_groups": share(1 - dead, 0.02),
        "correlation": estimate(CORRELATIONS[i], 0.04),
        "fair": 0.45,
        "pull": estimate(PULLS[i], 0.06),
        "punished": share(0.5 - CORRELATIONS[i] / 2.2, 0.02),
        "responsibility": share((0.12, 0.06, 0.31, 0.24, 0.15, 0.12)[i], 0.01),
        "bottleneck": share((0.09, 0.02, 0.38, 0.27, 0.14, 0.10)[i], 0.015),
        "ceiling": share((0.61, 0.97, 0.36, 0.55, 0.02, 0.01)[i], 0.02),
        "reliability": {"value": None, "low": None, "high": None},
        "pairs": 0,
        "unexplored": share((0.02, 0.0, 0.21, 0.05, 0.62, 0.33)[i], 0.01),
        "suppressed": share((0.11, 0.08, 0.01, 0.02, 0.04, 0.03)[i], 0.01),
    }


def line(rng: random.Random, start: float, end: float, points: int) -> list[float]:
    along = [t / max(points - 1, 1) for t in range(points)]
    return [start + (end - start) * (1 - math.exp(-3 * x)) / 0.95 + rng.gauss(0, 0.012) for x in along]


def diagnosis(names: list[str], points: int, rng: random.Random, method: str) -> dict[str, Any]:
    channels = [channel(j, name) for j, name in enumerate(names)]
    steps = [5 * (t + 1) for t in range(points)]
    place = dict(zip(names, range(len(names)), strict=True))
    shares = {name: line(rng, 1 / 6, channels[j]["responsibility"]["value"], points) for name, j in place.items()}
    k = len(names)
    r = [[1.0 if i == j else round(math.sin(3 * i + 5 * j + i * j) * 0.45, 3) for j in range(k)] for i in range(k)]
    r = [[r[min(i, j)][max(i, j)] for j in range(k)] for i in range(k)]
    return {
        "schema": "rvpo.diagnosis/1",
        "run": "tools",
        "path": "runs/tools",
        "kind": "channels",
        "method": method,
        "k": 1.0,
        "level": 0.95,
        "completions": 64 * 5 * points,
        "groups": 8 * 5 * points,
        "steps": 5 * points,
        "channels": channels,
        "correlations": r,
        "curves": {
            "steps": steps,
            "mean": {name: line(rng, STARTS[j % 6], ENDS[j % 6], points) for name, j in place.items()},
            "responsibility": shares,
            "correlation": {name: line(rng, 0.3, CORRELATIONS[j % 6], points) for name, j in place.items()},
            "live": {name: [min(1.0, x) for x in line(rng, 0.7, 0.8, points)] for name in names},
            "missing": {name: [0.06 if place[name] % 6 == 5 else 0.0] * points for name in names},
        },
        "notes": ["Advantages are those that the run logged.", "Each point of a curve averages 5 steps."],
        "influence": {
            "steps": steps[:: max(1, points // 12)],
            "pull": {name: line(rng, 1.0, PULLS[j % 6], points)[:: max(1, points // 12)] for name, j in place.items()},
            "say": {
                name: line(rng, 0.6, min(PULLS[j % 6], CORRELATIONS[j % 6] / 0.45), points)[:: max(1, points // 12)]
                for name, j in place.items()
            },
        },
    }


def card(name: str, code: str = 'args = RVPOConfig(method="lift")') -> dict[str, Any]:
    return {
        "channel": name,
        "sure": 0.99,
        "why": "Its scores vary 21 times less than those of correctness. Its mean fell from 0.86 to 0.41.",
        "evidence": "Replayed on these completions with lift, it would have had 90% of a fair share of influence.",
        "lines": [
            {"where": "TRL script", "code": f"from rvpo.trl import RVPOConfig, RVPOTrainer\n{code}"},
            {"where": "TRL's config, a higher weight", "code": "reward_weights=[1, 1, 7, 1, 1, 1],"},
        ],
    }


def rule(method: str, label: str, names: list[str], tilt: float) -> dict[str, Any]:
    influence = {name: round(CORRELATIONS[j % 6] * (1 - tilt) + 0.38 * tilt, 3) for j, name in enumerate(names)}
    weights = [math.exp(-tilt * CORRELATIONS[j % 6]) for j in range(len(names))]
    return {
        "method": method,
        "label": label,
        "sign_flips": 0.31 * tilt,
        "rank_correlation": 1 - 0.5 * tilt,
        "effective_channels": 1 + (len(names) - 1) * (1 - 0.4 * tilt),
        "influence": influence,
        "pull": dict.fromkeys(names, 1.0),
        "responsibility": {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)},
    }


def replay(names: list[str]) -> dict[str, Any]:
    rules = [
        ("grpo", "GRPO", 0.15),
        ("gdpo", "GDPO", 0.0),
        ("rvpo:k=1", "RVPO, k = 1", 0.5),
        ("rvpo:k=2", "RVPO, k = 2", 0.75),
        ("hard_min", "hard minimum", 0.95),
        ("lift", "LIFT", 0.6),
    ]
    return {
        "own": {"method": "gdpo", "largest_difference": 3.1e-7, "note": "They were logged in single precision."},
        "conclusion": "Under lift, format would have had 90% of a fair share (in this run: 8%).",
        "rules": [rule(method, label, names, tilt) for method, label, tilt in rules],
    }


def sample(j: int, names: list[str], rng: random.Random) -> dict[str, Any]:
    worst = names[(2, 3, 2, 4)[j % 4] % len(names)]
    cells = []
    for name in names:
        reward = None if name == "tone" and j % 3 == 0 else float(name != worst and rng.random() < 0.8)
        cells.append(
            {
                "channel": name,
                "criterion": "polite" if name == "tone" else None,
                "text": "The reply is polite and does not lecture." if name == "tone" else None,
                "reward": reward,
                "z": None if reward is None else (0.7 if reward else -1.4),
                "responsibility": 0.46 if name == worst else (0.0 if reward is None else 0.12),
                "reason": "timeout" if reward is None else None,
                "detail": "no <answer> tag was found" if name == worst == "format" else None,
            }
        )
    return {
        "step": 5 * (j + 1),
        "worst": worst,
        "advantage": round(rng.gauss(0.2, 0.9), 3),
        "prompt": f"Find a flight from Zürich to Tōkyō on day {j + 1} and say what it costs.",
        "completion": "<think>The user wants a flight.</think>\n"
        f'{{"tool": "search_flights", "arguments": {{"from": "ZRH", "to": "HND", "day": {j + 1}}}}}\n'
        + "The cheapest one leaves at 10:40 and costs 812 francs. "
        * (1 + j % 3),
        "cells": cells,
    }


def run(
    name: str = "tools-gdpo", channels: int = 6, points: int = 60, samples: int = 12, seed: int = 0
) -> dict[str, Any]:
    rng = random.Random(seed)
    names = [NAMES[j] if j < len(NAMES) else f"criterion {j + 1}" for j in range(channels)]
    told = diagnosis(names, points, rng, "gdpo" if "gdpo" in name else "rvpo (k = 1)")
    return {
        "name": name,
        "path": f"runs/{name}",
        "diagnosis": told,
        "cards": [card(entry["name"]) for entry in told["channels"] if entry["verdict"] == "neglected"],
        "replay": replay(names),
        "samples": [sample(j, names, rng) for j in range(samples)],
    }


def comparison(points: int = 60) -> dict[str, Any]:
    rng = random.Random(7)
    groups = {}
    for group, ends in {
        "gdpo": ENDS,
        "rvpo": (0.66, 0.95, 0.79, 0.77, 0.54, 0.5),
        "lift": (0.68, 0.96, 0.95, 0.9, 0.57, 0.5),
    }.items():
        curves = {}
        for j, name in enumerate(NAMES):
            mean = line(rng, STARTS[j], ends[j], points)
            steps = [5 * (t + 1) for t in range(points)]
            low, high = [x - 0.05 for x in mean], [x + 0.05 for x in mean]
            curves[name] = {"steps": steps, "mean": mean, "low": low, "high": high}
        steps = [5 * (t + 1) for t in range(points)]
        mean = [min(curve["mean"][t] for curve in curves.values()) for t in range(points)]
        worst = {"steps": steps, "mean": mean, "low": [x - 0.04 for x in mean], "high": [x + 0.05 for x in mean]}
        curves = {"worst channel": worst, **curves}
        groups[group] = {"runs": [{"name": f"{group}-{s}", "seed": s} for s in range(5)], "curves": curves}
    return {
        "baseline": "gdpo",
        "groups": groups,
        "table": {
            "head": ["method", "channel", "last", "difference", "p (Holm)", "verdict"],
            "rows": [
                ["rvpo", "worst", "0.54", "+0.13 [+0.05, +0.21]", "0.031", "better"],
                ["lift", "worst", "0.57", "+0.16 [+0.09, +0.23]", "0.012", "better"],
                ["rvpo", "correctness", "0.66", "−0.05 [−0.11, +0.01]", "0.21", "cannot tell"],
            ],
        },
        "notes": ["Five seeds a method, paired by seed."],
    }


FIGURE_1 = {
    "name": "Figure 1",
    "channels": ["correct", "helpful", "safe"],
    "rewards": [[1.0, 1.0, 0.0], [0.7, 0.6, 1.0], [0.3, 0.2, 1.0], [0.1, 0.2, 1.0]],
    "note": "The first reply is brilliant and breaks the constraint. The second is good on all three.",
}
RARE = {
    "name": "A rare success",
    "channels": ["correct", "fluent", "format", "cited"],
    "rewards": [
        [1.0, 0.9, 1.0, None],
        [0.0, 0.8, 1.0, 0.4],
        [0.0, 0.9, 0.0, 0.6],
        [0.0, 0.7, 1.0, 0.2],
        [0.0, 0.6, 1.0, 0.9],
    ],
    "note": "Only one completion is correct; a soft minimum hardly sees it.",
}


def report(**changes: Any) -> dict[str, Any]:
    """Return a whole report; ``changes`` replace its parts."""
    return {
        "schema": "rvpo.report/1",
        "title": "Tool calls, six rewards",
        "generated": "2026-05-11 14:20",
        "version": "0.1.0",
        "runs": [run("tools-gdpo", seed=0), run("tools-rvpo", seed=1)],
        "comparison": comparison(),
        "presets": [FIGURE_1, RARE],
        "headline": None,
        "live": False,
    } | changes


def hostile() -> dict[str, Any]:
    """Return a report in which every text that can come from logs is an attack."""
    attacks = [
        HOSTILE,
        "<b>bold</b>",
        "<a href='https://example.org'>x</a>",
        "constructor",
        "__proto__",
        "\ud800 \u2028 half",
        "%{y} $x$",
    ]
    names = [f"{attack} {HOSTILE}" if i else attack for i, attack in enumerate(attacks)]
    names[3], names[4] = "constructor", "__proto__"
    rng = random.Random(0)
    data = diagnosis(names, 12, rng, HOSTILE) | {
        "notes": [HOSTILE],
        "guesses": [HOSTILE, {"what": HOSTILE, "why": HOSTILE, "option": HOSTILE, "trust": 0.5, "open": False}],
        "run": HOSTILE,
        "path": HOSTILE,
    }
    for entry in data["channels"]:
        entry["rule"] = HOSTILE
    samples = [sample(j, names, rng) | {"prompt": HOSTILE, "completion": f"{HOSTILE}<!-- <script>"} for j in range(3)]
    for entry in samples:
        for cell in entry["cells"]:
            cell |= {"criterion": HOSTILE, "text": HOSTILE, "reason": HOSTILE, "detail": HOSTILE}
    curves = {name: {"steps": [1, 2], "mean": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3]} for name in names}
    group = {"runs": [{"name": HOSTILE, "seed": 1}], "curves": curves}
    rules = [rule(HOSTILE, HOSTILE, names, 0.5)]
    hostile_lines = [{"where": HOSTILE, "code": HOSTILE}] * 2
    return report(
        title=HOSTILE,
        version=HOSTILE,
        generated=HOSTILE,
        runs=[
            {
                "name": HOSTILE,
                "path": HOSTILE,
                "diagnosis": data,
                "replay": {
                    "own": {"method": HOSTILE, "largest_difference": None, "note": HOSTILE},
                    "rules": rules,
                    "conclusion": HOSTILE,
                },
                "samples": samples,
                "cards": [
                    dict.fromkeys(("channel", "why", "evidence"), HOSTILE) | {"sure": 1.0, "lines": hostile_lines}
                ],
                "summary": HOSTILE,
            },
            run(),
        ],
        comparison={
            "baseline": HOSTILE,
            "groups": {HOSTILE: group, "gdpo": group},
            "table": {"head": [HOSTILE], "rows": [[HOSTILE]]},
            "notes": [HOSTILE],
        },
        presets=[{"name": HOSTILE, "channels": [HOSTILE, "b"], "rewards": [[1, 0], [0, 1]], "note": HOSTILE}],
    )
