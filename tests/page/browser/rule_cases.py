"""Groups of completions, ordinary and awkward, on which rules.js has to agree with ``rvpo.advantages``."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor

import rvpo

OPTIONS: dict[str, dict[str, list[float]]] = {
    "grpo": {},
    "gdpo": {},
    "rvpo": {"k": [0.0, 1e-9, 0.05, 1.0, 5.0, 50.0, 1e4, math.inf]},
    "rvpo_explicit": {"beta": [0.0, 0.5, 7.0]},
    "hard_min": {},
    "tchebycheff": {"rho": [0.0, 0.05, 3.0]},
    "smooth_tchebycheff": {"mu": [1e-4, 0.1, 10.0]},
}
PARTS = ("advantages", "aggregated", "responsibilities", "z")


def rewards(rng: random.Random) -> tuple[list[list[float | None]], list[list[float]] | None]:
    """Return one group's rewards (None = missing) and the ranges of its channels."""
    n, m = rng.choice([1, 2, 3, 4, 8, 16]), rng.choice([1, 2, 3, 6, 15])
    draw = rng.choice(
        [rng.random, lambda: float(rng.random() < 0.5), lambda: rng.randrange(5) / 4]
    )  # ties in the latter
    columns = [[draw() for _ in range(n)] for _ in range(m)]
    if rng.random() < 0.4:
        columns[rng.randrange(m)] = [0.25] * n  # dead
    if rng.random() < 0.3:
        columns[rng.randrange(m)] = list(columns[rng.randrange(m)])  # ranks the group as another does
    if rng.random() < 0.2:
        columns[rng.randrange(m)] = [1 - x for x in columns[rng.randrange(m)]]  # ranks it the other way round
    ranges = None
    if rng.random() < 0.3:
        scale, shift = rng.choice([(6.0, -3.0), (1e6, 1e6)])
        columns = [[scale * x + shift for x in column] for column in columns]
        ranges = [[shift, shift + 0.9 * scale]] * m  # some lie outside and are clipped
    absent = rng.choice([0.0, 0.0, 0.1, 0.5, 0.95])
    return [[None if rng.random() < absent else column[g] for column in columns] for g in range(n)], ranges


def cases(count: int) -> list[dict[str, Any]]:
    """Return groups with a method and its options, the methods in turn. Infinity is the text "Infinity"."""
    rng = random.Random(0)
    made = []
    for i in range(count):
        method = list(OPTIONS)[i % len(OPTIONS)]
        group, ranges = rewards(rng)
        options = {name: rng.choice(values) for name, values in OPTIONS[method].items()}
        plain = {name: "Infinity" if value == math.inf else value for name, value in options.items()}
        made.append({"rewards": group, "ranges": ranges, "method": method, "options": plain})
    return made


IN_JAVASCRIPT = """cases => cases.map(({ rewards, ranges, method, options }) => {
  const numbers = Object.fromEntries(Object.entries(options).map(([name, value]) => [name, Number(value)]));
  return Rules.advantages(rewards, method, { ...numbers, ranges });
})"""


def matrix(rows: list[list[float | None]] | list[float]) -> Tensor:
    """Return float64, None as NaN."""
    plain = [[math.nan if x is None else x for x in row] if isinstance(row, list) else row for row in rows]
    return torch.tensor(plain, dtype=torch.float64)


def python(case: dict[str, Any]) -> rvpo.Advantages:
    """Return what rvpo makes of a case."""
    group = matrix(case["rewards"])
    options = {name: float(value) for name, value in case["options"].items()}
    return rvpo.advantages(
        group, num_generations=len(group), method=case["method"], ranges=case["ranges"], state={}, **options
    )


def differing(all_cases: list[dict[str, Any]], found: list[dict[str, Any]], tolerance: float = 1e-9) -> list[str]:
    """Return where JavaScript and Python differ; aggregates are compared in units of the largest."""
    assert len(found) == len(all_cases)
    wrong = []
    for case, result in zip(all_cases, found, strict=True):
        expected = python(case)
        for part in PARTS:
            mine, theirs = matrix(result[part]), getattr(expected, part)
            assert mine.shape == theirs.shape
            scale = max(1.0, theirs.nan_to_num().abs().max().item()) if part == "aggregated" else 1.0
            same = (mine.isnan() == theirs.isnan()).all() and (
                mine - theirs
            ).nan_to_num().abs().max() <= tolerance * scale
            if not same:
                wrong.append(f"{part} of {case}: {mine.tolist()}, not {theirs.tolist()}")
        if (matrix_of_bools(result["live"]) != expected.live).any():
            wrong.append(f"live of {case}")
    return wrong


def matrix_of_bools(rows: list[list[bool]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)
