"""A code reward through ``RVPOTrainer``: each prompt's tests are its channels, and the sandbox's totals are logged."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from datasets import Dataset
from tiny_run import G, N, make_trainer, read_verdicts, steps

from rvpo.errors import DataError, JudgeError
from rvpo.rewards.code import CodeReward
from rvpo.sandbox import Limits, Outcome, Test


class ByHash:
    """A sandbox whose outcome is a hash of program and test; some tests cannot be run."""

    def __init__(self, missing: float = 0.0) -> None:
        self.missing = missing

    def identity(self) -> dict[str, Any]:
        return {"kind": "hash"}

    async def run(self, program: str, tests: Sequence[Test], limits: Limits) -> list[Outcome]:
        return [self.outcome(program, test) for test in tests]

    def outcome(self, program: str, test: Test) -> Outcome:
        if program == "def f(x):\n    return x + 1\n":  # the first question
            return Outcome(True, "passed")
        drawn = hashlib.sha256(f"{program}\0{test.code}".encode()).digest()
        if drawn[1] < 256 * self.missing:
            return Outcome.missing("no room")
        return Outcome(drawn[0] % 2 == 0, "passed" if drawn[0] % 2 == 0 else "assert", "", 0.25)


def prompts(*sizes: int) -> Dataset:
    tests = [[f"assert f({i}) == {i + 1}" for i in range(size)] for size in sizes]
    return Dataset.from_dict({"prompt": [f"# {'abcdefgh'[i]}\n" for i in range(len(sizes))], "test_list": tests})


def test_every_test_is_a_channel(tiny_model_dir: Path, tmp_path: Path):
    sandbox = ByHash(missing=0.2)
    reward = CodeReward("mbpp", sandbox=sandbox, completes_prompt=True, max_missing=1.0)
    trainer = make_trainer(tiny_model_dir, tmp_path, [reward], dataset=prompts(1, 3), max_steps=2, log_completions=True)
    trainer.train()
    rows = read_verdicts(tmp_path, 1)
    assert sorted(rows.groupby("group").criterion.nunique()) == [1, 3]
    assert set(rows[rows.reward.isna()].reason) <= {"sandbox"}
    logged = steps(trainer)[1]
    assert logged["rvpo/code/mean"] == pytest.approx(rows.reward.mean())
    assert logged["rvpo/code/missing"] == pytest.approx(rows.reward.isna().mean())
    assert logged["rvpo/code/judge/programs"] == N
    assert logged["rvpo/code/judge/tests"] + logged["rvpo/code/judge/cache_hits"] <= (1 + 3) * G
    assert steps(trainer)[2]["rvpo/code/judge/programs"] == 2 * N


def test_a_sandbox_that_fails_stops_the_run(tiny_model_dir: Path, tmp_path: Path):
    reward = CodeReward("mbpp", sandbox=ByHash(missing=1.0), completes_prompt=True)
    trainer = make_trainer(tiny_model_dir, tmp_path, [reward], dataset=prompts(1, 3))
    with pytest.raises(JudgeError, match=r"verdicts are missing .sandbox"):
        trainer.train()


def test_malformed_tests_are_found_before_training(tiny_model_dir: Path, tmp_path: Path):
    dataset = prompts(1, 1).remove_columns("test_list").add_column("test_list", [["assert f(1)"], ["assert f("]])
    trainer = make_trainer(tiny_model_dir, tmp_path, [CodeReward("mbpp", sandbox=ByHash())], dataset=dataset)
    with pytest.raises(DataError, match="row 1, column 'test_list'"):
        trainer.train()
