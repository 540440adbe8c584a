"""Records of version 1, as an older rvpo wrote them: each opens, and its own method gives its advantages again."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvpo.core import AdvantageConfig
from rvpo.core.methods.recorded import Recorded
from rvpo.core.methods.registry import METHODS
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run

RECORDS = Path(__file__).parent / "version_1"
# What was called lift is lift_z now.
METHOD_OF = {
    "rvpo": "rvpo:k=1",
    "rvpo_explicit": "rvpo_explicit",
    "hard_min": "hard_min",
    "gdpo": "gdpo",
    "grpo": "grpo:unscored=left_out",
    "ctwa": "ctwa",
    "tchebycheff": "tchebycheff",
    "smooth_tchebycheff": "smooth_tchebycheff",
    "rvpo_linear": "rvpo:k=2",  # version 1 has k step by step; this is the last
    "rvpo_adaptive": "rvpo:k=adaptive(target=0.7,horizon=3)",
    "rvpo_explicit_options": "rvpo_explicit:beta=0.7",
    "lift": "lift_z:kappa=3,margin=0.1",
    "lagrangian": "lagrangian:thresholds={b:0.8,c:0.5},rate=2",
    "riskpo": "riskpo:bundle_size=2,score={name:rvpo,k:2}",
    "riskpo_plain": "riskpo:bundle_size=2",
    "rubrics_rvpo": "rvpo:k=2",
    "rubrics_lift": "lift_z",
    "reliability": "rvpo:k=2",
    "reliability_rubrics": "gdpo",
    "dead_channels_keep": "rvpo:k=2,dead_channels=keep",
    "whiten_none": "gdpo:whiten=none",
    "whiten_group": "hard_min:whiten=group",
    "verl_by_token": "gdpo:whiten=token",  # recorded as whiten none, with the tokens beside it
}


NEWER = {"lift", "dara", "sa_mrpo", "saw", "dvao", "corr_grpo", "gd2po", "verpo", "mgda"}


def test_every_method_has_a_record():
    assert set(METHOD_OF) == {folder.name for folder in RECORDS.iterdir() if folder.is_dir()}
    assert {text.partition(":")[0] for text in METHOD_OF.values()} == set(METHODS) - NEWER


@pytest.mark.parametrize("name", METHOD_OF)
def test_its_own_method_gives_its_advantages(name: str):
    run = open_run(RECORDS / name)
    assert run.every_batch
    assert str(run.config) == METHOD_OF[name]
    assert AdvantageConfig(METHOD_OF[name]).method == run.config.method  # the text is enough to build it
    steps = len(list((RECORDS / name / "channels").glob("*.parquet")))
    found = diagnose(run)
    assert (found.steps, found.completions, found.groups, found.notes) == (steps, 8 * steps, 2 * steps, ())
    assert any(channel.missing > 0 for channel in found.channels)
    again = replay(run, [AdvantageConfig("hard_min" if name == "grpo" else "grpo")])
    assert (again.own, again.notes) == (METHOD_OF[name], ())
    assert again.own_difference < 1e-6
    assert again.rules[0].largest_difference > 0.01  # the comparison can fail


def test_options_of_the_numbers_are_read():
    config = open_run(RECORDS / "rvpo_explicit_options").config
    assert (config.eps, config.ddof) == (1e-6, 0)


def test_what_was_trusted_less_and_the_labels_of_rubrics_are_read():
    (first, _) = open_run(RECORDS / "reliability").batches()
    assert set(first.reliability.flatten().tolist()) == {0.4, 1.0}
    run = open_run(RECORDS / "reliability_rubrics")
    assert run.channels == ("length", "rubric/easy", "rubric/hard")
    (first, _) = run.batches()
    assert set(first.reliability[:, 1:][first.applies[:, 1:]].tolist()) == {0.6}
    assert [cell["criterion"] for cell in run.details(1, [5])[5]] == [None, "c0", "c1", "c2"]


def test_k_moved_step_by_step_and_the_schedule_gives_it_again():
    """Version 1 does not record the progress, so a replayed schedule takes it from the steps, and a note says so."""
    run = open_run(RECORDS / "rvpo_linear")
    assert [batch.config.method.k for batch in run.batches()] == [0.5, 1.25, 2.0]
    found = replay(run, [AdvantageConfig("rvpo:k=linear(0.5,2)"), AdvantageConfig("rvpo:k=2")])
    assert found.rules[0].largest_difference < 1e-6
    assert found.rules[1].largest_difference > 0.01
    (note,) = found.notes
    assert note == (
        "the logs do not have the training progress that rvpo:k=linear(0.5,2) needs, so it is computed from the steps: "
        "0 at step 1, 1 at step 3"
    )


def test_nothing_of_version_1_is_only_recorded():
    assert not any(isinstance(open_run(RECORDS / name).config.method, Recorded) for name in METHOD_OF)
