"""Pairwise rewards in a real TRL trainer: greedy replies of the policy, the record, and what cannot be done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

pytest.importorskip("trl")

import features
from tiny_run import N, even, make_trainer, prompts
from trl import GRPOConfig, GRPOTrainer

from rvpo.engines.trl import greedy
from rvpo.errors import ConfigError, JudgeError
from rvpo.rewards import PairwiseReward
from rvpo.rewards.pairs import Pair
from rvpo.rewards.rubric import Verdict


class Longer:
    """Prefers the longer reply; the first one where ``biased``."""

    def __init__(self, biased: bool = False, fails: bool = False) -> None:
        self.biased, self.fails, self.seen = biased, fails, []

    async def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        self.seen += pairs
        if self.fails:
            return [Verdict.missing("refused")] * len(pairs)
        return [Verdict(1.0 if self.biased else _won(pair)) for pair in pairs]

    def check_pairs(self) -> None:
        pass

    async def check(self) -> None:
        pass

    def usage(self) -> dict[str, float]:
        return {"calls": float(len(self.seen))}


def _won(pair: Pair) -> float:
    first, second = len(pair.first.split()), len(pair.second.split())
    return 0.5 if first == second else float(first > second)


def by_hand(trainer: Any, prompt: str, tokens: int) -> str:
    """Decode greedily, one token after the other, without anything of TRL."""
    ids = trainer.processing_class(prompt)["input_ids"]
    start = len(ids)
    trainer.model.eval()
    with torch.no_grad():
        for _ in range(tokens):
            ids.append(int(trainer.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == trainer.processing_class.eos_token_id:
                break
    return str(trainer.processing_class.decode(ids[start:], skip_special_tokens=True))


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.7, "top_p": 0.8, "top_k": 7}, {"generation_kwargs": {"num_beams": 2}}]
)
def test_greedy_replies_are_those_of_the_policy(options: dict[str, Any], tiny_model_dir: Path, tmp_path: Path):
    trainer = make_trainer(tiny_model_dir, tmp_path, [PairwiseReward(Longer(), against="greedy"), even], **options)
    asked = ["what is the cat", "what is the sun", "what is the cat"]
    before = trainer.generation_config, trainer.generation_kwargs, torch.random.get_rng_state()
    replies = greedy.greedy_replies(trainer, asked)
    assert (trainer.generation_config, trainer.generation_kwargs) == before[:2]
    assert torch.equal(before[2], torch.random.get_rng_state())
    assert replies == [by_hand(trainer, prompt, 5) for prompt in asked]


def test_a_run_logs_and_records_both_orders(tiny_model_dir: Path, tmp_path: Path):
    judge = Longer(biased=True)
    reward = PairwiseReward(judge, against="greedy", name="better")
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, reward], log_completions=True, max_steps=2)
    trainer.train()
    logged = [line for line in trainer.state.log_history if "rvpo/better/mean" in line]
    assert len(logged) == 2
    for line in logged:
        assert line["rvpo/better/mean"] == 0.5
        different = line["better/order_decided"]
        assert 0 < different <= 1
        assert line["rvpo/better/order_decided/mean"] == pytest.approx(different)
        assert line["rvpo/better/judge/calls"] > 0
    record = pd.read_parquet(tmp_path / "channels" / "000001.parquet")
    assert set(record.criterion.dropna()) == {"shown_first", "shown_second", "order_decided"}
    assert {pair.first for pair in judge.seen} == {pair.second for pair in judge.seen}


def test_too_many_missing_pairs_stop_the_run(tiny_model_dir: Path, tmp_path: Path):
    reward = PairwiseReward(Longer(fails=True), against="greedy")
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, reward])
    with pytest.raises(JudgeError, match="refused"):
        trainer.train()


@pytest.mark.skipif(not features.CALLS_ASYNC_OBJECTS, reason="this TRL awaits functions only")
def test_plain_trl_takes_it_with_a_column_and_refuses_greedy(tiny_model_dir: Path, tmp_path: Path):
    dataset = prompts().map(lambda row: {"reference": "the cat is red"})
    reward = PairwiseReward(Longer())
    plain = {"trainer": GRPOTrainer, "config": GRPOConfig, "dataset": dataset, "max_steps": 1}
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, reward], **plain)
    trainer.train()
    assert any("pairwise/order_decided" in line for line in trainer.state.log_history)
    assert len(reward.latest) == N
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, PairwiseReward(Longer(), against="greedy")], **plain)
    with pytest.raises(ConfigError, match="RVPOTrainer"):
        trainer.train()


@pytest.mark.parametrize(
    "what", ["use_vllm", "use_transformers_continuous_batching", "tools", "rollout_func", "_is_vlm"]
)
def test_what_cannot_be_generated_greedily_is_refused(what: str, tiny_model_dir: Path, tmp_path: Path):
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, PairwiseReward(Longer(), against="greedy")])
    setattr(trainer, what, [print] if what == "tools" else True)
    with pytest.raises(ConfigError, match="against='greedy' and the trainer has"):
        greedy.refuse_impossible(trainer)
