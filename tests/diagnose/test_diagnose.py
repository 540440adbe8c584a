"""A diagnosis against loops over completions and pairs, and verdicts on runs whose truth is known."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import rvpo
from rvpo.core import AdvantageConfig, compute
from rvpo.diagnose import sums
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.diagnosis import Diagnosis
from rvpo.diagnose.text import diagnosis_text
from rvpo.errors import ConfigError, DataError
from rvpo.logs.open import open_run
from rvpo.logs.run import Run


def make(
    path: Path,
    *,
    steps: int = 12,
    prompts: int = 4,
    g: int = 6,
    m: int = 4,
    method: str = "gdpo",
    weights: list[float] | None = None,
    seed: int = 0,
    missing: float = 0.05,
    change=lambda rewards, step: rewards,
    texts: bool = False,
) -> Run:
    """Write a run of binary and graded channels; ``change`` edits the rewards of a step before advantages are made."""
    generator = torch.Generator().manual_seed(seed)
    table: dict[str, list] = {"step": [], "group": [], **{f"reward_{name}": [] for name in "abcdefgh"[:m]}}
    table |= {"advantage": [], "completion": []}
    for step in range(1, steps + 1):
        n = prompts * g
        rewards = torch.rand(n, m, generator=generator, dtype=torch.float64)
        rewards[:, ::2] = (rewards[:, ::2] > 0.4).double()
        rewards = change(rewards, step)
        rewards[torch.rand(n, m, generator=generator) < missing] = torch.nan
        result = rvpo.advantages(rewards, num_generations=g, method=method, weights=weights)
        table["step"] += [step] * n
        table["group"] += [i // g for i in range(n)]
        for j, name in enumerate("abcdefgh"[:m]):
            table[f"reward_{name}"] += [None if x != x else x for x in rewards[:, j].tolist()]
        table["advantage"] += result.advantages.tolist()
        table["completion"] += [f"{i % 3}" for i in range(n)]
    if not texts:
        del table["completion"]
    pq.write_table(pa.table(table), path)
    return open_run(path)


def verdicts(found: Diagnosis) -> dict[str, str]:
    return {channel.name: channel.verdict for channel in found.channels}


def pearson(x: list[float], y: list[float]) -> float:
    mx, my = fmean(x), fmean(y)
    over = math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / over


def test_numbers_are_those_of_loops(tmp_path: Path):
    run = make(tmp_path / "run.parquet", texts=True, change=lambda r, step: r * torch.tensor([1.0, 0.0, 1.0, 2.0]))
    found = {channel.name: channel for channel in diagnose(run).channels}
    rows = pq.read_table(tmp_path / "run.parquet").to_pylist()
    groups = [list(part) for _, part in itertools.groupby(rows, key=lambda row: (row["step"], row["group"]))]
    for j, name in enumerate("abcd"):
        column = f"reward_{name}"
        az, aa, zz, live, better, worse, pairs, reward, scored = 0.0, 0.0, 0.0, 0, 0, 0, 0, 0.0, 0
        again_ss = again_dof = within_ss = within_dof = 0.0
        for group in groups:
            known = [row for row in group if row[column] is not None]
            scored, reward = scored + len(known), reward + sum(row[column] for row in known)
            if len({row[column] for row in known}) > 1:
                live += len(known)
                mean = fmean(row[column] for row in known)
                sd = math.sqrt(sum((row[column] - mean) ** 2 for row in known) / (len(known) - 1))
                z = [(row[column] - mean) / (sd + 1e-4) for row in known]
                centre = fmean(row["advantage"] for row in known)
                a = [row["advantage"] - centre for row in known]
                az += sum(x * y for x, y in zip(a, z, strict=True))
                aa, zz = aa + sum(x * x for x in a), zz + sum(x * x for x in z)
                for one, two in itertools.combinations(known, 2):
                    if one[column] != two[column]:
                        up = (one[column] - two[column]) * (one["advantage"] - two["advantage"])
                        pairs, better, worse = pairs + 1, better + (up > 1e-9), worse + (up < -1e-9)
            if known:
                mean = fmean(row[column] for row in known)
                within_ss += sum((row[column] - mean) ** 2 for row in known)
                within_dof += len(known) - 1
            for text in {row["completion"] for row in known}:
                same = [row[column] for row in known if row["completion"] == text]
                again_ss += sum((x - fmean(same)) ** 2 for x in same)
                again_dof += len(same) - 1
        channel = found[name]
        assert channel.mean.value == pytest.approx(reward / scored)
        assert channel.live == pytest.approx(live / len(rows))
        assert channel.missing == pytest.approx(1 - scored / len(rows))
        assert channel.pairs == again_dof
        if name == "b":  # all zero
            assert channel.verdict == "dead"
            assert channel.correlation.value is None
            continue
        assert channel.correlation.value == pytest.approx(az / math.sqrt(aa * zz))
        assert channel.punished.value == pytest.approx(worse / pairs)
        noise = (again_ss / again_dof) / (within_ss / within_dof)
        assert channel.reliability.value == pytest.approx(max(0, min(1, 1 - noise)))
        assert j == "abcd".index(name)


def test_curves_and_trend(tmp_path: Path):
    run = make(
        tmp_path / "run.parquet",
        steps=10,
        missing=0.0,
        change=lambda r, step: r * 0 + torch.tensor([0.1 * step, 1, 0, 0.5]),
    )
    found = {channel.name: channel for channel in diagnose(run).channels}
    assert found["a"].trend.value == pytest.approx(0.9)  # from 0.1 to 1.0
    assert found["a"].early == pytest.approx(fmean([0.1, 0.2, 0.3]))  # the first third of the time
    assert found["a"].late == pytest.approx(fmean([0.8, 0.9, 1.0]))
    curves = diagnose(run).curves
    assert curves.steps == tuple(range(1, 11))
    assert curves.mean["a"] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert curves.correlation["a"] == (None,) * 10


def test_long_runs_have_fewer_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sums, "POINTS", 4)
    run = make(tmp_path / "run.parquet", steps=10, missing=0.0, change=lambda r, step: r * 0 + step)
    curves = diagnose(run).curves
    assert curves.steps == (3, 5, 8, 10)
    assert curves.mean["a"] == pytest.approx([2.0, 4.5, 7.0, 9.5])


def test_chunks_and_unsorted_groups_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make(tmp_path / "run.parquet")
    table = pq.read_table(tmp_path / "run.parquet")
    whole = diagnose(run)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(len(table))))
    pq.write_table(shuffled, tmp_path / "shuffled.parquet")
    monkeypatch.setattr(sums, "CHUNK_CELLS", 30)
    for path in ("run.parquet", "shuffled.parquet"):
        other = diagnose(open_run(tmp_path / path))
        for before, after in zip(whole.channels, other.channels, strict=True):
            assert after.correlation.value == pytest.approx(before.correlation.value)
            assert after.pull.value == pytest.approx(before.pull.value)
            assert after.punished.value == pytest.approx(before.punished.value)
            assert after.mean.value == pytest.approx(before.mean.value)


def test_more_groups_than_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Groups are resampled in clusters then: the same values, and intervals of about the same width."""
    run = make(tmp_path / "run.parquet", steps=40)
    before = diagnose(run).channels[0]
    monkeypatch.setattr(sums, "BLOCKS", 40)
    after = diagnose(open_run(tmp_path / "run.parquet")).channels[0]
    assert after.correlation.value == pytest.approx(before.correlation.value)
    widths = [c.correlation.high - c.correlation.low for c in (before, after)]
    assert widths[1] == pytest.approx(widths[0], rel=0.5)


@pytest.mark.parametrize("method", ["gdpo", "grpo", "rvpo"])
def test_all_that_count_the_same_are_healthy(tmp_path: Path, method: str):
    run = make(tmp_path / "run.parquet", steps=40, method=method, change=lambda r, step: (r > 0.5).double())
    assert set(verdicts(diagnose(run)).values()) == {"healthy"}


@pytest.mark.parametrize("method", ["gdpo", "grpo", "rvpo"])
def test_a_channel_of_weight_zero_is_ignored(tmp_path: Path, method: str):
    run = make(tmp_path / "run.parquet", steps=40, method=method, weights=[1.0, 1.0, 0.0, 1.0])
    found = diagnose(run)
    assert verdicts(found) == {"a": "healthy", "b": "healthy", "c": "neglected", "d": "healthy"}
    assert found.channels[2].rule.startswith("ignored: it moves the advantage ")
    assert found.channels[2].confidence > 0.99


def test_a_small_scale_is_ignored_by_a_sum(tmp_path: Path):
    run = make(
        tmp_path / "run.parquet", steps=40, method="grpo", change=lambda r, step: r * torch.tensor([1.0, 3.0, 0.1, 1.0])
    )
    assert verdicts(diagnose(run))["c"] == "neglected"


def test_a_channel_that_all_others_oppose_is_outvoted(tmp_path: Path):
    """It counts in full, and what it gains the others lose: a mean works against it."""

    def oppose(rewards: torch.Tensor, step: int) -> torch.Tensor:
        rewards[:, 1:] = torch.where(rewards[:, :1] > 0, rewards[:, 1:] * 0.3, 0.5 + rewards[:, 1:] * 0.5)
        return rewards

    run = make(tmp_path / "run.parquet", steps=40, m=5, change=oppose)
    found = diagnose(run)
    assert verdicts(found)["a"] == "neglected"
    assert "outvoted: its correlation with the advantage is -" in found.channels[0].rule
    assert found.channels[0].punished.value > 0.5


def test_one_that_rises_with_its_like_is_not_outvoted_but_ignored(tmp_path: Path):
    def alike(rewards: torch.Tensor, step: int) -> torch.Tensor:
        flip = rewards[:, 1] < 0.25
        rewards[:, 2] = torch.where(flip, 1 - rewards[:, 0], rewards[:, 0])
        return rewards

    run = make(tmp_path / "run.parquet", steps=60, weights=[1.0, 1.0, 0.0, 1.0], change=alike)
    found = {channel.name: channel for channel in diagnose(run).channels}
    assert found["c"].correlation.value > 0.2  # it follows a, which counts
    assert abs(found["c"].pull.value) < 0.1
    assert found["c"].verdict == "neglected"
    assert "outvoted" not in found["c"].rule


def test_copies_share_their_pull(tmp_path: Path):
    def copied(rewards: torch.Tensor, step: int) -> torch.Tensor:
        rewards[:, 1] = rewards[:, 0]
        return rewards

    run = make(tmp_path / "run.parquet", steps=40, missing=0.0, change=copied)
    pulls = [channel.pull.value for channel in diagnose(run).channels]
    assert pulls == pytest.approx([1.0] * 4, rel=0.1)  # GDPO counts all the same


def test_dead_saturated_and_never_scored(tmp_path: Path):
    def edges(rewards: torch.Tensor, step: int) -> torch.Tensor:
        rewards[:, 0] = 1.0 if step > 4 else rewards[:, 0]
        rewards[:, 1] = 0.3
        rewards[:, 2] = torch.nan
        return rewards

    found = diagnose(make(tmp_path / "run.parquet", missing=0.0, change=edges))
    assert verdicts(found) == {"a": "saturated", "b": "dead", "c": "dead", "d": "healthy"}
    assert found.channels[2].rule == "scored on 0.0% of its completions"


def test_equal_completions_with_different_rewards_are_noise(tmp_path: Path):
    found = diagnose(make(tmp_path / "run.parquet", steps=60, missing=0.0, texts=True))  # rewards know nothing of texts
    assert set(verdicts(found).values()) == {"noisy"}
    assert set(verdicts(diagnose(open_run(tmp_path / "run.parquet"), texts=False)).values()) == {"healthy"}


def test_a_few_groups_do_not_tell(tmp_path: Path):
    run = make(tmp_path / "run.parquet", steps=1, prompts=3, g=4, weights=[1.0, 1.0, 0.3, 1.0])
    assert "unclear" in verdicts(diagnose(run)).values()
    one = make(tmp_path / "one.parquet", steps=1, prompts=1, g=8)
    assert {c.confidence for c in diagnose(one).channels} == {None}
    assert {c.correlation.low for c in diagnose(one).channels} == {None}
    assert "healthy" not in verdicts(diagnose(one)).values()


def test_without_advantages_a_method_is_assumed(tmp_path: Path):
    make(tmp_path / "run.parquet", method="grpo")
    logged = diagnose(open_run(tmp_path / "run.parquet"))
    table = pq.read_table(tmp_path / "run.parquet").drop_columns(["advantage"])
    pq.write_table(table, tmp_path / "bare.parquet")
    assumed = diagnose(open_run(tmp_path / "bare.parquet"))
    for one, other in zip(assumed.channels, logged.channels, strict=True):  # by NumPy, and by the core
        for number in ("value", "low", "high"):
            found, expected = getattr(one.correlation, number), getattr(other.correlation, number)
            assert found == pytest.approx(expected, rel=1e-12)
    assert assumed.method == "grpo (assumed)"
    assert "advantages are those of GRPO on the plain sum of the rewards" in str(assumed.guesses[0])
    assert diagnosis_text(assumed).startswith("Guessed, please check: advantages are those of GRPO on the plain sum")
    assert max(c.confidence or 0 for c in assumed.channels) <= 0.8
    assert "(assumed)" in diagnosis_text(assumed)
    assert "those of grpo" not in diagnosis_text(assumed)  # a note would repeat the guess
    other = diagnose(open_run(tmp_path / "bare.parquet"), assumed=AdvantageConfig(method="hard_min"))
    assert other.method == "hard_min (--method)"  # named by the user, so it is not assumed
    assert any("those of hard_min (--method)" in note for note in other.notes)
    assert [c.correlation for c in other.channels] != [c.correlation for c in logged.channels]


def test_intervals_hold_what_they_should(tmp_path: Path):
    """Of 40 runs with a true correlation of 1/2 (four independent channels that count the same), about 38 hold it."""
    held = 0
    for seed in range(40):
        run = make(tmp_path / "run.parquet", steps=10, prompts=3, g=8, seed=seed, missing=0.0, change=lambda r, s: r)
        low, high = (lambda e: (e.low, e.high))(diagnose(run, resamples=400).channels[1].correlation)
        held += low <= 0.5 <= high
    assert held >= 33


def test_json_and_text(tmp_path: Path):
    found = diagnose(make(tmp_path / "run.parquet"))
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["schema"] == "rvpo.diagnosis/1"
    assert [channel["name"] for channel in told["channels"]] == ["a", "b", "c", "d"]
    text = diagnosis_text(found)
    assert "288 completions in 48 groups (6 each) over 12 steps, advantages: as logged. None of 4 channels" in text
    assert max(len(line) for line in text.splitlines()[4:]) < 160
    assert diagnosis_text(found, as_markdown=True).count("| a |") == 1


def test_options_that_cannot_work(tmp_path: Path):
    run = make(tmp_path / "run.parquet")
    with pytest.raises(ConfigError, match="level is 1 and resamples 1000; expected 0 < level < 1 and resamples >= 100"):
        diagnose(run, level=1)


def test_methods_in_words():
    """A name in a result is text from which the method can be built again."""
    texts = {
        "rvpo:k=2": rvpo.RVPO(2.0),
        "gdpo": rvpo.GDPO(),
        "lagrangian:thresholds={a:0.5},whiten=group": rvpo.Lagrangian(thresholds={"a": 0.5}, whiten="group"),
        "rvpo:k=linear(0.5,2)": rvpo.RVPO(rvpo.Linear(0.5, 2.0)),
    }
    for text, method in texts.items():
        assert str(AdvantageConfig(method)) == text
        assert AdvantageConfig(text).method == method


def test_a_method_that_remembers_is_followed(tmp_path: Path):
    method = AdvantageConfig(rvpo.Lagrangian(thresholds={"a": 0.9}, rate=1.0))
    path = tmp_path / "run.parquet"
    run = make(path, steps=30, missing=0.0)
    channels = rvpo.Channels.columns(run.channels)
    state, advantages = {}, []
    for batch in run.batches():
        rewards, groups = torch.from_numpy(batch.rewards), torch.from_numpy(batch.groups)
        result = compute(rewards, method, groups=groups, channels=channels, state=state)
        state = result.state
        advantages += result.advantages.tolist()
    table = pq.read_table(path).drop_columns(["advantage"])
    pq.write_table(table, tmp_path / "bare.parquet")
    pq.write_table(table.append_column("advantage", pa.array(advantages)), path)
    logged, assumed = diagnose(open_run(path)), diagnose(open_run(tmp_path / "bare.parquet"), assumed=method)
    for one, two in zip(assumed.channels, logged.channels, strict=True):
        assert one.pull.value == pytest.approx(two.pull.value)
    assert assumed.channels[0].pull.value > assumed.channels[1].pull.value + 0.3
    with pytest.raises(ConfigError, match=r"remembers the run, but .* does not have every step since the first"):
        diagnose(open_run(tmp_path / "bare.parquet").between(2, None), assumed=method)


def test_one_equal_pair_is_no_evidence_of_noise(tmp_path: Path):
    run = make(tmp_path / "run.parquet", steps=40, missing=0.0, texts=True)
    table = pq.read_table(tmp_path / "run.parquet")
    texts = [str(i) for i in range(len(table))]
    texts[1] = texts[0]
    changed = table.set_column(table.column_names.index("completion"), "completion", pa.array(texts))
    pq.write_table(changed, tmp_path / "run.parquet")
    found = diagnose(open_run(tmp_path / "run.parquet"))
    assert {channel.pairs for channel in found.channels} == {1}
    assert {channel.reliability.value for channel in found.channels} == {None}
    assert "noisy" not in verdicts(found).values()
    assert run.channels == ("a", "b", "c", "d")


def test_a_cost_that_counts_against_is_reversed_and_not_ignored(tmp_path: Path):
    make(tmp_path / "run.parquet", steps=40, missing=0.0)
    table = pq.read_table(tmp_path / "run.parquet")
    cost = pa.array([1 - x for x in table["reward_c"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("reward_c"), "reward_c", cost), tmp_path / "run.parquet")
    found = {channel.name: channel for channel in diagnose(open_run(tmp_path / "run.parquet")).channels}
    assert found["c"].verdict == "neglected"
    assert found["c"].rule.startswith("reversed: it moves the advantage -0.9")


def test_a_scale_that_eps_silences_is_seen(tmp_path: Path):
    run = make(
        tmp_path / "run.parquet", steps=40, missing=0.0, change=lambda r, step: r * torch.tensor([1e-5, 1, 1, 1])
    )
    found = diagnose(run).channels[0]
    assert found.verdict == "neglected"
    assert found.pull.value < 0.1  # GDPO divides by std + 1e-4


def test_advantages_that_follow_nothing(tmp_path: Path):
    run = make(
        tmp_path / "run.parquet", steps=40, m=2, missing=0.0, change=lambda r, s: torch.stack([r[:, 0], 1 - r[:, 0]], 1)
    )
    found = diagnose(run).channels
    assert {channel.verdict for channel in found} == {"neglected"}
    assert {channel.pull.value for channel in found} == {0.0}


def test_few_groups_never_condemn(tmp_path: Path):
    for seed in range(20):
        run = make(tmp_path / "run.parquet", steps=1, prompts=2, g=4, m=8, seed=seed, missing=0.0)
        assert set(verdicts(diagnose(run)).values()) <= {"unclear", "dead", "saturated"}


def test_partners_in_large_groups_do_not_depend_on_the_order_of_rows(tmp_path: Path):
    make(tmp_path / "run.parquet", steps=4, prompts=2, g=200, missing=0.0, change=lambda r, s: r)
    table = pq.read_table(tmp_path / "run.parquet")
    found = []
    for keys in ([("step", "ascending"), ("group", "ascending"), ("reward_b", "ascending")], None):
        rows = table.sort_by(keys) if keys else table.take(pa.array(np.random.default_rng(0).permutation(len(table))))
        pq.write_table(rows, tmp_path / "sorted.parquet")
        found.append(diagnose(open_run(tmp_path / "sorted.parquet")).channels[1].punished)
    assert found[0].value == pytest.approx(found[1].value, abs=0.02)


def test_groups_of_one_are_refused(tmp_path: Path):
    pq.write_table(pa.table({"group": [0, 1, 2], "reward_a": [0.0, 1.0, 2.0]}), tmp_path / "run.parquet")
    with pytest.raises(DataError, match=r"3 completions in as many groups; expected .*\(--group\), or pass the number"):
        diagnose(open_run(tmp_path / "run.parquet"))


def test_names_cannot_steer_a_terminal(tmp_path: Path):
    name = "reward_\x1b[31mRED\x1b]0;title\x07\nfake  healthy"
    pq.write_table(pa.table({"group": [0, 0, 1, 1], name: [0.0, 1.0, 1.0, 0.0]}), tmp_path / "run.parquet")
    text = diagnosis_text(diagnose(open_run(tmp_path / "run.parquet")))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert not any(line.startswith("fake") for line in text.splitlines())


def test_what_neglect_comes_from_is_told(tmp_path: Path):
    scale = torch.tensor([1.0, 3.0, 0.1, 1.0])
    run = make(tmp_path / "run.parquet", steps=40, method="grpo", missing=0.0, change=lambda r, step: r * scale)
    rule = {channel.name: channel.rule for channel in diagnose(run).channels}["c"]
    times = 3 * math.sqrt(1 / 12) / (0.1 * math.sqrt(0.6 * 0.4))  # of a uniform and of a binary reward
    told = re.search(r"its spread within groups is (\d+) times smaller than that of 'b': raise its weight", rule)
    assert int(told[1]) == pytest.approx(times, abs=1.5)

    def oppose(rewards: torch.Tensor, step: int) -> torch.Tensor:
        rewards[:, 1:] = torch.where(rewards[:, :1] > 0, rewards[:, 1:] * 0.3, 0.5 + rewards[:, 1:] * 0.5)
        return rewards

    rule = diagnose(make(tmp_path / "run.parquet", steps=40, m=5, change=oppose)).channels[0].rule
    assert re.search(r"negatively correlated with '[b-e]' \(-0\.\d\d\), '[b-e]' \(-0\.\d\d\): raise its weight", rule)


def test_copies_of_a_reward_are_in_the_first_line(tmp_path: Path):
    """Channel b is channel a on another scale, d is not quite c."""

    def change(rewards: torch.Tensor, step: int) -> torch.Tensor:
        rewards[:, 1] = 3 * rewards[:, 0] - 1
        rewards[:, 3] = rewards[:, 2] + 0.2 * rewards[:, 3]
        return rewards

    found = diagnose(make(tmp_path / "run.parquet", change=change, missing=0.0), texts=False, resamples=100)
    assert found.copies() == [("a", "b")]
    assert "a and b are copies of one reward, which counts with all their weights." in diagnosis_text(found)


def test_a_few_groups_show_no_copies(tmp_path: Path):
    def change(rewards: torch.Tensor, step: int) -> torch.Tensor:
        rewards[:, 1] = rewards[:, 0]
        return rewards

    found = diagnose(make(tmp_path / "run.parquet", steps=2, change=change, missing=0.0), texts=False, resamples=100)
    assert found.copies() == []
