"""One truth in many layouts: the same verdicts, or a headline that says what the layout does not log."""

from __future__ import annotations

from pathlib import Path

import pytest

from logs.layouts.writers import LAYOUTS, REWARDS, WEIGHTS, truth
from rvpo.diagnose.diagnose import diagnose
from rvpo.errors import ConfigError
from rvpo.logs.open import open_run

TRUTH = {"correct": "healthy", "helpful": "healthy", "safety": "neglected", "format": "neglected"}
ROWS = truth(steps=20, prompts=4)
WITHOUT_GROUPS = {"openrlhf"}  # neither a prompt nor advantages: the order of rows alone


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - WITHOUT_GROUPS))
def test_verdicts_are_those_of_the_truth(tmp_path: Path, name: str):
    layout = LAYOUTS[name]
    run = open_run(layout.write(tmp_path, ROWS))
    found = diagnose(run, texts=False, resamples=100)
    assert found.groups == 80
    assert found.steps == (1 if layout.step is None else 20)
    if not layout.columns:
        assert len(found.channels) == 1
        assert any("is the only reward" in str(guess) for guess in found.guesses)
        return
    names = dict(zip(run.channels, REWARDS, strict=True))
    told = {names[channel.name]: channel.verdict for channel in found.channels}
    if layout.total or layout.advantage or name == "prime_rl_traces":
        assert told == TRUTH
    else:  # a sum without weights: format is taken to count, and the headline says so
        assert told == {**TRUTH, "format": "healthy"}
        assert "plain sum of the rewards" in str(found.guesses[0])
        assert all(channel.confidence <= 0.8 for channel in found.channels)
    if layout.total and not layout.advantage:
        weights = dict(zip(map(names.get, run.channels), next(run.batches()).weights.tolist(), strict=True))
        assert weights == pytest.approx(WEIGHTS, abs=1e-3)


@pytest.mark.parametrize("name", sorted(WITHOUT_GROUPS))
def test_without_groups_a_layout_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="none tells which rows answer one prompt: name it with --group"):
        open_run(LAYOUTS[name].write(tmp_path, ROWS))
