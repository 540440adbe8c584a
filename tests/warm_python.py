"""Programs in processes that need not import their libraries: they are forked from one that has imported them.

Importing TRL takes seconds, and a test of two processes spends nearly all of its time on it, in each of them.
``WarmPython`` starts one process that imports chosen modules once. It is forked for each program, which then runs in a
process of its own: with its own memory, environment, session, output and exit status, ended by its own signals.

    python warm_python.py MODULE ...

This server reads one order per line from its standard input, and answers with one line of JSON.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

PATIENCE = 900
"""Seconds until programs are stopped, which no test may need."""

Order = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """A program that runs, or has ended.

    Attributes:
        pid: its process.
        place: start of the names of the files with its output.
        warm: what it was started by.
    """

    pid: int
    place: str
    warm: WarmPython

    @property
    def stdout(self) -> str:
        """What it has written to its standard output."""
        return Path(self.place + ".out").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has written to its standard error."""
        return Path(self.place + ".err").read_text(errors="replace")

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        return self.warm.ask({"poll": self.pid})

    def wait(self) -> int:
        """Wait until it ends, and return the exit status."""
        return self.warm.ask({"wait": [self.pid]})[0]


class WarmPython:
    """A process that has imported modules, and is forked for each program.

    Args:
        modules: what it imports. They must not start threads: a fork has only the thread that forked.
        path: folders in which modules are searched.
        environment: variables of the imports and of all programs.
    """

    def __init__(self, modules: Sequence[str], path: Sequence[Path], environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "PYTHONPATH": os.pathsep.join(map(str, path))}
        self._folder = tempfile.TemporaryDirectory(prefix="warm-python-")
        self._started = 0
        self._server = subprocess.Popen(
            [sys.executable, __file__, *modules],
            env=os.environ | self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C ends the tests, and then they end the server
        )

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Program:
        """Start ``python ARGUMENTS`` (a script, or ``-m module``) with further variables, in a folder."""
        place = str(Path(self._folder.name) / str(self._started))
        self._started += 1
        for end in (".out", ".err"):
            Path(place + end).touch()
        variables = os.environ | self._environment | dict(environment or {})
        order = {"arguments": list(arguments), "variables": variables, "place": place, "cwd": str(cwd or Path.cwd())}
        return Program(self.ask({"start": order}), place, self)

    def run(self, arguments: Sequence[str], environments: Sequence[Mapping[str, str]]) -> list[Program]:
        """Run a program once per environment, all at the same time, until they end.

        If one of them fails, the others are killed: they may wait for it.
        """
        programs = [self.start(arguments, environment) for environment in environments]
        self.ask({"wait": [program.pid for program in programs]})
        return programs

    def ask(self, order: Order) -> Any:
        """Give an order to the server, and return its answer."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        watch = threading.Timer(PATIENCE, self.end)
        watch.start()
        answer = self._server.stdout.readline()
        watch.cancel()
        assert answer, f"the server of warm processes has ended, or had to be ended after {PATIENCE} s"
        return json.loads(answer)

    def end(self) -> None:
        """End the server, and with it its programs."""
        self._server.kill()
        self._server.wait()
        self._folder.cleanup()


# --- in the server ----------------------------------------------------------------------------------------------------


def _serve(orders: TextIO, answers: TextIO) -> Order | None:
    """Follow orders. Return in the server at their end, and in each fork with the order of its program."""
    codes: dict[int, int | None] = {}
    for line in orders:
        [(verb, what)] = json.loads(line).items()
        answer: Any
        if verb == "start":
            sys.stdout.flush()
            answer = os.fork()
            if answer == 0:
                return what
            codes[answer] = None
        elif verb == "poll":
            if codes[what] is None:
                pid, status = os.waitpid(what, os.WNOHANG)
                codes[what] = os.waitstatus_to_exitcode(status) if pid else None
            answer = codes[what]
        else:
            while any(codes[pid] is None for pid in what):
                pid, status = os.wait()
                codes[pid] = os.waitstatus_to_exitcode(status)
                if codes[pid]:
                    for other in what:
                        if codes[other] is None:
                            os.kill(other, signal.SIGKILL)
            answer = [codes[pid] for pid in what]
        print(json.dumps(answer), file=answers, flush=True)
    return None


def _become(arguments: list[str], variables: dict[str, str], place: str, cwd: str) -> None:
    """Turn this fork into ``python ARGUMENTS``."""
    _end_with_parent()
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, mode, number in ((os.devnull, "rb", 0), (place + ".out", "wb", 1), (place + ".err", "wb", 2)):
        with Path(name).open(mode) as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, cwd)
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")


def _end_with_parent() -> None:
    """Have Linux kill this process when the one that started it ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> None:
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is not an answer
    sys.path.pop(0)  # the folder of this file: PYTHONPATH alone says where modules lie
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # else a fork's first collection would copy all memory
    order = _serve(sys.stdin, answers)
    if order is not None:
        answers.close()
        _become(**order)


if __name__ == "__main__":
    main()
