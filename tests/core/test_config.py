"""Options of every method: each is taken from a plain mapping, and what cannot work is refused with the next step."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from rvpo.core.rules import RULES, build_rule, rule_options

from rvpo.core import AdaptiveK, AdvantageConfig
from rvpo.core.config import METHODS
from rvpo.errors import ConfigError

# A value other than the default for every option of every method.
OTHER: dict[str, dict[str, Any]] = {
    "rvpo": {"k": 2.5},
    "rvpo_explicit": {"beta": 0.25},
    "hard_min": {},
    "gdpo": {},
    "grpo": {},
    "lift": {"kappa": 3.0, "margin": -1.0, "horizon": 1.0},
    "tchebycheff": {"rho": 0.0},
    "smooth_tchebycheff": {"mu": 0.5},
    "lagrangian": {"thresholds": {"a": 0.9}, "rate": 1.5, "ceiling": 2.0},
    "ctwa": {"target": 0.2, "cap": 1.0, "rate": 0.1, "decay": 1.0},
    "riskpo": {
        "bundle_size": 2,
        "lower": 0.1,
        "upper": 0.9,
        "tail_weight": 0.0,
        "seek": True,
        "quantiles": "mix",
        "credit": "uniform",
        "normalise": False,
        "anchored": False,
        "baseline": "plain",
        "quantile_lr": 0.2,
        "leftover": "drop",
        "riskpo_eps": 1e-3,
        "std_floor": 0.0,
        "score": {"method": "rvpo", "k": 2.0},
    },
}
NEEDED = {"lagrangian": {"thresholds": {"a": 0.5}}}  # options without a default that works


def refused(mapping: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        AdvantageConfig.from_mapping(mapping)
    return str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_option_stands_flat(method: str):
    config = AdvantageConfig.from_mapping({"method": method, **OTHER[method]})
    assert set(OTHER[method]) == set(rule_options(method))
    for option, value in OTHER[method].items():
        assert getattr(config.rule, option) == value
        assert getattr(build_rule(method, NEEDED.get(method, {})), option) != value or option == "thresholds"
    assert config == AdvantageConfig.from_mapping({"method": method, **OTHER[method]})
    assert config != AdvantageConfig.from_mapping({"method": method, **OTHER[method], "ddof": 0})
    assert AdvantageConfig.from_mapping({"method": method, "options": OTHER[method]}).rule == config.rule


@pytest.mark.parametrize("method", METHODS)
def test_round_trip_as_plain_data(method: str):
    for options in (OTHER[method], NEEDED.get(method, {})):
        config = AdvantageConfig.from_mapping({"method": method, **options})
        again = AdvantageConfig.from_mapping(asdict(config))
        assert again == config
        assert again.rule == config.rule


def test_round_trip_of_a_k_that_sets_itself():
    config = AdvantageConfig(k=AdaptiveK(target=0.3, horizon=4.0))
    assert AdvantageConfig.from_mapping(asdict(config)) == config
    assert AdvantageConfig(k={"target": 0.3, "horizon": 4.0}) == config  # type: ignore[arg-type]
    assert "adaptive k: unknown key 'taget' (did you mean 'target'?)" in refused({"k": {"taget": 0.3}})


@pytest.mark.parametrize("method", METHODS)
def test_options_of_others_name_the_owner(method: str):
    foreign = {"kappa": "lift", "mu": "smooth_tchebycheff", "decay": "ctwa", "thresholds": "lagrangian"}
    for option, owner in foreign.items():
        if owner != method:
            message = refused({"method": method, **NEEDED.get(method, {}), option: 0.5})
            assert (
                f"{option} is 0.5, but method {method!r} has no {option}: drop it, or use method {owner!r}" in message
            )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"method": "lft"}, "method is 'lft', allowed are 'rvpo', 'rvpo_explicit'"),
        ({"method": "lift", "kapa": 1}, "unknown key 'kapa' (did you mean 'kappa'?); allowed are method, "),
        ({"method": "lift", "options": {"kapa": 1}}, "'lift' (did you mean 'kappa'?); it has kappa, margin, hor"),
        ({"method": "gdpo", "options": {"kapa": 1}}, "kapa is no option of method 'gdpo'; it has none"),
        ({"method": "lift", "options": {"whiten": "group"}}, "whiten is no option of method 'lift'"),
        ({"method": "lift", "options": [1]}, "options is [1], allowed is a mapping of the options of 'lift'"),
        ({"method": "lift", "options": None, "kappa": 2.0}, "options is None, allowed is a mapping"),
        ({"k": 2.0, "options": {"k": 3.0}}, "k is 2.0, but options has 3.0 for it: set one of them"),
        ({"method": "lift", "kappa": -1}, "kappa is -1, allowed is a number in [0, inf)"),
        ({"method": "lift", "kappa": math.inf}, "kappa is inf, allowed is a number in [0, inf)"),
        ({"method": "lift", "kappa": math.nan}, "kappa is nan, allowed is a number in [0, inf)"),
        ({"method": "lift", "kappa": True}, "kappa is True, allowed is a number in [0, inf)"),
        ({"method": "lift", "margin": 1.0}, "margin is 1.0, allowed is a correlation in [-1, 1)"),
        ({"method": "lift", "margin": math.nan}, "margin is nan, allowed is a correlation in [-1, 1)"),
        ({"method": "lift", "margin": "0"}, "margin is '0', allowed is a correlation in [-1, 1)"),
        ({"method": "lift", "horizon": 0.5}, "horizon is 0.5, allowed is a number of batches >= 1"),
        ({"method": "lift", "horizon": math.inf}, "horizon is inf, allowed is a number in [0, inf)"),
        ({"method": "tchebycheff", "rho": -0.1}, "rho is -0.1, allowed is a number in [0, inf)"),
        ({"method": "smooth_tchebycheff", "mu": 0}, "mu is 0, allowed is a number above 0: method 'tchebycheff'"),
        ({"method": "lagrangian"}, "thresholds is {}, allowed is a mapping of channels to the share in [0, 1]"),
        ({"method": "lagrangian", "thresholds": [0.5]}, "thresholds is [0.5], allowed is a mapping of channels"),
        ({"method": "lagrangian", "thresholds": {"a": 2}}, "thresholds: a is 2, allowed is a number in [0, 1]"),
        ({"method": "lagrangian", "thresholds": {"a": 1}, "rate": 0}, "rate is 0, allowed is a number above 0"),
        ({"method": "lagrangian", "thresholds": {"a": 1}, "ceiling": 0.0}, "ceiling is 0, allowed is a number above 0"),
        ({"method": "ctwa", "target": -1}, "target is -1, allowed is a number in [0, inf)"),
        ({"method": "ctwa", "cap": 1.1}, "cap is 1.1, allowed is a number in [0, 1]"),
        ({"method": "ctwa", "decay": 0}, "decay is 0, allowed is a number above 0"),
        ({"method": "ctwa", "decay": 1.5}, "decay is 1.5, allowed is a number in [0, 1]"),
        ({"method": "riskpo", "score": "riskpo"}, "score is 'riskpo', allowed is the name of another method"),
        ({"method": "riskpo", "score": {"k": 1.0}}, "score is {'k': 1.0}, allowed is the name of another method"),
        ({"method": "riskpo", "score": "gdpoo"}, "method is 'gdpoo', allowed are"),
        ({"method": "riskpo", "score": {"method": "lift", "k": 1.0}}, "k is 1.0, but method 'lift' has no k"),
        ({"method": "gdpo", "whiten": "bach"}, "whiten is 'bach', allowed are 'batch', 'group', 'none'"),
    ],
)
def test_refused(mapping: dict[str, Any], message: str):
    assert message in refused(mapping)


def test_defaults_come_from_the_rule():
    for method in RULES:
        rule = build_rule(method, NEEDED.get(method, {}))
        config = AdvantageConfig.from_mapping({"method": method, **NEEDED.get(method, {})})
        assert (config.whiten, config.dead_channels) == (rule.whiten, rule.dead_channels)
        for option in ("k", "beta"):
            assert getattr(config, option) == getattr(config.rule, option, None)


def test_replacing_k_rebuilds_the_rule():
    """The rule is kept with its config, so a copy must not inherit it."""
    config = AdvantageConfig(k=2.0)
    assert config.risk == 2.0
    assert replace(config, k=3.0).risk == 3.0


def test_rules_are_plain_data():
    """Options are what a recipe can say: no class, function or tensor is a default."""
    plain = (bool, int, float, str, dict, list)
    for method in METHODS:
        rule = build_rule(method, NEEDED.get(method, {}))
        for option in fields(rule):  # type: ignore[arg-type]
            assert isinstance(getattr(rule, option.name), plain), (method, option.name)
