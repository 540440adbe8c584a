"""Signals in a process of its own: it ends, says what it kept, and is never cut in half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rvpo

PATIENCE = 300
"""Seconds until a test gives up; none of them asserts how long something took."""

SCRIPT = """
import sys, threading, time
import typer
from rvpo import interrupts
from rvpo.cli.interruptible import interruptible

app = typer.Typer()

def wait():
    print("ready", flush=True)
    end = time.monotonic() + 10_000
    while time.monotonic() < end:
        time.sleep(0.01)

@interruptible
def command():
    {body}

app.command()(command)
app()
"""

# name: (body of the command, what it says)
BODIES = {
    "plain": ("wait()", "interrupted: nothing was changed; the same command starts again"),
    "says": (
        "with interrupts.says(lambda: '3 of 9 are saved'):\n        wait()",
        "interrupted: 3 of 9 are saved",
    ),
    "the innermost block knows best": (
        "with interrupts.says(lambda: 'outer'), interrupts.says(lambda: 'inner'):\n        wait()",
        "interrupted: inner",
    ),
    "hostile names": (
        "with interrupts.says(lambda: 'saved in \\x1b[31mred'):\n        wait()",
        "interrupted: saved in \ufffd[31mred",
    ),
    "swallowed": (
        "with interrupts.says(lambda: 'kept'):\n"
        "        while True:\n            try:\n                wait()\n"
        "            except BaseException:\n                pass",
        "interrupted: kept",
    ),
    "a thread that does not end": (
        "threading.Thread(target=time.sleep, args=(10_000,)).start()\n    wait()",
        "interrupted",
    ),
    "a slow end of the interpreter": (
        "import atexit\n    atexit.register(time.sleep, 10_000)\n    wait()",
        "interrupted",
    ),
    "an asyncio loop with a slow thread": (
        "import asyncio\n    async def main():\n        print('ready', flush=True)\n"
        "        await asyncio.to_thread(time.sleep, 10_000)\n"
        "    with interrupts.says(lambda: 'kept'):\n        asyncio.run(main())",
        "interrupted: kept",
    ),
}


def start(body: str, *, ignored: bool = False, **environment: str) -> subprocess.Popen[str]:
    """Start a command and wait until it is ready. Tests may run where SIGINT is ignored, as in the background."""

    def restore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)

    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("{body}", body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1])} | environment,
        start_new_session=True,
        preexec_fn=restore,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate(timeout=PATIENCE)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", BODIES)
def test_ends_and_says_what_is_kept(name: str, number: int, code: int):
    body, told = BODIES[name]
    process = start(body)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert err.strip().startswith(told)
    assert err.count("interrupted") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("held", "end"),
    [
        ("interrupts.hold()", "interrupts.release()"),
        ("interrupts.hold(); interrupts.hold()", "interrupts.release()"),
        ("interrupts.hold(); interrupts.release(); interrupts.hold()", "interrupts.release()"),
    ],
)
def test_what_must_be_whole_is_finished_first(held: str, end: str):
    body = f"""{held}
    print("ready", flush=True)
    while not interrupts._waiting:
        time.sleep(0.01)
    print("whole", flush=True)
    {end}
    print("not reached", flush=True)"""
    process = start(body)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "whole\n"), err


def test_time_to_save_is_given():
    """Longer than a command may otherwise take to end."""
    body = """try:
        wait()
    except KeyboardInterrupt:
        with interrupts.saving():
            time.sleep(interrupts.SECONDS + 1)
        raise KeyboardInterrupt("saved it all") from None"""
    process = start(body)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.strip() == "interrupted: saved it all"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_kills(number: int):
    body = """try:
        wait()
    except KeyboardInterrupt:
        with interrupts.saving():
            time.sleep(interrupts._ONE_PRESS)
            wait()"""
    process = start(body)
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    assert "Traceback" not in err


def test_one_press_that_arrives_twice_is_one():
    """Launchers pass on what their child, in the same group, has got already."""
    body = """try:
        wait()
    except KeyboardInterrupt:
        interrupts._ONE_PRESS = 50
        with interrupts.saving():
            print("saving", flush=True)
            while not sys.stdin.readline():
                pass
        raise KeyboardInterrupt("saved") from None"""
    process = start(body.replace("while not sys.stdin.readline():\n                pass", "time.sleep(1)"))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.strip()) == (130, "interrupted: saved")


def test_an_ignored_signal_stays_ignored():
    """As of a command in the background of a script, whose terminal sends Ctrl-C to others."""
    body = """import signal
    print("ready", flush=True)
    print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, flush=True)"""
    process = start(body, ignored=True)
    assert process.stdout is not None
    assert process.stdout.read() == "True\n"
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("processes", "code"), [("1", 143), ("2", -signal.SIGTERM)])
def test_one_of_several_processes_leaves_sigterm_to_its_launcher(processes: str, code: int):
    process = start("wait()", WORLD_SIZE=processes)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == code


@pytest.mark.parametrize(("rank", "told"), [("0", True), ("1", False), ("7", False)])
def test_only_the_first_process_speaks(rank: str, told: bool):
    process = start("wait()", RANK=rank, WORLD_SIZE="8")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert ("interrupted" in err) == told
