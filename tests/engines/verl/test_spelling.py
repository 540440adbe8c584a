"""``algorithm.adv_estimator``: every spelling of a method, whose name is whose, and what is written back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import OverrideParseException
from omegaconf import DictConfig

import rvpo
from rvpo.core.methods.registry import METHODS, build_method, spell
from rvpo.engines.verl.config import read_options
from rvpo.engines.verl.spelling import ESTIMATORS, REGISTERED, quoted, read_method, register, spell_out, written_now
from rvpo.errors import ConfigError

KEYS = "+algorithm.rvpo.reward_keys=[a,b]"
CVAR = """
def cvar(z, p, *, alpha=0.5):
    n = max(1, round(alpha * z.shape[1]))
    return z.masked_fill(p == 0, float("inf")).sort(-1).values[:, :n].clamp(max=1e9).mean(-1)
"""


def config(estimator: Any, *overrides: str) -> DictConfig:
    """Compose verl's own config, and set the estimator as a YAML file would."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        composed = compose("ppo_trainer", ["actor_rollout_ref.rollout.n=4", *overrides])
    composed.algorithm.adv_estimator = estimator
    return composed


@pytest.mark.parametrize(
    ("spelling", "method"),
    [
        ("lift", rvpo.LIFT()),
        ("lift:kappa=3,margin=0.1", rvpo.LIFT(kappa=3, margin=0.1)),
        ({"name": "lift", "kappa": 3}, rvpo.LIFT(kappa=3)),
        ("rvpo:k=linear(0.5,2)", rvpo.RVPO(rvpo.Linear(0.5, 2.0))),
        ({"name": "rvpo", "k": "linear(0.5,2)"}, rvpo.RVPO(rvpo.Linear(0.5, 2.0))),
        ({"name": "rvpo", "k": {"kind": "adaptive", "target": 0.6}}, rvpo.RVPO(rvpo.AdaptiveK(target=0.6))),
        ("gdpo:whiten=token", rvpo.GDPO(whiten="token")),
        ("grpo-multi", rvpo.GRPO()),
        ("grpo_multi", rvpo.GRPO()),
        ({"name": "grpo-multi"}, rvpo.GRPO()),
        ("riskpo:score={name:rvpo,k:2}", rvpo.RiskPO(score=rvpo.RVPO(2.0))),
    ],
)
def test_text_and_mapping_mean_the_same_everywhere(spelling: Any, method: rvpo.Method):
    given = config(spelling)
    assert read_method(given) == method
    spell_out(given)
    assert isinstance(given.algorithm.adv_estimator, str)
    assert read_method(given) == method
    written = given.algorithm.adv_estimator
    spell_out(given)
    assert given.algorithm.adv_estimator == written


@pytest.mark.parametrize("estimator", ["grpo", "gae", "rloo", "reinforce_plus_plus"])
def test_verls_own_estimators_are_left_to_verl(estimator: str):
    given = config(estimator)
    assert read_method(given) is None
    spell_out(given)
    assert given.algorithm.adv_estimator == estimator


@pytest.mark.parametrize(
    ("spelling", "told"),
    [
        ("liftt", r"adv_estimator is 'liftt' \(did you mean 'lift'\?\).*grpo-multi.*my_rules.py:cvar.*gae"),
        ("liftt:kappa=3", r"adv_estimator is 'liftt:kappa=3' \(did you mean 'lift'\?\)"),
        ("grpo:whiten=batch", r"'grpo' is verl's own.*adv_estimator=grpo\. rvpo's GRPO is grpo-multi"),
        ({"name": "grpo"}, r"'grpo' is verl's own.*rvpo's GRPO is grpo-multi"),
        ("gae:lam=3", r"'gae' is verl's own estimator, which takes no options here"),
        ({"kappa": 3}, r"adv_estimator is \{'kappa': 3\}; expected a text such as 'lift:kappa=3' or a mapping"),
        (3, "adv_estimator is 3; expected a text"),
        (REGISTERED, "the name under which verl calls rvpo; expected the method itself"),
        ("lift:kapa=3", r"method 'lift' has no option 'kapa' \(did you mean 'kappa'\?\)"),
        ("lift:kappa", r"expected lift:option=value"),
        ("nowhere.py:cvar", r"the file nowhere\.py does not exist"),
    ],
)
def test_what_is_not_a_method_is_refused(spelling: Any, told: str):
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        read_options(config(spelling, KEYS))


def test_a_method_of_ones_own_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the trainer's process may run there: a fresh process reads what was written back."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here/my_rules.py").write_text(CVAR)
    monkeypatch.chdir(tmp_path / "here")
    given = config("my_rules.py:cvar:alpha=0.25")
    spell_out(given)
    text = given.algorithm.adv_estimator
    assert text == f"{tmp_path}/here/my_rules.py:cvar:alpha=0.25"
    code = "import sys; from rvpo.core.methods.registry import *; print(spell(build_method(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, text], cwd=tmp_path / "there", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == text


def test_a_method_of_ones_own_inside_of_another_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_rules.py").write_text(CVAR)
    monkeypatch.chdir(tmp_path)
    given = config({"name": "riskpo", "score": {"name": "my_rules.py:cvar", "alpha": 0.25}})
    spell_out(given)
    assert f"{tmp_path}/my_rules.py:cvar" in given.algorithm.adv_estimator
    assert build_method(given.algorithm.adv_estimator).score.given == {"alpha": 0.25}  # type: ignore[attr-defined]


def test_an_object_in_a_file_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_rules.py").write_text("import rvpo\nmild = rvpo.LIFT(kappa=2)\n")
    monkeypatch.chdir(tmp_path)
    given = config("my_rules.py:mild")
    spell_out(given)
    assert given.algorithm.adv_estimator == f"{tmp_path}/my_rules.py:mild"
    assert read_method(given) == rvpo.LIFT(kappa=2)


def test_a_path_that_a_text_cannot_hold_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    (folder / "my_rules.py").write_text(CVAR)
    monkeypatch.chdir(folder)
    given = config("my_rules.py:cvar")
    spell_out(given)
    assert given.algorithm.adv_estimator == "my_rules.py:cvar"


def test_verls_loggers_see_the_method_and_the_config_that_they_keep_can_be_run_again():
    given = config("grpo_multi", KEYS)
    options = read_options(given)
    assert options is not None
    register(given, options.build().config.method)
    assert given.algorithm.adv_estimator == REGISTERED
    assert given.algorithm.rvpo.method == "grpo-multi"
    again = read_options(given)
    assert again is not None
    assert (again.method, again.reward_keys) == (rvpo.GRPO(), ["a", "b"])


@pytest.mark.parametrize(
    ("method", "options", "text"),
    [
        ("rvpo", {"k": 2.0}, "rvpo:k=2"),
        ("rvpo", {"k": 0.5, "k_schedule": "linear", "k_final": 2.0}, "rvpo:k=linear(0.5,2)"),
        ("rvpo", {"k_schedule": "adaptive", "k_adaptive": {"target": 0.6}}, "rvpo:k=adaptive(target=0.6)"),
        ("lift", {"method_options": {"kappa": 3.0}}, "lift:kappa=3"),
        ("lift:margin=0.1", {"kappa": 3.0}, "lift:kappa=3,margin=0.1"),
        ("gdpo", {"whiten": "token"}, "gdpo:whiten=token"),
        ("rvpo", {"dead_channels": "keep"}, "rvpo:k=1,dead_channels=keep"),
        ("rvpo_explicit", {"variance_beta": 0.3}, "rvpo_explicit:beta=0.3"),
        ("lift", {"k": 2}, "rvpo:k=2"),
        ("rvpo", {"k_schedule": "linear", "k": -1}, "rvpo:k=linear(0.5,2)"),
    ],
)
def test_options_of_before_are_refused_with_how_they_are_written_now(method: str, options: dict[str, Any], text: str):
    assert written_now(build_method(method), options) == text
    given = config(method, KEYS)
    with pytest.raises(ConfigError) as told:
        read_options(_with(given, options))
    first = next(iter(options))
    assert f"algorithm.rvpo.{first} is {options[first]!r}, but options of a method follow its name" in str(told.value)
    assert f"expected 'algorithm.adv_estimator=\"{text}\"'. Drop algorithm.rvpo.{first}" in str(told.value)


def _with(given: DictConfig, options: dict[str, Any]) -> DictConfig:
    given.algorithm.rvpo = {**given.algorithm.rvpo, **options}
    return given


@pytest.mark.parametrize("text", ["lift:kappa=3", "rvpo:k=linear(0.5,2)", "lagrangian:thresholds={a:0.9}"])
def test_quotes_are_what_hydra_expects(text: str):
    """If the first part fails, Hydra takes such texts by now and ``quoted`` is not needed."""
    typed = f"algorithm.adv_estimator={text}"
    with initialize_config_module("verl.trainer.config", version_base=None):
        with pytest.raises(OverrideParseException):
            compose("ppo_trainer", [typed])
        assert compose("ppo_trainer", quoted([typed])).algorithm.adv_estimator == text


@pytest.mark.parametrize(
    "argument",
    [
        "algorithm.adv_estimator=lift",
        "algorithm.adv_estimator=lift,gdpo",  # a sweep of Hydra's
        'algorithm.adv_estimator="lift:kappa=3"',
        "algorithm.adv_estimator='lift:kappa=3'",
        "algorithm.adv_estimator={name: lift, kappa: 3}",
        r"algorithm.adv_estimator=lift:kappa\=3",
        "data.path=a=b",
        "--config-name=x",
    ],
)
def test_what_hydra_takes_by_itself_is_left_alone(argument: str):
    assert quoted([argument]) == [argument]


def test_every_text_of_a_method_can_be_typed():
    for name in METHODS:
        if name not in ("lagrangian", "grpo"):  # the one needs thresholds, the other has no options
            text = spell(method := build_method(name, {"whiten": "token"}))
            with initialize_config_module("verl.trainer.config", version_base=None):
                given = compose("ppo_trainer", quoted([f"algorithm.adv_estimator={text}"]))
            assert read_method(given) == method
    assert {"lift", "rvpo", "gdpo", "grpo-multi"} <= set(ESTIMATORS)
