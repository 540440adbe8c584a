"""verl's own command line says who runs our methods, before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from verl.trainer.ppo import core_algos

from rvpo.engines.verl.placeholder import NAMES, Placeholder, named_in
from rvpo.errors import EngineError

MAIN = ["python", "-m", "verl.trainer.main_ppo"]
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("override", "method"),
    [
        ("algorithm.adv_estimator=rvpo", "rvpo"),
        ("algorithm.adv_estimator=lift:kappa=3", "lift:kappa=3"),
        ("+algorithm.adv_estimator=grpo-multi", "grpo-multi"),
        ("algorithm.adv_estimator={name: rvpo, k: 2}", "rvpo"),
        ('algorithm.adv_estimator="rvpo:k=linear(0.5,2)"', "rvpo:k=linear(0.5"),
        ("algorithm.adv_estimator=my_rules.py:cvar", "my_rules.py:cvar"),
        ("algorithm.adv_estimator=grpo", None),
        ("algorithm.adv_estimator=gdpo", None),
        ("algorithm.adv_estimator=gae", None),
        ("algorithm.adv_estimator_x=rvpo", None),
        ("trainer.project_name=rvpo", None),
    ],
)
def test_a_command_line_of_verls_that_names_one_of_ours(override: str, method: str | None):
    assert named_in([*MAIN, "trainer.nnodes=2", override]) == method
    assert named_in(["python", "/x/verl/trainer/main_ppo.py", override]) == method
    assert named_in(["python", "-m", "rvpo.verl", override]) is None
    assert named_in(["python", "default_worker.py", override]) is None


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment that has the entry points of pyproject.toml, whatever is installed."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "rvpo_as_declared-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rvpo-as-declared\nVersion: 1\n")
    lines = [f"[{group}]\n" + "\n".join(f"{n} = {v}" for n, v in named.items()) for group, named in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), str(tmp_path), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def test_verls_own_command_ends_at_once_with_what_to_run(installed: dict[str, str]):
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "algorithm.adv_estimator=lift"]
    done = subprocess.run(command, env=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    told = "error: algorithm.adv_estimator is 'lift', a method of rvpo, which verl's own trainer cannot run"
    assert told in done.stderr
    assert "python -m rvpo.verl" in done.stderr
    assert "ray init" not in done.stdout


def test_the_estimator_says_the_same_and_gives_way(installed: dict[str, str]):
    code = """
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, register_adv_est
for name in ("rvpo", "lift", "grpo-multi"):
    try:
        get_adv_estimator_fn(name)(None, response_mask=None)
    except Exception as error:
        print(type(error).__name__, str(error)[:60])
register_adv_est("lift")(print)
print(get_adv_estimator_fn("lift") is print, get_adv_estimator_fn("gdpo").__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], env=installed, capture_output=True, text=True, check=False)
    assert done.stdout.count("EngineError algorithm.adv_estimator is") == 3, done.stderr
    assert done.stdout.splitlines()[-1] == "True compute_gdpo_outcome_advantage"


def test_a_placeholder_is_not_taken_for_an_estimator_of_verls(monkeypatch: pytest.MonkeyPatch):
    from rvpo.conformance.target import Spec
    from rvpo.engines.verl.conformance import target
    from rvpo.errors import ConfigError

    for name in NAMES:
        monkeypatch.setitem(core_algos.ADV_ESTIMATOR_REGISTRY, name, Placeholder(name))
    with pytest.raises(ConfigError, match="expected one of") as told:
        target(Spec("verl:lift"), "lift")
    assert "lift_z" not in str(told.value)
    with pytest.raises(EngineError, match=r"python -m rvpo\.verl"):
        core_algos.get_adv_estimator_fn("rvpo")()
