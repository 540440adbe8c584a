"""The record that engines write: what goes in comes out, whitened by tokens too, in several batches, by evaluations."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import rvpo
from rvpo.core import AdvantageConfig
from rvpo.core.ragged import Family, Score
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.diagnose.text import diagnosis_text
from rvpo.errors import DataError
from rvpo.logs.open import open_run
from rvpo.logs.writer import ChannelTable
from rvpo.step.aggregator import Aggregator

NAMES, WEIGHTS = ["length", "rubric"], {"length": 0.5, "rubric": 2.0}


def scores(generator: torch.Generator) -> list[list[Score]]:
    """Three prompts of four completions with 2, 4 and 3 criteria; one verdict is missing."""
    rows = []
    for size in (2, 4, 3):
        for i in range(4):
            values = torch.rand(size, generator=generator).tolist()
            rows.append(
                [
                    Score(f"c{j}", value, 1.0 + j, ("hard" if j else "easy",), text=f"is {j} met?", detail="because")
                    for j, value in enumerate(values)
                ]
            )
            if (size, i) == (3, 1):
                rows[-1][2] = Score("c2", None, 3.0, ("hard",), reason="timeout", text="is 2 met?")
    return rows


def write(folder: Path, *, steps: int = 3, only_monitored: bool = False, tokens: bool = False) -> None:
    generator = torch.Generator().manual_seed(0)
    aggregator = Aggregator("gdpo:whiten=token" if tokens else "lift", NAMES, weights=WEIGHTS)
    table = ChannelTable(folder / "channels", {"session": pa.string()})
    for step in range(1, steps + 1):
        for _ in range(2):  # two batches a step
            rewards = torch.rand(12, 2, generator=generator, dtype=torch.float64)
            families = [Family("rubric", scores(generator), only_monitored)]
            count = torch.randint(1, 9, (12,), generator=generator) if tokens else None
            done = aggregator(rewards, families=families, num_generations=4, tokens=count)
            own = {"session": [f"s{i}" for i in range(12)]}
            table.add(step, done, extra=own)
    table.add(steps, done, trained=False, extra=own)


def test_a_method_that_changed_during_the_run_is_said(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    table = ChannelTable(tmp_path / "channels", {"session": pa.string()})
    for step, method in enumerate(["lift", "lift", "gdpo"], 1):
        rewards = torch.rand(12, 2, generator=generator, dtype=torch.float64)
        done = Aggregator(method, NAMES)(rewards, num_generations=4)
        table.add(step, done, extra={"session": ["s"] * 12})
    assert any(
        "the method changed during the run: lift from step 1, gdpo from step 3" in note
        for note in open_run(tmp_path).notes
    )
    assert not any("the method changed" in note for note in open_run(tmp_path, steps=(1, 2)).notes)


@pytest.mark.parametrize("tokens", [False, True], ids=["by_row", "by_token"])
@pytest.mark.parametrize("only_monitored", [False, True])
def test_a_record_gives_its_advantages_again(tmp_path: Path, only_monitored: bool, tokens: bool):
    write(tmp_path, only_monitored=only_monitored, tokens=tokens)
    run = open_run(tmp_path)
    assert run.steps == (1, 2, 3)  # the evaluation is none
    assert [batch.step for batch in run.batches()] == [1, 1, 2, 2, 3, 3]
    again = replay(run, [])
    assert again.own_difference is not None
    assert again.own_difference < 1e-12
    assert again.completions == 72


def test_what_is_written(tmp_path: Path):
    write(tmp_path)
    rows = pq.read_table(tmp_path / "channels" / "000002.parquet").to_pylist()
    assert len(rows) == 2 * (12 + 4 * (2 + 4 + 3))
    assert {row["batch"] for row in rows} == {0, 1}
    assert sorted({row["completion"] for row in rows}) == list(range(24))
    assert {row["channel"] for row in rows} == {"length", "rubric/easy", "rubric/hard"}
    assert {row["session"] for row in rows} == {f"s{i}" for i in range(12)}
    lost = [row for row in rows if row["reason"] == "timeout"]
    assert [(row["reward"], row["z"], row["criterion"], row["counts"]) for row in lost] == [(None, None, "c2", 6.0)] * 2
    assert {row["counts"] for row in rows if row["criterion"] is None} == {0.5}
    assert (tmp_path / "channels" / "eval_000003.parquet").exists()


def test_details_of_a_completion(tmp_path: Path):
    write(tmp_path)
    run = open_run(tmp_path)
    batch = list(run.batches())[1]
    number = int(batch.numbers[9])
    assert number == 12 + 9
    cells = run.details(1, [number])[number]
    assert [cell["criterion"] for cell in cells] == [None, "c0", "c1", "c2"]
    assert cells[3]["reason"] == "timeout"
    assert cells[1]["text"] == "is 0 met?"


def test_a_gap_breaks_what_is_remembered(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "channels" / "000002.parquet").unlink()
    run = open_run(tmp_path)
    assert not run.every_batch
    found = replay(run, [])
    assert "cannot be replayed: it remembers the run" in found.notes[-1]
    assert diagnose(run).completions == 48


def test_a_damaged_file_is_named(tmp_path: Path):
    write(tmp_path)
    path = tmp_path / "channels" / "000002.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"000002.parquet is damaged .*; expected a complete record of rvpo. Remove"):
        list(open_run(tmp_path).batches())


def test_one_file_is_a_run_too(tmp_path: Path):
    write(tmp_path)
    assert open_run(tmp_path / "channels" / "000002.parquet").steps == (2,)
    assert open_run(tmp_path / "channels").name == tmp_path.name


def test_an_adaptive_k_is_recorded_as_it_is(tmp_path: Path):
    aggregator = Aggregator("rvpo:k=adaptive(target=0.7)", ["a", "b", "c"])
    table = ChannelTable(tmp_path / "channels")
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 5):
        rewards = torch.rand(16, 3, generator=generator, dtype=torch.float64)
        table.add(step, aggregator(rewards, num_generations=8))
    run = open_run(tmp_path)
    assert run.config == AdvantageConfig(rvpo.RVPO(rvpo.AdaptiveK(target=0.7)))
    assert replay(run, []).own_difference < 1e-12


def test_what_an_older_run_left_behind_is_left_out(tmp_path: Path):
    write(tmp_path, steps=5)
    write(tmp_path, steps=3)
    run = open_run(tmp_path)
    assert run.steps == (1, 2, 3)
    assert "2 files from 000004.parquet on are left out, because they are older than 000003.parquet" in run.notes
    assert replay(run, []).own_difference < 1e-12


def test_steps_that_train_on_older_completions_are_no_gap(tmp_path: Path):
    """As with several iterations on one generation; and a resumed run goes on where the last one stopped."""
    aggregator = Aggregator("lift", ["a", "b"])
    generator = torch.Generator().manual_seed(0)
    for steps in ((1, 3), (5, 7)):
        table = ChannelTable(tmp_path / "channels")
        for step in steps:
            rewards = torch.rand(8, 2, generator=generator, dtype=torch.float64)
            table.add(step, aggregator(rewards, num_generations=4))
    run = open_run(tmp_path)
    assert run.every_batch
    assert replay(run, []).own_difference < 1e-12


def texts_beside(folder: Path, step: int, rewards: list[float], advantages: list[float]) -> None:
    rows = len(rewards)
    table = {
        "prompt": ["p"] * rows,
        "completion": [f"c{i}" for i in range(rows)],
        "length": rewards,
        "advantage": advantages,
    }
    (folder / "completions").mkdir(exist_ok=True)
    pq.write_table(pa.table(table), folder / "completions" / f"completions_{step:05d}.parquet")


def test_texts_are_taken_only_where_they_are_of_the_same_completions(tmp_path: Path):
    """TRL's file has a step's last generation, or an evaluation's; ours has all of the training's."""
    write(tmp_path)
    first, last = list(open_run(tmp_path).batches())[:2]
    texts_beside(tmp_path, 1, last.rewards[:, 0].tolist(), last.advantages.tolist())
    texts_beside(tmp_path, 2, first.rewards[:, 0].tolist(), first.advantages.tolist())
    told = [batch.texts for batch in open_run(tmp_path).batches(texts=True)]
    assert [texts is not None for texts in told] == [False, True, False, False, False, False]
    assert told[1].completions == [f"c{i}" for i in range(12)]


@pytest.mark.parametrize("method", ["lift", "tchebycheff", "ctwa"])
def test_a_run_without_ranges_gives_its_advantages_again(tmp_path: Path, method: str):
    """Its scales are learned again from the record, batch by batch."""
    generator = torch.Generator().manual_seed(0)
    aggregator, table = Aggregator(method, ["tokens", "score"]), ChannelTable(tmp_path / "channels")
    for step in range(1, 40):
        rewards = torch.randn(16, 2, generator=generator) + 0.1 * step
        rewards[:, 0] = (5 + rewards[:, 0]).exp().round()
        table.add(step, aggregator(rewards, num_generations=4))
    run = open_run(tmp_path)
    assert run.ranges == {"tokens": None, "score": None}
    found = replay(run, [AdvantageConfig(method)])
    assert found.own_difference < 1e-6
    assert found.rules[0].problem is None


def test_a_verdict_on_several_criteria_says_so(tmp_path: Path):
    """The label "hard" has up to three criteria of a completion, "easy" has one."""
    write(tmp_path)
    found = diagnose(open_run(tmp_path), resamples=100)
    assert found.pooled == ("rubric/hard",)
    assert "* rubric/hard: the verdict is about several criteria of a completion" in diagnosis_text(found)
