"""The scale of a rubric's scores follows the rule of any other reward: declared, else [0, 1] or learned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

import rvpo
from rvpo.core.ragged import Family, Score
from rvpo.errors import ConfigError, RewardError
from rvpo.step.options import AggregationOptions, check_rubric_names
from rvpo.step.trust import Reliability

MARKS = [[1.0, 10.0, 4.0, 7.0], [9.0, 2.0, 5.0, 10.0], [3.0, 6.0, 8.0, 1.0]]  # of a judge who gives 1 to 10
METHODS = ["lift", "tchebycheff", "ctwa:target=0.5", "lagrangian:thresholds={q:0.9}"]


def family(marks: list[float], *labels: str, name: str = "q") -> Family:
    return Family(name, [[Score("c", mark, labels=labels)] for mark in marks])


def rubric(*labels: str) -> Callable[[rvpo.Aggregator, list[float]], rvpo.Aggregated]:
    def step(agg: rvpo.Aggregator, marks: list[float]) -> rvpo.Aggregated:
        rewards = torch.full((len(marks), 1), torch.nan, dtype=torch.float64)
        return agg(rewards, num_generations=4, families=[family(marks, *labels)])

    return step


def rows(agg: rvpo.Aggregator, marks: list[float]) -> rvpo.Aggregated:
    return agg([{"q": {"c": mark}} for mark in marks], num_generations=4)


def plain(agg: rvpo.Aggregator, marks: list[float]) -> rvpo.Aggregated:
    return agg(torch.tensor(marks, dtype=torch.float64)[:, None], num_generations=4)


KINDS = {
    "a label": (rubric("tone", "style"), "q/tone"),
    "no label": (rubric(), "q"),
    "criteria in rows": (rows, "q"),
}


@pytest.mark.parametrize("ranges", [None, {"q": (1, 10)}, {"q": (0, 20)}, {"q": (0, 1)}])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_one_rule_for_plain_and_rubric_scores(method: str, kind: str, ranges: Any):
    """A judge's marks count the same as a rubric and as a plain reward, whatever their scale."""
    step, channel = KINDS[kind]
    ours = rvpo.Aggregator(method, ["q"], ranges=ranges)
    theirs = rvpo.Aggregator(method, ["q"], ranges=ranges)
    for marks in MARKS:
        got, want = step(ours, marks), plain(theirs, marks)
        assert list(got.advantages) == pytest.approx(want.advantages.tolist(), abs=1e-12)
        for metric in ("attained", "outside"):
            assert got.metrics[f"rvpo/{channel}/{metric}"] == want.metrics[f"rvpo/q/{metric}"]
    assert got.channels.ranges == want.channels.ranges


def test_marks_from_1_to_10_are_not_all_met():
    step, _ = KINDS["a label"]
    agg = rvpo.Aggregator("lift", ["q"])
    out = [step(agg, marks) for marks in MARKS][-1]
    assert (out.metrics["rvpo/q/tone/scale_low"], out.metrics["rvpo/q/tone/scale_high"]) == (1, 10)
    assert out.metrics["rvpo/q/tone/attained"] == pytest.approx(((3 + 6 + 8 + 1) / 4 - 1) / 9)


def test_a_label_has_a_range_of_its_own_before_that_of_its_rubric():
    agg = rvpo.Aggregator("lift", ["q", "len"], ranges={"q": (0, 1), "q/tone": (1, 10), "len": (0, 4)})
    scores = [[Score("a", mark, labels=("tone",)), Score("b", 0.5, labels=("fact",))] for mark in MARKS[0]]
    out = agg(torch.ones(4, 2).double(), num_generations=4, families=[Family("q", scores)])
    assert dict(zip(out.channels.names, out.channels.ranges, strict=True)) == {
        "len": (0, 4),
        "q/tone": (1, 10),
        "q/fact": (0, 1),
    }
    assert out.metrics["rvpo/q/tone/outside"] == 0
    assert out.metrics["rvpo/len/attained"] == 0.25


@pytest.mark.parametrize("ranges", [{"q/tone": [1, 10]}, {"q": [1, 10]}, {"q": [0, 5], "q/tone": [1, 10]}])
def test_reward_ranges_of_every_engine_name_labels(ranges: dict[str, Any]):
    agg = AggregationOptions(method="lift", reward_ranges=ranges).aggregator(["q"], [(0.0, 1.0)], None)
    out = KINDS["a label"][0](agg, MARKS[0])
    assert out.channels.ranges == ((1.0, 10.0),)


@pytest.mark.parametrize(
    ("ranges", "told"),
    [
        ({"p/tone": (1, 10)}, "names the channel 'p/tone'; expected one of q"),
        ({"qq": (1, 10)}, "names the channel 'qq'"),
        ({"q/tone": (10, 1)}, r"the range of q/tone is \(10, 1\)"),
        ({"q/tone": 10}, "the range of q/tone is 10"),
    ],
)
def test_ranges_of_labels_that_cannot_work(ranges: Any, told: str):
    with pytest.raises(ConfigError, match=told):
        rvpo.Aggregator("lift", ["q"], ranges=ranges)


def test_a_narrow_range_of_a_label_says_so(caplog: pytest.LogCaptureFixture):
    agg = rvpo.Aggregator("lift", ["q"], ranges={"q/tone": (0, 1)})
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        KINDS["a label"][0](agg, MARKS[0])
    assert "Rewards of 'q/tone' lie outside of its range [0, 1] (seen: [1, 10])" in caplog.text


# --- names with slashes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "families", "told"),
    [
        (["q", "q/dose"], [family([0, 1], "dose")], "'q' has the label 'dose'.*name of the reward 'q/dose'"),
        (["q/dose", "q"], [family([0, 1], "tone", "dose")], "'q' has the label 'dose'.*name of the reward 'q/dose'"),
        (
            ["q", "q/a"],
            [family([0, 1], "a/b"), family([1, 0], "b", name="q/a")],
            "has the label 'b', so its channel is 'q/a/b'.*'q'",
        ),
        (["q", "q/a"], [family([0, 1], "a"), family([1, 0], name="q/a")], "'q' has the label 'a'.*'q/a'"),
    ],
)
def test_channels_of_two_rewards_are_never_merged(names: list[str], families: list[Family], told: str):
    agg = rvpo.Aggregator("gdpo", names)
    with pytest.raises(RewardError, match=f"{told}.*expected a unique name per channel"):
        agg(torch.rand(2, len(names)).double(), num_generations=2, families=families)


SLASHES = ["team/q", "len"]


@pytest.mark.parametrize(
    "method",
    ["lagrangian:thresholds={team/q:0.9}", "lagrangian:thresholds={team/q/tone:0.9}", "lift:floors={team/q/tone:0.9}"],
)
def test_options_of_methods_name_channels_with_slashes(method: str):
    agg = rvpo.Aggregator(method, SLASHES)
    rewards = torch.rand(4, 2, generator=torch.Generator().manual_seed(0)).double()
    agg(rewards, num_generations=4)  # no prompt of this batch has a rubric
    agg(rewards, num_generations=4, families=[family([0, 1, 0, 1], "tone", name="team/q")])
    assert list(agg(rewards, num_generations=4).advantages) != [0.0] * 4
    with pytest.raises(ConfigError, match="names the channel 'team/"):
        rvpo.Aggregator(method, ["team", "len"][1:])


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        ({"team/q": 0.5}, SLASHES, {"team/q/tone": 0.5, "len": 1.0}),
        ({"team/q/tone": 0.25, "team/q": 0.5}, SLASHES, {"team/q/tone": 0.25, "len": 1.0}),
        ({"team": 0.5}, ["team", "team/q", "len"], {"team": 0.5, "team/q/tone": 1.0, "len": 1.0}),
    ],
)
def test_reliabilities_name_channels_with_slashes(given: dict[str, float], names: list[str], expected: Any):
    agg = rvpo.Aggregator("gdpo", names, reliability=Reliability(given))
    rewards = torch.rand(4, len(names), generator=torch.Generator().manual_seed(0)).double()
    out = agg(rewards, num_generations=4, families=[family([0, 1, 0, 1], "tone", name="team/q")])
    for name, trust in expected.items():
        assert out.metrics[f"rvpo/{name}/reliability"] == trust


def test_a_function_is_not_the_owner_of_another_whose_name_begins_like_its_own():
    agg = rvpo.Aggregator("gdpo", ["a", "a/b"], reliability=Reliability({"a": 0.5}))
    out = agg(torch.rand(4, 2).double(), num_generations=4)
    assert (out.metrics["rvpo/a/reliability"], out.metrics["rvpo/a/b/reliability"]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ranges": {"q/tome": (1, 10)}}, "ranges names 'q/tome'"),
        ({"method": "lagrangian:thresholds={q/style:0.5}"}, "lagrangian names 'q/style'"),  # never a first label
        ({"reliability": Reliability({"q/tome": 0.5})}, "reliability names 'q/tome'"),
        ({"ranges": {"q/tone": (1, 10)}}, None),
    ],
)
def test_a_named_label_that_never_comes_is_mentioned_once(options: Any, told: str | None, caplog: Any):
    agg = rvpo.Aggregator(**({"method": "lift", "names": ["q"]} | options))
    marks = MARKS[0] * 64
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        for _ in range(4):
            KINDS["a label"][0](agg, marks)
    assert caplog.text.count("has such a channel") == (told is not None)
    assert told is None or f"{told}, but none of the first 512 completions" in caplog.text


# --- a resumed run ----------------------------------------------------------------------------------------------------


def state(ranges: Any, method: str = "lift") -> dict[str, Any]:
    agg = rvpo.Aggregator(method, ["q", "len"], ranges=ranges)
    agg(torch.rand(4, 2).double(), num_generations=4, families=[family(MARKS[0], "tone")])
    return agg.state_dict()


CHANGES = [
    ({"len": (0, 1)}, {"len": (0, 9)}, r"the range of 'len' was \[0, 1\] and is \[0, 9\] now"),
    (None, {"len": (0, 9)}, r"the range of 'len' was not declared and is \[0, 9\] now"),
    ({"q": (1, 10)}, None, r"the range of 'q' was \[1, 10\] and is not declared now"),
    ({"q": (1, 10)}, {"q": (1, 10), "q/tone": (0, 10)}, r"'q/tone' was \[1, 10\] and is \[0, 10\] now"),
]


@pytest.mark.parametrize("method", ["lift", "tchebycheff", "ctwa:target=0.5"])
@pytest.mark.parametrize(("before", "now", "told"), CHANGES)
def test_a_state_in_units_of_other_ranges_is_refused(method: str, before: Any, now: Any, told: str):
    agg = rvpo.Aggregator(method, ["q", "len"], ranges=now)
    with pytest.raises(ConfigError, match=f"{told}.*Build the Aggregator with those"):
        agg.load_state_dict(state(before, method))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"q": (1, 10)}, {"q": (1, 10)}),
        ({"q": (1, 10)}, {"q": (1, 10), "q/tone": (1, 10)}),  # as before, only said twice
        (None, None),
    ],
)
def test_a_state_in_the_same_units_is_taken(before: Any, now: Any):
    old = state(before)
    agg = rvpo.Aggregator("lift", ["q", "len"], ranges=now)
    agg.load_state_dict(old)
    assert agg.state_dict()["remembered"] == old["remembered"]


def test_a_reward_that_is_new_mixes_nothing():
    agg = rvpo.Aggregator("lift", ["q", "len", "new"], ranges={"new": (0, 9)})
    agg.load_state_dict(state(None))


def test_a_method_without_scales_does_not_mind():
    agg = rvpo.Aggregator("rvpo:k=adaptive", ["q", "len"], ranges={"len": (0, 9)})
    agg.load_state_dict(state(None, "rvpo:k=adaptive"))


def test_a_checkpoint_from_before_ranges_were_saved_is_compared_where_it_can_be():
    old = state({"q": (0, 1)})
    del old["ranges"]
    assert list(old["remembered"]["scales"]["q/tone"]["range"]) == [0, 1]  # as every rubric was read then
    with pytest.raises(ConfigError, match=r"'q/tone' was \[0, 1\] and is not declared now"):
        rvpo.Aggregator("lift", ["q", "len"]).load_state_dict(old)


@pytest.mark.parametrize("name", ["q/dose", "q/", "q/a/b"])
def test_a_reward_called_as_a_rubrics_label_is_refused_where_rubrics_are_known(name: str):
    with pytest.raises(ConfigError, match=f"a reward is called '{name}', .* a label of the rubric 'q'.*'q/'"):
        check_rubric_names(["q", name], ["q"])
    check_rubric_names(["q", name], [name])
    check_rubric_names(["q", "qq/a"], ["q"])
