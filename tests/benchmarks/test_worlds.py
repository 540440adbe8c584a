"""benchmarks/worlds: policies against loops, stacked rules against single calls, records that resume."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import rvpo

FOLDER = Path(__file__).parents[2] / "benchmarks" / "worlds"
SIBLINGS = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """Import the scripts as their own folder sees them; leave no module of so common a name behind."""
    before = {name: sys.modules.pop(name) for name in SIBLINGS if name in sys.modules}
    threads = torch.get_num_threads()
    sys.path.insert(0, str(FOLDER))
    yield SimpleNamespace(
        **{name: importlib.import_module(name) for name in ("worlds", "rules", "train", "run", "table")}
    )
    torch.set_num_threads(threads)
    sys.path.remove(str(FOLDER))
    for name in SIBLINGS:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def batch_of(world: object, runs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return observed rewards (R, N, M) and contexts (R, N) of random replies."""
    generator = torch.Generator().manual_seed(seed)
    contexts = torch.randint(world.policy.contexts, (runs, world.prompts), generator=generator)
    rows = contexts.repeat_interleave(world.group, 1)
    replies = torch.randint(world.policy.replies, rows.shape, generator=generator)
    table = world.rewards(0)
    mean = (table[0] if table.ndim == 4 else table)[rows, replies]
    uniform = torch.rand(mean.shape, generator=generator)
    return world.hide_absent(world.observe(0, mean, uniform), rows), rows


def test_the_worlds_are_well_formed(bench: SimpleNamespace) -> None:
    worlds = bench.worlds.WORLDS
    splits = [world.split for world in worlds.values()]
    assert splits.count("given") == 17
    assert abs(splits.count("design") - splits.count("confirm")) <= 3
    for world in worlds.values():
        theta = torch.stack([world.start(seed) for seed in (0, 1)])
        assert theta.shape == (2, world.policy.size), world.name
        probabilities = world.policy(theta).exp()
        assert probabilities.shape == (2, world.policy.contexts, world.policy.replies), world.name
        assert torch.allclose(probabilities.sum(-1), torch.ones(()), atol=1e-4), world.name
        for step in (0, world.steps - 1):
            shape = (world.policy.contexts, world.policy.replies, world.columns)
            assert world.rewards(step).shape[-3:] == shape, world.name
            truth = world.true_shares(step)
            assert truth.min() >= 0, world.name
            assert truth.max() <= 1, world.name
            assert torch.isclose(world.draw_weights(step).sum(), torch.ones(())), world.name
        if world.label is not None:
            assert set(world.label[world.applies].tolist()) == set(world.counts), world.name
        assert set(world.hard) <= set(range(world.channels)), world.name
        assert len(world.weights or range(world.channels)) == world.channels, world.name


def test_a_start_has_its_rates(bench: SimpleNamespace) -> None:
    policy = bench.worlds.WORLDS["plain"].policy
    theta = policy.start(0.2, [0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4])
    p = policy(theta[None]).exp()[0, 0]
    style, item = policy.style[:, 0], policy.item
    assert torch.isclose((p * style).sum(), torch.tensor(0.2))
    assert torch.allclose((p * style) @ item / 0.2, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert torch.allclose((p * (1 - style)) @ item / 0.8, torch.tensor([0.9, 0.8, 0.7, 0.6]))


@pytest.mark.parametrize("name", ["plain", "anti-copy-weights", "rubric-40", "range-3", "safety-.99-real"])
def test_stacked_rules_equal_an_aggregator_per_run(bench: SimpleNamespace, name: str) -> None:
    world, runs, steps = bench.worlds.WORLDS[name], 3, 3
    texts = {rule: spec.text(world) for rule, spec in bench.rules.RULES.items() if not spec.product}
    for rule, text in texts.items():
        weights = torch.ones(world.channels) if world.weights is None else torch.tensor(world.weights)
        if rule == "GDPO, weight 3":
            weights[world.hard] *= 3
        config = rvpo.core.AdvantageConfig(text)
        names = [str(j) for j in range(world.channels)]
        singles = [rvpo.Aggregator(text, names, ranges=world.ranges, weights=weights.tolist()) for _ in range(runs)]
        states: list = [{} for _ in range(runs)]
        stacked = bench.rules.step_of(rule, world, runs)
        for step in range(steps):
            rewards, contexts = batch_of(world, runs, step)
            got = stacked(rewards, contexts, step, steps)
            progress = step / (steps - 1)
            for i in range(runs):
                if world.label is None:
                    out = singles[i](rewards[i], num_generations=world.group, progress=progress).advantages
                else:  # cells with labels go to the core, which the aggregator calls
                    result = rvpo.core.compute(
                        rewards[i], config, num_generations=world.group, progress=progress, state=states[i],
                        weights=weights[world.label[contexts[i]]], applies=world.applies[contexts[i]],
                        channels=bench.rules.channels_of(world, contexts[i]),
                    )  # fmt: skip
                    states[i], out = result.state, result.advantages
                assert torch.allclose(got[i], out, atol=1e-5), (rule, step)


def test_the_product_multiplies_attained_shares(bench: SimpleNamespace) -> None:
    world = bench.worlds.WORLDS["range-3"]
    rewards, contexts = batch_of(world, 2)
    got = bench.rules.step_of("product", world, 2)(rewards, contexts, 0, 10)
    product_ = ((rewards + 3) / 6).prod(-1, keepdim=True)
    for i in range(2):
        assert torch.allclose(got[i], rvpo.advantages(product_[i], num_generations=8, method="grpo").advantages)


def test_a_factory_equals_the_method_it_calls(bench: SimpleNamespace) -> None:
    world = bench.worlds.WORLDS["two-hard"]

    def make(world: object):
        return lambda rewards, contexts: rvpo.advantages(rewards, num_generations=world.group, method="gdpo").advantages

    own = bench.train.train(world, bench.rules.step_of(make, world, 2), [0, 1], [0.05], 4).shares
    named = bench.train.train(world, bench.rules.step_of("GDPO", world, 2), [0, 1], [0.05], 4).shares
    assert torch.allclose(own, named, atol=1e-5)


def test_a_run_does_not_depend_on_what_is_trained_with_it(bench: SimpleNamespace) -> None:
    for name in ("random-conflict", "shift"):
        world = bench.worlds.WORLDS[name]
        alone = bench.train.train(world, bench.rules.step_of("GDPO", world, 1), [3], [0.05], 4).shares
        both = bench.train.train(world, bench.rules.step_of("GDPO", world, 4), [1, 3], [0.02, 0.05], 4).shares
        assert torch.allclose(alone[0, 0], both[1, 1], atol=1e-4)


def test_oracles_raise_the_lowest_channel(bench: SimpleNamespace) -> None:
    for name in ("exclusive3", "rubric-40"):
        world = bench.worlds.WORLDS[name]
        for curves in bench.train.train_oracles(world, [0], steps=30).values():
            worst = curves.shares[-1, 0][:, world.counts].amin(-1)
            assert worst[-1] > worst[0]


def test_a_study_resumes_and_is_read(
    bench: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"worlds": ["groups-of-2"], "output": tmp_path, "seeds": range(2)}
    bench.run.study(["GDPO"], **settings)
    bench.run.study(["GDPO"], **settings)
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 worlds x rules are done already"
    results = bench.table.Results.read(tmp_path)
    assert 0 < results.ratio("groups-of-2", "GDPO") <= 1.01
    records = [json.loads(line) for line in (tmp_path / "records" / "groups-of-2--GDPO.jsonl").read_text().splitlines()]
    assert len(records) == 6
    assert results.auc["groups-of-2", "GDPO"][0, 1] == min(records[1]["mean"])
    assert "| GDPO |" in bench.table.text(results)


def test_sign_flips_are_exact(bench: SimpleNamespace) -> None:
    differences = np.array([0.3, 0.1, -0.05, 0.2, 0.12])
    flips = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((1, -1), repeat=5)]
    expected = sum(flip >= abs(differences.sum()) - 1e-9 for flip in flips) / 32
    assert bench.table.flip_p(differences) == expected
