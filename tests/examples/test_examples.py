"""The scripts and notebooks of ``examples/`` run from top to bottom and print what they promise."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import rvpo

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
# What each script prints when it works; the folder that it may write to is its only argument.
SCRIPTS = {
    "advantages.py": "what decided completion 0 under rvpo:k=4: correct 0%, helpful 0%, safe 100%",
    "aggregator_loop.py": "gdpo\t1.00\t1.00\t0.00",
    "diagnose_a_run.py": "format_reward: neglected",
    "own_method.py": "own_method.py:worst_two:second=0 [0.05, 0.68, -1.43, 0.7]",
    "rubrics_with_rules.py": "criteria [1.0, 1.0, 1.0]  weighted mean 1.00  advantage +1.15",
    "train_trl.py": "next: rvpo diagnose ",
}


def test_every_script_is_run_here_and_short():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SCRIPTS, "tiny_model.py"}
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 60, path.name


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name: str, tmp_path: Path):
    if name == "train_trl.py":
        pytest.importorskip("trl")
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(EXAMPLES / name), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert SCRIPTS[name] in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_holds_its_outputs(path: Path):
    notebook = json.loads(path.read_text("utf-8"))
    assert path.stat().st_size < 50_000
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in codes] == list(range(1, len(codes) + 1))
    assert any(cell["outputs"] for cell in codes)
    assert "error" not in {output["output_type"] for cell in codes for output in cell["outputs"]}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path):
    if path.stem == "train_trl":
        pytest.importorskip("trl")
    run = runpy.run_path(str(EXAMPLES / "notebooks" / "run.py"))["run"]
    notebook = run(json.loads(path.read_text("utf-8")), path.name)
    printed = "".join("".join(out["text"]) for cell in notebook["cells"] for out in cell.get("outputs", []))
    promised = {
        "diagnose": "format       neglected",
        "methods": "gdpo   {'detail': 1.0",
        "train_trl": "sunny    neglected",
    }
    assert promised[path.stem] in printed
