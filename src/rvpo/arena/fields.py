"""The fields: tasks in which rules are trained, each with one way to train what is missing and to read what is there.

The regimes and the worlds are folders of scripts: ``run.py --output FOLDER --methods "A B" …`` trains, ``scores.py
FOLDER`` prints a line of JSON for each run. In a checkout they lie in ``benchmarks/``, in an installed package beside
this file. The quickstart is the command of that name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError

RATE = 2e-3  # learning rate of the regimes; the worlds and the quickstart have their own
FIRST_SEED = 100  # of the regimes: their task was tuned on seeds below it


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        cell: regime, world or start.
        method: its text, or the name of an oracle.
        rate: learning rate.
        seed: paired between methods: same start, same random numbers.
        auc: each channel's mean over training, and of these the lowest.
        final: the lowest channel at the end.
    """

    cell: str
    method: str
    rate: float
    seed: int
    auc: float
    final: float


@dataclass(frozen=True)
class Scripts:
    """A field of scripts.

    Attributes:
        name: of their folder.
        about: one line for people.
        option: of ``run.py``, with which cells are named.
        arguments: further ones of ``run.py``.
        first_seed: number of the first seed.
        lists_seeds: whether ``run.py`` takes seeds one by one, and not their number.
    """

    name: str
    about: str
    option: str
    arguments: tuple[str, ...] = ()
    first_seed: int = 0
    lists_seeds: bool = False

    @property
    def folder(self) -> Path:
        """Where the scripts lie.

        Raises:
            ConfigError: nowhere.
        """
        here = Path(__file__).resolve().parent
        for folder in (here / self.name, here.parents[2] / "benchmarks" / self.name):
            if (folder / "run.py").exists():
                return folder
        raise ConfigError(f"the scripts of the field {self.name!r} are not installed; expected them in {here}")

    def train(self, output: Path, methods: Sequence[str], seeds: int, cells: Sequence[str], parallel: int) -> None:
        """Train what is missing in a folder, and print the progress.

        Raises:
            ConfigError: the script refuses something; what it says has been printed.
        """
        numbers = [str(self.first_seed + seed) for seed in range(seeds)] if self.lists_seeds else [str(seeds)]
        command = [str(self.folder / "run.py"), "--output", str(output), "--methods", " ".join(methods)]
        command += ["--parallel", str(parallel), *self.arguments, "--seeds", *numbers]
        command += [self.option, *cells] if cells else []
        _call(command, self.name)

    def cells(self, chosen: Sequence[str]) -> list[str]:
        """Return the names of the cells that are chosen, all by default.

        Raises:
            ConfigError: a name is unknown; what the script says has been printed.
        """
        command = [str(self.folder / "run.py"), "--list", *([self.option, *chosen] if chosen else [])]
        return _call(command, self.name, capture=True).splitlines()

    def read(self, output: Path) -> list[Run]:
        """Return what was recorded in a folder.

        Raises:
            ConfigError: it holds something else.
        """
        if not output.exists():
            return []
        command = [sys.executable, str(self.folder / "scores.py"), str(output)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own script
        if done.returncode:
            said = done.stderr.strip().rsplit("\n", 1)[-1]
            raise ConfigError(f"the records in {output} cannot be read ({said}); expected those of `rvpo arena`")
        return [Run(**json.loads(line)) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Quickstart:
    """The two starts of ``rvpo quickstart``: a small language model in a real TRL trainer."""

    name: str = "quickstart"
    about: str = "two starts of a small language model, trained by TRL"
    first_seed: int = 0
    folder: Path = Path(__file__).resolve().parents[1] / "quickstart"

    def train(self, output: Path, methods: Sequence[str], seeds: int, cells: Sequence[str], parallel: int) -> None:
        """Train what is missing in a folder, and print the progress. Its starts cannot be chosen."""
        command = ["-m", "rvpo", "quickstart", "--out", str(output), "--methods", " ".join(methods)]
        _call([*command, "--seeds", str(seeds), "--processes", str(parallel)], self.name)

    def cells(self, chosen: Sequence[str]) -> list[str]:
        """Return the names of the starts."""
        from rvpo.quickstart.cells import CELLS

        return [cell.name for cell in CELLS]

    def read(self, output: Path) -> list[Run]:
        """Return what was recorded in a folder."""
        runs = []
        for path in sorted((output / "runs").glob("*.json")):
            content: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
            told = content["fingerprint"]
            means = [sum(curve) / len(curve) for curve in content["curve"].values()]
            method, rate = told["method"]["method"], told["settings"]["learning_rate"]
            final = min(content["end"].values())
            runs.append(Run(content["cell"], method, rate, content["seed"], min(means), final))
        return runs


def _call(command: Sequence[str], name: str, capture: bool = False) -> str:
    """Run a command of ours, and return what it printed if that is captured."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    stdout = subprocess.PIPE if capture else None
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, *command], check=False, env=environment, stdout=stdout, text=True
    )
    if done.returncode:
        raise ConfigError(f"the field {name!r} ended with code {done.returncode}; see what it said above")
    return done.stdout or ""


FIELDS: Mapping[str, Scripts | Quickstart] = {
    "regimes": Scripts(
        "regimes",
        "28 regimes of a language model of 12,000 weights, whose format stands against its content",
        "--cells",
        ("--lrs", str(RATE)),
        FIRST_SEED,
        lists_seeds=True,
    ),
    "worlds": Scripts("worlds", "74 small worlds with exact oracles", "--worlds"),
    "quickstart": Quickstart(),
}
