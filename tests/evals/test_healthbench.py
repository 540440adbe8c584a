"""HealthBench as a benchmark: examples, scores, what a missing verdict takes with it, and the aggregates."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rvpo.errors import ConfigError, DataError
from rvpo.evals.healthbench import HealthBench, healthbench
from rvpo.evals.items import Item, Reply, Scored
from rvpo.rewards.rubric import Question, Verdict

SMALL = Path(__file__).parents[2] / "benchmarks" / "evals" / "healthbench_small.jsonl"
SECRET = "sk-recognisable-0123456789"

OWN = """\
from rvpo.judges import Verdict


class Mine:
    def __init__(self, value, token=""):
        self.value = value

    async def judge(self, questions):
        return [[Verdict(self.value) for _ in question.criteria] for question in questions]

    async def check(self):
        pass

    def usage(self):
        return {}
"""


def example(name: str, *criteria: tuple[str, float, list[str]], tags: Sequence[str] = ("theme:a",)) -> dict[str, Any]:
    rubrics = [{"criterion": text, "points": points, "tags": labels} for text, points, labels in criteria]
    prompt = [{"role": "user", "content": f"Question of {name}?"}]
    return {"prompt_id": name, "prompt": prompt, "rubrics": rubrics, "example_tags": list(tags), "other": None}


EXAMPLES = [
    example(
        "one",
        ("met: right", 5, ["axis:accuracy", "level:example"]),
        ("not: complete", 3, ["axis:completeness", "level:cluster", "cluster:x"]),
        ("met: rude", -4, ["axis:communication_quality", "level:example"]),
        tags=["theme:a", "physician_agreed_category:sure"],
    ),
    example(
        "two",
        ("met: right", 2, ["axis:accuracy"]),
        ("met: wrong", -8, ["axis:accuracy"]),
        ("lost: complete", 6, ["axis:completeness"]),
        tags=["theme:b"],
    ),
    example("three", ("met: right", 1.5, ["axis:accuracy"]), ("met: wrong", -6, ["axis:accuracy"]), tags=["theme:b"]),
]


class Recited:
    """Judges by the first word of a criterion's text, and says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.checks = 0

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        self.asked += questions
        words = {"met": Verdict(1.0, None, "So it is."), "not": Verdict(0.0), "lost": Verdict.missing("timeout")}
        return [[words[c.text.partition(":")[0]] for c in question.criteria] for question in questions]

    async def check(self) -> None:
        self.checks += 1

    def usage(self) -> dict[str, float]:
        return {"calls": 3.0, "cost": math.nan}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(examples: Sequence[dict[str, Any]] = EXAMPLES, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in examples))
        return path

    return to_file


def bench(path: Path, judge: Any = None, **options: Any) -> HealthBench:
    return HealthBench(path, judge or Recited(), {"kind": "recited"}, **options)


def score(benchmark: HealthBench, text: str = "A reply.") -> list[tuple[Item, Scored]]:
    items = benchmark.items()
    return list(zip(items, asyncio.run(benchmark.score([(item, Reply(text)) for item in items])), strict=True))


def test_items_are_the_examples(write: Callable[..., Path]):
    one, two, _ = bench(write()).items()
    assert one.id == "one"
    assert one.epoch == 0
    assert one.tools == ()
    assert one.messages == ({"role": "user", "content": "Question of one?"},)
    assert one.labels == {"theme": "a", "physician_agreed_category": "sure"}
    assert two.labels == {"theme": "b"}


def test_scores_by_hand(write: Callable[..., Path]):
    one, two, three = (scored for _, scored in score(bench(write())))
    overall = (5 - 4) / (5 + 3)
    assert one.scores == {
        "score": overall,
        "theme:a": overall,
        "physician_agreed_category:sure": overall,
        "axis:accuracy": 5 / 5,
        "level:example": (5 - 4) / 5,
        "axis:completeness": 0 / 3,
        "level:cluster": 0 / 3,
        "cluster:x": 0 / 3,
    }, "axis:communication_quality has no positive points, so it is no metric"
    assert one.reasons == {}
    # A verdict of the second is missing: what needs it is missing, the rest stands, unclipped.
    assert two.scores == {"score": None, "theme:b": None, "axis:accuracy": (2 - 8) / 2, "axis:completeness": None}
    assert two.reasons == {"score": "timeout", "theme:b": "timeout", "axis:completeness": "timeout"}
    assert three.scores == dict.fromkeys(("score", "theme:b", "axis:accuracy"), (1.5 - 6) / 1.5)
    assert one.details["verdicts"][2] == {
        "id": "c2",
        "text": "met: rude",
        "points": -4.0,
        "value": 1.0,
        "reason": None,
        "explanation": "So it is.",
    }
    assert two.details["verdicts"][2]["reason"] == "timeout"


def test_metrics_are_known_without_a_reply(write: Callable[..., Path]):
    benchmark = bench(write())
    for item, scored in score(benchmark):
        assert list(benchmark.metrics(item)) == list(scored.scores)


def test_the_judge_reads_the_conversation_and_is_checked_once(write: Callable[..., Path]):
    judge = Recited()
    benchmark = bench(write(), judge)
    score(benchmark, "Ünïcode.")
    score(benchmark, "Again.")
    assert judge.checks == 1
    question = judge.asked[0]
    assert (list(question.prompt), question.completion) == (EXAMPLES[0]["prompt"], "Ünïcode.")
    assert [criterion.text for criterion in question.criteria] == ["met: right", "not: complete", "met: rude"]


def test_a_tag_of_example_and_criteria_tells_the_criteria(write: Callable[..., Path]):
    criteria = ("met: a", 1, ["x:both", "x:bad"]), ("not: b", 3, []), ("met: c", -1, ["x:bad2"])
    [(item, scored)] = score(bench(write([example("e", *criteria, tags=["x:both", "x:bad2"])])))
    overall = (1 - 1) / 4
    assert scored.scores == {"score": overall, "x:both": 1.0, "x:bad": 1.0, "x:bad2": overall}
    assert item.labels == {"x": "both, bad2"}


def test_summary_is_the_references_aggregates(write: Callable[..., Path]):
    benchmark = bench(write())
    scored = score(benchmark)
    missing = (Item("four", ()), Scored.missing(("score", "theme:a"), "reply: timeout"))
    summary = benchmark.summary([*scored, missing])
    json.dumps(summary, allow_nan=False)
    values = [1 / 8, -3.0]  # of the examples that have one
    draws = np.random.RandomState(0)
    means = [min(max(float(np.mean(draws.choice(values, 2))), 0.0), 1.0) for _ in range(1000)]
    assert summary["aggregates"]["score"] == {
        "mean": 0.0,  # (1/8 - 3) / 2, clipped
        "n_samples": 2,
        "bootstrap_std": pytest.approx(np.std(means), abs=1e-15),
        "missing": 2,
    }
    assert summary["aggregates"]["axis:accuracy"]["mean"] == 0.0  # (1 - 3 - 3) / 3, clipped
    assert summary["aggregates"]["axis:completeness"] == {
        "mean": 0.0, "n_samples": 1, "bootstrap_std": 0.0, "missing": 1,
    }  # fmt: skip
    assert summary["verdicts"] == {
        "criteria": 8, "missing": 1, "missing_share": 1 / 8, "met_share": 6 / 7, "reasons": {"timeout": 1},
    }  # fmt: skip
    assert summary["judge"] == {"calls": 3.0, "cost": None}
    assert summary["grader"] == "rvpo"
    nothing = benchmark.summary([missing])
    assert nothing["aggregates"]["score"] is None
    assert nothing["verdicts"]["missing_share"] is None


@pytest.mark.parametrize("limit", [1, 7, 19])
def test_a_limit_draws_as_the_reference_does(write: Callable[..., Path], limit: int):
    names = [f"e{i}" for i in range(20)]
    path = write([example(name, ("met: a", 1, [])) for name in names])
    drawn = [item.id for item in bench(path, limit=limit).items()]
    assert drawn == random.Random(0).sample(names, limit)
    assert [item.id for item in bench(path, limit=20).items()] == names, "all of them: nothing is drawn"


def test_settings_tell_data_and_judge(write: Callable[..., Path]):
    settings = bench(write()).settings()
    assert settings["judge"] == {"kind": "recited"}
    assert settings["subset"] == "full"
    assert bench(write(name="renamed.jsonl")).settings() == settings
    for place, value in (("criterion", "met: righter"), ("points", 6), ("tags", ["axis:other"])):
        changed = json.loads(json.dumps(EXAMPLES))
        changed[0]["rubrics"][0][place] = value
        assert bench(write(changed)).settings()["data"] != settings["data"]
    assert bench(write(EXAMPLES[::-1])).settings()["data"] != settings["data"]
    assert bench(write(), limit=2).settings()["data"] != settings["data"]
    assert bench(write(), subset="hard").name == "healthbench_hard"


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([EXAMPLES[0], EXAMPLES[0]], r"row 1: saw the prompt_id 'one' a second time"),
        ([example("e", ("met: a", -1, []))], r"row 0: saw no criterion with positive points"),
        ([example("e", ("met: a", 1, ["t", "t"]))], r"row 0: saw the tags \['t', 't'\]; expected each once"),
        ([example("e", ("met: a", 1, []), tags=["theme:a", "theme:a"])], r"expected each once"),
        ([example("e", ("met: a", 1, ["score"]))], r"none called 'score'"),
        ([{"prompt": "q", "criteria": []}], r"field 'rubrics'"),
    ],
)
def test_data_that_cannot_be_scored(write: Callable[..., Path], examples: list[dict[str, Any]], message: str):
    with pytest.raises(DataError, match=message):
        bench(write(examples)).items()


@pytest.mark.parametrize("options", [{"subset": "easy"}, {"limit": 0}, {"limit": True}])
def test_options_that_cannot_work(options: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"expected .*next step"):
        bench(Path("data.jsonl"), **options)


def test_the_short_form_of_a_server_is_the_references_grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    benchmark = healthbench(SMALL, "http://localhost:1/v1#small", tmp_path, limit=3)
    settings = benchmark.settings()
    assert (settings["grader"], settings["judge"]["ask"], settings["judge"]["model"]) == (
        "simple-evals",
        "healthbench",
        "small",
    )
    assert (tmp_path / "judge.sqlite").exists()
    assert len(benchmark.items()) == 3
    spec = {"kind": "endpoint", "model": "small", "base_url": "http://localhost:1/v1", "extra_body": {"key": SECRET}}
    as_told = healthbench(SMALL, spec, tmp_path).settings()
    assert (as_told["grader"], as_told["judge"]["ask"]) == ("rvpo", "criterion")
    assert SECRET not in json.dumps([settings, as_told])


def test_any_judge_will_do_and_is_named(tmp_path: Path):
    (tmp_path / "own.py").write_text(OWN)
    benchmark = healthbench(SMALL, {"kind": f"{tmp_path}/own.py:Mine", "value": 0.5, "token": SECRET}, tmp_path)
    assert SECRET not in json.dumps(benchmark.settings())
    assert benchmark.settings()["judge"]["kind"].endswith("own.py:Mine")
    assert benchmark.grader == "rvpo"
    for item, scored in score(benchmark):
        [row] = [row for row in map(json.loads, SMALL.read_text().splitlines()) if row["prompt_id"] == item.id]
        points = [rubric["points"] for rubric in row["rubrics"]]
        assert scored.scores["score"] == sum(points) * 0.5 / sum(p for p in points if p > 0)


def test_the_small_file_has_the_layout_of_the_large_one():
    rows = [json.loads(line) for line in SMALL.read_text().splitlines()]
    items = bench(SMALL).items()
    assert len(items) == len(rows) == 12
    tags = {tag for row in rows for rubric in row["rubrics"] for tag in rubric["tags"]}
    axes = ("accuracy", "completeness", "communication_quality", "context_awareness", "instruction_following")
    assert {tag for tag in tags if tag.startswith("axis:")} == {f"axis:{name}" for name in axes}
    assert {"level:example", "level:cluster"} < tags
    assert {len(row["prompt"]) for row in rows} == {1, 3}
    assert all(min(rubric["points"] for rubric in row["rubrics"]) < 0 for row in rows)
