"""The doctor tells the truth about this environment, and its remedies exist."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rvpo
from rvpo import extras as doctor

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_installed():
    assert doctor.installed("torch") == importlib.metadata.version("torch")
    assert doctor.installed("no-such-distribution") is None


def test_own_version_is_that_of_the_code():
    """It comes from the git tag, so it is written nowhere in the project."""
    assert doctor.installed("rvpo") == rvpo.__version__
    assert re.match(r"\d+(\.\d+)*", rvpo.__version__)
    assert PROJECT["dynamic"] == ["version"]


def test_a_checkout_that_was_never_installed_has_a_version(tmp_path: Path):
    package = tmp_path / "rvpo"
    package.mkdir()
    (package / "__init__.py").write_bytes(Path(rvpo.__file__).read_bytes())
    code = "import rvpo; print(rvpo.__version__, rvpo.__version__)"  # twice: nothing may take the place of the function
    for written, expected in ((None, "0+unknown"), ("1.2.3", "1.2.3")):
        if written is not None:
            (package / "_version.py").write_text(f'__version__ = "{written}"\n')
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [expected, expected]


def test_nothing_heavy_is_in_the_base_install():
    names = {re.split(r"[><=\[]", line)[0] for line in PROJECT["dependencies"]}
    assert names == {"typer", "pydantic", "pyyaml"}


@pytest.mark.parametrize("extras", [("report",), ("trl", "plot"), ("verl",), ("judge",)])
def test_outside_of_a_clone_extras_are_installed_by_name(
    extras: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert doctor.install_command(*extras).endswith(f"-e '.[{','.join(extras)}]' in the clone")
    monkeypatch.setattr(doctor, "CLONE", tmp_path)
    assert doctor.install_command(*extras) == f"pip install 'rvpo[{','.join(extras)}]'"
    for capability in doctor.CAPABILITIES:
        assert re.match(r"pip install (--no-deps )?'[\w-]+(\[[\w,]+\]|==[\d.]+)'$", capability.command)


@pytest.mark.parametrize("package", ["no_such_package", "rvpo.nothing", "sys"])
def test_other_errors_keep_their_traceback(package: str):
    assert doctor.missing_package(ModuleNotFoundError(f"No module named {package!r}", name=package)) is None
    assert doctor.missing_package(ImportError("cannot import name", name="torch")) is None  # it is there, but broken
    assert doctor.missing_package(ValueError("torch")) is None


@pytest.mark.parametrize("package", ["torch", "pyarrow", "regex"])
def test_a_command_without_a_package_names_the_extra(package: str):
    """`rvpo check` and `rvpo judge` have no message of their own for it."""
    code = f"""
import sys
sys.modules[{package!r}] = None  # as if it were not installed
from rvpo.extras import missing_package
try:
    import {package}
except ImportError as error:
    print(missing_package(error))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    extra = {"torch": "torch", "pyarrow": "report", "regex": "judge"}[package]
    assert done.stdout.startswith(f"{package} is not installed; this command needs the extra {extra}: pip install ")


def test_every_extra_that_a_message_names_brings_the_package():
    distributions = {
        "math_verify": "math-verify",
        "inspect_ai": "inspect-ai",
        "inspect_evals": "inspect-evals",
        "PIL": "pillow",
    }
    for module, extra in doctor._EXTRA_OF.items():
        name = distributions.get(module, module)
        lines = PROJECT["optional-dependencies"][extra]
        assert any(re.match(rf"{name}(\[\w+\])?>=", line) for line in lines), (module, extra)


def test_missing_packages_are_named():
    capability = doctor.Capability("x", ("torch", "no-such-distribution"), ".[x]")
    assert capability.missing == ["no-such-distribution"]
    assert doctor.Capability("x", ("torch",), ".").missing == []


@pytest.mark.parametrize("capability", doctor.CAPABILITIES, ids=lambda capability: capability.what)
def test_remedies_bring_what_is_needed(capability: doctor.Capability):
    """Each extra of ours that is recommended exists and, with the base install, names the packages."""
    package, _, extras = capability.install.rstrip("]").partition("[")
    if package != ".":
        constraints = (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8").splitlines()
        (bfcl,) = (line for line in constraints if line.startswith("bfcl-eval=="))
        # vLLM is pinned by TRL, which knows what it works with; bfcl-eval's own pins would break the environment.
        assert capability.command in ("pip install 'trl[vllm]'", f"pip install --no-deps '{bfcl}'")
        return
    assert capability.command == f"pip install -c {capability.constraints} -e '{capability.install}'"
    requirements = PROJECT["dependencies"] + [
        line for extra in filter(None, extras.split(",")) for line in PROJECT["optional-dependencies"][extra]
    ]
    for needed in capability.needs:
        assert any(re.match(rf"{needed}(\[\w+\])?>=", line) for line in requirements), needed


def test_tested_versions_are_those_of_the_constraints():
    for file, tested in (("constraints.txt", doctor.TESTED), ("constraints-verl.txt", doctor.TESTED_WITH_VERL)):
        constraints = (Path(__file__).parents[1] / file).read_text(encoding="utf-8").splitlines()
        for name, version in tested.items():
            assert any(f"{line}.".startswith(f"{name}=={version}.") for line in constraints), name


def test_both_engines_in_one_environment_are_noted(monkeypatch: pytest.MonkeyPatch):
    versions = {"trl": "1.16.0", "verl": "0.9.1"}
    monkeypatch.setattr(doctor, "installed", versions.get)
    (note,) = doctor.conflicts()
    assert "trl and verl are both installed" in note
    for engine in versions:
        monkeypatch.setattr(doctor, "installed", {engine: versions[engine]}.get)
        assert doctor.conflicts() == []


def test_verl_without_a_rollout_engine_is_noted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "installed", {"verl": "0.9.1"}.get)
    (note,) = doctor.no_rollouts()
    assert "vLLM" in note
    page, section = re.findall(r"(\S+\.md), section '(.+)'", note)[0]
    assert f"## {section}\n" in (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
    for others in ({"verl": "0.9.1", "vllm": "0.12"}, {"verl": "0.9.1", "sglang": "0.5"}, {"trl": "1.16"}):
        monkeypatch.setattr(doctor, "installed", others.get)
        assert doctor.no_rollouts() == []


def test_verl_has_versions_of_its_own(monkeypatch: pytest.MonkeyPatch):
    versions = {"verl": "0.9.1", "transformers": "5.23.0", "torch": "2.13.0"}
    monkeypatch.setattr(doctor, "installed", versions.get)
    assert doctor.untested() == [
        "transformers 5.23.0 is installed, tested is 5.10: install with -c constraints-verl.txt"
    ]


def test_untested_versions_are_noted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "TESTED", {"torch": "0.1", "no-such-distribution": "1.0"})
    (note,) = doctor.untested()
    assert note.startswith(f"torch {doctor.installed('torch')} is installed, tested is 0.1")
    # rvpo needs torch 2.6, so 2.1 is always another version, also where 2.13 begins with the same letters.
    monkeypatch.setattr(doctor, "TESTED", {"torch": "2.1"})
    assert len(doctor.untested()) == 1
    monkeypatch.setattr(doctor, "TESTED", {"torch": str(doctor.installed("torch")).rpartition(".")[0]})
    assert doctor.untested() == []


def test_versions_are_json_and_name_every_package():
    versions = json.loads(json.dumps(doctor.versions()))
    assert set(versions["packages"]) == set(doctor.PACKAGES)
    assert versions["packages"]["rvpo"] == rvpo.__version__
    assert versions["torch_threads"] >= 1


@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        ("trl", "1.16.0", r"^trl 1\.16\.0 \(tested: .*\): add `from rvpo\.trl import RVPOConfig, RVPOTrainer`"),
        ("trl", "1.6.0", "add `from rvpo.trl"),
        ("trl", "1.17.0.dev0", "add `from rvpo.trl"),
        ("trl", "1.5.9", r"does not work with rvpo; expected >=1\.6,<2"),
        ("trl", "0.29.1", "does not work with rvpo"),
        ("trl", "2.0.0", "does not work with rvpo"),
        ("trl", "1.15.0", "does not work: its GRPOTrainer needs Triton"),
        (
            "ms-swift",
            "4.6.0",
            r"add `--external_plugins plugin\.py`.*docs/engines/ms-swift\.md|add `--external_plugins",
        ),
        ("ms-swift", "3.12.1", "does not work with rvpo"),
        ("axolotl", "0.19.0", r"rvpo\.axolotl\.RVPOPlugin"),
        ("unsloth", "2026.10.9", "`import unsloth` above"),
        ("verl", "0.10.0", "does not work with rvpo"),
        ("slime", "0.4.0", r"slime was not run; see docs/engines/slime\.md\): add .*rvpo\.slime\.post_process"),
        ("nemo-rl", "0.5.0+abc", r"add .*rvpo\.nemo_rl\.install\(\).*name: rvpo"),
        ("prime-rl", "0.5.0", r"python -m rvpo\.prime_rl @ orchestrator\.toml"),
        ("rllm", "0.3.0.pre", r"rvpo\.rllm\.register\(.*adv_estimator=rvpo"),
        ("skyrl", "0.3.0", r"class Trainer\(rvpo\.skyrl\.RVPOMixin, RayPPOTrainer\)"),
        ("tinker-cookbook", "0.6.0", r"rvpo\.tinker\.install\(config, method='lift'"),
    ],
)
def test_each_engine_says_what_to_add_or_why_not(monkeypatch: pytest.MonkeyPatch, package, version, message):
    monkeypatch.setattr(doctor, "installed", {package: version}.get)
    (state,) = [state for engine in doctor.ENGINES if (state := engine.state()) is not None]
    assert re.search(message, state)


@pytest.mark.parametrize(
    ("version", "works"), [("0.29.1", False), ("1.15.0", False), ("1.6.0", True), ("1.16.0", True)]
)
def test_a_version_that_cannot_work_counts_as_missing(monkeypatch: pytest.MonkeyPatch, version: str, works: bool):
    monkeypatch.setattr(doctor, "installed", {"trl": version}.get)
    assert doctor.Capability("x", ("trl",), ".[trl]").missing == ([] if works else ["trl"])


@pytest.mark.parametrize("engine", [engine for engine in doctor.ENGINES if not engine.lowest], ids=lambda e: e.package)
def test_the_line_of_an_engine_with_dicts_names_what_exists_and_its_page_has_it(engine):
    module = re.search(r"rvpo\.(slime|nemo_rl|prime_rl|rllm|skyrl|tinker)\b", engine.line)
    assert module is not None
    name = module[1]
    page = (Path(__file__).parents[1] / engine.page).read_text(encoding="utf-8")
    source = (Path(rvpo.__file__).parent / "engines" / f"{name}.py").read_text(encoding="utf-8")
    for attribute in re.findall(rf"rvpo\.{name}\.(\w+)", engine.line):
        assert re.search(rf"^(def|class) {attribute}\b|^{attribute} = ", source, re.MULTILINE)
        assert f"rvpo.{name}.{attribute}" in page


@pytest.mark.parametrize("engine", doctor.ENGINES, ids=lambda engine: engine.package)
def test_the_page_of_each_engine_exists_and_its_range_is_that_of_the_extra(engine):
    root = Path(__file__).parents[1]
    assert (root / engine.page).is_file()
    for line in PROJECT["optional-dependencies"].get(engine.package, []):
        if line.startswith(f"{engine.package}>="):
            assert line.startswith(f"{engine.package}>={engine.lowest},")
            assert line.endswith(f"<{engine.below}")
            assert all(f"!={version}" in line for version in engine.broken)
