"""The rules that others published in 2026, against loops in float64 written from their equations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import rvpo
from rvpo.core.metrics import in_catalogue

EPS = 1e-4  # of our z-scores


class Case:
    """A random batch with groups of different size, missing and constant rewards, as NumPy arrays."""

    def __init__(self, seed: int, missing: bool = True) -> None:
        random = np.random.default_rng(seed)
        sizes = random.integers(1, 7, size=random.integers(2, 8))
        self.groups = np.repeat(np.arange(len(sizes)), sizes)
        random.shuffle(self.groups)
        self.n, self.m = len(self.groups), int(random.integers(1, 5))
        self.ranges = [(-1.0, 3.0), (0.0, 1.0), (0.0, 1.0), (-2.0, 0.0)][: self.m]
        low, high = np.array(self.ranges).T
        levels = random.integers(0, 3, size=(self.n, self.m)) / 2
        levels[:, 1:] = np.round(levels[:, 1:] - 0.01)  # binary, but for the first
        self.rewards = low + (high - low) * levels
        if missing:
            self.rewards[random.random((self.n, self.m)) < 0.15] = np.nan
        self.rewards[self.groups == 0, 0] = low[0]  # dead
        self.weights = random.choice([1.0, 0.5, 2.0, 0.0], size=self.m)
        self.weights[0] = 1.0

    def advantages(self, method: object) -> np.ndarray:
        out = rvpo.advantages(
            torch.from_numpy(self.rewards), torch.from_numpy(self.groups), method, list(self.weights),
            ranges=self.ranges, eps=EPS,
        )  # fmt: skip
        return out.advantages.numpy()

    def members(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.groups == group) for group in range(self.groups.max() + 1)]

    def z(self) -> np.ndarray:
        """Z-scores, 0 where missing or dead."""
        z = np.zeros((self.n, self.m))
        for rows in self.members():
            for j in range(self.m):
                scored = [i for i in rows if not math.isnan(self.rewards[i, j])]
                values = self.rewards[scored, j]
                if len(scored) > 1 and values.max() > values.min():
                    z[scored, j] = (values - values.mean()) / (values.std(ddof=1) + EPS)
        return z

    def attained(self) -> np.ndarray:
        low, high = np.array(self.ranges).T
        return (self.rewards - low) / (high - low)

    def scored_rows(self) -> np.ndarray:
        """Rows on which anything of weight is scored."""
        return ~np.isnan(self.rewards[:, self.weights > 0]).all(1)

    def whitened(self, a: np.ndarray, counted: np.ndarray) -> np.ndarray:
        values = a[counted]
        out = np.zeros(self.n)
        if len(values) > 1 and values.max() - values.min() > 1e-6 * max(abs(values).max(), EPS):
            out[counted] = (values - values.mean()) / (values.std(ddof=1) + EPS)
        return out


def dara(case: Case, form: str) -> np.ndarray:
    z, members = case.z(), case.members()
    share = [sum(bool(z[rows, j].any()) for rows in members) / len(members) for j in range(case.m)]
    heard = [share[j] for j in range(case.m) if case.weights[j] > 0]
    a = np.zeros(case.n)
    for i in range(case.n):
        for j in range(case.m):
            if case.weights[j] == 0 or share[j] == 0:
                continue
            c = min(5.0, math.sqrt(max(heard) / share[j]))
            raised = c * z[i, j] if form == "symmetric" else z[i, j] + (c - 1) * max(z[i, j], 0.0)
            a[i] += case.weights[j] * raised
    return case.whitened(a, case.scored_rows())


def sa_mrpo(case: Case, gamma: float) -> np.ndarray:
    z, x = case.z(), case.attained()
    a = np.zeros(case.n)
    for j in range(case.m):
        if not np.isnan(x[:, j]).all():
            a += case.weights[j] * (1 - np.nanmean(x[:, j])) ** gamma * z[:, j]
    return case.whitened(a, case.scored_rows())


def saw(case: Case, of: str) -> np.ndarray:
    cv, counted = np.zeros(case.m), 0
    for j, (low, _) in enumerate(case.ranges):
        values = case.rewards[:, j][~np.isnan(case.rewards[:, j])] - low
        if case.weights[j] > 0 and len(values):
            counted += 1
            std = values.std(ddof=1) if len(values) > 1 else 0.0
            cv[j] = std / (abs(values.mean()) + 1e-8)
    c = counted * cv / (cv.sum() + 1e-8) if cv.any() else np.ones(case.m)
    if of == "gdpo":
        return case.whitened(case.z() @ (case.weights * c), case.scored_rows())
    total = np.nan_to_num(case.rewards) @ (case.weights * c)
    out = np.zeros(case.n)
    for rows in case.members():
        counted_rows = [i for i in rows if case.scored_rows()[i]]
        values = total[counted_rows]
        if len(values) > 1 and values.max() - values.min() > 1e-6 * max(abs(values).max(), EPS):
            out[counted_rows] = (values - values.mean()) / (values.std(ddof=1) + EPS)
    return out


def dvao(case: Case) -> np.ndarray:
    out = np.zeros(case.n)
    for rows in case.members():
        spread, centred = 0.0, np.zeros(len(rows))
        for j in range(case.m):
            values = case.rewards[rows, j]
            if not np.isnan(values).all():
                spread += case.weights[j] * np.nanstd(values)
                centred += case.weights[j] * np.nan_to_num(values - np.nanmean(values))
        out[rows] = centred / (spread + 1e-8)
    return out


def corr_grpo(case: Case) -> np.ndarray:
    out = np.zeros(case.n)
    for rows in case.members():
        deviation = np.zeros((len(rows), case.m))
        for j in range(case.m):
            values = case.rewards[rows, j]
            if not np.isnan(values).all():
                deviation[:, j] = np.nan_to_num(values - np.nanmean(values))
        correlations = 0.0
        for i in range(case.m):
            for j in range(case.m):
                size = math.sqrt((deviation[:, i] ** 2).sum() * (deviation[:, j] ** 2).sum())
                if size > 1e-12:
                    rho = (deviation[:, i] * deviation[:, j]).sum() / size
                    correlations += case.weights[i] * case.weights[j] * rho
        out[rows] = deviation @ case.weights / math.sqrt(max(correlations, 0.0) + 1e-6)
    return out


def gd2po(case: Case, form: str) -> np.ndarray:
    z, w = case.z(), case.weights
    kept = np.ones(case.n, dtype=bool)
    for i in range(case.n):
        heard = z[i, w > 0]
        conflict = bool((heard > 1e-8).any() and (heard < -1e-8).any())
        ratio = abs((w * z[i]).sum()) / ((w * abs(z[i])).sum() + 1e-6)
        kept[i] = not (conflict and (form == "hard" or ratio < 0.2))
    a = np.zeros(case.n)
    for rows in case.members():
        scored = case.scored_rows()[rows]
        a[rows] = (kept[rows] & scored).sum() / max(scored.sum(), 1) * (z[rows] @ w)
    return case.whitened(a, kept & case.scored_rows())


def verpo(case: Case) -> np.ndarray:
    x, out = case.attained(), np.zeros(case.n)
    for rows in case.members():
        asked = [j for j in range(case.m) if case.weights[j] > 0 and not np.isnan(x[rows, j]).all()]
        if not asked:
            continue
        rate = {j: np.nanmean(x[rows, j]) for j in asked}
        sigma = max(np.std(list(rate.values())) / 2, 1e-3)
        turn = np.zeros(len(rows))
        for j in asked:
            density = sum(math.exp(-((rate[j] - rate[i]) ** 2) / (2 * sigma**2)) for i in asked)
            factor = math.exp(-2 * rate[j]) / (density + 1e-6)
            turn += case.weights[j] * factor * np.nan_to_num(x[rows, j] - rate[j])
        passes = np.full(len(rows), np.nan)
        for place, i in enumerate(rows):
            values = [x[i, j] for j in asked]
            if any(value < 1 - 1e-6 for value in values if not math.isnan(value)):
                passes[place] = 0.0
            elif not any(map(math.isnan, values)):
                passes[place] = 1.0
        outcome = np.zeros(len(rows))
        if not np.isnan(passes).all():
            outcome = 0.995 * np.nan_to_num(passes - np.nanmean(passes))
        out[rows] = outcome + turn
    return out


RULES: dict[str, Callable[[Case], np.ndarray]] = {
    "dara": lambda case: dara(case, "asymmetric"),
    "dara:form=symmetric": lambda case: dara(case, "symmetric"),
    "sa_mrpo": lambda case: sa_mrpo(case, 0.5),
    "sa_mrpo:gamma=2": lambda case: sa_mrpo(case, 2.0),
    "saw": lambda case: saw(case, "gdpo"),
    "saw:of=grpo": lambda case: saw(case, "grpo"),
    "dvao": dvao,
    "corr_grpo": corr_grpo,
    "gd2po": lambda case: gd2po(case, "hard"),
    "gd2po:form=soft": lambda case: gd2po(case, "soft"),
    "verpo": verpo,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("missing", [False, True])
def test_a_rule_is_its_equation(rule: str, missing: bool) -> None:
    seen = 0
    for seed in range(60):
        case = Case(seed, missing)
        wanted = RULES[rule](case)
        np.testing.assert_allclose(case.advantages(rule), wanted, rtol=1e-9, atol=1e-9, err_msg=f"seed {seed}")
        seen += bool(wanted.any())
    assert seen > 40


def test_mgda_is_the_shortest_mixture() -> None:
    """Against a fine grid over the simplex, and by the condition that no channel falls."""
    for seed in range(30):
        case = Case(seed, missing=False)
        case.weights = np.ones(case.m)
        z = case.z()
        found = rvpo.advantages(
            torch.from_numpy(case.rewards), torch.from_numpy(case.groups), "mgda:whiten=none", ranges=case.ranges
        ).advantages.numpy()
        live = [j for j in range(case.m) if z[:, j].any()]
        if not live:
            assert not found.any()
            continue
        shortest = (found**2).sum()
        for j in live:
            assert (found * z[:, j]).sum() >= shortest - 1e-9
        grid = np.random.default_rng(seed).dirichlet(np.full(len(live), 0.5), size=2000)
        lengths = ((grid @ z[:, live].T) ** 2).sum(1)
        assert shortest <= lengths.min() + 1e-9


def test_where_channels_stand_against_each_other_corr_grpo_explodes_and_mgda_stops() -> None:
    rewards = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    out = rvpo.advantages(rewards, num_generations=2, method="corr_grpo").advantages
    assert out.abs().tolist() == pytest.approx([1000.0, 1000.0], rel=1e-3)
    assert rvpo.advantages(rewards, num_generations=2, method="mgda").advantages.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("rule", "limit"),
    [("dara:cap=1", "gdpo"), ("sa_mrpo:gamma=0", "gdpo"), ("gd2po:form=soft,threshold=0", "gdpo")],
)
def test_limits(rule: str, limit: str) -> None:
    for seed in range(10):
        case = Case(seed, missing=False)
        gdpo = rvpo.advantages(
            torch.from_numpy(case.rewards), torch.from_numpy(case.groups), limit + ":unscored=zero", list(case.weights)
        )
        np.testing.assert_allclose(case.advantages(rule), gdpo.advantages.numpy(), atol=1e-9)


@pytest.mark.parametrize(
    "text",
    ["dara:form=both", "dara:cap=0.5", "sa_mrpo:gamma=-1", "saw:of=rvpo", "dvao:epsilon=0", "corr_grpo:epsilon=0",
     "gd2po:threshold=2", "gd2po:form=soggy", "verpo:alpha=-1", "verpo:discount=2", "mgda:k=1"],
)  # fmt: skip
def test_impossible_options_are_refused(text: str) -> None:
    with pytest.raises(rvpo.errors.ConfigError):
        rvpo.advantages(torch.rand(4, 2), num_generations=2, method=text)


@pytest.mark.parametrize("rule", [*RULES, "mgda"])
def test_a_channel_of_weight_0_changes_nothing(rule: str) -> None:
    for seed in range(10):
        case = Case(seed)
        monitor = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, size=(case.n, 1)).astype(float))
        rewards, groups = torch.from_numpy(case.rewards), torch.from_numpy(case.groups)
        given = {"method": rule, "ranges": case.ranges, "eps": EPS}
        alone = rvpo.advantages(rewards, groups, weights=list(case.weights), **given)
        given["ranges"] = [*case.ranges, (0.0, 1.0)]
        beside = rvpo.advantages(torch.cat([rewards, monitor], 1), groups, weights=[*case.weights, 0.0], **given)
        torch.testing.assert_close(beside.advantages, alone.advantages, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("rule", [*RULES, "mgda"])
def test_every_metric_is_in_the_catalogue(rule: str) -> None:
    case = Case(3)
    names = [f"channel {j}" for j in range(case.m)]
    out = rvpo.Aggregator(rule, names, weights=list(case.weights))(case.rewards, groups=list(case.groups))
    assert [key for key in out.metrics if not in_catalogue(key)] == []
