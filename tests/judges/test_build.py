"""From a recipe's words to a judge."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rvpo.errors import ConfigError
from rvpo.judges import MixedJudge, Question, RuleJudge, Verdict, load_judge
from rvpo.judges.build import with_cache, with_processes
from rvpo.judges.build_rewards import rubric_reward
from rvpo.rewards.rubric import Criterion

OWN = """\
from rvpo.judges import Verdict


class Mine:
    def __init__(self, value, prefix=""):
        self.value = value

    async def judge(self, questions):
        return [[Verdict(self.value) for _ in question.criteria] for question in questions]

    async def check(self):
        pass

    def usage(self):
        return {"calls": 1.0}


class NoJudge:
    pass


class Sync(Mine):
    def __init__(self):
        pass

    def judge(self, questions):
        return []
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "judges.py"
    path.write_text(OWN)
    return path


def verdicts(judge: object, *criteria: Criterion) -> list[Verdict]:
    return asyncio.run(judge.judge([Question("p", "hello", criteria)]))[0]


def test_rules_go_to_the_rule_judge_whatever_the_judge(own: Path):
    judge = load_judge({"kind": f"{own}:Mine", "value": 0.25})
    ruled = Criterion("a", "Says hello.", rule={"contains_any": "hello"})
    assert verdicts(judge, Criterion("b", "Is kind."), ruled) == [Verdict(0.25), Verdict(1.0)]
    assert judge.usage()["calls"] == 1


def test_several_judges(own: Path):
    judge = load_judge(
        {
            "kind": "mixed",
            "default": "soft",
            "judges": {"soft": {"kind": f"{own}:Mine", "value": 1.0}, "hard": {"kind": f"{own}:Mine", "value": 0.0}},
        }
    )
    assert isinstance(judge, MixedJudge)
    assert [v.value for v in verdicts(judge, Criterion("a", "x"), Criterion("b", "y", judge="hard"))] == [1.0, 0.0]


def test_short_forms(tmp_path: Path, own: Path):
    assert isinstance(load_judge("rule"), RuleJudge)
    path = tmp_path / "judge.yaml"
    path.write_text(f"judge: {{kind: '{own}:Mine', value: 0.5}}\n")
    assert verdicts(load_judge(str(path)), Criterion("a", "x"))[0].value == 0.5
    path.write_text(f"kind: '{own}:Mine'\nvalue: 25e-2\n")
    assert verdicts(load_judge(str(path)), Criterion("a", "x"))[0].value == 0.25, "YAML 1.1 reads 25e-2 as text"
    path.write_text(f"kind: '{own}:Mine'\nvalue: 0.5\nvalue: 1.0\n")
    with pytest.raises(ConfigError, match=r"cannot be read.*the key 'value' occurs twice, first in line 2"):
        load_judge(str(path))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "ruel"}, "judge.kind is 'ruel'; expected one of endpoint, local, rule, mixed, module:Class"),
        ({}, "expected a mapping with `kind`: endpoint"),
        ([], "expected a mapping with `kind`"),
        ({"kind": "rule", "x": 1}, "judge of kind 'rule' has no option 'x'; it takes none"),
        ({"kind": "endpoint", "model": "m", "api_key": "sk-123"}, "set api_key_env to the name of that variable"),
        ({"kind": "endpoint"}, "needs the option 'model'"),
        ({"kind": "endpoint", "model": "m", "modle": 1}, "has no option 'modle'; it takes model, base_url"),
        ({"kind": "mixed", "judges": {}}, "expected a mapping from names to judges"),
        ({"kind": "mixed", "judges": {"a": {"kind": "mixed"}}}, r"judge\.judges\.a is .* that is not mixed"),
        ({"kind": "mixed", "judge": 1}, "has no option 'judge'; it takes judges, default"),
        ({"kind": "mixed", "judges": {"a": {"kind": "rule"}}, "default": "b"}, "default is 'b'; expected"),
        ("http://localhost:8000/v1", r"does not name a model; expected http://localhost:8000/v1#MODEL"),
        ("gpt", "expected rule, local:FOLDER, http://"),
        ("none.yaml", "cannot be read"),
    ],
)
def test_mistakes_are_told(spec: object, message: str):
    with pytest.raises(ConfigError, match=message):
        load_judge(spec)


def test_a_key_in_a_recipe_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        load_judge({"kind": "endpoint", "model": "m", "api_key": "sk-123"})
    assert "sk-123" not in str(caught.value)


def test_a_class_that_is_no_judge(own: Path):
    with pytest.raises(
        ConfigError, match="is a NoJudge without judge, check, usage, async judge, async check; expected"
    ):
        load_judge({"kind": f"{own}:NoJudge"})
    with pytest.raises(ConfigError, match="is a Sync without async judge; expected"):
        load_judge({"kind": f"{own}:Sync"})
    with pytest.raises(ConfigError, match="needs the option 'value'"):
        load_judge({"kind": f"{own}:Mine"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "sum"}, "aggregation is 'sum'; expected one of channels, explicit, implicit"),
        ({"weighting": "point"}, "weighting is 'point'; expected 'uniform', 'points' or"),
        ({"aggregation": "implicit", "weighting": "points"}, "no effect on the implicit score"),
        ({"max_missing": 1.5}, "max_missing is 1.5; expected a share"),
    ],
)
def test_rubric_reward_options(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        rubric_reward("rule", **options)


def test_endpoint_judges_of_a_run_keep_their_verdicts_in_its_folder(tmp_path: Path):
    path = tmp_path / "judge.sqlite"
    endpoint = {"kind": "endpoint", "model": "m"}
    assert with_cache(endpoint, path) == {**endpoint, "cache": str(path)}
    assert with_cache("http://host/v1#m", path) == {**endpoint, "base_url": "http://host/v1", "cache": str(path)}
    own = {**endpoint, "cache": "mine.sqlite"}
    assert with_cache(own, path) == own
    assert with_cache({"kind": "rule"}, path) == {"kind": "rule"}
    mixed = {"kind": "mixed", "judges": {"a": endpoint, "b": {"kind": "rule"}}}
    assert with_cache(mixed, path)["judges"] == {"a": {**endpoint, "cache": str(path)}, "b": {"kind": "rule"}}


def test_endpoint_judges_of_several_processes_share_limits_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    endpoint = {"kind": "endpoint", "model": "m"}
    shared = {**endpoint, "processes": 4, "cache": None}
    assert with_processes(endpoint, 4) == shared
    assert with_processes("http://host/v1#m", 4) == {**shared, "base_url": "http://host/v1"}
    assert with_processes({**endpoint, "processes": 2}, 4) == {**shared, "processes": 2}
    mixed = {"kind": "mixed", "judges": {"a": endpoint, "b": {"kind": "rule"}}}
    assert with_processes(mixed, 4)["judges"] == {"a": shared, "b": {"kind": "rule"}}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert with_processes({**endpoint, "cache": "~/judge.sqlite"}, 4)["cache"] == str(tmp_path / "judge.sqlite")
    with pytest.raises(ConfigError, match=r"judge\.cache is 'judge\.sqlite'; expected an absolute path"):
        with_processes({**endpoint, "cache": "judge.sqlite"}, 4)
