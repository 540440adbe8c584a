"""Training against a judge over HTTP that fails: what is missing stays missing, and nothing is paid for twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")
pytest.importorskip("aiohttp")

import pandas as pd
from tiny_run import (
    G,
    even,
    make_trainer,
    parameters,
    read_verdicts,
    recording,
    rubric_prompts,
    steps,
    warm_python,
)

from fault_server import ANSWERED_FAULTS, FaultServer, degree
from reference import reference
from rvpo.errors import JudgeError
from rvpo.judges import EndpointJudge
from rvpo.rewards.rubric import Question, RubricReward, Verdict
from turned_clock import turn_clock

SIZES, ROWS, STEPS = [5, 17, 2, 9, 6, 3], 3 * G, 3


class Direct:
    """The fault server's opinion, without the server."""

    async def judge(self, questions: list[Question]) -> list[list[Verdict]]:
        return [[Verdict(float(degree(q.completion, c.text) >= 0.5)) for c in q.criteria] for q in questions]

    async def check(self) -> None:
        pass

    def usage(self) -> dict[str, float]:
        return {}


def endpoint(server: FaultServer, **options: Any) -> EndpointJudge:
    """Patient, so that a busy machine is no fault; tests that inject timeouts set their own."""
    return EndpointJudge(**{"model": server.model, "base_url": server.url, "timeout": 60.0} | options)


@pytest.fixture
def run(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., Any]:
    """Train and return (trainer, advantages of each step, verdicts of each step)."""

    def train(
        judge: Any,
        output: str = "run",
        max_missing: float = 0.25,
        others: list[Callable] | None = None,
        resume: bool = False,
        **options: Any,
    ) -> Any:
        seen: list = []
        trainer = make_trainer(
            tiny_model_dir,
            tmp_path / output,
            [*(others or []), RubricReward(judge, max_missing=max_missing)],
            trainer=recording(seen),
            dataset=rubric_prompts(SIZES),
            **{"per_device_train_batch_size": ROWS, "max_steps": STEPS, "log_completions": True} | options,
        )
        trainer.train(resume_from_checkpoint=resume)
        steps = range(1, 1 + len(list((tmp_path / output / "channels").glob("0*.parquet"))))
        tables = [read_verdicts(tmp_path / output, step) for step in steps]
        return trainer, [step["all"] for step in seen], tables

    return train


def expected(table: pd.DataFrame, method: str) -> list[float]:
    """Advantages by the float64 reference; a row's missing criteria are NaN, and so are columns of other prompts."""
    names = sorted({(row.group, row.criterion) for row in table.itertuples()})
    rewards = [[float("nan")] * len(names) for _ in range(ROWS)]
    for row in table.itertuples():
        rewards[row.completion][names.index((row.group, row.criterion))] = row.reward
    return reference(rewards, [i // G for i in range(ROWS)], method).advantages


@pytest.mark.parametrize(
    ("rate", "retries", "method"),
    [(0.0, 5, "rvpo"), (0.1, 5, "rvpo"), (0.4, 5, "rvpo"), (0.4, 0, "rvpo"), (0.4, 0, "grpo")],
)
def test_training_finishes_and_missing_is_no_verdict(
    run: Callable, monkeypatch: pytest.MonkeyPatch, rate: float, retries: int, method: str
):
    turn_clock(monkeypatch)
    with FaultServer(fault_rate=rate, faults=ANSWERED_FAULTS, seed=3) as server:
        judge = endpoint(server, retries=retries, timeout=900.0)
        trainer, advantages, tables = run(judge, max_missing=1.0, method=method)
    assert trainer.state.global_step == STEPS
    assert bool(server.faults_sent) == (rate > 0)
    lost = 0
    for step in range(STEPS):
        assert all(x == x and abs(x) < 100 for x in advantages[step])
        assert advantages[step] == pytest.approx(expected(tables[step], method), abs=5e-6)
        completions = pd.read_parquet(
            Path(trainer.args.output_dir) / "completions" / f"completions_{step + 1:05d}.parquet"
        ).completion
        for row in tables[step].itertuples():
            if pd.isna(row.reward):
                lost += 1
                assert isinstance(row.reason, str)
                assert row.responsibility == 0
                continue
            met = degree(completions[row.completion], row.text) >= 0.5
            assert row.reward == float(met != (row.criterion == "c1"))  # c1 loses points when it is met
        logged = steps(trainer)[step + 1]
        assert logged["rvpo/rubric/missing"] == pytest.approx(tables[step].reward.isna().mean())
    if retries == 0:  # some 40% of verdicts are lost, pitfalls among them, which "not met" would turn into a gain
        assert 0.2 < lost / sum(map(len, tables)) < 1
        pitfalls = pd.concat([table[table.criterion == "c1"] for table in tables])
        assert pitfalls.reward.isna().any()
    if rate == 0:
        assert lost == 0


def test_without_faults_the_layer_changes_nothing(run: Callable):
    with FaultServer() as server:
        through, advantages, tables = run(endpoint(server), "through")
    direct, same, others = run(Direct(), "direct")
    assert advantages == same
    assert torch.equal(parameters(through), parameters(direct))
    for table, other in zip(tables, others, strict=True):
        pd.testing.assert_frame_equal(table.drop(columns="detail"), other.drop(columns="detail"))


def test_an_outage_stops_and_resumes_without_paying_twice(run: Callable, tmp_path: Path):
    """The server breaks down in the second step; the run resumes when it is back."""
    cache = str(tmp_path / "judge.sqlite")

    def outage(completions: list, trainer_state: Any, **_: Any) -> list[float]:
        """Called before the judge, which is async."""
        server.fault_rate = float(breaks and trainer_state.global_step == 1)
        return [1.0] * len(completions)

    breaks = False
    with FaultServer(faults=["500"]) as server:
        whole, _, _ = run(endpoint(server), "whole", others=[outage])
        calls = server.answered.total()
    with FaultServer(faults=["500"]) as server:
        breaks = True
        with pytest.raises(JudgeError, match=r"verdicts are missing \(server \d+\).*checkpoint-1 is saved"):
            run(endpoint(server, cache=cache, retries=0), "broken", others=[outage])
        breaks = False
        resumed, _, _ = run(endpoint(server, cache=cache), "broken", others=[outage], resume=True)
        assert set(server.answered.values()) == {1}
        assert server.answered.total() == calls
    assert torch.equal(parameters(resumed), parameters(whole))


@pytest.mark.xdist_group("processes")
def test_killed_in_the_middle_of_judging_no_paid_call_is_repeated(tiny_model_dir: Path, tmp_path: Path):
    """SIGKILL while verdicts of the third step are on their way, then a new process."""
    options = {
        "max_steps": STEPS,
        "per_device_train_batch_size": ROWS,
        "save_strategy": "steps",
        "save_steps": 1,
        "log_completions": True,
    }
    with FaultServer() as server:
        seen: list = []
        whole = make_trainer(
            tiny_model_dir,
            tmp_path / "whole",
            [even, RubricReward(endpoint(server))],
            trainer=recording(seen),
            dataset=rubric_prompts(SIZES),
            **options,
        )
        whole.train()
        calls = server.answered.total()

    with FaultServer() as server:
        job = tmp_path / "job.json"
        judge = {
            "model": server.model,
            "base_url": server.url,
            "timeout": 60.0,
            "cache": str(tmp_path / "judge.sqlite"),
        }
        values = {"model": str(tiny_model_dir), "output": str(tmp_path), "sizes": SIZES, "endpoint": judge}
        job.write_text(json.dumps(values | {"options": options}))
        command = [str(Path(__file__).with_name("tiny_run.py")), str(job)]
        server.hold_after = calls - 7
        process = warm_python().start(command)
        deadline = time.monotonic() + 900
        while server.answered.total() < calls - 7:
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # What the server has answered is on disk a moment later.
        with sqlite3.connect(judge["cache"]) as cache:
            while cache.execute("SELECT count(*) FROM verdicts").fetchone()[0] < calls - 7:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        while server.in_flight:  # it notices that nobody waits for the rest
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.hold_after = float("inf")
        assert (tmp_path / "checkpoint-2").exists()
        assert not (tmp_path / "result_0.json").exists()

        job.write_text(json.dumps(values | {"options": options, "resume": True}))
        done = warm_python().start(command)
        assert done.wait() == 0, done.stderr
        assert set(server.answered.values()) == {1}
        assert server.answered.total() == calls
    result = json.loads((tmp_path / "result_0.json").read_text())
    assert result["parameters"] == parameters(whole).tolist()
    assert result["advantages"] == seen[2:]


def test_a_dead_server_is_found_before_training(run: Callable):
    with FaultServer() as server:
        judge = endpoint(server)
    with pytest.raises(JudgeError, match="no judge at http://127"):
        run(judge)
