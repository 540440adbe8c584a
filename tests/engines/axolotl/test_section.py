"""The section ``rvpo:`` of axolotl's YAML and the plug-in's refusals, on a stand-in for axolotl's base class.

``test_axolotl.py`` trains with axolotl itself, in an environment of its own: ``make test-axolotl``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("pydantic")

from rvpo.engines.axolotl.section import read_section
from rvpo.errors import ConfigError, EngineError

NAME = "rvpo.axolotl.RVPOPlugin"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("axolotl", "axolotl.integrations", "axolotl.integrations.base"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["axolotl.integrations.base"].BasePlugin = type("BasePlugin", (), {})
    for name in ("rvpo.axolotl", "rvpo.engines.axolotl.plugin"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("rvpo.axolotl").RVPOPlugin()
    for name in ("rvpo.axolotl", "rvpo.engines.axolotl.plugin"):
        sys.modules.pop(name, None)


def config(**changed: Any) -> dict[str, Any]:
    return {"rl": "grpo", "plugins": [NAME], "rvpo": {"method": "lift"}, "trl": {"num_generations": 4}} | changed


def test_a_configuration_gets_the_trainer_and_hands_it_the_section(plugin):
    cfg = config(rvpo={"method": "lift", "reward_ranges": {"correct": [-3, 3]}, "reward_weights": {"safe": 2}})
    for _ in range(2):  # axolotl registers again in each of its processes, with the same configuration
        plugin.register(cfg)
        assert cfg["trainer_cls"] == "rvpo.axolotl.RVPOTrainer"
    assert plugin.get_training_args(cfg) == {"rvpo": cfg["rvpo"]}
    assert plugin.get_training_args(config(rvpo=None)) is None


def test_a_later_configuration_of_the_process_without_it_is_left_alone(plugin):
    cfg = {"rl": "dpo", "plugins": ["somebody.Plugin"]}
    plugin.register(cfg)
    assert "trainer_cls" not in cfg
    plugin.post_trainer_create(cfg, object())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"metod": "lift"}, r"section rvpo: unknown key 'metod' \(did you mean 'method'\?\)"),
        ({"method": "lift", "reward_range": {}}, r"unknown key 'reward_range' \(did you mean 'reward_ranges'\?\)"),
        ({"method": "lift", "scale_rewards": "none"}, "unknown key 'scale_rewards'"),
        ({"method": "lifd"}, "did you mean 'lift'"),
        ({"method": "lift", "reward_ranges": {"a": [3, -3]}}, "3"),
        ({"method": "lift", "missing_rewards": "zero"}, "missing_rewards is 'zero'"),
        ("lift", "rvpo is 'lift'; expected a section"),
        ({}, r"rvpo is \{\}; expected a section"),
        (["method"], "expected a section"),
    ],
)
def test_a_section_that_cannot_work_is_refused(plugin, section, message):
    with pytest.raises(ConfigError, match=message):
        read_section(section)
    with pytest.raises(ConfigError, match=message):
        plugin.register(config(rvpo=section))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rvpo": None}, "there is no section 'rvpo'; expected one"),
        ({"rl": "gdpo"}, r"rl is 'gdpo', .* expected rl: grpo \(its method gdpo is"),
        ({"rl": "dpo"}, "rl is 'dpo', .* expected rl: grpo$"),
        ({"rl": None}, "rl is None"),
        ({"trainer_cls": "mine.Trainer"}, "trainer_cls is 'mine.Trainer'"),
        ({"trl": {"async_prefetch": True}}, "trl.async_prefetch is True"),
        ({"trl": {"use_data_producer": True}}, "trl.use_data_producer is True"),
        ({"context_parallel_size": 2}, "context_parallel_size is 2"),
        ({"trl": {"reward_weights": [1, 2]}, "rvpo": {"reward_weights": [1, 2]}}, "reward_weights are given twice"),
    ],
)
def test_settings_that_would_train_without_it_are_refused(plugin, changed, message):
    cfg = config(**changed)
    with pytest.raises(ConfigError, match=message):
        plugin.register(cfg)
    assert cfg.get("trainer_cls") == changed.get("trainer_cls")


def test_another_trainer_is_an_error(plugin):
    with pytest.raises(EngineError, match="axolotl has built object, which ignores the section 'rvpo'"):
        plugin.post_trainer_create(config(), object())
