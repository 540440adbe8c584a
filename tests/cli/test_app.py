"""The command line as a user meets it: help, doctor, messages, and a run that is killed and resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import ON_CPU, warm_python
from typer.testing import CliRunner

import rvpo
from rvpo.cli.app import app, main

runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m rvpo`` on this checkout, on the CPU."""
    return subprocess.run(
        [sys.executable, "-m", "rvpo", *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=os.environ | ON_CPU | environment,
    )


# --- help and doctor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["train", "quickstart", "doctor", "2605.05750"]),
        ([], ["train", "quickstart", "doctor"]),
        (["train", "--help"], ["recipe", "key=value", "--resume", "GRPOConfig", "metrics.jsonl"]),
        (["verl-data", "--help"], ["recipe", "key=value", "--out", "eval_data", "data.train_files", "parquet"]),
        (
            ["quickstart", "--help"],
            ["--out", "--seeds", "--processes", "--methods", "my_rules.py:cvar", "three minutes"],
        ),
        (["doctor", "--help"], ["what works on this machine"]),
    ],
)
def test_help(arguments: list[str], words: list[str]):
    result = runner.invoke(app, arguments)
    assert result.exit_code == (0 if arguments else 2)  # click: no command is a usage error, which shows the help
    text = re.sub(r"\x1b\[[0-9;]*m|[│\s]+", " ", result.output)
    for word in words:
        assert word in text


def test_help_waits_for_nothing_heavy():
    code = """
import sys
from typer.testing import CliRunner
from rvpo.cli.app import app
assert all(CliRunner().invoke(app, [*name, "--help"]).exit_code == 0 for name in ([], ["train"], ["quickstart"]))
print(sorted({"torch", "numpy", "trl", "transformers", "datasets", "yaml"} & set(sys.modules)))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_doctor():
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert re.search(rf"^rvpo +{re.escape(rvpo.__version__)}$", result.output, re.MULTILINE)
    assert re.search(r"^torch +\d", result.output, re.MULTILINE)
    assert re.search(r"^GPU +\S", result.output, re.MULTILINE)
    assert re.search(r"^rvpo\.advantages .* works$", result.output, re.MULTILINE)
    for line in result.output.splitlines():
        if "missing" in line:
            assert re.search(r"missing [\w, -]+: (in an environment of its own, )?pip install .*'[.\w\[\],]+'$", line)


# --- errors -----------------------------------------------------------------------------------------------------------

RECIPE = "name: a\nmodel: {path: m}\ndata: {path: d.jsonl}\nrewards: [format]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml"], "error: recipe none.yaml: cannot be read (No such file or directory); check the path"),
        (["recipe.yaml", "seed=x"], "error: recipe.yaml cannot work:\n  seed: Input should be a valid integer"),
        (["recipe.yaml", "seed"], "error: override 'seed' is not key=value"),
    ],
)
def test_error_is_a_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    """Exit code 2 and one paragraph on stderr."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rvpo", "train", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out) == (2, "")
    assert printed.err.startswith(message)
    assert "\n\n" not in printed.err


def test_error_has_no_traceback():
    """In a process of its own, for nothing here catches what the interpreter would print."""
    done = command("train", "none.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: recipe none.yaml: cannot be read (No such file or directory); check the path\n"


def test_usage_error():
    result = runner.invoke(app, ["train"])
    assert result.exit_code == 2
    result = runner.invoke(app, ["train", "a.yaml", "--resum"])
    assert result.exit_code == 2
    assert "--resume" in result.output


# --- killed and resumed -----------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("processes")
def test_killed_run_ends_where_the_uninterrupted_one_does(tiny_model_dir: Path, tmp_path: Path):
    """SIGKILL while step 4 is scored, behind the checkpoint of step 3; the same command with --resume goes on."""
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    from test_run import assert_same_run, metrics, write_inputs

    from rvpo.engines.trl.run import train_recipe
    from rvpo.recipe import load_recipe

    recipe = str(write_inputs(tmp_path, tiny_model_dir))
    # Two updates a generation: the checkpoint falls between them.
    settings = ["trainer.max_steps=6", "trainer.save_steps=3", "trainer.num_iterations=2", "trainer.disable_tqdm=false"]
    run = tmp_path / "runs" / "killed"

    command = ["-m", "rvpo", "train", recipe, *settings, "name=killed"]
    killed = warm_python().start(command, {"KILL_AT_STEP": "4"})
    assert killed.wait() == -signal.SIGKILL, killed.stderr
    assert (run / "checkpoint-3" / "trainer_state.json").exists()
    assert len(metrics(run)) == 4
    assert not (run / "model").exists()

    resumed = warm_python().start([*command, "--resume"])
    assert resumed.wait() == 0, resumed.stderr
    assert_same_run(run, train_recipe(load_recipe(recipe, settings)))
    assert [line["step"] for line in metrics(run)] == [1, 2, 3, 4, 5, 6, 6]

    # What the user saw: a short line a step, and the place of the model.
    shown = resumed.stdout.splitlines()
    assert [line.split()[1] for line in shown if line.startswith("step")] == ["4/6", "5/6", "6/6", "6/6"]
    assert shown[-1] == f"done: {run}"
    assert "FutureWarning" not in killed.stderr + resumed.stderr
    assert "Loading weights" not in killed.stderr + resumed.stderr
