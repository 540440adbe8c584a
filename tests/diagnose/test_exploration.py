"""Exploration of finished runs: what is counted, which collapse is called, and what is left alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import rvpo
from rvpo.core.groups import Groups
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.exploration import judged
from rvpo.diagnose.exploration_text import exploration_notes, exploration_sentence, exploration_table
from rvpo.diagnose.questions import Lines, Seen, count_questions, merged, seen_of
from rvpo.diagnose.text import diagnosis_text
from rvpo.errors import ConfigError, DataError
from rvpo.logs.entropy import find_entropy, read_entropy
from rvpo.logs.run import LoggedBatch, Run, with_ranges, with_solved

NAN = math.nan


def run_of(
    rewards: list[list[list[float]]], names: tuple[str, ...] = ("right",), size: int = 2, **given: object
) -> Run:
    """A run with one batch a step: (steps, N, M) rewards in blocks of ``size``."""
    batches = [
        LoggedBatch(
            step,
            torch.tensor(rows, dtype=torch.float64),
            torch.arange(len(rows)) // size,
            torch.arange(len(names)),
            torch.zeros(len(rows), dtype=torch.float64),
        )
        for step, rows in enumerate(rewards, 1)
    ]
    return Run(Path("runs/a"), "table", names, tuple(range(1, len(rewards) + 1)), lambda texts: iter(batches), **given)  # type: ignore[arg-type]


def counted(run: Run) -> tuple[Lines, dict[str, list[float]]]:
    """Return the lines of a run, and what its last column, the question being solved, counts at each step."""
    lines = Lines(merged(seen_of(batch, run) for batch in run.batches()), run.ranges, run.solved)
    sums = count_questions(run, lines, {step: step - 1 for step in run.steps})
    names = ("none", "some", "all", *(f"pass@{k}" for k in sums.ks))
    return lines, {name: sums.series(name, len(run.channels)).tolist() for name in names}


def test_what_is_met_may_show_at_the_end_of_the_run():
    # -1 and 2: only the second step shows that the channel has two values, and which one meets it
    run = run_of([[[-1.0], [-1], [-1], [-1]], [[2.0], [-1], [2], [2]]])
    _, found = counted(run)
    assert found == {"none": [1, 0], "some": [0, 0.5], "all": [0, 0.5], "pass@1": [0, 0.75], "pass@2": [0, 1]}


@pytest.mark.parametrize(
    ("first", "second", "few"),
    [
        (Seen(0, 0, [0.0]), Seen(1, 1, [1.0]), [0.0, 1.0]),
        (Seen(0, 1, [0.0, 1.0]), Seen(2, 2, [2.0]), None),
        (Seen(0, 3, None), Seen(1, 1, [1.0]), None),
        (Seen(), Seen(1, 1, [1.0]), [1.0]),
    ],
)
def test_what_two_runs_show_together(first: Seen, second: Seen, few: list[float] | None):
    assert first.merged(second).few == second.merged(first).few == few


def test_questions_are_unknown_while_a_channel_that_counts_has_no_line():
    rewards = [[[1.0, -3.5], [0, -1], [1, -2], [0, 0]]] * 3
    run = run_of(rewards, ("right", "length"))
    lines, found = counted(run)
    assert lines.unknown == ("length",)
    assert all(math.isnan(value) for value in found["none"])
    assert "length" in diagnose(run).exploration.rule
    assert counted(with_solved(run, ["right"]))[1]["pass@1"] == [0.5] * 3
    assert counted(with_ranges(run, {"length": (-4, 0)}))[1]["pass@1"] == [0.25] * 3
    with pytest.raises(ConfigError, match="--solved names the channel 'rigth'"):
        with_solved(run, ["rigth"])


def test_records_say_what_the_training_said(tmp_path: Path):
    """Metrics of every step, and the curves of the record: with missing values, a monitor and a condition."""
    from rvpo.logs.open import open_run
    from rvpo.logs.writer import ChannelTable

    generator = torch.Generator().manual_seed(0)
    aggregator = rvpo.Aggregator(
        "gdpo",
        ["right", "style", "gold"],
        ranges={"right": (0, 1)},
        structure=["only_where(style,right)"],
        monitor=["gold"],
        weights={"style": "alternate(1,0)"},
    )
    table, told = ChannelTable(tmp_path / "channels"), []
    for step in range(1, 5):
        rewards = (torch.rand(32, 3, generator=generator) < 0.6).double()
        rewards[torch.rand(32, 3, generator=generator) < 0.1] = NAN
        done = aggregator(rewards, num_generations=4, progress=step / 4)
        table.add(step, done)
        told.append(done.metrics)
    _, found = counted(open_run(tmp_path))
    for name, values in found.items():
        assert values == pytest.approx([metrics[f"rvpo/solved/{name}"] for metrics in told], nan_ok=True)


# --- the verdict --------------------------------------------------------------------------------------------------


def shares(end: Callable[[float], tuple[float, float]], steps: int, questions: int, seed: int) -> np.ndarray:
    """Numbers of questions solved by none, some and all: ``end`` gives none and some at a share of the training."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(steps):
        none, some = end(step / (steps - 1))
        rows.append(rng.multinomial(questions, [none, some, max(0.0, 1 - none - some)]))
    return np.array(rows, dtype=float).T


PLANTED = {
    "questions are lost": lambda x: (0.1 + 0.3 * min(1, 2 * x), 0.8 - 0.79 * min(1, 2 * x)),
    "the rest is never solved": lambda x: (0.3, 0.5 - 0.49 * min(1, 1.5 * x)),
    "late and at once": lambda x: (0.2 if x < 0.8 else 0.45, 0.6 if x < 0.8 else 0.01),
    "a few first ones, then no more": lambda x: (0.6 - 0.2 * min(1, 2 * x), 0.35 - 0.34 * min(1, 2 * x)),
}
CLEAN = {
    "all is solved": lambda x: (0.4 * (1 - x), 0.5 * (1 - x)),
    "nothing is ever solved": lambda x: (0.97, 0.02),
    "nothing changes": lambda x: (0.3, 0.5),
    "it learns slowly": lambda x: (0.8 - 0.3 * x, 0.2 + 0.1 * x),
    "a tenth is out of reach": lambda x: (0.1, 0.7 * (1 - x) + 0.01),
    "it is still finding first successes": lambda x: (0.6 - 0.4 * x, 0.2 - 0.15 * x),
    "only what can be ranked is kept": lambda x: (0.0, 0.999),
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize(("steps", "questions"), [(60, 8), (200, 32), (24, 64)])
def test_a_collapse_is_called(kind: str, steps: int, questions: int):
    counts = [shares(PLANTED[kind], steps, questions, seed) for seed in range(5)]
    found = [judged(one, one.sum(0), None, range(1, steps + 1))[0] for one in counts]
    assert found.count("collapses") >= 4
    assert set(found) <= {"collapses", "explores"}


@pytest.mark.parametrize("kind", CLEAN)
@pytest.mark.parametrize(("steps", "questions"), [(60, 8), (200, 32), (24, 64)])
def test_a_clean_run_is_left_alone(kind: str, steps: int, questions: int):
    for seed in range(5):
        one = shares(CLEAN[kind], steps, questions, seed)
        assert judged(one, one.sum(0), None, range(1, steps + 1))[0] == "explores"


def test_entropy_that_did_not_fall_is_no_collapse():
    one = shares(PLANTED["questions are lost"], 80, 32, 0)
    steps = range(1, 81)
    for entropy, verdict in (
        (np.linspace(1.0, 0.1, 80), "collapses"),
        (np.full(80, 0.7), "stalls"),
        (np.full(80, NAN), "collapses"),
        (np.where(np.arange(80) % 10 == 0, np.linspace(1.0, 0.1, 80), NAN), "collapses"),  # logged every ten steps
        (np.zeros(80), "collapses"),  # an entropy of 0 says nothing
    ):
        found, rule = judged(one, one.sum(0), entropy, steps)
        assert found == verdict
        assert ("No entropy" in rule) == (not np.nan_to_num(entropy).any())


@pytest.mark.parametrize(("steps", "questions"), [(6, 64), (12, 32), (40, 1)])
def test_too_little_is_unclear(steps: int, questions: int):
    one = shares(PLANTED["questions are lost"], steps, questions, 0)
    assert judged(one, one.sum(0), None, range(steps))[0] == "unclear"


@pytest.mark.parametrize(("late", "verdict"), [(1, "unclear"), (2, "unclear"), (8, "collapses")])
def test_fewer_scored_completions_are_no_collapse(late: int, verdict: str):
    """With one scored completion, no question is solved by some, whatever the policy does."""
    rng = np.random.default_rng(0)
    rewards = []
    for step in range(60):
        chance = 0.3 if late < 8 else 0.3 * (step < 40)
        scored = (rng.random((24, 8)) < (chance if step < 40 or late != 2 else 0.03)).astype(float)
        scored[:, late if step >= 40 else 8 :] = NAN  # by a judge that fails, or one that samples
        rewards.append(scored.reshape(-1, 1).tolist())
    found = diagnose(run_of(rewards, size=8), resamples=100).exploration
    assert found.verdict == verdict
    assert (f"{late}.0 scored completions (before: 8.0)" in found.rule) == (late < 8)


def test_a_diagnosis_says_it_in_its_headline():
    rng = np.random.default_rng(0)
    rewards = []
    for step in range(40):
        p = rng.choice([0.0, 0.5, 1.0], 16, p=[0.1, 0.85, 0.05] if step < 10 else [0.5, 0.0, 0.5])
        rewards.append((rng.random((16, 8)) < p[:, None]).astype(float).reshape(-1, 1).tolist())
    found = diagnose(run_of(rewards, size=8))
    text = diagnosis_text(found)
    assert found.exploration.verdict == "collapses"
    assert "Exploration collapses: hardly any questions" in text
    assert "pass@8" in text
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["exploration"]["solved"]["passes"]["8"]
    assert [exploration_sentence(None), exploration_table(None), exploration_notes(None)] == ["", [], []]


# --- entropy ------------------------------------------------------------------------------------------------------

ENTRIES = [{"step": 1, "entropy": 0.9}, {"step": 2, "entropy": None}, {"step": 3, "entropy": 0.5, "loss": 1.0}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.jsonl", "\n".join(map(json.dumps, ENTRIES))),
        ("trainer_state.json", json.dumps({"log_history": ENTRIES})),
        ("checkpoint-20/trainer_state.json", json.dumps({"log_history": ENTRIES})),
        (
            "metrics.jsonl",
            "\n".join(json.dumps(x) for x in [{"step": 3, "entropy": 9.0}, *ENTRIES]) + '\n{"step": 4, "en',
        ),
    ],
)
def test_entropy_is_found_in_the_folder_of_a_run(tmp_path: Path, name: str, text: str):
    (tmp_path / "channels").mkdir()
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / name).write_text(text)
    found = find_entropy(Run(tmp_path / "channels", "channels", ("a",), (1,), lambda texts: iter(())))
    assert found is not None
    assert (found.by_step, found.key) == ({1: 0.9, 3: 0.5}, "entropy")


def test_verls_file_is_named(tmp_path: Path):
    path = tmp_path / "verl.jsonl"
    path.write_text("\n".join(json.dumps({"step": i, "data": {"actor/entropy": 0.1 * i}}) for i in (1, 2)))
    assert read_entropy(path).by_step == pytest.approx({1: 0.1, 2: 0.2})


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, '{"step": 1}', '{"step": true, "entropy": 1}', '{"step": 1, "entropy": 1e999}', "[1, 2]"],
)
def test_a_file_without_entropy_is_refused_by_name_and_passed_over_in_a_folder(tmp_path: Path, text: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match="has no entropy"):
        read_entropy(path)
    assert find_entropy(Run(tmp_path, "channels", ("a",), (1,), lambda texts: iter(()))) is None


@pytest.mark.parametrize("key", ["entropy", "actor/entropy", "actor/entropy_loss"])
def test_a_negative_number_is_no_entropy(tmp_path: Path, key: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps({"step": i, key: -0.5 * i}) for i in range(4)))
    with pytest.raises(DataError, match="never negative"):
        read_entropy(path)
    assert find_entropy(replace(run_of([[[1.0], [0.0]]]), path=tmp_path)) is None
    path.write_text(json.dumps({"step": 1, key: -1e-9}))
    assert read_entropy(path).by_step == {1: -1e-9}


def test_an_entropy_of_other_steps_is_told(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps({"step": i, "entropy": 0.5}) for i in (1000, 1001)))
    run = run_of([[[1.0], [0.0]]] * 20)
    found = diagnose(run, resamples=100, entropy=read_entropy(path)).exploration
    assert "steps 1000 to 1001, which these logs do not contain" in found.rule


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        read_entropy(tmp_path / "absent.jsonl")


def test_groups_know_their_largest_size():
    assert Groups.from_ids(torch.tensor([0, 1, 1, 0, 1]), 5).size == 3
    assert Groups.from_blocks(8, 4, torch.device("cpu")).size == 4
