"""Our rewards and judges as verl's reward function: the same values as in TRL, missing ones, mistakes, many workers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from omegaconf import OmegaConf
from reward_worker import Worker
from verl import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn

import rvpo
from fault_server import FaultServer, degree, preference
from rvpo.core.ragged import Score
from rvpo.engines.verl import wire
from rvpo.engines.verl.judge_totals import JudgeTotals
from rvpo.engines.verl.node_cache import verdicts_of
from rvpo.engines.verl.rewards import VALIDATION, check_rewards, compute_score, read_rewards
from rvpo.engines.verl.rows import read_again, read_channels, read_texts
from rvpo.errors import ConfigError, JudgeError, RewardError
from rvpo.importing import load_object
from rvpo.rewards.pairwise import QUESTION
from rvpo.rewards.rubric import Criterion, Rubric
from rvpo.rewards.toolcall import correctness_reward, format_reward
from rvpo.step.trust import Reliability, Trust

REFERENCE = '<think> So. </think>\n<tool_call>\n{"name": "tide", "parameters": {"day": 1}}\n</tool_call>'
OTHER_DAY = REFERENCE.replace("1", "2")

REWARDS = '''
"""Reward functions of a user."""
import asyncio, threading
from rvpo.rewards.rubric import Verdict

built = []
released = threading.Event()

def words(completions, **_):
    return [float(len(completion[0]["content"].split())) for completion in completions]

async def dear(completions, price, **_):
    await asyncio.sleep(0)
    return [None if p is None else -float(p) for p in price]

def asks(prompts, completions, **_):
    return [float(len(prompt)) for prompt in prompts]

def refuses(completions, **_):
    raise KeyError("no such table")

def endless(completions, **_):
    return [float("inf")]

def two(completions, **_):
    return [1.0, 2.0]

def waits(completions, **_):
    return [float(released.wait(20))]

async def releases(completions, **_):
    released.set()
    return [1.0]

class Judge:
    """A criterion is met by texts that hold its last word; those about the weather nobody can decide."""

    def __init__(self):
        built.append(self)

    async def judge(self, questions):
        await asyncio.sleep(0.001 * (hash(questions[0].completion) % 7))
        return [[self.verdict(c.text, q.completion) for c in q.criteria] for q in questions]

    def verdict(self, criterion, completion):
        if "weather" in criterion:
            return Verdict.missing("refused")
        return Verdict(float(criterion.split()[-1] in completion))

    async def check(self): ...

    def usage(self):
        return {}
'''


@pytest.fixture
def user(tmp_path: Path) -> str:
    """Return the path of a file with reward functions."""
    path = tmp_path / "rewards_of_a_user.py"
    path.write_text(REWARDS, encoding="utf-8")
    return str(path)


def rubric(*words: str) -> str:
    return Rubric(tuple(Criterion(word, f"Speaks of {word}", category="topic") for word in words)).to_json()


def extra(prompt: Any = "Hello", **columns: Any) -> dict[str, Any]:
    return {"index": 0, "split": "train", "prompt": json.dumps(prompt), "columns": json.dumps(columns)}


def score(rewards: list[Any], text: str = "some words", ground_truth: Any = "", extra_info: Any = None, **kwargs: Any):
    info = extra() if extra_info is None else extra_info
    return asyncio.run(compute_score("data", text, ground_truth, info, rewards=rewards, **kwargs))


def error(result: dict[str, Any]) -> str:
    """Return what the trainer will stop with."""
    assert math.isnan(result["score"])
    with pytest.raises(RewardError) as caught:
        wire.parse(result[wire.KEY])
    return str(caught.value)


# --- the text between worker and trainer ------------------------------------------------------------------------------


def test_channels_arrive_as_they_were_sent():
    families = {
        "rubric": [
            Score("dose", 1.0, labels=("essential", "axis:accuracy"), text="States the dose. ü"),
            Score("tone", None, weight=0.25, reason="timeout", judge="small", detail='"no" \x00'),
        ],
        "empty": [],
    }
    text = wire.write(families)
    assert wire.parse(text).channels == families
    assert json.loads(text, parse_constant=pytest.fail)["rubric"][0] == {
        "name": "dose",
        "value": 1.0,
        "labels": ["essential", "axis:accuracy"],
        "text": "States the dose. ü",
    }


def test_what_is_no_number_is_null_and_what_is_infinite_is_refused():
    assert wire.parse(wire.write({"r": [Score("a", math.nan)]})).channels == {"r": [Score("a", None)]}
    with pytest.raises(RewardError, match=r"r\.0\.value: got inf; expected a finite number or null"):
        wire.write({"r": [Score("a", math.inf)]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "got NoneType None; expected a JSON text"),
        ("", "expected JSON"),
        ("[" * 100_000, "recursion"),
        ('{"r":' * 100_000, "recursion"),
        ("9" * 10_000, "digits"),
        ("[]", "got []; expected an object of reward functions"),
        ('{"r": 1}', "r: got 1; expected a list of scores"),
        ('{"r": [1]}', "r.0: got 1; expected an object with name and value"),
        ('{"r": [{"name": "a"}]}', "expected an object with name and value"),
        ('{"r": [{"name": 1, "value": 1}]}', "r.0.name: got 1; expected a text"),
        ('{"r": [{"name": "a", "value": NaN}]}', "NaN is not JSON"),
        ('{"r": [{"name": "a", "value": 1e999}]}', "r.0.value: got inf"),
        ('{"r": [{"name": "a", "value": ' + "9" * 400 + "}]}", "expected a finite number or null"),
        ('{"r": [{"name": "a", "value": true}]}', "r.0.value: got True"),
        ('{"r": [{"name": "a", "value": "1"}]}', "r.0.value: got '1'"),
        ('{"r": [{"name": "a", "value": 1, "weight": -1}]}', "r.0.weight: got -1; expected a finite number of at"),
        ('{"r": [{"name": "a", "value": 1, "labels": "x"}]}', "r.0.labels: got 'x'; expected a list of texts"),
        ('{"r": [{"name": "a", "value": 1, "reward": 1}]}', "r.0.reward: got an unknown field; expected name, value"),
        ('{"r": [{"name": "a", "value": 1}, {"name": "a", "value": 0}]}', "r.1.name: got 'a'; expected a name that"),
        ('{"r": [], "r": []}', "occurs twice"),
    ],
)
def test_a_text_that_nobody_wrote_is_refused(text: Any, message: str):
    with pytest.raises(RewardError, match="channels of a completion") as caught:
        wire.parse(text)
    assert message in str(caught.value)


# --- single rewards ---------------------------------------------------------------------------------------------------


def test_the_score_is_the_weighted_sum(user: str):
    """2 * 2 words + 0.5 * -3 = 2.5."""
    rewards = [{"function": f"{user}:words", "weight": 2.0}, {"function": f"{user}:dear", "weight": 0.5}]
    assert score(rewards, extra_info=extra(price=3)) == {"score": 2.5, "words": 2.0, "dear": -3.0}


def test_what_is_missing_is_none_and_the_others_stand_in_for_it(user: str):
    """2 * 2 words, at 2 of 2.5 of the weight: 4 * 2.5 / 2 = 5."""
    rewards = [{"function": f"{user}:words", "weight": 2.0}, {"function": f"{user}:dear", "weight": 0.5}]
    assert score(rewards, extra_info=extra(price=None)) == {"score": 5.0, "words": 2.0, "dear": None}
    result = score([f"{user}:dear"], extra_info=extra(price=None))
    assert math.isnan(result["score"])
    assert result["dear"] is None


def test_a_weight_of_zero_counts_for_nothing(user: str):
    rewards = [{"function": f"{user}:words", "weight": 0}, {"function": f"{user}:dear", "name": "cost"}]
    assert score(rewards, extra_info=extra(price=1)) == {"score": -1.0, "words": 2.0, "cost": -1.0}
    assert math.isnan(score([{"function": f"{user}:words", "weight": 0}])["score"])


@pytest.mark.parametrize("reply", [REFERENCE, OTHER_DAY, "no tags", "", REFERENCE + "x"])
def test_tool_rewards_are_those_of_trl(reply: str):
    """TRL hands over lists of chats; verl one text, with the answer as ground truth."""
    chat, answer = [[{"role": "assistant", "content": reply}]], [REFERENCE]
    [good], [laid_out] = correctness_reward(chat, answer), format_reward(chat, answer)
    result = score(["correctness", "format"], reply, REFERENCE)
    assert result == {"score": good + laid_out, "correctness_reward": good, "format_reward": laid_out}


def test_columns_may_stand_in_extra_info_itself(user: str):
    """As in data that were not made by us; a column ``answer`` wins over the ground truth."""
    assert score([f"{user}:dear"], extra_info={"price": 4, "num_turns": None})["dear"] == -4.0
    assert score(["format"], REFERENCE, "other", {"answer": REFERENCE})["format_reward"] == 1.0


def test_a_prompt_that_was_not_written_by_us_is_text(user: str):
    assert score([f"{user}:asks"], extra_info={"prompt": "Hello"})["asks"] == 5.0
    assert score([f"{user}:asks"], extra_info=extra([{"role": "user", "content": "Hello"}]))["asks"] == 1.0


def test_a_function_that_blocks_does_not_stop_the_others(user: str):
    """The first one waits until the second has run."""
    result = score([f"{user}:waits", f"{user}:releases"])
    assert (result["waits"], result["releases"]) == (1.0, 1.0)


# --- rubrics ----------------------------------------------------------------------------------------------------------


def judged(user: str, **options: Any) -> dict[str, Any]:
    return {"function": "rubric", "options": {"judge": {"kind": f"{user}:Judge"}, **options}}


def test_each_criterion_is_a_channel(user: str):
    result = score([judged(user), f"{user}:words"], "sun and rain", extra_info=extra(rubric=rubric("sun", "snow")))
    assert wire.parse(result["rvpo"]).channels == {
        "rubric": [
            Score("sun", 1.0, labels=("topic",), text="Speaks of sun"),
            Score("snow", 0.0, labels=("topic",), text="Speaks of snow"),
        ]
    }
    assert (result["score"], result["words"]) == (0.5 + 3.0, 3.0)
    assert set(result) == {"score", "words", "rvpo"}


def test_a_missing_verdict_is_null_with_its_reason(user: str):
    result = score([judged(user)], "sun", extra_info=extra(rubric=rubric("sun", "weather")))
    [sun, weather] = wire.parse(result["rvpo"]).channels["rubric"]
    assert (sun.value, weather.value, weather.reason) == (1.0, None, "refused")
    assert result["score"] == 1.0
    assert math.isnan(score([judged(user)], "sun", extra_info=extra(rubric=rubric("weather")))["score"])


def test_a_prompt_without_rubric_has_no_channels(user: str):
    result = score([judged(user)], extra_info=extra(rubric=None))
    assert wire.parse(result["rvpo"]).channels == {"rubric": []}


def test_a_single_rubric_reward_is_a_number(user: str):
    result = score([judged(user, aggregation="explicit")], "sun", extra_info=extra(rubric=rubric("sun", "snow")))
    told = wire.parse(result.pop("rvpo"))
    assert result == {"score": 0.5, "rubric": 0.5}
    assert [score.value for score in told.monitored["rubric"]] == [1.0, 0.0]


def test_overlapping_calls_share_one_judge_and_keep_their_own_verdicts(user: str):
    words = ["sun", "snow", "rain", "wind"]

    async def many() -> list[Any]:
        infos = [extra(rubric=rubric(*words[: 1 + i % 4])) for i in range(64)]
        calls = [
            compute_score("data", words[i // 4 % 4], "", info, rewards=[judged(user)]) for i, info in enumerate(infos)
        ]
        return await asyncio.gather(*calls)

    for i, result in enumerate(asyncio.run(many())):
        scores = wire.parse(result["rvpo"]).channels["rubric"]
        assert [(s.channel, s.value) for s in scores] == [
            (word, float(word == words[i // 4 % 4])) for word in words[: 1 + i % 4]
        ]
    assert len(load_object(f"{user}:built", "list of judges")) == 1, "the file is imported once per process"


@pytest.mark.parametrize("truth", [["5", "five"], np.array(["5", "five"]), np.array([["a"], ["b"]])])
def test_a_ground_truth_that_is_a_list_is_the_answer(tmp_path: Path, truth: Any):
    code = "def known(completions, answer, **_):\n    return [float(isinstance(answer[0], list) and len(answer[0]))]\n"
    (tmp_path / "r.py").write_text(code)
    assert score([f"{tmp_path}/r.py:known"], ground_truth=truth)["known"] == 2.0


@pytest.mark.parametrize("truth", ["", None])
def test_without_a_ground_truth_there_is_no_answer(user: str, truth: Any, tmp_path: Path):
    (tmp_path / "r.py").write_text("def known(completions, answer, **_):\n    return [1.0]\n")
    assert "needs the column 'answer'" in error(score([f"{tmp_path}/r.py:known"], ground_truth=truth))


# --- mistakes of the run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("refuses", "reward 'refuses' failed: KeyError: 'no such table'"),
        ("endless", "reward 'endless' is inf; expected a finite number"),
        ("two", "reward 'two' returned [1.0, 2.0] for one completion; expected a list of one number"),
        (
            "dear",
            "reward 'dear' needs the column 'price'; the row has ['data_source', 'ground_truth', 'index', 'split']",
        ),
    ],
)
def test_a_reward_function_that_fails_stops_the_trainer(user: str, function: str, message: str):
    assert message in error(score([f"{user}:words", f"{user}:{function}"]))


def test_a_judge_without_the_prompt_is_a_mistake(user: str):
    assert "reward 'rubric' needs the prompt" in error(score([judged(user)], extra_info={"rubric": rubric("sun")}))


def test_a_malformed_row_is_a_mistake(user: str):
    assert "extra_info.columns is '[1]'" in error(score([f"{user}:words"], extra_info={"columns": "[1]"}))
    told = error(score([judged(user)], extra_info=extra(rubric="{}")))
    assert "DataError" in told


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "reward_kwargs.rewards is None; expected a list of at least one reward"),
        ({"rewards": []}, "expected a list of at least one reward"),
        ({"rewards": "format"}, "expected a list of at least one reward"),
        ({"rewards": ["format"], "num_worker": 2}, "did you mean 'num_workers'?"),
        (
            {"rewards": [{"function": "format", "name": "judge_totals"}]},
            "rewards.0 is called 'judge_totals', as verl is",
        ),
        ({"rewards": ["format"], "num_workers": 0}, "Write ${reward.num_workers}"),
        ({"rewards": ["format", "format"]}, "rewards.1 is called 'format_reward', as another reward is"),
        ({"rewards": [{"function": "format", "name": "score"}]}, "rewards.0 is called 'score', as verl is"),
        ({"rewards": [{"function": "format", "weight": -1}]}, "rewards.0.weight: Input should be greater than or"),
        ({"rewards": [{"function": "format", "wieght": 1}]}, "the keys of a reward are function, name, weight"),
        ({"rewards": [1]}, "reward_kwargs.rewards.0"),
        ({"rewards": ["formt"]}, "reward is 'formt' (did you mean 'format'?); expected a built-in name"),
        ({"rewards": ["rvpo.rewards.rubric:RubricReward"]}, "expected a `name` for its channel"),
    ],
)
def test_rewards_that_cannot_work(kwargs: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        read_rewards(kwargs)
    assert message in str(caught.value)
    told = error(asyncio.run(compute_score("data", "text", "", extra(), **kwargs)))
    assert message in told


def test_rewards_are_read_without_building_them():
    entries = read_rewards({"rewards": ["correctness", {"function": "rubric", "options": {"judge": "no such judge"}}]})
    assert [(entry.name, entry.range, entry.weight) for entry in entries] == [
        ("correctness_reward", (-3.0, 3.0), 1.0),
        ("rubric", None, 1.0),
    ]


def test_a_relative_cache_is_refused():
    judge = {"kind": "endpoint", "model": "m", "base_url": "http://localhost:1/v1", "cache": "judge.sqlite"}
    rewards = [{"function": "rubric", "options": {"judge": judge}}]
    told = error(score(rewards, extra_info=extra(rubric=rubric("sun"))))
    assert "judge.cache is 'judge.sqlite'; expected an absolute path" in told


# --- many workers -----------------------------------------------------------------------------------------------------


def test_the_judges_limits_hold_over_all_workers():
    """8 calls in flight over 4 workers: 2 each, and the server holds them until both are there."""

    async def run(server: FaultServer) -> dict[str, Any]:
        judge = {"kind": "endpoint", "model": server.model, "base_url": server.url, "concurrency": 8}
        rewards = [{"function": "rubric", "options": {"judge": judge}}]
        info = extra(rubric=rubric("sun", "snow", "rain", "wind", "ice"))
        scored = asyncio.create_task(compute_score("data", "text", "", info, rewards=rewards, num_workers=4))
        async with asyncio.timeout(60):
            while server.in_flight < 2:
                await asyncio.sleep(0.01)
        server.hold = False
        return await scored

    with FaultServer() as server:
        server.hold = True
        result = asyncio.run(run(server))
        assert server.max_in_flight == 2
    assert [s.value for s in wire.parse(result["rvpo"]).channels["rubric"]] == [
        float(degree("text", f"Speaks of {word}") >= 0.5) for word in ("sun", "snow", "rain", "wind", "ice")
    ]


def verl_config(reward_kwargs: dict[str, Any]) -> Any:
    function = {
        "path": "pkg://rvpo.engines.verl.rewards",
        "name": "compute_score",
        "reward_kwargs": {"num_workers": "${reward.num_workers}", **reward_kwargs},
    }
    manager = {"source": "register", "name": "naive"}
    return OmegaConf.create(
        {"reward": {"num_workers": 2, "custom_reward_function": function, "reward_manager": manager}}
    )


def as_batch(text: str, ground_truth: str, extra_info: dict[str, Any]) -> DataProto:
    """Return one completion as verl's agent loop sends it to a reward worker."""
    ids = torch.tensor([[ord(letter) for letter in text]])
    fields = {
        "data_source": "data",
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": extra_info,
        "tool_extra_fields": {"turn_scores": [], "tool_rewards": []},
    }
    return DataProto.from_dict(
        {"responses": ids, "attention_mask": torch.ones_like(ids)},
        non_tensors={key: np.array([value], dtype=object) for key, value in fields.items()},
    )


def test_verl_awaits_the_function():
    function = get_custom_reward_fn(verl_config({"rewards": ["format"]}))
    assert inspect.iscoroutinefunction(function)


def start_workers(config: Any) -> list[Any]:
    """Start two processes with verl's own reward manager."""

    worker = ray.remote(Worker)
    return [worker.remote(config) for _ in range(2)]


def in_turn(workers: list[Any], batches: list[DataProto]) -> list[dict[str, Any]]:
    return ray.get([workers[i % 2].score.remote(batch) for i, batch in enumerate(batches)])


@pytest.fixture
def cluster() -> Iterator[None]:
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    yield
    ray.shutdown()


def test_rewards_of_verls_tools_are_channels():
    """Through verl's own reward manager, which hands on what its tool agent noted."""
    rewards = [
        {"function": "turns", "name": "tools", "options": {"combine": "sum", "source": "tool_rewards"}},
        {"function": "turns", "name": "second", "options": {"combine": 2, "source": "tool_rewards"}},
    ]
    for given, expected in (([0.5, 1.0], (1.5, 1.0)), ([0.5], (0.5, None)), ([], (0.0, None))):
        batch = as_batch("a reply", "an answer", extra())
        batch.non_tensor_batch["tool_extra_fields"][0]["tool_rewards"] = given
        info = asyncio.run(Worker(verl_config({"rewards": rewards})).score(batch))["reward_extra_info"]
        assert (info["tools"], info["second"]) == expected
    mistyped = [{"function": "turns", "name": "tools", "options": {"combine": "sum", "source": "tool_reward"}}]
    assert "neither a column nor an environment has it" in error(score(mistyped))


def without_totals(info: dict[str, Any]) -> dict[str, Any]:
    """Leave out the running totals of the worker's judges, which grow with each call."""
    scores = json.loads(info["rvpo"])
    del scores["judge_totals"]
    return {**info, "rvpo": scores}


def test_workers_of_verl_share_a_judge_and_its_cache(cluster: None, tmp_path: Path):
    """Two processes, 12 completions of 5 and 2 criteria, then the same again: every verdict is paid for once."""
    cache = str(tmp_path / "folder" / "judge.sqlite")
    rubrics = [rubric("sun", "snow", "rain", "wind", "ice"), rubric("sea", "land")]
    texts = [f"reply {i}" for i in range(12)]
    batches = [as_batch(text, "an answer", extra(rubric=rubrics[i % 2])) for i, text in enumerate(texts)]
    with FaultServer() as server:
        judge = {"kind": "endpoint", "model": server.model, "base_url": server.url, "cache": cache}
        config = verl_config({"rewards": [{"function": "rubric", "options": {"judge": judge}}, "length"]})
        workers = start_workers(config)
        first = in_turn(workers, batches)
        second = in_turn(workers, batches[::-1])[::-1]  # each completion by the other worker
        assert sum(server.answered.values()) == 6 * 5 + 6 * 2
    totals = JudgeTotals()
    totals.note(wire.parse(result["reward_extra_info"]["rvpo"]) for result in [*first, *second])
    judged = totals.metrics()
    assert judged["rvpo/rubric/judge/verdicts"] == 2 * 42
    assert judged["rvpo/rubric/judge/calls"] == judged["rvpo/rubric/judge/cache_hits"] == 42
    for i, (result, again) in enumerate(zip(first, second, strict=True)):
        info = result["reward_extra_info"]
        assert without_totals(again["reward_extra_info"]) == without_totals(info)
        scores = wire.parse(info["rvpo"]).channels["rubric"]
        assert all(s.reason is None for s in scores)
        values = [float(degree(texts[i], s.text) >= 0.5) for s in scores]
        assert [s.value for s in scores] == values
        assert len(values) == (5, 2)[i % 2]
        assert info["length_reward"] == 0.0
        assert result["reward_score"] == pytest.approx(sum(values) / len(values))


WORKER = """
import asyncio, json, sys
from rvpo.engines.verl.rewards import compute_score
kwargs, info, count = json.loads(sys.argv[1])
async def all_of_them():
    return await asyncio.gather(*(compute_score("d", f"reply {i}", "", dict(info), **kwargs) for i in range(count)))
print(json.dumps([result["rvpo"] for result in asyncio.run(all_of_them())]))
"""


def test_workers_that_are_asked_the_same_at_the_same_moment_pay_once_and_their_totals_add_up(tmp_path: Path):
    """No cache is named, so the workers of the node share one of their own choice; a fifth of the answers fail."""
    info = extra(rubric=rubric("sun", "snow", "rain", "wind", "ice"))
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1])}
    with FaultServer(fault_rate=0.2, faults=["500", "drop"]) as server:
        judge = {"kind": "endpoint", "model": server.model, "base_url": server.url, "timeout": 300.0}
        rewards = [{"function": "rubric", "options": {"judge": judge}}]
        given = json.dumps([{"rewards": rewards, "num_workers": 2, "run": str(tmp_path)}, info, 6])
        command = [sys.executable, "-c", WORKER, given]
        server.hold = True
        workers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        file = verdicts_of(str(tmp_path))
        while not server.in_flight:
            time.sleep(0.05)
        with contextlib.closing(sqlite3.connect(file)) as database:
            while database.execute("SELECT count(*) FROM askers").fetchone() != (2,):
                time.sleep(0.05)
        server.hold = False
        texts = [wire.parse(text) for worker in workers for text in json.loads(worker.communicate(timeout=600)[0])]
        assert len(server.answered) == 6 * 5
        assert set(server.answered.values()) == {1}
        failed = server.faults_sent.total()
    assert all(s.value is not None for text in texts for s in text.channels["rubric"])
    judges = JudgeTotals()
    judges.note(texts[::-1])
    totals = judges.metrics()
    assert len({text.totals.worker for text in texts if text.totals}) == 2
    assert totals["rvpo/rubric/judge/verdicts"] == 2 * 6 * 5
    assert totals["rvpo/rubric/judge/calls"] == totals["rvpo/rubric/judge/all/calls"]
    assert 6 * 5 <= totals["rvpo/rubric/judge/calls"] <= 6 * 5 + failed
    assert totals["rvpo/rubric/judge/cache_hits"] == 6 * 5
    assert totals["rvpo/rubric/judge/prompt_tokens"] > 0
    assert not [key for key in totals if "missing" in key or "cost" in key]
    assert file.parent.stat().st_mode & 0o077 == 0
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()


def test_later_totals_of_a_worker_count_whatever_the_order():
    def text(worker: str, call: int, **counts: float) -> wire.Message:
        return wire.parse(wire.write({}, totals=wire.Totals(worker, call, {"rubric": counts})))

    judges = JudgeTotals()
    judges.note(
        [text("a", 2, calls=5.0, cost=math.nan), text("a", 1, calls=3.0), text("b", 1, calls=1.0), wire.Message()]
    )
    assert judges.metrics() == {"rvpo/rubric/judge/calls": 6.0}
    judges.note([text("b", 7, calls=4.0, **{"all/calls": 9.0}), text("a", 3, calls=5.0, **{"all/calls": 8.0})])
    assert judges.metrics() == {"rvpo/rubric/judge/calls": 9.0, "rvpo/rubric/judge/all/calls": 9.0}


SAMPLES = """
import random
from rvpo.rewards.rubric import Verdict

def words(completions, **_):
    return [float(len(completion[0]["content"])) for completion in completions]

class Judge:
    \"\"\"The first criterion is decided by the text, the second by chance.\"\"\"

    def __init__(self):
        self.asked = 0

    async def judge(self, questions):
        self.asked += len(questions)
        return [
            [Verdict(float("a" in q.completion)), Verdict(float(random.random() < 0.5))] for q in questions
        ]

    async def check(self): ...

    def usage(self):
        return {"questions": self.asked}
"""


def test_a_share_of_the_completions_is_scored_twice_and_trust_follows(tmp_path: Path):
    (tmp_path / "samples.py").write_text(SAMPLES)
    rewards = [
        {"function": "rubric", "options": {"judge": {"kind": f"{tmp_path}/samples.py:Judge"}}},
        f"{tmp_path}/samples.py:words",
    ]
    info = extra(
        rubric=Rubric(
            (Criterion("sure", "Sure", category="sure"), Criterion("luck", "Luck", category="luck"))
        ).to_json()
    )
    texts = ["".join(letters) for letters in itertools.product("abc", repeat=5)][:240]
    results = [score(rewards, text, extra_info=info, judge_twice=0.5) for text in texts]
    told = read_texts(results)
    twice = [text for text, one in zip(texts, told, strict=True) if one.second]
    assert 80 < len(twice) < 160
    repeated = [
        text
        for text, one in zip(
            texts, read_texts([score(rewards, t, extra_info=info, judge_twice=0.5) for t in texts]), strict=True
        )
        if one.second
    ]
    assert repeated == twice, "the same completions, whichever worker scores them"
    validation = score(rewards, twice[0], extra_info=info | {VALIDATION: True}, judge_twice=0.5)
    assert read_texts([validation])[0].second is None
    names = ["rubric", "words"]
    values, families = read_channels(results, names, groups=[i // 8 for i in range(240)], texts=told)
    again = read_again(told, names, families)
    assert again is not None
    assert len(again.rows) == len(twice)
    torch.testing.assert_close(again.rewards[:, 1], values[again.rows, 1])
    assert again.rewards[:, 0].isnan().all(), "its criteria are the channels"
    trust = Reliability(twice=0.5, trust=Trust(prior=1.0))
    aggregator = rvpo.Aggregator("gdpo", names, reliability=trust)
    aggregator(values, num_generations=8, families=families, again=again)
    shares = aggregator(values, num_generations=8, families=families).metrics
    assert shares["rvpo/rubric/sure/reliability"] > 0.9
    assert shares["rvpo/rubric/luck/reliability"] < 0.4
    assert read_again([wire.Message()], names, []) is None


def test_a_dead_judge_is_found_before_anything_starts(free_port_url: str):
    judge = {"kind": "endpoint", "base_url": free_port_url, "model": "m", "retries": 0, "timeout": 1.0}
    entries = read_rewards({"rewards": ["format", {"function": "rubric", "options": {"judge": judge}}]})
    with pytest.raises(JudgeError, match=r"127\.0\.0\.1"):
        check_rewards(entries, 2)
    local = {"kind": "mixed", "judges": {"a": judge, "b": {"kind": "local", "model": "no-such-model"}}, "default": "a"}
    not_opened_here = read_rewards({"rewards": [{"function": "rubric", "options": {"judge": local}}]})
    check_rewards(not_opened_here, 2)
    mistaken = read_rewards({"rewards": [{"function": "rubric", "options": {}}]})
    with pytest.raises(ConfigError, match="judge"):
        check_rewards(mistaken, 2)
    relative = judge | {"cache": "verdicts.sqlite"}
    with pytest.raises(ConfigError, match="absolute path"):
        check_rewards(read_rewards({"rewards": [{"function": "rubric", "options": {"judge": relative}}]}), 2)


@pytest.mark.parametrize("aggregation", ["explicit", "implicit"])
def test_the_scores_behind_a_single_reward_reach_the_trainer(aggregation: str):
    """So that a dead judge is found, and verdicts are recorded, though they are no channels."""
    with FaultServer() as server:
        judge = {"kind": "endpoint", "base_url": server.url, "model": server.model}
        rewards = [{"function": "rubric", "options": {"judge": judge, "aggregation": aggregation}}]
        result = score(rewards, "a reply", extra_info=extra(rubric=rubric("sun", "sea")))
    told = wire.parse(result["rvpo"])
    assert told.channels == {}
    assert len(told.monitored["rubric"]) == {"explicit": 2, "implicit": 1}[aggregation]
    values, (family,) = read_channels([result], ["rubric"])
    assert family.only_monitored
    assert values[0, 0].item() == result["rubric"]


def test_an_endless_error_is_cut():
    assert len(wire.write_error(ValueError("x" * 10**7))) < 3000


@pytest.fixture
def free_port_url() -> str:
    with FaultServer() as server:
        return server.url


def test_half_surrogates_which_no_file_can_hold_are_replaced():
    sent = {"name": "a\ud800", "value": 1.0, "labels": ["\udfff"], "text": "\ud800"}
    [entry] = wire.parse(json.dumps({"r": [sent]})).channels["r"]
    assert entry == Score("a?", 1.0, labels=("?",), text="?")


def test_a_pairwise_reward_is_one_channel_with_its_orders_behind_it():
    with FaultServer() as server:
        judge = {"kind": "endpoint", "base_url": server.url, "model": server.model}
        rewards = [{"function": "pairwise", "options": {"judge": judge, "column": "best"}}]
        result = score(rewards, "a reply", extra_info=extra() | {"best": "another reply"})
        greedy = [{"function": "pairwise", "options": {"judge": judge, "against": "greedy"}}]
        with pytest.raises(ConfigError, match="against='greedy'"):
            check_rewards(read_rewards({"rewards": greedy}), 1)
    told = wire.parse(result["rvpo"])
    assert told.channels == {}
    assert [s.channel for s in told.monitored["pairwise"]] == ["shown_first", "shown_second", "order_decided"]
    won = preference("a reply", "another reply", QUESTION)
    assert result["pairwise"] == won


def test_the_tests_of_a_program_are_channels():
    options = {"layout": "mbpp", "sandbox": "unsafe-subprocess"}
    tests = ["assert f(1) == 2", "assert f(2) == 4"]
    reply = "```python\ndef f(x):\n    return x + 1\n```"
    result = score([{"function": "code", "options": options}], reply, extra_info=extra(test_list=tests))
    [(name, scores)] = wire.parse(result[wire.KEY]).channels.items()
    assert name == "code"
    assert [(one.channel, one.value) for one in scores] == [("test_1", 1.0), ("test_2", 0.0)]
    assert result["score"] == 0.5


def test_the_ground_truth_may_hold_the_tests_and_one_number_come_out():
    truth = json.dumps({"inputs": ["1\n", "2\n"], "outputs": ["2\n", "3\n"]})
    options = {"layout": "input_output", "columns": {"input_output": "ground_truth"}, "aggregation": "all_pass"}
    reward = {"function": "code", "name": "solved", "options": {**options, "sandbox": "unsafe-subprocess"}}
    for program, value in (("print(int(input()) + 1)", 1.0), ("print(2)", 0.0)):
        result = score([reward], f"```python\n{program}\n```", truth, extra())
        assert result["solved"] == result["score"] == value
        assert len(wire.parse(result[wire.KEY]).monitored["solved"]) == 2


def test_a_code_reward_without_its_tests_is_a_mistake():
    reward = {"function": "code", "options": {"layout": "mbpp", "sandbox": "unsafe-subprocess"}}
    assert "needs the column 'test_list'" in error(score([reward]))
