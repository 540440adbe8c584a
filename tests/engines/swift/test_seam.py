"""ms-swift's seam, on a stand-in with its functions and methods: what is replaced, and what is refused.

``test_training.py`` does the same with ms-swift itself, in an environment of its own: ``make test-swift``.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import rvpo
from rvpo.engines.swift import plugin, seam
from rvpo.errors import ConfigError, EngineError, RewardError

NAMES = ["correct", "short", "safe"]
COMMON = "advantage_estimator='grpo', scale_rewards='group', kl_in_reward=False, beta=0.0, kl_values=None"
FUNCTIONS = f"""
def compute_advantages(rewards_per_func, reward_weights, num_generations, {COMMON}):
    return rewards_per_func.nansum(1), rewards_per_func.nansum(1)

def compute_advantages_dynamic(rewards_per_func, reward_weights, prompt_ids, request_ids, {COMMON}):
    return rewards_per_func.nansum(1), rewards_per_func.nansum(1)
"""
TRAINERS = """
import torch
from types import SimpleNamespace
from swift.rl_core.advantage import *
from swift.trainers.mixin import SwiftMixin

class GRPOTrainer(SwiftMixin):
    def __init__(self, **given):
        super().__init__(**given)
        self.__dict__.update(given)
        self.callbacks = []

    def add_callback(self, callback):
        self.callbacks.append(callback)

    def _compute_advantages(self, samples, rewards, batches):
        settings = dict(advantage_estimator=self.advantage_estimator, scale_rewards=self.scale_rewards,
                        kl_in_reward=self.kl_in_reward, beta=self.beta)
        if not self.dynamic:
            return compute_advantages(rewards_per_func=rewards, reward_weights=self.reward_weights,
                                      num_generations=self.num_generations, **settings)[0]
        return compute_advantages_dynamic(rewards_per_func=rewards, reward_weights=self.reward_weights,
                                          prompt_ids=[s.prompt_id for s in samples],
                                          request_ids=[s.request_id for s in samples], **settings)[0]

    def _postprocess_batch(self, samples, batches):
        advantages = self._compute_advantages(samples, self.rewards, batches)
        for batch in batches:
            batch["grpo_batch"].advantages = advantages[:, None].expand(-1, 3).clone() * self.scaled
            batch["grpo_batch"].completion_mask = torch.tensor([[1, 1, 0]]).expand(len(advantages), -1)

    def _save_checkpoint(self, model, trial):
        self.saved = True

    def _load_optimizer_and_scheduler(self, checkpoint):
        self.loaded = checkpoint
"""
MIXIN = """
class SwiftMixin:
    def __init__(self, **given):
        pass

class DPOTrainer(SwiftMixin):
    pass
"""


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the stand-in in place of ms-swift; ``change(module, old, new)`` changes its text before it is loaded."""
    texts = {seam.HOME: FUNCTIONS, "swift.trainers.mixin": MIXIN, seam.USERS[0]: TRAINERS}

    def load(module: str = "", old: str = "", new: str = "") -> SimpleNamespace:
        for name in ("swift", "swift.rl_core", "swift.trainers", "swift.rlhf_trainers", *texts):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        for name, text in texts.items():
            assert name != module or old in text
            exec(text.replace(old, new) if name == module else text, vars(sys.modules[name]))
            parent, _, last = name.rpartition(".")
            setattr(sys.modules[parent], last, sys.modules[name])
            setattr(sys.modules["swift"], parent.rpartition(".")[2], sys.modules[parent])
        return SimpleNamespace(
            home=sys.modules[seam.HOME], trainers=sys.modules[seam.USERS[0]], every=sys.modules["swift.trainers.mixin"]
        )

    monkeypatch.setattr(plugin, "_used", None)
    return load


def trainer_of(swift: Any, folder: Path, rewards: torch.Tensor, **changed: Any) -> Any:
    settings = {
        "reward_func_names": NAMES,
        "reward_funcs": [SimpleNamespace(reward_range=(-3, 3)), None, None],
        "reward_weights": torch.ones(3),
        "args": SimpleNamespace(output_dir=str(folder), log_completions=False, resume_only_model=False),
        "accelerator": SimpleNamespace(is_main_process=True),
        "model": SimpleNamespace(training=True),
        "state": SimpleNamespace(global_step=0, max_steps=10),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "advantage_estimator": "grpo",
        "scale_rewards": "group",
        "kl_in_reward": False,
        "beta": 0.04,
        "num_generations": 4,
        "rewards": rewards,
        "dynamic": False,
        "scaled": 1.0,
    }
    return swift.trainers.GRPOTrainer(**settings | changed)


def batch(trainer: Any, samples: list[Any] | None = None) -> torch.Tensor:
    """Return the advantages (N,) that reach the loss."""
    encoded = [{"grpo_batch": SimpleNamespace()}]
    trainer._postprocess_batch(samples or [], encoded)
    advantages: torch.Tensor = encoded[0]["grpo_batch"].advantages[:, 0]
    return advantages


def some_rewards(seed: int) -> torch.Tensor:
    """Return rewards (8, 3) of which some are missing."""
    rewards = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    rewards[1, 2] = rewards[6, 0] = torch.nan
    return rewards


def aggregator(method: str = "lift") -> rvpo.Aggregator:
    return rvpo.Aggregator(method, NAMES, ranges={"correct": (-3, 3)})


@pytest.mark.parametrize("method", ["lift", "gdpo", "rvpo:k=2", "grpo"])
def test_the_loss_gets_the_advantages_of_the_aggregator(swift, tmp_path: Path, method: str):
    modules = swift()
    rvpo.engines.swift.plugin.use(method=method)
    trainer, own = trainer_of(modules, tmp_path, some_rewards(0)), aggregator(method)
    for step in range(3):
        trainer.rewards, trainer.state.global_step = some_rewards(step), step
        out = own(some_rewards(step), num_generations=4, progress=step / 9)
        assert torch.equal(batch(trainer), out.advantages)
    assert trainer._metrics["train"]["rvpo/safe/missing"] == [pytest.approx(1 / 8)] * 3
    assert not trainer._metrics["eval"]


OTHERS = {
    "megatron": """
from swift.rl_core.advantage import compute_advantages

class GRPOTrainer:
    def _compute_advantages(self, samples, rewards_per_func, kl_values=None):
        return compute_advantages(rewards_per_func=rewards_per_func, reward_weights=self.reward_weights,
                                  num_generations=4, advantage_estimator="grpo", scale_rewards="group",
                                  kl_in_reward=False, beta=0.1, kl_values=kl_values)

    def of(self, rewards):
        return self._compute_advantages([], rewards)
""",
    "ray": """
from swift.rl_core.advantage import compute_advantages

class GRPOTrainer:
    def compute_advantages(self, rewards_per_func, kl_values=None):
        return compute_advantages(rewards_per_func=rewards_per_func, reward_weights=self.reward_weights,
                                  num_generations=4, advantage_estimator="grpo", scale_rewards="group",
                                  kl_in_reward=False, beta=0.1, kl_values=kl_values)

    def of(self, rewards):
        return self.compute_advantages(rewards)
""",
}


@pytest.mark.parametrize("engine", OTHERS)
def test_trainers_that_are_loaded_later_get_it_too(swift, tmp_path: Path, caplog, engine: str):
    """Megatron's and Ray's: one has models and counts iterations, the other has neither a model nor a state."""
    swift()
    plugin.use(method="lift")
    module = ModuleType(engine)
    exec(OTHERS[engine], vars(module))
    trainer = module.GRPOTrainer()
    trainer.reward_func_names, trainer.reward_weights = NAMES, torch.ones(3)
    trainer.reward_funcs = [SimpleNamespace(reward_range=(-3, 3)), None, None]
    trainer.args = SimpleNamespace(output_dir=str(tmp_path))
    if engine == "megatron":
        trainer.unwrapped_models = [SimpleNamespace(training=True)]
        trainer.state = SimpleNamespace(iteration=3, max_steps=10)
        trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    own = aggregator()
    for seed in range(2):
        advantages, rewards = trainer.of(some_rewards(seed))
        assert torch.equal(advantages, own(some_rewards(seed), num_generations=4, progress=1 / 3).advantages)
        assert torch.equal(rewards, some_rewards(seed).nansum(1))
    assert caplog.text.count("a resumed run begins anew") == 1


def test_a_scheduled_k_is_refused_where_nobody_knows_the_progress(swift, tmp_path: Path):
    swift()
    plugin.use(method="rvpo:k=linear(0.5,2)")
    module = ModuleType("ray")
    exec(OTHERS["ray"], vars(module))
    trainer = module.GRPOTrainer()
    trainer.reward_func_names, trainer.reward_weights, trainer.reward_funcs = NAMES, torch.ones(3), [None] * 3
    trainer.args = SimpleNamespace(output_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="progress"):
        trainer.of(some_rewards(0))


def test_turns_of_a_completion_count_once(swift, tmp_path: Path):
    """In ms-swift, this path ignores ``gdpo``. Prompt p has 4 completions in 5 rows, q has 3 in 4."""
    modules = swift()
    plugin.use(method="gdpo")
    of_completions = some_rewards(3)[:7]
    requests = ["a", "b", "b", "c", "d", "e", "f", "f", "g"]
    rows = [sorted(set(requests)).index(request) for request in requests]
    samples = [
        SimpleNamespace(prompt_id="p" if row < 4 else "q", request_id=r) for r, row in zip(requests, rows, strict=True)
    ]
    trainer = trainer_of(modules, tmp_path, of_completions[rows], dynamic=True)
    expected = aggregator("gdpo")(of_completions, groups=["p"] * 4 + ["q"] * 3).advantages
    assert torch.equal(batch(trainer, samples), expected[rows])


@pytest.mark.parametrize("column", [0, 1, 2])
def test_turns_with_different_rewards_are_refused(swift, tmp_path: Path, column: int):
    modules = swift()
    plugin.use(method="gdpo")
    rewards = some_rewards(3)
    rewards[2] = rewards[1]
    rewards[2, column] = torch.nan if column == 0 else 5.0
    rewards[2, (column + 1) % 3] = 0.0  # another reward that leaves the sum, say, as it was
    samples = [SimpleNamespace(prompt_id=str(i // 4), request_id=str(max(i, 2) if i else 0)) for i in range(8)]
    trainer = trainer_of(modules, tmp_path, rewards, dynamic=True)
    with pytest.raises(RewardError, match="the turns of request '2' have the rewards"):
        batch(trainer, samples)


def test_an_evaluation_is_not_remembered(swift, tmp_path: Path):
    modules = swift()
    plugin.use(method="lift")
    trainer = trainer_of(modules, tmp_path, some_rewards(0))
    trainer.model.training = False
    batch(trainer)
    assert "rvpo/safe/missing" in trainer._metrics["eval"]
    assert not trainer._metrics["train"]
    assert trainer._rvpo_adapter.aggregator.state_dict()["remembered"] == {}


def test_a_resumed_run_goes_on_from_its_checkpoint(swift, tmp_path: Path):
    modules = swift()
    plugin.use(method="lift")
    first = trainer_of(modules, tmp_path, some_rewards(0))
    batch(first)
    first.state.global_step = 1
    first._save_checkpoint(None, None)
    assert first.saved
    again = trainer_of(modules, tmp_path, some_rewards(1))
    again._load_optimizer_and_scheduler(str(tmp_path / "checkpoint-1"))
    assert again.loaded
    first.rewards = some_rewards(1)
    assert torch.equal(batch(again), batch(first))
    new = trainer_of(modules, tmp_path, some_rewards(1))
    new.args.resume_only_model = True
    new._load_optimizer_and_scheduler(str(tmp_path / "checkpoint-1"))
    assert not torch.equal(batch(new), batch(again))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"advantage_estimator": "rloo"}, "advantage_estimator is 'rloo'; expected 'grpo'"),
        ({"scale_rewards": "gdpo"}, "scale_rewards is 'gdpo'; expected 'group'"),
        ({"scale_rewards": "none"}, "scale_rewards is 'none'; expected 'group'"),
        ({"kl_in_reward": True}, "kl_in_reward is True with beta 0.04; expected kl_in_reward false"),
        ({"reward_func_names": ["a", "b", "a"]}, "two reward functions are called 'a'"),
        ({"reward_func_names": []}, "trains without reward functions"),
    ],
)
def test_settings_that_would_be_ignored_are_refused_when_the_trainer_is_built(swift, tmp_path, changed, message):
    modules = swift()
    plugin.use(method="lift")
    with pytest.raises(ConfigError, match=message):
        trainer_of(modules, tmp_path, some_rewards(0), **changed)


@pytest.mark.parametrize(
    ("module", "old", "new", "message"),
    [
        (seam.HOME, "kl_values=None", "kl_values=None, bonus=None", "has the parameters .* bonus"),
        (seam.HOME, "compute_advantages_dynamic", "by_request", "has no function compute_advantages_dynamic"),
        (seam.HOME, "num_generations,", "group_size,", "has the parameters .* group_size"),
        (seam.USERS[0], "_postprocess_batch", "_after", "has no method _postprocess_batch"),
        (seam.USERS[0], "class GRPOTrainer", "class GRPO", "has no GRPOTrainer"),
        (seam.USERS[0], "class GRPO", "compute_advantages = len\n\nclass GRPO", "something else has replaced it"),
    ],
)
def test_a_seam_that_has_moved_is_an_error_at_the_start(swift, module, old, new, message):
    swift(module, old, new)
    with pytest.raises(EngineError, match=message):
        plugin.use(method="lift")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("advantages = self._compute_advantages(samples, self.rewards, batches)", "advantages = self.rewards.nansum(1)",
         "without a call of compute_advantages"),
        ("* self.scaled", "* 0.5", "that reach the loss are not those"),
        ("def _compute_advantages(self,", "def _compute_advantages(this,", "name 'self'"),
    ],
)  # fmt: skip
def test_advantages_made_otherwise_are_an_error(swift, tmp_path, old, new, message):
    modules = swift(seam.USERS[0], old, new)
    plugin.use(method="lift")
    with pytest.raises((EngineError, NameError), match=message):
        batch(trainer_of(modules, tmp_path, some_rewards(0)))


def test_a_call_from_elsewhere_is_an_error(swift):
    modules = swift()
    plugin.use(method="lift")
    with pytest.raises(
        EngineError, match=r"compute_advantages is called by .*, which is not a method of a GRPO trainer"
    ):
        modules.home.compute_advantages(some_rewards(0), torch.ones(3), 4)


def test_an_update_before_any_advantages_is_an_error(swift, tmp_path: Path):
    modules = swift()
    plugin.use(method="lift")
    trainer = trainer_of(modules, tmp_path, some_rewards(0))
    (callback,) = trainer.callbacks
    with pytest.raises(EngineError, match="trained on without a call of compute_advantages"):
        callback.on_pre_optimizer_step(None, None, None)
    batch(trainer)
    callback.on_pre_optimizer_step(None, None, None)


def test_another_algorithm_is_refused(swift):
    modules = swift()
    plugin.use(method="lift")
    with pytest.raises(ConfigError, match="DPOTrainer trains, which does not use its method; expected `swift rlhf"):
        modules.every.DPOTrainer()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metod": "lift"}, r"rvpo.swift.use: unknown key 'metod' \(did you mean 'method'\?\)"),
        ({"method": "lifd"}, "did you mean 'lift'"),
        ({"reward_weights": [1, 2]}, "Pass --reward_weights"),
        ({"method": "gdpo:whiten=token"}, "whiten is 'token'"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(swift, options, message):
    swift()
    with pytest.raises(ConfigError, match=message):
        plugin.use(**options)


def test_a_second_call_has_to_say_the_same(swift):
    swift()
    plugin.use(method="lift", reward_ranges={"correct": [-3, 3]})
    plugin.use(method="lift", reward_ranges={"correct": [-3, 3]})
    with pytest.raises(ConfigError, match="called twice, the second time with another method"):
        plugin.use(method="gdpo", reward_ranges={"correct": [-3, 3]})


def test_an_unknown_reward_is_refused_when_the_trainer_is_built(swift, tmp_path: Path):
    modules = swift()
    plugin.use(method="lift", reward_ranges={"corect": [-3, 3]})
    with pytest.raises(ConfigError, match=r"reward_ranges names the channel 'corect' \(did you mean 'correct'\?\)"):
        trainer_of(modules, tmp_path, some_rewards(0))


def test_weights_that_change_are_refused(swift, tmp_path: Path):
    modules = swift()
    plugin.use(method="lift")
    trainer = trainer_of(modules, tmp_path, some_rewards(0))
    batch(trainer)
    trainer.reward_weights = torch.tensor([1.0, 2.0, 1.0])
    with pytest.raises(ConfigError, match="but training began with"):
        batch(trainer)


def test_without_ms_swift_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plugin, "_used", None)
    monkeypatch.setitem(sys.modules, "swift", None)
    with pytest.raises(EngineError, match="pip install ms-swift"):
        plugin.use(method="lift")
