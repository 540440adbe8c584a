"""``rvpo demo``, a folder of runs, narrow and coloured output, and what the shell completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import rvpo
from rvpo.cli.app import app
from rvpo.cli.completion import METHODS, method_names
from rvpo.cli.demo import SAMPLE
from rvpo.core.methods import registry
from rvpo.errors import ConfigError
from rvpo.logs.demo import write_demo


def run(*arguments: object, **environment: str) -> str:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", **environment})
    done = runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demos")
    for seed in range(2):
        run("demo", "--out", folder / f"run-{seed}", "--seed", seed)
    (folder / "results.json").write_text("{}")  # beside the runs, as the quickstart has it
    return folder


def test_the_demo_says_the_next_command(tmp_path: Path):
    output = run("demo", "--out", tmp_path / "my run")
    assert f"rvpo diagnose '{tmp_path / 'my run'}'" in output
    assert "brevity: neglected" in (tmp_path / "my run" / "truth.txt").read_text()
    with pytest.raises(ConfigError, match="already exists; expected a new or an empty folder"):
        run("demo", "--out", tmp_path / "my run")


def test_the_shipped_run_is_diagnosed_as_its_truth_says():
    output = " ".join(run("demo").split())
    assert "2 of 6 channels are neglected: brevity, format" in output
    assert "the truth: format, brevity neglected; citations dead; correctness, detail, advice healthy." in output
    assert output.index("* format: neglected") < output.index("the truth: ") < output.index("rvpo diagnose YOUR_RUN")
    with pytest.raises(ConfigError, match="expected --out, the folder to write to"):
        run("demo", "--seed", 1)


def test_the_shipped_run_is_what_the_command_writes(tmp_path: Path):
    write_demo(tmp_path / "written")
    shipped, written = (pq.read_table(folder / "completions") for folder in (SAMPLE, tmp_path / "written"))
    assert shipped.sort_by("step").select(shipped.column_names[:-1]) == written.select(shipped.column_names[:-1])
    assert shipped.column_names[-1] == "advantage"
    assert shipped["advantage"].to_pylist() == pytest.approx(written["advantage"].to_pylist(), abs=1e-9)
    assert (SAMPLE / "truth.txt").read_text() == (tmp_path / "written" / "truth.txt").read_text()


def test_a_folder_of_runs_is_diagnosed_run_by_run(folder: Path, tmp_path: Path):
    output = run("diagnose", folder, "--json", tmp_path / "d.json", "--markdown", tmp_path / "d.md")
    first = output.splitlines()[0]
    assert "format is neglected in both runs" in first
    assert output.index("run-0 ") < output.index("run-1 ") < output.index("run-0: 2,560 completions")
    assert "run-1: 2,560 completions" in output
    told = json.loads((tmp_path / "d.json").read_text())
    assert [one["run"] for one in told["runs"]] == ["run-0", "run-1"]
    assert (tmp_path / "d.md").read_text().count("| format |") == 2


@pytest.mark.parametrize("width", [40, 60, 80])
def test_output_fits_the_terminal(folder: Path, width: int):
    *lines, command = run("diagnose", folder / "run-0", "--no-texts", COLUMNS=str(width)).splitlines()
    assert max(map(len, lines)) <= width
    assert command == f"  rvpo report {folder / 'run-0'}"  # which is never cut, so that it can be copied


def test_colours_can_be_asked_for(folder: Path):
    arguments = ("diagnose", folder / "run-0", "--no-texts")
    assert "\x1b[1;31mneglected" in run(*arguments, NO_COLOR="", FORCE_COLOR="1")
    assert "\x1b" not in run(*arguments, FORCE_COLOR="1")


def completed(line: str) -> list[str]:
    """Return what bash would be offered behind a line; the words of its environment are those of click."""
    words = line.split(" ")
    code = "import sys; from rvpo.cli.app import app; sys.argv = ['rvpo']; app(prog_name='rvpo')"
    environment = os.environ | {
        "PYTHONPATH": str(Path(rvpo.__file__).parents[1]),
        "_RVPO_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rvpo d", ["doctor", "demo", "diagnose"]),
        ("rvpo replay runs/x --method lif", ["lift", "lift_z"]),
        ("rvpo compare a b --measure la", ["last"]),
    ],
)
def test_the_shell_completes_commands_methods_and_choices(line: str, offered: list[str]):
    assert sorted(completed(line)) == sorted(offered)


def test_completion_knows_the_methods_of_the_registry():
    assert set(METHODS) == set(registry.METHODS)
    assert method_names("gdpo rvpo_") == ["gdpo rvpo_explicit"]
