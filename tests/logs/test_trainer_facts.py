"""The state of TRL's trainer shows which completions are of an evaluation, and which columns are rewards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rvpo.logs.open import open_run

SIZE = 4


def generation(seed: int, prompts: str = "training") -> dict[str, list[object]]:
    """Two groups of completions, as TRL logs them."""
    rng = np.random.default_rng(seed)
    rewards = rng.random((2 * SIZE, 2))
    total = rewards.sum(1).reshape(2, SIZE)
    return {
        "prompt": [f"{prompts} {i // SIZE}" for i in range(2 * SIZE)],
        "completion": [f"{seed} {i}" for i in range(2 * SIZE)],
        "alpha": rewards[:, 0].tolist(),
        "beta": rewards[:, 1].tolist(),
        "margin": rng.random(2 * SIZE).tolist(),  # of log_extra
        "advantage": (total - total.mean(1, keepdims=True)).ravel().tolist(),
    }


def write(folder: Path, generations: Sequence[dict[str, list[object]]], evaluated: Sequence[int]) -> None:
    """Write the files of a run, one per step from 1, and a checkpoint whose state has the metrics of all steps."""
    (folder / "completions").mkdir(parents=True)
    history: list[dict[str, object]] = []
    for step, columns in enumerate(generations, 1):
        table = pa.table({"step": [step] * len(columns["prompt"]), **columns})
        pq.write_table(table, folder / "completions" / f"completions_{step:05d}.parquet")
        history.append({"step": step, "loss": 0.1, "rewards/alpha/mean": 0.5, "rewards/beta/mean": 0.5})
        if step in evaluated:
            history.append({"step": step, "eval_loss": 0.1, "eval_rewards/alpha/mean": 0.5})
    checkpoint = folder / f"checkpoint-{len(generations)}"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": history}))


def test_files_of_evaluations_are_left_out_though_their_groups_have_the_usual_size(tmp_path: Path) -> None:
    write(tmp_path, [generation(i, "held out" if i in (2, 5) else "training") for i in range(1, 7)], [2, 5])
    run = open_run(tmp_path)
    assert run.steps == (1, 3, 4, 6)
    read = [batch.texts for batch in run.batches(texts=True)]
    assert {prompt for texts in read if texts for prompt in texts.prompts} == {"training 0", "training 1"}
    assert any("2 files (steps 2, 5) are left out" in note for note in run.notes)
    assert open_run(tmp_path / "completions").steps == run.steps


def test_an_evaluation_that_the_next_file_repeats_is_left_out_there_as_well(tmp_path: Path) -> None:
    """With several iterations per generation, no new completions are logged after an evaluation."""
    held_out = generation(2, "held out")
    write(tmp_path, [generation(1), held_out, held_out, generation(4), generation(4)], [2])
    run = open_run(tmp_path)
    assert run.steps == (1, 4, 5)
    assert [batch.step for batch in run.batches()] == [1, 4]


def test_a_given_group_size_does_not_bring_evaluations_back(tmp_path: Path) -> None:
    from rvpo.logs.run import Columns

    write(tmp_path, [generation(i) for i in range(1, 5)], [3])
    assert open_run(tmp_path, Columns(group_size=SIZE)).steps == (1, 2, 4)


def test_an_evaluation_at_every_step_is_a_guess(tmp_path: Path) -> None:
    write(tmp_path, [generation(i) for i in range(1, 5)], range(1, 5))
    run = open_run(tmp_path)
    assert run.steps == (1, 2, 3, 4)
    assert "all completions are of the training" in [guess.what for guess in run.guesses]


def test_the_state_names_the_rewards(tmp_path: Path) -> None:
    write(tmp_path, [generation(i) for i in range(1, 5)], [])
    run = open_run(tmp_path)
    assert run.channels == ("alpha", "beta")
    assert run.guesses == ()
    assert any(note.startswith("margin: not treated as a reward") for note in run.notes)


@pytest.mark.parametrize("text", ["", "[]", '{"log_history": [1, null, {"step": "x"}]}', '{"log_history": [', "\x00"])
def test_a_damaged_state_says_nothing(tmp_path: Path, text: str) -> None:
    write(tmp_path, [generation(i) for i in range(1, 5)], [2])
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text(text)
    assert open_run(tmp_path).steps == (1, 2, 3, 4)


def test_a_reward_that_was_added_after_the_last_checkpoint_counts(tmp_path: Path) -> None:
    generations = [generation(i) for i in range(1, 7)]
    for columns in generations:
        del columns["margin"]
    for columns in generations[3:]:
        columns["gamma"] = np.random.default_rng(9).random(2 * SIZE).round(1).tolist()
        summed = np.array([columns[name] for name in ("alpha", "beta", "gamma")], dtype=float).sum(0).reshape(2, SIZE)
        columns["advantage"] = (summed - summed.mean(1, keepdims=True)).ravel().tolist()
    write(tmp_path, generations, [])
    state = tmp_path / "checkpoint-6" / "trainer_state.json"
    history = json.loads(state.read_text())["log_history"][:3]
    state.write_text(json.dumps({"log_history": history}))
    assert open_run(tmp_path).channels == ("alpha", "beta", "gamma")
