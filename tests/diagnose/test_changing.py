"""Channels that lose or gain their influence during the run, with known truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.diagnosis import Diagnosis
from rvpo.diagnose.several import headline
from rvpo.diagnose.text import diagnosis_text
from rvpo.logs.open import open_run

STEPS = 36


def diagnosed(path: Path, weight: Callable[[int], float], steps: int = STEPS) -> Diagnosis:
    """Diagnose a run of GRPO on two binary rewards; the weight of the second one depends on the step."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for step in range(steps):
            for prompt in range(4):
                rewards = (rng.random((8, 2)) < 0.5).astype(float)
                total = rewards @ [1.0, weight(step)]
                advantages = (total - total.mean()) / (total.std(ddof=1) + 1e-4)
                for (right, form), advantage in zip(rewards.tolist(), advantages.tolist(), strict=True):
                    row = {"step": step, "prompt": f"{step} {prompt}", "advantage": advantage}
                    file.write(json.dumps(row | {"reward_right": right, "reward_form": form}) + "\n")
    return diagnose(open_run(path), texts=False)


@pytest.mark.parametrize(
    ("weight", "late"),
    [
        (lambda step: float(step < 24), 0.0),
        (lambda step: float(step < 18), 0.0),
        (lambda step: 1.0 if step < 24 else -0.3, -0.5),
        (lambda step: 1.0 if step < 22 else 0.02, 0.0),
    ],
)
def test_a_channel_that_loses_its_influence_is_named_in_the_first_line(tmp_path: Path, weight, late: float):
    found = diagnosed(tmp_path / "run.jsonl", weight)
    right, form = found.channels
    assert (right.faded, form.faded) == (False, True)
    if form.verdict == "healthy":
        text = " ".join(diagnosis_text(found).split())
        assert "None of 2 channels is neglected over the whole run. form lost its influence by the last third" in text
        assert "form: healthy. It moves the advantage" in text
        assert "* healthy: right." in text
        assert "a healthy channel lost its influence during the run" in headline([found, found])
    assert "; it lost its influence: " in form.rule
    assert float(form.rule.rpartition("third of the steps, ")[2].split()[0]) == pytest.approx(late, abs=0.15)


@pytest.mark.parametrize("weight", [lambda step: 1.0, lambda step: 0.5 + step / STEPS, lambda step: 0.0])
def test_influence_that_stays_on_one_side_is_no_change(tmp_path: Path, weight):
    found = diagnosed(tmp_path / "run.jsonl", weight)
    assert not any(channel.faded for channel in found.channels)
    assert not any("its influence" in channel.rule for channel in found.channels)
    assert "over the whole run" not in diagnosis_text(found)


def test_influence_that_comes_late_is_said(tmp_path: Path):
    form = diagnosed(tmp_path / "run.jsonl", lambda step: 0.6 * (step >= 24)).channels[1]
    assert (form.verdict, form.faded) == ("neglected", False)
    assert "it gained its influence later" in form.rule


def test_a_short_run_has_no_thirds(tmp_path: Path):
    found = diagnosed(tmp_path / "run.jsonl", lambda step: float(step < 4), steps=6)
    assert not any(channel.faded for channel in found.channels)
