"""Replays: rank correlations and flips by hand, methods by name, what memory asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

import rvpo
from rvpo.core import AdvantageConfig
from rvpo.core.methods.registry import read_texts
from rvpo.diagnose.replay import DEFAULT, replay, spearman
from rvpo.diagnose.text import replay_text
from rvpo.errors import ConfigError
from rvpo.logs.open import open_run
from rvpo.logs.run import with_ranges, with_weights

G = 5


def write(path: Path, method: str = "gdpo", steps: int = 4, m: int = 3, **options: object) -> Path:
    generator = torch.Generator().manual_seed(1)
    table: dict[str, list] = {"step": [], "group": [], **{f"reward_{j}": [] for j in "abc"[:m]}, "advantage": []}
    for step in range(1, steps + 1):
        rewards = torch.rand(4 * G, m, generator=generator, dtype=torch.float64)
        rewards[:, 0] = rewards[:, 0].round()
        result = rvpo.advantages(rewards, num_generations=G, method=method, **options)
        table["step"] += [step] * 4 * G
        table["group"] += [i // G for i in range(4 * G)]
        for j, name in enumerate("abc"[:m]):
            table[f"reward_{name}"] += rewards[:, j].tolist()
        table["advantage"] += result.advantages.tolist()
    pq.write_table(pa.table(table), path)
    return path


def test_the_method_is_found_where_the_logs_do_not_tell(tmp_path: Path):
    for method in ("grpo", "gdpo", "hard_min"):
        found = replay(open_run(write(tmp_path / "run.parquet", method)), [])
        assert found.own == method
        assert found.own_difference < 1e-12
    weighted = open_run(write(tmp_path / "run.parquet", "gdpo", weights=[1.0, 0.5, 2.0]))
    assert replay(weighted, []).own is None
    assert "no method with equal weights" in replay(weighted, []).notes[-1]
    assert "such as --weights 1,0.5,0.5" in replay(weighted, []).notes[-1]
    assert replay(with_weights(weighted, [1.0, 0.5, 2.0]), []).own == "gdpo"


def test_numbers_by_hand(tmp_path: Path):
    """One group, two channels. The run used the sum; the minimum turns one sign and some ranks."""
    path = tmp_path / "run.parquet"
    used = [1.0, 0.5, -0.5, -1.0]
    pq.write_table(
        pa.table(
            {"group": [0] * 4, "reward_a": [3.0, 2.0, 1.0, 0.0], "reward_b": [0.0, 2.0, 3.0, 1.0], "advantage": used}
        ),
        path,
    )
    rule = replay(open_run(path), [AdvantageConfig("hard_min:whiten=none", eps=0)]).rules[0]
    z = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 2.0, 3.0, 1.0]]).T
    z = (z - z.mean(0)) / z.std(0)
    lowest = z.min(1).values.tolist()  # -1.16, 0.39, -0.39, -1.16: the first is discouraged now
    assert rule.sign_flips == 1 / 4
    assert rule.rank_correlation == pytest.approx(stats.spearmanr(lowest, used).statistic)
    assert rule.largest_difference == pytest.approx(max(abs(x - y) for x, y in zip(lowest, used, strict=True)))
    assert rule.effective_channels == pytest.approx((1 + 2 + 1 + 1) / 4)  # the second has both as its lowest
    for name, column in (("a", 0), ("b", 1)):
        assert rule.influence[name] == pytest.approx(stats.pearsonr(lowest, z[:, column].tolist()).statistic)
    assert rule.responsibility == {"a": pytest.approx((0 + 0.5 + 1 + 1) / 4), "b": pytest.approx((1 + 0.5) / 4)}


def test_ranks_within_groups_against_scipy():
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randint(0, 5, (60,), generator=generator).double() for _ in range(2))
    groups = torch.randint(0, 7, (60,), generator=generator)
    a[groups == 3] = 2.0  # constant: no correlation
    total, count = spearman(a, b, groups)
    each = [stats.spearmanr(a[groups == g], b[groups == g]).statistic for g in range(7) if g != 3]
    assert count == 6
    assert total == pytest.approx(sum(each))
    assert spearman(a[:0], b[:0], groups[:0]) == (0.0, 0)


def test_memory_needs_every_batch(tmp_path: Path):
    """A table says nothing of steps that it lacks; a method that cannot be followed does not stop the others."""
    run = open_run(write(tmp_path / "run.parquet", steps=3))
    found = replay(run, [AdvantageConfig(text) for text in DEFAULT])
    assert [rule.problem for rule in found.rules] == [None] * len(DEFAULT)
    later = replay(run.between(2, None), [AdvantageConfig("lift"), AdvantageConfig("gdpo")])
    assert later.rules[0].problem == "it remembers the run, but not every batch since the first step is logged"
    assert later.rules[0].sign_flips is None
    assert later.rules[1].problem is None
    table = pq.read_table(tmp_path / "run.parquet")
    scaled = table.set_column(2, "reward_a", pa.array([7.0 * i for i in range(len(table))]))
    pq.write_table(scaled, tmp_path / "scaled.parquet")
    scaled = open_run(tmp_path / "scaled.parquet")
    learned = replay(scaled, [AdvantageConfig("lift"), AdvantageConfig("gdpo")])
    assert [rule.problem for rule in learned.rules] == [None, None]
    assert (
        "no range is declared, so scales are learned from the rewards: a [21, 392] (--range NAME=LOW:HIGH)"
        in learned.notes
    )
    declared = replay(with_ranges(scaled, {"a": (0.0, 413.0)}), [AdvantageConfig("lift")])
    assert not any("scales are learned" in note for note in declared.notes)
    part = replay(scaled.between(2, None), [AdvantageConfig("tchebycheff"), AdvantageConfig("gdpo")])
    assert part.rules[0].problem.startswith("the scale of 'a' is learned over the run, but not every batch since")
    assert part.rules[1].problem is None


def test_without_advantages_the_method_takes_their_place(tmp_path: Path):
    table = pq.read_table(write(tmp_path / "run.parquet")).drop_columns(["advantage"])
    pq.write_table(table, tmp_path / "bare.parquet")
    bare = open_run(tmp_path / "bare.parquet")
    guessed = replay(bare, [AdvantageConfig("grpo")])
    assert guessed.own == "grpo (assumed)"
    assert guessed.own_difference is None
    assert guessed.rules[0].sign_flips == 0
    assert replay_text(guessed).startswith("Guessed, please check: advantages are those of GRPO on the plain sum")
    found = replay(bare, [AdvantageConfig("gdpo"), AdvantageConfig("hard_min")], assumed=AdvantageConfig("gdpo"))
    assert found.own == "gdpo"
    assert found.own_difference is None
    assert found.rules[0].rank_correlation == pytest.approx(1)
    assert found.rules[0].sign_flips == 0
    assert found.rules[1].rank_correlation < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gdp", r"method is 'gdp' \(did you mean 'gdpo'\?\); expected one of rvpo, rvpo_explicit"),
        ("rvpo:2", "method is 'rvpo:2'; expected rvpo:option=value, such as lift:kappa=3, or rvpo alone"),
        ("rvpo:kk=2", "method 'rvpo' has no option 'kk'"),
        ("gdpo:k=2", "k is 2, but method 'gdpo' has no option 'k'. Use method rvpo for it"),
        ("rvpo:k=-1", r"k is -1; expected a number in \[0, inf\]"),
        ("hard_min:eps=0", "eps is 0, but method 'hard_min' has no option 'eps'"),
    ],
)
def test_methods_that_are_none(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        AdvantageConfig(text)


def test_methods_by_name():
    assert AdvantageConfig("rvpo:k=inf").method.k == float("inf")
    assert AdvantageConfig("rvpo:k=0.5,dead_channels=keep").dead_channels == "keep"
    assert AdvantageConfig("lift:kappa=3").method.kappa == 3
    assert AdvantageConfig("riskpo:bundle_size=2").method.bundle_size == 2


def test_json_and_text(tmp_path: Path):
    found = replay(open_run(write(tmp_path / "run.parquet")), [AdvantageConfig(text) for text in DEFAULT])
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["schema"] == "rvpo.replay/1"
    assert [rule["method"] for rule in told["rules"]][:3] == ["grpo", "gdpo", "rvpo:k=0.5"]
    assert "(gdpo, replayed to within" in replay_text(found)
    assert replay_text(found, as_markdown=True).count("| hard_min |") == 1


def test_a_method_that_does_not_fit_is_told(tmp_path: Path):
    found = replay(open_run(write(tmp_path / "run.parquet", "gdpo")), [], assumed=AdvantageConfig("grpo"))
    assert "grpo does not give the logged advantages: they differ by up to" in found.notes[-1]


def test_no_advantage_at_all_is_assumed_from_the_total(tmp_path: Path):
    table = pq.read_table(write(tmp_path / "run.parquet"))
    empty = table.set_column(table.column_names.index("advantage"), "advantage", pa.nulls(len(table), pa.float64()))
    total = sum(table[f"reward_{name}"].to_numpy() * weight for name, weight in zip("abc", (1, 2, 0.5), strict=True))
    pq.write_table(empty.append_column("total", pa.array(total)), tmp_path / "empty.parquet")
    found = replay(open_run(tmp_path / "empty.parquet"), [AdvantageConfig("grpo"), AdvantageConfig("gdpo")])
    assert found.own == "grpo on the logged total (assumed)"
    assert found.rules[0].sign_flips == 0
    assert found.rules[1].rank_correlation < 1
    assert "advantages are those of GRPO on the logged total" in replay_text(found)


def test_groups_of_an_unknown_size_are_not_replayed(tmp_path: Path):
    table = pq.read_table(write(tmp_path / "run.parquet")).drop_columns(["group", "advantage"])
    pq.write_table(table, tmp_path / "flat.parquet")
    with pytest.raises(ConfigError, match=r"plausible: groups of 2, 4, 5, 10, 20.*--group-size"):
        replay(open_run(tmp_path / "flat.parquet"), [])


def test_options_that_hold_commas_and_small_numbers():
    assert AdvantageConfig("rvpo:k=1e-3").method.k == 1e-3
    rule = AdvantageConfig("lagrangian:thresholds={a: 0.9, b: 0.5},rate=2").method
    assert (rule.thresholds, rule.rate) == ({"a": 0.9, "b": 0.5}, 2)
    first, second = read_texts("lagrangian:thresholds={a: 0.9, b: 0.5} rvpo:k=2")
    assert (first.name, second.k) == ("lagrangian", 2)
    with pytest.raises(ConfigError, match="has a bracket that does not close"):
        AdvantageConfig("rvpo:k=[")


def test_the_least_followed_channels_are_shown_first(tmp_path: Path):
    found = replay(
        open_run(write(tmp_path / "run.parquet", "gdpo", m=3)), [AdvantageConfig("gdpo"), AdvantageConfig("grpo")]
    )
    influence = found.rules[0].influence
    names = sorted(influence, key=influence.get)
    head = next(line for line in replay_text(found).splitlines() if line.startswith("rule"))
    assert head.split()[-3:] == names
