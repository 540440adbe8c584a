"""What is proposed about a neglected channel: the reason, the method, and lines that can be pasted."""

from __future__ import annotations

import ast
import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from rvpo.core import AdvantageConfig
from rvpo.core.methods.registry import build_method
from rvpo.diagnose.conclusion import best_methods, conclusion
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.diagnosis import Cause, Diagnosis, say
from rvpo.diagnose.remedies import Remedy, remedies, weight_needed
from rvpo.diagnose.replay import Replay, replay
from rvpo.diagnose.several import headline
from rvpo.logs.demo import TRUTH, write_demo
from rvpo.logs.engine import engine_of, function_weights
from rvpo.logs.open import open_run

UNKNOWN = [math.nan] * len(TRUTH)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Diagnosis, Replay]:
    run = open_run(write_demo(tmp_path_factory.mktemp("runs") / "demo"))
    assert engine_of(run) == "trl"
    assert all(map(math.isnan, function_weights(run)))
    methods = [AdvantageConfig(build_method(text)) for text in ("gdpo", "rvpo:k=1", "lift")]
    return diagnose(run, resamples=200), replay(run, methods)


def cards(
    diagnosis: Diagnosis, replayed: Replay | None, engine: str | None = "trl", weights: object = UNKNOWN
) -> dict[str, Remedy]:
    return {card.channel: card for card in remedies(diagnosis, replayed, engine=engine, weights=weights)}


def test_the_truth_of_the_demo_is_found(found: tuple[Diagnosis, Replay]):
    diagnosis, _ = found
    assert {c.name: c.verdict for c in diagnosis.channels} == {name: verdict for name, (verdict, _) in TRUTH.items()}
    causes = {c.name: c.cause for c in diagnosis.channels if c.cause}
    assert causes["format"].wider == "correctness"
    assert {name for name, _ in causes["brevity"].opposed} == {"detail", "advice"}


@pytest.mark.parametrize(
    ("pull", "correlation", "fair", "expected"),
    [
        (1.0, 0.5, 0.5, 1.0),
        (0.0, 0.5, 0.5, 0.0),
        (1.0, -0.1, 0.5, -0.2),
        (None, 0.5, 0.5, None),
        (1.0, 0.5, None, None),
    ],
)
def test_say(pull: float | None, correlation: float | None, fair: float | None, expected: float | None):
    assert say(pull, correlation, fair) == expected


def test_influence_over_time_agrees_with_the_verdicts(found: tuple[Diagnosis, Replay]):
    """No neglected channel looks as if it decided."""
    influence = found[0].influence
    assert influence is not None
    assert influence.steps[-1] == found[0].steps
    for channel in found[0].channels:
        known = [value for value in influence.say[channel.name] if value is not None]
        if channel.verdict == "neglected":
            assert sum(known) / len(known) < 0.25
        elif channel.verdict == "healthy":
            assert sum(known) / len(known) > 0.5


def test_each_card_has_a_reason_and_a_line(found: tuple[Diagnosis, Replay]):
    told = cards(*found)
    assert set(told) == {"format", "brevity"}
    assert "vary" in told["format"].why
    assert "correctness" in told["format"].why
    assert "outvoted by detail and advice" in told["brevity"].why
    assert "fell from" in told["brevity"].why
    best = best_methods(*found)["format"]
    assert best is not None
    assert best.enough
    assert f'RVPOConfig(method="{best.method}")' in told["format"].lines[0].code
    assert f"Under {best.method}, format would have had" in conclusion(*found)
    assert "None of the methods tried would have given brevity enough influence" in conclusion(*found)
    assert "reward_weights=[1, 1, 1, " in told["brevity"].lines[0].code  # where no method helps, the weight comes first


def test_the_weight_that_is_proposed_is_enough(found: tuple[Diagnosis, Replay]):
    """Weighing the channel so many times in the log itself lets it count."""
    from rvpo.logs.run import with_weights

    diagnosis, _ = found
    times = weight_needed("format", diagnosis)
    assert times is not None
    run = open_run(diagnosis.path)
    weights = [times if name == "format" else 1.0 for name in run.channels]
    weighed = with_weights(run, weights)
    logged = weighed.read
    bare = replace(weighed, read=lambda texts: (replace(batch, advantages=None) for batch in logged(texts)))
    verdicts = {c.name: c for c in diagnose(bare, resamples=100, texts=False).channels}
    assert verdicts["format"].say == pytest.approx(0.5, abs=0.25)


def test_weights_are_multiplied_and_those_of_criteria_are_not_proposed(found: tuple[Diagnosis, Replay]):
    (line,) = [one for one in cards(*found, "trl", [2, 1, 1, 1, 0.5, 1])["format"].lines if "weights" in one.code]
    times = weight_needed("format", found[0])
    assert f"reward_weights=[2, 1, 1, 1, {0.5 * times:g}, 1]," in line.code
    assert "if all weights are 1" not in line.where
    for engine in ("trl", "verl"):
        codes = [one.code for one in cards(*found, engine, None)["format"].lines]
        assert codes
        assert not any("reward_weights" in code or "reward_keys" in code for code in codes)


@pytest.mark.parametrize("engine", ["trl", "verl", None])
def test_lines_are_in_the_words_of_the_engine(found: tuple[Diagnosis, Replay], engine: str | None):
    codes = [line.code for line in cards(*found, engine)["format"].lines]
    assert any("RVPOConfig(" in code for code in codes)
    assert codes[0].startswith("python -m rvpo.verl" if engine == "verl" else "from rvpo.trl")
    assert any("rvpo.verl algorithm.adv_estimator=" in code for code in codes) is (engine != "trl")


def test_without_a_replay_the_next_step_is_one(found: tuple[Diagnosis, Replay]):
    lines = cards(found[0], None)["format"].lines
    assert shlex.split(lines[-1].code) == ["rvpo", "replay", found[0].path, "--method", "grpo"]


def test_a_run_of_a_recipe_is_trained_again_by_its_recipe(found: tuple[Diagnosis, Replay], tmp_path: Path):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "recipe.yaml").touch()
    first = cards(replace(found[0], path=str(folder)), found[1])["format"].lines[0]
    words = shlex.split(first.code)
    assert words[:3] == ["rvpo", "train", str(folder / "recipe.yaml")]
    assert words[3].startswith("method=")


@pytest.mark.parametrize("cause", [Cause(("ignored",), monitored=True), Cause(("reversed",)), Cause(("outvoted",))])
def test_every_kind_of_neglect_has_a_reason_and_a_line(found: tuple[Diagnosis, Replay], cause: Cause):
    channels = tuple([replace(c, cause=cause) if c.name == "format" else c for c in found[0].channels])
    card = cards(replace(found[0], channels=channels), found[1])["format"]
    assert card.why
    assert card.lines


@pytest.mark.parametrize(
    ("own", "words"), [("gdpo", None), ("grpo", "the sum of the rewards"), (None, "if the run sums")]
)
def test_scales_explain_neglect_only_where_raw_rewards_may_be_summed(
    found: tuple[Diagnosis, Replay], own: str | None, words: str | None
):
    why = cards(found[0], replace(found[1], own=own))["format"].why
    assert ("vary" in why) is (words is not None)
    assert words is None or words in why


HOSTILE = ("a\nimport os", "'; rm -rf ~ #", '"] + [', "$(touch x)", "日本")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("engine", ["trl", "verl"])
def test_names_of_channels_cannot_become_code(found: tuple[Diagnosis, Replay], name: str, engine: str):
    channels = tuple([replace(c, name=name) if c.name == "format" else c for c in found[0].channels])
    for card in cards(replace(found[0], channels=channels), None, engine).values():
        for line in card.lines:
            assert name not in line.code
            if line.code.startswith("from"):
                assert len(ast.parse(line.code).body) == 2
            elif line.code.startswith("reward_weights"):
                ast.parse(f"f({line.code}\n)")


def run_of(method: str, **verdicts: str) -> Diagnosis:
    class Channel:
        def __init__(self, name: str, verdict: str) -> None:
            self.has_lost_influence = verdict == "faded"
            self.name, self.verdict = name, "healthy" if self.has_lost_influence else verdict

    found = object.__new__(Diagnosis)
    object.__setattr__(found, "run", f"{method}-0")
    object.__setattr__(found, "method", method)
    object.__setattr__(found, "channels", tuple([Channel(*pair) for pair in verdicts.items()]))
    return found


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([run_of("gdpo", a="healthy")] * 3, "No channel is neglected in any of 3 runs."),
        (
            [run_of("gdpo", a="unclear")] * 2,
            "It is unclear whether a channel is neglected: all 2 runs have unclear verdicts.",
        ),
        (
            [run_of("gdpo", a="neglected"), run_of("gdpo", a="healthy"), run_of("lift", a="unclear")],
            "a is neglected in 1 of 3 runs: 1 of 2 with gdpo, 0 of 1 with lift. 1 run has unclear verdicts.",
        ),
        (
            [run_of("gdpo", a="neglected", b="neglected")] * 2,
            "a is neglected in both runs. b is neglected in both runs.",
        ),
        (
            [run_of("gdpo", a="diverging", b="healthy")] * 2,
            "a diverges from a monitor in both runs. No channel is neglected in any of 2 runs.",
        ),
        (
            [run_of("gdpo", a="diverging", b="neglected"), run_of("lift", a="healthy", b="faded")],
            "a diverges from a monitor in 1 of 2 runs: 1 of 1 with gdpo, 0 of 1 with lift. b is neglected in 1 of 2 "
            "runs: 1 of 1 with gdpo, 0 of 1 with lift. In lift-0, a healthy channel lost its influence during the run.",
        ),
    ],
)
def test_the_headline_of_several_runs(runs: list[Diagnosis], expected: str):
    assert headline(runs) == expected
