"""``algorithm.rvpo``: what is taken, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

import rvpo
from rvpo.core.methods.registry import METHODS
from rvpo.core.normalize import whiten_by_token
from rvpo.engines.verl.config import read_options
from rvpo.engines.verl.options import VerlOptions
from rvpo.engines.verl.spelling import ESTIMATORS
from rvpo.errors import ConfigError


def config(*overrides: str) -> DictConfig:
    """Compose verl's own config, as its command line does."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", ["actor_rollout_ref.rollout.n=4", *overrides])


def read(*overrides: str) -> VerlOptions:
    options = read_options(config(*overrides))
    assert options is not None
    return options


KEYS = "+algorithm.rvpo.reward_keys=[a,b]"
OURS = [
    "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards",
    "+reward.custom_reward_function.reward_kwargs.rewards=[format]",
]


def test_trust_is_given_or_estimated():
    given = read("algorithm.adv_estimator=gdpo", KEYS, "+algorithm.rvpo.reliability={a: 0.5}").build().reliability
    assert (given.given, given.twice) == ({"a": 0.5}, 0.0)
    estimated = read("algorithm.adv_estimator=gdpo", *OURS, "+algorithm.rvpo.judge_twice=0.25").build().reliability
    assert (estimated.given, estimated.twice) == ({}, 0.25)
    assert read("algorithm.adv_estimator=gdpo", KEYS).build().reliability is None


def flat(overrides: list[str | list[str]]) -> list[str]:
    return [text for each in overrides for text in ([each] if isinstance(each, str) else each)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_name(method: str):
    estimator = "grpo-multi" if method == "grpo" else method
    own = "algorithm.adv_estimator={name: lagrangian, thresholds: {a: 0.9}}"
    line = own if method == "lagrangian" else f"algorithm.adv_estimator={estimator}"
    assert estimator in ESTIMATORS
    assert read(line, KEYS).method.name == method


def test_names_are_all_methods_and_grpo_stays_verls_own():
    assert len(ESTIMATORS) == len(METHODS)
    assert "grpo" not in ESTIMATORS
    for estimator in ("grpo", "gae", "rloo"):
        assert read_options(config(f"algorithm.adv_estimator={estimator}")) is None


def test_gdpos_own_options_are_taken():
    """The command line that fails in verl 0.9.1 works as it stands."""
    options = read(
        "algorithm.adv_estimator=gdpo", "+algorithm.gdpo_reward_keys=[b,a]", "+algorithm.gdpo_reward_weights=[2.0,0.5]"
    )
    assert (options.method, options.reward_keys, options.weights()) == (rvpo.GDPO(), ["b", "a"], [2.0, 0.5])


def test_options_reach_the_algorithm():
    options = read(
        'algorithm.adv_estimator="rvpo:k=linear(0.5,2)"',
        KEYS,
        "+algorithm.rvpo.reward_weights={b: 3}",
        "+algorithm.rvpo.reward_ranges={a: [-3, 3]}",
        "+algorithm.rvpo.advantage_eps=1e-6",
    )
    aggregator = options.build()
    assert aggregator.config == rvpo.AdvantageConfig(rvpo.RVPO(rvpo.Linear(0.5, 2.0)), eps=1e-6)
    assert aggregator.weights == [1.0, 3.0]
    assert aggregator.ranges == ((-3.0, 3.0), None)


def test_the_rewards_of_our_own_function_are_named_once():
    rewards = "[{function: correctness, weight: 2.0}, {function: format, range: [0, 1]}]"
    options = read(
        "algorithm.adv_estimator=lift",
        "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards",
        f"+reward.custom_reward_function.reward_kwargs.rewards={rewards}",
        "+algorithm.rvpo.advantage_eps=1e-6",
    )
    assert options.reward_keys == ["correctness_reward", "format_reward"]
    assert options.weights() == [2.0, 1.0]
    assert list(options.own_ranges or []) == [(-3.0, 3.0), (0.0, 1.0)]
    assert options.advantage_eps == 1e-6


OWN_WEIGHTS = [
    "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards",
    "+reward.custom_reward_function.reward_kwargs.rewards="
    "[{function: correctness, weight: 3.0, name: a}, {function: format, weight: 0.5, name: b}]",
]
GDPOS = ["+algorithm.gdpo_reward_keys=[a,b]", "+algorithm.gdpo_reward_weights=[3.0,0.5]"]


@pytest.mark.parametrize("source", [OWN_WEIGHTS, GDPOS])
@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ("{a: 2}", [2.0, 0.5]),
        ("{b: 0}", [3.0, 0.0]),
        ("{a: 0, b: 1}", [0.0, 1.0]),
        ("[1, 4]", [1.0, 4.0]),
        ("null", [3.0, 0.5]),
    ],
)
def test_reward_weights_change_those_that_they_name_and_no_others(source: list[str], given: str, weights: list[float]):
    options = read("algorithm.adv_estimator=lift", *source, f"+algorithm.rvpo.reward_weights={given}")
    assert options.weights() == options.build().weights == weights


def test_reward_weights_that_leave_nothing_are_refused():
    with pytest.raises(ConfigError, match="reward_weights are all 0"):
        read("algorithm.adv_estimator=lift", *OWN_WEIGHTS, "+algorithm.rvpo.reward_weights={a: 0, b: 0}")


def test_reward_ranges_change_those_that_they_name_and_no_others():
    given = "+algorithm.rvpo.reward_ranges={b: [0, 4], a/tone: [1, 10]}"
    aggregator = read("algorithm.adv_estimator=lift", *OWN_WEIGHTS, given).build()
    assert aggregator.ranges == ((-3.0, 3.0), (0.0, 4.0))
    assert aggregator.label_ranges == {"a/tone": (1.0, 10.0)}


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("lagrangian", "grpo")])
def test_every_method_can_be_whitened_by_token_as_verl_does(method: str):
    options = read(f'algorithm.adv_estimator="{method}:whiten=token"', KEYS)
    aggregator = options.build()
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    tokens = torch.tensor([9, 1, 3, 2])
    done = aggregator(rewards, num_generations=4, tokens=tokens)
    expected = whiten_by_token(done.result.aggregated, done.result.takes_part, tokens)
    assert done.advantages.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert done.tokens is tokens


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "no reward is named.*reward_keys="),
        (["+algorithm.rvpo.reward_key=[a]"], r"algorithm.rvpo: unknown key 'reward_key' \(did you mean 'reward_keys'"),
        (["+algorithm.rvpo.method=lift"], "adv_estimator chooses the method"),
        ([KEYS, "algorithm.adv_estimator={name: rvpo, k: -1}"], "k is -1"),
        ([KEYS, 'algorithm.adv_estimator="rvpo:k=liner(0.5,2)"'], r"k is 'liner\(0.5,2\)'.*linear\(0.5,2\)"),
        ([KEYS, "algorithm.adv_estimator={name: rvpo, kapa: 3}"], "method 'rvpo' has no option 'kapa'"),
        ([KEYS, "+algorithm.rvpo.advantage_eps=-1"], "advantage_eps is -1"),
        ([KEYS, "+algorithm.rvpo.advantage_ddof=2"], "advantage_ddof is 2"),
        ([KEYS, "+algorithm.rvpo.missing_rewards=zero"], "missing_rewards is 'zero'; expected one of 'drop', 'error'"),
        ([KEYS, 'algorithm.adv_estimator="gdpo:whiten=tokens"'], r"whiten is 'tokens'.*did you mean 'token'"),
        ([KEYS, 'algorithm.adv_estimator="grpo-multi:whiten=token"'], "'grpo' with whiten='token'.*is not GRPO"),
        ([KEYS, "+algorithm.rvpo.max_missing=2"], "max_missing is 2"),
        ([KEYS, "+algorithm.rvpo.reward_weights=[1]"], "1 numbers for the 2 rewards a, b"),
        ([KEYS, "+algorithm.rvpo.reward_weights={c: 1}"], "reward_weights: unknown key 'c'; expected one of a, b"),
        ([KEYS, "+algorithm.rvpo.reward_weights={a: -1}"], "reward_weights of 'a' is -1"),
        ([KEYS, "+algorithm.rvpo.reward_weights=[0,0]"], "reward_weights are all 0"),
        ([KEYS, "+algorithm.rvpo.reward_weights=two"], "expected a list, or a mapping"),
        (["+algorithm.rvpo.reward_keys=[a,a]"], "names 'a' twice"),
        (["+algorithm.rvpo.reward_keys=a"], "expected a list of names"),
        (["+algorithm.rvpo=5"], "algorithm.rvpo is 5; expected a mapping"),
        (["+algorithm.rvpo=[a]"], r"algorithm.rvpo is \['a'\]; expected a mapping"),
        ([KEYS, "+algorithm.rvpo.reward_ranges={zzz: [0, 1]}"], "reward_ranges names the channel 'zzz'"),
        ([KEYS, "+algorithm.rvpo.reliability={c: 0.5}"], "reliability names the channel 'c'; expected one of a, b"),
        ([KEYS, "+algorithm.rvpo.reliability={a: 2}"], "reliability of 'a' is 2"),
        ([KEYS, "+algorithm.rvpo.judge_twice=0.1"], "judge_twice is 0.1, but only rvpo's own reward function"),
        ([OURS, "+algorithm.rvpo.judge_twice=1.5"], "judge_twice is 1.5"),
        (
            [OURS, "+reward.custom_reward_function.reward_kwargs.judge_twice=0.1"],
            "reward_kwargs.judge_twice is 0.1, but algorithm.rvpo.judge_twice is 0.0; expected the same",
        ),
        ([KEYS, "+algorithm.gdpo_reward_weights=[1,2]"], "gdpo_reward_weights is .*reward_keys names the rewards"),
        ([KEYS, "reward.reward_manager.name=limited"], "'limited', which gives"),
        (
            [KEYS, "reward.reward_manager.name=dapo", "+reward.reward_kwargs.overlong_buffer_cfg.enable=True"],
            "overlong_buffer_cfg.enable is True",
        ),
        ([KEYS, "++trainer.v1.sync.parameter_sync_step=2"], "parameter_sync_step is 2"),
        ([OURS, "+algorithm.rvpo.reward_keys=[format_reward]"], "named by the entries of reward_kwargs.rewards"),
        ([OURS, "+algorithm.gdpo_reward_keys=[format_reward]"], "gdpo_reward_keys is .*the entries of reward_kwargs"),
        ([OURS, "+reward.custom_reward_function.reward_kwargs.num_workers=3"], "is 3, but reward.num_workers is 8"),
        ([KEYS, "algorithm.use_kl_in_reward=True"], "use_kl_in_reward is True.*use_kl_loss=True"),
        ([KEYS, "algorithm.norm_adv_by_std_in_grpo=False"], "norm_adv_by_std_in_grpo is False"),
        ([KEYS, "trainer.use_v1=False"], "trainer.use_v1 is False"),
        (
            [KEYS, "trainer.v1.trainer_mode=separate_async"],
            "trainer_mode is 'separate_async'; expected sync or colocate_async",
        ),
        ([KEYS, "actor_rollout_ref.rollout.n=1"], "rollout.n is 1"),
        ([KEYS, "reward.reward_model.enable=True"], "enable_resource_pool=True"),
    ],
)
def test_what_cannot_work_is_refused(overrides: list[str | list[str]], told: str):
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        read("algorithm.adv_estimator=rvpo", *flat(overrides))


def test_an_overlong_penalty_that_is_one_of_the_rewards_is_taken():
    overlong = "+reward.reward_kwargs.overlong_buffer_cfg={enable: True, log: True}"
    keys = "+algorithm.rvpo.reward_keys=[a,overlong_reward]"
    assert read("algorithm.adv_estimator=rvpo", keys, "reward.reward_manager.name=dapo", overlong).reward_keys


def test_our_rewards_under_an_estimator_of_verls_are_refused():
    """Their score is NaN where nothing could be scored."""
    with pytest.raises(ConfigError, match="use grpo-multi"):
        read_options(config("algorithm.adv_estimator=grpo", *OURS))


def test_the_strictest_rubric_decides_how_many_verdicts_may_be_missing():
    judge = "judge: {kind: rule}"
    lenient = f"{{function: rubric, name: a, options: {{{judge}, max_missing: 0.9}}}}"
    silent = f"{{function: rubric, name: b, options: {{{judge}}}}}"
    path, _ = OURS
    kwargs = f"+reward.custom_reward_function.reward_kwargs.rewards=[{lenient},{silent}]"
    assert read("algorithm.adv_estimator=rvpo", path, kwargs).max_missing == 0.25


def test_options_without_an_estimator_of_ours_are_refused():
    with pytest.raises(ConfigError, match=r"algorithm\.rvpo is set, but .* is 'grpo'"):
        read_options(config("algorithm.adv_estimator=grpo", KEYS))


def test_every_option_has_help():
    values: dict[str, Any] = dict(VerlOptions.help())
    assert {"reward_keys", "reward_weights", "reward_ranges", "missing_rewards", "max_missing"} <= set(values)
    assert "method" not in values
    assert all(len(text) > 20 for text in values.values())


def test_the_config_is_left_as_it_was():
    given = config("algorithm.adv_estimator=rvpo", KEYS)
    before = OmegaConf.to_yaml(given)
    read_options(given)
    assert OmegaConf.to_yaml(given) == before


def test_structure_and_monitor_reach_the_aggregator():
    ranges = "+algorithm.rvpo.reward_ranges={a:[0,1],b:[0,1]}"
    rewards = "+algorithm.rvpo.reward_keys=[a,b,gold]"
    given = ["algorithm.adv_estimator=lift", rewards, ranges, '+algorithm.rvpo.structure=["gate(a,over=[b])"]']
    options = read(*given, "+algorithm.rvpo.monitor=[gold]")
    agg = options.build()
    out = agg(torch.tensor([[1.0, 1.0, 5.0], [0.0, 1.0, 9.0], [1.0, 0.0, 2.0]], dtype=torch.float64), num_generations=3)
    assert out.entered[:, 1].tolist() == [1.0, 0.0, 0.0]
    assert out.weights[0].tolist() == [1.0, 1.0, 0.0]
    for wrong, told in (
        ("+algorithm.rvpo.monitor=[a]", "only monitored"),
        ("+algorithm.rvpo.monitor=[glod]", "did you mean 'gold'"),
    ):
        with pytest.raises(ConfigError, match=told):
            read(*given, wrong)


def test_dropout_of_a_rubric_is_refused():
    """verl tells a reward function no training step."""
    entry = "{function: rubric, options: {judge: rule, dropout: 0.5}}"
    function = "reward.custom_reward_function"
    with pytest.raises(ConfigError, match="no training step"):
        read(
            "algorithm.adv_estimator=lift",
            f"{function}.path=pkg://rvpo.engines.verl.rewards",
            f"+{function}.reward_kwargs.rewards=[{entry}]",
        )
