"""Methods that remember the run: resumed, on two processes, in evaluation, with rubrics, and their options.

Started as a script under torchrun it runs the jobs of a file one after the other, in the same two processes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

import tiny_run
from tiny_run import G, Scripted, even, from_table, high, make_trainer, parameters, recording, rubric_prompts, steps
from transformers import HfArgumentParser

import rvpo
from rvpo.core import AdvantageConfig, Channels, compute
from rvpo.core.state import plain
from rvpo.engines.trl.run import _config
from rvpo.errors import ConfigError
from rvpo.recipe import build_recipe
from rvpo.rewards.rubric import RubricReward
from rvpo.step.trust import Reliability, shrinking
from rvpo.trl import RVPOConfig

FILE = "rvpo_state.json"
ROWS, STEPS, CHECKPOINT = 3 * G, 4, 2  # with two processes the middle group lies half in each

REMEMBERING: dict[str, dict[str, Any]] = {
    "lift": {"method": "lift"},
    "lagrangian": {"method": {"name": "lagrangian", "thresholds": {"channel_1": 0.8}, "rate": 2.0}},
    "ctwa": {"method": "ctwa:target=0.5,rate=2"},
    "riskpo": {"method": "riskpo:bundle_size=2"},
    "tchebycheff": {"method": "tchebycheff"},  # it remembers the scale of a reward without a range
    "adaptive k": {"method": "rvpo:k=adaptive(target=0.4,horizon=4)"},
}


def table(missing: float = 0.1) -> list[list[list[float | None]]]:
    """Rewards (steps, N, 2): one graded from -50 to 150, whose scale is learned, and one seldom met; some missing."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(STEPS, ROWS, 2, generator=generator)
    rewards[..., 0] = 200 * rewards[..., 0] - 50
    rewards[..., 1] = (rewards[..., 1] < 0.3).float()
    rewards[torch.rand(rewards.shape, generator=generator) < missing] = torch.nan
    return [[[None if x != x else x for x in row] for row in step] for step in rewards.tolist()]


def options(name: str, **more: Any) -> dict[str, Any]:
    saving = {"save_strategy": "steps", "save_steps": CHECKPOINT, "max_steps": STEPS}
    return {"per_device_train_batch_size": ROWS, "num_generations": G} | saving | REMEMBERING[name] | more


def state_of(folder: Path, step: int = STEPS) -> dict[str, Any]:
    return json.loads((folder / f"checkpoint-{step}" / FILE).read_text())


def as_tensor(rewards: list[list[float | None]]) -> torch.Tensor:
    return torch.tensor([[float("nan") if x is None else x for x in row] for row in rewards])


# --- resumed, and on two processes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return an uninterrupted run of one process for each method, with checkpoints."""
    folder, runs = tmp_path_factory.mktemp("memory"), {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in REMEMBERING:
        seen: list = []
        output = folder / name
        rewards = from_table(table(), 0)
        trainer = make_trainer(tiny_model_dir, output, rewards, trainer=recording(seen), **options(name))
        trainer.train()
        runs[name] = {"output": output, "seen": seen, "steps": steps(trainer), "parameters": parameters(trainer)}
    torch.set_num_threads(threads)
    return runs


@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("name", REMEMBERING)
def test_resumed_run_equals_the_uninterrupted_one(tiny_model_dir: Path, tmp_path: Path, whole: dict, name: str):
    want = whole[name]
    resumed = make_trainer(tiny_model_dir, tmp_path, from_table(table(), 0), **options(name))
    resumed.train(resume_from_checkpoint=str(want["output"] / f"checkpoint-{CHECKPOINT}"))
    assert steps(resumed) == want["steps"]
    assert sorted(want["steps"]) == list(range(1, STEPS + 1))
    assert torch.equal(parameters(resumed), want["parameters"])
    assert state_of(tmp_path) == state_of(want["output"])
    assert state_of(tmp_path) != state_of(want["output"], CHECKPOINT)


@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("name", REMEMBERING)
def test_the_advantages_are_the_cores(whole: dict, name: str):
    """Batch by batch, with the state handed on."""
    chosen = dict(REMEMBERING[name])
    config, state = RVPOConfig("unused", use_cpu=True, bf16=False, **chosen).advantage_config(), None
    for step, rewards in enumerate(table()):
        channels = Channels.columns(["channel_0", "channel_1"])
        out = compute(as_tensor(rewards), config, num_generations=G, channels=channels, state=state)
        state = out.state
        assert whole[name]["seen"][step]["all"] == out.advantages.tolist()
        for key, value in out.method_metrics.items():
            assert whole[name]["steps"][step + 1][f"rvpo/{key}"] == pytest.approx(value, nan_ok=True), key
    assert json.loads(json.dumps(plain(state))) == state_of(whole[name]["output"])["remembered"]


@pytest.mark.xdist_group("processes")
def test_the_state_matters(whole: dict):
    """Else the tests above would pass without it."""
    for name, run in whole.items():
        config = RVPOConfig("unused", use_cpu=True, bf16=False, **REMEMBERING[name]).advantage_config()
        channels = Channels.columns(["channel_0", "channel_1"])
        forgetful = [
            compute(as_tensor(rewards), config, num_generations=G, channels=channels).advantages.tolist()
            for rewards in table()[CHECKPOINT:]
        ]
        assert [step["all"] for step in run["seen"][CHECKPOINT:]] != forgetful, name


@pytest.mark.xdist_group("processes")
def test_two_processes_agree_with_one(tiny_model_dir: Path, tmp_path: Path, whole: dict):
    jobs = []
    for name in REMEMBERING:
        output = tmp_path / name
        output.mkdir()
        more = {"per_device_train_batch_size": ROWS // 2, "save_steps": STEPS}
        jobs.append(
            {
                "model": str(tiny_model_dir),
                "output": str(output),
                "table": table(),
                "options": options(name, **more),
            }
        )
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(jobs))
    tiny_run.two_processes(__file__, str(path))
    for name, want in whole.items():
        assert state_of(tmp_path / name) == state_of(want["output"]), name
        for rank in range(2):
            got = json.loads((tmp_path / name / f"result_{rank}.json").read_text())
            assert got["processes"] == 2
            for step, seen in enumerate(want["seen"]):
                assert got["advantages"][step]["all"] == seen["all"], (name, step)
                half = seen["all"][rank * ROWS // 2 :][: ROWS // 2]
                assert got["advantages"][step]["local"] == half, (name, step)


def test_methods_without_memory_save_what_was_said_of_rewards(tiny_model_dir: Path, tmp_path: Path):
    saving = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    for name, chosen in {"rvpo": {}, "gdpo": {"method": "gdpo"}}.items():
        make_trainer(tiny_model_dir, tmp_path / name, **saving, **chosen).train()
        state = json.loads((tmp_path / name / "checkpoint-1" / FILE).read_text())
        assert state["remembered"] == {}
        assert list(state["seen"]) == ["even", "high"]


def test_evaluation_leaves_the_memory_alone(tiny_model_dir: Path, tmp_path: Path):
    trained = []
    for evaluated in (False, True):
        more = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 2 * G} if evaluated else {}
        output = tmp_path / str(evaluated)
        trainer = make_trainer(
            tiny_model_dir,
            output,
            # Not by the training's step, whose order the evaluation's completions would follow.
            [even, high],
            eval_dataset=tiny_run.prompts(2) if evaluated else None,
            method="lift",
            save_strategy="steps",
            save_steps=1,
            max_steps=1,
            **more,
        )
        trainer.train()
        before = json.dumps(state_of(output, 1))
        if evaluated:
            metrics = trainer.evaluate()
            assert "eval_rvpo/even/weight" in metrics
            trainer._save_checkpoint(trainer.model, trial=None)
            assert json.dumps(state_of(output, 1)) == before
        trained.append(before)
    assert trained[0] == trained[1]


# --- rubrics ----------------------------------------------------------------------------------------------------------


def verdicts() -> list[list[list[float | None]]]:
    generator = torch.Generator().manual_seed(1)
    said = (torch.rand(STEPS, ROWS, 9, generator=generator) > 0.5).double()
    said[torch.rand(said.shape, generator=generator) < 0.1] = torch.nan
    return [[[None if x != x else x for x in row] for row in step] for step in said.tolist()]


@pytest.fixture
def ragged(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., Any]:
    def build(sizes: list[int], **chosen: Any) -> Any:
        rewards = [even, RubricReward(Scripted(verdicts()), max_missing=1.0)]
        shared = {"dataset": rubric_prompts(sizes), "per_device_train_batch_size": ROWS, "max_steps": 3}
        return make_trainer(tiny_model_dir, tmp_path, rewards, **shared, **chosen)

    return build


@pytest.mark.parametrize("method", ["lift", "ctwa"])
def test_rubrics_of_different_length_are_remembered_by_category(ragged: Callable, tmp_path: Path, method: str):
    seen: list = []
    trainer = ragged([5, 9, 2, 6, 1, 3], method=method, trainer=recording(seen), save_strategy="steps", save_steps=3)
    trainer.train()
    assert all(torch.tensor(step["all"]).isfinite().all() and any(step["all"]) for step in seen)
    logged = steps(trainer)[3]
    for name in ("even", "rubric/essential", "rubric/pitfall"):
        assert logged[f"rvpo/{name}/weight"] > 0
    state = state_of(tmp_path, 3)["remembered"]
    names = state["attained"]["names"] if method == "lift" else state["weights"]
    assert set(names) == {"even", "rubric/essential", "rubric/pitfall"}


def test_a_constraint_on_a_category_that_a_batch_lacks(ragged: Callable, tmp_path: Path):
    """Rubrics of one criterion have no pitfall; another batch may have one."""
    thresholds = {"rubric/pitfall": 0.9, "rubric/essential": 0.9}
    trainer = ragged(
        [1] * 6,
        method=rvpo.Lagrangian(thresholds),
        save_strategy="steps",
        save_steps=3,
    )
    trainer.train()
    logged = steps(trainer)[3]
    assert logged["rvpo/rubric/essential/multiplier"] > 0
    assert "rvpo/rubric/pitfall/multiplier" not in logged


# --- scales and reliabilities -----------------------------------------------------------------------------------------


def wide_table() -> list[list[list[float | None]]]:
    """The first channel in [-3, 3]."""
    return [[[None if a is None else 6 * (a + 50) / 200 - 3, b] for a, b in step] for step in table()]


def test_ranges_come_from_the_option_or_the_function(tiny_model_dir: Path, tmp_path: Path):
    ranges = [(-3.0, 3.0), None]
    want = compute(
        as_tensor(wide_table()[0]),
        AdvantageConfig("lift"),
        num_generations=G,
        channels=Channels.columns(["channel_0", "channel_1"], ranges),
    ).advantages.tolist()
    shared = {"method": "lift", "per_device_train_batch_size": ROWS, "max_steps": 1}
    for given in (False, True):
        rewards, seen = from_table(wide_table(), 0), []
        rewards[0].reward_range = (-30.0, 30.0) if given else (-3.0, 3.0)  # type: ignore[attr-defined]
        more = {"reward_ranges": {"channel_0": [-3, 3]}} if given else {}
        make_trainer(tiny_model_dir, tmp_path, rewards, trainer=recording(seen), **shared, **more).train()
        assert seen[0]["all"] == want

    seen: list = []
    make_trainer(tiny_model_dir, tmp_path, from_table(wide_table(), 0), trainer=recording(seen), **shared).train()
    learned = compute(as_tensor(wide_table()[0]), AdvantageConfig("lift"), num_generations=G).advantages.tolist()
    assert seen[0]["all"] == learned != want
    with pytest.raises(ConfigError, match="reward_ranges names the channel 'even'; expected one of channel_0, chan"):
        make_trainer(tiny_model_dir, tmp_path, from_table(table(), 0), reward_ranges={"even": [0, 1]}, **shared)


def test_reliability_is_the_cores(tiny_model_dir: Path, tmp_path: Path):
    seen: list = []
    make_trainer(
        tiny_model_dir,
        tmp_path,
        from_table(table(), 0),
        trainer=recording(seen),
        given={"reliability": Reliability({"channel_1": 0.3})},
        method="gdpo",
        per_device_train_batch_size=ROWS,
        max_steps=1,
    ).train()
    rewards = as_tensor(table()[0])
    trusted, plain = (
        compute(rewards, AdvantageConfig("gdpo"), num_generations=G, adjust=adjust).advantages.tolist()
        for adjust in (shrinking(torch.tensor([1.0, 0.3])), None)
    )
    assert seen[0]["all"] == trusted != plain


# --- options ----------------------------------------------------------------------------------------------------------

LEAST = {"name": "a", "model": {"path": "m"}, "data": {"path": "d"}, "trainer": {"use_cpu": True, "bf16": False}}


def config_of(**sections: Any) -> RVPOConfig:
    recipe = build_recipe(LEAST | {"rewards": ["format", "correctness"]} | sections)
    return _config(recipe, ["format", "correctness"])


def test_a_recipe_gives_the_trainers_options():
    rewards = [{"function": "format"}, {"function": "correctness", "range": [-3, 3]}]
    args = config_of(method={"name": "lift", "kappa": 3.0, "whiten": "group"}, rewards=rewards)
    assert args.method == "lift:kappa=3,whiten=group"
    assert args.reward_ranges == {"correctness": (-3.0, 3.0)}
    assert args.advantage_config() == AdvantageConfig(rvpo.LIFT(3.0, whiten="group"))

    adaptive = config_of(method="rvpo:k=adaptive(target=0.3)")
    assert adaptive.advantage_config().method == rvpo.RVPO(rvpo.AdaptiveK(0.3))
    stacked = config_of(method={"name": "riskpo", "bundle_size": 2, "score": {"name": "rvpo", "k": 2.0}})
    assert stacked.advantage_config().method.risk(None) == 2.0


def test_a_command_line_is_parsed():
    shared = ["--output_dir", "out", "--use_cpu", "True", "--bf16", "False"]
    line = ["--method", '{"name": "lift", "kappa": 3}', "--reward_ranges", '{"even": [-1, 1]}']
    (args,) = HfArgumentParser(RVPOConfig).parse_args_into_dataclasses([*shared, *line])
    assert args.reward_ranges == {"even": [-1, 1]}
    assert args.advantage_config().method == rvpo.LIFT(3)
    (args,) = HfArgumentParser(RVPOConfig).parse_args_into_dataclasses([*shared, "--method", "lift:kappa=3"])
    assert args.advantage_config().method == rvpo.LIFT(3)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"method": "lift:kapa=3"}, "has no option 'kapa' \\(did you mean 'kappa'\\?\\); expected one of kappa"),
        ({"method": "lift:rho=3"}, "method 'lift' has no option 'rho'. Use method tchebycheff for it"),
        ({"method": "rvpo:k=adaptive(taget=0.3)"}, "k is 'adaptive\\(taget=0.3\\)'"),
        ({"reward_ranges": {"even": [1, 1]}}, r"the range of even is \[1, 1\]; expected a pair of finite numbers"),
        ({"method": "lagrangian"}, "thresholds is {}; expected a mapping of channels"),
    ],
)
def test_what_cannot_work_is_refused(chosen: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        RVPOConfig("unused", use_cpu=True, bf16=False, **chosen)


if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text()):
        tiny_run.main(job)
