"""``RVPOTrainer`` with a real tiny model and TRL's real training loop."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")
pytest.importorskip("peft")

import pandas as pd
from peft import LoraConfig
from tiny_run import G, N, even, from_table, high, make_trainer, parameters, prompts, recording, steps
from transformers import AutoTokenizer, HfArgumentParser
from trl import GRPOConfig, GRPOTrainer

import rvpo
from rvpo.core.metrics import CHANNEL_METRICS
from rvpo.engines.trl.trainer import _IN_ORDER
from rvpo.errors import ConfigError, EngineError, RewardError
from rvpo.trl import RVPOConfig, RVPOTrainer

METHODS = ["rvpo", "rvpo_explicit", "hard_min", "gdpo", "grpo"]
NONE = None  # a reward function's "not scored"


@pytest.fixture
def make(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a builder of trainers on the tiny model; see ``tiny_run.make_trainer``."""

    def build(rewards: list[Callable] | None = None, **options: Any) -> Any:
        return make_trainer(tiny_model_dir, options.pop("output", tmp_path), rewards, **options)

    return build


def random_table(n_steps: int, rows: int = N, channels: int = 3, missing: float = 0.2) -> list:
    """Rewards (steps, N, M) of every kind: binary, graded, dead groups, missing cells, rows and channels."""
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(n_steps, rows, channels, generator=generator)
    r[..., 0] = (r[..., 0] > 0).float()
    r[0, :G, 1] = 0.5  # dead in the first group
    r[torch.rand(r.shape, generator=generator) < missing] = torch.nan
    r[1, 2] = torch.nan  # a completion that nothing scored
    r[-1, :, -1] = torch.nan  # a channel that scored nothing
    return [[[None if math.isnan(x) else x for x in row] for row in step] for step in r.tolist()]


def tensor(step: list[list[float | None]]) -> torch.Tensor:
    return torch.tensor([[torch.nan if x is None else x for x in row] for row in step])


# --- the advantages are ours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_our_advantages(make, method: str):
    """Missing cells, rows and channels, dead channels and weights, over several steps."""
    table, weights, seen = random_table(3), [1.0, 2.0, 0.5], []
    trainer = make(from_table(table, 0), trainer=recording(seen), method=method, reward_weights=weights)
    before = parameters(trainer)

    trainer.train()

    for rewards, got in zip(table, seen, strict=True):
        want = rvpo.advantages(tensor(rewards), num_generations=G, method=method, weights=weights).advantages
        assert want.abs().max() > 0.5
        torch.testing.assert_close(torch.tensor(got["local"]), want)
        torch.testing.assert_close(torch.tensor(got["all"]), want)
    assert seen[1]["local"][2] == 0
    assert parameters(trainer).isfinite().all()
    assert not torch.equal(parameters(trainer), before)


def test_the_policy_gradient_uses_them(make):
    """What reaches the loss, batch by batch, is what the core returns, row for row."""
    table, used = random_table(2, missing=0.0), []

    class Spy(RVPOTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            used.extend(inputs["advantages"].tolist())
            return super().compute_loss(model, inputs, *args, **kwargs)

    options = {"per_device_train_batch_size": N // 2, "gradient_accumulation_steps": 2, "max_steps": 1}
    trainer = make(from_table(table, 0), trainer=Spy, **options)
    trainer.train()

    want = rvpo.advantages(tensor(table[0]), num_generations=G).advantages
    assert len(used) == N
    torch.testing.assert_close(torch.tensor(used).sort().values, want.sort().values)  # TRL shuffles the rows


@pytest.mark.parametrize("method", METHODS)
def test_completions_log_shows_them(make, tmp_path: Path, method: str):
    trainer = make(method=method, log_completions=True, max_steps=2, missing_rewards="error")
    trainer.train()

    files = sorted((tmp_path / "completions").glob("*.parquet"))
    assert len(files) == 2
    for file in files:
        table = pd.read_parquet(file)
        rewards = torch.tensor(table[["even", "high"]].to_numpy(), dtype=torch.float32)
        want = rvpo.advantages(rewards, num_generations=G, method=method).advantages
        torch.testing.assert_close(torch.tensor(table["advantage"].to_numpy(), dtype=torch.float32), want)


@pytest.mark.parametrize(
    ("method", "aggregation"), [("gdpo", "normalize_then_sum"), ("grpo", "sum_then_normalize")], ids=["gdpo", "grpo"]
)
def test_gdpo_and_grpo_equal_plain_trl(make, tmp_path: Path, method: str, aggregation: str):
    """A whole run: same losses, gradients and parameters. Plain SGD, since Adam divides by gradients of nearly 0."""
    options = {"max_steps": 4, "optim": "sgd", "learning_rate": 0.3, "reward_weights": [1.0, 0.5], "num_iterations": 2}
    ours = make(output=tmp_path / "ours", method=method, **options)
    start = parameters(ours)
    ours.train()  # before the other is built, which seeds
    plain = {"trainer": GRPOTrainer, "config": GRPOConfig, "multi_objective_aggregation": aggregation}
    theirs = make(output=tmp_path / "theirs", **plain, **options)
    theirs.train()

    for step, entry in steps(theirs).items():
        mine = steps(ours)[step]
        for key in ("loss", "grad_norm", "entropy"):
            assert mine[key] == pytest.approx(entry[key], abs=1e-5), (step, key)
        assert all(mine[key] == entry[key] for key in entry if key.startswith(("reward", "completions/")))
    assert (parameters(theirs) - start).abs().max() > 0.01
    torch.testing.assert_close(parameters(ours), parameters(theirs), atol=1e-6, rtol=0)


def test_options_reach_the_core(make):
    table, seen = random_table(2, missing=0.0), []
    spelled = "rvpo:k=3,whiten=group,dead_channels=keep"
    options = {"method": spelled, "advantage_eps": 0.1, "advantage_ddof": 0}
    make(from_table(table, 0), trainer=recording(seen), max_steps=1, **options).train()

    want = rvpo.advantages(tensor(table[0]), num_generations=G, method=spelled, eps=0.1, ddof=0).advantages
    torch.testing.assert_close(torch.tensor(seen[0]["local"]), want)


def test_missing_rewards_can_be_refused(make):
    trainer = make(from_table(random_table(3), 0), missing_rewards="error")
    message = r"'channel_0' gave no reward \(None or NaN\) for completion 2, .*; expected finite"
    with pytest.raises(RewardError, match=message):
        trainer.train()


# --- TRL's features -----------------------------------------------------------------------------------------------


def test_sync_and_async_reward_functions(make):
    async def later(completion_ids: list, **kwargs: Any) -> list[float]:
        return high(completion_ids, **kwargs)

    trainer = make([even, later])
    trainer.train()
    plain = make([even, high])
    plain.train()
    assert torch.equal(parameters(trainer), parameters(plain))
    assert steps(trainer)[3]["rvpo/later/mean"] == steps(plain)[3]["rvpo/high/mean"]


def test_rollouts_that_nothing_scored_do_not_train(make):
    def silent(completions: list, **_: Any) -> list[None]:
        return [NONE] * len(completions)

    def mute(completions: list, **_: Any) -> list[None]:
        return [NONE] * len(completions)

    trainer = make([silent, mute], max_steps=2)
    before = parameters(trainer)
    trainer.train()
    assert torch.equal(parameters(trainer), before)
    last = steps(trainer)[2]
    assert (last["rvpo/silent/missing"], last["rvpo/no_signal/groups"], last["rvpo/no_signal/completions"]) == (1, 1, N)
    assert last["rvpo/silent/mean"] is None


def test_lora(make):
    trainer = make(peft_config=LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("lora" in name for name in moved)


def test_a_generation_is_scored_once_for_all_its_steps(make):
    """Two iterations over a generation batch of two optimizer steps: one generation for four steps."""
    seen: list = []
    options = {"per_device_train_batch_size": N // 2, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
    trainer = make(trainer=recording(seen), num_iterations=2, max_steps=5, dataset=prompts(4), **options)
    trainer.train()
    assert [len(entry["local"]) for entry in seen] == [2 * N, 2 * N]
    assert ["rvpo/k" in entry for entry in steps(trainer).values()] == [True, False, False, False, True]


@pytest.mark.parametrize("generations", [1, 2, G])
def test_evaluation_before_and_while_training(make, generations: int):
    """Groups of the evaluation's own size; k is the training's, and is its start before training."""
    seen: list = []
    trainer = make(
        trainer=recording(seen),
        eval_dataset=prompts(4),
        per_device_eval_batch_size=4,
        num_generations_eval=generations,
        eval_strategy="steps",
        eval_steps=1,
        method="rvpo:k=linear(0.5,2)",
    )
    assert trainer.state.max_steps == 0
    before = trainer.evaluate()
    assert before["eval_rvpo/k"] == 0.5
    live = before["eval_rvpo/even/live"]
    if generations == 1:
        assert live == 0
        assert all(a == 0 for entry in seen for a in entry["local"])
        assert before["eval_rvpo/even/responsibility"] is None
        assert before["eval_rvpo/no_signal/groups"] == 1
    else:
        assert live > 0
    trainer.train()
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [(entry["step"], entry["eval_rvpo/k"]) for entry in evaluations] == [(1, 1.25), (2, 2.0), (3, 2.0)]
    assert [entry["rvpo/k"] for entry in steps(trainer).values()] == [0.5, 1.25, 2.0]


def test_kl_to_a_reference_model(make):
    """TRL's ``beta`` is the KL coefficient, whatever the method."""
    trainer = make(beta=0.1, method="rvpo_explicit:beta=0.25")
    trainer.train()
    assert steps(trainer)[3]["kl"] > 0


def test_learns(make):
    """Both channels of an easy task go from chance (0.5) to nearly always within seconds."""
    trainer = make(max_steps=14, per_device_train_batch_size=32, num_generations=8, learning_rate=3e-2)
    trainer.train()
    log = list(steps(trainer).values())
    for channel in ("even", "high"):
        values = [entry[f"rvpo/{channel}/mean"] for entry in log]
        assert values[0] < 0.8
        assert sum(values[-3:]) / 3 > 0.9


# --- metrics ------------------------------------------------------------------------------------------------------


def test_metric_names_are_a_contract(make):
    trainer = make(max_steps=4, num_generations=2)
    trainer.train()
    want = {f"rvpo/{channel}/{metric}" for channel in ("even", "high") for metric in CHANNEL_METRICS}
    want |= {
        "rvpo/even/neglected",
        "rvpo/high/neglected",
        "rvpo/no_signal/groups",
        "rvpo/no_signal/completions",
        "rvpo/advantage_std",
        "rvpo/aggregated_std",
        "rvpo/effective_channels",
        "rvpo/k",
    }
    want |= {f"rvpo/{channel}/{counter}" for channel in ("even", "high") for counter in ("unexplored", "suppressed")}
    of_questions = ("solved_some", "solved_all")
    want |= {f"rvpo/{channel}/{counter}" for channel in ("even", "high") for counter in of_questions}
    want |= {f"rvpo/solved/{key}" for key in ("none", "some", "all", "groups", "pass_groups", "pass@1", "pass@2")}
    assert CHANNEL_METRICS == (
        "mean",
        "std",
        "live",
        "dead",
        "missing",
        "responsibility",
        "bottleneck",
        "advantage_corr",
    )
    assert sorted(steps(trainer)) == [1, 2, 3, 4]
    for entry in steps(trainer).values():
        ours = {key: value for key, value in entry.items() if key.startswith("rvpo/")}
        assert set(ours) == want
        assert all(value is None or math.isfinite(value) for value in ours.values())
        for channel in ("even", "high"):
            shares = [ours[f"rvpo/{channel}/{state}"] for state in ("live", "dead", "missing")]
            assert sum(shares) == pytest.approx(1)
            assert ours[f"rvpo/{channel}/mean"] == pytest.approx(entry[f"rewards/{channel}/mean"], abs=1e-6)
        responsibility = [ours[f"rvpo/{channel}/responsibility"] for channel in ("even", "high")]
        if None not in responsibility:
            assert sum(responsibility) == pytest.approx(1)


@pytest.mark.parametrize("method", ["gdpo", "grpo", "hard_min", "rvpo_explicit"])
def test_only_the_soft_minimum_logs_k(make, method: str):
    trainer = make(method=method, max_steps=1)
    trainer.train()
    assert "rvpo/k" not in steps(trainer)[1]
    assert "rvpo/even/responsibility" in steps(trainer)[1]


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, [1.0] * 5),
        ({"method": "rvpo:k=0.5"}, [0.5] * 5),
        ({"method": "rvpo:k=linear(0.5,2.5)"}, [0.5, 1.0, 1.5, 2.0, 2.5]),
        # Half a cosine wave: 0.5 + 2 * (1 - cos(pi * t)) / 2 at t = 0, 1/4, 1/2, 3/4, 1.
        (
            {"method": {"name": "rvpo", "k": "cosine(0.5,2.5)"}},
            [0.5, 1.5 - math.sqrt(0.5), 1.5, 1.5 + math.sqrt(0.5), 2.5],
        ),
    ],
    ids=["default", "constant", "linear", "cosine"],
)
def test_k_follows_its_schedule(make, options: dict, want: list[float]):
    trainer = make(max_steps=5, **options)
    trainer.train()
    assert [entry["rvpo/k"] for entry in steps(trainer).values()] == pytest.approx(want)


# --- the warning about channels that are rarely met ---------------------------------------------------------------


def met_in(successes: int, n_steps: int = 3) -> list[Callable]:
    """Return two binary channels, met in ``successes`` and in 4 of 8 rollouts of each prompt."""
    rows = [[float(i < successes), float(i % 2)] for i in range(8)] * 4
    return from_table([rows] * n_steps, 0)


WARN = {"per_device_train_batch_size": 32, "num_generations": 8}


def test_rarely_met_channel_is_warned_about_once(make, caplog):
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        make(met_in(1), **WARN).train()
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("rvpo")]
    assert len(messages) == 1
    assert "k = 1 suppresses channels that are rarely met, and 'channel_0' is met in under about 30%" in messages[0]
    assert "method='lift'" in messages[0]


def test_the_warning_waits_until_k_is_1(make, caplog):
    trainer = make(met_in(1, 4), max_steps=4, method="rvpo:k=linear(0.5,2)", **WARN)
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        trainer.train()
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("rvpo")]
    assert len(messages) == 1
    assert "k = 1 " in messages[0]


@pytest.mark.parametrize(
    ("successes", "options"),
    [
        (1, {"method": "rvpo:k=0.5"}),
        (1, {"method": "gdpo"}),
        (7, {}),
        (4, {"method": "rvpo:k=5"}),
        (0, {}),  # never met: dead everywhere, so nothing is suppressed
    ],
    ids=["small k", "gdpo", "mostly met", "met in half", "dead"],
)
def test_no_warning_otherwise(make, caplog, successes: int, options: dict):
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        make(met_in(successes), **WARN, **options).train()
    assert not [record for record in caplog.records if record.name.startswith("rvpo")]


# --- what is refused ----------------------------------------------------------------------------------------------

CPU = {"use_cpu": True, "bf16": False, "report_to": "none"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scale_rewards": "batch", "method": "gdpo:whiten=group"},
            r"scale_rewards is 'batch', but method 'gdpo:whiten=group' has .*drop scale_rewards",
        ),
        ({"scale_rewards": "rows"}, r"scale_rewards is 'rows'; expected 'group', 'batch' or 'none'"),
        (
            {"multi_objective_aggregation": "normalize_then_sum"},
            r"multi_objective_aggregation is 'normalize_then_sum', but method is 'rvpo:k=1'.*normalize_then_sum is",
        ),
        (
            {"reward_weights": [1.0, -0.5]},
            r"reward_weights is \[1.0, -0.5\]; expected a list of finite numbers >= 0.* Negate",
        ),
        ({"method": "softmin"}, r"method is 'softmin'.*; expected one of rvpo"),
        ({"method": "gdpo:k=1"}, r"k is 1, but method 'gdpo' has no option 'k'"),
        ({"method": {"name": "hard_min", "k": "linear"}}, r"k is 'linear', but method 'hard_min' has no option 'k'"),
        ({"method": "rvpo:k=step(1,2)"}, r"k is 'step\(1,2\)'; expected a number"),
        ({"method": "rvpo:k=-1"}, r"k is -1; expected a number in \[0, inf"),
        ({"method": "rvpo:beta=0.5"}, r"beta is 0.5, but method 'rvpo' has no option 'beta'"),
        ({"method": "rvpo_explicit:beta=-1"}, r"beta is -1; expected a number in \[0, inf"),
        ({"method": "gdpo:whiten=rows"}, r"whiten is 'rows'; expected one of None, 'batch'"),
        ({"method": "gdpo:whiten=token"}, r"whiten is 'token', which only verl's engine knows"),
        ({"method": 3}, r"method is 3; expected a text"),
        ({"missing_rewards": "zero"}, r"missing_rewards is 'zero'; expected one of 'drop', 'error'"),
        ({"reward_weights": [0.0, 0.0]}, r"reward_weights is \[0.0, 0.0\]; .*at least one above 0"),
        ({"method": "grpo:dead_channels=drop"}, r"is not GRPO"),
        ({"method": "grpo:unscored=drop"}, r"unscored is 'drop'; expected one of 'zero', 'left_out'"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_refused_when_built(tmp_path: Path, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        RVPOConfig(output_dir=str(tmp_path), **CPU, **options)


def test_plain_config_is_refused(tiny_model_dir: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"args is a GRPOConfig; expected rvpo.trl.RVPOConfig. Rename"):
        RVPOTrainer(str(tiny_model_dir), even, GRPOConfig(output_dir=str(tmp_path), **CPU), prompts())


def test_trl_refuses_its_own_misuse_still(make):
    with pytest.raises(ValueError, match="reward weights"):
        make(reward_weights=[1.0, 1.0, 1.0])


# --- the seam -----------------------------------------------------------------------------------------------------


def test_loud_when_trl_scores_elsewhere(make, monkeypatch):
    """As if a TRL release had renamed ``_calculate_rewards``."""
    generate = GRPOTrainer._generate_and_score_completions

    def renamed(self, inputs):
        self._calculate_rewards = lambda *args: GRPOTrainer._calculate_rewards(self, *args)
        return generate(self, inputs)

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", renamed)
    with pytest.raises(EngineError, match=r"TRL passed no rewards for 8 completions .* `rvpo doctor`"):
        make().train()


def test_loud_when_trl_does_not_gather(make, monkeypatch):
    """As if a TRL release had left the rewards of other processes where they are."""
    score = GRPOTrainer._calculate_rewards
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda self, *args: score(self, *args)[:4])
    with pytest.raises(EngineError, match=r"TRL passed rewards of shape \(4, 2\) for 8 completions"):
        make().train()


# --- drop-in ------------------------------------------------------------------------------------------------------


def test_signature_is_a_drop_in():
    """The mixin hands on whatever comes; it knows the place of the first three parameters alone."""
    theirs = list(inspect.signature(GRPOTrainer.__init__).parameters)
    assert theirs[1:4] == list(_IN_ORDER)


def test_positional_arguments(tiny_model_dir: Path, tmp_path: Path):
    """TRL's order: model, reward_funcs, args, train_dataset, eval_dataset, processing_class."""
    args = RVPOConfig(str(tmp_path), max_steps=1, num_generations=2, max_completion_length=2, **CPU)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    data = prompts(4)
    trainer = RVPOTrainer(str(tiny_model_dir), [even, high], args, data, data, tokenizer)
    assert trainer.eval_dataset is not None
    assert trainer.processing_class is tokenizer
    assert trainer.train().global_step == 1


def test_without_args(tiny_model_dir: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # TRL's default of bf16 needs a GPU.
    monkeypatch.setattr(RVPOConfig, "__post_init__", _on_cpu(RVPOConfig.__post_init__))
    trainer = RVPOTrainer(str(tiny_model_dir), even, train_dataset=prompts())
    assert isinstance(trainer.args, RVPOConfig)
    assert trainer.args.method == "rvpo"
    assert Path(trainer.args.output_dir).name == f"{tiny_model_dir.name}-RVPO"  # TRL: the model's name and -GRPO


def _on_cpu(post_init: Callable) -> Callable:
    def on_cpu(self):
        self.use_cpu, self.bf16 = True, False
        post_init(self)

    return on_cpu


def test_checkpoint_has_a_model_card(make, tmp_path: Path):
    """What the card says is tested in test_model_card.py."""
    make(max_steps=1, save_strategy="steps", save_steps=1).train()
    assert "RVPO" in (tmp_path / "README.md").read_text("utf-8")
    assert (tmp_path / "checkpoint-1" / "model.safetensors").exists()


def test_config_parses_from_the_command_line(tmp_path: Path):
    line = (
        f"--output_dir {tmp_path} --use_cpu --bf16 false --method rvpo:k=linear(0.5,2),dead_channels=keep "
        "--missing_rewards error --advantage_eps 1e-6 --reward_weights 1 2 --num_generations 4"
    )
    (config,) = HfArgumentParser(RVPOConfig).parse_args_into_dataclasses(line.split())
    assert config.num_generations == 4
    assert config.advantage_config().method == rvpo.RVPO(rvpo.Linear(0.5, 2.0), dead_channels="keep")
    assert config.reward_weights == [1, 2]


def test_config_survives_its_dictionary(tmp_path: Path):
    """TRL and transformers write configs as dictionaries, into checkpoints and trackers."""
    for method in ("lift:kappa=3", {"name": "lift", "kappa": 3}, rvpo.LIFT(3)):
        config = RVPOConfig(str(tmp_path), method=method, **CPU)
        assert json.loads(config.to_json_string())["method"] == (method if isinstance(method, dict) else "lift:kappa=3")
        assert copy.deepcopy(config).advantage_config().method == rvpo.LIFT(3)


def test_vllm_options_pass_through(tmp_path: Path):
    options = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.25,
        "vllm_tensor_parallel_size": 2,
        "vllm_importance_sampling_correction": False,
    }
    config = RVPOConfig(str(tmp_path), method="rvpo:k=2", **CPU, **options)
    assert {key: getattr(config, key) for key in options} == options
    assert config.advantage_config().method == rvpo.RVPO(2.0)


def test_reward_functions_of_one_name_are_refused(make):
    with pytest.raises(
        ConfigError,
        match=r"2 reward functions are named .even.*a different name for each: pass reward_funcs as a dict",
    ):
        make([even, high, even])
