"""What TRL receives is what counts: rewards and advantages that other classes change are used, or training stops."""

from __future__ import annotations

import copy
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

pytest.importorskip("trl")

from tiny_run import G, N, Scripted, even, from_table, high, make_trainer, prompts, rubric_prompts
from transformers import AutoModelForCausalLM, Trainer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import rvpo
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.errors import ConfigError, EngineError
from rvpo.logs.open import open_run
from rvpo.rewards.rubric import RubricReward
from rvpo.trl import RVPOConfig, RVPOMixin, RVPOTrainer

CPU = {"use_cpu": True, "bf16": False, "report_to": "none"}
GENERATOR = torch.Generator().manual_seed(1)
TABLE = torch.randn(3, N, 2, generator=GENERATOR).tolist()


def ours(rewards: torch.Tensor, method: str = "rvpo") -> torch.Tensor:
    return rvpo.advantages(rewards, num_generations=G, method=method).advantages


@pytest.fixture
def make(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a builder of trainers on the tiny model, with rewards from a table and the advantages that are used."""

    def build(cls: type, rewards: list[Callable] | None = None, **options: Any) -> Any:
        trained: list[float] = []

        class Watched(cls):
            def compute_loss(self, model, inputs, *args, **kwargs):
                trained.extend(inputs["advantages"].flatten().tolist())
                return super().compute_loss(model, inputs, *args, **kwargs)

        Watched.__name__ = cls.__name__
        functions = from_table(TABLE, 0) if rewards is None else rewards
        options = {"max_steps": 1, "log_completions": True} | options
        trainer = make_trainer(tiny_model_dir, tmp_path, functions, trainer=Watched, **options)
        return trainer, trained

    return build


def assert_trained_with(trained: list[float], want: torch.Tensor) -> None:
    torch.testing.assert_close(torch.tensor(trained).sort().values, want.float().sort().values)  # TRL shuffles rows


def recorded(folder: Path) -> torch.Tensor:
    rows = pd.read_parquet(folder / "channels" / "000001.parquet")
    return torch.tensor(rows.drop_duplicates("completion").sort_values("completion").advantage.to_numpy())


# --- rewards that an override changes ---------------------------------------------------------------------------------


def doubled_second(rewards: torch.Tensor) -> torch.Tensor:
    return rewards * torch.tensor([1.0, -2.0])


def clipped(rewards: torch.Tensor) -> torch.Tensor:
    return rewards.clamp(-0.5, 0.5)


def masked(rewards: torch.Tensor) -> torch.Tensor:
    """Rows as of truncated completions, which nothing should be learned from."""
    rewards = rewards.clone()
    rewards[[1, 6]] = torch.nan
    return rewards


def masked_in_place(rewards: torch.Tensor) -> torch.Tensor:
    rewards[[0, 5], 1] = torch.nan
    return rewards


CHANGES = [doubled_second, clipped, masked, masked_in_place]


def subclass(change: Callable) -> type:
    class Shaped(RVPOTrainer):
        def _calculate_rewards(self, *args):
            return change(super()._calculate_rewards(*args))

    return Shaped


def mixin_in_front(change: Callable) -> type:
    class Shaping:
        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
            return change(super()._calculate_rewards(inputs, prompts, completions, completion_ids_list))

    return type("Shaped", (Shaping, RVPOTrainer), {})


def behind(change: Callable) -> type:
    class Theirs(GRPOTrainer):
        def _calculate_rewards(self, *args):
            return change(super()._calculate_rewards(*args))

    return type("Shaped", (RVPOMixin, Theirs), {})


def without_super(change: Callable) -> type:
    class Shaped(RVPOTrainer):
        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
            keywords = {"completions": completions, "trainer_state": self.state}
            columns = [torch.tensor(function(**keywords)) for function in self.reward_funcs]
            return change(torch.stack(columns, 1))

    return Shaped


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", [subclass, mixin_in_front, behind, without_super])
def test_changed_rewards_are_trained_on(make, tmp_path: Path, place: Callable, change: Callable):
    trainer, trained = make(place(change))
    trainer.train()

    want = ours(change(torch.tensor(TABLE[0])))
    assert (want - ours(torch.tensor(TABLE[0]))).abs().max() > 0.05
    assert_trained_with(trained, want)
    torch.testing.assert_close(recorded(tmp_path).float(), want)
    logged = pd.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
    shown = torch.tensor(logged[["channel_0", "channel_1"]].to_numpy(), dtype=torch.float32)
    torch.testing.assert_close(ours(shown), want)  # TRL's own log shows the rewards that count


def test_a_method_set_on_the_object_counts(make):
    trainer, trained = make(RVPOTrainer)
    inner = trainer._calculate_rewards
    trainer._calculate_rewards = types.MethodType(lambda self, *args: clipped(inner(*args)), trainer)
    trainer.train()
    assert_trained_with(trained, ours(clipped(torch.tensor(TABLE[0]))))
    assert "_calculate_rewards" in vars(trainer)  # it is still there


def rubric_trainer(make, change: Callable, **options: Any):
    verdicts = torch.rand(4, N, 3, generator=torch.Generator().manual_seed(2)).tolist()
    rewards = [*from_table(TABLE, 0), RubricReward(Scripted(verdicts), max_missing=0.1)]
    return make(subclass(change), rewards, dataset=rubric_prompts([3] * 6), **options), verdicts


def test_rows_that_are_masked_are_masked_in_rubrics_too(make, tmp_path: Path):
    (trainer, trained), verdicts = rubric_trainer(make, masked)
    trainer.train()
    rows = torch.cat([torch.tensor(TABLE[0]), torch.tensor(verdicts[0])], 1)
    weights = [1.0, 1.0, *[1 / 3] * 3]  # a criterion's share of its rubric
    rows[[1, 6]] = torch.nan
    assert sum(value == 0 for value in trained) == 2
    written = pd.read_parquet(tmp_path / "channels" / "000001.parquet")
    lost = written[written.completion.isin([1, 6])]
    assert lost.reward.isna().all()
    assert set(lost[lost.criterion.notna()].reason) == {"masked"}
    assert written[~written.completion.isin([1, 6])].reward.notna().all()
    assert len(weights) == rows.shape[1]


def test_a_rubric_whose_number_is_changed_is_refused(make):
    def half(rewards: torch.Tensor) -> torch.Tensor:
        return rewards * 0.5

    (trainer, _), _ = rubric_trainer(make, half)
    with pytest.raises(EngineError, match=r"rubric reward 'rubric' is a channel for each criterion, .* changes its"):
        trainer.train()


# --- half a change ----------------------------------------------------------------------------------------------------


class Plain(GRPOTrainer):
    """A peer's trainer."""


@pytest.mark.parametrize("trainer", [GRPOTrainer, Plain, RLOOTrainer, Trainer])
def test_our_config_in_another_trainer_is_refused(tiny_model_dir: Path, tmp_path: Path, trainer: type):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    own = {} if trainer is Trainer else {"reward_funcs": even}
    args = RVPOConfig(str(tmp_path), method="lift", **CPU)
    with pytest.raises(ConfigError, match=rf"RVPOConfig is given to {trainer.__name__}, .*'lift'.*RVPOTrainer"):
        trainer(model=model, args=args, train_dataset=prompts(), **own)


def test_a_class_that_skips_our_init_is_refused(tiny_model_dir: Path, tmp_path: Path):
    class Skips(RVPOTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            GRPOTrainer.__init__(self, *args, **kwargs)

    with pytest.raises(ConfigError, match=r"RVPOConfig is given to Skips"):
        Skips(str(tiny_model_dir), even, RVPOConfig(str(tmp_path), **CPU), prompts())


def test_the_config_of_a_trainer_of_ours_is_refused_elsewhere_afterwards(make, tiny_model_dir: Path):
    trainer, _ = make(RVPOTrainer)
    with pytest.raises(ConfigError, match=r"RVPOConfig is given to GRPOTrainer"):
        GRPOTrainer(str(tiny_model_dir), even, copy.copy(trainer.args), prompts())


def test_a_trainer_of_ours_may_look_for_options_of_other_versions(make):
    """As TRL and transformers do with ``getattr(self.args, …, None)`` and ``hasattr``."""

    class Looks(RVPOTrainer):
        def log(self, logs, *args):
            assert getattr(self.args, "of_another_version", None) is None
            assert not hasattr(self.args, "normalize_advantages")
            super().log(logs, *args)

    trainer, trained = make(Looks)
    trainer.train()
    assert trained


def test_a_mixin_behind_the_trainer_is_refused():
    with pytest.raises(ConfigError, match=r"class Wrong\(GRPOTrainer, RVPOMixin\) has RVPOMixin after GRPOTrainer"):
        type("Wrong", (GRPOTrainer, RVPOMixin), {})
    with pytest.raises(ConfigError, match=r"class Wrong\(Plain, RVPOMixin\)"):
        type("Wrong", (Plain, RVPOMixin), {})


def test_another_algorithm_is_refused(tiny_model_dir: Path, tmp_path: Path):
    mixed = type("Mine", (RVPOMixin, RLOOTrainer), {})
    for args in (RVPOConfig(str(tmp_path), **CPU), RLOOConfig(str(tmp_path), **CPU)):
        with pytest.raises(ConfigError, match=r"in front of RLOOTrainer; expected trl.GRPOTrainer"):
            mixed(str(tiny_model_dir), even, args, prompts())
    with pytest.raises(ConfigError, match=r"in front of no trainer; expected trl.GRPOTrainer"):
        type("Mine", (RVPOMixin,), {})(str(tiny_model_dir), even)


def copied(cls: type) -> dict[str, Callable]:
    """TRL's own generation as a copy in another class, as peers have it."""
    theirs = GRPOTrainer._generate_and_score_completions

    def _generate_and_score_completions(self, inputs):
        return theirs(self, inputs)

    return {"_generate_and_score_completions": _generate_and_score_completions}


def test_a_copied_generation_in_front_is_refused(make):
    trainer, trained = make(type("Copy", (RVPOTrainer,), copied(RVPOTrainer)))
    with pytest.raises(EngineError, match=r"Copy has generated completions without RVPO's advantages.*super\(\)"):
        trainer.train()
    assert not trained


def test_a_copied_generation_behind_is_replaced(make):
    theirs = type("Theirs", (GRPOTrainer,), copied(GRPOTrainer))
    trainer, trained = make(type("Mine", (RVPOMixin, theirs), {}))
    trainer.train()
    assert_trained_with(trained, ours(torch.tensor(TABLE[0])))


def test_a_preparation_that_does_not_come_past_us_is_refused(make):
    class Own(RVPOTrainer):
        def _prepare_inputs(self, batch):
            return GRPOTrainer._prepare_inputs(self, batch)

    trainer, _ = make(Own)
    before = torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).clone()
    with pytest.raises(EngineError, match=r"Own trains on completions without RVPO's advantages: its _prepare_inputs"):
        trainer.train()
    assert torch.equal(before, torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))


def scaled(output: dict) -> None:
    output["advantages"] = output["advantages"] * 0.5


def positive_only(output: dict) -> None:
    output["advantages"] = output["advantages"].clamp(min=0)


def one_row_dropped(output: dict) -> None:
    output["advantages"][3] = 0.0


def by_token(output: dict) -> None:
    output["advantages"] = output["advantages"][:, None].expand_as(output["completion_ids"])


@pytest.mark.parametrize("change", [scaled, positive_only, one_row_dropped, by_token])
def test_advantages_that_a_class_behind_changed_are_not_overwritten(make, change: Callable):
    class Theirs(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            change(output)
            return output

    trainer, trained = make(type("Mine", (RVPOMixin, Theirs), {}))
    with pytest.raises(EngineError, match=r"class Theirs, which comes after RVPOMixin, returns other advantages"):
        trainer.train()
    assert not trained


@pytest.mark.parametrize("change", [scaled, positive_only, one_row_dropped])
def test_advantages_that_a_class_in_front_changed_are_used_and_recorded(make, tmp_path: Path, change: Callable):
    class Mine(RVPOTrainer):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            change(output)
            return output

    trainer, trained = make(Mine)
    trainer.train()
    want = {"advantages": ours(torch.tensor(TABLE[0])), "completion_ids": torch.zeros(N, 1)}
    change(want)
    assert_trained_with(trained, want["advantages"])
    torch.testing.assert_close(recorded(tmp_path).float(), want["advantages"])
    logged = pd.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
    torch.testing.assert_close(torch.tensor(logged.advantage.to_numpy()).float(), want["advantages"])


def test_rewards_of_any_size_and_constants_are_not_mistaken_for_a_change(make):
    """What TRL makes of rounding alone is no sign of another class."""
    generator = torch.Generator().manual_seed(3)
    large = 1e6 + torch.randn(N, generator=generator)
    constant = torch.full((N,), 0.1)
    small = 1e-6 * torch.randn(N, generator=generator)
    for columns in ([large, constant], [constant, constant * 3], [small, constant], [large * 1e3, small]):
        trainer, trained = make(RVPOTrainer, from_table([torch.stack(columns, 1).tolist()], 0))
        trainer.train()
        assert len(trained) == N


# --- TRL's variants ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"method": "grpo", "scale_rewards": "none"}, {"scale_rewards": "none"}),
        ({"method": "grpo", "scale_rewards": False}, {"scale_rewards": False}),
        ({"method": "grpo:whiten=none"}, {"scale_rewards": "none"}),
        ({"method": {"name": "grpo"}, "scale_rewards": "batch"}, {"scale_rewards": "batch"}),
        ({"method": rvpo.GRPO(whiten="batch")}, {"scale_rewards": "batch"}),
        ({"method": "grpo", "scale_rewards": True}, {"scale_rewards": True}),
        (
            {"method": "gdpo", "multi_objective_aggregation": "normalize_then_sum"},
            {"multi_objective_aggregation": "normalize_then_sum"},
        ),
        (
            {"method": "gdpo:unscored=zero"},
            {"multi_objective_aggregation": "normalize_then_sum"},
        ),
    ],
    ids=str,
)
def test_variants_of_trl_are_had(make, options: dict, plain: dict):
    """With a reward of None, too, in a row that has another reward."""
    table = copy.deepcopy(TABLE)
    if options["method"] != "gdpo":
        table[0][2][0] = table[0][7][1] = None
    functions = from_table(table, 0)
    _, mine = (made := make(RVPOTrainer, functions, **options))
    made[0].train()
    _, theirs = (made := make(GRPOTrainer, functions, config=GRPOConfig, **plain))
    made[0].train()
    assert max(map(abs, theirs)) > 0.3
    torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), atol=2e-6, rtol=1e-5)


def test_the_record_of_a_variant_replays(make, tmp_path: Path):
    trainer, _ = make(RVPOTrainer, method="grpo", scale_rewards="none")
    trainer.train()
    assert str(open_run(tmp_path).config) == "grpo:whiten=none"
    assert trainer.args.method == "grpo:whiten=none"


def test_other_methods_are_whitened_as_said(make):
    trainer, trained = make(RVPOTrainer, [even, high], method="rvpo:k=2", scale_rewards="none")
    trainer.train()
    assert trainer.args.method == "rvpo:k=2,whiten=none"
    assert len(trained) == N


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({}, "grpo"),
        ({"scale_rewards": "none"}, "grpo:whiten=none"),
        ({"scale_rewards": "batch"}, "grpo:whiten=batch"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "gdpo:unscored=zero"),
    ],
    ids=str,
)
def test_a_plain_trl_run_with_a_missing_reward_is_recognised(make, tmp_path: Path, options: dict, own: str):
    """And what it cost that TRL reads None as 0 is told."""
    table = copy.deepcopy(TABLE)
    for row in (2, 5):
        table[1][row][0] = None
    levels = [[[None if x is None else x + 3 for x in row] for row in step] for step in table]
    trainer, _ = make(GRPOTrainer, from_table(levels, 0), config=GRPOConfig, max_steps=3, **options)
    trainer.train()
    run = open_run(tmp_path)
    again = replay(run, [])
    assert again.own == own
    assert again.own_difference < 1e-5
    (note,) = [note for note in diagnose(run).notes if "missing" in note]
    assert note.startswith("2 of 24 completions have some scored and some missing rewards, mostly 'channel_0'")
    turned = re.search(r"as TRL does\. If it were left out, (\d+) advantages would have a different sign", note)
    assert int(turned.group(1)) >= 1


def test_a_run_without_missing_rewards_has_no_such_note(make, tmp_path: Path):
    trainer, _ = make(GRPOTrainer, config=GRPOConfig)
    trainer.train()
    run = open_run(tmp_path)
    assert replay(run, []).own == "grpo"
    assert not [note for note in diagnose(run).notes if "missing" in note]
