"""Ctrl-C, SIGTERM and a kill in real commands: what is said, what is saved, and that the next command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from pathlib import Path

import pytest
from tiny_run import ON_CPU, warm_python

pytest.importorskip("trl")
pytest.importorskip("peft")
pytest.importorskip("psutil")

import psutil
from test_run import assert_same_run, metrics, write_inputs

from rvpo.engines.trl.run import train_recipe
from rvpo.recipe import load_recipe
from warm_python import Program

PATIENCE = 600
"""Seconds until a test gives up; none of them asserts how long something took."""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start ``python -m rvpo`` as a terminal does: a process group of its own, in which Ctrl-C is not ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "rvpo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | ON_CPU,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def start_warm(folder: Path, *arguments: str) -> Program:
    """Do the same in a process that has imported TRL already, so only for what happens later."""
    return warm_python().start(["-m", "rvpo", *arguments], cwd=folder)


def press(process: subprocess.Popen[str] | Program, number: int) -> tuple[int, str, str]:
    """Send Ctrl-C to the group, as a terminal does, or another signal to the process; return code, stdout, stderr.

    Fails if a process that the command has started lives on.
    """
    started = psutil.Process(process.pid).children(recursive=True)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    if isinstance(process, Program):
        code, out, err = process.wait(), process.stdout, process.stderr
    else:
        out, err = process.communicate(timeout=PATIENCE)
        code = process.returncode
    _, alive = psutil.wait_procs(started, timeout=PATIENCE)
    assert not alive
    return code, out, err


def read_until(process: subprocess.Popen[str], word: str) -> None:
    """Read what a command prints until a line has a word."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if word in line:
            return
    raise AssertionError(f"{word!r} was not printed: {seen} {process.communicate()}")


def wait_until(program: Program, holds: Callable[[], bool]) -> None:
    """Look again until something holds, while a program runs."""
    while not holds():
        assert program.poll() is None, (program.stdout, program.stderr)
        time.sleep(0.1)


# --- train ------------------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_interrupted_training_saves_its_last_step_and_goes_on(
    tiny_model_dir: Path, tmp_path: Path, number: int, code: int
):
    recipe = str(write_inputs(tmp_path, tiny_model_dir))
    slow = tmp_path / "slow.py"  # time for the signal to arrive in the middle of a step
    slow.write_text(
        "import time\n\n\ndef even(completion_ids, **_):\n    time.sleep(0.3)\n"
        "    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]\n"
    )
    settings = ["trainer.max_steps=8", "trainer.save_steps=100", f"rewards.0={slow}:even", "trainer.disable_tqdm=true"]
    process = start_warm(tmp_path, "train", recipe, *settings, "name=cut")
    wait_until(process, lambda: "step 2/8" in process.stdout)
    returned, _, err = press(process, number)
    assert returned == code, err
    assert "Traceback" not in err
    run = tmp_path / "runs" / "cut"
    (checkpoint,) = run.glob("checkpoint-*")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert f"interrupted: Stopped after step {step}, {checkpoint} is saved; the same command with --resume" in err
    assert [line["step"] for line in metrics(run)] == list(range(1, step + 1))

    train_recipe(load_recipe(recipe, [*settings, "name=cut"]), resume=True)
    assert_same_run(run, train_recipe(load_recipe(recipe, [*settings, "name=whole"])))


@pytest.mark.xdist_group("processes")
def test_interrupt_before_the_training(tiny_model_dir: Path, tmp_path: Path):
    (tmp_path / "waits.py").write_text(
        "import time\n\nprint('waiting', flush=True)\ntime.sleep(2000)\n\n\ndef even(**_):\n    return []\n"
    )
    recipe = str(write_inputs(tmp_path, tiny_model_dir))
    process = start_warm(tmp_path, "train", recipe, f"rewards.0={tmp_path}/waits.py:even", "name=early")
    wait_until(process, lambda: "waiting" in process.stdout)
    returned, _, err = press(process, signal.SIGINT)
    assert returned == 130
    assert err.strip() == "interrupted: nothing was trained yet; the same command with --resume starts again"


# --- check ------------------------------------------------------------------------------------------------------------

WAITS = """
import os, time

def adv(rewards, groups):
    if {where}:
        print("waiting", flush=True)
        {touch}
        time.sleep(2000)
    return rewards.sum(1) * 1.0
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_interrupted_check_leaves_no_process(tmp_path: Path, number: int, code: int):
    """While it waits for the processes of the multi-process check, which are in sessions of their own."""
    touch = "open(f\"waits_{os.environ['RANK']}\", 'w').close()"
    (tmp_path / "rule.py").write_text(WAITS.format(where="'RANK' in os.environ", touch=touch))
    process = start(tmp_path, "check", "rule.py:adv", "--seeds", "1")
    while not (tmp_path / "waits_1").exists():
        assert process.poll() is None, process.communicate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    returned, _, err = press(process, number)
    assert returned == code
    if code > 0:
        assert err.strip() == "interrupted: a check saves nothing before its end; the same command starts again"


def test_interrupted_check_in_the_function(tmp_path: Path):
    (tmp_path / "rule.py").write_text(WAITS.format(where="True", touch="pass"))
    process = start(tmp_path, "check", "rule.py:adv")
    read_until(process, "waiting")
    returned, _, err = press(process, signal.SIGINT)
    assert returned == 130
    assert err.strip() == "interrupted: a check saves nothing before its end; the same command starts again"


# --- quickstart -------------------------------------------------------------------------------------------------------

QUICKSTART = """
import sys
from rvpo.quickstart import cells, runner
from rvpo.quickstart.cells import Settings

if __name__ == "__main__":
    small = Settings(steps=int(sys.argv[1]), prompts=2, generations=4, evaluation_prompts=4)
    make = runner.run
    import rvpo.quickstart

    rvpo.quickstart.run = lambda out, **given: make(out, **{**given, "settings": small, "progress": True})
    sys.argv = ["rvpo", "quickstart", "--out", "out", "--seeds", "1", "--processes", "2", "--methods", "gdpo lift"]
    from rvpo.cli.app import main

    main()
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_interrupted_quickstart_ends_with_its_workers(tmp_path: Path, number: int, code: int):
    pytest.importorskip("matplotlib")
    (tmp_path / "quickstart.py").write_text(QUICKSTART)
    process = subprocess.Popen(
        [sys.executable, "quickstart.py", "100000"],  # would take hours
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | ON_CPU | {"TMPDIR": str(tmp_path / "tmp")},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    (tmp_path / "tmp").mkdir()
    # The first record of a run is there when a worker trains.
    while not list((tmp_path / "out" / "runs").glob("*/channels/*.parquet")):
        assert process.poll() is None, process.communicate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    returned, _, err = press(process, number)
    assert returned == code
    if code > 0:
        assert "interrupted: no run is finished yet; the same command continues" in err
        assert "Traceback" not in err


def test_interrupted_quickstart_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rvpo.quickstart import Settings, run, runner
    from rvpo.quickstart.cells import MOSTLY_MET

    small = Settings(steps=1, prompts=2, generations=4, evaluation_prompts=4)

    def after_one(futures: dict) -> Iterator[object]:
        yield next(as_completed(futures))
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "as_completed", after_one)
    call: Callable[[], object] = lambda: run(  # noqa: E731
        tmp_path, seeds=(0,), cells=(MOSTLY_MET,), settings=small, processes=1, progress=False
    )
    with pytest.raises(KeyboardInterrupt, match=r"1 of 3 runs are finished and saved .*; the same command continues"):
        call()
    monkeypatch.undo()
    assert len(list((tmp_path / "runs").glob("*.json"))) == 1
    assert call().resumed == 1


# --- judge and eval ---------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("processes")
def test_interrupted_judge_keeps_its_verdicts(tiny_model_dir: Path, tmp_path: Path):
    """With a model on this machine, whose batch in a thread nobody can stop."""
    rubric = {"criteria": [{"id": "c", "text": "Is it good?", "points": 1}]}
    rows = [{"prompt": f"q {i}", "completion": "a b", "rubric": rubric} for i in range(3000)]
    (tmp_path / "done.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["judge", "done.jsonl", "--judge", f"local:{tiny_model_dir}", "--out", "verdicts.parquet"]
    process = start_warm(tmp_path, *arguments)
    journal = tmp_path / "verdicts.parquet.journal.jsonl"
    wait_until(process, lambda: journal.exists() and len(journal.read_text().split("\n")) >= 20)
    returned, _, err = press(process, signal.SIGINT)
    assert returned == 130
    assert " of 3000 verdicts are saved; the same command asks for the others" in err
    assert "Traceback" not in err


@pytest.mark.xdist_group("processes")
def test_interrupted_eval_keeps_its_items(tiny_model_dir: Path, tmp_path: Path):
    pytest.importorskip("inspect_ai")
    rows = [{"prompt": f"what is {i}", "answer": "<think> x </think>"} for i in range(3000)]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["eval", "toolcall", str(tiny_model_dir), "--data", "held.jsonl", "--out", "items", "--max-tokens", "8"]
    process = start_warm(tmp_path, *arguments)
    wait_until(process, (tmp_path / "items" / "store.sqlite").exists)
    returned, _, err = press(process, signal.SIGTERM)
    assert returned == 143
    assert "interrupted: finished items are saved in items; the same command continues" in err
    assert "Traceback" not in err
