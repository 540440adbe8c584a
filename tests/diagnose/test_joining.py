"""Batches that are counted together give what each of them gives on its own, and so does reading the logs again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rvpo import Aggregator
from rvpo.core import AdvantageConfig
from rvpo.diagnose import followed, joining
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run
from rvpo.logs.run import Run, with_ranges
from rvpo.logs.writer import ChannelTable

STEPS = 9
METHODS = (
    "grpo",
    "grpo:unscored=left_out",
    "grpo:whiten=batch",
    "gdpo",
    "gdpo:unscored=zero",
    "rvpo:k=2",
    "rvpo:k=linear(0.5,2)",
    "rvpo:k=1,whiten=group",
    "rvpo:k=1,whiten=none",
    "rvpo_explicit",
    "hard_min",
    "lift",
)


def rewards_of(step: int) -> torch.Tensor:
    """Four prompts of four completions on three channels; one is binary, one misses values, one has a wide scale."""
    generator = torch.Generator().manual_seed(step)
    rewards = torch.rand(16, 3, generator=generator, dtype=torch.float64)
    rewards[:, 0] = (rewards[:, 0] < 0.2 + 0.6 * step / STEPS).double()
    rewards[rewards[:, 1] < 0.1, 1] = torch.nan
    rewards[:, 2] *= 7
    return rewards


def record(folder: Path, **options: Any) -> Run:
    """Write the record of a run, two batches per step, and open it."""
    aggregator, table = Aggregator("rvpo:k=2", ["a", "b", "c"], **options), ChannelTable(folder / "channels")
    for step in range(1, STEPS + 1):
        for part in (0, 100):
            table.add(step, aggregator(rewards_of(step + part), num_generations=4, progress=step / STEPS))
    return open_run(folder)


def monitored(folder: Path) -> Run:
    return record(folder, monitor=["c"])


def scheduled(folder: Path) -> Run:
    return record(folder, weights=["linear(1,0)", 1.0, "alternate(1,0)"])


def completions(folder: Path) -> Run:
    """Write the completions of a run of TRL, some of them equal; groups differ in size from step to step."""
    (folder / "completions").mkdir()
    for step in range(1, STEPS + 1):
        rewards = rewards_of(step)[: 16 - 4 * (step % 2)]
        columns = {name: rewards[:, j].tolist() for j, name in enumerate("abc")}
        columns = {name: [None if math.isnan(x) else x for x in column] for name, column in columns.items()}
        prompts = [f"question {step} {i // 4}" for i in range(len(rewards))]
        texts = [f"answer {i % 3}" for i in range(len(rewards))]
        total = rewards.nan_to_num(0.0).sum(1).view(-1, 4)
        advantages = ((total - total.mean(1, keepdim=True)) / (total.std(1, keepdim=True) + 1e-4)).flatten().tolist()
        table = pa.table({"prompt": prompts, "completion": texts, **columns, "advantage": advantages})
        pq.write_table(table, folder / "completions" / f"completions_{step:05d}.parquet")
    return with_ranges(open_run(folder), {"c": (0.0, 7.0)})


def same(one: Any, other: Any) -> bool:
    """Whether plain values agree, numbers to 1e-9."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return one == other


@pytest.mark.parametrize("write", [record, monitored, scheduled, completions])
def test_joined_batches_give_what_single_ones_give(tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch):
    run = write(tmp_path)
    found = diagnose(run, resamples=100)
    assert sum(1 for _ in joining.joined(map(joining.Joined.single, run.batches()))) < len(list(run.batches()))
    monkeypatch.setattr(joining, "CELLS", 0)
    monkeypatch.setattr(joining, "HELD", 0)
    assert same(found.to_json(), diagnose(run, resamples=100).to_json())


@pytest.mark.parametrize("write", [monitored, completions])
def test_methods_give_joined_batches_what_they_give_single_ones(tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch):
    run, methods = write(tmp_path).between(None, 3), [AdvantageConfig(text) for text in METHODS]
    found = replay(run, methods)
    monkeypatch.setattr(joining, "CELLS", 0)
    monkeypatch.setattr(followed, "CELLS", 0)
    monkeypatch.setattr(followed, "is_local", lambda config: False)
    assert same(found.to_json(), replay(run, methods).to_json())


def test_an_assumed_method_is_followed_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = completions(tmp_path)
    bare = Run(**{**vars(run), "read": lambda texts: (joining.replace(b, advantages=None) for b in run.read(texts))})
    found = diagnose(bare, resamples=100)
    monkeypatch.setattr(joining, "CELLS", 0)
    assert same(found.to_json(), diagnose(bare, resamples=100).to_json())
